"""Masks: which weights are kept, by which criterion, and what is left alive behind them.

A mask is a dict, layer name -> boolean tensor of the weight's shape, True = kept. Biases are never
masked. How many weights are kept at a level is counted beforehand (`Config.schedule`); here it is
decided which. To add a criterion, write a function like those below and add a line to `methods.CRITERIA`.
"""

import math

import numpy as np
import torch
from torch import nn

from .methods import CRITERIA as CRITERIA  # where new ones are added
from .methods import find, function
from .models import ACTIVATIONS, build
from .schedule import ARCHITECTURES
from .unit import draw_seed

CURVATURE = 10_000  # training images over which second derivatives are averaged


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
    return keep_top(magnitudes(weights, mask), mask, counts)


# ------------------------------------------------------------------------------------------------------- criteria


def magnitudes(weights, mask, unit=None, data=None):
    """Final magnitudes (Han et al. 2015, section 3; Frankle & Carbin 2019, section 1)."""
    return {name: weights[f"{name}.weight"].abs() for name in mask}


def random_scores(weights, mask, unit, data):
    """One random ranking per replicate, as of :func:`random_mask`: what every criterion must be better than."""
    return _ranking(mask, unit.config.model, unit.config.seed, unit.replicate)


def saliencies(weights, mask, unit, data):
    """What Optimal Brain Damage expects the loss to rise by: h u^2 / 2 of a weight u (LeCun et al. 1990, section 2).

    The second derivatives h, of :func:`curvature`, are averaged over the first ``CURVATURE`` images trained on.
    """
    activation = unit.config.activation
    if activation == "default":
        activation = ARCHITECTURES[unit.config.model].activation
    second = curvature(weights, list(mask), data.first(CURVATURE)[0].cpu(), activation)
    return {name: second[name] * weights[f"{name}.weight"] ** 2 / 2 for name in mask}


def scored(unit, weights, mask, data):
    """Scores of every weight by the unit's criterion, the larger the better; parameters as of :func:`by_criterion`."""
    name = unit.config.criterion
    scores = function(find("criterion", name).scores)(weights, mask, unit, data)
    for layer, kept in mask.items():
        found = scores.get(layer) if isinstance(scores, dict) else None
        if not isinstance(found, torch.Tensor) or found.shape != kept.shape:
            what = tuple(found.shape) if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
            raise ValueError(f"criterion = {name!r}: its scores of {layer} are {what}, must be {tuple(kept.shape)}")
    return scores


def by_criterion(unit, weights, mask, counts, data):
    """The next mask, by the criterion and structure of the unit's config.

    Parameters
    ----------
    unit : Unit
    weights : dict of str to Tensor
        Weights and biases by parameter name, at the end of the level or where the criterion wants them, at its start.
    mask, counts
        As for :func:`keep_top`.
    data : lthcore.data.Split
        What was trained on.

    Returns
    -------
    dict of str to bool Tensor

    Raises
    ------
    ValueError
        If there is no such criterion, or it cannot score this network.
    """
    scores = scored(unit, weights, mask, data)
    if unit.config.structure == "filters":
        scores = by_filter(scores, mask, counts)
    return keep_top(scores, mask, counts)


def curvature(weights, layers, images, activation):
    """Second derivatives of the mean cross-entropy by each weight of a network of fully connected layers.

    Written for one image as L(z) of a layer's inputs to its activations, d2L/dw_ij^2 = x_j^2 H_ii, with the whole
    matrix H = d2L/dz2, not its diagonal alone, carried back through weights and activations (LeCun et al. 1990 drop
    what is off the diagonal). At the logits it is diag(p) - p p' = S S' with ten columns S, so S is what is carried.
    The activation's own second derivative is left out (their Levenberg-Marquardt form): for ReLU it is zero and the
    result exact; for tanh it is the Gauss-Newton diagonal, which is never negative.

    Parameters
    ----------
    weights : dict of str to Tensor
        Weights (out, in) and biases (out,) by parameter name, of any real dtype.
    layers : list of str
        From the input to the logits.
    images : (N, ...) Tensor
    activation : {"relu", "tanh", "identity"}

    Returns
    -------
    dict of str to Tensor
        By layer, of the weights' shapes; labels do not enter.

    Raises
    ------
    ValueError
        If a layer is a convolution.
    """
    if any(weights[f"{name}.weight"].dim() > 2 for name in layers):
        raise ValueError("criterion = 'obd': needs a network of fully connected layers, model = 'mlp'")
    out = {name: torch.zeros_like(weights[f"{name}.weight"]) for name in layers}
    for part in images.flatten(1).split(1000):
        x, inputs, slopes = part, [], []
        for name in layers:
            inputs.append(x)
            z = nn.functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
            x = ACTIVATIONS[activation](z)
            slopes.append(1 - x**2 if activation == "tanh" else (z > 0).to(z) if activation == "relu" else z * 0 + 1)
        p = z.softmax(1)
        s = torch.diag_embed(p.sqrt()) - p.sqrt()[:, :, None] * p[:, None]  # (N, 10, units): S', of each image
        for i, name in reversed(list(enumerate(layers))):
            out[name] += (s**2).sum(1).T @ inputs[i] ** 2 / len(images)
            if i:
                s = (s @ weights[f"{name}.weight"]) * slopes[i - 1][:, None]
    return out


