"""Tidy table -> figure. No torch: a figure is redrawn from finished levels alone.

Density axes are logarithmic and decrease to the right; lines are means, bands the range over
replicates; an arm has one colour in every figure; preset and n are stamped on it.
"""

import html
import io
import itertools
import json
import os
from functools import lru_cache
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import seaborn as sns
from IPython.display import HTML, Image, display
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from . import experiments, results, store, sweep
from .config import ARCHITECTURES

_OKABE_ITO = {  # Okabe & Ito's colours, told apart with every kind of colour vision
    "black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
    "yellow": "#C9B800", "blue": "#0072B2", "red": "#D55E00", "purple": "#CC79A7",
}  # fmt: skip

# arm -> (label, colour, marker); a new arm is one line here
ARMS = {
    "ticket": ("ticket (theta0)", "blue", "o"),
    "random_reinit": ("re-initialised", "orange", "s"),
    "random_mask": ("random mask", "green", "^"),
    "ticket_spared": ("ticket, smallest layer spared", "purple", "D"),
    "t1_on_s1": ("T1 on S1", "blue", "o"),
    "t2_on_s2": ("T2 on S2", "black", "v"),
    "t1_on_s2": ("T1 on S2", "red", "D"),
    "adam": ("Adam, own mask", "blue", "o"),
    "sgd": ("SGD, own mask", "red", "s"),
    "momentum": ("SGD momentum 0.9, own mask", "purple", "D"),
    "sgd_mask_by_adam": ("Adam, SGD's mask", "sky", "^"),
    "adam_mask_by_sgd": ("SGD, Adam's mask", "orange", "v"),
    "momentum_mask_by_adam": ("Adam, momentum's mask", "green", "<"),
    "adam_mask_by_momentum": ("SGD momentum 0.9, Adam's mask", "yellow", ">"),
}
UNITS = {"accuracy": "test accuracy (%)", "loss": "test loss (nats)"}


def style(arm):
    """Label, colour and marker of an arm; what is spared changes the panel, not the colour."""
    label, colour, marker = ARMS.get(arm) or ARMS[arm.removesuffix("_spared")]
    return label, _OKABE_ITO[colour], marker


class _Sheet:
    """A figure under construction, and the table of what is drawn on it."""

    def __init__(self, study, title, rows=1, columns=2, width=5.6, height=4.0):
        sns.set_theme(style="whitegrid", rc={"axes.titlesize": 11, "legend.fontsize": 8.5, "svg.hashsalt": "lth"})
        self.study, self.drawn = study, []
        self.figure, axes = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
        )
        self.axes = axes.flatten().tolist()
        self.figure.suptitle(title, fontsize=13)

    def line(self, axis, table, x, label, colour, panel, **look):
        """One curve of means with its band: `table` has the columns x, mean, low, high, n."""
        if table.empty:
            return
        n = int(table["n"].max())
        axis.plot(table[x], table["mean"], label=f"{label} (n = {n})" if label else None, color=colour, **look)
        if n > 1:
            axis.fill_between(table[x], table["low"], table["high"], color=colour, alpha=0.18, linewidth=0)
        self.drawn.append(table.assign(panel=panel))

    def against_density(self, axis, frame, arms, metric="accuracy", title="", zoom=None):
        for arm in arms:
            label, colour, marker = style(arm)
            table = _spread(results.at_end(frame[frame["arm"] == arm], metric), frame)
            self.line(
                axis,
                table.sort_values("density"),
                "density",
                label,
                colour,
                title,
                marker=marker,
                markersize=4.5,
                lw=1.6,
            )
        density_axis(axis)
        axis.set(ylabel=UNITS[metric], title=title)
        if zoom:
            axis.set_ylim(*zoom)

    def against_step(self, axis, frame, arms, level, metric="accuracy", title="", faint=None):
        for at, look in ((faint, {"lw": 1.1, "alpha": 0.45, "ls": "--"}), (level, {"lw": 1.8})):
            for arm in arms if at is not None else ():
                label, colour, _ = style(arm)
                there = _at_or_before(frame, arm, at)
                table = _by_step(frame[frame["arm"] == arm], there, metric)
                label += f", level {there}" if there != at else ""  # a control that does not stand at every level
                self.line(axis, table, "step", label if at == level else "", colour, title, **look)
        step_axis(axis)
        axis.set(ylabel=UNITS[metric], title=title)
        if metric == "loss":
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            axis.yaxis.set_minor_formatter(NullFormatter())

    def done(self, legend_on=0, where="best"):
        """Stamp and legend (``outside``: the first panel's, right of all): (Figure, DataFrame of what is drawn)."""
        if where == "outside":
            self.figure.legend(*self.axes[0].get_legend_handles_labels(), loc="outside right center")
        for i in np.atleast_1d(legend_on) if where != "outside" else ():
            if self.axes[i].get_legend_handles_labels()[0]:
                self.axes[i].legend(loc=where)
        drawn = pd.concat(self.drawn, ignore_index=True) if self.drawn else pd.DataFrame()
        config = self.study.config
        n = int(drawn["n"].max()) if len(drawn) else 0
        stamp = f"MNIST · {config.model} · preset {config.preset} · n = {n} · lines: mean, bands: range over replicates"
        self.figure.supxlabel(stamp, fontsize=8, color="0.4", x=0.99, ha="right")
        return self.figure, drawn


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
    return max((k for k in results.levels(frame, arm) if k <= level), default=None)


