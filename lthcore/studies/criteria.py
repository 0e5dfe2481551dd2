"""How do other ways to prune compare, where the report resets magnitude tickets?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .common import PROTOCOL, STYLES
from .record import Experiment

FILTERS = {"model": "lenet5", "structure": "filters", "prune_rate": 0.25, "output_rate": None, "scope": "layer"}


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """What survivors start from; by what weights are deleted, at once and retrained; whole filters of LeNet-5."""
    on = replace(config, rewind="final")
    tuned = {"rewind": "final", "retrain_epochs": max(1, config.epochs // 3), "retrain_lr": config.lr / 10}
    kept = Unit(on, "lr_rewind", replicate)
    yield Unit(config, "reset", replicate)
    yield kept
    yield Unit(replace(config, **tuned), "finetune", replicate)
    for name in ("magnitude", "obd", "random"):
        every = replace(on, criterion=name, scope="global", output_rate=None)
        yield Unit(every, f"{name}_retrained", replicate)
        yield Unit(replace(every, rewind="reset", levels=(0,)), f"{name}_deleted", replicate, beside="deletion")
    whole = replace(config, **FILTERS)
    filters = Unit(replace(whole, **tuned), "filters", replicate, beside="smaller")
    yield filters
    yield Unit(replace(whole, **tuned, criterion="random"), "filters_random", replicate)
    yield Unit(whole, "filters_reset", replicate)
    if config.control_levels:  # at full length and rate, as if nothing had been learned
        fresh = {"start": "reinit", "only": config.control_levels}
        yield Unit(config, "random_reinit", replicate, source=kept, **fresh)
        yield Unit(whole, "filters_reinit", replicate, source=filters, **fresh)


STYLES = {
    "random_reinit": STYLES["random_reinit"],
    "reset": ("reset to theta0", "blue", "o"),
    "lr_rewind": ("no reset, full rate and length", "red", "D"),
    "finetune": ("no reset, fine-tuned", "purple", "v"),
    "obd_deleted": ("OBD", "red", "D"),
    "magnitude_deleted": ("magnitude", "blue", "o"),
    "random_deleted": ("random", "green", "^"),
    "obd_retrained": ("OBD", "red", "D"),
    "magnitude_retrained": ("magnitude", "blue", "o"),
    "random_retrained": ("random", "green", "^"),
    "filters": ("L1 filters, fine-tuned", "purple", "v"),
    "filters_random": ("random filters, fine-tuned", "green", "^"),
    "filters_reset": ("L1 filters, reset to theta0", "blue", "o"),
    "filters_reinit": ("L1 filters, re-initialised", "orange", "s"),
}

CRITERIA = Experiment(
    name="criteria",
    title="Criteria, rewind rules and filters",
    group="extended",
    notebook="08_pruning_criteria",
    # at a length that a CPU has in an hour
    settings={**PROTOCOL, "epochs": 9, "prune_rate": 0.5, "output_rate": 0.25, "rounds": 6, "often": 0},
    presets={"quick": {"levels": (0, 2, 5)}, "smoke": {"rounds": 15, "levels": (0, 1, 2, 15)}},
    by_margin=True,
    arms=arms,
    styles=STYLES,
)
