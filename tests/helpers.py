"""What tests and tools share: a study asked for, trained here, and looked at by everything that reads one."""

import random
from itertools import combinations

import matplotlib.pyplot as plt

from lthcore.config import EXPERIMENTS
from lthcore.explore import explorer, panels
from lthcore.results import statistics
from lthcore.runs import presets, store, sweep
from lthcore.studies import claims, experiments, plots, takes

SETTINGS = [name for name in presets.SETTINGS if name not in takes.SCALE]
HERE = [name for name in EXPERIMENTS if not name.startswith("conv")]  # the others want CIFAR-10 and a GPU
FEW = {"max_steps": 2, "test_images": 50, "validation": 0.01}
# values that make little work of a setting; for the others, the first that is allowed
SMALL = {"levels": ((0, 1), (0, 5, 7)), "rounds": (3,), "test_images": (7,), "max_steps": (1, 3), "validation": (0.0,)}


def ask(experiment, preset, settings):
    """The study, or the one line that refuses it."""
    settings = dict(settings)
    model = settings.pop("model", "")
    try:
        return experiments.study(experiment, preset, model=model, overrides=settings)
    except ValueError as error:
        return str(error)


def few(experiment):
    """What of ``FEW`` an experiment takes."""
    return {name: value for name, value in FEW.items() if not isinstance(ask(experiment, "smoke", {name: value}), str)}


def values_of(experiment, preset, name):
    usual = getattr(presets.configure(experiment, preset), name)  # which is no change
    values = [{**takes.NEEDS.get(name, {}), name: value} for value in SMALL.get(name, ()) if value != usual]
    return values or takes._allowed(experiment, preset, name)


def train(study):
    """Train a study here, without processes."""
    store.make()
    for unit in sorted(study.units, key=lambda u: not u.prunes):  # chains first
        for level in unit.levels:
            sweep.run_levels([(unit, level)])
    return study


def read_everything(study, settings):
    """Everything that reads a study: tables, verdicts, figures, the explorer."""
    frame = experiments.finished(study)
    assert not statistics.overview(frame).empty
    verdicts = claims.show(claims.judge(frame, study.config))
    assert set(verdicts["verdict"]) <= {"", "not run", "not judged (smoke)"}
    for draw in study.experiment.figures.values():
        figure, drawn = draw(study, frame)
        stamp = figure._supxlabel.get_text()
        blind = study.config.validation == 0  # then nobody knows where the validation loss was least
        assert (len(drawn) or blind) and all(name in stamp or name in ("model", "dataset") for name in settings), stamp
        silent = [axis for axis in figure.axes if axis.axison and not axis.has_data() and not axis.texts]
        assert blind or not silent, f"{stamp}: nothing is drawn in {[axis.get_title() for axis in silent]}"
        plt.close(figure)
    for name, value in settings.items():
        assert study.table().loc[name, "value"] == str(value)
    view = panels.Pictures(study)
    arm, replicate, level = view.start()
    view.stands(arm, replicate, level)
    explorer.levels(study, frame)
    plt.close("all")
    plots.scorecard([study])
    experiments.provenance(study)
    experiments.progress([study])
    assert store.find_level(study.units[0], 0)


def covering(experiment, preset, seed=0, limit=8):
    """Sets of settings that together hold every pair that the experiment takes together, and the pairs that it refuses.

    Each set is filled in random order, with a setting more wherever the whole is still taken; a pair that no set could
    take alone is refused.

    Returns
    -------
    (list of dict, list of (str, str))
    """
    draw = random.Random(f"{seed} {experiment}")
    values = {name: values_of(experiment, preset, name)[0] for name in experiments.taken(experiment, preset)}
    left = set(combinations(sorted(values), 2))
    sets, refused, scale = [], [], few(experiment)
    while left:
        pair = min(left)
        chosen = values[pair[0]] | values[pair[1]]
        if isinstance(ask(experiment, preset, scale | chosen), str):
            refused.append(pair)
            left.remove(pair)
            continue
        names = list(pair)
        for name in draw.sample(sorted(values), len(values)):
            more = chosen | values[name]
            new = any(tuple(sorted((name, other))) in left for other in names)
            if new and len(names) < limit and not isinstance(ask(experiment, preset, scale | more), str):
                chosen = more
                names.append(name)
        sets.append(chosen)
        left -= set(combinations(sorted(names), 2))
    return sets, refused
