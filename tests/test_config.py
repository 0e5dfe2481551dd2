"""Settings: the report's tables, what is refused and how, what a result's identity is made of."""

import ast
import dataclasses
import hashlib
import json
import math
import subprocess
import sys
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import NAMES, VALUES

from lthcore import config, tickets
from lthcore.config import GROUPS, Config, configure
from lthcore.runs import presets
from lthcore.runs.presets import changes
from lthcore.schedule import ARCHITECTURES, apportion
from lthcore.studies import experiments
from lthcore.studies.record import Experiment
from lthcore.unit import Altered, Fresh, MaskOf, RandomLike, Unit, draw_seed

EXPERIMENTS = ("mlp", "lenet5", "task1", "task2", "task3")
FIELDS = ["experiment", "preset", *presets.SETTINGS]

# Tables 1 and 2 as printed: learning rate, batch size, train epochs, percent pruned, prune iterations
TABLES = {
    "mlp": (0.0012, 60, 75, 30, 20),
    "lenet5": (0.0012, 60, 50, 20, 20),
    "task1": (0.0012, 50, 50, 50, 5),
    "task2": (0.0012, 50, 50, 35, 15),
    "task3": (0.0012, 50, 50, 50, 10),
}


def refusal(call, *arguments, **settings):
    """The one line with which a call refuses its arguments."""
    with pytest.raises(ValueError) as caught:
        call(*arguments, **settings)
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


# ------------------------------------------------------------------------------------------ the report's schedule


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_report_preset_is_the_printed_table(experiment):
    lr, batch_size, epochs, percent, rounds = TABLES[experiment]
    c = configure(experiment, "report")
    assert (c.lr, c.batch_size, c.epochs, c.prune_rate, c.rounds) == (lr, batch_size, epochs, percent / 100, rounds)
    assert c.model == ("lenet5" if experiment == "lenet5" else "mlp")
    assert c.optimizer == "adam" and c.momentum == 0
    assert (c.scope, c.output_rate, c.spare, c.rewind_step) == ("layer", None, "none", 0)
    assert c.validation == 1 / 12 and c.tolerance == c.margin == 0.5
    assert c.trained_levels == tuple(range(rounds + 1))
    assert c.max_steps == c.test_images == 0
    assert c.replicates >= 3
    every = {"mlp": 2, "lenet5": 4}.get(experiment, 1)
    assert c.control_levels == tuple(range(1, rounds + 1, every))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_quick_preset_runs_all_levels_for_an_epoch_or_two(experiment):
    c, table = configure(experiment, "quick"), TABLES[experiment]
    assert c.trained_levels == tuple(range(table[4] + 1))
    assert c.epochs == (2 if experiment == "task2" else 1)
    assert (c.lr, c.batch_size, c.prune_rate) == (table[0], table[1], table[3] / 100)
    assert c.control_levels == tuple(range(1, table[4] + 1, 4))
    assert c == configure(experiment)  # the default


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_smoke_preset_is_two_levels_and_one_past_the_collapse_of_the_head(experiment):
    c = configure(experiment, "smoke")
    assert (c.max_steps, c.test_images, c.replicates) == (30, 1000, 1)
    *few, deep = c.trained_levels
    assert few == [0, 1, 2] and c.control_levels == (1, 2, deep)
    outputs = c.schedule[deep]["head"]
    assert outputs < CLASSES if experiment != "lenet5" else outputs < 0.05 * 840


CLASSES = 10


def rounds_by_hand(n, rate, rounds):
    """In decimal arithmetic, ties to even."""
    for _ in range(rounds):
        n -= int((Decimal(str(rate)) * n).to_integral_value(ROUND_HALF_EVEN))
    return n


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_schedule_keeps_n_minus_round_pn_in_every_tensor(experiment):
    c = configure(experiment, "report")
    for name, shape in ARCHITECTURES[c.model].weights.items():
        for level in c.trained_levels:
            assert c.schedule[level][name] == rounds_by_hand(math.prod(shape), c.prune_rate, level)
    for level in c.trained_levels:
        # half a weight a round and tensor is lost or gained by rounding
        lost = level * 0.5 * len(c.schedule[0]) / sum(c.schedule[0].values())
        assert c.density(level) == pytest.approx((1 - c.prune_rate) ** level, abs=max(lost, 1e-12))


