"""Other ways to prune: second derivatives, whole filters, no reset; a chain that goes on from its final weights."""

import contextlib
import dataclasses
import io
import re
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from alone import find_ticket, starting_values, train, train_and_prune
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune as oracle

from lthcore import lottery, methods, pruning
from lthcore.config import configure
from lthcore.data import Split, whole
from lthcore.models import build, initial
from lthcore.probes import trained_on
from lthcore.probes.curvature import curvature, saliencies
from lthcore.probes.filters import costs, without_filters
from lthcore.probes.whole_filters import group_scores
from lthcore.pruning import dense_mask, keep_top
from lthcore.results import statistics
from lthcore.runs import archive, estimate, formats, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import claims, experiments
from lthcore.unit import Fresh, MaskOf, RandomLike, Theta0, Unit

KINDS = {"relu": F.relu, "tanh": torch.tanh}


def load(subset="full"):
    """240 training, 60 validation and 100 test images of real MNIST."""
    (images, labels), (test, test_labels) = whole()["train"], whole()["test"]
    held = slice(240, 300)
    return Split((images[:240], labels[:240]), (images[held], labels[held]), (test[:100], test_labels[:100]))


def tiny(model="mlp", **options):
    """Two or three levels of a few steps."""
    return configure(model, "smoke", **{"max_steps": 8, "batch_size": 40, "epochs": 2, "levels": (0, 1, 2), **options})


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------- second derivatives


def small_network(seed, sizes=(6, 5, 4, 3)):
    """Weights of a small network, images and labels, in float64."""
    random, weights = torch.Generator().manual_seed(seed), {}
    for i, (into, out) in enumerate(pairwise(sizes)):
        weights[f"l{i}.weight"] = torch.randn(out, into, generator=random, dtype=torch.float64)
        weights[f"l{i}.bias"] = torch.randn(out, generator=random, dtype=torch.float64)
    return weights, torch.randn(7, sizes[0], generator=random, dtype=torch.float64), torch.arange(7) % sizes[-1]


def logits_of(weights, flat, images, kind):
    layers, at, x = [name[:-7] for name in weights if name.endswith("weight")], 0, images
    for i, name in enumerate(layers):
        shape = weights[f"{name}.weight"].shape
        z = x @ flat[at : at + shape.numel()].view(shape).T + weights[f"{name}.bias"]
        x, at = (KINDS[kind](z) if i < len(layers) - 1 else z), at + shape.numel()
    return x


def flat_of(weights):
    return torch.cat([w.flatten() for name, w in weights.items() if name.endswith("weight")])


@pytest.mark.parametrize("seed", range(5))
def test_second_derivatives_of_a_relu_network_are_the_hessians_diagonal(seed):
    weights, images, labels = small_network(seed)

    def loss(flat):
        return F.cross_entropy(logits_of(weights, flat, images, "relu"), labels)

    hessian = torch.autograd.functional.hessian(loss, flat_of(weights))
    ours = curvature(weights, ["l0", "l1", "l2"], images, "relu")
    assert torch.allclose(torch.cat([h.flatten() for h in ours.values()]), hessian.diag(), rtol=1e-9, atol=1e-12)
    assert (hessian.diag() > 0).any()


def test_those_of_a_tanh_network_are_the_gauss_newton_diagonal():
    weights, images, _ = small_network(0)
    total = 0
    for image in images:
        jacobian = torch.autograd.functional.jacobian(
            lambda flat: logits_of(weights, flat, image[None], "tanh")[0],  # noqa: B023
            flat_of(weights),
        )
        p = logits_of(weights, flat_of(weights), image[None], "tanh")[0].softmax(0)
        total = total + (jacobian.T @ (p.diag() - torch.outer(p, p)) @ jacobian).diag() / len(images)
    ours = curvature(weights, ["l0", "l1", "l2"], images, "tanh")
    assert torch.allclose(torch.cat([h.flatten() for h in ours.values()]), total, rtol=1e-9, atol=1e-12)


