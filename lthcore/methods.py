"""The criteria, rewind rules and data sets that there are, and what each needs: plain facts, which load no torch.

A record says where its function stands, so that settings are checked and levels are planned without torch.
:mod:`lthcore.pruning` and :mod:`lthcore.lottery` call them and hold the usual ones. Standard library only.
"""

import difflib
import json
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from .schedule import ARCHITECTURES, Architecture


class Criterion(NamedTuple):
    """What says which weights are pruned."""

    scores: Callable | str
    """Function of (weights, mask, unit, data), as of :func:`lthcore.pruning.by_criterion`, that gives every weight
    a score, by layer; the largest are kept. Or where it stands, as ``"module:name"``."""
    supports: Callable = lambda config: ""
    """Function of a :class:`lthcore.config.Config`: "" where it can score such a network, else what it needs."""
    when: Literal["trained", "start"] = "trained"
    """Whether it is given the weights at the end of the level or those that the level started from."""
    predicts_loss: bool = False
    """Whether the scores of what is pruned add up to the rise of the loss that it expects."""


class RewindRule(NamedTuple):
    """What the survivors of a pruning start from."""

    values: Callable | str
    """Function of (unit, level, before, load), as of :func:`lthcore.lottery.reset`, that gives all weights and biases
    and the step of the training they belong to; `load` gives a unit's data. Or where it stands, ``"module:name"``."""
    needs_previous: bool = True
    """Whether it needs the final weights of the chain's level before, `before`, which are then kept in the store."""
    takes_step: bool = False
    """Whether it follows the setting ``rewind_step``."""
    for_others: bool = False
    """Whether what takes the chain's masks starts by it as well, where that is not from fresh values: else by reset."""


class DataSet(NamedTuple):
    """Where a data set comes from, its sizes, and what makes its pixels 0 on average with a deviation of 1."""

    read: Callable | str
    """Function of (parts, labels_only) that gives the bytes of those parts, or more: dict, ``train`` and ``test``
    -> arrays of uint8, images (N, channels, rows, columns), labels (N,). Or where it stands, ``"module:name"``."""
    train: int
    test: int
    """Numbers of images, to train and to test."""
    mean: tuple
    std: tuple
    """Of the training pixels in [0, 1], by channel."""
    shape: tuple = (1, 28, 28)
    """Channels, rows and columns of an image; which models can read it stands in ``ARCHITECTURES``."""


def _fully_connected(config):
    needs = f"needs a network of fully connected layers, model = 'mlp', not {config.model!r}"
    return needs if config.convolutions else ""


CRITERIA = {
    "magnitude": Criterion("lthcore.pruning:magnitudes"),
    "random": Criterion("lthcore.pruning:random_scores"),
    "obd": Criterion("lthcore.probes.curvature:saliencies", _fully_connected, predicts_loss=True),
    "initial_magnitude": Criterion("lthcore.pruning:magnitudes", when="start"),
    "snip": Criterion("lthcore.probes.saliency:snip", when="start"),
    "synflow": Criterion("lthcore.probes.saliency:synflow", _fully_connected, when="start"),
}
REWINDS = {
    "reset": RewindRule("lthcore.lottery:reset", needs_previous=False, takes_step=True),
    "final": RewindRule("lthcore.lottery:final"),
    "keep_biases": RewindRule("lthcore.studies.public_step:reset_weights", for_others=True),
}
# What is pruned together: nothing, or groups, by a module with `kept`, how many weights are left at each level, and
# `group_scores`, which gives each weight its group's.
STRUCTURES = {"weights": "", "filters": "lthcore.probes.whole_filters"}
DATASETS = {
    "mnist": DataSet("lthcore.runs.download:read_mnist", 60_000, 10_000, (0.1307,), (0.3081,)),
    "fashion": DataSet("lthcore.runs.download:read_fashion", 60_000, 10_000, (0.2860,), (0.3530,)),
    "cifar10": DataSet("lthcore.runs.download:read_cifar10", 50_000, 10_000,
                       (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), (3, 32, 32)),
}  # fmt: skip
SUBSETS = {  # how each is cut out of all the data
    "full": {}, "fifth": {"share": 5}, "tenth": {"share": 10},
    "half1": {"half": 0}, "half2": {"half": 1},
    "labels0-1": {"labels": range(2)}, "labels0-4": {"labels": range(5)}, "labels5-9": {"labels": range(5, 10)},
}  # fmt: skip
# Measured on trained networks: functions of (unit, trained level, data) -> rows; the first on all, others where asked.
# One whose attribute `each_epoch` is True is given the weights at the end of every epoch as well.
PROBES = {
    "collapse": "lthcore.probes.collapse:measure",
    "order": "lthcore.probes.path:to_other_order",
    "dense": "lthcore.probes.path:to_dense",
    "deletion": "lthcore.probes.deletion:measure",
    "smaller": "lthcore.probes.filters:measure",
    "fit": "lthcore.probes.fit:measure",
    "signs": "lthcore.probes.signs:measure",
    "clear_signs": "lthcore.probes.signs:clearly",
}
DRAW_EARLY = "lthcore.probes.early_bird:draw"
FAULT = "lthcore.runs.sending:fault"  # what makes no sense in a record that is not built in
SETTINGS = {"criterion": (CRITERIA, Criterion), "rewind": (REWINDS, RewindRule)}
RECORDS = {**SETTINGS, "model": (ARCHITECTURES, Architecture), "dataset": (DATASETS, DataSet)}  # all that can be added
FUNCTION = {"criterion": "scores", "rewind": "values", "model": "module", "dataset": "read"}  # the field with it
BUILT_IN = {setting: dict(records) for setting, (records, _) in RECORDS.items()}
_USED: dict = {}  # (data set, its caches) -> the record by which they were filled


