"""The explorer's pictures of one network, all of one size and drawn in milliseconds. No torch."""

import contextlib
import io
import itertools
import math
from functools import lru_cache

import matplotlib
import numpy as np
import PIL.Image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..results import figures, statistics
from ..results.figures import OKABE_ITO, UNITS, density_axis, sns, step_axis
from ..runs import sweep
from ..schedule import ARCHITECTURES
from ..studies import REGISTRY, experiments
from ..studies.plots import style, styles

_STYLE = {**sns.axes_style("whitegrid"), **sns.plotting_context("notebook", font_scale=0.85), "axes.titley": 1.03}
_STYLE |= {"font.family": "DejaVu Sans"}
ROLES = {
    "dense": ("dense", "0.45"),
    "ticket": ("ticket", OKABE_ITO["blue"]),
    "random_reinit": ("reinitialised", OKABE_ITO["orange"]),
    "random_mask": ("random mask", OKABE_ITO["green"]),
}
GLOSSARY = {  # of the explorer and of its page
    "level": "number of prunings done; at level 0 the network is dense",
    "density": "kept weights divided by all prunable weights",
    "mask": "which weights are kept",
    "ticket": "a mask and the values that its survivors start from, found by pruning",
    "active": "on a path of kept weights from a pixel to an output; an output without one is disconnected",
    "replicate": "a repetition with its own initial values, data split and batch order",
}


