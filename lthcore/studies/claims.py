"""Every claim about an experiment, measured and judged: one table for all who show it. No torch.

The report's claims are judged by the rules in :mod:`lthcore.results.rules`, others' published ones by the measures
below. To add one of these, write the function that measures it and add a line to `CLAIMS`.
"""

import math
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd

from ..results import rules
from ..results.statistics import (
    at_end,
    barriers,
    best_level,
    deletable,
    deletions,
    density_at,
    drawn,
    early_steps,
    first_below,
    interval,
    levels,
    paired,
    ticket_level,
)
from . import REGISTRY

REPORT_REPLICATES = 3  # a verdict needs at least so many, and the preset `report`


@dataclass(frozen=True)
class Measure:
    """One number that a claim is judged by.

    Parameters
    ----------
    what : str
        In words, with the level.
    level, density : int, float
        Where it is taken.
    values : Series
        One per replicate: accuracy points, or steps.
    above, below : float
        It holds if the whole interval lies in (above, below].
    fails_below : float
        It does not hold if the whole interval lies below this; by default below `above`.
    judged : bool
        False: shown beside the claim, part of no verdict.
    """

    what: str
    level: int
    density: float
    values: pd.Series
    above: float = -math.inf
    below: float = math.inf
    fails_below: float | None = None
    judged: bool = True

    def verdict(self):
        """``holds``, ``does not hold`` or ``unresolved``; empty if it is only shown."""
        if not self.judged:
            return ""
        _, _, low, high = interval(self.values)
        if low > self.above and high <= self.below:
            return "holds"
        if high < (self.above if self.fails_below is None else self.fails_below) or low > self.below:
            return "does not hold"
        return "unresolved"


@dataclass(frozen=True)
class Claim:
    """A published claim, and the function that measures it: (frame, config) -> list of Measure."""

    id: str
    experiment: str
    text: str
    report: str  # the number that is published
    figure: str
    notebook: str
    measures: callable


def _better(frame, config):
    level = best_level(frame, "ticket")
    return [
        _difference(
            frame, f"ticket - dense, level {level} (best on validation)", ("ticket", level), ("ticket", 0), above=0
        )
    ]


def common_level(frame, config):
    """Task 3's level: the smallest L of its optimizers' chains, int or None."""
    found = [ticket_level(frame, arm, config.tolerance) for arm in ("adam", "sgd", "momentum")]
    return None if None in found else min(found)


def _hypothesis(frame, config):
    level = best_level(frame, "ticket")
    accuracy, step = at_end(frame, "early_accuracy"), early_steps(frame)
    at = {"level": level, "density": density_at(frame, "ticket", level)}
    return [
        Measure(
            f"a' - a at minimum validation loss, level {level}",
            values=paired(accuracy, "ticket", level, "ticket", 0),
            above=-0.2,
            **at,
        ),
        Measure(f"j' - j in steps, level {level}", values=paired(step, "ticket", level, "ticket", 0), below=0, **at),
    ]


def _difference(frame, what, one, other, metric="accuracy", **bounds):
    values = paired(at_end(frame, metric), *one, *other)
    return Measure(what, one[1], density_at(frame, *one), values, **bounds)


def _shown(frame, what, arm, level):
    return Measure(what, level, density_at(frame, arm, level), paired(at_end(frame), arm, level), judged=False)


# ------------------------------------------------------------------------- published values; the first four by level


EARLY = {"metric": "early_accuracy"}  # at minimum validation loss, where the paper takes its numbers
_PAPER = {"faster": 7, "reinit": 7, "better": 9, "random": 10, "back": 15}  # 21.1, 13.5, 10.7 and 3.6 % kept


def _paper_dense(frame, config):
    end = at_end(frame)
    return [Measure("dense, at the last step", 0, 1.0, paired(end, "ticket", 0), above=97.8, below=98.2)]


def _paper_early(frame, config):
    step, level = early_steps(frame), _PAPER["faster"]
    share = 100 * (1 - paired(step, "ticket", level) / paired(step, "ticket", 0))
    at = density_at(frame, "ticket", level)
    return [
        Measure(f"steps saved to the minimum validation loss, in percent, level {level}", level, at, share, above=0)
    ]