def test_counts_that_were_found_by_another_program():
    mlp, lenet5 = configure("mlp", "report").schedule, configure("lenet5", "report").schedule
    assert [mlp[k]["head"] for k in (13, 14, 18, 20)] == [10, 7, 1, 1]
    assert sum(mlp[0].values()) == 266_200 and sum(lenet5[0].values()) == 61_470
    assert lenet5[14]["conv1"] == 7 and lenet5[20]["conv1"] == 2 and lenet5[20]["head"] == 10
    assert configure("task2", "report").schedule[15]["head"] == 2
    assert configure("task3", "report").schedule[10]["head"] == 1


def test_global_scope_and_the_output_layers_own_rate():
    together = configure("mlp", "report", scope="global").schedule
    assert [set(level) for level in together] == [{"*"}] * 21
    assert together[20]["*"] == rounds_by_hand(266_200, 0.3, 20)
    spared = configure("mlp", "report", output_rate=0).schedule
    assert {level["head"] for level in spared} == {1000} and spared[3]["fc2"] == rounds_by_hand(30_000, 0.3, 3)
    both = configure("mlp", "report", scope="global", output_rate=0.1).schedule
    assert both[5] == {"*": rounds_by_hand(265_200, 0.3, 5), "head": rounds_by_hand(1000, 0.1, 5)}


@pytest.mark.parametrize("experiment", ["mlp", "lenet5"])
def test_sparing_the_smallest_layer_keeps_every_total(experiment):
    plain = configure(experiment, "report")
    spared = replace(plain, spare="smallest")
    smallest = {"mlp": "head", "lenet5": "conv1"}[experiment]
    assert {level[smallest] for level in spared.schedule} == {plain.schedule[0][smallest]}
    for level in spared.trained_levels:
        assert sum(spared.schedule[level].values()) == sum(plain.schedule[level].values())
    for one, next_ in zip(spared.schedule, spared.schedule[1:], strict=False):
        assert all(next_[name] <= one[name] for name in one)


@given(
    model=st.sampled_from(["mlp", "lenet5"]),
    rate=st.floats(0.01, 0.95),
    rounds=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    scope=st.sampled_from(["layer", "global"]),
    output_rate=st.none() | st.floats(0, 0.9, allow_subnormal=False),
)
def test_a_longer_schedule_begins_with_the_shorter_one(model, rate, rounds, scope, output_rate):
    """So that more rounds may go on from the finished levels of fewer."""
    common = {"prune_rate": rate, "scope": scope, "output_rate": output_rate}
    short, long = (configure(model, "report", rounds=n, **common) for n in sorted(rounds))
    assert long.schedule[: len(short.schedule)] == short.schedule
    for one, next_ in zip(long.schedule, long.schedule[1:], strict=False):
        assert all(0 <= next_[name] <= one[name] for name in one)


# ------------------------------------------------------------------------------------------------- what is refused

