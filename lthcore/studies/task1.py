"""Task 1: does a ticket found on one half of the data win on the other?"""

from collections.abc import Iterator

from ..config import Config
from ..unit import Unit
from .common import STYLES, controls
from .record import Experiment


def two_halves(config: Config, replicate: int, s1: str, s2: str, suffix: str = "") -> Iterator[Unit]:
    """Chains on two subsets, and the first one's tickets on the second subset with its controls."""
    t1 = Unit(config, f"t1_on_s1{suffix}", replicate, s1)
    yield t1
    yield Unit(config, f"t2_on_s2{suffix}", replicate, s2)
    yield Unit(config, f"t1_on_s2{suffix}", replicate, s2, source=t1, only=config.trained_levels[1:])
    yield from controls(config, t1, s2, suffix)


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Two halves of the training images."""
    yield from two_halves(config, replicate, "half1", "half2")


STYLES = {
    **STYLES,
    "t1_on_s1": ("T1 on S1", "blue", "o"),
    "t2_on_s2": ("T2 on S2", "black", "v"),
    "t1_on_s2": ("T1 on S2", "red", "D"),
}

TASK1 = Experiment(
    name="task1",
    title="Task 1: halves of the training images",
    group="report",
    notebook="02_task1_data_halves",
    settings={"model": "mlp", "batch_size": 50, "epochs": 50, "prune_rate": 0.5, "rounds": 5},
    presets={"report": {"replicates": 10}, "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)}},
    smallest=0.5,
    arms=arms,
    styles=STYLES,
)
