"""A setting is accepted where it works to the end, and nowhere else: every setting in every experiment."""

import re
from itertools import product
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from helpers import HERE, SETTINGS, ask, few, read_everything, values_of

from lthcore.runs import download, presets
from lthcore.runs.presets import EXPERIMENTS, PRESETS, changes, configure
from lthcore.studies import experiments, takes


def keys(study):
    return {(unit.key, unit.levels) for unit in study.units}


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "preset"), list(product(EXPERIMENTS, PRESETS)))
def test_what_is_accepted_changes_units_and_what_is_refused_is_one_line(experiment, preset):
    current = keys(experiments.study(experiment, preset))
    for name in SETTINGS:
        for settings in takes._allowed(experiment, preset, name):
            found = ask(experiment, preset, settings)
            if isinstance(found, str):
                assert "\n" not in found and name in found and repr(settings[name]) in found, found
            elif name not in takes.JUDGING:
                assert keys(found) != current, settings
                assert settings.items() <= changes(found.config).items()  # and it is shown


@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("collapse", {"rounds": 5}), ("collapse", {"rounds": 20}), ("collapse", {"model": "lenet5"}),
        ("collapse", {"prune_rate": 0.4}), ("collapse", {"scope": "global"}), ("collapse", {"output_rate": 0.1}),
        ("collapse", {"rounds": 40, "levels": (0, 40)}), ("collapse", {"margin": 1.0}),
        ("early_bird", {"levels": (0, 2)}), ("rewind", {"rewind_step": 5}),
        ("task3", {"optimizer": "sgd"}), ("task3", {"optimizer": "sgd", "momentum": 0.5}),
    ],
)  # fmt: skip
def test_what_would_change_nothing_is_refused(experiment, settings):
    found = ask(experiment, "report", settings)
    assert "changes n" in found and f"in '{experiment}', which takes " in found and "\n" not in found


@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("paper", {"optimizer": "sgd"}), ("paper", {"lr": 0.01}), ("transfer", {"lr": 0.01}),
        ("transfer", {"dataset": "fashion"}), ("criteria", {"criterion": "random"}), ("criteria", {"rewind": "final"}),
        ("criteria", {"prune_rate": 0.4}), ("criteria", {"scope": "global"}),
        ("mlp", {"spare": "smallest"}), ("early_bird", {"early_bird": 0.2}), ("criteria", {"retrain_lr": 0.01}),
    ],
)  # fmt: skip
def test_what_would_pass_some_arms_by_is_refused(experiment, settings):
    assert "differs between the arms" in ask(experiment, "report", settings)


@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("criteria", {"model": "lenet5"}),
        ("criteria", {"conv_rate": 0.1}), ("criteria", {"rewind_step": 10}), ("task2", {"spare": "smallest"}),
        ("collapse", {"spare": "smallest"}), ("rewind", {"rewind": "final"}), ("mlp", {"pool": "max"}),
        ("task1", {"conv_rate": 0.1}), ("mlp", {"structure": "filters"}), ("fashion_conv2", {"model": "mlp"}),
    ],
)  # fmt: skip
def test_what_an_arm_cannot_have_is_refused_before_its_units_are_needed(experiment, settings):
    assert isinstance(ask(experiment, "report", settings), str)


def test_what_leaves_nothing_to_train_is_refused():
    assert ask("early_bird", "smoke", {"rounds": 0}).startswith("rounds = 0: leaves nothing to train in 'early_bird'")


def test_a_setting_that_another_one_needs_or_masks_is_taken():
    assert ask("transfer", "smoke", {"levels": (0, 9), "rounds": 9}).config.rounds == 9
    assert ask("mlp", "report", {"momentum": 0.9, "optimizer": "sgd"}).config.momentum == 0.9
    assert ask("mlp", "smoke", {"levels": (0, 1), "rounds": 2}).config.rounds == 2
    assert "changes nothing" in ask("collapse", "report", {"epochs": 1, "rounds": 2})


def test_what_follows_in_every_arm_is_taken():
    for experiment, settings in (
        ("transfer", {"epochs": 3}),
        ("criteria", {"epochs": 6}),
        ("paper", {"levels": [0, 7]}),
    ):
        assert changes(ask(experiment, "report", settings).config)
    assert "epochs" in experiments.taken("transfer") and "momentum" in experiments.taken("mlp")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_presets_own_values_are_taken_where_another_would_be(preset):
    for experiment in ("mlp", "task2", "paper"):
        current = configure(experiment, preset)
        for name in experiments.taken(experiment, preset):
            assert not isinstance(ask(experiment, preset, {name: getattr(current, name)}), str), (experiment, name)


