"""The verdicts on claims beyond the report, found again from the packs' csv files by numpy and scipy alone."""

import csv
import io
import itertools
import math
import re
import zipfile

import numpy as np
import pytest
from scipy import stats

from lthcore.config import configure
from lthcore.runs import store
from lthcore.studies import REGISTRY, claims, experiments

ROOT = store.ROOT
INF = math.inf
SHARED = {"at_init": "mlp", "small_dense": "mlp", "small_dense_lenet5": "lenet5"}  # whose networks are compared with
EXPLORED = dict.fromkeys(("paper", "rewind", "collapse", "criteria", "transfer", "early_bird"), 3)


class Networks:
    """One replicate of a study: arm, level -> (split, metric) -> (step, epoch, value), in the file's order."""

    def __init__(self, name, replicate):
        self.rows = {}
        for study in (SHARED.get(name), name):
            path = ROOT / "figures" / "archive" / str(study) / f"r{replicate}.zip"
            if study is None or not path.exists():
                continue
            with zipfile.ZipFile(path) as pack:
                lines = csv.reader(io.TextIOWrapper(pack.open("rows.csv"), "utf-8"))
                assert next(lines) == ["at", "step", "epoch", "split", "metric", "value"]
                for network, of_network in itertools.groupby(lines, lambda line: line[0]):
                    unit, _, level = network.rpartition("/")
                    arm = unit.removeprefix(f"{study}-").rsplit("-", 2)[0]
                    there = self.rows.setdefault((arm, int(level)), {})
                    for _, step, epoch, split, metric, value in of_network:
                        there.setdefault((split, metric), []).append((int(step), float(epoch), float(value)))

    def last(self, arm, level, metric="accuracy", split="test"):
        """The value at the last step."""
        return max(self.rows[arm, level][split, metric])[2]

    def mean(self, arm, level=9):
        """Test accuracy, mean over the ends of the last fifth of the epochs; the run's end counts as one."""
        curve = self.rows[arm, level]["test", "accuracy"]
        end = max(epoch for _, epoch, _ in curve)
        first = math.ceil(end) - max(1, math.ceil(math.ceil(end) / 5))
        return np.mean([value for _, epoch, value in curve if epoch > first and (epoch in (round(epoch), end))])

    def early(self, arm, level):
        """The step of the minimum validation loss."""
        return max(self.rows[arm, level]["test", "early_accuracy"])[0]

    def to_97(self, arm, level):
        """The first step with a validation accuracy of 97%."""
        curve = self.rows[arm, level]["validation", "accuracy"]
        return min((step for step, _, value in curve if value >= 97), default=max(curve)[0])

    def saved(self, level):
        """Percent of the training that drawing the early mask saves."""
        dense = self.rows["early", 0]
        end = max(epoch for _, epoch, _ in dense["test", "accuracy"])
        return 100 * (1 - max(dense["mask", f"drawn_epoch_{level}"])[2] / end)

    def deleted(self, name):
        """Percent of the weights deleted at once before the training loss has risen by 0.1, linear in between."""
        found = self.rows[f"{name}_deleted", 0].items()
        loss = {
            float(m.partition(":")[2]): v[-1][2]
            for (s, m), v in found
            if s == "train" and m.startswith("deleted_loss:")
        }
        ways = sorted(loss, reverse=True)
        for before, after in itertools.pairwise(ways):
            if loss[after] > loss[1.0] + 0.1:
                part = (loss[1.0] + 0.1 - loss[before]) / (loss[after] - loss[before])
                return 100 * (1 - before + part * (before - after))
        return 100 * (1 - ways[-1])

    def untrained(self, arm, level=9):
        return next(value for step, _, value in self.rows[arm, level]["test", "accuracy"] if step == 0)

    def barrier(self, arm, level):
        way = [self.last(arm, level, f"path_accuracy:{t / 10}") for t in range(11)]
        return (way[0] + way[-1]) / 2 - min(way)


