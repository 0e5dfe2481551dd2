"""Masks of early epochs; the claims and figures of transfer and of early-bird tickets."""

import itertools
import os

os.environ["MPLBACKEND"] = "Agg"
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from alone import eight_epochs as recipe
from alone import few_of_all as few
from alone import find_ticket, train, train_and_prune, train_together
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lthcore import data, lottery, pruning
from lthcore import train as loop
from lthcore.engines import BATCHED
from lthcore.models import initial
from lthcore.probes import early_bird as probe
from lthcore.pruning import dense_mask
from lthcore.results import statistics
from lthcore.runs import store, sweep
from lthcore.studies import claims, early_bird, experiments
from lthcore.unit import MaskOf, Unit

KEYS = {"level": 0, "replicate": 0, "subset": "full"}


def kept_at(weights, config, level):
    """The largest magnitudes of each layer, as many as counted, by numpy: dict of bool array."""
    out = {}
    for name, count in config.schedule[level].items():
        size = np.abs(weights[f"{name}.weight"].numpy())
        out[name] = size >= np.sort(size, axis=None)[size.size - count]
    return out


def share(one, other):
    return np.mean(np.concatenate([(one[name] != other[name]).ravel() for name in one]))


def test_the_distance_by_chance_is_the_mean_over_all_pairs():
    for n, k in ((4, 1), (5, 2), (6, 6), (6, 0)):
        masks = [torch.tensor([i in kept for i in range(n)]) for kept in itertools.combinations(range(n), k)]
        far = [probe.mask_distance({"a": x}, {"a": y}) for x in masks for y in masks]
        assert probe.chance_distance({"a": masks[0]}) == pytest.approx(np.mean(far))
    ends = {"a": torch.tensor([True, False]), "b": torch.ones(6, dtype=torch.bool)}
    assert probe.mask_distance(ends, {"a": ~ends["a"], "b": ends["b"]}) == 2 / 8
    assert probe.chance_distance(ends) == 1 / 8


def test_the_distance_of_two_random_masks_is_that_of_chance():
    full = {name: torch.rand(m.shape) < 0.1 for name, m in dense_mask("mlp").items()}
    one, other = (pruning.random_mask(full, "mlp", 0, replicate) for replicate in (0, 1))
    assert probe.mask_distance(one, other) == pytest.approx(probe.chance_distance(full), rel=0.02)


def test_below_five_percent_no_two_masks_differ_by_a_tenth():
    d = statistics.loose_below(0.1)
    assert 2 * d * (1 - d) == pytest.approx(0.1) and d == pytest.approx(0.0528, abs=5e-5)
    disjoint = {"a": torch.arange(1000) < 49}, {"a": torch.arange(1000) >= 951}  # disjoint, the farthest two can be
    assert probe.mask_distance(*disjoint) < 0.1


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_an_early_epoch_is_the_first_after_which_the_last_five_agree(data):
    epochs = data.draw(st.integers(1, 12))
    square = data.draw(arrays.arrays(float, (epochs + 1, epochs + 1), elements=st.sampled_from([0.0, 0.05, 0.2])))
    square = np.maximum(square, square.T)

    def agree(epoch):
        last = range(epoch - 4, epoch + 1)
        return last[0] >= 1 and all(square[i, j] < 0.1 for i in last for j in last)

    expected = [epoch for epoch in range(1, epochs + 1) if agree(epoch)]
    assert probe.early_bird(square, 0.1) == (expected or [epochs])[0]


@pytest.mark.parametrize("engine", ["sparse", "lockstep"])
def test_the_values_of_each_epoch_are_those_of_a_training_that_ends_there(engine, monkeypatch):
    config, values, mask = recipe(epochs=3), initial("mlp", 0, "theta0", 0), dense_mask("mlp")
    if engine == "lockstep":
        monkeypatch.setattr(loop, "choose_engine", lambda *_: BATCHED)
    seen = {}
    keys = {"level": 0, "replicates": [0], "subset": "full"}
    handed, plain = (
        train_together([values], [mask], [few()], config, **keys, each_epoch=hook)[0]
        for hook in (lambda step, v: seen.update({step: v}), None)
    )
    assert list(seen) == [0, 4, 8, 12]
    assert handed.rows == plain.rows and all(torch.equal(v, plain.weights[n]) for n, v in handed.weights.items())
    for step, at in seen.items():
        ended = train(values, mask, few(), config, **KEYS, last=step).weights if step else values
        assert all(torch.equal(v[0].cpu(), ended[n]) for n, v in at.items()), step


