"""What is measured of finished networks, what a claim compares, and what a rule is. It knows no claim. No torch."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from ..methods import one_of
from .statistics import KEYS, at_end, early_steps, of_networks

DECIDING = 5  # confirmatory replicates that decide; fixed beforehand, so that nobody stops when the verdict pleases
FEWEST = 3  # with fewer nothing is judged
LEVEL = 0.05  # of the two-sided interval, and of Holm's procedure over a table of claims
PP = "difference in accuracy (pp)"  # units, as an axis says them
PERCENT = "test accuracy (%)"
RATIO = "ratio of training steps"


def last_fifth(frame, split="test"):
    """Accuracy over the last fifth of training: Series over (arm, level, replicate), in percent.

    The mean over the end-of-epoch evaluations of the last max(1, ceil(E / 5)) of E epochs. At a constant learning rate
    a network's accuracy moves from epoch to epoch as much as replicates differ; one step's value is mostly that noise.

    An evaluation is at the end of an epoch if its epoch is a whole number. Where a limit on the steps cuts the last
    epoch, the run's last evaluation counts as that epoch's end, and the cut epoch as one of the E. Evaluations that a
    short run does not have (validation within the first epochs) are left out of the mean.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows as of :func:`lthcore.studies.experiments.finished`.
    split : {"test", "validation", "train"}
    """
    return of_networks(_last_fifth_rows(frame, split), "value", "mean")


def _last_fifth_rows(frame, split):
    rows = frame[(frame["metric"] == "accuracy") & (frame["split"] == split)]
    rows = rows[[*KEYS, "step", "epoch", "value"]].astype({"epoch": float, "value": float})
    last = rows.groupby(KEYS, observed=True)["epoch"].transform("max")
    epochs = np.ceil(last)
    window = np.maximum(1, np.ceil(epochs / 5))
    ends = (rows["epoch"] % 1 == 0) | (rows["epoch"] == last)
    return rows[ends & (rows["epoch"] > epochs - window)]


def gap(frame):
    """Training minus test accuracy: Series over (arm, level, replicate), in pp.

    Over the evaluations of :func:`last_fifth` at which both are stored. Training accuracy is the metric ``accuracy`` of
    the split ``train``, in percent, over all images trained on; where no such rows exist the series is empty.
    """
    both = pd.merge(*(_last_fifth_rows(frame, split) for split in ("train", "test")), on=[*KEYS, "step"])
    return of_networks(both.assign(value=both["value_x"] - both["value_y"]), "value", "mean")


def steps_to(frame, accuracy):
    """First step at which the validation accuracy reaches `accuracy` percent.

    Returns
    -------
    DataFrame
        Over (arm, level, replicate): ``step``, and ``reached``; a run that never gets there has its last step.
    """
    rows = frame[(frame["metric"] == "accuracy") & (frame["split"] == "validation")]
    last = of_networks(rows, "step", "max")
    there = rows[rows["value"].astype(float) >= accuracy - 1e-9]
    first = of_networks(there, "step", "min").reindex(last.index)
    return pd.DataFrame({"step": first.fillna(last).astype(float), "reached": first.notna()})


@dataclass(frozen=True)
class Quantity:
    """One number per finished network.

    Parameters
    ----------
    words : str
        What it is, as a table says it.
    values : callable
        Tidy frame -> Series over (arm, level, replicate).
    ratio : bool
        True: two networks are compared by their ratio, replicates by the geometric mean.
    reached : callable or None
        Tidy frame -> bool Series over the same keys: False where the number is only a bound.
    """

    meaning: str
    values: Callable
    ratio: bool = False
    reached: Callable | None = None


def _steps(accuracy):
    return Quantity(
        f"steps to {accuracy}% validation accuracy",
        lambda frame: steps_to(frame, accuracy)["step"],
        ratio=True,
        reached=lambda frame: steps_to(frame, accuracy)["reached"],
    )


QUANTITIES = {
    "accuracy": Quantity("test accuracy, mean of the last fifth of training", last_fifth),
    "last_accuracy": Quantity("test accuracy at the last step", at_end),
    "early_accuracy": Quantity("test accuracy at minimum validation loss", partial(at_end, metric="early_accuracy")),
    "steps_to_97": _steps(97),
    "steps_to_98": _steps(98),
    "early_steps": Quantity("step of minimum validation loss", early_steps, ratio=True),
    "gap": Quantity("training minus test accuracy, mean of the last fifth of training", gap),
    "active_outputs": Quantity(
        "outputs with a path from the input", partial(at_end, metric="live_outputs", split="mask")
    ),
}


def declare_levels(frame, replicates, arm="ticket", tolerance=0.5):
    """The levels at which a chain is judged, chosen by validation accuracy (:func:`last_fifth`) on some replicates.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows.
    replicates : collection of int
        The exploratory replicates.
    arm : str
        The chain.
    tolerance : float
        Points below the dense network.

    Returns
    -------
    dict
        ``L``, the last level before the mean first falls more than `tolerance` below level 0's; ``B``, the level >= 1
        of the best mean; ``cliff``, the first level whose mean test accuracy is below 80%, or None.
    """
    rows = frame[(frame["arm"] == arm) & frame["replicate"].isin(replicates)]
    validation = last_fifth(rows, "validation").groupby("level").mean()
    test = last_fifth(rows).groupby("level").mean()
    fallen = min(validation.index[validation < validation[0] - tolerance], default=math.inf)
    below = test.index[test < 80]
    return {
        "L": int(max(validation.index[validation.index < fallen])),
        "B": int(validation[validation.index >= 1].idxmax()),
        "cliff": int(min(below)) if len(below) else None,
    }


def at_one_class(frame, accuracy=100 * 1028 / 4861, labels=(5, 6, 7, 8, 9)):
    """Networks whose accuracy at the last step is exactly the share of sevens: a row per network.

    Returns
    -------
    DataFrame
        arm, level, replicate, and ``instance``: whether it has an output among `labels` with a path from the input.
        Networks whose outputs were not measured are left out.
    """
    final = at_end(frame)
    found = final[np.isclose(final, accuracy, rtol=0, atol=1e-9)]
    active = pd.concat([at_end(frame, f"live_output:{label}", "mask") for label in labels], axis=1)
    instance = active.reindex(found.index).dropna().gt(0).any(axis=1)
    return instance.rename("instance").reset_index()


COUNTS = {"networks at exactly 1028/4861 with an active output among 5-9": at_one_class}


def side(above, below, closed=False):
    """The side of a bound in words: str."""
    low = "" if above == -math.inf else f"{'>=' if closed else '>'} {above:g}"
    high = "" if below == math.inf else f"{'<=' if closed else '<'} {below:g}"
    return " and ".join(part for part in (low, high) if part)


@dataclass(frozen=True)
class Comparison:
    """One comparison, and the side of a bound on which the claim wants it.

    Parameters
    ----------
    what : str
        What is compared, in words without the level.
    quantity : str
        A name in ``QUANTITIES``.
    first, second : (str, int)
        Arm and level. Of a quantity that is a ratio, `first` is divided by `second`; else `second` is subtracted;
        without a second, `first` alone.
    base : (str, int)
        If given, the share (first - base) / (second - base).
    above, below : float
        The claim's side: the interval lies in (above, below).
    closed : bool
        True: the bounds themselves are on the claim's side.
    also : tuple of str
        Other quantities of the same networks, shown beside it.
    """

    what: str
    quantity: str
    first: tuple
    second: tuple | None = None
    base: tuple | None = None
    above: float = -math.inf
    below: float = math.inf
    closed: bool = False
    also: tuple = ()

    def __post_init__(self):
        for name in (self.quantity, *self.also):
            if name not in QUANTITIES:
                raise ValueError(f"quantity = {name!r}: {one_of(name, QUANTITIES, str)}")

    @property
    def side(self):
        """The bound in words: str."""
        return side(self.above, self.below, self.closed)

    def unit(self, quantity):
        """The unit of what is compared, as an axis says it: str. `quantity` is its own or one of `also`."""
        if self.base is not None:
            return "share"
        if QUANTITIES[quantity].ratio:
            return RATIO
        if quantity == "active_outputs":
            return "outputs"
        return PERCENT if self.second is None else PP


@dataclass(frozen=True)
class Rule:
    """How one claim is judged.

    Parameters
    ----------
    id, experiment : str
        The experiment may be one that does not exist yet: then the claim is "not run".
    quotation, section : str
        The report's words, and where they stand.
    levels : str
        Why it is judged at the levels of its measures.
    parts : tuple of Comparison
        The claim holds if all of them do. It does not hold if one does not, unless `refuted_at` is given.
    refuted_at : tuple of Comparison
        For a claim that something happens at some level: it does not hold only if none of these does.
    shown : tuple of Comparison
        Part of no verdict.
    count : str
        A name in ``COUNTS``: the claim is judged by counting networks, and stands outside Holm's procedure.
    least : int
        Networks without a single instance that refute a claim judged by count.
    tolerance : float
        Slack given to the claim, in pp.
    reason : str
        Why that much, or why none.
    exploratory : tuple of int
        Replicates of seed `seed` that chose the levels or were seen before the rule was written.
    seed : int
    """

    id: str
    experiment: str
    quotation: str
    section: str
    levels: str
    parts: tuple = ()
    refuted_at: tuple = ()
    shown: tuple = ()
    count: str = ""
    least: int = 0
    tolerance: float = 0.0
    reason: str = ""
    exploratory: tuple = ()
    seed: int = 0

    def __post_init__(self):
        if bool(self.parts) == bool(self.count):
            raise ValueError(f"rule {self.id!r}: must have either parts or a count")
        if self.count and self.count not in COUNTS:
            raise ValueError(f"count = {self.count!r}: {one_of(self.count, COUNTS, str)}")
