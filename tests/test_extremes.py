"""Numbers at the edge, memory at its end: what happens is defined, and nothing is invented."""

import math
import resource

import pytest
import torch
from alone import find_ticket, train_and_prune
from stand_ins import tiny_study

from lthcore.config import configure
from lthcore.data import Split
from lthcore.pruning import dense_mask
from lthcore.runs import limits, processes, sweep
from lthcore.unit import Unit

LAYERS = {"mlp": ["fc1", "fc2", "head"], "lenet5": ["conv1", "conv2", "fc1", "fc2", "head"]}


def few(labels, images=40):
    """Random images of these labels, the same for training, validation and test."""
    random = torch.Generator().manual_seed(0)
    names = torch.tensor(labels)[torch.arange(images) % len(labels)]
    part = torch.randn(images, 1, 28, 28, generator=random), names
    return Split(part, part, part)


def unit(model="mlp", **settings):
    return Unit(configure(model, "report", **{"epochs": 2, "rounds": 2, "batch_size": 10, **settings}), "ticket", 0)


def trained_on(model="mlp", empty=(), labels=range(10), images=40, **settings):
    mask = {n: m & (n not in empty) for n, m in dense_mask(model).items()}
    return train_and_prune(unit(model, **{"rounds": 0, **settings}), 0, mask, lambda subset: few(list(labels), images))


def value(rows, name):
    return [row[4] for row in rows if row[3] == name][-1]


@pytest.mark.parametrize("model", LAYERS)
@pytest.mark.parametrize("layer", range(-1, 3))
def test_without_a_layer_or_all_of_them_the_network_answers_one_class(model, layer):
    names = LAYERS[model] if layer < 0 else LAYERS[model][layer : layer + 1]
    p = trained_on(model, empty=names)
    assert all(math.isfinite(row[4]) for row in p.rows)
    assert value(p.rows, "answered_classes") == 1 and value(p.rows, "live_outputs") == 0
    assert value(p.rows, "top_answer_share") == value(p.rows, "accuracy") == 10
    assert all(not p.weights[f"{name}.weight"].any() for name in names)


def test_one_class_alone_is_learned_and_its_loss_stays_finite():
    p = trained_on(labels=[3], epochs=5)
    assert value(p.rows, "accuracy") == 100 and value(p.rows, "top_answer") == 3
    assert all(math.isfinite(row[4]) for row in p.rows)


@pytest.mark.parametrize("model", LAYERS)
@pytest.mark.parametrize("images", [1, 7, 9, 10, 11])
def test_fewer_images_than_a_batch_are_a_short_batch(model, images):
    p = trained_on(model, images=images)
    assert max(row[0] for row in p.rows) == 2 * math.ceil(images / 10)
    assert all(math.isfinite(row[4]) for row in p.rows)


def test_a_chain_continues_when_no_weight_is_left_to_prune():
    chain = unit(prune_rate=0.99, rounds=5)
    counts = [sum(counts.values()) for counts in chain.config.schedule]
    assert counts[-1] == counts[-2] == 0
    levels = list(find_ticket(chain, lambda subset: few(list(range(10)))))
    assert [sum(int(m.sum()) for m in p.mask.values()) for p in levels] == counts
    assert value(levels[-1].rows, "density") == 0 and value(levels[-1].rows, "accuracy") == 10


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_a_run_that_the_machine_has_no_memory_for_is_refused_in_one_line(queue, monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "meminfo")
    limits.MEMINFO.write_text("MemTotal:  9000000 kB\nMemAvailable:  2200000 kB\n")
    with pytest.raises(RuntimeError) as caught:
        sweep.run(tiny_study().units, "cpu", 2, log=lambda line: None)
    assert str(caught.value).startswith(
        "2 processes and their driver need about 3.9 GB of memory, 2.3 GB are available"
    )
    assert len(str(caught.value).splitlines()) == 1 and "--workers" in str(caught.value) and queue.started == []
    said = []
    sweep.run(tiny_study().units, "cpu", 1, log=said.append)  # nearly enough is tried
    assert "in 2.6 GB of memory" in said[0] and queue.started


@pytest.mark.parametrize("text", [None, "", "MemTotal: 5 kB\n"])
def test_a_machine_that_does_not_say_what_it_has_is_tried(monkeypatch, tmp_path, text):
    monkeypatch.setattr(limits, "MEMINFO", tmp_path / "meminfo")
    if text is not None:
        limits.MEMINFO.write_text(text)
    assert processes.memory(100) == pytest.approx(101 * processes.MEMORY)


def resident():
    """Bytes of this process in memory."""
    with open("/proc/self/statm") as f:
        return int(f.read().split()[1]) * resource.getpagesize()


@pytest.mark.slow
@pytest.mark.skipif(not limits.MEMINFO.exists(), reason="needs /proc")
def test_memory_does_not_grow_over_levels():
    chain, data = unit(rounds=35, prune_rate=0.1, epochs=1), few(list(range(10)))
    sizes = [resident() for _ in find_ticket(chain, lambda subset: data)]
    assert sizes[-1] - sizes[5] < 30e6, sizes
