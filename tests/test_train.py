"""Training: every update against NumPy, masks exact at every step, honest evaluation, paired batches."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import train
from reference import Dense

from lthcore import train as loop
from lthcore.config import configure
from lthcore.data import Split
from lthcore.engines.sparse import Sparse
from lthcore.models import build, initial
from lthcore.pruning import dense_mask
from lthcore.schedule import ARCHITECTURES
from lthcore.train import evaluation_steps, steps_per_epoch, total_steps

TRAIN, VALIDATION, TEST = 130, 40, 1_100  # seven batches of 20, the last of 10; three chunks of test images
KEYS = {"level": 0, "replicate": 0, "subset": "full"}


def draw(images, random):
    x = random.standard_normal((images, 1, 28, 28)).astype(np.float32)
    return torch.from_numpy(x), torch.from_numpy(random.integers(0, 10, images))


@pytest.fixture(scope="module")
def data():
    """Noise with random labels: what is learned of it is soon learned by heart."""
    random = np.random.default_rng(0)
    return Split(draw(TRAIN, random), draw(VALIDATION, random), draw(TEST, random))


def recipe(model="mlp", **settings):
    settings = {"batch_size": 20, "epochs": 2, **settings}
    return configure("task1", model=model, **settings)


RECIPES = {
    "adam": {"optimizer": "adam"},
    "sgd": {"optimizer": "sgd", "lr": 0.01},
    "momentum": {"optimizer": "sgd", "lr": 0.01, "momentum": 0.9},
}


def theta0(model="mlp", biases=True):
    """Initial values; biases drawn as well, so that a forgotten one is seen."""
    values = initial(model, 0, "theta0", 0)
    generator = torch.Generator().manual_seed(0)
    for name, v in values.items():
        if biases and name.endswith("bias"):
            v += 0.1 * torch.randn(v.shape, generator=generator)
    return values


def sparse(model, density, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ARCHITECTURES[model].weights
    return {name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()}


def start(values, mask):
    return {n: v * mask[n.split(".")[0]] if n.endswith("weight") else v.clone() for n, v in values.items()}


def value(rows, split, metric, step):
    (found,) = [row[4] for row in rows if (row[0], row[2], row[3]) == (step, split, metric)]
    return found


def steps_of(rows, split, metric="loss"):
    return [row[0] for row in rows if row[2:4] == (split, metric)]


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture
def batches(monkeypatch):
    """Indices of the training images in the order in which engines are given them."""
    given, build = [], loop.build_engine

    def recording(*settings):
        engine = build(*settings)
        advance = engine.advance

        def record(order):
            (alone,) = order.tolist()
            given.extend(alone)
            return advance(order)

        engine.advance = record
        return engine

    monkeypatch.setattr(loop, "build_engine", recording)
    return given


# ---- one step against NumPy ------------------------------------------------------------------------------------------


def numpy_gradients(values, images, labels):
    """Loss and gradients of the MLP in float64, written out by hand."""
    w = {name: v.astype(np.float64) for name, v in values.items()}
    x = images.reshape(len(images), -1).astype(np.float64)
    h1 = np.maximum(x @ w["fc1.weight"].T + w["fc1.bias"], 0)
    h2 = np.maximum(h1 @ w["fc2.weight"].T + w["fc2.bias"], 0)
    z = h2 @ w["head.weight"].T + w["head.bias"]
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(labels)), labels]).mean()
    p[np.arange(len(labels)), labels] -= 1
    d3 = p / len(labels)
    d2 = (d3 @ w["head.weight"]) * (h2 > 0)
    d1 = (d2 @ w["fc2.weight"]) * (h1 > 0)
    gradients = {}
    for name, d, below in (("fc1", d1, x), ("fc2", d2, h1), ("head", d3, h2)):
        gradients[f"{name}.weight"], gradients[f"{name}.bias"] = d.T @ below, d.sum(0)
    return loss, gradients


def numpy_training(values, mask, data, steps, kind, lr, momentum):
    """`steps` steps on all images at once: final values, the losses before each, and the smallest gradients met."""
    images, labels = (part.numpy() for part in data.train)
    w = {name: v.double().numpy() for name, v in start(values, mask).items()}
    kept = {f"{name}.weight": m.numpy() for name, m in mask.items()}
    m1, m2 = ({name: np.zeros_like(v) for name, v in w.items()} for _ in range(2))
    least = {name: np.full(v.shape, np.inf) for name, v in w.items()}
    losses = []
    for t in range(1, steps + 1):
        loss, gradients = numpy_gradients(w, images, labels)
        losses.append(loss)
        for name, g in gradients.items():
            g = g * kept.get(name, 1)
            least[name] = np.minimum(least[name], np.abs(g))
            if kind == "adam":  # Kingma & Ba 2015, algorithm 1
                m1[name] = 0.9 * m1[name] + 0.1 * g
                m2[name] = 0.999 * m2[name] + 0.001 * g * g
                w[name] = w[name] - lr * (m1[name] / (1 - 0.9**t)) / (np.sqrt(m2[name] / (1 - 0.999**t)) + 1e-8)
            else:
                m1[name] = momentum * m1[name] + g
                w[name] = w[name] - lr * m1[name]
    return w, losses, least


@pytest.mark.parametrize("density", [1.0, 0.9, 0.5, 0.1])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("kind", RECIPES)
def test_steps_agree_with_numpy(data, kind, steps, density):
    config = recipe(batch_size=TRAIN, epochs=steps, **RECIPES[kind])  # a batch of everything: its order does not matter
    values, mask = theta0(), sparse("mlp", density)
    trained = train(values, mask, data, config, **KEYS)
    expected, losses, least = numpy_training(values, mask, data, steps, config.optimizer, config.lr, config.momentum)
    before = start(values, mask)
    for name, v in trained.weights.items():
        moved = (v - before[name]).double().numpy()
        should = expected[name] - before[name].double().numpy()
        if kind != "adam":
            scale = np.abs(should).max()
            assert scale > 0
            assert np.abs(moved - should).max() < 2e-4 * scale + 1e-7
            continue
        clear = least[name] > 1e-5  # Adam divides by the gradient's size: a tiny one keeps no digits of float32
        assert clear.mean() > 0.6 * (density if name.endswith("weight") else 1) * (0.3 if steps > 1 else 0.5)
        assert np.abs(moved - should)[clear].max() < 0.01 * config.lr
        assert np.abs(moved).max() <= 1.01 * steps * config.lr
    # the loss that is reported at step 0 is the one before any step
    again = train(values, mask, data._replace(test=data.train), config, **KEYS)
    assert value(again.rows, "test", "loss", 0) == pytest.approx(losses[0], rel=1e-5)


def test_training_learns_its_images(data):
    config = recipe(epochs=15)
    trained = train(theta0(), dense_mask("mlp"), data._replace(test=data.train), config, **KEYS)
    assert value(trained.rows, "test", "accuracy", 0) < 30
    assert value(trained.rows, "test", "accuracy", 105) == 100


# ---- masks -----------------------------------------------------------------------------------------------------------

DENSITIES = [0.7, 0.2, 0.02, "empty layer"]


def some_mask(model, density):
    if density != "empty layer":
        return sparse(model, density)
    mask = sparse(model, 0.3)
    mask["fc2"][:] = False
    return mask


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_what_is_pruned_is_exactly_zero_after_every_step(data, model, kind, density):
    config, mask = recipe(model, **RECIPES[kind]), some_mask(model, density)
    values = theta0(model)
    assert loop.choose_engine(config, torch.device("cpu")).name == Sparse.__name__
    for engine_class in (Sparse, Dense):
        engine = engine_class(values, mask, data, config)
        assert all(torch.equal(v, start(values, mask)[name]) for name, v in engine.values().items())
        for step in range(5):
            engine.advance(torch.arange(20 * step, 20 * step + 20))
            now = engine.values()
            assert not any(now[f"{name}.weight"][~m].any() for name, m in mask.items()), step
        if density != "empty layer":  # the survivors do move
            name = "head.weight"
            assert (now[name] != values[name])[mask["head"]].float().mean() > 0.2
        assert not torch.equal(now["head.bias"], values["head.bias"])


@pytest.mark.parametrize("density", [0.9, 0.3])
@pytest.mark.parametrize("kind", RECIPES)
def test_a_pruned_weight_that_had_moved_is_not_revived(data, kind, density):
    """Rewinding mid-way: dense training gathers moments; then the same values are trained under a mask."""
    config, mask = recipe(**RECIPES[kind]), sparse("mlp", density)
    dense = train(theta0(), dense_mask("mlp"), data, config, last=6, **KEYS)
    trained = train(dense.weights, mask, data, config, first=6, level=1, replicate=0, subset="full")
    assert not any(trained.weights[f"{name}.weight"][~m].any() for name, m in mask.items())


@pytest.mark.parametrize("kind", RECIPES)
def test_neither_starting_values_nor_mask_nor_data_are_changed(data, kind):
    """A bias that shares its memory with theta0 is a bias that is never reset."""
    values, mask = theta0(), sparse("mlp", 0.5)
    copies = [{name: v.clone() for name, v in d.items()} for d in (values, mask)]
    images = data.train[0].clone()
    trained = train(values, mask, data, recipe(**RECIPES[kind]), **KEYS)
    assert same(values, copies[0])
    assert same(mask, copies[1])
    assert torch.equal(data.train[0], images)
    assert not {v.data_ptr() for v in values.values()} & {v.data_ptr() for v in trained.weights.values()}


# ---- when it is evaluated --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("images", "batch", "epochs"), [(55_000, 60, 75), (27_500, 50, 50), (1_000, 60, 20)])
def test_evaluation_steps_of_a_whole_training(images, batch, epochs):
    config = recipe(batch_size=batch, epochs=epochs)
    epoch = -(-images // batch)
    validation, test, step = [], [], 0
    for e in range(epochs):  # as the protocol says it, step by step
        for _ in range(epoch):
            if e < 15 and step % 100 == 0:
                validation.append(step)
            if step in (0, 10, 30, 100, 300):
                test.append(step)
            step += 1
        if e >= 15:
            validation.append(step)
        if step not in (30, 100, 300):
            test.append(step)
    assert steps_per_epoch(config, images) == epoch
    assert total_steps(config, images) == step
    found = evaluation_steps(config, images)
    assert sorted(found[1]) == test
    edge = 15 * epoch  # the last step of the 15th epoch still counts to the first 15
    assert sorted(found[0] - {edge}) == sorted(set(validation) - {edge})
    assert (edge in found[0]) == (edge % 100 == 0)


@pytest.mark.parametrize(("epochs", "max_steps"), [(1, 0), (1, 30), (3, 77), (16, 0)])
def test_both_are_evaluated_at_the_last_step(epochs, max_steps):
    config = recipe(epochs=epochs, max_steps=max_steps)
    last = min(epochs * 50, max_steps or math.inf)
    assert total_steps(config, 1_000) == last
    assert all(max(steps) == last for steps in evaluation_steps(config, 1_000))


def test_rows_stand_at_the_evaluation_steps(data):
    config = recipe(epochs=17)  # 119 steps; 15 epochs end at 105
    rows = train(theta0(), dense_mask("mlp"), data, config, **KEYS).rows
    assert steps_of(rows, "validation") == [0, 100, 112, 119]
    assert steps_of(rows, "test") == sorted({0, 10, 30, 100, *range(7, 120, 7)})
    assert all(epoch == step / 7 for step, epoch, *_ in rows)
    for split in ("validation", "test"):
        assert steps_of(rows, split) == steps_of(rows, split, "accuracy")


def test_without_validation_there_is_no_early_stop(data):
    rows = train(theta0(), dense_mask("mlp"), data._replace(validation=None), recipe(), **KEYS).rows
    assert {row[2:4] for row in rows} == {("test", "loss"), ("test", "accuracy")}


# ---- what is evaluated -----------------------------------------------------------------------------------------------


def evaluated(weights, part, model="mlp"):
    """Loss and accuracy, all images at once."""
    net = build(model)
    net.load_state_dict(weights)
    with torch.no_grad():
        logits = net(part[0])
    right = sum(int(row.argmax()) == int(label) for row, label in zip(logits, part[1], strict=True))
    return F.cross_entropy(logits.double(), part[1]).item(), 100 * right / len(part[1])


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_accuracy_is_over_all_images_at_the_last_step(data, model, density):
    config, mask = recipe(model, epochs=3), sparse(model, density)
    known = torch.cat([data.train[0]] * 8)[:1_000], torch.cat([data.train[1]] * 8)[:1_000]
    odd = draw(100, np.random.default_rng(5))  # the last, partial chunk is unlike the others
    data = data._replace(test=(torch.cat([known[0], odd[0]]), torch.cat([known[1], odd[1]])))
    trained = train(theta0(model), mask, data, config, **KEYS)
    loss, accuracy = evaluated(trained.weights, data.test, model)
    assert value(trained.rows, "test", "accuracy", 21) == pytest.approx(accuracy, abs=1e-9)
    assert value(trained.rows, "test", "loss", 21) == pytest.approx(loss, rel=1e-5)
    assert abs(accuracy - evaluated(trained.weights, known, model)[1]) > 0.1  # so the last 100 count here
    assert trained.logits.shape == (TEST, 10)
    assert 100 * (trained.logits.argmax(1) == data.test[1]).double().mean().item() == pytest.approx(accuracy)
    valid = evaluated(trained.weights, data.validation, model)
    assert value(trained.rows, "validation", "loss", 21) == pytest.approx(valid[0], rel=1e-5)
    assert value(trained.rows, "validation", "accuracy", 21) == pytest.approx(valid[1])


def test_the_last_accuracy_is_reported_not_the_best(data):
    """Tested on training images under wrong names: the better it learns, the worse it does."""
    config = recipe(epochs=10)
    wrong = data.train[0], (data.train[1] + 1) % 10
    trained = train(theta0(), dense_mask("mlp"), data._replace(test=wrong), config, **KEYS)
    accuracies = [row[4] for row in trained.rows if row[2:4] == ("test", "accuracy")]
    assert max(accuracies) > 0
    assert accuracies[-1] == evaluated(trained.weights, wrong)[1] == 0


@pytest.mark.parametrize(
    ("density", "wrong", "when"), [(1.0, 0, "last"), (1.0, 10, "between"), (1.0, 40, "first"), (0.1, 40, "between")]
)
def test_early_rows_are_those_of_the_least_validation_loss(data, monkeypatch, density, wrong, when):
    """Validation on training images of which some are labelled wrongly: learned first, then overlearned."""
    stops = {*range(0, 36, 3), 35}
    monkeypatch.setattr(loop, "evaluation_steps", lambda config, images: (stops, {0, 35}))
    config, mask, labels = recipe(epochs=5), sparse("mlp", density), data.train[1][:40].clone()
    labels[:wrong] = (labels[:wrong] + 1) % 10
    data = data._replace(validation=(data.train[0][:40], labels))
    trained = train(theta0(), mask, data, config, **KEYS)
    losses = {step: value(trained.rows, "validation", "loss", step) for step in sorted(stops)}
    best = min(losses, key=losses.get)
    assert when == {0: "first", 35: "last"}.get(best, "between")
    early = {row[3]: row for row in trained.rows if row[3].startswith("early_")}
    assert set(early) == {"early_loss", "early_accuracy"}
    assert {row[:3] for row in early.values()} == {(best, best / 7, "test")}
    weights = train(theta0(), mask, data, config, last=best, **KEYS).weights if best else start(theta0(), mask)
    loss, accuracy = evaluated(weights, data.test)
    assert early["early_loss"][4] == pytest.approx(loss, rel=1e-5)
    assert early["early_accuracy"][4] == pytest.approx(accuracy)
    final = evaluated(trained.weights, data.test)  # looking back has not changed what is handed on
    assert value(trained.rows, "test", "loss", 35) == pytest.approx(final[0], rel=1e-5)
    assert F.cross_entropy(trained.logits, data.test[1]).item() == pytest.approx(final[0], rel=1e-5)


# ---- a loss that is not a number -------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize(("first", "step"), [(0, 0), (0, 4), (0, 6), (5, 8), (9, 9), (9, 13)])
def test_a_training_loss_that_is_not_finite_names_level_and_step(data, batches, bad, density, first, step):
    config, mask, keys = recipe(), sparse("mlp", density), {**KEYS, "level": 3}
    train(theta0(), mask, data, config, **keys)
    begins = [20 * k if k < 7 else TRAIN + 20 * (k - 7) for k in range(15)]  # places of the batches in the order
    before = set(batches[begins[first] : begins[step]])
    victim = next(i for i in batches[begins[step] : begins[step] + 10] if i not in before)
    images = data.train[0].clone()
    images[victim] = bad
    with pytest.raises(FloatingPointError) as caught:
        train(theta0(), mask, data._replace(train=(images, data.train[1])), config, first=first, **keys)
    assert str(caught.value) == f"level 3, step {step}: the training loss is nan"


@pytest.mark.parametrize("part", ["validation", "test"])
def test_an_evaluation_that_is_not_finite_names_level_and_step(data, part):
    images, labels = (t.clone() for t in getattr(data, part))
    images[-1] = float("nan")
    with pytest.raises(FloatingPointError, match=f"level 0, step 0: the {part} loss is nan"):
        train(theta0(), dense_mask("mlp"), data._replace(**{part: (images, labels)}), recipe(), **KEYS)


def test_a_learning_rate_that_explodes_is_not_passed_over(data):
    with pytest.raises(FloatingPointError, match=r"level 0, step \d+"):
        train(theta0(), dense_mask("mlp"), data, recipe(optimizer="sgd", lr=10, momentum=0.99, epochs=20), **KEYS)


# ---- the order of the batches ----------------------------------------------------------------------------------------


def test_every_epoch_trains_on_every_image_once_the_short_batch_included(data, batches):
    trained = train(theta0(), dense_mask("mlp"), data, recipe(epochs=3), **KEYS)
    epochs = [batches[i : i + TRAIN] for i in range(0, len(batches), TRAIN)]
    assert len(epochs) == 3
    assert all(sorted(epoch) == list(range(TRAIN)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert max(row[0] for row in trained.rows) == 21  # 7 steps an epoch, not 6


def test_the_short_batch_changes_the_weights(data, batches):
    """Its ten images count a tenth each: NumPy does the same last step."""
    config = recipe(epochs=1, optimizer="sgd", lr=0.1)
    before = train(theta0(), dense_mask("mlp"), data, config, last=6, **KEYS).weights
    batches.clear()
    after = train(theta0(), dense_mask("mlp"), data, config, **KEYS).weights
    short = batches[120:]
    assert len(short) == 10
    images, labels = (part[short].numpy() for part in data.train)
    _, gradients = numpy_gradients({name: v.numpy() for name, v in before.items()}, images, labels)
    for name, g in gradients.items():
        moved = (after[name] - before[name]).double().numpy()
        assert np.abs(moved + 0.1 * g).max() < 1e-3 * np.abs(0.1 * g).max()


def order_of(data, batches, mask=None, values=None, config=None, **keys):
    batches.clear()
    train(values or theta0(), mask or dense_mask("mlp"), data, config or recipe(), **{**KEYS, **keys})
    return list(batches)


def test_arms_at_a_level_see_the_same_batches(data, batches):
    one = order_of(data, batches)
    torch.manual_seed(1)
    np.random.seed(1)
    others = {
        "mask": {"mask": sparse("mlp", 0.5)},
        "sparser": {"mask": sparse("mlp", 0.05)},
        "values": {"values": initial("mlp", 0, "reinit", 0, 1)},
        "optimizer": {"config": recipe(**RECIPES["momentum"])},
        "experiment": {"config": configure("task3", batch_size=20, epochs=2)},
        "scope": {"config": recipe(scope="global")},
    }
    for name, other in others.items():
        assert order_of(data, batches, **other) == one, name
    longer = order_of(data, batches, config=recipe(epochs=3))
    assert longer[: len(one)] == one


def test_levels_epochs_replicates_subsets_and_seeds_have_orders_of_their_own(data, batches):
    one = order_of(data, batches)
    orders = [one[:TRAIN], one[TRAIN:]]
    for other in ({"level": 1}, {"replicate": 1}, {"subset": "half1"}, {"config": recipe(seed=1)}):
        order = order_of(data, batches, **other)
        orders += [order[:TRAIN], order[TRAIN:]]
    assert len({tuple(order) for order in orders}) == 10
    # nor is one a shifted copy of another
    assert max(sum(a == b for a, b in zip(x, y, strict=True)) for x in orders for y in orders if x is not y) < 15


# ---- from a step, to a step ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 6, 7, 8, 13])
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_plain_sgd_split_at_a_step_equals_the_unsplit_run(data, batches, k, density):
    config, mask = recipe(**RECIPES["sgd"]), sparse("mlp", density)
    whole = train(theta0(), mask, data, config, **KEYS)
    order = list(batches)
    batches.clear()
    first = train(theta0(), mask, data, config, last=k, **KEYS)
    second = train(first.weights, mask, data, config, first=k, **KEYS)
    assert batches == order
    assert same(second.weights, whole.weights)
    assert torch.equal(second.logits, whole.logits)
    final = [row for row in whole.rows if row[0] >= k and not row[3].startswith("early_")]
    assert [row for row in second.rows if not row[3].startswith("early_")] == final


@pytest.mark.parametrize("kind", RECIPES)
def test_late_rewinding_continues_with_the_batches_of_its_step(data, batches, kind):
    config = recipe(**RECIPES[kind])
    order = order_of(data, batches, config=config)
    batches.clear()
    rows = train(theta0(), sparse("mlp", 0.3), data, config, first=9, **KEYS).rows
    assert batches == order[TRAIN + 2 * 20 :]
    assert min(row[0] for row in rows) >= 9
    assert max(row[0] for row in rows) == 14


def test_training_to_a_step_does_not_depend_on_what_comes_after(data):
    one = train(theta0(), dense_mask("mlp"), data, recipe(epochs=2), last=5, **KEYS)
    other = train(theta0(), dense_mask("mlp"), data, recipe(epochs=9), last=5, **KEYS)
    assert same(one.weights, other.weights)


# ---- the same again --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_a_training_repeated_is_the_same_bit_for_bit(data, model, density):
    config, mask = recipe(model, epochs=1), sparse(model, density)
    torch.manual_seed(1)
    one = train(theta0(model), mask, data, config, **KEYS)
    torch.manual_seed(2)
    np.random.seed(2)
    two = train(theta0(model), mask, data, config, **KEYS)
    assert same(one.weights, two.weights)
    assert one.rows == two.rows
    assert torch.equal(one.logits, two.logits)


def test_max_steps_cuts_a_level_short(data):
    config = recipe(epochs=3)
    cut = train(theta0(), dense_mask("mlp"), data, dataclasses.replace(config, max_steps=10), **KEYS)
    whole = train(theta0(), dense_mask("mlp"), data, config, last=10, **KEYS)
    assert same(cut.weights, whole.weights)
    assert max(row[0] for row in cut.rows) == 10
