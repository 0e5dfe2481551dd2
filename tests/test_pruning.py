"""Masks: exact counts, the right weights, honest controls, and what is left alive."""

import math
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn.utils import prune

from lthcore import studies
from lthcore.config import configure
from lthcore.models import initial
from lthcore.probes.collapse import diagnose, live_units, on_path
from lthcore.pruning import dense_mask, keep_top, magnitudes, random_mask
from lthcore.schedule import ARCHITECTURES, apportion

SETTINGS = settings(max_examples=80, deadline=None)
SIZES = {model: {n: math.prod(s) for n, s in a.weights.items()} for model, a in ARCHITECTURES.items()}


def oracle(scores, mask, pools):
    """Which to keep, by sorting a list: the largest score first, and of equal ones the earlier."""
    out = {name: np.zeros(m.shape, bool) for name, m in mask.items()}
    for names, count in pools:
        alive = [
            (-float(scores[name].reshape(-1)[i]), k, i)
            for k, name in enumerate(names)
            for i in range(mask[name].numel())
            if mask[name].reshape(-1)[i]
        ]
        for _, k, i in sorted(alive)[:count]:
            out[names[k]].reshape(-1)[i] = True
    return {name: torch.from_numpy(m) for name, m in out.items()}


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def counted(mask):
    return {name: int(m.sum()) for name, m in mask.items()}


def within(inner, outer):
    return all(not (inner[name] & ~outer[name]).any() for name in outer)


@st.composite
def layers(draw):
    """Weights of one to three layers, of few different values so that many tie, and survivors so far."""
    shapes = draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=3))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = draw(st.sampled_from([1, 3, 1000]))
    weights, mask = {}, {}
    for i, shape in enumerate(shapes):
        weights[f"layer{i}.weight"] = torch.from_numpy(random.integers(-values, values + 1, shape) / 8).float()
        mask[f"layer{i}"] = torch.from_numpy(random.random(shape) < draw(st.sampled_from([0.2, 0.8, 1.1])))
    return weights, mask


def magnitude(weights, mask, counts):
    """Prune the smallest final magnitudes."""
    return keep_top(magnitudes(weights, mask), mask, counts)


# ---- which weights are kept ------------------------------------------------------------------------------------------


@SETTINGS
@given(layers(), st.data())
def test_layer_by_layer_the_largest_magnitudes_are_kept(drawn, choice):
    weights, mask = drawn
    counts = {name: choice.draw(st.integers(0, n)) for name, n in counted(mask).items()}
    kept = magnitude(weights, mask, counts)
    assert counted(kept) == counts  # exactly, whatever the ties: not one more
    assert within(kept, mask)
    scores = {name: np.abs(weights[f"{name}.weight"].numpy()) for name in mask}
    assert same(kept, oracle(scores, mask, [([name], counts[name]) for name in mask]))
    for name, m in mask.items():
        dropped = m & ~kept[name]
        if dropped.any() and kept[name].any():
            assert scores[name][kept[name].numpy()].min() >= scores[name][dropped.numpy()].max()


@SETTINGS
@given(layers(), st.booleans(), st.data())
def test_globally_all_layers_are_ranked_together(drawn, separate, choice):
    weights, mask = drawn
    separate = separate and len(mask) > 1
    last = list(mask)[-1]
    together = [name for name in mask if not (separate and name == last)]
    alive = counted(mask)
    counts = {"*": choice.draw(st.integers(0, sum(alive[name] for name in together)))}
    if separate:
        counts[last] = choice.draw(st.integers(0, alive[last]))
    kept = magnitude(weights, mask, counts)
    assert list(kept) == list(mask)
    assert sum(counted(kept)[name] for name in together) == counts["*"]
    scores = {name: np.abs(weights[f"{name}.weight"].numpy()) for name in mask}
    pools = [(together, counts["*"])] + ([([last], counts[last])] if separate else [])
    assert same(kept, oracle(scores, mask, pools))


