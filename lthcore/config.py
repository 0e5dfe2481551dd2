"""Settings. Everything that decides a result is a field of :class:`Config`.

Standard library only.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import methods, schedule
from .methods import DATASETS
from .schedule import ARCHITECTURES
from .schedule import CLASSES as CLASSES

MNIST_TRAIN = DATASETS["mnist"].train
MNIST_TEST = DATASETS["mnist"].test


def _choice(*allowed):
    return field(metadata={"allowed": allowed}, default=allowed[0])


def _number(default, low, high, text, *, open_low=False, open_high=False):
    bounds = {"low": low, "high": high, "open_low": open_low, "open_high": open_high}
    return field(metadata={**bounds, "text": text}, default=default)


@dataclass(frozen=True)
class Config:
    """One experiment at one scale: a column of the report's Tables 1 and 2, and what they leave open.

    Every setting can be overridden by name through :func:`lthcore.runs.presets.configure`.

    Parameters
    ----------
    experiment, preset : str
        Which experiment and how much of its schedule: names in :mod:`lthcore.runs.presets`.
    model, activation, pool : str
        A name in :data:`lthcore.schedule.ARCHITECTURES`, where new ones are added; ``default`` activation is ReLU, for
        LeNet-5 tanh; `pool` is what follows a convolution.
    optimizer, lr, momentum, batch_size, epochs : str, float, float, int, int
        How one level is trained: by ``adam``, ``sgd`` or ``adamw``; `lr` per step, `momentum` only for ``sgd``.
    prune_rate : float
        Fraction of the surviving weights pruned in one round, in (0, 1).
    rounds : int
        Number of prunings after the dense network ("prune iterations").
    levels : tuple of int
        Levels that are trained, increasing from 0; ``()`` is every level 0..rounds. Skipped levels
        are pruned through at once, so ``(0, n)`` is one-shot pruning to the density of level n.
    scope : str
        ``layer``: the rate holds in every weight tensor; ``global``: over all of them together.
    output_rate : float or None
        Pruning rate of the output layer; ``None`` is `prune_rate`, 0 spares it.
    spare : str
        ``smallest`` keeps every weight of the smallest layer, which a layer-wise rate empties first,
        and takes the difference from the others, so that the total stays the same; ``none`` does not.
    rewind_step : int
        Survivors return to their values at this step of the dense training (0: theta0).
    validation : float
        Fraction of every training subset held out, stratified, in [0, 0.5]; 0 trains on everything.
    tolerance, margin : float
        Accuracy points: how far a ticket may fall below dense, and the width of "the same".
    replicates, controls : int
        Independent repetitions; a control at every `controls`-th level from level 1 on, 0 for none.
    seed : int
        Root of every random draw.
    device : str
        ``auto`` takes CUDA where there is one.
    max_steps, test_images : int
        Upper bounds on the steps of a level and on the test images, for ``smoke``; 0 is no bound.
    dataset : str
        A name in :data:`lthcore.methods.DATASETS`, where new ones are added: ``mnist``, ``fashion`` (Fashion-MNIST) or
        ``cifar10``, which only the models ``conv2`` to ``conv6`` can read.
    conv_rate : float or None
        Pruning rate of the convolutions; ``None`` is `prune_rate`.
    dropout : float
        Share of the hidden fully connected units left out at every step, in [0, 1).
    warmup : int
        Steps over which the learning rate rises to `lr`, in proportion to the step.
    often : int
        Epochs during which the validation set is looked at every 100 steps; later once an epoch.
    criterion, rewind : str
        What is pruned and what the survivors start from: names in :data:`lthcore.methods.CRITERIA` and
        :data:`lthcore.methods.REWINDS`, where new ones are added and each says what it needs.
    structure : str
        What is pruned: single ``weights``, or whole ``filters`` of the convolutions with all that reads them.
    retrain_epochs, retrain_lr : int or None, float or None
        `epochs` and `lr` of the levels after the dense network; ``None``: the same.
    early_bird : float
        A level's next mask is drawn at the first epoch at which the masks of the last five epochs differ by less than
        this share of the weights, in [0, 1) (You et al. 2020); 0: at the last step, as where they never do.
    weight_decay : float
        As torch's optimizers take it, for weights and biases, in [0, 1]: added to the gradient (L2) by ``adam`` and
        ``sgd``, taken off the values (decoupled) by ``adamw``, whose default here is 0 as well. It holds in every arm
        of an experiment, those with another optimizer included. A pruned weight stays 0.
    smallest : float
        Share of the training images in the smallest subset that an arm trains on, in (0, 1]: no setting, the
        experiment says it.
    """

    experiment: str = "mlp"
    preset: str = "quick"
    model: str = "mlp"
    activation: str = _choice("default", "relu", "tanh")
    pool: str = _choice("avg", "max")
    optimizer: str = _choice("adam", "sgd", "adamw")
    lr: float = _number(0.0012, 0, 10, "a number in (0, 10]", open_low=True)
    momentum: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True)
    batch_size: int = _number(60, 1, MNIST_TRAIN, "a whole number in 1..60000")
    epochs: int = _number(75, 1, 10_000, "a whole number in 1..10000")
    prune_rate: float = _number(0.3, 0, 1, "a number in (0, 1)", open_low=True, open_high=True)
    rounds: int = _number(20, 0, 200, "a whole number in 0..200")
    levels: tuple = ()
    scope: str = _choice("layer", "global")
    output_rate: float | None = _number(None, 0, 1, "None or a number in [0, 1)", open_high=True)
    spare: str = _choice("none", "smallest")
    rewind_step: int = _number(0, 0, 1_000_000, "a whole number in 0..1000000")
    validation: float = _number(1 / 12, 0, 0.5, "a number in [0, 0.5]")
    tolerance: float = _number(0.5, 0, 100, "a number in [0, 100], in accuracy points")
    margin: float = _number(0.5, 0, 100, "a number in [0, 100], in accuracy points")
    replicates: int = _number(1, 1, 1000, "a whole number in 1..1000")
    controls: int = _number(1, 0, 200, "a whole number in 0..200")
    seed: int = _number(0, 0, 2**31 - 1, "a whole number in 0..2147483647")
    device: str = _choice("auto", "cpu", "cuda")
    max_steps: int = _number(0, 0, 10**9, "a whole number in 0..1000000000")
    test_images: int = _number(0, 0, MNIST_TEST, "a whole number in 0..10000")
    dataset: str = "mnist"
    conv_rate: float | None = _number(None, 0, 1, "None or a number in [0, 1)", open_high=True)
    dropout: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True)
    warmup: int = _number(0, 0, 1_000_000, "a whole number in 0..1000000")
    often: int = _number(15, 0, 10_000, "a whole number in 0..10000")
    criterion: str = "magnitude"
    rewind: str = "reset"
    structure: str = _choice("weights", "filters")
    retrain_epochs: int | None = _number(None, 1, 10_000, "None or a whole number in 1..10000")
    retrain_lr: float | None = _number(None, 0, 10, "None or a number in (0, 10]", open_low=True)
    early_bird: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True)
    weight_decay: float = _number(0.0, 0, 1, "a number in [0, 1]")
    smallest: float = 1.0

    def __post_init__(self):
        for f in dataclasses.fields(self):
            check_value(f, getattr(self, f.name))
        last = -1
        for level in self.levels:
            if type(level) is not int or not last < level <= self.rounds:
                raise ValueError(
                    f"levels = {self.levels!r}: must be whole numbers increasing from 0 to rounds = {self.rounds}"
                )
            last = level
        if self.levels and self.levels[0] != 0:
            raise ValueError(f"levels = {self.levels!r}: must begin with level 0, the dense network")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(
                f"momentum = {self.momentum}: must be 0 unless optimizer = 'sgd' (it is {self.optimizer!r})"
            )
        if self.batch_size > self._available:
            raise ValueError(f"batch_size = {self.batch_size}: larger than the data, must be in 1..{self._available}")
        if self.rewind_step >= self.steps:
            raise ValueError(
                f"rewind_step = {self.rewind_step}: must be a whole number in 0..{self.steps - 1}, within the training"
            )
        shape = DATASETS[self.dataset].shape
        if shape not in ARCHITECTURES[self.model].images:
            able = [repr(name) for name, known in ARCHITECTURES.items() if shape in known.images]
            names = " or ".join(filter(None, (", ".join(able[:-1]), *able[-1:]))) or "one that reads its images"
            raise ValueError(f"dataset = {self.dataset!r}: needs model = {names}, not {self.model!r}")
        if self.spare != "none" and (self.scope != "layer" or self.output_rate is not None):
            raise ValueError(f"spare = {self.spare!r}: needs scope = 'layer' and no output_rate")
        for name, value in (("pool", "avg"), ("conv_rate", None), ("structure", "weights")):
            if not self.convolutions and getattr(self, name) != value:
                needed = f"a model with convolutions, which {self.model!r} is not"
                raise ValueError(f"{name} = {getattr(self, name)!r}: needs {needed}")
        if self.conv_rate is not None and self.scope != "layer":
            raise ValueError(f"conv_rate = {self.conv_rate}: needs scope = 'layer'")
        self.at(1)  # whose settings must be valid as well
        if self.rewind_step and not methods.find("rewind", self.rewind).takes_step:
            those = " or ".join(repr(name) for name in methods.REWINDS if methods.find("rewind", name).takes_step)
            raise ValueError(f"rewind_step = {self.rewind_step}: must be 0 unless rewind = {those}")
        if self.structure == "filters" and (
            self.scope != "layer" or self.spare != "none" or self.output_rate is not None
        ):
            raise ValueError("structure = 'filters': needs scope = 'layer', spare = 'none' and no output_rate")
        criterion = methods.find("criterion", self.criterion)
        if needs := criterion.supports(self):
            raise ValueError(f"criterion = {self.criterion!r}: {needs}")
        if self.early_bird and criterion.when == "start":
            raise ValueError(
                f"early_bird = {self.early_bird}: must be 0 with criterion = {self.criterion!r}, whose mask is drawn "
                "before the training"
            )

    @property
    def convolutions(self) -> list[str]:
        """Names of the model's convolutions: list of str."""
        return [name for name, shape in ARCHITECTURES[self.model].weights.items() if len(shape) == 4]

    @property
    def _available(self):
        """Training images of the smallest subset, within one of what the split leaves: int."""
        smallest = round(DATASETS[self.dataset].train * self.smallest)
        return int(smallest * (1 - self.validation))

    @property
    def steps(self) -> int:
        """Optimizer steps of a level on the smallest subset, short batches not counted: int."""
        steps = self.epochs * (self._available // self.batch_size)
        return min(steps, self.max_steps or steps)

    @property
    def trained_levels(self) -> tuple[int, ...]:
        """Levels of a chain: tuple of int, increasing, cut where `spare` leaves the other layers nothing."""
        levels = self.levels or range(self.rounds + 1)
        return tuple(k for k in levels if k < len(self.schedule))

    @property
    def control_levels(self) -> tuple[int, ...]:
        """Levels at which controls are trained: tuple of int."""
        if self.levels:  # a shortened chain is small enough to have them everywhere
            return self.trained_levels[1:] if self.controls else ()
        return tuple(k for k in self.trained_levels if self.controls and k >= 1 and (k - 1) % self.controls == 0)

    @cached_property
    def schedule(self) -> list[dict[str, int]]:
        """Kept weights at each level 0..rounds, by counting alone: list of dict, pool -> int.

        A pool is a weight tensor, or ``"*"`` for all tensors that a global rate ranks together.
        A pool of n survivors keeps n - round(rate n) (Frankle & Carbin 2019, section 2); the rate is taken as the
        decimal fraction that it is written as, ties go to even.
        """
        rates = schedule.Rates(self.prune_rate, self.output_rate, self.conv_rate)
        return schedule.kept(self.model, rates, self.rounds, self.scope, self.spare, self.structure)

    def at(self, level: int) -> "Config":
        """The settings that a level is trained with: after the dense network, those of retraining."""
        if not level or (self.retrain_epochs, self.retrain_lr) == (None, None):
            return self
        epochs, lr = self.retrain_epochs or self.epochs, self.retrain_lr or self.lr
        return dataclasses.replace(self, epochs=epochs, lr=lr, retrain_epochs=None, retrain_lr=None)

    def rates(self, first: int, count: int) -> list[float]:
        """Learning rates of `count` steps after the first `first`: list of float, rising in proportion to the step."""
        return [self.lr * min(1, (first + i) / self.warmup) if self.warmup else self.lr for i in range(1, count + 1)]

    def density(self, level: int) -> float:
        """Kept / total prunable weights at `level`, in [0, 1]."""
        return sum(self.schedule[level].values()) / sum(self.schedule[0].values())

    def table(self) -> list[tuple]:
        """Settings as rows (name, value): list of pairs."""
        return [(f.name, getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "smallest"]


def check_value(f: dataclasses.Field, value: Any) -> None:
    """Raise ValueError, in one line, where `value` is not one that field `f` allows."""

    def refuse(allowed: str) -> None:
        raise ValueError(f"{f.name} = {value!r}: must be {allowed}")

    allowed = f.metadata.get("allowed")
    if allowed and value not in allowed:
        refuse("one of " + ", ".join(map(repr, allowed)))
    if "text" in f.metadata:
        m = f.metadata
        if value is None and f.default is None:
            return
        whole = f.type in (int, int | None)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
            refuse(m["text"])
        if (
            not (m["low"] <= value <= m["high"])
            or (m["open_low"] and value == m["low"])
            or (m["open_high"] and value == m["high"])
        ):
            refuse(m["text"])
    if f.name == "levels" and not isinstance(value, tuple):
        refuse("a list of whole numbers")
    if f.name in methods.RECORDS:
        methods.find(f.name, value)


def __getattr__(name):
    """What an experiment's own settings are asked for by, under the names that it had here."""
    if name in ("configure", "EXPERIMENTS", "PRESETS"):
        return methods.function(f"lthcore.runs.presets:{name}")
    raise AttributeError(f"module 'lthcore.config' has no attribute {name!r}")
