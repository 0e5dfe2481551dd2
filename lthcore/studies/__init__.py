"""The experiments, a file each: their settings, arms, styles, figures and claims.

Importing this package registers them, and needs the standard library only.
"""

import contextlib
from collections.abc import Callable, Iterator

from ..runs import presets
from .at_init import AT_INIT
from .collapse import COLLAPSE
from .conv import CONVS
from .criteria import CRITERIA
from .early_bird import EARLY_BIRD
from .fit import LENET5_FIT, MLP_FIT
from .introduction import INTRODUCTION
from .lenet5 import LENET5, LENET5_RELU
from .mlp import MLP
from .overlap import OVERLAP
from .paper import PAPER
from .public_step import PUBLIC_STEP
from .public_step_lenet5 import PUBLIC_STEP_LENET5
from .record import Experiment
from .rewind import REWIND
from .signs import SIGNS
from .small_dense import SMALL_DENSE, SMALL_DENSE_LENET5
from .task1 import TASK1
from .task2 import TASK2
from .task3 import TASK3, TASK3_SGD
from .transfer import TRANSFER

BUILT_IN = {
    record.name: record
    for record in (
        MLP, LENET5, TASK1, TASK2, TASK3, PAPER, *CONVS, REWIND, COLLAPSE, CRITERIA, TRANSFER, EARLY_BIRD,
        OVERLAP, SIGNS, SMALL_DENSE, SMALL_DENSE_LENET5, AT_INIT,
        MLP_FIT, LENET5_FIT, LENET5_RELU, TASK3_SGD, INTRODUCTION, PUBLIC_STEP, PUBLIC_STEP_LENET5,
    )
}  # fmt: skip
WHEN_ASKED: list[Callable] = []  # called when a study is requested: a notebook's parameters are checked then
REGISTRY: dict[str, Experiment] = presets.EXPERIMENTS  # these, and what users add


def add(experiment: Experiment) -> Experiment:
    """Register a study under its name; a user's own may be changed and registered again."""
    if BUILT_IN.get(experiment.name, experiment) is not experiment:
        raise ValueError(f"name = {experiment.name!r}: is taken by a study of this package")
    REGISTRY[experiment.name] = experiment
    return experiment


@contextlib.contextmanager
def registered(experiment: Experiment) -> Iterator[str]:
    """Register a study and give its name; where what follows raises an error, what was there before stays."""
    before = REGISTRY.get(experiment.name)
    name = add(experiment).name
    try:
        yield name
    except BaseException:
        del REGISTRY[name]
        REGISTRY.update({} if before is None else {name: before})
        raise


def names(*groups: str) -> list[str]:
    """Names of the studies in these groups; of all if none is given."""
    return [name for name, experiment in REGISTRY.items() if not groups or experiment.group in groups]


for _record in BUILT_IN.values():
    add(_record)