def _paper_better(frame, config):
    level = _PAPER["better"]
    return [_difference(frame, f"ticket - dense, level {level}", ("ticket", level), ("ticket", 0), **EARLY, above=0.3)]


def _paper_back(frame, config):
    level, bounds = _PAPER["back"], {"above": -0.3, "below": 0.3}
    return [_difference(frame, f"ticket - dense, level {level}", ("ticket", level), ("ticket", 0), **EARLY, **bounds)]


def _paper_reinit(frame, config):
    level, again = _PAPER["reinit"], ("random_reinit", "random_reinit_2", "random_reinit_3")
    accuracy, step = at_end(frame, **EARLY), early_steps(frame)
    mean, steps = (
        pd.concat([paired(s, arm, level) for arm in again], axis=1).mean(axis=1, skipna=False) for s in (accuracy, step)
    )
    at = {"level": level, "density": density_at(frame, "ticket", level)}
    ticket, dense = paired(accuracy, "ticket", level), paired(accuracy, "ticket", 0)
    ratio = (steps / paired(step, "ticket", level)).dropna()
    return [
        Measure(f"re-initialised - dense, level {level}", values=(mean - dense).dropna(), below=0, **at),
        Measure(f"ticket - re-initialised, level {level}", values=(ticket - mean).dropna(), above=0, **at),
        Measure(f"re-initialised / ticket in steps, level {level}", values=ratio, above=1, **at),
    ]


def _paper_random(frame, config):
    level = _PAPER["random"]
    arms = ("ticket", level), ("random_mask", level)
    shown = [_shown(frame, f"{arm}, level {level}", arm, level) for arm, _ in arms]
    return [_difference(frame, f"ticket - random mask, level {level}", *arms, above=0), *shown]


def _paper_one_shot(frame, config):
    level = _PAPER["back"]
    what = f"iterative - one-shot, level {level}"
    return [_difference(frame, what, ("ticket", level), ("one_shot", level), **EARLY, above=0)]


def _paper_optimizers(frame, config):
    level = _PAPER["faster"]
    return [
        _difference(frame, f"{arm}: ticket - dense, level {level}", (arm, level), (arm, 0), **EARLY, above=-0.3)
        for arm in ("sgd", "momentum")
    ]


def _paper_sgd(frame, config):
    level = max(levels(frame, "sgd"), default=None)
    accuracy = at_end(frame, **EARLY)
    gain = [paired(accuracy, arm, level, arm, 0) for arm in ("sgd", "ticket")]
    at = {"level": level, "density": density_at(frame, "sgd", level)}
    return [
        Measure(f"by SGD: ticket - dense, level {level}", values=gain[0], above=-0.3, **at),
        Measure(f"by Adam: ticket - dense, level {level}", values=gain[1], judged=False, **at),
        Measure(f"the first less the second, level {level}", values=(gain[0] - gain[1]).dropna(), above=0, **at),
    ]


def _rewinding(frame, config):
    level, arms = 10, sorted({a for a in frame["arm"] if a.startswith("rewind_")}, key=lambda a: int(a[7:]))
    same = {"above": -config.margin, "below": config.margin}
    return [
        _difference(
            frame, f"rewound to step {arm[7:]} - to step 0, level {level}", (arm, level), (arms[0], level), **same
        )
        for arm in arms[1:]
    ]


def _stability(frame, config):
    level, rise = 10, barriers(frame)
    out = []
    for arm, judged in (("order_ticket_0", True), ("order_random_0", False)):
        what = f"{'ticket' if judged else 'random mask'}: rise of the error on the way, level {level}"
        out.append(
            Measure(what, level, density_at(frame, arm, level), paired(rise, arm, level), below=2, judged=judged)
        )
    return out


def _collapse(frame, config):
    """The MLP as the report pruned it, where its mean falls below 80 %, and the same with the head spared."""
    first = first_below(frame, "mlp layer 0.3 same", 80)
    at = {"level": first, "density": density_at(frame, "mlp layer 0.3 same", first)}
    there = levels(frame, "mlp layer 0.3 spared") if first is not None else []
    level = next((k for k in there if density_at(frame, "mlp layer 0.3 spared", k) <= at["density"]), None)
    end = at_end(frame)
    return [
        Measure(f"head spared, level {level}", values=paired(end, "mlp layer 0.3 spared", level), above=80, **at),
        Measure(f"as pruned, level {first}", values=paired(end, "mlp layer 0.3 same", first), judged=False, **at),
    ]


