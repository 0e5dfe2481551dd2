"""Is the mask the same twice? How far masks overlap beyond chance, between replicates and between tasks.

Nothing is trained for it: its units are chains of the report's experiments, whose masks the archive has.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from ..config import Config
from ..results.later import figures, statistics
from ..runs.presets import configure
from ..unit import Unit
from . import mlp, task1, task2, task3
from .record import Experiment

OF = {  # experiment -> its chains whose masks are compared
    "mlp": (mlp.arms, ("ticket",)),
    "task1": (task1.arms, ("t1_on_s1", "t2_on_s2")),
    "task2": (task2.arms, ("t1_on_s1_spared", "t2_on_s2_spared")),
    "task3": (task3.arms, ("adam", "sgd", "momentum")),
}
OTHER_THETA0 = {  # label -> chain, whose masks are compared between replicates
    "other theta0 (MLP)": "ticket",
    "other theta0 (Task 3, Adam)": "adam",
}
SAME_THETA0 = {  # label -> two chains that share theta0
    "other half of the data": ("t1_on_s1", "t2_on_s2"),
    "digits 0-4 and 5-9": ("t1_on_s1_spared", "t2_on_s2_spared"),
    "Adam and SGD with momentum": ("adam", "momentum"),
    "Adam and plain SGD": ("adam", "sgd"),
}
UNTRAINED = "T1 and theta0's largest weights"  # a chain and the mask that its theta0 gives without training
SAME_THETA0[UNTRAINED] = ("t1_on_s1", None)
NAMES = (*OTHER_THETA0, *SAME_THETA0)
COLOURS = dict(zip(NAMES, ("black", "sky", "blue", "red", "green", "purple", "orange"), strict=True))
AT = 0.125  # density at which layers and pixels are shown, or the next below


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Chains of the report's experiments on the MLP, as these train them at the same preset."""
    for experiment, (of_experiment, names) in OF.items():
        scale = configure(experiment, config.preset, seed=config.seed, device=config.device)
        yield from (unit for unit in of_experiment(scale, replicate) if unit.arm in names)


