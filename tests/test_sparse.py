"""The compiled engines against torch: the same losses, gradients, updates and logits under any mask."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import njit
from reference import Dense

from lthcore.config import Config, configure
from lthcore.data import split
from lthcore.engines import sparse, vectors
from lthcore.engines.batched import Lockstep
from lthcore.engines.sparse import Sparse, _tanh32
from lthcore.models import build, initial
from lthcore.schedule import ARCHITECTURES
from lthcore.train import choose_engine

ROOT = Path(__file__).resolve().parents[1]


class Narrow(Sparse):
    """The first layer by its surviving weights, whatever the density."""

    ROW_DENSITY = 1.0


class ByRows(Sparse):
    """The MLP's first layer by whole rows, whatever the density."""

    ROW_DENSITY = -1.0


TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
NETWORKS = [("mlp", "relu", "avg"), ("mlp", "tanh", "avg")]
NETWORKS += [("lenet5", activation, pool) for activation in ("tanh", "relu") for pool in ("avg", "max")]
ENGINES = [(Narrow, *network) for network in NETWORKS] + [(ByRows, *network) for network in NETWORKS[:2]]
MODELS = [(Narrow, "mlp"), (ByRows, "mlp"), (Sparse, "lenet5")]
MASKS = ["dense", 0.5, 0.05, 0.01, "empty row", "no inputs", "no outputs", "empty layer", "nothing"]


def settings(model, activation="default", pool="avg", **others):
    return Config(experiment=model, model=model, activation=activation, pool=pool, **others)


def draw_mask(model, kind, seed=3):
    """Random at the density `kind`, or half dense with a defect."""
    random = np.random.default_rng(seed)
    density = kind if isinstance(kind, float) else 1.0 if kind == "dense" else 0.5
    shapes = ARCHITECTURES[model].weights
    mask = {name: torch.from_numpy(random.random(shape) < density) for name, shape in shapes.items()}
    second = list(mask)[1]
    if kind == "empty row":
        mask[second][3] = False
    elif kind == "no inputs":
        mask["fc1" if model == "mlp" else "conv1"][2] = False
    elif kind == "no outputs":  # a whole unit or map of the first layer that nothing looks at
        mask[second][:, 2] = False
    elif kind == "empty layer":
        mask[second][:] = False
    elif kind == "nothing":
        mask = {name: torch.zeros_like(m) for name, m in mask.items()}
    return mask


def draw_data(dtype=torch.float64, images=50, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(images, 1, 28, 28, generator=generator, dtype=torch.float64)
    x[:, :, :6] = -0.4  # a plain border, as in MNIST: equal activations, ties in max pooling
    return SimpleNamespace(train=(x.to(dtype), torch.randint(0, 10, (images,), generator=generator)))


def draw_values(model, dtype, seed=0):
    values = {name: v.to(dtype) for name, v in initial(model, seed, "theta0", 0).items()}
    generator = torch.Generator().manual_seed(seed)
    for name, v in values.items():
        if name.endswith("bias"):
            v += 0.1 * torch.randn(v.shape, generator=generator, dtype=dtype)
    return values


def reference(values, mask, data, config, order):
    """What torch makes of it in the dtype of the values: losses, values, logits."""
    net = build(config.model, config.activation, config.pool).to(values["head.bias"].dtype)
    net.load_state_dict({n: v * mask[n[:-7]] if n.endswith("weight") else v for n, v in values.items()})
    if config.optimizer == "adam":
        optimizer = torch.optim.Adam(net.parameters(), lr=config.lr)
    else:
        optimizer = torch.optim.SGD(net.parameters(), lr=config.lr, momentum=config.momentum)
    losses, (images, labels) = [], data.train
    for batch in order.split(config.batch_size):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(images[batch]), labels[batch])
        loss.backward()
        for name, m in mask.items():
            net.get_submodule(name).weight.grad.mul_(m)
        optimizer.step()
        losses.append(loss.item())
    with torch.no_grad():
        return (
            torch.tensor(losses, dtype=torch.float64),
            {n: v.clone() for n, v in net.state_dict().items()},
            net(images),
        )


def agree(a, b, tolerance, what=""):
    worst = (a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=1e-30)
    assert worst <= tolerance, f"{what}: {worst:.2e}"


@pytest.mark.slow
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("engine_class", "model", "activation", "pool"), ENGINES)
def test_step(engine_class, model, activation, pool, kind):
    mask = draw_mask(model, kind)
    config = settings(model, activation, pool, optimizer="sgd", lr=1.0, batch_size=50)
    for dtype, tolerance in TOLERANCE.items():
        data, values, order = draw_data(dtype), draw_values(model, dtype), torch.randperm(50)
        losses, after, logits = reference(values, mask, data, config, order)
        engine = engine_class(values, mask, data, config)
        start = engine.values()
        agree(engine.advance(order), losses, tolerance, "loss")
        for name, value in engine.values().items():
            assert value.dtype == dtype and value.shape == values[name].shape
            if name.endswith("weight"):
                assert not np.frombuffer(value[~mask[name[:-7]]].numpy().tobytes(), np.uint8).any()  # +0, bit for bit
            gradient, expected = start[name] - value, start[name] - after[name]
            if dtype == torch.float64 and expected.abs().max() > 1e-6:
                agree(gradient, expected, tolerance, name)
            agree(value, after[name], tolerance, name)
        engine.restore(after)
        agree(engine.logits(data.train[0]), logits, tolerance, "logits")


