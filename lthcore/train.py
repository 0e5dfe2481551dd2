"""Train networks under masks: the loop over batches and evaluations, for replicates together."""

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .config import Config
from .data import Split
from .pruning import Tensors
from .schedule import evaluation_steps, steps_per_epoch, total_steps
from .unit import draw_seed


class Training(NamedTuple):
    """Which training it is: its settings, and what the order of its batches depends on."""

    config: Config  # as of this level
    level: int
    replicates: tuple
    subset: str
    first: int = 0  # from this step (late rewinding)
    last: int | None = None  # to this one; None: to the end
    order: int = 0  # which order of the batches, counted from `config.batch_order`, which all arms share


class Trained(NamedTuple):
    """What training gives: final weights, the curve, and the final logits on the test images."""

    weights: Tensors  # float32, on the CPU, at the last step
    rows: list  # (step, epoch, split, metric, value)
    logits: torch.Tensor  # (N_test, 10) at the last step, on the CPU


class Engine(NamedTuple):
    """What trains networks of some kind on some devices."""

    name: str
    """As it is kept with every level."""
    supports: Callable
    """Function of (config, type of the device): whether it can train such networks there, ``config.frozen`` too."""
    build: Callable
    """Function of (values, masks, data, config, first), lists of the replicates', that gives an object with
    ``advance(order)``, a step per batch of (R, n) places of training images -> losses (steps, R);
    ``logits(images)``, (R, N, ...) -> (R, N, 10); ``values()``, copies by parameter name, with a leading axis R;
    and ``restore(values)``, which puts such values in their place."""
    skips_pruned: bool = False
    """Whether a step costs less when fewer weights are left."""


ENGINES: list[Engine] = []  # the first that supports a training has it


def choose_engine(config: Config, device: str | torch.device) -> Engine:
    """What trains by these settings on this device; decided by nothing else."""
    importlib.import_module("lthcore.engines")  # adds ours to ENGINES; by name, so that the core imports no engine
    return next(engine for engine in ENGINES if engine.supports(config, torch.device(device).type))


def build_engine(values: list[Tensors], masks: list[Tensors], data: list[Split], config: Config, first: int = 0) -> Any:
    """What trains these replicates, as an :class:`Engine` builds it; parameters as for :func:`train`."""
    return choose_engine(config, data[0].train[1].device).build(values, masks, data, config, first=first)


def train(
    values: list[Tensors],
    masks: list[Tensors],
    data: list[Split],
    training: Training,
    each_epoch: Callable | None = None,
) -> list[Trained]:
    """Train replicates of one arm under their masks; before and after every step what is pruned is 0, or frozen.

    Parameters
    ----------
    values : list of dict of str to Tensor
        Each replicate's starting weights and biases by parameter name.
    masks : list of dict of str to bool Tensor
        By layer name; True = kept.
    data : list of lthcore.data.Split
        On the device to train on; all with the same `train`.
    training : Training
    each_epoch : callable or None
        Called with the step and the values, (R, ...) tensors by parameter name, at steps `first` and `last` and at the
        end of every epoch between.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names the level and the step.
    """
    config, first, last = training.config, training.first, training.last
    images = data[0].trained_on
    epoch_steps = steps_per_epoch(config, images)
    last = total_steps(config, images) if last is None else last
    at_validation, at_test = evaluation_steps(config, images)
    between = {s for s in at_validation | at_test | set(range(0, last, epoch_steps)) if first < s < last}
    stops = sorted({first, last} | between)
    with _undisturbed(training):
        engine = build_engine(values, masks, data, config, first)
        watch = _Watch(engine, data, epoch_steps, training.level)
        for step, stop in zip(stops, [*stops[1:], last], strict=True):
            if step == first or step % epoch_steps == 0:
                watch.check()  # once an epoch: on a GPU it waits for what has been launched
                order = _orders(data, training, step // epoch_steps)
            if each_epoch and (step in (first, last) or step % epoch_steps == 0):
                each_epoch(step, engine.values())
            watch.evaluate(step, step in at_validation or step == last, step in at_test or step == last)
            if step == last:
                break
            at = step % epoch_steps
            losses = engine.advance(order[:, at * config.batch_size : (at + stop - step) * config.batch_size])
            watch.unchecked.append((step, "training loss", losses))
        return watch.finish()


@contextlib.contextmanager
def _undisturbed(training: Training) -> Iterator[None]:
    """Numbers that underflow are zero, and what dropout draws depends on the training alone; both only meanwhile."""
    torch.set_flush_denormal(True)  # moments that fade away must not slow the rest down
    try:
        config = training.config
        with torch.random.fork_rng(enabled=config.dropout > 0):
            if config.dropout:
                keys = *training.replicates, training.subset, training.level, config.batch_order + training.order
                torch.manual_seed(draw_seed(config.seed, "dropout", *keys))
            yield
    finally:
        torch.set_flush_denormal(False)  # it holds for the whole process, which is not ours alone


def _orders(data, training, epoch):
    """Places of the training images in the order in which this epoch goes through them: (R, n) int64."""
    out, other = [], training.config.batch_order + training.order
    for d, replicate in zip(data, training.replicates, strict=True):
        keys = replicate, training.subset, training.level, epoch, *([other] if other else [])
        random = np.random.default_rng(draw_seed(training.config.seed, "order", *keys))
        order = torch.from_numpy(random.permutation(d.trained_on)).to(d.train[1].device)
        out.append(order if d.chosen is None else d.chosen[order])
    return torch.stack(out)


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

    def evaluate(self, step: int, validation: bool, test: bool) -> None:
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

    def check(self) -> None:
        """Refuse, in the order of the steps, a loss that is not finite."""
        for first, what, losses in self.unchecked:
            if len(bad := (~losses.isfinite()).nonzero()):
                step, loss = first + int(bad[0, 0]), losses[tuple(bad[0])].item()
                raise FloatingPointError(f"level {self.level}, step {step}: the {what} is {loss}")
        self.unchecked = []

    def finish(self) -> list[Trained]:
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