_TRANSFER = 5  # 3.5 % kept: where the claims on borrowed tickets are judged
_SHOWN = 7  # 1.2 % kept: shown beside that


def _borrowed(frame, config, *, pairs, **bounds):
    """One arm less another, at the level of judgement and, unjudged, at the last one."""
    return [
        _difference(frame, f"{words}, level {k}", (one, k), (other, k), judged=k == _TRANSFER, **bounds)
        for k in (_TRANSFER, _SHOWN)
        for words, one, other in pairs
    ]


def _as_good(frame, config, *, pairs):
    return _borrowed(frame, config, pairs=pairs, above=-config.margin)


_DATA_PAIRS = (("on MNIST", "fashion_on_mnist", "mnist"), ("on Fashion-MNIST", "mnist_on_fashion", "fashion"))
_OWN = [(f"{on}: borrowed - own", one, own) for on, one, own in _DATA_PAIRS]
_RANDOM = [(f"{on}: borrowed - random mask", one, f"random_mask_on_{own}") for on, one, own in _DATA_PAIRS]
_OTHER_RULE = (
    ("by Adam: momentum's - own", "momentum_on_mnist", "mnist"),
    ("by momentum: Adam's - own", "mnist_on_momentum", "momentum"),
)
_FRESH = (("labels 0-4's - own, both with a fresh head", "labels0-4_fresh_head", "labels5-9_fresh_head"),)
_SIZE = (("found on all images - on a tenth", "mnist", "tenth_on_mnist"),)
_CLASSES = (
    ("30,000 images: of 10 classes - of 5", "half1_on_mnist", "labels0-4_on_mnist"),
    ("12,000 images: of 10 classes - of 2", "fifth_on_mnist", "labels0-1_on_mnist"),
)


def _saved(frame, arm, level, **bounds):
    what = f"{arm}: training saved, in percent, level {level}"
    return Measure(what, level, density_at(frame, arm, level), drawn(frame, arm, level)[1], **bounds)


def _early_mask(frame, config, *, levels):
    """An early mask loses nothing, and is one: the mask of the last epoch would lose nothing either."""
    out = [_saved(frame, "early", k, above=0, fails_below=1e-9) for k in levels]
    for one, k in [("early", k) for k in levels] + [("early_strict", k) for k in levels if k > 1]:
        what, bounds = f"{one} - whole, level {k}", {"above": -config.margin, "judged": one == "early"}
        out.append(_difference(frame, what, (one, k), ("whole", k), **bounds))
    return out


def _early_when(frame, config):
    more = [(arm, k) for arm in ("early", "early_strict") for k in (2, 4, 6)]
    return [_saved(frame, "early", 1, above=50), *(_saved(frame, *one, judged=False) for one in more)]


def _early_random(frame, config):
    pairs = [(arm, ("random_mask", 6)) for arm in (("early", 6), ("whole", 6))]
    return [
        _difference(frame, f"{one[0]} - random mask, level 6", one, other, above=0, judged=one[0] == "early")
        for one, other in pairs
    ]


# ------------------------------------------------------- other ways to prune: 12.6, 6.4, 3.2 % kept at levels 3, 4, 5


def _better_than(frame, config, *, pairs, levels=(5,), slack=0):
    """The first arm of each pair is better than the second; with `slack` 1, not worse by more than the margin."""
    return [
        _difference(frame, f"{one} - {other}, level {k}", (one, k), (other, k), above=-slack * config.margin)
        for k in levels
        for one, other in pairs
    ]


def _still_dense(frame, config, *, arm, level):
    """An arm at a level is at most the margin below its own dense network; beside it, what its first level gained."""
    measures = [_difference(frame, f"{arm} - dense, level {level}", (arm, level), (arm, 0), above=-config.margin)]
    if level > 1:  # the dense network itself is not trained on
        measures.append(_difference(frame, f"{arm}, level 1 - dense", (arm, 1), (arm, 0), judged=False))
    return measures


