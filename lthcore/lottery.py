"""Iterative magnitude pruning with rewinding: Frankle & Carbin 2019, section 1.

1. Initialise a network f(x; theta0).           `starting_values`
2. Train it.                                    `train_level`
3. Prune the smallest final magnitudes.         `prune_level`, by this criterion or another
4. Reset the survivors to their values in theta0, and repeat from 2.   `starting_values`, by `reset`

A *chain* is an arm that prunes for itself. More rewind rules: `methods.REWINDS`; to add one, add a function and a line.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch

from .data import Split
from .methods import DRAW_EARLY, PROBES, find, function
from .models import initial
from .pruning import Tensors, by_criterion, dense_mask, random_mask
from .train import Training, train
from .unit import Fresh, FreshHead, RandomLike, Unit


class TrainedLevel(NamedTuple):
    """One level: the mask it was trained under, what was measured, and the mask the next level starts from."""

    level: int
    mask: Tensors
    next_mask: Tensors | None  # None before pruning, after the last level, and for arms that do not prune
    weights: Tensors
    rows: list  # (step, epoch, split, metric, value)
    start: Tensors  # the values that the survivors started from
    logits: torch.Tensor  # (N_test, 10), at the last step
    first: int = 0  # the training step at which `start` was taken
    epochs: tuple = ()  # (step, weights) at the start and the end of every epoch, where an early mask is asked for


def find_ticket(chain: Unit, load: Callable[[Unit], Split]) -> Iterator[TrainedLevel]:
    """The loop itself: train, prune and rewind at every level.

    The queue of a study calls the same two functions, level by level, and stores what they return.

    Parameters
    ----------
    chain : Unit
        A unit that prunes for itself.
    load : callable
        Unit -> the data that it is trained and tested on, such as :func:`lthcore.data.load`.

    Yields
    ------
    TrainedLevel
        The ticket at a level is (its `mask`, :func:`starting_values`).
    """
    mask = dense_mask(chain.config.model)
    previous = None
    for level in chain.levels:
        (trained,) = train_level([chain], level, [mask], load, [previous])
        done = prune_level(chain, trained, load(chain))
        yield done
        mask = done.next_mask
        previous = done.weights


def train_level(
    units: list[Unit],
    level: int,
    masks: list[Tensors],
    load: Callable[[Unit], Split],
    previous: list[Tensors | None] | None = None,
    values: list[Tensors] | None = None,
) -> list[TrainedLevel]:
    """Train one level of an arm, of one replicate or several: rewind, train under the masks, measure.

    Parameters
    ----------
    units : list of Unit
        Identical except for their replicates.
    level : int
        One of their levels.
    masks : list of dict of str to bool Tensor
        The chains' masks at this level.
    load : callable
        Unit -> :class:`lthcore.data.Split`; also called for the chain of a unit, to train up to the rewind step.
    previous : list of dict of str to Tensor, optional
        Final weights and biases of the level before, for chains that continue from them.
    values : list of dict of str to Tensor, optional
        Values at ``config.rewind_step`` that each starts from, for a ticket that was found elsewhere; by default those
        of :func:`starting_values`.

    Returns
    -------
    list of TrainedLevel
        One per unit; :func:`prune_level` adds the next mask, because chains differing only in criterion share level 0.
    """
    config = units[0].config.at(level)
    if isinstance(units[0].mask, RandomLike):
        masks = [random_mask(m, config.model, config.seed, u.replicate) for u, m in zip(units, masks, strict=True)]
    if values:
        starts = [(v, config.rewind_step if level else 0) for v in values]
    else:
        pairs = zip(units, previous or [None] * len(units), strict=True)
        starts = [starting_values(unit, level, load, before) for unit, before in pairs]
    data = [load(unit) for unit in units]
    replicates = tuple(unit.replicate for unit in units)
    training = Training(config, level, replicates, units[0].subset, first=starts[0][1])
    epochs = []
    each_epoch = (lambda *of_epoch: epochs.append(of_epoch)) if config.early_bird and units[0].prunes else None
    trained = train([v for v, _ in starts], masks, data, training, each_epoch)
    levels = []
    for i, (unit, network) in enumerate(zip(units, trained, strict=True)):
        start, first = starts[i]
        kept = tuple((step, {name: v[i].cpu() for name, v in each.items()}) for step, each in epochs)
        done = TrainedLevel(level, masks[i], None, network.weights, network.rows, start, network.logits, first, kept)
        for probe in ("collapse", *unit.probes):
            done = done._replace(rows=done.rows + function(PROBES[probe])(unit, done, data[i]))
        levels.append(done)
    return levels


def prune_level(unit: Unit, trained: TrainedLevel, data: Split) -> TrainedLevel:
    """A trained level with the mask of its chain's next level.

    The mask is None after the last level, and for an arm that does not prune for itself. Where ``config.early_bird``
    asks for the mask of an early epoch, the rows of :func:`lthcore.probes.early_bird.draw` are added.
    """
    level = min((k for k in unit.levels if k > trained.level), default=None)
    if not unit.prunes or level is None:
        return trained
    counts = unit.config.schedule[level]
    if not trained.epochs:
        weights = weights_to_score(unit, trained)
        return trained._replace(next_mask=by_criterion(unit, weights, trained.mask, counts, data))
    masks = [by_criterion(unit, weights, trained.mask, counts, data) for _, weights in trained.epochs]
    drawn, rows = function(DRAW_EARLY)(unit, trained, level, masks)
    return trained._replace(next_mask=masks[drawn], rows=trained.rows + rows)


def weights_to_score(unit: Unit, trained: TrainedLevel) -> Tensors:
    """The weights of a level that the unit's criterion scores: its initial or its final ones."""
    return trained.start if find("criterion", unit.config.criterion).when == "start" else trained.weights


