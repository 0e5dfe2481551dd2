"""Do two runs find the same mask? How far masks overlap beyond chance, between replicates and between tasks.

Nothing is trained for it: its units are chains of the report's experiments, whose masks the archive has.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..config import Config
from ..results.later import figures, statistics
from ..runs import presets
from ..unit import Unit
from . import mlp, task1, task2, task3
from .record import Experiment

OF = {  # experiment -> its chains whose masks are compared
    "mlp": (mlp.arms, ("ticket",)),
    "task1": (task1.arms, ("t1_on_s1", "t2_on_s2")),
    "task2": (task2.arms, ("t1_on_s1_spared", "t2_on_s2_spared")),
    "task3": (task3.arms, ("adam", "sgd", "momentum")),
}
HALVES, OTHER_HALF = "different theta0 and half (Task 1)", "halves of the data (Task 1)"
UNTRAINED = "T1 and theta0's largest weights"
DIFFERENT_THETA0 = {  # what differs -> two chains, or twice the same, compared between replicates
    "different theta0 (MLP)": ("ticket", "ticket"),
    "different theta0 (Task 3, Adam)": ("adam", "adam"),
    HALVES: ("t1_on_s1", "t2_on_s2"),
}
SAME_THETA0 = {  # what differs -> two chains of one replicate; None: the mask that theta0 gives without training
    OTHER_HALF: ("t1_on_s1", "t2_on_s2"),
    "digits 0-4 and 5-9 (Task 2)": ("t1_on_s1_spared", "t2_on_s2_spared"),
    "Adam and SGD with momentum (Task 3)": ("adam", "momentum"),
    "Adam and plain SGD (Task 3)": ("adam", "sgd"),
    UNTRAINED: ("t1_on_s1", None),
}
NAMES = (*DIFFERENT_THETA0, *SAME_THETA0)
COLOURS = dict(zip(NAMES, ("black", "sky", "yellow", "blue", "red", "green", "purple", "orange"), strict=True))
AT = 0.125  # density at which layers and pixels are shown, or the next below
LEAST = 0.015  # density below which the networks have lost outputs, and their masks say little
GROUPS, IN_A_GROUP = 100, 100  # groups of a layer's weights by their size in theta0, at most, and weights in each


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Chains of the report's experiments on the MLP, as these train them by the same settings."""
    changed = {k: v for k, v in presets.changes(config).items() if k not in ("replicates", "controls")}
    for experiment, (of_experiment, names) in OF.items():
        scale = presets.configure(experiment, config.preset, device=config.device, **changed)
        yield from (unit for unit in of_experiment(scale, replicate) if unit.arm in names)


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
    import numpy as np

    rows = {}
    for name, mask in one.items():
        if groups is None:
            size, kept, others = mask.size, mask.sum(), other[name].sum()
        else:
            parts = groups[name].ravel(), groups[name][mask], groups[name][other[name]]
            size, kept, others = (np.bincount(part, minlength=GROUPS) for part in parts)
        expected = np.sum(kept * others / np.maximum(size, 1))
        rows[name] = (mask & other[name]).sum(), expected, (np.sum(kept) + np.sum(others)) / 2
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