def test_saliencies_of_the_mlp_are_half_h_u_squared_by_double_backward():
    unit, split = Unit(tiny(criterion="obd"), "obd", 0), load()
    weights = {n: v.double() for n, v in train(initial("mlp", 0, "theta0", 0), dense_mask("mlp"), split, unit.config,
                                               level=0, replicate=0, subset="full").weights.items()}  # fmt: skip
    split = split._replace(train=(split.train[0].double(), split.train[1]))
    scores = saliencies(weights, dense_mask("mlp"), unit, split)
    net = build("mlp").double()
    net.load_state_dict(weights)
    loss = F.cross_entropy(net(split.train[0]), split.train[1])
    for name in ("fc1", "fc2", "head"):
        parameter = net.get_submodule(name).weight
        (gradient,) = torch.autograd.grad(loss, parameter, create_graph=True)
        for i, j in ((0, 5), (3, 60 if name != "fc1" else 400)):
            (second,) = torch.autograd.grad(gradient[i, j], parameter, retain_graph=True)
            expected = second[i, j] * parameter[i, j] ** 2 / 2
            assert scores[name][i, j].item() == pytest.approx(expected.item(), rel=1e-8, abs=1e-15), name
        assert (scores[name] > 0).any()


def test_second_derivatives_of_convolutions_are_refused():
    text = r"^criterion = 'obd': needs a network of fully connected layers[^\n]*$"
    with pytest.raises(ValueError, match=text):
        tiny("lenet5", criterion="obd")
    with pytest.raises(ValueError, match=text):
        curvature(initial("lenet5", 0, "theta0", 0), ["conv1", "conv2", "fc1", "fc2", "head"], load().train[0], "tanh")


def test_a_deleted_network_has_the_loss_of_plain_torch():
    unit = Unit(tiny(criterion="obd", levels=(0,), rounds=0), "obd_deleted", 0, probes=("deletion",))
    (result,), split = find_ticket(unit, load), load()
    rows = {(row[2], row[3]): row[4] for row in result.rows}
    scores = saliencies(result.weights, result.mask, unit, split)
    flat = np.concatenate([s.numpy().ravel() for s in scores.values()])
    for density in (1.0, 0.3, 0.05):
        least = np.sort(flat)[::-1][round(density * len(flat)) - 1]
        net = build("mlp")
        net.load_state_dict(result.weights)
        with torch.no_grad():
            for name, score in scores.items():
                net.get_submodule(name).weight[score < least] = 0
            images, labels = trained_on(split, 100)
            for part, x, y in (("train", images, labels), ("test", *split.test)):
                loss, right = F.cross_entropy(net(x), y).item(), (net(x).argmax(1) == y).double().mean().item()
                assert rows[part, f"deleted_loss:{density}"] == pytest.approx(loss, rel=1e-4)
                assert rows[part, f"deleted_accuracy:{density}"] == pytest.approx(100 * right, abs=1.01)
        assert rows["train", f"deleted_foretold:{density}"] == pytest.approx(flat[flat < least].sum(), rel=1e-4)
    assert len(scores) == 3 and rows["train", "deleted_foretold:1.0"] == 0


# ------------------------------------------------------------------------------------------------- whole filters


@settings(max_examples=40, deadline=None)
@given(model=st.sampled_from(["lenet5", "conv2"]), rate=st.floats(0.01, 0.99), rounds=st.integers(1, 12))
def test_filters_are_counted_with_what_reads_them(model, rate, rounds):
    config = configure(model, structure="filters", prune_rate=rate, conv_rate=None, output_rate=None, rounds=rounds,
                       levels=())  # fmt: skip
    shapes, before = ARCHITECTURES[model].weights, {}
    for level in config.schedule:
        f1, f2 = level["conv1"] // np.prod(shapes["conv1"][1:]), None
        f2 = level["conv2"] // (f1 * np.prod(shapes["conv2"][2:]))
        assert 1 <= f1 <= before.get("f1", shapes["conv1"][0]) and 1 <= f2 <= before.get("f2", shapes["conv2"][0])
        out, flat = shapes["fc1"]
        assert level["conv2"] == f1 * f2 * np.prod(shapes["conv2"][2:])
        assert level["fc1"] == out * flat // shapes["conv2"][0] * f2 and level["head"] == np.prod(shapes["head"])
        before = {"f1": f1, "f2": f2}


