"""How far the MLP can be pruned: the report's Figures 1a and 1b."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import declared, figures, statistics
from ..unit import Unit
from .common import STYLES, ticket_and_controls
from .record import Answer, Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain, its controls, and a chain with its smallest layer unpruned and the others pruned harder for it."""
    yield from ticket_and_controls(config, replicate)
    if config.scope == "layer" and config.output_rate is None and config.structure == "weights":
        yield Unit(replace(config, spare="smallest"), "ticket_spared", replicate)


STYLES = {**STYLES, "ticket_spared": ("ticket, smallest layer unpruned", "purple", "D")}

_ARMS = ("ticket", "random_reinit", "random_mask", "ticket_spared")


def accuracy_vs_density(study, frame, number, name, marks):
    """Test accuracy against density, and the ticket's differences; `marks` are labelled densities."""
    sheet = figures.Sheet(study, f"Figure {number}a. {name}: test accuracy against remaining weights", rows=2)
    sheet.full_and_near(frame, _ARMS)
    dense = (("ticket", "ticket - dense", None),)
    sheet.differences(sheet.axes[2], frame, dense, "minus the dense network", -declared.MARGIN)
    controls = [("ticket", f"ticket - {sheet.style(arm)[0]}", arm) for arm in ("random_reinit", "random_mask")]
    sheet.differences(sheet.axes[3], frame, controls, "minus its controls")
    for axis in sheet.axes[:2]:
        figures.marks(axis, marks)
    figures.threshold(sheet.axes[0], 80)
    return sheet.done(where="lower left")


def accuracy_vs_step(study, frame, number, name):
    """The ticket's test accuracy against training step, at five levels from the dense network to the last."""
    import numpy as np

    sheet = figures.Sheet(
        study, f"Figure {number}b. {name}: test accuracy against training step, a curve per density (ticket)"
    )
    there = statistics.levels(frame, "ticket")
    wanted = sorted({there[round(i)] for i in np.linspace(0, len(there) - 1, min(5, len(there)))}) if there else []
    colours = figures.sns.color_palette("viridis", len(wanted))
    for axis, title in zip(sheet.axes, ("whole range", "near the dense network"), strict=True):
        for level, colour in zip(wanted, colours, strict=True):
            table = figures.by_step(frame[frame["arm"] == "ticket"], level, "accuracy")
            label = f"level {level}: {100 * statistics.density_at(frame, 'ticket', level):.3g}% density"
            sheet.line(axis, table, "step", label, colour, title, lw=1.6)
        figures.step_axis(axis)
        axis.set(ylabel=figures.UNITS["accuracy"], title=title)
    if zoom := figures.zoom(frame, ["ticket"]):
        sheet.axes[1].set_ylim(zoom[0] - 4, zoom[1])
    return sheet.done(legend_on=1)


def fig1a(study, frame):
    """MLP: test accuracy against density."""
    return accuracy_vs_density(study, frame, 1, "MLP", ((0.1, "90% pruned"), (0.05, "95% pruned")))


def fig1b(study, frame):
    """MLP: the ticket's test accuracy against training step, at five densities."""
    return accuracy_vs_step(study, frame, 1, "MLP")


def how_far(network, share):
    """The sentences of the answer for one of the report's networks."""
    return (
        (
            f"{network} can lose more than {share} of its weights and stay within 0.5 pp of the dense network.",
            f"more than {share} of the weights can be left out of the last training; whether they are needed to find "
            "the ticket is not tested here.",
        ),
        (
            f"{network} loses accuracy before {share} of its weights are gone.",
            "the report prunes this network further than it can be pruned without loss.",
        ),
        (
            f"Whether {network} can lose {share} of its weights without losing accuracy is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    )


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
    figures={"fig1a_mlp_accuracy_vs_density": fig1a, "fig1b_mlp_accuracy_vs_step": fig1b},
    answer=Answer("mlp-90", *how_far("The MLP", "90%")),
)
