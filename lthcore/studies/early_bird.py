"""How early is a ticket's mask decided? After You et al. (2020), on weights."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..config import Config
from ..results.later import figures, statistics, verdicts
from ..unit import RandomLike, Unit
from .common import SPARED, STYLES
from .record import Answer, Claim, Experiment

LEVELS = (1, 2, 4, 6)  # of which each is reached in one shot


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The mask of an early epoch beside that of the whole training and a random one."""
    for level in [k for k in LEVELS if k <= config.rounds]:
        one_shot = replace(config, levels=(0, level))
        d = config.density(level)
        whole = Unit(one_shot, "whole", replicate)
        yield whole
        yield Unit(replace(one_shot, early_bird=0.1), "early", replicate)
        if level > 1:  # as large a share of what two random masks differ in as 0.1 is at half the weights
            yield Unit(replace(one_shot, early_bird=round(0.4 * d * (1 - d), 4)), "early_strict", replicate)
        if config.controls:
            yield Unit(one_shot, "random_mask", replicate, mask=RandomLike(whole), levels=(level,))


STYLES = {
    "random_mask": STYLES["random_mask"],
    "whole": ("mask of the last epoch", "blue", "o"),
    "early": ("mask of the early epoch, 0.1", "red", "D"),
    "early_strict": ("mask of the early epoch, a fifth of chance", "purple", "v"),
}


def fig10a(study, frame):
    """Distances of the masks of two epochs, as shares of the weights and of the distance of random masks."""
    levels = [k for k in LEVELS if k <= study.config.rounds]
    title = (
        "Figure 10a. In how many weights the masks of two epochs differ; line: early mask (none: not before the last)"
    )
    sheet = figures.Sheet(study, title, rows=2, columns=len(levels), width=3.6, height=3.4)
    for i, level in enumerate(levels):
        square = statistics.mask_distances(frame, level)
        if square.empty:
            continue
        chance = statistics.at_end(frame, f"chance_distance_{level}", "mask").mean()
        for axis, arm, by, text, limit in (
            (sheet.axes[i], "early", 1, "share of the weights", 0.5),
            (sheet.axes[len(levels) + i], "early_strict", chance, "share of what chance gives", 1),
        ):
            end, half = square.index[-1], square.index[1] / 2
            extent = (-half, end + half, end + half, -half)
            picture = axis.imshow(square / by, vmin=0, vmax=limit, cmap="viridis_r", extent=extent)
            axis.grid(False)
            epochs = [statistics.drawn(frame, one, level)[0] for one in (arm, "early")]
            epoch = (epochs[0] if len(epochs[0]) else epochs[1]).median()
            if epoch < end:
                axis.axvline(epoch, color="black", lw=2.4, alpha=0.5)  # seen on yellow as well as on blue
                axis.axvline(epoch, color="white", lw=1.2, ls="--")
            kept = f"{100 * study.config.density(level):.3g}% density"
            axis.set(title=kept, xlabel="epoch", ylabel="epoch")
            sheet.figure.colorbar(picture, ax=axis, shrink=0.8, label=text)
        table = square.rename_axis("first").reset_index().melt("first", var_name="epoch", value_name="distance")
        n = frame["replicate"].nunique()
        sheet.drawn.append(table.assign(panel=f"level {level}", level=level, by_chance=table["distance"] / chance, n=n))
    return sheet.done(shown="mean over replicates")


