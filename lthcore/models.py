"""The report's networks: plain modules, logits out, no softmax (the loss has it inside).

Sizes come from :data:`lthcore.schedule.ARCHITECTURES`, whose names of prunable weights are those of
the layers here; to add a model, add a line there.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .methods import function
from .schedule import ARCHITECTURES
from .unit import draw_seed

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "identity": lambda x: x}
POOLS = {"avg": F.avg_pool2d, "max": F.max_pool2d}


class Network(nn.Module):
    """The layers of an architecture by name, and the fully connected end that all of them share.

    To add a convolutional model, extend it by a ``forward``. Its arguments are a name in ``ARCHITECTURES``, names in
    ``ACTIVATIONS`` and ``POOLS``, and the share of the hidden fully connected units left out in training mode.
    """

    def __init__(self, name, activation, pool="avg", dropout=0.0):
        super().__init__()
        self.activation, self.pool, self.dropout = ACTIVATIONS[activation], POOLS[pool], dropout
        for layer, (out, into, *kernel) in ARCHITECTURES[name].weights.items():
            pad = self.padding(layer) if kernel else 0
            setattr(self, layer, nn.Conv2d(into, out, kernel, padding=pad) if kernel else nn.Linear(into, out))

    def padding(self, layer: str) -> int:
        """Width of the border of zeros around a convolution's input."""
        return 0

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        """Features (B, ...) through the fully connected layers, one after the other -> logits (B, 10)."""
        *hidden, last = [layer for layer in self.children() if isinstance(layer, nn.Linear)]
        x = x.flatten(1)
        for layer in hidden:
            x = self._drop(self.activation(layer(x)))
        return last(x)

    def _drop(self, x):
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class MLP(Network):
    """One fully connected layer after the other; LeNet-300-100: Frankle & Carbin 2019, section 2."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, 28, 28) -> logits (B, 10)."""
        return self.classify(x)


class LeNet5(Network):
    """The usual modern form of LeCun et al. 1998: 61,706 parameters, full C3 connectivity, plain pooling."""

    def padding(self, layer: str) -> int:
        return 2 if layer == "conv1" else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images (B, 1, 28, 28) -> logits (B, 10)."""
        x = self.pool(self.activation(self.conv1(x)), 2)  # (B, 6, 14, 14)
        x = self.pool(self.activation(self.conv2(x)), 2)  # (B, 16, 5, 5)
        return self.classify(x)


def build(
    model: str, activation: str = "default", pool: str = "avg", device: str = "cpu", dropout: float = 0.0
) -> nn.Module:
    """A network of that name, its values not yet drawn."""
    if activation == "default":
        activation = ARCHITECTURES[model].activation
    with torch.device(device):
        return function(ARCHITECTURES[model].module)(model, activation, pool, dropout)


def initial(model: str, seed: int, purpose: str, *keys: int | str, biases: str = "zero") -> dict[str, torch.Tensor]:
    """Fresh values, by parameter name (``fc1.weight``), on the CPU: Glorot-normal weights, biases as the setting says.

    The purpose is ``theta0``, whose one key is the replicate, so that the initial weights are the same under every
    optimizer, task and scope, or ``reinit``.
    """
    random = np.random.default_rng(draw_seed(seed, purpose, model, *keys))
    of_biases = np.random.default_rng(draw_seed(seed, f"{purpose} biases", model, *keys))
    values = {}
    for name, shape in ARCHITECTURES[model].weights.items():
        receptive = math.prod(shape[2:])
        std = math.sqrt(2 / ((shape[0] + shape[1]) * receptive))
        values[f"{name}.weight"] = torch.from_numpy((std * random.standard_normal(shape)).astype(np.float32))
        drawn = of_biases.standard_normal(shape[0]) if biases == "normal" else np.zeros(shape[0])
        values[f"{name}.bias"] = torch.from_numpy(drawn.astype(np.float32))
    return values
