"""Masks: which weights are kept, and by which criterion.

A mask is a dict, layer name -> boolean tensor of the weight's shape, True = kept. Biases are never
masked. How many weights are kept at a level is counted beforehand (`Config.schedule`); here it is
decided which. To add a criterion, write a function like those below and add a line to `methods.CRITERIA`.
"""

import numpy as np
import torch

from .data import Split
from .methods import STRUCTURES, find, function
from .schedule import ARCHITECTURES
from .unit import Unit, draw_seed

Tensors = dict[str, torch.Tensor]  # by layer, or by parameter name (``fc1.weight``)


def dense_mask(model: str) -> Tensors:
    """The mask of level 0: everything kept."""
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in ARCHITECTURES[model].weights.items()}


def keep_top(scores: Tensors, mask: Tensors, counts: dict[str, int]) -> Tensors:
    """Keep the survivors with the largest scores, exactly as many as counted: a subset of the mask.

    Parameters
    ----------
    scores : dict of str to Tensor
        Any real dtype, by layer; only survivors are compared, the earlier weight wins a tie.
    mask : dict of str to bool Tensor
        Survivors so far.
    counts : dict of str to int
        How many to keep, by layer, or under ``"*"`` for all the other layers ranked together.

    Raises
    ------
    ValueError
        If more are to be kept than survive, or a score of a survivor is not a number.
    """
    together = [name for name in mask if name not in counts]
    pools = [([name], counts[name]) for name in mask if name in counts]
    pools += [(together, counts["*"])] if together else []
    out = {}
    for names, count in pools:
        alive = torch.cat([mask[name].flatten() for name in names])
        where = alive.nonzero().flatten()
        score = torch.cat([scores[name].detach().flatten() for name in names])[where]
        if count > len(where):
            raise ValueError(f"cannot keep {count} weights of {'+'.join(names)}: only {len(where)} survive")
        if score.isnan().any():
            raise ValueError(f"a score of {'+'.join(names)} is not a number")
        kept = torch.zeros_like(alive)
        if count:  # the k-th largest takes linear time, and sorting does not
            least = score.kthvalue(len(score) - count + 1).values
            above, equal = where[score > least], where[score == least]
            kept[torch.cat([above, equal[: count - len(above)]])] = True
        for name, part in zip(names, kept.split([mask[name].numel() for name in names]), strict=True):
            out[name] = part.view_as(mask[name])
    return {name: out[name] for name in mask}


def magnitudes(weights: Tensors, mask: Tensors, unit: Unit | None = None, data: Split | None = None) -> Tensors:
    """Final magnitudes (Han et al. 2015, section 3; Frankle & Carbin 2019, section 1)."""
    return {name: weights[f"{name}.weight"].abs() for name in mask}


def random_scores(weights: Tensors, mask: Tensors, unit: Unit, data: Split) -> Tensors:
    """One random ranking per replicate, as of :func:`random_mask`: what every criterion must be better than."""
    return _ranking(mask, unit.config.model, unit.config.seed, unit.replicate)


def scored(unit: Unit, weights: Tensors, mask: Tensors, data: Split) -> Tensors:
    """Scores of every weight by the unit's criterion, the larger the better; parameters as of :func:`by_criterion`."""
    name = unit.config.criterion
    copies = [{key: value.clone() for key, value in part.items()} for part in (weights, mask)]  # its own to work on
    scores = function(find("criterion", name).scores)(*copies, unit, data)
    for layer, kept in mask.items():
        found = scores.get(layer) if isinstance(scores, dict) else scores
        if not isinstance(found, torch.Tensor) or found.shape != kept.shape:
            what = tuple(found.shape) if isinstance(found, torch.Tensor) else f"of type {type(found).__name__}"
            raise ValueError(f"criterion = {name!r}: its scores of {layer} are {what}, must be {tuple(kept.shape)}")
    return scores


def by_criterion(unit: Unit, weights: Tensors, mask: Tensors, counts: dict[str, int], data: Split) -> Tensors:
    """The next mask, by the criterion and structure of the unit's config.

    Parameters
    ----------
    weights : dict of str to Tensor
        Weights and biases by parameter name, at the end of the level or where the criterion wants them, at its start.
    mask, counts
        As for :func:`keep_top`.
    data : lthcore.data.Split
        What was trained on.
    """
    scores = scored(unit, weights, mask, data)
    if grouped := STRUCTURES[unit.config.structure]:
        scores = function(f"{grouped}:group_scores")(scores, mask, counts)
    return keep_top(scores, mask, counts)


def random_mask(mask: Tensors, model: str, seed: int, replicate: int) -> Tensors:
    """As many weights per tensor as `mask` keeps, chosen by one random ranking per replicate.

    The ranking depends on (seed, model, replicate) alone, so the random masks of a chain's levels are nested.
    """
    every = {name: torch.ones_like(m) for name, m in mask.items()}
    counts = {name: int(m.sum()) for name, m in mask.items()}
    return keep_top(_ranking(mask, model, seed, replicate), every, counts)


def _ranking(mask, model, seed, replicate):
    """Every weight's place in a random order of its tensor, in [0, 1)."""
    random = np.random.default_rng(draw_seed(seed, "ranking", model, replicate))
    return {name: torch.from_numpy(random.permutation(m.numel()) / m.numel()).view_as(m) for name, m in mask.items()}
