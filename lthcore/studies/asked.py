"""What is asked of an experiment: its settings, checked. No packages, so that a refusal waits for none."""

from collections.abc import Callable, Iterable
from typing import Any

from ..config import Config
from ..methods import meant, one_of
from ..runs import presets
from ..runs.presets import configure
from ..schedule import ARCHITECTURES
from . import REGISTRY, names, takes


def config(
    experiment: str, preset: str, *, replicates: int, controls: bool, seed: int, device: str, model: str,
    overrides: dict | None,
) -> Config:  # fmt: skip
    """The settings of an experiment with what is asked for; parameters and errors as of `experiments.study`."""
    overrides = {} if overrides is None else overrides
    kinds = ("experiment", experiment, str), ("controls", controls, bool), ("overrides", overrides, dict)
    for name, value, kind in (*kinds, ("model", model, str)):
        if not isinstance(value, kind):
            raise ValueError(f"{name} = {value!r}: must be a {kind.__name__}")
    settings = {"seed": seed, "device": device}
    overrides = presets.renamed(overrides)
    for name in overrides:
        if name in (*settings, "replicates", "model", "preset"):
            typed = "the command itself" if name == "preset" else f"--{name}"
            raise ValueError(f"overrides: {name!r} is a parameter of its own: set that (on the command line {typed})")
        if not isinstance(name, str) or name == "experiment":
            raise ValueError(f"overrides: {name!r} is no setting")
    settings |= overrides
    beyond = {REGISTRY[name].settings.get("model") for name in names("extended", "named")}
    elsewhere = beyond - {REGISTRY[name].settings["model"] for name in names("report")}  # with studies of their own
    known = [name for name in ARCHITECTURES if name not in elsewhere]
    if model and (model in elsewhere or model not in ARCHITECTURES):
        allowed = f"{', '.join(map(repr, known))} or, of other sizes, mlp_A_B or lenet5_A_B_C_D"
        raise ValueError(f"model = {model!r}: must be one of {allowed}{meant(model, known)}")
    if experiment == "pre_midsem":
        experiment = model or "mlp"
        if experiment not in REGISTRY:
            allowed = [name for name in known if name in REGISTRY]
            raise ValueError(f"model = {model!r}: {one_of(model, allowed)}")
    if replicates != 0 or type(replicates) is not int:
        settings["replicates"] = replicates
    if model:
        settings["model"] = model
    if not controls:
        settings["controls"] = 0
    asked = configure(experiment, preset, **settings)
    for name in (*overrides, *(["model"] if model else [])):
        if reason := takes.refusal(REGISTRY[experiment], preset, settings, name):
            allowed = ", ".join(takes.taken(REGISTRY[experiment], preset))
            raise ValueError(f"{name} = {settings[name]!r}: {reason} in {experiment!r}, which takes {allowed}")
    return asked


def each(make: Callable[[str], Any], experiments: Iterable[str]) -> tuple[dict, dict]:
    """What `make` gives of each experiment, and the ValueError of those that it refuses; the first one if it is all."""
    found, refused = {}, {}
    for name in experiments:
        try:
            found[name] = make(name)
        except ValueError as error:
            refused[name] = error
    if not found:
        raise next(iter(refused.values()))
    return found, refused