def density_axis(axis):
    """Logarithmic, decreasing to the right, in percent of kept weights."""
    low = axis.dataLim.x0 if np.isfinite(axis.dataLim.x0) else 0.01
    axis.set_xscale("log")
    axis.set_xlim(1.15, low / 1.15)
    ticks = [t for t in (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5) if t > low / 1.15]
    axis.set_xticks(ticks, [f"{100 * t:g}" for t in ticks])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_xlabel("density: kept weights (%)")


def step_axis(axis):
    """Linear up to 10 steps, logarithmic beyond, so that step 0 and the end are both seen."""
    axis.set_xscale("symlog", linthresh=10)
    axis.set_xlim(left=0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axis.set_xlabel("training step")


def _zoom(frame, arms, share=0.25):
    """Limits for the upper part of an accuracy panel: from a little below the dense accuracy to its top."""
    top = results.at_end(frame)
    top = top[top.index.get_level_values("arm").isin(arms)]
    if top.empty:
        return None
    high = min(100.0, top.max() + 0.3)
    return max(0.0, min(high - 4, top[top.index.get_level_values("level") == 0].min() - 3)), high


_PRE_MIDSEM = ("ticket", "random_reinit", "random_mask", "ticket_spared")


def _accuracy_vs_density(study, frame, number, name, marks):
    sheet = _Sheet(study, f"Figure {number}a. {name}: test accuracy against remaining weights")
    full, near = sheet.axes
    sheet.against_density(full, frame, _PRE_MIDSEM, title="all of it")
    sheet.against_density(near, frame, _PRE_MIDSEM, title="near the dense network", zoom=_zoom(frame, _PRE_MIDSEM))
    for axis in sheet.axes:
        for density, words in marks:
            if density > axis.get_xlim()[1]:  # the axis decreases: its end is its least density
                axis.axvline(density, color="0.5", lw=1, ls=":")
                look = {"rotation": 90, "fontsize": 8, "color": "0.4", "ha": "right", "va": "center"}
                axis.annotate(words, (density, 0.5), xycoords=("data", "axes fraction"), **look)
    full.axhline(80, color="0.5", lw=1, ls=":")
    return sheet.done(where="lower left")


def _accuracy_vs_step(study, frame, number, name):
    sheet = _Sheet(
        study, f"Figure {number}b. {name}: test accuracy against training step, a curve per density (ticket)"
    )
    there = results.levels(frame, "ticket")
    wanted = sorted({there[round(i)] for i in np.linspace(0, len(there) - 1, min(8, len(there)))}) if there else []
    colours = sns.color_palette("viridis", len(wanted))
    for axis, title in zip(sheet.axes, ("all of it", "near the dense network"), strict=True):
        for level, colour in zip(wanted, colours, strict=True):
            table = _by_step(frame[frame["arm"] == "ticket"], level, "accuracy")
            label = f"level {level}: {100 * results.density_at(frame, 'ticket', level):.3g} %"
            sheet.line(axis, table, "step", label, colour, title, lw=1.6)
        step_axis(axis)
        axis.set(ylabel=UNITS["accuracy"], title=title)
    if zoom := _zoom(frame, ["ticket"]):
        sheet.axes[1].set_ylim(zoom[0] - 4, zoom[1])
    return sheet.done(legend_on=1, where="upper left")


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


_TASKS = ("t1_on_s1", "t2_on_s2", "t1_on_s2", "random_mask", "random_reinit")


def fig3(study, frame):
    """Task 1: test accuracy and loss against training step, and final accuracy against density."""
    level, last = _levels(study, frame, "t1_on_s1")
    sheet = _Sheet(
        study, f"Figure 3. Task 1, halves of the data: {_at_levels(frame, 't1_on_s1', level, last)}", columns=3, width=5
    )
    sheet.against_step(sheet.axes[0], frame, _TASKS, level, "accuracy", "accuracy, all steps", faint=last)
    sheet.against_step(sheet.axes[1], frame, _TASKS, level, "loss", "loss, all steps", faint=last)
    sheet.against_density(
        sheet.axes[2], frame, _TASKS, title="final accuracy, near the dense network", zoom=_zoom(frame, _TASKS)
    )
    return sheet.done(where="lower right")


def _task2(study, frame, letter, metric):
    sheet = _Sheet(study, f"Figure 4{letter}. Task 2, S1 = labels 0-4, S2 = labels 5-9: test {metric}", rows=2)
    for row, (suffix, words) in enumerate((("", "pruned as in the report"), ("_spared", "output layer spared"))):
        arms = [arm + suffix for arm in _TASKS]
        if arms[0] not in set(frame["arm"]):
            continue
        level, last = _levels(study, frame, arms[0])
        steps, density = sheet.axes[2 * row : 2 * row + 2]
        sheet.against_step(
            steps, frame, arms, level, metric, f"{words}\n{_at_levels(frame, arms[0], level, last)}", faint=last
        )
        sheet.against_density(density, frame, arms, metric, f"{words}\nat the last step of every level")
        shares = results.dead_labels(frame, f"t1_on_s2{suffix}", range(5, 10))
        if metric == "accuracy" and len(shares):
            share = shares["class_share"].iloc[-1]
            density.axhline(share, color="0.4", lw=1, ls=":")
            words = f"{share:.4f} %: all answers are {shares['top_answer'].iloc[-1]}"
            density.annotate(words, (0.02, share + 1.5), xycoords=("axes fraction", "data"), fontsize=8, color="0.3")
    return sheet.done(legend_on=(1, 3), where="center left" if metric == "accuracy" else "upper left")


def fig4a(study, frame):
    """Task 2: test accuracy, as pruned in the report and with the output layer spared."""
    return _task2(study, frame, "a", "accuracy")


def fig4b(study, frame):
    """Task 2: test loss, likewise."""
    return _task2(study, frame, "b", "loss")


_OPTIMIZERS = (
    "adam",
    "sgd_mask_by_adam",
    "momentum_mask_by_adam",
    "sgd",
    "adam_mask_by_sgd",
    "momentum",
    "adam_mask_by_momentum",
)


def fig5a(study, frame):
    """Task 3: test accuracy against density, tickets of each optimizer and crossed."""
    sheet = _Sheet(study, "Figure 5a. Task 3, optimizers: test accuracy against remaining weights")
    sheet.against_density(sheet.axes[0], frame, _OPTIMIZERS, title="all of it")
    sheet.against_density(
        sheet.axes[1], frame, _OPTIMIZERS, title="near the dense networks", zoom=_zoom(frame, _OPTIMIZERS)
    )
    return sheet.done(where="outside")


def fig5b(study, frame):
    """Task 3: test loss against training step at the common level."""
    level = results.stands_at(results.common_level(frame, study.config))[0]
    last = max(results.levels(frame, "adam"), default=None)
    title = f"Figure 5b. Task 3, optimizers: test loss, {_at_levels(frame, 'adam', level, last)}"
    sheet = _Sheet(study, title)
    for axis, words, arms in zip(
        sheet.axes, ("trained by Adam", "trained by SGD"), (_OPTIMIZERS[:3], _OPTIMIZERS[3:]), strict=True
    ):
        sheet.against_step(axis, frame, arms, level, "loss", words, faint=last)
    return sheet.done(legend_on=(0, 1))


def _levels(study, frame, arm):
    level = results.stands_at(results.ticket_level(frame, arm, study.config.tolerance))[0]
    return level, max(results.levels(frame, arm), default=None)


def _at_levels(frame, arm, level, last):
    def words(k):
        return f"level {k} ({100 * results.density_at(frame, arm, k):.3g} % kept)"

    return f"solid: {words(level)}; faint: {words(last)}" if level is not None else "not run"


def at_level(study, frame, level):
    """Test accuracy and loss against training step of every arm at one level: (Figure, DataFrame)."""
    arms = [arm for arm in dict.fromkeys(frame["arm"]) if level in results.levels(frame, arm)]
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
}


