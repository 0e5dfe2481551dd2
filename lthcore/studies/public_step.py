"""The training step of a public repository: does it give the report's numbers?

The step is that of github.com/rahulvigneswaran/Lottery-Ticket-Hypothesis-in-Pytorch (main.py, commit 4ae2d5e), a source
of facts: no code is taken. Before each step of Adam it sets to 0 the gradient of every weight below 1e-6, meant for
pruned weights; every negative weight is below it. Adam's L2 weight decay is added behind that.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from ..config import Config
from ..probes.signs import CLEARLY
from ..results.later import figures, statistics
from ..runs import presets
from ..unit import MaskOf, Unit
from .common import controls
from .mlp import MLP
from .record import Experiment
from .task1 import TASK1
from .task2 import TASK2
from .task3 import TASK3

STEP = {"frozen_below": 1e-6, "weight_decay": 1e-4, "biases": "normal", "rewind": "keep_biases", "validation": 0.0}
OFF = {  # settings that turn off one part of the step, by the end of the arms' names
    "frozen": {"frozen_below": 0.0},
    "decay": {"weight_decay": 0.0},
    "biases": {"biases": "zero", "rewind": "reset"},
    "all_images": {"validation": 1 / 12},
}
OFF["everything"] = {name: value for part in OFF.values() for name, value in part.items()}
WITHOUT = {  # the same in words
    "frozen": "no frozen weights", "decay": "no weight decay", "biases": "biases 0 and reset",
    "all_images": "images held out", "everything": "the correct step",
}  # fmt: skip
AT = 4  # the level at which parts are turned off
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The report's experiments on the MLP by that step, and Tasks 1 and 3 with parts of it turned off."""
    yield Unit(_by_schedule_of(MLP, config), "mlp", replicate)
    yield from _transferred(_by_schedule_of(TASK1, config), replicate, "task1", "half1", "half2", True)
    yield from _transferred(_by_schedule_of(TASK2, config), replicate, "task2", "labels0-4", "labels5-9")
    yield Unit(config, "task3_adam", replicate, probes=("signs",))
    yield Unit(replace(config, optimizer="sgd"), "task3_sgd", replicate)
    yield Unit(replace(config, **MOMENTUM), "task3_momentum", replicate)
    for part, off in OFF.items():
        without, suffix = replace(config, rounds=min(AT, config.rounds), **off), f"_without_{part}"
        yield from _transferred(without, replicate, "task1", "half1", "half2", suffix=suffix)
        yield Unit(without, f"task3_adam{suffix}", replicate, probes=("signs",))
        yield Unit(replace(without, **MOMENTUM), f"task3_momentum{suffix}", replicate)
    for suffix, off in (("", {}), ("_without_everything", OFF["everything"])):
        dense = replace(config, levels=(0,), **off)
        yield Unit(dense, f"task3_adam_dense{suffix}", replicate, probes=("clear_signs",))


def reset_weights(unit, level, before, load):
    """Weights of theta0, biases as the chain's level before left them; at the first pruned level theta0's as well.

    So does code that gives the network its saved initial biases themselves, not copies of them. A rewind rule, as
    :class:`lthcore.methods.RewindRule` describes it.
    """
    from ..lottery import drawn

    theta0 = drawn(unit, "theta0")
    if not unit.needs(level)[1]:
        return theta0, 0
    if before is None:
        raise ValueError(f"rewind = 'keep_biases': level {level} needs the level before, whose weights are missing")
    return theta0 | {name: value for name, value in before.items() if name.endswith(".bias")}, 0


def _by_schedule_of(experiment, config):
    """The settings of a study of the MLP, Task 3's, with another experiment's schedule; what a user set stays."""
    schedule = {name: experiment.settings[name] for name in ("batch_size", "prune_rate", "rounds")}
    schedule["epochs"] = config.epochs * experiment.settings["epochs"] // TASK3.settings["epochs"]
    return replace(config, **{name: v for name, v in schedule.items() if name not in presets.changes(config)})


