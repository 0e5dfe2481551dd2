"""The experiments' own settings, how much of them a preset runs, and :func:`configure`. Standard library only."""

import dataclasses
from typing import Any

from ..config import GROUPS, Config, check_value
from ..methods import one_of

PRESETS = {  # how much of an experiment is run, where its record says nothing else
    "quick": {"replicates": 3, "controls": 4, "epochs": 1},
    "report": {"replicates": 3, "controls": 1},
    "smoke": {"replicates": 1, "controls": 1, "epochs": 1, "max_steps": 30, "test_images": 1000},
}
EXPERIMENTS: dict[str, Any] = {}  # records by name, each a :class:`lthcore.studies.record.Experiment`
SETTINGS = {f.name: f for group in GROUPS for f in dataclasses.fields(group) if f.name not in ("experiment", "preset")}
ALIASES = {"often": "frequent_epochs"}  # earlier names of settings, which users may still give


def renamed(settings: dict) -> dict:
    """Settings by their present names: dict. Refused where a setting is given under both of its names."""
    for earlier, name in ALIASES.items():
        if earlier in settings and name in settings:
            raise ValueError(f"{earlier} = {settings[earlier]!r}: must not be given beside {name}, its present name")
    return {ALIASES.get(name, name): value for name, value in settings.items()}


def check(overrides: dict) -> None:
    """Refuse, in one line, unknown settings and values that no experiment allows.

    Parameters
    ----------
    overrides : dict
        Settings by name.

    Raises
    ------
    ValueError
        Names the setting, the value and what is allowed.
    """
    for name, value in renamed(overrides).items():
        if name not in SETTINGS:
            raise ValueError(f"unknown setting {name!r}: {one_of(name, SETTINGS, str)}")
        check_value(SETTINGS[name], tuple(value) if name == "levels" and isinstance(value, list) else value)


def configure(experiment: str, preset: str = "quick", **overrides: Any) -> Config:
    """The settings of one experiment.

    Parameters
    ----------
    experiment : str
        A name in ``EXPERIMENTS``.
    preset : {"quick", "report", "smoke"}
    **overrides
        Fields of :class:`lthcore.config.Config` by name. ``None`` is refused except where it is the default.

    Returns
    -------
    Config

    Raises
    ------
    ValueError
        One line that names the field, the value and what is allowed.

    Examples
    --------
    >>> configure("task1", "report").epochs
    50
    >>> configure("mlp", prune_rate=1.2)
    Traceback (most recent call last):
    ValueError: prune_rate = 1.2: must be a number in (0, 1)
    """
    for name, value, allowed in (("experiment", experiment, tuple(EXPERIMENTS)), ("preset", preset, tuple(PRESETS))):
        if value not in allowed:
            raise ValueError(f"{name} = {value!r}: {one_of(value, allowed)}")
    check(overrides)
    overrides = renamed(overrides)
    if isinstance(overrides.get("levels"), list):
        overrides["levels"] = tuple(overrides["levels"])
    record = EXPERIMENTS[experiment]
    settings = {**record.settings, **PRESETS[preset], **record.presets.get(preset, {})}
    if settings.get("levels") and "rounds" in overrides and "levels" not in overrides:
        settings["levels"] = ()  # other rounds than the preset's: every level of them
    settings |= overrides
    for name in record.fixed:
        value, fixed = settings[name], record.settings[name]
        if value != fixed:
            raise ValueError(f"{name} = {value!r}: must be {fixed!r} in the experiment {experiment!r}")
    return Config(experiment=experiment, preset=preset, smallest=record.smallest, **settings)


def table(config: Config) -> dict:
    """All settings, in the order in which they are shown: dict, name -> value."""
    return {f.name: getattr(config, f.name) for group in GROUPS for f in dataclasses.fields(group)}


def changes(config: Config) -> dict:
    """Settings that differ from those of the experiment's preset, `device` apart: dict, name -> value."""
    preset = configure(config.experiment, config.preset)
    return {name: v for name, v in table(config).items() if name != "device" and v != getattr(preset, name)}


def as_in(experiment: str, config: Config) -> Config:
    """The settings of another experiment at the same preset, with what a user changed in these: Config."""
    changed = {name: v for name, v in changes(config).items() if name not in ("replicates", "controls")}
    return configure(experiment, config.preset, device=config.device, **changed)


def stamped(config: Config) -> dict:
    """Settings that a figure names: dict. Of a user's own study also those by which its record differs from others."""
    if EXPERIMENTS[config.experiment].group != "own":
        return changes(config)
    usual = {name: f.default for name, f in SETTINGS.items() if name != "device"} | PRESETS[config.preset]
    return {name: v for name, v in table(config).items() if name in usual and v != usual[name]}