def starting_values(
    unit: Unit, level: int, load: Callable[[Unit], Split] | None, before: Tensors | None = None
) -> tuple[Tensors, int]:
    """The values that a level's survivors start from, and the step they belong to."""
    config = unit.config
    if isinstance(unit.start, Fresh):
        again = [] if unit.start == Fresh() else [unit.start.name]
        return initial(config.model, config.seed, "reinit", unit.replicate, level, *again), 0
    continued = level and unit.prunes  # a transferred mask is always reset
    rule = function(find("rewind", config.rewind).values) if continued else reset
    values, first = rule(unit, level, before and {name: v.clone() for name, v in before.items()}, load)
    if isinstance(unit.start, FreshHead):
        fresh = initial(config.model, config.seed, "reinit", unit.replicate, level)
        values = values | {name: fresh[name] for name in list(fresh)[-2:]}  # the last layer's weight and bias
    return values, first


def reset(unit: Unit, level: int, before: Tensors | None, load: Callable[[Unit], Split] | None) -> tuple[Tensors, int]:
    """The values at step `config.rewind_step` of the dense training: weight rewinding (Frankle & Carbin 2019, step 0).

    For a later step (Frankle et al. 2020, *Stabilizing*) the chain's dense network is retrained to it, bit for bit.
    """
    chain = unit.chain
    theta0 = initial(unit.config.model, unit.config.seed, "theta0", unit.replicate)
    k = unit.config.rewind_step if level else 0
    if k == 0:
        return theta0, 0
    training = Training(chain.config, 0, (unit.replicate,), chain.subset, last=k)
    (dense,) = train([theta0], [dense_mask(unit.config.model)], [load(chain)], training)
    return dense.weights, k


def final(unit: Unit, level: int, before: Tensors | None, load: Callable[[Unit], Split] | None) -> tuple[Tensors, int]:
    """The final weights of the level before (Han et al. 2015): no reset.

    With the full length and rate of training this is learning-rate rewinding (Renda et al. 2020), since our rate is
    constant; with lower `retrain_epochs` and `retrain_lr` it is fine-tuning. The optimizer's moments are reset.
    """
    if before is None:
        raise ValueError(f"rewind = 'final': level {level} continues from the level before, whose weights are missing")
    return before, 0