def _transferred(config, replicate, task, s1, s2, controlled=False, suffix=""):
    t1 = Unit(config, f"{task}_s1{suffix}", replicate, s1)
    yield t1
    levels = config.trained_levels[-1:] if suffix else config.trained_levels[1:]
    yield Unit(config, f"{task}_s2{suffix}", replicate, s2, mask=MaskOf(t1), levels=levels)
    if controlled:
        yield from controls(config, t1, s2, f"_{task}")


# ------------------------------------------------------------------------------------------------- the report's numbers

READINGS = ("last epoch", "best epoch", "mean of the last ten")  # of the test accuracy of a training
CORRECT = {  # arm -> where the archive has the same by the correct step: experiment, arm
    "mlp": ("mlp", "ticket"),
    "task1_s1": ("task1", "t1_on_s1"), "task1_s2": ("task1", "t1_on_s2"),
    "task2_s1": ("task2", "t1_on_s1"), "task2_s2": ("task2", "t1_on_s2"),
    "task3_adam": ("task3", "adam"), "task3_sgd": ("task3", "sgd"), "task3_momentum": ("task3", "momentum"),
    "lenet5": ("lenet5", "ticket"), "lenet5_relu": ("lenet5_relu", "ticket"),
}  # fmt: skip
REPORTED = {  # arm -> the report's number for its ticket
    **{arm: TASK1.reported[CORRECT[arm][1]] for arm in ("task1_s1", "task1_s2")},
    **{arm: TASK2.reported[CORRECT[arm][1]] for arm in ("task2_s1", "task2_s2")},
    **dict.fromkeys(("task3_sgd", "task3_momentum"), TASK3.reported["sgd"]),
    "task3_adam": TASK3.reported["adam"],
}
FALLS = "< 80"  # of accuracy once more than 95% is pruned, which the report says of the MLP and of LeNet-5
DENSEST = 0.05
KEEPS = {"mlp": 0.10, "lenet5": 0.15, "lenet5_relu": 0.15}  # density below which the report calls it as good as dense
WIDEST = 2.0  # pp: a wider prediction interval would have many a number in it, and explains none
NUMBERS = {  # task -> arm -> the report's number, as it is printed; all of them at one level and by one reading
    "The MLP beyond 95%": {"mlp": FALLS},
    **{task: {arm: str(REPORTED[arm]) for arm in arms} for task, arms in {
        "Task 1": ("task1_s1", "task1_s2"),
        "Task 2": ("task2_s1", "task2_s2"),
        "Task 3, SGD with momentum": ("task3_adam", "task3_momentum"),
        "Task 3, plain SGD": ("task3_adam", "task3_sgd"),
    }.items()},
    "LeNet-5 beyond 95%, tanh": {"lenet5": FALLS},
    "LeNet-5 beyond 95%, ReLU": {"lenet5_relu": FALLS},
}  # fmt: skip


def read(frame):
    """The test accuracy of every network by each of ``READINGS``: frame over (arm, level, replicate), in percent."""
    import pandas as pd

    rows = frame[(frame["metric"] == "accuracy") & (frame["split"] == "test")].sort_values("step", kind="stable")
    ends = rows[(rows["epoch"] >= 1) & (rows["epoch"] % 1 == 0)]
    ends = rows if ends.empty else ends  # of a training that is cut within its first epoch
    ten = ends.groupby(statistics.KEYS, observed=True).tail(10)
    columns = [(rows, "last"), (ends, "max"), (ten, "mean")]
    every = [statistics.of_networks(part, "value", how) for part, how in columns]
    return pd.concat(every, axis=1, keys=READINGS)


def prediction(values):
    """Mean and 95% prediction interval of one more replicate: mean, low, high; the last two NaN for fewer than 2."""
    n, mean, low, high = statistics.interval(values)
    wider = (n + 1) ** 0.5  # than the interval of the mean: sqrt(1 + 1/n) to sqrt(1/n)
    return mean, mean - wider * (mean - low), mean + wider * (high - mean)


def within(number: str, low: float, high: float) -> bool:
    """Whether an interval of at most `WIDEST` has a value that would be printed so; of `FALLS`, any one below it."""
    if number == FALLS:
        return low < float(number.removeprefix("<"))
    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
    return high - low <= WIDEST and low - half <= float(number) <= high + half