def difference(one, level, other, other_level=None, above=-INF, below=INF):
    at = level if other_level is None else other_level
    return lambda n: n.mean(one, level) - n.mean(other, at), above, below


def last_difference(one, other, level, above=-INF, below=INF):
    return lambda n: n.last(one, level) - n.last(other, level), above, below


def half_of_the_lead(arm, above=-INF, below=INF):
    return lambda n: n.last(arm, 9) - (n.last("theta0", 9) + n.last("fresh", 9)) / 2, above, below


def reinitialised(n, what):
    return np.mean([what(arm, 7) for arm in ("random_reinit", "random_reinit_2", "random_reinit_3")])


def change(n, arm):
    return n.mean(arm, 20) - n.mean(arm, 0)


NOT_RUN = ("conv2", "conv4", "conv6")  # each a study with one claim
BEFORE = ("snip", "synflow", "initial")
# claim: experiment, and per part what is compared (of steps the logarithm of their ratio) and the claim's side
CLAIMS = {
    "paper-dense": ("paper", [(lambda n: n.mean("ticket", 0), 97.8, 98.2)]),
    "paper-early": ("paper", [(lambda n: math.log(n.early("ticket", 7) / n.early("ticket", 0)), -INF, 0)]),
    "paper-better": ("paper", [difference("ticket", 9, "ticket", 0, above=0.3)]),
    "paper-back": ("paper", [difference("ticket", 15, "ticket", 0, above=-0.3, below=0.3)]),
    "paper-reinit": ("paper", [
        (lambda n: reinitialised(n, n.mean) - n.mean("ticket", 0), -INF, 0),
        (lambda n: n.mean("ticket", 7) - reinitialised(n, n.mean), 0, INF),
        (lambda n: math.log(reinitialised(n, n.early) / n.early("ticket", 7)), 0, INF),
    ]),
    "paper-random": ("paper", [difference("ticket", 10, "random_mask", above=0)]),
    "paper-one-shot": ("paper", [difference("ticket", 15, "one_shot", above=0)]),
    "paper-lth": ("paper", [
        difference("ticket", 8, "ticket", 0, above=-0.2),
        (lambda n: math.log(n.to_97("ticket", 8) / n.to_97("ticket", 0)), -INF, 0),
    ]),
    "paper-optimizers": ("paper", [difference(arm, 7, arm, 0, above=-0.3) for arm in ("sgd", "momentum")]),
    "paper-sgd": ("paper", [
        (lambda n: change(n, "sgd"), -0.3, INF), (lambda n: change(n, "sgd") - change(n, "ticket"), 0, INF),
    ]),
    "criteria-lr-rewinding": ("criteria", [difference("lr_rewind", k, "reset", above=-0.5) for k in (3, 5)]),
    "criteria-fine-tuning": ("criteria", [
        difference(arm, 5, "finetune", above=0) for arm in ("lr_rewind", "reset")
    ]),
    "criteria-twelfth": ("criteria", [difference("finetune", 4, "finetune", 0, above=-0.5)]),
    "criteria-retain": ("criteria", [difference("lr_rewind", 5, "random_reinit", above=0)]),
    "criteria-obd": ("criteria", [(lambda n: n.deleted("obd") - n.deleted("magnitude"), 0, INF)]),
    "criteria-obd-random": ("criteria", [(lambda n: n.deleted("obd") - n.deleted("random"), 0, INF)]),
    "criteria-obd-retrained": ("criteria", [difference("obd_retrained", 2, "obd_retrained", 0, above=-0.5)]),
    "criteria-random": ("criteria", [
        difference(f"{by}_retrained", 5, "random_retrained", above=0) for by in ("obd", "magnitude")
    ]),
    "criteria-filters": ("criteria", [difference("filters", 1, "filters", 0, above=-0.5)]),
    "criteria-scratch": ("criteria", [difference("filters", 3, "filters_reinit", above=0)]),
    "transfer-data": ("transfer", [
        difference("fashion_on_mnist", 5, "mnist", above=-0.5),
        difference("mnist_on_fashion", 5, "fashion", above=-0.5),
    ]),
    "transfer-random": ("transfer", [
        difference("fashion_on_mnist", 5, "random_mask_on_mnist", above=0),
        difference("mnist_on_fashion", 5, "random_mask_on_fashion", above=0),
    ]),
    "transfer-optimizer": ("transfer", [
        difference("momentum_on_mnist", 5, "mnist", above=-0.5),
        difference("mnist_on_momentum", 5, "momentum", above=-0.5),
    ]),
    "transfer-labels": ("transfer", [difference("labels0-4_fresh_head", 5, "labels5-9_fresh_head", above=-0.5)]),
    "transfer-size": ("transfer", [difference("mnist", 5, "tenth_on_mnist", above=0)]),
    "transfer-classes": ("transfer", [
        difference("half1_on_mnist", 5, "labels0-4_on_mnist", above=0),
        difference("fifth_on_mnist", 5, "labels0-1_on_mnist", above=0),
    ]),
    "early-bird": ("early_bird", [
        (lambda n: n.saved(1), 0, INF), (lambda n: n.saved(2), 0, INF),
        *(difference("early", k, "whole", above=-0.5) for k in (1, 2)),
    ]),
    "early-bird-when": ("early_bird", [(lambda n: n.saved(1), 50, INF)]),
    "early-bird-sparse": ("early_bird", [
        (lambda n: n.saved(6), 0, INF), difference("early", 6, "whole", above=-0.5),
    ]),
    "early-bird-random": ("early_bird", [difference("early", 6, "random_mask", above=0)]),
    "rewind": ("rewind", [
        difference(f"rewind_{k}", 10, "rewind_0", above=-0.5, below=0.5) for k in (100, 1000)
    ]),
    "stability": ("rewind", [(lambda n: n.barrier("order_ticket_0", 10), -INF, 2)]),
    "collapse": ("collapse", [(lambda n: n.mean("mlp layer 0.3 spared", 15), 80, INF)]),
    "signs-fresh-sizes": ("signs", [half_of_the_lead("fresh_sizes", above=0)]),
    "signs-one-size": ("signs", [half_of_the_lead("one_size", above=0)]),
    "signs-sizes-alone": ("signs", [half_of_the_lead("fresh_signs", below=0)]),
    "signs-permuted": ("signs", [half_of_the_lead("permuted_sizes", above=0)]),
    "signs-frozen": ("signs", [last_difference("frozen", "theta0", 9, below=0)]),
    "signs-supermask": ("signs", [(lambda n: n.untrained("theta0"), 20, INF)]),
    "smaller-dense": ("small_dense", [difference("ticket", 9, "dense_9", 0, above=0)]),
    "smaller-dense-lenet5": ("small_dense_lenet5", [difference("ticket", 13, "dense_13", 0, above=0)]),
    "init-snip": ("at_init", [difference("snip", 9, "snip", 0, above=-0.5)]),
    "init-random": ("at_init", [difference(arm, 9, "random_mask", above=0) for arm in BEFORE]),
    "init-trained": ("at_init", [difference("trained", 9, arm, above=0) for arm in BEFORE]),
    "init-shuffled": ("at_init", [difference(arm, 9, f"{arm}_shuffled", below=0.5) for arm in BEFORE]),
    "init-fresh": ("at_init", [difference(arm, 9, f"{arm}_fresh", below=0.5) for arm in BEFORE]),
    "init-unlike": ("at_init", [difference("trained", 9, f"trained_{how}", above=0) for how in ("shuffled", "fresh")]),
}  # fmt: skip


