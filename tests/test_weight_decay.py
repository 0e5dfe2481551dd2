"""Weight decay and AdamW: torch's own optimizers in an eager loop with masked gradients, against both engines."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lthcore import lottery
from lthcore.config import Config, configure
from lthcore.engines.batched import Lockstep
from lthcore.engines.sparse import Sparse
from lthcore.models import build, initial
from lthcore.runs import estimate, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments
from lthcore.unit import Unit

RULES = {
    "adam": {"optimizer": "adam", "weight_decay": 1e-2},
    "sgd": {"optimizer": "sgd", "lr": 0.1, "weight_decay": 1e-2},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3},
    "adamw without": {"optimizer": "adamw"},
}
FROZEN = {  # weights below a limit have no gradient, whatever decays
    "frozen adam": {"optimizer": "adam", "weight_decay": 1e-4, "frozen_below": 1e-6},
    "frozen momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-4, "frozen_below": 1e-6},
    "frozen without decay": {"optimizer": "adam", "frozen_below": 0.02},
}
MASKS = ("dense", 0.5, 0.2, 0.02, "no outputs", "empty layer", "nothing")
IMAGES = 90


class Narrow(Sparse):
    """The MLP's first layer by its surviving weights, whatever the density."""

    ROW_DENSITY = 1.0


class ByRows(Sparse):
    """The MLP's first layer by whole rows, whatever the density."""

    ROW_DENSITY = -1.0


ENGINES = [(Narrow, "mlp"), (ByRows, "mlp"), (Sparse, "lenet5"), (Lockstep, "mlp"), (Lockstep, "lenet5")]


def draw_mask(model, kind, seed=0):
    """Random of that density, or half dense with a defect that leaves kept weights without a path to a logit."""
    random = np.random.default_rng(seed)
    density = kind if isinstance(kind, float) else 1.0 if kind == "dense" else 0.5
    shapes = ARCHITECTURES[model].weights
    mask = {name: torch.from_numpy(random.random(shape) < density) for name, shape in shapes.items()}
    if kind == "no outputs":
        list(mask.values())[-1][:, ::2] = False
    if kind == "empty layer":
        list(mask.values())[-2][:] = False
    if kind == "nothing":
        mask = {name: torch.zeros_like(m) for name, m in mask.items()}
    return mask


def draw(model, dtype, seed=0):
    """Images, labels, and values whose biases are not 0 either."""
    random = torch.Generator().manual_seed(seed)
    images = torch.rand(IMAGES, 1, 28, 28, generator=random).round(decimals=1).to(dtype)
    values = {name: v.to(dtype) for name, v in initial(model, seed, "theta0", 0).items()}
    for name, v in values.items():
        if name.endswith("bias"):
            v += 0.1 * torch.randn(v.shape, generator=random).to(dtype)
    labels = torch.randint(0, 10, (IMAGES,), generator=random)
    return SimpleNamespace(train=(images, labels)), values


def by_torch(values, mask, data, config, order):
    """What torch makes of it: the losses, the values."""
    net = build(config.model).to(values["head.bias"].dtype)
    net.load_state_dict({n: v * mask[n[:-7]] if n.endswith("weight") else v for n, v in values.items()})
    rule = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[config.optimizer]
    options = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    rule = rule(net.parameters(), lr=config.lr, weight_decay=config.weight_decay, foreach=False, **options)
    losses = []
    for step, batch in enumerate(order.split(config.batch_size), 1):
        for group in rule.param_groups:
            group["lr"] = config.lr * min(1, step / config.warmup) if config.warmup else config.lr
        loss = F.cross_entropy(net(data.train[0][batch]), data.train[1][batch])
        rule.zero_grad()
        loss.backward()
        for name, m in mask.items():
            weight = net.get_submodule(name).weight
            weight.grad.mul_(m)
            if config.frozen_below:
                weight.grad[weight < config.frozen_below] = 0
        rule.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64), {n: v.clone() for n, v in net.state_dict().items()}