def draw(study, frame=None):
    """Draw, save and show all figures of a study.

    Parameters
    ----------
    study : Study
    frame : DataFrame
        Its tidy rows; read from the finished levels if not given.

    Returns
    -------
    list of pathlib.Path
        The pictures; a csv of what is drawn, an svg and the provenance lie beside each.
    """
    frame = experiments.finished(study) if frame is None else frame
    paths = []
    for name, function in FIGURES[study.config.experiment].items():
        figure, drawn = function(study, frame)
        paths.append(save_figure(study, name, figure, drawn))
        plt.show()
        plt.close(figure)
    return paths


def save_figure(study, name, figure, drawn):
    """Write ``<name>.png``, ``.svg``, ``.csv`` (what is drawn) and ``.json`` (where it comes from): Path of the png."""
    folder = study.folder
    for kind in ("png", "svg"):
        content = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(content, format=kind, dpi=130, metadata=metadata)
        store.write(folder / f"{name}.{kind}", content.getvalue())
    store.write(folder / f"{name}.csv", drawn.to_csv(index=False, lineterminator="\n"))
    store.write(folder / f"{name}.json", json.dumps(experiments.provenance(study), indent=1, sort_keys=True) + "\n")
    return folder / f"{name}.png"


# ------------------------------------------------------------------------------------- one network, looked into


