"""Task 1 of the report: does a ticket found on one half of the data work as well on the other?"""

from collections.abc import Iterator

from ..config import Config
from ..results.later import declared, figures
from ..unit import MaskOf, Unit
from .common import STYLES, controls
from .record import Answer, Experiment


def two_subsets(config: Config, replicate: int, s1: str, s2: str, suffix: str = "") -> Iterator[Unit]:
    """The units of one replicate: T1 found on S1, T2 on S2, T1's masks on S2 from the same theta0, and their controls.

    `s1` and `s2` are names in :data:`lthcore.methods.SUBSETS`.
    """
    t1 = Unit(config, f"t1_on_s1{suffix}", replicate, s1)
    yield t1
    yield Unit(config, f"t2_on_s2{suffix}", replicate, s2)
    yield Unit(config, f"t1_on_s2{suffix}", replicate, s2, mask=MaskOf(t1), levels=config.trained_levels[1:])
    yield from controls(config, t1, s2, suffix)


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The units of one replicate; S1 and S2 are two random halves of the training images."""
    yield from two_subsets(config, replicate, "half1", "half2")


STYLES = {
    **STYLES,
    "t1_on_s1": ("T1 on S1", "blue", "o"),
    "t2_on_s2": ("T2 on S2", "black", "v"),
    "t1_on_s2": ("T1 on S2", "red", "D"),
}

ARMS = ("t1_on_s1", "t2_on_s2", "random_reinit", "random_mask", "t1_on_s2")


def fig3(study, frame):
    """Task 1: test accuracy and loss against step, last-step accuracy against density, differences of T1 on S2."""
    level, _ = figures.ticket_and_last(study, frame, "t1_on_s1")
    text = figures.at_levels(frame, "t1_on_s1", level, level).removeprefix("solid: ")
    sheet = figures.Sheet(
        study, "Figure 3. Task 1, S1 and S2 = halves of the training images (controls: of T1's mask, on S2)", rows=2
    )
    *by_step, by_density, differences = sheet.axes
    for axis, metric in zip(by_step, figures.UNITS, strict=True):
        sheet.against_step(axis, frame, ARMS, level, metric, f"{metric} while a level trains: {text}")
    sheet.against_density(by_density, frame, ARMS, title="accuracy at the last step of every level")
    sheet.reported(by_density, study.experiment.reported)
    carried_over(sheet, differences, frame)
    return sheet.done(legend_on=2, where="lower left")


def carried_over(sheet, axis, frame, suffix="", title="T1 on S2: paired differences"):
    """T1 on S2 minus T2 on S2 and minus a random mask, in paired differences, with the bounds of the claims."""
    arm, target, random = (name + suffix for name in ("t1_on_s2", "t2_on_s2", "random_mask"))
    bounds = {"minus T2 on S2": -declared.MARGIN, "minus random mask": 0}
    pairs = [(arm, label, other) for label, other in zip(bounds, (target, random), strict=True)]
    sheet.differences(axis, frame, pairs, title, bounds)


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
    figures={"fig3_task1": fig3},
    reported={"t1_on_s1": 95.74, "t1_on_s2": 96.14},
    answer=Answer(
        "task1",
        (
            "Yes, within the bound: on S2, the mask found on S1 is at most 0.5 pp below that found on S2, and better "
            "than a random mask.",
            "for this network and density, a mask carries over to another random half of MNIST. That it beats a random "
            "mask is the more informative part.",
        ),
        (
            "No: on S2, the mask found on S1 is more than 0.5 pp below the one found on S2, or no better than a random "
            "mask.",
            "the mask does not carry over within 0.5 pp, or is no better than a random one; the table shows which.",
        ),
        (
            "It is not resolved whether, on S2, the mask found on S1 is at most 0.5 pp below the one found on S2 and "
            "better than a random mask.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
