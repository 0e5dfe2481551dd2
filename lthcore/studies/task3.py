"""Task 3: does a ticket depend on the optimizer that found it?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import declared, figures
from ..unit import MaskOf, Unit
from .record import Answer, Experiment


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain per optimizer, and masks transferred to and from Adam; theta0 is the same for all."""
    adam = replace(config, optimizer="adam", momentum=0.0)
    trainers = {
        "adam": adam,
        "sgd": replace(adam, optimizer="sgd"),
        "momentum": replace(adam, optimizer="sgd", momentum=0.9),
    }
    chains = {name: Unit(c, name, replicate) for name, c in trainers.items()}
    yield from chains.values()
    only = config.trained_levels[1:]
    for mask, trainer in (("sgd", "adam"), ("adam", "sgd"), ("momentum", "adam"), ("adam", "momentum")):
        yield Unit(trainers[trainer], f"{mask}_mask_by_{trainer}", replicate, mask=MaskOf(chains[mask]), levels=only)


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


def fig5a(study, frame):
    """Task 3: accuracy against density, own and transferred masks of each optimizer, and their paired differences."""
    title = "Figure 5a. Task 3, optimizers: test accuracy against remaining weights"
    sheet = figures.Sheet(study, title, rows=3, columns=len(_TRAINERS), width=4.6)
    zoom = figures.zoom(frame, frame["arm"].unique())
    for column, (trainer, (arms, pairs)) in enumerate(_TRAINERS.items()):
        full, near, gain = sheet.axes[column :: len(_TRAINERS)]
        sheet.against_density(full, frame, arms, title=f"trained by {trainer}")
        sheet.against_density(near, frame, arms, title=f"by {trainer}, enlarged", zoom=zoom)
        sheet.reported(near, arms)
        sheet.differences(gain, frame, pairs, f"by {trainer}: paired differences", (-declared.MARGIN, declared.MARGIN))
    return sheet.done(legend_on=range(len(_TRAINERS)), where="lower left")


def fig5b(study, frame):
    """Task 3: test loss against training step, at the level of Adam's ticket (solid) and the last (dashed)."""
    level, last = figures.ticket_and_last(study, frame, "adam")
    title = f"Figure 5b. Task 3, optimizers: test loss, {figures.at_levels(frame, 'adam', level, last)}"
    sheet = figures.Sheet(study, title, columns=len(_TRAINERS), width=4.6)
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
            "within 0.5 pp a mask does not depend on which of the two optimizers found it.",
        ),
        (
            "Yes, for Adam and plain SGD in at least one direction: under the other's mask accuracy differs by more "
            "than 0.5 pp.",
            "the two masks are not interchangeable, but that need not be the optimizer's doing: where SGD's own chain "
            "is far below its dense network, its mask is no winning ticket. The claim about momentum tests an "
            "optimizer that converges within the schedule.",
        ),
        (
            "Whether a ticket depends on the optimizer that found it is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
