"""Building blocks of figures: a sheet of panels, axes, styles. No torch.

Density axes are logarithmic and decrease to the right; lines are means, bands 95% t-intervals over
replicates; an arm has one colour in every figure; preset and n are stamped on it.
"""

import sys
import textwrap

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from scipy.special import stdtrit

from ..runs import presets
from . import measures, statistics

sys.modules.setdefault("scipy.stats", None)  # seaborn does without; importing it doubles the time seaborn takes
import seaborn as sns  # noqa: E402

if sys.modules["scipy.stats"] is None:
    del sys.modules["scipy.stats"]

OKABE_ITO = {  # Okabe & Ito's colours, distinguishable with every kind of colour vision
    "black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73",
    "yellow": "#C9B800", "blue": "#0072B2", "red": "#D55E00", "purple": "#CC79A7",
}  # fmt: skip


RC = {"axes.titlesize": 11, "legend.fontsize": 8.5, "legend.handlelength": 1.5, "svg.hashsalt": "lth"}


UNITS = {"accuracy": "test accuracy (%)", "loss": "test loss (nats)"}


DENSITY_TICKS = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 1e-4, 1e-5)


DATA = {"mnist": "MNIST", "fashion": "Fashion-MNIST", "cifar10": "CIFAR-10"}


MODELS = {"mlp": "MLP", "lenet5": "LeNet-5", "conv2": "Conv-2", "conv4": "Conv-4", "conv6": "Conv-6"}


SMALL = {"fontsize": 8, "color": "0.3", "bbox": {"fc": "white", "ec": "none", "pad": 0.5, "alpha": 0.75}}


def style(arm, styles):
    """Label, colour and marker of an arm; an unpruned layer changes the panel, not the colour."""
    label, colour, marker = styles.get(arm) or styles.get(arm.removesuffix("_spared")) or (arm, "black", "o")
    return label, OKABE_ITO[colour], marker


def full_label(arm, styles, full_labels):
    """An arm's label among all arms of its study."""
    unpruned = ", output layer unpruned" if arm.endswith("_spared") and arm not in styles else ""
    return full_labels.get(arm) or style(arm, styles)[0] + unpruned


