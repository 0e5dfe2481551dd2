"""The loop: every level starts from mask * theta0, the controls are honest, and a dead output stays dead."""

import dataclasses
from functools import lru_cache

import numpy as np
import pytest
import torch
from alone import find_ticket, starting_values, train, train_and_prune

from lthcore import lottery
from lthcore import train as loop
from lthcore.config import configure
from lthcore.data import Split, whole
from lthcore.models import initial
from lthcore.pruning import dense_mask, keep_top, magnitudes
from lthcore.unit import Fresh, MaskOf, RandomLike, Unit

COLLAPSED = 20  # a level far past the head's collapse


@lru_cache
def load(subset):
    """600 training, 100 validation and all test images of some labels of real MNIST."""
    data, wanted = whole(), {"labels0-4": range(5), "labels5-9": range(5, 10)}.get(subset, range(10))
    (images, labels), (test_images, test_labels) = data["train"], data["test"]
    train, test = (torch.isin(names, torch.tensor(list(wanted))).nonzero().flatten() for names in (labels, test_labels))
    first, held = train[:600], train[600:700]
    return Split((images[first], labels[first]), (images[held], labels[held]), (test_images[test], test_labels[test]))


@lru_cache
def load_few(subset):
    """The same with 300 test images."""
    split = load(subset)
    return split._replace(test=tuple(part[:300] for part in split.test))


def recipe(model="mlp", experiment="", **settings):
    rounds = settings.get("rounds", COLLAPSED)
    levels = {"levels": tuple(dict.fromkeys((0, 1, 2, rounds)))} if rounds > 2 else {}
    settings = {"batch_size": 60, "epochs": 3, "rounds": rounds, **levels, **settings}
    return configure(experiment or model, model=model, **settings)


def ticket(config, replicate=0, subset="full"):
    return Unit(config, "ticket", replicate, subset)


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def masked(values, mask):
    return {n: torch.where(mask[n[:-7]], v, 0) if n.endswith("weight") else v for n, v in values.items()}


def found(rows, name):
    (value,) = [row[4] for row in rows if row[3] == name]
    return value


@pytest.fixture
def seen(monkeypatch):
    """What each training started from, just before its first step, and what came of it: list of dict."""
    calls, build = [], loop.build_engine

    def training(values, masks, data, how, *rest):
        (start,), (mask,), (split,), (replicate,) = values, masks, data, how.replicates
        copies = {name: v.clone() for name, v in start.items()}
        call = {"values": copies, "mask": mask, "data": split, "replicate": replicate, **how._asdict()}

        def building(*settings):
            engine = build(*settings)
            call["engine"] = {name: v[0] for name, v in engine.values().items()}
            return engine

        calls.append(call)
        with monkeypatch.context() as patch:
            patch.setattr(loop, "build_engine", building)
            (call["trained"],) = trained = loop.train(values, masks, data, how, *rest)
        return trained

    monkeypatch.setattr(lottery, "train", training)
    return calls


# ---- rewinding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_every_level_starts_from_mask_times_theta0_bit_for_bit(seen, model):
    config = recipe(model, rounds=3, prune_rate=0.2)  # densities at which either engine trains
    theta0 = initial(model, config.seed, "theta0", 1)
    levels = list(find_ticket(ticket(config, 1), load_few))
    assert [result.level for result in levels] == [0, 1, 2, 3] == [call["level"] for call in seen]
    for result, call in zip(levels, seen, strict=True):
        assert same(call["engine"], masked(theta0, result.mask))
        assert call["first"] == 0
        biases = [v for name, v in call["engine"].items() if name.endswith("bias")]
        assert len(biases) == len(result.mask)
        assert not any(v.any() for v in biases)  # biases are reset too
        assert all(v.any() for name, v in result.weights.items() if name.endswith("bias"))  # and had been trained
    for before, call in zip(levels, seen[1:], strict=False):  # the reset really happens
        for name, m in call["mask"].items():
            assert (before.weights[f"{name}.weight"] != call["engine"][f"{name}.weight"])[m].float().mean() > 0.5


def test_masks_are_the_largest_final_magnitudes_as_many_as_counted():
    config = recipe(rounds=3)
    mask = dense_mask("mlp")
    levels = list(find_ticket(ticket(config), load_few))
    for result, after in zip(levels, [*levels[1:], None], strict=True):
        assert same(result.mask, mask)
        assert {name: int(m.sum()) for name, m in mask.items()} == config.schedule[result.level]
        assert found(result.rows, "density") == pytest.approx(config.density(result.level))
        if after is None:
            assert result.next_mask is None
            break
        mask = result.next_mask
        for name, m in mask.items():
            size = result.weights[f"{name}.weight"].abs().numpy().ravel()
            alive = np.flatnonzero(result.mask[name].numpy().ravel())
            best = alive[np.argsort(-size[alive], kind="stable")][: config.schedule[after.level][name]]
            assert np.flatnonzero(m.numpy().ravel()).tolist() == sorted(best.tolist())


