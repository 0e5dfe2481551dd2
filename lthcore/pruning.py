"""Masks: which weights are kept, by which criterion, and what is left alive behind them.

A mask is a dict, layer name -> boolean tensor of the weight's shape, True = kept. Biases are never
masked. How many weights are kept at a level is counted beforehand (`Config.schedule`); here it is
decided which.
"""

import numpy as np
import torch

from .config import ARCHITECTURES, draw_seed
from .models import build


def dense_mask(model):
    """The mask of level 0: everything kept."""
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in ARCHITECTURES[model].weights.items()}


def keep_top(scores, mask, counts):
    """Keep the survivors with the largest scores, exactly as many as counted.

    Parameters
    ----------
    scores : dict of str to Tensor
        Any real dtype, by layer; only survivors are compared, the earlier weight wins a tie.
    mask : dict of str to bool Tensor
        Survivors so far.
    counts : dict of str to int
        How many to keep, by layer, or under ``"*"`` for all the other layers ranked together.

    Returns
    -------
    dict of str to bool Tensor
        A subset of `mask`.

    Raises
    ------
    ValueError
        If more are to be kept than survive, or a score of a survivor is not a number.
    """
    together = [name for name in mask if name not in counts]
    pools = [([name], counts[name]) for name in mask if name in counts]
    if together:
        pools.append((together, counts["*"]))
    out = {}
    for names, count in pools:
        alive = torch.cat([mask[name].flatten() for name in names])
        score = torch.cat([scores[name].detach().flatten() for name in names])
        where = alive.nonzero().flatten()
        if count > len(where):
            raise ValueError(f"cannot keep {count} weights of {'+'.join(names)}: only {len(where)} survive")
        if score[where].isnan().any():
            raise ValueError(f"a score of {'+'.join(names)} is not a number")
        order = torch.argsort(score[where], descending=True, stable=True)
        kept = torch.zeros_like(alive)
        kept[where[order[:count]]] = True
        for name, part in zip(names, kept.split([mask[name].numel() for name in names]), strict=True):
            out[name] = part.view_as(mask[name])
    return {name: out[name] for name in mask}


def magnitude(weights, mask, counts):
    """Prune the smallest final magnitudes (Frankle & Carbin 2019, section 1).

    Parameters are those of :func:`keep_top`, with the trained `weights` by parameter name
    (``fc1.weight``) in place of scores.
    """
    return keep_top({name: weights[f"{name}.weight"].abs() for name in mask}, mask, counts)


def random_mask(mask, model, seed, replicate):
    """As many weights per tensor as `mask` keeps, chosen by one random ranking per replicate.

    The ranking depends on (seed, model, replicate) alone, so the random masks of a chain's levels are nested.
    """
    random = np.random.default_rng(draw_seed(seed, "ranking", model, replicate))
    ranking = {name: torch.from_numpy(random.permutation(m.numel())).view_as(m) for name, m in mask.items()}
    return keep_top(
        ranking,
        {name: torch.ones_like(m) for name, m in mask.items()},
        {name: int(m.sum()) for name, m in mask.items()},
    )


def mask_distance(one, other):
    """Share of the weights that one of two masks keeps and the other does not (You et al. 2020), in [0, 1]."""
    return sum(int((m ^ other[name]).sum()) for name, m in one.items()) / sum(m.numel() for m in one.values())


def chance_distance(mask):
    """The expected :func:`mask_distance` of two random masks with as many weights per tensor as `mask`.

    Of n weights two random masks of density d differ in 2 d (1 - d) n.
    """
    kept = [(int(m.sum()), m.numel()) for m in mask.values()]
    return sum(2 * k * (n - k) / n for k, n in kept) / sum(n for _, n in kept)


def early_bird(distances, threshold, last=5):
    """The first epoch at which no two of the last five masks differ by as much as `threshold`.

    You et al. 2020 keep the masks of the last five epochs and stop when the greatest distance among them is below 0.1.

    Parameters
    ----------
    distances : (E + 1, E + 1) array of float
        Between the masks after each epoch; row 0 is the mask before the first step, which is not waited for.
    threshold : float
    last : int
        How many masks must agree.

    Returns
    -------
    int
        In 1..E; E where they never agree.
    """
    epochs = range(1, len(distances))
    agree = (e for e in epochs[last - 1 :] if distances[e - last + 1 : e + 1, e - last + 1 : e + 1].max() < threshold)
    return next(agree, epochs[-1])


def on_path(model, mask):
    """Kept weights that lie on a path from an input pixel to an output.

    The network is run on an image of ones with its mask for weights, no biases, nothing non-linear and
    average pooling: an activation then counts paths, and (weight x gradient of the summed outputs) is
    positive exactly on live paths. Exact for convolutions and their borders as well.

    Returns
    -------
    dict of str to bool Tensor
        A subset of `mask`.
    """
    net = build(model, activation="identity", pool="avg").double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            layer, kind = name.split(".")
            parameter.copy_(mask[layer]) if kind == "weight" else parameter.zero_()
    net(torch.ones(1, 1, 28, 28, dtype=torch.float64)).sum().backward()
    return {name: m & (net.get_submodule(name).weight.grad > 0) for name, m in mask.items()}


def diagnose(model, mask):
    """What is left alive: the collapse diagnosis.

    Returns
    -------
    dict of str to float
        ``kept:<layer>`` and ``on_path:<layer>`` (weights), ``live_units:<layer>`` (units, filters or
        outputs on a live path), ``live_outputs``, ``density`` and ``effective_density`` in [0, 1].
    """
    live = on_path(model, mask)
    facts = {}
    for name in mask:
        facts[f"kept:{name}"] = int(mask[name].sum())
        facts[f"on_path:{name}"] = int(live[name].sum())
        facts[f"live_units:{name}"] = len(live_units(live, name))
    total = sum(m.numel() for m in mask.values())
    facts["live_outputs"] = facts[f"live_units:{name}"]  # the last layer's
    facts["density"] = sum(int(m.sum()) for m in mask.values()) / total
    facts["effective_density"] = sum(int(m.sum()) for m in live.values()) / total
    return facts


def live_units(live, layer):
    """Indices of the layer's units on a live path, from the masks of :func:`on_path`: list of int."""
    return live[layer].flatten(1).any(1).nonzero().flatten().tolist()