def test_a_training_from_and_to_the_middle_of_an_epoch_hands_out_its_ends():
    seen = []
    keys = {"level": 1, "replicates": [0], "subset": "full", "first": 2, "last": 9}
    hook = {"each_epoch": lambda step, _: seen.append(step)}
    train_together([initial("mlp", 0, "theta0", 0)], [dense_mask("mlp")], [few()], recipe(), **keys, **hook)
    assert seen == [2, 4, 8, 9]


@pytest.fixture(scope="module")
def epochs():
    """The final weights of trainings of level 0 that end after 0, 1, ... 8 epochs."""
    theta0 = initial("mlp", 0, "theta0", 0)
    ends = [train(theta0, dense_mask("mlp"), few(), recipe(), **KEYS, last=4 * e).weights for e in range(1, 9)]
    return [theta0, *ends]


def level_0(threshold, level=2):
    config = recipe(levels=(0, level), early_bird=threshold)
    return config, train_and_prune(Unit(config, "early", 0), 0, dense_mask("mlp"), lambda _: few())


@pytest.mark.slow
def test_an_early_mask_is_that_of_a_training_that_ended_early(epochs):
    masks = [kept_at(weights, recipe(), 2) for weights in epochs]
    square = np.array([[share(a, b) for b in masks] for a in masks])
    last = [square[e - 4 : e + 1, e - 4 : e + 1].max() for e in range(5, 9)]  # after epochs 5, 6, 7 and 8
    threshold = float(np.nextafter(last[1], 1))
    assert threshold < last[0]  # so that it is epoch 6, neither the first possible one nor the last
    config, result = level_0(threshold)
    assert all((result.next_mask[name].numpy() == masks[6][name]).all() for name in masks[6])
    rows = pd.DataFrame(
        [("early", 0, 0, *row) for row in result.rows], columns=["arm", "replicate", "level", *store.ROWS]
    )
    found = statistics.mask_distances(rows, 2)
    assert found.index.tolist() == found.columns.tolist() == list(range(9))
    assert np.allclose(found, square, rtol=0, atol=1e-12)
    epoch, saved = statistics.drawn(rows, "early", 2)
    assert epoch.tolist() == [6.0] and saved.tolist() == [25.0]
    chance = statistics.at_end(rows, "chance_distance_2", "mask").item()
    counts = [(config.schedule[2][name], m.size) for name, m in masks[0].items()]
    assert chance == pytest.approx(sum(2 * k * (1 - k / n) for k, n in counts) / sum(n for _, n in counts))


def test_without_a_threshold_or_where_it_is_never_met_the_mask_is_the_last_one():
    plain = level_0(0.0)[1]
    never = level_0(1e-9)[1]
    assert all(torch.equal(m, plain.next_mask[n]) for n, m in never.next_mask.items())
    assert all(torch.equal(w, plain.weights[n]) for n, w in never.weights.items())
    more = [row for row in never.rows if row not in plain.rows]
    assert len(never.rows) == len(plain.rows) + len(more) == len(plain.rows) + 9 * 8 // 2 + 2
    assert [row[4] for row in more if row[3] == "drawn_epoch_2"] == [8.0]


def test_masks_are_drawn_early_at_every_level_that_prunes_and_at_no_other():
    config = recipe(levels=(0, 2, 4), early_bird=0.9, epochs=6)
    for result in find_ticket(Unit(config, "early", 0), lambda _: few()):
        drawn = [row[4] for row in result.rows if row[3].startswith("drawn_epoch")]
        assert drawn == ([5.0] if result.next_mask else [])
        for name, m in (result.next_mask or {}).items():
            assert int(m.sum()) == config.schedule[{0: 2, 2: 4}[result.level]][name]
            assert not (m & ~result.mask[name]).any()
    borrower = Unit(config, "x", 0, mask=MaskOf(Unit(config, "early", 0)), levels=(2,))
    rows = train_and_prune(borrower, 2, dense_mask("mlp"), lambda _: few()).rows
    assert not [row for row in rows if "distance" in row[3]]


