"""The training step of a public repository: does it give the report's numbers?

The step is that of github.com/rahulvigneswaran/Lottery-Ticket-Hypothesis-in-Pytorch (main.py, commit 4ae2d5e), a source
of facts: no code is taken. Before each step of Adam it sets to 0 the gradient of every weight below 1e-6, meant for
pruned weights; every negative weight is below it. Adam's L2 weight decay is added behind that.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from ..config import Config
from ..results.later import figures, statistics
from ..unit import MaskOf, Unit
from . import task2
from .common import controls
from .record import Experiment

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
TASK1 = {"rounds": 5}
TASK2 = {"rounds": 15, "prune_rate": 0.35}
MLP = {"rounds": 20, "prune_rate": 0.3, "batch_size": 60}
OF_MLP = 3, 2  # its epochs to those of the tasks: 75 to 50
MOMENTUM = {"optimizer": "sgd", "momentum": 0.9}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The report's experiments on the MLP by that step, and Tasks 1 and 3 with parts of it turned off."""
    more, less = OF_MLP
    yield Unit(replace(config, **MLP, epochs=config.epochs * more // less), "mlp", replicate)
    yield from _transferred(replace(config, **TASK1), replicate, "task1", "half1", "half2", True)
    yield from _transferred(replace(config, **TASK2), replicate, "task2", "labels0-4", "labels5-9")
    yield Unit(config, "task3_adam", replicate, probes=("signs",))
    yield Unit(replace(config, optimizer="sgd"), "task3_sgd", replicate)
    yield Unit(replace(config, **MOMENTUM), "task3_momentum", replicate)
    for part, off in OFF.items():
        without, suffix = replace(config, rounds=AT, **off), f"_without_{part}"
        yield from _transferred(without, replicate, "task1", "half1", "half2", suffix=suffix)
        yield Unit(without, f"task3_adam{suffix}", replicate, probes=("signs",))
        yield Unit(replace(without, **MOMENTUM), f"task3_momentum{suffix}", replicate)


def _transferred(config, replicate, task, s1, s2, controlled=False, suffix=""):
    t1 = Unit(config, f"{task}_s1{suffix}", replicate, s1)
    yield t1
    levels = config.trained_levels[-1:] if suffix else config.trained_levels[1:]
    yield Unit(config, f"{task}_s2{suffix}", replicate, s2, mask=MaskOf(t1), levels=levels)
    if controlled:
        yield from controls(config, t1, s2, f"_{task}")


def lenet5_arms(config: Config, replicate: int) -> Iterator[Unit]:
    """LeNet-5 by that step, in both forms that the report may mean."""
    yield Unit(config, "lenet5", replicate)
    yield Unit(replace(config, activation="relu", pool="max"), "lenet5_relu", replicate)


# ------------------------------------------------------------------------------------------------- the report's numbers

READINGS = ("last epoch", "best epoch", "mean of the last ten")  # of the test accuracy of a training
NUMBERS = {  # task -> arm -> the report's number, as it is printed; all of them at one level and by one reading
    "Task 1": {"task1_s1": "95.74", "task1_s2": "96.14"},
    "Task 2": {"task2_s1": "97.23", "task2_s2": "21.1479"},
    "Task 3, SGD with momentum": {"task3_adam": "97.17", "task3_momentum": "97.52"},
    "Task 3, plain SGD": {"task3_adam": "97.17", "task3_sgd": "97.52"},
}
CORRECT = {  # arm -> where the archive has the same without that step: experiment, arm
    "task1_s1": ("task1", "t1_on_s1"), "task1_s2": ("task1", "t1_on_s2"),
    "task2_s1": ("task2", "t1_on_s1"), "task2_s2": ("task2", "t1_on_s2"),
    "task3_adam": ("task3", "adam"), "task3_sgd": ("task3", "sgd"), "task3_momentum": ("task3", "momentum"),
    "mlp": ("mlp", "ticket"), "lenet5": ("lenet5", "ticket"), "lenet5_relu": ("lenet5_relu", "ticket"),
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
    """Whether a printed number may be the rounded value of one in an interval."""
    half = 0.5 * 10.0 ** -len(number.partition(".")[2])
    return low - half <= float(number) <= high + half


def explained(results):
    """Which of the report's numbers lie in the step's 95% prediction interval: a row per number.

    The numbers of a task are read at one level and by one of ``READINGS``, that at which most of them lie within,
    and of those the nearest. At how many pairs of level and reading all numbers of the task lie within, of how many
    that were tried, is in the table, and beside it the same of the correct step, from the archive.

    Parameters
    ----------
    results : Results
        Of :func:`lthcore.studies.experiments.load`.

    Returns
    -------
    DataFrame
    """
    import pandas as pd

    seen, rows = read(results.frame), []
    for task, numbers in NUMBERS.items():
        if not set(numbers) <= set(results.frame["arm"]):
            continue
        tried = _tried(seen, numbers, {arm: arm for arm in numbers})
        (experiment,) = {CORRECT[arm][0] for arm in numbers}
        archived = _archived(experiment)
        correct = {} if archived is None else _tried(archived, numbers, {arm: CORRECT[arm][1] for arm in numbers})
        level, how = pair = min(tried, key=lambda pair: _rank(tried[pair]))
        for found, known_fit in zip(tried[pair], correct.get(pair, [None] * len(numbers)), strict=True):
            known = found["low"] == found["low"]  # of one replicate there is no interval
            rows.append({
                "task": task, "network": results.study.experiment.styles[found["arm"]][0], "report": found["number"],
                "this step": _in_words(found), "explained": ("yes" if found["within"] else "no") if known else "",
                "level": level, "read at": how, "pairs that fit": _fits(tried),
                "correct step": "" if known_fit is None else _in_words(known_fit),
                "its pairs that fit": _fits(correct),
            })  # fmt: skip
    return pd.DataFrame(rows)


def _tried(seen, numbers, names):
    """The numbers of a task at every level that all its arms have, by every reading: dict, (level, reading) -> list."""
    levels = [set(seen.loc[names[arm]].index.get_level_values("level")) for arm in numbers]
    pairs = [(level, how) for level in sorted(set.intersection(*levels) - {0}) for how in READINGS]
    return {(level, how): [_fit(seen[how].loc[names[arm], level], arm, numbers[arm]) for arm in numbers]
            for level, how in pairs}  # fmt: skip


def _fit(values, arm, number):
    mean, low, high = prediction(values)
    fit = within(number, low, high)
    return {"arm": arm, "number": number, "mean": mean, "low": low, "high": high, "within": fit}


def _rank(fit):
    return -sum(found["within"] for found in fit), sum(abs(found["mean"] - float(found["number"])) for found in fit)


def _fits(tried):
    return f"{sum(all(found['within'] for found in fit) for fit in tried.values())} of {len(tried)}" if tried else ""


def _in_words(found):
    known = found["low"] == found["low"]
    return f"{found['mean']:.2f}" + (f" [{found['low']:.2f}, {found['high']:.2f}]" if known else "")


@lru_cache(maxsize=4)
def _archived(experiment):
    """What :func:`read` gives of an experiment of the report at the committed scale, or None where nothing is there."""
    from . import experiments

    frame = experiments.finished(experiments.study(experiment, "report"))
    return read(frame) if len(frame) else None


def _correct(arm):
    """Test accuracies at the last epoch by the correct step: Series over (level, replicate), or None."""
    experiment, known = CORRECT[arm]
    found = _archived(experiment)
    return None if found is None or known not in found.index else found[READINGS[0]].loc[known]


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
_TURNED_OFF = {"task1_s1": "Task 1, ", "task1_s2": "Task 1, ", "task3_adam": "Task 3, ", "task3_momentum": "Task 3, "}
for _part, _text in WITHOUT.items():
    for _arm in _TURNED_OFF:
        STYLES[f"{_arm}_without_{_part}"] = (f"{STYLES[_arm][0]}, {_text}", *STYLES[_arm][1:])


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
        _with_the_correct_step(sheet, axis, frame, names, title)
    labels = ("task1_s1", "task1_s2"), ("task2_s1", "task2_s2"), ("task3_adam", "task3_momentum")
    for axis, (below, above) in zip(sheet.axes, labels, strict=False):
        sheet.reported(axis, (below,), va="top")
        sheet.reported(axis, (above,))
    figures.threshold(sheet.axes[3], 80)
    return sheet.done(legend_on=range(4), where="lower left")


def _with_the_correct_step(sheet, axis, frame, names, title):
    present = [arm for arm in names if arm in set(frame["arm"])]
    sheet.against_density(axis, frame, present, title=title)
    for arm in [arm for arm in present if arm in CORRECT]:
        correct = _correct(arm)
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
    """The share of negative weights in each layer while the dense network trains, by either step."""
    sheet = figures.Sheet(study, "Figure 12c. Negative weights while the dense network of Task 3 trains (Adam)")
    for axis, arm in zip(sheet.axes, ("task3_adam", "task3_adam_without_everything"), strict=True):
        title = "the public step" if arm == "task3_adam" else "the correct step"
        rows = frame[(frame["arm"] == arm) & (frame["level"] == 0)]
        for layer, colour in (("fc1", "blue"), ("fc2", "red"), ("head", "green")):
            found = rows[rows["metric"] == f"negative_share:{layer}"]
            table = [(epoch, *figures.mean_and_band(v)) for epoch, v in found.groupby("epoch")["value"]]
            table = statistics.pd.DataFrame(table, columns=["epoch", *figures.BAND]).assign(arm=arm, layer=layer)
            sheet.line(axis, table, "epoch", layer, figures.OKABE_ITO[colour], title)
        axis.set(title=title, xlabel="epoch", ylabel="negative weights (%)", ylim=(0, 60))
    return sheet.done(legend_on=(0, 1), where="center right")


def fig12d(study, frame):
    """LeNet-5 by the public step, in both forms, and by the correct step."""
    sheet = figures.Sheet(study, "Figure 12d. LeNet-5 with the step of a public repository")
    for axis, arm in zip(sheet.axes, LENET_STYLES, strict=True):
        _with_the_correct_step(sheet, axis, frame, (arm,), LENET_STYLES[arm][0])
        figures.threshold(axis, 80)
    return sheet.done(legend_on=(0, 1), where="lower left")


LENET_STYLES = {
    "lenet5": ("tanh and average pooling", "blue", "o"),
    "lenet5_relu": ("ReLU and max pooling", "red", "D"),
}

PUBLIC_STEP = Experiment(
    name="public_step",
    title="The step of a public repository: the MLP",
    group="named",
    notebook="12_what_the_report_ran",
    parameters={"experiment": "public_step"},
    copy="12_what_the_report_ran_mlp",
    settings={"model": "mlp", "batch_size": 50, "epochs": 50, "prune_rate": 0.5, "rounds": 10, **STEP},
    presets={"report": {"replicates": 5}, "smoke": {"levels": (0, 1, 2)}},
    fixed=("model",),
    smallest=task2.TASK2.smallest,
    arms=arms,
    styles=STYLES,
    full_labels={arm: f"{task}: {STYLES[arm][0]}" for task, names in {
        "Task 1": [name for name in STYLES if "task1" in name], "Task 2": ["task2_s1", "task2_s2"],
        "Task 3": [name for name in STYLES if name.startswith("task3")],
    }.items() for arm in names},
    figures={"fig12a_public_step": fig12a, "fig12b_parts_of_the_step": fig12b, "fig12c_negative_weights": fig12c},
    reported={arm: float(number) for numbers in NUMBERS.values() for arm, number in numbers.items()},
)  # fmt: skip

PUBLIC_STEP_LENET5 = Experiment(
    name="public_step_lenet5",
    title="The step of a public repository: LeNet-5",
    group="named",
    notebook="12_what_the_report_ran",
    parameters={"experiment": "public_step_lenet5"},
    copy="12_what_the_report_ran_lenet5",
    settings={"model": "lenet5", "batch_size": 60, "epochs": 50, "prune_rate": 0.2, "rounds": 20, **STEP},
    presets={"report": {"replicates": 5}, "smoke": {"levels": (0, 1, 2, 20)}},
    fixed=("model",),
    arms=lenet5_arms,
    styles=LENET_STYLES,
    figures={"fig12d_public_step_lenet5": fig12d},
)
