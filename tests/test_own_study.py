"""A study of a user's own, as lthcore/README.md shows it: run in processes, tabled, drawn, judged, and changed."""

import pickle
import re
import subprocess
import sys
from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lthcore import studies
from lthcore.config import configure
from lthcore.explore import panels
from lthcore.results import figures, statistics, verdicts
from lthcore.results.loading import COLUMNS
from lthcore.runs import store
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import claims, experiments, plots
from lthcore.studies.record import COLOURS, Claim, Experiment
from lthcore.unit import Unit

NAME = "stepwise"
SHOWN = next(
    block
    for path in (store.ROOT / "README.md", store.ROOT / "lthcore" / "README.md")
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.S)
    if "Experiment(" in block
)


@pytest.fixture(scope="module")
def shown(module_folders):
    """What the documentation's lines leave behind, run as they stand."""
    plt.switch_backend("agg")
    names = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt, "show", lambda: None)
        exec(SHOWN, names)
        yield names
    studies.REGISTRY.pop(NAME, None)


@pytest.fixture
def forgotten():
    """What a test registers is taken out again."""
    known = dict(studies.REGISTRY)
    yield
    studies.REGISTRY.clear()
    studies.REGISTRY.update(known)


SMALL = {"model": "mlp", "rounds": 2, "max_steps": 30}


def one_arm(c, replicate):
    yield Unit(c, "ticket", replicate)


def test_it_is_about_twenty_lines():
    record = SHOWN[SHOWN.index("def arms") : SHOWN.index("study =")]
    assert len([line for line in record.splitlines() if line]) <= 20


@pytest.mark.slow
def test_it_is_trained_in_other_processes_and_read_as_any_study(shown):
    study, frame = shown["study"], shown["frame"]
    assert experiments.progress([study]).loc[NAME].tolist() == ["report", 3, 3 * (5 + 2), 3 * (5 + 2)]
    assert set(frame["experiment"]) == {NAME} and set(frame["arm"]) == {"iterative", "one_shot"}
    assert sorted(frame["replicate"].unique()) == [0, 1, 2]
    assert (statistics.at_end(frame) > 50).all()
    assert list(statistics.overview(frame).index) == [0, 1, 2, 3, 4]
    assert study.table().index[2] == "model" and study.table().loc["max_steps", "value"] == "200"


@pytest.mark.slow
def test_it_is_drawn_in_its_own_styles_beside_the_committed_figures(shown):
    study = shown["study"]
    assert study.folder == store.FIGURES / "own" / NAME / "report"
    assert all((study.folder / f"fig_{NAME}{end}").is_file() for end in (".png", ".svg", ".csv", ".json"))
    assert not list(store.archive().glob("*"))  # which has the studies of the package
    figure, drawn = study.experiment.figures[f"fig_{NAME}"](study, shown["frame"])
    assert set(drawn["arm"]) == {"iterative", "one_shot"} and drawn["n"].max() == 3
    assert [line.get_label() for line in figure.axes[0].lines] == ["in four rounds (n = 3)", "at once (n = 3)"]
    claimed = figure.axes[2].get_legend_handles_labels()[1]
    assert claimed == ["in four rounds - at once, bound 0 (n = 3)"]
    end = statistics.at_end(shown["frame"])
    there = drawn[drawn["panel"].str.startswith("differences that are claimed") & (drawn["level"] == 4)]
    assert there["mean"].item() == pytest.approx((end["iterative", 4] - end["one_shot", 4]).mean())
    plt.close(figure)
    assert panels.full_label("iterative") == "in four rounds"


def test_its_claim_is_measured_and_judged(shown):
    study, frame = shown["study"], shown["frame"]
    judged = claims.judge(frame, study.config)
    row = judged.iloc[0]
    assert len(judged) == 1 and row["claim"] == NAME and row["n"] == 3
    end = statistics.at_end(frame)
    assert row["ours"] == pytest.approx((end["iterative", 4] - end["one_shot", 4]).mean())
    assert row["verdict"] in ("holds", "does not hold", "unresolved")
    assert experiments.verdicts(study)["verdict"].tolist() == [row["verdict"]]
    assert f"fig_{NAME}.png" in plots.scorecard([study]).data


