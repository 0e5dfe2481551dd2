"""Which settings an experiment takes: found out by comparing its units with and without them, not from a list.

A setting belongs to an experiment if it changes a unit, and if every arm that it passes by keeps its name's meaning.
Standard library only.
"""

import dataclasses
from functools import lru_cache

from .. import methods
from ..runs.presets import SETTINGS, configure
from .record import Experiment

JUDGING = ("tolerance", "margin")  # what a verdict or a figure depends on, and no unit
# Values to try of settings that are neither numbers nor choices, and settings that others need.
OTHERS = {"criterion": ("random", "magnitude"), "rewind": ("final", "reset"), "levels": ((0, 1), (0,))}
NEEDS = {"momentum": {"optimizer": "sgd"}}
# The parameters of a study that say how much is run and where; an experiment without controls may be run without them.
SCALE = ("replicates", "controls", "device", "seed")


def refusal(record: Experiment, preset: str, settings: dict, name: str) -> str:
    """Why an experiment does not take a setting.

    Parameters
    ----------
    record : Experiment
    preset : str
    settings : dict
        All settings that differ from the preset's, valid together.
    name : str
        One of them.

    Returns
    -------
    str
        In words, empty where it takes it.
    """
    if name in JUDGING:
        return "" if name == "tolerance" or record.by_margin else "changes no claim and no figure"
    experiment = record.name
    units = record.arms
    asked = configure(experiment, preset, **settings)
    try:
        without = configure(experiment, preset, **{k: v for k, v in settings.items() if k != name})
        before = _of_one_replicate(units, without)
    except ValueError:  # another setting needs it
        return "" if _has_an_arm(units, asked, name) else "changes nothing"
    if getattr(asked, name) == getattr(without, name):  # what the preset has: would another value change something?
        known = _takes(record, preset, name) or not _allowed(experiment, preset, name)
        return "" if known else "changes nothing"
    try:
        after = _of_one_replicate(units, asked)
    except ValueError as error:
        return f"does not fit every arm ({error})"
    if before and not after:
        return "leaves nothing to train"
    if _facts(before) == _facts(after):
        return "" if _works_alone(units, experiment, preset, {name: settings[name]}) else "changes nothing"
    # fewer levels leave every name true
    if name not in ("levels", "rounds") and _passed_by(before, after, without, name):
        return "differs between the arms"
    return ""


@lru_cache
def taken(record: Experiment, preset: str) -> list[str]:
    """Names of the settings that an experiment takes, found by trying other values of each."""
    names = [name for name in SETTINGS if name not in SCALE]
    return [name for name in names if _takes(record, preset, name)]


def _has_an_arm(units, config, name):
    """Whether any arm has the asked value of a setting; also True where an arm cannot have it."""
    try:
        return any(getattr(u.config, name) == getattr(config, name) for u in _of_one_replicate(units, config))
    except ValueError:
        return True


def _works_alone(units, experiment, preset, settings):
    """Whether settings change a unit if nothing else is set: `rounds` does, which `levels` masks."""
    try:
        without, alone = (configure(experiment, preset, **given) for given in ({}, settings))
        return _facts(_of_one_replicate(units, without)) != _facts(_of_one_replicate(units, alone))
    except ValueError:
        return False


def _takes(record, preset, name):
    tried = _allowed(record.name, preset, name)
    return any(not refusal(record, preset, settings, name) for settings in tried)


def _allowed(experiment, preset, name):
    """Other values of a setting than the preset's that its config allows, with what they need: list of settings."""
    current = getattr(configure(experiment, preset), name)
    field = SETTINGS[name]
    values = field.metadata.get("allowed") or OTHERS.get(name)
    if values is None and name in methods.RECORDS:
        values = tuple(methods.RECORDS[name][0])
    if values is None:
        values = (0.25, 0.5, 0.1, 0.01) if "float" in str(field.type) else (1, 2, 3, 25)
    found = []
    for value in values:
        settings = {**NEEDS.get(name, {}), name: value}
        if value != current and _valid(experiment, preset, settings):
            found.append(settings)
    return found


def _valid(experiment, preset, settings):
    try:
        configure(experiment, preset, **settings)
        return True
    except ValueError:
        return False


def _of_one_replicate(units, config):
    return list(units(dataclasses.replace(config, replicates=1), 0))


def _facts(units):
    return [(unit.key, unit.levels) for unit in units]


def _passed_by(before, after, config, name):
    """Whether an arm has a value of its own for a setting, and keeps it: then its name, or another's, is wrong."""
    current = getattr(config, name)
    kept = {(unit.arm, getattr(unit.config, name)) for unit in after}
    values = {(unit.arm, getattr(unit.config, name)) for unit in before}
    return any(value != current and (arm, value) in kept for arm, value in values)
