"""The criteria and the rewind rules that there are, and what each needs: plain facts, which load no torch.

A record says where its function stands, so that settings are checked and levels are planned without torch.
:mod:`lthcore.pruning` and :mod:`lthcore.lottery` hold the functions and call them. Standard library only.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Literal, NamedTuple


def _any(config):
    return ""


class Criterion(NamedTuple):
    """What says which weights are pruned.

    Parameters
    ----------
    scores : callable or str
        Function of (weights, mask, unit, data), as of :func:`lthcore.pruning.by_criterion`, that gives every weight a
        score, by layer; the largest are kept. Or where it stands, as ``"module:name"``.
    supports : callable
        Function of a :class:`lthcore.config.Config`: "" where it can score such a network, else what it needs.
    when : {"trained", "start"}
        Whether it is given the weights at the end of the level or those that the level started from.
    predicts_loss : bool
        Whether the scores of what is pruned add up to the rise of the loss that it expects.
    """

    scores: Callable | str
    supports: Callable = _any
    when: Literal["trained", "start"] = "trained"
    predicts_loss: bool = False


class RewindRule(NamedTuple):
    """What the survivors of a pruning start from.

    Parameters
    ----------
    values : callable or str
        Function of (unit, level, before, load), as of :func:`lthcore.lottery.reset`, that gives the values of
        all weights and biases and the step of the training they belong to; `load` gives the data of a unit. Or where it
        stands, as ``"module:name"``.
    needs_previous : bool
        Whether it is given the final weights of the level before, `before`, which are then kept in the store; else
        `before` may be None.
    takes_step : bool
        Whether it follows the setting ``rewind_step``.
    """

    values: Callable | str
    needs_previous: bool = True
    takes_step: bool = False


def _fully_connected(config):
    if not config.convolutions:
        return ""
    return f"needs a network of fully connected layers, model = 'mlp', not {config.model!r}"


CRITERIA = {
    "magnitude": Criterion("lthcore.pruning:magnitudes"),
    "random": Criterion("lthcore.pruning:random_scores"),
    "obd": Criterion("lthcore.probes.curvature:saliencies", _fully_connected, predicts_loss=True),
}
REWINDS = {
    "reset": RewindRule("lthcore.lottery:reset", needs_previous=False, takes_step=True),
    "final": RewindRule("lthcore.lottery:final"),
}
# What is measured on a trained network: functions of (unit, trained level, data) that give rows. The first is measured
# on every one, the others where a unit asks for them.
PROBES = {
    "collapse": "lthcore.probes.collapse:measure",
    "order": "lthcore.probes.path:to_other_order",
    "dense": "lthcore.probes.path:to_dense",
    "deletion": "lthcore.probes.deletion:measure",
    "smaller": "lthcore.probes.filters:measure",
}
DRAW_EARLY = "lthcore.probes.early_bird:draw"
SETTINGS = {"criterion": (CRITERIA, Criterion), "rewind": (REWINDS, RewindRule)}
BUILT_IN = {setting: dict(records) for setting, (records, _) in SETTINGS.items()}


def find(setting: str, name: str) -> Criterion | RewindRule:
    """The record of that name; a plain function in its place is one with the defaults.

    Raises
    ------
    ValueError
        If there is none; one line with the names that there are.
    """
    records, kind = SETTINGS[setting]
    if isinstance(name, str) and name not in records:
        importlib.import_module("lthcore.lottery")  # it, or lthcore.pruning, may add to them
    if not isinstance(name, str) or name not in records:
        raise ValueError(f"{setting} = {name!r}: must be one of {', '.join(map(repr, records))}")
    record = records[name]
    record = record if isinstance(record, kind) else kind(record)
    if not (callable(record[0]) or isinstance(record[0], str)):
        raise ValueError(f"{setting} = {name!r}: must be registered with a function, not {record[0]!r}")
    return record


def check(settings: dict) -> None:
    """Refuse, in one line, a criterion or a rewind rule that there is not."""
    for setting in SETTINGS:
        if setting in settings:
            find(setting, settings[setting])


def function(given: Callable | str) -> Callable:
    """The function itself, where a record only says where it stands."""
    return pkgutil.resolve_name(given) if isinstance(given, str) else given
