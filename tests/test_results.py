"""Numbers and verdicts on tables made by hand, whose right answers are known beforehand."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from lthcore.config import EXPERIMENTS, configure
from lthcore.results import rules, statistics, verdicts
from lthcore.studies import REGISTRY, claims, names

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
                    (0, "validation", "accuracy", 5.0), (100, "validation", "accuracy", 99.9),
                    (300, "test", "loss", 0.1), (0, "test", "loss", 2.3),
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
    n, mean, low, high = statistics.interval(values)
    assert n == len(values) and mean == pytest.approx(np.mean(values), abs=1e-12)
    assert (low, high) == pytest.approx(t_interval(values), rel=1e-9, abs=1e-9)


def test_the_interval_of_one_two_three_and_none():
    assert statistics.interval([97.0, 98.0, 99.0])[2:] == pytest.approx((98 - 2.4841377, 98 + 2.4841377), abs=1e-6)
    assert statistics.interval([5.0, 5.0, 5.0]) == (3, 5.0, 5.0, 5.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        n, mean, low, high = statistics.interval([97.5])
        assert (n, mean) == (1, 97.5) and math.isnan(low) and math.isnan(high)
        n, *rest = statistics.interval([])
        assert n == 0 and all(map(math.isnan, rest))


# ------------------------------------------------------------------------------------- values, levels and differences


def test_values_are_those_of_the_last_step():
    frame = tidy("mlp", {"ticket": {0: [98.0, 97.0], 3: [96.0, 95.0]}})
    for shuffled in (frame, frame.sample(frac=1, random_state=1), frame.iloc[::-1]):
        end = statistics.at_end(shuffled)
        assert end.to_dict() == {("ticket", 0, 0): 98, ("ticket", 0, 1): 97, ("ticket", 3, 0): 96, ("ticket", 3, 1): 95}
    assert statistics.at_end(frame, "loss").unique().tolist() == [0.1]
    assert statistics.at_end(frame, split="validation").unique().tolist() == [DENSE]


def test_differences_are_paired_by_replicate():
    arms = {"ticket": {0: [98.0, 90.0, 80.0], 7: [97.0, 90.5, 81.0]}, "random_mask": {7: [96.0, 96.0, 96.0]}}
    end = statistics.at_end(tidy("mlp", arms, without=[("ticket", 0, 1)]))
    assert statistics.paired(end, "ticket", 7, "ticket", 0).to_dict() == {0: -1.0, 2: 1.0}  # 1 has no partner
    assert statistics.paired(end, "ticket", 7, "random_mask").to_dict() == {0: 1.0, 1: -5.5, 2: -15.0}
    assert statistics.paired(end, "ticket", 7).to_dict() == {0: 97.0, 1: 90.5, 2: 81.0}
    for arm, level in (("nobody", 7), ("ticket", 5), ("nobody", None)):
        assert len(statistics.paired(end, arm, level)) == 0
        assert len(statistics.paired(end, "ticket", 7, arm, 7 if level is None else level)) == 0
    assert len(statistics.paired(end, "ticket", None)) == 0


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
    assert statistics.ticket_level(chain(validation), "ticket", 0.5) == level


def test_ticket_level_follows_validation_mean_and_tolerance_not_the_test():
    frame = chain({0: 98.0, 1: 97.0, 2: 96.0})
    assert [statistics.ticket_level(frame, "ticket", t) for t in (0.5, 1.0, 2.0)] == [0, 1, 2]
    frame.loc[(frame["split"] == "test") & (frame["level"] == 1), "value"] = 0.0
    assert statistics.ticket_level(frame, "ticket", 1.0) == 1
    held = (frame["split"] == "validation") & (frame["level"] == 1) & (frame["step"] == 300)
    frame.loc[held & (frame["replicate"] == 0), "value"] = 90.0  # the mean of 90 and 97 has fallen
    assert statistics.ticket_level(frame, "ticket", 1.0) == 0
    without = frame[frame["split"] == "test"]
    assert statistics.ticket_level(without, "ticket", 0.5) == 2  # no validation set: the last level
    assert statistics.ticket_level(frame, "nobody", 0.5) is None


def test_there_is_no_ticket_level_without_the_dense_network():
    frame = chain({0: 98.0, 1: 60.0, 2: 50.0})
    assert statistics.ticket_level(frame[frame["level"] > 0], "ticket", 0.5) is None


@given(
    st.lists(st.floats(80, 99, allow_subnormal=False), min_size=1, max_size=8), st.floats(0, 5, allow_subnormal=False)
)
@settings(deadline=None, max_examples=40)
def test_ticket_level_by_its_definition(values, tolerance):
    level = 0
    for k in range(len(values)):
        if values[k] < values[0] - tolerance:
            break
        level = k
    assert statistics.ticket_level(chain(dict(enumerate(values))), "ticket", tolerance) == level


def test_best_level_is_chosen_on_validation_from_level_1_on():
    frame = chain({0: 99.0, 1: 98.0, 2: 98.6, 3: 98.5})
    frame.loc[(frame["level"] == 3) & (frame["split"] == "test"), "value"] = 100.0
    assert statistics.best_level(frame, "ticket") == 2
    assert statistics.best_level(frame[frame["level"] == 0], "ticket") is None
    assert statistics.best_level(frame, "nobody") is None


def test_first_below_is_of_the_mean_test_accuracy():
    frame = tidy("mlp", {"ticket": {0: [98, 98], 8: [70, 91], 9: [79.9, 80.0], 10: [90, 90], 11: [10, 10]}})
    assert statistics.first_below(frame, "ticket", 80) == 9
    assert statistics.first_below(frame, "ticket", 5) is None
    assert statistics.first_below(frame, "nobody", 80) is None


def test_summary_and_overview():
    frame = tidy("mlp", {"ticket": {0: [98.0, 97.0, 99.0], 2: [96.0]}, "random_mask": {2: [95.0, 95.5]}})
    table = statistics.summary(frame).set_index(["arm", "level"])
    assert table["n"].to_dict() == {("ticket", 0): 3, ("ticket", 2): 1, ("random_mask", 2): 2}
    low, high = t_interval([98.0, 97.0, 99.0])
    assert table.loc[("ticket", 0), ["mean", "low", "high"]].tolist() == pytest.approx([98, low, high])
    assert table.loc[("ticket", 2), "density"] == pytest.approx(0.49, abs=1e-3)
    text = statistics.overview(frame)
    assert text.columns.tolist() == ["ticket", "random_mask"] and text.index.tolist() == [0, 2]
    assert (
        text.loc[0, "ticket"] == f"98.00\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{high - 98:.2f}"
        and text.loc[2, "ticket"] == "96.00"
    )
    assert text.loc[0, "random_mask"] == ""


def test_the_overview_names_networks_that_answer_one_class():
    frame = tidy("mlp", {"ticket": {0: [98.0, 11.35, 9.8], 2: [96.0, 95.0, 94.0]}})
    answers = frame[(frame["metric"] == "accuracy") & (frame["step"] == 300) & (frame["split"] == "test")]
    classes = [10 if accuracy > 90 else 1 for accuracy in answers["value"]]
    text = statistics.overview(pd.concat([frame, answers.assign(metric="answered_classes", value=classes)]))
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


SAME, LEVELS = spread(DENSE), range(21)


def chain_and_controls(experiment, at=None, validation=None, early=None):
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


@pytest.mark.parametrize(("points", "expected"), [(0.1, "holds"), (-0.1, "does not hold"), (0, "unresolved")])
@pytest.mark.parametrize("experiment", ["conv2", "conv4"])
def test_better_at_the_level_that_validation_chooses(experiment, points, expected):
    at = {("ticket", 3): plus(points), ("ticket", 5): plus(1), ("ticket", 6): plus(-1)}
    row = judged(chain_and_controls(experiment, at, {("ticket", 3): 98.5}), experiment, experiment).loc[0]
    assert row["verdict"] == expected and "level 3 " in row["measured"]


LTH = [
    (0, (1, 1, 1), "holds"), (1, (0.5, 0.5, 0.5), "holds"), (-0.1, (1, 1, 1), "holds"),
    (-0.3, (1, 1, 1), "does not hold"), (0, (2, 2, 2), "does not hold"), (-0.2, (1, 1, 1), "unresolved"),
    (0, (0.5, 1, 2), "unresolved"), (-5, (0.5, 1, 2), "does not hold"), (-0.2, (2, 2, 2.5), "does not hold"),
]  # fmt: skip


@pytest.mark.parametrize(("points", "times", "expected"), LTH)
def test_the_hypothesis(points, times, expected):
    frame = chain_and_controls("paper", {("ticket", 8): plus(points)})
    of_ticket = (frame["arm"] == "ticket") & (frame["level"] == 8) & (frame["split"] == "validation")
    reaching = of_ticket & (frame["step"] == 100)  # where the validation accuracy first is above 97%
    frame.loc[reaching, "step"] = [round(100 * x) for x in times]
    frame["replicate"] += 3  # fresh ones
    rows = judged(frame, "paper", "paper-lth")
    assert rows.loc[0, "verdict"] == expected
    judging = rows[rows["role"] == "judged"]
    assert judging["ours"].tolist() == pytest.approx([points, stats.gmean(times)])
    assert all("level 8" in text for text in rows["measured"])


@pytest.mark.parametrize(
    ("never", "expected"), [(0, "holds"), (1, "holds"), (2, "not judged (2 of 5 are only bounds)")]
)
def test_a_run_that_never_gets_there_counts_with_its_last_step(never, expected):
    frame = tidy("paper", {"ticket": {k: spread(DENSE, n=5) for k in (0, 8)}})
    frame["replicate"] += 3  # fresh ones
    of = (frame["arm"] == "ticket") & (frame["split"] == "validation")
    frame.loc[of & (frame["level"] == 8) & (frame["step"] == 100), "step"] = 50
    late = of & (frame["level"] == 8) & (frame["replicate"] < 3 + never)
    frame.loc[late & (frame["value"] > 90), "value"] = 90.0
    rows = judged(frame, "paper", "paper-lth")
    steps = rows[rows["measured"].str.startswith("steps to 97%")].iloc[0]
    assert steps["n"] == 5 and steps["ours"] == pytest.approx(stats.gmean([3] * never + [0.5] * (5 - never)))
    assert ("only bounds" in steps["note"]) == bool(never)
    assert rows.loc[0, "verdict"] == ("unresolved" if never == 1 else expected)


def test_measures_that_a_group_of_replicates_lacks_are_left_out():
    arms = {f"rewind_{k}": {0: spread(DENSE, n=8), 10: spread(DENSE, n=8)} for k in (0, 100, 1000)}
    frame = tidy("rewind", arms, without=[("rewind_1000", k, r) for k in (0, 10) for r in range(3)])
    rows = judged(frame, "rewind", "rewind")
    assert rows.loc[0, "verdict"] == "holds" and rows["n"].tolist() == [5, 5]
    assert rows["exploratory_n"].iloc[0] == 3 and math.isnan(rows["exploratory_n"].iloc[1])


def test_replicates_that_had_been_seen_decide_nothing_where_there_are_others():
    values = [97.0, 97.1, 97.2, *(98.0 + x for x in (0.1, 0.2, 0.3, 0.4, 0.5, -9, -9))]
    dense = [98.0] * 10

    def of(replicates, **settings):
        arms = {"finetune": {0: dense[:replicates], 4: values[:replicates], 1: dense[:replicates]}}
        return judged(tidy("criteria", arms), "criteria", "criteria-twelfth", **settings).loc[0]

    seen = of(3)
    assert seen["verdict"] == "does not hold, exploratory" and seen["n"] == 3 and math.isnan(seen["p"])
    assert seen["ours"] == pytest.approx(-0.9) and math.isnan(seen["exploratory_n"])
    begun = of(5)  # two fresh ones are too few
    assert (begun["verdict"], begun["n"], begun["pooled_n"]) == ("does not hold, exploratory", 3, 5)
    assert begun["pooled"] == pytest.approx(np.mean(values[:5]) - 98) and math.isnan(begun["exploratory_n"])
    lacking = tidy(
        "criteria", {"finetune": {0: dense[:8], 4: values[:8]}}, without=[("finetune", 4, r) for r in range(4)]
    )
    assert judged(lacking, "criteria", "criteria-twelfth").loc[0, ["verdict", "n"]].tolist() == ["holds", 4]
    fresh = of(8)
    assert fresh["verdict"] == "holds" and fresh["n"] == 5 and fresh["ours"] == pytest.approx(0.3)
    assert fresh["p"] == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3, 0.4, 0.5], -0.5, alternative="greater").pvalue)
    assert (fresh["exploratory_n"], fresh["pooled_n"]) == (3, 8) and math.isnan(fresh["later_n"])
    assert fresh["exploratory"] == pytest.approx(-0.9) and fresh["pooled"] == pytest.approx(np.mean(values[:8]) - 98)
    more = of(10)  # a second look decides nothing
    assert (more["verdict"], more["n"], more["later_n"], more["pooled_n"]) == ("holds", 5, 7, 10)
    another = of(10, seed=1)  # of which none had been seen
    assert another["verdict"] == "unresolved" and another["n"] == 5 and math.isnan(another["exploratory_n"])
    assert another["n_needed"] == rules.needed([x - 98 for x in values[:5]], -0.5) > 5
    assert another["pooled_n"] == another["later_n"] == 10


@given(st.lists(st.floats(-1, 1, allow_subnormal=False), min_size=3, max_size=6))
def test_a_measure_has_one_verdict_and_a_wider_bound_never_unmakes_it(values):
    assume(np.std(values) > 1e-6)
    order = ["does not hold", "unresolved", "holds"]
    found = [
        order.index(verdicts.Measure("", 1, 0.5, pd.Series(values), above=-bound, below=bound).verdict())
        for bound in (0.01, 0.1, 0.5, 1.0, 5.0)
    ]
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("values", "above", "below", "expected"),
    [
        ((0, 0, 0), 0, math.inf, "does not hold"),
        ((87.5,) * 3, 0, math.inf, "holds"),
        ((0, 0, 0), -math.inf, 0, "holds"),
    ],
)
def test_equal_values_are_counted_and_have_no_interval(values, above, below, expected):
    measure = verdicts.Measure("", 1, 0.5, pd.Series(values), above=above, below=below)
    assert measure.verdict() == expected and measure.note == f"3 of 3 are {values[0]:g}"
    n, mean, low, high = measure.estimate()
    assert (n, mean) == (3, values[0]) and np.isnan([low, high]).all()
    row = pd.Series({"measured": "", "n": n, "ours": mean, "low": low, "high": high})
    assert claims.number(row) == f"{values[0]:.2f} in all 3"


def test_the_interval_of_ratios_is_that_of_their_logarithms():
    values = pd.Series([0.4, 0.5, 0.9])
    measure = verdicts.Measure("", 1, 0.5, values, below=1, ratio=True)
    low, high = stats.ttest_1samp(np.log(values), 0).confidence_interval(0.95)
    assert measure.estimate()[1:] == pytest.approx((stats.gmean(values), np.exp(low), np.exp(high)))
    assert measure.verdict() == "unresolved"
    p = stats.ttest_1samp(np.log(values), 0, alternative="less").pvalue
    assert measure.p_values()[0] == pytest.approx(p)


def test_of_several_parts_the_one_that_decides_is_shown():
    parts = [("first", "holds", 0.001, 1.0), ("second", "holds", 0.04, 1.0), ("third", "unresolved", 0.4, 0.6)]

    def shown(*some, verdict):
        rows = pd.DataFrame(some, columns=["measured", "alone", "p_holds", "p_refuted"]).assign(role="judged")
        return claims.decisive(rows.assign(verdict=[verdict, *[""] * (len(rows) - 1)]))["measured"]

    assert shown(*parts[:2], verdict="holds, not after Holm") == "second"
    assert shown(*parts, verdict="unresolved") == "third"
    refuted = [("fourth", "does not hold", 1.0, 0.01), ("fifth", "does not hold", 1.0, 0.001)]
    assert shown(*parts, *refuted, verdict="does not hold") == "fifth"
    assert shown(*parts, verdict="not judged (quick)") == "first"


# --------------------------------------------------------------------------------------------------- what is not judged


def everything(experiment, n=3):
    """A complete study in which nothing happens."""
    values, c = [DENSE] * n, configure(experiment, "report")

    return tidy(experiment, {u.arm: dict.fromkeys(u.levels, values) for u in REGISTRY[experiment].arms(c, 0)})


ALL = ("mlp", "lenet5", "task1", "task2", "task3")
NOT_RUN = {"mlp-generalise", "lenet-generalise", "lenet-relu-cliff", "task3-sgd"}  # what they need is not trained yet


def first_text(frame, experiment, preset="report", **settings):
    table = claims.judge(frame, configure(experiment, preset, **settings))
    verdicts = table.groupby("claim")["verdict"].first()
    return set(verdicts[~verdicts.index.isin(NOT_RUN)])


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ALL)
def test_not_judged_below_the_preset_or_the_replicates(experiment):
    explored = everything(experiment, n=5)
    frame = explored.assign(replicate=explored["replicate"] + 5)
    assert first_text(frame, experiment) <= set(VERDICTS)
    assert first_text(frame, experiment, "quick") == {"not judged (quick)"}
    assert first_text(frame, experiment, "smoke") == {"not judged (smoke)"}
    assert first_text(explored[explored["replicate"] < 3], experiment) == {"not judged (exploratory replicates only)"}
    for n in (1, 2):
        few = frame[frame["replicate"] < 5 + n]
        assert first_text(few, experiment, replicates=5 + n) == {f"not judged (n = {n})"}
        shown = claims.judge(few, configure(experiment, "report"))
        compared = shown[~shown["claim"].isin({*NOT_RUN, "task2-cause"})]
        compared = compared[~compared["measured"].str.contains("outputs with a path|share")]  # not in tables by hand
        assert (shown["alone"] == "").all() and (compared["n"] == n).all() and compared["ours"].notna().all()
    for changed in ({"lr": 0.01}, {"epochs": 3}, {"tolerance": 2.0}, {"margin": 5.0}, {"validation": 0}):
        (text,) = first_text(frame, experiment, **changed)
        assert text.startswith("not judged (") and (next(iter(changed)) in text)
    for changed in ({"replicates": 9}, {"seed": 5}, {"device": "cpu"}):
        assert first_text(frame, experiment, **changed) <= set(VERDICTS)


@pytest.mark.parametrize("experiment", ALL)
def test_a_schedule_without_the_levels_of_a_rule_is_not_judged_either(experiment):
    frame = everything(experiment)
    assert first_text(frame[frame["level"] < 3], experiment, "smoke") == {"not judged (smoke)"}
    assert first_text(frame[frame["level"] < 3], experiment, rounds=2) == {"not judged (other rounds)"}


@pytest.mark.parametrize("experiment", ALL)
@pytest.mark.parametrize(("preset", "changed"), [("quick", {}), ("smoke", {}), ("report", {"lr": 0.01})])
def test_another_schedule_has_no_exploratory_replicates(experiment, preset, changed):
    """Its first replicates chose no level: their numbers are its own."""
    table = claims.judge(everything(experiment), configure(experiment, preset, **changed))
    assert (table["exploratory_n"].fillna(0) == 0).all()
    assert (table["n"] > 0).any() and "exploratory" not in claims.show(table)


@pytest.mark.parametrize("experiment", ALL)
def test_every_claim_has_its_row_and_an_empty_study_is_not_run(experiment):
    expected = {r.id for r in rules.REPORT if claims.DECIDED_IN.get(r.id, r.experiment) == experiment}
    for frame in (pd.DataFrame(columns=COLUMNS), everything(experiment)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = claims.judge(frame, configure(experiment, "report"))
        assert set(table["claim"]) == expected
        claims.show(table)
    assert first_text(pd.DataFrame(columns=COLUMNS), experiment) == {"not run"}


def test_every_claim_of_the_report_is_judged_once_and_in_its_words():
    empty = pd.DataFrame(columns=COLUMNS)
    tables = [claims.judge(empty, configure(name, "report")) for name in EXPERIMENTS]
    of_report = [claim for table in tables for claim in table.loc[table["rule"] != "", "claim"].unique()]
    assert sorted(of_report) == sorted(rule.id for rule in rules.REPORT)
    beyond = set(names("extended", "named"))
    published = [claim.id for experiment in REGISTRY.values() for claim in experiment.claims]
    assert len(set(published)) == len(published) and not set(published) & set(of_report)
    assert {name for name, experiment in REGISTRY.items() if experiment.claims} <= beyond
    assert set(claims.QUOTED) == set(of_report)
    for rule in rules.REPORT:
        assert claims.QUOTED[rule.id] in rule.quotation


@pytest.mark.slow
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
        statistics.overview(partial)
    assert not text.astype(str).apply(lambda column: column.str.contains("nan", case=False)).any().any()
    compared = table[~table["measured"].isin(rules.COUNTS)]
    assert (compared["ours"].notna() == (compared["n"] > 0)).all()
    for verdict in table.groupby("claim")["verdict"].first():
        assert verdict in VERDICTS or verdict.startswith("not ")


def test_the_table_to_read():
    frame = tidy("mlp", {"ticket": {0: SAME, 7: plus(-1)}})
    frame = frame.assign(replicate=frame["replicate"] + 4)  # 4 is exploratory; two are too few
    table = claims.show(claims.judge(frame, configure("mlp", "report")))
    row = table.loc["mlp-90"]
    assert (row["verdict"], row["exploratory"], row["n"]) == ("not judged (n = 2)", "-1.01, n = 1", 2)
    table = claims.show(claims.judge(frame, configure("mlp", "report", seed=1)))
    row = table.loc["mlp-90"]
    low, high = t_interval(spread(-1))
    assert row["confirmatory"] == f"-1.00 [{low:.2f}, {high:.2f}]" and row["verdict"] == "does not hold"
    assert (row["density"], row["holds if"], row["n"]) == ("8.24%", "> -0.5", 3)
    assert row["pooled"] == f"{row['confirmatory']}, n = 3" and row["rule"] == rules.COMMIT


def test_what_it_would_take_stands_beside_what_is_unresolved():
    frame = tidy("mlp", {"ticket": {0: [98.0] * 4, 7: [97.4, 97.9, 97.2, 97.8]}})
    rows = judged(frame, "mlp", "mlp-90", seed=1)
    assert rows["verdict"][0] == "unresolved"
    needed = int(rows["n_needed"][0])
    text = claims.show(claims.judge(frame, configure("mlp", "report", seed=1)))
    assert text.loc["mlp-90"]["note"] == f"resolved at n = {needed}, at this spread"
    values = np.array([-0.6, -0.1, -0.8, -0.2])
    half = [stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5 for n in (needed - 1, needed)]
    assert half[0] >= abs(values.mean() + 0.5) > half[1]


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
    table = statistics.collapse(collapsed(), "t1_on_s2")
    assert table.index.tolist() == [1, 8, 9] and table["of"].tolist() == [2, 2, 2]
    assert table["same"].tolist() == [0, 1, 1]  # 20.0% is not the share of the sevens
    assert table["live_outputs"].tolist() == [10, 2.5, 0.5]
    assert table["accuracy"].tolist() == pytest.approx([97.5, (SEVENS + 40) / 2, (SEVENS + 20) / 2])
    assert table["class_share"].tolist() == pytest.approx([21.1479] * 3, abs=5e-5)
    assert table["effective_density"].tolist() == pytest.approx([0.05] * 3)


def test_dead_labels_answer_one_class_with_exactly_its_share():
    table = statistics.dead_labels(collapsed(), "t1_on_s2", range(5, 10)).set_index(["level", "replicate"])
    assert table.index.tolist() == [(8, 0), (9, 0), (9, 1)]  # output 5 still lives in (8, 1)
    assert table["one_class"].tolist() == [True, True, False] and set(table["top_answer"]) == {7}
    assert round(table["class_share"].iloc[0], 4) == 21.1479 == round(table["accuracy"].iloc[0], 4)
    assert "arm" not in table
    nearly = collapsed()
    nearly.loc[(nearly["metric"] == "accuracy") & (nearly["level"] == 8), "value"] = 100 * 1029 / 4861
    assert not statistics.dead_labels(nearly, "t1_on_s2", range(5, 10))["one_class"].iloc[0]


def test_deaths():
    rows = []
    for level, (head, fc2, outputs) in enumerate([(9, 9, 10), (5, 4, 9), (2, 0, 3), (0, 0, 0)]):
        rows += mask_rows(level, 0, {"on_path:fc2": 9, "on_path:head": 9, "live_outputs": 10})
        rows += mask_rows(level, 1, {"on_path:fc2": fc2, "on_path:head": head, "live_outputs": outputs})
    frame = pd.DataFrame(rows, columns=COLUMNS)
    assert statistics.deaths(frame, "t1_on_s2") == {"fc2": 2, "head": 3, "an output": 1}
    alive = frame[(frame["level"] == 0)]
    assert statistics.deaths(alive, "t1_on_s2") == {"fc2": None, "head": None, "an output": None}


@pytest.mark.parametrize(
    "frame", [pd.DataFrame(columns=COLUMNS), tidy("mlp", {"ticket": {0: [98.0]}})], ids=["empty", "no masks"]
)
def test_the_collapse_of_nothing(frame):
    assert len(statistics.dead_labels(frame, "t1_on_s2", range(5, 10))) == 0
    assert len(statistics.collapse(frame, "t1_on_s2")) == 0
    assert statistics.deaths(frame, "t1_on_s2") == {"an output": None}
    assert len(statistics.summary(pd.DataFrame(columns=COLUMNS))) == 0