def explained(results, others=()):
    """Which of the report's numbers lie in the 95% prediction interval of the public step, and of the correct one.

    The numbers of a task are read at one level and by one of ``READINGS``, of either step at the pair where most of
    them lie within, and of such pairs the nearest. At how many pairs all numbers of the task lie within, of how many
    that were tried, is in the table. ``< 80`` is tried at the first level beyond 95% pruned alone. Both steps have the
    same replicates, since fewer of them give a wider interval.

    Parameters
    ----------
    results : Results
        Of :func:`lthcore.studies.experiments.load`.
    others : iterable of Results
        The correct step is read from these, and from the archive where none of them has it at the committed scale.

    Returns
    -------
    DataFrame
        A row per number, in words. ``explained by`` is empty where a step has fewer than two replicates.
    """
    import pandas as pd

    seen, rows = _seen(results.frame), []
    for task, numbers in NUMBERS.items():
        if not set(numbers) <= set(results.frame["arm"]):
            continue
        correct_step = _archived(CORRECT[next(iter(numbers))][0], *others)
        archived = _of_replicates(correct_step, set(results.frame["replicate"]))
        public = _best(seen, numbers, {arm: arm for arm in numbers})
        if public is None:
            continue  # the dense networks alone are finished
        correct = archived and _best(archived, numbers, {arm: CORRECT[arm][1] for arm in numbers})
        for place, (arm, number) in enumerate(numbers.items()):
            rows.append({
                "task": task, "network": results.study.experiment.styles[arm][0], "report": number,
                **_cells("public step", public, place), **_cells("correct step", correct, place),
                "explained by": _by_which(public, correct, place),
            })  # fmt: skip
    return pd.DataFrame(rows)


def keeps_and_falls(results, others=()):
    """The report's two sentences on a network, at the first level that each names, by either step.

    It keeps almost the dense network's accuracy beyond 85% pruned (MLP: 90%), and is below 80% beyond 95%.

    Parameters
    ----------
    results, others
        As for :func:`explained`; both steps have the same replicates.

    Returns
    -------
    DataFrame
        A row per network and step, in words: test accuracy at the last epoch, mean and 95% t-interval.
    """
    import pandas as pd

    public, rows = _seen(results.frame), []
    for arm, sparse in ((arm, sparse) for arm, sparse in KEEPS.items() if arm in public.density.index):
        experiment, known = CORRECT[arm]
        correct = _of_replicates(_archived(experiment, *others), set(results.frame["replicate"]))
        for step, seen, name in (("public", public, arm), ("correct", correct, known)):
            if seen is None or name not in seen.density.index:
                continue
            last, density = seen.readings[READINGS[0]].loc[name], seen.density[name]
            at = [min(density.index[density < limit], default=None) for limit in (sparse, DENSEST)]
            if None in at:
                continue
            changes, there, means = last[at[0]] - last[0], last[at[1]], last.groupby("level").mean()
            texts = [statistics.in_brackets(*statistics.interval(values)[1:]) for values in (changes, there)]
            fallen = [f"{100 * density[level]:.2g}% density" for level in means.index[means < 80]]
            network, form = figures.MODELS[results.study.config.model], results.study.experiment.styles[arm][0]
            rows.append({
                "network": form if form == network else f"{network}, {form}", "step": step,
                "minus dense, beyond 85% pruned (MLP: 90%)": f"{texts[0]} pp at {100 * density[at[0]]:.2g}% density",
                "accuracy beyond 95% pruned": f"{texts[1]}% at {100 * density[at[1]]:.2g}% density",
                "replicates below 80% there": f"{(there < 80).sum()} of {len(there)}",
                "mean below 80% from": fallen[0] if fallen else "never",
            })  # fmt: skip
    return pd.DataFrame(rows)


def in_short(studies):
    """The columns of :func:`explained` that a scorecard shows, of these studies where they have intervals: DataFrame.

    Parameters
    ----------
    studies : list of Results
    """
    import pandas as pd

    ours = [results for results in studies if STEP.items() <= vars(results.study.config).items()]  # by that step
    tables = [explained(results, studies) for results in ours]
    tables = [table for table in tables if len(table) and (table["explained by"] != "").all()]
    columns = ["report", "task", "network", "public step", "correct step", "explained by"]
    return pd.concat(tables)[columns].set_index("report") if tables else pd.DataFrame(columns=columns[1:])


