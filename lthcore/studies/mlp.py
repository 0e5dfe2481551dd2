"""How far the MLP can be pruned: the report's Figures 1a and 1b."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .common import STYLES, ticket_and_controls
from .record import Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain, its controls, and a chain whose smallest layer is spared."""
    yield from ticket_and_controls(config, replicate)
    if config.scope == "layer" and config.output_rate is None and config.structure == "weights":
        yield Unit(replace(config, spare="smallest"), "ticket_spared", replicate)


STYLES = {**STYLES, "ticket_spared": ("ticket, smallest layer spared", "purple", "D")}

MLP = Experiment(
    name="mlp",
    title="Pre-midsem: the MLP",
    group="report",
    notebook="01_pre_midsem",
    parameters={"model": "mlp"},
    copy="01_pre_midsem_mlp",
    settings={"model": "mlp", "batch_size": 60, "epochs": 75, "prune_rate": 0.3, "rounds": 20},
    presets={"report": {"replicates": 10, "controls": 2}, "smoke": {"levels": (0, 1, 2, 20)}},
    fixed=("model",),
    arms=arms,
    styles=STYLES,
)
