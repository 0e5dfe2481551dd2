"""What several studies share: arms, settings and styles. Standard library only."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Fresh, MaskOf, RandomLike, Unit

STYLES = {
    "ticket": ("ticket (theta0)", "blue", "o"),
    "random_reinit": ("reinitialised", "orange", "s"),
    "random_mask": ("random mask", "green", "^"),
}
# Frankle & Carbin 2019: 20% a round and half of that in the output layer (Figure 2)
PROTOCOL = {"model": "mlp", "batch_size": 60, "epochs": 55, "prune_rate": 0.2, "output_rate": 0.1, "rounds": 20}
AT = 9  # the last level of the MLP's ticket, 4% density, chosen for the rules by replicates 0 to 4
# on the MLP, the head spared, so that no output dies and any task can have it
SPARED = {"model": "mlp", "batch_size": 60, "prune_rate": 0.5, "output_rate": 0}
# arm -> momentum and rate. Frankle & Carbin's G.3 has 0.4 and 0.1 among the best; with our pixels, of variance 1, the
# dense network then ends at 97.5 and 10.6% on the validation images. These are the best by that accuracy of 0.05, 0.1,
# 0.2, 0.4 (98.4%) and of 0.01, 0.03, 0.05, 0.1 (98.3%), mean of 2 replicates, 50,000 steps.
SGD = {"sgd": (0.0, 0.2), "momentum": (0.9, 0.03)}


def by_sgd(config: Config, arm: str) -> Config:
    """The settings of an arm that is trained by SGD, at a rate of its own."""
    momentum, lr = SGD[arm]
    return replace(config, optimizer="sgd", momentum=momentum, lr=lr)


def levels_of(chain: Unit, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The wanted levels that a chain has; where it has none of them, all but the dense one."""
    return tuple(k for k in wanted if k in chain.levels) or chain.levels[1:]


def ticket_and_controls(config: Config, replicate: int, subset: str = "full") -> Iterator[Unit]:
    """A chain and its controls."""
    ticket = Unit(config, "ticket", replicate, subset)
    yield ticket
    yield from controls(config, ticket, subset)


def controls(config: Config, chain: Unit, subset: str = "full", suffix: str = "") -> Iterator[Unit]:
    """The ticket's mask with fresh values, and theta0 under a random mask of the same layer-wise densities."""
    common = {"replicate": chain.replicate, "subset": subset, "levels": config.control_levels}
    if config.control_levels:
        yield Unit(config, f"random_reinit{suffix}", mask=MaskOf(chain), start=Fresh(), **common)
        yield Unit(config, f"random_mask{suffix}", mask=RandomLike(chain), **common)
