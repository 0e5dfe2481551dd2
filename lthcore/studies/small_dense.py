"""What does a ticket cost? Against a smaller dense network of as many weights, and against the trainings that find it.

Both for the MLP and for LeNet-5, in two records.

Zhu & Gupta 2017 compare large sparse networks with small dense ones of the same size.
"""

import csv
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from ..config import Config
from ..results.later import figures, measures, statistics, verdicts
from ..runs import presets
from ..schedule import ARCHITECTURES, CLASSES
from ..unit import Unit
from . import common
from .common import AT
from .lenet5 import LENET5
from .mlp import MLP
from .record import Answer, Claim, Experiment


class Kind(NamedTuple):
    """What the two records differ in."""

    name: str
    figures: str  # the letters of its figures
    levels: tuple  # at which smaller dense networks are trained
    judged: int  # the level at which the claim is judged
    fast: int  # validation accuracy in percent at which a network has learnt
    shape: Callable  # a number of hidden units -> the sizes of the smaller networks' layers, in the model's proportions


def _of_mlp(first):
    return first, max(CLASSES, round(first / 3))


def _of_lenet5(units):
    # filters are rounded up: they have few of the weights, and a network with one of them is a poor rival
    return math.ceil(units / 20), math.ceil(units * 16 / 120), units, max(CLASSES, round(units * 84 / 120))


