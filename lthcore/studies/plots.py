"""Tidy table -> figure. No torch: a figure is redrawn from finished levels alone.

Density axes are logarithmic and decrease to the right; lines are means, bands the range over
replicates; an arm has one colour in every figure; preset and n are stamped on it.
"""

import html
import io
import json
import os
import textwrap
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import seaborn as sns
from IPython.display import HTML, Image, display
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ..results import statistics
from ..runs import store
from . import REGISTRY, claims, early_bird, experiments

OKABE_ITO = {  # Okabe & Ito's colours, told apart with every kind of colour vision
    "black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
    "yellow": "#C9B800", "blue": "#0072B2", "red": "#D55E00", "purple": "#CC79A7",
}  # fmt: skip

# arm -> (label, colour, marker), of all studies
ARMS = {arm: look for record in REGISTRY.values() for arm, look in record.styles.items()}
LOOK = {"axes.titlesize": 11, "legend.fontsize": 8.5, "svg.hashsalt": "lth"}
UNITS = {"accuracy": "test accuracy (%)", "loss": "test loss (nats)"}
DENSITY_TICKS = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5)
DATA = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}


def style(arm):
    """Label, colour and marker of an arm; what is spared changes the panel, not the colour."""
    label, colour, marker = ARMS.get(arm) or ARMS.get(arm.removesuffix("_spared")) or (arm, "black", "o")
    return label, OKABE_ITO[colour], marker


class _Sheet:
    """A figure under construction, and the table of what is drawn on it."""

    def __init__(self, study, title, rows=1, columns=2, width=5.6, height=4.0):
        matplotlib.rcdefaults()  # not the user's own settings
        sns.set_theme(style="whitegrid", font="DejaVu Sans", rc=LOOK)
        self.study, self.drawn = study, []
        self.figure, axes = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
        )
        self.axes = axes.flatten().tolist()
        self.figure.suptitle(title, fontsize=13)

    def line(self, axis, table, x, label, colour, panel, band=True, **look):
        """One curve of means with its band: `table` has the columns x, mean, low, high, n."""
        if table.empty:
            return
        n = int(table["n"].max())
        axis.plot(table[x], table["mean"], label=f"{label} (n = {n})" if label else None, color=colour, **look)
        if n > 1 and band:
            axis.fill_between(table[x], table["low"], table["high"], color=colour, alpha=0.18, linewidth=0)
        self.drawn.append(table.assign(panel=panel))

    def against_density(self, axis, frame, arms, metric="accuracy", title="", zoom=None, series=None):
        for arm, width in zip(arms, _widths(arms), strict=True):
            label, colour, marker = style(arm)
            mine = statistics.at_end(frame[frame["arm"] == arm], metric) if series is None else series[[arm]]
            table = _spread(mine, frame).sort_values("density")
            face = "white" if arm == arms[-1] else colour  # the uppermost marker lets those below it be told
            look = {"marker": marker, "ms": 1 + 2.2 * width, "lw": width, "mfc": face}
            self.line(axis, table, "density", label, colour, title, **look)
        density_axis(axis)
        axis.set(ylabel=UNITS.get(metric, UNITS["accuracy"]), title=title)
        if zoom:
            axis.set_ylim(*zoom)

    def full_and_near(self, frame, arms, metric="accuracy"):
        """The first two panels: the curves against density, and their part near the dense network."""
        for axis, words, zoom in zip(
            self.axes, ("all of it", "near the dense network"), (None, _zoom(frame, arms, metric)), strict=False
        ):
            self.against_density(axis, frame, arms, metric, words, zoom)

    def against_step(self, axis, frame, arms, level, metric="accuracy", title="", dashed=None):
        others = []  # controls that do not stand at every level, drawn at their last one before
        for at, look in {dashed: {"lw": 1.2, "ls": "--", "band": False}, level: {}}.items():  # solid where they are one
            for arm, width in zip(arms, _widths(arms), strict=True) if at is not None else ():
                label, colour, _ = style(arm)
                there = _at_or_before(frame, arm, at)
                table = _by_step(frame[frame["arm"] == arm], there, metric)
                if there not in (at, None):
                    label += f", level {there}"
                    others.append(label if at == level else f"{label} (dashed)")
                self.line(axis, table, "step", label if at == level else "", colour, title, **{"lw": width} | look)
        step_axis(axis)
        look = {"xycoords": "axes fraction", "fontsize": 7.5, "color": "0.2", "bbox": {"fc": "white", "ec": "none"}}
        corner = {"xy": (0.99, 0.02), "ha": "right", "va": "bottom"}
        if metric == "loss":  # which falls, where accuracy rises
            corner = {"xy": (0.01, 0.02), "ha": "left", "va": "bottom"}
        if others:
            axis.annotate("but for\n" + "\n".join(others), **corner, **look)
        axis.set(ylabel=UNITS[metric], title=title)
        if metric == "loss":
            loss_axis(axis)

    def done(self, legend_on=0, where="best", shown="lines: mean, bands: range over replicates"):
        """Stamp and legends: (Figure, DataFrame of what is drawn)."""
        for i in np.atleast_1d(legend_on):
            if self.axes[i].get_legend_handles_labels()[0]:
                self.axes[i].legend(loc=where)
        drawn = pd.concat(self.drawn, ignore_index=True) if self.drawn else pd.DataFrame()
        config = self.study.config
        n = int(drawn["n"].max()) if len(drawn) else 0
        arms = set(drawn.get("arm", ()))
        units = [unit for unit in self.study.units if unit.arm in arms] or self.study.units
        models = " and ".join(dict.fromkeys(unit.config.model for unit in units))
        data = " and ".join(dict.fromkeys(DATA[unit.config.dataset] for unit in units))
        changes = [f"{k} = {v}" for k, v in config.changes.items() if k not in ("replicates", "model", "dataset")]
        stamp = " · ".join([data, models, f"preset {config.preset}", *changes, f"n = {n}", shown])
        width = int(13 * self.figure.get_figwidth())  # characters that fit: what was set may be much
        self.figure.supxlabel(textwrap.fill(stamp, width), fontsize=8, color="0.4", x=0.99, ha="right")
        return self.figure, drawn


