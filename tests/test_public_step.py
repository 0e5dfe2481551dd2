"""The study of a public training step: its units, its readings and its intervals against independent formulas."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lthcore import data, lottery
from lthcore.runs.presets import configure
from lthcore.studies import REGISTRY, experiments, public_step
from lthcore.unit import MaskOf, Unit

FEW = {"max_steps": 2, "test_images": 200, "levels": (0, 1)}


def units(name="public_step", preset="report"):
    return {unit.arm: unit for unit in REGISTRY[name].arms(configure(name, preset), 0)}


def test_every_arm_is_trained_by_the_step_but_for_what_its_name_leaves_out():
    for arm, unit in (units() | units("public_step_lenet5")).items():
        off = public_step.OFF.get(arm.partition("_without_")[2], {})
        settings = {name: getattr(unit.config, name) for name in public_step.STEP}
        assert settings == public_step.STEP | off, arm
    everything = units()["task3_adam_without_everything"].config
    usual = configure("task3", "report")
    assert all(getattr(everything, name) == getattr(usual, name) for name in public_step.STEP)


@pytest.mark.parametrize(
    ("arm", "experiment", "levels"),
    [("mlp", "mlp", 21), ("task1_s1", "task1", 6), ("task2_s1", "task2", 16), ("task3_adam", "task3", 11)],
)
def test_schedules_are_the_reports(arm, experiment, levels):
    ours, report = units()[arm].config, configure(experiment, "report")
    names = "model", "lr", "batch_size", "epochs", "prune_rate", "rounds", "optimizer", "scope", "output_rate"
    assert [getattr(ours, name) for name in names] == [getattr(report, name) for name in names]
    assert len(units()[arm].levels) == levels
    dense, usual = ours.schedule[0], report.schedule[0]
    assert dense == usual and ours.schedule == report.schedule


def test_a_schedule_that_a_user_sets_is_every_arms():
    config = configure("public_step", "quick", prune_rate=0.1, rounds=3, epochs=2)
    for unit in REGISTRY["public_step"].arms(config, 0):
        assert (unit.config.prune_rate, unit.config.rounds, unit.config.epochs) == (0.1, 3, 2), unit.arm


def test_lenet5_has_both_forms():
    found = units("public_step_lenet5")
    assert [(u.config.activation, u.config.pool) for u in found.values()] == [("default", "avg"), ("relu", "max")]
    assert {(u.config.epochs, u.config.prune_rate, u.config.batch_size, len(u.levels)) for u in found.values()} == {
        (50, 0.2, 60, 21)
    }


def test_masks_go_from_s1_to_s2_at_the_level_where_parts_are_turned_off():
    found = units()
    assert found["task1_s2"].mask == MaskOf(found["task1_s1"]) and found["task1_s2"].levels == (1, 2, 3, 4, 5)
    for part in public_step.OFF:
        taker, chain = (found[f"task1_{s}_without_{part}"] for s in ("s2", "s1"))
        assert taker.mask == MaskOf(chain) and taker.levels == (public_step.AT,) == chain.levels[-1:]
        assert taker.continues == (part not in ("biases", "everything"))


@pytest.mark.parametrize("values", [[95.9, 95.8, 96.1], [97.0, 97.3, 97.1, 97.2, 96.8]])
def test_the_prediction_interval_is_that_of_one_more_replicate(values):
    n, mean, deviation = len(values), np.mean(values), np.std(values, ddof=1)
    half = stats.t.ppf(0.975, n - 1) * deviation * np.sqrt(1 + 1 / n)
    assert public_step.prediction(values) == pytest.approx((mean, mean - half, mean + half))


def test_it_holds_19_of_20_further_replicates():
    random, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        values = random.normal(96, 0.2, 6)
        _, low, high = public_step.prediction(values[:5])
        inside += low <= values[5] <= high
    assert 0.935 < inside / 2000 < 0.965


def test_a_printed_number_is_one_that_was_rounded():
    assert public_step.within("21.1479", 100 * 1028 / 4861, 100 * 1028 / 4861)
    assert public_step.within("95.74", 95.7449, 96) and not public_step.within("95.74", 95.746, 96)
    assert not public_step.within("97.17", float("nan"), float("nan"))


def test_readings():
    """Of 12 epochs of 10 steps: the last, the best, and the mean of the last ten; step 3 is no end of an epoch."""
    values = {0: 10.0, 3: 99.0, **{10 * k: 80.0 + k for k in range(1, 12)}, 120: 85.0}
    rows = [("a", 0, 0, s, s / 10, "test", "accuracy", v) for s, v in values.items()]
    rows += [("a", 0, 0, 120, 12.0, "test", "loss", 0.1), ("a", 0, 0, 120, 12.0, "validation", "accuracy", 50.0)]
    names = ["arm", "level", "replicate", "step", "epoch", "split", "metric", "value"]
    found = public_step.read(pd.DataFrame(rows, columns=names)).loc[("a", 0, 0)]
    ten = [80.0 + k for k in range(3, 12)] + [85.0]
    assert found.tolist() == pytest.approx([85.0, 91.0, np.mean(ten)])


def test_signs_are_counted_at_the_start_and_after_every_epoch():
    config = replace(configure("public_step", "smoke"), max_steps=0, epochs=2, batch_size=20_000, levels=(0,), rounds=0)
    (trained,) = lottery.find_ticket(Unit(config, "adam", 0, probes=("signs",)), data.load)
    seen = {}
    for step, epoch, split, metric, value in trained.rows:
        if metric.startswith("negative_share:"):
            assert split == "mask"
            seen.setdefault((step, epoch), {})[metric.partition(":")[2]] = value
    assert list(seen) == [(0, 0), (3, 1), (6, 2)]
    for (step, _), shares in seen.items():
        weights = dict(trained.epochs)[step]
        for layer, share in shares.items():
            array = weights[f"{layer}.weight"].numpy()
            assert share == pytest.approx(100 * np.mean(np.sign(array) == -1))
    assert 45 < seen[0, 0]["fc1"] < 55 and torch.equal(
        dict(trained.epochs)[6]["fc1.weight"], trained.weights["fc1.weight"]
    )


def test_clear_signs_are_those_of_weights_below_a_thousandth():
    config = replace(configure("public_step", "smoke"), max_steps=0, epochs=2, batch_size=20_000, levels=(), rounds=0)
    (trained,) = lottery.find_ticket(Unit(config, "adam", 0, probes=("clear_signs",)), data.load)
    rows = [row for row in trained.rows if row[3].startswith("clearly_negative_share:")]
    assert len(rows) == 3 * 3
    for step, _, _, metric, value in rows:
        array = dict(trained.epochs)[step][f"{metric.partition(':')[2]}.weight"].numpy()
        assert value == pytest.approx(100 * np.count_nonzero(array < -0.001) / array.size) and 0 < value < 51


def test_the_dense_networks_whose_signs_are_counted_are_those_of_the_chains():
    """The same training: one of them tells of the sign, the other of how far from 0 the weights are."""
    for name in ("task3_adam", "task3_adam_without_everything"):
        chain, alone = units()[name], units()[name.replace("adam", "adam_dense")]
        one, other = ({k: v for k, v in u.identity.items() if k not in ("beside", "path")} for u in (chain, alone))
        assert alone.levels == (0,) and one == other


def test_an_interval_that_is_too_wide_explains_nothing():
    assert public_step.within("96.14", 95.2, 97.1) and not public_step.within("96.14", 95.0, 97.1)


def test_both_steps_have_the_same_replicates(monkeypatch):
    fits = {"task1_s1": [95.7, 95.8, 95.75], "task1_s2": [96.1, 96.2, 96.15]}
    archive = made_up({CORRECT[arm]: {1: [*values, 40.0, 99.0]} for arm, values in fits.items()})
    monkeypatch.setattr(public_step, "_archived", lambda experiment, *others: public_step._seen(archive))
    table = public_step.explained(Results(made_up({arm: {1: values} for arm, values in fits.items()})))
    assert table["public step"].tolist() == table["correct step"].tolist()


def test_a_statement_that_accuracy_falls_below_80_fits_where_a_replicate_may_be_below():
    assert public_step.within("< 80", 79.9, 97) and not public_step.within("< 80", 80.0, 97)
    assert not public_step.within("< 80", float("nan"), float("nan"))


def test_every_number_of_the_report_is_in_the_table_once_per_reading_of_its_optimizer():
    printed = [number for numbers in public_step.NUMBERS.values() for number in numbers.values()]
    assert sorted(set(printed)) == ["21.1479", "95.74", "96.14", "97.17", "97.23", "97.52", "< 80"]
    assert {arm for numbers in public_step.NUMBERS.values() for arm in numbers} == set(public_step.CORRECT)


def made_up(values, density=None):
    """Rows of a frame: arm -> level -> the accuracy of each replicate at the last of two epochs."""
    rows = []
    for arm, levels in values.items():
        for level, accuracies in levels.items():
            share = 0.5**level if density is None else density[level]
            for replicate, value in enumerate(accuracies):
                common = arm, level, share, replicate
                rows += [
                    (*common, 20, 2.0, "test", "accuracy", value),
                    (*common, 10, 1.0, "test", "accuracy", value - 1),
                ]
    names = ["arm", "level", "density", "replicate", "step", "epoch", "split", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


class Results:
    def __init__(self, frame):
        self.frame, self.study = frame, experiments.study("public_step", "report")


def test_numbers_of_a_task_are_read_at_one_level(monkeypatch):
    """Level 1 fits one number and level 2 the other: no pair fits both, and only one number is explained."""
    monkeypatch.setattr(public_step, "_archived", lambda experiment, *others: None)
    near, far = [95.7, 95.8, 95.75], [98.0, 98.1, 98.05]
    frame = made_up({"task1_s1": {1: near, 2: far}, "task1_s2": {1: far, 2: [96.1, 96.2, 96.15]}})
    table = public_step.explained(Results(frame)).set_index("network")
    assert table["public step: pairs that fit"].tolist() == ["0 of 6"] * 2
    assert sorted(table["explained by"]) == ["not explained", "the public step"]
    assert set(table["public step: level"]) <= {1, 2} and table["public step: level"].nunique() == 1


def test_each_step_is_read_where_it_fits_best_and_both_may_explain_a_number(monkeypatch):
    fits = {"task1_s1": [95.7, 95.8, 95.75], "task1_s2": [96.1, 96.2, 96.15]}
    off = [98.0, 98.1, 98.05]
    archive = made_up({CORRECT[arm]: {1: off, 3: values} for arm, values in fits.items()})
    monkeypatch.setattr(public_step, "_archived", lambda experiment, *others: public_step._seen(archive))
    frame = made_up({arm: {1: values, 3: off} for arm, values in fits.items()})
    table = public_step.explained(Results(frame))
    assert set(table["explained by"]) == {"the public step and the correct step"}
    assert set(table["public step: level"]) == {1} and set(table["correct step: level"]) == {3}
    assert set(table["public step: read at"]) == {"last epoch"}
    assert set(table["correct step: pairs that fit"]) == {"2 of 6"}  # the best of two epochs is the last one


def test_the_scorecard_has_the_numbers_of_those_studies_that_have_any(monkeypatch):
    monkeypatch.setattr(public_step, "_archived", lambda experiment, *others: None)
    full = Results(made_up({"task1_s1": {1: [95.7, 95.8]}, "task1_s2": {1: [96.1, 96.2]}}))
    other, empty = Results(full.frame), Results(made_up({"mlp": {0: [98.0]}}))
    other.study = experiments.study("task1", "report")
    assert public_step.in_short([other, full]).index.tolist() == ["95.74", "96.14"]
    assert public_step.in_short([other, empty]).empty and public_step.in_short([]).empty


CORRECT = {arm: name for arm, (_, name) in public_step.CORRECT.items()}


@pytest.mark.parametrize(
    ("accuracies", "by"), [([70.0, 90.0, 80.0], "the public step"), ([95.0, 95.1, 95.2], "not ex")]
)
def test_falling_below_80_is_tried_at_the_first_level_beyond_95_percent(accuracies, by, monkeypatch):
    monkeypatch.setattr(public_step, "_archived", lambda experiment, *others: None)
    density = {8: 0.058, 9: 0.0404, 10: 0.028}
    frame = made_up({"mlp": {8: [50.0, 50.1, 50.2], 9: accuracies, 10: [50.0, 50.1, 50.2]}}, density)
    (row,) = public_step.explained(Results(frame)).to_dict("records")
    assert row["public step: level"] == 9 and row["explained by"].startswith(by)
    assert row["public step: pairs that fit"].endswith(" of 3") and row["report"] == "< 80"


def test_both_sentences_on_a_network_by_hand(monkeypatch):
    """Beyond 90% pruned the MLP is compared with its dense network, replicate by replicate, and beyond 95% with 80%."""
    density = {0: 1.0, 6: 0.12, 7: 0.08, 8: 0.06, 9: 0.04, 10: 0.03}
    others = dict.fromkeys((6, 8), [90.0] * 3)  # neither is a level that is named
    values = {0: [98.0, 97.0, 96.0], 7: [97.5, 96.0, 96.1], 9: [81.0, 79.9, 85.0], 10: [70.0] * 3} | others
    frame = made_up({"mlp": values}, density)
    monkeypatch.setattr(public_step, "_archived", lambda experiment, *others: None)
    (row,) = public_step.keeps_and_falls(Results(frame)).to_dict("records")
    changes = np.array([-0.5, -1.0, 0.1])
    half = stats.t.ppf(0.975, 2) * changes.std(ddof=1) / 3**0.5
    mean = changes.mean()
    assert row["minus dense, beyond 85% pruned (MLP: 90%)"] == (
        f"{mean:.2f} [{mean - half:.2f}, {mean + half:.2f}] pp at 8% density"
    )
    assert row["accuracy beyond 95% pruned"].endswith("% at 4% density")
    assert row["replicates below 80% there"] == "1 of 3" and row["mean below 80% from"] == "3% density"
    assert (row["network"], row["step"]) == ("MLP", "public")
    values[10] = [80.1] * 3
    (row,) = public_step.keeps_and_falls(Results(made_up({"mlp": values}, density))).to_dict("records")
    assert row["mean below 80% from"] == "never"
    assert public_step.keeps_and_falls(Results(made_up({"mlp": {0: [98.0] * 2, 1: [97.0] * 2}}))).empty


@pytest.mark.slow
def test_numbers_that_it_gives_are_explained_and_others_are_not(module_folders, finish, monkeypatch):
    study = experiments.study("public_step", "smoke", replicates=3, overrides=FEW)
    four = ("task1_s1", "task1_s2", "task3_adam", "task3_sgd")
    vars(study)["units"] = [unit for unit in study.units if unit.arm in four]
    results = experiments.load(finish(study))
    seen = public_step.read(results.frame)["last epoch"]
    given = {arm: f"{seen.loc[arm, 1].mean():.2f}" for arm in ("task1_s1", "task1_s2")}
    numbers = {
        "Task 1": given,
        "Task 3, plain SGD": {"task3_adam": "99.99", "task3_sgd": f"{seen.loc['task3_sgd', 1].mean():.2f}"},
    }
    monkeypatch.setattr(public_step, "NUMBERS", numbers)
    monkeypatch.setattr(public_step, "WIDEST", 100.0)  # a few steps: replicates differ by more than whole trainings do
    table = public_step.explained(results).set_index(["task", "network"])
    assert table.loc["Task 1", "explained by"].tolist() == ["the public step"] * 2
    assert table.loc["Task 1", "public step: pairs that fit"].str.endswith("of 3").all()
    assert table.loc["Task 3, plain SGD", "explained by"].tolist() == ["not explained", "the public step"]
    assert table.loc["Task 3, plain SGD", "public step: pairs that fit"].tolist() == ["0 of 3"] * 2
    assert set(table["correct step"]) == set(table["correct step: pairs that fit"]) == {""}  # no archive here
    one = experiments.load(experiments.study("public_step", "smoke", replicates=1, overrides=FEW))
    assert set(public_step.explained(one)["explained by"]) == {""}


@pytest.mark.slow
def test_a_task_is_left_out_while_its_dense_networks_alone_are_finished(module_folders, finish):
    dense = FEW | {"levels": (0,)}
    results = experiments.load(finish(experiments.study("public_step", "smoke", overrides=dense)))
    assert len(results.frame) and public_step.explained(results).empty