def found(results):
    """How many of the table's rows, a number of the report each, either step explains, in a sentence: str."""
    table = explained(results)
    known = table[table["explained by"] != ""] if len(table) else table
    if known.empty:
        return "Nothing is concluded before two replicates are finished."
    judged = results.study.config.preset == "report"
    end = "Explained means compatible, not shown." if judged else "At this scale that is a first look, not a result."
    return f"Of the {len(known)} rows of the table of the report's numbers, {counted(known)}. {end}"


def counted(table):
    """How many rows one step alone explains, both or neither, and which rows these are, in words: str."""
    public, correct = (table["explained by"].str.contains(f"the {step} step") for step in ("public", "correct"))
    kinds = {
        "the public step alone explains": public & ~correct, "the correct step alone": correct & ~public,
        "both explain": public & correct, "neither explains": ~public & ~correct,
    }  # fmt: skip
    found = []
    for text, there in kinds.items():
        rows = [f"{row.report}, {row.task}" for row in table[there].itertuples()]
        named = f" ({'; '.join(rows)})" if rows and not text.startswith("both") else ""
        found.append(f"{text} {len(rows)}{named}")
    return ", ".join(found)


class Seen(NamedTuple):
    """What is read of an experiment: :func:`read`, and the density of every (arm, level)."""

    readings: Any
    density: Any


class Best(NamedTuple):
    """The pair of level and reading at which most numbers of a task lie within a step's prediction intervals."""

    level: int
    reading: str
    intervals: list
    """Mean, low, high of each number."""
    inside: list
    """Whether each lies within."""
    fits: str
    """At how many pairs all do."""


def _seen(frame):
    return Seen(read(frame), frame.groupby(["arm", "level"], observed=True)["density"].first())


def _of_replicates(seen, replicates):
    """The same of these replicates alone, or None where there is none."""
    if seen is None:
        return None
    readings = seen.readings[seen.readings.index.get_level_values("replicate").isin(replicates)]
    return seen._replace(readings=readings) if len(readings) else None


def _best(seen, numbers, names):
    """The best pair of a task, or None where no level beyond the dense one is finished."""
    levels = set.intersection(*(set(seen.readings.loc[names[arm]].index.unique("level")) for arm in numbers)) - {0}
    if FALLS in numbers.values():
        density = seen.density[names[next(iter(numbers))]]
        levels = set(sorted(levels & set(density.index[density < DENSEST]))[:1])
    tried = []
    for level in sorted(levels):
        for how in READINGS:
            found = {arm: prediction(seen.readings[how].loc[names[arm], level]) for arm in numbers}
            inside = [within(number, *found[arm][1:]) for arm, number in numbers.items()]
            tried.append((level, how, list(found.values()), inside))
    if not tried:
        return None
    fits = f"{sum(all(inside) for *_, inside in tried)} of {len(tried)}"
    targets = [float(number.removeprefix("<")) for number in numbers.values()]

    def rank(pair):
        _, _, intervals, inside = pair
        return -sum(inside), sum(abs(mean - target) for (mean, *_), target in zip(intervals, targets, strict=True))

    return Best(*min(tried, key=rank), fits)


def _cells(step, best, place):
    """What the table says of a number by one of the two steps: dict."""
    if not best:
        return dict.fromkeys((step, f"{step}: level", f"{step}: read at", f"{step}: pairs that fit"), "")
    text = statistics.in_brackets(*best.intervals[place])
    return {
        step: text, f"{step}: level": best.level, f"{step}: read at": best.reading, f"{step}: pairs that fit": best.fits
    }  # fmt: skip


def _by_which(public, correct, place):
    _, low, _ = public.intervals[place]
    if low != low:  # of one replicate there is no interval
        return ""
    steps = {"the public step": public, "the correct step": correct}
    return " and ".join(name for name, best in steps.items() if best and best.inside[place]) or "not explained"


@lru_cache(maxsize=4)
def _archived(experiment, *others):
    """What is read of an experiment of the report at the committed scale, or None where nothing is there."""
    from . import experiments

    study = experiments.study(experiment, "report")
    frame = next((r.frame for r in others if r.study.config == study.config), None)
    frame = experiments.finished(study) if frame is None else frame
    return _seen(frame) if len(frame) else None


