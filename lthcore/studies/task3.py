"""Task 3: does a ticket depend on the optimizer that found it?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .record import Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain of each optimizer, and masks that are exchanged with Adam."""
    adam = replace(config, optimizer="adam", momentum=0.0)
    trainers = {
        "adam": adam,
        "sgd": replace(adam, optimizer="sgd"),
        "momentum": replace(adam, optimizer="sgd", momentum=0.9),
    }
    chains = {name: Unit(c, name, replicate) for name, c in trainers.items()}
    yield from chains.values()
    only = config.trained_levels[1:]
    for mask, trainer in (("sgd", "adam"), ("adam", "sgd"), ("momentum", "adam"), ("adam", "momentum")):
        yield Unit(trainers[trainer], f"{mask}_mask_by_{trainer}", replicate, source=chains[mask], only=only)


STYLES = {
    "adam": ("Adam, own mask", "blue", "o"),
    "sgd": ("SGD, own mask", "red", "s"),
    "momentum": ("SGD momentum 0.9, own mask", "purple", "D"),
    "sgd_mask_by_adam": ("Adam, SGD's mask", "sky", "^"),
    "adam_mask_by_sgd": ("SGD, Adam's mask", "orange", "v"),
    "momentum_mask_by_adam": ("Adam, momentum's mask", "green", "<"),
    "adam_mask_by_momentum": ("SGD momentum 0.9, Adam's mask", "yellow", ">"),
}

TASK3 = Experiment(
    name="task3",
    title="Task 3: optimizers",
    group="report",
    notebook="04_task3_optimizers",
    settings={"model": "mlp", "batch_size": 50, "epochs": 50, "prune_rate": 0.5, "rounds": 10},
    presets={"report": {"replicates": 10}, "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)}},
    arms=arms,
    styles=STYLES,
)
