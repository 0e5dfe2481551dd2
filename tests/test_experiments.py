"""The report's experiments: which arms on which data, how many levels, and where their figures go."""

import dataclasses
import json
from collections import Counter

import matplotlib.pyplot as plt
import numpy as np
import pytest

from lthcore.config import configure
from lthcore.runs import archive, presets, store
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments, plots
from lthcore.unit import Unit

COLUMNS = ["experiment", "model", "arm", "replicate", "level", "density", "step", "epoch", "split", "metric", "value"]
NAMES = ("mlp", "lenet5", "task1", "task2", "task3")


pytestmark = pytest.mark.usefixtures("folders")


def arms(name, preset="report", **parameters):
    """Units of the first replicate by their arm's name."""
    units = [u for u in experiments.study(name, preset, **parameters).units if u.replicate == 0]
    assert len({u.arm for u in units}) == len(units)
    return {u.arm: u for u in units}


# ------------------------------------------------------------------------------------------------------------- arms


@pytest.mark.parametrize(("name", "rounds", "every"), [("mlp", 20, 2), ("lenet5", 20, 4)])
def test_pre_midsem(name, rounds, every):
    found = arms(name)
    assert set(found) == {"ticket", "random_reinit", "random_mask", "ticket_spared"}
    ticket, spared = found["ticket"], found["ticket_spared"]
    assert ticket.prunes and ticket.levels == tuple(range(rounds + 1))
    assert spared.prunes and spared.config == dataclasses.replace(ticket.config, spare="smallest")
    assert {u.subset for u in found.values()} == {"full"}
    for arm, start, mask in (("random_reinit", "reinit", "ticket"), ("random_mask", "theta0", "random")):
        control = found[arm]
        assert (control.chain, control.start.name, control.mask.name) == (ticket, start, mask)
        assert control.config == ticket.config and control.levels == tuple(range(1, rounds + 1, every))


@pytest.mark.parametrize(
    ("name", "s1", "s2", "rounds"), [("task1", "half1", "half2", 5), ("task2", "labels0-4", "labels5-9", 15)]
)
def test_task_1_and_2(name, s1, s2, rounds):
    found = arms(name)
    five = {"t1_on_s1", "t2_on_s2", "t1_on_s2", "random_reinit", "random_mask"}
    suffixes = ("",) if name == "task1" else ("", "_spared")
    assert set(found) == {arm + suffix for arm in five for suffix in suffixes}
    for suffix in suffixes:
        t1, t2 = found["t1_on_s1" + suffix], found["t2_on_s2" + suffix]
        assert (t1.prunes, t1.subset, t2.prunes, t2.subset) == (True, s1, True, s2)
        assert t1.levels == t2.levels == tuple(range(rounds + 1))
        for arm, start, mask in (
            ("t1_on_s2", "theta0", "ticket"), ("random_reinit", "reinit", "ticket"), ("random_mask", "theta0", "random")
        ):  # fmt: skip
            u = found[arm + suffix]  # T1's mask, or as many weights; trained afresh on S2, at every level from 1 on
            assert (u.chain, u.subset, u.start.name, u.mask.name) == (t1, s2, start, mask), arm
            assert u.levels == tuple(range(1, rounds + 1))
        heads = {u.config.output_rate for arm, u in found.items() if arm.endswith("_spared") == (suffix != "")}
        assert heads == {0 if suffix else None}


def test_task_3_crosses_masks_and_trainers():
    found = arms("task3")
    trainers = {"adam": ("adam", 0.0), "sgd": ("sgd", 0.0), "momentum": ("sgd", 0.9)}
    crossed = {"sgd_mask_by_adam", "adam_mask_by_sgd", "momentum_mask_by_adam", "adam_mask_by_momentum"}
    assert set(found) == set(trainers) | crossed
    for arm, u in found.items():
        owner, _, trainer = arm.partition("_mask_by_")
        assert (u.config.optimizer, u.config.momentum) == trainers[trainer or owner]
        assert u.chain == (found[owner] if trainer else u)
        assert u.levels == tuple(range(1 if trainer else 0, 11))
        assert (u.subset, u.start.name, u.mask.name) == ("full", "theta0", "ticket")
        # nothing but the optimizer differs
        plain = dataclasses.replace(u.config, optimizer="adam", momentum=0.0)
        assert plain == configure("task3", "report")


def test_without_controls_the_rest_stays():
    for name in NAMES:
        assert set(arms(name)) - set(arms(name, controls=False)) == {
            a for a in arms(name) if a.startswith(("random_reinit", "random_mask"))
        }


