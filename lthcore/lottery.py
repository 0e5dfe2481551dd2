"""Iterative magnitude pruning: reset to theta0 (Frankle & Carbin 2019, section 1), or another rewind rule.

1. Initialise a network f(x; theta0).           `starting_values`
2. Train it.                                    `train_level`
3. Prune the smallest final magnitudes.         `prune_level`, by this criterion or another
4. Reset the survivors to their values in theta0, and repeat from 2.   `starting_values`, by `reset`

A *chain* is a unit (one arm of one replicate) that prunes for itself; other units take its masks.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch

from .data import Split
from .methods import DRAW_EARLY, PROBES, find, function
from .models import initial
from .pruning import Tensors, by_criterion, dense_mask, random_mask
from .train import Training, train
from .unit import Altered, Fresh, FrozenOutside, RandomLike, Unit

Load = Callable[[Unit], Split]
Start = tuple[Tensors, int]  # weights and biases, of pruned entries too, and the step from which training counts


class TrainedLevel(NamedTuple):
    """One level: the weights that it has, what was measured, and the mask the next level starts from."""

    level: int
    mask: Tensors
    next_mask: Tensors | None  # set by `prune_level`; None at the last level, and for units that do not prune
    weights: Tensors  # final weights and biases, by parameter name
    rows: list  # what was measured: (step, epoch, split such as "test", metric such as "accuracy", value)
    start: Tensors  # weights and biases that training started from, those of pruned entries included
    logits: torch.Tensor  # (N_test, 10), at the last step
    first: int = 0  # the step from which training counts: 0, or the rewind step
    epochs: tuple = ()  # (step, weights) at the start and after every epoch, where they are asked for


def find_ticket(chain: Unit, load: Load) -> Iterator[TrainedLevel]:
    """The loop itself: train, prune and rewind at every level, the dense network first.

    A study's queue calls :func:`train_level` and :func:`prune_level` itself and stores what they return.

    Parameters
    ----------
    chain : Unit
        A unit that prunes for itself.
    load : callable
        Unit -> the data that it is trained and tested on, such as :func:`lthcore.data.load`.

    Yields
    ------
    TrainedLevel
        Its sparse network is (`mask`, `start`); whether that is a winning ticket is not decided here.
    """
    mask, previous = dense_mask(chain.config.model), None
    for level in chain.levels:
        (trained,) = train_level([chain], level, [mask], load, [previous])
        pruned = prune_level(chain, trained, load(chain))
        yield pruned
        mask, previous = pruned.next_mask, pruned.weights


def train_level(
    units: list[Unit],
    level: int,
    masks: list[Tensors],
    load: Load,
    previous: list[Tensors | None] | None = None,
    values: list[Tensors] | None = None,
) -> list[TrainedLevel]:
    """Train one level of one arm, for one or more replicates: rewind, train under the masks, measure.

    Parameters
    ----------
    units : list of Unit
        Identical except for their replicates.
    level : int
        One of their levels.
    masks : list of dict of str to bool Tensor
        The chains' masks at this level; a :class:`RandomLike` unit takes random ones with the same counts by layer.
    load : callable
        Unit -> :class:`lthcore.data.Split`; called for the chain too, where its dense network is trained again.
    previous : list of dict of str to Tensor, optional
        Final weights and biases of the level before, for chains that continue from them.
    values : list of dict of str to Tensor, optional
        Starting weights of each unit, at ``config.rewind_step``, for a ticket that was found elsewhere; by default
        those of :func:`starting_values`.

    Returns
    -------
    list of TrainedLevel
        One per unit. :func:`prune_level` adds the next mask: chains that differ in criterion share one dense network.
    """
    config = replace(units[0].config.at(level), frozen=isinstance(units[0].mask, FrozenOutside))
    if isinstance(units[0].mask, RandomLike):
        masks = [random_mask(m, config.model, config.seed, u.replicate) for u, m in zip(units, masks, strict=True)]
    if values:
        starts = [(v, config.rewind_step if level else 0) for v in values]
    else:
        pairs = zip(units, previous or [None] * len(units), strict=True)
        starts = [starting_values(unit, level, load, before) for unit, before in pairs]
    data = [load(unit) for unit in units]
    training = Training(config, level, tuple(u.replicate for u in units), units[0].subset, first=starts[0][1])
    epochs, probes = [], [function(PROBES[name]) for name in ("collapse", *units[0].probes)]
    wanted = (config.early_bird and units[0].prunes) or any(getattr(probe, "each_epoch", False) for probe in probes)
    each_epoch = (lambda *of_epoch: epochs.append(of_epoch)) if wanted else None
    trained = train([v for v, _ in starts], masks, data, training, each_epoch)
    levels = []
    for i, (unit, network) in enumerate(zip(units, trained, strict=True)):
        start, first = starts[i]
        each = tuple((step, {name: v[i].cpu() for name, v in weights.items()}) for step, weights in epochs)
        mask = dense_mask(config.model) if config.frozen else masks[i]
        result = TrainedLevel(level, mask, None, network.weights, network.rows, start, network.logits, first, each)
        for probe in probes:
            result = result._replace(rows=result.rows + probe(unit, result, data[i]))
        levels.append(result)
    return levels


def prune_level(unit: Unit, trained: TrainedLevel, data: Split) -> TrainedLevel:
    """Choose the mask of the next level: `trained` with its ``next_mask`` set.

    The last level, and units that do not prune, come back as they are. With ``config.early_bird`` the mask is that of
    an early epoch, and the rows of :func:`lthcore.probes.early_bird.draw` are added.
    """
    next_level = min((k for k in unit.levels if k > trained.level), default=None)
    if not unit.prunes or next_level is None:
        return trained
    counts = unit.config.schedule[next_level]
    early = bool(unit.config.early_bird)
    seen = [weights for _, weights in trained.epochs] if early else [weights_to_score(unit, trained)]
    masks = [by_criterion(unit, weights, trained.mask, counts, data) for weights in seen]
    drawn, rows = function(DRAW_EARLY)(unit, trained, next_level, masks) if early else (0, [])
    return trained._replace(next_mask=masks[drawn], rows=trained.rows + rows)


def weights_to_score(unit: Unit, trained: TrainedLevel) -> Tensors:
    """What the unit's criterion scores, by parameter name: the weights a level started from, or its final ones."""
    return trained.start if find("criterion", unit.config.criterion).when == "start" else trained.weights