def test_the_second_run_trains_nothing(shown):
    said = []
    experiments.run(shown["study"], log=said.append)
    assert said == ["all 21 levels of 6 units found, nothing to train"]


def test_settings_are_taken_or_refused_as_elsewhere(shown):
    assert experiments.study(NAME, "smoke", overrides={"lr": 0.01}).config.lr == 0.01
    assert {"lr", "rounds", "prune_rate"} <= set(experiments.taken(NAME))
    with pytest.raises(ValueError, match=r"^margin = 1.0: changes no claim and no figure in 'stepwise', which takes"):
        experiments.study(NAME, overrides={"margin": 1.0})
    assert configure(NAME, "quick").replicates == 3 and configure(NAME, "smoke").max_steps == 30


def test_another_process_learns_of_it_from_its_settings(shown):
    """A worker imports the package alone, and does not know the study: all it needs are the settings."""
    code = "import pickle, sys; u = pickle.load(sys.stdin.buffer); from lthcore.studies import REGISTRY; "
    code += "from dataclasses import replace; c = replace(u.config, lr=0.5); assert 'stepwise' not in REGISTRY; "
    code += "print(u.key, c.steps, c.at(1).max_steps)"
    unit = shown["study"].units[-1]
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(unit), capture_output=True, cwd=store.ROOT)
    assert done.stdout.decode().split() == [unit.key, "200", "200"], done.stderr.decode()


def test_a_model_without_an_experiment_is_refused_by_the_settings_own_name(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "mlp_200_50", ARCHITECTURES["mlp"])
    with pytest.raises(ValueError, match=r"^model = 'mlp_200_50': must be one of 'mlp', 'lenet5'$"):
        experiments.study("pre_midsem", "smoke", model="mlp_200_50")


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (("tickets", 2), "claim 'mine': arm = 'tickets': must be one of 'ticket'; did you mean 'ticket'?"),
        (("ticket", 3), "claim 'mine': level = 3: must be one of 0, 1, 2 in the arm 'ticket'"),
    ],
)
def test_a_claim_about_an_arm_or_a_level_that_there_is_not_is_refused(forgotten, network, message):
    def measures(frame, config):
        return [verdicts.difference(frame, "x", network, ("ticket", 0), above=0)]

    claim = Claim("mine", "", "", "fig", measures)
    record = Experiment("own", one_arm, settings=SMALL, claims=(claim,), figures={"fig": None})
    config = experiments.study(record, "report").config
    rows = [("own", "mlp", "ticket", r, 0, 1.0, 30, 1.0, "test", "accuracy", 90.0) for r in range(3)]
    with pytest.raises(ValueError, match="^" + re.escape(message) + "$"):
        claims.judge(pd.DataFrame(rows, columns=COLUMNS), config)


def test_a_level_that_is_not_trained_yet_or_left_out_at_a_smaller_scale_is_no_mistake(forgotten):
    def measures(frame, config):
        return [verdicts.difference(frame, "x", ("ticket", 2), ("ticket", 0), above=0)]

    claim = Claim("mine", "", "", "fig", measures)
    record = Experiment("own", one_arm, settings=SMALL, claims=(claim,), figures={"fig": None})
    rows = [("own", "mlp", "ticket", 0, 0, 1.0, 30, 1.0, "test", "accuracy", 90.0)]
    for given, verdict in (({}, "not run"), ({"rounds": 1}, "not judged (other rounds)")):
        config = experiments.study(record, "report", overrides=given).config
        assert claims.judge(pd.DataFrame(rows, columns=COLUMNS), config)["verdict"].tolist() == [verdict]
    quick = experiments.study(record, "quick").config
    assert claims.judge(pd.DataFrame(rows, columns=COLUMNS), quick)["verdict"].tolist() == ["not run"]


def test_its_figures_name_what_its_record_has_set(forgotten):
    plt.switch_backend("agg")
    study = experiments.study(Experiment("own", one_arm, settings=SMALL), "report", overrides={"lr": 0.01})
    figure, _ = figures.Sheet(study, "").done()
    stamp = " ".join(figure._supxlabel.get_text().split())
    assert stamp.startswith("MNIST · MLP · preset report · max_steps = 30 · lr = 0.01 · rounds = 2 · n = 0")
    plt.close(figure)


