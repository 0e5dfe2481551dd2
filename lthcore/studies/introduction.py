"""Dropout and learning-rate warm-up, which the report's introduction mentions and its experiments do not use."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import figures
from ..unit import Unit
from .common import STYLES
from .mlp import MLP
from .record import Experiment

ARMS = ("ticket", "dropout", "warmup")


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain as in the report, one with dropout and one with a warm-up."""
    yield Unit(config, "ticket", replicate)
    yield Unit(replace(config, dropout=0.2), "dropout", replicate)
    yield Unit(replace(config, warmup=1000), "warmup", replicate)


def fig16e(study, frame):
    """Accuracy of the three chains against density, and their differences."""
    title = "Figure 16e. The MLP with dropout of 0.2, and with a warm-up of 1,000 steps"
    sheet = figures.Sheet(study, title, rows=2)
    sheet.full_and_near(frame, ARMS)
    dense = [(arm, f"{sheet.style(arm)[0]} - dense", None) for arm in ARMS]
    sheet.differences(sheet.axes[2], frame, dense, "minus each one's dense network")
    others = [(arm, f"{sheet.style(arm)[0]} - without", "ticket") for arm in ARMS[1:]]
    sheet.differences(sheet.axes[3], frame, others, "minus the chain without it")
    return sheet.done(where="lower left")


INTRODUCTION = Experiment(
    name="introduction",
    title="Dropout and warm-up",
    group="named",
    notebook="16_left_open",
    parameters={"experiment": "introduction"},
    copy="16_left_open_introduction",
    settings={**MLP.settings, "epochs": 15, "rounds": 9},
    presets={"report": {"replicates": 5}, "smoke": {"levels": (0, 1, 2, 9)}},
    fixed=MLP.fixed,
    arms=arms,
    styles={
        "ticket": STYLES["ticket"],
        "dropout": ("with dropout", "red", "D"),
        "warmup": ("with warm-up", "green", "^"),
    },
    figures={"fig16e_introduction": fig16e},
)