def starting_values(unit: Unit, level: int, load: Load | None, before: Tensors | None = None) -> Start:
    """What a level starts from, by the unit's start and its chain's rewind rule."""
    if isinstance(unit.start, Fresh):
        further_draw = [] if unit.start == Fresh() else [unit.start.name]
        return drawn(unit, "reinit", level, *further_draw), 0
    rule = find("rewind", unit.chain.config.rewind)
    call = function(rule.values) if level and (unit.prunes or rule.for_others) else reset
    given = call(unit, level, before and {name: v.clone() for name, v in before.items()}, load)
    values, first = given if isinstance(given, tuple) and len(given) == 2 else (None, 0)
    shapes = {name: tuple(v.shape) for name, v in drawn(unit, "theta0").items()}
    if not isinstance(values, dict) or {name: tuple(getattr(v, "shape", ())) for name, v in values.items()} != shapes:
        raise ValueError(f"rewind = {unit.chain.config.rewind!r}: must give weights and biases {shapes}, and a step")
    if isinstance(unit.start, Altered):
        values = function(f"{unit.start.module}:{unit.start.name}")(unit, level, values)
    return values, first


def drawn(unit: Unit, purpose: str, *keys: int | str) -> Tensors:
    """:func:`lthcore.models.initial` by the settings and the replicate of a unit."""
    config = unit.config
    return initial(config.model, config.seed, purpose, unit.replicate, *keys, biases=config.biases)


def reset(unit: Unit, level: int, before: Tensors | None, load: Load | None) -> Start:
    """The dense network's weights at step `config.rewind_step`, and that step. At step 0, and at level 0, it is theta0.

    For a later step (weight rewinding; Renda et al. 2020) the dense network is trained again up to it.
    """
    chain, theta0 = unit.chain, drawn(unit, "theta0")
    k = unit.config.rewind_step if level else 0
    if k == 0:
        return theta0, 0
    training = Training(chain.config, 0, (unit.replicate,), chain.subset, last=k)
    (dense,) = train([theta0], [dense_mask(unit.config.model)], [load(chain)], training)
    return dense.weights, k


def final(unit: Unit, level: int, before: Tensors | None, load: Load | None) -> Start:
    """The final weights of the level before (Han et al. 2015). The optimizer starts afresh.

    A level that then trains as long and at the same constant rate as the dense network is learning-rate rewinding
    (Renda et al. 2020). With a lower `retrain_epochs` or `retrain_lr` it is fine-tuning.
    """
    if before is None:
        raise ValueError(f"rewind = 'final': level {level} continues from the level before, whose weights are missing")
    return before, 0