@SETTINGS
@given(layers(), st.integers(0, 2**32 - 1))
def test_the_sign_of_a_weight_does_not_matter(drawn, seed):
    weights, mask = drawn
    random = np.random.default_rng(seed)
    flipped = {n: w * torch.from_numpy(random.choice([-1.0, 1.0], tuple(w.shape))).float() for n, w in weights.items()}
    counts = {name: n // 2 for name, n in counted(mask).items()}
    assert same(magnitude(weights, mask, counts), magnitude(flipped, mask, counts))


def test_negative_weights_are_pruned_by_magnitude():
    weights = {"a.weight": torch.tensor([[-0.1, -9.0, 0.2], [-0.3, 8.0, -0.05]])}
    kept = magnitude(weights, {"a": torch.ones(2, 3, dtype=torch.bool)}, {"a": 3})
    assert kept["a"].tolist() == [[False, True, False], [True, True, False]]


@pytest.mark.parametrize("count", range(7))
def test_of_equal_weights_the_earlier_is_kept(count):
    kept = magnitude({"a.weight": torch.full((2, 3), -0.5)}, {"a": torch.ones(2, 3, dtype=torch.bool)}, {"a": count})
    assert kept["a"].flatten().tolist() == [True] * count + [False] * (6 - count)


def test_a_large_tensor_with_many_ties_keeps_exactly_as_many_as_counted():
    random = np.random.default_rng(0)
    weight = torch.from_numpy(random.integers(-3, 4, (300, 784))).float()
    mask = {"fc1": torch.from_numpy(random.random((300, 784)) < 0.5)}
    kept = magnitude({"fc1.weight": weight}, mask, {"fc1": 12_345})["fc1"]
    assert kept.sum() == 12_345
    edge = weight.abs()[kept].min()
    tied = (mask["fc1"] & (weight.abs() == edge)).flatten().nonzero().flatten()
    chosen = kept.flatten()[tied]
    assert 0 < chosen.sum() < len(tied)  # the tie is at the threshold
    assert chosen.long().diff().max() <= 0  # kept first, then pruned


def test_a_pruned_weight_never_returns_however_large_it_is():
    mask = {"a": torch.tensor([True, False, True, True])}
    kept = magnitude({"a.weight": torch.tensor([0.0, 99.0, 0.1, -0.2])}, mask, {"a": 3})
    assert same(kept, mask)


def test_neither_scores_nor_mask_are_changed():
    weights, mask = {"a.weight": torch.tensor([3.0, -2.0, 1.0])}, {"a": torch.tensor([True, True, True])}
    kept = magnitude(weights, mask, {"a": 1})
    assert weights["a.weight"].tolist() == [3, -2, 1]
    assert mask["a"].all()
    assert kept["a"].data_ptr() != mask["a"].data_ptr()


def test_refuses_to_keep_more_than_survive_and_what_is_not_a_number():
    mask = {"a": torch.tensor([True, False])}
    with pytest.raises(ValueError, match="cannot keep 2 weights of a: only 1"):
        keep_top({"a": torch.ones(2)}, mask, {"a": 2})
    with pytest.raises(ValueError, match="not a number"):
        keep_top({"a": torch.tensor([float("nan"), 1.0])}, mask, {"a": 1})
    assert keep_top({"a": torch.tensor([1.0, float("nan")])}, mask, {"a": 1})["a"].tolist() == [True, False]


# ---- against torch's own pruning -------------------------------------------------------------------------------------


def modules(model, seed):
    random = np.random.default_rng(seed)
    out = {}
    for name, shape in ARCHITECTURES[model].weights.items():
        out[name] = torch.nn.Module()
        out[name].weight = torch.nn.Parameter(torch.from_numpy(random.standard_normal(shape).astype(np.float32)))
    return out


def assert_agrees_with_torch(model, scope, cut, rounds=3):
    ours, theirs = dense_mask(model), modules(model, 0)
    for round_ in range(rounds):
        for name, trained in modules(model, round_).items():  # every round ends with other weights
            module = theirs[name]
            with torch.no_grad():
                getattr(module, "weight_orig", module.weight).copy_(trained.weight)
                module.weight.data = trained.weight * ours[name]
        counts = cut(ours)
        removed = {name: n - counts.get(name, 0) for name, n in counted(ours).items()}
        if scope == "layer":
            for name, module in theirs.items():
                prune.l1_unstructured(module, "weight", amount=removed[name])
        else:
            amount = sum(counted(ours).values()) - counts["*"]
            pool = [(module, "weight") for module in theirs.values()]
            prune.global_unstructured(pool, pruning_method=prune.L1Unstructured, amount=amount)
        weights = {f"{name}.weight": m.weight_orig.detach() for name, m in theirs.items()}
        ours = magnitude(weights, ours, counts)
        assert same(ours, {name: m.weight_mask.bool() for name, m in theirs.items()}), round_


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_three_rounds_by_layer_agree_with_torch(model):
    assert_agrees_with_torch(model, "layer", lambda mask: {n: k - round(0.3 * k) for n, k in counted(mask).items()})


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_three_global_rounds_agree_with_torch(model):
    assert_agrees_with_torch(model, "global", lambda mask: {"*": round(0.6 * sum(counted(mask).values()))})


# ---- how many are kept -----------------------------------------------------------------------------------------------


def recursion(n, rate, rounds):
    """In decimal arithmetic: 0.35 of 650 is a tie, which it is not in binary."""
    out = [n]
    for _ in range(rounds):
        pruned = (Decimal(str(rate)) * out[-1]).to_integral_value(ROUND_HALF_EVEN)
        out.append(out[-1] - int(pruned))
    return out


@pytest.mark.parametrize("experiment", studies.names("report"))
def test_every_tensor_keeps_n_minus_round_p_n(experiment):
    config = configure(experiment, "report")
    assert len(config.schedule) == config.rounds + 1
    for name, n in SIZES[config.model].items():
        assert [level[name] for level in config.schedule] == recursion(n, config.prune_rate, config.rounds)


@SETTINGS
@given(
    model=st.sampled_from(["mlp", "lenet5"]),
    rate=st.floats(0.01, 0.99),
    rounds=st.integers(1, 30),
    scope=st.sampled_from(["layer", "global"]),
    output_rate=st.one_of(st.none(), st.floats(0, 0.99)),
)
def test_schedules_of_any_rate(model, rate, rounds, scope, output_rate):
    config = configure(model, prune_rate=rate, rounds=rounds, scope=scope, output_rate=output_rate)
    names = list(SIZES[model])
    pools = {"*": names} if scope == "global" else {name: [name] for name in names}
    if output_rate is not None and scope == "global":
        pools = {"*": names[:-1], names[-1]: names[-1:]}
    assert set(config.schedule[0]) == set(pools)
    for pool, members in pools.items():
        current = output_rate if output_rate is not None and members == names[-1:] else rate
        n = sum(SIZES[model][name] for name in members)
        for level in config.schedule:
            assert abs(level[pool] - n) <= 0.5 + 1e-6 or level is config.schedule[0]
            n = (1 - current) * level[pool]
    assert config.density(0) == 1
    densities = [config.density(k) for k in range(rounds + 1)]
    assert densities == sorted(densities, reverse=True)
    assert densities[-1] >= 0


@pytest.mark.parametrize(("level", "percent"), [(3, 51.28), (7, 21.07), (9, 13.52), (15, 3.58), (16, 2.87)])
def test_the_papers_densities(level, percent):
    """Frankle & Carbin 2019: 20% a round, the output layer 10%."""
    config = configure("mlp", prune_rate=0.2, output_rate=0.1)
    assert 100 * config.density(level) == pytest.approx(percent, abs=0.006)


def test_counts_at_which_the_heads_collapse():
    mlp, lenet = configure("mlp").schedule, configure("lenet5").schedule
    assert [mlp[k]["head"] for k in (0, 13, 14, 18, 20)] == [1000, 10, 7, 1, 1]
    assert (lenet[14]["conv1"], lenet[20]["conv1"], lenet[20]["head"]) == (7, 2, 10)
    assert configure("task2").schedule[15]["head"] == 2
    assert configure("task3").schedule[10]["head"] == 1


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_an_output_rate_of_0_spares_the_head(scope):
    config = configure("mlp", output_rate=0, scope=scope)
    assert {level["head"] for level in config.schedule} == {1000}
    assert config.schedule[20][{"layer": "fc1", "global": "*"}[scope]] < 1000


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3, 0.5, 0.9])
@pytest.mark.parametrize(("model", "smallest"), [("mlp", "head"), ("lenet5", "conv1")])
def test_sparing_the_smallest_layer_keeps_it_whole_and_the_totals(model, smallest, rate):
    plain = configure(model, prune_rate=rate)
    spared = replace(plain, spare="smallest")
    assert SIZES[model][smallest] == min(SIZES[model].values())
    before = SIZES[model]
    for k, level in enumerate(spared.schedule):
        assert level[smallest] == SIZES[model][smallest]
        assert sum(level.values()) == sum(plain.schedule[k].values())
        assert spared.density(k) == plain.density(k)
        assert all(level[name] <= before[name] for name in level)  # so the masks can be nested
        before = level
    assert spared.trained_levels == tuple(range(len(spared.schedule)))
    if len(spared.schedule) <= plain.rounds:  # it ends only where the others would be left with next to nothing
        left = sum(plain.schedule[len(spared.schedule)].values()) - SIZES[model][smallest]
        assert left < len(SIZES[model]) - 1