class Sheet:
    """A figure under construction, and the table of what is drawn on it."""

    def __init__(self, study, title, rows=1, columns=2, width=None, height=4.0):
        matplotlib.rcdefaults()  # not the user's own settings
        sns.set_theme(style="whitegrid", font="DejaVu Sans", rc=RC)
        self.study, self.drawn = study, []
        width = width or (5.6 if columns < 3 else 4.3)  # inches: a page is as wide as two or three such panels
        self.figure, axes = plt.subplots(
            rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False
        )
        self.axes = axes.flatten().tolist()
        self.figure.suptitle(title, fontsize=13)

    def style(self, arm):
        """Label, colour and marker of an arm of this study."""
        return style(arm, self.study.experiment.styles)

    def line(self, axis, table, x, label, colour, panel, band=True, **options):
        """One curve of means with its band: `table` has the columns x, mean, low, high, n."""
        if table.empty:
            return
        curve(axis, table, x, label, colour, band, **options)
        self.drawn.append(table.assign(panel=panel))

    def against_density(self, axis, frame, arms, metric="accuracy", title="", zoom=None, series=None):
        for arm, width in zip(arms, widths(arms), strict=True):
            label, colour, marker = self.style(arm)
            values = statistics.at_end(frame[frame["arm"] == arm], metric) if series is None else series[[arm]]
            table = spread(values, frame).sort_values("density")
            face = (
                "white" if arm == arms[-1] else colour
            )  # the uppermost marker is hollow, so that those below it are seen
            options = {"marker": marker, "ms": 1 + 2.2 * width, "lw": width, "mfc": face}
            self.line(axis, table, "density", label, colour, title, **options)
        density_axis(axis)
        axis.set(ylabel=UNITS.get(metric, UNITS["accuracy"]), title=title)
        if zoom:
            axis.set_ylim(*zoom)

    def differences(self, axis, frame, pairs, title, bound=None, series=None):
        """Paired differences in accuracy against density, with the bounds by which claims about them are judged.

        Parameters
        ----------
        pairs : list of (str, str, str or None)
            Arm, label, and the arm that is subtracted at the same level; None: the arm's own dense network. Pairs of
            arms that are not there are left out. A curve has the colour of its arm; where several have the same arm,
            of what is subtracted.
        bound : float, tuple of float or dict of str to float, optional
            Of all of them, or by label: then the legend has each one's.
        series : Series, optional
            What is compared, over (arm, level, replicate); by default what claims are judged by, the mean accuracy
            over the last fifth of training.
        """
        values, seen = measures.last_fifth(frame) if series is None else series, []
        by_label = bound if isinstance(bound, dict) else {}
        shared = () if bound is None or isinstance(bound, dict) else np.atleast_1d(bound)
        pairs = [pair for pair in pairs if {pair[0], pair[2]} <= {None, *frame["arm"]}]
        first = [arm for arm, _, _ in pairs]
        for (arm, label, other), width in zip(pairs, widths(pairs), strict=True):
            levels = [k for k in statistics.levels(frame, arm) if k or other is not None]
            at = {k: statistics.paired(values, arm, k, other or arm, None if other else 0) for k in levels}
            rows = [(arm, k, statistics.density_at(frame, arm, k), *mean_and_band(v)) for k, v in at.items() if len(v)]
            table = pd.DataFrame(rows, columns=["arm", "level", "density", *BAND]).sort_values("density")
            _, colour, marker = self.style(other if other and first.count(arm) > 1 else arm)
            options = {"marker": marker, "ms": 1 + 2.2 * width, "lw": width}
            text = f"{label}, bound {by_label[label]:g}" if label in by_label else label
            self.line(axis, table, "density", text, colour, f"{title}: {label}", free=True, **options)
            if by_label.get(label):
                axis.axhline(by_label[label], color=colour, lw=1.2, ls=":")
            seen += [table["mean"].tolist()] if len(table) else []
        axis.axhline(0, color="0.4", lw=1, ls=":")
        for b in shared:
            axis.axhline(b, color="0.2", lw=1.2, ls=":")
            axis.annotate(f"bound: {b:g}", (0.01, b), xycoords=("axes fraction", "data"), va="bottom", **SMALL)
        density_axis(axis)
        every = all(any(abs(x) <= 6 for x in means) for means in seen)  # else a curve would be nowhere to be seen
        near = [x for means in seen for x in means if abs(x) <= 6 or not every] + [-1, 1]
        axis.set_ylim(min(near) - 0.6, max(near) + 0.6)
        over = ",\nlast fifth of training" if series is None else ""
        axis.set(ylabel=f"difference in accuracy{over} (pp)", title=title)
        if seen:
            axis.legend(loc="best")

    def steps_to(self, axis, frame, arms, accuracy):
        """The first step at which the validation accuracy is that high, against density; geometric means.

        A point is drawn where all replicates get there.
        """
        steps = measures.steps_to(frame, accuracy)
        reached = steps["reached"].groupby(["arm", "level"], observed=True).transform("all")
        steps = np.log(steps["step"][reached & (steps["step"] > 0)])
        title = "how fast they learn, where all replicates get there"
        for arm in [arm for arm in arms if arm in steps.index]:
            label, colour, marker = self.style(arm)
            table = spread(steps[[arm]], frame).sort_values("density")
            table[BAND[1:]] = np.exp(table[BAND[1:]])
            self.line(axis, table, "density", label, colour, title, marker=marker)
        density_axis(axis)
        axis.set(
            title=title, ylabel=f"step at {accuracy}% validation accuracy", yscale="log" if len(steps) else "linear"
        )
        if not len(steps):
            axis.annotate("at no level do all replicates reach it", (0.03, 0.5), xycoords="axes fraction", **SMALL)

    def reported(self, axis, arms, va="bottom", ha="left", names=()):
        """The accuracies that the report gives for these arms, as lines with a label above them or below.

        Of several, the highest is labelled above its line and the others below theirs. `names` are the report's own for
        an arm, as a dict, where it says less than the arm's label.
        """
        low, high = axis.get_ylim()
        numbers = {arm: self.study.experiment.reported.get(arm) for arm in arms}
        numbers = {arm: number for arm, number in numbers.items() if number is not None and low < number < high}
        for arm, number in numbers.items():
            label, colour, _ = self.style(arm)
            label = dict(names).get(arm, label)
            axis.axhline(number, color=colour, lw=1.2, ls=":")
            side = va if len(numbers) == 1 else "bottom" if number == max(numbers.values()) else "top"
            where = SMALL | {"xycoords": ("axes fraction", "data"), "va": side, "ha": ha, "color": colour}
            axis.annotate(f"report, {label}: {number:g}", (0.01 if ha == "left" else 0.99, number), **where)

    def full_and_near(self, frame, arms, metric="accuracy"):
        """The first two panels: the curves against density, and their part near the dense network."""
        near = zoom(frame, arms, metric)
        for axis, title, limits in zip(
            self.axes, ("whole range", "near the dense network"), (None, near), strict=False
        ):
            self.against_density(axis, frame, arms, metric, title, limits)

    def against_step(self, axis, frame, arms, level, metric="accuracy", title="", dashed=None):
        if metric == "loss":
            loss_axis(axis)
        others = []  # controls that do not stand at every level, drawn at their last one before
        for at, options in {
            dashed: {"lw": 1.2, "ls": "--", "band": False},
            level: {},
        }.items():  # solid where they are one
            for arm, width in zip(arms, widths(arms), strict=True) if at is not None else ():
                label, colour, _ = self.style(arm)
                there = _at_or_before(frame, arm, at)
                table = by_step(frame[frame["arm"] == arm], there, metric)
                if there not in (at, None):
                    label += f", level {there}"
                    others.append(label if at == level else f"{label} (dashed)")
                self.line(axis, table, "step", label if at == level else "", colour, title, **{"lw": width} | options)
        step_axis(axis)
        options = {"xycoords": "axes fraction", "fontsize": 7.5, "color": "0.2", "bbox": {"fc": "white", "ec": "none"}}
        corner = {"xy": (0.99, 0.02), "ha": "right", "va": "bottom"}
        if metric == "loss":  # which falls, where accuracy rises
            corner = {"xy": (0.01, 0.02), "ha": "left", "va": "bottom"}
        if others:
            axis.annotate("but for\n" + "\n".join(others), **corner, **options)
        axis.set(ylabel=UNITS[metric], title=title)

    def done(self, legend_on=0, where="best", shown="lines: mean, bands: 95% t-interval over replicates"):
        """Stamp and legends: (Figure, DataFrame of what is drawn)."""
        for i in np.atleast_1d(legend_on):
            if self.axes[i].get_legend_handles_labels()[0]:
                self.axes[i].legend(loc=where)
        drawn = pd.concat(self.drawn, ignore_index=True) if self.drawn else pd.DataFrame()
        config = self.study.config
        arms = set(drawn.get("arm", ()))
        units = [unit for unit in self.study.units if unit.arm in arms] or self.study.units
        names = {unit.arm for unit in units}  # what is drawn of other studies is not counted
        n = int((drawn[drawn["arm"].isin(names)] if names & arms else drawn)["n"].max()) if len(drawn) else 0
        models = " and ".join(dict.fromkeys(MODELS.get(unit.config.model, unit.config.model) for unit in units))
        data = " and ".join(dict.fromkeys(DATA.get(unit.config.dataset, unit.config.dataset) for unit in units))
        changes = [
            f"{k} = {v}" for k, v in presets.stamped(config).items() if k not in ("replicates", "model", "dataset")
        ]
        shown = shown if n > 1 else "no intervals"
        stamp = " · ".join([data, models, f"preset {config.preset}", *changes, f"n = {n}", shown])
        width = int(13 * self.figure.get_figwidth())  # characters that fit: what was set may be much
        self.figure.supxlabel(textwrap.fill(stamp, width), fontsize=8, color="0.4", x=0.99, ha="right")
        return self.figure, drawn


