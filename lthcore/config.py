"""Settings, in four groups: everything that decides a result is a field of :class:`Config`. Standard library only.

A field's metadata say what is allowed and how it enters a level's identity: never (``identity=False``), or with
`since` from 2 on only where it differs from the default; `hashed` is its name there where that is another.
"""

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from . import methods, schedule
from .methods import DATASETS
from .schedule import ARCHITECTURES


def _setting(default, **facts):
    return field(default=default, metadata=facts)


def _choice(*allowed, **facts):
    return _setting(allowed[0], allowed=allowed, **facts)


def _number(default, low, high, text, **facts):
    return _setting(default, low=low, high=high, text=text, **facts)


@dataclass(frozen=True)
class Scale:
    """How much is run, where, and how it is judged."""

    experiment: str = _setting("mlp")
    """Which experiment, by the name of its record."""
    preset: str = _setting("quick", identity=False)
    """How much of the experiment is run: a name in :data:`lthcore.runs.presets.PRESETS`."""
    replicates: int = _number(1, 1, 1000, "a whole number in 1..1000", identity=False)
    """Independent repetitions."""
    controls: int = _number(1, 0, 200, "a whole number in 0..200", identity=False)
    """A control at every so many levels, from level 1 on; 0 for none."""
    seed: int = _number(0, 0, 2**31 - 1, "a whole number in 0..2147483647")
    """Root of every random draw."""
    device: str = _choice("auto", "cpu", "cuda", identity=False)
    """Where it is trained; ``auto`` takes CUDA where there is one."""
    max_steps: int = _number(0, 0, 10**9, "a whole number in 0..1000000000")
    """Upper bound on the steps of a level, for ``smoke``; 0 is no bound."""
    test_images: int = _number(0, 0, 10_000, "a whole number in 0..10000")
    """Upper bound on the test images, for ``smoke``; 0 is no bound."""
    tolerance: float = _number(0.5, 0, 100, "a number in [0, 100], in percentage points", identity=False)
    """Percentage points of accuracy that a ticket may fall below dense."""
    margin: float = _number(0.5, 0, 100, "a number in [0, 100], in percentage points", identity=False)
    """Percentage points of accuracy within which two arms are the same."""


@dataclass(frozen=True)
class Data:
    """What is trained on."""

    dataset: str = _setting("mnist", since=2)
    """A name in :data:`lthcore.methods.DATASETS`, where new ones are added; not every model can read its images."""
    validation: float = _number(1 / 12, 0, 0.5, "a number in [0, 0.5]")
    """Fraction of every training subset held out, stratified; 0 trains on everything."""


@dataclass(frozen=True)
class Train:
    """What network is trained at a level, and how."""

    model: str = _setting("mlp")
    """A name in :data:`lthcore.schedule.ARCHITECTURES`, where new ones are added."""
    activation: str = _choice("default", "relu", "tanh")
    """``default`` is the architecture's own: ReLU, for LeNet-5 tanh."""
    pool: str = _choice("avg", "max")
    """What follows a convolution."""
    dropout: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True, since=2)
    """Share of the hidden fully connected units left out at every step."""
    optimizer: str = _choice("adam", "sgd", "adamw")
    """As torch's of that name."""
    lr: float = _number(0.0012, 0, 10, "a number in (0, 10]", open_low=True)
    """Learning rate, per step."""
    momentum: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True)
    """Only for ``sgd``."""
    weight_decay: float = _number(0.0, 0, 1, "a number in [0, 1]", since=2)
    """As torch's optimizers take it, for weights and biases: added to the gradient (L2) by ``adam`` and ``sgd``, and
    decoupled in ``adamw``, whose default is 0 here. It holds in every arm. A pruned weight stays as it is."""
    frozen_below: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True, since=2)
    """Weights (with sign) below this have no gradient but their decay: at 1e-6 all negative ones; 0 freezes none."""
    biases: str = _choice("zero", "normal", since=2)
    """What biases start from: 0, or independent draws from the standard normal distribution."""
    warmup: int = _number(0, 0, 1_000_000, "a whole number in 0..1000000", since=2)
    """Steps over which the learning rate rises to `lr`, in proportion to the step."""
    batch_size: int = _number(60, 1, 60_000, "a whole number in 1..60000")
    """Images per step."""
    batch_order: int = _number(0, 0, 1_000_000, "a whole number in 0..1000000", since=2)
    """Which random order the images come in; the initial weights are the same in all of them."""
    epochs: int = _number(75, 1, 10_000, "a whole number in 1..10000")
    """Length of the training of a level."""
    frequent_epochs: int = _number(15, 0, 10_000, "a whole number in 0..10000", since=2, hashed="often")
    """Epochs during which the validation set is evaluated every 100 steps; later once an epoch."""