def by_filter(scores, mask, counts):
    """Scores of whole filters, for pruning filter by filter (Li et al. 2017).

    A filter's score is the sum of its survivors' (of magnitudes: its L1 norm), and each of its weights has it. What
    reads a filter that goes, a kernel of the next convolution or columns behind the last, goes first.

    Parameters
    ----------
    scores, mask, counts
        As for :func:`keep_top`; `counts` those of whole filters.

    Returns
    -------
    dict of str to Tensor
    """
    out, left = {}, None
    for name, m in mask.items():
        value = torch.zeros(m.shape, dtype=torch.float64)
        if m.dim() == 4:
            value += (scores[name] * m).double().flatten(1).sum(1).view(-1, 1, 1, 1)
        if left is not None:
            value.view(len(m), len(left), -1)[:, ~left] = -math.inf
        out[name] = value
        left = (
            keep_top({name: value}, {name: m}, {name: counts[name]})[name].flatten(1).any(1) if m.dim() == 4 else None
        )
    return out


def without_filters(config, weights, mask):
    """The smaller network that is left when every filter without a surviving weight is taken out for real.

    Its tensors are smaller: the filter's own, the kernels of the next convolution that read it, and the columns behind
    the last. A removed filter still has its bias, and a constant activation, which nothing may read.

    Parameters
    ----------
    config : Config
    weights : dict of str to Tensor
    mask : dict of str to bool Tensor

    Returns
    -------
    torch.nn.Module
        With the outputs of the masked network.

    Raises
    ------
    ValueError
        If a surviving weight reads a removed filter.
    """
    net, left = build(config.model, config.activation, config.pool), None
    for name, m in mask.items():
        keep = m.flatten(1).any(1) if m.dim() == 4 else torch.ones(len(m), dtype=torch.bool)
        weight, bias = (weights[f"{name}.weight"] * m)[keep], weights[f"{name}.bias"][keep]
        if left is not None:
            if m.reshape(len(m), len(left), -1)[:, ~left].any():
                raise ValueError(f"{name} reads a filter that is removed: the mask is not one of whole filters")
            weight = weight.reshape(len(weight), len(left), -1)[:, left].reshape(len(weight), -1, *m.shape[2:])
        if m.dim() == 4:
            layer = nn.Conv2d(weight.shape[1], len(weight), m.shape[2:], padding=net.get_submodule(name).padding)
        else:
            layer = nn.Linear(weight.shape[1], len(weight))
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        setattr(net, name, layer)
        left = keep if m.dim() == 4 else None
    return net.requires_grad_(False)


def costs(net, shape):
    """What a network costs: dict with ``parameters``, and ``multiply_adds`` for one image of `shape` (C, H, W)."""
    products = []

    def count(layer, _, out):  # every weight once for each place of its output
        products.append(layer.weight.numel() * out[0].numel() // len(layer.weight))

    hooks = [layer.register_forward_hook(count) for layer in net.children()]
    net(torch.zeros(1, *shape))
    for hook in hooks:
        hook.remove()
    return {"parameters": sum(p.numel() for p in net.parameters()), "multiply_adds": sum(products)}


# -------------------------------------------------------------------------------------------- controls, diagnosis


def random_mask(mask, model, seed, replicate):
    """As many weights per tensor as `mask` keeps, chosen by one random ranking per replicate.

    The ranking depends on (seed, model, replicate) alone, so the random masks of a chain's levels are nested.
    """
    return keep_top(
        _ranking(mask, model, seed, replicate),
        {name: torch.ones_like(m) for name, m in mask.items()},
        {name: int(m.sum()) for name, m in mask.items()},
    )


def _ranking(mask, model, seed, replicate):
    """Every weight's place in a random order of its tensor, in [0, 1)."""
    random = np.random.default_rng(draw_seed(seed, "ranking", model, replicate))
    return {name: torch.from_numpy(random.permutation(m.numel()) / m.numel()).view_as(m) for name, m in mask.items()}


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