def decided(values, above, below):
    """Verdict and one-sided p-values: by the t-test, or by counting where all values are the same."""
    values = np.asarray(values)
    if np.ptp(values) < 1e-9:
        inside = above < values[0] < below
        return ("holds", 0.5 ** len(values), 1.0) if inside else ("does not hold", 1.0, 0.5 ** len(values))
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    finite = [(bound, sides) for bound, sides in ((above, ("greater", "less")), (below, ("less", "greater")))
              if abs(bound) < INF]  # fmt: skip
    p = [[stats.ttest_1samp(values, bound, alternative=side).pvalue for side in sides] for bound, sides in finite]
    verdict = "holds" if low > above and high < below else "unresolved"
    verdict = "does not hold" if high < above or low > below else verdict
    return verdict, max(inside for inside, _ in p), min(outside for _, outside in p)


def replicates(name):
    """Those that decide, as the committed study shows them, and whether they had been seen before: list, bool."""
    first = REGISTRY[name].first
    there = list(range(first, first + configure(name, "report").replicates))
    later = there[EXPLORED.get(name, 0) :][:5]
    return later or there, not later


def by_hand():
    """Of every claim its verdict, and (mean, low, high) of each of its parts."""
    out, p_of, read = {}, {}, {}
    for claim, (name, parts) in CLAIMS.items():
        which, explored = replicates(name)
        for r in which:
            if (name, r) not in read:
                read[name, r] = Networks(name, r)
        samples = [[value(read[name, r]) for r in which] for value, _, _ in parts]
        each = [decided(sample, *bounds) for sample, (_, *bounds) in zip(samples, parts, strict=True)]
        if len(which) < 3:
            out[claim] = f"not judged (n = {len(which)})", samples
            continue
        said = [verdict for verdict, _, _ in each]
        verdict = "does not hold" if "does not hold" in said else "holds" if set(said) == {"holds"} else "unresolved"
        if not explored:
            p_of[claim] = min(max(p for _, p, _ in each), len(each) * min(p for *_, p in each))
        out[claim] = verdict + ", exploratory" * explored, samples
    family = [*NOT_RUN, *(claim for claim in CLAIMS if published(claim))]
    survives = True
    for k, claim in enumerate(sorted((c for c in family if c in p_of), key=p_of.get)):
        survives = survives and p_of[claim] <= 0.05 / (len(family) - k)
        verdict, samples = out[claim]
        if not survives and verdict != "unresolved":
            out[claim] = f"{verdict}, not after Holm", samples
    return out


