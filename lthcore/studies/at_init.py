"""Is training needed to find a ticket's mask? Pruning before training, and its sanity checks (Frankle et al. 2021).

SNIP, SynFlow and theta0's own magnitudes choose masks of the MLP before any training, final magnitudes after it. Each
mask is trained from theta0 as it is and shuffled within its layers, and with fresh values.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..config import Config
from ..results.later import figures, measures, statistics, verdicts
from ..runs import presets
from ..schedule import ARCHITECTURES
from ..unit import Fresh, MaskOf, RandomLike, Unit
from . import common
from .mlp import MLP
from .record import Answer, Claim, Experiment

LEVELS = (5, 7, 9, 11)  # 17, 8, 4 and 2% density
AT = 9  # the ticket's last level in the rules on the MLP
BEFORE = {"snip": "snip", "synflow": "synflow", "initial": "initial_magnitude"}  # arm -> criterion
METHODS = {"trained": "magnitude", **BEFORE}
CHECKS = {  # arm -> the same layers' densities at random, and the same mask with fresh values
    "ticket": ("random_mask", "random_reinit"),
    **{arm: (f"{arm}_shuffled", f"{arm}_fresh") for arm in METHODS},
}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The chain of the MLP and its controls, as that study trains them; a chain for each criterion, and its controls.

    A criterion ranks the weights of all layers together, as published, and leaves as many in all as the ticket has.
    The ticket's own rounds prune every layer at one rate.
    """
    base = replace(presets.as_in("mlp", config), controls=config.controls)
    ticket, *controls = common.ticket_and_controls(base, replicate)
    yield from (ticket, *controls)
    levels = tuple(k for k in LEVELS if k in ticket.levels) or ticket.levels[1:]
    for arm, criterion in METHODS.items():
        chosen = replace(config, criterion=criterion, scope="global", levels=(0, *levels))
        chain = Unit(chosen, arm, replicate)
        yield chain
        if config.controls and levels:
            shuffled, fresh = CHECKS[arm]
            yield Unit(chosen, shuffled, replicate, mask=RandomLike(chain), levels=levels)
            yield Unit(chosen, fresh, replicate, mask=MaskOf(chain), start=Fresh(), levels=levels)


NAMES = {
    "trained": "magnitude after training",
    "snip": "SNIP",
    "synflow": "SynFlow",
    "initial": "magnitude before training",
}
STYLES = {
    **{arm: common.STYLES[arm] for arm in ("ticket", "random_reinit", "random_mask")},
    "trained": (NAMES["trained"], "black", "P"),
    "snip": (NAMES["snip"], "red", "D"),
    "synflow": (NAMES["synflow"], "purple", "s"),
    "initial": (NAMES["initial"], "sky", "v"),
}
STYLES |= {f"{arm}_shuffled": (f"{NAMES[arm]}, shuffled", *STYLES[arm][1:]) for arm in METHODS}
STYLES |= {f"{arm}_fresh": (f"{NAMES[arm]}, fresh values", *STYLES[arm][1:]) for arm in METHODS}


def fig17a(study, frame):
    """Test accuracy of masks that are chosen before and after training, and minus that of random masks."""
    sheet = figures.Sheet(study, "Figure 17a. Masks chosen before and after training")
    accuracy, there = measures.last_fifth(frame), set(frame["arm"])
    present = [arm for arm in (*CHECKS, "random_mask") if arm in there]
    shown = frame[frame["level"].isin([0, *_levels(frame)])]
    series = accuracy[accuracy.index.get_level_values("level").isin(shown["level"])]
    sheet.against_density(sheet.axes[0], shown, present, title="last fifth of training", series=series)
    if (near := [series[arm, AT].mean() for arm in present if (arm, AT) in series]) and min(near) > 50:
        sheet.axes[0].set_ylim(min(near) - 4, series.max() + 0.5)
    pairs = [(arm, STYLES[arm][0], "random_mask") for arm in CHECKS]
    sheet.differences(sheet.axes[1], shown, pairs, "minus random masks", series=series)
    return sheet.done(where="lower left")


def fig17b(study, frame):
    """What shuffling a mask within its layers costs, and fresh values under it; and how much of each layer is kept."""
    sheet = figures.Sheet(study, "Figure 17b. Which weights a method keeps, or only how many of each layer?", rows=2)
    accuracy, shown = measures.last_fifth(frame), frame[frame["level"].isin([0, *_levels(frame)])]
    titles = "cost of shuffling a mask within its layers", "cost of fresh values under a mask"
    for axis, i, title in zip(sheet.axes, (0, 1), titles, strict=False):
        pairs = [(arm, STYLES[arm][0], checks[i]) for arm, checks in CHECKS.items()]
        sheet.differences(axis, shown, pairs, title, study.config.margin, series=accuracy)
    _layers(sheet, sheet.axes[2], frame)
    pairs = [(CHECKS[arm][0], f"layers of {NAMES[arm]}", "random_mask") for arm in METHODS]
    sheet.differences(sheet.axes[3], shown, pairs, "shuffled masks minus random masks", series=accuracy)
    return sheet.done(legend_on=())


def _levels(frame):
    """Levels that these masks have: list of int."""
    return sorted({k for arm in METHODS for k in statistics.levels(frame, arm)})