def curve(axis, table, x, label, colour, band=True, free=False, **options):
    """A line of means, with its band where there are several replicates; n stands in its label.

    A band of percentages ends at 0 and 100 unless it is `free`, and one on a logarithmic axis above 0.
    """
    n = int(table["n"].max())
    axis.plot(table[x], table["mean"], label=f"{label} (n = {n})" if label else None, color=colour, **options)
    if n > 1 and band:
        low, high = (table[end].fillna(table["mean"]) for end in ("low", "high"))
        if axis.get_yscale() == "log":
            low = low.clip(lower=table["mean"] / 10)
        elif not free and table["mean"].between(0, 100).all() and table["mean"].max() > 20:
            low, high = low.clip(lower=0), high.clip(upper=100)
        axis.fill_between(table[x], low, high, color=colour, alpha=0.18, linewidth=0)


def widths(arms):
    """Widths of lines, the later and upper ones thinner: of two that coincide both are seen."""
    return np.linspace(3.2, 1.2, len(arms))


BAND = ["n", "mean", "low", "high", "least", "greatest"]


def mean_and_band(values):
    """The numbers of one point of a curve, in the order of ``BAND``: n, mean, 95% t-interval, range."""
    values = np.asarray(values, float)
    return (*statistics.interval(values), values.min(), values.max())


