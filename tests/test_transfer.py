"""Tickets that are trained on other data, with another optimizer or on other labels than they were found on."""

import os

os.environ["MPLBACKEND"] = "Agg"
import numpy as np
import pytest
import torch
from alone import eight_epochs as recipe
from alone import few_of_all as few
from alone import train

from lthcore import data, lottery
from lthcore.config import configure
from lthcore.data import whole
from lthcore.models import initial
from lthcore.pruning import dense_mask
from lthcore.runs import download, presets
from lthcore.studies import experiments, transfer
from lthcore.train import steps_per_epoch, total_steps
from lthcore.unit import Altered, Fresh, MaskOf, Theta0, Unit

FRESH_HEAD = Altered("fresh_head", transfer.__name__)

KEYS = {"level": 0, "replicate": 0, "subset": "full"}


def test_which_arm_takes_which_mask():
    """arm -> (mask of, data set, labels and images, optimizer, start, mask)."""
    units = [unit for unit in experiments.study("transfer", "report").units if unit.replicate == 1]
    seen = {
        u.arm: (
            None if u.prunes else u.chain.arm, u.config.dataset, u.subset, u.config.optimizer, u.start.name, u.mask.name
        ) for u in units
    }  # fmt: skip
    full = ("mnist", "full", "adam", "theta0", "ticket")
    assert seen["mnist"] == (None, *full)
    assert seen["fashion_on_mnist"] == ("fashion", *full)
    assert seen["mnist_on_fashion"] == ("mnist", "fashion", "full", "adam", "theta0", "ticket")
    assert seen["momentum_on_mnist"] == ("momentum", *full)
    assert seen["mnist_on_momentum"] == ("mnist", "mnist", "full", "sgd", "theta0", "ticket")
    for subset in ("half1", "fifth", "tenth", "labels0-4", "labels0-1"):
        assert seen[subset] == (None, "mnist", subset, "adam", "theta0", "ticket")
        assert seen[f"{subset}_on_mnist"] == (subset, *full)
    for mask in ("labels0-4", "labels5-9"):
        assert seen[f"{mask}_fresh_head"] == (mask, "mnist", "labels5-9", "adam", "fresh_head", "ticket")
    for on in ("mnist", "fashion", "momentum", "labels5-9"):
        trained = seen[on][1:4]
        assert seen[f"random_mask_on_{on}"] == (on, *trained, "theta0", "random")
        assert seen[f"random_reinit_on_{on}"] == (on, *trained, "reinit", "ticket")
    assert len(seen) == len(units) == 29
    assert {u.levels for u in units if not u.prunes} == {(3, 4, 5, 6, 7)}
    assert all(u.config.schedule[7]["head"] == 1000 for u in units)  # the head is spared: its density is 1
    assert len(experiments.study("transfer", "report", controls=False).units) == 3 * (29 - 8)


def test_chains_on_less_data_take_as_many_steps():
    taken = {}
    for unit in experiments.study("transfer", "report", replicates=1).units:
        if unit.prunes and unit.config.dataset == "mnist":
            images = download.sizes(unit.config, unit.subset)[0]
            taken[unit.subset] = total_steps(unit.config, images)
            assert steps_per_epoch(unit.config, images) * unit.config.epochs == taken[unit.subset]
    assert set(taken) == {"full", *transfer.SAME_STEPS}
    assert all(abs(steps / taken["full"] - 1) < 0.06 for steps in taken.values())


@pytest.mark.parametrize(("one", "other", "disjoint"), [("half1", "labels0-4", 0.02), ("fifth", "labels0-1", 0.06)])
def test_fewer_classes_have_as_many_images(one, other, disjoint):
    labels = whole()["train"][1].numpy()
    sizes, classes = [], []
    for subset in (one, other):
        parts = data.split_indices(labels, labels[:50], subset, 1 / 12, 0, "transfer", 0)
        chosen = np.concatenate(parts[:2])
        assert len(np.unique(chosen)) == len(chosen)
        sizes.append(len(chosen))
        classes.append(len(np.unique(labels[chosen])))
    assert abs(sizes[1] / sizes[0] - 1) < disjoint and classes[0] == 10 > classes[1]


def test_a_fresh_head_is_the_only_thing_that_is_fresh():
    config = recipe("transfer", levels=(0, 5, 7))
    taken = {"mask": MaskOf(Unit(config, "labels5-9", 1, "labels5-9")), "levels": (5, 7)}
    starts = {
        start.name: lottery.starting_values(Unit(config, "x", 1, start=start, **taken), 5, None)[0]
        for start in (Theta0(), Fresh(), FRESH_HEAD)
    }
    for name, value in starts["fresh_head"].items():
        start = "reinit" if name.startswith("head") else "theta0"
        assert torch.equal(value, starts[start][name]), name
    assert not torch.equal(starts["theta0"]["head.weight"], starts["reinit"]["head.weight"])
    later = lottery.starting_values(Unit(config, "x", 1, start=FRESH_HEAD, **taken), 7, None)[0]
    assert not torch.equal(later["head.weight"], starts["fresh_head"]["head.weight"])


@pytest.mark.parametrize("start", [Theta0(), FRESH_HEAD], ids=lambda start: start.name)
def test_a_mask_of_another_data_set_brings_its_own_early_values(start):
    """Rewound to step 3 of the chain's training: on the chain's data, not on the borrower's."""
    config = recipe("transfer", levels=(0, 5, 7), rewind_step=3)
    fashion = Unit(
        configure(
            "transfer",
            "smoke",
            **{
                **{k: v for k, v in presets.table(config).items() if k not in ("experiment", "preset")},
                "dataset": "fashion",
            },
        ),
        "fashion",
        0,
    )
    unit = Unit(config, "fashion_on_mnist", 0, mask=MaskOf(fashion), start=start, levels=(5,))
    asked = []

    def load(unit):
        asked.append(unit.config.dataset)
        return few(1000 if unit.config.dataset == "fashion" else 0)

    (result,) = lottery.train_level([unit], 5, [dense_mask("mlp")], load)
    theirs = train(initial("mlp", 0, "theta0", 0), dense_mask("mlp"), few(1000), fashion.config, **KEYS, last=3).weights
    assert set(asked) == {"mnist", "fashion"}
    for name, value in theirs.items():
        assert torch.equal(result.start[name], value) == (start == Theta0() or not name.startswith("head")), name