def fig10b(study, frame):
    """Early masks: accuracy, difference from the last mask, when they are drawn, and how far masks are apart."""
    import numpy as np
    import pandas as pd
    from matplotlib.ticker import NullFormatter

    arms = [arm for arm in ("random_mask", "whole", "early", "early_strict") if arm in set(frame["arm"])]
    title = f"Figure 10b. Early-bird masks of weights, one shot ({study.config.epochs} epochs per level)"
    sheet = figures.Sheet(study, title, rows=2)
    accuracy, gain, when, far = sheet.axes
    sheet.against_density(accuracy, frame, arms, title="accuracy")
    pairs = [(arm, f"{sheet.style(arm)[0]} - last", "whole") for arm in arms if arm.startswith("early")]
    sheet.differences(gain, frame, pairs, "minus the mask of the last epoch", -study.config.margin)
    levels = [k for k in LEVELS if k <= study.config.rounds]
    density = {k: study.config.density(k) for k in levels}
    for arm in [arm for arm in arms if arm.startswith("early")]:
        label, colour, marker = sheet.style(arm)
        there = [(k, epoch) for k in levels if len(epoch := statistics.drawn(frame, arm, k)[0])]
        rows = [(density[k], *figures.mean_and_band(e)) for k, e in there]
        table = pd.DataFrame(rows, columns=["density", *figures.BAND])
        sheet.line(when, table, "density", label, colour, "drawn", marker=marker)
    when.set(ylabel="epoch at which the mask is drawn", title="when", ylim=(0, study.config.epochs * 1.05))
    d = np.geomspace(0.01, 0.99, 99).round(12)  # the last digits are the machine's
    chance = pd.DataFrame({"density": d, "mean": 2 * d * (1 - d), "n": 0})
    sheet.line(far, chance, "density", "", "0.4", "chance", band=False, lw=1)
    far.lines[-1].set_label("two random masks")
    squares = {k: s.to_numpy() for k in levels if len(s := statistics.mask_distances(frame, k))}
    for text, colour, marker, limit in (
        ("any two of the last five epochs, at most", "red", "D", lambda s: s[-5:, -5:].max()),
        ("those of the first and of the last epoch", "blue", "o", lambda s: s[1, -1]),
    ):
        table = pd.DataFrame([(density[k], limit(s), 0) for k, s in squares.items()], columns=["density", "mean", "n"])
        sheet.line(far, table, "density", "", figures.OKABE_ITO[colour], text, band=False, marker=marker)
        far.lines[-1].set_label(text)
    far.axhline(0.1, color="0.5", lw=1, ls=":")
    far.axvline(statistics.loose_below(0.1), color="0.5", lw=1, ls=":")
    far.set(yscale="log", ylabel="share of the weights that differ", title="how far the masks are apart")
    ticks = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
    far.set_yticks(ticks, [f"{y:g}" for y in ticks])
    far.yaxis.set_minor_formatter(NullFormatter())
    for axis in (when, far):
        figures.density_axis(axis)
    return sheet.done(legend_on=(0, 2, 3))


def _saved(frame, arm, level, **bounds):
    what = f"{arm}: training saved, in percent, level {level}"
    at, share = statistics.density_at(frame, arm, level), statistics.drawn(frame, arm, level)[1]
    return verdicts.Measure(what, level, at, share, unit="training saved (%)", **bounds)


def _early_mask(frame, config, *, levels):
    """The early mask is as good as the last one, and was drawn before the last epoch."""
    out = [_saved(frame, "early", k, above=0, fails_below=1e-9) for k in levels]
    for one, k in [("early", k) for k in levels] + [("early_strict", k) for k in levels if k > 1]:
        what, bounds = f"{one} - whole, level {k}", {"above": -config.margin, "judged": one == "early"}
        out.append(verdicts.difference(frame, what, (one, k), ("whole", k), **bounds))
    return out


def _early_when(frame, config):
    more = [(arm, k) for arm in ("early", "early_strict") for k in (2, 4, 6)]
    return [_saved(frame, "early", 1, above=50), *(_saved(frame, *one, judged=False) for one in more)]


def _early_random(frame, config):
    other = "random_mask", 6
    return [
        verdicts.difference(frame, f"{arm} - random mask, level 6", (arm, 6), other, above=0, judged=judged)
        for arm, judged in (("early", True), ("whole", False))
    ]


_DISTANCE = "fig10a_mask_distance"
_WORTH = "fig10b_early_bird"
CLAIMS = (
    Claim("early-bird",
          "within 0.1 an early mask is found, at most 0.5 pp worse than the last one (50 and 25% density)",
          "comparable or even better", _WORTH, partial(_early_mask, levels=(1, 2))),
    Claim("early-bird-when", "five masks agree within 0.1 before half of the training is over (50% density)",
          "very early", _DISTANCE, _early_when),
    Claim("early-bird-sparse", "the early mask is at most 0.5 pp worse where 0.1 says nothing (1.9% density)",
          "nothing", _WORTH, partial(_early_mask, levels=(6,))),
    Claim("early-bird-random", "the early mask is better than a random one (1.9% density)", "nothing", _WORTH,
          _early_random),
)  # fmt: skip

EARLY_BIRD = Experiment(
    name="early_bird",
    title="Masks of early epochs",
    group="extended",
    notebook="10_early_bird",
    settings={**SPARED, "epochs": 40, "rounds": 6},
    presets={
        "report": {"replicates": 8},
        "quick": {"replicates": 1, "controls": 1, "epochs": 6},  # of which the last five must agree
        "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)},
    },
    exploratory=3,
    by_margin=True,
    arms=arms,
    styles=STYLES,
    figures={_DISTANCE: fig10a, _WORTH: fig10b},
    claims=CLAIMS,
    answer=Answer(
        "early-bird",
        (
            "Early: the published rule finds a mask that is as good as that of the whole training.",
            "much of the first training can be saved.",
        ),
        (
            "Later than published: at one of the densities the published rule saves nothing, or finds a worse mask.",
            "when a mask settles and what it is worth are two questions; the claims about sparse masks answer the "
            "second.",
        ),
        (
            "Whether the published rule finds a mask early that is as good is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
