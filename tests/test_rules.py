"""The rules are what they were when they were written, and judge as they say: every number recomputed another way."""

import csv
import hashlib
import io
import json
import math
import re
import subprocess
import sys
import types
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy import stats

from lthcore.config import configure
from lthcore.results import rules
from lthcore.runs import store
from lthcore.studies import REGISTRY, experiments
from lthcore.train import evaluation_steps

REPORT = {rule.id: rule for rule in rules.REPORT}
ARCHIVED = {"mlp": 5, "lenet5": 3, "task1": 5, "task2": 5, "task3": 5}
OF_THEIR_OWN = {"mlp_fit": 5, "lenet5_fit": 3, "lenet5_relu": 2, "task3_sgd": 5}  # studies made for one rule each
SEEN = {**ARCHIVED, **OF_THEIR_OWN}  # number of the first replicate that nobody looked at
CLASS_SHARE = 100 * 1028 / 4861
INF = math.inf
PIN = "2261812dc2e5979eccbbb2eb438c437e805331d85bdf185143bd0462e12ff21d"

# ------------------------------------------------------------------------------------------------- the rules themselves

# id: experiment; per part quantity, first, second, above, below, closed; levels that refute; exploratory replicates
STEPS = {"mlp": "steps_to_97", "lenet5": "steps_to_98"}
TABLE = {
    "mlp-90": ("mlp", [("accuracy", ("ticket", 7), ("ticket", 0), -0.5, INF, False)], [], 5),
    "lenet-85": ("lenet5", [("accuracy", ("ticket", 9), ("ticket", 0), -0.5, INF, False)], [], 3),
    "mlp-cliff": ("mlp", [("accuracy", ("ticket", 12), None, -INF, 80, False)], [*range(9, 21)], 5),
    "mlp-at-95": ("mlp", [("accuracy", ("ticket", 9), None, -INF, 80, False)], [], 5),
    "lenet-cliff": ("lenet5", [("accuracy", ("ticket", 20), None, -INF, 80, False)], [*range(14, 21)], 3),
    "lenet-relu-cliff": ("lenet5_relu", [("accuracy", ("ticket", 19), None, -INF, 80, False)], [*range(14, 21)], 2),
    "lenet-at-95": ("lenet5", [("accuracy", ("ticket", 14), None, -INF, 80, False)], [], 3),
    "mlp-better": ("mlp", [("accuracy", ("ticket", 5), ("ticket", 0), 0, INF, False)], [*range(1, 10)], 5),
    "mlp-faster": ("mlp", [("steps_to_97", ("ticket", 5), ("ticket", 0), -INF, 1, False)], [], 5),
    "mlp-generalise": ("mlp", [("gap", ("ticket", 5), ("ticket", 0), -INF, 0, False)], [], 5),
    "mlp-init": ("mlp", [("accuracy", ("ticket", k), ("random_reinit", k), 0, INF, False) for k in (7, 9)], [], 5),
    "mlp-lth": (
        "mlp",
        [
            ("steps_to_97", ("ticket", 5), ("ticket", 0), -INF, 1, True),
            ("accuracy", ("ticket", 5), ("ticket", 0), -0.2, INF, False),
        ],
        [],
        5,
    ),
    "lenet-better": ("lenet5", [("accuracy", ("ticket", 5), ("ticket", 0), 0, INF, False)], [*range(1, 14)], 3),
    "lenet-faster": ("lenet5", [("steps_to_98", ("ticket", 5), ("ticket", 0), -INF, 1, False)], [], 3),
    "lenet-generalise": ("lenet5", [("gap", ("ticket", 5), ("ticket", 0), -INF, 0, False)], [], 3),
    "lenet-init": (
        "lenet5",
        [("accuracy", ("ticket", k), ("random_reinit", k), 0, INF, False) for k in (9, 13)],
        [],
        3,
    ),
    "lenet-lth": (
        "lenet5",
        [
            ("steps_to_98", ("ticket", 5), ("ticket", 0), -INF, 1, True),
            ("accuracy", ("ticket", 5), ("ticket", 0), -0.2, INF, False),
        ],
        [],
        3,
    ),
    "task1": (
        "task1",
        [
            ("accuracy", ("t1_on_s2", 5), ("t2_on_s2", 5), -0.5, INF, False),
            ("accuracy", ("t1_on_s2", 5), ("random_mask", 5), 0, INF, False),
        ],
        [],
        5,
    ),
    "task2-as-pruned": ("task2", [("accuracy", ("t1_on_s2", 10), ("t2_on_s2", 10), -INF, -0.5, False)], [], 5),
    "task2-ticket": (
        "task2",
        [("accuracy", ("t1_on_s2_spared", 12), ("t2_on_s2_spared", 12), -INF, -0.5, False)],
        [],
        5,
    ),
    "task2-cause": ("task2", [], [], 5),
    "task3": (
        "task3",
        [
            ("accuracy", ("sgd_mask_by_adam", 4), ("adam", 4), -0.5, 0.5, False),
            ("accuracy", ("adam_mask_by_sgd", 4), ("sgd", 4), -0.5, 0.5, False),
        ],
        [],
        5,
    ),
    "task3-sgd": (
        "task3_sgd",
        [
            ("accuracy", ("sgd_mask_by_adam", 4), ("adam", 4), -0.5, 0.5, False),
            ("accuracy", ("adam_mask_by_sgd", 4), ("sgd", 4), -0.5, 0.5, False),
        ],
        [],
        5,
    ),
    "task3-momentum": (
        "task3",
        [
            ("accuracy", ("momentum_mask_by_adam", 4), ("adam", 4), -0.5, 0.5, False),
            ("accuracy", ("adam_mask_by_momentum", 4), ("momentum", 4), -0.5, 0.5, False),
        ],
        [],
        5,
    ),
}


def bounds(measure):
    return (measure.quantity, measure.first, measure.second, measure.above, measure.below, measure.closed)


def test_the_table_has_every_claim_once():
    assert [rule.id for rule in rules.REPORT] == list(TABLE)


@pytest.mark.parametrize("id", TABLE)
def test_bounds_and_levels_are_these(id):
    rule, (experiment, parts, refuted_at, explored) = REPORT[id], TABLE[id]
    assert rule.experiment == experiment
    assert [bounds(part) for part in rule.parts] == parts
    assert [m.first[1] for m in rule.refuted_at] == refuted_at
    assert all(replace(m, first=parts[0][1]) == rule.parts[0] for m in rule.refuted_at)
    assert not refuted_at or rule.parts[0] in rule.refuted_at
    assert (rule.exploratory, rule.seed) == (tuple(range(explored)), 0)
    assert rule.quotation and rule.section and rule.levels and rule.reason


