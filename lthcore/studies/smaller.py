"""What does a ticket cost? Against a smaller dense network of as many weights, and against the trainings that find it.

Zhu & Gupta 2017 compare large sparse networks with small dense ones of the same size.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import figures, measures, statistics, verdicts
from ..runs import presets
from ..schedule import ARCHITECTURES, CLASSES, Architecture
from ..unit import Unit
from . import common
from .mlp import MLP
from .record import Answer, Claim, Experiment

LEVELS = (3, 5, 7, 9, 11, 13)  # 34, 17, 8.2, 4, 2 and 0.97% density
AT = 9  # the ticket's last level in the rules on the MLP
CONTROLS = ("random_reinit", "random_mask")
ARMS = ("ticket", *CONTROLS, "smaller")
PIXELS = 28 * 28
NOTHING = 1e-9  # a saving below this is a rounding error
NEVER = 1e9  # as many trainings as no axis shows


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The chain of the MLP and its controls, as that study trains them; at six levels a dense network of their size."""
    base = replace(presets.as_in("mlp", config), controls=config.controls)
    chain, *controls = common.ticket_and_controls(base, replicate)
    yield from (chain, *controls)
    for level in _levels(chain):
        model = replace(config, model=_model(base, level), rounds=0, levels=())
        yield Unit(model, f"dense_{level}", replicate)


def _levels(chain):
    return tuple(k for k in LEVELS if k in chain.levels) or chain.levels[1:]