def counted(one: dict, other: dict, groups: dict | None = None) -> dict:
    """How far two masks overlap, by layer, and under ``"all"`` for the weights of all layers: dict of :class:`Overlap`.

    Parameters
    ----------
    one, other : dict of str to bool array
        Masks of one network, by layer.
    groups : dict of str to int array, optional
        For every weight its group, in 0..GROUPS-1: chance is then that of masks that are random within each group.
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


class Overlap(NamedTuple):
    """Weights that two masks both keep, over the mean of what each keeps, and its expectation by chance; in [0, 1]."""

    share: float
    chance: float

    @property
    def beyond(self) -> float:
        """0 for random masks, 1 for equal ones, NaN where everything is kept: (share - chance) / (1 - chance)."""
        return (self.share - self.chance) / (1 - self.chance) if self.chance < 1 else float("nan")


def jackknife(matrix):
    """Mean over pairs of replicates and its 95% interval by the delete-one jackknife: n, mean, low, high.

    Parameters
    ----------
    matrix : (n, n) array
        Symmetric; a value per pair. Its diagonal is not read.
    """
    import numpy as np
    from scipy.special import stdtrit

    matrix = np.asarray(matrix, float)
    n = len(matrix)
    pairs = np.triu_indices(n, 1)
    mean = float(matrix[pairs].mean()) if n > 1 else float("nan")
    if n < 3:
        return n, mean, float("nan"), float("nan")
    without = []
    for r in range(n):
        rest = np.delete(np.delete(matrix, r, 0), r, 1)
        without.append(rest[np.triu_indices(n - 1, 1)].mean())
    spread = np.sqrt((n - 1) / n * np.sum((np.array(without) - np.mean(without)) ** 2))
    half = stdtrit(n - 1, 0.975) * spread
    return n, mean, mean - half, mean + half


@lru_cache(maxsize=2)
def masks(study):
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
        for level, mask in enumerate(collapse.untrained(unit)) if unit.arm == "t1_on_s1" else ():
            found.setdefault((None, level), {})[unit.replicate] = {name: m.numpy() for name, m in mask.items()}
    return found


GROUPS = 100  # of the weights of a layer, by their size in theta0


def sizes(study):
    """The group of every weight by its size in theta0: dict, replicate -> {layer: (shape) int array in 0..GROUPS-1}."""
    import numpy as np

    from .. import lottery

    out = {}
    for unit in study.units:
        if unit.replicate not in out:
            theta0 = {k: v.abs().numpy() for k, v in lottery.drawn(unit, "theta0").items() if k.endswith(".weight")}
            ranks = {
                k.removesuffix(".weight"): v.ravel().argsort().argsort().reshape(v.shape) for k, v in theta0.items()
            }
            out[unit.replicate] = {name: (rank * GROUPS // rank.size).astype(np.int64) for name, rank in ranks.items()}
    return out


@lru_cache(maxsize=2)
def overlaps(study):
    """How far masks overlap, by what differs, level and layer.

    Parameters
    ----------
    study : lthcore.studies.experiments.Study

    Returns
    -------
    DataFrame
        Columns differs, level, density, layer (or ``all``), n (replicates), overlap, chance, by_size, and mean, low,
        high of what is beyond chance, with its 95% interval: over replicates where theta0 is shared, else by jackknife.
        `by_size` is the chance of masks that are random among weights of about the same size in theta0, where it is
        shared.
    """
    import numpy as np
    import pandas as pd

    known, groups, rows = masks(study), sizes(study), []
    density = {(unit.arm, k): unit.config.density(k) for unit in study.units for k in unit.levels}
    for label, chains in {**{k: (arm,) for k, arm in OTHER_THETA0.items()}, **SAME_THETA0}.items():
        one, other = chains[0], chains[-1]
        for level in sorted(k for arm, k in known if arm == one and (other, k) in known):
            first, second = known[one, level], known[other, level]
            seen = sorted(set(first) & set(second))
            pairs = [(r, s) for r in seen for s in seen if (r < s if one == other else r == s)]
            each = {pair: counted(first[pair[0]], second[pair[1]]) for pair in pairs}
            given = [counted(first[r], second[r], groups[r]) for r, s in pairs if r == s and other]
            for layer in next(iter(each.values()), {}):
                values = {pair: found[layer] for pair, found in each.items() if layer in found}
                if one == other:
                    matrix = [[values[min(r, s), max(r, s)].beyond if r != s else 0.0 for s in seen] for r in seen]
                    band = jackknife(matrix)
                else:
                    band = statistics.interval([found.beyond for found in values.values()])
                share, chance = np.mean(list(values.values()), axis=0)
                by_size = np.mean([found[layer].chance for found in given]) if given else np.nan
                n, *interval = band
                rows.append((label, level, density[one, level], layer, n, share, chance, by_size, *interval))
    names = ["differs", "level", "density", "layer", "n", "overlap", "chance", "by_size", "mean", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def at(study, density: float = AT):
    """The rows of :func:`overlaps` for all layers together, at a density or the next below: DataFrame."""
    table = overlaps(study)
    table = table[(table["layer"] == "all") & (table["density"] <= density * 1.01)]
    return table.groupby("differs", sort=False).first().drop(columns="layer")


def so(study):
    """The numbers of :func:`at` in a sentence: str."""
    table = at(study)
    if table.empty:
        return "So: nothing is finished yet."
    share = {name: f"{100 * row['overlap']:.0f}%" for name, row in table.iterrows()}
    wanted = "other half of the data", "other theta0 (Task 3, Adam)"
    if not set(wanted) <= set(share):
        return "So: some of the chains are not finished yet."
    half = table.loc[wanted[0]]
    return (
        f"So: at {100 * AT:g}% density, masks found on two halves of the data from the same theta0 share "
        f"{share[wanted[0]]} of their weights. Masks that are random among weights of about the same size in theta0 "
        f"would share {100 * half['by_size']:.0f}%, random masks {100 * half['chance']:.1f}%; masks from two theta0s "
        f"share {share[wanted[1]]}."
    )


def fig13a(study, frame):
    """How far masks overlap beyond chance against density: between replicates, and between tasks that share theta0."""
    sheet = figures.Sheet(study, "Figure 13a. Is the mask the same twice? Overlap of masks beyond that of random ones")
    table = overlaps(study)
    every = table[table["layer"] == "all"]
    for axis, labels, title in (
        (sheet.axes[0], OTHER_THETA0, "another theta0, the same task"),
        (sheet.axes[1], SAME_THETA0, "the same theta0, another task"),
    ):
        for label in labels:
            found = every[every["differs"] == label].sort_values("density")
            colour = figures.OKABE_ITO[COLOURS[label]]
            sheet.line(axis, found, "density", label, colour, title, marker="o", ms=4)
        axis.axhline(0, color="0.4", lw=1, ls=":")
        place = {"xycoords": ("axes fraction", "data"), "va": "top", "ha": "right"}
        axis.annotate("as random masks", (0.99, -0.005), **place, **figures.SMALL)
        if len(every):
            figures.density_axis(axis)
        top = 1.25 * every["high"].max() if every["high"].notna().any() else 1
        axis.set(title=title, ylabel="overlap beyond chance (1: equal)", ylim=(-0.03, top))
    return sheet.done(legend_on=(0, 1), where="upper right", shown="lines: mean, bands: 95% interval over replicates")


def fig13b(study, frame):
    """At about an eighth of the weights: what chance and theta0's sizes explain, and the overlap by layer."""
    sheet = figures.Sheet(study, f"Figure 13b. Overlap of masks at {100 * AT:g}% density, or the next below")
    table = overlaps(study)
    table = table[(table["density"] <= AT * 1.01) & table["mean"].notna()]
    table = table[table["level"] == table.groupby("differs")["level"].transform("min")]
    explained, by_layer = sheet.axes
    marks = {"chance": ("o", "white"), "by_size": ("D", "0.6"), "overlap": ("o", None)}
    meaning = {"chance": "random masks", "by_size": "equal sizes in theta0", "overlap": "the masks"}
    for y, name in enumerate(NAMES):
        row = table[(table["differs"] == name) & (table["layer"] == "all")]
        for what, (marker, face) in marks.items():
            colour = figures.OKABE_ITO[COLOURS[name]]
            label = meaning[what] if not y else None
            explained.plot(100 * row[what], [y] * len(row), marker, color=colour, mfc=face or colour, label=label)
        sheet.drawn.append(row.assign(panel="explained"))
    explained.set(
        title="all layers: how much is explained", xlabel="overlap: shared of the kept weights (%)", xlim=(0, 60)
    )
    explained.set_yticks(range(len(NAMES)), NAMES)
    explained.invert_yaxis()
    layers = [layer for layer in dict.fromkeys(table["layer"]) if layer != "all"]
    for place, name in enumerate(NAMES):
        colour, rows = figures.OKABE_ITO[COLOURS[name]], table[(table["differs"] == name) & (table["layer"] != "all")]
        for row in rows.to_dict("records"):
            y = layers.index(row["layer"]) + 0.1 * (place - 3)
            by_layer.plot([row["low"], row["high"]], [y, y], color=colour, lw=2)
            by_layer.plot(row["mean"], y, "o", ms=5, color=colour)
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

    sheet = figures.Sheet(study, "Figure 13c. Which pixels the first layer still reads", rows=2)
    chains = {
        "t1_on_s1": "Task 1, mask found on half S1", "t2_on_s2": "Task 1, mask found on half S2",
        "t1_on_s1_spared": "Task 2, mask found on the digits 0-4", "t2_on_s2_spared": "Task 2, on the digits 5-9",
    }  # fmt: skip
    known = masks(study)
    for axis, (arm, title) in zip(sheet.axes, chains.items(), strict=True):
        axis.set(title=title, xticks=[], yticks=[])
        levels = [u.config.density(k) <= AT * 1.01 and k for u in study.units if u.arm == arm for k in u.levels]
        there = sorted({k for k in levels if k} & {k for a, k in known if a == arm})
        if not there:
            axis.set_axis_off()
            continue
        kept = [mask["fc1"].mean(0) for mask in known[arm, there[0]].values()]
        share = 100 * np.mean(kept, axis=0)
        image = axis.imshow(share.reshape(28, 28), cmap="viridis", vmin=0, vmax=35)
        axis.grid(False)
        sheet.figure.colorbar(image, ax=axis, label="kept weights of the pixel (%)", shrink=0.85)
        rows = pd.DataFrame({"pixel": range(784), "share": share})
        sheet.drawn.append(rows.assign(panel=title, arm=arm, level=there[0], n=len(kept)))
    return sheet.done(legend_on=(), shown="mean over replicates")


STYLES = {
    **{arm: style for arm, style in mlp.STYLES.items() if arm == "ticket"},
    **{arm: style for arm, style in task1.STYLES.items() if arm in OF["task1"][1]},
    **{arm: style for arm, style in task3.STYLES.items() if arm in OF["task3"][1]},
}

OVERLAP = Experiment(
    name="overlap",
    title="Is the mask the same twice?",
    group="extended",
    notebook="13_mask_overlap",
    settings={"model": "mlp"},
    presets={"report": {"replicates": 10}},
    fixed=("model",),
    arms=arms,
    styles=STYLES,
    full_labels={arm: f"{label} (output layer unpruned)" for arm, label in zip(
        OF["task2"][1], ("T1 on digits 0-4", "T2 on digits 5-9"), strict=True)},
    figures={"fig13a_overlap": fig13a, "fig13b_overlap_explained": fig13b, "fig13c_pixels": fig13c},
)  # fmt: skip