def test_no_spared_arm_where_the_output_layer_has_a_rate_of_its_own_or_the_scope_is_global():
    assert not [a for a in arms("task2", overrides={"output_rate": 0}) if "spared" in a]
    assert not [a for a in arms("mlp", overrides={"output_rate": 0}) if "spared" in a]
    assert not [a for a in arms("mlp", overrides={"scope": "global"}) if "spared" in a]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("preset", ["smoke", "quick", "report"])
def test_units_have_keys_of_their_own_and_sources_among_them(name, preset):
    units = experiments.study(name, preset, replicates=2).units
    assert len({u.key for u in units}) == len(units)
    assert Counter(u.replicate for u in units) == {0: len(units) // 2, 1: len(units) // 2}
    for u in units:
        if not u.prunes:
            assert u.chain in units and u.chain.replicate == u.replicate
            assert u.levels and all(u.needs(k) in {(u.chain, j) for j in u.chain.levels} for k in u.levels)


# Networks by hand. A spared layer cuts a chain where nothing would be left of the others: the MLP's head (1,000 of
# 266,200 weights, two other layers) after level 15, LeNet-5's conv1 (150 of 61,470, four others) nowhere.
LEVELS = {
    "report": {
        "mlp": 10 * (21 + 2 * 10 + 16),
        "lenet5": 8 * (21 + 2 * 5 + 21),
        "task1": 10 * (6 + 6 + 5 + 2 * 5),
        "task2": 10 * 2 * (16 + 16 + 15 + 2 * 15),
        "task3": 10 * (3 * 11 + 4 * 10),
    },
    "quick": {  # controls at levels 1, 5, 9, ...
        "mlp": 3 * (21 + 2 * 5 + 16),
        "lenet5": 3 * (21 + 2 * 5 + 21),
        "task1": 3 * (6 + 6 + 5 + 2 * 2),
        "task2": 3 * 2 * (16 + 16 + 15 + 2 * 4),
        "task3": 3 * (3 * 11 + 4 * 10),
    },
}


@pytest.mark.parametrize("preset", LEVELS)
def test_number_of_networks(preset):
    for name, expected in LEVELS[preset].items():
        assert sum(len(u.levels) for u in experiments.study(name, preset).units) == expected, name
    studies = experiments.every(preset=preset)
    assert [s.config.experiment for s in studies] == list(NAMES)
    assert experiments.progress(studies)["of"].sum() == sum(len(u.levels) for s in studies for u in s.units)
    assert experiments.progress(studies)["levels finished"].sum() == 0


def test_the_spared_mlp_stops_where_nothing_else_would_be_left():
    c = arms("mlp")["ticket_spared"].config
    total = [266_200]
    while len(total) <= 20:
        total.append(total[-1] - round(0.3 * total[-1]))
    assert total[15] > 1002 > total[16] and c.trained_levels == tuple(range(16))


# ---------------------------------------------------------------------------------------------------------- folders


@pytest.mark.parametrize("name", NAMES)
def test_only_the_committed_scale_or_more_replicates_of_it_goes_to_figures(name, folders):
    figures = folders / "figures"

    def folder(preset="report", **parameters):
        return experiments.study(name, preset, **parameters).folder

    assert folder() == folder(replicates=configure(name, "report").replicates) == folder(replicates=10) == figures
    assert folder(device="cpu") == figures  # where it ran is provenance
    others = [
        folder(replicates=1), folder(replicates=2), folder(seed=1), folder(controls=False), folder("quick"),
        folder("smoke"), folder(overrides={"lr": 0.01}), folder(overrides={"lr": 0.02}), folder("quick", replicates=5),
        folder(replicates=2, overrides={"lr": 0.01}), folder(overrides={"tolerance": 1.0}),
        folder(overrides={"levels": [0, 1]}),
    ]  # fmt: skip
    assert len(set(others)) == len(others) and all(f.parent == figures for f in others)
    assert folder("quick") == figures / "quick" and folder("smoke") == figures / "smoke"
    assert not {f.name for f in others} & {"archive", "executed"}


def test_a_folders_name_is_one_that_a_disk_takes():
    s = experiments.study("mlp", "report", overrides={"rounds": 100, "levels": list(range(101))})
    assert len(s.folder.name) <= 255


def test_the_archive_is_written_for_the_committed_scale_alone(folders, monkeypatch):
    monkeypatch.setattr(experiments.sweep, "run", lambda *_, **__: None)
    for preset in ("quick", "report"):
        s = experiments.study("task1", preset, overrides={})
        for u in s.units:
            store.save_level(u, u.levels[0], [(0, 0.0, "test", "accuracy", 10.0)], None, {"seconds": 1.0})
        experiments.run(s)
        archived = [p for p in (folders / "archive").rglob("*") if p.is_file()]
        assert len(archived) == (0 if preset == "quick" else s.config.replicates)


@pytest.mark.parametrize("error", [ValueError("no CUDA"), FloatingPointError("level 3"), KeyboardInterrupt()])
def test_what_stopped_a_run_is_what_is_raised(monkeypatch, error):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(experiments.sweep, "run", stop)
    with pytest.raises(type(error)) as caught:
        experiments.run(experiments.study("mlp", "report"))
    assert caught.value is error


@pytest.mark.parametrize("given", [(), ("mlp",), ([],)], ids=str)
def test_what_is_no_study_is_refused_in_one_line(given):
    with pytest.raises(
        ValueError, match=r"^run\([^\n]*\): must be given studies, as study\(\) makes them, one or more$"
    ):
        experiments.run(*given)


# ------------------------------------------------------------------------------------------------------ tidy tables


def keep(u, level, value):
    rows = [(0, 0.0, "test", "accuracy", 10.0), (30, 1.5, "test", "accuracy", value), (30, 1.5, "test", "loss", 0.5)]
    store.save_level(u, level, rows, None, {"seconds": 2.0, "torch": "2", "device": "cpu"})


@pytest.mark.parametrize("name", NAMES)
def test_the_tidy_table(name):
    s = experiments.study(name, "smoke", replicates=2)
    empty = experiments.finished(s)
    assert list(empty.columns) == COLUMNS and len(empty) == 0
    tasks = [(u, k) for u in s.units for k in u.levels]
    for i, task in enumerate(tasks[:-1]):  # the last is not finished
        keep(*task, 90 + i / 100)
    frame = experiments.finished(s)
    assert list(frame.columns) == COLUMNS and len(frame) == 3 * (len(tasks) - 1)
    assert not frame.isna().any().any() and frame.index.tolist() == list(range(len(frame)))
    assert set(frame["experiment"]) == {name} and set(frame["model"]) == {s.config.model}
    last = frame[(frame["step"] == 30) & (frame["metric"] == "accuracy")]
    got = {(r.arm, r.replicate, r.level): (r.value, r.density) for r in last.itertuples()}
    assert got == {(u.arm, u.replicate, k): (90 + i / 100, u.config.density(k)) for i, (u, k) in enumerate(tasks[:-1])}
    assert experiments.progress([s]).loc[name].tolist() == ["smoke", 2, len(tasks) - 1, len(tasks)]


def test_provenance_is_plain_and_complete():
    import json

    s = experiments.study("task1", "smoke")
    keep(s.units[0], 0, 90.0)
    facts = json.loads(json.dumps(experiments.provenance(s)))
    assert facts["config"]["lr"] == 0.0012 and facts["config"]["preset"] == "smoke"
    assert facts["units"] == [u.key for u in s.units]
    assert (facts["levels"], facts["levels_expected"]) == (1, sum(len(u.levels) for u in s.units))
    assert facts["seconds_of_training"] == 2.0 and facts["device"] == ["cpu"]


def test_the_table_of_settings_has_the_reports_own_in_front():
    table = experiments.study("task1", "report").table()
    assert table.index.tolist()[:2] == ["experiment", "preset"]
    assert set(table.index[2:7]) == {"model", "batch_size", "epochs", "prune_rate", "rounds"}
    assert table.loc["epochs", "value"] == "50" and len(table) == len(presets.table(configure("mlp")))


# ---------------------------------------------------------------------------------------------- a notebook's parameters


def test_parameters_of_a_notebook():
    s = experiments.study("pre_midsem", "report", model="lenet5", replicates=5, controls=False, seed=3, device="cpu")
    c = configure("lenet5", "report", replicates=5, controls=0, seed=3, device="cpu")
    assert s.config == c
    assert experiments.study("pre_midsem").config == configure("mlp", "quick")
    assert experiments.study("task2", model="lenet5").config.model == "lenet5"
    assert experiments.study("task1", overrides={"levels": [0, 1]}).config.levels == (0, 1)
    assert isinstance(s.units[0], Unit)


REFUSED = [
    ({"experiment": "task9"}, "experiment = 'task9'", "'task1'"),
    ({"preset": "full"}, "preset = 'full'", "'report'"),
    ({"replicates": -1}, "replicates = -1", "1..1000"),
    ({"replicates": "3"}, "replicates = '3'", "1..1000"),
    ({"replicates": 1.5}, "replicates = 1.5", "1..1000"),
    ({"controls": 1}, "controls = 1", "bool"),
    ({"controls": "no"}, "controls = 'no'", "bool"),
    ({"seed": -1}, "seed = -1", "0..2147483647"),
    ({"seed": None}, "seed = None", "0..2147483647"),
    ({"device": "gpu"}, "device = 'gpu'", "'cuda'"),
    ({"model": "vgg"}, "model = 'vgg'", "'lenet5'"),
    ({"model": "conv2"}, "model = 'conv2'", "'lenet5'"),
    ({"model": "mlp_0_10"}, "model = 'mlp_0_10'", "mlp_A_B"),
    ({"experiment": "pre_midsem", "model": "vgg"}, "model = 'vgg'", "'lenet5'"),
    ({"experiment": "mlp", "model": "lenet5"}, "model = 'lenet5'", "'mlp'"),
    ({"overrides": [1]}, "overrides = [1]", "dict"),
    ({"overrides": "lr=1"}, "overrides = 'lr=1'", "dict"),
    ({"overrides": {"learning_rate": 1}}, "unknown setting 'learning_rate'", "lr"),
    ({"overrides": {"prune_rate": 1.2}}, "prune_rate = 1.2", "(0, 1)"),
    ({"overrides": {"seed": 1}}, "overrides: 'seed'", "parameter of its own"),
    ({"overrides": {"model": "mlp"}}, "overrides: 'model'", "parameter of its own"),
    ({"overrides": {"device": "cpu"}}, "overrides: 'device'", "parameter of its own"),
    ({"overrides": {"replicates": 2}}, "overrides: 'replicates'", "parameter of its own"),
]
REFUSED += [
    ({"overrides": {"preset": "report"}}, "'preset'", ""),
    ({"overrides": {"experiment": "mlp"}}, "'experiment'", ""),
    ({"overrides": {1: 2}}, "1", ""),
]


@pytest.mark.parametrize("workers", [-2, 1.5, "2", True])
def test_a_number_of_processes_that_is_none_is_refused_in_one_line(workers):
    with pytest.raises(ValueError, match=f"^workers = {workers!r}: must be a whole number from 0"):
        experiments.run(experiments.study("task1", "smoke"), workers=workers)


@pytest.mark.parametrize(("parameters", "says", "allowed"), REFUSED)
def test_bad_parameters_are_refused_in_one_line(parameters, says, allowed):
    with pytest.raises(ValueError) as caught:
        experiments.study(**{"experiment": "task1", **parameters})
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and says in text and allowed in text


def test_filters_have_no_layer_to_spare():
    study = experiments.study("lenet5", "smoke", overrides={"structure": "filters"})
    assert {unit.arm for unit in study.units} == {"ticket", "random_reinit", "random_mask"}


# -------------------------------------------------------------------------------------------------------- one pass


@pytest.fixture
def looks(folders, monkeypatch):
    """How often each level is read, from the store or from the archive: Counter of (Unit, int)."""
    counted = Counter()

    def counting(read):
        def find(unit, level):
            found = read(unit, level)
            if found:
                counted[unit, level] += 1
            return found

        return find

    monkeypatch.setattr(store, "in_store", counting(store.in_store))
    monkeypatch.setattr(store, "in_archive", counting(store.in_archive))
    return counted


@pytest.mark.slow
@pytest.mark.parametrize("where", ["store", "archive"])
def test_a_redraw_reads_each_level_at_most_three_times(folders, looks, monkeypatch, where):
    s = experiments.study("task1", "smoke")
    for u in s.units:
        for level in u.levels:
            rows = [(30, 1.5, split, name, 50.0) for split in ("test", "validation") for name in ("accuracy", "loss")]
            mask = {name: np.ones(shape, bool) for name, shape in ARCHITECTURES[u.config.model].weights.items()}
            store.save_level(u, level, rows, mask, {"seconds": 2.0})
    if where == "archive":
        archive.write(s.units)
        monkeypatch.setenv("LTH_RUNS", str(folders / "nothing"))
    looks.clear()
    experiments.run(s, log=lambda line: None)
    results = experiments.load(s)
    assert not results.missing
    plots.draw(results)
    experiments.verdicts(results)
    experiments.progress([results])
    plots.scorecard([results])
    assert set(looks) == {(u, level) for u in s.units for level in u.levels} and max(looks.values()) <= 3


@pytest.mark.slow
def test_saving_a_figure_reads_nothing(looks):
    s = experiments.study("task1", "smoke")
    keep(s.units[0], 0, 90)
    results = experiments.load(s)
    looks.clear()
    figure, drawn = s.experiment.figures["fig3_task1"](s, results.frame)
    plots.save_figure(results, "fig3_task1", figure, drawn)
    plt.close(figure)
    assert not looks
    assert (s.folder / "fig3_task1.json").read_text() == json.dumps(results.provenance, indent=1, sort_keys=True) + "\n"


def test_what_was_loaded_is_not_loaded_again():
    s = experiments.study("task1", "smoke")
    keep(s.units[0], 0, 90)
    results = experiments.load(s)
    assert experiments.load(results) is results
    assert len(results.missing) == sum(len(u.levels) for u in s.units) - 1
    assert results.frame.equals(experiments.finished(s))
    assert results.provenance == experiments.provenance(s)
