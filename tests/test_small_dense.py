"""Smaller dense networks: their sizes against a search, their place in tables, and what a ticket costs by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthcore import models
from lthcore.config import configure
from lthcore.results import declared
from lthcore.runs import presets, store
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import REGISTRY, experiments, small_dense

CONFIG = configure("small_dense", "report")
NAMES = ["arm", "level", "density", "replicate", "step", "epoch", "split", "metric", "value"]


BOTH = pytest.mark.parametrize("name, of", [("small_dense", "mlp"), ("small_dense_lenet5", "lenet5")])


def units(name="small_dense", preset="report", **settings):
    return {unit.arm: unit for unit in REGISTRY[name].arms(configure(name, preset, **settings), 5)}


@given(st.sampled_from(["mlp", "lenet5"]), st.sampled_from([0.2, 0.3, 0.45]), st.integers(1, 12))
def test_no_other_network_of_that_shape_is_nearer(model, rate, level):
    base = configure(model, "report", prune_rate=rate)
    found = [int(size) for size in small_dense.smaller(base, level).split("_")[1:]]
    if model == "mlp":
        shapes = {units: (units, max(10, round(units / 3))) for units in range(1, 400)}
        weights = {units: 784 * a + a * b + 10 * b for units, (a, b) in shapes.items()}
    else:
        shapes = {n: (-(-n // 20), -(-n * 2 // 15), n, max(10, round(n * 0.7))) for n in range(1, 200)}
        weights = {n: 25 * a + 25 * a * b + 25 * b * c + c * d + 10 * d for n, (a, b, c, d) in shapes.items()}
    kept = sum(base.schedule[level].values())
    assert tuple(found) == shapes[min(weights, key=lambda units: abs(weights[units] - kept))]


@BOTH
def test_the_networks_have_the_weights_that_are_counted(name, of):
    found = units(name)
    for arm, unit in found.items():
        if arm.startswith("dense_"):
            net = models.build(unit.config.model)
            weights = sum(p.numel() for name, p in net.named_parameters() if name.endswith(".weight"))
            level = int(arm.removeprefix("dense_"))
            kept = sum(found["ticket"].config.schedule[level].values())
            assert weights == small_dense.count(unit.config.model) and abs(weights / kept - 1) < 0.15
            assert unit.levels == (0,) and unit.prunes


def test_what_the_notebook_says_of_sizes():
    """By how much the smaller networks differ from the tickets in weights, and at the judged level in parameters."""
    off, parameters = {}, {}
    for of, kind in small_dense.KINDS.items():
        base = configure(of, "report")
        biases = sum(shape[0] for shape in ARCHITECTURES[of].weights.values())
        for level in kind.levels:
            kept, model = sum(base.schedule[level].values()), small_dense.smaller(base, level)
            off[of, level] = small_dense.count(model) / kept - 1
        model = small_dense.smaller(base, kind.judged)
        smaller = small_dense.count(model) + sum(shape[0] for shape in ARCHITECTURES[model].weights.values())
        parameters[of] = (sum(base.schedule[kind.judged].values()) + biases) / smaller - 1
    said = (store.ROOT / "notebooks" / "15_what_it_costs.ipynb").read_text()
    assert max(abs(share) for at, share in off.items() if at not in (("mlp", 11), ("lenet5", 17))) < 0.045
    assert (
        "at most 4%, but for 7% more weights than the ticket's at the MLP's level 11 and 15% more at LeNet-5's" in said
    )
    assert (round(100 * off["mlp", 11]), round(100 * off["lenet5", 17])) == (7, 15)
    assert "at the judged levels the ticket has 7% (LeNet-5: 5%) more parameters" in said
    assert {of: round(100 * share) for of, share in parameters.items()} == {"mlp": 7, "lenet5": 5}


def test_the_level_that_is_judged_is_that_of_the_rules():
    assert {name: kind.judged for name, kind in small_dense.KINDS.items()} == {
        k: declared.L[k] for k in ("mlp", "lenet5")
    }


@BOTH
def test_ticket_and_controls_are_those_of_the_archive(name, of):
    found, there = units(name), {unit.arm: unit for unit in REGISTRY[of].arms(configure(of, "report"), 5)}
    for arm in ("ticket", "random_reinit", "random_mask"):
        assert (found[arm].key, found[arm].levels) == (there[arm].key, there[arm].levels)
        assert store.find_level(found[arm], found[arm].levels[-1])
    assert set(units(name, controls=0)) == {arm for arm in found if not arm.startswith("random_")}


def test_the_sizes_follow_the_settings():
    one, other = units(), units(prune_rate=0.5)
    assert one["dense_5"].config.model != other["dense_5"].config.model
    assert "dense_13" not in units(rounds=11)
    assert [arm for arm in units(rounds=2) if arm.startswith("dense_")] == ["dense_1", "dense_2"]


def table():
    """Tidy rows of two replicates: accuracies and the steps to 97%, at levels 0, 5 and 9 of 1,000 steps each."""
    rows, config = [], presets.as_in("mlp", configure("small_dense", "report"))
    for replicate, fast in ((5, 400), (6, 200)):
        networks = [("ticket", 0, 600, 98.0), ("ticket", 5, fast, 98.2), ("ticket", 9, 600, 97.9 + replicate / 10)]
        networks += [("dense_5", 0, 700, 97.0), ("dense_9", 0, 1000, 96.0), ("random_mask", 9, 1000, 95.0)]
        for arm, level, step, accuracy in networks:
            density = config.density(level) if arm == "ticket" else 1.0
            for at, seen in {0: 10.0, step: 97.0, 1000: accuracy}.items():
                for split in ("test", "validation"):
                    rows.append((arm, level, density, replicate, at, at / 10, split, "accuracy", seen))
    return pd.DataFrame(rows, columns=NAMES)


def test_smaller_networks_stand_at_the_level_whose_size_they_have():
    config = configure("small_dense", "report")
    moved = small_dense.placed(table(), config)
    found = moved[moved["arm"] == "smaller"]
    assert sorted(found["level"].unique()) == [5, 9] and len(moved) == len(table())
    base = presets.as_in("mlp", config)
    for level, rows in found.groupby("level"):
        assert rows["density"].iloc[0] == pytest.approx(base.density(level), rel=0.08)


def test_the_claim_by_hand():
    (claim,) = REGISTRY["small_dense"].claims
    ticket, reinit, random = claim.measures(table(), configure("small_dense", "report"))
    assert ticket.values.to_dict() == pytest.approx({5: 2.4, 6: 2.5}) and ticket.above == 0 and ticket.judged
    assert random.values.tolist() == pytest.approx([-1.0, -1.0]) and not random.judged
    assert not len(reinit.values)


def test_costs_by_hand(monkeypatch):
    monkeypatch.setattr(small_dense, "relative_time", lambda density, model: [1.0, 0.5, 0.25])
    found = small_dense.costs(table(), CONFIG).set_index("level")
    assert found.loc[5, ["found", "found_time"]].tolist() == [1, 1.0]
    assert found.loc[9, ["found", "found_time"]].tolist() == [2, 1.5]
    assert found.loc[5, "steps"] == pytest.approx(1 / 0.3)  # 200 and 400 steps of 1,000 are saved
    assert found.loc[5, "steps_skipped"] == pytest.approx(1 / 0.45)  # and half of the other 400 and 200
    assert found["whole_skipped"].tolist() == pytest.approx([2.0, 2.0])
    assert np.isnan(found.loc[5, "steps_high"]) and found.loc[5, "steps_low"] < found.loc[5, "steps"]  # n = 2: wide
    assert np.isnan(found.loc[9, "steps"]) and found.loc[9, "why"] == "nothing saved"  # as slow as the dense network


def test_no_break_even_where_the_ticket_is_less_accurate_or_too_slow(monkeypatch):
    monkeypatch.setattr(small_dense, "relative_time", lambda density, model: [1.0, 0.5, 0.25])
    frame = table()
    worse = frame["value"].mask((frame["arm"] == "ticket") & (frame["level"] == 5) & (frame["step"] == 1000), 97.4)
    found = small_dense.costs(frame.assign(value=worse), CONFIG).set_index("level")
    assert found.loc[5, "why"] == "less accurate than dense" and found.loc[5, ["steps", "whole_skipped"]].isna().all()
    slow = frame["value"].mask((frame["level"] == 9) & (frame["replicate"] == 5) & (frame["value"] >= 97), 96.99)
    found = small_dense.costs(frame.assign(value=slow), replace(CONFIG, tolerance=2)).set_index("level")
    assert found.loc[9, "why"] == "97% not reached" and found.loc[9, "whole_skipped"] == 2.0


def test_a_denser_step_takes_longer_by_the_committed_benchmark():
    times = small_dense.relative_time([1.0, 0.5, 0.2, 0.05, 0.01, 0.001])
    assert times[0] == 1.0 and (np.diff(times) <= 0).all() and 0 < times[-1] < 0.2


def test_lenet5_has_its_own_benchmark_accuracy_and_names():
    assert small_dense.relative_time([0.05], "lenet5") != small_dense.relative_time([0.05])
    rows, config = table().assign(step=lambda t: t["step"] * 2), configure("small_dense_lenet5", "report")
    found = small_dense.costs(rows.assign(value=rows["value"] + 1), config).set_index("level")  # which reaches 98%
    assert found.loc[5, "steps"] == pytest.approx(1 / 0.3)
    row = small_dense.in_short(rows, config).loc[5]
    assert (row["filters"], row["hidden units"], row["their weights"]) == ("4 and 9", "67 and 47", "19,694")
    figure, _ = small_dense.fig15b(experiments.study("small_dense_lenet5", "smoke"), rows)
    assert figure.get_suptitle().startswith("Figure 15d. LeNet-5: ")
    assert figure.axes[1].get_legend_handles_labels()[1][0].startswith("trained to 98%")


def test_without_the_benchmark_no_time_is_given(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "ROOT", tmp_path)
    assert np.isnan(small_dense.relative_time([1.0, 0.1])).all()
    figure, drawn = small_dense.fig15b(experiments.study("small_dense", "smoke"), table())
    assert [line.get_label() for line in figure.axes[0].lines] == ["same cost per step"]
    assert drawn["high"].isna().all()  # no upper end, in the csv as well


def test_where_nothing_is_saved_the_panel_says_so(monkeypatch):
    monkeypatch.setattr(small_dense, "relative_time", lambda density, model: [np.nan] * len(density))
    slow = table().query("level != 5")
    figure, _ = small_dense.fig15b(experiments.study("small_dense", "smoke"), slow)
    assert figure.axes[1].texts[0].get_text() == "nothing is saved at any level"
    row = small_dense.in_short(slow, configure("small_dense", "report")).loc[9]
    assert row.filter(like="break-even").tolist() == ["nothing saved"] * 3


def test_a_copy_of_the_study_of_a_users_own_runs_as_well():
    record = replace(REGISTRY["small_dense"], name="mine", group="own", claims=(), answer=None)
    assert {unit.config.model for unit in experiments.study(record, "smoke").units} > {"mlp"}


def test_without_validation_images_nobody_knows_the_steps():
    found = small_dense.costs(table().query("split == 'test'"), CONFIG)
    assert found[["steps", "steps_skipped"]].isna().all(axis=None)