_LOOK = {**sns.axes_style("whitegrid"), **sns.plotting_context("notebook", font_scale=0.85), "axes.titley": 1.03}
ROLES = {
    "dense": ("dense", "0.45"),
    "ticket": ("ticket", _OKABE_ITO["blue"]),
    "random_reinit": ("re-initialised", _OKABE_ITO["orange"]),
    "random_mask": ("random mask", _OKABE_ITO["green"]),
}


class _Page:
    """A picture that is redrawn in hundredths of a second, as wide as a notebook's page.

    Its frame (axes, ticks, and what does not change) is drawn once; what a subclass then puts on its axes is drawn over
    that by `_png`, and taken off again.
    """

    def __init__(self, columns=1, ratios=None, **margins):
        with matplotlib.rc_context(_LOOK):
            self.figure = Figure(figsize=(9.6, 3.1))
            place = {"left": 0.06, "right": 0.985, "top": 0.86, "bottom": 0.17, "wspace": 0.17} | margins
            self.axes = self.figure.subplots(1, columns, width_ratios=ratios, gridspec_kw=place, squeeze=False)[0]
            self._frame(*self.axes)
        for axis in self.axes:
            axis.autoscale(False)
            axis.minorticks_off()
        self.canvas = FigureCanvasAgg(self.figure)
        self.canvas.draw()
        self.drawn = self.canvas.copy_from_bbox(self.figure.bbox)
        self.fixed = {artist for axis in self.axes for artist in axis.get_children()}

    def _frame(self, *axes):
        """What does not change; the limits of the axes above all."""

    def _png(self):
        """The picture as it is now: bytes of a png. What was put on the frame is taken off."""
        self.canvas.restore_region(self.drawn)
        for axis in self.axes:
            over = [artist for artist in axis.get_children() if artist not in self.fixed]
            for artist in sorted(over, key=lambda artist: artist.get_zorder()):
                axis.draw_artist(artist)
            for artist in over:
                artist.remove()
        content = io.BytesIO()
        PIL.Image.fromarray(np.asarray(self.canvas.buffer_rgba())).save(content, "png", compress_level=1)
        return content.getvalue()