def published(claim):
    """Whether the document's table gives a published value, not "nothing"."""
    record = REGISTRY[CLAIMS[claim][0]]
    return next(c.published for c in record.claims if c.id == claim) != "nothing"


@pytest.mark.slow
def test_every_claim_beyond_the_report_judged_by_hand():
    """The table that is shown and the one in the documents have these verdicts and numbers."""
    table = experiments.verdicts(*(s for s in experiments.every(extended=True, preset="report") if s.experiment.claims))
    assert set(table["claim"]) == {*CLAIMS, *NOT_RUN} >= {*claims.PUBLISHED}
    expected = by_hand()
    verdicts = {claim: verdict for claim, (verdict, _) in expected.items()}
    found = table[table["verdict"] != ""].set_index("claim")["verdict"].to_dict()
    assert found == verdicts | dict.fromkeys(NOT_RUN, "not run")
    for claim, (_, samples) in expected.items():
        rows = table[(table["claim"] == claim) & (table["role"] == "judged")]
        for sample, (_, row) in zip(samples, rows.iterrows(), strict=True):
            mean = math.exp(np.mean(sample)) if row["unit"] == "ratio of training steps" else np.mean(sample)
            assert row["ours"] == pytest.approx(mean, abs=1e-9) and row["n"] == len(sample), claim
    document = (ROOT / "figures/README.md").read_text()
    lines = document.partition("<!-- published -->")[2].partition("<!-- /published -->")[0].splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if re.match(r"\| \d", line)]
    texts = {row[0]: row[1] for row in cells if len(row) == 4}
    ids = {c.text: c.id for record in REGISTRY.values() for c in record.claims}
    shown = {ids[texts[row[0]]]: row[-1] for row in cells if len(row) == 7}
    assert shown == found
