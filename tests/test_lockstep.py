"""Replicates in lockstep, the code that a GPU runs, on the CPU: each replicate as if it were trained alone."""

import contextlib

import alone
import pytest
import torch
from reference import Dense

from lthcore import lottery, train
from lthcore.config import configure
from lthcore.data import Split
from lthcore.engines import BATCHED
from lthcore.engines.batched import Lockstep
from lthcore.models import initial
from lthcore.schedule import ARCHITECTURES
from lthcore.unit import Unit

RULES = {
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd", "lr": 0.1},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9},
}


def recipe(model="mlp", **settings):
    return configure("task1", model=model, **{"batch_size": 20, "epochs": 2, **settings})


def draw(images, seed):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(images, 1, 28, 28, generator=random), torch.randint(0, 10, (images,), generator=random)


@pytest.fixture(scope="module")
def data():
    """Three replicates: 110 of 150 images each, validation of their own, one test set."""
    pool, test = draw(150, 0), draw(70, 1)
    chosen = [torch.randperm(150, generator=torch.Generator().manual_seed(r))[:110] for r in range(3)]
    return [Split(pool, draw(30, 10 + r), test, places) for r, places in enumerate(chosen)]


def starts(model, replicates=3, density=0.5):
    random = torch.Generator().manual_seed(0)
    shapes = ARCHITECTURES[model].weights
    masks = [{n: torch.rand(s, generator=random) < density for n, s in shapes.items()} for _ in range(replicates)]
    return [initial(model, 0, "theta0", r) for r in range(replicates)], masks


def close(a, b, tolerance=2e-5):
    return (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1e-6)


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_each_replicate_steps_as_if_alone(data, model, rule, density):
    config, (values, masks) = recipe(model, **RULES[rule]), starts(model, density=density)
    together = Lockstep(values, masks, data, config)
    orders = torch.stack([torch.randperm(150, generator=torch.Generator().manual_seed(5 + r))[:50] for r in range(3)])
    losses = together.advance(orders)
    assert losses.shape == (3, 3)  # two batches of 20 and a short one of 10, for three replicates
    images = torch.stack([d.validation[0] for d in data])
    for r in range(3):
        alone = Dense(values[r], masks[r], data[r], config)
        assert close(losses[:, r], alone.advance(orders[r]))
        for name, value in together.values().items():
            layer, kind = name.split(".")
            # Adam's step has the size of lr whatever the gradient, rounding included
            assert close(value[r], alone.values()[name], 3e-3 if rule == "adam" else 2e-5), name
            if kind == "weight":
                assert not value[r][~masks[r][layer]].any()
        assert close(together.logits(images)[r], alone.logits(images[r]), 3e-3 if rule == "adam" else 2e-5)