@dataclass(frozen=True)
class Prune:
    """What is pruned between the levels, and what the survivors start from; level 0 is trained the same."""

    prune_rate: float = _number(0.3, 0, 1, "a number in (0, 1)", open_low=True, open_high=True)
    """Fraction of the surviving weights pruned in one round."""
    rounds: int = _number(20, 0, 200, "a whole number in 0..200", identity=False)
    """Number of prunings after the dense network ("prune iterations")."""
    levels: tuple = _setting((), identity=False)
    """Levels that are trained, increasing from 0; ``()`` is all. Skipped ones are pruned through at once: ``(0, n)`` is
    one-shot pruning to the density of level n. They enter the identity as a path."""
    scope: str = _choice("layer", "global")
    """``layer``: the rate holds in every weight tensor; ``global``: over all of them together."""
    output_rate: float | None = _number(None, 0, 1, "None or a number in [0, 1)", open_high=True)
    """Pruning rate of the output layer; ``None`` is `prune_rate`, 0 spares it."""
    conv_rate: float | None = _number(None, 0, 1, "None or a number in [0, 1)", open_high=True, since=2)
    """Pruning rate of the convolutions; ``None`` is `prune_rate`."""
    spare: str = _choice("none", "smallest")
    """``smallest`` keeps the smallest layer whole, which a rate empties first, and prunes the others more."""
    structure: str = _choice(*methods.STRUCTURES, since=2)
    """What is pruned: single weights, or whole filters of the convolutions with all that reads them."""
    criterion: str = _setting("magnitude", since=2)
    """Which weights are pruned: a name in :data:`lthcore.methods.CRITERIA`, where new ones are added."""
    early_bird: float = _number(0.0, 0, 1, "a number in [0, 1)", open_high=True, since=2)
    """A level's next mask is drawn once those of the last five epochs differ by less than this share of the weights
    (You et al. 2020); otherwise, and with 0, at the last step."""
    rewind: str = _setting("reset", since=2)
    """What the survivors start from: a name in :data:`lthcore.methods.REWINDS`, where new ones are added."""
    rewind_step: int = _number(0, 0, 1_000_000, "a whole number in 0..1000000")
    """Survivors return to their values at this step of the dense training (0: theta0)."""
    retrain_epochs: int | None = _number(None, 1, 10_000, "None or a whole number in 1..10000", since=2)
    """`epochs` of the levels after the dense network; ``None``: the same."""
    retrain_lr: float | None = _number(None, 0, 10, "None or a number in (0, 10]", open_low=True, since=2)
    """`lr` of the levels after the dense network; ``None``: the same."""


