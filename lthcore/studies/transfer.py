"""Does a ticket of one task help on another? After Morcos et al. (2019)."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from ..config import Config
from ..results.later import figures, verdicts
from ..unit import Altered, Fresh, MaskOf, RandomLike, Unit
from .common import SPARED, STYLES, by_sgd
from .record import Answer, Claim, Experiment

# subset -> times as many epochs as on all of MNIST: as many steps, within 6 %
SAME_STEPS = {"half1": 2, "labels0-4": 2, "labels5-9": 2, "fifth": 5, "labels0-1": 5, "tenth": 10}
CONTROLLED = ("mnist", "fashion", "momentum", "labels5-9")  # chains whose tasks have controls


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Masks transferred between data sets, optimizers and labels, and from smaller data sets."""
    levels = tuple(k for k in config.trained_levels if k >= 3)
    chains = {"mnist": config, "fashion": replace(config, dataset="fashion"), "momentum": by_sgd(config, "momentum")}
    chains = {name: Unit(c, name, replicate) for name, c in chains.items()}
    for subset, times in SAME_STEPS.items():
        chains[subset] = Unit(replace(config, epochs=times * config.epochs), subset, replicate, subset)
    yield from chains.values()

    def transferred(on, arm, mask, **start):
        return Unit(chains[on].config, arm, replicate, chains[on].subset, mask, levels=levels, **start)

    pairs = (("fashion", "mnist"), ("mnist", "fashion"), ("momentum", "mnist"), ("mnist", "momentum"))
    smaller = ((subset, "mnist") for subset in SAME_STEPS if subset != "labels5-9")
    for mask, on in (*pairs, *smaller, ("labels0-4", "labels5-9")):
        yield transferred(on, f"{mask}_on_{on}", MaskOf(chains[mask]))
    fresh = Altered(fresh_head.__name__, __name__)
    for mask in ("labels0-4", "labels5-9"):
        yield transferred("labels5-9", f"{mask}_fresh_head", MaskOf(chains[mask]), start=fresh)
    for on in CONTROLLED if config.controls else ():
        yield transferred(on, f"random_reinit_on_{on}", MaskOf(chains[on]), start=Fresh())
        yield transferred(on, f"random_mask_on_{on}", RandomLike(chains[on]))


def fresh_head(unit, level, values):
    """Those values, but fresh ones in the output layer."""
    from .. import lottery

    fresh = lottery.drawn(unit, "reinit", level)
    return values | {name: fresh[name] for name in list(fresh)[-2:]}  # the last layer's weight and bias


STYLES = {
    **dict.fromkeys(("mnist", "fashion", "labels5-9"), ("own ticket", "blue", "o")),  # a panel's title says on what
    "momentum": ("SGD momentum 0.9, own mask", "purple", "D"),
    **{f"{how}_on_{on}": STYLES[how] for how in ("random_reinit", "random_mask") for on in CONTROLLED},
    "fashion_on_mnist": ("Fashion-MNIST's ticket", "red", "D"),
    "mnist_on_fashion": ("MNIST's ticket", "red", "D"),
    "momentum_on_mnist": ("momentum's ticket", "red", "D"),
    "mnist_on_momentum": ("Adam's ticket", "red", "D"),
    "labels0-4_on_labels5-9": ("ticket of labels 0-4, theta0's head", "purple", "v"),
    "labels0-4_fresh_head": ("ticket of labels 0-4, fresh head", "red", "D"),
    "labels5-9_fresh_head": ("own ticket, fresh head", "sky", "s"),
    "half1_on_mnist": ("found on a half of the images", "sky", "s"),
    "fifth_on_mnist": ("found on a fifth", "yellow", "v"),
    "tenth_on_mnist": ("found on a tenth", "red", "D"),
    "labels0-4_on_mnist": ("found on the labels 0-4, as many as a half", "purple", "<"),
    "labels0-1_on_mnist": ("found on the labels 0 and 1, as many as a fifth", "orange", ">"),
}


_WHERE = {
    "mnist": "MNIST", "fashion": "Fashion-MNIST", "momentum": "MNIST by SGD momentum 0.9", "labels5-9": "labels 5-9",
    "half1": "a half of the images", "labels0-4": "labels 0-4", "fifth": "a fifth of the images",
    "labels0-1": "labels 0 and 1", "tenth": "a tenth of the images",
}  # fmt: skip
FULL_LABELS = {name: f"own ticket, on {where}" for name, where in _WHERE.items()} | {
    arm: f"{STYLES[arm][0]}, on {_WHERE[on]}"
    for on in CONTROLLED
    for arm in (f"random_reinit_on_{on}", f"random_mask_on_{on}")
}


