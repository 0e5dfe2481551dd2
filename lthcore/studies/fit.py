"""Does a ticket generalise better? Training accuracy, which the report's experiments do not store."""

from collections.abc import Iterator

from ..config import Config
from ..results.later import figures, measures
from ..unit import Fresh, MaskOf, Unit
from . import lenet5, mlp
from .common import STYLES
from .record import Answer, Experiment

ARMS = ("ticket", "random_reinit")


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """A chain and its mask with fresh values; of both the fit to the training images is measured."""
    ticket = Unit(config, "ticket", replicate, probes=("fit",))
    yield ticket
    if levels := config.control_levels:
        how = {"mask": MaskOf(ticket), "start": Fresh(), "levels": levels, "probes": ("fit",)}
        yield Unit(config, "random_reinit", replicate, **how)


def fig16a(study, frame):
    """MLP: accuracy on training and test images, and the gap between them."""
    return _fit(study, frame, "Figure 16a. MLP: how well the training images are fitted")


def fig16b(study, frame):
    """LeNet-5: accuracy on training and test images, and the gap between them."""
    return _fit(study, frame, "Figure 16b. LeNet-5: how well the training images are fitted")


def _fit(study, frame, title):
    sheet = figures.Sheet(study, f"{title} (means of the last fifth of training)", rows=2)
    gap = measures.gap(frame)
    for axis, name, series, label in (
        (sheet.axes[0], "training images", measures.last_fifth(frame, "train"), "training accuracy (%)"),
        (sheet.axes[1], "test images", measures.last_fifth(frame), "test accuracy (%)"),
        (sheet.axes[2], "the gap between them", gap, "training minus test accuracy (pp)"),
    ):
        present = [arm for arm in ARMS if arm in series.index.get_level_values("arm")]
        sheet.against_density(axis, frame, present, title=name, series=series)
        axis.set_ylabel(label)
    pairs = [("ticket", "ticket - dense", None), ("ticket", "ticket - reinitialised", "random_reinit")]
    sheet.differences(sheet.axes[3], frame, pairs, "differences of the gap", series=gap)
    sheet.axes[3].set_ylabel("difference of the gap (pp)")
    return sheet.done(where="lower right")


def _of(base, claim, network, group, first, rounds, figure):
    """The study of one of the report's networks, by its schedule up to level L, for one of its claims."""
    name = f"{base.name}_fit"
    return Experiment(
        name=name,
        title=f"Fit to the training images: {network}",
        group=group,
        notebook="16_left_open",
        parameters={"experiment": name},
        copy=f"16_left_open_{name}",
        settings={**base.settings, "rounds": rounds},
        presets={"report": {**base.presets["report"], "replicates": 5}, "smoke": {"levels": (0, 1, 2, rounds)}},
        fixed=base.fixed,
        first=first,
        decides=(claim,),
        arms=arms,
        styles={arm: STYLES[arm] for arm in ARMS},
        figures={f"{figure.__name__}_{name}": figure},
        answer=Answer(
            claim,
            (
                f"Yes: {network}'s ticket has a smaller gap between training and test accuracy than the dense network.",
                "in this sense it generalises better; its test accuracy is a claim of its own.",
            ),
            (
                f"No: {network}'s ticket does not have a smaller gap between training and test accuracy than the dense "
                "network.",
                "in this sense it does not generalise better; its test accuracy is a claim of its own.",
            ),
            (
                f"Whether {network}'s ticket generalises better than the dense network is not resolved.",
                "more replicates are needed before the question is answered either way.",
            ),
        ),
    )


MLP_FIT = _of(mlp.MLP, "mlp-generalise", "the MLP", "extended", first=5, rounds=9, figure=fig16a)
LENET5_FIT = _of(lenet5.LENET5, "lenet-generalise", "LeNet-5", "named", first=3, rounds=13, figure=fig16b)
