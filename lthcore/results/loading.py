"""A study's finished levels, each read once: the table, what is missing, and where the numbers come from. No torch."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..runs import presets, store

KEYS = ["experiment", "model", "arm", "replicate", "level", "density"]
COLUMNS = [*KEYS, *store.ROWS]
NAMES = ["experiment", "model", "arm", "split", "metric"]  # a few names on many rows: compared as small numbers
ORIGIN = ("torch", "device", "engine", "code", "processor", "python", "gpu")  # facts of a level: where it was made


@dataclass(frozen=True, eq=False)
class Results:
    """What is finished of a study, as it was when it was read.

    Parameters
    ----------
    study : Study
    frame : DataFrame
        Tidy rows; columns experiment, model, arm, replicate, level, density, step, epoch, split, metric, value;
        accuracies in percent (0..100), losses in nats, densities in [0, 1]. Names are categories.
    missing : list of (Unit, int)
        The levels that are not finished.
    provenance : dict
        Where the numbers come from: plain values, as kept beside every figure.
    """

    study: Any
    frame: pd.DataFrame
    missing: list
    provenance: dict


def load(study) -> Results:
    """Read every level of a study once.

    Parameters
    ----------
    study : Study or Results
        Results are given back as they are.
    """
    if isinstance(study, Results):
        return study
    tasks = [(unit, level) for unit in study.units for level in unit.levels]
    found = {task: level for task in tasks if (level := store.find_level(*task))}
    facts = [level.facts["facts"] for level in found.values()]
    return Results(study, _table(found), [task for task in tasks if task not in found], _provenance(study, facts))


def _table(found):
    """The tidy rows of finished levels, (unit, level) -> Found."""
    shared = Counter(_place(*task) for task in found)
    seen = {}  # chains that share their dense network have it once, and what each saw of it
    keys, tables = [], []
    for (unit, level), it in found.items():
        place = _place(unit, level)
        if shared[place] == 1 and it.place:
            table, first, end = it.place
            rows = range(first, end)  # a pack is cut once, not level by level
        else:
            rows = table = it.rows()
        if shared[place] > 1:
            there = seen.setdefault(place, set())
            rows = table = rows[~rows["metric"].isin(there)]
            there.update(rows["metric"].unique())
        if len(rows):
            keys.append((*keys_of(unit, level, unit.config.density(level)), len(rows)))
            if not (tables and tables[-1][0] is table):
                tables.append((table, []))
            tables[-1][1].extend(rows if isinstance(rows, range) else range(len(rows)))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    left = pd.DataFrame(keys, columns=[*KEYS, "rows"])
    each = np.repeat(np.arange(len(keys)), left.pop("rows"))
    left = _named(left).take(each).reset_index(drop=True)
    right = pd.concat([table.take(rows) for table, rows in tables], ignore_index=True)
    return pd.concat([left, _named(right)], axis=1)


def _named(table):
    return table.astype(dict.fromkeys([name for name in NAMES if name in table], "category"))


def _place(unit, level):
    return unit.arm, unit.replicate, level


def keys_of(unit, level, density):
    """What the rows of a level begin with: tuple, in the order of ``KEYS``."""
    return unit.config.experiment, unit.config.model, unit.arm, unit.replicate, level, density


def _provenance(study, facts):
    return {
        "config": presets.table(study.config),
        "units": [unit.key for unit in study.units],
        "levels": len(facts),
        "levels_expected": sum(len(unit.levels) for unit in study.units),
        "seconds_of_training": round(sum(f["seconds"] for f in facts), 1),
        **{name: sorted({str(f.get(name)) for f in facts}) for name in ORIGIN},
    }