class Reads:
    """A config that remembers what was asked of it."""

    def __init__(self, config, seen):
        self._config, self._seen = config, seen

    def __getattr__(self, name):
        self._seen.add(name)
        return getattr(self._config, name)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_margin_is_taken_where_a_claim_reads_it(experiment, monkeypatch):
    study, table = experiments.study(experiment, "report"), presets.table
    # to copy all settings is not to read one
    monkeypatch.setattr(presets, "table", lambda config: table(getattr(config, "_config", config)))
    frame, seen = experiments.finished(study), set()
    if frame.empty:
        pytest.skip("no replicate is archived")
    for claim in study.experiment.claims:
        claim.measures(frame, Reads(study.config, seen))
    assert ("margin" in seen) == study.experiment.by_margin


# --------------------------------------------------------------------------------------------------- several at once


def test_settings_go_to_the_experiments_that_take_them_and_the_others_are_named():
    said = []
    found = experiments.several(["mlp", "task3", "collapse"], "smoke", said.append, overrides={"optimizer": "sgd"})
    assert list(found) == ["mlp", "collapse"] and all(s.config.optimizer == "sgd" for s in found.values())
    assert said == ["skipped, since the settings do not apply: task3 (optimizer = 'sgd': changes nothing in 'task3')"]
    with pytest.raises(ValueError, match=r"^lr = -1: must be a number"):
        experiments.several(EXPERIMENTS, "smoke", overrides={"lr": -1})
    with pytest.raises(ValueError, match=r"^rounds = 5: changes nothing in 'collapse'"):
        experiments.several(["collapse"], "report", overrides={"rounds": 5})


def test_what_reads_all_experiments_shows_the_others_at_their_committed_scale():
    shown = {
        s.config.experiment: s.config for s in experiments.every(True, preset="smoke", overrides={"scope": "global"})
    }
    assert list(shown) == list(EXPERIMENTS)
    assert (shown["mlp"].preset, shown["mlp"].scope) == ("smoke", "global")
    assert shown["collapse"] == configure("collapse", "report") and shown["conv4"] == configure("conv4", "report")
    with pytest.raises(ValueError, match="unknown setting 'nonsense'"):
        experiments.every(True, overrides={"nonsense": 1})


# --------------------------------------------------------------------------------------------------- every one of them


@pytest.fixture(scope="module")
def store_of_all(module_folders):
    """One store for all of them: what a setting does not change is trained once."""
    plt.switch_backend("agg")
    return module_folders


@pytest.mark.slow
@pytest.mark.parametrize("experiment", HERE)
def test_every_setting_works_to_the_end_beside_others(store_of_all, finish, experiment):
    """Trained for a few steps, read, judged, drawn, and looked at in the explorer; with what was set shown on it.

    As many settings at once as are taken together; python tests/tools/settings.py has each alone, and pairs.
    """
    download.fetch(dataset="fashion", log=lambda _: None)
    left, scale = accepted(experiment), few(experiment)
    assert set(left) == set(experiments.taken(experiment, "smoke"))
    while left:
        names, settings = [], {}
        for name in left:
            if not isinstance(ask(experiment, "smoke", scale | settings | left[name]), str):
                names.append(name)
                settings |= left[name]
        study = ask(experiment, "smoke", scale | settings)
        finish(study)
        read_everything(study, settings)
        left = {name: left[name] for name in left if name not in names}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("mlp", {"criterion": "synflow"}),
        ("lenet5", {"criterion": "snip", "scope": "global"}),
        ("lenet5", {"criterion": "snip", "structure": "filters"}),
        ("task2", {"criterion": "initial_magnitude", "rewind": "final"}),
        ("collapse", {"criterion": "snip"}),
    ],
)  # fmt: skip
def test_every_criterion_works_to_the_end(store_of_all, finish, experiment, settings):
    study = ask(experiment, "smoke", few(experiment) | settings)
    assert not isinstance(study, str), study
    finish(study)
    read_everything(study, settings)


def accepted(experiment):
    """The first value of every setting that the experiment takes, with what it needs; what is refused is a line."""
    works, scale = {}, few(experiment)
    for name in SETTINGS:
        for settings in values_of(experiment, "smoke", name):
            found = ask(experiment, "smoke", scale | settings)
            if not isinstance(found, str):
                works[name] = settings
                break
            assert "\n" not in found
    return works


def test_the_committed_log_has_every_experiment_and_the_documents_numbers():
    """What tests/tools/settings.py printed: every setting of every experiment, and pairs; nothing failed."""
    here = Path(__file__).resolve().parent
    text = (here / "tools/settings.log").read_text()
    for part in ("every setting", r"pairs \(\d+ refused: .*\)"):
        assert re.findall(rf"^== (\w+), {part}$", text, re.M) == HERE
    asked, work, failed = (
        sum(map(int, re.findall(rf"^-- .*?(\d+) {what}", text, re.M))) for what in ("asked", "work", "failed")
    )
    refused, without = (len(re.findall(f"^{what}", text, re.M)) for what in ("refused", "no data"))
    assert failed == 0 and not re.findall("^FAILED", text, re.M) and work + refused + without == asked
    numbers = f"{asked:,} sets: {work:,} work, {refused} are refused, {without} lacks its data, none fails"
    assert numbers in (here / "README.md").read_text()