@contextlib.contextmanager
def in_lockstep():
    """Whatever is trained is trained in lockstep, on a CPU too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "choose_engine", lambda *_: BATCHED)
        yield


@pytest.mark.parametrize("validation", [True, False])
def test_rows_are_those_of_single_runs(data, validation):
    """Plain SGD, so that rounding stays small: losses at every evaluation, early ones, orders, final weights."""
    config, (values, masks) = recipe(epochs=3, **RULES["sgd"]), starts("mlp")
    given = data if validation else [d._replace(validation=None) for d in data]
    keys = {"level": 1, "subset": "half1"}
    with in_lockstep():
        together = alone.train_together(values, masks, given, config, replicates=[0, 1, 2], **keys)
    for r in range(3):
        single = alone.train(values[r], masks[r], given[r], config, replicate=r, **keys)
        assert [row[:4] for row in together[r].rows] == [row[:4] for row in single.rows]
        for a, b in zip(together[r].rows, single.rows, strict=True):
            assert a[4] == pytest.approx(b[4], rel=1e-4, abs=1e-5), a
        assert any(row[3] == "early_loss" for row in single.rows) == validation
        assert all(close(v, single.weights[n], 1e-4) for n, v in together[r].weights.items())
        assert close(together[r].logits, single.logits, 1e-4)
    early = [next((row[0] for row in t.rows if row[3] == "early_loss"), None) for t in together]
    assert not validation or len(set(early)) > 1  # each replicate has its own step of least validation loss


def test_a_replicate_that_diverges_is_named_by_its_step(data):
    config, (values, masks) = recipe(), starts("mlp")
    values[1]["fc1.bias"][0] = float("nan")
    with in_lockstep(), pytest.raises(FloatingPointError, match="level 2, step 0: the validation loss is nan"):
        alone.train_together(values, masks, data, config, level=2, subset="full", replicates=[0, 1, 2])


def test_units_trained_together_prune_as_if_alone(data):
    config = recipe(epochs=1, rounds=2, **RULES["sgd"])
    units = [Unit(config, "ticket", r) for r in range(3)]
    with in_lockstep():
        result = lottery.train_level(units, 0, [lottery.dense_mask("mlp")] * 3, lambda unit: data[unit.replicate])
    result = [lottery.prune_level(*one) for one in zip(units, result, data, strict=True)]
    for r, p in enumerate(result):
        single = alone.train_and_prune(units[r], 0, lottery.dense_mask("mlp"), lambda subset, r=r: data[r])
        assert {n: int(m.sum()) for n, m in p.next_mask.items()} == config.schedule[1]
        for name, m in p.next_mask.items():  # weights that rounding may swap at the threshold: none to speak of
            assert (m != single.next_mask[name]).float().mean() < 1e-3
    assert not torch.equal(result[0].next_mask["fc1"], result[1].next_mask["fc1"])


def test_replicates_must_share_their_images(data):
    other = data[1]._replace(train=draw(150, 0))
    with pytest.raises(ValueError, match="share"):
        Lockstep(*starts("mlp", 2), [data[0], other], recipe())


@pytest.mark.parametrize("rule", RULES)
def test_a_recorded_step_is_used_if_it_equals_the_plain_one(data, rule):
    config, (values, masks) = recipe(**RULES[rule]), starts("mlp")
    recorded = []

    def record(step, batch):
        for _ in range(3):
            step(batch)  # what a real recording does before it records

        def replay(batch):
            recorded.append(batch.shape)
            return step(batch)

        return replay

    plain, engine = Lockstep(values, masks, data, config), Lockstep(values, masks, data, config, record)
    assert recorded == [(3, 20)] * 3  # the self-check
    assert all(torch.equal(v, plain.values()[n]) for n, v in engine.values().items())  # and it left no trace
    order = torch.stack([d.chosen for d in data])
    assert torch.equal(engine.advance(order), plain.advance(order))
    assert len(recorded) == 3 + 5  # five whole batches; the short sixth one is stepped plainly
    assert all(torch.equal(v, plain.values()[n]) for n, v in engine.values().items())


@pytest.mark.parametrize("wrong", ["losses", "values"])
def test_a_recorded_step_that_differs_is_dropped_with_one_line(data, wrong):
    config, (values, masks) = recipe(), starts("mlp")

    def record(step, batch):
        def replay(batch):
            losses = step(batch if wrong == "losses" else batch.flip(1))
            return losses + 1e-6 if wrong == "losses" else losses

        return replay

    plain = Lockstep(values, masks, data, config)
    with pytest.warns(UserWarning, match="plain steps are used"):
        engine = Lockstep(values, masks, data, config, record)
    assert engine.replay is None
    order = torch.stack([d.chosen for d in data])
    assert torch.equal(engine.advance(order), plain.advance(order))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is found here")
def test_on_a_gpu_the_graph_is_used_and_agrees_with_the_cpu(data):
    config, (values, masks) = recipe(**RULES["sgd"]), starts("mlp")
    moved = [d._replace(chosen=d.chosen.cuda()) for d in data]
    pool, test = ([t.cuda() for t in part] for part in (data[0].train, data[0].test))
    moved = [d._replace(train=pool, test=test, validation=[t.cuda() for t in d.validation]) for d in moved]
    engine = Lockstep(values, masks, moved, config)
    assert engine.replay is not None
    order = torch.stack([d.chosen for d in moved])
    assert close(engine.advance(order).cpu(), Lockstep(values, masks, data, config).advance(order.cpu()), 1e-4)