def _deletable(frame, config, *, one, other):
    a, b = (deletable(deletions(frame), f"{name}_deleted") for name in (one, other))
    what = "% of the weights deleted before the training loss rises by 0.1 nats"
    shown = [Measure(f"{name}: {what}", 0, 1.0, share, judged=False) for name, share in ((one, a), (other, b))]
    return [Measure(f"{one} - {other}: {what}", 0, 1.0, (a - b).dropna(), above=0), *shown]


def _filters(frame, config):
    cost = at_end(frame, "multiply_adds", "mask")
    saved = 100 * (1 - paired(cost, "filters", 1) / paired(cost, "filters", 0))
    at = density_at(frame, "filters", 1)
    shown = Measure("multiply-adds saved, in percent, level 1", 1, at, saved, judged=False)
    return [*_still_dense(frame, config, arm="filters", level=1), shown]


# What others have published; `report` is their number.
_LTH, _FIG6 = "06_lottery_ticket_paper", "fig6a_paper_early_stop"
CLAIMS = [
    Claim(f"paper-{id}", "paper", text, published, figure, _LTH, measures)
    for figure, claims in (
        (_FIG6, (
            ("dense", "LeNet-300-100, dense", "98.0 +- 0.2", _paper_dense),
            ("early", "at 21.1 % the ticket is trained earlier", "38 % earlier", _paper_early),
            ("better", "at 13.5 % it is more than 0.3 points better than dense", "> 0.3", _paper_better),
            ("back", "at 3.6 % it is back to dense", "the same", _paper_back),
            ("reinit", "re-initialised at 21.1 %: below dense, worse and slower than the ticket",
             "0.5 points, 2.51 times", _paper_reinit),
            ("random", "at 10.7 % the ticket is better than a random mask", "98.3 and 97.5", _paper_random),
            ("one-shot", "at 3.6 % iterative pruning is better than one-shot", "smaller tickets", _paper_one_shot),
            ("lth", "Lottery Ticket Hypothesis: j' <= j, a' >= a, fewer weights (LeNet-300-100)", "holds", _hypothesis),
        )),
        ("fig6b_paper_optimizers", (
            ("optimizers", "SGD and momentum find tickets too (21.1 %)", "they do", _paper_optimizers),
            ("sgd", "SGD's tickets stay as good as dense to fewer weights than Adam's", "< 1 % and 3.6 %", _paper_sgd),
        )),
    )
    for id, text, published, measures in claims
]  # fmt: skip
CLAIMS += [
    Claim(
        name,
        name,
        f"Conv-{name[4:]}'s best ticket is better than dense (CIFAR-10)",
        gain,
        f"fig6c_{name}",
        _LTH,
        _better,
    )
    for name, gain in (("conv2", "better"), ("conv4", "better"), ("conv6", "better"))
]
CLAIMS += [
    Claim("rewind", "rewind", "late resetting changes nothing on MNIST (10.8 % kept)", "stable at step 0",
          "fig7a_rewinding", "07_rewinding_and_stability", _rewinding),
    Claim("stability", "rewind", "the ticket's copies in two orders are joined by a straight way of low error",
          "< 2 points", "fig7b_stability", "07_rewinding_and_stability", _stability),
    Claim("collapse", "collapse", "where the MLP falls below 80 %, it stays above with its head spared", "nothing",
          "fig11b_collapse_accuracy", "11_collapse", _collapse),
]  # fmt: skip
CLAIMS += [
    Claim(f"criteria-{id}", "criteria", text, published, figure, "08_pruning_criteria", measures)
    for figure, claims in (
        ("fig8a_rewinding_rules", (
            ("lr-rewinding", "without reset, at full rate and length, a ticket is as good (Renda et al. 2020)",
             "matches or outperforms",
             partial(_better_than, pairs=[("lr_rewind", "reset")], levels=(3, 5), slack=1)),
            ("fine-tuning",
             "both are better than fine-tuning for a third of the epochs (3.2 % kept; Renda et al. 2020)",
             "both outperform it",
             partial(_better_than, pairs=[("lr_rewind", "finetune"), ("reset", "finetune")])),
            ("twelfth", "fine-tuned, a sixteenth of the weights is as good as the dense network (Han et al. 2015)",
             "error 1.64 to 1.59 % at 12x", partial(_still_dense, arm="finetune", level=4)),
            ("retain", "survivors had better keep their weights than be re-initialised (3.2 % kept; Han et al. 2015)",
             "better", partial(_better_than, pairs=[("lr_rewind", "random_reinit")])),
        )),
        ("fig8b_deletion", (
            ("obd", "deleted at once by OBD, the loss rises less than by magnitude (LeCun et al. 1990)",
             "significantly smaller", partial(_deletable, one="obd", other="magnitude")),
            ("obd-random", "deleted at random, it rises far more (LeCun et al. 1990)", "beyond their scale",
             partial(_deletable, one="obd", other="random")),
            ("obd-retrained", "retrained, 75 % can be deleted by OBD (LeCun et al. 1990)",
             "60 %: almost the same", partial(_still_dense, arm="obd_retrained", level=2)),
            ("random", "retrained, random deletion is still worst (3.1 % kept)", "nothing",
             partial(_better_than, pairs=[(f"{by}_retrained", "random_retrained") for by in ("obd", "magnitude")])),
        )),
        ("fig8c_filters", (
            ("filters", "retrained, a third of the multiply-adds can go with whole filters (Li et al. 2017)",
             "VGG-16: 34 %, close to the original accuracy", _filters),
            ("scratch", "trained from scratch, the smaller network is worse (Li et al. 2017)", "worse",
             partial(_better_than, pairs=[("filters", "filters_reinit")], levels=(3,))),
        )),
    )
    for id, text, published, measures in claims
]  # fmt: skip
CLAIMS += [
    Claim(f"transfer-{id}", "transfer", text, published, figure, "09_transfer", measures)
    for id, text, published, figure, measures in (
        ("data", "a ticket of the other data set is as good as the own one (3.5 % kept)", "often close",
         "fig9a_transfer_data", partial(_as_good, pairs=_OWN)),
        ("random", "a ticket of the other data set is better than a random one (3.5 % kept)", "better",
         "fig9a_transfer_data", partial(_borrowed, pairs=_RANDOM, above=0)),
        ("optimizer", "a ticket of the other optimizer is as good as the own one (3.5 % kept)", "high performance",
         "fig9b_transfer_tasks", partial(_as_good, pairs=_OTHER_RULE)),
        ("labels", "with a fresh head a ticket of the labels 0-4 is as good on 5-9 (3.5 % kept)", "nothing",
         "fig9b_transfer_tasks", partial(_as_good, pairs=_FRESH)),
        ("size", "a ticket found on more images is better (3.5 % kept)", "consistently transferred better",
         "fig9c_transfer_size", partial(_borrowed, pairs=_SIZE, above=0)),
        ("classes", "on as many images, more classes give a better ticket (3.5 % kept)", "better",
         "fig9c_transfer_size", partial(_borrowed, pairs=_CLASSES, above=0)),
    )
]  # fmt: skip
CLAIMS += [
    Claim(f"early-bird{id}", "early_bird", text, published, figure, "10_early_bird", measures)
    for id, text, published, figure, measures in (
        ("", "within 0.1 an early mask is found, as good as that of the whole training (50 and 25 % kept)",
         "comparable or even better", "fig10b_early_bird", partial(_early_mask, levels=(1, 2))),
        ("-when", "five masks agree within 0.1 before half of the training is over (50 % kept)", "very early",
         "fig10a_mask_distance", _early_when),
        ("-sparse", "the early mask is as good where 0.1 says nothing (1.9 % kept)", "nothing",
         "fig10b_early_bird", partial(_early_mask, levels=(6,))),
        ("-random", "the early mask is better than a random one (1.9 % kept)", "nothing",
         "fig10b_early_bird", _early_random),
    )
]  # fmt: skip


