"""Dropout, and a learning rate that rises from 0."""

import pytest
import torch
import torch.nn.functional as F
from alone import few, tiny, train

from lthcore.engines.batched import Lockstep
from lthcore.engines.sparse import Sparse
from lthcore.models import build, initial
from lthcore.pruning import dense_mask
from lthcore.runs import queue
from lthcore.train import choose_engine
from lthcore.unit import Unit


def test_dropout_leaves_out_hidden_units_in_training_alone():
    net, x = build("mlp", dropout=0.5), torch.randn(8, 1, 28, 28)
    plain = build("mlp")
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), plain(x)) and not torch.equal(net.train()(x), plain(x))


@pytest.mark.slow
def test_dropout_is_drawn_from_its_keys_and_leaves_the_mask_alone():
    config, mask = tiny(dropout=0.5), {n: torch.rand(m.shape) < 0.3 for n, m in dense_mask("mlp").items()}
    keys = {"level": 1, "replicate": 0, "subset": "full"}
    torch.manual_seed(1)
    a = train(initial("mlp", 0, "theta0", 0), mask, few(), config, **keys)
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    b = train(initial("mlp", 0, "theta0", 0), mask, few(), config, **keys)
    assert torch.equal(torch.random.get_rng_state(), before)  # nobody else's draws move
    assert all(torch.equal(a.weights[n], b.weights[n]) for n in a.weights) and a.rows == b.rows
    assert all((a.weights[f"{n}.weight"][~m] == 0).all() for n, m in mask.items())
    c = train(initial("mlp", 0, "theta0", 0), mask, few(), tiny(), **keys)
    assert not torch.equal(a.weights["fc1.weight"], c.weights["fc1.weight"])
    assert choose_engine(config, "cpu").name == "Lockstep" and choose_engine(tiny(), "cpu").name == "Sparse"


def test_with_dropout_a_replicate_is_trained_by_itself():
    """Lockstep would give one replicate's draws to whoever happens to be trained with it."""
    for dropout, together in ((0.0, 3), (0.5, 1)):
        ready = [(Unit(tiny(dropout=dropout), "ticket", r), 0) for r in range(3)]
        assert len(queue._trained_with(ready, ready.pop(), "cuda")) == together


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rising_rate_is_the_same_in_both_engines_and_in_torch(optimizer):
    config = tiny(optimizer=optimizer, lr=0.01, warmup=5, batch_size=20)
    values, mask, split = initial("mlp", 0, "theta0", 0), dense_mask("mlp"), few()
    order = torch.arange(8 * 20)
    sparse, dense = Sparse(values, mask, split, config), Lockstep([values], [mask], [split], config)
    sparse.advance(order[:60]), dense.advance(order[None, :60])  # in two pieces, as between evaluations
    sparse.advance(order[60:]), dense.advance(order[None, 60:])
    net = build("mlp")
    net.load_state_dict(values)
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    oracle = kind(net.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(oracle, lambda step: min(1, (step + 1) / 5))
    for batch in order.split(20):
        oracle.zero_grad()
        F.cross_entropy(net(split.train[0][batch]), split.train[1][batch]).backward()
        oracle.step()
        schedule.step()
    for name, value in net.state_dict().items():
        for ours in (sparse.values()[name], dense.values()[name][0]):
            far = (ours - value).abs() > 2e-5  # Adam makes much of a gradient that is 0 but for rounding
            assert far.double().mean() < 0.002, name


def test_a_rate_keeps_rising_after_a_rewind():
    config = tiny(warmup=100, lr=1.0, optimizer="sgd")
    assert config.rates(0, 2) == [0.01, 0.02] and config.rates(98, 4) == [0.99, 1.0, 1.0, 1.0]
    assert tiny(lr=0.3).rates(0, 2) == [0.3, 0.3]
    values, mask, split, order = initial("mlp", 0, "theta0", 0), dense_mask("mlp"), few(), torch.arange(40)
    first = Sparse(values, mask, split, config, first=49)
    first.advance(order)
    half = Sparse(values, mask, split, tiny(lr=0.5, optimizer="sgd"))
    half.advance(order)
    assert all(torch.equal(v, half.values()[n]) for n, v in first.values().items())