def _widths(arms):
    """Widths of lines, the later and upper ones thinner: of two that coincide both are seen."""
    return np.linspace(3.2, 1.2, len(arms))


def _spread(series, frame):
    """Mean and range over replicates: frame with arm, level, density, n, mean, low, high."""
    grouped = series.groupby(["arm", "level"])
    table = grouped.agg(n="size", mean="mean", low="min", high="max").reset_index()
    density = frame.groupby(["arm", "level"])["density"].first()
    return table.assign(density=[density[key] for key in zip(table["arm"], table["level"], strict=True)])


def _by_step(frame, level, metric):
    rows = frame[(frame["level"] == level) & (frame["metric"] == metric) & (frame["split"] == "test")]
    grouped = rows.groupby(["arm", "level", "density", "step"])["value"]
    return grouped.agg(n="size", mean="mean", low="min", high="max").reset_index()


def _at_or_before(frame, arm, level):
    """The arm's last level up to `level`: controls do not stand at every one; the dense one has no controls."""
    return max((k for k in statistics.levels(frame, arm) if k <= level), default=None)


def density_axis(axis):
    """Logarithmic, decreasing to the right, in percent of kept weights."""
    least = axis.dataLim.x0 if axis.dataLim.x0 > 0 else axis.dataLim.minposx  # where nothing is kept has no place
    low = least if np.isfinite(least) else 0.01
    axis.set_xscale("log")
    axis.set_xlim(1.15, low / 1.15)
    ticks = [t for t in DENSITY_TICKS if t > low / 1.15]
    axis.set_xticks(ticks, [f"{100 * t:g}" for t in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("density: kept weights (%)")


def loss_axis(axis):
    """Logarithmic upwards, with plain numbers."""
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def step_axis(axis):
    """Linear up to 10 steps, logarithmic beyond, so that step 0 and the end are both seen."""
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.set_xlabel("training step")


def _zoom(frame, arms, metric="accuracy"):
    """Limits for the upper part of an accuracy panel: from a little below the dense accuracy to its top."""
    top = statistics.at_end(frame, metric)
    top = top[top.index.get_level_values("arm").isin(arms)]
    if top.empty:
        return None
    high = min(100.0, top.max() + 0.3)
    near = min(high - 4, top[top.index.get_level_values("level") == 0].min() - 3)
    return max(0.0, near, top.min() - 0.3), high  # never less near than all of it


_PRE_MIDSEM = ("ticket", "random_reinit", "random_mask", "ticket_spared")


def _accuracy_vs_density(study, frame, number, name, marks):
    sheet = _Sheet(study, f"Figure {number}a. {name}: test accuracy against remaining weights")
    sheet.full_and_near(frame, _PRE_MIDSEM)
    for axis in sheet.axes:
        for density, words in marks:
            if density > axis.get_xlim()[1]:  # the axis decreases: its end is its least density
                axis.axvline(density, color="0.5", lw=1, ls=":")
                look = {"rotation": 90, "fontsize": 8, "color": "0.4", "ha": "right", "va": "center"}
                axis.annotate(words, (density, 0.5), xycoords=("data", "axes fraction"), **look)
    sheet.axes[0].axhline(80, color="0.5", lw=1, ls=":")
    return sheet.done(where="lower left")


def _accuracy_vs_step(study, frame, number, name):
    sheet = _Sheet(
        study, f"Figure {number}b. {name}: test accuracy against training step, a curve per density (ticket)"
    )
    there = statistics.levels(frame, "ticket")
    wanted = sorted({there[round(i)] for i in np.linspace(0, len(there) - 1, min(8, len(there)))}) if there else []
    colours = sns.color_palette("viridis", len(wanted))
    for axis, title in zip(sheet.axes, ("all of it", "near the dense network"), strict=True):
        for level, colour in zip(wanted, colours, strict=True):
            table = _by_step(frame[frame["arm"] == "ticket"], level, "accuracy")
            label = f"level {level}: {100 * statistics.density_at(frame, 'ticket', level):.3g} %"
            sheet.line(axis, table, "step", label, colour, title, lw=1.6)
        step_axis(axis)
        axis.set(ylabel=UNITS["accuracy"], title=title)
    if zoom := _zoom(frame, ["ticket"]):
        sheet.axes[1].set_ylim(zoom[0] - 4, zoom[1])
    return sheet.done(legend_on=1)


def fig1a(study, frame):
    """MLP: test accuracy against density."""
    return _accuracy_vs_density(study, frame, 1, "MLP", ((0.1, "90 % pruned"), (0.05, "95 % pruned")))


def fig1b(study, frame):
    """MLP: test accuracy against training step, a curve per density."""
    return _accuracy_vs_step(study, frame, 1, "MLP")


def fig2a(study, frame):
    """LeNet-5: test accuracy against density."""
    return _accuracy_vs_density(study, frame, 2, "LeNet-5", ((0.15, "85 % pruned"), (0.05, "95 % pruned")))


def fig2b(study, frame):
    """LeNet-5: test accuracy against training step, a curve per density."""
    return _accuracy_vs_step(study, frame, 2, "LeNet-5")


_TASKS = ("t1_on_s1", "t2_on_s2", "random_reinit", "random_mask", "t1_on_s2")


def fig3(study, frame):
    """Task 1: test accuracy and loss against training step, and final accuracy against density."""
    level, last = _levels(study, frame, "t1_on_s1")
    levels = _at_levels(frame, "t1_on_s1", level, last)
    sheet = _Sheet(study, "Figure 3. Task 1, S1 and S2 = halves of the training images", rows=2)
    *by_step, full, near = sheet.axes
    for axis, metric in zip(by_step, UNITS, strict=True):
        sheet.against_step(axis, frame, _TASKS, level, metric, f"{metric} while a level trains\n{levels}", dashed=last)
    sheet.against_density(full, frame, _TASKS, title="accuracy at the last step of every level")
    sheet.against_density(near, frame, _TASKS, title="the same, near the dense network", zoom=_zoom(frame, _TASKS))
    return sheet.done(legend_on=2, where="lower left")


def _task2(study, frame, letter, metric):
    title = f"Figure 4{letter}. Task 2, S1 = labels 0-4, S2 = labels 5-9: test {metric}"
    sheet = _Sheet(study, title, rows=3 if metric == "accuracy" else 2)
    for column, (suffix, words) in enumerate((("", "pruned as in the report"), ("_spared", "output layer spared"))):
        arms = [arm + suffix for arm in _TASKS]
        if arms[0] not in set(frame["arm"]):
            continue
        level, last = _levels(study, frame, arms[0])
        levels, (steps, density, *near) = _at_levels(frame, arms[0], level, last), sheet.axes[column::2]
        sheet.against_step(steps, frame, arms, level, metric, f"{words}, while a level trains\n{levels}", dashed=last)
        sheet.against_density(density, frame, arms, metric, f"{words}, at the last step of every level")
        for axis in near:
            sheet.against_density(axis, frame, arms, title="the same, near the dense network", zoom=_zoom(frame, arms))
        shares = statistics.dead_labels(frame, f"t1_on_s2{suffix}", range(5, 10))
        if metric == "accuracy" and len(shares):
            share = shares["class_share"].iloc[-1]
            density.axhline(share, color="0.4", lw=1, ls=":")
            words = f"{share:.4f} %: all answers are {shares['top_answer'].iloc[-1]}"
            density.annotate(words, (0.02, share + 1.5), xycoords=("axes fraction", "data"), fontsize=8, color="0.3")
    return sheet.done(legend_on=(2, 3), where="center left" if metric == "accuracy" else "upper left")


def fig4a(study, frame):
    """Task 2: test accuracy, as pruned in the report and with the output layer spared."""
    return _task2(study, frame, "a", "accuracy")


def fig4b(study, frame):
    """Task 2: test loss, likewise."""
    return _task2(study, frame, "b", "loss")


_TRAINERS = {
    "trained by Adam": ("adam", "sgd_mask_by_adam", "momentum_mask_by_adam"),
    "trained by SGD": ("sgd", "adam_mask_by_sgd", "momentum", "adam_mask_by_momentum"),
}


def fig5a(study, frame):
    """Task 3: test accuracy against density, tickets of each optimizer and crossed."""
    sheet = _Sheet(study, "Figure 5a. Task 3, optimizers: test accuracy against remaining weights", rows=2)
    zoom = _zoom(frame, frame["arm"].unique())
    for column, (words, arms) in enumerate(_TRAINERS.items()):
        full, near = sheet.axes[column::2]
        sheet.against_density(full, frame, arms, title=words)
        sheet.against_density(near, frame, arms, title=f"{words}, near the dense networks", zoom=zoom)
    return sheet.done(legend_on=(0, 1))


def fig5b(study, frame):
    """Task 3: test loss against training step at the common level."""
    level = statistics.stands_at(claims.common_level(frame, study.config))[0]
    last = max(statistics.levels(frame, "adam"), default=None)
    title = f"Figure 5b. Task 3, optimizers: test loss, {_at_levels(frame, 'adam', level, last)}"
    sheet = _Sheet(study, title)
    for axis, (words, arms) in zip(sheet.axes, _TRAINERS.items(), strict=True):
        sheet.against_step(axis, frame, arms, level, "loss", words, dashed=last)
    return sheet.done(legend_on=(0, 1))


_PAPER = ("ticket", "random_reinit", "random_mask", "one_shot")


def fig6a(study, frame):
    """LeNet-300-100 by the paper's protocol: accuracy and step of the minimum validation loss against density."""
    sheet = _Sheet(study, "Figure 6a. The paper's protocol, LeNet-300-100: at the minimum validation loss", columns=3)
    sheet.full_and_near(frame, _PAPER, "early_accuracy")
    steps = statistics.early_steps(frame)
    sheet.against_density(sheet.axes[2], frame, [a for a in _PAPER if a in steps], title="how early", series=steps)
    sheet.axes[2].set(ylabel="step of that minimum")
    return sheet.done(where="lower left")


def fig6b(study, frame):
    """The paper's protocol under SGD and momentum, each at a rate of its own."""
    arms = ("ticket", "sgd", "momentum")
    sheet = _Sheet(
        study, "Figure 6b. The paper's protocol, tickets of three optimizers, at the minimum validation loss"
    )
    sheet.full_and_near(frame, arms, "early_accuracy")
    return sheet.done(where="lower left")


def fig6c(study, frame):
    """A convolutional network at its last level, and dense, against the training step."""
    arms, last = ("ticket", "random_reinit", "random_mask"), max(statistics.levels(frame, "ticket"), default=None)
    title = f"Figure 6c. {study.config.model}: {_at_levels(frame, 'ticket', last, 0)}"
    sheet = _Sheet(study, title)
    for axis, metric in zip(sheet.axes, ("accuracy", "loss"), strict=True):
        sheet.against_step(axis, frame, arms, last, metric, metric, dashed=0)
    return sheet.done()


def fig7a(study, frame):
    """Late resetting: accuracy against density, rewound to step k."""
    arms = [a for a in dict.fromkeys(frame["arm"]) if a.startswith("rewind_")]
    sheet = _Sheet(study, "Figure 7a. Late resetting: test accuracy against remaining weights")
    sheet.full_and_near(frame, arms)
    return sheet.done()


def fig7b(study, frame):
    """Stability: the straight way between two copies, and how far the final weights are apart."""
    distance = statistics.at_end(frame, "distance", "mask")
    there = sorted(distance.index.get_level_values("level").unique())
    level = min(there, key=lambda k: abs(k - 10), default=None)
    kept = 100 * statistics.density_at(frame, "rewind_0", level)
    title = f"Figure 7b. Stability of tickets (solid) and random masks (dashed); the way at {kept:.3g} % kept"
    sheet = _Sheet(study, title, columns=3)
    ends = frame[frame["level"] == level]
    for arm in [a for a in dict.fromkeys(ends["arm"]) if a.startswith("order_")]:
        mask, k = arm.split("_")[1:]
        _, colour, marker = style(f"rewind_{k}")
        look = {"marker": marker, "ls": "-" if mask == "ticket" else "--", "markersize": 4.5}
        way = [(t / 10, statistics.at_end(ends[ends["arm"] == arm], f"path_accuracy:{t / 10}")) for t in range(11)]
        rows = [(t, len(v), v.mean(), v.min(), v.max()) for t, v in way]
        table = pd.DataFrame(rows, columns=["way", "n", "mean", "low", "high"]).assign(arm=arm)
        sheet.line(sheet.axes[0], table, "way", None, colour, "way", **look)
    sheet.axes[0].set(xlabel="share of the way from one copy to the other", ylabel=UNITS["accuracy"], title="the way")
    for axis, beside, words in zip(
        sheet.axes[1:], ("order", "dense"), ("from its copy in another order", "from the dense network"), strict=True
    ):
        for arm in [a for a in dict.fromkeys(frame["arm"]) if a.startswith(beside)]:
            mask, k = arm.split("_")[1:]
            _, colour, marker = style(f"rewind_{k}")
            table = _spread(distance[[arm]], frame).sort_values("density")
            look = {"marker": marker, "ls": "-" if mask == "ticket" else "--", "markersize": 4.5}
            label = f"from step {k}" if (beside, mask) == ("dense", "ticket") else None
            sheet.line(axis, table, "density", label, colour, beside, **look)
        density_axis(axis)
        axis.set(ylabel="distance of final weights", title=words, ylim=(0, None))
    return sheet.done(legend_on=2, where="lower left")


def _length(study, tuned=True):
    """How long a level of the criteria is trained, in words."""
    epochs, steps = study.config.epochs, study.config.max_steps
    words = f"at most {steps} steps" if steps else f"{epochs} epoch{'s' * (epochs > 1)}"
    return f"{words} a level" + f", {max(1, epochs // 3)} if fine-tuned" * (tuned and not steps)


def fig8a(study, frame):
    """What the survivors start from: theta0, their final weights, or fresh values."""
    arms = ("reset", "lr_rewind", "random_reinit", "finetune")
    sheet = _Sheet(study, f"Figure 8a. What the survivors start from; MLP, {_length(study)}")
    sheet.full_and_near(frame, arms)
    return sheet.done(where="lower left")


def fig8b(study, frame):
    """Deletion by magnitude, OBD and at random: at once without training, and retrained round by round."""
    sheet = _Sheet(
        study, f"Figure 8b. By what weights are deleted, over all layers; MLP, {_length(study, False)}", rows=2
    )
    loss, accuracy, full, near = sheet.axes
    gone, names = statistics.deletions(frame), ("random", "magnitude", "obd")
    deleted = [arm for name in names if (arm := f"{name}_deleted") in set(gone["arm"])]
    train = statistics.at_end(gone, "loss", "train")
    sheet.against_density(loss, gone, deleted, title="at once, not trained again: training loss", series=train)
    foretold = statistics.at_end(gone, "foretold", "train")
    if len(foretold):
        foretold = foretold.add(train.loc["obd_deleted", 0], level="replicate")
        table = _spread(foretold, gone).sort_values("density")
        sheet.line(loss, table, "density", None, OKABE_ITO["black"], "foretold", ls=":", lw=1.4)
        loss.set_title("at once, not trained again: training loss (dotted: foretold by OBD)")
    loss_axis(loss)
    loss.set(ylabel="training loss (nats)")
    sheet.against_density(accuracy, gone, deleted, title="at once, not trained again: test accuracy")
    retrained = [f"{name}_retrained" for name in names]
    words = "retrained from the final weights, round by round"
    sheet.against_density(full, frame, retrained, title=words)
    sheet.against_density(
        near, frame, retrained, title="the same, near the dense network", zoom=_zoom(frame, retrained)
    )
    return sheet.done(legend_on=(1, 2), where="lower left")


def fig8c(study, frame):
    """Whole filters of LeNet-5: accuracy against what is left of its weights, and of its multiply-adds."""
    arms = [a for a in ("filters_reset", "filters_reinit", "filters_random", "filters") if a in set(frame["arm"])]
    sheet = _Sheet(study, f"Figure 8c. Whole filters of LeNet-5 removed; {_length(study)}")
    sheet.against_density(sheet.axes[0], frame, arms, title="against remaining weights")
    cost = statistics.at_end(frame, "multiply_adds", "mask").groupby("level").mean()
    share = frame["level"].map(cost / cost.max()).astype(float)
    sheet.against_density(sheet.axes[1], frame.assign(density=share), arms, title="against remaining multiply-adds")
    sheet.axes[1].set(xlabel="multiply-adds of an image (% of the whole network's)")
    for axis in sheet.axes:
        axis.set_xscale("linear")
        axis.set_xlim(1.05, 0.1)
        axis.set_xticks([1, 0.8, 0.6, 0.4, 0.2], ["100", "80", "60", "40", "20"])
    return sheet.done(where="lower left")


def _panels_and_near(study, frame, title, panels):
    """Accuracy against density, a column per panel (title, arms), and below it the part near the dense network."""
    sheet = _Sheet(study, f"{title} (epochs a level: {study.config.epochs})", rows=2, columns=len(panels))
    for column, (words, arms) in enumerate(panels):
        full, near = sheet.axes[column :: len(panels)]
        arms = [arm for arm in arms if arm in set(frame["arm"])]
        sheet.against_density(full, frame, arms, title=words)
        sheet.against_density(near, frame, arms, title=f"{words}, near the dense network", zoom=_zoom(frame, arms))
    return sheet.done(legend_on=range(len(panels)), where="lower left")


def _controls_on(on):
    return f"random_mask_on_{on}", f"random_reinit_on_{on}"


def fig9a(study, frame):
    """Tickets across data sets."""
    panels = (
        ("trained on MNIST", (*_controls_on("mnist"), "mnist", "fashion_on_mnist")),
        ("trained on Fashion-MNIST", (*_controls_on("fashion"), "fashion", "mnist_on_fashion")),
    )
    return _panels_and_near(study, frame, "Figure 9a. Tickets across data sets", panels)


def fig9b(study, frame):
    """Tickets across optimizers and labels."""
    labels = ("labels5-9", "labels5-9_fresh_head", "labels0-4_on_labels5-9", "labels0-4_fresh_head")
    panels = (
        ("trained by Adam", (*_controls_on("mnist"), "mnist", "momentum_on_mnist")),
        ("trained by SGD with momentum 0.9", (*_controls_on("momentum"), "momentum", "mnist_on_momentum")),
        ("trained on the labels 5-9", (*_controls_on("labels5-9"), *labels)),
    )
    return _panels_and_near(study, frame, "Figure 9b. Tickets across optimizers and labels", panels)


def fig9c(study, frame):
    """Tickets found on fewer images and fewer classes, trained on all of MNIST."""
    panels = (
        ("found on fewer images", ("random_mask_on_mnist", "mnist", "half1_on_mnist", "fifth_on_mnist",
                                   "tenth_on_mnist")),
        ("as many images, fewer classes", ("half1_on_mnist", "labels0-4_on_mnist", "fifth_on_mnist",
                                           "labels0-1_on_mnist")),
    )  # fmt: skip
    return _panels_and_near(study, frame, "Figure 9c. Tickets of smaller data, trained on all of MNIST", panels)


def fig10a(study, frame):
    """The distance of the masks between epochs, as shares of the weights and of what chance gives."""
    levels = [k for k in early_bird.LEVELS if k <= study.config.rounds]
    title = (
        "Figure 10a. In how many weights the masks of two epochs differ; line: early mask (none: not before the last)"
    )
    sheet = _Sheet(study, title, rows=2, columns=len(levels), width=3.6, height=3.4)
    for i, level in enumerate(levels):
        square = statistics.mask_distances(frame, level)
        if square.empty:
            continue
        chance = statistics.at_end(frame, f"chance_distance_{level}", "mask").mean()
        for axis, arm, by, words, most in (
            (sheet.axes[i], "early", 1, "share of the weights", 0.5),
            (sheet.axes[len(levels) + i], "early_strict", chance, "share of what chance gives", 1),
        ):
            end, half = square.index[-1], square.index[1] / 2
            extent = (-half, end + half, end + half, -half)
            picture = axis.imshow(square / by, vmin=0, vmax=most, cmap="viridis_r", extent=extent)
            axis.grid(False)
            epochs = [statistics.drawn(frame, one, level)[0] for one in (arm, "early")]
            epoch = (epochs[0] if len(epochs[0]) else epochs[1]).mean()
            if epoch < end:
                axis.axvline(epoch, color="white", lw=1.2, ls="--")
            kept = f"{100 * study.config.density(level):.3g} % kept"
            axis.set(title=kept, xlabel="epoch", ylabel="epoch")
            sheet.figure.colorbar(picture, ax=axis, shrink=0.8, label=words)
        table = square.rename_axis("first").reset_index().melt("first", var_name="epoch", value_name="distance")
        n = frame["replicate"].nunique()
        sheet.drawn.append(table.assign(panel=f"level {level}", level=level, by_chance=table["distance"] / chance, n=n))
    return sheet.done(shown="mean over replicates")


def fig10b(study, frame):
    """What the early mask is worth, when it is drawn, and what two random masks differ in."""
    arms = [arm for arm in ("random_mask", "whole", "early", "early_strict") if arm in set(frame["arm"])]
    title = f"Figure 10b. Early-bird masks of weights, one shot (epochs a level: {study.config.epochs})"
    sheet = _Sheet(study, title, rows=2)
    sheet.full_and_near(frame, arms)
    when, far = sheet.axes[2:]
    levels = [k for k in early_bird.LEVELS if k <= study.config.rounds]
    density = {k: study.config.density(k) for k in levels}
    for arm in [arm for arm in arms if arm.startswith("early")]:
        label, colour, marker = style(arm)
        there = [(k, epoch) for k in levels if len(epoch := statistics.drawn(frame, arm, k)[0])]
        rows = [(density[k], len(e), e.mean(), e.min(), e.max()) for k, e in there]
        table = pd.DataFrame(rows, columns=["density", "n", "mean", "low", "high"])
        sheet.line(when, table, "density", label, colour, "drawn", marker=marker)
    when.set(ylabel="epoch at which the mask is drawn", title="when", ylim=(0, study.config.epochs * 1.05))
    d = np.geomspace(0.01, 0.99, 99)
    chance = pd.DataFrame({"density": d, "mean": 2 * d * (1 - d), "n": 0})
    sheet.line(far, chance, "density", "", "0.4", "chance", band=False, lw=1)
    far.lines[-1].set_label("two random masks")
    squares = {k: s.to_numpy() for k in levels if len(s := statistics.mask_distances(frame, k))}
    for words, colour, marker, most in (
        ("any two of the last five epochs, at most", "red", "D", lambda s: s[-5:, -5:].max()),
        ("after the first and the last epoch", "blue", "o", lambda s: s[1, -1]),
    ):
        table = pd.DataFrame([(density[k], most(s), 0) for k, s in squares.items()], columns=["density", "mean", "n"])
        sheet.line(far, table, "density", "", OKABE_ITO[colour], words, band=False, marker=marker)
        far.lines[-1].set_label(words)
    far.axhline(0.1, color="0.5", lw=1, ls=":")
    far.axvline(statistics.loose_below(0.1), color="0.5", lw=1, ls=":")
    far.set(yscale="log", ylabel="share of the weights that differ", title="how far the masks are apart")
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    far.set_yticks(ticks, [f"{y:g}" for y in ticks])
    far.yaxis.set_minor_formatter(NullFormatter())
    for axis in (when, far):
        density_axis(axis)
    return sheet.done(legend_on=(0, 2, 3))


_RATES = {"0.2": "blue", "0.3": "orange", "0.35": "red", "0.5": "green"}
_HEADS = {"same": ("o", "-"), "half": ("s", "--"), "spared": ("D", ":")}
# the report's own schedules among the chains
_REPORTED = {"mlp layer 0.3 same": "report's MLP", "lenet5 layer 0.2 same": "report's LeNet-5"}
_REPORTED |= {experiments.TASK2: "report's Task 2 (21.1479 %)"}


def fig11a(study, frame):
    """The collapse atlas: where counting says that the first output dies, and where it does."""
    table = experiments.starvation(study, frame).reset_index()
    sheet = _Sheet(study, "Figure 11a. Where the first output dies: foretold by counting, and seen after training")
    for axis, model in zip(sheet.axes, ("mlp", "lenet5"), strict=True):
        chains = table[table["arm"].str.startswith(f"{model} ")]
        mine = chains.dropna(subset=["foretold", "seen"]).sort_values("seen")
        alive = f"in {len(chains) - len(mine)} of {len(chains)} chains all outputs live to the end"
        axis.annotate(alive, (0.02, 0.04), xycoords="axes fraction", fontsize=8, color="0.3")
        for i, (arm, foretold, seen) in enumerate(mine[["arm", "foretold", "seen"]].itertuples(index=False)):
            _, scope, rate, head = arm.split()
            colour = OKABE_ITO[_RATES[rate]]
            face = "none" if scope == "global" else colour
            axis.scatter(foretold, seen, s=42, marker=_HEADS[head][0], edgecolors=colour, facecolors=face, zorder=3)
            words = _REPORTED.get(arm) or f"{100 * float(rate):g} %, {scope}, head {head}"
            beside = {"xytext": (7 - 14 * (i % 2), -3), "ha": "right" if i % 2 else "left"}  # those that are near
            axis.annotate(words, (foretold, seen), fontsize=7, textcoords="offset points", **beside)
        for set_scale, ticks in ((axis.set_xscale, axis.set_xticks), (axis.set_yscale, axis.set_yticks)):
            set_scale("log")
            at = [t for t in DENSITY_TICKS if 0.002 <= t <= 0.2]
            ticks(at, [f"{100 * t:g}" for t in at])
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.axline((0.01, 0.01), (0.1, 0.1), color="0.5", lw=1, ls=":")
        axis.set(xlim=(0.2, 0.0018), ylim=(0.0018, 0.2), title=model)
        axis.set(xlabel="foretold, theta0 pruned: kept weights (%)", ylabel="seen: kept weights (%)")
    sheet.drawn.append(table.assign(panel="map", n=study.config.replicates))
    return sheet.done()


def _atlas(study, frame, letter, metric, split, words):
    sheet = _Sheet(study, f"Figure 11{letter}. The collapse: {words}, by scope, rate and output rate", rows=2)
    panels = [(model, scope) for model in ("mlp", "lenet5") for scope in ("layer", "global")]
    for axis, (model, scope) in zip(sheet.axes, panels, strict=True):
        for arm in [a for a in dict.fromkeys(frame["arm"]) if a.startswith(f"{model} {scope} ")]:
            rate, head = arm.split()[2:]
            mine = frame[frame["arm"] == arm]
            table = _spread(statistics.at_end(mine, metric, split), mine).sort_values("density")
            label = f"{100 * float(rate):g} %, head {head}"
            look = {"ls": _HEADS[head][1], "lw": 1.6}
            sheet.line(axis, table, "density", label, OKABE_ITO[_RATES[rate]], f"{model} {scope}", **look)
        density_axis(axis)
        axis.set(ylabel=words, title=f"{model}, rate {'in every layer' if scope == 'layer' else 'over all layers'}")
    return sheet


def fig11b(study, frame):
    """Accuracy against density, for every scope, rate and output rate."""
    return _atlas(study, frame, "b", "accuracy", "test", UNITS["accuracy"]).done(legend_on=(0, 2), where="lower left")


def fig11c(study, frame):
    """Effective against nominal density: what is left on a path from a pixel to an output."""
    sheet = _atlas(study, frame, "c", "effective_density", "mask", "effective density")
    for axis in sheet.axes:
        axis.set_yscale("log")
        axis.axline((1e-2, 1e-2), (1, 1), color="0.5", lw=1)
    return sheet.done(legend_on=(0, 2), where="lower left")


def _levels(study, frame, arm):
    level = statistics.stands_at(statistics.ticket_level(frame, arm, study.config.tolerance))[0]
    return level, max(statistics.levels(frame, arm), default=None)


def _at_levels(frame, arm, level, last):
    def words(k):
        return f"level {k} ({100 * statistics.density_at(frame, arm, k):.3g} % kept)"

    if level is None:
        return "not run"
    return f"solid: {words(level)}" + (f"; dashed: {words(last)}" if last != level else "")


def at_level(study, frame, level):
    """Test accuracy and loss against training step of every arm at one level: (Figure, DataFrame)."""
    arms = [arm for arm in dict.fromkeys(frame["arm"]) if level in statistics.levels(frame, arm)]
    sheet = _Sheet(study, f"{_at_levels(frame, arms[0], level, level).split(';')[0].removeprefix('solid: ')}")
    for axis, metric in zip(sheet.axes, ("accuracy", "loss"), strict=True):
        plain = [arm for arm in arms if not arm.endswith("_spared") or arm == "ticket_spared"]
        sheet.against_step(axis, frame, plain, level, metric, f"test {metric}")
    return sheet.done()


# experiment -> its figures: file name -> function of (study, frame)
FIGURES = {
    "mlp": {"fig1a_mlp_accuracy_vs_density": fig1a, "fig1b_mlp_accuracy_vs_step": fig1b},
    "lenet5": {"fig2a_lenet5_accuracy_vs_density": fig2a, "fig2b_lenet5_accuracy_vs_step": fig2b},
    "task1": {"fig3_task1": fig3},
    "task2": {"fig4a_task2_accuracy": fig4a, "fig4b_task2_loss": fig4b},
    "task3": {"fig5a_task3_accuracy_vs_density": fig5a, "fig5b_task3_loss_vs_step": fig5b},
    "paper": {"fig6a_paper_early_stop": fig6a, "fig6b_paper_optimizers": fig6b},
    **{name: {f"fig6c_{name}": fig6c} for name in ("fashion_conv2", "conv2", "conv4", "conv6")},
    "rewind": {"fig7a_rewinding": fig7a, "fig7b_stability": fig7b},
    "criteria": {"fig8a_rewinding_rules": fig8a, "fig8b_deletion": fig8b, "fig8c_filters": fig8c},
    "transfer": {"fig9a_transfer_data": fig9a, "fig9b_transfer_tasks": fig9b, "fig9c_transfer_size": fig9c},
    "early_bird": {"fig10a_mask_distance": fig10a, "fig10b_early_bird": fig10b},
    "collapse": {"fig11a_collapse_map": fig11a, "fig11b_collapse_accuracy": fig11b, "fig11c_effective_density": fig11c},
}


def draw(study, frame=None):
    """Draw, save and show all figures of a study.

    Parameters
    ----------
    study : Study or Results
        What :func:`lthcore.studies.experiments.load` gave is not read again.
    frame : DataFrame
        The tidy rows to draw; by default those of the study.

    Returns
    -------
    list of pathlib.Path
        The pictures; a csv of what is drawn, an svg and the provenance lie beside each.
    """
    results = experiments.load(study)
    study = results.study
    frame = results.frame if frame is None else frame
    paths = []
    for name, function in FIGURES[study.config.experiment].items():
        with matplotlib.rc_context():  # the user's own settings, which a figure changes, come back
            figure, drawn = function(study, frame)
            paths.append(save_figure(results, name, figure, drawn))
            plt.show()
            plt.close(figure)
    return paths


def save_figure(results, name, figure, drawn):
    """Write ``<name>.png``, ``.svg``, ``.csv`` (what is drawn) and ``.json`` (where it comes from): Path of the png.

    It reads nothing; `results` are what :func:`lthcore.studies.experiments.load` gives.
    """
    folder = results.study.folder
    vector, raster, few = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None})
    figure.savefig(raster, format="png", dpi=130, metadata={"Software": None})
    colours = PIL.Image.open(raster).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE)
    colours.save(few, "png", optimize=True)  # a third of the size; flat colours lose nothing that an eye sees
    store.write(folder / f"{name}.svg", vector.getvalue())
    store.write(folder / f"{name}.png", few.getvalue())
    store.write(folder / f"{name}.csv", drawn.to_csv(index=False, lineterminator="\n"))
    store.write(folder / f"{name}.json", json.dumps(results.provenance, indent=1, sort_keys=True) + "\n")
    return folder / f"{name}.png"