def test_every_scale_has_a_folder_of_its_own(forgotten):
    def folder(preset="report", **parameters):
        return experiments.study(Experiment("own", one_arm, settings={"model": "mlp"}), preset, **parameters).folder

    start = store.FIGURES / "own" / "own"
    assert folder() == folder(replicates=3) == start / "report"
    assert folder(replicates=8) == start / "report_replicates-8"  # fewer replicates never replace its figures
    assert folder(replicates=2) == start / "report_replicates-2" and folder("quick") == start / "quick"
    assert folder(overrides={"max_steps": 30}) == start / "report_max_steps-30"


def test_a_changed_record_replaces_the_one_before(forgotten):
    for rounds in (2, 3):
        record = Experiment("own", one_arm, settings={"model": "mlp", "rounds": rounds}, group="extended")
        assert len(experiments.study(record, "report").units[0].levels) == rounds + 1
        assert "rounds" in experiments.taken("own")
    smaller = replace(record, smallest=0.1)
    study = experiments.study(smaller, "report")
    assert study.config.steps == 75 * (5500 // 60)
    assert pickle.loads(pickle.dumps(study.config)) == study.config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "mlp"}, "name = 'mlp': is taken by a study of this package"),
        ({"name": "My study"}, "name = 'My study': must be lower case letters, digits and underscores"),
        ({"group": "mine"}, "group = 'mine': must be one of 'report', 'extended', 'named', 'own'"),
        ({"presets": {"fast": {}}}, "preset = 'fast': must be one of 'quick', 'report', 'smoke'"),
        ({"settings": {"learning_rate": 1}}, "unknown setting 'learning_rate'"),
        ({"settings": {"lr": -1}}, "lr = -1: must be a number in (0, 10]"),
        ({"fixed": ("model",)}, "fixed = 'model': must be one of its settings"),
        (
            {"group": "reports"},
            "group = 'reports': must be one of 'report', 'extended', 'named', 'own'; did you mean 'report'?",
        ),
        (
            {"settings": {"lr": 0.1}, "fixed": ("lrr",)},
            "fixed = 'lrr': must be one of its settings; did you mean 'lr'?",
        ),
        ({"claims": (Claim("x", "", "", "fig_none", None),)}, "figure = 'fig_none': must be one of its figures"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused_in_one_line(forgotten, change, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)) as error:
        experiments.study(Experiment(**{"name": "own", "arms": one_arm, **change}))
    assert "\n" not in str(error.value)
    assert "own" not in studies.REGISTRY


def unit(config, replicate):
    return Unit(config, "same", replicate)


@pytest.mark.parametrize(
    ("arms", "line"),
    [
        (lambda config, replicate: [], "arms of 'wrong': must yield at least one Unit, and yield none"),
        (lambda config, replicate: None, "arms of 'wrong': must yield at least one Unit, and yield none"),
        (
            lambda config, replicate: [unit(config, replicate), unit(replace(config, prune_rate=0.5), replicate)],
            "arms of 'wrong': two units are called 'same', must have names of their own",
        ),
    ],
)
def test_arms_that_are_none_or_the_same_twice_are_refused(arms, line):
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        experiments.study(Experiment("wrong", arms, settings={"model": "mlp", "rounds": 2}), "smoke")
    assert "wrong" not in studies.REGISTRY


def test_a_record_that_is_refused_leaves_the_one_before_it(forgotten):
    good = Experiment("own", one_arm, settings={"model": "mlp", "rounds": 2})
    experiments.study(good, "smoke")
    for bad, settings in ((replace(good, arms=lambda c, r: []), {}), (replace(good, title="again"), {"lr": -1})):
        with pytest.raises(ValueError):
            experiments.study(bad, "smoke", overrides=settings)
        assert studies.REGISTRY["own"] is good


def test_a_colour_that_no_figure_has_is_refused_before_anything_is_trained():
    assert set(figures.OKABE_ITO) == set(COLOURS)
    with pytest.raises(
        ValueError, match=r"^styles: the colour of 'a' is 'purpel', must be one of .*did you mean 'purple'"
    ):
        Experiment("wrong", list, styles={"a": ("A", "purpel", "o")})