def test_a_changed_rule_is_a_changed_test():
    text = json.dumps([asdict(rule) for rule in rules.REPORT], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert digest == PIN, "rules are not changed once replicates are judged by them"
    assert (rules.DECIDING, rules.FEWEST, rules.LEVEL) == (5, 3, 0.05)


def test_a_rule_that_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match=r"^quantity = 'acc': must be one of accuracy, "):
        rules.Comparison("x", "acc", ("ticket", 1))
    with pytest.raises(ValueError, match=r"^quantity = 'last': must be one of accuracy, "):
        rules.Comparison("x", "accuracy", ("ticket", 1), also=("last",))
    with pytest.raises(ValueError, match=r"^rule 'x': must have either parts or a count$"):
        rules.Rule("x", "mlp", "", "", "")
    with pytest.raises(ValueError, match=r"^count = 'all': must be one of networks at"):
        rules.Rule("x", "mlp", "", "", "", count="all")


# ------------------------------------------------------------------------ quantities, against the archive read by hand


@pytest.fixture(scope="module")
def archived():
    """Tidy frames of the archive's exploratory replicates, by experiment."""
    out = {}
    for name, replicates in ARCHIVED.items():
        frame = experiments.finished(experiments.study(name, "report", replicates=replicates))
        assert set(frame["replicate"]) == set(range(replicates))
        out[name] = frame
    return out


@pytest.fixture(scope="module")
def by_hand():
    """The same networks from the packs' csv files: experiment -> (arm, level, replicate) -> rows, by the step."""
    return {name: read_packs(name, range(replicates)) for name, replicates in ARCHIVED.items()}


def read_packs(name, replicates):
    """(arm, level, replicate) -> (split, metric) -> (step, value) pairs."""
    networks = {}
    for r in replicates:
        with zipfile.ZipFile(store.FIGURES / "archive" / name / f"r{r}.zip") as pack:
            text = io.TextIOWrapper(pack.open("rows.csv"), "utf-8")
            for row in csv.DictReader(text):
                unit, _, level = row["at"].rpartition("/")
                arm = unit.removeprefix(f"{name}-").rsplit("-", 2)[0]
                rows = networks.setdefault((arm, int(level), r), {})
                rows.setdefault((row["split"], row["metric"]), []).append((int(row["step"]), float(row["value"])))
    return networks


# epochs, and steps of one: images trained on over the batch size, rounded up
EPOCHS = {"mlp": 75, "lenet5": 50, "task1": 50, "task2": 50, "task3": 50}
SCHEDULE = {**EPOCHS, "mlp_fit": 75, "lenet5_fit": 50, "lenet5_relu": 50, "task3_sgd": 50}