def pruned_by_filter(model, levels, seed=0):
    """Random weights with biases that are not zero, and the masks of a chain of whole filters."""
    config, random = configure(model, structure="filters", prune_rate=0.3, conv_rate=None, output_rate=None,
                               rounds=levels, levels=()), torch.Generator().manual_seed(seed)  # fmt: skip
    weights = {n: 0.2 * torch.randn(v.shape, generator=random, dtype=torch.float64)
               for n, v in initial(model, 0, "theta0", 0).items()}  # fmt: skip
    unit, masks = Unit(config, "filters", 0), [dense_mask(model)]
    for counts in config.schedule[1:]:
        kept = {n: v * masks[-1][n[:-7]] if n.endswith("weight") else v for n, v in weights.items()}
        masks.append(pruning.by_criterion(unit, kept, masks[-1], counts, None))
        assert {n: int(m.sum()) for n, m in masks[-1].items()} == counts
        assert all((m <= before).all() for m, before in zip(masks[-1].values(), masks[-2].values(), strict=True))
    return config, weights, masks


def test_the_filters_of_least_l1_norm_go_as_in_torchs_own_pruning():
    _, weights, masks = pruned_by_filter("lenet5", 1)
    for name in ("conv1", "conv2"):
        layer = torch.nn.Conv2d(*weights[f"{name}.weight"].shape[1::-1], 5).double()
        layer.weight.data = weights[f"{name}.weight"].clone()
        left = masks[1][name].flatten(1).any(1)
        oracle.ln_structured(layer, "weight", amount=int((~left).sum()), n=1, dim=0)
        assert torch.equal(layer.weight_mask.flatten(1).any(1), left)
    gone = ~masks[1]["conv1"].flatten(1).any(1)
    assert gone.any() and not masks[1]["conv2"][:, gone].any()  # the kernels that read them
    columns = masks[1]["fc1"].view(120, 16, 25)
    assert torch.equal(columns.any(0).any(1), masks[1]["conv2"].flatten(1).any(1))
    assert (columns.all(2) | ~columns.any(2)).all() and masks[1]["fc2"].all() and masks[1]["head"].all()


@pytest.mark.parametrize("model", ["lenet5", "conv2"])
def test_a_network_without_its_filters_gives_what_the_masked_one_gives(model):
    """Also past a removed filter's bias and its tanh, and with really smaller tensors."""
    config, weights, masks = pruned_by_filter(model, 2)
    images = whole()["test"][0][:4].double()
    for mask in masks:
        masked = build(model, pool=config.pool).double()
        masked.load_state_dict({n: v * mask[n[:-7]] if n.endswith("weight") else v for n, v in weights.items()})
        net = without_filters(config, weights, mask)
        with torch.no_grad():
            assert torch.allclose(net(images), masked(images), rtol=1e-11, atol=1e-11)
        left = sum(int(m.sum()) for m in mask.values())
        filters = sum(int(m.flatten(1).any(1).sum()) for m in mask.values() if m.dim() == 4)
        biases = filters + sum(len(m) for m in mask.values() if m.dim() == 2)
        assert sum(p.numel() for p in net.parameters()) == left + biases
    assert net.conv1.out_channels == net.conv2.in_channels == int(mask["conv1"].flatten(1).any(1).sum())