def _title(axis, words, **look):
    axis.text(0.5, 1.03, words, transform=axis.transAxes, **{"ha": "center", "va": "bottom", "fontsize": 10} | look)


class Note(_Page):
    """Words in the place of a picture that is not there yet."""

    def _frame(self, axis):
        axis.set_axis_off()

    def png(self, words):
        """The page with these words: bytes."""
        self.axes[0].text(0.5, 0.5, words, ha="center", va="center", fontsize=11, color="0.3")
        return self._png()


class MaskSeen(_Page):
    """What the first layer still looks at, beside a digit, and what is left of every layer.

    Parameters
    ----------
    shapes : dict of str to tuple
        Of the layers' weights.
    colour : str
    """

    def __init__(self, shapes, colour):
        self.shapes, self.colour = shapes, colour
        super().__init__(2, (1.3, 1), left=0.01, wspace=0.1)

    def _frame(self, left, right):
        left.set_axis_off()
        left.set(xlim=(-5, 65), ylim=(29, -3), aspect="equal")
        right.set(xscale="log", xlim=(0.05, 130), ylim=(len(self.shapes) - 0.6, -0.7))
        right.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        right.set_yticks(range(len(self.shapes)), list(self.shapes))
        right.set(xlabel="kept weights of the layer (%)", title="what is left of every layer")
        right.grid(axis="y", visible=False)

    def png(self, mask, digit, layers=None, dead_from=None):
        """The page for a mask: bytes.

        Parameters
        ----------
        mask : dict of str to bool array
        digit : (28, 28) array of uint8
        layers, dead_from
            As from :func:`lthcore.results.layers` and :func:`lthcore.results.deaths`, where they are known.
        """
        left, right = self.axes
        first, kept = next(iter(mask.items()))
        beside, box = (35, 63, 28, 0), {"width": 28, "height": 28, "fill": False, "color": "0.6"}
        words, look = "a digit", {"aspect": "equal", "interpolation": "nearest"}
        left.imshow(digit, cmap="gray_r", vmin=0, vmax=255, extent=beside, **look)
        left.add_patch(matplotlib.patches.Rectangle((35, 0), **box))
        if kept.ndim == 2:
            looks = kept.sum(0).reshape(28, 28)
            blind = looks == 0
            left.imshow(np.where(blind, np.nan, looks), cmap="viridis", extent=(0, 28, 28, 0), **look)
            left.imshow(np.where(blind, 1, np.nan), cmap="Reds", vmin=0, vmax=2.5, alpha=0.75, extent=beside, **look)
            left.add_patch(matplotlib.patches.Rectangle((0, 0), **box))
            words = f"{784 - blind.sum()} of 784 pixels looked at;\nyellow: by {looks.max()} weights"
            left.text(14, -1, words, ha="center", va="bottom")
            words = "a digit; red: no weight looks there"
        else:
            filters = np.pad(kept[:, 0].astype(float), ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
            sheet = filters.reshape(2, 3, 7, 7).swapaxes(1, 2).reshape(14, 21)
            left.imshow(sheet, cmap="viridis", vmin=0, vmax=1, extent=(-4, 31, 25.7, 2.3), **look)
            left.text(14, -1, f"the filters of {first};\nyellow: kept, dark: pruned", ha="center", va="bottom")
        left.text(49, -1, words, ha="center", va="bottom")
        right.barh(list(range(len(mask))), [100 * m.mean() for m in mask.values()], height=0.32, color=self.colour)
        for row, (name, m) in enumerate(mask.items()):
            words = f"{m.sum():,} of {m.size:,} kept"
            if layers is not None:
                words += f", {layers['on_path'][name]:,} live; {layers['live_units'][name]} of {len(m)} units live"
            if dead_from and dead_from.get(name) is not None:
                words += f"; dead from level {dead_from[name]}"
            right.text(0.06, row - 0.22, words, va="bottom", fontsize=8.5, color="0.2")
        return self._png()


class Standing(_Page):
    """Where a network stands: accuracy against density with a marker, and its training curve over the dense one's.

    Parameters
    ----------
    arm : str
    ends : Series over (arm, level)
        Final test accuracies of one replicate, the other arms' too.
    densities : dict of int to float
        By level.
    dense : DataFrame or None
        The dense network's training curve: step and value.
    reported : float or None
        What the report gives for this arm.
    dead_from : dict of str to (int or None)
        Levels at which layers, and the first output, die.
    """

    def __init__(self, arm, ends, densities, dense, reported, dead_from):
        self.arm, self.ends, self.densities, self.dense = arm, ends, densities, dense
        self.reported, self.dead_from = reported, dead_from
        super().__init__(2)

    def _frame(self, left, right):
        for arm in sorted(self.ends.index.get_level_values("arm").unique(), key=lambda arm: arm == self.arm):
            _, colour, marker = style(arm)
            look = {"lw": 2.2, "ms": 5} if arm == self.arm else {"lw": 1, "ms": 3, "alpha": 0.45}
            ends = self.ends[arm]
            left.plot([self.densities[k] for k in ends.index], ends, color=colour, marker=marker, **look)
        density_axis(left)
        low, high = self.ends.min(), max(self.ends.max(), self.reported or 0)
        left.set(ylabel=UNITS["accuracy"], ylim=(low - 0.08 * (high - low) - 0.3, high + 0.1 * (high - low) + 0.3))
        small = {"fontsize": 8.5, "color": "0.2"}
        if self.reported is not None:
            left.axhline(self.reported, color="0.3", lw=1, ls="--")
            place = {"xycoords": ("axes fraction", "data"), "va": "bottom"}
            left.annotate(f"report: {self.reported} %", (0.02, self.reported), **place, **small)
        for name, dead in self.dead_from.items():
            if dead is not None:
                left.axvline(self.densities[dead], color="0.5", lw=1, ls=":")
                place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "bottom"}
                left.annotate(f"{name} dies", (self.densities[dead], 0.03), **place, **small)
        if self.dense is not None:
            right.plot("step", "value", data=self.dense, color="0.6", lw=3)
        step_axis(right)
        right.set(ylabel=UNITS["accuracy"], ylim=(0, 101))
        right.annotate("grey: the dense network", (0.97, 0.05), xycoords="axes fraction", ha="right", **small)

    def png(self, level, curve):
        """The page at a level with its training curve (step and value): bytes."""
        left, right = self.axes
        _, colour, _ = style(self.arm)
        density, accuracy = self.densities[level], self.ends[self.arm, level]
        left.plot(density, accuracy, marker="o", ms=15, mfc="none", mec=colour, mew=2.4)
        _title(left, f"{full_label(self.arm)}, {100 * density:.3g} % kept: {accuracy:.2f} % correct")
        right.plot("step", "value", data=curve, color=colour, lw=1.8)
        _title(right, f"while level {level} trains")
        return self._png()