RATES = [0, 1, 1.2, -1, math.nan, math.inf, -math.inf, "0.3", True, None, [0.3]]
BAD = [
    *(("prune_rate", value, "(0, 1)") for value in RATES),
    *(("lr", value, "(0, 10]") for value in (0, -0.1, 11, math.nan, math.inf, "0.1", True, None)),
    *(("momentum", value, "[0, 1)") for value in (1, -0.1, math.nan, "0.9", True)),
    *(("output_rate", value, "[0, 1)") for value in (1, -0.1, 1.2, math.nan, "0", False)),
    *(("epochs", value, "1..10000") for value in (0, -1, 1.0, 10_001, "75", True, None, math.nan)),
    *(("batch_size", value, "1..60000") for value in (0, -60, 60.0, 60_001, "60", True)),
    *(("rounds", value, "0..200") for value in (-1, 201, 2.0, "20", True)),
    *(("validation", value, "[0, 0.5]") for value in (-0.1, 0.51, math.nan, "0", True)),
    *(("replicates", value, "1..1000") for value in (0, -1, 1001, 1.5, True)),
    *(("controls", value, "0..200") for value in (-1, 201, True)),
    *(("seed", value, "0..2147483647") for value in (-1, 2**31, 0.5, "0", True)),
    *(("weight_decay", value, "[0, 1]") for value in (-1e-4, 1.1, math.nan, math.inf, "0.1", True, None)),
    *(("tolerance", value, "[0, 100]") for value in (-1, 101, math.nan, "0.5")),
    *(("margin", value, "[0, 100]") for value in (-1, 101, math.nan, "0.5")),
    *(("max_steps", value, "0..1000000000") for value in (-1, 1.0, "5", True)),
    *(("test_images", value, "0..10000") for value in (-1, 10_001, 1.0)),
    *(("rewind_step", value, "0..1000000") for value in (-1, 1.0, True, 1_000_001)),
    ("optimizer", "adagrad", "'adam', 'sgd', 'adamw'"),
    ("optimizer", None, "'adam', 'sgd', 'adamw'"),
    ("device", "tpu", "'auto', 'cpu', 'cuda'"),
    ("device", 0, "'auto', 'cpu', 'cuda'"),
    ("model", "resnet", "'mlp', 'lenet5'"),
    ("model", ["mlp"], "'mlp', 'lenet5'"),
    ("scope", "filter", "'layer', 'global'"),
    ("activation", "gelu", "'default', 'relu', 'tanh'"),
    ("pool", "sum", "'avg', 'max'"),
    ("spare", "all", "'none', 'smallest'"),
    ("levels", 3, "whole numbers"),
    ("levels", "0,1", "whole numbers"),
    ("levels", {0, 1}, "whole numbers"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD, ids=lambda x: str(x)[:20])
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(name, value, allowed):
    text = refusal(configure, "task3", "report", **{name: value})
    assert text.startswith(f"{name} = {value!r}: must be ") and allowed in text


@pytest.mark.parametrize("levels", [[0, 0], [0, 2, 1], [0, 21], [0, -1], [0, 1.0], [0, True], ["0"]])
def test_levels_increase_from_0_to_rounds(levels):
    text = refusal(configure, "mlp", "report", levels=levels)
    assert text.startswith(f"levels = {tuple(levels)!r}: must be ") and "rounds = 20" in text


def test_levels_begin_with_the_dense_network():
    assert refusal(configure, "mlp", "report", levels=[1, 2]).startswith("levels = (1, 2): must begin with level 0")
    assert configure("mlp", "report", levels=[0, 7]).trained_levels == (0, 7)


# images of the training subset: all, a half, and the 29,404 that show 5..9
@pytest.mark.parametrize(
    ("experiment", "images"), [("mlp", 60_000), ("task1", 30_000), ("task2", 29_404), ("task3", 60_000)]
)
@pytest.mark.parametrize("validation", [0, 1 / 12, 0.5])
def test_a_batch_is_not_larger_than_the_data(experiment, images, validation):
    left = round(images * (1 - validation))
    for batch_size in (1, left - 1):
        assert configure(experiment, "report", batch_size=batch_size, validation=validation).batch_size == batch_size
    if left + 1 <= 60_000:
        text = refusal(configure, experiment, "report", batch_size=left + 1, validation=validation)
        assert f"batch_size = {left + 1}" in text and "larger than the data" in text and "1.." in text
        assert int(text.rsplit("..", 1)[1]) in (left - 1, left)


def test_momentum_belongs_to_sgd():
    text = refusal(configure, "mlp", momentum=0.9)
    assert "momentum = 0.9" in text and "optimizer = 'sgd'" in text and "'adam'" in text
    assert configure("mlp", momentum=0.9, optimizer="sgd").momentum == 0.9
    assert "'adamw'" in refusal(configure, "mlp", momentum=0.9, optimizer="adamw")


def test_weight_decay_is_in_the_identity_only_where_it_is_set():
    plain, decayed = (Unit(configure("mlp", weight_decay=value), "ticket", 0) for value in (0, 1e-4))
    assert "weight_decay" not in plain.identity and decayed.identity == {**plain.identity, "weight_decay": 1e-4}
    assert plain.key == Unit(configure("mlp"), "ticket", 0).key and plain.dense != decayed.dense
    assert configure("mlp", optimizer="adamw").weight_decay == 0  # torch's own default is 0.01


def test_rewinding_stays_within_the_training():
    for beyond in (30, 31, 10**6):
        text = refusal(configure, "mlp", "smoke", rewind_step=beyond)
        assert f"rewind_step = {beyond}" in text and "0..29" in text
    assert configure("mlp", "smoke", rewind_step=29).rewind_step == 29
    assert "rewind_step = 917" in refusal(configure, "mlp", "quick", rewind_step=917)  # an epoch is 55,000 / 60 steps


@pytest.mark.parametrize("experiment", ["mlp", "task1", "paper", "criteria", "collapse", "transfer", "early_bird"])
def test_a_rate_of_convolutions_needs_some(experiment):
    text = refusal(configure, experiment, conv_rate=0.1)
    assert text == "conv_rate = 0.1: needs a model with convolutions, which 'mlp' is not"
    assert configure("task1", model="lenet5", conv_rate=0.1).conv_rate == 0.1
    assert "needs scope = 'layer'" in refusal(configure, "lenet5", conv_rate=0, scope="global")


def test_sparing_goes_with_a_layer_wise_rate_alone():
    for others in ({"scope": "global"}, {"output_rate": 0}, {"output_rate": 0.1}):
        assert refusal(configure, "mlp", spare="smallest", **others).startswith("spare = 'smallest': needs")


@pytest.mark.parametrize("name", ["learning_rate", "LR", "", "epoch", "lr ", "a\nb", "__class__"])
def test_an_unknown_setting_is_named_with_those_there_are(name):
    text = refusal(configure, "mlp", **{name: 1})
    assert text.startswith(f"unknown setting {name!r}: must be one of ")
    offered = text.split("must be one of ")[1].split("; did you mean")[0].split(", ")
    assert sorted(offered) == sorted(set(FIELDS) - {"experiment", "preset"})


def asked(**parameters):
    return experiments.study(**{"experiment": "mlp", "preset": "smoke"} | parameters)


@pytest.mark.parametrize(
    ("call", "given", "meant"),
    [
        (asked, {"experiment": "tsak1"}, "task1"),
        (asked, {"preset": "smoek"}, "smoke"),
        (asked, {"model": "lenet-5"}, "lenet5"),
        (asked, {"overrides": {"prunerate": 0.2}}, "prune_rate"),
        (asked, {"overrides": {"rewind": "finall"}}, "final"),
        (asked, {"overrides": {"criterion": "Magnitude"}}, "magnitude"),
        (asked, {"overrides": {"dataset": "fashon"}}, "fashion"),
        (asked, {"overrides": {"scope": "layers"}}, "layer"),
        (Unit, {"config": Config(), "arm": "mine", "replicate": 0, "probes": ("ordr",)}, "order"),
        (tickets.to_bytes, {"ticket": None, "form": "tiket"}, "ticket"),
    ],
)
def test_the_nearest_allowed_name_is_named(call, given, meant):
    text = refusal(call, **given)
    assert "must be one of " in text and text.endswith(f"; did you mean {meant!r}?")


def test_an_earlier_name_of_a_setting_still_works():
    """In overrides and in records of a user's own; what is hashed has the name under which levels were archived."""
    for earlier, name in presets.ALIASES.items():
        config = configure("mlp", **{earlier: 3})
        assert config == configure("mlp", **{name: 3}) != configure("mlp") and name in presets.SETTINGS
        studies = [experiments.study("paper", overrides={given: 3}) for given in (earlier, name)]
        assert studies[0].config == studies[1].config
        record = Experiment("mine", lambda config, replicate: (), {earlier: 3}, {"smoke": {earlier: 1}})
        assert (record.settings, record.presets) == ({name: 3}, {"smoke": {name: 1}})
        assert refusal(configure, "mlp", **{earlier: 3, name: 3}).startswith(f"{earlier} = 3: must not be given")
        identity = Unit(config, "ticket", 0).identity
        assert identity[earlier] == 3 and name not in identity


@pytest.mark.parametrize("value", ["task4", "MLP", "", None, 1, ["mlp"], "a\nb"])
def test_unknown_experiment_and_preset(value):
    text = refusal(configure, value)
    assert text.startswith(f"experiment = {value!r}") and all(repr(e) in text for e in EXPERIMENTS)
    text = refusal(configure, "mlp", value)
    assert text.startswith(f"preset = {value!r}") and all(repr(p) in text for p in ("quick", "report", "smoke"))


def test_an_experiment_named_after_a_model_has_that_model():
    assert refusal(configure, "lenet5", model="mlp").startswith("model = 'mlp': must be 'lenet5'")
    assert configure("task1", model="lenet5").model == "lenet5"


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(
    experiment=st.sampled_from(EXPERIMENTS) | VALUES,
    preset=st.sampled_from(["quick", "report", "smoke"]) | VALUES,
    overrides=st.dictionaries(NAMES, VALUES, max_size=3),
)
def test_whatever_is_asked_for_is_a_configuration_or_one_line(experiment, preset, overrides):
    try:
        c = configure(experiment, preset, **overrides)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        assert any(name in str(error) for name in FIELDS) or "unknown setting" in str(error)
        return
    assert isinstance(c, Config)
    for name, value in overrides.items():
        assert getattr(c, name) == (tuple(value) if isinstance(value, list) else value)
    assert c.trained_levels[0] == 0 and set(c.control_levels) <= set(c.trained_levels[1:])
    assert all(0 <= c.density(k) <= 1 for k in c.trained_levels)
    json.dumps(Unit(c, "ticket", 0).identity)  # plain values


# ------------------------------------------------------------------------------------------ frozen, changed, named


def test_settings_and_units_are_frozen():
    c = configure("mlp")
    for thing, name in ((c, "lr"), (Unit(c, "ticket", 0), "replicate")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, 1)
    assert len({c, configure("mlp")}) == 1  # hashable, by value


def test_changes_are_what_differs_from_the_preset():
    for experiment in EXPERIMENTS:
        for preset in presets.PRESETS:
            assert changes(configure(experiment, preset)) == {}
    c = configure("task1", "report", lr=0.01, replicates=7, device="cpu", batch_size=50)
    assert changes(c) == {"lr": 0.01, "replicates": 7}
    assert changes(configure("mlp", "smoke", levels=[0, 1])) == {"levels": (0, 1)}
    assert changes(configure("mlp", "smoke", rounds=1)) == {"rounds": 1, "levels": ()}


# a value that differs from the one in _unit(), for every setting that a level's numbers depend on
OTHER = {
    "experiment": "task3", "model": "lenet5", "activation": "tanh", "pool": "max", "optimizer": "adam", "lr": 0.01,
    "momentum": 0.5, "batch_size": 32, "epochs": 3, "prune_rate": 0.4, "scope": "global", "output_rate": 0,
    "spare": "smallest", "rewind_step": 10, "validation": 0, "seed": 1, "max_steps": 20, "test_images": 100,
    "dataset": "fashion", "conv_rate": 0.1, "dropout": 0.5, "warmup": 10, "frequent_epochs": 3,
    "criterion": "obd", "rewind": "final", "structure": "filters", "retrain_epochs": 3, "retrain_lr": 1e-4,
    "early_bird": 0.1, "weight_decay": 1e-4, "frozen_below": 1e-6, "biases": "normal",
    "batch_order": 1,
}  # fmt: skip
FREE = {
    "preset": "quick", "tolerance": 1.0, "margin": 2.0, "replicates": 7, "controls": 3, "device": "cpu", "rounds": 12,
}  # fmt: skip


def test_every_setting_is_either_identity_or_not():
    free = {f.name for f in dataclasses.fields(Config) if not f.metadata.get("identity", True)}
    assert set(FREE) | {"levels"} == free
    assert set(OTHER) | free == set(FIELDS) and not set(OTHER) & free


def test_every_setting_is_in_one_group_and_described_there():
    """By a docstring under it."""
    tree, described = ast.parse(Path(config.__file__).read_text()), []
    for group in GROUPS:
        body = next(node for node in tree.body if getattr(node, "name", "") == group.__name__).body[1:]
        for setting, said in zip(body[::2], body[1::2], strict=True):
            assert isinstance(setting, ast.AnnAssign) and isinstance(said.value, ast.Constant), setting.target.id
            assert said.value.value.endswith("."), setting.target.id
            described.append(setting.target.id)
    assert described == list(presets.table(configure("mlp"))) and len(set(described)) == len(described)
    assert described[:2] == ["experiment", "preset"] and set(described) == set(FIELDS)
    assert {f.name for f in dataclasses.fields(Config)} == {*described, "smallest", "frozen"}


def _unit(**settings):
    base = replace(configure("task1", "report"), optimizer="sgd")
    return Unit(replace(base, **settings), "t1", 0)


@pytest.mark.parametrize("name", OTHER)
def test_what_matters_changes_the_key(name):
    base = {"model": "lenet5"} if name in ("structure", "pool", "conv_rate") else {}  # the MLP has no convolutions
    assert _unit(**base, **{name: OTHER[name]}).key != _unit(**base).key


def test_another_version_of_the_algorithm_is_another_key(monkeypatch):
    old = _unit().key
    monkeypatch.setattr("lthcore.unit.ALGORITHM", 2)
    assert _unit().key != old


@pytest.mark.parametrize("name", FREE)
def test_what_does_not_matter_keeps_the_key(name):
    assert _unit(**{name: FREE[name]}).key == _unit().key
    assert _unit(**{name: FREE[name]}) != _unit()


def test_levels_enter_the_key_as_a_path():
    keys = {_unit(levels=levels).key for levels in ((), (0, 1), (0, 2), (0, 1, 5))}
    assert len(keys) == 4  # (0, 5) prunes in one shot what (0, 1, 5) prunes in two


def test_replicate_subset_source_start_and_mask_change_the_key():
    c = configure("task1", "report")
    chain, other = Unit(c, "a", 0), Unit(c, "a", 0, "half1")
    units = [
        chain, other, Unit(c, "a", 1), Unit(c, "a", 0, mask=MaskOf(chain), levels=(1,)),
        Unit(c, "a", 0, mask=MaskOf(other)),
        Unit(c, "a", 0, mask=MaskOf(chain), start=Fresh()), Unit(c, "a", 0, mask=RandomLike(chain)),
    ]  # fmt: skip
    assert len({u.key for u in units}) == len(units)
    one, three = (Unit(c, "a", 0, mask=MaskOf(chain), levels=levels) for levels in ((1,), (1, 3, 5)))
    assert one.key == three.key


def test_a_unit_that_makes_no_sense_is_refused_in_one_line():
    c, lenet5 = configure("task1", "report"), configure("task1", "report", model="lenet5")
    chain = Unit(c, "ticket", 0)
    taken = Unit(c, "taken", 0, mask=MaskOf(chain), levels=(1,))
    cases = (
        ({"levels": (0, 3)}, "levels = (0, 3): must be those of its config, since the unit is a chain"),
        ({"start": Fresh()}, "start = Fresh(draw=1): must be Theta0() for a chain, whose config has a rewind rule"),
        (
            {"start": Altered("one_size", "any")},
            "start = Altered(name='one_size', module='any'): must be Theta0() for a chain, whose config has a "
            "rewind rule",
        ),
        ({"mask": MaskOf(taken)}, "mask: must be that of a chain, which 'taken' is not"),
        ({"mask": RandomLike(Unit(lenet5, "ticket", 0))}, "mask: must be one of 'mlp', not of 'lenet5'"),
        (
            {"probes": ("speed",)},
            "probes: 'speed' must be one of 'collapse', 'order', 'dense', 'deletion', 'smaller', 'fit', 'signs', "
            "'clear_signs'",
        ),
    )
    for how, described in cases:
        assert refusal(Unit, c, "x", 0, **how) == described
    assert replace(chain, arm="another").levels == chain.levels == (0, 1, 2, 3, 4, 5)


@pytest.mark.parametrize("experiment", presets.EXPERIMENTS)
def test_a_units_own_name_is_in_the_slug_alone_and_that_of_its_source_in_its_identity(experiment):
    """For every kind of unit: so neither an arm whose masks others use nor its experiment may ever be renamed."""
    from lthcore.studies import experiments

    kinds = set()
    for unit in experiments.Study(configure(experiment, "smoke", replicates=1)).units:
        renamed = replace(unit, arm="another")
        assert unit.key.startswith(f"{unit.config.experiment}-{unit.arm}-r0-")
        assert renamed.identity == unit.identity and renamed.dense == unit.dense
        assert renamed.key == f"{unit.config.experiment}-another-r0-{unit.key.rsplit('-', 1)[1]}"
        assert len(unit.key.rsplit("-", 1)[1]) == 12
        kinds.add(unit.prunes)
        if not unit.prunes:
            other = replace(unit, mask=replace(unit.mask, chain=replace(unit.chain, arm="another")))
            assert other.identity == {**unit.identity, "source": other.chain.key} != unit.identity
            assert unit.identity["source"] == unit.chain.key != other.chain.key
            assert unit.key.rsplit("-", 1)[1] != other.key.rsplit("-", 1)[1]
    alone = ("collapse", "lenet5_relu", "introduction", "overlap", "public_step_lenet5")
    assert kinds >= {True} and (len(kinds) == 2 or experiment in alone)  # chains, and who borrows their masks


@given(a=st.integers(0, 40), b=st.integers(0, 40), presets=st.tuples(*[st.sampled_from(["quick", "report"])] * 2))
def test_more_rounds_go_on_from_fewer(a, b, presets):
    one, two = (
        Unit(configure("task1", preset, rounds=n, epochs=4), "t1", 0) for n, preset in zip((a, b), presets, strict=True)
    )
    assert one.key == two.key
    assert [one.needs(k) and one.needs(k)[1] for k in one.levels] == [None, *range(a)]


def test_who_waits_for_whom():
    c = configure("mlp", "report", levels=[0, 3, 9])
    chain = Unit(c, "ticket", 0)
    control = Unit(c, "random_mask", 0, mask=RandomLike(chain), levels=(3, 9))
    assert [chain.needs(k) for k in (0, 3, 9)] == [None, (chain, 0), (chain, 3)]
    assert [control.needs(k) for k in control.levels] == [(chain, 0), (chain, 3)]


# --------------------------------------------------------------------------------------------- draws and proportions

KEYS = st.lists(st.integers(0, 99) | st.sampled_from(["mlp", "half1", "task1"]), max_size=4)


@given(seed=st.integers(0, 2**31 - 1), purpose=st.sampled_from(["theta0", "order", "subset"]), keys=KEYS)
def test_a_draw_is_a_pure_function_of_its_keys(seed, purpose, keys):
    # the oracle is spelt out: a change of it would silently part new levels from the committed ones
    digest = hashlib.sha256(json.dumps([seed, purpose, *keys]).encode()).hexdigest()
    assert draw_seed(seed, purpose, *keys) == int(digest[:16], 16) // 2
    assert 0 <= draw_seed(seed, purpose, *keys) < 2**63


def test_draws_of_two_purposes_or_keys_differ():
    purposes = ("theta0", "subset", "order", "reinit", "ranking")
    drawn = {
        (seed, purpose, *keys): draw_seed(seed, purpose, *keys)
        for seed in range(3)
        for purpose in purposes
        for keys in [(), (0,), (1,), (0, 1), (1, 0), ("0",), ("mlp", 0), ("mlp", 0, 0), ("mlp", 1), ("mlp", 11)]
    }
    assert len(set(drawn.values())) == len(drawn) == 150


COUNTS = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 10**6), min_size=1, max_size=10)


@given(counts=COUNTS.filter(lambda c: sum(c.values()) > 0), share=st.floats(0, 1, allow_subnormal=False))
def test_apportioned_shares_sum_exactly_and_are_fair(counts, share):
    total = round(share * sum(counts.values()))
    shares = apportion(counts, total)
    assert sum(shares.values()) == total and set(shares) == set(counts)
    for name, n in counts.items():
        assert 0 <= shares[name] <= n
        assert abs(shares[name] - n * total / sum(counts.values())) < 1 + 1e-6
    assert apportion(dict(reversed(counts.items())), total) == shares  # the order of the names says nothing


def test_the_module_needs_nothing_but_the_standard_library():
    code = (
        "import sys; before = set(sys.modules); import lthcore.config; "
        "print(*sorted({m.split('.')[0] for m in set(sys.modules) - before} - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lthcore"]
