"""The explorer as one file: a page of finished levels that needs no kernel, no network and no other file.

The page is ``offline.html``, which holds its own style and script; the numbers are put into it as JSON. None of them is
typed: all are read from the finished levels.
"""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ..methods import SUBSETS
from ..results import figures, statistics
from ..results.loading import Results, load
from ..runs import presets, store, sweep
from ..schedule import ARCHITECTURES, CLASSES
from . import panels

NAME = "explorer.html"
NETWORKS, OUTPUTS = ("mlp", "lenet5"), "task2"  # experiments: whose networks are shown, and whose outputs
ARMS = ("ticket", "random_reinit", "random_mask")
PICTURED = ("ticket", "random_mask")  # arms with masks of their own
FACTS = ("accuracy", "top_answer", "top_answer_share", "answered_classes")  # of a network's answers
DIGITS = {"accuracy": 4, "loss": 5}
TEMPLATE = Path(__file__).with_name("offline.html")


def write(studies: list, folder: Path) -> Path | None:
    """Write the page of what is finished of these studies.

    Parameters
    ----------
    studies : list of Study or Results
        Those that the page does not show are left out.
    folder : pathlib.Path

    Returns
    -------
    pathlib.Path or None
        The page; None where nothing that it shows is finished.
    """
    shown = [load(study) for study in studies if _name(study) in (*NETWORKS, OUTPUTS)]
    shown = [results for results in shown if len(results.frame)]
    if not shown:
        return None
    path = Path(folder) / NAME
    store.write(path, page(shown))
    return path


def page(shown: list[Results]) -> str:
    """The page of these results; the same results give the same page."""
    content = {"networks": [network(r) for r in shown if _name(r) in NETWORKS]}
    content["outputs"] = next((outputs(r) for r in shown if _name(r) == OUTPUTS), None)
    content["glossary"] = panels.GLOSSARY
    data = json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return TEMPLATE.read_text(encoding="utf-8").replace('"DATA"', data, 1)


def _name(study):
    return getattr(study, "study", study).config.experiment


def network(results: Results) -> dict[str, Any]:
    """What the page shows of a network: its arms at every level, and one replicate's masks."""
    frame, study = results.frame, results.study
    replicate = int(frame["replicate"].min())
    rows = dict(iter(frame[frame["replicate"] == replicate].groupby(["arm", "level"], observed=True)))
    arms = [arm for arm in ARMS if arm in set(frame["arm"])]
    return {
        **_scale(results),
        "replicate": replicate,
        "levels": statistics.levels(frame[frame["arm"].isin(arms)], arms[0]),
        "tolerance": study.config.tolerance,
        "stands": statistics.ticket_level(frame, arms[0], study.config.tolerance),
        "layers": {name: math.prod(shape) for name, shape in ARCHITECTURES[study.config.model].weights.items()},
        "arms": {arm: _arm(results, arm) for arm in arms},
        "masks": {
            unit.arm: {k: _pictured(unit, k, rows[unit.arm, k]) for k in unit.levels if (unit.arm, k) in rows}
            for unit in study.units
            if unit.replicate == replicate and unit.arm in arms and unit.arm in PICTURED
        },
    }


def _scale(results):
    """What the numbers are of, in words and settings: dict."""
    config, frame = results.study.config, results.frame
    return {
        "name": config.experiment,
        "label": figures.MODELS.get(config.model, config.model),
        "data": figures.DATA.get(config.dataset, config.dataset),
        "preset": config.preset,
        "changes": {name: str(value) for name, value in presets.changes(config).items()},
        "replicates": int(frame["replicate"].nunique()),
        "settings": {name: getattr(config, name) for name in ("epochs", "max_steps", "batch_size", "prune_rate")},
    }


def _arm(results, arm):
    """An arm at its levels: label, look, and by metric the mean with its interval and the training curves."""
    frame = results.frame[results.frame["arm"] == arm]
    frame = frame[(frame["split"] == "test") & frame["metric"].isin(DIGITS)]
    label, colour, marker = figures.style(arm, results.study.experiment.styles)
    out = {"label": label, "colour": colour, "marker": marker}
    for metric, digits in DIGITS.items():
        table = figures.spread(statistics.at_end(frame, metric), frame)
        out |= {"level": table["level"].tolist(), "density": table["density"].tolist(), "n": table["n"].tolist()}
        curves = [figures.by_step(rows, level, metric) for level, rows in frame.groupby("level")]
        out[metric] = {
            "end": _band(table, digits),
            "step": [curve["step"].tolist() for curve in curves],
            "curve": [_band(curve, digits - 2) for curve in curves],
        }
    steps = [out[metric].pop("step") for metric in DIGITS]
    return out | {"step": steps[0]}


def _band(table, digits):
    """Rows of mean, low and high; None where an interval is not known."""
    rows = table[["mean", "low", "high"]].to_numpy(float).tolist()
    return [[None if math.isnan(x) else round(x, digits) for x in row] for row in rows]


def _pictured(unit, level, frame):
    """A replicate's first layer as a picture, and what is left of every layer."""
    first = next(iter(sweep.mask_at(unit, level).values()))
    if first.ndim == 2:  # weights kept at each pixel
        shape, largest = (1, *ARCHITECTURES[unit.config.model].images[0][1:]), first.shape[0]
        counts = first.sum(0)
    else:  # weights kept at each place of a kernel, over the channels that it reads
        shape, largest = (len(first), *first.shape[2:]), first.shape[1]
        counts = first.sum(1)
    left = statistics.layers(frame, unit.arm, unit.replicate, level)
    return {
        "shape": list(shape),
        "most": int(largest),
        "kept": counts.ravel().tolist(),
        "layers": {name: [int(x) for x in row] for name, row in zip(left.index, left.to_numpy(), strict=True)},
        "accuracy": round(float(statistics.at_end(frame)[unit.arm, level, unit.replicate]), DIGITS["accuracy"]),
    }


def outputs(results: Results) -> dict[str, Any]:
    """What networks answer at every level, and which of their ten outputs are still connected: of every replicate."""
    live = [f"live_output:{c}" for c in range(CLASSES)]
    frame = results.frame[results.frame["metric"].isin([*FACTS, *live])]
    subsets = {unit.arm: unit.subset for unit in results.study.units}
    arms = {}
    for arm, rows in frame.groupby("arm", sort=False, observed=True):
        density = rows.groupby("level")["density"].first()
        table = pd.DataFrame({name: statistics.at_end(rows, name) for name in FACTS})
        table["live"] = sum(2**c * statistics.at_end(rows, name, "mask") for c, name in enumerate(live))
        arms[arm] = {
            "label": panels.full_label(arm),
            "digits": list(SUBSETS[subsets[arm]].get("labels", range(CLASSES))),
            "reported": results.study.experiment.reported.get(arm),
            "level": density.index.tolist(),
            "density": density.tolist(),
            "networks": [
                {
                    int(r): [round(x, DIGITS["accuracy"]) for x in row]
                    for r, row in zip(at.index, at.values, strict=True)
                }
                for at in (table.xs((arm, level)) for level in density.index)
            ],
        }
    return {**_scale(results), "classes": CLASSES, "arms": arms}
