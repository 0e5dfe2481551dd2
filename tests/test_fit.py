"""Training accuracy, measured: against plain PyTorch, without touching what is trained; and which claims rest on it."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from lthcore import data, lottery
from lthcore.methods import PROBES, function
from lthcore.models import build
from lthcore.results import rules
from lthcore.runs.presets import configure
from lthcore.studies import REGISTRY, claims, experiments

STUDIES = ("mlp_fit", "lenet5_fit")
FEW = {"epochs": 6, "batch_size": 500, "validation": 0.4, "test_images": 300, "levels": (0, 1), "rounds": 1}


def chain(name, **settings):
    config = configure(name, "report", **FEW | settings)
    return next(iter(REGISTRY[name].arms(config, REGISTRY[name].first)))


def train_rows(trained):
    """Step -> {metric: value} of the training images."""
    rows = {}
    for step, _, split, metric, value in trained.rows:
        if split == "train":
            rows.setdefault(step, {})[metric] = value
    return rows


@pytest.mark.slow
@pytest.mark.parametrize(("name", "bound"), [("mlp_fit", 0), ("lenet5_fit", 300)])
def test_it_is_what_pytorch_finds_on_the_same_images_at_the_same_steps(name, bound):
    unit = chain(name, test_images=bound)
    load = data.load
    trained = next(lottery.find_ticket(unit, load))
    split = load(unit)
    images, labels = (part[split.chosen[: bound or None]] for part in split.train)
    weights = dict(trained.epochs)
    rows = train_rows(trained)
    tested = [row for row in trained.rows if row[2:4] == ("test", "accuracy")]
    steps = sorted({step for step, epoch, *_ in tested if epoch % 1 == 0})[-2:]  # a fifth of six epochs, rounded up
    assert sorted(rows) == steps
    network = build(unit.config.model)
    for step in steps:
        network.load_state_dict(weights[step])
        with torch.no_grad():
            logits = network(images).double()
        assert rows[step]["accuracy"] == pytest.approx(
            100 * (logits.argmax(1) == labels).double().mean().item(), abs=0.01
        )
        assert rows[step]["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
    epochs = {row[1] for row in trained.rows if row[2] == "train"}
    assert epochs == {row[1] for row in tested if row[0] in steps}


@pytest.mark.slow
def test_what_is_trained_and_pruned_is_the_same_without_it():
    unit = chain("mlp_fit")
    with_it = list(lottery.find_ticket(unit, data.load))
    without = list(lottery.find_ticket(replace(unit, probes=()), data.load))
    for one, other in zip(with_it, without, strict=True):
        assert [row for row in one.rows if row[2] != "train"] == other.rows
        assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
        assert all(torch.equal(m, other.mask[name]) for name, m in one.mask.items())
        assert train_rows(one) and not train_rows(other) and one.epochs and not other.epochs


@pytest.mark.slow
def test_a_probe_says_itself_that_it_needs_every_epoch(monkeypatch):
    """So one of a user's own is given them too, by the one line that registers it."""
    seen = []

    def every_epoch(unit, trained, data):
        seen.append(len(trained.epochs))
        return []

    every_epoch.each_epoch = True
    monkeypatch.setitem(PROBES, "every_epoch", every_epoch)
    unit = replace(chain("mlp_fit", max_steps=3), probes=("every_epoch",))
    next(lottery.find_ticket(unit, data.load))
    every_epoch.each_epoch = False
    next(lottery.find_ticket(unit, data.load))
    assert seen == [2, 0]  # at the start and at the end of a training that is cut within its first epoch
    assert [name for name in PROBES if getattr(function(PROBES[name]), "each_epoch", False)] == [
        "fit",
        "signs",
        "clear_signs",
    ]


def test_a_claim_is_decided_by_one_study_on_replicates_that_chose_nothing():
    by_id = {rule.id: rule for rule in rules.REPORT}
    decided = [claim for record in REGISTRY.values() for claim in record.decides]
    assert len(set(decided)) == len(decided) and set(decided) <= set(by_id)
    for name, record in REGISTRY.items():
        judged = [id for id, rule in by_id.items() if claims.DECIDED_IN.get(id, rule.experiment) == name]
        if record.group != "report":
            seen = {r for id in judged for r in by_id[id].exploratory}
            others = {unit.replicate for unit in experiments.study(name, "report").units} - seen
            assert not judged or len(others) == rules.DECIDING, name


@pytest.mark.parametrize("name", [*STUDIES, "lenet5_relu", "task3_sgd"])
def test_the_levels_of_its_rule_are_trained(name):
    study = experiments.study(name, "report")
    there = {(unit.arm, level) for unit in study.units for level in unit.levels}
    (rule,) = (r for r in rules.REPORT if claims.DECIDED_IN.get(r.id, r.experiment) == name)
    for part in (*rule.parts, *rule.refuted_at):
        assert {part.first, part.second or part.first} <= there
    (answered,) = (record.answer.claim for record in [REGISTRY[name]])
    assert answered == rule.id