@pytest.mark.slow
@pytest.mark.parametrize("rule", [{"optimizer": "adam"}, {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9}])
@pytest.mark.parametrize("kind", ["dense", 0.05, "empty layer"])
@pytest.mark.parametrize(("engine_class", "model", "batch"), [(*m, batch) for m in MODELS for batch in (1, 45, 100)])
def test_ten_steps(engine_class, model, batch, kind, rule):
    config, mask = settings(model, batch_size=batch, **rule), draw_mask(model, kind)
    data, values = draw_data(images=120), draw_values(model, torch.float64)
    order = torch.cat([torch.randperm(120) for _ in range(batch // 12 + 1)])[: 9 * batch + (batch + 1) // 2]
    losses, after, logits = reference(values, mask, data, config, order)
    assert len(losses) == 10  # the last batch is short
    engine = engine_class(values, mask, data, config)
    got = torch.cat([engine.advance(order[: 4 * batch]), engine.advance(order[4 * batch :])])
    agree(got, losses, 1e-9, "losses")
    for name, value in engine.values().items():
        agree(value, after[name], 1e-8, name)
    agree(engine.logits(data.train[0]), logits, 1e-8, "logits")


@pytest.mark.parametrize("rule", [{"optimizer": "adam"}, {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9}])
@pytest.mark.parametrize(("engine_class", "model"), MODELS)
def test_against_dense(engine_class, model, rule):
    config, mask = settings(model, **rule), draw_mask(model, 0.2)
    data, values, order = draw_data(torch.float32, 600), draw_values(model, torch.float32), torch.arange(600)
    engines = [kind(values, mask, data, config) for kind in (Dense, engine_class)]
    losses = [engine.advance(order) for engine in engines]
    agree(losses[1], losses[0], 1e-5)
    for name, value in engines[0].values().items():
        # Adam's step has the size of lr whatever the gradient, rounding included
        agree(engines[1].values()[name], value, 1e-3 if config.optimizer == "adam" else 1e-5, name)


@pytest.mark.parametrize(("engine_class", "model"), MODELS)
def test_reproducible(engine_class, model):
    config, mask = settings(model), draw_mask(model, 0.1)
    data, values, order = draw_data(torch.float32, 600), draw_values(model, torch.float32), torch.arange(600)
    runs = []
    for cuts in ([600], [600], [120, 480]):  # however it is divided into calls
        engine = engine_class(values, mask, data, config)
        losses = torch.cat([engine.advance(part) for part in order.split(cuts)])
        runs.append((losses, *engine.values().values(), engine.logits(data.train[0])))
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], run, strict=True))


@pytest.mark.parametrize(("engine_class", "model", "activation", "pool"), ENGINES)
def test_divergence_is_seen(engine_class, model, activation, pool):
    config, mask = settings(model, activation, pool, optimizer="sgd", lr=10.0, momentum=0.9), draw_mask(model, 0.5)
    values = {name: 1e18 * v for name, v in draw_values(model, torch.float32).items()}
    values["head.bias"][0] = float("inf")
    engine = engine_class(values, mask, draw_data(torch.float32), config)
    assert not engine.advance(torch.arange(50)).isfinite().all()
    values = draw_values(model, torch.float32)
    list(values.values())[1][0] = float("nan")  # in the first layer, to be carried to the loss
    engine = engine_class(values, mask, draw_data(torch.float32), config)
    assert (
        engine.advance(torch.arange(50)).isnan().all()
        and engine.logits(draw_data(torch.float32).train[0]).isnan().any()
    )


@pytest.mark.parametrize("engine_class", [Narrow, ByRows])
def test_values_are_copies(engine_class):
    config, values = settings("mlp"), draw_values("mlp", torch.float32)
    given = {name: v.clone() for name, v in values.items()}
    engine = engine_class(values, draw_mask("mlp", 0.5), draw_data(torch.float32), config)
    before = engine.values()
    held = {name: v.clone() for name, v in before.items()}
    engine.advance(torch.arange(50))
    assert all(torch.equal(before[n], held[n]) and torch.equal(values[n], given[n]) for n in values)
    engine.restore(before)
    assert all(torch.equal(v, held[n]) for n, v in engine.values().items())