def _over_replicates(grouped):
    """The same of grouped values: frame with the groups' keys and the columns ``BAND``."""
    table = grouped.agg(n="size", mean="mean", std="std", least="min", greatest="max").reset_index()
    half = stdtrit(np.maximum(table["n"] - 1, 1), 0.975) * table.pop("std") / np.sqrt(table["n"])  # of one: NaN
    return table.assign(low=table["mean"] - half, high=table["mean"] + half)


def spread(series, frame):
    """Mean, interval and range over replicates: frame with arm, level, density and the columns ``BAND``."""
    table = _over_replicates(series.groupby(["arm", "level"]))
    density = frame.groupby(["arm", "level"], observed=True)["density"].first()
    return table.assign(density=[density[key] for key in zip(table["arm"], table["level"], strict=True)])


def by_step(frame, level, metric):
    """The same at every step of a level: frame with arm, level, density, step and the columns ``BAND``."""
    rows = frame[(frame["level"] == level) & (frame["metric"] == metric) & (frame["split"] == "test")]
    return _over_replicates(rows.groupby(["arm", "level", "density", "step"], observed=True)["value"])


def _at_or_before(frame, arm, level):
    """The arm's last level up to `level`: controls are not trained at every level, and not at the dense one."""
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


def threshold(axis, percent):
    """A labelled line at an accuracy."""
    axis.axhline(percent, color="0.5", lw=1, ls=":")
    axis.annotate(f"{percent:g}%", (0.01, percent + 0.5), xycoords=("axes fraction", "data"), **SMALL)


def marks(axis, densities, height=0.5):
    """Labelled lines at densities on the axis: pairs of density and text, which stands at a height in [0, 1]."""
    for density, text in densities:
        if density > axis.get_xlim()[1]:  # the axis decreases: its end is its least density
            axis.axvline(density, color="0.5", lw=1, ls=":")
            options = {"rotation": 90, "fontsize": 8, "color": "0.4", "ha": "right", "va": "center"}
            axis.annotate(text, (density, height), xycoords=("data", "axes fraction"), **options)


def zoom(frame, arms, metric="accuracy"):
    """Limits for the upper part of an accuracy panel: from a little below the dense accuracy to its top."""
    top = statistics.at_end(frame, metric)
    top = top[top.index.get_level_values("arm").isin(arms)]
    if top.empty:
        return None
    high = min(100.0, top.max() + 0.3)
    near = min(high - 4, top[top.index.get_level_values("level") == 0].min() - 3)
    return max(0.0, near, top.min() - 0.3), high  # never narrower than all of it needs


def ticket_and_last(study, frame, arm):
    """The level L of an arm's ticket, and its last level: int or None each."""
    level = statistics.stands_at(statistics.ticket_level(frame, arm, study.config.tolerance))[0]
    return level, max(statistics.levels(frame, arm), default=None)


def at_levels(frame, arm, level, last):
    """Which level is drawn solid and which one dashed, in words: str."""

    def described(k):
        return f"level {k} ({100 * statistics.density_at(frame, arm, k):.3g}%"

    if level is None:
        return "not run"
    solid = f"solid: {described(level)}"
    return f"{solid} density)" if last == level else f"{solid}); dashed: {described(last)} density)"


def accuracy_against_density(study, frame):
    """The figure of a study that needs no other: test accuracy of every arm against density, and what is claimed."""
    pairs, bounds = _claimed(study, frame)
    sheet = Sheet(study, study.experiment.title or study.config.experiment, columns=3 if pairs else 2)
    sheet.full_and_near(frame, list(dict.fromkeys(frame["arm"])))
    if pairs:
        sheet.differences(sheet.axes[2], frame, pairs, "differences that are claimed", bounds)
    return sheet.done(where="lower left")


def _claimed(study, frame):
    """What a study's claims subtract at a level, as pairs for :meth:`Sheet.differences`, and the bound of each."""
    pairs, bounds = {}, {}
    measures = [
        m for claim in study.experiment.claims for m in (claim.measures(frame, study.config) if len(frame) else ())
    ]
    for m in measures:
        if not m.judged or len(m.networks) != 2:
            continue
        (one, level), (other, at) = m.networks
        if at == level or (other, at) == (one, 0):
            label = f"{style(one, study.experiment.styles)[0]} - "
            label += style(other, study.experiment.styles)[0] if at == level else "dense"
            pairs[label] = (one, label, other if at == level else None)
            bounds[label] = m.above if np.isfinite(m.above) else m.below
    return list(pairs.values()), bounds
