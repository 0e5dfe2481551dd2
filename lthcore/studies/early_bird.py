"""How early is a ticket's mask decided? After You et al. (2020), on weights."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .common import SPARED, STYLES
from .record import Experiment

LEVELS = (1, 2, 4, 6)  # of which each is reached in one shot


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The mask of an early epoch beside that of the whole training and a random one."""
    for level in [k for k in LEVELS if k <= config.rounds]:
        one_shot = replace(config, levels=(0, level))
        d = config.density(level)
        whole = Unit(one_shot, "whole", replicate)
        yield whole
        yield Unit(replace(one_shot, early_bird=0.1), "early", replicate)
        if level > 1:  # as large a share of what two random masks differ in as 0.1 is at half the weights
            yield Unit(replace(one_shot, early_bird=round(0.4 * d * (1 - d), 4)), "early_strict", replicate)
        if config.controls:
            yield Unit(one_shot, "random_mask", replicate, source=whole, mask="random", only=(level,))


STYLES = {
    "random_mask": STYLES["random_mask"],
    "whole": ("mask of the last epoch", "blue", "o"),
    "early": ("mask of the early epoch, 0.1", "red", "D"),
    "early_strict": ("mask of the early epoch, a fifth of chance", "purple", "v"),
}

EARLY_BIRD = Experiment(
    name="early_bird",
    title="Masks of early epochs",
    group="extended",
    notebook="10_early_bird",
    settings={**SPARED, "epochs": 40, "rounds": 6},
    presets={
        "quick": {"replicates": 1, "controls": 1, "epochs": 6},  # of which the last five must agree
        "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)},
    },
    by_margin=True,
    arms=arms,
    styles=STYLES,
)
