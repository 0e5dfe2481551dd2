"""Is training needed to find a ticket's mask? Pruning before training, and its sanity checks (Frankle et al. 2021).

SNIP, SynFlow and theta0's own magnitudes choose masks of the MLP before any training, final magnitudes after it. Each
mask is trained from theta0 as it is and shuffled within its layers, and with fresh values.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..config import Config
from ..results.later import figures, measures, statistics, verdicts
from ..runs import presets
from ..schedule import ARCHITECTURES
from ..unit import Fresh, MaskOf, RandomLike, Unit
from . import common
from .common import AT
from .mlp import MLP
from .record import Answer, Claim, Experiment

LEVELS = (5, 7, 9, 11)  # 17, 8, 4 and 2% density
BEFORE = {"snip": "snip", "synflow": "synflow", "initial": "initial_magnitude"}  # arm -> criterion
METHODS = {"trained": "magnitude", **BEFORE}
CHECKS = {  # arm -> the same layers' densities at random, and the same mask with fresh values
    "ticket": ("random_mask", "random_reinit"),
    **{arm: (f"{arm}_shuffled", f"{arm}_fresh") for arm in METHODS},
}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The chain of the MLP and its controls, as that study trains them; a chain for each criterion, and its controls.

    A criterion ranks the weights of all layers together, as published, and keeps as many as the ticket does, to within
    one weight. The ticket's own rounds prune every layer at one rate.
    """
    base = replace(presets.as_in("mlp", config), controls=config.controls)
    ticket, *controls = common.ticket_and_controls(base, replicate)
    yield from (ticket, *controls)
    levels = common.levels_of(ticket, LEVELS)
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
    shown = _shown(frame)
    accuracy, present = measures.last_fifth(shown), [a for a in (*CHECKS, "random_mask") if a in set(shown["arm"])]
    sheet.against_density(sheet.axes[0], shown, present, title="last fifth of training", series=accuracy)
    if (near := [accuracy[arm, AT].mean() for arm in present if (arm, AT) in accuracy]) and min(near) > 50:
        sheet.axes[0].set_ylim(min(near) - 4, accuracy.max() + 0.5)
    pairs = [(arm, STYLES[arm][0], "random_mask") for arm in CHECKS]
    sheet.differences(sheet.axes[1], shown, pairs, "minus random masks", series=accuracy)
    return sheet.done(where="lower left")


def fig17b(study, frame):
    """What shuffling a mask within its layers costs, and fresh values under it; and how much of each layer is kept."""
    sheet = figures.Sheet(study, "Figure 17b. Masks shuffled within their layers, and with fresh values", rows=2)
    shown = _shown(frame)
    accuracy = measures.last_fifth(shown)
    titles = "cost of shuffling a mask within its layers", "cost of fresh values under a mask"
    for axis, i, title in zip(sheet.axes, (0, 1), titles, strict=False):
        pairs = [(arm, STYLES[arm][0], checks[i]) for arm, checks in CHECKS.items()]
        sheet.differences(axis, shown, pairs, title, study.config.margin, series=accuracy)
    _layers(sheet, sheet.axes[2], shown)
    pairs = [(CHECKS[arm][0], STYLES[CHECKS[arm][0]][0], "random_mask") for arm in METHODS]
    sheet.differences(sheet.axes[3], shown, pairs, "shuffled masks minus random masks", series=accuracy)
    return sheet.done(legend_on=())


def _shown(frame):
    """The rows at the levels of these masks; the ticket has others."""
    return frame[frame["level"].isin({k for arm in METHODS for k in statistics.levels(frame, arm)})]


def _layers(sheet, axis, frame):
    """The share of each layer's weights that a mask keeps, at the level that is judged or the last one before."""
    import pandas as pd

    level = max((int(k) for k in frame["level"].unique() if k <= AT), default=0)
    axis.set(title=f"density of each layer, level {level}", ylabel="kept weights of the layer (%)", yscale="log")
    shares = kept_of_layers(frame)
    for arm in (arm for arm in CHECKS if arm in set(frame["arm"])):
        found = {layer: statistics.paired(share, arm, level) for layer, share in shares.items()}
        rows = [(arm, level, layer, *figures.mean_and_band(share)) for layer, share in found.items() if len(share)]
        table = pd.DataFrame(rows, columns=["arm", "level", "layer", *figures.BAND])
        label, colour, marker = sheet.style(arm)
        sheet.line(axis, table, "layer", label, colour, "density of each layer", marker=marker, lw=1)
    axis.yaxis.set_major_formatter(lambda y, _: f"{y:g}")
    axis.set_xlabel("layer, from the input")
    if axis.has_data():
        axis.legend(loc="upper left")


def kept_of_layers(frame):
    """Kept weights of each layer, in percent: dict, layer -> Series over (arm, level, replicate)."""
    sizes = {layer: math.prod(shape) for layer, shape in ARCHITECTURES["mlp"].weights.items()}
    return {layer: 100 * statistics.at_end(frame, f"kept:{layer}", "mask") / n for layer, n in sizes.items()}