def sizes(study):
    """The group of every weight by its size in theta0: dict, replicate -> {layer: int array, from 0 on}."""
    import numpy as np

    from .. import lottery

    out = {}
    for unit in study.units:
        if unit.replicate not in out:
            theta0 = {k: v.abs().numpy() for k, v in lottery.drawn(unit, "theta0").items() if k.endswith(".weight")}
            groups = {}
            for name, values in theta0.items():
                ranks = values.ravel().argsort().argsort().reshape(values.shape)
                count = max(1, min(GROUPS, values.size // IN_A_GROUP))
                groups[name.removesuffix(".weight")] = (ranks * count // values.size).astype(np.int64)
            out[unit.replicate] = groups
    return out


def overlaps(results):
    """How far masks overlap, by what differs, level and layer.

    Parameters
    ----------
    results : Results
        Of :func:`lthcore.studies.experiments.load`.

    Returns
    -------
    DataFrame
        Columns differs, level, density, layer (or ``all``), n (replicates), overlap, chance, by_size; mean, low, high
        of what is beyond chance; and beyond_size, beyond_size_low, beyond_size_high. Intervals are 95%: over replicates
        where theta0 is shared, else by the jackknife. `by_size` is the chance of masks that are random among weights of
        similar size in theta0, where it is shared.
    """
    return _overlaps(results.study, len(results.frame))  # again, where more is finished


@lru_cache(maxsize=2)
def _overlaps(study, finished):
    import numpy as np
    import pandas as pd

    known, groups, rows = _masks(study, finished), sizes(study), []
    density = {(unit.arm, k): unit.config.density(k) for unit in study.units for k in unit.levels}
    for label, (one, other) in (DIFFERENT_THETA0 | SAME_THETA0).items():
        shared = label in SAME_THETA0
        for level in sorted(k for arm, k in known if arm == one and (other, k) in known):
            first, second = known[one, level], known[other, level]
            seen = sorted(set(first) & set(second))
            pairs = [(r, s) for r in seen for s in seen if (r == s) == shared]
            each = {(r, s): counted(first[r], second[s]) for r, s in pairs if shared or one != other or r < s}
            each |= {(s, r): found for (r, s), found in each.items() if one == other}
            given = [counted(first[r], second[r], groups[r]) for r, _ in pairs] if shared and other else []
            for layer in next(iter(each.values()), {}):
                values = {pair: found[layer] for pair, found in each.items()}
                if shared:
                    band = statistics.interval([found.beyond for found in values.values()])
                else:
                    band = jackknife([[values[r, s].beyond if r != s else 0.0 for s in seen] for r in seen])
                share, chance = np.mean(list(values.values()), axis=0)
                by_size = np.mean([found[layer].chance for found in given]) if given else np.nan
                further = statistics.interval([found[layer].beyond for found in given])[1:] if given else [np.nan] * 3
                n, *interval = band
                at_level = label, level, density[one, level], layer
                rows.append((*at_level, n, share, chance, by_size, *interval, *further))
    names = ["differs", "level", "density", "layer", "n", "overlap", "chance", "by_size", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=[*names, "beyond_size", "beyond_size_low", "beyond_size_high"])


def at(results, density: float = AT):
    """The rows of :func:`overlaps` for all layers together, at a density or the next below: DataFrame."""
    table = _near(overlaps(results), density)
    return table[table["layer"] == "all"].set_index("differs").drop(columns="layer")


def _near(table, density=AT):
    """The rows at a density or the next below, of each that differs; at the last level where none is so sparse."""
    sparse = table["density"] <= density * 1.01
    first = table[sparse].groupby("differs")["level"].min()
    level = table.groupby("differs")["level"].max()
    level.update(first)
    return table[table["level"] == table["differs"].map(level)]


def so(results):
    """The numbers of :func:`at` in a few sentences: str."""
    table = at(results)
    if not {OTHER_HALF, HALVES} <= set(table.index):
        return "So: nothing is concluded before the chains of Task 1 are finished."
    half, unrelated = table.loc[OTHER_HALF], table.loc[HALVES]
    verdict = "No, most kept weights differ" if half["overlap"] < 0.5 else "Most kept weights are the same"
    shares = [f"{100 * x:.1f}%" for x in (half["overlap"], unrelated["overlap"], half["by_size"], half["chance"])]
    return (
        f"So: {verdict}. At {100 * AT:g}% density, masks found on two halves of the data from the same theta0 share "
        f"{shares[0]} of their weights, and from different theta0s {shares[1]}. Masks that choose at random among "
        f"weights of similar size in theta0 would share {shares[2]}, fully random ones {shares[3]}."
    )


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
            colour, dashes = figures.OKABE_ITO[COLOURS[label]], "--" if label == UNTRAINED else "-"
            sheet.line(axis, found, "density", label, colour, title, marker="o", ms=4, ls=dashes)
        axis.axhline(0, color="0.4", lw=1, ls=":")
        place = {"xycoords": ("axes fraction", "data"), "va": "top", "ha": "right"}
        axis.annotate("as random masks", (0.99, -0.005), **place, **figures.SMALL)
        if len(every):
            figures.density_axis(axis)
        top = 1.6 * every["high"].max() if every["high"].notna().any() else 1
        axis.set(title=title, ylabel="overlap beyond chance (1: equal)", ylim=(-0.03, top))
    return sheet.done(legend_on=(0, 1), where="upper right", shown="lines: mean, bands: 95% interval over replicates")


def fig13b(study, frame):
    """At about an eighth of the weights: the overlap against two baselines, and by layer."""
    sheet = figures.Sheet(study, f"Figure 13b. Overlap of masks at {100 * AT:g}% density, or the next below")
    table = _near(_overlaps(study, len(frame)))
    table = table[table["mean"].notna()]
    baselines, by_layer = sheet.axes
    marks = {"chance": ("o", "white"), "by_size": ("D", "0.6"), "overlap": ("o", None)}
    meaning = {"chance": "random", "by_size": "random among similar sizes in theta0", "overlap": "found by training"}
    for y, name in enumerate(NAMES):
        row = table[(table["differs"] == name) & (table["layer"] == "all")]
        for what, (marker, face) in marks.items():
            colour = figures.OKABE_ITO[COLOURS[name]]
            label = meaning[what] if not y else None
            baselines.plot(100 * row[what], [y] * len(row), marker, color=colour, mfc=face or colour, label=label)
        sheet.drawn.append(row.assign(panel="baselines"))
    baselines.set(title="all layers, against two baselines", xlabel="shared, of the weights kept (%)", xlim=(0, 45))
    baselines.set(ylim=(len(NAMES) + 2, -0.5))
    baselines.set_yticks(range(len(NAMES)), NAMES)
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "all"]
    for place, name in enumerate(NAMES):
        colour, rows = figures.OKABE_ITO[COLOURS[name]], table[(table["differs"] == name) & (table["layer"] != "all")]
        for row in rows.to_dict("records"):
            y = layers.index(row["layer"]) + 0.1 * (place - 3.5)
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
        study, f"Figure 13c. Which pixels the first layer still reads, at {100 * AT:g}% density", rows=2
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
        below = {k for u in study.units if u.arm == arm for k in u.levels if u.config.density(k) <= AT * 1.01}
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
    **{arm: style for arm, style in task3.STYLES.items() if arm in OF["task3"][1]},
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
    figures={"fig13a_overlap": fig13a, "fig13b_overlap_baselines": fig13b, "fig13c_pixels": fig13c},
)
