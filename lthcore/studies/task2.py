"""Task 2: does a ticket found on the digits 0-4 win on the digits 5-9?"""

import math
from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import figures, statistics
from ..unit import Unit
from .record import Answer, Experiment
from .task1 import ARMS, STYLES, carried_over, two_halves


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Two sets of labels, as pruned in the report and with the output layer spared."""
    yield from two_halves(config, replicate, "labels0-4", "labels5-9")
    if config.output_rate is None:
        spared = replace(config, output_rate=0)
        yield from two_halves(spared, replicate, "labels0-4", "labels5-9", "_spared")


def _task2(study, frame, letter, metric):
    title = f"Figure 4{letter}. Task 2, S1 = labels 0-4, S2 = labels 5-9: test {metric}"
    sheet = figures.Sheet(study, title, rows=3 if metric == "accuracy" else 2)
    for column, (suffix, text) in enumerate((("", "pruned as in the report"), ("_spared", "output layer spared"))):
        arms = [arm + suffix for arm in ARMS]
        if arms[0] not in set(frame["arm"]):
            continue
        level, last = figures.ticket_and_last(study, frame, arms[0])
        levels, (steps, density, *gain) = figures.at_levels(frame, arms[0], level, last), sheet.axes[column::2]
        sheet.against_step(steps, frame, arms, level, metric, f"{text}, while a level trains\n{levels}", dashed=last)
        sheet.against_density(density, frame, arms, metric, f"{text}, at the last step of every level")
        for axis in gain:
            carried_over(sheet, axis, frame, suffix, f"{text}, T1 on S2: paired differences")
            sheet.reported(density, ("t1_on_s1",) if not suffix else (), va="top")
        if metric == "loss":
            for axis in (steps, density):
                axis.axhline(math.log(5), color="0.3", lw=1, ls=":")
            where = {"xycoords": ("axes fraction", "data"), "va": "bottom", "ha": "right"}
            steps.annotate("ln 5: constant logits over five classes", (0.99, math.log(5)), **where, **figures.SMALL)
        shares = statistics.dead_labels(frame, f"t1_on_s2{suffix}", range(5, 10))
        if metric == "accuracy" and len(shares):
            share = shares["class_share"].iloc[-1]
            density.axhline(share, color="0.4", lw=1, ls=":")
            text = f"{share:.4f}%: all answers are {shares['top_answer'].iloc[-1]}"
            text += ", the report's number" if f"{share:.4f}" == f"{study.experiment.reported['t1_on_s2']:.4f}" else ""
            density.set_ylim(bottom=min(density.get_ylim()[0], share - 10))  # room below the line
            place = {"xycoords": ("axes fraction", "data"), "va": "top"}
            density.annotate(text, (0.02, share - 1.5), **place, fontsize=8, color="0.3")
    return sheet.done(legend_on=3, where="center left" if metric == "accuracy" else "upper left")


def fig4a(study, frame):
    """Task 2: test accuracy, as pruned in the report and with the output layer spared; the report's numbers."""
    return _task2(study, frame, "a", "accuracy")


def fig4b(study, frame):
    """Task 2: test loss, as pruned in the report and with the output layer spared; ln 5 is that of a uniform guess."""
    return _task2(study, frame, "b", "loss")


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
    figures={"fig4a_task2_accuracy": fig4a, "fig4b_task2_loss": fig4b},
    reported={"t1_on_s1": 97.23, "t1_on_s2": 21.1479},
    answer=Answer(
        "task2-ticket",
        (
            "No, and not only because its outputs are disconnected: even with the output layer spared, the ticket of "
            "the digits 0-4 stays below the ticket that the digits 5-9 find for themselves.",
            "the collapse to one class is about the output layer that was pruned away; what the mask itself costs is "
            "the difference that is left when that layer is spared.",
        ),
        (
            "Yes, if the output layer is spared: the ticket of the digits 0-4 is then within 0.5 pp of the "
            "ticket that the digits 5-9 find for themselves.",
            "the report's collapse is about the output layer alone, not about the ticket.",
        ),
        (
            "With the output layer spared, it is not resolved whether the ticket of the digits 0-4 is worse than the "
            "digits' own.",
            "the collapse to one class says nothing of the ticket; more replicates are needed to say what that costs.",
        ),
    ),
)
