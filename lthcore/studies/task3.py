"""Task 3: does a ticket depend on the optimizer that found it?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import declared, figures
from ..unit import MaskOf, Unit
from .common import by_sgd
from .record import Answer, Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain per optimizer, and masks transferred to and from Adam; theta0 is the same for all."""
    adam = replace(config, optimizer="adam", momentum=0.0)
    sgd, momentum = replace(adam, optimizer="sgd"), replace(adam, optimizer="sgd", momentum=0.9)
    yield from _crossed({"adam": adam, "sgd": sgd, "momentum": momentum}, replicate)


def at_its_own_rate(config: Config, replicate: int) -> Iterator[Unit]:
    """The same of Adam and of plain SGD at a learning rate that suits it."""
    adam = replace(config, optimizer="adam", momentum=0.0)
    yield from _crossed({"adam": adam, "sgd": by_sgd(adam, "sgd")}, replicate)


def _crossed(trainers, replicate):
    chains = {name: Unit(config, name, replicate) for name, config in trainers.items()}
    yield from chains.values()
    for other in [name for name in trainers if name != "adam"]:
        for mask, trainer in ((other, "adam"), ("adam", other)):
            how = {"mask": MaskOf(chains[mask]), "levels": trainers["adam"].trained_levels[1:]}
            yield Unit(trainers[trainer], f"{mask}_mask_by_{trainer}", replicate, **how)


STYLES = {
    "adam": ("Adam, own mask", "blue", "o"),
    "sgd": ("SGD, own mask", "red", "s"),
    "momentum": ("SGD momentum 0.9, own mask", "purple", "D"),
    "sgd_mask_by_adam": ("Adam, SGD's mask", "sky", "^"),
    "adam_mask_by_sgd": ("SGD, Adam's mask", "orange", "v"),
    "momentum_mask_by_adam": ("Adam, momentum's mask", "green", "<"),
    "adam_mask_by_momentum": ("SGD momentum 0.9, Adam's mask", "yellow", ">"),
}


_TRAINERS = {  # trained by whom: the arms, and what is compared
    "Adam": (
        ("adam", "sgd_mask_by_adam", "momentum_mask_by_adam"),
        (("sgd_mask_by_adam", "SGD's mask - own", "adam"), ("momentum_mask_by_adam", "momentum's mask - own", "adam")),
    ),
    "SGD": (("sgd", "adam_mask_by_sgd"), (("adam_mask_by_sgd", "Adam's mask - own", "sgd"),)),
    "SGD with momentum": (
        ("momentum", "adam_mask_by_momentum"),
        (("adam_mask_by_momentum", "Adam's mask - own", "momentum"),),
    ),
}


_AT_ITS_OWN_RATE = {
    "Adam": (("adam", "sgd_mask_by_adam"), (("sgd_mask_by_adam", "SGD's mask - own", "adam"),)),
    "SGD": _TRAINERS["SGD"],
}


def fig5a(study, frame):
    """Task 3: accuracy against density, own and transferred masks of each optimizer, and their paired differences."""
    return _own_and_transferred(
        study, frame, "Figure 5a. Task 3, optimizers: test accuracy against remaining weights", _TRAINERS
    )


def fig16d(study, frame):
    """Task 3 with SGD at a rate of 0.2: the same."""
    title = "Figure 16d. Task 3, SGD at a learning rate of 0.2: test accuracy against remaining weights"
    return _own_and_transferred(study, frame, title, _AT_ITS_OWN_RATE)


def _own_and_transferred(study, frame, title, trainers):
    sheet = figures.Sheet(study, title, rows=3, columns=len(trainers))
    zoom = figures.zoom(frame, frame["arm"].unique())
    for column, (trainer, (arms, pairs)) in enumerate(trainers.items()):
        full, near, gain = sheet.axes[column :: len(trainers)]
        sheet.against_density(full, frame, arms, title=f"trained by {trainer}")
        sheet.against_density(near, frame, arms, title=f"by {trainer}, enlarged", zoom=zoom)
        sheet.reported(near, arms, names={"adam": "Adam", "sgd": "SGD"})
        sheet.differences(gain, frame, pairs, f"by {trainer}: paired differences", (-declared.MARGIN, declared.MARGIN))
    return sheet.done(legend_on=range(len(trainers)), where="lower left")


def fig5b(study, frame):
    """Task 3: test loss against training step, at the level of Adam's ticket (solid) and the last (dashed)."""
    level, last = figures.ticket_and_last(study, frame, "adam")
    title = f"Figure 5b. Task 3, optimizers: test loss, {figures.at_levels(frame, 'adam', level, last)}"
    sheet = figures.Sheet(study, title, columns=len(_TRAINERS))
    for axis, (trainer, (arms, _)) in zip(sheet.axes, _TRAINERS.items(), strict=True):
        sheet.against_step(axis, frame, arms, level, "loss", f"trained by {trainer}", dashed=last)
        axis.set_ylim(bottom=axis.get_ylim()[0] / 2.5)  # space for the legend
    return sheet.done(legend_on=range(len(_TRAINERS)), where="lower left")


TASK3 = Experiment(
    name="task3",
    title="Task 3: optimizers",
    group="report",
    notebook="04_task3_optimizers",
    settings={"model": "mlp", "batch_size": 50, "epochs": 50, "prune_rate": 0.5, "rounds": 10},
    presets={"report": {"replicates": 10}, "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)}},
    arms=arms,
    styles=STYLES,
    figures={"fig5a_task3_accuracy_vs_density": fig5a, "fig5b_task3_loss_vs_step": fig5b},
    reported={"sgd": 97.52, "adam": 97.17},
    answer=Answer(
        "task3",
        (
            "No: under the other optimizer's mask Adam and SGD are within 0.5 pp of their own.",
            "at the density that is judged, and within 0.5 pp, a mask does not depend on which of the two optimizers "
            "found it.",
        ),
        (
            "Yes for plain SGD at Adam's learning rate: in at least one direction, accuracy under the other's mask "
            "differs by more than 0.5 pp.",
            "the two masks are not interchangeable, but that need not be the optimizer's doing: where SGD's own chain "
            "is far below its dense network, its mask is no winning ticket. The claims about momentum, and "
            "about SGD at a rate of its own, test optimizers that converge within the schedule.",
        ),
        (
            "Whether a ticket depends on the optimizer that found it is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)

TASK3_SGD = Experiment(
    name="task3_sgd",
    title="Task 3 with SGD at a learning rate of its own",
    group="extended",
    notebook="16_left_open",
    parameters={"experiment": "task3_sgd"},
    copy="16_left_open_task3_sgd",
    settings=TASK3.settings,
    presets={**TASK3.presets, "report": {"replicates": 5}},
    first=5,
    arms=at_its_own_rate,
    styles={arm: STYLES[arm] for arm in ("adam", "sgd", "sgd_mask_by_adam", "adam_mask_by_sgd")},
    figures={"fig16d_task3_sgd": fig16d},
    answer=Answer(
        "task3-sgd",
        (
            "No: with SGD at a rate that suits it, each optimizer is within 0.5 pp of its own mask under the other's.",
            "at the density that is judged, and within 0.5 pp, a mask does not depend on which of the two optimizers "
            "found it.",
        ),
        (
            "Yes: with SGD at a rate that suits it, accuracy under the other's mask differs by more than 0.5 pp in at "
            "least one direction.",
            "the two masks are not interchangeable, and this time a rate that is too small is not the reason.",
        ),
        (
            "Whether a ticket depends on the optimizer, with SGD at a rate that suits it, is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
