"""Does LeNet-300-100 do what Frankle & Carbin (2019) published?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .common import PROTOCOL, SGD, STYLES, by_sgd, ticket_and_controls
from .record import Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Three re-initialisations at levels 7 and 15, one-shot pruning, other optimizers."""
    ticket, *beside = ticket_and_controls(config, replicate)
    yield ticket
    yield from beside
    for again in (2, 3):
        only = tuple(k for k in (7, 15) if k in config.control_levels)
        if only:
            yield Unit(config, f"random_reinit_{again}", replicate, source=ticket, start=f"reinit{again}", only=only)
    for level in (7, 11, 15):
        if level <= config.rounds:
            yield Unit(replace(config, levels=(0, level)), "one_shot", replicate)
    for name in SGD:
        yield Unit(by_sgd(config, name), name, replicate)


STYLES = {
    **STYLES,
    "random_reinit_2": ("re-initialised again", "orange", "s"),
    "random_reinit_3": ("re-initialised once more", "orange", "s"),
    "one_shot": ("one-shot ticket", "purple", "D"),
    "sgd": ("SGD, own mask", "red", "s"),
    "momentum": ("SGD momentum 0.9, own mask", "purple", "D"),
}

PAPER = Experiment(
    name="paper",
    title="Frankle & Carbin 2019: LeNet-300-100",
    group="extended",
    notebook="06_lottery_ticket_paper",
    parameters={"experiment": "paper"},
    settings={**PROTOCOL, "max_steps": 50_000, "often": 55},
    presets={"quick": {"epochs": 2}, "smoke": {"levels": (0, 1, 2, 20)}},
    arms=arms,
    styles=STYLES,
)
