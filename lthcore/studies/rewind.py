"""Does rewinding later than step 0 matter on MNIST, and is the ticket stable there?"""

from collections.abc import Iterator
from dataclasses import replace

from ..config import Config
from ..unit import Unit
from .common import PROTOCOL
from .record import Experiment

STEPS = (0, 100, 1000)


def arms(config: Config, replicate: int) -> Iterator[Unit]:
    """Late resetting to step k, and at three densities a copy in another order and the dense network beside it."""
    for k in sorted({min(k, config.steps - 1) for k in STEPS}):
        chain = Unit(replace(config, rewind_step=k), f"rewind_{k}", replicate)
        yield chain
        only = tuple(level for level in (5, 10, 15) if level in chain.levels) or chain.levels[-1:]
        for beside in ("order", "dense"):
            for mask in ("ticket", "random"):
                how = {"mask": mask, "beside": beside, "only": only}
                yield Unit(chain.config, f"{beside}_{mask}_{k}", replicate, source=chain, **how)


STYLES = {
    "rewind_0": ("rewound to step 0", "blue", "o"),
    "rewind_100": ("rewound to step 100", "orange", "s"),
    "rewind_1000": ("rewound to step 1,000", "green", "^"),
}

REWIND = Experiment(
    name="rewind",
    title="Late resetting and stability",
    group="extended",
    notebook="07_rewinding_and_stability",
    settings={**PROTOCOL, "epochs": 11, "max_steps": 10_000, "rounds": 16},
    presets={"quick": {"epochs": 2, "replicates": 1}, "smoke": {"levels": (0, 1, 2, 16)}},
    by_margin=True,
    arms=arms,
    styles=STYLES,
)