@contextlib.contextmanager
def _settings(changes):
    """Draw under matplotlib's defaults and these changes; the user's own settings come back."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(changes)
        yield


class Panel:
    """A picture as wide as a notebook's page, redrawn in hundredths of a second.

    Its frame (axes, ticks, and what does not change) is drawn once; what a subclass then puts on its axes is drawn over
    that by `_png`, and taken off again.
    """

    def __init__(self, columns=1, ratios=None, height=3.1, **margins):
        with _settings(_STYLE):
            self.figure = Figure(figsize=(9.6, height))
            place = {"left": 0.08, "right": 0.965, "top": 0.86, "bottom": 0.17, "wspace": 0.17} | margins
            self.axes = self.figure.subplots(1, columns, width_ratios=ratios, gridspec_kw=place, squeeze=False)[0]
            self._frame(*self.axes)
            for axis in self.axes:
                axis.autoscale(False)
                axis.minorticks_off()
            self.canvas = FigureCanvasAgg(self.figure)
            self.canvas.draw()
        self.drawn = self.canvas.copy_from_bbox(self.figure.bbox)
        self.fixed = {artist for axis in self.axes for artist in axis.get_children()}

    def __init_subclass__(cls):
        cls.png = _settings({})(cls.png)

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


def put_title(axis, text, **options):
    """A title that changes: drawn over the frame like what else does."""
    axis.text(0.5, 1.03, text, transform=axis.transAxes, **{"ha": "center", "va": "bottom", "fontsize": 10} | options)


class Note(Panel):
    """A text in place of a picture that does not exist yet."""

    def _frame(self, axis):
        axis.set_axis_off()

    def png(self, text):
        """The picture with this text: bytes of a png."""
        self.axes[0].text(0.5, 0.5, text, ha="center", va="center", fontsize=11, color="0.3")
        return self._png()


class MaskView(Panel):
    """The pixels that the first layer still reads, beside a digit, and the kept weights of every layer.

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
        right.set(xlabel="density of the layer (%)", title="kept weights, layer by layer")
        right.grid(axis="y", visible=False)

    def png(self, mask, digit, layers=None, dead_from=None):
        """The page for a mask: bytes.

        Parameters
        ----------
        mask : dict of str to bool array
        digit : (28, 28) array of uint8
        layers, dead_from
            As from ``layers`` and ``deaths`` in :mod:`lthcore.results.statistics`, where they are known.
        """
        left, right = self.axes
        first, kept = next(iter(mask.items()))
        right_half, box = (35, 63, 28, 0), {"width": 28, "height": 28, "fill": False, "color": "0.6"}
        text, options = "a digit", {"aspect": "equal", "interpolation": "nearest"}
        left.imshow(digit, cmap="gray_r", vmin=0, vmax=255, extent=right_half, **options)
        left.add_patch(matplotlib.patches.Rectangle((35, 0), **box))
        if kept.ndim == 2:
            counts = kept.sum(0).reshape(28, 28)
            blind = counts == 0
            left.imshow(np.where(blind, np.nan, counts), cmap="viridis", extent=(0, 28, 28, 0), **options)
            left.imshow(
                np.where(blind, 1, np.nan), cmap="Reds", vmin=0, vmax=2.5, alpha=0.75, extent=right_half, **options
            )
            left.add_patch(matplotlib.patches.Rectangle((0, 0), **box))
            least, greatest = counts[~blind].min(initial=counts.max()), counts.max()
            text = f"{784 - blind.sum()} of 784 pixels read;\nweights kept at a pixel:\n"
            left.text(14, -1, f"{text}{least} (dark) to {greatest} (yellow)", ha="center", va="bottom")
            text = "a digit; red: pixels that no weight reads"
        else:
            rows, size = max(1, math.isqrt(len(kept) * 2 // 3)), kept.shape[-1] + 2  # of six filters two rows of three
            columns, filters = -(-len(kept) // rows), kept.mean(1)  # the share that is kept over the input channels
            filters = np.pad(filters, ((0, 0), (1, 1), (1, 1)), constant_values=np.nan)
            filters = np.pad(filters, ((0, rows * columns - len(kept)), (0, 0), (0, 0)), constant_values=np.nan)
            sheet = filters.reshape(rows, columns, size, size).swapaxes(1, 2).reshape(rows * size, columns * size)
            left.imshow(sheet, cmap="viridis", vmin=0, vmax=1, extent=(-4, 31, 25.7, 2.3), **options)
            left.text(14, -1, f"the filters of {first};\nyellow: kept, dark: pruned", ha="center", va="bottom")
        left.text(49, -1, text, ha="center", va="bottom")
        right.barh(list(range(len(mask))), [100 * m.mean() for m in mask.values()], height=0.32, color=self.colour)
        for row, (name, m) in enumerate(mask.items()):
            text = f"{m.sum():,} of {m.size:,} kept"
            if layers is not None:
                text += f", {layers['on_path'][name]:,} active; {layers['live_units'][name]} of {len(m)} units active"
            if dead_from and dead_from.get(name) is not None:
                text += f"; collapsed from level {dead_from[name]} on"
            right.text(0.06, row - 0.22, text, va="bottom", fontsize=8.5, color="0.2")
        return self._png()


class Standing(Panel):
    """Accuracy against density with a ring at the chosen level, and the training curve over the dense network's.

    Parameters
    ----------
    arm : str
    ends : Series over (arm, level)
        Final test accuracies of one replicate, the other arms' too.
    densities : Series over (arm, level)
        In [0, 1].
    dense : DataFrame or None
        The dense network's training curve: step and value.
    reported : float or None
        What the report gives for this arm.
    dead_from : dict of str to (int or None)
        Levels at which layers collapse and the first output is disconnected.
    """

    def __init__(self, arm, ends, densities, dense, reported, dead_from):
        self.arm, self.ends, self.densities, self.dense = arm, ends, densities, dense
        self.reported, self.dead_from = reported, dead_from
        super().__init__(2, wspace=0.2)

    def _frame(self, left, right):
        for arm in sorted(self.ends.index.get_level_values("arm").unique(), key=lambda arm: arm == self.arm):
            _, colour, marker = style(arm)
            options = {"lw": 2.2, "ms": 5} if arm == self.arm else {"lw": 1, "ms": 3, "alpha": 0.45}
            ends = self.ends[arm]
            left.plot(self.densities[arm].loc[ends.index], ends, color=colour, marker=marker, **options)
        density_axis(left)
        low, high = self.ends.min(), max(self.ends.max(), self.reported or 0)
        left.set(ylabel=UNITS["accuracy"], ylim=(low - 0.08 * (high - low) - 0.3, high + 0.1 * (high - low) + 0.3))
        small = {"fontsize": 8.5, "color": "0.2"}
        if self.reported is not None:
            left.axhline(self.reported, color="0.3", lw=1, ls="--")
            place = {"xycoords": ("axes fraction", "data"), "va": "bottom"}
            left.annotate(f"report: {self.reported}%", (0.02, self.reported), **place, **small)
        for name, dead in self.dead_from.items():
            if dead is not None:
                left.axvline(self.densities[self.arm, dead], color="0.5", lw=1, ls=":")
                place = {"xycoords": ("data", "axes fraction"), "rotation": 90, "ha": "right", "va": "bottom"}
                text = "first output disconnected" if name == "an output" else f"{name} collapses"
                left.annotate(text, (self.densities[self.arm, dead], 0.03), **place, **small)
        if self.dense is not None:
            right.plot("step", "value", data=self.dense, color="0.6", lw=3)
        step_axis(right)
        right.set(ylabel=UNITS["accuracy"], ylim=(0, 101))
        right.annotate("grey: the dense network", (0.97, 0.05), xycoords="axes fraction", ha="right", **small)

    def png(self, level, curve):
        """The page at a level with its training curve (step and value): bytes."""
        left, right = self.axes
        _, colour, _ = style(self.arm)
        density, accuracy = self.densities[self.arm, level], self.ends[self.arm, level]
        left.plot(density, accuracy, marker="o", ms=15, mfc="none", mec=colour, mew=2.4, clip_on=False)
        put_title(left, f"{full_label(self.arm)}, density {100 * density:.3g}%: accuracy {accuracy:.2f}%")
        right.plot("step", "value", data=curve, color=colour, lw=1.8)
        put_title(right, f"while level {level} trains")
        return self._png()


class Moved(Panel):
    """Starting values against final ones, of what was pruned and of what survived."""

    def __init__(self):
        super().__init__(2, top=0.83, left=0.095, wspace=0.2)

    def _frame(self, *axes):
        for axis in axes:
            axis.plot((-1, 1), (-1, 1), color="0.2", lw=0.8)
            axis.set(xlabel="starting value", xlim=(-0.4, 0.4), ylim=(-0.8, 0.8))
        axes[0].set_ylabel("final value")

    def png(self, dense, this, colour):
        """The page for a network and its dense one: bytes.

        Parameters
        ----------
        dense, own : lthcore.runs.store.Weights
        colour : str
        """
        mask = np.concatenate([m.ravel() for m in this.mask.values()])
        dense, this = (
            [np.concatenate([part[f"{name}.weight"].ravel() for name in this.mask]) for part in (w.start, w.final)]
            for w in (dense, this)
        )
        random = np.random.default_rng(0)  # a few thousand dots show what all of them would
        pruned, kept = (random.permutation(np.flatnonzero(m))[:2500] for m in (~mask, mask))
        self.axes[0].plot(dense[0][pruned], dense[1][pruned], ".", ms=2, color="0.6")
        for axis, (start, final), where in zip(self.axes, (dense, this), ("the dense", "this"), strict=True):
            axis.plot(start[kept], final[kept], ".", ms=2.5, color=colour)
            m = statistics.moved(start[mask], final[mask])
            text = f"{100 * m['same_sign']:.0f}% keep their sign; they move by {m['move']:.2g} (median)"
            put_title(axis, f"in {where} network the {m['survivors']:,} survivors:\n{text}")
        self.axes[0].text(-0.38, 0.75, "grey: pruned by this level", va="top", fontsize=8.5, color="0.2")
        return self._png()


class Answers(Panel):
    """The predictions of networks for a digit."""

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
        label : int or None
            The right answer; None where nobody knows it.
        probabilities : dict of str to (10,) array
            By role.
        """
        left, right = self.axes
        left.imshow(digit, cmap="gray_r", vmin=0, vmax=255, extent=(0, 28, 28, 0), aspect="equal")
        put_title(left, "your digit" if label is None else f"test digit, a {label}")
        if label is not None:
            right.axhspan(label - 0.45, label + 0.45, color="0.5", alpha=0.15, lw=0)
        for column, (role, (name, colour)) in enumerate(ROLES.items()):
            zero, p = 1.45 * column, probabilities.get(role)
            if p is None:
                right.text(zero, -0.8, f"{name}: not here", color="0.5")
                continue
            answer = int(p.argmax())
            right.barh(range(10), p, left=zero, color=colour, height=0.7)
            right.text(zero + p[answer] + 0.03, answer, f"{100 * p[answer]:.0f}%", va="center")
            right_or_unknown = label is None or answer == label
            text, ink = (f"{name}: {answer}", "0.1") if right_or_unknown else (f"{name}: {answer}, wrong", "#B00000")
            right.text(zero, -0.8, text, color=ink, fontsize=11)
        return self._png()


class Compared(Panel):
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
        colours = itertools.cycle(["red", "purple", "orange", "green", "sky", "yellow"])
        for label, (table, arm) in self.lines.items():
            colour = style(arm)[1] if arm else OKABE_ITO[next(colours)]
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
        self.unit = {(u.arm, u.replicate, k): u for u in study.units for k in u.levels}  # one-shot: one a level
        chains = self.frame.groupby(["arm", "replicate"], observed=True)
        self.levels = {key: statistics.levels(rows, key[0]) for key, rows in chains}
        self.ends, self.curves = statistics.at_end(self.frame), statistics.curves(self.frame)
        self.densities = self.frame.groupby(["arm", "level"], observed=True)["density"].first()
        self.panels = lru_cache(self._panels)

    def line(self, arm):
        """An arm's mean final accuracy: frame with density and mean, a row per level."""
        mean = self.ends[arm].groupby("level").mean()
        return mean.to_frame("mean").assign(density=self.densities[arm].loc[mean.index])

    def start(self):
        """What is shown first: (arm, replicate, level), at level L of the ticket."""
        arm, replicate = next(iter(self.units))
        there = self.levels[arm, replicate]
        return arm, replicate, statistics.shown_first(self.frame, arm, self.study.config.tolerance, there)

    def seen(self, arm, replicate, level, digit):
        """The mask, beside a digit: bytes of a png."""
        mask, layers = (
            sweep.mask_at(self.unit[arm, replicate, level], level),
            statistics.layers(self.frame, arm, replicate, level),
        )
        panel, _, dead_from = self.panels(arm, replicate)
        return panel.png(mask, digit, layers, dead_from)

    def stands(self, arm, replicate, level):
        """Accuracy and training curve: bytes of a png."""
        return self.panels(arm, replicate)[1].png(level, self.curves[arm, replicate, level])

    def _panels(self, arm, replicate):
        config = self.units[arm, replicate].config
        dead_from = statistics.deaths(self.frame[self.frame["replicate"] == replicate], arm)
        dense, _ = experiments.rivals(self.study, self.units[arm, replicate], 0)["dense"]
        standing = Standing(
            arm,
            self.ends.xs(replicate, level="replicate"),
            self.densities,
            self.curves.get((dense.arm, replicate, 0)),
            self.study.experiment.reported.get(arm),
            dead_from,
        )
        return MaskView(ARCHITECTURES[config.model].weights, style(arm)[1]), standing, dead_from


def full_label(arm):
    """An arm's label among all arms of its study."""
    known = {arm: label for record in reversed(REGISTRY.values()) for arm, label in record.full_labels.items()}
    return figures.full_label(arm, styles(), known)