def test_costs_are_counted_by_hand():
    config, weights, masks = pruned_by_filter("lenet5", 2)
    for mask in masks:
        f1, f2 = (int(mask[n].flatten(1).any(1).sum()) for n in ("conv1", "conv2"))
        found = costs(without_filters(config, {n: v.float() for n, v in weights.items()}, mask), (1, 28, 28))
        by_hand = 28 * 28 * 25 * f1 + 10 * 10 * 25 * f1 * f2 + 25 * f2 * 120 + 120 * 84 + 84 * 10
        assert found["multiply_adds"] == by_hand
        assert found["parameters"] == 26 * f1 + (25 * f1 + 1) * f2 + (25 * f2 + 1) * 120 + 121 * 84 + 850
    assert (f1, f2) == (3, 8)


def test_a_mask_that_is_not_of_whole_filters_is_refused():
    mask = dense_mask("lenet5")
    mask["conv1"][2] = False
    with pytest.raises(ValueError, match=r"^conv2 reads a filter that is removed: [^\n]*$"):
        without_filters(configure("lenet5"), initial("lenet5", 0, "theta0", 0), mask)


@pytest.mark.slow
def test_filters_are_trained_as_masks_and_proved_for_real():
    config = tiny("lenet5", structure="filters", rewind="final", retrain_epochs=1)
    for result in find_ticket(Unit(config, "filters", 0, probes=("smaller",)), load):
        rows = {row[3]: row[4] for row in result.rows}
        assert rows["smaller_apart"] < 1e-4
        assert rows["live_units:conv2"] == result.mask["conv2"].flatten(1).any(1).sum()
    assert rows["parameters"] < 61_706


def test_random_filters_are_random_and_each_replicates_own():
    config = tiny("lenet5", structure="filters", criterion="random")
    weights, mask = initial("lenet5", 0, "theta0", 0), dense_mask("lenet5")
    one, again, other = (
        pruning.by_criterion(Unit(config, "random", r), weights, mask, config.schedule[2], None) for r in (0, 0, 1)
    )
    l1 = keep_top(group_scores(pruning.magnitudes(weights, mask), mask, config.schedule[2]), mask, config.schedule[2])
    assert same(one, again) and not same(one, other) and not same(one, l1)


# ----------------------------------------------------------------------------------------- what survivors start from


def test_without_reset_a_level_goes_on_from_the_final_weights_at_the_rate_of_retraining():
    config = tiny(rewind="final", retrain_epochs=1, retrain_lr=1e-4)
    dense, first, second = find_ticket(Unit(config, "finetune", 0), load)
    assert same(dense.start, initial("mlp", 0, "theta0", 0))
    assert same(first.start, dense.weights) and same(second.start, first.weights)
    plain = dataclasses.replace(config, epochs=1, lr=1e-4, retrain_epochs=None, retrain_lr=None, rewind="reset")
    by_hand = train(dense.weights, first.mask, load(), plain, level=1, replicate=0, subset="full")
    assert same(by_hand.weights, first.weights)
    steps = [max(row[0] for row in result.rows) for result in (dense, first, second)]
    assert steps == [8, 6, 6]  # two epochs, cut at 8 steps; one epoch of 240 images in batches of 40


def test_with_reset_and_level_0_nothing_is_changed_by_the_rule():
    reset, kept = (list(find_ticket(Unit(tiny(rewind=rule), "any", 0), load)) for rule in ("reset", "final"))
    assert same(reset[0].weights, kept[0].weights) and same(reset[0].next_mask, kept[0].next_mask)
    assert same(reset[1].start, initial("mlp", 0, "theta0", 0)) and not same(reset[1].weights, kept[1].weights)


def test_who_borrows_the_masks_of_such_a_chain_starts_anew():
    chain = Unit(tiny(rewind="final"), "lr_rewind", 0)
    for start in (Theta0(), Fresh()):
        borrower = Unit(chain.config, "any", 0, mask=MaskOf(chain), start=start, levels=(1,))
        values, step = starting_values(borrower, 1, load)
        expected = initial("mlp", 0, "theta0", 0) if start == Theta0() else initial("mlp", 0, "reinit", 0, 1)
        assert same(values, expected) and step == 0 and not borrower.continues
    with pytest.raises(ValueError, match=r"^rewind = 'final': level 1 continues from the level before[^\n]*$"):
        train_and_prune(chain, 1, dense_mask("mlp"), load)