def _correct(arm, replicates):
    """Test accuracies at the last epoch by the correct step: Series over (level, replicate), or None."""
    experiment, known = CORRECT[arm]
    found = _of_replicates(_archived(experiment), replicates)
    if found is None or known not in found.readings.index:
        return None
    return found.readings[READINGS[0]].loc[known]


# -------------------------------------------------------------------------------------------------------- the figures

STYLES = {
    "mlp": ("MLP", "blue", "o"),
    "task1_s1": ("T1 on S1", "blue", "o"),
    "task1_s2": ("T1 on S2", "red", "D"),
    "random_reinit_task1": ("reinitialised", "orange", "s"),
    "random_mask_task1": ("random mask", "green", "^"),
    "task2_s1": ("T1 on S1", "blue", "o"),
    "task2_s2": ("T1 on S2", "red", "D"),
    "task3_adam": ("Adam", "blue", "o"),
    "task3_sgd": ("plain SGD", "red", "s"),
    "task3_momentum": ("SGD, momentum 0.9", "purple", "D"),
}
STYLES["task3_adam_dense"] = ("Adam, dense", "blue", "o")
_TURNED_OFF = {"task1_s1": "Task 1, ", "task1_s2": "Task 1, ", "task3_adam": "Task 3, ", "task3_momentum": "Task 3, "}
for _part, _text in WITHOUT.items():
    for _arm in _TURNED_OFF:
        STYLES[f"{_arm}_without_{_part}"] = (f"{STYLES[_arm][0]}, {_text}", *STYLES[_arm][1:])
STYLES["task3_adam_dense_without_everything"] = (f"Adam, dense, {WITHOUT['everything']}", "blue", "o")


def fig12a(study, frame):
    """The report's experiments on the MLP by the public step, the correct step and the report's numbers beside it."""
    sheet = figures.Sheet(study, "Figure 12a. The report's experiments with the step of a public repository", rows=2)
    panels = {
        "Task 1": ("task1_s1", "task1_s2", "random_reinit_task1", "random_mask_task1"),
        "Task 2": ("task2_s1", "task2_s2"),
        "Task 3": ("task3_adam", "task3_sgd", "task3_momentum"),
        "The MLP": ("mlp",),
    }
    for axis, (title, names) in zip(sheet.axes, panels.items(), strict=True):
        with_the_correct_step(sheet, axis, frame, names, title)
    labels = ("task1_s1", "task1_s2"), ("task2_s1", "task2_s2"), ("task3_adam", "task3_momentum")
    for axis, arms in zip(sheet.axes, labels, strict=False):
        sheet.reported(axis, arms, ha="right", names={"task3_momentum": "SGD"})  # at the left the curves begin
    figures.threshold(sheet.axes[3], 80)
    return sheet.done(legend_on=range(4), where="lower left")


def with_the_correct_step(sheet, axis, frame, names, title):
    """Draw these arms against density, and dashed the same by the correct step, in as many replicates."""
    present = [arm for arm in names if arm in set(frame["arm"])]
    sheet.against_density(axis, frame, present, title=title)
    for arm in [arm for arm in present if arm in CORRECT]:
        correct = _correct(arm, set(frame["replicate"]))
        if correct is None:
            continue
        density = frame[frame["arm"] == arm].groupby("level")["density"].first()
        shared = correct[correct.index.get_level_values("level").isin(density.index)]
        rows = [(density[k], *figures.mean_and_band(v)) for k, v in shared.groupby("level")]
        table = statistics.pd.DataFrame(rows, columns=["density", *figures.BAND]).assign(arm=f"{arm}, correct step")
        label, colour, _ = sheet.style(arm)
        options = {"lw": 1, "ls": "--", "band": False}
        sheet.line(axis, table, "density", f"{label}, correct step", colour, f"{title}, correct step", **options)


