"""What a published claim is judged by: one number with its interval, and the side of a bound. No torch."""

import math
from dataclasses import dataclass

import pandas as pd

from .statistics import at_end, density_at, interval, paired

EARLY = {"metric": "early_accuracy"}  # at minimum validation loss, where the paper takes its numbers


@dataclass(frozen=True)
class Measure:
    """One number that a claim is judged by.

    Parameters
    ----------
    what : str
        In words, with the level.
    level, density : int, float
        Where it is taken.
    values : Series
        One per replicate: accuracy points, or steps.
    above, below : float
        It holds if the whole interval lies in (above, below].
    fails_below : float
        It does not hold if the whole interval lies below this; by default below `above`.
    judged : bool
        False: shown beside the claim, part of no verdict.
    """

    what: str
    level: int
    density: float
    values: pd.Series
    above: float = -math.inf
    below: float = math.inf
    fails_below: float | None = None
    judged: bool = True

    def verdict(self):
        """``holds``, ``does not hold`` or ``unresolved``; empty if it is only shown."""
        if not self.judged:
            return ""
        _, _, low, high = interval(self.values)
        if low > self.above and high <= self.below:
            return "holds"
        if high < (self.above if self.fails_below is None else self.fails_below) or low > self.below:
            return "does not hold"
        return "unresolved"


def difference(frame, what, one, other, metric="accuracy", **bounds):
    """One network less another, at the last step.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows.
    what : str
        In words, with the level.
    one, other : (str, int)
        Arm and level.
    metric : str
    **bounds
        ``above``, ``below`` and ``judged`` of :class:`Measure`.
    """
    values = paired(at_end(frame, metric), *one, *other)
    return Measure(what, one[1], density_at(frame, *one), values, **bounds)


def shown(frame, what, arm, level):
    """The accuracy of a network at the last step, which is part of no verdict."""
    return Measure(what, level, density_at(frame, arm, level), paired(at_end(frame), arm, level), judged=False)