KINDS = {  # the experiment whose tickets are compared
    "mlp": Kind("MLP", "ab", (3, 5, 7, 9, 11, 13), AT, 97, _of_mlp),  # 34, 17, 8.2, 4, 2 and 0.97% density
    "lenet5": Kind("LeNet-5", "cd", (5, 9, 13, 17), 13, 98, _of_lenet5),  # 33, 13, 5.5 and 2.3%
}
CONTROLS = ("random_reinit", "random_mask")
ARMS = ("ticket", *CONTROLS, "smaller")
NOTHING = 1e-9  # a saving below this is a rounding error


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain and its controls, as its own study trains them; at some levels a dense network of their size."""
    base = replace(_base(config), controls=config.controls)
    chain, *controls = common.ticket_and_controls(base, replicate)
    yield from (chain, *controls)
    for level in common.levels_of(chain, KINDS[_of(config)].levels):
        model = replace(config, model=smaller(base, level), rounds=0, levels=())
        yield Unit(model, f"dense_{level}", replicate)


@lru_cache
def smaller(base: Config, level: int) -> str:
    """The name of the dense network whose number of weights is nearest to what a ticket keeps at a level: str.

    Its layers are in the proportions of the ticket's own network, filters rounded up, but the last hidden one has at
    least as many units as there are outputs.
    """
    kept, kind = _kept(base, level), KINDS[_of(base)]
    names = ("_".join(map(str, (base.model, *kind.shape(units)))) for units in range(1, 301))
    return min(names, key=lambda name: abs(count(name) - kept))


def count(model: str) -> int:
    """Weights of a network, without its biases: int."""
    return sum(math.prod(shape) for shape in ARCHITECTURES[model].weights.values())


def _of(config):
    return "lenet5" if config.convolutions else "mlp"


def _base(config):
    return presets.as_in(_of(config), config)


def _kept(base, level):
    return sum(base.schedule[level].values())


STYLES = {
    **{arm: common.STYLES[arm] for arm in ("ticket", *CONTROLS)},
    "smaller": ("smaller dense network", "red", "D"),
    **{f"dense_{level}": (f"dense, as many weights as level {level}", "red", "D") for level in range(1, 201)},
}


def placed(frame, config):
    """The same rows, with the smaller networks as one arm ``smaller``, each at the level whose size it has."""
    import pandas as pd

    dense = frame["arm"].str.startswith("dense_")
    rows = frame[dense]
    level = rows["arm"].str.removeprefix("dense_").astype(int)
    base = _base(config)
    share = {k: count(smaller(base, k)) / _kept(base, 0) for k in level.unique()}
    moved = rows.assign(arm="smaller", level=level, density=level.map(share))
    return pd.concat([part for part in (frame[~dense], moved) if len(part)] or [frame], ignore_index=True)


def fig15a(study, frame):
    """Accuracy and speed of the ticket, its controls and smaller dense networks against the number of weights."""
    kind = KINDS[_of(study.config)]
    title = f"Figure 15{kind.figures[0]}. {kind.name}: tickets and dense networks with as many weights"
    sheet, frame = figures.Sheet(study, title, rows=2), placed(frame, study.config)
    present = [arm for arm in ARMS if arm in set(frame["arm"])]
    accuracy, near = measures.last_fifth(frame), figures.zoom(frame, present)
    for axis, title, limits in (
        (sheet.axes[0], "last fifth of training", None),
        (sheet.axes[1], "the same, enlarged", near),
    ):
        sheet.against_density(axis, frame, present, title=title, zoom=limits, series=accuracy)
    pairs = [(arm, f"{STYLES[arm][0]} - smaller dense", "smaller") for arm in ARMS[:-1]]
    title = "minus the smaller dense network"
    sheet.differences(sheet.axes[2], frame, pairs, title, series=accuracy)
    sheet.steps_to(sheet.axes[3], frame, present, kind.fast)
    for axis in sheet.axes:
        axis.set_xlabel(f"weights, in % of the whole network's {_kept(_base(study.config), 0):,}")
    return sheet.done(where="lower left")


def fig15b(study, frame):
    """What finding the ticket costs, and after how many later trainings that is saved, against density."""
    kind = KINDS[_of(study.config)]
    title = f"Figure 15{kind.figures[1]}. {kind.name}: what finding a ticket costs, and when it breaks even"
    sheet = figures.Sheet(study, title)
    table, (left, right) = costs(frame, study.config), sheet.axes
    found, later = "cost of finding the ticket", "later trainings needed to break even"
    _line(sheet, left, table, "found", "same cost per step", "blue", "o", found)
    _line(sheet, left, table, "found_time", "pruned weights skipped (benchmark)", "orange", "s", found)
    for name, (label, colour, marker) in WAYS.items():
        _line(sheet, right, table, name, label.format(kind.fast), colour, marker, later)
    right.sharex(left)
    figures.density_axis(left)
    left.set(title=found, ylabel="trainings of the dense network")
    right.set(title=later, ylabel="number of trainings", xlabel=left.get_xlabel())
    if right.has_data():
        right.set(yscale="log", ylim=(1, 1e6))
        right.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    else:
        right.annotate("nothing is saved at any level", (0.03, 0.5), xycoords="axes fraction", **figures.SMALL)
    return sheet.done(legend_on=(0, 1))


def _line(sheet, axis, table, name, label, colour, marker, panel):
    """A curve of :func:`costs`, with a band where it has one; without an upper end the band goes on to the top."""
    rows = table.assign(arm="ticket", mean=table[name], n=table["n"] if f"{name}_low" in table else 1)
    for end in ("low", "high"):
        rows[end] = table.get(f"{name}_{end}", math.nan)
    rows = rows.dropna(subset="mean")[["arm", "level", "density", "n", "mean", "low", "high"]].sort_values("density")
    if rows.empty:
        return
    axis.plot(rows["density"], rows["mean"], label=label, color=figures.OKABE_ITO[colour], marker=marker)
    banded = rows.dropna(subset="low")
    high = banded["high"].fillna(1e9)
    axis.fill_between(banded["density"], banded["low"], high, color=figures.OKABE_ITO[colour], alpha=0.18, lw=0)
    sheet.drawn.append(rows.assign(panel=f"{panel}: {label}"))


WAYS = {  # column of the table of costs -> label, colour, marker
    "steps": ("trained to {}%, same cost per step", "blue", "o"),
    "steps_skipped": ("trained to {}%, pruned weights skipped", "purple", "D"),
    "whole_skipped": ("trained to the end, pruned weights skipped", "orange", "s"),
}


def costs(frame, config):
    """What finding a ticket costs, and how many of its later trainings save as much: a row per level.

    The ticket of level k costs the k whole trainings before it. A later training of it is compared with one of the
    dense network: to 97% validation accuracy (LeNet-5: 98%), or to the end, which saves time only where pruned weights
    are skipped.
    There a step takes as long as the compiled engine needs at that density, by the committed benchmark.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of a study with the arm ``ticket``.
    config : Config
        Nothing is compared where the ticket's mean accuracy (last fifth) is further below the dense network's than its
        ``tolerance``.

    Returns
    -------
    DataFrame
        level, density, n; ``found`` and ``found_time``, the cost in trainings of the dense network, with the same cost
        for every step and with pruned weights skipped; for each of ``WAYS`` the number of later trainings, NaN where
        nothing is saved, and, but for the last, its interval, ``<name>_low`` and ``<name>_high``, from the 95% interval
        of what is saved (NaN: no such number); ``why``, in a word or two, where ``steps`` has no number.
    """
    import pandas as pd

    kind = KINDS[_of(config)]
    levels, fast = statistics.levels(frame, "ticket"), measures.steps_to(frame, kind.fast)
    accuracy, rows = measures.last_fifth(frame), []
    whole = frame.loc[(frame["arm"] == "ticket") & (frame["level"] == 0), "step"].max()
    density = [statistics.density_at(frame, "ticket", k) for k in levels]
    price = relative_time(density, _of(config))
    dense = statistics.paired(fast["step"], "ticket", 0)
    for i, level in enumerate(levels[1:], 1):
        below = -statistics.paired(accuracy, "ticket", level, "ticket", 0).mean()
        later = statistics.paired(fast["step"], "ticket", level)
        ways = {
            "steps": _break_even(i, (dense - later) / whole),
            "steps_skipped": _break_even(sum(price[:i]), (dense - later * price[i]) / whole),
        }
        row = {name: number for way, found in ways.items()
               for name, number in zip((way, f"{way}_low", f"{way}_high"), found, strict=True)}  # fmt: skip
        row["whole_skipped"] = sum(price[:i]) / (1 - price[i]) if price[i] < 1 else math.nan
        why = "" if row["steps"] == row["steps"] else "nothing saved"
        if not statistics.paired(fast["reached"].astype(float), "ticket", level).all():
            why = f"{kind.fast}% not reached"
            row |= {name: math.nan for name in row if name.startswith("steps")}
        if below > config.tolerance:
            why = "less accurate than dense"
            row = dict.fromkeys(row, math.nan)
        at = {"level": level, "density": density[i], "n": len(later), "found": i, "found_time": sum(price[:i])}
        rows.append({**at, **row, "why": why})
    bands = [f"{way}{end}" for way in ("steps", "steps_skipped") for end in ("", "_low", "_high")]
    columns = ["level", "density", "n", "found", "found_time", *bands, "whole_skipped", "why"]
    return pd.DataFrame(rows, columns=columns)


def _break_even(cost, saved):
    """A cost over what is saved each time: mean, and the ends by the 95% interval of what is saved; NaN if nothing."""
    _, mean, low, high = statistics.interval(saved.dropna())
    return [cost / gain if gain > NOTHING else math.nan for gain in (mean, high, low)]


def relative_time(density, model="mlp"):
    """Time of a step at these densities, in steps of the dense network: list, by the model's committed benchmark.

    It was measured with random masks; between its densities the time is interpolated. NaN without a benchmark.
    """
    import numpy as np

    from ..runs import store

    path = store.ROOT / "figures" / "speed.csv"
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    measured = {float(r["at"]): float(r["median"]) for r in rows if (r["part"], r["what"]) == (model, "ours")}
    if not measured:
        return [math.nan] * len(density)
    at = sorted(measured)
    return np.interp(np.log(density), np.log(at), [measured[d] / measured[1.0] for d in at]).tolist()


def in_short(frame, config):
    """Sizes, accuracies and costs by level, for the notebook: DataFrame of text."""
    import pandas as pd

    moved = placed(frame, config)
    accuracy, table = measures.last_fifth(moved), costs(frame, config).set_index("level")
    base, kind, rows = _base(config), KINDS[_of(config)], []
    for level in statistics.levels(moved, "smaller"):
        model = smaller(base, level)
        *filters, first, second = model.split("_")[1:]
        row = {"level": level, "weights of the ticket": f"{_kept(base, level):,}"}
        row |= {"filters": " and ".join(filters)} if filters else {}
        row["hidden units"] = f"{first} and {second}"
        row["their weights"] = f"{count(model):,}"
        for arm in ARMS:
            values = statistics.paired(accuracy, arm, level)
            row[STYLES[arm][0]] = f"{values.mean():.2f}" if len(values) else ""
        _, *found = statistics.interval(statistics.paired(accuracy, "ticket", level, "smaller"))
        row["ticket - smaller dense (pp)"] = statistics.in_brackets(*found)
        labels = {way: label.format(kind.fast) for way, (label, *_) in WAYS.items()}
        row |= {f"break-even: {label}": _in_words(table, level, way) for way, label in labels.items()}
        rows.append(row)
    return pd.DataFrame(rows).set_index("level") if rows else pd.DataFrame()


def _in_words(table, level, way):
    """A number of later trainings with its interval, or why there is none."""
    if level not in table.index:
        return ""
    row = table.loc[level]
    if math.isnan(row[way]):
        return row["why"] or "nothing saved"
    numbers = [row[way], *(row.get(f"{way}_{end}", math.nan) for end in ("low", "high"))]
    mean, low, high = ("∞" if math.isnan(x) else f"{x:,.0f}" if x >= 10 else f"{x:.1f}" for x in numbers)
    return f"{mean} [{low}, {high}]" if low != "∞" else mean


def _better(frame, config):
    moved = placed(frame, config)
    found, level = [], KINDS[_of(config)].judged
    for arm in ARMS[:-1]:
        what = f"{STYLES[arm][0]} - smaller dense network, level {level}"
        judged = {"above": 0} if arm == "ticket" else {"judged": False}
        found.append(verdicts.difference(moved, what, (arm, level), ("smaller", level), **judged))
    return found


# Zhu & Gupta 2017, abstract: "we find large-sparse models to consistently outperform small-dense models and achieve up
# to 10x reduction in number of non-zero parameters with minimal loss in accuracy". Levels and bound are ours: of each
# network the last level before its validation accuracy falls, which the rules on the report's claims chose.
CLAIM = Claim("smaller-dense", "a ticket beats a dense network of as many weights (4% density)",
              "large-sparse outperform small-dense models", "fig15a_smaller", _better)  # fmt: skip
CLAIM_LENET5 = Claim("smaller-dense-lenet5", "LeNet-5's ticket beats a dense LeNet-5 of as many weights (5.5% density)",
                     "large-sparse outperform small-dense models", "fig15c_smaller_lenet5", _better)  # fmt: skip


def _answer(claim, network):
    return Answer(
        claim,
        (
            "The ticket: at the density that is judged it is more accurate than a dense network of as many weights, "
            "trained as long.",
            f"of two networks of that size, this {network}'s ticket is the more accurate one. Finding it took one "
            "full training for each level before its own; nothing is judged about that cost, or about other sizes.",
        ),
        (
            "The smaller dense network: at the density that is judged it is at least as accurate as the ticket.",
            "whoever wants a network of that size can train it at once, without pruning.",
        ),
        (
            "Whether the ticket is more accurate than a dense network of as many weights is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    )


SMALL_DENSE = Experiment(
    name="small_dense",
    title="Smaller dense networks, and what a ticket costs",
    group="extended",
    notebook="15_what_it_costs",
    settings=MLP.settings,
    presets={"report": {"replicates": 5, "controls": 2}, "smoke": MLP.presets["smoke"]},
    fixed=("model",),
    first=5,
    arms=arms,
    styles=STYLES,
    figures={"fig15a_smaller": fig15a, "fig15b_costs": fig15b},
    claims=(CLAIM,),
    answer=_answer(CLAIM.id, KINDS["mlp"].name),
)

SMALL_DENSE_LENET5 = Experiment(
    name="small_dense_lenet5",
    title="Smaller dense networks, and what a ticket costs: LeNet-5",
    group="extended",
    notebook="15_what_it_costs",
    parameters={"experiment": "small_dense_lenet5"},
    copy="15_what_it_costs_lenet5",
    settings=LENET5.settings,
    presets={"report": {"replicates": 5, "controls": 4}, "smoke": LENET5.presets["smoke"]},
    fixed=("model",),
    first=3,
    arms=arms,
    styles=STYLES,
    figures={"fig15c_smaller_lenet5": fig15a, "fig15d_costs_lenet5": fig15b},
    claims=(CLAIM_LENET5,),
    answer=_answer(CLAIM_LENET5.id, KINDS["lenet5"].name),
)