def in_short(frame):
    """Every mask at the level that is judged: accuracy as it is, shuffled and with fresh values; layers; of text."""
    import pandas as pd

    accuracy, shares, rows = measures.last_fifth(frame), kept_of_layers(frame), []
    for arm, checks in {**CHECKS, "random_mask": ()}.items():
        networks = dict(zip(("as it is", "shuffled", "fresh values"), (arm, *checks), strict=False))
        row = {"mask": STYLES[arm][0]}
        for name, network in networks.items():
            n, *found = statistics.interval(statistics.paired(accuracy, network, AT))
            row[name] = statistics.in_brackets(*found).replace(" ", "\N{NO-BREAK SPACE}") if n else ""
        for layer, share in shares.items():
            found = statistics.paired(share, arm, AT)
            row[f"{layer} kept"] = f"{found.mean():.3g}%" if len(found) else ""
        rows.append(row)
    return pd.DataFrame(rows).set_index("mask").fillna("")


def _measures(frame, pairs, **about):
    """A measure for each pair (label, arm, other) at level `AT`: the arm minus the other, over the last fifth."""
    return [
        verdicts.difference(frame, f"{label}, level {AT}", (arm, AT), (other, AT), **about)
        for label, arm, other in pairs
    ]


def _pairs(arms, others):
    """Pairs of arms that are compared, with both labels: list of (str, str, str)."""
    return [(f"{STYLES[a][0]} - {STYLES[b][0]}", a, b) for a, b in zip(arms, others, strict=True)]


def _over_random(frame, config):
    return _measures(frame, _pairs(BEFORE, ["random_mask"] * len(BEFORE)), above=0)


def _under_trained(frame, config):
    """Magnitude after training minus each mask chosen before; the ticket minus each as well, which is not judged."""
    judged, shown = (_pairs([arm] * len(BEFORE), BEFORE) for arm in ("trained", "ticket"))
    return [*_measures(frame, judged, above=0), *_measures(frame, shown, judged=False)]


def _kept_in_a_check(frame, config, *, check):
    return _measures(frame, _pairs(BEFORE, [CHECKS[arm][check] for arm in BEFORE]), below=config.margin)


def _lost_after_training(frame, config):
    return _measures(frame, _pairs(["trained"] * 2, CHECKS["trained"]), above=0)


def _as_dense(frame, config):
    networks = ("snip", AT), ("snip", 0)
    return [verdicts.difference(frame, f"SNIP - dense, level {AT}", *networks, above=-config.margin)]


# Lee et al. 2019, abstract: "extremely sparse networks with virtually the same accuracy as the reference network on the
# MNIST ... tasks". Frankle et al. 2021, abstract, of SNIP, GraSP, SynFlow and magnitude pruning before training, mainly
# of larger networks on colour images: "Although these methods surpass the trivial baseline of random pruning, they
# remain below the accuracy of magnitude pruning after training"; "unlike pruning after training, randomly shuffling the
# weights these methods prune within each layer or sampling new initial values preserves or improves accuracy". The
# level and the bounds are ours.
_CURVES, _COSTS = "fig17a_at_init", "fig17b_shuffled"
CLAIMS = (
    Claim("init-snip", "on an MLP, SNIP is at most 0.5 pp less accurate than dense (4% density; Lee et al. 2019)",
          "virtually the same accuracy", _CURVES, _as_dense),
    Claim("init-random",
          "on an MLP, SNIP, SynFlow and magnitude before training beat random masks (4%; Frankle et al. 2021)",
          "surpass random pruning", _CURVES, _over_random),
    Claim("init-trained",
          "on an MLP, masks chosen before training stay below magnitude after training (4%; Frankle et al. 2021)",
          "remain below", _CURVES, _under_trained),
    Claim("init-shuffled",
          "on an MLP, shuffling costs masks chosen before training at most 0.5 pp (4%; Frankle et al. 2021)",
          "preserves or improves", _COSTS, partial(_kept_in_a_check, check=0)),
    Claim("init-fresh",
          "on an MLP, fresh values cost masks chosen before training at most 0.5 pp (4%; Frankle et al. 2021)",
          "preserves or improves", _COSTS, partial(_kept_in_a_check, check=1)),
    Claim("init-unlike",
          "on an MLP, shuffling and fresh values both worsen magnitude after training (4%; Frankle et al. 2021)",
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
            "Of the criteria compared here, yes: at the density that is judged, magnitude pruning after training "
            "chooses a better mask than SNIP, SynFlow and magnitude pruning before training.",
            "of these criteria the best one needs trained weights. Whether training or its repeated rounds make the "
            "difference is not judged, nor are other criteria and other densities.",
        ),
        (
            "No: at the density that is judged, at least one mask that is chosen before training is better than the "
            "one that magnitude pruning chooses after it.",
            "on this network a mask better than that of trained weights can be had without training.",
        ),
        (
            "Whether magnitude pruning after training chooses a better mask than all three criteria do before "
            "training is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
