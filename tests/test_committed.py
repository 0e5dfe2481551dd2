"""The final weights that are committed, with which the explorer starts."""

import numpy as np
import pytest
import torch
import weights
from alone import tiny

from lthcore import data
from lthcore.explore import explorer
from lthcore.runs import committed, store
from lthcore.studies import experiments
from lthcore.unit import Unit

TASKS = weights.tasks()


def name_of(task):
    unit, level = task
    return f"{unit.config.experiment}-{unit.arm}-{level}"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS, ids=name_of)
def test_they_have_the_masks_and_nearly_the_accuracies_of_the_archived_levels(task, monkeypatch, tmp_path):
    """They were trained on another processor: rounding makes as much of a difference as another order of the images."""
    monkeypatch.setenv("LTH_RUNS", str(tmp_path))
    (unit, level), found = task, committed.find(*task)
    labels = data.load(unit).test[1].numpy()
    accuracy = 100 * (found.logits.argmax(1) == labels).mean()
    assert accuracy == pytest.approx(store.find_level(unit, level).final_accuracy(), abs=0.5)
    assert sum(int(m.sum()) for m in found.mask.values()) == sum(unit.config.schedule[level].values())
    for layer, mask in found.mask.items():
        assert not found.final[f"{layer}.weight"][~mask].any() and found.final[f"{layer}.weight"][mask].all()
    if unit.arm != "random_reinit":
        assert all(np.array_equal(found.start[name], v) for name, v in committed.find(*TASKS[0]).start.items()) == (
            unit.config.model == TASKS[0][0].config.model
        )


def test_they_are_small_and_of_what_is_shown_first():
    paths = {committed.path(unit) for unit, _ in TASKS}
    assert sum(path.stat().st_size for path in paths) < 4e6
    mlp, lenet = (" and ".join(map(str, levels)) for levels in weights.LEVELS.values())
    text = (store.ROOT / "notebooks/README.md").read_text().replace("\n", " ")
    assert f"levels {mlp} (MLP) and {lenet} (LeNet-5)" in text and "by up to 0.5 pp" in text
    assert {name_of(task) for task in TASKS} >= {"mlp-ticket-0", "mlp-ticket-9", "lenet5-random_mask-13"}


@pytest.fixture
def unit(folders):
    return Unit(tiny(rounds=2, levels=(0, 1, 2)), "ticket", 0)


def kept(unit, level, seed=0):
    """A level with weights, in the store: what was kept."""
    random = torch.Generator().manual_seed(seed)
    draw = committed.Weights(unit, level, {}).start
    final = {name: torch.randn(v.shape, generator=random).numpy() for name, v in draw.items()}
    mask = {name: np.ones(v.shape, bool) for name, v in ((n, final[f"{n}.weight"]) for n in ("fc1", "fc2", "head"))}
    found = store.Weights(mask, draw, final, np.zeros((1, 10), np.float32))
    store.save_weights(unit, level, found, {})
    return found


def test_what_was_written_is_read(unit, monkeypatch, tmp_path):
    before = kept(unit, 0)
    (path,) = committed.write([(unit, 0)])
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "empty"))
    found = committed.find(unit, 0)
    for part in ("mask", "start", "final"):
        one, other = getattr(before, part), getattr(found, part)
        assert set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)
    images = data.load(unit).test[0].flatten(1).numpy()
    by_hand = images
    for name in ("fc1", "fc2", "head"):
        by_hand = np.maximum(by_hand, 0) if name != "fc1" else by_hand
        by_hand = by_hand @ before.final[f"{name}.weight"].T + before.final[f"{name}.bias"]
    np.testing.assert_allclose(found.logits, by_hand, rtol=1e-3, atol=1e-2)
    assert committed.find(unit, 1) is None and committed.find(Unit(unit.config, "ticket", 1), 0) is None
    assert path == committed.path(unit)


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:-9] + bytes([c[-9] ^ 1]) + c[-8:], lambda c: b""])
def test_a_damaged_file_is_none(unit, monkeypatch, tmp_path, damage):
    kept(unit, 0)
    (path,) = committed.write([(unit, 0)])
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "empty"))
    path.write_bytes(damage(path.read_bytes()))
    assert committed.find(unit, 0) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", weights.LEVELS)
def test_the_explorer_starts_full(name, monkeypatch, tmp_path):
    """At the ticket's level nothing has to be trained: every tab shows its networks."""
    monkeypatch.setenv("LTH_RUNS", str(tmp_path))
    page = explorer.Explorer([experiments.study(name, "report")])
    assert "4 of 4 networks" in page.state.value and page.train.disabled
    shown = {}
    for tab in (0, 1, 4):
        page.tabs.selected_index = tab
        shown[tab] = page.moved.value, page.answers.value
    assert shown[0][0] != page.nothing and shown[1][1] != page.blank
    assert page.by_hand.of == page.chosen
