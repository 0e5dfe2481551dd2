"""Overlap of masks: against sets, simulated masks and a direct jackknife; and which chains are compared."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lthcore.runs import store
from lthcore.runs.presets import configure
from lthcore.studies import REGISTRY, experiments, overlap
from lthcore.unit import Unit

SHAPES = {"fc1": (30, 40), "fc2": (10, 30), "head": (10, 10)}


def draw(random, density=0.3):
    return {name: random.random(shape) < density for name, shape in SHAPES.items()}


@given(seed=st.integers(0, 10_000), one=st.floats(0.05, 1), other=st.floats(0.05, 1))
def test_shared_weights_are_counted_as_sets_are(seed, one, other):
    random = np.random.default_rng(seed)
    first, second = draw(random, one), draw(random, other)
    found = overlap.counted(first, second)
    both = kept = 0
    for name in SHAPES:
        sets = [set(map(tuple, np.argwhere(mask[name]))) for mask in (first, second)]
        both, kept = both + len(sets[0] & sets[1]), kept + sum(map(len, sets)) / 2
        if any(sets):
            assert found[name].share == pytest.approx(len(sets[0] & sets[1]) / (sum(map(len, sets)) / 2))
    assert found["all"].share == pytest.approx(both / kept)


def test_chance_is_what_random_masks_share_on_average():
    random = np.random.default_rng(0)
    first, second = draw(random), draw(random, 0.1)
    shares = []
    for _ in range(400):
        shuffled = {name: random.permutation(m.ravel()).reshape(m.shape) for name, m in second.items()}
        shares.append(overlap.counted(first, shuffled)["all"].share)
    expected = overlap.counted(first, second)["all"].chance
    assert np.mean(shares) == pytest.approx(expected, abs=4 * np.std(shares) / 20)


def test_chance_within_groups_is_what_masks_share_that_are_random_within_them():
    random = np.random.default_rng(1)
    groups = {name: random.integers(0, 3, shape) for name, shape in SHAPES.items()}
    kept = np.array([0.7, 0.2, 0.05])  # of each group
    shares, chances = [], []
    for _ in range(400):
        pair = [{name: random.random(g.shape) < kept[g] for name, g in groups.items()} for _ in range(2)]
        found = overlap.counted(*pair, groups)["all"]
        shares.append(found.share)
        chances.append(found.chance)
    assert np.mean(shares) == pytest.approx(np.mean(chances), abs=4 * np.std(shares) / 20)
    assert np.mean(chances) > overlap.counted(*pair)["all"].chance + 0.1


def test_equal_masks_are_1_and_a_layer_that_is_kept_whole_says_nothing():
    mask = draw(np.random.default_rng(2)) | {"head": np.ones((10, 10), bool)}
    found = overlap.counted(mask, mask)
    assert found["fc1"].beyond == found["all"].beyond == 1.0 and np.isnan(found["head"].beyond)
    empty = {name: np.zeros(shape, bool) for name, shape in SHAPES.items()}
    assert overlap.counted(empty, empty) == {}


def test_masks_that_follow_pixels_and_sizes_are_explained_by_both_and_by_neither_alone():
    """Two masks, independent but for the chance of a weight, which its pixel and its size in theta0 decide."""
    study = experiments.study("overlap", "smoke")
    by_pixel, by_size, by_both = (groups[0] for groups in overlap.grouped(study))
    random = np.random.default_rng(5)
    of_pixel = random.random(784) < 0.5
    size = by_size["fc1"] / by_size["fc1"].max()
    likely = {"fc1": 0.3 * np.where(of_pixel[None], 1.0, 0.1) * np.where(size > 0.5, 1.0, 0.1)}
    one, other = ({name: random.random(p.shape) < p for name, p in likely.items()} for _ in range(2))
    baselines = {"chance": None, "pixel": by_pixel, "size": by_size, "both": by_both}
    beyond = {name: overlap.counted(one, other, groups)["all"].beyond for name, groups in baselines.items()}
    assert beyond["chance"] > beyond["pixel"] > 0.05 and beyond["chance"] > beyond["size"] > 0.05
    assert beyond["both"] == pytest.approx(0, abs=0.01)


def test_the_jackknife_leaves_each_replicate_out_once():
    random = np.random.default_rng(3)
    effect = random.normal(size=6)
    matrix = effect[:, None] + effect[None]
    directed = matrix + np.triu(random.normal(size=(6, 6)), 1)  # a value for each order of a pair
    pairs = [(r, s) for r in range(6) for s in range(6) if r != s]
    assert overlap.jackknife(directed)[1] == pytest.approx(np.mean([directed[pair] for pair in pairs]))
    n, mean, low, high = overlap.jackknife(matrix)
    values = [np.mean([matrix[r, s] for r, s in combinations(set(range(6)) - {out}, 2)]) for out in range(6)]
    half = stats.t.ppf(0.975, 5) * np.sqrt(5 / 6 * np.sum((values - np.mean(values)) ** 2))
    assert (n, mean) == (6, pytest.approx(np.mean([matrix[r, s] for r, s in combinations(range(6), 2)])))
    assert (low, high) == (pytest.approx(mean - half), pytest.approx(mean + half))
    # of additive effects the mean over pairs is twice the mean effect, whose interval is the usual one
    assert half == pytest.approx(2 * stats.t.ppf(0.975, 5) * effect.std(ddof=1) / np.sqrt(6))


@pytest.mark.parametrize("preset", ["quick", "report"])
def test_its_units_are_chains_that_the_reports_experiments_train(preset):
    found = list(REGISTRY["overlap"].arms(configure("overlap", preset, seed=3), 0))
    there = {unit.key: unit for name in overlap.OF for unit in REGISTRY[name].arms(configure(name, preset, seed=3), 0)}
    (other,) = [unit for unit in found if unit.arm == overlap.REORDERED]
    assert all(unit.prunes and there[unit.key].levels == unit.levels for unit in found if unit != other)
    (same,) = [unit for unit in found if unit.arm == "t1_on_s1"]
    assert other == replace(same, arm=other.arm, config=replace(same.config, batch_order=1))
    names = {unit.arm for unit in found}
    assert names == {name for _, chains in overlap.OF.values() for name in chains} | {other.arm}
    compared = {arm for pair in (overlap.SAME_THETA0 | overlap.DIFFERENT_THETA0).values() for arm in pair}
    assert names == compared - {None}


def test_what_the_notebook_says_of_task_2():
    """The share of its first layer that is kept at the level of figure c."""
    config = configure("task2", "report", output_rate=0)
    level = min(k for k in range(len(config.schedule)) if config.density(k) <= overlap.AT * overlap.NEAR)
    share = config.schedule[level]["fc1"] / config.schedule[0]["fc1"]
    said = (store.ROOT / "notebooks" / "13_mask_overlap.ipynb").read_text()
    assert f"(Task 2, at the next density below: {100 * share:.1f}%)" in said


def test_what_is_set_reaches_every_chain():
    study = experiments.study("overlap", "smoke", overrides={"prune_rate": 0.25, "lr": 0.002})
    assert {(unit.config.prune_rate, unit.config.lr) for unit in study.units} == {(0.25, 0.002)}
    study = experiments.study("overlap", "smoke", overrides={"batch_order": 3})
    assert {(unit.arm == overlap.REORDERED, unit.config.batch_order) for unit in study.units} == {(0, 3), (1, 4)}
    with pytest.raises(ValueError, match="did you mean 'prune_rate'"):
        experiments.study("overlap", "smoke", overrides={"prune_rte": 0.25})


@pytest.mark.slow
def test_masks_that_were_drawn_alike_are_found_alike(module_folders):
    """Replicates 0 and 1: T2's masks are T1's own in one, and others in the other."""
    store.make()
    study = experiments.study("overlap", "smoke", replicates=2)
    random = np.random.default_rng(4)
    units = {(unit.arm, unit.replicate): unit for unit in study.units}
    for replicate in (0, 1):
        same = None
        for arm in ("t1_on_s1", "t2_on_s2"):
            unit: Unit = units[arm, replicate]
            for level in unit.levels:
                counts = unit.config.schedule[min((k for k in unit.levels if k > level), default=level)]
                shapes = {"fc1": (300, 784), "fc2": (100, 300), "head": (10, 100)}
                mask = {name: np.zeros(shape, bool) for name, shape in shapes.items()}
                for name, m in mask.items():
                    m.ravel()[random.choice(m.size, counts[name], replace=False)] = True
                mask = same if same and replicate == 0 and level == 0 else mask
                same = mask if level == 0 else same
                last = level == unit.levels[-1]
                store.save_level(
                    unit, level, [(5, 0.1, "test", "accuracy", 80.0)], None if last else mask, {"seconds": 1}
                )
    results = experiments.load(study)
    table = overlap.overlaps(results)
    row = table[(table["differs"] == overlap.OTHER_HALF) & (table["level"] == 1) & (table["layer"] == "all")].iloc[0]
    assert row["n"] == 2 and row["mean"] == pytest.approx(0.5, abs=0.01)
    for baseline in overlap.BASELINES:  # these masks know neither pixels nor sizes
        assert row[baseline] == pytest.approx(0.5, abs=0.01)
    assert row["rest"] == pytest.approx(0.5, abs=0.02)
    unrelated = table[(table["differs"] == overlap.HALVES) & (table["level"] == 1) & (table["layer"] == "all")].iloc[0]
    assert np.isnan(unrelated["by_both"]) and unrelated["rest"] == pytest.approx(0, abs=0.01)
    assert unrelated["n"] == 2 and unrelated["mean"] == pytest.approx(0, abs=0.01) and np.isnan(unrelated["low"])
    assert "with the batches in another order" not in overlap.found(results)  # that chain has no levels here
    assert overlap.found(results).startswith("No, most kept weights differ. At 12.5% density, ")
