"""Do two runs find the same mask? How far masks overlap beyond chance, between replicates and between tasks.

Its units are chains of the report's experiments and of notebook 09, whose masks the archive has, and one more: Task 1's
again, with the same initial weights and images in another order of the batches.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

from ..config import Config
from ..results.later import figures, statistics
from ..runs import presets
from ..unit import Unit
from . import mlp, task1, task2, task3, transfer
from .record import Experiment

OF = {  # experiment -> its chains whose masks are compared
    "mlp": (mlp.arms, ("ticket",)),
    "task1": (task1.arms, ("t1_on_s1", "t2_on_s2")),
    "task2": (task2.arms, ("t1_on_s1_spared", "t2_on_s2_spared")),
    "task3": (task3.arms, ("adam", "sgd", "momentum")),
    "transfer": (transfer.arms, ("mnist", "fashion")),
}
FEW = {"transfer"}  # compared in no more replicates than they have in their own study
REORDERED = "t1_on_s1_reordered"
ORDER = "order of the batches alone (Task 1)"
HALVES, OTHER_HALF = "different theta0 and half (Task 1)", "halves of the data (Task 1)"
UNTRAINED = "T1 and theta0's largest weights"
DIFFERENT_THETA0 = {  # what differs -> two chains, or twice the same, compared between replicates
    "different theta0 (ticket of 01)": ("ticket", "ticket"),
    "different theta0 (Task 3, Adam)": ("adam", "adam"),
    HALVES: ("t1_on_s1", "t2_on_s2"),
}
SAME_THETA0 = {  # what differs -> two chains of one replicate; None: the mask that theta0 gives without training
    ORDER: ("t1_on_s1", REORDERED),
    OTHER_HALF: ("t1_on_s1", "t2_on_s2"),
    "digits 0-4 and 5-9 (Task 2)": ("t1_on_s1_spared", "t2_on_s2_spared"),
    "MNIST and Fashion-MNIST (09)": ("mnist", "fashion"),
    "Adam and SGD with momentum (Task 3)": ("adam", "momentum"),
    "Adam and plain SGD (Task 3)": ("adam", "sgd"),
    UNTRAINED: ("t1_on_s1", None),
}
NAMES = (*DIFFERENT_THETA0, *SAME_THETA0)
COLOURS = ("black", "sky", "yellow", "0.5", "blue", "red", "saddlebrown", "green", "purple", "orange")
COLOURS = dict(zip(NAMES, COLOURS, strict=True))
AT = 0.125  # density at which layers and pixels are shown, or the next below
NEAR = 1.05  # times as dense is as good: 09 has a level at 12.8%
LEAST = 0.015  # density below which the networks have lost outputs, and their masks say little
GROUPS, IN_A_GROUP = 100, 100  # groups of a layer's weights by their size in theta0, at most, and weights in each
BASELINES = ("chance", "by_pixel", "by_size", "by_both")  # what masks are compared with that are random but for that
IN_A_PIXEL = 10  # groups of the weights of one pixel by their size


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Chains of the report's experiments on the MLP and of 09, as these train them by the same settings; one twice."""
    for experiment, (of_experiment, names) in OF.items():
        scale = presets.as_in(experiment, config)
        if experiment in FEW and replicate >= scale.replicates:
            continue
        for unit in of_experiment(scale, replicate):
            if unit.arm not in names:
                continue
            yield unit
            if unit.arm == "t1_on_s1":
                yield replace(unit, arm=REORDERED, config=replace(unit.config, batch_order=scale.batch_order + 1))


