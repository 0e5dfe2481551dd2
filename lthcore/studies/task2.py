"""Task 2 of the report: does a ticket found on the digits 0-4 work on the digits 5-9?"""

import math
from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import figures, statistics
from ..unit import Unit
from .record import Answer, Experiment
from .task1 import ARMS, STYLES, carried_over, two_subsets


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """The units of one replicate, on two sets of labels: pruned as in the report, and the output layer unpruned."""
    yield from two_subsets(config, replicate, "labels0-4", "labels5-9")
    if config.output_rate is None:  # else the user has set how the output layer is pruned
        unpruned = replace(config, output_rate=0)
        yield from two_subsets(unpruned, replicate, "labels0-4", "labels5-9", "_spared")


def _task2(study, frame, letter, metric):
    """Figure 4a (accuracy) or 4b (loss): a column for each way in which the study prunes the output layer."""
    title = f"Figure 4{letter}. Task 2, S1 = labels 0-4, S2 = labels 5-9: test {metric}"
    rate, arms_of_study = study.config.output_rate, {unit.arm for unit in study.units}
    ways = {"": "all layers pruned" if rate is None else f"output layer pruned by {100 * rate:g}% a round"}
    if ARMS[0] + "_spared" in arms_of_study:
        ways["_spared"] = "output layer unpruned"
    size = {"rows": 3 if metric == "accuracy" else 2, "columns": len(ways), "width": 5.6 if len(ways) > 1 else 7.6}
    sheet = figures.Sheet(study, title, **size)
    for column, (suffix, text) in enumerate(ways.items()):
        names = [arm + suffix for arm in ARMS]
        if names[0] not in set(frame["arm"]):
            continue
        level, last = figures.ticket_and_last(study, frame, names[0])
        levels, (steps, density, *differences) = (
            figures.at_levels(frame, names[0], level, last),
            sheet.axes[column :: len(ways)],
        )
        sheet.against_step(steps, frame, names, level, metric, f"{text}, while a level trains\n{levels}", dashed=last)
        sheet.against_density(density, frame, names, metric, f"{text}, at the last step of every level")
        for axis in differences:
            carried_over(sheet, axis, frame, suffix, f"{text}, T1 on S2: paired differences")
            sheet.reported(density, ("t1_on_s1",) if not suffix else (), va="top")
        if metric == "loss":
            for axis in (steps, density):
                axis.axhline(math.log(5), color="0.3", lw=1, ls=":")
            where = {"xycoords": ("axes fraction", "data"), "va": "top"}
            steps.annotate(
                "ln 5: all five classes equally likely", (0.01, 0.97 * math.log(5)), **where, **figures.SMALL
            )
        disconnected = statistics.dead_labels(frame, f"t1_on_s2{suffix}", range(5, 10))
        if metric == "accuracy" and len(disconnected):
            share = disconnected["class_share"].iloc[-1]
            density.axhline(share, color="0.4", lw=1, ls=":")
            same = f"{share:.4f}" == f"{study.experiment.reported['t1_on_s2']:.4f}"
            whose = " (the report's number)" if same else ""
            text = f"{share:.4f}%{whose}: {disconnected['top_answer'].iloc[-1]} is the answer to every image"
            density.set_ylim(bottom=min(density.get_ylim()[0], share - 10))  # space below the line
            place = {"xycoords": ("axes fraction", "data"), "va": "top"}
            density.annotate(text, (0.02, share - 1.5), **place, fontsize=8, color="0.3")
    return sheet.done(legend_on=2 * len(ways) - 1, where="center left" if metric == "accuracy" else "upper left")


def fig4a(study, frame):
    """Task 2: test accuracy, pruned as in the report and with the output layer unpruned; the report's numbers."""
    return _task2(study, frame, "a", "accuracy")


def fig4b(study, frame):
    """Task 2: test loss, pruned as in the report and with the output layer unpruned; ln 5 is that of equal odds."""
    return _task2(study, frame, "b", "loss")


TASK2 = Experiment(
    name="task2",
    title="Task 2: sets of labels",
    group="report",
    notebook="03_task2_label_sets",
    settings={"model": "mlp", "batch_size": 50, "epochs": 50, "prune_rate": 0.35, "rounds": 15},
    presets={"report": {"replicates": 10}, "quick": {"epochs": 2}, "smoke": {"levels": (0, 1, 2, 15)}},
    smallest=29_404 / 60_000,  # of all training images, those of the labels 5-9
    arms=arms,
    styles=STYLES,
    figures={"fig4a_task2_accuracy": fig4a, "fig4b_task2_loss": fig4b},
    reported={"t1_on_s1": 97.23, "t1_on_s2": 21.1479},
    answer=Answer(
        "task2-ticket",
        (
            "Not fully. Pruned as in the report, the ticket found on 0-4 loses its outputs for 5-9. With the output "
            "layer unpruned it learns these digits, but stays more than 0.5 pp below the ticket found on 5-9.",
            "the collapse to one class comes from pruning the output layer; a smaller loss remains without that.",
        ),
        (
            "Yes, if the output layer is left unpruned: the ticket found on 0-4 is then at most 0.5 pp below the "
            "ticket found on 5-9.",
            "the report's collapse comes from pruning the output layer alone, and says nothing about the other layers.",
        ),
        (
            "With the output layer unpruned, it is not resolved whether the ticket found on 0-4 is more than 0.5 pp "
            "below the ticket found on 5-9.",
            "the collapse to one class comes from the output layer; more replicates are needed to measure what else is "
            "lost.",
        ),
    ),
)