def test_pruning_is_by_final_magnitude_not_by_initial():
    first = next(find_ticket(ticket(recipe()), load_few))
    theta0 = initial("mlp", 0, "theta0", 0)
    by_start = keep_top(magnitudes(theta0, first.mask), first.mask, recipe().schedule[1])
    assert not torch.equal(first.next_mask["head"], by_start["head"])


def test_one_shot_prunes_to_the_same_counts_in_one_round():
    config = recipe(rounds=6, levels=(0, 6))
    levels = list(find_ticket(ticket(config), load_few))
    assert [result.level for result in levels] == [0, 6]
    assert {name: int(m.sum()) for name, m in levels[1].mask.items()} == recipe(rounds=6).schedule[6]


@pytest.mark.parametrize("k", [1, 10, 17])
def test_late_rewinding_starts_from_the_weights_at_step_k_of_the_dense_training(seen, k):
    config = recipe(rounds=2, rewind_step=k)
    levels = list(find_ticket(ticket(config), load_few))
    keys = {"level": 0, "replicate": 0, "subset": "full"}
    theta0 = initial("mlp", 0, "theta0", 0)
    dense = train(theta0, dense_mask("mlp"), load_few("full"), config, last=k, **keys).weights
    starts = [call for call in seen if call["last"] is None]
    assert [call["first"] for call in starts] == [0, k, k]
    assert same(starts[0]["engine"], theta0)
    for result, call in zip(levels[1:], starts[1:], strict=True):
        assert same(call["engine"], masked(dense, result.mask))
        assert call["engine"]["head.bias"].any()  # a bias has its value of step k as well
        steps = [row[0] for row in result.rows]
        assert min(steps) >= k
        assert max(steps) == 30  # the numbering goes on from k, and training ends where it always does
    whole = levels[0]
    assert min(row[0] for row in whole.rows) == 0
    # the dense network at step k, seen from the run that passed through it
    at_k = train(theta0, dense_mask("mlp"), load_few("full"), config, **keys)
    assert same(at_k.weights, whole.weights)


def test_an_arm_that_borrows_a_ticket_rewinds_to_the_dense_training_of_its_chain():
    config = recipe(experiment="task1", rewind_step=5)
    chain = ticket(config, 0, "labels0-4")
    borrower = Unit(config, "t1_on_s2", 0, "labels5-9", mask=MaskOf(chain), levels=(1,))
    ours, theirs = starting_values(chain, 1, load_few), starting_values(borrower, 1, load_few)
    assert ours[1] == theirs[1] == 5
    assert same(ours[0], theirs[0])
    assert not same(ours[0], starting_values(ticket(config, 0, "labels5-9"), 1, load_few)[0])


# ---- the other arms --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain():
    """A ticket of the MLP and all its levels: Unit, list of Played."""
    unit = ticket(recipe())
    return unit, list(find_ticket(unit, load_few))


def arm(unit, name, mask=MaskOf, **settings):
    return Unit(unit.config, name, unit.replicate, mask=mask(unit), levels=unit.levels[1:], **settings)


def test_random_reinit_is_the_tickets_very_mask_under_fresh_values(seen, chain):
    unit, levels = chain
    control = arm(unit, "random_reinit", start=Fresh())
    for level in levels[1:]:
        result = train_and_prune(control, level.level, level.mask, load_few)
        call = seen[-1]
        assert same(result.mask, level.mask)
        assert result.next_mask is None  # it never prunes for itself
        fresh, theta0 = call["values"], initial("mlp", 0, "theta0", 0)
        assert same(call["engine"], masked(fresh, level.mask))
        for name in level.mask:
            both = torch.stack([fresh[f"{name}.weight"].flatten(), theta0[f"{name}.weight"].flatten()])
            assert abs(both.corrcoef()[0, 1]) < 4 / both.shape[1] ** 0.5  # drawn independently
            assert both[0].std() / both[1].std() == pytest.approx(1, abs=4 / both.shape[1] ** 0.5)
            assert not fresh[f"{name}.bias"].any()
        assert not any(result.weights[f"{name}.weight"][~m].any() for name, m in level.mask.items())
    assert len({call["values"]["head.weight"][0, 0].item() for call in seen}) == len(seen) == 3