class Moved(_Page):
    """Starting values against final ones, of what was pruned and of what survived."""

    def __init__(self):
        super().__init__(2, top=0.83)

    def _frame(self, *axes):
        for axis in axes:
            axis.plot((-1, 1), (-1, 1), color="0.2", lw=0.8)
            axis.set(xlabel="starting value", xlim=(-0.4, 0.4), ylim=(-0.8, 0.8))
        axes[0].set_ylabel("final value")

    def png(self, dense, own, colour):
        """The page for a network and its dense one: bytes.

        Parameters
        ----------
        dense, own : lthcore.store.Weights
        colour : str
        """
        mask = np.concatenate([m.ravel() for m in own.mask.values()])
        dense, own = (
            [np.concatenate([part[f"{name}.weight"].ravel() for name in own.mask]) for part in (w.start, w.final)]
            for w in (dense, own)
        )
        random = np.random.default_rng(0)  # a few thousand dots show what all of them would
        pruned, kept = (random.permutation(np.flatnonzero(m))[:2500] for m in (~mask, mask))
        self.axes[0].plot(dense[0][pruned], dense[1][pruned], ".", ms=2, color="0.6")
        for axis, (start, final), where in zip(self.axes, (dense, own), ("the dense", "this"), strict=True):
            axis.plot(start[kept], final[kept], ".", ms=2.5, color=colour)
            m = results.moved(start[mask], final[mask])
            words = f"{100 * m['same_sign']:.0f} % keep their sign; they move by {m['move']:.2g} (median)"
            _title(axis, f"in {where} network the {m['survivors']:,} survivors:\n{words}")
        self.axes[0].text(-0.38, 0.75, "grey: pruned by this level", va="top", fontsize=8.5, color="0.2")
        return self._png()