def test_sparing_a_layer_never_empties_another():
    """`_spared` ends the chain where nothing would be left of the other layers."""
    for rate in (0.14, 0.3):
        for level in configure("mlp", prune_rate=rate, rounds=60, spare="smallest").schedule:
            assert min(level.values()) > 0


@SETTINGS
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6), st.data())
def test_apportion_is_exact_and_within_one_of_the_share(counts, choice):
    counts = {f"layer{i}": n for i, n in enumerate(counts)}
    total = choice.draw(st.integers(0, sum(counts.values())))
    shares = apportion(counts, total)
    assert list(shares) == list(counts)
    assert sum(shares.values()) == total
    for name, n in counts.items():
        assert abs(shares[name] - Fraction(n * total, sum(counts.values()))) < 1
        assert 0 <= shares[name] <= n


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_one_shot_reaches_the_density_of_as_many_rounds(model, scope):
    steps = configure(model, scope=scope, rounds=8)
    at_once = replace(steps, levels=(0, 8))
    assert at_once.trained_levels == (0, 8)
    assert at_once.density(8) == steps.density(8) < 0.2
    random = np.random.default_rng(0)
    mask = dense_mask(model)
    for level in range(1, 9):
        trained = {f"{n}.weight": torch.from_numpy(random.standard_normal(m.shape)) for n, m in mask.items()}
        mask = magnitude(trained, mask, steps.schedule[level])
    once = magnitude(trained, dense_mask(model), at_once.schedule[8])
    total = sum(counted(once).values())
    assert total == sum(counted(mask).values()) == round(steps.density(8) * sum(SIZES[model].values()))
    if scope == "layer":
        assert counted(once) == counted(mask)


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
@pytest.mark.parametrize(("sparsity", "rounds"), [(0.5, 3), (0.9, 5), (0.99, 10)])
def test_a_rate_per_round_reaches_the_overall_sparsity(model, sparsity, rounds):
    config = configure(model, prune_rate=1 - (1 - sparsity) ** (1 / rounds), rounds=rounds)
    counts, rounding = config.schedule[rounds], 0.5 * rounds
    for name, n in SIZES[model].items():
        assert abs(counts[name] - (1 - sparsity) * n) <= rounding
    slip = configure(model, prune_rate=sparsity ** (1 / rounds), rounds=rounds)  # as the paper prints it
    assert abs(slip.density(rounds) - (1 - sparsity)) > 0.005