def parts(values, kind):
    return {name: value for name, value in values.items() if name.endswith(kind)}


def test_biases_that_are_kept_go_on_from_the_level_before_and_weights_from_theta0():
    """From the second pruned level on, in the chain and in what takes its masks."""
    config = tiny(rewind="keep_biases", biases="normal")
    chain = Unit(config, "ticket", 0)
    theta0 = initial("mlp", 0, "theta0", 0, biases="normal")
    dense, first, second = find_ticket(chain, load)
    assert same(dense.start, theta0) and same(first.start, theta0)
    assert same(parts(second.start, "weight"), parts(theta0, "weight"))
    assert same(parts(second.start, "bias"), parts(first.weights, "bias"))
    assert not same(parts(second.start, "bias"), parts(theta0, "bias"))
    for kind in (MaskOf, RandomLike):
        taker = Unit(config, "any", 0, mask=kind(chain), levels=(1, 2))
        assert taker.continues and same(starting_values(taker, 2, load, first.weights)[0], second.start)
        assert same(starting_values(taker, 1, load)[0], theta0)
    fresh = Unit(config, "any", 0, mask=MaskOf(chain), start=Fresh(), levels=(1, 2))
    assert not fresh.continues and same(starting_values(fresh, 2, load)[0],
                                        initial("mlp", 0, "reinit", 0, 2, biases="normal"))  # fmt: skip
    with pytest.raises(ValueError, match=r"^rewind = 'keep_biases': level 2 needs the level before[^\n]*$"):
        train_and_prune(chain, 2, dense_mask("mlp"), load)


def test_biases_that_are_drawn_leave_the_weights_as_they_are():
    zero, normal = (initial("lenet5", 0, "theta0", 0, biases=kind) for kind in ("zero", "normal"))
    assert same(parts(zero, "weight"), parts(normal, "weight"))
    drawn = torch.cat([*parts(normal, "bias").values()])
    assert not any(bias.any() for bias in parts(zero, "bias").values())
    assert len(drawn.unique()) == len(drawn) == 236 and abs(drawn.mean()) < 0.2 and abs(drawn.std() - 1) < 0.15
    other = initial("lenet5", 0, "reinit", 0, biases="normal")
    assert not any(torch.equal(parts(normal, "bias")[name], other[name]) for name in parts(normal, "bias"))


@pytest.mark.parametrize("value", ["nothing", "", 1, []])
@pytest.mark.parametrize(("setting", "rules"), [("criterion", methods.CRITERIA), ("rewind", methods.REWINDS)])
def test_a_name_that_there_is_not_is_refused_before_anything_is_trained(setting, rules, value):
    with pytest.raises(ValueError) as error:
        experiments.study("mlp", "smoke", overrides={setting: value})
    assert str(error.value) == f"{setting} = {value!r}: must be one of {', '.join(map(repr, rules))}"


# ------------------------------------------------------------------------------------------------- in the store


def finish(unit, levels):
    for level in levels:
        sweep.run_levels([(unit, level)])


def kept_files(unit):
    return {p.relative_to(store.runs()): p.read_bytes() for p in sorted((store.runs() / unit.key).rglob("*.*"))
            if p.name in ("rows.csv", "mask.safetensors", "weights.safetensors")}  # fmt: skip


def chain_of_three():
    return Unit(tiny(rewind="final", test_images=100, levels=(0, 1, 2), max_steps=5), "lr_rewind", 0)


def missing(unit):
    return [level for _, level in sweep.Plan([unit]).missing]