class Answers(_Page):
    """What networks answer to a digit."""

    def __init__(self):
        super().__init__(2, (1, 4.6), left=0.01, wspace=0.06)

    def _frame(self, left, right):
        left.set_axis_off()
        left.set(xlim=(0, 28), ylim=(28, 0), aspect="equal")
        right.set(xlim=(-0.05, 5.8), ylim=(9.6, -0.6), xticks=[], yticks=range(10))
        right.set_xlabel("probability of each answer, 0 to 1 from each line; grey: the right one")
        right.grid(visible=False)
        for column in range(len(ROLES)):
            right.axvline(1.45 * column, color="0.6", lw=1)

    def png(self, digit, label, probabilities):
        """The page for a digit: bytes.

        Parameters
        ----------
        digit : (28, 28) array of uint8
        label : int
        probabilities : dict of str to (10,) array
            By role.
        """
        left, right = self.axes
        left.imshow(digit, cmap="gray_r", vmin=0, vmax=255, extent=(0, 28, 28, 0), aspect="equal")
        _title(left, f"test digit, a {label}")
        right.axhspan(label - 0.45, label + 0.45, color="0.5", alpha=0.15, lw=0)
        for column, (role, (name, colour)) in enumerate(ROLES.items()):
            zero, p = 1.45 * column, probabilities.get(role)
            if p is None:
                right.text(zero, -0.8, f"{name}: not here", color="0.5")
                continue
            answer = int(p.argmax())
            right.barh(range(10), p, left=zero, color=colour, height=0.7)
            right.text(zero + p[answer] + 0.03, answer, f"{100 * p[answer]:.0f} %", va="center")
            words, ink = (f"{name}: {answer}", "0.1") if answer == label else (f"{name}: {answer}, wrong", "#B00000")
            right.text(zero, -0.8, words, color=ink, fontsize=11)
        return self._png()


class Compared(_Page):
    """Tickets side by side, accuracy against density.

    Parameters
    ----------
    lines : dict of str to (DataFrame, str)
        Label -> (frame with density and mean, a row per level; the arm whose colour it takes, or "").
    """

    def __init__(self, lines):
        self.lines = lines
        super().__init__(right=0.58)

    def _frame(self, axis):
        own = itertools.cycle(["red", "purple", "orange", "green", "sky", "yellow"])
        for label, (table, arm) in self.lines.items():
            colour = style(arm)[1] if arm else _OKABE_ITO[next(own)]
            axis.plot("density", "mean", data=table, label=label, color=colour, marker="o", ms=4)
        density_axis(axis)
        if self.lines:
            axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False)
        axis.set(ylabel=UNITS["accuracy"], title="tickets side by side")

    def png(self):
        """The page: bytes."""
        return self._png()