@dataclass(frozen=True)
class Config(Prune, Train, Data, Scale):
    """One experiment at one scale: a column of the report's Tables 1 and 2, and what they leave open.

    The groups' fields are its own: ``config.lr``, ``dataclasses.replace(config, lr=0.01)``.
    """

    smallest: float = 1.0
    """Share of the training images in the smallest subset of an arm, in (0, 1]: not a setting, its record gives it."""
    frozen: bool = False
    """Whether pruned weights stay at what they start from, not at 0: not a setting either, the unit's mask says it."""

    def __post_init__(self):
        for group in GROUPS:
            for f in dataclasses.fields(group):
                check_value(f, getattr(self, f.name))
        self._check_levels()
        self._check_training()
        self._check_pruning()
        self.at(1)  # whose settings must be valid as well

    def _refuse(self, name, reason):
        raise ValueError(f"{name} = {getattr(self, name)!r}: {reason}")

    def _check_levels(self):
        last = -1
        for level in self.levels:
            if type(level) is not int or not last < level <= self.rounds:
                self._refuse("levels", f"must be whole numbers increasing from 0 to rounds = {self.rounds}")
            last = level
        if self.levels and self.levels[0] != 0:
            self._refuse("levels", "must begin with level 0, the dense network")

    def _check_training(self):
        if self.momentum and self.optimizer != "sgd":
            self._refuse("momentum", f"must be 0 unless optimizer = 'sgd' (it is {self.optimizer!r})")
        if self.batch_size > self._available:
            self._refuse("batch_size", f"larger than the data, must be in 1..{self._available}")
        shape = DATASETS[self.dataset].shape
        if shape not in ARCHITECTURES[self.model].images:
            able = " or ".join(repr(name) for name, known in ARCHITECTURES.items() if shape in known.images)
            self._refuse("dataset", f"needs model = {able or 'one that reads its images'}, not {self.model!r}")

    def _check_pruning(self):
        if self.rewind_step >= self.steps:
            self._refuse("rewind_step", f"must be a whole number in 0..{self.steps - 1}, within the training")
        if self.rewind_step and not methods.find("rewind", self.rewind).takes_step:
            those = " or ".join(repr(name) for name in methods.REWINDS if methods.find("rewind", name).takes_step)
            self._refuse("rewind_step", f"must be 0 unless rewind = {those}")
        if self.spare != "none" and (self.scope != "layer" or self.output_rate is not None):
            self._refuse("spare", "needs scope = 'layer' and no output_rate")
        for name in ("pool", "conv_rate", "structure"):
            if not self.convolutions and getattr(self, name) != getattr(Config, name):
                self._refuse(name, f"needs a model with convolutions, which {self.model!r} is not")
        if self.conv_rate is not None and self.scope != "layer":
            self._refuse("conv_rate", "needs scope = 'layer'")
        if methods.STRUCTURES[self.structure] and (self.scope, self.spare, self.output_rate) != ("layer", "none", None):
            self._refuse("structure", "needs scope = 'layer', spare = 'none' and no output_rate")
        criterion = methods.find("criterion", self.criterion)
        if needs := criterion.supports(self):
            self._refuse("criterion", needs)
        if self.early_bird and criterion.when == "start":
            self._refuse("early_bird", f"must be 0 with criterion = {self.criterion!r}, which scores before training")

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

        A pool of n survivors keeps n - round(rate n) (Frankle & Carbin 2019, section 2); the rate is taken as the
        decimal fraction that it is written as, ties go to even.
        """
        rates = schedule.Rates(self.prune_rate, self.output_rate, self.conv_rate)
        if grouped := methods.STRUCTURES[self.structure]:
            return methods.function(f"{grouped}:kept")(self.model, rates, self.rounds)
        return schedule.kept(self.model, rates, self.rounds, self.scope, self.spare)

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


GROUPS = (Scale, Data, Train, Prune)


def check_value(f: dataclasses.Field, value: Any) -> None:
    """Raise ValueError, in one line, where `value` is not one that field `f` allows."""
    facts, must = f.metadata, ""
    if "allowed" in facts and value not in facts["allowed"]:
        must = methods.one_of(value, facts["allowed"])
    if "text" in facts and not (value is None and f.default is None) and not _within(f, value):
        must = f"must be {facts['text']}"
    if f.name == "levels" and not isinstance(value, tuple):
        must = "must be a list of whole numbers"
    if must:
        raise ValueError(f"{f.name} = {value!r}: {must}")
    if f.name in methods.RECORDS:
        methods.find(f.name, value)


def _within(f, value):
    """Whether a value is a number of the field's kind, within its bounds."""
    facts, kinds = f.metadata, int if f.type in (int, int | None) else (int, float)
    left_out = [facts[end] for end in ("low", "high") if facts.get(f"open_{end}")]
    number = isinstance(value, kinds) and not isinstance(value, bool)
    return number and facts["low"] <= value <= facts["high"] and value not in left_out


def __getattr__(name):
    """What an experiment's own settings are asked for by, under the names that it had here."""
    if name in ("configure", "EXPERIMENTS", "PRESETS"):
        return methods.function(f"lthcore.runs.presets:{name}")
    raise AttributeError(f"module 'lthcore.config' has no attribute {name!r}")