def test_an_interrupted_chain_without_reset_resumes_bit_for_bit(folders):
    store.make()
    unit = chain_of_three()
    finish(unit, unit.levels)
    assert missing(unit) == []
    whole_run = kept_files(unit)
    assert len(whole_run) == 3 + 2 + 3  # rows of each, masks but of the last, weights of each
    folder = store.runs() / unit.key

    for name in ("facts.json", "rows.csv"):  # the last level was not finished
        (folder / "level-02" / name).unlink()
    assert missing(unit) == [2]
    (folder / "level-01/weights.safetensors").write_bytes(b"damaged")  # nor can it go on from this one
    assert missing(unit) == [1, 2]
    finish(unit, missing(unit))
    assert kept_files(unit) == whole_run

    for level in unit.levels:  # nothing goes on from these any more: only the last is asked, and it has no follower
        (folder / f"level-{level:02d}/weights.json").unlink()
    assert missing(unit) == []
    (folder / "level-02/facts.json").unlink()
    assert missing(unit) == [0, 1, 2]
    finish(unit, missing(unit))
    assert kept_files(unit) == whole_run


def test_a_dense_network_that_criteria_share_is_trained_once_and_pruned_by_each(folders, monkeypatch):
    store.make()
    config = tiny(scope="global", test_images=100, levels=(0, 1), max_steps=5, rewind="final")
    chains = [Unit(dataclasses.replace(config, criterion=name), name, 0) for name in methods.CRITERIA]
    deleted = Unit(dataclasses.replace(config, rewind="reset", levels=(0,)), "deleted", 0, probes=("deletion",))
    for unit in chains:
        finish(unit, [0])
    alone = [kept_files(unit) for unit in chains]
    assert len({files[name] for files in alone for name in files if name.name == "mask.safetensors"}) == len(chains)
    (store.runs()).rename(folders / "alone")
    store.make()
    together, trained = [(unit, 0) for unit in chains], []
    assert len({unit.dense for unit in chains}) == 1 and deleted.dense != chains[0].dense
    train_level = lottery.train_level
    monkeypatch.setattr(lottery, "train_level", lambda units, *rest: trained.append(units) or train_level(units, *rest))
    sweep.run_levels(together)
    assert trained == [[chains[0]]] and [kept_files(unit) for unit in chains] == alone


def test_a_complete_chain_in_the_archive_is_finished_and_gives_its_weights_again(folders):
    store.make()
    unit = chain_of_three()
    finish(unit, unit.levels)
    weights = store.find_weights(unit, 2)
    archive.write([unit])
    (store.runs() / unit.key).rename(folders / "gone")
    formats.read_pack.cache_clear()
    assert missing(unit) == []
    with pytest.raises(ValueError, match="the values that it starts from have not been kept: train the weights first"):
        sweep.ticket(unit, 2)
    text, same_rows = sweep.keep_weights(unit, 2)
    assert same_rows and text.startswith("lr_rewind level 2")
    again = store.find_weights(unit, 2)
    assert all(np.array_equal(again.final[n], v) for n, v in weights.final.items())
    ticket = sweep.ticket(unit, 2)
    assert np.array_equal(ticket.values["fc1.weight"], store.find_weights(unit, 1).final["fc1.weight"])


def test_a_longer_chain_in_another_place_needs_the_weights(folders):
    """What the archive has of a shorter chain is no beginning for a longer one: weights are not in it."""
    store.make()
    config = tiny(rewind="final", test_images=100, levels=(), rounds=1, max_steps=5)
    short, long = (Unit(dataclasses.replace(config, rounds=rounds), "lr_rewind", 0) for rounds in (1, 2))
    assert short.key == long.key
    finish(short, short.levels)
    assert missing(long) == [1, 2]  # level 1 was the last, and has no mask for the next one
    archive.write([short])
    (store.runs() / short.key).rename(folders / "gone")
    formats.read_pack.cache_clear()
    assert missing(short) == [] and missing(long) == [0, 1, 2]