def meant(name: Any, names: Iterable[str]) -> str:
    """``; did you mean 'lr'?`` where a name is nearly one of these, else nothing: str."""
    near = difflib.get_close_matches(str(name)[:100].lower().replace("-", "_"), names, 1, 0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_of(value: Any, names: Iterable[str], show: Callable = repr) -> str:
    """What a refusal says of a value: which names are allowed, and which of them may have been meant: str."""
    return f"must be one of {', '.join(map(show, names))}{meant(value, names)}"


def find(setting: str, name: str) -> Criterion | RewindRule:
    """The record of that name; a plain function in its place is one with the defaults. None is refused in a line."""
    records, kind = RECORDS[setting]
    if not isinstance(name, str) or name not in records:
        raise ValueError(f"{setting} = {name!r}: {one_of(name, records)}")
    record = records[name]
    record = kind(record) if setting in SETTINGS and not isinstance(record, kind) else record
    if not isinstance(record, kind):
        raise ValueError(f"{setting} = {name!r}: must be registered as {kind.__name__}(...), not {record!r}")
    given = getattr(record, FUNCTION[setting])
    if not (callable(given) or isinstance(given, str)):
        raise ValueError(f"{setting} = {name!r}: must be registered with a function, not {given!r}")
    if record is not BUILT_IN[setting].get(name) and (reason := function(FAULT)(setting, record)):
        raise ValueError(f"{setting} = {name!r}: {reason}")
    return record


def registered(setting: str, name: str) -> list:
    """The plain data of a model or a data set that is not built in, of its function the name; else nothing: list."""
    record = RECORDS[setting][0][name]
    fields = () if record is BUILT_IN[setting].get(name) else [x for f, x in record._asdict().items() if f != "images"]
    fields = [getattr(x, "__name__", "") if callable(x) else [*x.items()] if isinstance(x, dict) else x for x in fields]
    return json.loads(json.dumps(fields, default=lambda array: array.tolist()))  # as they are read from a file


def forget_replaced(dataset: str, *caches: Callable) -> None:
    """Empty what is cached of a data set that has been registered again since."""
    if _USED.setdefault((dataset, caches), DATASETS[dataset]) is not DATASETS[dataset]:
        for cache in caches:
            cache.cache_clear()
        _USED[dataset, caches] = DATASETS[dataset]


def function(given: Callable | str) -> Callable:
    """The function itself, where a record only says where it stands."""
    try:
        return pkgutil.resolve_name(given) if isinstance(given, str) else given
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"{given!r}: must say where a function stands, as 'module:name' ({error})") from None
