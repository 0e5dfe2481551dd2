"""The networks: sizes, names, outputs against a second implementation in NumPy, and initial values."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view
from scipy import stats

from lthcore.config import configure
from lthcore.lottery import starting_values
from lthcore.models import build, initial
from lthcore.schedule import ARCHITECTURES
from lthcore.unit import Unit

IMAGES = torch.from_numpy(np.random.default_rng(0).standard_normal((7, 1, 28, 28)).astype(np.float32))
VARIANTS = [("mlp", "relu", "avg"), ("mlp", "tanh", "avg")]
VARIANTS += [("lenet5", activation, pool) for activation in ("tanh", "relu") for pool in ("avg", "max")]


def filled(model, activation="default", pool="avg", seed=0):
    """A network with drawn weights and, unlike a fresh one, drawn biases."""
    net = build(model, activation, pool)
    random = np.random.default_rng(seed)
    values = initial(model, seed, "theta0", 0)
    values |= {
        name: torch.from_numpy(random.standard_normal(v.shape).astype(np.float32))
        for name, v in values.items()
        if name.endswith("bias")
    }
    net.load_state_dict(values)
    return net, {name: v.double().numpy() for name, v in values.items()}


def numpy_logits(model, activation, pool, values, images):
    """The networks once more, in float64."""
    act = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh}[activation]
    x = images.double().numpy()

    def linear(x, name):
        return x @ values[f"{name}.weight"].T + values[f"{name}.bias"]

    def block(x, name, padding):
        x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        windows = sliding_window_view(x, (5, 5), axis=(2, 3))  # (B, in, H, W, 5, 5)
        x = act(
            np.einsum("bihwkl,oikl->bohw", windows, values[f"{name}.weight"]) + values[f"{name}.bias"][:, None, None]
        )
        corners = np.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)])
        return corners.mean(0) if pool == "avg" else corners.max(0)

    if model == "lenet5":
        x = block(block(x, "conv1", 2), "conv2", 0)
    x = act(linear(x.reshape(len(x), -1), "fc1"))
    return linear(act(linear(x, "fc2")), "head")


@pytest.mark.parametrize(("model", "parameters", "prunable"), [("mlp", 266_610, 266_200), ("lenet5", 61_706, 61_470)])
def test_parameter_counts(model, parameters, prunable):
    net = build(model)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert sum(p.numel() for name, p in net.named_parameters() if name.endswith("weight")) == prunable
    assert list(net.buffers()) == []


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_weights_are_those_that_the_configuration_counts(model):
    weights = {
        name.removesuffix(".weight"): tuple(p.shape)
        for name, p in build(model).named_parameters()
        if name.endswith("weight")
    }
    assert list(weights.items()) == list(ARCHITECTURES[model].weights.items())


@pytest.mark.parametrize(("model", "activation", "pool"), VARIANTS)
def test_logits_agree_with_numpy(model, activation, pool):
    net, values = filled(model, activation, pool)
    expected = numpy_logits(model, activation, pool, values, IMAGES)
    assert np.abs(net(IMAGES).detach().numpy() - expected).max() < 1e-4


@pytest.mark.parametrize(("model", "activation"), [("mlp", "relu"), ("lenet5", "tanh")])
def test_default_activations(model, activation):
    net, values = filled(model)
    expected = numpy_logits(model, activation, "avg", values, IMAGES)
    assert np.abs(net(IMAGES).detach().numpy() - expected).max() < 1e-4


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_logits_are_not_softmaxed(model):
    net, _ = filled(model)
    with torch.no_grad():
        before = net(IMAGES)
        net.head.weight *= 3
        net.head.bias *= 3
        torch.testing.assert_close(net(IMAGES), 3 * before)
    assert before.shape == (7, 10)
    assert (before < 0).any()
    assert not torch.allclose(before.exp().sum(1), torch.ones(7), atol=0.1)  # nor log-softmaxed


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_zero_weights_give_a_loss_of_ln_10(model):
    net = build(model)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    loss = F.cross_entropy(net(IMAGES), torch.arange(7))
    assert loss.item() == pytest.approx(math.log(10), abs=1e-6)


# ---- initial values --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
@pytest.mark.parametrize("draw", [("theta0", 0), ("theta0", 1), ("reinit", 0, 3)])
def test_weights_are_glorot_normal_and_biases_zero(model, draw):
    values = initial(model, 0, *draw)
    assert list(values) == [name for name, _ in build(model).named_parameters()]
    for name, v in values.items():
        assert v.dtype == torch.float32
        if name.endswith("bias"):
            assert not v.any()
            continue
        fan_in, fan_out = torch.nn.init._calculate_fan_in_and_fan_out(v)
        std, n = math.sqrt(2 / (fan_in + fan_out)), v.numel()
        assert abs(v.std().item() / std - 1) < 4 / math.sqrt(2 * n)
        assert abs(v.mean().item()) < 4 * std / math.sqrt(n)
        assert stats.kstest(v.flatten().numpy() / std, "norm").pvalue > 1e-3  # neither uniform nor truncated


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a if name.endswith("weight"))


def theta0(experiment="task1", replicate=0, subset="full", **settings):
    values, step = starting_values(Unit(configure(experiment, **settings), "any", replicate, subset), 0, None)
    assert step == 0
    return values


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.9},
        {"epochs": 7},
        {"lr": 0.5},
        {"batch_size": 100},
        {"experiment": "task2", "subset": "labels0-4"},
        {"experiment": "task3"},
        {"experiment": "mlp"},
        {"subset": "half2"},
        {"preset": "report"},
        {"preset": "smoke"},
        {"scope": "global"},
        {"output_rate": 0},
        {"spare": "smallest"},
        {"prune_rate": 0.2, "rounds": 3},
        {"validation": 0},
        {"activation": "tanh"},
        {"device": "cpu", "replicates": 5},
    ],
    ids=str,
)
def test_theta0_is_the_same_under_every_recipe(settings):
    assert same(theta0(), theta0(**settings))


def test_theta0_differs_between_replicates_seeds_and_models():
    assert not same(theta0(), theta0(replicate=1))
    assert not same(theta0(), theta0(seed=1))
    assert not same(theta0(replicate=1), theta0(seed=1))
    mlp, lenet = (next(iter(theta0(model=model).values())).flatten()[:150] for model in ("mlp", "lenet5"))
    assert abs(torch.stack([mlp, lenet]).corrcoef()[0, 1]) < 0.4  # not one stream of numbers, scaled twice


def test_a_tasks_lenet5_starts_from_the_same_values_as_the_experiment_of_that_name():
    assert same(theta0(model="lenet5"), theta0(experiment="lenet5"))


def test_a_reinitialisation_is_another_draw_at_every_level_and_replicate():
    draws = [initial("mlp", 0, "theta0", 0)]
    draws += [initial("mlp", 0, "reinit", r, level) for r in (0, 1) for level in (1, 2)]
    firsts = {v["head.weight"][0, 0].item() for v in draws}
    assert len(firsts) == len(draws)
    assert same(initial("mlp", 0, "reinit", 1, 2), draws[-1])


def test_initial_values_need_and_move_no_global_seed():
    torch.manual_seed(1)
    np.random.seed(1)
    one = theta0()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(one, theta0())
    torch.manual_seed(1)
    theta0()
    assert torch.equal(torch.get_rng_state(), state)


def test_initial_values_are_fresh_tensors():
    """Whoever changes what he got does not change theta0."""
    one = theta0()
    one["fc1.weight"].zero_()
    one["fc1.bias"].fill_(1)
    assert theta0()["fc1.weight"].any()
    assert not theta0()["fc1.bias"].any()


@given(st.lists(st.integers(1, 9999), min_size=1, max_size=4))
def test_a_name_gives_the_hidden_units_of_a_fully_connected_model(hidden):
    name = "_".join(["mlp", *map(str, hidden)])
    assert name in ARCHITECTURES and name not in list(ARCHITECTURES)
    shapes = ARCHITECTURES[name].weights
    sizes = [784, *hidden, 10]
    assert [*shapes.values()] == [(out, into) for into, out in pairwise(sizes)]
    assert [*shapes] == [*(f"fc{i + 1}" for i in range(len(hidden))), "head"]


def test_the_mlp_itself_by_that_name_has_the_same_shapes():
    assert ARCHITECTURES["mlp_300_100"] == ARCHITECTURES["mlp"]


@pytest.mark.parametrize(
    "name", ["mlp_", "mlp_0", "mlp_010", "mlp_10_", "mlp_10_x", "mlp_99999", "lenet5_10", "x", 3, None]
)
def test_another_name_is_none(name):
    assert name not in ARCHITECTURES
    with pytest.raises(KeyError):
        ARCHITECTURES[name]


def test_a_model_that_is_added_by_such_a_name_comes_first(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "mlp_20", ARCHITECTURES["mlp_30"])
    assert ARCHITECTURES["mlp_20"].weights["fc1"] == (30, 784)