def test_estimates_know_that_retraining_is_shorter(monkeypatch):
    monkeypatch.setattr(estimate, "TIMES", {})  # what other tests have measured is not what is measured here
    monkeypatch.setattr(
        estimate, "_measure", lambda *_: ([0.001] * len(estimate.DENSITIES), [0.0] * len(estimate.DENSITIES))
    )
    unit = Unit(configure("mlp", "report", rewind="final", retrain_epochs=25), "finetune", 0)
    dense, first = (sweep.seconds_per_level(unit, level) - estimate.OVERHEAD for level in (0, 1))
    assert dense == pytest.approx(3 * first)


# --------------------------------------------------------------------------------------- the study as a whole


@pytest.fixture(scope="module")
def frame(module_folders):
    """A study on few images and steps, a replicate, in a store of its own."""
    options = {"max_steps": 4, "test_images": 100, "levels": (0, 1, 2), "rounds": 2}
    study = experiments.study("criteria", "smoke", overrides=options)
    store.make()
    for unit in sorted(study.units, key=lambda u: not u.prunes):
        finish(unit, unit.levels)
    return study, experiments.finished(study)


@pytest.mark.slow
def test_every_figure_and_table_is_drawn_from_the_finished_levels(frame):
    study, rows = frame
    assert set(rows["arm"]) == {unit.arm for unit in study.units} and len(study.units) == 14
    for name, function in study.experiment.figures.items():
        figure, drawn = function(study, rows)
        assert len(drawn) > 3, name
        plt.close(figure)
    assert rows.loc[rows["metric"] == "smaller_apart", "value"].max() < 1e-4
    judged = claims.judge(rows, study.config)
    assert set(judged["figure"]) == set(study.experiment.figures)


@pytest.mark.slow
def test_the_table_of_smaller_networks_counts_and_times_them(frame):
    study, rows = frame
    table = experiments.smaller(study, images=20, repeats=2)
    assert table["filters"].tolist() == ["6 + 16", "4 + 12", "3 + 9"]
    counted = statistics.at_end(rows, "multiply_adds", "mask")["filters"].groupby("level").first()
    assert table["multiply_adds"].tolist() == counted.tolist()
    assert table["times_faster"].iloc[0] == "1 [1, 1]"


def test_what_can_be_deleted_is_read_off_the_training_loss():
    densities, columns = (1.0, 0.5, 0.2), experiments.COLUMNS
    losses = {"obd": (0.1, 0.1, 0.4), "magnitude": (0.1, 0.3, 2.0), "random": (0.1, 0.11, 0.12)}
    rows = [
        ("criteria", "mlp", f"{name}_deleted", r, 0, 1.0, 9, 1.0, split, f"deleted_loss:{d}", value + (split == "test"))
        for name, values in losses.items() for r in (0, 1) for split in ("train", "test")
        for d, value in zip(densities, values, strict=True)
    ]  # fmt: skip
    gone = statistics.deletions(pd.DataFrame(rows, columns=columns))
    assert sorted(set(zip(gone["level"], gone["density"], strict=True))) == [(0, 1.0), (1, 0.5), (2, 0.2)]
    shares = {name: statistics.deletable(gone, f"{name}_deleted").tolist() for name in losses}
    assert shares["obd"] == pytest.approx([60, 60]) and shares["magnitude"] == pytest.approx([25, 25])
    assert shares["random"] == pytest.approx([80, 80])  # it never rises so far: the most that was tried


