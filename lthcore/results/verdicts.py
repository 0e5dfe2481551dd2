"""What a published claim is judged by: one number with its interval, and the side of a bound. No torch."""

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .judging import HOLDS, REFUTED, UNRESOLVED, Outcome, constant, decide, needed
from .measures import PERCENT, PP, RATIO, last_fifth
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
        One per replicate: percent or pp of accuracy, steps, or ratios.
    above, below : float
        It holds if the whole interval lies in (above, below].
    fails_below : float
        It does not hold if the whole interval lies below this; by default below `above`.
    judged : bool
        False: shown beside the claim, part of no verdict.
    ratio : bool
        True: the values are ratios, whose mean is the geometric one; the interval is that of their logarithms.
    published : float
        The number that was published for it, if there is one.
    unit : str
        Of the values, as an axis says it.
    networks : tuple of (str, int)
        Arm and level of each network that it compares, where they are known.
    only_bounds : int
        How many of the values are only bounds, since a run never reaches what is counted and has its last step.
    """

    what: str
    level: int
    density: float
    values: pd.Series
    above: float = -math.inf
    below: float = math.inf
    fails_below: float | None = None
    judged: bool = True
    ratio: bool = False
    published: float = math.nan
    unit: str = PP
    networks: tuple = ()
    only_bounds: int = 0

    def __post_init__(self):
        if self.ratio:
            object.__setattr__(self, "unit", RATIO)

    def estimate(self):
        """n, mean, low and high of the 95% t-interval; equal values are counted and have no interval (NaN)."""
        n, mean, low, high = interval(self._scaled(self.values))
        if constant(self.values):
            low, high = math.nan, math.nan
        return (n, *(math.exp(x) if self.ratio else x for x in (mean, low, high)))

    @property
    def note(self):
        """The count that stands in for an interval where all values are equal, and how many are only bounds: str."""
        n = len(self.values)
        equal = f"{n} of {n} are {self.values.iloc[0]:.6g}" if constant(self.values) else ""
        bounds = f"{self.only_bounds} of {n} are only bounds: a run never gets there and counts with its last step"
        return "; ".join(part for part in (equal, bounds if self.only_bounds else "") if part)

    def p_values(self):
        """One-sided p-values for ``holds`` and for ``does not hold``: they tell which of several parts decides."""
        return decide(*self._scaled_with_bounds())[1:]

    def outcome(self):
        """Verdict and p-values: :class:`lthcore.results.judging.Outcome`."""
        return Outcome(self.verdict(), *self.p_values())

    def needed(self):
        """Replicates that would resolve it, see :func:`lthcore.results.judging.needed`; NaN where it is resolved."""
        return needed(*self._scaled_with_bounds()) if self.verdict() == UNRESOLVED else math.nan

    def verdict(self):
        """``holds``, ``does not hold`` or ``unresolved``; empty if it is only shown."""
        if not self.judged:
            return ""
        _, mean, low, high = self.estimate()
        if constant(self.values):
            return HOLDS if self.above < mean <= self.below else REFUTED
        if low > self.above and high <= self.below:
            return HOLDS
        if high < (self.above if self.fails_below is None else self.fails_below) or low > self.below:
            return REFUTED
        return UNRESOLVED

    def _scaled_with_bounds(self):
        return [self._scaled(x) for x in (self.values, self.above, self.below)]

    def _scaled(self, values):
        """Values or a bound on the scale of the t-interval: of ratios the logarithm, infinities as they are."""
        if not self.ratio or (np.isscalar(values) and not 0 < values < math.inf):
            return values
        return np.log(values)


def difference(frame, what, one, other, metric="", series=None, **bounds):
    """One network minus another, in accuracy over the last fifth of training or by another number of each.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows.
    what : str
        In words, with the level.
    one, other : (str, int)
        Arm and level.
    metric : str
        If given, what is compared at the last step, in the place of that mean accuracy.
    series : Series, optional
        If given, what is compared, over (arm, level, replicate).
    **bounds
        ``above``, ``below``, ``judged`` and ``published`` of :class:`Measure`.
    """
    if series is None:
        series = at_end(frame, metric) if metric else last_fifth(frame)
    values = paired(series, *one, *other)
    return Measure(what, one[1], density_at(frame, *one), values, networks=(one, other), **bounds)


def shown(frame, what, arm, level):
    """The accuracy of a network at the last step, which is part of no verdict."""
    values = paired(at_end(frame), arm, level)
    about = {"judged": False, "unit": PERCENT, "networks": ((arm, level),)}
    return Measure(what, level, density_at(frame, arm, level), values, **about)
