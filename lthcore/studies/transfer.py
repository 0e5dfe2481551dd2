"""Is a ticket of one task worth something on another? After Morcos et al. (2019)."""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .common import SPARED, STYLES, by_sgd
from .record import Experiment

# subset -> times as many epochs as on all of MNIST: as many steps, within 6 %
SAME_STEPS = {"half1": 2, "labels0-4": 2, "labels5-9": 2, "fifth": 5, "labels0-1": 5, "tenth": 10}
CONTROLLED = ("mnist", "fashion", "momentum", "labels5-9")  # chains whose tasks have controls


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Masks of other data sets, optimizers and labels, and of smaller data."""
    only = tuple(k for k in config.trained_levels if k >= 3)
    chains = {"mnist": config, "fashion": replace(config, dataset="fashion"), "momentum": by_sgd(config, "momentum")}
    chains = {name: Unit(c, name, replicate) for name, c in chains.items()}
    for subset, times in SAME_STEPS.items():
        chains[subset] = Unit(replace(config, epochs=times * config.epochs), subset, replicate, subset)
    yield from chains.values()

    def transferred(on, arm, **how):
        return Unit(chains[on].config, arm, replicate, chains[on].subset, only=only, **how)

    pairs = (("fashion", "mnist"), ("mnist", "fashion"), ("momentum", "mnist"), ("mnist", "momentum"))
    smaller = ((subset, "mnist") for subset in SAME_STEPS if subset != "labels5-9")
    for mask, on in (*pairs, *smaller, ("labels0-4", "labels5-9")):
        yield transferred(on, f"{mask}_on_{on}", source=chains[mask])
    for mask in ("labels0-4", "labels5-9"):
        yield transferred("labels5-9", f"{mask}_fresh_head", source=chains[mask], start="fresh_head")
    for on in CONTROLLED if config.controls else ():
        yield transferred(on, f"random_reinit_on_{on}", source=chains[on], start="reinit")
        yield transferred(on, f"random_mask_on_{on}", source=chains[on], mask="random")


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

TRANSFER = Experiment(
    name="transfer",
    title="Tickets across tasks",
    group="extended",
    notebook="09_transfer",
    settings={**SPARED, "epochs": 15, "rounds": 7},
    presets={"quick": {"levels": (0, 3, 5, 7)}, "smoke": {"levels": (0, 5, 7)}},  # where its claims are
    smallest=0.1,
    by_margin=True,
    arms=arms,
    styles=STYLES,
)
