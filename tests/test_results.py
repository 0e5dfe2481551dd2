"""Numbers and verdicts on tables made by hand, whose right answers are known beforehand."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from lthcore import claims, results
from lthcore.config import WIDE, configure

COLUMNS = ["experiment", "model", "arm", "replicate", "level", "density", "step", "epoch", "split", "metric", "value"]
VERDICTS = ("holds", "does not hold", "unresolved")
DENSE = 98.0


def tidy(experiment, arms, validation=None, early=None, without=()):
    """A finished study as the store would give it.

    arms: arm -> level -> final test accuracies, one per replicate; validation: (arm, level) -> accuracy, 98 if not
    given; early: (arm, level) -> (steps, accuracies) at minimum validation loss; without: (arm, level, replicate).
    """
    config, rows = configure(experiment, "report"), []
    for arm, levels in arms.items():
        for level, values in levels.items():
            for r, value in enumerate(values):
                if (arm, level, r) in without:
                    continue
                steps, best = (early or {}).get((arm, level), ([100] * len(values), values))
                for step, split, metric, x in [  # not in order, and with values that are not the final ones
                    (300, "test", "accuracy", value), (0, "test", "accuracy", 10.0), (100, "test", "accuracy", 50.0),
                    (300, "validation", "accuracy", (validation or {}).get((arm, level), DENSE)),
                    (0, "validation", "accuracy", 99.9), (300, "test", "loss", 0.1), (0, "test", "loss", 2.3),
                    (steps[r], "test", "early_accuracy", best[r]), (steps[r], "test", "early_loss", 0.2),
                ]:  # fmt: skip
                    rows.append(
                        (
                            experiment,
                            config.model,
                            arm,
                            r,
                            level,
                            config.density(level),
                            step,
                            step / 100,
                            split,
                            metric,
                            x,
                        )
                    )
    return pd.DataFrame(rows, columns=COLUMNS)


def spread(mean, half=0.01, n=3):
    """Replicates with that mean and little, or much, between them."""
    return [mean + half * (2 * i / (n - 1) - 1) for i in range(n)] if n > 1 else [mean]


def t_interval(values):
    found = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return found.low, found.high


# ------------------------------------------------------------------------------------------------------- intervals


@given(st.lists(st.floats(-100, 100, allow_subnormal=False), min_size=2, max_size=12))
def test_the_interval_is_scipys(values):
    assume(np.std(values) > 1e-9)
    n, mean, low, high = results.interval(values)
    assert n == len(values) and mean == pytest.approx(np.mean(values), abs=1e-12)
    assert (low, high) == pytest.approx(t_interval(values), rel=1e-9, abs=1e-9)


def test_the_interval_of_one_two_three_and_none():
    assert results.interval([97.0, 98.0, 99.0])[2:] == pytest.approx((98 - 2.4841377, 98 + 2.4841377), abs=1e-6)
    assert results.interval([5.0, 5.0, 5.0]) == (3, 5.0, 5.0, 5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        n, mean, low, high = results.interval([97.5])
        assert (n, mean) == (1, 97.5) and math.isnan(low) and math.isnan(high)
        n, *rest = results.interval([])
        assert n == 0 and all(map(math.isnan, rest))


# ------------------------------------------------------------------------------------- values, levels and differences


def test_values_are_those_of_the_last_step():
    frame = tidy("mlp", {"ticket": {0: [98.0, 97.0], 3: [96.0, 95.0]}})
    for shuffled in (frame, frame.sample(frac=1, random_state=1), frame.iloc[::-1]):
        end = results.at_end(shuffled)
        assert end.to_dict() == {("ticket", 0, 0): 98, ("ticket", 0, 1): 97, ("ticket", 3, 0): 96, ("ticket", 3, 1): 95}
    assert results.at_end(frame, "loss").unique().tolist() == [0.1]
    assert results.at_end(frame, split="validation").unique().tolist() == [DENSE]


def test_differences_are_paired_by_replicate():
    arms = {"ticket": {0: [98.0, 90.0, 80.0], 7: [97.0, 90.5, 81.0]}, "random_mask": {7: [96.0, 96.0, 96.0]}}
    end = results.at_end(tidy("mlp", arms, without=[("ticket", 0, 1)]))
    assert results.paired(end, "ticket", 7, "ticket", 0).to_dict() == {0: -1.0, 2: 1.0}  # 1 has no partner
    assert results.paired(end, "ticket", 7, "random_mask").to_dict() == {0: 1.0, 1: -5.5, 2: -15.0}
    assert results.paired(end, "ticket", 7).to_dict() == {0: 97.0, 1: 90.5, 2: 81.0}
    for arm, level in (("nobody", 7), ("ticket", 5), ("nobody", None)):
        assert len(results.paired(end, arm, level)) == 0
        assert len(results.paired(end, "ticket", 7, arm, 7 if level is None else level)) == 0
    assert len(results.paired(end, "ticket", None)) == 0


def chain(validation, arm="ticket"):
    return tidy("mlp", {arm: {k: [90.0, 91.0] for k in validation}}, {(arm, k): v for k, v in validation.items()})


@pytest.mark.parametrize(
    ("validation", "level"),
    [
        ({0: 98.0, 1: 98.2, 2: 97.6, 3: 97.0, 4: 99.0}, 2),  # a later recovery does not count
        ({0: 98.0, 1: 97.5, 2: 97.49}, 1),  # exactly the tolerance is still within it
        ({0: 98.0, 1: 97.0, 2: 98.0}, 0),
        ({0: 98.0, 1: 98.0, 2: 98.0}, 2),
        ({0: 98.0}, 0),
        ({0: 98.0, 5: 97.8, 15: 60.0}, 5),  # levels that were skipped
    ],
)
def test_ticket_level(validation, level):
    assert results.ticket_level(chain(validation), "ticket", 0.5) == level


def test_ticket_level_follows_validation_mean_and_tolerance_not_the_test():
    frame = chain({0: 98.0, 1: 97.0, 2: 96.0})
    assert [results.ticket_level(frame, "ticket", t) for t in (0.5, 1.0, 2.0)] == [0, 1, 2]
    frame.loc[(frame["split"] == "test") & (frame["level"] == 1), "value"] = 0.0
    assert results.ticket_level(frame, "ticket", 1.0) == 1
    held = (frame["split"] == "validation") & (frame["level"] == 1) & (frame["step"] == 300)
    frame.loc[held & (frame["replicate"] == 0), "value"] = 90.0  # the mean of 90 and 97 has fallen
    assert results.ticket_level(frame, "ticket", 1.0) == 0
    without = frame[frame["split"] == "test"]
    assert results.ticket_level(without, "ticket", 0.5) == 2  # no validation set: the last level
    assert results.ticket_level(frame, "nobody", 0.5) is None


def test_there_is_no_ticket_level_without_the_dense_network():
    frame = chain({0: 98.0, 1: 60.0, 2: 50.0})
    assert results.ticket_level(frame[frame["level"] > 0], "ticket", 0.5) is None


@given(
    st.lists(st.floats(80, 99, allow_subnormal=False), min_size=1, max_size=8), st.floats(0, 5, allow_subnormal=False)
)
@settings(deadline=None, max_examples=40)
def test_ticket_level_straight_from_its_definition(values, tolerance):
    level = 0
    for k in range(len(values)):
        if values[k] < values[0] - tolerance:
            break
        level = k
    assert results.ticket_level(chain(dict(enumerate(values))), "ticket", tolerance) == level


def test_best_level_is_chosen_on_validation_from_level_1_on():
    frame = chain({0: 99.0, 1: 98.0, 2: 98.6, 3: 98.5})
    frame.loc[(frame["level"] == 3) & (frame["split"] == "test"), "value"] = 100.0
    assert results.best_level(frame, "ticket") == 2
    assert results.best_level(frame[frame["level"] == 0], "ticket") is None
    assert results.best_level(frame, "nobody") is None


def test_first_below_is_of_the_mean_test_accuracy():
    frame = tidy("mlp", {"ticket": {0: [98, 98], 8: [70, 91], 9: [79.9, 80.0], 10: [90, 90], 11: [10, 10]}})
    assert results.first_below(frame, "ticket", 80) == 9
    assert results.first_below(frame, "ticket", 5) is None
    assert results.first_below(frame, "nobody", 80) is None


def test_summary_and_overview():
    frame = tidy("mlp", {"ticket": {0: [98.0, 97.0, 99.0], 2: [96.0]}, "random_mask": {2: [95.0, 95.5]}})
    table = results.summary(frame).set_index(["arm", "level"])
    assert table["n"].to_dict() == {("ticket", 0): 3, ("ticket", 2): 1, ("random_mask", 2): 2}
    low, high = t_interval([98.0, 97.0, 99.0])
    assert table.loc[("ticket", 0), ["mean", "low", "high"]].tolist() == pytest.approx([98, low, high])
    assert table.loc[("ticket", 2), "density"] == pytest.approx(0.49, abs=1e-3)
    text = results.overview(frame)
    assert text.columns.tolist() == ["ticket", "random_mask"] and text.index.tolist() == [0, 2]
    assert text.loc[0, "ticket"] == f"98.00 ± {high - 98:.2f}" and text.loc[2, "ticket"] == "96.00"
    assert text.loc[0, "random_mask"] == ""


def test_the_overview_names_networks_that_answer_one_class():
    frame = tidy("mlp", {"ticket": {0: [98.0, 11.35, 9.8], 2: [96.0, 95.0, 94.0]}})
    answers = frame[(frame["metric"] == "accuracy") & (frame["step"] == 300) & (frame["split"] == "test")]
    classes = [10 if accuracy > 90 else 1 for accuracy in answers["value"]]
    text = results.overview(pd.concat([frame, answers.assign(metric="answered_classes", value=classes)]))
    assert text.loc[0, "ticket"].endswith(" (one class: 2)") and "class" not in text.loc[2, "ticket"]


# --------------------------------------------------------------------------------------------------------- verdicts


def judged(frame, experiment, claim, **settings):
    """The rows of one claim, the first of which has its verdict."""
    table = claims.judge(frame, configure(experiment, settings.pop("preset", "report"), **settings))
    rows = table[table["claim"] == claim].reset_index(drop=True)
    assert rows["verdict"].tolist()[1:] == [""] * (len(rows) - 1)
    return rows


def verdict(*arguments, **settings):
    return judged(*arguments, **settings)["verdict"][0]


SAME, LEVELS, STRADDLES = spread(DENSE), range(21), (DENSE - 4, DENSE, DENSE + 4)


def pre_midsem(experiment, at=None, validation=None, early=None):
    """A study where every arm is as good as dense everywhere but at (arm, level) -> replicates."""
    arms = {
        "ticket": dict.fromkeys(LEVELS, SAME),
        "random_reinit": dict.fromkeys(range(1, 21, 2), SAME),
        "random_mask": dict.fromkeys(range(1, 21, 2), SAME),
    }
    for (arm, level), values in (at or {}).items():
        arms[arm][level] = values
    return tidy(experiment, arms, validation, early)


def plus(points, half=0.01):
    return [x + d for x, d in zip(SAME, spread(points, half), strict=True)]


ALMOST = [
    (0, "holds"),
    (3, "holds"),
    (-0.4, "holds"),
    (-0.6, "does not hold"),
    (-20, "does not hold"),
    (-0.5, "unresolved"),
]


@pytest.mark.parametrize(("points", "expected"), ALMOST)
@pytest.mark.parametrize(("experiment", "claim", "level"), [("mlp", "mlp-90", 7), ("lenet5", "lenet-85", 9)])
def test_almost_as_accurate_as_dense(experiment, claim, level, points, expected):
    row = judged(pre_midsem(experiment, {("ticket", level): plus(points)}), experiment, claim).loc[0]
    assert row["verdict"] == row["alone"] == expected
    assert (row["n"], row["ours"]) == (3, pytest.approx(points))
    assert (row["low"], row["high"]) == pytest.approx(t_interval(spread(points)))
    rate = 0.7 if experiment == "mlp" else 0.8
    assert row["density"] == pytest.approx(rate**level, rel=0.01)
    assert (row["density"] < 0.1) if experiment == "mlp" else (row["density"] < 0.15)  # more than 90, 85 % pruned
    elsewhere = {("ticket", k): plus(-50) for k in LEVELS if k not in (0, level)}
    assert verdict(pre_midsem(experiment, elsewhere), experiment, claim) == "holds"


@pytest.mark.parametrize(
    ("values", "expected"), [((70, 71, 72), "holds"), ((90, 91, 92), "does not hold"), ((70, 80, 90), "unresolved")]
)
@pytest.mark.parametrize(("experiment", "claim", "level"), [("mlp", "mlp-95", 9), ("lenet5", "lenet-95", 14)])
def test_below_80(experiment, claim, level, values, expected):
    frame = pre_midsem(experiment, {("ticket", level): values, ("ticket", 17): (10, 10, 10)})
    row = judged(frame, experiment, claim).loc[0]
    assert row["verdict"] == expected and row["ours"] == pytest.approx(np.mean(values))
    assert f"level {level}" in row["measured"]
    assert f"first at level {level if expected == 'holds' else 17}" in row["measured"]
    assert row["density"] < 0.05
    assert "never" in judged(pre_midsem(experiment), experiment, claim).loc[0, "measured"]


@pytest.mark.parametrize(("points", "expected"), [(0.1, "holds"), (-0.1, "does not hold"), (0, "unresolved")])
@pytest.mark.parametrize(("experiment", "claim"), [("mlp", "mlp-better"), ("lenet5", "lenet-better")])
def test_better_at_the_level_that_validation_chooses(experiment, claim, points, expected):
    at = {("ticket", 3): plus(points), ("ticket", 5): plus(1), ("ticket", 6): plus(-1)}
    row = judged(pre_midsem(experiment, at, {("ticket", 3): 98.5}), experiment, claim).loc[0]
    assert row["verdict"] == expected and "level 3 " in row["measured"]


INIT = [(1, 1), (1, -1), (-1, 1), (0, 1), (1, None), (None, None), (None, 0.2), (None, -0.2)]


@pytest.mark.parametrize(("at_level", "at_ticket"), INIT)
@pytest.mark.parametrize(("experiment", "claim", "level"), [("mlp", "mlp-init", 7), ("lenet5", "lenet-init", 9)])
def test_the_initialisation_matters_at_both_levels(experiment, claim, level, at_level, at_ticket):
    """Level of mlp-90 and L = 3, by the difference of ticket and re-initialised; None: an interval over 0 and 0.5."""
    differences = {level: at_level, 3: at_ticket}
    at = {
        ("random_reinit", k): [s - d for s, d in zip(SAME, spread(0.25, 3) if p is None else spread(p), strict=True)]
        for k, p in differences.items()
    }
    rows = judged(pre_midsem(experiment, at, {("ticket", k): 90.0 for k in range(4, 21)}), experiment, claim)
    low_high = [t_interval(spread(0.25, 3) if p is None else spread(p)) for p in differences.values()]
    each = ["holds" if low > 0 else "does not hold" if high < 0.5 else "unresolved" for low, high in low_high]
    assert rows["alone"].tolist() == each
    assert f"level {level}" in rows.loc[0, "measured"] and "L = 3" in rows.loc[1, "measured"]
    expected = "holds" if set(each) == {"holds"} else "does not hold" if "does not hold" in each else "unresolved"
    assert rows.loc[0, "verdict"] == expected


LTH = [
    (0, 0, "holds"), (1, -200, "holds"), (-0.1, 0, "holds"), (-0.3, 0, "does not hold"), (0, 200, "does not hold"),
    (-0.2, 0, "unresolved"), (0, None, "unresolved"), (-5, None, "does not hold"), (-0.2, 500, "does not hold"),
]  # fmt: skip


@pytest.mark.parametrize(("points", "steps", "expected"), LTH)
@pytest.mark.parametrize(("experiment", "claim"), [("mlp", "mlp-lth"), ("lenet5", "lenet-lth")])
def test_the_hypothesis(experiment, claim, points, steps, expected):
    late = [1000, 2000, 3000]
    moved = [500, 2000, 3500] if steps is None else [s + steps for s in late]
    early = {("ticket", 0): (late, SAME), ("ticket", 4): (moved, plus(points))}
    at = {("ticket", 4): plus(-30)}  # the end of training is not what it is about
    rows = judged(pre_midsem(experiment, at, {("ticket", 4): 98.7}, early), experiment, claim)
    assert rows.loc[0, "verdict"] == expected
    assert rows["ours"].tolist() == pytest.approx([points, np.mean(moved) - 2000])
    assert all("level 4" in words for words in rows["measured"])


TASK1 = {"t1_on_s1": 6, "t2_on_s2": 6, "t1_on_s2": 6, "random_mask": 6, "random_reinit": 6}


def task(experiment, at, fall, suffixes=("",)):
    """Tasks 1 and 2, with the validation accuracy of T1 on S1 fallen from level `fall` on."""
    last = 6 if experiment == "task1" else 16
    arms = {
        a + s: dict.fromkeys(range(0 if a in ("t1_on_s1", "t2_on_s2") else 1, last), SAME)
        for a in TASK1
        for s in suffixes
    }
    for (arm, level), values in at.items():
        arms[arm][level] = values
    return tidy(
        experiment, arms, {(a + s, k): 90.0 for a in ("t1_on_s1",) for s in suffixes for k in range(fall, last)}
    )


INSIDE = [
    (0, "holds"),
    (0.4, "holds"),
    (-0.4, "holds"),
    (0.6, "does not hold"),
    (-0.6, "does not hold"),
    (-40, "does not hold"),
    (0.5, "unresolved"),
    (-0.5, "unresolved"),
    (None, "unresolved"),
]


@pytest.mark.parametrize(("points", "expected"), INSIDE)
def test_task_1_within_the_margin_at_the_ticket_level(points, expected):
    values = list(STRADDLES) if points is None else plus(points)
    at = {
        ("t1_on_s2", 3): values,
        ("t1_on_s2", 5): plus(-60),
        ("random_mask", 3): plus(-7),
        ("t1_on_s1", 3): plus(-0.3),
    }
    rows = judged(task("task1", at, fall=4), "task1", "task1")
    assert rows.loc[0, "verdict"] == expected and "L = 3" in rows.loc[0, "measured"]
    assert rows["alone"].tolist()[1:] == [""] * (len(rows) - 1)  # the rest is shown, not judged
    shown = rows.set_index("measured")["ours"]
    assert shown["T1 on S2 - random mask on S2, L = 3"] == pytest.approx(np.mean(values) - DENSE + 7)
    assert shown["T1 on S1, L = 3"] == pytest.approx(DENSE - 0.3)


TASK2 = [
    (-5, -5, "holds"),
    (-5, 0, "does not hold"),
    (0, -5, "does not hold"),
    (-5, -0.5, "unresolved"),
    (-5, -0.4, "does not hold"),
    (-0.6, -77, "holds"),
    (None, -5, "unresolved"),
    (None, 5, "does not hold"),
]


@pytest.mark.parametrize(("pruned", "spared", "expected"), TASK2)
def test_task_2_as_pruned_and_with_the_head_spared(pruned, spared, expected):
    at = {("t1_on_s2_spared", 8): plus(spared), ("t1_on_s2", 8): list(STRADDLES) if pruned is None else plus(pruned)}
    at |= {("t1_on_s2", 15): [2114.79 / 100] * 3}
    rows = judged(task("task2", at, fall=9, suffixes=("", "_spared")), "task2", "task2")
    assert rows.loc[0, "verdict"] == expected
    judged_rows = rows[rows["alone"] != ""]
    assert len(judged_rows) == 2 and all("L = 8" in words for words in judged_rows["measured"])
    assert rows.set_index("measured").loc["T1 on S2, as pruned, last level 15", "ours"] == pytest.approx(21.1479)


TASK3 = [
    (0, 0, "holds"),
    (0.4, -0.4, "holds"),
    (0, -0.6, "does not hold"),
    (0.6, 0, "does not hold"),
    (0, 0.5, "unresolved"),
    (None, 0, "unresolved"),
    (None, -3, "does not hold"),
]


@pytest.mark.parametrize(("by_adam", "by_sgd", "expected"), TASK3)
def test_task_3_at_the_common_level(by_adam, by_sgd, expected):
    own, crossed = ("adam", "sgd", "momentum"), ("sgd_mask_by_adam", "adam_mask_by_sgd")
    arms = {a: dict.fromkeys(range(11), SAME) for a in own} | {a: dict.fromkeys(range(1, 11), SAME) for a in crossed}
    arms["sgd_mask_by_adam"][4] = list(STRADDLES) if by_adam is None else plus(by_adam)
    arms["adam_mask_by_sgd"][4] = plus(by_sgd)
    fallen = {("adam", 7): 1.0, ("sgd", 5): 1.0, ("momentum", 9): 1.0}
    frame = tidy("task3", arms, fallen)
    assert claims.common_level(frame, configure("task3", "report")) == 4
    rows = judged(frame, "task3", "task3")
    assert rows.loc[0, "verdict"] == expected and all("L = 4" in words for words in rows["measured"])
    assert (rows["alone"] != "").sum() == 2
    without = claims.judge(frame[frame["arm"] != "sgd"], configure("task3", "report"))
    assert without["verdict"].tolist()[0] == "not run"


# The same once more with any differences: the table of claims as conditions on scipy's intervals.
RULES = {
    "mlp-90": (lambda low, high: low > -0.5, lambda low, high: high < -0.5),
    "lenet-85": (lambda low, high: low > -0.5, lambda low, high: high < -0.5),
    "mlp-95": (lambda low, high: high < 80 - DENSE, lambda low, high: low > 80 - DENSE),
    "mlp-better": (lambda low, high: low > 0, lambda low, high: high < 0),
    "task1": (lambda low, high: low > -0.5 and high < 0.5, lambda low, high: high < -0.5 or low > 0.5),
    "task3": (lambda low, high: low > -0.5 and high < 0.5, lambda low, high: high < -0.5 or low > 0.5),
    "task2": (lambda low, high: high < -0.5, lambda low, high: low > -0.5),
}


@pytest.mark.parametrize("claim", RULES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_verdicts_are_those_of_the_table_for_any_replicates(claim, data):
    middle = 80 - DENSE if claim == "mlp-95" else 0
    size = st.sampled_from([0.1, 0.5, 2.0])
    scale, shift = data.draw(size), data.draw(st.floats(-1.5, 1.5, allow_subnormal=False))
    units = data.draw(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=3, max_size=5))
    differences = [middle + shift + scale * u for u in units]
    assume(np.std(differences) > 1e-3)
    dense = [DENSE] * len(units)
    low, high = t_interval([(DENSE + d) - DENSE for d in differences])
    assume(min(abs(x - edge) for x in (low, high) for edge in (-0.5, 0, 0.5, 80 - DENSE)) > 1e-6)
    values = [DENSE + d for d in differences]
    experiment = {"mlp": "mlp", "len": "lenet5"}.get(claim[:3], claim)
    if claim in ("mlp-90", "lenet-85", "mlp-95", "mlp-better"):
        level = {"mlp-90": 7, "lenet-85": 9, "mlp-95": 9, "mlp-better": 2}[claim]
        frame = tidy(experiment, {"ticket": {0: dense, 1: dense, level: values}}, {("ticket", 2): 99.0})
    elif claim == "task3":
        arms = {a: {0: dense, 1: dense} for a in ("adam", "sgd", "momentum")}
        frame = tidy("task3", {**arms, "sgd_mask_by_adam": {1: values}, "adam_mask_by_sgd": {1: values}})
    else:
        suffixes = ("", "_spared") if claim == "task2" else ("",)
        arms = {f"{a}{s}": {0: dense, 1: dense} for a in ("t1_on_s1", "t2_on_s2") for s in suffixes}
        frame = tidy(claim, {**arms, **{f"t1_on_s2{s}": {1: values} for s in suffixes}})
    holds, fails = (rule(low, high) for rule in RULES[claim])
    expected = "holds" if holds else "does not hold" if fails else "unresolved"
    assert verdict(frame, experiment, claim, replicates=len(units)) == expected


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=3, max_size=6))
def test_a_measure_has_one_verdict_and_a_wider_bound_never_unmakes_it(values):
    assume(np.std(values) > 1e-6)
    order = ["does not hold", "unresolved", "holds"]
    found = [
        order.index(claims.Measure("", 1, 0.5, pd.Series(values), above=-bound, below=bound).verdict())
        for bound in (0.01, 0.1, 0.5, 1.0, 5.0)
    ]
    assert found == sorted(found)


# --------------------------------------------------------------------------------------------------- what is not judged


def everything(experiment, n=3):
    """A complete study in which nothing happens."""
    values, c = [DENSE] * n, configure(experiment, "report")
    from lthcore.experiments import UNITS

    return tidy(experiment, {u.arm: dict.fromkeys(u.levels, values) for u in UNITS[experiment](c, 0)})


ALL = ("mlp", "lenet5", "task1", "task2", "task3")


def first_words(frame, experiment, preset="report", **settings):
    table = claims.judge(frame, configure(experiment, preset, **settings))
    return set(table.groupby("claim")["verdict"].first())


@pytest.mark.parametrize("experiment", ALL)
def test_not_judged_below_the_preset_or_the_replicates(experiment):
    frame = everything(experiment)
    assert first_words(frame, experiment) <= set(VERDICTS)
    assert first_words(frame, experiment, "quick") == {"not judged (quick)"}
    assert first_words(frame, experiment, "smoke") == {"not judged (smoke)"}
    for n in (1, 2):
        few = frame[frame["replicate"] < n]
        assert first_words(few, experiment, replicates=n) == {f"not judged (n = {n})"}
        assert first_words(few, experiment) == {f"not judged (n = {n})"}  # a run that is not through yet
        shown = claims.judge(few, configure(experiment, "report"))
        assert (shown["alone"] == "").all() and (shown["n"] == n).all() and shown["ours"].notna().all()
    for changed in ({"lr": 0.01}, {"epochs": 3}, {"tolerance": 2.0}, {"margin": 5.0}, {"validation": 0}):
        (words,) = first_words(frame, experiment, **changed)
        assert words.startswith("not judged (") and (next(iter(changed)) in words)
    for changed in ({"replicates": 9}, {"seed": 5}, {"device": "cpu"}):
        assert first_words(frame, experiment, **changed) <= set(VERDICTS)


@pytest.mark.parametrize("experiment", ALL)
def test_every_claim_has_its_row_and_an_empty_study_is_not_run(experiment):
    expected = {c.id for c in claims.CLAIMS if c.experiment == experiment}
    for frame in (pd.DataFrame(columns=COLUMNS), everything(experiment)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = claims.judge(frame, configure(experiment, "report"))
        assert set(table["claim"]) == expected
        claims.show(table)
    assert first_words(pd.DataFrame(columns=COLUMNS), experiment) == {"not run"}


def test_the_claims_are_the_reports():
    twice = {f"{model}-{claim}" for model in ("mlp", "lenet") for claim in ("95", "better", "init", "lth")}
    reports = [c.id for c in claims.CLAIMS if c.experiment not in WIDE]
    assert set(reports) == twice | {"mlp-90", "lenet-85", "task1", "task2", "task3"} and len(reports) == 13
    numbers = {c.id: c.report for c in claims.CLAIMS}
    assert "95.74" in numbers["task1"] and "96.14" in numbers["task1"]
    assert "97.23" in numbers["task2"] and "21.1479" in numbers["task2"]
    assert "97.52" in numbers["task3"] and "97.17" in numbers["task3"]


@pytest.mark.parametrize("experiment", ALL)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_study_that_is_not_through_is_judged_without_errors(experiment, data):
    """Whatever levels are missing: every number shown is a number, every verdict one of the known ones."""
    frame = everything(experiment)
    tasks = sorted(set(zip(frame["arm"], frame["level"], frame["replicate"], strict=True)))
    there = data.draw(st.sets(st.sampled_from(tasks), max_size=len(tasks)) | st.just(set(tasks[::2])))
    at = pd.Series(list(zip(frame["arm"], frame["level"], frame["replicate"], strict=True)), index=frame.index)
    partial = frame[at.isin(there)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = claims.judge(partial, configure(experiment, "report"))
        text = claims.show(table)
        results.overview(partial)
    assert not text.astype(str).apply(lambda column: column.str.contains("nan", case=False)).any().any()
    assert table.loc[table["n"] > 0, "ours"].notna().all() and (table.loc[table["n"] == 0, "ours"].isna()).all()
    for words in table.groupby("claim")["verdict"].first():
        assert words in VERDICTS or words.startswith("not ")


def test_the_table_to_read():
    frame = pre_midsem("mlp", {("ticket", 7): plus(-1)})
    table = claims.show(claims.judge(frame, configure("mlp", "report")))
    row = table.loc["mlp-90"]
    low, high = t_interval(spread(-1))
    assert row["ours"] == f"-1.00 [{low:.2f}, {high:.2f}]" and row["verdict"] == "does not hold" and row["n"] == 3
    assert row["kept"] == "8.24 %"


# -------------------------------------------------------------------------------------------------------- the collapse


def mask_rows(level, replicate, facts, arm="t1_on_s2", density=0.1):
    return [
        ("task2", "mlp", arm, replicate, level, density, 300, 3.0, "test" if name in TEST else "mask", name, value)
        for name, value in facts.items()
    ]


TEST = ("accuracy", "answered_classes", "top_answer", "top_answer_share")
SEVENS = 100 * 1028 / 4861


def network(live, accuracy, answered, top=7, share=SEVENS, **more):
    outputs = {f"live_output:{c}": int(c in live) for c in range(10)}
    facts = {"density": 0.1, "effective_density": 0.05, "live_outputs": len(live)}
    facts |= {"accuracy": accuracy, "answered_classes": answered, "top_answer": top, "top_answer_share": share}
    return {**facts, **outputs, **more}


def collapsed():
    rows = mask_rows(1, 0, network(range(10), 98.0, 5)) + mask_rows(1, 1, network(range(10), 97.0, 5))
    rows += mask_rows(8, 0, network([0, 1], SEVENS, 1)) + mask_rows(8, 1, network([0, 1, 5], 40.0, 2))
    rows += mask_rows(9, 0, network([0], SEVENS, 1)) + mask_rows(9, 1, network([], 20.0, 1))
    return pd.DataFrame(rows + mask_rows(8, 0, network([], 1.0, 1), arm="other"), columns=COLUMNS)


def test_collapse():
    table = results.collapse(collapsed(), "t1_on_s2")
    assert table.index.tolist() == [1, 8, 9] and table["of"].tolist() == [2, 2, 2]
    assert table["same"].tolist() == [0, 1, 1]  # 20.0 % is not the share of the sevens
    assert table["live_outputs"].tolist() == [10, 2.5, 0.5]
    assert table["accuracy"].tolist() == pytest.approx([97.5, (SEVENS + 40) / 2, (SEVENS + 20) / 2])
    assert table["class_share"].tolist() == pytest.approx([21.1479] * 3, abs=5e-5)
    assert table["effective_density"].tolist() == pytest.approx([0.05] * 3)


def test_dead_labels_answer_one_class_with_exactly_its_share():
    table = results.dead_labels(collapsed(), "t1_on_s2", range(5, 10)).set_index(["level", "replicate"])
    assert table.index.tolist() == [(8, 0), (9, 0), (9, 1)]  # output 5 still lives in (8, 1)
    assert table["one_class"].tolist() == [True, True, False] and set(table["top_answer"]) == {7}
    assert round(table["class_share"].iloc[0], 4) == 21.1479 == round(table["accuracy"].iloc[0], 4)
    assert "arm" not in table
    nearly = collapsed()
    nearly.loc[(nearly["metric"] == "accuracy") & (nearly["level"] == 8), "value"] = 100 * 1029 / 4861
    assert not results.dead_labels(nearly, "t1_on_s2", range(5, 10))["one_class"].iloc[0]


def test_deaths():
    rows = []
    for level, (head, fc2, outputs) in enumerate([(9, 9, 10), (5, 4, 9), (2, 0, 3), (0, 0, 0)]):
        rows += mask_rows(level, 0, {"on_path:fc2": 9, "on_path:head": 9, "live_outputs": 10})
        rows += mask_rows(level, 1, {"on_path:fc2": fc2, "on_path:head": head, "live_outputs": outputs})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    assert results.deaths(frame, "t1_on_s2") == {"fc2": 2, "head": 3, "an output": 1}
    alive = frame[(frame["level"] == 0)]
    assert results.deaths(alive, "t1_on_s2") == {"fc2": None, "head": None, "an output": None}


@pytest.mark.parametrize(
    "frame", [pd.DataFrame(columns=COLUMNS), tidy("mlp", {"ticket": {0: [98.0]}})], ids=["empty", "no masks"]
)
def test_the_collapse_of_nothing(frame):
    assert len(results.dead_labels(frame, "t1_on_s2", range(5, 10))) == 0
    assert len(results.collapse(frame, "t1_on_s2")) == 0
    assert results.deaths(frame, "t1_on_s2") == {"an output": None}
    assert len(results.summary(pd.DataFrame(columns=COLUMNS))) == 0
