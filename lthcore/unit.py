"""What is trained: a :class:`Unit` is one arm of one replicate, and its identity a hash of what its numbers depend on.

Standard library only.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

from . import methods
from .config import Config

ALGORITHM = 1  # raise it when a change of code changes numbers: finished levels get new identities
# What a level's numbers do not depend on: it says how much is run, where, or how it is judged. `levels` and
# `rounds` enter through a unit's path, so that a longer chain goes on from a shorter one's finished levels.
# Settings that came later than the first finished levels are part of an identity only where they are set.
LATER = (
    "dataset", "conv_rate", "dropout", "warmup", "often", "criterion", "rewind", "structure", "retrain_epochs",
    "retrain_lr", "early_bird", "weight_decay",
)  # fmt: skip
NOT_IDENTITY = ("preset", "tolerance", "margin", "replicates", "controls", "device", "rounds", "levels")
PRUNING = (  # nothing to the training of the dense network
    "prune_rate", "scope", "output_rate", "conv_rate", "spare", "rewind_step", "criterion", "rewind", "structure",
    "retrain_epochs", "retrain_lr",
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """One arm of one replicate: the levels of a chain, or of an arm that takes a chain's masks.

    Parameters
    ----------
    config : Config
        How its networks are trained (and, for a chain, pruned).
    arm : str
        Name of its curve in the figures.
    replicate : int
        0, 1, ...
    subset : str
        The part of the data it trains on and is tested on; see :func:`lthcore.data.split`.
    source : Unit or None
        The chain whose masks it uses; ``None``: it is a chain and prunes for itself.
    start : str
        ``theta0``, or ``reinit``, ``reinit2``, ... for fresh values from the same initialiser; ``fresh_head``:
        theta0, but the output layer's values are those of ``reinit``. ``config.rewind`` is for the chain alone: a unit
        that takes its masks is reset, to theta0 or the rewind step.
    mask : str
        ``ticket``: the source's mask; ``random``: as many weights per tensor, chosen at random.
    beside : str
        The network that is trained beside it and compared: ``order``, the same in another order of the batches,
        ``dense``, the dense network in the same order, or none. Without training: ``deletion``, itself pruned at once
        to many densities (of level 0), ``smaller``, itself with its removed filters taken out.
    only : tuple of int
        Levels trained, for a unit with a source; a chain trains ``config.trained_levels``.
    """

    config: Config
    arm: str
    replicate: int
    subset: str = "full"
    source: "Unit | None" = None
    start: str = "theta0"
    mask: str = "ticket"
    beside: str = ""
    only: tuple = ()

    @cached_property
    def levels(self) -> tuple[int, ...]:
        """Levels of this unit: tuple of int, increasing."""
        return self.only if self.source else self.config.trained_levels

    def needs(self, level: int) -> "tuple[Unit, int] | None":
        """The (unit, level) whose pruning gives this level's mask, or None for a dense level."""
        chain = self.source or self
        before = [k for k in chain.levels if k < level]
        return (chain, before[-1]) if before else None

    @property
    def goes_on(self) -> bool:
        """Whether a level needs the final weights of the one before, which are kept for that: bool."""
        return self.source is None and methods.find("rewind", self.config.rewind).needs_previous

    @cached_property
    def identity(self) -> dict:
        """What the unit's numbers depend on: dict of plain values."""
        later = {f.name: f.default for f in dataclasses.fields(self.config) if f.name in LATER}
        settings = {k: v for k, v in self.config.table() if k not in NOT_IDENTITY and (k not in later or v != later[k])}
        path = list(self.config.levels) if self.config.levels else "every level"
        source = self.source.key if self.source else None
        return {
            "algorithm": ALGORITHM, **settings, "path": path, "replicate": self.replicate,
            "subset": self.subset, "source": source, "start": self.start, "mask": self.mask,
            **({"beside": self.beside} if self.beside else {}),
        }  # fmt: skip

    @cached_property
    def dense(self) -> str:
        """What the training of a chain's dense network depends on: str, the same for chains that share it."""
        less = ("path",) if self.beside else (*PRUNING, "path")  # what is measured beside it may depend on all of them
        settings = {k: v for k, v in self.identity.items() if k not in less}
        if "early_bird" in settings:  # at whatever threshold, it asks for the weights of every epoch
            settings["early_bird"] = True
        return json.dumps(settings, sort_keys=True)

    @cached_property
    def key(self) -> str:
        """Readable slug and hash of the identity: the unit's name on disk."""
        digest = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self.config.experiment}-{self.arm}-r{self.replicate}-{digest}"


def draw_seed(seed: int, purpose: str, *keys: int | str) -> int:
    """Seed of one random draw: a pure function of its named keys.

    Parameters
    ----------
    seed : int
        The study's seed.
    purpose : str
        ``theta0``, ``subset``, ``order``, ``reinit`` or ``ranking``; draws of two purposes never share a stream.
    *keys
        What the draw may depend on (replicate, model, level, ...), plain values.

    Returns
    -------
    int
        In [0, 2**63).
    """
    text = json.dumps([seed, purpose, *keys])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