def test_random_mask_is_theta0_under_as_many_weights(seen, chain):
    unit, levels = chain
    control, before = arm(unit, "random_mask", mask=RandomLike), dense_mask("mlp")
    for level in levels[1:]:
        result = train_and_prune(control, level.level, level.mask, load_few)
        assert not same(result.mask, level.mask)
        assert [int(m.sum()) for m in result.mask.values()] == [int(m.sum()) for m in level.mask.values()]
        assert not any((m & ~before[name]).any() for name, m in result.mask.items())  # nested
        assert same(seen[-1]["engine"], masked(initial("mlp", 0, "theta0", 0), result.mask))
        assert result.next_mask is None
        before = result.mask


def test_a_transferred_ticket_trains_theta0_on_the_other_data(seen):
    config = recipe(experiment="task2", rounds=1)
    t1 = ticket(config, 0, "labels0-4")
    mask = next(find_ticket(t1, load_few)).next_mask
    result = train_and_prune(Unit(config, "t1_on_s2", 0, "labels5-9", mask=MaskOf(t1), levels=(1,)), 1, mask, load_few)
    call = seen[-1]
    assert same(result.mask, mask)
    assert same(call["engine"], masked(initial("mlp", 0, "theta0", 0), mask))
    assert call["data"] is load_few("labels5-9")
    assert call["subset"] == "labels5-9"  # keys of the order: those of S2's own ticket


def test_a_crossed_arm_is_trained_by_its_own_optimizer(seen):
    adam = recipe(experiment="task3", rounds=1)
    sgd = dataclasses.replace(adam, optimizer="sgd")
    mask = next(find_ticket(ticket(adam), load_few)).next_mask
    train_and_prune(Unit(sgd, "adam_mask_by_sgd", 0, mask=MaskOf(ticket(adam)), levels=(1,)), 1, mask, load_few)
    assert [call["config"].optimizer for call in seen] == ["adam", "sgd"]
    assert same(seen[1]["engine"], masked(seen[0]["engine"], mask))


# ---- the loop as a whole ---------------------------------------------------------------------------------------------


def assert_equal(a, b):
    assert a.level == b.level
    assert same(a.mask, b.mask)
    assert same(a.weights, b.weights)
    assert a.rows == b.rows
    assert (a.next_mask is None) == (b.next_mask is None)
    assert a.next_mask is None or same(a.next_mask, b.next_mask)


@pytest.mark.parametrize(("model", "k"), [("mlp", 0), ("mlp", 7), ("lenet5", 0)])
def test_the_loop_repeated_or_run_level_by_level_is_bit_identical(model, k):
    unit = ticket(recipe(model, rewind_step=k, epochs=1, rounds=COLLAPSED if model == "mlp" else 3))
    torch.manual_seed(1)
    levels = list(find_ticket(unit, load_few))
    torch.manual_seed(2)
    np.random.seed(2)
    mask = dense_mask(model)
    for level in levels:  # as after an interruption: nothing is carried over but the mask
        single = train_and_prune(unit, level.level, {name: m.clone() for name, m in mask.items()}, load_few)
        assert_equal(single, level)
        mask = single.next_mask
    if k == 0:
        for again, level in zip(find_ticket(unit, load_few), levels, strict=True):
            assert_equal(again, level)


# ---- what is answered ------------------------------------------------------------------------------------------------


def reachable(mask):
    """Outputs of the MLP that depend on a pixel, by boolean products."""
    alive = np.ones(784, bool)
    for m in mask.values():
        alive = (m.numpy() & alive).any(1)
    return set(np.flatnonzero(alive).tolist())


def numpy_logits(weights, images):
    """The MLP in float64."""
    w = {name: v.double().numpy() for name, v in weights.items()}
    h1 = np.maximum(images.flatten(1).double().numpy() @ w["fc1.weight"].T + w["fc1.bias"], 0)
    h2 = np.maximum(h1 @ w["fc2.weight"].T + w["fc2.bias"], 0)
    return h2 @ w["head.weight"].T + w["head.bias"]


def thinned(weights_per_layer, seed=0):
    """A mask of so many random weights per layer of the MLP."""
    random, mask = np.random.default_rng(seed), {}
    for (name, m), n in zip(dense_mask("mlp").items(), weights_per_layer, strict=True):
        flat = np.zeros(m.numel(), bool)
        flat[random.choice(m.numel(), n, replace=False)] = True
        mask[name] = torch.from_numpy(flat.reshape(m.shape))
    return mask


