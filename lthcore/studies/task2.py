"""Task 2: does a ticket found on the digits 0-4 win on the digits 5-9?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .record import Experiment
from .task1 import STYLES, two_halves


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Two sets of labels, as pruned in the report and with the output layer spared."""
    yield from two_halves(config, replicate, "labels0-4", "labels5-9")
    if config.output_rate is None:
        spared = replace(config, output_rate=0)
        yield from two_halves(spared, replicate, "labels0-4", "labels5-9", "_spared")


TASK2 = Experiment(
    name="task2",
    title="Task 2: sets of labels",
    group="report",
    notebook="03_task2_label_sets",
    settings={"model": "mlp", "batch_size": 50, "epochs": 50, "prune_rate": 0.35, "rounds": 15},
    presets={"report": {"replicates": 10}, "quick": {"epochs": 2}, "smoke": {"levels": (0, 1, 2, 15)}},
    smallest=29_404 / 60_000,  # the images of the labels 5-9
    arms=arms,
    styles=STYLES,
)