def scorecard(studies):
    """Every claim about these studies, or what was loaded of them: HTML with numbers, verdicts and links to figures.

    The report's claims come first, then those that others have published. Links are relative to ``LTH_LINKS_FROM``
    (where an executed notebook will lie), else to the working directory.
    """
    results = [experiments.load(s) for s in studies]
    verdicts = experiments.verdicts(*results)
    folders = {r.study.config.experiment: r.study.folder for r in results}
    ruled = verdicts["rule"] != ""
    parts = {"The report's claims": verdicts[ruled], "Published claims of others": verdicts[~ruled]}
    return HTML("".join(f"<h3>{words}</h3>{_table(part, folders)}" for words, part in parts.items() if len(part)))


def _table(verdicts, folders):
    """HTML of these verdicts, a link to the figure in each claim's first row."""
    start = os.environ.get("LTH_LINKS_FROM") or Path.cwd()
    table, links = claims.show(verdicts), []
    for claim, figure in zip(table.index, verdicts.loc[verdicts["role"] != "some level", "figure"], strict=True):
        path = folders[next(e for e in FIGURES if figure in FIGURES[e])] / f"{figure}.png"
        link = os.path.relpath(path, start).replace(os.sep, "/")
        links.append(f'<a href="{link}">{figure.split("_")[0]}</a>' if claim and path.exists() else "")
    text = table.reset_index().map(lambda cell: html.escape(str(cell)).replace("&#x27;", "'")).assign(figure=links)
    return text.to_html(escape=False, index=False)


def gallery(studies):
    """Show the figures of these studies that have been drawn."""
    for study in studies:
        for name in FIGURES[study.config.experiment]:
            path = study.folder / f"{name}.png"
            if path.exists():
                display(Image(path, width=1000))
            else:
                print(f"{name}: not drawn yet")