def assert_answers(result, trained, images):
    """The rows about answers, and the bound (live outputs + 1), against logits computed separately."""
    live, logits = reachable(result.mask), trained.logits.double().numpy()
    dead = sorted(set(range(10)) - live)
    assert logits.shape == (len(images), 10)  # ten outputs, whatever the labels
    recomputed = numpy_logits(result.weights, images)
    assert np.abs(recomputed - logits).max() < 1e-3
    if dead:
        assert np.ptp(recomputed[:, dead], axis=0).max() < 1e-12
        assert np.ptp(logits[:, dead], axis=0).max() == 0  # constant, to the last bit
    possible = live | ({max(dead, key=lambda c: recomputed[0, c])} if dead else set())
    answers = logits.argmax(1)
    assert set(answers.tolist()) <= possible
    assert set(recomputed.argmax(1).tolist()) <= possible
    assert found(result.rows, "answers_outside") == 0
    assert found(result.rows, "answered_classes") == len(set(answers.tolist())) <= len(live) + 1
    assert {c for c in range(10) if found(result.rows, f"live_output:{c}")} == live
    assert found(result.rows, "live_outputs") == len(live)
    assert found(result.rows, "top_answer") == np.bincount(answers, minlength=10).argmax()
    return live


@pytest.mark.parametrize("subset", ["full", "labels0-4", "labels5-9"])
def test_a_chain_past_its_collapse_answers_live_outputs_and_at_most_one_dead(seen, subset):
    unit = ticket(recipe(experiment="task2", epochs=2, prune_rate=0.3), 0, subset)
    images, labels = load(subset).test
    live = {}
    for result in find_ticket(unit, load):
        live[result.level] = assert_answers(result, seen[-1]["trained"], images)
        top = found(result.rows, "top_answer")
        assert found(result.rows, "top_answer_share") == pytest.approx(100 * (labels == top).double().mean().item())
    assert len(live[0]) == 10
    assert len(live[COLLAPSED]) <= 1  # one weight is left in the head


@pytest.mark.parametrize(
    "weights",
    [(2000, 300, 7), (2000, 300, 12), (300, 60, 40), (235_200, 30_000, 3), (2000, 0, 100), (0, 300, 100), (0, 0, 0)],
    ids=str,
)
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_thin_networks_answer_live_outputs_and_at_most_one_dead(seen, weights, optimizer):
    lr = {"adam": 0.0012, "sgd": 0.1}[optimizer]
    chain = ticket(recipe(experiment="task3", epochs=2, optimizer=optimizer, lr=lr))
    unit = Unit(chain.config, "borrowed", 0, mask=MaskOf(chain), levels=(2,))
    result = train_and_prune(unit, 2, thinned(weights), load)
    live = assert_answers(result, seen[-1]["trained"], load("full").test[0])
    assert len(live) < 10
    if 0 in weights:
        assert live == set()
        assert found(result.rows, "answered_classes") == 1
        accuracy = [row[4] for row in result.rows if row[2:4] == ("test", "accuracy")][-1]
        assert accuracy == pytest.approx(found(result.rows, "top_answer_share"))


def test_a_dead_lenet5_answers_one_class(seen):
    chain = ticket(recipe("lenet5", epochs=1))
    unit = Unit(chain.config, "borrowed", 0, mask=MaskOf(chain), levels=(2,))
    mask = dense_mask("lenet5")
    mask["conv2"][:] = False
    result = train_and_prune(unit, 2, mask, load_few)
    assert np.ptp(seen[-1]["trained"].logits.numpy(), axis=0).max() == 0
    assert found(result.rows, "live_outputs") == found(result.rows, "answers_outside") == 0
    assert found(result.rows, "answered_classes") == 1


def test_labels_keep_their_names():
    """Networks of labels 5-9 have ten outputs, and learn to answer 5 to 9."""
    unit = ticket(recipe(experiment="task2", epochs=10, rounds=1), 0, "labels5-9")
    result = next(find_ticket(unit, load_few))
    assert result.weights["head.weight"].shape == (10, 100)
    answers = numpy_logits(result.weights, load_few("labels5-9").test[0]).argmax(1)
    assert set(answers.tolist()) == set(range(5, 10))
    accuracy = [row[4] for row in result.rows if row[2:4] == ("test", "accuracy")][-1]
    assert accuracy == pytest.approx(100 * np.mean(answers == load_few("labels5-9").test[1].numpy()))
    assert accuracy > 75
