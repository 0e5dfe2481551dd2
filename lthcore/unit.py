"""What is trained (an arm of a replicate) and its identity, a hash of what decides it. Standard library only."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from . import methods
from .config import GROUPS, Config, Prune

ALGORITHM = 1  # raise it when a change of code changes numbers: finished levels get new identities


@dataclass(frozen=True)
class Self:
    """The unit's own masks: it is a chain, which prunes for itself."""

    name = "ticket"  # here and below: the word in an identity, which may never change


@dataclass(frozen=True)
class MaskOf:
    """The masks of a chain."""

    chain: "Unit"
    name = "ticket"


@dataclass(frozen=True)
class FrozenOutside(MaskOf):
    """Nothing is pruned: the weights under a chain's masks are trained, and the others stay as they start."""

    name = "frozen"


@dataclass(frozen=True)
class RandomLike:
    """Random masks of the same layer-wise densities as those of a chain."""

    chain: "Unit"
    name = "random"


@dataclass(frozen=True)
class Theta0:
    """The values of a chain's dense network, at step 0 or at ``config.rewind_step``."""

    name = "theta0"


@dataclass(frozen=True)
class Fresh:
    """Fresh values from the same initialiser, by the first draw of them or another."""

    draw: int = 1

    @property
    def name(self) -> str:
        """The word in an identity, and the key of the draw."""
        return "reinit" if self.draw == 1 else f"reinit{self.draw}"


@dataclass(frozen=True)
class Altered:
    """Those of :class:`Theta0`, altered by a function of a module: of (unit, level, values). Its name identifies it."""

    name: str
    module: str


@dataclass(frozen=True)
class Unit:
    """One arm of one replicate: the levels of a chain, or of an arm that takes a chain's masks."""

    config: Config
    """How its networks are trained (and, for a chain, pruned)."""
    arm: str
    """Name of its curve in the figures."""
    replicate: int
    """0, 1, ..."""
    subset: str = "full"
    """The part of the data it trains on and is tested on; see :func:`lthcore.data.split`."""
    mask: Self | MaskOf | RandomLike = Self()
    """Which weights its networks have or, of :class:`FrozenOutside`, which of them are trained."""
    start: Theta0 | Fresh | Altered = Theta0()
    """What its networks are trained from. ``config.rewind`` is for the chain: a unit that takes its masks is reset, to
    theta0 or the rewind step, where the rule is not for others too."""
    levels: tuple[int, ...] = ()
    """The levels that are trained, increasing; of a chain, ``config.trained_levels``."""
    probes: tuple[str, ...] = ()
    """What is measured on each trained network beside its collapse: names in :data:`lthcore.methods.PROBES`."""

    def __post_init__(self):
        if self.prunes:
            if self.levels not in ((), self.config.trained_levels):
                raise ValueError(f"levels = {self.levels!r}: must be those of its config, since the unit is a chain")
            object.__setattr__(self, "levels", self.config.trained_levels)
        if self.prunes and self.start != Theta0():
            raise ValueError(f"start = {self.start!r}: must be Theta0() for a chain, whose config has a rewind rule")
        if not self.chain.prunes:
            raise ValueError(f"mask: must be that of a chain, which {self.chain.arm!r} is not")
        if self.chain.config.model != self.config.model:
            raise ValueError(f"mask: must be one of {self.config.model!r}, not of {self.chain.config.model!r}")
        if self.probes and isinstance(self.mask, FrozenOutside):
            raise ValueError(f"probes = {self.probes!r}: must be () where weights are frozen")
        for probe in self.probes:
            if probe not in methods.PROBES:
                raise ValueError(f"probes: {probe!r} {methods.one_of(probe, methods.PROBES)}")

    @property
    def prunes(self) -> bool:
        """Whether it is a chain, which prunes for itself: bool."""
        return isinstance(self.mask, Self)

    @property
    def chain(self) -> "Unit":
        """The unit whose pruning gives its masks: itself, if it is a chain."""
        return self if self.prunes else self.mask.chain

    def needs(self, level: int) -> "tuple[Unit, int] | None":
        """The (unit, level) whose pruning gives this level's mask, or None for a dense level."""
        before = [k for k in self.chain.levels if k < level]
        return (self.chain, before[-1]) if before else None

    @property
    def continues(self) -> bool:
        """Whether a level needs the final weights of the chain's one before, which are kept for that: bool."""
        rule = methods.find("rewind", self.chain.config.rewind)
        return rule.needs_previous and (self.prunes or (rule.for_others and not isinstance(self.start, Fresh)))

    @cached_property
    def identity(self) -> dict:
        """What the unit's numbers depend on: dict of plain values."""
        return identity_v1(self)

    @cached_property
    def dense(self) -> str:
        """What the training of a chain's dense network depends on: str, the same for chains that share it."""
        irrelevant = {"path"}
        if not self.probes:  # what is measured may depend on all of them
            irrelevant |= {f.name for f in dataclasses.fields(Prune)}
        settings = {name: value for name, value in self.identity.items() if name not in irrelevant}
        if self.config.early_bird:  # at whatever threshold, it asks for the weights of every epoch
            settings["early_bird"] = True
        return json.dumps(settings, sort_keys=True)

    @cached_property
    def key(self) -> str:
        """Readable slug and hash of the identity: the unit's name on disk."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.config.experiment}-{self.arm}-r{self.replicate}-{digest}"


def identity_v1(unit: Unit) -> dict:
    """What a unit's numbers depend on, in the words by which every finished level is found. Frozen.

    Not in it are the settings marked ``identity=False``. Of these, `levels` and `rounds` enter as a path, so that a
    longer chain continues from a shorter one's finished levels. A setting that came after the first
    finished levels (``since=2``) enters where it is set, a model's or a data set's record where it is not built in.
    """
    settings = {}
    for f in (f for group in GROUPS for f in dataclasses.fields(group) if f.metadata.get("identity", True)):
        value = getattr(unit.config, f.name)
        if f.metadata.get("since", 1) == 1 or value != f.default:
            settings[f.metadata.get("hashed", f.name)] = value
    probes = {"beside": "+".join(unit.probes)} if unit.probes else {}
    records = {f"{kind} as": methods.registered(kind, getattr(unit.config, kind)) for kind in ("model", "dataset")}
    return {
        "algorithm": ALGORITHM,
        **settings,
        "path": list(unit.config.levels) or "every level",
        "replicate": unit.replicate,
        "subset": unit.subset,
        "source": None if unit.prunes else unit.chain.key,
        "start": unit.start.name,
        "mask": unit.mask.name,
        **probes,
        **{name: record for name, record in records.items() if record},
    }


def draw_seed(seed: int, purpose: str, *keys: int | str) -> int:
    """Seed of one random draw, in [0, 2**63): a pure function of the study's seed and of named keys.

    Draws of two purposes (``theta0``, ``subset``, ``order``, ...) never share a stream; the keys are what a draw may
    depend on (replicate, model, level, ...), plain values.
    """
    text = json.dumps([seed, purpose, *keys])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
