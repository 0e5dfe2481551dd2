"""A second implementation of the training step, in plain torch, for the engines to be held against."""

import torch
import torch.nn.functional as F

from lthcore.engines.batched import optimizer
from lthcore.models import build


class Dense:
    """Plain torch on the CPU, one network; the interface of the engines.

    Parameters
    ----------
    values, mask, data, config
        As for :func:`lthcore.train.train`.
    """

    def __init__(self, values, mask, data, config):
        self.images, self.labels = data.train
        self.net, self.batch_size = build(config.model, config.activation, config.pool), config.batch_size
        self.net = self.net.to(memory_format=torch.channels_last)  # convolutions take a third less time
        self.restore(
            {name: v * mask[name.split(".")[0]] if name.endswith("weight") else v for name, v in values.items()}
        )
        self.masked = [(self.net.get_submodule(name).weight, m) for name, m in mask.items() if not m.all()]
        self.optimizer = optimizer(self.net.parameters(), config)

    def advance(self, order):
        """One step per batch of `order`, (n,) indices of training images: losses, (steps,) Tensor."""
        losses = []
        for batch in order.split(self.batch_size):
            loss = F.cross_entropy(self.net(self.images[batch]), self.labels[batch])
            self.optimizer.zero_grad()
            loss.backward()
            for weight, kept in self.masked:
                weight.grad.mul_(kept)  # no gradient, no moment, no step: a pruned weight stays exactly 0
            self.optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    def logits(self, images):
        """Logits (N, 10) of images (N, 1, 28, 28)."""
        with torch.no_grad():
            return torch.cat([self.net(x) for x in images.split(500)])

    def values(self):
        """Weights and biases as they are now: dict of str to Tensor, copies."""
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def restore(self, values):
        """Put these values in place of the present ones; the optimizer's moments stay."""
        self.net.load_state_dict(values)
