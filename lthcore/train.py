"""Train one network under a mask: a tight loop over tensors, on the CPU or a GPU."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .config import draw_seed
from .models import build

CHUNK = 500  # images evaluated at once: their activations stay in the cache


class Trained(NamedTuple):
    """What training gives: final weights, the curve, and the final logits on the test images."""

    weights: dict  # parameter name -> float32 Tensor on the CPU, at the last step
    rows: list  # (step, epoch, split, metric, value)
    logits: torch.Tensor  # (N_test, 10) at the last step, on the CPU


def steps_per_epoch(config, images):
    """Optimizer steps in one pass over `images` training images; a last, short batch is trained on."""
    return math.ceil(images / config.batch_size)


def total_steps(config, images):
    """Optimizer steps of one level."""
    steps = config.epochs * steps_per_epoch(config, images)
    return min(steps, config.max_steps) if config.max_steps else steps


def evaluation_steps(config, images):
    """Steps at which a level is evaluated: (validation, test), two sets of int.

    Validation every 100 steps during the first 15 epochs, then once an epoch; test at steps 0, 10, 30,
    100, 300, then once an epoch; both at the last step.
    """
    total, epoch = total_steps(config, images), steps_per_epoch(config, images)
    ends = set(range(epoch, total + 1, epoch)) | {total}
    validation = set(range(0, min(total, 15 * epoch) + 1, 100)) | {s for s in ends if s > 15 * epoch} | {total}
    return validation, {s for s in (0, 10, 30, 100, 300) if s <= total} | ends


def train(values, mask, data, config, *, level, replicate, subset, first=0, last=None):
    """Train `values` under `mask`; what is pruned is exactly zero before and after every step.

    Parameters
    ----------
    values : dict of str to Tensor
        Starting weights and biases by parameter name.
    mask : dict of str to bool Tensor
        By layer name; True = kept.
    data : lthcore.data.Split
        On the device to train on.
    config : Config
    level, replicate, subset
        Keys, with the seed and the epoch, of the order of the batches; the same for all arms at a level.
    first, last : int
        Train from step `first` (late rewinding) to step `last`; by default from 0 to the end.

    Returns
    -------
    Trained

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names the level and the step.
    """
    torch.set_flush_denormal(True)  # moments that fade away must not slow the rest down
    try:
        return _train(values, mask, data, config, level, replicate, subset, first, last)
    finally:
        torch.set_flush_denormal(False)  # it holds for the whole process, which is not ours alone


def _train(values, mask, data, config, level, replicate, subset, first, last):
    labels = data.train[1]
    epoch_steps, total = steps_per_epoch(config, len(labels)), total_steps(config, len(labels))
    last = total if last is None else last
    at_validation, at_test = evaluation_steps(config, len(labels))
    stops = sorted(
        {first, last} | {s for s in at_validation | at_test | set(range(0, last, epoch_steps)) if first < s < last}
    )
    engine = choose_engine(config, mask, labels.device)(values, mask, data, config)
    watch = _Watch(engine, data, epoch_steps, level)
    for step, stop in zip(stops, [*stops[1:], last], strict=True):
        watch.look(step, step in at_validation or step == last, step in at_test or step == last)
        if step == last:
            break
        if step == first or step % epoch_steps == 0:
            seed = draw_seed(config.seed, "order", replicate, subset, level, step // epoch_steps)
            order = torch.from_numpy(np.random.default_rng(seed).permutation(len(labels))).to(labels.device)
        at = step % epoch_steps
        losses = engine.advance(order[at * config.batch_size : (at + stop - step) * config.batch_size])
        watch.check(losses, step)
    return watch.finish(last)


def choose_engine(config, mask, device):
    """The class that trains under this mask on this device; decided by model, density and device alone."""
    if torch.device(device).type != "cpu":
        return Dense
    from .sparse import Full, Sparse  # here, so that numba is imported only where it is used

    density = sum(int(m.sum()) for m in mask.values()) / sum(m.numel() for m in mask.values())
    return Full if config.model == "mlp" and density > 0.85 else Sparse  # measured: whole products pay from there on


class Dense:
    """Plain torch, on any device: the reference for every faster engine.

    Parameters
    ----------
    values, mask, data, config
        As for :func:`train`.
    """

    def __init__(self, values, mask, data, config):
        self.images, self.labels = data.train
        device = self.labels.device
        self.net, self.batch_size = build(config.model, config.activation, config.pool, device), config.batch_size
        if device.type == "cpu":
            self.net = self.net.to(memory_format=torch.channels_last)  # convolutions take a third less time
        else:
            torch.backends.cudnn.deterministic = True
        self.restore(
            {name: v * mask[name.split(".")[0]] if name.endswith("weight") else v for name, v in values.items()}
        )
        self.masked = [(self.net.get_submodule(name).weight, m.to(device)) for name, m in mask.items() if not m.all()]
        rule, extra = (
            (torch.optim.Adam, {}) if config.optimizer == "adam" else (torch.optim.SGD, {"momentum": config.momentum})
        )
        self.optimizer = rule(self.net.parameters(), lr=config.lr, fused=True, **extra)

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
            losses.append(loss.detach())  # looked at later: no synchronisation with the device in between
        return torch.stack(losses)

    def logits(self, images):
        """Logits (N, 10) of images (N, 1, 28, 28)."""
        with torch.no_grad():
            return torch.cat([self.net(x) for x in images.split(CHUNK)])

    def values(self):
        """Weights and biases as they are now: dict of str to Tensor, copies."""
        return {name: value.clone() for name, value in self.net.state_dict().items()}

    def restore(self, values):
        """Put these values in place of the present ones; the optimizer's moments stay."""
        self.net.load_state_dict(values)


class _Watch:
    """Evaluates while the engine trains, and remembers where the validation loss was least."""

    def __init__(self, engine, data, epoch_steps, level):
        self.engine, self.data, self.epoch_steps, self.level = engine, data, epoch_steps, level
        self.rows, self.best, self.logits = [], None, None

    def look(self, step, validation, test):
        if validation and self.data.validation:
            loss = self._note(step, "validation", self.data.validation)
            if self.best is None or loss < self.best[0]:
                self.best = loss, step, self.engine.values()
        if test:
            self._note(step, "test", self.data.test)

    def _note(self, step, split, part, prefix=""):
        images, labels = part
        self.logits = self.engine.logits(images)
        loss = F.cross_entropy(self.logits.double(), labels).item()
        accuracy = 100 * (self.logits.argmax(1) == labels).double().mean().item()
        self._refuse(step, f"{split} loss", loss)
        epoch = step / self.epoch_steps
        self.rows += [(step, epoch, split, f"{prefix}loss", loss), (step, epoch, split, f"{prefix}accuracy", accuracy)]
        return loss

    def _refuse(self, step, what, loss):
        if not math.isfinite(loss):
            raise FloatingPointError(f"level {self.level}, step {step}: the {what} is {loss}")

    def check(self, losses, first):
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            self._refuse(first + int(bad[0]), "training loss", losses[bad[0]].item())

    def finish(self, last):
        logits, weights = self.logits.cpu(), {name: v.cpu() for name, v in self.engine.values().items()}
        rows = self.rows
        if self.best:
            _, step, values = self.best
            self.engine.restore(values)
            self._note(step, "test", self.data.test, prefix="early_")  # at the step of minimum validation loss
        return Trained(weights, rows, logits)