def hidden(weights: int) -> tuple[int, int]:
    """Hidden units of the MLP whose number of weights is nearest to `weights`: two layers of (int, int) units.

    As in LeNet-300-100 the first layer has three times as many as the second, which has at least as many as there are
    outputs.
    """
    sizes = [(first, max(CLASSES, round(first / 3))) for first in range(1, weights // PIXELS + 2)]
    return min(sizes, key=lambda size: abs(count(*size) - weights))


def count(first: int, second: int) -> int:
    """Weights of an MLP with so many hidden units, without its biases: int."""
    return PIXELS * first + first * second + second * CLASSES


def _kept(base, level):
    return sum(base.schedule[level].values())


def _model(base, level):
    """The name of that network; registered as any user's model is, so that the processes know it."""
    first, second = hidden(_kept(base, level))
    shapes = {"fc1": (first, PIXELS), "fc2": (second, first), "head": (CLASSES, second)}
    ARCHITECTURES.setdefault(name := f"dense_{first}_{second}", Architecture(shapes))
    return name


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
    base = presets.as_in("mlp", config)
    share = {k: count(*hidden(_kept(base, k))) / _kept(base, 0) for k in level.unique()}
    moved = rows.assign(arm="smaller", level=level, density=level.map(share))
    return pd.concat([part for part in (frame[~dense], moved) if len(part)] or [frame], ignore_index=True)


def fig15a(study, frame):
    """Accuracy and speed of the ticket, its controls and smaller dense networks against the number of weights."""
    title = "Figure 15a. Tickets and dense networks with as many weights"
    sheet, frame = figures.Sheet(study, title, rows=2), placed(frame, study.config)
    present = [arm for arm in ARMS if arm in set(frame["arm"])]
    sheet.full_and_near(frame, present)
    pairs = [(arm, f"{STYLES[arm][0]} - smaller dense", "smaller") for arm in ARMS[:-1]]
    title = "minus the smaller dense network (last fifth)"
    sheet.differences(sheet.axes[2], frame, pairs, title, series=measures.last_fifth(frame))
    sheet.steps_to(sheet.axes[3], frame, present, 97)
    for axis in sheet.axes:
        axis.set_xlabel("weights, in % of the MLP's 266,200")
    return sheet.done(where="lower left")


def fig15b(study, frame):
    """What finding the ticket costs, and after how many trainings it has paid, against density."""
    sheet, table = figures.Sheet(study, "Figure 15b. What a ticket costs, and when it has paid"), costs(frame)
    left, right = sheet.axes
    for axis, columns, title in (
        (left, ("found", "found_time"), "trainings before the ticket is known"),
        (right, ("pays", "pays_time"), "later trainings after which it has paid"),
    ):
        for column, (label, colour, marker) in zip(columns, PRICES, strict=True):
            ends = [table.get(f"{column}_{end}", math.nan) for end in ("low", "high")]
            rows = table.assign(arm="ticket", mean=table[column], low=ends[0], high=ends[1]).dropna(subset="mean")
            rows = rows[["arm", "level", "density", "n", "mean", "low", "high"]].sort_values("density")
            rows["high"] = rows["high"].mask(rows["low"].notna() & rows["high"].isna(), NEVER)
            options = {"marker": marker, "band": f"{column}_low" in table}
            sheet.line(axis, rows, "density", label, figures.OKABE_ITO[colour], f"{title}: {label}", **options)
        figures.density_axis(axis)
        axis.set(title=title, ylabel="number of dense trainings" if axis is left else "number of trainings")
    if right.has_data():
        right.set(yscale="log", ylim=(1, 1e5))
        right.yaxis.set_major_formatter(lambda y, _: f"{y:,.0f}")
    else:
        right.annotate("at no level does it pay", (0.03, 0.5), xycoords="axes fraction", **figures.SMALL)
    return sheet.done(legend_on=(0, 1))


PRICES = (
    ("steps to 97%, every step at one price", "blue", "o"),
    ("time of a whole training, pruned weights skipped", "orange", "s"),
)


def costs(frame):
    """What finding a ticket costs and what training it saves: a row per level, in trainings of the dense network.

    Where every step has one price, the ticket of level k costs the k whole trainings before it, and saves the steps by
    which it reaches 97% validation accuracy earlier than the dense network. Where a step takes as long as the compiled
    engine needs at that density (the committed benchmark), it saves the difference over a whole training.

    Returns
    -------
    DataFrame
        level, density, n; ``found`` and ``found_time``, the cost in dense trainings; ``saved`` and ``saved_time``, what
        a training of it saves, in dense trainings; ``pays`` and ``pays_time``, the quotients, NaN where nothing is
        saved; ``pays_low`` and ``pays_high``, where the 95% interval of what is saved puts it, NaN: no such number.
    """
    import numpy as np
    import pandas as pd

    levels, steps = statistics.levels(frame, "ticket"), measures.steps_to(frame, 97)["step"]
    whole = frame.loc[(frame["arm"] == "ticket") & (frame["level"] == 0), "step"].max()
    density = {k: statistics.density_at(frame, "ticket", k) for k in levels}
    price = relative_time(np.array([density[k] for k in levels])) if levels else []
    rows = []
    for i, level in enumerate(levels[1:], 1):
        found, found_time = i, float(sum(price[:i]))
        n, saved, low, high = statistics.interval(statistics.paired(steps, "ticket", 0, "ticket", level) / whole)
        saved_time = float(1 - price[i])
        pays = {"pays": (found, saved), "pays_low": (found, high), "pays_high": (found, low)}
        pays = {name: cost / gain if gain > NOTHING else math.nan for name, (cost, gain) in pays.items()}
        rows.append({
            "level": level, "density": density[level], "n": n, "found": found, "found_time": found_time,
            "saved": saved, "saved_time": saved_time, **pays,
            "pays_time": found_time / saved_time if saved_time > 0 else math.nan,
        })  # fmt: skip
    names = ("level", "density", "n", "found", "found_time", "saved", "saved_time")
    return pd.DataFrame(rows, columns=[*names, "pays", "pays_low", "pays_high", "pays_time"])


def relative_time(density):
    """Time of a step at these densities, in steps of the dense network: array, by the committed benchmark of the MLP.

    Interpolated between the densities that were measured; NaN where there is no benchmark.
    """
    import numpy as np

    from ..runs import store

    path = store.ROOT / "figures" / "speed.csv"
    rows = list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []
    measured = {float(r["at"]): float(r["median"]) for r in rows if (r["part"], r["what"]) == ("mlp", "ours")}
    if not measured:
        return np.full(np.shape(density), math.nan)
    at = sorted(measured)
    return np.interp(np.log(density), np.log(at), [measured[d] / measured[1.0] for d in at])


def in_short(frame, config):
    """Sizes, accuracies and costs by level, for the notebook: DataFrame of text."""
    import pandas as pd

    moved = placed(frame, config)
    accuracy, table = measures.last_fifth(moved), costs(frame).set_index("level")
    base, rows = presets.as_in("mlp", config), []
    for level in statistics.levels(moved, "smaller"):
        first, second = hidden(_kept(base, level))
        row = {"level": level, "weights of the ticket": f"{_kept(base, level):,}"}
        row["hidden units"] = f"{first} and {second}"
        row["weights"] = f"{count(first, second):,}"
        for arm in ARMS:
            values = statistics.paired(accuracy, arm, level)
            row[STYLES[arm][0]] = f"{values.mean():.2f}" if len(values) else ""
        n, mean, low, high = statistics.interval(statistics.paired(accuracy, "ticket", level, "smaller"))
        row["ticket - smaller dense (pp)"] = f"{mean:.2f}" + (f" [{low:.2f}, {high:.2f}]" if n > 1 else "")
        for name, column in (("pays after, by steps", "pays"), ("pays after, by time", "pays_time")):
            number = table[column].get(level, math.nan)
            row[name] = "never" if math.isnan(number) else f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
        rows.append(row)
    return pd.DataFrame(rows).set_index("level") if rows else pd.DataFrame()


def _better(frame, config):
    moved = placed(frame, config)
    accuracy, density = measures.last_fifth(moved), statistics.density_at(frame, "ticket", AT)
    found = []
    for arm in ARMS[:-1]:
        values = statistics.paired(accuracy, arm, AT, "smaller")
        what = f"{STYLES[arm][0]} - smaller dense network, level {AT}"
        judged = {"above": 0} if arm == "ticket" else {"judged": False}
        found.append(verdicts.Measure(what, AT, density, values, networks=((arm, AT), ("smaller", AT)), **judged))
    return found


# Zhu & Gupta 2017, abstract: "we find large-sparse models to consistently outperform small-dense models and achieve up
# to 10x reduction in number of non-zero parameters with minimal loss in accuracy". The level and the bound are ours.
CLAIMS = (
    Claim("smaller-dense", "a ticket is more accurate than a dense network of as many weights (4% density)",
          "large-sparse models consistently outperform small-dense models", "fig15a_smaller", _better),
)  # fmt: skip

SMALLER = Experiment(
    name="smaller",
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
    claims=CLAIMS,
    answer=Answer(
        "smaller-dense",
        (
            "Yes: at the level that is judged the ticket is more accurate than a dense network of as many weights, "
            "trained as long.",
            "it is worth pruning a large network rather than training a small one, if accuracy at a given number of "
            "weights is what counts. What finding the ticket costs is in the second figure.",
        ),
        (
            "No: at the level that is judged a dense network of as many weights, trained as long, is at least as "
            "accurate.",
            "whoever wants a network of that size can train it at once, without pruning.",
        ),
        (
            "Whether the ticket is more accurate than a dense network of as many weights is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