@pytest.mark.slow
def test_replicates_in_lockstep_have_early_masks_of_their_own(monkeypatch):
    monkeypatch.setattr(loop, "choose_engine", lambda *_: BATCHED)
    units = [Unit(recipe(levels=(0, 2), early_bird=0.9, epochs=5), "early", r) for r in range(2)]
    result = lottery.train_level(units, 0, [dense_mask("mlp")] * 2, lambda unit: few(300 * unit.replicate))
    result = [lottery.prune_level(*pair, few()) for pair in zip(units, result, strict=True)]
    for r, p in enumerate(result):
        alone = train_and_prune(units[r], 0, dense_mask("mlp"), lambda _, r=r: few(300 * r))
        for name, m in p.next_mask.items():  # weights that rounding may swap at the threshold: none to speak of
            assert (m != alone.next_mask[name]).float().mean() < 1e-3
    assert not torch.equal(result[0].next_mask["fc1"], result[1].next_mask["fc1"])


@pytest.mark.slow
def test_early_masks_of_every_density_share_their_dense_network(folders, monkeypatch):
    monkeypatch.setattr(data, "split", lambda *_: few())
    overrides = {"max_steps": 0, "batch_size": 50, "epochs": 6}
    chains = [u for u in experiments.study("early_bird", "smoke", overrides=overrides).units if u.prunes]
    early = [u for u in chains if u.config.early_bird]
    assert len({u.dense for u in chains}) == 2 and len({u.dense for u in early}) == 1 and len(early) == 7
    store.make()
    trainings, train_level = [], lottery.train_level
    monkeypatch.setattr(lottery, "train_level", lambda *a: trainings.append(a[1]) or train_level(*a))
    sweep.run_levels([(unit, 0) for unit in early])
    assert trainings == [0]
    for unit in early:
        alone, found = train_and_prune(unit, 0, dense_mask("mlp"), lambda _: few()), store.find_level(unit, 0)
        assert list(found.rows().itertuples(index=False, name=None)) == alone.rows
        assert all((m == alone.next_mask[name].numpy()).all() for name, m in found.next_mask("mlp").items())
    text, same = sweep.keep_weights(early[2], 0)
    assert same, text


def test_a_dense_network_that_chains_share_has_what_each_saw_of_it(folders):
    study = experiments.study("early_bird", "smoke")
    for unit in study.units:
        for level in unit.levels:
            drawn_rows = [(5, 0.1, "mask", f"drawn_epoch_{unit.levels[-1]}", 3.0)] if unit.config.early_bird else []
            store.save_level(unit, level, [(5, 0.1, "test", "accuracy", 90.0), *drawn_rows], None, {"seconds": 1})
    frame = experiments.finished(study)
    early = frame[(frame["arm"] == "early") & (frame["level"] == 0)]
    assert early["metric"].tolist() == ["accuracy", *(f"drawn_epoch_{k}" for k in early_bird.LEVELS)]
    assert not frame.duplicated(["arm", "level", "metric"]).any()


def table(study, worth, more=()):
    """Tidy rows of a study, three replicates: `worth` gives an arm's accuracy at a level."""
    rows = []
    for unit in study.units:
        for level in unit.levels:
            near = 0.02 * (unit.replicate - 1)
            keys = (unit.config.experiment, "mlp", unit.arm, unit.replicate, level, unit.config.density(level))
            rows += [(*keys, step, step / 10, "test", "accuracy", worth(unit.arm, level) + near) for step in (0, 200)]
            if level == 0 and unit.config.early_bird:
                rows += [(*keys, *row) for row in more(unit.levels[-1])]
    frame = pd.DataFrame(rows, columns=experiments.COLUMNS)
    return frame.drop_duplicates(["arm", "replicate", "level", "metric", "step"])


