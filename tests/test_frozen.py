"""Weights that stay as they start while those under a mask are trained, and other orders of the batches."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from alone import few, tiny, train, train_and_prune

from lthcore import lottery
from lthcore.config import configure
from lthcore.engines.batched import Lockstep
from lthcore.engines.sparse import Sparse
from lthcore.models import build, initial
from lthcore.runs import estimate, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.unit import Fresh, FrozenOutside, MaskOf, Unit

RULES = {
    "adam": {},
    "adam, decay": {"weight_decay": 1e-2},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.3},
    "momentum": {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2},
}
MODELS = ("mlp", "mlp_40_20", "lenet5", "lenet5_2_4_30_21")


def draw(model, density, seed=0):
    """Float64: images, labels, values and a mask."""
    random = torch.Generator().manual_seed(seed)
    images, labels = torch.rand(90, 1, 28, 28, generator=random).double(), torch.randint(0, 10, (90,), generator=random)
    values = {name: v.double() for name, v in initial(model, seed, "theta0", 0, biases="normal").items()}
    mask = {name: torch.rand(shape, generator=random) < density for name, shape in ARCHITECTURES[model].weights.items()}
    return SimpleNamespace(train=(images, labels)), values, mask


def by_torch(values, mask, data, config, order):
    """torch's own optimizers, on the whole network; after every step what is not trained is put back."""
    net = build(config.model).double()
    net.load_state_dict(values)
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}[config.optimizer]
    options = {"momentum": config.momentum} if config.optimizer == "sgd" else {}
    rule, losses = kind(net.parameters(), lr=config.lr, weight_decay=config.weight_decay, **options), []
    for batch in order.split(config.batch_size):
        loss = F.cross_entropy(net(data.train[0][batch]), data.train[1][batch])
        rule.zero_grad()
        loss.backward()
        rule.step()
        with torch.no_grad():
            for layer, kept in mask.items():
                weight = net.get_submodule(layer).weight
                weight[~kept] = values[f"{layer}.weight"][~kept]
        losses.append(loss.detach())
    return torch.stack(losses), net.state_dict()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("density", [0.5, 0.05])
def test_both_engines_train_what_the_mask_keeps_of_the_whole_network(model, rule, density):
    data, values, mask = draw(model, density)
    config = replace(configure("task1", model=model, batch_size=20, **RULES[rule]), frozen=True)
    order = torch.from_numpy(np.random.default_rng(1).permutation(90))
    expected, after = by_torch(values, mask, data, config, order)
    sparse, lockstep = Sparse(values, mask, data, config), Lockstep([values], [mask], [data], config)
    for losses, found in (
        (sparse.advance(order), sparse.values()),
        (lockstep.advance(order[None])[:, 0], {name: v[0] for name, v in lockstep.values().items()}),
    ):
        assert torch.allclose(losses.double(), expected, rtol=1e-9)
        for name, value in after.items():
            assert torch.allclose(found[name], value, atol=1e-9), name
        for layer, kept in mask.items():
            weight, start = found[f"{layer}.weight"], values[f"{layer}.weight"]
            assert torch.equal(weight[~kept], start[~kept])
            assert not kept.any() or (weight[kept] != start[kept]).any()


def test_what_is_frozen_is_a_whole_network_for_all_who_read_it(module_folders):
    chain = Unit(tiny(), "ticket", 0)
    frozen = Unit(chain.config, "frozen", 0, mask=FrozenOutside(chain), levels=(1,))
    data = few()
    first = train_and_prune(chain, 0, lottery.dense_mask("mlp"), lambda _: data)
    found = train_and_prune(frozen, 1, first.next_mask, lambda _: data)
    for layer, kept in first.next_mask.items():
        weight, start = found.weights[f"{layer}.weight"], found.start[f"{layer}.weight"]
        assert found.mask[layer].all() and torch.equal(weight[~kept], start[~kept])
    assert {row[3]: row[4] for row in found.rows if row[2] == "mask"}["effective_density"] == 1
    store.make()
    mask = {name: m.numpy() for name, m in first.next_mask.items()}
    store.save_level(chain, 0, first.rows, mask, {"seconds": 1})
    assert all(m.all() for m in sweep.mask_at(frozen, 1).values())
    with pytest.raises(ValueError, match=r"^frozen has no tickets"):
        sweep.ticket(frozen, 1)
    with pytest.raises(ValueError, match=r"^probes = \('order',\): must be \(\) where weights are frozen$"):
        replace(frozen, probes=("order",))


def test_it_is_another_unit_than_the_ticket_and_takes_as_long_as_the_dense_network():
    chain = Unit(configure("mlp", "report"), "ticket", 0)
    one, other = (Unit(chain.config, "x", 0, mask=kind(chain), levels=(9,)) for kind in (MaskOf, FrozenOutside))
    assert one.identity["mask"] != other.identity["mask"] and one.key != other.key
    dense, sparse = (estimate.seconds_per_level(unit, 9) for unit in (other, one))
    assert dense == pytest.approx(estimate.seconds_per_level(chain, 0), rel=0.05) and dense > 2 * sparse


def test_another_order_of_the_batches_starts_from_the_same_weights_and_is_the_one_that_the_probe_trains():
    data, config = few(), tiny()
    units = [Unit(replace(config, batch_order=order), "ticket", 0) for order in (0, 1, 0)]
    mask = lottery.dense_mask("mlp")
    found = [train_and_prune(unit, 0, mask, lambda _: data) for unit in units]
    for name, value in found[0].weights.items():
        assert torch.equal(found[0].start[name], found[1].start[name]) and torch.equal(value, found[2].weights[name])
        assert not torch.equal(value, found[1].weights[name])
    probed = train(found[0].start, mask, data, config, level=0, replicate=0, subset="full", order=1)
    assert all(torch.equal(value, found[1].weights[name]) for name, value in probed.weights.items())
    fresh = [lottery.starting_values(replace(unit, mask=MaskOf(unit), start=Fresh(), levels=(1,)), 1, None)[0]
             for unit in units[:2]]  # fmt: skip
    assert all(torch.equal(*pair) for pair in zip(fresh[0].values(), fresh[1].values(), strict=True))