# ---------------------------------------------------------------------------------------------------- one table for all

# Of each claim of the report a few of its words, and what shows it.
WORDS = {
    "mlp-90": "we get accuracy almost same",
    "lenet-85": "we get accuracy almost similar",
    "mlp-cliff": "falls drastically to a level below 80%",
    "mlp-at-95": "gets pruned by more than 95%",
    "lenet-cliff": "falls drastically to a level below 80%",
    "lenet-relu-cliff": "falls drastically to a level below 80%",
    "lenet-at-95": "gets pruned by more than 95%",
    **{f"{network}-better": "better than the original network" for network in ("mlp", "lenet")},
    **{f"{network}-faster": "learn faster" for network in ("mlp", "lenet")},
    **{f"{network}-generalise": "generalizing better" for network in ("mlp", "lenet")},
    **{f"{network}-init": "an important criteria" for network in ("mlp", "lenet")},
    **{f"{network}-lth": "commensurate training time" for network in ("mlp", "lenet")},
    "task1": "generalized well when trained over S_2",
    "task2-as-pruned": "labels 5-9): 21.1479",
    "task2-ticket": "labels 5-9): 21.1479",
    "task2-cause": "not able to learn the features",
    **dict.fromkeys(("task3", "task3-sgd", "task3-momentum"), "optimizer-independent"),
}
PLACES = {  # what shows the report's claims
    "mlp": "fig1a_mlp_accuracy_vs_density",
    "lenet5": "fig2a_lenet5_accuracy_vs_density",
    "task1": "fig3_task1",
    "task2": "fig4a_task2_accuracy",
    "task3": "fig5a_task3_accuracy_vs_density",
}
PLACES = {name: {"figure": figure, "notebook": REGISTRY[name].notebook} for name, figure in PLACES.items()}

