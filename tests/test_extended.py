"""Studies beyond the report: their units, their settings in identities, and when they are run."""

import dataclasses

import pytest

from lthcore import cli
from lthcore.config import Config, configure
from lthcore.studies import REGISTRY, experiments, names
from lthcore.unit import MaskOf, Unit

BEYOND = names("extended", "named")  # the report


def test_a_later_setting_is_part_of_an_identity_only_where_it_is_set():
    other = {
        "dataset": "fashion",
        "conv_rate": 0.1,
        "dropout": 0.5,
        "warmup": 10,
        "frequent_epochs": 3,
        "early_bird": 0.1,
    }
    other |= {"criterion": "random", "rewind": "final", "structure": "filters", "retrain_epochs": 3, "retrain_lr": 1e-4}
    other |= {"weight_decay": 1e-4, "frozen_below": 1e-6, "biases": "normal", "batch_order": 1}
    plain = Unit(configure("lenet5"), "ticket", 0)
    later = {
        f.name: f.metadata.get("hashed", f.name) for f in dataclasses.fields(Config) if f.metadata.get("since") == 2
    }
    assert set(other) == set(later) and not set(later.values()) & set(plain.identity)
    for name, value in other.items():
        changed = Unit(configure("lenet5", **{name: value}), "ticket", 0)
        assert changed.identity[later[name]] == value and changed.key != plain.key
    with_probe = Unit(plain.config, "ticket", 0, mask=MaskOf(plain), probes=("order",), levels=(1,))
    assert with_probe.identity["beside"] == "order" and "beside" not in plain.identity


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("preset", ["smoke", "quick", "report"])
def test_every_extended_study_has_units_of_its_own(name, preset):
    units = experiments.study(name, preset).units
    assert len({unit.key for unit in units}) == len(units) > 0
    assert all(level in unit.chain.levels for unit in units for level in unit.levels)


@pytest.mark.parametrize("name", REGISTRY)
def test_only_where_it_is_judged_does_a_study_skip_the_replicates_that_chose_its_levels(name):
    for preset in ("smoke", "quick", "report"):
        study = experiments.study(name, preset, replicates=2)
        first = REGISTRY[name].first * (preset == "report")
        assert {unit.replicate for unit in study.units} == {first, first + 1}


def test_at_quick_tickets_are_compared_that_another_study_trains():
    mlp, lenet5 = (experiments.study(name, "quick") for name in ("mlp", "lenet5"))
    for name, there in {"signs": mlp, "small_dense": mlp, "at_init": mlp, "small_dense_lenet5": lenet5}.items():
        tickets = {unit.key for unit in experiments.study(name, "quick").units if unit.arm == "ticket"}
        assert tickets == {unit.key for unit in there.units if unit.arm == "ticket"}, name


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "cifar10"}, "dataset = 'cifar10': needs model = 'conv2'"),
        ({"dataset": "svhn"}, "dataset = 'svhn': must be one of 'mnist', 'fashion', 'cifar10'"),
        ({"conv_rate": 0.1}, "conv_rate = 0.1: needs a model with convolutions"),
        ({"dropout": 1}, "dropout = 1: must be a number in [0, 1)"),
        ({"warmup": -1}, "warmup = -1: must be a whole number"),
        ({"criterion": "a b"}, "criterion = 'a b': must be one of 'magnitude', 'random', 'obd'"),
        ({"retrain_epochs": 0.5}, "retrain_epochs = 0.5: must be None or a whole number in 1..10000"),
        ({"rewind": "final", "rewind_step": 3}, "rewind_step = 3: must be 0 unless rewind = 'reset'"),
        ({"rewind_step": 1000, "epochs": 2, "retrain_epochs": 1}, "rewind_step = 1000: must be a whole number in 0.."),
        ({"structure": "filters"}, "structure = 'filters': needs a model with convolutions"),
    ],
)
def test_bad_values_are_refused_in_one_line(settings, says):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        configure("mlp", **settings)
    assert str(error.value).startswith(says)


def test_extended_notebooks_are_run_on_request_alone(capsys):
    def asked(*arguments):
        return [job.experiment for job in cli.wanted(cli.parser().parse_args(arguments))]

    report = ["mlp", "lenet5", "task1", "task2", "task3"]
    assert asked("quick") == report
    extended = ["paper", "fashion_conv2", "rewind", "criteria", "transfer", "early_bird", "collapse"]
    extended += ["public_step", "public_step_lenet5", "overlap", "signs", "small_dense", "small_dense_lenet5"]
    extended += ["mlp_fit", "lenet5_relu", "task3_sgd", "at_init"]
    assert asked("quick", "--extended") == asked("quick", "--wide") == [*report, *extended]
    assert asked("quick", "--only", "conv2") == ["conv2"]
    assert asked("quick", "--only", "06_lottery_ticket_paper") == ["paper", "fashion_conv2"]
    open_ones = ["lenet5_fit", "introduction"]
    assert [asked("smoke", "--only", name) for name in open_ones] == [[name] for name in open_ones]
    assert [s.config.experiment for s in experiments.every(preset="report")] == report
    for name in ("extended", "wide"):  # its earlier name
        every = experiments.every(preset="report", **{name: True})
        assert {s.config.experiment for s in every} == {*report, *BEYOND}


def test_a_config_of_every_field_is_still_hashable():
    assert len({Config(), dataclasses.replace(Config(), dropout=0.1)}) == 2
