"""Second derivatives of the loss by each weight, and Optimal Brain Damage's saliencies (LeCun et al. 1990)."""

import torch
from torch import nn

from ..models import ACTIVATIONS
from ..schedule import ARCHITECTURES
from . import trained_on

CURVATURE = 10_000  # training images over which second derivatives are averaged


def saliencies(weights, mask, unit, data):
    """What Optimal Brain Damage expects the loss to rise by: h u^2 / 2 of a weight u (LeCun et al. 1990, section 2).

    The second derivatives h, of :func:`curvature`, are averaged over the first ``CURVATURE`` images trained on.
    """
    activation = unit.config.activation
    if activation == "default":
        activation = ARCHITECTURES[unit.config.model].activation
    second = curvature(weights, list(mask), trained_on(data, CURVATURE)[0].cpu(), activation)
    return {name: second[name] * weights[f"{name}.weight"] ** 2 / 2 for name in mask}


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