GROUPS = ("exploratory", "pooled", "later")  # of replicates that decide nothing and are shown beside those that do
COLUMNS = [
    "experiment", "claim", "text", "report", "role", "measured", "side", "density", "n", "ours", "low", "high",
    *(column for group in GROUPS for column in (f"{group}_n", group, f"{group}_low", f"{group}_high")),
    "note", "n_needed", "alone", "p", "verdict", "rule", "figure", "notebook",
]  # fmt: skip
WITHOUT = dict.fromkeys(COLUMNS, math.nan) | dict.fromkeys(("side", "note", "rule"), "") | {"role": "judged"}


def judge(frame, config):
    """Every claim about one experiment, measured and judged.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of one experiment; may be incomplete.
    config : Config
        Gives tolerance, margin and preset.

    Returns
    -------
    DataFrame
        A row per measure, with the columns

        experiment, claim, text, report : its experiment, name and words; the number or the section that is published
        role : ``judged``, ``some level`` or ``shown``; see :func:`lthcore.results.rules.judge`
        measured, side, density : what is compared, the claim's side of it, and at which density in [0, 1]
        n, ours, low, high : replicates, mean and 95 % interval; of a claim of the report, of the confirmatory
            replicates alone
        exploratory*, pooled*, later* : the same of the exploratory replicates, of all, and, if there are more than
            decide, of all confirmatory ones: claims of the report only
        note, n_needed : counts and bounds; the replicates it would take to resolve what is unresolved
        alone, p, verdict : the measure's own verdict; the claim's p and verdict, on its first row: ``holds`` if all its
            measures do, ``does not hold`` if one does not, else ``unresolved``; ``not judged (...)`` below the preset
            ``report``, below 3 replicates or without a validation set
        rule : the commit in which the rule was written down
        figure, notebook : what shows it
    """
    known = WITHOUT | {"experiment": config.experiment}
    rows = [known | row for row in (*_published(frame, config), *_by_rule(frame, config))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _published(frame, config):
    """Rows of the claims that others have published."""
    for claim in CLAIMS:
        if claim.experiment != config.experiment:
            continue
        about = {"claim": claim.id, "text": claim.text, "report": claim.report}
        about |= {"figure": claim.figure, "notebook": claim.notebook}
        measures = claim.measures(frame, config) if len(frame) else []
        verdict = _verdict(measures, config)
        final = verdict in ("holds", "does not hold", "unresolved")
        numbers = ("n", "ours", "low", "high")
        for i, m in enumerate(measures):
            found = dict(zip(numbers, interval(m.values), strict=True))
            found |= {"measured": m.what, "density": m.density, "role": "judged" if m.judged else "shown"}
            yield about | found | {"alone": m.verdict() if final else "", "verdict": "" if i else verdict}
        if not measures:
            yield about | {"measured": "", "n": 0, "alone": "", "verdict": verdict}


def _by_rule(frame, config):
    """Rows of the report's claims.

    A claim about a variant that is no experiment yet ("lenet5_relu") stands with the experiment that it varies. Only
    the report's own schedule has exploratory replicates: no others were seen when the rules were written.
    """
    mine, not_there = [], []
    for rule in rules.REPORT:
        if rules.another(config):
            rule = replace(rule, exploratory=())
        if rule.experiment == config.experiment:
            mine.append(rule)
        elif rule.experiment not in PLACES and rule.experiment.partition("_")[0] == config.experiment:
            not_there.append(replace(rule, experiment=config.experiment))
    for table in (rules.judge(frame, config, mine), rules.judge(frame[:0], config, not_there)):
        for row in table.to_dict("records"):
            row |= {"text": row["quotation"], "ours": row["estimate"], "report": f"section {row['section']}"}
            if row["verdict"] == "not run" and len(frame) and rules.another(config):  # it lacks the levels of the rule
                row["verdict"] = f"not judged ({rules.another(config)})"
            if row["quantity"] not in ("networks", rules.QUANTITIES["accuracy"].words):
                row["measured"] += f" ({row['quantity']})"
            row |= {"rule": rules.COMMIT} | PLACES[config.experiment]
            yield {name: value for name, value in row.items() if name in COLUMNS}


def _verdict(measures, config):
    judged = [m for m in measures if m.judged]
    n = min((len(m.values) for m in judged), default=0)
    if not measures or n == 0:
        return "not run"
    if config.preset != "report":
        return f"not judged ({config.preset})"
    if n < REPORT_REPLICATES:
        return f"not judged (n = {n})"
    if not config.validation:
        return "not judged (no validation set)"
    if reason := rules.another(config):
        return f"not judged ({reason})"
    each = [m.verdict() for m in judged]
    if all(v == "holds" for v in each):
        return "holds"
    return "does not hold" if "does not hold" in each else "unresolved"


def decisive(rows):
    """Of one claim's rows the one that its verdict rests on, else its first."""
    verdict = rows["verdict"].iloc[0].removesuffix(rules.NOT_AFTER_HOLM)
    same = rows[rows["alone"] == verdict]
    return (same if len(same) else rows).iloc[0]


def number(row, group=""):
    """Mean and interval of a row's replicates, or the instances of a count, in words: str.

    Parameters
    ----------
    row : Series
        Of :func:`judge`.
    group : str
        One of ``GROUPS``; by default those that decide.
    """
    mean, low, high, n = (row[_column(group, name)] for name in ("ours", "low", "high", "n"))
    if not n > 0:  # or NaN
        return ""
    if row["measured"] in rules.COUNTS or row["measured"].startswith("of these: "):
        return f"{mean:.0f} of {n:.0f}"
    return f"{mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if low == low else "")


def _column(group, name):
    return name if not group else group if name == "ours" else f"{group}_{name}"


def show(verdicts):
    """The verdicts as a table to read: numbers and their intervals as text.

    Of the report's claims the levels are left out that only refute a claim that something happens at some level.
    """
    pd.set_option("display.max_colwidth", None)  # the words at the end of a cell name the level
    verdicts = verdicts[verdicts["role"] != "some level"]
    ruled = bool((verdicts["rule"] != "").any())
    out = verdicts[["claim", "text", "report", "measured"]].copy()
    out["kept"] = [f"{100 * d:.3g} %" if d == d else "" for d in verdicts["density"]]
    records = verdicts.to_dict("records")
    if ruled:
        out["holds if"] = verdicts["side"]
    out["confirmatory" if ruled else "ours"] = [number(row) for row in records]
    out["n"] = verdicts["n"]
    for group in GROUPS if ruled else ():
        if (verdicts[f"{group}_n"] > 0).any():
            words = [number(row, group) and f"{number(row, group)}, n = {row[f'{group}_n']:.0f}" for row in records]
            out[group] = words
    out["alone"] = verdicts["alone"]
    if ruled:
        out["note"] = [_remark(row) for row in records]
        out["p"] = [f"{p:.2g}" if p == p else "" for p in verdicts["p"]]
    out["verdict"] = verdicts["verdict"]
    if ruled:
        out["rule"] = verdicts["rule"]
    repeated = out["claim"].duplicated()
    out.loc[repeated, ["claim", "text", "report", *(["rule"] if ruled else [])]] = ""
    return out.set_index("claim")


def _remark(row):
    more = row["n_needed"]
    needs = f"resolved at n = {more:.0f}, if it goes on so" if more < math.inf else "not resolved at any n in reach"
    return "; ".join(part for part in (row["note"], needs if more == more else "") if part)