class Overlap(NamedTuple):
    """Weights that two masks both keep, as a share of the average number kept, and its expectation by chance."""

    share: float
    chance: float

    @property
    def beyond(self) -> float:
        """0 for random masks, 1 for equal ones, NaN where everything is kept: (share - chance) / (1 - chance)."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else float("nan")


def counted(one: dict, other: dict, groups: dict | None = None) -> dict:
    """How far two masks overlap, by layer, and under ``"all"`` for the weights of all layers: dict of :class:`Overlap`.

    Parameters
    ----------
    one, other : dict of str to bool array
        Masks of one network, by layer.
    groups : dict of str to int array, optional
        For every weight its group, from 0 on: chance is then that of masks that are random within each group, and keep
        as many weights of it.
    """
    return _counted(one, other, *(_in_groups(mask, groups) for mask in (one, other)), _in_groups(one, groups, True))


def _in_groups(mask, groups=None, every=False):
    """How many weights a mask keeps, or how many there are, in each group of a layer: dict of array."""
    import numpy as np

    if groups is None:
        return {name: np.array([m.size if every else m.sum()]) for name, m in mask.items()}
    chosen = {name: groups[name].ravel() if every else groups[name][m] for name, m in mask.items()}
    return {name: np.bincount(part, minlength=1 + groups[name].max()) for name, part in chosen.items()}


def _counted(one, other, kept, others, size):
    import numpy as np

    rows = {}
    for name, mask in one.items():
        expected = np.sum(kept[name] * others[name] / np.maximum(size[name], 1))
        rows[name] = (mask & other[name]).sum(), expected, (kept[name].sum() + others[name].sum()) / 2
    rows["all"] = np.sum(list(rows.values()), axis=0)
    return {name: Overlap(both / kept, by_chance / kept) for name, (both, by_chance, kept) in rows.items() if kept}


def jackknife(matrix):
    """Mean over pairs of replicates and its 95% interval by the delete-one jackknife: n, mean, low, high.

    Parameters
    ----------
    matrix : (n, n) array
        A value per pair of different replicates, in either order. Its diagonal is not read.
    """
    import numpy as np
    from scipy.special import stdtrit

    matrix = np.asarray(matrix, float)
    n = len(matrix)
    pairs = ~np.eye(n, dtype=bool)
    mean = float(matrix[pairs].mean()) if n > 1 else float("nan")
    if n < 3:
        return n, mean, float("nan"), float("nan")
    without = []
    for r in range(n):
        pairs = ~np.eye(n, dtype=bool)
        pairs[r] = pairs[:, r] = False
        without.append(matrix[pairs].mean())
    spread = np.sqrt((n - 1) / n * np.sum((np.array(without) - np.mean(without)) ** 2))
    half = stdtrit(n - 1, 0.975) * spread
    return n, mean, mean - half, mean + half


@lru_cache(maxsize=2)
def _masks(study, finished):
    """The masks of a study's chains at every level from 1 on that is there: dict, (arm, level) -> {replicate: mask}.

    Under the arm None those that theta0 gives without training, at the levels of Task 1.
    """
    from ..probes import collapse
    from ..runs import store, sweep

    found = {}
    for unit in study.units:
        for level in unit.levels[1:]:
            if store.find_level(*unit.needs(level)):
                found.setdefault((unit.arm, level), {})[unit.replicate] = sweep.mask_at(unit, level)
        for level, mask in enumerate(collapse.untrained(unit)) if unit.arm == SAME_THETA0[UNTRAINED][0] else ():
            found.setdefault((None, level), {})[unit.replicate] = {name: m.numpy() for name, m in mask.items()}
    return found


def grouped(study):
    """The group of every weight, by its pixel, its size in theta0, and both: three dicts, replicate -> {layer: array}.

    A pixel is an input of the first layer. The other layers have none: there "pixel" is one group, and both is size.
    """
    import numpy as np

    from .. import lottery

    by_size, by_pixel, by_both = {}, {}, {}
    for unit in study.units:
        if unit.replicate in by_size:
            continue
        theta0 = {k: v.abs().numpy() for k, v in lottery.drawn(unit, "theta0").items() if k.endswith(".weight")}
        parts = by_size[unit.replicate], by_pixel[unit.replicate], by_both[unit.replicate] = {}, {}, {}
        for name, values in theta0.items():
            layer = name.removesuffix(".weight")
            size, pixel, both = _ranked(values.ravel(), GROUPS).reshape(values.shape), np.zeros(values.shape, int), None
            if layer == next(iter(theta0)).removesuffix(".weight"):
                pixel = np.broadcast_to(np.arange(values.shape[1]), values.shape)
                both = pixel * IN_A_PIXEL + np.apply_along_axis(_ranked, 0, values, IN_A_PIXEL, 1)
            for part, groups in zip(parts, (size, pixel, size if both is None else both), strict=True):
                part[layer] = groups
    return by_pixel, by_size, by_both


def _ranked(values, groups, least=IN_A_GROUP):
    """Groups of equal numbers of values, at most so many, by their order: array of int, from 0 on."""
    count = max(1, min(groups, len(values) // least))
    return values.argsort(kind="stable").argsort(kind="stable") * count // len(values)


def overlaps(results):
    """How far masks overlap, by what differs, level and layer.

    Parameters
    ----------
    results : Results
        Of :func:`lthcore.studies.experiments.load`.

    Returns
    -------
    DataFrame
        Columns differs, level, density, layer (or ``all``), n (replicates), overlap, chance, by_pixel, by_size,
        by_both; mean, low, high of what is beyond chance; and rest, rest_low, rest_high of what is beyond `by_both`,
        where theta0 is shared, or beyond `by_pixel`. Intervals are 95%: over replicates where theta0 is shared, else by
        the jackknife. `by_pixel`, `by_size` and `by_both` are the chances of masks that are random among the weights of
        a pixel, among those of similar size in theta0, and among those of similar size and the same pixel.
    """
    return _overlaps(results.study, len(results.frame))  # again, where more is finished


@lru_cache(maxsize=2)
def _overlaps(study, finished):
    import numpy as np
    import pandas as pd

    known, rows = _masks(study, finished), []
    baselines = {"chance": None, **dict(zip(BASELINES[1:], grouped(study), strict=True))}
    density = {(unit.arm, k): unit.config.density(k) for unit in study.units for k in unit.levels}

    @cache
    def kept(arm, level, replicate, baseline, every=False):
        groups = baselines[baseline] and baselines[baseline][replicate]
        return _in_groups(known[arm, level][replicate], groups, every)

    for label, (one, other) in (DIFFERENT_THETA0 | SAME_THETA0).items():
        shared = label in SAME_THETA0
        names = BASELINES if shared and other else BASELINES[:2]  # sizes in theta0 are compared where it is shared
        for level in sorted(k for arm, k in known if arm == one and (other, k) in known):
            first, second = known[one, level], known[other, level]
            seen = sorted(set(first) & set(second))
            pairs = [(r, s) for r in seen for s in seen if (r == s) == shared and (shared or one != other or r < s)]
            each = {}  # baseline -> pair -> by layer
            for name in names:
                each[name] = {
                    (r, s): _counted(
                        first[r], second[s], kept(one, level, r, name), kept(other, level, s, name),
                        kept(one, level, r, name, every=True),
                    ) for r, s in pairs
                }  # fmt: skip
            for layer in next(iter(each["chance"].values()), {}):
                n, *beyond = _beyond(each["chance"], layer, seen, shared)
                _, *rest = _beyond(each[names[-1]], layer, seen, shared)
                share = np.mean([found[layer].share for found in each["chance"].values()])
                chances = [np.mean([f[layer].chance for f in each[name].values()]) if name in each else np.nan
                           for name in BASELINES]  # fmt: skip
                rows.append((label, level, density[one, level], layer, n, share, *chances, *beyond, *rest))
    names = ["differs", "level", "density", "layer", "n", "overlap", *BASELINES]
    return pd.DataFrame(rows, columns=[*names, "mean", "low", "high", "rest", "rest_low", "rest_high"])


def _beyond(each, layer, seen, shared):
    """What is beyond a baseline in a layer: n, mean, low, high; over replicates, else by the jackknife."""
    values = {pair: found[layer].beyond for pair, found in each.items()}
    if shared:
        return statistics.interval(list(values.values()))
    matrix = [[values.get((r, s), values.get((s, r), 0.0)) for s in seen] for r in seen]
    return jackknife(matrix)


def at(results, density: float = AT):
    """The rows of :func:`overlaps` for all layers together, at a density or the next below: DataFrame."""
    table = _near(overlaps(results), density)
    return table[table["layer"] == "all"].set_index("differs").drop(columns="layer")


def shown(results):
    """The same for reading: intervals in one cell, empty where there is no number: DataFrame of text."""
    import pandas as pd

    table, text = at(results), lambda x: f"{x:.3f}" if x == x else ""
    out = {name: table[name].map(text) for name in ("density", "overlap", *BASELINES)}
    for name, ends in {"beyond chance": ("mean", "low", "high"), "rest": ("rest", "rest_low", "rest_high")}.items():
        mean, low, high = (table[end].map(text) for end in ends)
        out[name] = mean + (" [" + low + ", " + high + "]").where(low != "", "")
    return pd.DataFrame(out)


def _near(table, density=AT):
    """The rows at a density or the next below, of each that differs; at the last level where none is so sparse."""
    sparse = table["density"] <= density * NEAR
    first = table[sparse].groupby("differs")["level"].min()
    level = table.groupby("differs")["level"].max()
    level.update(first)
    return table[table["level"] == table["differs"].map(level)]


def found(results):
    """The numbers of :func:`at` in a few sentences: str."""
    table = at(results)
    if not {OTHER_HALF, HALVES, UNTRAINED} <= set(table.index):
        return "Nothing is concluded before the chains of Task 1 are finished."
    half, unrelated = table.loc[OTHER_HALF], table.loc[HALVES]
    verdict = "No, most kept weights differ" if half["overlap"] < 0.5 else "Most kept weights are the same"
    share, both, chance = (f"{100 * half[name]:.1f}%" for name in ("overlap", "by_both", "chance"))
    other, pixels = (f"{100 * unrelated[name]:.1f}%" for name in ("overlap", "by_pixel"))
    again = ""
    if ORDER in table.index:
        share_again = f"{100 * table.loc[ORDER, 'overlap']:.1f}%"
        again = f" Masks found on the same half, with the batches in another order, share {share_again}."
    largest = f"{100 * table.loc[UNTRAINED, 'overlap']:.1f}%"
    return (
        f"{verdict}. At {100 * AT:g}% density, masks found on two halves of the data from the same theta0 share "
        f"{share} of their weights; masks that are random among weights of the same pixel and of similar size in "
        f"theta0 would share {both}, fully random ones {chance}.{again} With the weights that are largest in theta0 a "
        f"mask of Task 1 shares {largest}. From different theta0s masks share {other}; masks that are random within "
        f"each pixel would share {pixels}."
    )


def _colour(label):
    return figures.OKABE_ITO.get(COLOURS[label], COLOURS[label])  # ten are more than that palette has


def fig13a(study, frame):
    """How far masks overlap beyond chance against density: between replicates, and within one that shares theta0."""
    sheet = figures.Sheet(study, "Figure 13a. Do two runs find the same mask? Overlap beyond that of random masks")
    table = _overlaps(study, len(frame))
    every = table[(table["layer"] == "all") & (table["density"] >= LEAST)]
    for axis, labels, title in (
        (sheet.axes[0], DIFFERENT_THETA0, "different theta0"),
        (sheet.axes[1], SAME_THETA0, "same theta0"),
    ):
        for label in labels:
            found = every[every["differs"] == label].sort_values("density")
            colour, dashes = _colour(label), {UNTRAINED: "--", ORDER: ":"}.get(label, "-")
            sheet.line(axis, found, "density", label, colour, title, marker="o", ms=4, ls=dashes)
        axis.axhline(0, color="0.4", lw=1, ls=":")
        place = {"xycoords": ("axes fraction", "data"), "va": "top", "ha": "right"}
        axis.annotate("as random masks", (0.99, -0.005), **place, **figures.SMALL)
        if len(every):
            figures.density_axis(axis)
        top = 2 * every["high"].max() if every["high"].notna().any() else 1
        axis.set(title=title, ylabel="overlap beyond chance (1: equal)", ylim=(-0.03, top))
    intervals = "lines: mean, bands: 95% interval over replicates (left: jackknife over pairs of them)"
    return sheet.done(legend_on=(0, 1), where="upper right", shown=intervals)


def fig13b(study, frame):
    """At about an eighth of the weights: the overlap against four baselines, and by layer."""
    sheet = figures.Sheet(study, f"Figure 13b. Overlap of masks at about {100 * AT:g}% density")
    table = _near(_overlaps(study, len(frame)))
    table = table[table["mean"].notna()]
    baselines, by_layer = sheet.axes
    marks = {"chance": ("o", "white"), "by_pixel": ("s", "white"), "by_size": ("D", "0.6"), "by_both": ("^", "0.6"),
             "overlap": ("o", None)}  # fmt: skip
    meaning = {
        "chance": "random", "by_pixel": "random within pixels", "by_size": "random among similar sizes in theta0",
        "by_both": "random within both", "overlap": "the two masks",
    }  # fmt: skip
    widest = 1.1 * 100 * table.loc[table["layer"] == "all", "overlap"].max()
    for y, name in enumerate(NAMES):
        row = table[(table["differs"] == name) & (table["layer"] == "all")]
        for what, (marker, face) in marks.items():
            colour = _colour(name)
            label = meaning[what] if not y else None
            baselines.plot(100 * row[what], [y] * len(row), marker, color=colour, mfc=face or colour, label=label)
        sheet.drawn.append(row.assign(panel="baselines"))
    baselines.set(
        title="all layers, against four baselines",
        xlabel="shared, of the weights kept (%)",
        xlim=(0, widest if widest > 45 else 45),
    )
    baselines.set(ylim=(len(NAMES) + 5.5, -0.5))
    baselines.set_yticks(range(len(NAMES)), NAMES)
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "all"]
    for place, name in enumerate(NAMES):
        colour, rows = _colour(name), table[(table["differs"] == name) & (table["layer"] != "all")]
        for row in rows.to_dict("records"):
            y = layers.index(row["layer"]) + 0.1 * (place - (len(NAMES) - 1) / 2)
            by_layer.plot([row["low"], row["high"]], [y, y], color=colour, lw=2)
            by_layer.plot(row["mean"], y, "o", ms=4, color=colour)
        sheet.drawn.append(rows.assign(panel="by layer"))
    by_layer.axvline(0, color="0.4", lw=1, ls=":")
    by_layer.set(title="beyond chance, by layer (colours as on the left)", xlabel="overlap beyond chance (1: equal)")
    by_layer.set_yticks(range(len(layers)), layers)
    by_layer.invert_yaxis()
    return sheet.done(where="lower right", shown="means; lines: 95% interval over replicates")


def fig13c(study, frame):
    """How many weights of each pixel the first layer keeps, in two halves of the data and in two sets of digits."""
    import numpy as np
    import pandas as pd

    sheet = figures.Sheet(
        study, f"Figure 13c. Pixels that the first layer still reads, at about {100 * AT:g}% density", rows=2
    )
    chains = {
        "t1_on_s1": "Task 1, mask found on half S1", "t2_on_s2": "Task 1, mask found on half S2",
        "t1_on_s1_spared": "Task 2, mask found on the digits 0-4",
        "t2_on_s2_spared": "Task 2, mask found on the digits 5-9",
    }  # fmt: skip
    known = _masks(study, len(frame))
    for axis, (arm, title) in zip(sheet.axes, chains.items(), strict=True):
        axis.set(title=title, xticks=[], yticks=[])
        there = {k for a, k in known if a == arm}
        if not there:
            axis.set_axis_off()
            continue
        below = {k for u in study.units if u.arm == arm for k in u.levels if u.config.density(k) <= AT * NEAR}
        level = min(there & below, default=max(there))
        kept = [mask["fc1"].mean(0) for mask in known[arm, level].values()]
        share = 100 * np.mean(kept, axis=0)
        image = axis.imshow(share.reshape(28, 28), cmap="viridis", vmin=0, vmax=30)
        axis.grid(False)
        sheet.figure.colorbar(image, ax=axis, label="kept weights of the pixel (%)", shrink=0.85)
        rows = pd.DataFrame({"pixel": range(784), "share": share})
        sheet.drawn.append(rows.assign(panel=title, arm=arm, level=level, n=len(kept)))
    return sheet.done(legend_on=(), shown="mean over replicates")


STYLES = {
    **{arm: style for arm, style in mlp.STYLES.items() if arm == "ticket"},
    **{arm: style for arm, style in task1.STYLES.items() if arm in OF["task1"][1]},
    REORDERED: ("T1 on S1, other batch order", "sky", "o"),
    **{arm: style for arm, style in task3.STYLES.items() if arm in OF["task3"][1]},
    **{arm: style for arm, style in transfer.STYLES.items() if arm in OF["transfer"][1]},
}

OVERLAP = Experiment(
    name="overlap",
    title="Do two runs find the same mask?",
    group="extended",
    notebook="13_mask_overlap",
    settings={"model": "mlp"},
    presets={"report": {"replicates": 10}},
    fixed=("model",),
    arms=arms,
    styles=STYLES,
    full_labels={
        **{arm: f"Task 1: {STYLES[arm][0]}" for arm in ("t1_on_s1", REORDERED, "t2_on_s2")},
        "t1_on_s1_spared": "Task 2: T1 on 0-4, output layer unpruned",
        "t2_on_s2_spared": "Task 2: T2 on 5-9, output layer unpruned",
        **{arm: f"Task 3: {STYLES[arm][0]}" for arm in OF["task3"][1]},
        **{arm: f"09: {transfer.FULL_LABELS[arm]}, output layer unpruned" for arm in OF["transfer"][1]},
    },
    figures={"fig13a_overlap": fig13a, "fig13b_overlap_baselines": fig13b, "fig13c_pixels": fig13c},
)
