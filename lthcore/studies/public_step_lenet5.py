"""The training step of a public repository: LeNet-5, in both forms that the report may mean."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import figures
from ..unit import Unit
from .lenet5 import LENET5
from .public_step import STEP, with_the_correct_step
from .record import Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """LeNet-5 by that step, in both forms that the report may mean."""
    yield Unit(config, "lenet5", replicate)
    yield Unit(replace(config, activation="relu", pool="max"), "lenet5_relu", replicate)


def fig12d(study, frame):
    """LeNet-5 by the public step, in both forms, and by the correct step."""
    sheet = figures.Sheet(study, "Figure 12d. LeNet-5 with the step of a public repository")
    for axis, arm in zip(sheet.axes, LENET_STYLES, strict=True):
        with_the_correct_step(sheet, axis, frame, (arm,), LENET_STYLES[arm][0])
        axis.set_ylim(0, 103)
        figures.marks(axis, ((0.15, "85% pruned"), (0.05, "95% pruned")), height=0.72)
        figures.threshold(axis, 80)
    return sheet.done(legend_on=(0, 1), where="lower left")


LENET_STYLES = {
    "lenet5": ("tanh and average pooling", "blue", "o"),
    "lenet5_relu": ("ReLU and max pooling", "red", "D"),
}

PUBLIC_STEP_LENET5 = Experiment(
    name="public_step_lenet5",
    title="The step of a public repository: LeNet-5",
    group="extended",
    notebook="12_what_the_report_ran",
    parameters={"experiment": "public_step_lenet5"},
    copy="12_what_the_report_ran_lenet5",
    settings={**LENET5.settings, **STEP},
    presets={
        "report": {"replicates": 5},
        "quick": {"replicates": 1, "levels": (0, 4, 9, 12, 14, 16, 18, 20)},
        "smoke": {"levels": (0, 1, 2, 20)},
    },
    fixed=("model",),
    arms=arms,
    styles=LENET_STYLES,
    figures={"fig12d_public_step_lenet5": fig12d},
)