def masks_seen(level, epoch=7.0):
    """Distances that settle after the first of 20 epochs, and the epoch at which a mask was drawn."""
    rows = [
        (10 * j, float(j), "mask", f"mask_distance_{level}_{i}", 0.3 / (1 + i) - 0.3 / (1 + j))
        for j in range(1, 21)
        for i in range(j)
    ]
    facts = {"drawn_epoch": epoch, "chance_distance": 0.4}
    return [*rows, *((200, 20.0, "mask", f"{name}_{level}", value) for name, value in facts.items())]


# arm -> accuracy, for all others 98: where the claims hold, and where none does
GOOD = {"tenth_on_mnist": 97, "labels0-4_on_mnist": 97, "labels0-1_on_mnist": 97, "random_mask": 95}


BAD = dict.fromkeys(("fashion_on_mnist", "mnist_on_fashion", "momentum_on_mnist", "mnist_on_momentum", "early"), 90)
BAD |= {"labels0-4_fresh_head": 90, "tenth_on_mnist": 99, "half1_on_mnist": 96, "fifth_on_mnist": 96, "random_mask": 95}


def outcome(name, accuracies, epoch):
    study = experiments.study(name, "report")

    def worth(arm, level):
        return accuracies.get("random_mask" if arm.startswith("random_mask") else arm, 98)

    frame = table(study, worth, lambda level: masks_seen(level, epoch))
    return study, frame.assign(replicate=frame["replicate"] + study.experiment.exploratory)  # nobody had seen them


STUDIES = ("transfer", "early_bird")


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize(
    ("accuracies", "epoch", "verdict"), [(GOOD, 7.0, "holds"), (BAD, 15.0, "does not hold")], ids=["good", "bad"]
)
def test_the_claims_hold_where_it_comes_out_so_and_not_elsewhere(name, accuracies, epoch, verdict):
    study, frame = outcome(name, accuracies, epoch)
    judged = claims.judge(frame, study.config)
    verdicts = judged[judged["verdict"] != ""].set_index("claim")["verdict"]
    assert len(verdicts) == len(study.experiment.claims)
    assert (verdicts == verdict).all(), verdicts
    saved = judged[judged["measured"].str.startswith("early: training saved")]["ours"]
    assert name == "transfer" or (saved == 100 * (1 - epoch / 20)).all()


def test_a_mask_that_was_never_drawn_early_is_no_early_mask():
    """It is the last epoch's, and so as good as that one; that shows nothing."""
    study, frame = outcome("early_bird", GOOD, 20.0)
    judged = claims.judge(frame, study.config)
    verdicts = judged[judged["verdict"] != ""].set_index("claim")["verdict"].to_dict()
    assert verdicts.pop("early-bird-random") == "holds"
    assert len(verdicts) == 3 and set(verdicts.values()) == {"does not hold"}


@pytest.mark.slow
@pytest.mark.parametrize("name", STUDIES)
def test_figures_are_drawn_of_as_much_as_there_is(name):
    study, frame = outcome(name, GOOD, 7.0)
    for draw in study.experiment.figures.values():
        for part in (frame, frame[frame["level"] == 0], frame[:0]):
            figure, drawn = draw(study, part)
            plt.close(figure)
            assert part is not frame or (len(drawn) > 20 and drawn["n"].max() == frame["replicate"].nunique())


@pytest.mark.slow
def test_the_matrix_that_is_drawn_is_the_table_beside_it():
    figure, drawn = early_bird.fig10a(*outcome("early_bird", GOOD, 7.0))
    for i, level in enumerate(early_bird.LEVELS):
        picture = np.asarray(figure.axes[i].images[0].get_array())
        rows = drawn[drawn["level"] == level]
        assert picture.shape == (21, 21) and (picture == picture.T).all()
        assert np.allclose(picture, rows.pivot(index="first", columns="epoch", values="distance"))
        assert picture[0, 20] == pytest.approx(0.3 - 0.3 / 21)
    plt.close(figure)
