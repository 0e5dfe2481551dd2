"""Train networks under masks: the loop over batches and evaluations, for one replicate or several in lockstep."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .engines.batched import Lockstep
from .unit import draw_seed


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

    Validation every 100 steps during the first `config.often` epochs, then once an epoch; test at steps 0, 10,
    30, 100, 300, then once an epoch; both at the last step.
    """
    total, epoch = total_steps(config, images), steps_per_epoch(config, images)
    ends = set(range(epoch, total + 1, epoch)) | {total}
    often = config.often * epoch
    validation = set(range(0, min(total, often) + 1, 100)) | {s for s in ends if s > often} | {total}
    return validation, {s for s in (0, 10, 30, 100, 300) if s <= total} | ends


def train(values, mask, data, config, *, level, replicate, subset, first=0, last=None, order=0):
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
    order : int
        0 for the order of the batches that all arms share, 1, 2, ... for others.

    Returns
    -------
    Trained

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names the level and the step.
    """
    keys = {"level": level, "replicates": [replicate], "subset": subset}
    return train_together([values], [mask], [data], config, **keys, first=first, last=last, order=order)[0]


def train_together(
    values, masks, data, config, *, level, replicates, subset, first=0, last=None, order=0, each_epoch=None
):
    """Train replicates of one arm in lockstep: as :func:`train`, with a list in place of each of the first three.

    Parameters
    ----------
    each_epoch : callable or None
        Called with the step and the values, (R, ...) tensors by parameter name, at steps `first` and `last` and at the
        end of every epoch between.

    Returns
    -------
    list of Trained
        One per replicate.
    """
    torch.set_flush_denormal(True)  # moments that fade away must not slow the rest down
    try:
        with torch.random.fork_rng(enabled=config.dropout > 0):
            if config.dropout:
                torch.manual_seed(draw_seed(config.seed, "dropout", *replicates, subset, level, order))
            return _train(values, masks, data, config, level, replicates, subset, first, last, order, each_epoch)
    finally:
        torch.set_flush_denormal(False)  # it holds for the whole process, which is not ours alone


def _train(values, masks, data, config, level, replicates, subset, first, last, copy, each_epoch):
    images = data[0].trained_on
    epoch_steps, total = steps_per_epoch(config, images), total_steps(config, images)
    last = total if last is None else last
    at_validation, at_test = evaluation_steps(config, images)
    stops = sorted(
        {first, last} | {s for s in at_validation | at_test | set(range(0, last, epoch_steps)) if first < s < last}
    )
    engine = build_engine(values, masks, data, config, first)
    watch = _Watch(engine, data, epoch_steps, level)
    for step, stop in zip(stops, [*stops[1:], last], strict=True):
        if step == first or step % epoch_steps == 0:
            watch.check()  # once an epoch: on a GPU it waits for what has been launched
            order = _orders(
                data, config.seed, replicates, subset, level, step // epoch_steps, *([copy] if copy else [])
            )
        if each_epoch and (step in (first, last) or step % epoch_steps == 0):
            each_epoch(step, engine.values())
        watch.look(step, step in at_validation or step == last, step in at_test or step == last)
        if step == last:
            break
        at = step % epoch_steps
        losses = engine.advance(order[:, at * config.batch_size : (at + stop - step) * config.batch_size])
        watch.unchecked.append((step, "training loss", losses))
    return watch.finish()


def build_engine(values, masks, data, config, first=0):
    """What trains these replicates, with a leading axis for them; parameters as for :func:`train_together`."""
    kind = choose_engine(config, masks[0], data[0].train[1].device)
    if kind is Lockstep or len(values) > 1:
        return Lockstep(values, masks, data, config, first=first)
    return _Alone(kind(values[0], masks[0], data[0], config, first))


def _orders(data, seed, replicates, subset, *keys):
    """Places of the training images in the order in which this epoch goes through them: (R, n) int64."""
    out = []
    for d, replicate in zip(data, replicates, strict=True):
        random = np.random.default_rng(draw_seed(seed, "order", replicate, subset, *keys))
        order = torch.from_numpy(random.permutation(d.trained_on)).to(d.train[1].device)
        out.append(order if d.chosen is None else d.chosen[order])
    return torch.stack(out)


def choose_engine(config, mask, device):
    """The class that trains under this mask on this device: decided by nothing else."""
    if torch.device(device).type != "cpu" or config.dropout or config.model.startswith("conv"):
        return Lockstep
    from .engines.sparse import Sparse  # here, so that numba is imported only where it is used

    return Sparse


class _Alone:
    """One engine, with the leading axis of replicates that `Lockstep` has."""

    def __init__(self, engine):
        self.engine = engine

    def advance(self, order):
        return self.engine.advance(order[0])[:, None]

    def logits(self, images):
        return self.engine.logits(images[0])[None]

    def values(self):
        return {name: v[None] for name, v in self.engine.values().items()}

    def restore(self, values):
        self.engine.restore({name: v[0] for name, v in values.items()})


def _together(tensors):
    """Tensors with a leading axis for replicates; one that all of them share is not copied."""
    if all(tensor is tensors[0] for tensor in tensors):
        return tensors[0].expand(len(tensors), *tensors[0].shape)
    return torch.stack(tensors)


class _Watch:
    """Evaluates while the engine trains, and remembers where each replicate's validation loss was least."""

    def __init__(self, engine, data, epoch_steps, level):
        self.engine, self.epoch_steps, self.level = engine, epoch_steps, level
        self.parts = {
            split: tuple(_together(x) for x in zip(*parts, strict=True))
            for split in ("validation", "test")
            if all(parts := [getattr(d, split) for d in data])
        }
        self.seen, self.unchecked, self.best = [], [], None

    def look(self, step, validation, test):
        if validation and "validation" in self.parts:
            self._remember(step, self._note(step, "validation"))
        if test:
            self._note(step, "test")

    def _note(self, step, split, prefix=""):
        images, labels = self.parts[split]
        self.logits = self.engine.logits(images)  # (R, N, 10)
        loss = F.cross_entropy(self.logits.double().flatten(0, 1), labels.flatten(), reduction="none")
        loss = loss.view(labels.shape).mean(1)
        accuracy = 100 * (self.logits.argmax(2) == labels).double().mean(1)
        self.unchecked.append((step, f"{split} loss", loss[None]))
        self.seen.append((step, split, prefix, torch.stack([loss, accuracy])))
        return loss

    def _remember(self, step, loss):
        now = {"loss": loss, "step": torch.full_like(loss, step)}
        if self.best is None:
            self.best = now | self.engine.values()
            return
        better = loss < self.best["loss"]
        if loss.device.type == "cpu" and not better.any():  # on a GPU, to ask would be to wait
            return
        for name, new in (now | self.engine.values()).items():
            self.best[name] = torch.where(better.view(-1, *[1] * (new.dim() - 1)), new, self.best[name])

    def check(self):
        """Refuse, in the order of the steps, a loss that is not finite."""
        for first, what, losses in self.unchecked:
            if len(bad := (~losses.isfinite()).nonzero()):
                step, loss = first + int(bad[0, 0]), losses[tuple(bad[0])].item()
                raise FloatingPointError(f"level {self.level}, step {step}: the {what} is {loss}")
        self.unchecked = []

    def finish(self):
        self.check()
        logits, weights = self.logits.cpu(), {name: v.cpu() for name, v in self.engine.values().items()}
        if self.best:
            early = self.best.pop("step").tolist()
            del self.best["loss"]
            self.engine.restore(self.best)
            self._note(None, "test", prefix="early_")  # at the step of minimum validation loss
        rows = [[] for _ in logits]
        for step, split, prefix, values in self.seen:
            for r, (loss, accuracy) in enumerate(values.t().tolist()):
                at = int(early[r]) if step is None else step
                named = (f"{prefix}loss", loss), (f"{prefix}accuracy", accuracy)
                rows[r] += [(at, at / self.epoch_steps, split, *pair) for pair in named]
        return [Trained({n: v[r] for n, v in weights.items()}, rows[r], logits[r]) for r in range(len(logits))]