@pytest.mark.slow
@pytest.mark.parametrize(("model", "density"), [("mlp", "dense"), ("mlp", 0.1), ("lenet5", 0.2)])
def test_an_epoch_on_mnist_is_as_good_as_torch(model, density):
    """One pass over half of the training images, 5 seeds: rounding takes other ways, the accuracy stays."""
    config, accuracies = configure("task1", model=model), []
    for seed in range(5):
        mask, values = draw_mask(model, density, seed), initial(model, seed, "theta0", 0)
        part = split(config, "half1", seed)
        order = part.chosen[torch.randperm(part.trained_on, generator=torch.Generator().manual_seed(seed))]
        pair = []
        for kind in (Dense, Sparse):
            engine = kind(values, mask, part, config)
            engine.advance(order)
            assert not any(engine.values()[f"{name}.weight"][~m].any() for name, m in mask.items())
            pair.append(100 * (engine.logits(part.test[0]).argmax(1) == part.test[1]).double().mean().item())
        accuracies.append(pair)
    plain, ours = np.mean(accuracies, 0)
    assert min(plain, ours) > 80 and abs(plain - ours) < 0.2, accuracies


def test_tanh():
    x = np.concatenate([np.linspace(-20, 20, 200_001), np.logspace(-30, 0, 10_001), [np.inf, -np.inf]]).astype(
        np.float32
    )
    got = np.array([_tanh32(v) for v in x])
    expected = np.tanh(x.astype(np.float64))
    assert np.all(np.abs(got - expected) <= 4e-7 * np.abs(expected)) and np.isnan(_tanh32(np.float32(np.nan)))
    assert (got[-2], got[-1]) == (1, -1)


@pytest.mark.slow
def test_two_processes_that_compile_at_once_get_the_same_and_leave_it_for_the_next(tmp_path):
    code = (
        "import sys, time, torch; sys.path.insert(0, 'tests'); started = time.perf_counter(); import test_sparse as t\n"
        "config, mask, data = t.settings('mlp'), t.draw_mask('mlp', 0.1), t.draw_data(torch.float32)\n"
        "engine = t.Sparse(t.draw_values('mlp', torch.float32), mask, data, config)\n"
        "losses = engine.advance(torch.arange(50)), engine.logits(data.train[0]).sum()\n"
        "print([x.tolist() for x in losses]); print(time.perf_counter() - started, file=sys.stderr)"
    )
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    start = partial(subprocess.Popen, [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True)
    start = partial(start, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    said = [process.communicate() for process in [start(), start()]]
    compiled = list(tmp_path.rglob("*.nbc"))
    assert compiled and not list(tmp_path.rglob("*.tmp*"))
    said.append(start().communicate())
    assert len({out for out, _ in said}) == 1 and said[0][0], said
    assert sorted(tmp_path.rglob("*.nbc")) == sorted(compiled)  # the third found all of it there


def test_choice():
    for model in ("mlp", "lenet5"):
        config = settings(model)
        assert choose_engine(config, torch.device("cpu")).name == Sparse.__name__
        assert choose_engine(config, torch.device("cuda")).name == Lockstep.__name__
    for model, kind, by_rows in (("mlp", "dense", 1), ("mlp", 0.5, 1), ("mlp", 0.1, 0), ("lenet5", "dense", 0)):
        engine = Sparse(draw_values(model, torch.float32), draw_mask(model, kind), draw_data(), settings(model))
        assert bool(engine.width) == bool(by_rows)


@pytest.mark.parametrize("run", [8, 24, 32, 64, 96, 200])
def test_sums_are_the_same_in_vectors_of_any_width(monkeypatch, run):
    """What the processor's vectors hold decides the time alone: `SHAPES` of both kinds, to the last bit."""
    random = np.random.default_rng(run)
    x, weight = (random.standard_normal(size).astype(np.float32) for size in (30 * run, 50))
    offset, out = random.integers(0, 30, 50).astype(np.uint32), []
    for shapes in (((8, 8), (8, 4), (8, 1)), ((16, 8), (16, 4), (16, 1), (8, 1))):
        monkeypatch.setattr(vectors, "SHAPES", shapes)

        @njit(fastmath=set(vectors.FLAGS))
        def combine(z, x, offset, weight, run):
            vectors.combine(z, sparse.U0, x, sparse.U0, offset, weight, sparse.U0, np.uint64(weight.size), run, run)

        out.append(np.ones(run, np.float32))
        combine(out[-1], x, offset, weight, np.uint64(run))
    expected = 1 + weight.astype(np.float64) @ x.reshape(30, run)[offset]
    assert np.array_equal(*out) and np.allclose(out[0], expected, atol=1e-4)


def test_images_that_are_used_again_and_again_are_listed_once(monkeypatch):
    monkeypatch.setattr(sparse, "LISTED", {})
    images = [np.full((2, 784), i, np.float32) for i in range(20)]
    first = sparse.list_pixels(images[0], np.float32(0), np.float32(0))
    for other in images[1:]:
        sparse.list_pixels(other, np.float32(0), np.float32(0))
        assert sparse.list_pixels(images[0], np.float32(0), np.float32(0)) is first
    assert len(sparse.LISTED) == 8
    again = sparse.list_pixels(images[1], np.float32(0), np.float32(0))  # which had to go
    assert again.value.tolist() == [1.0] * 2 * 784 and again.starts.tolist() == [0, 784, 2 * 784]
