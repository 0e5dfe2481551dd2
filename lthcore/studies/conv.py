"""Conv-2, -4 and -6 by the protocol of Frankle & Carbin (2019), and what a CPU can show of them in minutes."""

from collections.abc import Iterator
from itertools import pairwise

from ..config import Config
from ..methods import BUILT_IN
from ..results.later import figures, statistics, verdicts
from ..schedule import ARCHITECTURES, Architecture
from ..unit import Unit
from .common import STYLES, ticket_and_controls
from .record import Claim, Experiment

SETTINGS = {"dataset": "cifar10", "pool": "max", "batch_size": 60, "prune_rate": 0.2, "output_rate": 0.1, "rounds": 20}
SMOKE = {"max_steps": 3, "test_images": 100}  # a step takes a third of a second


def _architecture(*channels):
    """Conv-2, -4 or -6: pairs of 3x3 convolutions, a pool after each, then 256-256-10 (Frankle & Carbin 2019, 3)."""
    shapes = {f"conv{i + 1}": (out, into, 3, 3) for i, (into, out) in enumerate(pairwise((3, *channels)))}
    flat = channels[-1] * (32 >> len(channels) // 2) ** 2
    weights = {**shapes, "fc1": (256, flat), "fc2": (256, 256), "head": (10, 256)}
    return Architecture(weights, "relu", "lthcore.studies.networks:ConvNet", ((1, 28, 28), (3, 32, 32)))


NETWORKS = {
    "conv2": _architecture(64, 64),
    "conv4": _architecture(64, 64, 128, 128),
    "conv6": _architecture(64, 64, 128, 128, 256, 256),
}
for _known in (ARCHITECTURES, BUILT_IN["model"]):  # as built-in ones, which need not be sent to other processes
    _known.update(NETWORKS)


def on_a_tenth(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain and its controls, on a tenth of the training images."""
    yield from ticket_and_controls(config, replicate, "tenth")


def fig6c(study, frame):
    """A convolutional network at its last level (solid) and dense (dashed), against the training step."""
    arms = ("ticket", "random_reinit", "random_mask")
    last = max(statistics.levels(frame, "ticket"), default=None)
    model = figures.MODELS.get(study.config.model, study.config.model)
    title = f"Figure 6c. {model}: {figures.at_levels(frame, 'ticket', last, 0)}"
    if frame["replicate"].nunique() == 1:
        title += "; one replicate: an illustration, no evidence"
    sheet = figures.Sheet(study, title)
    for axis, metric in zip(sheet.axes, ("accuracy", "loss"), strict=True):
        sheet.against_step(axis, frame, arms, last, metric, metric, dashed=0)
    return sheet.done()


def _better(frame, config):
    level = statistics.best_level(frame, "ticket")
    return [
        verdicts.difference(
            frame, f"ticket - dense, level {level} (best on validation)", ("ticket", level), ("ticket", 0), above=0
        )
    ]


def _of(name, lr, epochs, max_steps, conv_rate):
    title = f"Conv-{name[4:]}"
    figure = f"fig6c_{name}"
    return Experiment(
        name=name,
        title=f"Frankle & Carbin 2019: {title} on CIFAR-10",
        group="named",
        notebook="06_lottery_ticket_paper",
        parameters={"experiment": name},
        copy=f"06_{name}",
        settings={
            **SETTINGS, "model": name, "lr": lr, "epochs": epochs, "max_steps": max_steps, "frequent_epochs": epochs,
            "conv_rate": conv_rate,
        },
        presets={"smoke": {**SMOKE, "levels": (0, 20)}},
        fixed=("model",),
        arms=ticket_and_controls,
        styles=STYLES,
        figures={figure: fig6c},
        claims=(Claim(name, f"{title}'s best ticket is better than dense (CIFAR-10)", "better", figure, _better),),
    )  # fmt: skip


# 20,000, 25,000 and 30,000 steps, 10% (Conv-6: 15%) of the convolutions a round
CONV2 = _of("conv2", 2e-4, 27, 20_000, 0.1)
CONV4 = _of("conv4", 3e-4, 34, 25_000, 0.1)
CONV6 = _of("conv6", 3e-4, 40, 30_000, 0.15)
FASHION_CONV2 = Experiment(
    name="fashion_conv2",
    title="Conv-2 on a tenth of Fashion-MNIST, at one density",
    group="extended",
    notebook="06_lottery_ticket_paper",
    parameters={"experiment": "fashion_conv2"},
    copy="06_fashion_conv2",
    settings={
        **SETTINGS, "dataset": "fashion", "model": "conv2", "lr": 2e-4, "epochs": 5, "conv_rate": 0.1, "rounds": 7,
        "levels": (0, 7),
    },
    presets={
        "report": {"replicates": 1},
        "quick": {"replicates": 1, "test_images": 2000},
        "smoke": {**SMOKE, "rounds": 15, "levels": (0, 15)},
    },
    fixed=("model",),
    smallest=0.1,
    arms=on_a_tenth,
    styles=STYLES,
    figures={"fig6c_fashion_conv2": fig6c},
)  # fmt: skip
CONVS = (CONV2, CONV4, CONV6, FASHION_CONV2)