# ---- masks of the networks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_only_weights_are_masked(model):
    mask = dense_mask(model)
    assert {f"{name}.weight" for name in mask} == {n for n in initial(model, 0, "theta0", 0) if n.endswith("weight")}
    assert all(m.dtype == torch.bool and m.all() for m in mask.values())
    kept = magnitude(initial(model, 0, "theta0", 0), mask, {n: k // 2 for n, k in SIZES[model].items()})
    assert [(name, m.shape) for name, m in kept.items()] == [(name, m.shape) for name, m in mask.items()]


def chain(model, rounds=6, rate=0.5):
    """Masks of a chain whose weights are drawn afresh every round."""
    config = configure(model, prune_rate=rate, rounds=rounds)
    masks = [dense_mask(model)]
    for level in range(1, rounds + 1):
        masks.append(magnitude(initial(model, 0, "reinit", level), masks[-1], config.schedule[level]))
    return masks


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_random_masks_have_the_tickets_counts_and_are_nested(model):
    masks = chain(model)
    randoms = [random_mask(mask, model, 0, 0) for mask in masks]
    for ticket, random in zip(masks, randoms, strict=True):
        assert counted(random) == counted(ticket)
        assert list(random) == list(ticket)
    assert all(within(b, a) for a, b in pairwise(randoms))
    for name, m in randoms[1].items():  # half of each, chosen without regard to the ticket
        n = m.numel()
        assert not torch.equal(m, masks[1][name])
        assert abs(int((m & masks[1][name]).sum()) - n / 4) < 4 * math.sqrt(n) / 4 + 1


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_a_random_mask_depends_on_seed_model_and_replicate_alone(model):
    mask = chain(model)[1]
    torch.manual_seed(1)
    one = random_mask(mask, model, 0, 0)
    torch.manual_seed(2)
    assert same(one, random_mask(mask, model, 0, 0))
    other = {name: m.flip(0) for name, m in mask.items()}  # another ticket with the same counts
    assert not same(other, mask)
    assert same(one, random_mask(other, model, 0, 0))
    assert not same(one, random_mask(mask, model, 1, 0))
    assert not same(one, random_mask(mask, model, 0, 1))


def test_random_masks_choose_every_place_about_equally_often():
    mask = {"head": torch.arange(40).view(4, 10) < 10}
    times = sum(random_mask(mask, "mlp", 0, r)["head"].double() for r in range(400))
    assert times.sum() == 4000
    assert (times - 100).abs().max() < 5 * math.sqrt(400 * 0.25 * 0.75)


# ---- what is left alive ----------------------------------------------------------------------------------------------


def slow_mlp(mask):
    """Reachability by boolean matrix products, from the pixels forward and from the outputs backward."""
    ms = [mask[name].numpy() for name in ("fc1", "fc2", "head")]
    forward = [np.ones(784, bool)]
    for m in ms:
        forward.append((m.astype(int) @ forward[-1].astype(int)) > 0)
    backward = [np.ones(10, bool)]
    for m in reversed(ms):
        backward.insert(0, (m.T.astype(int) @ backward[0].astype(int)) > 0)
    return {
        name: torch.from_numpy(m & np.outer(backward[i + 1], forward[i]))
        for i, (name, m) in enumerate(zip(("fc1", "fc2", "head"), ms, strict=True))
    }


def slow_lenet5(mask):
    """The same for feature maps: place by place and tap by tap, pooling by `any` of four."""
    m = {name: v.numpy() for name, v in mask.items()}

    def shifted(x, dy, dx, rows, columns):
        return x[dy : dy + rows, dx : dx + columns]

    def forward_conv(x, kernel):
        rows, columns = x.shape[1] - 4, x.shape[2] - 4
        y = np.zeros((len(kernel), rows, columns), bool)
        for o, i, dy, dx in np.argwhere(kernel):
            y[o] |= shifted(x[i], dy, dx, rows, columns)
        return y

    def backward_conv(needed, kernel, shape):
        x = np.zeros(shape, bool)
        for o, i, dy, dx in np.argwhere(kernel):
            x[i, dy : dy + needed.shape[1], dx : dx + needed.shape[2]] |= needed[o]
        return x

    def pooled(x):
        return x[:, ::2, ::2] | x[:, 1::2, ::2] | x[:, ::2, 1::2] | x[:, 1::2, 1::2]

    def live_taps(x, needed, kernel):
        live = np.zeros_like(kernel)
        for o, i, dy, dx in np.argwhere(kernel):
            live[o, i, dy, dx] = (shifted(x[i], dy, dx, *needed.shape[1:]) & needed[o]).any()
        return live

    def product(matrix, vector):
        return (matrix.astype(int) @ vector.astype(int)) > 0

    x0 = np.pad(np.ones((1, 28, 28), bool), ((0, 0), (2, 2), (2, 2)))
    x1 = pooled(forward_conv(x0, m["conv1"]))
    x2 = pooled(forward_conv(x1, m["conv2"])).reshape(-1)
    x3 = product(m["fc1"], x2)
    x4 = product(m["fc2"], x3)
    n4 = product(m["head"].T, np.ones(10, bool))
    n3 = product(m["fc2"].T, n4)
    n2 = product(m["fc1"].T, n3).reshape(16, 5, 5).repeat(2, 1).repeat(2, 2)
    n1 = backward_conv(n2, m["conv2"], x1.shape).repeat(2, 1).repeat(2, 2)
    return {
        name: torch.from_numpy(live)
        for name, live in {
            "conv1": live_taps(x0, n1, m["conv1"]),
            "conv2": live_taps(x1, n2, m["conv2"]),
            "fc1": m["fc1"] & np.outer(n3, x2),
            "fc2": m["fc2"] & np.outer(n4, x3),
            "head": m["head"] & np.outer(np.ones(10, bool), x4),
        }.items()
    }


SLOW = {"mlp": slow_mlp, "lenet5": slow_lenet5}


@st.composite
def sparse_masks(draw, model):
    """Random masks, each layer with some 1 to 200 weights or none, or all."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    mask = {}
    for name, shape in ARCHITECTURES[model].weights.items():
        n = math.prod(shape)
        kept = draw(st.sampled_from([0, 1, 3, 10, 30, 100, 200, n]))
        flat = np.zeros(n, bool)
        flat[random.choice(n, min(kept, n), replace=False)] = True
        mask[name] = torch.from_numpy(flat.reshape(shape))
    return mask


def assert_diagnosis(model, mask):
    live, slow = on_path(model, mask), SLOW[model](mask)
    assert same(live, slow)
    facts = diagnose(model, mask)
    for name, m in mask.items():
        units = sorted({int(i) for i in np.argwhere(slow[name].numpy())[:, 0]})
        assert live_units(live, name) == units
        assert facts[f"live_units:{name}"] == len(units)
        assert facts[f"kept:{name}"] == int(m.sum())
        assert facts[f"on_path:{name}"] == int(slow[name].sum())
    total = sum(m.numel() for m in mask.values())
    assert facts["live_outputs"] == int(slow["head"].any(1).sum())
    assert facts["density"] == pytest.approx(sum(int(m.sum()) for m in mask.values()) / total)
    assert facts["effective_density"] == pytest.approx(sum(int(m.sum()) for m in slow.values()) / total)


@settings(max_examples=60, deadline=None)
@given(sparse_masks("mlp"))
def test_live_paths_of_the_mlp(mask):
    assert_diagnosis("mlp", mask)


@settings(max_examples=25, deadline=None)
@given(sparse_masks("lenet5"))
def test_live_paths_of_lenet5(mask):
    assert_diagnosis("lenet5", mask)


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_dense_and_empty_networks(model):
    dense = dense_mask(model)
    assert same(on_path(model, dense), dense)
    assert diagnose(model, dense)["effective_density"] == 1
    assert diagnose(model, dense)["live_outputs"] == 10
    for empty in dense:  # one empty layer leaves nothing alive anywhere
        mask = {name: m & (name != empty) for name, m in dense.items()}
        facts = diagnose(model, mask)
        assert facts["effective_density"] == facts["live_outputs"] == 0
        assert facts["density"] == pytest.approx(1 - SIZES[model][empty] / sum(SIZES[model].values()))


@settings(max_examples=10, deadline=None)
@given(sparse_masks("mlp"), st.integers(0, 2**32 - 1))
def test_exactly_the_weights_on_a_path_can_change_an_output(mask, seed):
    """By perturbing them: positive weights, no bias, so that nothing cancels."""
    assume(all(m.sum() < 300 for m in mask.values()))
    random = np.random.default_rng(seed)
    weights = [np.where(mask[n].numpy(), random.uniform(0.5, 1.5, tuple(mask[n].shape)), 0) for n in mask]

    def answer(ws):
        x = np.ones(784)
        for w in ws:
            x = w @ x
        return x

    before, live = answer(weights), on_path("mlp", mask)
    for layer, name in enumerate(mask):
        for place in np.argwhere(mask[name].numpy()):
            changed = [w.copy() for w in weights]
            changed[layer][tuple(place)] *= 2
            assert (np.abs(answer(changed) - before).max() > 1e-9) == bool(live[name][tuple(place)])
