"""What pruning whole filters saves: the smaller network that is left, and its costs (Li et al. 2017)."""

import torch
from torch import nn

from ..models import build


def without_filters(config, weights, mask):
    """The smaller network without the filters that have no surviving weight.

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


def measure(unit, trained, data):
    """Rows of the network whose removed filters are taken out: what it costs, and how far its logits are from these."""
    images = data.test[0].cpu()
    net = without_filters(unit.config, trained.weights, trained.mask)
    difference = (net(images) - trained.logits).abs().max().item()
    facts = costs(net, images.shape[1:]) | {"smaller_apart": difference}
    step, epoch = max(row[:2] for row in trained.rows)
    return [(step, epoch, "mask", name, value) for name, value in facts.items()]
