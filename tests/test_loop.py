"""The loop that is shown is the loop that ran: the same two functions, the same bytes, four calls from an engine."""

import sys

import numpy as np
import pytest

from lthcore import data, lottery, train
from lthcore.config import configure
from lthcore.engines import ENGINES, SPARSE, sparse
from lthcore.runs import store, sweep
from lthcore.unit import Unit

TINY = {"rounds": 2, "levels": (0, 1, 2), "max_steps": 6, "test_images": 200}
CASES = {
    "reset": {},
    "at step 2": {"rewind_step": 2},
    "final": {"rewind": "final"},
    "biases kept": {"rewind": "keep_biases", "biases": "normal", "frozen_below": 1e-6, "weight_decay": 1e-4},
    "lenet5": {"experiment": "lenet5", "max_steps": 2},
}


def same(one, other):
    return list(one) == list(other) and all(np.array_equal(one[name], other[name]) for name in one)


def numpy_of(tensors):
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def in_order_of(names, arrays):
    return {name: arrays[name] for name in names}


@pytest.mark.parametrize("case", CASES)
def test_the_loop_gives_the_bytes_that_the_queue_keeps(folders, case):
    settings = {"experiment": "mlp", **TINY, **CASES[case]}
    chain = Unit(configure(settings.pop("experiment"), "smoke", **settings), "ticket", 0)
    store.make()
    for level in chain.levels:
        sweep.run_levels([(chain, level)])
        if store.find_weights(chain, level) is None:
            sweep.keep_weights(chain, level)
    for trained in lottery.find_ticket(chain, data.load):
        found, kept = store.find_level(chain, trained.level), store.find_weights(chain, trained.level)
        assert list(found.rows().itertuples(index=False, name=None)) == trained.rows
        for here, there in ((trained.mask, kept.mask), (trained.start, kept.start), (trained.weights, kept.final)):
            assert same(numpy_of(here), in_order_of(here, there))
        assert np.array_equal(trained.logits.numpy(), kept.logits)
        if trained.level == chain.levels[-1]:
            assert trained.next_mask is None
        else:
            there = found.next_mask(chain.config.model)
            assert same(numpy_of(trained.next_mask), in_order_of(trained.next_mask, there))


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_from_the_loop_to_an_engines_step_are_at_most_four_calls(model):
    chain = Unit(configure(model, "smoke", **{**TINY, "max_steps": 1, "levels": (0,)}), "ticket", 0)
    chains = []

    def watch(frame, event, _):
        if event == "call" and frame.f_code is sparse.Sparse.advance.__code__:
            calls = [frame]
            while calls[-1].f_code is not lottery.find_ticket.__code__:
                calls.append(calls[-1].f_back)
            chains.append([f.f_code.co_name for f in reversed(calls)])

    sys.setprofile(watch)
    try:
        next(lottery.find_ticket(chain, data.load))
    finally:
        sys.setprofile(None)
    assert chains and all(names == ["find_ticket", "train_level", "train", "advance", "advance"] for names in chains)


def test_the_first_engine_that_supports_a_training_has_it(monkeypatch):
    engine = train.Engine("mine", lambda config, device: config.optimizer == "sgd" and device == "cpu", None)
    config = configure("mlp")
    assert train.choose_engine(config, "cpu") is SPARSE
    monkeypatch.setattr(train, "ENGINES", [engine, *ENGINES])
    assert train.choose_engine(config, "cpu") is SPARSE
    assert train.choose_engine(configure("mlp", optimizer="sgd"), "cpu") is engine
    assert train.choose_engine(configure("mlp", optimizer="sgd"), "cuda").name == "Lockstep"


def test_replicates_on_a_cpu_are_trained_one_at_a_time_behind_the_same_function():
    """Together they are what each is alone, to the last bit."""
    units = [Unit(configure("mlp", "smoke", **TINY), "ticket", r) for r in range(2)]
    masks = [lottery.dense_mask("mlp")] * 2
    together = lottery.train_level(units, 0, masks, data.load)
    for unit, one in zip(units, together, strict=True):
        (alone,) = lottery.train_level([unit], 0, masks[:1], data.load)
        assert one.rows == alone.rows
        assert same(numpy_of(one.weights), numpy_of(alone.weights))
