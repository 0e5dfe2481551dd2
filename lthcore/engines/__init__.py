"""What trains: compiled loops over the surviving weights on a CPU, torch with replicates as a leading axis anywhere.

To add an engine, write what :class:`lthcore.train.Engine` asks for and put a line before those below. The modules are
imported where they are used, so that numba is loaded only by what it trains.
"""

import torch

from ..config import Config
from ..methods import BUILT_IN, DATASETS, function
from ..models import MLP
from ..schedule import ARCHITECTURES
from ..train import ENGINES, Engine


class OneByOne:
    """Engines of one network each, behind the leading axis of replicates."""

    def __init__(self, engines):
        self.engines = engines

    def advance(self, order):
        """A step per batch of (R, n) places of training images: losses (steps, R)."""
        losses = []
        for engine, places in zip(self.engines, order, strict=True):
            losses.append(engine.advance(places))
        return torch.stack(losses, 1)

    def logits(self, images):
        """Logits (R, N, 10) of images (R, N, ...)."""
        return torch.stack([e.logits(x) for e, x in zip(self.engines, images, strict=True)])

    def values(self):
        """Weights and biases as they are now, with a leading axis R: dict of str to Tensor."""
        each = [engine.values() for engine in self.engines]
        return {name: torch.stack([values[name] for values in each]) for name in each[0]}

    def restore(self, values):
        """Put these values in place of the present ones."""
        for r, engine in enumerate(self.engines):
            engine.restore({name: v[r] for name, v in values.items()})


def _sparse_supports(config: Config, device: str) -> bool:
    """Fully connected networks of any number of layers, and LeNet-5, both of any sizes, on images of 28 x 28."""
    known = ARCHITECTURES[config.model]
    compiled = function(known.module) is MLP or _kernels(known) == _kernels(BUILT_IN["model"]["lenet5"])
    return device == "cpu" and not config.dropout and compiled and DATASETS[config.dataset].shape == (1, 28, 28)


def _kernels(known):
    """What a network is but for its numbers of units and filters."""
    return known.module, known.activation, [(name, shape[2:]) for name, shape in known.weights.items()]


def _sparse(values, masks, data, config, first=0):
    from .sparse import Sparse

    return OneByOne([Sparse(v, m, d, config, first) for v, m, d in zip(values, masks, data, strict=True)])


def _batched(values, masks, data, config, first=0):
    from .batched import Lockstep

    return Lockstep(values, masks, data, config, first=first)


SPARSE = Engine("Sparse", _sparse_supports, _sparse, skips_pruned=True)
BATCHED = Engine("Lockstep", lambda config, device: True, _batched)
ENGINES += [SPARSE, BATCHED]
