"""Task 3: does a ticket depend on the optimizer that found it?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..results.later import figures, statistics
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


def common_level(frame, config):
    """The level of Figure 5b: the smallest L of the optimizers' chains, int or None."""
    found = [statistics.ticket_level(frame, arm, config.tolerance) for arm in ("adam", "sgd", "momentum")]
    return None if None in found else min(found)


_TRAINERS = {
    "trained by Adam": ("adam", "sgd_mask_by_adam", "momentum_mask_by_adam"),
    "trained by SGD": ("sgd", "adam_mask_by_sgd", "momentum", "adam_mask_by_momentum"),
}


def fig5a(study, frame):
    """Task 3: test accuracy against density, own and transferred masks of each optimizer; the report's numbers."""
    sheet = figures.Sheet(study, "Figure 5a. Task 3, optimizers: test accuracy against remaining weights", rows=2)
    zoom = figures.zoom(frame, frame["arm"].unique())
    for column, (title, arms) in enumerate(_TRAINERS.items()):
        full, near = sheet.axes[column::2]
        sheet.against_density(full, frame, arms, title=title)
        sheet.against_density(near, frame, arms, title=f"{title}, near the dense networks", zoom=zoom)
        sheet.reported(near, arms)
    return sheet.done(legend_on=(0, 1))


def fig5b(study, frame):
    """Task 3: test loss against training step, at the common level (solid) and the last (dashed)."""
    level = statistics.stands_at(common_level(frame, study.config))[0]
    last = max(statistics.levels(frame, "adam"), default=None)
    title = f"Figure 5b. Task 3, optimizers: test loss, {figures.at_levels(frame, 'adam', level, last)}"
    sheet = figures.Sheet(study, title)
    for axis, (title, arms) in zip(sheet.axes, _TRAINERS.items(), strict=True):
        sheet.against_step(axis, frame, arms, level, "loss", title, dashed=last)
    return sheet.done(legend_on=(0, 1))


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