def mean_of_last_fifth(name, rows, split="test"):
    curve = dict(rows[split, "accuracy"])
    epochs = SCHEDULE[name]
    per_epoch = max(curve) // epochs
    assert per_epoch * epochs == max(curve)
    first = epochs - max(1, -(-epochs // 5)) + 1
    values = [curve[k * per_epoch] for k in range(first, epochs + 1)]
    return sum(values) / len(values)


def first_step(rows, accuracy):
    curve = sorted(rows["validation", "accuracy"])
    there = [step for step, value in curve if value >= accuracy]
    return (there[0], True) if there else (curve[-1][0], False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHIVED)
def test_quantities_are_those_of_the_csv_files(archived, by_hand, name):
    frame, arms = archived[name], {unit.arm for unit in experiments.study(name, "report").units}
    networks = {at: rows for at, rows in by_hand[name].items() if at[0] in arms}  # but for another study's chains
    accuracy, validation = rules.last_fifth(frame), rules.last_fifth(frame, "validation")
    early, last = (rules.QUANTITIES[q].values(frame) for q in ("early_steps", "last_accuracy"))
    assert set(accuracy.index) == set(networks)
    for threshold in (97, 98):
        steps = rules.steps_to(frame, threshold)
        assert set(steps.index) == set(networks)
        for at, rows in networks.items():
            assert tuple(steps.loc[at]) == first_step(rows, threshold)
    for at, rows in networks.items():
        assert accuracy[at] == pytest.approx(mean_of_last_fifth(name, rows), abs=1e-9)
        assert validation[at] == pytest.approx(mean_of_last_fifth(name, rows, "validation"), abs=1e-9)
        assert last[at] == max(rows["test", "accuracy"])[1]
        assert early[at] == rows["test", "early_accuracy"][0][0]


CHAINS = {
    "mlp": ("mlp", "ticket"),
    "lenet5": ("lenet5", "ticket"),
    "task1": ("task1", "t1_on_s1"),
    "task2": ("task2", "t1_on_s1"),
    "task2 ticket": ("task2", "t1_on_s1_spared"),
    "task3": ("task3", "adam"),
}


@pytest.mark.parametrize("key", CHAINS)
def test_levels_are_those_that_the_exploratory_replicates_choose(archived, by_hand, key):
    name, arm = CHAINS[key]
    replicates = range(ARCHIVED[name])
    declared = rules.declare_levels(archived[name], replicates, arm)
    means = {}
    for split in ("validation", "test"):
        for level in range(1 + max(k for a, k, _ in by_hand[name] if a == arm)):
            values = [mean_of_last_fifth(name, by_hand[name][arm, level, r], split) for r in replicates]
            means.setdefault(split, []).append(sum(values) / len(values))
    ticket = 0
    while ticket + 1 < len(means["validation"]) and means["validation"][ticket + 1] >= means["validation"][0] - 0.5:
        ticket += 1
    best = max(range(1, len(means["validation"])), key=lambda k: means["validation"][k])
    cliff = next((k for k, value in enumerate(means["test"]) if value < 80), None)
    assert declared == {"L": ticket, "B": best, "cliff": cliff}
    assert rules.L[key] == ticket
    if key in rules.B:
        assert rules.B[key] == best
        beyond = [k for k in range(21) if configure(name, "report").density(k) < 0.05]
        assert rules.BEYOND_95[key] == tuple(beyond)
        assert rules.CLIFF[key] == next((k for k in beyond if means["test"][k] < 80), beyond[-1])
        named = {"mlp": 0.10, "lenet5": 0.15}[key]
        assert rules.NAMED[key] == next(k for k in range(21) if configure(name, "report").density(k) < named)


def test_levels_are_chosen_on_the_replicates_given_and_no_others(archived):
    frame = archived["mlp"]
    few = frame[frame["replicate"] < 2]
    assert rules.declare_levels(frame, (0, 1)) == rules.declare_levels(few, range(5))


@pytest.mark.parametrize(
    ("images", "settings", "kept"),
    [
        (600, {"epochs": 5}, [50]),
        (600, {"epochs": 6}, [50, 60]),
        (600, {"epochs": 1}, [10]),
        (600, {"epochs": 75}, [*range(610, 751, 10)]),
        (610, {"epochs": 10}, [99, 110]),  # a short last batch
        (600, {"epochs": 10, "max_steps": 95}, [90, 95]),  # the limit cuts the last epoch
        (600, {"epochs": 10, "max_steps": 91}, [90, 91]),
        (600, {"epochs": 10, "max_steps": 90}, [80, 90]),  # nine whole epochs
        (600, {"epochs": 10, "max_steps": 7}, [7]),  # less than an epoch
        (600, {"epochs": 30, "max_steps": 300}, [*range(250, 301, 10)]),
        (7000, {"epochs": 4, "max_steps": 340}, [340]),  # 300 is no end of an epoch
    ],
)
def test_the_last_fifth_of_any_schedule(images, settings, kept):
    config = configure("mlp", "report", **settings)
    steps = sorted(evaluation_steps(config, images)[1])
    per_epoch = -(-images // 60)
    frame = pd.DataFrame(
        {
            "arm": "ticket", "level": 0, "replicate": 0, "step": steps, "epoch": [s / per_epoch for s in steps],
            "split": "test", "metric": "accuracy", "value": [float(s) for s in steps],
        }
    )  # fmt: skip
    assert rules.last_fifth(frame).item() == pytest.approx(sum(kept) / len(kept))


def test_the_gap_is_over_evaluations_that_have_both():
    rows = []
    for epoch, train, test in [(8, 99.0, 90.0), (9, 99.5, 98.0), (10, 99.9, 98.1)]:
        for split, value in (("train", train), ("test", test)):
            rows.append(("ticket", 5, 3, 100 * epoch, float(epoch), split, "accuracy", value))
    columns = [*rules.KEYS, "step", "epoch", "split", "metric", "value"]
    frame = pd.DataFrame(rows, columns=columns)
    assert rules.gap(frame)["ticket", 5, 3] == pytest.approx((1.5 + 1.8) / 2)
    finished_only = frame[(frame["split"] == "test") | (frame["epoch"] == 10)]  # training accuracy at the end alone
    assert rules.gap(finished_only)["ticket", 5, 3] == pytest.approx(1.8)
    assert rules.gap(frame[frame["split"] == "test"]).empty


# ------------------------------------------------------------------------------------ intervals, p-values and verdicts

SIDES = {"above": (-0.5, INF), "below": (-INF, 0.3), "within": (-0.5, 0.5)}
numbers = st.floats(-3, 3).map(lambda x: round(x, 3))
samples = st.lists(numbers, min_size=3, max_size=8)


def by_scipy(values, above, below):
    """Verdict and one-sided p-values by scipy's own test."""
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)

    def p(bound, alternative):
        return [stats.ttest_1samp(values, bound, alternative=alternative).pvalue] if abs(bound) < INF else []

    inside = p(above, "greater") + p(below, "less")
    outside = p(above, "less") + p(below, "greater")
    if (above == -INF or low > above) and (below == INF or high < below):
        verdict = "holds"
    elif high < above or low > below:
        verdict = "does not hold"
    else:
        verdict = "unresolved"
    return verdict, max(inside), min(outside)


def near_a_limit(values, side):
    """Whether rounding may decide: an end of the interval at a bound."""
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return any(abs(end - bound) < 1e-9 for end in ends for bound in SIDES[side])


@given(samples, st.sampled_from(list(SIDES)))
def test_verdicts_and_p_values_are_scipys(values, side):
    assume(np.ptp(values) > 1e-2 and not near_a_limit(values, side))
    outcome, expected = rules.decide(values, *SIDES[side]), by_scipy(values, *SIDES[side])
    assert outcome.verdict == expected[0]
    assert outcome[1:] == pytest.approx(expected[1:], rel=1e-6, abs=1e-12)
    assert (outcome.verdict == "holds") == (outcome.p_holds < 0.025)
    assert (outcome.verdict == "does not hold") == (outcome.p_refuted < 0.025)


@given(samples, st.sampled_from(list(SIDES)), st.randoms(use_true_random=False))
def test_the_order_of_replicates_changes_nothing(values, side, random):
    assume(rules.constant(values) or not near_a_limit(values, side))
    shuffled = list(values)
    random.shuffle(shuffled)
    one, other = rules.decide(values, *SIDES[side]), rules.decide(shuffled, *SIDES[side])
    assert one.verdict == other.verdict
    assert one[1:] == pytest.approx(other[1:], rel=1e-6, abs=1e-12)


@given(samples, numbers, st.floats(0.01, 5))
def test_a_better_sample_has_no_worse_verdict(values, bound, more):
    order = ["does not hold", "unresolved", "holds"]
    before = rules.decide(values, above=bound)
    after = rules.decide([v + more for v in values], above=bound)
    assert order.index(after.verdict) >= order.index(before.verdict)
    assert after.p_holds <= before.p_holds + 1e-12
    mirrored = rules.decide([-v for v in values], below=-bound)
    assert (mirrored.verdict, mirrored.p_holds) == (before.verdict, pytest.approx(before.p_holds, abs=1e-12))


@given(samples, st.floats(1.01, 10))
def test_less_noise_never_turns_a_verdict_round(values, times):
    mean = float(np.mean(values))
    quieter = [mean + (v - mean) / times for v in values]
    before, after = rules.decide(values, above=-0.5), rules.decide(quieter, above=-0.5)
    assert {before.verdict, after.verdict} != {"holds", "does not hold"}
    if before.verdict != "unresolved" and not rules.constant(values):
        assert after.verdict == before.verdict


@given(samples, st.floats(-1, 1), st.floats(-1, 1))
def test_no_sample_is_on_both_sides(values, one, other):
    above, below = sorted((one, other))
    assume(below - above > 0.01)
    outcome = rules.decide(values, above, below)
    assert max(outcome.p_holds, outcome.p_refuted) >= 0.5 or outcome.verdict == "unresolved"


@pytest.mark.parametrize(
    ("values", "sides", "closed", "verdict"),
    [
        ([21.1479] * 5, (-INF, 80), False, "holds"),
        ([21.1479] * 5, (30, INF), False, "does not hold"),
        ([0.0] * 4, (-INF, 0), True, "holds"),
        ([0.0] * 4, (-INF, 0), False, "does not hold"),
        ([-0.5] * 3, (-0.5, 0.5), False, "does not hold"),
        ([0.1 + 0.2, 0.3, 0.3], (0.2, 0.4), False, "holds"),  # equal up to rounding
    ],
)
def test_equal_values_are_counted(values, sides, closed, verdict):
    outcome = rules.decide(values, *sides, closed)
    assert outcome.verdict == verdict
    p = 0.5 ** len(values)
    assert outcome[1:] == ((p, 1.0) if verdict == "holds" else (1.0, p))


def test_fewer_than_two_values_say_nothing():
    for values in ([], [3.0]):
        assert rules.decide(values, above=0) == ("unresolved", 1.0, 1.0)


@given(st.lists(numbers, min_size=2, max_size=8), st.sampled_from(list(SIDES)))
@example([-0.3, 0.2, -0.9, 0.1, -0.4], "above")
def test_the_replicates_needed_are_the_first_that_would_do(values, side):
    assume(np.ptp(values) > 1e-2)
    found = rules.needed(values, *SIDES[side], limit=2000)
    distance = min(abs(np.mean(values) - bound) for bound in SIDES[side])
    assume(distance > 1e-6)

    def enough(n):
        error = stats.sem(values) * math.sqrt(len(values) / n)
        return stats.t.interval(0.95, n - 1, loc=0, scale=error)[1] < distance

    if found == INF:
        assert not enough(2000)
    else:
        assert enough(int(found)) and (found == 2 or not enough(int(found) - 1))


# --------------------------------------------------------------------------------------------------- claims and Holm


def outcome(verdict, p_holds, p_refuted):
    return rules.Outcome(verdict, p_holds, p_refuted)


YES, NO, MAYBE = outcome("holds", 0.01, 0.99), outcome("does not hold", 0.99, 0.01), outcome("unresolved", 0.2, 0.8)


@pytest.mark.parametrize(
    ("parts", "refuted_at", "expected"),
    [
        ([YES], [], ("holds", 0.01, 0.99)),
        ([NO], [], ("does not hold", 0.99, 0.01)),
        ([MAYBE], [], ("unresolved", 0.2, 0.8)),
        ([YES, outcome("holds", 0.02, 0.98)], [], ("holds", 0.02, 1.0)),
        ([YES, MAYBE], [], ("unresolved", 0.2, 1.0)),
        ([YES, NO], [], ("does not hold", 0.99, 0.02)),
        ([NO, NO, MAYBE], [], ("does not hold", 0.99, 0.03)),
        ([NO], [NO, MAYBE], ("unresolved", 0.99, 0.8)),  # it may happen at the other level
        ([NO], [NO, YES], ("unresolved", 0.99, 0.99)),
        ([NO], [NO, outcome("does not hold", 0.98, 0.02)], ("does not hold", 0.99, 0.02)),
        ([YES], [YES, NO], ("holds", 0.01, 0.99)),  # once is enough
    ],
)
def test_parts_and_levels_make_a_claim(parts, refuted_at, expected):
    whole = rules.combine(parts, refuted_at)
    assert whole.verdict == expected[0]
    assert whole[1:] == pytest.approx(expected[1:])


def survivors(p_values, level=0.05):
    """Holm's procedure as a loop: from the smallest p on, against the level over how many are left, until one fails."""
    left, out = sorted(range(len(p_values)), key=lambda i: p_values[i]), set()
    while left and p_values[left[0]] <= level / len(left):
        out.add(left.pop(0))
    return out


p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=25) | st.lists(st.floats(0, 0.02), min_size=1, max_size=25)


@given(p_lists)
def test_holm_is_holms(p_values):
    corrected = rules.adjusted(p_values)
    assume(all(abs(p - 0.05) > 1e-12 for p in corrected))
    assert {i for i, p in enumerate(corrected) if p <= 0.05} == survivors(p_values)
    assert (corrected >= np.asarray(p_values)).all() and (corrected <= 1).all()
    assert (corrected <= np.minimum(1, len(p_values) * np.asarray(p_values)) + 1e-15).all()  # never behind Bonferroni


@given(p_lists, st.randoms(use_true_random=False))
def test_holm_knows_no_order(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    assert rules.adjusted([p_values[i] for i in order]) == pytest.approx(rules.adjusted(p_values)[order])


# ---------------------------------------------------------------------------------------------------- whole judgements

WAVE = (-0.03, 0.01, 0.02)  # what the accuracy does from epoch to epoch: nothing, over three


def study(experiment="mlp", networks=None, replicates=range(5, 10), steps=None, active=None, never=()):
    """Tidy rows: (arm, level) -> accuracies, one per replicate.

    steps: (arm, level) -> first steps at 99% on validation; never: (arm, level, replicate) that stay at 90%;
    active: (arm, level) -> active outputs among 5-9.
    """
    config, rows = configure(experiment, "report"), []
    for (arm, level), values in networks.items():
        for i, (r, value) in enumerate(zip(replicates, values, strict=True)):
            key = (experiment, config.model, arm, r, level, config.density(level))
            last = config.epochs
            curve = [(k, value + WAVE[k % 3]) for k in range(last - last // 5 + 1, last + 1)]
            if last // 5 % 3:
                curve = [(k, value) for k, _ in curve]
            first = (steps or {}).get((arm, level), [1000] * len(values))[i]
            high = 90.0 if (arm, level, r) in never else 99.0
            validation = [(0, 10.0), (first, high), (100 * last, high)]
            rows += [(*key, 100 * k, float(k), "test", "accuracy", v) for k, v in [(0, 10.0), (1, 50.0), *curve]]
            rows += [(*key, s, s / 100, "validation", "accuracy", v) for s, v in validation]
            rows.append((*key, first, first / 100, "test", "early_accuracy", value))
            alive = (active or {}).get((arm, level))
            rows += [
                (*key, 0, 0.0, "mask", f"live_output:{c}", float(alive > c - 5))
                for c in range(5, 10)
                if alive is not None
            ]
    return pd.DataFrame(rows, columns=experiments.COLUMNS)


def verdict(table, claim):
    return table[table["claim"] == claim]["verdict"].iloc[0]


def judged(frame, experiment="mlp", **settings):
    return rules.judge(frame, configure(experiment, "report", **settings))


DENSE = [98.0, 97.9, 98.1, 98.0, 97.95]


def dense_and(level, *differences):
    ticket = [d + x for d, x in zip(DENSE, differences, strict=True)]
    return {("ticket", 0): DENSE, ("ticket", level): ticket}


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ((0.1, 0.0, 0.05, -0.1, 0.02), "holds"),
        ((-0.4, -0.45, -0.38, -0.42, -0.41), "holds"),
        ((-0.6, -0.65, -0.61, -0.58, -0.62), "does not hold"),
        ((-0.9, -0.1, -0.6, -0.3, -0.5), "unresolved"),
        ((5.0, -4.0, 3.0, -2.0, 1.0), "unresolved"),
    ],
)
def test_one_sided_claims(differences, expected):
    assert verdict(judged(study(networks=dense_and(7, *differences))), "mlp-90") == expected


@pytest.mark.slow
def test_a_cliff_is_refuted_only_where_every_level_stays_up():
    def at(heights):
        return {("ticket", k): [h - 1, h, h + 1, h + 0.5, h - 0.5] for k, h in heights.items()}

    high = dict.fromkeys(range(9, 21), 95.0)
    assert verdict(judged(study(networks=at(high))), "mlp-cliff") == "does not hold"
    assert verdict(judged(study(networks=at(high | {12: 70.0}))), "mlp-cliff") == "holds"
    assert verdict(judged(study(networks=at(high | {17: 70.0}))), "mlp-cliff") == "unresolved"
    assert verdict(judged(study(networks=at(high | {17: 80.0}))), "mlp-cliff") == "unresolved"
    del high[17]  # not trained: nobody knows
    assert verdict(judged(study(networks=at(high))), "mlp-cliff") == "unresolved"
    table = judged(study(networks=at(dict.fromkeys(range(9, 21), 95.0) | {14: 70.0})))
    assert table[table["claim"] == "mlp-cliff"]["note"].iloc[0] == "mean < 80 first at level 14, 0.68% density"
    assert verdict(table, "mlp-at-95") == "does not hold"


def test_better_may_be_at_any_declared_level_but_is_judged_at_one():
    worse, better = (-0.3, -0.2, -0.25, -0.3, -0.28), (0.3, 0.2, 0.25, 0.3, 0.28)
    networks = {}
    for k in range(1, 10):
        networks |= dense_and(k, *worse)
    assert verdict(judged(study(networks=networks)), "mlp-better") == "does not hold"
    assert verdict(judged(study(networks=networks | dense_and(3, *better))), "mlp-better") == "unresolved"
    assert verdict(judged(study(networks=networks | dense_and(5, *better))), "mlp-better") == "holds"


def test_equivalence_has_two_sides():
    def crossed(by_adam, by_sgd):
        chains = dict.fromkeys([("adam", 4), ("sgd", 4)], DENSE)
        crossed = {("sgd_mask_by_adam", 4): by_adam, ("adam_mask_by_sgd", 4): by_sgd}
        return study("task3", chains | {k: [d + x for d, x in zip(DENSE, v, strict=True)] for k, v in crossed.items()})

    same, up = (0.1, -0.1, 0.05, 0.0, -0.05), (0.8, 0.9, 0.85, 0.75, 0.8)
    wild = (0.8, -0.9, 0.2, 0.5, -0.3)
    for by_adam, by_sgd, expected in [
        (same, same, "holds"),
        (same, up, "does not hold"),  # better by far is not the same either
        (wild, same, "unresolved"),
        (wild, up, "does not hold"),
        ([-x for x in up], up, "does not hold"),
    ]:
        table = judged(crossed(by_adam, by_sgd), "task3")
        assert verdict(table, "task3") == expected
        assert verdict(table, "task3-momentum") == "not run"
    assert table["p"].iloc[0] == pytest.approx(2 * min(table["p_refuted"].iloc[:2]))


def test_faster_and_the_hypothesis_in_logarithms():
    steps = {("ticket", 0): [2000, 1000, 4000, 3000, 1500], ("ticket", 5): [1000, 400, 2400, 1500, 900]}
    table = judged(study(networks=dense_and(5, 0.1, 0.0, 0.05, -0.1, 0.02), steps=steps))
    row = table[(table["claim"] == "mlp-faster") & (table["role"] == "judged")].iloc[0]
    logs = np.log([0.5, 0.4, 0.6, 0.5, 0.6])
    low, high = stats.t.interval(0.95, 4, loc=logs.mean(), scale=stats.sem(logs))
    assert row[["estimate", "low", "high"]].tolist() == pytest.approx(np.exp([logs.mean(), low, high]).tolist())
    assert row["p"] == pytest.approx(stats.ttest_1samp(logs, 0, alternative="less").pvalue)
    dense, ticket = (np.log(steps["ticket", k]) for k in (0, 5))
    assert row["pairing"] == pytest.approx((dense.var(ddof=1) + ticket.var(ddof=1)) / logs.var(ddof=1))
    assert (verdict(table, "mlp-faster"), verdict(table, "mlp-lth")) == ("holds", "holds")
    exchanged = {("ticket", 0): steps["ticket", 5], ("ticket", 5): steps["ticket", 0]}
    slower = judged(study(networks=dense_and(5, 0.1, 0.0, 0.05, -0.1, 0.02), steps=exchanged))
    assert (verdict(slower, "mlp-faster"), verdict(slower, "mlp-lth")) == ("does not hold", "does not hold")


def test_as_fast_is_fast_enough_for_the_hypothesis_and_not_faster():
    table = judged(study(networks=dense_and(5, 0.1, 0.0, 0.05, -0.1, 0.02)))
    assert (verdict(table, "mlp-faster"), verdict(table, "mlp-lth")) == ("does not hold", "holds")
    row = table[table["claim"] == "mlp-faster"].iloc[0]
    assert row["note"] == "5 of 5 are 1" and math.isnan(row["low"]) and row["p"] == 0.5**5


@pytest.mark.parametrize("arm_level", [("ticket", 0), ("ticket", 5)])
def test_a_run_that_never_gets_there_is_a_bound(arm_level):
    networks = dense_and(5, 0.1, 0.0, 0.05, -0.1, 0.02)
    steps = {("ticket", 0): [2000, 1000, 4000, 3000, 1500], ("ticket", 5): [1000, 400, 2400, 1500, 900]}
    one = judged(study(networks=networks, steps=steps, never={(*arm_level, 6)}))
    note = "at least: in 1 of 5 a run never gets there and counts with its last step"
    assert one[one["claim"] == "mlp-faster"]["note"].iloc[0] == note
    assert verdict(one, "mlp-faster") in ("holds", "unresolved")
    steps[arm_level][1] = 7500  # its last step
    expected = np.exp(np.mean(np.log(np.divide(steps["ticket", 5], steps["ticket", 0]))))
    assert one[one["claim"] == "mlp-faster"]["estimate"].iloc[0] == pytest.approx(expected)
    two = judged(study(networks=networks, steps=steps, never={(*arm_level, 6), (*arm_level, 8)}))
    assert verdict(two, "mlp-faster") == "not judged (2 of 5 are only bounds)"
    assert verdict(two, "mlp-lth") == "not judged (2 of 5 are only bounds)"
    worse = dense_and(5, -1.1, -1.0, -1.05, -1.1, -1.02)
    worse = study(networks=worse, steps=steps, never={(*arm_level, 6), (*arm_level, 8)})
    assert verdict(judged(worse), "mlp-lth") == "does not hold"  # its other part is enough
    assert math.isnan(two[two["claim"] == "mlp-faster"]["p"].iloc[0])


def test_bounds_refute_nothing():
    steps = {("ticket", 0): [1000] * 5, ("ticket", 5): [5000, 4900, 4800, 5100, 5000]}
    networks = dense_and(5, 0.1, 0.0, 0.05, -0.1, 0.02)
    assert verdict(judged(study(networks=networks, steps=steps)), "mlp-lth") == "does not hold"
    never = {("ticket", 0, 5), ("ticket", 0, 6)}  # of these two the dense network takes at least 7,500
    table = judged(study(networks=networks, steps=steps, never=never))
    assert verdict(table, "mlp-faster") == verdict(table, "mlp-lth") == "not judged (2 of 5 are only bounds)"
    for n in (2, 5):
        never = {("ticket", 5, r) for r in range(5, 5 + n)}  # slower than the dense network; nobody knows by how much
        table = judged(study(networks=networks, steps=steps, never=never))
        assert verdict(table, "mlp-lth") == f"not judged ({n} of 5 are only bounds)"


def test_the_share_that_a_ticket_carries_over():
    networks = {
        ("t1_on_s2_spared", 12): [97.0, 96.0, 98.0],
        ("t2_on_s2_spared", 12): [98.0, 98.0, 98.0],
        ("random_mask_spared", 12): [94.0, 90.0, 96.0],
    }
    table = judged(study("task2", networks, replicates=(5, 6, 7)), "task2")
    row = table[table["measured"].str.startswith("share")].iloc[0]
    assert row["estimate"] == pytest.approx((3 / 4 + 6 / 8 + 2 / 2) / 3)
    assert (row["role"], row["claim"], row["alone"]) == ("shown", "task2-ticket", "")


@pytest.mark.slow
def test_initialisation_at_both_levels():
    def at(first, second):
        networks = {}
        for level, differences in ((7, first), (9, second)):
            networks["random_reinit", level] = DENSE
            networks["ticket", level] = [d + x for d, x in zip(DENSE, differences, strict=True)]
        return verdict(judged(study(networks=networks)), "mlp-init")

    up, wild = (0.3, 0.2, 0.25, 0.3, 0.28), (0.8, -0.9, 0.2, 0.5, -0.3)
    down = [-x for x in up]
    assert at(up, up) == "holds"
    assert at(up, wild) == at(wild, up) == "unresolved"
    assert at(up, down) == at(down, wild) == "does not hold"


def test_what_pruning_cut_off_is_counted():
    def networks(n, arm="t1_on_s2"):
        return {(arm, k): [CLASS_SHARE] * 5 for k in range(16 - n, 16)}

    def said(nets, active=None):
        return verdict(judged(study("task2", nets, active=active), "task2"), "task2-cause")

    dead, few = networks(4), networks(3)
    assert said(dead, dict.fromkeys(dead, 0)) == "does not hold"
    assert said(few, dict.fromkeys(few, 0)) == "unresolved"
    assert said(dead) == "unresolved"  # outputs not looked into
    assert said({k: [CLASS_SHARE + 0.03] * 5 for k in dead}, dict.fromkeys(dead, 3)) == "unresolved"
    some = dict.fromkeys(dead, 0) | {("t1_on_s2", 13): 2}
    table = judged(study("task2", dead, active=some), "task2")
    assert verdict(table, "task2-cause") == "holds"
    row = table[table["claim"] == "task2-cause"].iloc[0]
    assert (row["estimate"], row["n"], row["note"]) == (5, 20, "5 of 20") and math.isnan(row["p"])


GOOD = (0.1, 0.0, 0.05, -0.1, 0.02)


def test_exploratory_replicates_decide_nothing():
    bad = study(networks=dense_and(7, *[x - 5 for x in GOOD]), replicates=range(5))
    good = study(networks=dense_and(7, *GOOD))
    table = judged(pd.concat([bad, good]))
    row = table[table["claim"] == "mlp-90"].iloc[0]
    assert row["verdict"] == "holds" and row["replicates"] == "5, 6, 7, 8, 9"
    assert row["estimate"] == pytest.approx(np.mean(GOOD), abs=1e-9)
    assert row["exploratory"] == pytest.approx(np.mean(GOOD) - 5, abs=1e-9)
    assert (row["exploratory_n"], row["pooled_n"], row["later_n"]) == (5, 10, 0)
    assert row["pooled"] == pytest.approx(np.mean(GOOD) - 2.5, abs=1e-9)
    assert verdict(judged(bad), "mlp-90") == "not judged (exploratory replicates only)"
    looked = rules.judge(bad, configure("mlp", "report"), exploratory=True)
    assert verdict(looked, "mlp-90") == "exploratory: does not hold"
    assert verdict(judged(bad, seed=1), "mlp-90") == "does not hold"  # of another seed they chose nothing


def test_five_decide_and_later_ones_are_shown_beside_them():
    first = study(networks=dense_and(7, *GOOD))
    later = study(networks=dense_and(7, *[x - 9 for x in GOOD]), replicates=range(10, 15))
    row = judged(pd.concat([later, first])).iloc[0]
    assert (row["verdict"], row["n"], row["later_n"]) == ("holds", 5, 10)
    assert row["later"] == pytest.approx(np.mean(GOOD) - 4.5, abs=1e-9)


@pytest.mark.parametrize("n", [1, 2])
def test_too_few_replicates(n):
    networks = {at: values[:n] for at, values in dense_and(7, *GOOD).items()}
    assert verdict(judged(study(networks=networks, replicates=range(5, 5 + n))), "mlp-90") == f"not judged (n = {n})"


def test_three_are_enough():
    networks = {at: values[:3] for at, values in dense_and(7, *GOOD).items()}
    assert verdict(judged(study(networks=networks, replicates=(5, 7, 11))), "mlp-90") == "holds"


def test_only_what_both_arms_have_is_compared():
    frame = study(networks=dense_and(7, *GOOD))
    missing = frame[~((frame["level"] == 0) & (frame["replicate"] > 6))]
    assert verdict(judged(missing), "mlp-90") == "not judged (n = 2)"


@pytest.mark.parametrize(
    ("preset", "settings", "why"),
    [
        ("quick", {}, "quick"),
        ("smoke", {}, "smoke"),
        ("report", {"lr": 0.01}, "other lr"),
        ("report", {"prune_rate": 0.2}, "other prune_rate"),
        ("report", {"validation": 0}, "other validation"),
        ("report", {"margin": 5.0}, "other margin"),
    ],
)
def test_another_study_is_not_judged(preset, settings, why):
    table = rules.judge(study(networks=dense_and(7, *GOOD)), configure("mlp", preset, **settings))
    assert verdict(table, "mlp-90") == f"not judged ({why})"
    assert table["estimate"].iloc[0] == pytest.approx(np.mean(GOOD), abs=1e-9)
    assert set(table["alone"]) == {""} and table[["p_holds", "p_refuted", "p", "n_needed"]].isna().all(axis=None)


@pytest.mark.parametrize("experiment", ARCHIVED)
def test_nothing_trained_is_not_run(experiment):
    table = judged(pd.DataFrame(columns=experiments.COLUMNS), experiment)
    claims = {rule.id for rule in rules.REPORT if rule.experiment == experiment}
    assert set(table["claim"]) == claims
    assert {verdict(table, claim) for claim in claims} == {"not run"}


@pytest.mark.parametrize("name", ["paper", "rewind"])
def test_an_experiment_without_rules_has_an_empty_table(name):
    table = judged(pd.DataFrame(columns=experiments.COLUMNS), name)
    assert table.empty and list(table) == rules.COLUMNS


def test_holm_over_the_table():
    table = judged(study(networks=dense_and(7, *GOOD)))
    family = [rule.id for rule in rules.REPORT if rule.id != "task2-cause"]
    corrected = rules.holm(table)
    p = table["p"].iloc[0]
    assert corrected["p_holm"].iloc[0] == pytest.approx(p * len(family))  # the rest of the table counts with p = 1
    assert verdict(corrected, "mlp-90") == "holds"
    weak = judged(study(networks=dense_and(7, *[x - 0.35 for x in (0.1, 0.0, 0.05, -0.08, 0.02)])))
    assert verdict(weak, "mlp-90") == "holds" and 0.05 / len(family) < weak["p"].iloc[0] < 0.025
    assert verdict(rules.holm(weak), "mlp-90") == "holds, not after Holm"
    alone = rules.holm(weak, ["mlp-90"])
    assert verdict(alone, "mlp-90") == "holds"
    others = rules.holm(weak, [*"abc", "mlp-90"], ["d"])  # families are corrected apart from one another
    assert others["p_holm"].iloc[0] == pytest.approx(4 * weak["p"].iloc[0])
    assert math.isnan(rules.holm(weak, ["a", "b"])["p_holm"].iloc[0])  # in none of them: not corrected
    twice = rules.holm(pd.concat([table, weak]))  # as of two seeds: each by itself
    first = twice[twice["claim"] == "mlp-90"]["p_holm"].dropna().tolist()
    assert first == pytest.approx([p * len(family), weak["p"].iloc[0] * len(family)])
    assert verdict(rules.holm(judged(pd.DataFrame(columns=experiments.COLUMNS))), "mlp-90") == "not run"


def values_by_hand(name, networks, measure, replicates):
    """One number per replicate; of steps the logarithm of the ratio."""
    if measure.quantity == "accuracy":
        one, other = (
            [mean_of_last_fifth(name, networks[*at, r]) for r in replicates] if at else [0.0] * len(replicates)
            for at in (measure.first, measure.second)
        )
        return np.subtract(one, other)
    if measure.quantity == "gap":
        one, other = (
            [
                np.subtract(*(mean_of_last_fifth(name, networks[*at, r], s) for s in ("train", "test")))
                for r in replicates
            ]
            for at in (measure.first, measure.second)
        )
        return np.subtract(one, other)
    threshold = int(measure.quantity[-2:])
    one, other = (
        [first_step(networks[*at, r], threshold)[0] for r in replicates] for at in (measure.first, measure.second)
    )
    return np.log(np.divide(one, other))


def where(rule):
    """The experiment that decides: that of the rule, or of training accuracy, which it does not store, its fit."""
    return f"{rule.experiment}_fit" if "generalise" in rule.id else rule.experiment


def judged_by_hand(rule, networks, replicates):
    """Verdict, p, and per measure (mean, low, high, its verdict) of a claim, from the csv files and scipy alone."""
    each, shown = [], []
    for measure in (*rule.parts, *rule.refuted_at):
        sample = values_by_hand(where(rule), networks, measure, replicates)
        ratio = measure.quantity.startswith("steps")
        limits = [math.log(b) if ratio and abs(b) < INF else b for b in (measure.above, measure.below)]
        interval = stats.ttest_1samp(sample, 0).confidence_interval(0.95)
        numbers = [sample.mean(), *interval]
        each.append(by_scipy(sample, *limits))
        shown.append((np.exp(numbers).tolist() if ratio else numbers, each[-1][0]))
    parts, levels = each[: len(rule.parts)], each[len(rule.parts) :]
    if all(v == "holds" for v, _, _ in parts):
        expected = "holds"
    elif levels:
        expected = "does not hold" if all(v == "does not hold" for v, _, _ in levels) else "unresolved"
    else:
        expected = "does not hold" if "does not hold" in [v for v, _, _ in parts] else "unresolved"
    p_holds = max(p for _, p, _ in parts)
    p_refuted = max(p for *_, p in levels) if levels else min(1, len(parts) * min(p for *_, p in parts))
    return expected, min(p_holds, p_refuted), shown


@pytest.mark.parametrize("name", ARCHIVED)
def test_the_archive_judged_by_hand(archived, by_hand, name):
    """Every judged number of the exploratory replicates, from the csv files and scipy alone."""
    table = rules.judge(archived[name], configure(name, "report"), exploratory=True)
    for rule in (r for r in rules.REPORT if r.experiment == name and r.parts and "generalise" not in r.id):
        rows = table[table["claim"] == rule.id]
        expected, p, shown = judged_by_hand(rule, by_hand[name], range(ARCHIVED[name]))
        for (numbers, alone), (_, row) in zip(shown, rows.iterrows(), strict=False):
            assert row[["estimate", "low", "high"]].tolist() == pytest.approx(numbers)
            assert row["alone"] == alone
        assert verdict(table, rule.id) == f"exploratory: {expected}"
        assert rows["p"].iloc[0] == pytest.approx(p)


def fresh(name):
    """The confirmatory replicates that decide, of those that the committed study shows: list of int.

    A replicate that is stored before the others of its study is not shown yet.
    """
    there = sorted(int(path.stem[1:]) for path in (store.FIGURES / "archive" / name).glob("r*.zip"))
    first = REGISTRY[name].first
    return [r for r in there if SEEN[name] <= r < first + configure(name, "report").replicates][:5]


def scorecard_by_hand():
    """Verdict, p and numbers of every claim of the report, from the confirmatory packs' csv files and scipy alone."""
    out = {}
    for rule in rules.REPORT:
        name = where(rule)
        replicates = fresh(name)
        if not replicates:
            nothing = "not run" if name in OF_THEIR_OWN else "not judged (exploratory replicates only)"
            out[rule.id] = nothing, math.nan, []
        elif len(replicates) < 3:
            out[rule.id] = f"not judged (n = {len(replicates)})", math.nan, []
        elif rule.count:
            live, dead = sevens(read_packs(name, replicates))
            verdict = "holds" if live else "does not hold" if dead >= 20 else "unresolved"
            out[rule.id] = verdict, math.nan, []
        else:
            out[rule.id] = judged_by_hand(rule, read_packs(name, replicates), replicates)
    family = [id for id, rule in REPORT.items() if not rule.count]
    in_order = sorted((p, id) for id in family if (p := out[id][1]) == p)
    refuted, m = True, len(family)  # Holm: the smallest p against 0.05 / m, the next against 0.05 / (m - 1), ...
    for k, (p, id) in enumerate(in_order):
        refuted = refuted and p <= 0.05 / (m - k)
        verdict, _, shown = out[id]
        if not refuted and verdict != "unresolved":
            out[id] = f"{verdict}, not after Holm", p, shown
    return out


def shown_in(document, part):
    """The rows of a document's generated table by their first cells: dict of str to list of str."""
    text = (store.ROOT / document).read_text().partition(f"<!-- {part} -->")[2].partition(f"<!-- /{part} -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row for row in rows[1:]}


@pytest.mark.slow
def test_the_scorecard_is_what_the_csv_files_say():
    """Documents and tables have the verdicts and numbers that code which shares nothing with the package finds."""
    studies = [experiments.study(name, "report") for name in SEEN]
    table = experiments.verdicts(*studies)
    expected = scorecard_by_hand()
    assert set(table["claim"]) == set(expected)
    in_short, in_full = shown_in("README.md", "claims"), shown_in("figures/README.md", "verdicts")
    assert list(in_full) == list(dict.fromkeys(table["claim"]))
    first = (store.ROOT / "README.md").read_text()
    listed = {v: set(re.findall(r"`([\w-]+)`", line)) for v, line in re.findall(r"^(Not \w+): ([^.]*)\.", first, re.M)}
    assert set(in_short) | set().union(*listed.values()) == set(in_full)
    for claim, (verdict, p, shown) in expected.items():
        rows = table[(table["claim"] == claim) & table["role"].isin(["judged", "some level"])]
        assert rows["verdict"].iloc[0] == verdict, claim
        assert in_full[claim][-1] == verdict
        without = claim in listed.get(verdict.partition(" (")[0].capitalize(), ())
        assert without if claim not in in_short else in_short[claim][-1] == verdict.partition(" (")[0]
        assert rows["p"].iloc[0] == pytest.approx(p, nan_ok=True)
        for (numbers, alone), (_, row) in zip(shown, rows.iterrows(), strict=bool(shown)):
            assert row[["ours", "low", "high"]].tolist() == pytest.approx(numbers)
            assert (row["alone"], row["n"]) == (alone, len(fresh(row["experiment"])))
        if shown:
            numbers = [[round(number, 2) + 0.0 for number in three] for three, _ in shown]  # 0.00, never -0.00
            one = [f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in numbers]
            assert in_full[claim][4] in one and in_short[claim][4] in one


@pytest.mark.slow
def test_holm_is_over_the_whole_table_whatever_is_asked_for():
    every = experiments.verdicts(*(experiments.study(name, "report") for name in SEEN))
    alone = experiments.verdicts(experiments.study("task1", "report"))
    same = every[every["experiment"] == "task1"]
    assert alone[["claim", "verdict"]].values.tolist() == same[["claim", "verdict"]].values.tolist()
    assert alone["p_holm"].tolist() == pytest.approx(same["p_holm"].tolist(), nan_ok=True)


def test_the_commit_of_the_rules_has_them():
    """Since then a remark on two rules' levels was worded anew; nothing that decides has changed."""
    command = ["git", "show", f"{rules.COMMIT}:lthcore/results/rules.py"]
    shown = subprocess.run(command, cwd=store.ROOT, capture_output=True, text=True)
    if shown.returncode:
        pytest.skip("no history here")
    old = types.ModuleType("lthcore.results.statistics")
    sys.modules["_rules_then"] = old  # dataclasses look their module up
    old.__dict__.update(__package__=rules.__package__, __name__="_rules_then")
    exec(compile(shown.stdout, "rules.py", "exec"), old.__dict__)
    del sys.modules["_rules_then"]

    def decides(rule):
        return {name: value for name, value in asdict(rule).items() if name != "levels"}

    assert [decides(rule) for rule in old.REPORT] == [decides(rule) for rule in rules.REPORT]
    assert (old.LOOK, old.FEWEST, old.LEVEL) == (rules.DECIDING, rules.FEWEST, rules.LEVEL)
    pairs = zip(old.REPORT, rules.REPORT, strict=True)
    reworded = [rule.id for then, rule in pairs if then.levels != rule.levels]
    assert reworded == ["mlp-init", "lenet-init"]


def test_task2s_networks_counted_by_hand(archived, by_hand):
    table = rules.judge(archived["task2"], configure("task2", "report"), exploratory=True)
    row = table[table["claim"] == "task2-cause"].iloc[0]
    live, dead = sevens(by_hand["task2"])
    assert (row["estimate"], row["n"]) == (live, live + dead)
    assert row["n"] > 20


def sevens(networks):
    """Networks at exactly 1028/4861, with and without an active output among 5-9."""
    dead, live = 0, 0
    for rows in networks.values():
        if abs(max(rows["test", "accuracy"])[1] / 100 * 4861 - 1028) < 1e-6:
            active = any(rows["mask", f"live_output:{label}"][-1][1] for label in range(5, 10))
            live += active
            dead += not active
    return live, dead