def _panels_and_differences(study, frame, title, panels, bounds=()):
    """Accuracy against density, a column per panel (title, arms, pairs), and below it the differences of pairs.

    Panels none of whose arms the study trains, such as at other levels than its own, are left out.
    """
    trained = {unit.arm for unit in study.units if unit.levels}
    panels = [panel for panel in panels if trained & set(panel[1])] or panels
    sheet = figures.Sheet(study, f"{title} ({study.config.epochs} epochs per level)", rows=2, columns=len(panels))
    there = set(frame["arm"])
    for column, (title, arms, pairs) in enumerate(panels):
        full, gain = sheet.axes[column :: len(panels)]
        sheet.against_density(full, frame, [arm for arm in arms if arm in there], title=title)
        sheet.differences(gain, frame, pairs, f"{title}: paired differences", dict(bounds))
    return sheet.done(legend_on=range(len(panels)), where="lower left")


_TO_TARGET, _TO_RANDOM, _HEADS = "transferred - own", "transferred - random mask", "fresh heads: transferred - own"


def _bounds(config):
    """By which the claims about these differences are judged."""
    return {_TO_TARGET: -config.margin, _TO_RANDOM: 0, _HEADS: -config.margin}


def _pairs(arm, target, on):
    """The pairs of a transferred ticket: minus the target's own, and minus a random mask."""
    return (arm, _TO_TARGET, target), (arm, _TO_RANDOM, f"random_mask_on_{on}")


def _controls_on(on):
    return f"random_mask_on_{on}", f"random_reinit_on_{on}"


def fig9a(study, frame):
    """Tickets across data sets: accuracy, and paired differences."""
    panels = (
        ("trained on MNIST", (*_controls_on("mnist"), "mnist", "fashion_on_mnist"),
         _pairs("fashion_on_mnist", "mnist", "mnist")),
        ("trained on Fashion-MNIST", (*_controls_on("fashion"), "fashion", "mnist_on_fashion"),
         _pairs("mnist_on_fashion", "fashion", "fashion")),
    )  # fmt: skip
    return _panels_and_differences(study, frame, "Figure 9a. Tickets across data sets", panels, _bounds(study.config))


def fig9b(study, frame):
    """Tickets across optimizers and labels: accuracy, and paired differences."""
    labels = ("labels5-9", "labels5-9_fresh_head", "labels0-4_on_labels5-9", "labels0-4_fresh_head")
    heads = (
        ("labels0-4_fresh_head", _HEADS, "labels5-9_fresh_head"),
        ("labels0-4_on_labels5-9", "theta0's head: transferred - own", "labels5-9"),
    )
    panels = (
        ("trained by Adam", (*_controls_on("mnist"), "mnist", "momentum_on_mnist"),
         _pairs("momentum_on_mnist", "mnist", "mnist")),
        ("trained by SGD with momentum 0.9", (*_controls_on("momentum"), "momentum", "mnist_on_momentum"),
         _pairs("mnist_on_momentum", "momentum", "momentum")),
        ("trained on the labels 5-9", (*_controls_on("labels5-9"), *labels), heads),
    )  # fmt: skip
    title = "Figure 9b. Tickets across optimizers and labels"
    return _panels_and_differences(study, frame, title, panels, _bounds(study.config))


def fig9c(study, frame):
    """Tickets found on fewer images and fewer classes, trained on all of MNIST: accuracy, and paired differences."""
    smaller = ("half1_on_mnist", "fifth_on_mnist", "tenth_on_mnist")
    sizes = [
        ("mnist", f"all images - a {title}", arm)
        for arm, title in zip(smaller, ("half", "fifth", "tenth"), strict=True)
    ]
    classes = (
        ("half1_on_mnist", "a half: 10 classes - 5", "labels0-4_on_mnist"),
        ("fifth_on_mnist", "a fifth: 10 classes - 2", "labels0-1_on_mnist"),
    )
    panels = (
        ("found on fewer images", ("random_mask_on_mnist", "mnist", *smaller), sizes),
        ("as many images, fewer classes", ("half1_on_mnist", "labels0-4_on_mnist", "fifth_on_mnist",
                                           "labels0-1_on_mnist"), classes),
    )  # fmt: skip
    title = "Figure 9c. Tickets of smaller data, trained on all of MNIST"
    return _panels_and_differences(study, frame, title, panels)


