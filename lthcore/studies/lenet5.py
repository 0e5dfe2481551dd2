"""How far LeNet-5 can be pruned: the report's Figures 2a and 2b."""

from collections.abc import Iterator

from ..config import Config
from ..results.later import figures, statistics
from ..unit import Unit
from .mlp import STYLES, accuracy_vs_density, accuracy_vs_step, arms, how_far
from .record import Answer, Experiment


def fig2a(study, frame):
    """LeNet-5: test accuracy against density."""
    return accuracy_vs_density(study, frame, 2, "LeNet-5", ((0.15, "85% pruned"), (0.05, "95% pruned")))


def fig2b(study, frame):
    """LeNet-5: the ticket's test accuracy against training step, at five densities."""
    return accuracy_vs_step(study, frame, 2, "LeNet-5")


LENET5 = Experiment(
    name="lenet5",
    title="Pre-midsem: LeNet-5",
    group="report",
    notebook="01_pre_midsem",
    parameters={"model": "lenet5"},
    copy="01_pre_midsem_lenet5",
    settings={"model": "lenet5", "batch_size": 60, "epochs": 50, "prune_rate": 0.2, "rounds": 20},
    presets={"report": {"replicates": 8, "controls": 4}, "smoke": {"levels": (0, 1, 2, 20)}},
    fixed=("model",),
    arms=arms,
    styles=STYLES,
    figures={"fig2a_lenet5_accuracy_vs_density": fig2a, "fig2b_lenet5_accuracy_vs_step": fig2b},
    answer=Answer("lenet-85", *how_far("LeNet-5", "85%")),
)


def ticket_alone(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain."""
    yield Unit(config, "ticket", replicate)


def fig16c(study, frame):
    """LeNet-5 with ReLU and max pooling: test accuracy and connected outputs against density."""
    title = "Figure 16c. LeNet-5 with ReLU and max pooling: where it falls, and how many outputs are connected"
    sheet = figures.Sheet(study, title)
    accuracy, outputs = sheet.axes
    sheet.against_density(accuracy, frame, ("ticket",), title="test accuracy")
    figures.threshold(accuracy, 80)
    connected = statistics.at_end(frame, "live_outputs", "mask")
    sheet.against_density(outputs, frame, ("ticket",), title="outputs with a path from the input", series=connected)
    outputs.set(ylabel="connected outputs", ylim=(-0.3, 10.3))
    return sheet.done(where="lower left")


LENET5_RELU = Experiment(
    name="lenet5_relu",
    title="LeNet-5 with ReLU and max pooling",
    group="extended",
    notebook="16_left_open",
    parameters={"experiment": "lenet5_relu"},
    copy="16_left_open_lenet5_relu",
    settings={**LENET5.settings, "activation": "relu", "pool": "max"},
    presets={
        "report": {"replicates": 7},  # 0 and 1 are exploratory
        "quick": {"replicates": 1, "levels": (0, 4, 8, 12, 14, 16, 18, 19, 20)},
        "smoke": LENET5.presets["smoke"],
    },
    fixed=("model", "activation", "pool"),
    arms=ticket_alone,
    styles={"ticket": STYLES["ticket"]},
    figures={"fig16c_lenet5_relu": fig16c},
    answer=Answer(
        "lenet-relu-cliff",
        (
            "With ReLU and max pooling LeNet-5 does fall below 80%.",
            "the report's sentence about a cliff depends on an activation and a pooling that it does not state.",
        ),
        (
            "With ReLU and max pooling LeNet-5 does not fall below 80% either.",
            "the report's cliff is not found with either choice of what it does not state.",
        ),
        (
            "Whether LeNet-5 with ReLU and max pooling falls below 80% is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
