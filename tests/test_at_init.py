"""Pruning before training: SNIP and SynFlow against other code, and the study's masks, measures and figures by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from lthcore import data, lottery, methods, models, pruning
from lthcore.config import configure
from lthcore.probes import saliency
from lthcore.runs import store, sweep
from lthcore.studies import REGISTRY, at_init, experiments
from lthcore.unit import Fresh, MaskOf, RandomLike, Unit


def units(preset="report", replicate=5, **settings):
    return {unit.arm: unit for unit in REGISTRY["at_init"].arms(configure("at_init", preset, **settings), replicate)}


def unit_of(criterion, model="mlp", **settings):
    settings = {"scope": "global", "rounds": 2, "prune_rate": 0.6} | settings
    return Unit(configure("lenet5" if model == "lenet5" else "mlp", "smoke", levels=(), criterion=criterion,
                          **settings), "mine", 3)  # fmt: skip


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_snip_is_what_the_loss_loses_per_share_of_a_weight(model):
    """The derivative by a factor of one weight, by finite differences in float64 on the same mini-batch."""
    unit = unit_of("snip", model)
    split, weights = data.load(unit), lottery.drawn(unit, "theta0")
    scores = saliency.snip(weights, pruning.dense_mask(model), unit, split)
    random = np.random.default_rng(saliency.draw_seed(0, "snip", unit.config.experiment, 3))
    places = split.chosen[torch.from_numpy(random.permutation(len(split.chosen))[:100])]
    images, labels = split.train[0][places].double(), split.train[1][places]

    def loss(values):
        net = models.build(model).double()
        net.load_state_dict(values)
        with torch.no_grad():
            return F.cross_entropy(net(images), labels).item()

    exact = {name: value.double() for name, value in weights.items()}
    for layer in scores:
        strongest = [int(scores[layer].argmax()), *np.random.default_rng(1).integers(0, scores[layer].numel(), 3)]
        for place in map(int, strongest):
            ends = []
            for factor in (1 - 1e-4, 1 + 1e-4):
                values = {name: value.clone() for name, value in exact.items()}
                values[f"{layer}.weight"].view(-1)[place] *= factor
                ends.append(loss(values))
            assert scores[layer].view(-1)[place].item() == pytest.approx(abs(ends[1] - ends[0]) / 2e-4, abs=1e-8)


def test_snip_prunes_once():
    """Whatever has been pruned, the whole network is scored: nested masks, each that of pruning theta0 at once."""
    unit = unit_of("snip")
    split, weights = data.load(unit), lottery.drawn(unit, "theta0")
    dense = pruning.dense_mask("mlp")
    first, second = (unit.config.schedule[k] for k in (1, 2))
    by_steps = dense
    for counts in (first, second):
        by_steps = pruning.by_criterion(unit, weights, by_steps, counts, split)
    at_once = pruning.by_criterion(unit, weights, dense, second, split)
    assert all(torch.equal(by_steps[name], at_once[name]) for name in dense)


def test_another_replicate_has_another_mini_batch():
    one, other = unit_of("snip"), replace(unit_of("snip"), replicate=4)
    weights = lottery.drawn(one, "theta0")
    dense = pruning.dense_mask("mlp")
    found = [saliency.snip(weights, dense, unit, data.load(one))["head"] for unit in (one, one, other)]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def linear(weights, mask, image):
    """R as a function of the absolute weights, for torch to differentiate."""
    sizes = {name: (weights[f"{name}.weight"].double().abs() * mask[name]).requires_grad_() for name in mask}
    x = image
    for name, size in sizes.items():
        x = F.linear(x, size, weights[f"{name}.bias"].double().abs())
    x.sum().backward()
    return {name: size.grad * size.detach() for name, size in sizes.items()}


@pytest.mark.parametrize("biases", ["zero", "normal"])
def test_flow_is_that_of_automatic_differentiation_and_is_conserved(biases):
    unit = unit_of("synflow", biases=biases)
    weights = lottery.drawn(unit, "theta0")
    mask = pruning.random_mask({name: m & (torch.rand(m.shape) < 0.3) for name, m in pruning.dense_mask("mlp").items()},
                               "mlp", 0, 0)  # fmt: skip
    found = saliency.flow(weights, mask)
    for name, expected in linear(weights, mask, torch.ones(784, dtype=torch.float64)).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=0)
    sums = [float(score.sum()) for score in found.values()]  # Tanaka et al. 2020, theorem 2
    assert biases == "normal" or sums == pytest.approx([sums[0]] * 3, rel=1e-9)


def synflow_by_numpy(weights, counts, rounds=100):
    """Algorithm 1 again, over one flat ranking of all layers: masks as arrays, by layer."""
    sizes = {name: np.abs(weights[f"{name}.weight"].double().numpy()) for name in ("fc1", "fc2", "head")}
    kept = {name: np.ones(size.shape, bool) for name, size in sizes.items()}
    total = sum(size.size for size in sizes.values())
    for i in range(1, rounds + 1):
        a, b, c = (sizes[name] * kept[name] for name in ("fc1", "fc2", "head"))
        below, above = a.sum(1), c.sum(0)
        flows = [a * (b.T @ above)[:, None], above[:, None] * b * below, c * (b @ below)]
        flat = np.concatenate([f.ravel() for f in flows])
        n = round(total * (counts / total) ** (i / rounds))
        alive = np.concatenate([kept[name].ravel() for name in kept])
        order = np.argsort(-np.where(alive, flat, -1), kind="stable")[:n]
        alive = np.zeros_like(alive)
        alive[order] = True
        ends = np.cumsum([size.size for size in sizes.values()])[:-1]
        kept = {name: part.reshape(kept[name].shape) for name, part in zip(kept, np.split(alive, ends), strict=True)}
    return kept


def test_synflow_is_the_published_algorithm():
    unit = unit_of("synflow", prune_rate=0.9, rounds=1)
    weights, counts = lottery.drawn(unit, "theta0"), unit.config.schedule[1]
    found = pruning.by_criterion(unit, weights, pruning.dense_mask("mlp"), counts, None)
    expected = synflow_by_numpy(weights, counts["*"])
    for name, mask in expected.items():
        assert (found[name].numpy() != mask).mean() < 1e-4  # the order of two sums may decide a tie


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_synflow_orders_what_it_prunes(scope):
    """Fewer weights than the next level's may be pruned by the same scores, as by hand; few are equal."""
    unit = unit_of("synflow", scope=scope)
    weights, dense = lottery.drawn(unit, "theta0"), pruning.dense_mask("mlp")
    scores = pruning.scored(unit, weights, dense, None)
    following, pools = unit.config.schedule[1], unit.config.schedule[0]
    kept = pruning.keep_top(scores, dense, following)
    for name, score in scores.items():
        assert torch.equal(score >= 0, kept[name]) and len(score[score < 0].unique()) > 0.95 * (score < 0).sum()
    more = pruning.keep_top(scores, dense, {pool: (n + pools[pool]) // 2 for pool, n in following.items()})
    assert all(bool((more[name] | ~kept[name]).all()) for name in dense)
    last = pruning.keep_top(scores, dense, unit.config.schedule[2])
    assert {name: m.shape for name, m in pruning.scored(unit, weights, last, None).items()} == {
        name: m.shape for name, m in dense.items()
    }  # after the last level nothing is left to prune


def test_only_synflow_refuses_convolutions():
    configure("lenet5", criterion="snip"), configure("lenet5", criterion="initial_magnitude")
    with pytest.raises(ValueError, match=r"^criterion = 'synflow': needs a network of fully connected layers[^\n]*$"):
        configure("lenet5", criterion="synflow")
    with pytest.raises(ValueError, match=r"^early_bird = 0.1: must be 0 with criterion = 'snip'[^\n]*$"):
        configure("mlp", criterion="snip", early_bird=0.1)


# ------------------------------------------------------------------------------------------------------- the study


def test_masks_have_as_many_weights_as_the_tickets_and_controls_their_layers():
    found = units()
    ticket = found["ticket"].config
    for arm, criterion in at_init.METHODS.items():
        unit = found[arm]
        assert (unit.config.criterion, unit.config.scope, unit.levels) == (criterion, "global", (0, 5, 7, 9, 11))
        assert methods.find("criterion", criterion).when == ("trained" if arm == "trained" else "start")
        for level in at_init.LEVELS:
            assert abs(unit.config.schedule[level]["*"] - sum(ticket.schedule[level].values())) <= 1
        shuffled, fresh = (found[name] for name in at_init.CHECKS[arm])
        assert shuffled.mask == RandomLike(unit) and fresh.mask == MaskOf(unit) and fresh.start == Fresh()
        assert shuffled.levels == fresh.levels == at_init.LEVELS
    there = {unit.arm: unit for unit in REGISTRY["mlp"].arms(configure("mlp", "report"), 5)}
    for arm in ("ticket", *at_init.CHECKS["ticket"]):
        assert found[arm].key == there[arm].key and store.find_level(found[arm], 9)
    assert {arm for arm in found if arm in at_init.METHODS} | {"ticket"} == set(units(controls=0))
    assert ticket.schedule[9]["head"] == 41  # of 1,000, as notebook 17 says


def test_the_chains_share_their_dense_network():
    found = units()
    assert len({found[arm].dense for arm in at_init.METHODS}) == 1


def table():
    """Tidy rows of two replicates of two epochs: dense, and every mask at level 9 as it is, shuffled and fresh."""
    accuracies = {"ticket": (97, 90, 96), "trained": (97.5, 95, 96.5), "snip": (96, 96.2, 95.9),
                  "synflow": (95, 94, 94.9), "initial": (96.5, 96.4, 96.3)}  # fmt: skip
    rows = []
    for replicate, more in ((5, 0.0), (6, 0.2)):
        networks = [(arm, 0, 98.0) for arm in accuracies]
        for arm, (itself, *checks) in accuracies.items():
            networks += [
                (arm, 9, itself + more),
                *((name, 9, seen) for name, seen in zip(at_init.CHECKS[arm], checks, strict=True)),
            ]
        for arm, level, accuracy in networks:
            facts = {f"kept:{layer}": n for layer, n in (("fc1", 5000), ("fc2", 5000), ("head", 742))}
            at = arm, level, 0.04 if level else 1.0, replicate
            for epoch, off in ((1, -9), (2, 0)):
                rows.append((*at, 100 * epoch, epoch, "test", "accuracy", accuracy + off))
            rows += [(*at, 200, 2, "mask", name, value) for name, value in facts.items()]
    return pd.DataFrame(
        rows, columns=["arm", "level", "density", "replicate", "step", "epoch", "split", "metric", "value"]
    )


@pytest.mark.parametrize(
    ("claim", "means", "judged"),
    [
        ("init-snip", [-1.9], 1),
        ("init-random", [6.1, 5.1, 6.6], 3),
        ("init-trained", [1.5, 2.5, 1.0, 1.0, 2.0, 0.5], 3),
        ("init-shuffled", [-0.1, 1.1, 0.2], 3),
        ("init-fresh", [0.2, 0.2, 0.3], 3),
        ("init-unlike", [2.6, 1.1], 2),
    ],
)
def test_the_claims_by_hand(claim, means, judged):
    found = {c.id: c for c in REGISTRY["at_init"].claims}[claim].measures(table(), configure("at_init", "report"))
    assert [m.values.mean() for m in found] == pytest.approx(means)
    assert sum(m.judged for m in found) == judged and all(m.level == 9 and len(m.values) == 2 for m in found)
    bounds = {(m.above, m.below) for m in found if m.judged}
    inf = float("inf")
    expected = {"init-snip": (-0.5, inf), "init-shuffled": (-inf, 0.5), "init-fresh": (-inf, 0.5)}
    assert bounds == {expected.get(claim, (0, inf))}


def test_the_layers_of_a_mask_are_drawn_in_percent():
    study = experiments.study("at_init", "report")
    _, drawn = at_init.fig17b(study, table())
    rows = drawn[drawn["panel"] == "density of each layer"]
    assert set(rows["arm"]) == set(at_init.CHECKS)
    shares = rows[rows["arm"] == "snip"].set_index("layer")["mean"]
    assert shares.to_dict() == pytest.approx({"fc1": 100 * 5000 / 235200, "fc2": 100 * 5000 / 30000, "head": 74.2})


def test_a_mask_chosen_before_training_needs_none(folders, finish):
    """Its chain's masks are those of theta0, which has seen no image; after training they are others."""
    study = finish(
        experiments.study("at_init", "smoke", overrides={"max_steps": 3, "test_images": 20, "levels": (0, 1)})
    )
    chains = {unit.arm: unit for unit in study.units if unit.arm in at_init.METHODS}
    theta0 = lottery.drawn(chains["snip"], "theta0")
    for arm, unit in chains.items():
        split = data.load(unit)
        expected = pruning.by_criterion(unit, theta0, pruning.dense_mask("mlp"), unit.config.schedule[1], split)
        found = sweep.mask_at(unit, 1)
        assert all(np.array_equal(found[name], expected[name].numpy()) for name in found) == (arm != "trained")
        shuffled = sweep.mask_at(next(u for u in study.units if u.arm == f"{arm}_shuffled"), 1)
        assert {n: m.sum() for n, m in shuffled.items()} == {n: m.sum() for n, m in found.items()}
        assert (shuffled["fc1"] & found["fc1"]).sum() < 0.9 * found["fc1"].sum()


def test_every_mask_in_short():
    found = at_init.in_short(table())
    found = found.map(lambda text: text.replace("\N{NO-BREAK SPACE}", " "))  # which keeps an interval on one line
    assert found.index.tolist() == [at_init.STYLES[arm][0] for arm in (*at_init.CHECKS, "random_mask")]
    row = found.loc["SNIP"]
    assert row["as it is"].startswith("96.10 [") and row["shuffled"].startswith("96.20") and row["fc1 kept"] == "2.13%"
    assert found.loc["random mask", ["as it is", "shuffled"]].tolist() == ["90.00 [90.00, 90.00]", ""]
    assert at_init.in_short(table().query("level == 0")).loc["SNIP", "as it is"] == ""


def test_rounds_from_level_to_level_give_nearly_the_published_mask():
    """At 4% density: 100 rounds from each density to the next, against 100 from the dense network."""
    unit = units()["synflow"]
    weights, mask = lottery.drawn(unit, "theta0"), pruning.dense_mask("mlp")
    for level in (5, 7, 9):
        mask = pruning.by_criterion(unit, weights, mask, unit.config.schedule[level], None)
    once = synflow_by_numpy(weights, unit.config.schedule[9]["*"])
    shared = sum(int((mask[name].numpy() & once[name]).sum()) for name in once)
    assert shared / unit.config.schedule[9]["*"] > 0.95  # as notebook 17 says