def fig12b(study, frame):
    """Tasks 1 and 3 at level 4 with each part of the step turned off: mean and 95% interval of the last epoch."""
    sheet = figures.Sheet(study, f"Figure 12b. Level {AT}: what each part of the step does", rows=2)
    ways = {"the public step": "", **{text: f"_without_{part}" for part, text in WITHOUT.items()}}
    ends = statistics.at_end(frame)
    for axis, (arm, task) in zip(sheet.axes, _TURNED_OFF.items(), strict=True):
        _, colour, marker = sheet.style(arm)
        for place, (text, suffix) in enumerate(ways.items()):
            if (arm + suffix, _level(frame, arm + suffix)) not in ends:
                continue
            values = ends[arm + suffix, _level(frame, arm + suffix)]
            band = dict(zip(figures.BAND, figures.mean_and_band(values), strict=True))
            axis.plot([band["low"], band["high"]], [place, place], color=colour, lw=2)
            axis.plot(band["mean"], place, marker, color=colour)
            row = {"panel": f"{task}{STYLES[arm][0]}", "row": text, "arm": arm + suffix} | band
            sheet.drawn.append(statistics.pd.DataFrame([row]))
        number = study.experiment.reported[arm]
        axis.axvline(number, color="0.3", lw=1.2, ls=":")
        place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "bottom"}
        axis.annotate(f"report: {number:g}", (number, 0.02), **place, **figures.SMALL)
        axis.set(title=f"{task}{STYLES[arm][0]}", xlabel=figures.UNITS["accuracy"])
        axis.set_yticks(range(len(ways)), ways)
        axis.invert_yaxis()
    return sheet.done(legend_on=(), shown="points: mean, lines: 95% t-interval over replicates")


def _level(frame, arm):
    """The level at which parts are turned off, or the last one before that the arm has."""
    return max((k for k in statistics.levels(frame, arm) if k <= AT), default=0)


def fig12c(study, frame):
    """The share of weights below -0.001, and below 0, in each layer while the dense network trains, by either step."""
    sheet = figures.Sheet(study, "Figure 12c. Negative weights while the dense network of Task 3 trains (Adam)")
    kinds = {"clearly_negative_share": ("_dense", {}), "negative_share": ("", {"ls": ":", "lw": 1.2, "band": False})}
    for axis, (suffix, title) in zip(sheet.axes, _STEPS.items(), strict=True):
        for layer, colour in (("fc1", "blue"), ("fc2", "red"), ("head", "green")):
            for metric, (of, options) in kinds.items():
                arm = f"task3_adam{of}{suffix}"
                rows = frame[(frame["arm"] == arm) & (frame["level"] == 0) & (frame["metric"] == f"{metric}:{layer}")]
                table = [(epoch, *figures.mean_and_band(v)) for epoch, v in rows.groupby("epoch")["value"]]
                table = statistics.pd.DataFrame(table, columns=["epoch", *figures.BAND]).assign(arm=arm, layer=layer)
                label = f"{layer}, below 0" if options else f"{layer}, below -{CLEARLY:g}"
                sheet.line(axis, table, "epoch", label, figures.OKABE_ITO[colour], title, **options)
        axis.set(title=title, xlabel="epoch", ylabel="share of the layer's weights (%)", ylim=(0, 100))
    return sheet.done(legend_on=(1,), where="lower right")


_STEPS = {"": "the public step", "_without_everything": "the correct step"}


PUBLIC_STEP = Experiment(
    name="public_step",
    title="The step of a public repository: the MLP",
    group="extended",
    notebook="12_what_the_report_ran",
    parameters={"experiment": "public_step"},
    copy="12_what_the_report_ran_mlp",
    settings={**TASK3.settings, **STEP},
    presets={"report": {"replicates": 5}, "quick": {"replicates": 1}, "smoke": {"levels": (0, 1, 2)}},
    fixed=("model",),
    smallest=TASK2.smallest,
    arms=arms,
    styles=STYLES,
    full_labels={arm: f"{task}: {STYLES[arm][0]}" for task, names in {
        "Task 1": [name for name in STYLES if "task1" in name], "Task 2": ["task2_s1", "task2_s2"],
        "Task 3": [name for name in STYLES if name.startswith("task3")],
    }.items() for arm in names},
    figures={"fig12a_public_step": fig12a, "fig12b_parts_of_the_step": fig12b, "fig12c_negative_weights": fig12c},
    reported=REPORTED,
)  # fmt: skip
