"""Criteria that score weights before any training: SNIP (Lee et al. 2019) and SynFlow (Tanaka et al. 2020)."""

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import functional_call

from ..models import build
from ..pruning import keep_top
from ..unit import draw_seed
from . import trained_on

IMAGES = 100  # SNIP's one mini-batch
ROUNDS = 100  # SynFlow's, from one density to the next


def snip(weights, mask, unit, data):
    """SNIP's connection sensitivity |w dL/dw| on one random mini-batch (Lee et al. 2019, section 4).

    SNIP prunes once. So the whole network is scored at every level, whatever its mask. Where every level starts from
    theta0, its mask is the one that pruning theta0 at once to that density gives.
    """
    config = unit.config
    images, labels = trained_on(data, data.trained_on)
    random = np.random.default_rng(draw_seed(config.seed, "snip", config.experiment, unit.replicate))
    batch = torch.from_numpy(random.permutation(data.trained_on)[:IMAGES]).to(labels.device)
    net = build(config.model, config.activation, config.pool).double()
    values = {name: value.double().requires_grad_() for name, value in weights.items()}
    loss = F.cross_entropy(functional_call(net, values, (images[batch].cpu().double(),)), labels[batch].cpu())
    of_weights = [values[f"{name}.weight"] for name in mask]
    gradients = torch.autograd.grad(loss, of_weights)
    return {name: (w * g).abs().detach() for name, w, g in zip(mask, of_weights, gradients, strict=True)}


def synflow(weights, mask, unit, data):
    """The order in which SynFlow prunes, from this mask to the next level's (Tanaka et al. 2020, algorithm 1).

    Weights are pruned in ``ROUNDS`` rounds, whose densities fall exponentially, by :func:`flow`. What is pruned in an
    earlier round scores less, and all of it less than 0; what is left has its last flow. No data enter. The paper takes
    its rounds from the dense network to one density; here each level begins with the mask of the level before.
    """
    kept = sum(int(m.sum()) for m in mask.values())
    later = [counts for counts in map(unit.config.schedule.__getitem__, unit.levels) if sum(counts.values()) < kept]
    if not later:
        return flow(weights, mask)
    goal = later[0]
    pools = {pool: [pool] if pool in mask else [name for name in mask if name not in goal] for pool in goal}
    now = {pool: sum(int(mask[name].sum()) for name in names) for pool, names in pools.items()}
    left, order = mask, {}
    for i in range(1, ROUNDS + 1):
        found = flow(weights, left)
        counts = {pool: round(n * (goal[pool] / n) ** (i / ROUNDS)) if n else 0 for pool, n in now.items()}
        after = keep_top(found, left, counts)
        largest = max(float(score.max()) for score in found.values()) or 1.0
        for name, score in found.items():
            pruned = left[name] & ~after[name]
            order[name] = torch.where(pruned, i - ROUNDS - 1 + score / (2 * largest), order.get(name, score))
        left = after
    found = flow(weights, left)
    return {name: torch.where(left[name], found[name], order[name]) for name in mask}


def flow(weights, mask):
    """Synaptic flow: of each weight, the share in R, the summed outputs of the network of absolute values.

    That network is given an image of ones and has no activation, so R = 1' |W_L| ... |W_1| 1 (Tanaka et al. 2020,
    section 6); absolute biases are added where there are any. The score is |w| dR/d|w|, 0 where the mask prunes.

    Parameters
    ----------
    weights : dict of str to Tensor
        Weights (out, in) and biases (out,) of fully connected layers, by parameter name.
    mask : dict of str to bool Tensor
        By layer, from the input to the outputs.

    Returns
    -------
    dict of str to Tensor
        float64, by layer.
    """
    sizes = {name: weights[f"{name}.weight"].double().abs() * kept for name, kept in mask.items()}
    into, below = torch.ones(next(iter(sizes.values())).shape[1], dtype=torch.float64), {}
    for name, size in sizes.items():
        below[name] = into
        into = size @ into + weights[f"{name}.bias"].double().abs()
    above, out = torch.ones_like(into), {}
    for name, size in reversed(sizes.items()):
        out[name] = above[:, None] * size * below[name]
        above = size.T @ above
    return {name: out[name] for name in mask}