class Pictures:
    """The pictures of one study's networks, its table read once.

    Parameters
    ----------
    study : Study
    """

    def __init__(self, study):
        self.study, self.frame = study, experiments.finished(study)
        there = set(zip(self.frame["arm"], self.frame["replicate"], strict=True))
        self.units = {(u.arm, u.replicate): u for u in study.units if (u.arm, u.replicate) in there}
        self.levels = {key: results.levels(rows, key[0]) for key, rows in self.frame.groupby(["arm", "replicate"])}
        self.ends, self.curves = results.at_end(self.frame), results.curves(self.frame)
        self.pages = lru_cache(self._pages)

    def line(self, arm):
        """An arm's mean final accuracy: frame with density and mean, a row per level."""
        mean = self.ends[arm].groupby("level").mean()
        return mean.to_frame("mean").assign(density=[self.study.config.density(k) for k in mean.index])

    def start(self):
        """Where a look begins: (arm, replicate, level), the level being that at which the ticket stands."""
        arm, replicate = next(iter(self.units))
        level = results.stands_at(results.ticket_level(self.frame, arm, self.study.config.tolerance))[0]
        there = self.levels[arm, replicate]
        return arm, replicate, level if level in there else there[-1]

    def seen(self, arm, replicate, level, digit):
        """The mask, beside a digit: bytes of a png."""
        mask, layers = (
            sweep.mask_at(self.units[arm, replicate], level),
            results.layers(self.frame, arm, replicate, level),
        )
        page, _, dead_from = self.pages(arm, replicate)
        return page.png(mask, digit, layers, dead_from)

    def stands(self, arm, replicate, level):
        """Where it stands: bytes of a png."""
        return self.pages(arm, replicate)[1].png(level, self.curves[arm, replicate, level])

    def _pages(self, arm, replicate):
        config = self.study.config
        dead_from = results.deaths(self.frame[self.frame["replicate"] == replicate], arm)
        dense, _ = experiments.rivals(self.study, self.units[arm, replicate], 0)["dense"]
        standing = Standing(
            arm,
            self.ends.xs(replicate, level="replicate"),
            {k: config.density(k) for k in range(config.rounds + 1)},
            self.curves.get((dense.arm, replicate, 0)),
            results.REPORTED.get(config.experiment, {}).get(arm),
            dead_from,
        )
        return MaskSeen(ARCHITECTURES[config.model].weights, style(arm)[1]), standing, dead_from


def full_label(arm):
    """An arm's label, with what is spared."""
    return style(arm)[0] + (", output layer spared" if arm.endswith("_spared") and arm not in ARMS else "")


def scorecard(studies):
    """Every claim with its numbers and verdict, linked to its figure: HTML to display.

    Links are relative to ``LTH_LINKS_FROM`` (where an executed notebook will lie), else to the working directory.
    """
    verdicts = experiments.verdicts(*studies)
    start = os.environ.get("LTH_LINKS_FROM") or Path.cwd()
    folders = {s.config.experiment: s.folder for s in studies}
    table, links = results.show(verdicts).reset_index(), []
    for claim, figure in zip(table["claim"], verdicts["figure"], strict=True):
        path = folders[next(e for e in FIGURES if figure in FIGURES[e])] / f"{figure}.png"
        link = os.path.relpath(path, start).replace(os.sep, "/")
        links.append(f'<a href="{link}">{figure.split("_")[0]}</a>' if claim and path.exists() else "")
    text = table.map(lambda cell: html.escape(str(cell)).replace("&#x27;", "'")).assign(figure=links)
    return HTML(text.to_html(escape=False, index=False))


def gallery(studies):
    """Show the figures of these studies that have been drawn."""
    for study in studies:
        for name in FIGURES[study.config.experiment]:
            path = study.folder / f"{name}.png"
            if path.exists():
                display(Image(path, width=1000))
            else:
                print(f"{name}: not drawn yet")