def _layers(sheet, axis, frame):
    """The share of each layer's weights that a mask keeps, at the level that is judged or the last one before."""
    import pandas as pd

    level = max((k for k in _levels(frame) if k <= AT), default=0)
    axis.set(title=f"density of each layer, level {level}", ylabel="kept weights of the layer (%)", yscale="log")
    for arm in (arm for arm in CHECKS if arm in set(frame["arm"])):
        rows = []
        for layer, shape in ARCHITECTURES["mlp"].weights.items():
            kept = statistics.paired(statistics.at_end(frame, f"kept:{layer}", "mask"), arm, level)
            if len(kept):
                rows.append((arm, level, layer, *figures.mean_and_band(100 * kept / (shape[0] * shape[1]))))
        table = pd.DataFrame(rows, columns=["arm", "level", "layer", *figures.BAND])
        label, colour, marker = sheet.style(arm)
        sheet.line(axis, table, "layer", label, colour, "density of each layer", marker=marker, lw=1)
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axis.set_xlabel("layer, from the input")
    if axis.has_data():
        axis.legend(loc="upper left")


def _measures(frame, pairs, **about):
    """A measure for each pair (label, arm, other) at level `AT`: the arm minus the other, over the last fifth."""
    accuracy, found = measures.last_fifth(frame), []
    for label, arm, other in pairs:
        networks = (arm, AT), (other, AT)
        values, density = statistics.paired(accuracy, arm, AT, other, AT), statistics.density_at(frame, arm, AT)
        found.append(verdicts.Measure(f"{label}, level {AT}", AT, density, values, networks=networks, **about))
    return found


def _over_random(frame, config):
    return _measures(frame, [(f"{NAMES[arm]} - random mask", arm, "random_mask") for arm in BEFORE], above=0)


def _under_trained(frame, config):
    """Magnitude after training minus each; the ticket minus each as well, which is part of no verdict."""
    judged, shown = (
        [(f"{label} - {NAMES[arm]}", better, arm) for arm in BEFORE]
        for better, label in (("trained", NAMES["trained"]), ("ticket", "ticket"))
    )
    return [*_measures(frame, judged, above=0), *_measures(frame, shown, judged=False)]


def _cost(arms, checks=(0, 1)):
    """What the checks cost these arms, as pairs."""
    names = "shuffled", "fresh values"
    return [(f"{NAMES[arm]}: itself - {names[i]}", arm, CHECKS[arm][i]) for i in checks for arm in arms]


def _kept_in_a_check(frame, config, *, check):
    return _measures(frame, _cost(BEFORE, [check]), below=config.margin)


def _lost_after_training(frame, config):
    return _measures(frame, _cost(["trained"]), above=0)


def _as_dense(frame, config):
    accuracy, density = measures.last_fifth(frame), statistics.density_at(frame, "snip", AT)
    values = statistics.paired(accuracy, "snip", AT, "snip", 0)
    about = {"networks": (("snip", AT), ("snip", 0)), "above": -config.margin}
    return [verdicts.Measure(f"SNIP - dense, level {AT}", AT, density, values, **about)]


# Lee et al. 2019, abstract: "extremely sparse networks with virtually the same accuracy as the reference network on the
# MNIST ... tasks". Frankle et al. 2021, abstract, of SNIP, GraSP, SynFlow and magnitude pruning before training, on
# larger networks and colour images: "Although these methods surpass the trivial baseline of random pruning, they remain
# below the accuracy of magnitude pruning after training"; "unlike pruning after training, randomly shuffling the
# weights these methods prune within each layer or sampling new initial values preserves or improves accuracy". The
# level and the bounds are ours.
_CURVES, _COSTS = "fig17a_at_init", "fig17b_shuffled"
CLAIMS = (
    Claim("init-snip", "SNIP is at most 0.5 pp less accurate than dense (4% density; Lee et al. 2019)",
          "virtually the same accuracy", _CURVES, _as_dense),
    Claim("init-random", "on an MLP, SNIP, SynFlow and initial magnitude beat random masks (4%; Frankle et al. 2021)",
          "surpass random pruning", _CURVES, _over_random),
    Claim("init-trained", "on an MLP, they stay below magnitude pruning after training (4%; Frankle et al. 2021)",
          "remain below", _CURVES, _under_trained),
    Claim("init-shuffled", "on an MLP, shuffling their masks within layers costs at most 0.5 pp (4%; Frankle et al.)",
          "preserves or improves", _COSTS, partial(_kept_in_a_check, check=0)),
    Claim("init-fresh", "on an MLP, fresh values under their masks cost at most 0.5 pp (4%; Frankle et al. 2021)",
          "preserves or improves", _COSTS, partial(_kept_in_a_check, check=1)),
    Claim("init-unlike", "on an MLP, after training both cost accuracy (4%; Frankle et al. 2021)",
          "unlike pruning after training", _COSTS, _lost_after_training),
)  # fmt: skip

AT_INIT = Experiment(
    name="at_init",
    title="Is training needed to find a ticket's mask?",
    group="extended",
    notebook="17_is_training_needed",
    settings=MLP.settings,
    presets={"report": {"replicates": 5, "controls": 2}, "smoke": MLP.presets["smoke"]},
    fixed=("model",),
    first=5,
    by_margin=True,
    arms=arms,
    styles=STYLES,
    figures={_CURVES: fig17a, _COSTS: fig17b},
    claims=CLAIMS,
    answer=Answer(
        "init-trained",
        (
            "Yes: at the density that is judged, magnitude pruning after training chooses a better mask than SNIP, "
            "SynFlow and magnitude pruning before it.",
            "of the criteria compared here, the best one needs trained weights. Other criteria may do better before "
            "training, and other densities are not judged.",
        ),
        (
            "No: at the density that is judged, a mask that is chosen before training is at least as good as one that "
            "magnitude pruning chooses after it.",
            "on this network a mask as good as that of trained weights can be had without training.",
        ),
        (
            "Whether magnitude pruning after training chooses a better mask than all three criteria before it is not "
            "resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
