"""The report's networks: plain modules, logits out, no softmax (the loss has it inside).

Sizes come from :data:`lthcore.config.ARCHITECTURES`, whose names of prunable weights are those of
the layers here.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .config import ARCHITECTURES, draw_seed

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "identity": lambda x: x}
POOLS = {"avg": F.avg_pool2d, "max": F.max_pool2d}


class MLP(nn.Module):
    """LeNet-300-100: 784-300-100-10, 266,610 parameters, 266,200 of them prunable (Frankle & Carbin 2019, section 2).

    Parameters
    ----------
    activation : {"relu", "tanh", "identity"}
    pool : str
        Ignored; every model is built by the same call.
    """

    def __init__(self, activation="relu", pool="avg"):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        for name, (out, into) in ARCHITECTURES["mlp"].weights.items():
            setattr(self, name, nn.Linear(into, out))

    def forward(self, x):
        """Images (B, 1, 28, 28) -> logits (B, 10)."""
        x = self.activation(self.fc1(x.flatten(1)))
        return self.head(self.activation(self.fc2(x)))


class LeNet5(nn.Module):
    """The usual modern form of LeCun et al. 1998: 61,706 parameters, full C3 connectivity, plain pooling.

    Parameters
    ----------
    activation : {"tanh", "relu", "identity"}
    pool : {"avg", "max"}
    """

    def __init__(self, activation="tanh", pool="avg"):
        super().__init__()
        self.activation, self.pool = ACTIVATIONS[activation], POOLS[pool]
        for name, shape in ARCHITECTURES["lenet5"].weights.items():
            out, into, *kernel = shape
            layer = (
                nn.Conv2d(into, out, kernel, padding=2 if name == "conv1" else 0) if kernel else nn.Linear(into, out)
            )
            setattr(self, name, layer)

    def forward(self, x):
        """Images (B, 1, 28, 28) -> logits (B, 10)."""
        x = self.pool(self.activation(self.conv1(x)), 2)  # (B, 6, 14, 14)
        x = self.pool(self.activation(self.conv2(x)), 2)  # (B, 16, 5, 5)
        x = self.activation(self.fc1(x.flatten(1)))
        return self.head(self.activation(self.fc2(x)))


MODELS = {"mlp": MLP, "lenet5": LeNet5}


def build(model, activation="default", pool="avg", device="cpu"):
    """A network of that name, its values not yet drawn: nn.Module."""
    if activation == "default":
        activation = ARCHITECTURES[model].activation
    with torch.device(device):
        return MODELS[model](activation=activation, pool=pool)


def initial(model, seed, purpose, *keys):
    """Fresh values: Glorot-normal weights, zero biases.

    Parameters
    ----------
    model : str
    seed : int
    purpose : {"theta0", "reinit"}
    *keys
        For ``theta0`` the replicate, nothing else: the same initial network under every optimizer, task and scope.

    Returns
    -------
    dict of str to float32 Tensor
        ``fc1.weight``, ``fc1.bias``, ...; on the CPU.
    """
    random = np.random.default_rng(draw_seed(seed, purpose, model, *keys))
    values = {}
    for name, shape in ARCHITECTURES[model].weights.items():
        receptive = math.prod(shape[2:])
        std = math.sqrt(2 / ((shape[0] + shape[1]) * receptive))
        drawn = std * random.standard_normal(shape)
        values[f"{name}.weight"] = torch.from_numpy(drawn.astype(np.float32))
        values[f"{name}.bias"] = torch.zeros(shape[0])
    return values