def by_engine(engine, values, mask, data, config, order):
    if engine is Lockstep:
        made = Lockstep([values], [mask], [data], config)
        return made.advance(order[None])[:, 0].double(), {name: v[0] for name, v in made.values().items()}
    made = engine(values, mask, data, config)
    return made.advance(order), made.values()


def agree(engine, model, kind, dtype=torch.float64, tolerance=1e-9, seed=0, steps=12, **rule):
    config = Config(experiment=model, model=model, **{"batch_size": 20, **rule})
    mask, (data, values) = draw_mask(model, kind, seed), draw(model, dtype, seed)
    random = torch.Generator().manual_seed(seed)
    order = torch.cat([torch.randperm(IMAGES, generator=random) for _ in range(steps)])
    order = order[: steps * config.batch_size - config.batch_size // 2]  # the last batch is short
    (losses, after), (wanted, expected) = (
        by_engine(engine, values, mask, data, config, order),
        by_torch(values, mask, data, config, order),
    )
    assert len(losses) == steps
    torch.testing.assert_close(losses, wanted, rtol=tolerance, atol=tolerance)
    for name, value in after.items():
        torch.testing.assert_close(value, expected[name], rtol=tolerance, atol=tolerance, msg=name)
        if name.endswith("weight"):
            assert not value[~mask[name[:-7]]].any()  # pruned and never revived
    return values, after


@pytest.mark.slow
@pytest.mark.parametrize("rule", [*RULES, *FROZEN])
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize(("engine", "model"), ENGINES)
def test_every_engine_decays_as_torch_does(engine, model, kind, rule):
    agree(engine, model, kind, **(RULES | FROZEN)[rule])


@pytest.mark.parametrize(("engine", "model"), [(Narrow, "mlp"), (ByRows, "mlp"), (Sparse, "lenet5"), (Lockstep, "mlp")])
def test_frozen_weights_go_nowhere_without_decay_and_to_zero_with_it(engine, model):
    frozen = {"optimizer": "adam", "frozen_below": 1e-6}
    before, after = agree(engine, model, 0.5, **frozen)
    for name in [name for name in before if name.endswith("weight")]:
        negative = (after[name] != 0) & (before[name] < 0)
        assert negative.any() and torch.equal(after[name][negative], before[name][negative])
    before, after = agree(engine, model, 0.5, weight_decay=1e-4, **frozen)
    far = (before["fc1.weight"] < -0.02) & (after["fc1.weight"] != 0)  # further than Adam goes in these 12 steps
    assert far.any() and (after["fc1.weight"][far] > before["fc1.weight"][far] + 0.01).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("engine", "model"), ENGINES)
def test_in_single_precision_too(engine, model, rule):
    # Adam's step has the size of lr whatever the gradient, rounding included
    agree(engine, model, 0.2, torch.float32, 1e-4 if "sgd" in RULES[rule].values() else 5e-3, steps=5, **RULES[rule])


@settings(max_examples=30, deadline=None)
@given(
    engine=st.sampled_from(ENGINES),
    rule=st.one_of(
        st.fixed_dictionaries({"optimizer": st.sampled_from(["adam", "adamw"]), "lr": st.floats(1e-4, 0.05)}),
        st.fixed_dictionaries(
            {"optimizer": st.just("sgd"), "lr": st.floats(1e-4, 0.1), "momentum": st.floats(0, 0.95)}
        ),
    ),
    weight_decay=st.sampled_from([0, 1, 1e-6]) | st.floats(0, 1, allow_subnormal=False),
    kind=st.sampled_from(MASKS),
    batch_size=st.integers(1, IMAGES),
    warmup=st.sampled_from([0, 4]),
    seed=st.integers(0, 5),
)
@example(ENGINES[0], {"optimizer": "sgd", "lr": 0.1, "momentum": 0}, 1, 0.02, 20, 4, 0)  # whole numbers, as people type
def test_whatever_the_rate_the_decay_and_the_batch(engine, rule, weight_decay, kind, batch_size, warmup, seed):
    keys = {"weight_decay": weight_decay, "batch_size": batch_size, "warmup": warmup, "seed": seed}
    agree(*engine, kind, tolerance=1e-5, steps=6, **keys, **rule)  # a high rate magnifies what rounding leaves