_TRANSFER = 5  # 3.5% density: where the claims on transferred tickets are judged


_SHOWN = 7  # 1.2% density: shown beside that


def _transferred(frame, config, *, pairs, **bounds):
    """One arm minus another, at the level of judgement and, unjudged, at the last one."""
    return [
        verdicts.difference(frame, f"{title}, level {k}", (one, k), (other, k), judged=k == _TRANSFER, **bounds)
        for k in (_TRANSFER, _SHOWN)
        for title, one, other in pairs
    ]


def _as_good(frame, config, *, pairs):
    return _transferred(frame, config, pairs=pairs, above=-config.margin)


_DATA_PAIRS = (("on MNIST", "fashion_on_mnist", "mnist"), ("on Fashion-MNIST", "mnist_on_fashion", "fashion"))


_TRANSFERRED = [(f"{on}: transferred - own", one, target) for on, one, target in _DATA_PAIRS]


_RANDOM = [(f"{on}: transferred - random mask", one, f"random_mask_on_{target}") for on, one, target in _DATA_PAIRS]


_OTHER_RULE = (
    ("by Adam: momentum's - own", "momentum_on_mnist", "mnist"),
    ("by momentum: Adam's - own", "mnist_on_momentum", "momentum"),
)


_FRESH = (("labels 0-4's - own, both with a fresh head", "labels0-4_fresh_head", "labels5-9_fresh_head"),)


_SIZE = (("found on all images - on a tenth", "mnist", "tenth_on_mnist"),)


_CLASSES = (
    ("30,000 images: of 10 classes - of 5", "half1_on_mnist", "labels0-4_on_mnist"),
    ("12,000 images: of 10 classes - of 2", "fifth_on_mnist", "labels0-1_on_mnist"),
)


_ACROSS_DATA = "fig9a_transfer_data"
_ACROSS_TASKS = "fig9b_transfer_tasks"
_ACROSS_SIZES = "fig9c_transfer_size"
CLAIMS = (
    Claim("transfer-data",
          "a ticket of the other data set is at most 0.5 pp worse than the target's own, both ways (3.5% density)",
          "often close", _ACROSS_DATA, partial(_as_good, pairs=_TRANSFERRED)),
    Claim("transfer-random", "a ticket of the other data set is better than a random one, both ways (3.5% density)",
          "better", _ACROSS_DATA, partial(_transferred, pairs=_RANDOM, above=0)),
    Claim("transfer-optimizer",
          "a ticket of the other optimizer is at most 0.5 pp worse than the target's own, both ways (3.5% density)",
          "high performance", _ACROSS_TASKS, partial(_as_good, pairs=_OTHER_RULE)),
    Claim("transfer-labels",
          "with a fresh head a ticket of the labels 0-4 is at most 0.5 pp worse on 5-9 (3.5% density)",
          "nothing", _ACROSS_TASKS, partial(_as_good, pairs=_FRESH)),
    Claim("transfer-size", "a ticket found on all images beats one found on a tenth (3.5%)",
          "consistently transferred better", _ACROSS_SIZES, partial(_transferred, pairs=_SIZE, above=0)),
    Claim("transfer-classes", "on as many images, 10 classes give a better ticket than 5 or 2 (3.5%)", "better",
          _ACROSS_SIZES, partial(_transferred, pairs=_CLASSES, above=0)),
)  # fmt: skip

TRANSFER = Experiment(
    name="transfer",
    title="Tickets across tasks",
    group="extended",
    notebook="09_transfer",
    settings={**SPARED, "epochs": 15, "rounds": 7},
    presets={"quick": {"replicates": 1, "levels": (0, 3, 5, 7)}, "smoke": {"levels": (0, 5, 7)}},  # those of its claims
    smallest=0.1,
    exploratory=3,
    by_margin=True,
    arms=arms,
    styles=STYLES,
    full_labels=FULL_LABELS,
    figures={_ACROSS_DATA: fig9a, _ACROSS_TASKS: fig9b, _ACROSS_SIZES: fig9c},
    claims=CLAIMS,
    answer=Answer(
        "transfer-data",
        (
            "Yes: a ticket of the other data set is as good as the target's own.",
            "the mask holds what both data sets share.",
        ),
        (
            "Not between data sets: a ticket of the other data set is worse than the target's own.",
            "a mask depends on the data; that the two data sets need other pixels is likely, and was not tested.",
        ),
        (
            "Whether a ticket of the other data set is as good as the target's own is not resolved.",
            "more replicates are needed before the question is answered either way.",
        ),
    ),
)