def published_table(swap=False):
    """Rows on which every claim holds, or none."""
    near, out = np.array([0.0, 0.02, -0.02]), []
    worse = {"lr_rewind": 5, "reset": 3, "finetune": 2, "obd_retrained": 20, "magnitude_retrained": 20, "filters": 5}
    levels = {"reset": {3: 98.0, 5: 97.5}, "lr_rewind": {3: 98.0, 5: 97.6}, "random_reinit": {5: 95.0},
              "finetune": {0: 98.0, 4: 97.9, 5: 97.0}, "obd_retrained": {0: 98.0, 2: 98.0, 5: 97.0},
              "magnitude_retrained": {5: 97.0}, "random_retrained": {5: 90.0},
              "filters": {0: 98.0, 1: 97.9, 3: 97.0}, "filters_reinit": {3: 96.0}}  # fmt: skip
    for arm, values in levels.items():
        for level, value in values.items():
            value -= worse.get(arm, 0) if swap and level else 0
            out += [(arm, r, level, "test", "accuracy", value + v) for r, v in enumerate(near)]
    for name, rise in (("obd", 0.2), ("magnitude", 0.4), ("random", 2.0)):
        rise = 1 / rise if swap else rise
        for r, v in enumerate(near):
            out += [(f"{name}_deleted", r, 0, "train", f"deleted_loss:{d}", 0.1 + (1 - d) * (rise + v))
                    for d in (1.0, 0.5, 0.1)]  # fmt: skip
    out += [("filters", r, k, "mask", "multiply_adds", v) for r in range(3) for k, v in ((0, 100.0), (1, 60.0))]
    rows = [("criteria", "mlp", arm, r, k, 0.5**k, 9, 1.0, split, m, v) for arm, r, k, split, m, v in out]
    return pd.DataFrame(rows, columns=experiments.COLUMNS)


def test_claims_hold_where_the_published_findings_come_out_and_not_elsewhere():
    config = configure("criteria", "report")
    for swap, expected in ((False, "holds"), (True, "does not hold")):
        fresh = published_table(swap).assign(replicate=lambda t: t["replicate"] + 3)  # nobody had seen them
        judged = claims.judge(fresh, config)
        verdicts = judged[judged["verdict"] != ""].set_index("claim")["verdict"]
        assert len(verdicts) == 10 and (verdicts == expected).all(), verdicts
    assert judged[judged["measured"].str.startswith("multiply-adds")]["ours"].tolist() == [pytest.approx(40)]


def test_what_a_criterion_or_a_rule_changes_in_place_is_its_own_copy(monkeypatch):
    """Arms that share their dense network are given the same tensors one after the other."""

    def zeroing(weights, mask, unit, data):
        for tensor in (*weights.values(), *mask.values()):
            tensor.zero_()
        return {name: weights[f"{name}.weight"] for name in mask}

    def doubling(unit, level, before, load):
        return {name: value.mul_(2) for name, value in before.items()}, 0

    monkeypatch.setitem(methods.CRITERIA, "zeroing", zeroing)
    monkeypatch.setitem(methods.REWINDS, "doubling", methods.RewindRule(doubling, needs_previous=True))
    unit = Unit(tiny(criterion="zeroing", rewind="doubling"), "own", 0)
    weights = lottery.initial("mlp", 0, "theta0", 0)
    mask = pruning.dense_mask("mlp")
    next_mask = pruning.by_criterion(unit, weights, mask, unit.config.schedule[1], None)
    assert {name: int(m.sum()) for name, m in next_mask.items()} == unit.config.schedule[1]
    assert all(m.all() for m in mask.values())
    before = {name: value.clone() for name, value in weights.items()}
    values, _ = lottery.starting_values(unit, 1, None, weights)
    assert all(torch.equal(value, before[name]) for name, value in weights.items())
    assert all(torch.equal(values[name], 2 * value) for name, value in before.items())


def test_the_documents_example_of_a_criterion_and_a_rule_runs(monkeypatch):
    text = (Path(__file__).resolve().parents[1] / "lthcore/README.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "CRITERIA" in block]
    monkeypatch.setitem(methods.CRITERIA, "grown", None)  # which is undone at the end
    monkeypatch.setitem(methods.REWINDS, "signs", None)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(example, space := {})
    lines, chain = said.getvalue().splitlines(), space["chain"]
    assert len(lines) == len(chain.levels) and [line.split()[0] for line in lines] == [
        str(chain.config.density(level)) for level in chain.levels
    ]
    assert chain.continues and "grown" in methods.CRITERIA and len([x for x in example.splitlines() if x.strip()]) < 16
