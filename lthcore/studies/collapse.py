"""How much of what a pruning curve shows is a layer that died? Every scope, rate and output rate."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .record import Experiment

RATES = {"mlp": ((0.2, 28), (0.3, 17), (0.5, 9)), "lenet5": ((0.2, 20),)}  # model -> (rate, rounds)


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Chains of every scope, rate and output rate."""
    for model, rates in RATES.items():
        for rate, rounds in rates:
            for scope in ("layer", "global"):
                for head, output_rate in (("same", None), ("half", rate / 2), ("spared", 0)):
                    levels = config.levels and (*(k for k in config.levels if k < rounds), rounds)
                    grid = {"model": model, "prune_rate": rate, "rounds": rounds, "levels": levels}
                    of_arm = replace(config, **grid, scope=scope, output_rate=output_rate)
                    yield Unit(of_arm, f"{model} {scope} {rate} {head}", replicate)


COLLAPSE = Experiment(
    name="collapse",
    title="An atlas of collapses",
    group="extended",
    notebook="11_collapse",
    # prune_rate, rounds and scope stand for none of the arms
    settings={"model": "mlp", "batch_size": 60, "epochs": 3, "prune_rate": 0.3, "rounds": 20},
    presets={"quick": {"replicates": 1}, "smoke": {"levels": (0, 1, 2, 20)}},
    arms=arms,
)