@pytest.mark.parametrize(("engine", "model"), [(Narrow, "mlp"), (Sparse, "lenet5"), (Lockstep, "mlp")])
def test_kept_weights_without_a_path_to_a_logit_decay(engine, model):
    """Their gradients are 0: without decay nothing happens to them, and magnitude would rank them too high."""
    before, after = agree(engine, model, "no outputs", **RULES["adamw"])
    idle = after["fc2.weight"][::2]  # of the units that no output reads
    kept = idle != 0
    assert kept.any() and (idle[kept].abs() < before["fc2.weight"][::2][kept].abs()).all()


def test_decay_changes_what_is_trained_and_what_is_pruned():
    random = torch.Generator().manual_seed(0)
    split = SimpleNamespace(
        train=(torch.rand(200, 1, 28, 28, generator=random), torch.randint(0, 10, (200,), generator=random)),
        validation=None,
        test=(torch.rand(50, 1, 28, 28, generator=random), torch.randint(0, 10, (50,), generator=random)),
        chosen=None,
        trained_on=200,
    )
    masks = []
    for decay in (0, 0.01):
        config = configure("mlp", epochs=2, rounds=2, weight_decay=decay, optimizer="adamw", lr=0.01)
        *_, last = lottery.find_ticket(Unit(config, "ticket", 0), lambda subset: split)
        assert all((last.weights[f"{name}.weight"][~m] == 0).all() for name, m in last.mask.items())
        masks.append(last.mask)
    assert any(not torch.equal(masks[0][name], m) for name, m in masks[1].items())


def test_the_kind_of_a_step_knows_the_optimizer_and_whether_it_decays(monkeypatch):
    asked = []
    monkeypatch.setattr(estimate, "TIMES", {})
    monkeypatch.setattr(
        estimate, "_measure", lambda kind, device: asked.append(dict(kind)) or ([1e-3] * 10, [0.0] * 10)
    )
    for settings_ in ({}, {"weight_decay": 1e-3}, {"weight_decay": 0.5}, {"optimizer": "adamw"}, {"lr": 0.1}):
        sweep.seconds_per_level(Unit(configure("mlp", **settings_), "ticket", 0), 0)
    kinds = [(kind["optimizer"], kind["weight_decay"] > 0) for kind in asked]
    assert kinds == [("adam", False), ("adam", True), ("adamw", False)]


def test_a_step_of_every_kind_can_be_timed(monkeypatch):
    monkeypatch.setattr(estimate, "DENSITIES", (0.1, 1.0))
    for settings_ in ({"optimizer": "adamw", "weight_decay": 0.1}, {"optimizer": "sgd", "momentum": 0.5}):
        steps, images = estimate._measure(estimate._kind(configure("lenet5", **settings_)))
        assert min(steps) > 0 and min(images) > 0


@pytest.mark.parametrize("experiment", ["mlp", "lenet5", "task1", "task2", "task3", "paper", "rewind", "collapse",
                                        "criteria", "transfer", "early_bird", "fashion_conv2"])  # fmt: skip
def test_it_holds_in_every_arm_of_every_experiment(experiment):
    plain, study = (experiments.study(experiment, "smoke", overrides=o) for o in ({}, {"weight_decay": 1e-3}))
    assert {unit.config.weight_decay for unit in study.units} == {1e-3}
    assert [unit.arm for unit in plain.units] == [unit.arm for unit in study.units]
    assert not {unit.key for unit in plain.units} & {unit.key for unit in study.units}


@pytest.mark.parametrize("experiment", ["mlp", "lenet5", "task2"])
def test_adamw_is_an_optimizer_of_the_experiments_that_take_one(experiment):
    study = experiments.study(experiment, "smoke", overrides={"optimizer": "adamw", "weight_decay": 0.01})
    assert {(unit.config.optimizer, unit.config.weight_decay) for unit in study.units} == {("adamw", 0.01)}
