"""Beyond the report: other data, other networks, the paper's protocol, late resetting, stability, and the atlas."""

import dataclasses
import gzip
import hashlib
import io
import tarfile

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from alone import play, starting_values, train

from lthcore import cli, data
from lthcore.config import Config, configure
from lthcore.data import Split, whole
from lthcore.engines.batched import Lockstep
from lthcore.engines.sparse import Sparse
from lthcore.explore import pages
from lthcore.models import build, initial
from lthcore.probes.collapse import diagnose, untrained
from lthcore.pruning import dense_mask, random_mask
from lthcore.results import statistics
from lthcore.runs import download, queue, store
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import claims, experiments, names
from lthcore.train import choose_engine
from lthcore.unit import Fresh, MaskOf, Unit

BEYOND = names("extended", "gpu")  # the report


def few(train_images=240, test_images=100):
    """A few images of real MNIST."""
    (images, labels), (test, test_labels) = whole()["train"], whole()["test"]
    held = slice(train_images, train_images + 60)
    parts = (images[held], labels[held]), (test[:test_images], test_labels[:test_images])
    return Split((images[:train_images], labels[:train_images]), *parts)


def tiny(experiment="mlp", **settings):
    return configure(experiment, "smoke", **{"max_steps": 12, "batch_size": 40, "epochs": 2, **settings})


# ---------------------------------------------------------------------------------------------------- identities


def test_a_later_setting_is_part_of_an_identity_only_where_it_is_set():
    other = {"dataset": "fashion", "conv_rate": 0.1, "dropout": 0.5, "warmup": 10, "often": 3, "early_bird": 0.1}
    other |= {"criterion": "random", "rewind": "final", "structure": "filters", "retrain_epochs": 3, "retrain_lr": 1e-4}
    other |= {"weight_decay": 1e-4}
    plain = Unit(configure("lenet5"), "ticket", 0)
    later = {f.name for f in dataclasses.fields(Config) if f.metadata.get("since", 1) > 1}
    assert set(other) == later and not later & set(plain.identity)
    for name, value in other.items():
        changed = Unit(configure("lenet5", **{name: value}), "ticket", 0)
        assert changed.identity[name] == value and changed.key != plain.key
    beside = Unit(plain.config, "ticket", 0, mask=MaskOf(plain), probes=("order",), levels=(1,))
    assert beside.identity["beside"] == "order" and "beside" not in plain.identity


@pytest.mark.parametrize("name", BEYOND)
@pytest.mark.parametrize("preset", ["smoke", "quick", "report"])
def test_every_wide_study_has_units_of_its_own(name, preset):
    units = experiments.study(name, preset).units
    assert len({unit.key for unit in units}) == len(units) > 0
    assert all(level in unit.chain.levels for unit in units for level in unit.levels)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"dataset": "cifar10"}, "dataset = 'cifar10': needs model = 'conv2'"),
        ({"dataset": "svhn"}, "dataset = 'svhn': must be one of 'mnist', 'fashion', 'cifar10'"),
        ({"conv_rate": 0.1}, "conv_rate = 0.1: needs a model with convolutions"),
        ({"dropout": 1}, "dropout = 1: must be a number in [0, 1)"),
        ({"warmup": -1}, "warmup = -1: must be a whole number"),
        ({"criterion": "a b"}, "criterion = 'a b': must be one of 'magnitude', 'random', 'obd'"),
        ({"retrain_epochs": 0.5}, "retrain_epochs = 0.5: must be None or a whole number in 1..10000"),
        ({"rewind": "final", "rewind_step": 3}, "rewind_step = 3: must be 0 unless rewind = 'reset'"),
        ({"rewind_step": 1000, "epochs": 2, "retrain_epochs": 1}, "rewind_step = 1000: must be a whole number in 0.."),
        ({"structure": "filters"}, "structure = 'filters': needs a model with convolutions"),
    ],
)
def test_bad_values_are_refused_in_one_line(settings, says):
    with pytest.raises(ValueError, match=r"^[^\n]*$") as error:
        configure("mlp", **settings)
    assert str(error.value).startswith(says)


# ----------------------------------------------------------------------------------------------------- networks


def test_sizes_and_rates_of_the_conv_networks_are_the_papers():
    """4.3 and 2.4 million weights, and 10 % (Conv-6: 15 %), 20 % and 10 % a round (Figure 2 of the paper)."""
    for name, millions, rate in (("conv2", 4.3, 0.1), ("conv4", 2.4, 0.1), ("conv6", 2.3, 0.15)):
        net = build(name, device="meta")
        assert round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == millions
        assert {n: tuple(p.shape) for n, p in net.named_parameters() if n.endswith("weight")} == {
            f"{n}.weight": shape for n, shape in ARCHITECTURES[name].weights.items()
        }
        full, one = configure(name, "report").schedule[:2]
        for layer, n in full.items():
            wanted = rate if layer.startswith("conv") else 0.1 if layer == "head" else 0.2
            assert abs(one[layer] - (1 - wanted) * n) <= 0.5, layer


@pytest.mark.parametrize("pool", ["max", "avg"])
def test_conv_networks_read_colours_and_widened_digits(pool):
    net = build("conv2", pool=pool)
    with torch.no_grad():
        x = torch.randn(2, 1, 28, 28)
        wide = F.pad(x, (2, 2, 2, 2), mode="replicate").expand(-1, 3, -1, -1)
        assert torch.equal(net(x), net(wide)) and net(wide).shape == (2, 10)
        pooled = F.relu(F.conv2d(F.relu(F.conv2d(wide, net.conv1.weight, net.conv1.bias, padding=1)),
                                 net.conv2.weight, net.conv2.bias, padding=1))  # fmt: skip
        features = {"max": F.max_pool2d, "avg": F.avg_pool2d}[pool](pooled, 2).flatten(1)
        hidden = F.relu(F.linear(features, net.fc1.weight, net.fc1.bias))
        hidden = F.relu(F.linear(hidden, net.fc2.weight, net.fc2.bias))
        assert torch.allclose(net(x), F.linear(hidden, net.head.weight, net.head.bias), atol=1e-5)


def test_a_dead_filter_of_a_conv_network_is_seen():
    mask = dense_mask("conv2")
    mask["conv2"][5] = False
    facts = diagnose("conv2", mask)
    assert facts["live_units:conv2"] == 63 and facts["live_outputs"] == 10


def test_dropout_leaves_out_hidden_units_in_training_alone():
    net, x = build("mlp", dropout=0.5), torch.randn(8, 1, 28, 28)
    plain = build("mlp")
    plain.load_state_dict(net.state_dict())
    assert torch.equal(net.eval()(x), plain(x)) and not torch.equal(net.train()(x), plain(x))


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
        assert len(queue._alike(ready, ready.pop(), "cuda")) == together


# ----------------------------------------------------------------------------------------------------- warm-up


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


def test_a_rate_goes_on_rising_after_a_rewind():
    config = tiny(warmup=100, lr=1.0, optimizer="sgd")
    assert config.rates(0, 2) == [0.01, 0.02] and config.rates(98, 4) == [0.99, 1.0, 1.0, 1.0]
    assert tiny(lr=0.3).rates(0, 2) == [0.3, 0.3]
    values, mask, split, order = initial("mlp", 0, "theta0", 0), dense_mask("mlp"), few(), torch.arange(40)
    first = Sparse(values, mask, split, config, first=49)
    first.advance(order)
    half = Sparse(values, mask, split, tiny(lr=0.5, optimizer="sgd"))
    half.advance(order)
    assert all(torch.equal(v, half.values()[n]) for n, v in first.values().items())


# ---------------------------------------------------------------------------------------------------- other data


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    for room in ("_mirrors", "_debian"):
        monkeypatch.setattr(download, room, lambda root, name, **_: (_ for _ in ()).throw(OSError("nothing here")))
    data.whole.cache_clear()
    yield tmp_path
    data.whole.cache_clear()


def cifar(records):
    """A small archive in CIFAR-10's own form: bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, part in zip([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"], records, strict=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = part.size
            tar.addfile(info, io.BytesIO(part.tobytes()))
    return out.getvalue()


def test_cifar_is_read_in_its_own_form(folder, monkeypatch):
    random = np.random.default_rng(0)
    records = [np.column_stack([random.integers(0, 10, 4), random.integers(0, 256, (4, 3072))]) for _ in range(6)]
    content = cifar([r.astype(np.uint8) for r in records])
    name = "cifar-10-binary.tar.gz"
    monkeypatch.setitem(download.MORE, "cifar10", {name: hashlib.sha256(content).hexdigest()})
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / name).write_bytes(content)
    images, labels = data.whole("cifar10")["train"]
    assert images.shape == (20, 3, 32, 32) and labels.tolist() == [int(r[0]) for part in records[:5] for r in part]
    red, blue = records[3][2][1 : 1 + 1024].reshape(32, 32), records[3][2][2049:].reshape(32, 32)
    assert np.allclose(images[14, 0], (red / 255 - 0.4914) / 0.2470, atol=1e-5)
    assert np.allclose(images[14, 2], (blue / 255 - 0.4465) / 0.2616, atol=1e-5)
    assert data.whole("cifar10")["test"][1].tolist() == records[5][:, 0].tolist()
    looks, named = download.digits("full", dataset="cifar10")
    assert looks.shape == (4, 32, 32) and named.tolist() == records[5][:, 0].tolist()
    download.digits.cache_clear()


def test_an_altered_cifar_is_set_aside_and_its_name_said(folder):
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"not it")
    with pytest.raises(RuntimeError, match=r"^[^\n]*put cifar-10-binary.tar.gz into [^\n]*$"):
        download.fetch(dataset="cifar10", say=lambda _: None)
    assert (folder / "cifar10" / "cifar-10-binary.tar.gz.bad-1").exists()


def test_fashion_comes_from_files_by_hand_or_from_debian_and_never_in_mnists_place(folder, monkeypatch):
    content = {name: f"{name} of Fashion-MNIST".encode() for name in download.SHA256}
    sums = {name: hashlib.sha256(c).hexdigest() for name, c in content.items()}
    monkeypatch.setitem(download.MORE, "fashion", sums)
    first, *rest = content
    (folder / "fashion").mkdir()
    (folder / "fashion" / f"{first}.gz").write_bytes(gzip.compress(content[first]))
    monkeypatch.setattr(download, "_debian", lambda root, name: [("Debian", content[name])])
    said = []
    root = download.fetch(said.append, "fashion")
    assert root == folder / "fashion" and all((root / n).read_bytes() == c for n, c in content.items())
    assert [" from Debian" in line for line in said] == [False, True, True, True] and rest
    assert not any((folder / name).exists() for name in download.SHA256)


def test_a_tenth_is_stratified():
    labels = whole()["train"][1].numpy()
    parts = data.split_indices(labels, labels[:50], "tenth", 1 / 12, 0, "fashion_conv2", 0)
    chosen = np.concatenate(parts[:2])
    assert (np.bincount(labels[chosen]) == np.bincount(labels) // 10).all()
    assert len(np.unique(chosen)) == len(chosen)
    config = experiments.study("fashion_conv2", "report").config
    assert len(parts[0]) >= config.batch_size


# ---------------------------------------------------------------------------------- copies, comparison, the paper


def load(subset):
    return few()


def test_another_order_is_another_one_and_the_first_is_shared():
    config, mask = tiny(), dense_mask("mlp")
    keys = {"level": 0, "replicate": 0, "subset": "full"}
    zero, same, other = (
        train(initial("mlp", 0, "theta0", 0), mask, few(), config, **keys, **order).weights["fc1.weight"]
        for order in ({}, {"order": 0}, {"order": 1})
    )
    assert torch.equal(zero, same) and not torch.equal(zero, other)


def test_a_comparison_is_what_two_trainings_give():
    """Against two trainings by hand, their distance by numpy, and their mean in the middle of the way."""
    config = tiny(rewind_step=3, levels=(0, 1, 2))
    chain = Unit(config, "rewind_3", 0)
    mask = random_mask({n: torch.rand(m.shape) < 0.2 for n, m in dense_mask("mlp").items()}, "mlp", 0, 0)
    unit = Unit(config, "order_ticket_3", 0, mask=MaskOf(chain), probes=("order",), levels=(1,))
    rows = {row[3]: row[4] for row in play(unit, 1, mask, load).rows if row[3] not in ("loss", "accuracy")}
    start, first = starting_values(unit, 1, load)
    assert first == 3
    keys = {"level": 1, "replicate": 0, "subset": "full", "first": 3}
    one, two = (train(start, mask, few(), config, **keys, order=order).weights for order in (0, 1))
    apart = [(one[f"{n}.weight"] - two[f"{n}.weight"]).numpy().astype(float).ravel() for n in mask]
    assert rows["distance"] == pytest.approx(np.linalg.norm(np.concatenate(apart)), rel=1e-6)
    net, (images, labels) = build("mlp"), few().test
    for share, values in ((0.0, one), (1.0, two), (0.5, {n: (one[n] + two[n]) / 2 for n in one})):
        net.load_state_dict(values)
        with torch.no_grad():
            logits = net(images)
        assert rows[f"path_accuracy:{share}"] == pytest.approx(
            100 * (logits.argmax(1) == labels).double().mean().item()
        )
        assert rows[f"path_loss:{share}"] == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)


def test_the_dense_network_is_at_no_distance_from_itself():
    config = tiny(levels=(0, 1))
    chain = Unit(config, "ticket", 0)
    for levels, mask in (
        ((0,), dense_mask("mlp")),
        ((1,), {n: torch.rand(m.shape) < 0.2 for n, m in dense_mask("mlp").items()}),
    ):
        unit = Unit(config, "dense_ticket_0", 0, mask=MaskOf(chain), probes=("dense",), levels=levels)
        rows = play(unit, levels[0], mask, load).rows
        distance = [row[4] for row in rows if row[3] == "distance"]
        assert (distance == [0.0]) == (levels == (0,)) and not any(row[3].startswith("path_") for row in rows)


def test_every_re_initialisation_is_its_own():
    config = tiny()
    chain = Unit(config, "ticket", 0)
    drawn = [
        starting_values(Unit(config, "x", 0, mask=MaskOf(chain), start=start, levels=(7, 15)), level, load)[0]
        for start in (Fresh(), Fresh(2), Fresh(3))
        for level in (7, 15)
    ]
    drawn = [values["fc1.weight"] for values in drawn]
    assert all(not torch.equal(a, b) for i, a in enumerate(drawn) for b in drawn[:i])
    assert torch.equal(drawn[0], initial("mlp", 0, "reinit", 0, 7)["fc1.weight"])  # as it was


def test_masks_that_counting_predicts_are_nested_exact_and_theta0s():
    config = configure("mlp", "report")
    theta0, before = initial("mlp", 0, "theta0", 0), None
    for level, mask in enumerate(untrained(Unit(config, "ticket", 0))):
        assert {n: int(m.sum()) for n, m in mask.items()} == config.schedule[level]
        for n, m in mask.items():
            size = theta0[f"{n}.weight"].abs()
            assert not (~m).any() or not m.any() or size[m].min() >= size[~m].max()
            assert before is None or not (m & ~before[n]).any()
        before = mask
    assert level == config.rounds


def test_one_shot_chains_share_their_dense_network(folders):
    study = experiments.study("paper", "smoke")
    shots = [unit for unit in study.units if unit.arm == "one_shot"]
    assert [unit.levels for unit in shots] == [(0, 7), (0, 11), (0, 15)]
    for unit in shots:
        for level in unit.levels:
            store.save_level(unit, level, [(5, 0.1, "test", "accuracy", 90.0 + level)], None, {"seconds": 1})
    frame = experiments.finished(study)
    assert frame["level"].tolist() == [0, 7, 11, 15]
    view = pages.Pictures(study)  # whose masks are those of the unit that has the level
    assert [view.unit["one_shot", 0, k].levels for k in (7, 11, 15)] == [(0, 7), (0, 11), (0, 15)]


# --------------------------------------------------------------------------------------------- numbers and verdicts


def rows(arm, level, values, metric="early_accuracy", split="test", step=1000, density=None):
    density = 0.8**level if density is None else density
    return [("x", "mlp", arm, r, level, density, step, 1.0, split, metric, v) for r, v in enumerate(values)]


def table(*parts):
    return pd.DataFrame([row for part in parts for row in part], columns=experiments.COLUMNS)


def good():
    """A table on which all of the paper's claims hold."""
    near = np.array([0.0, 0.02, -0.02])
    out = rows("ticket", 0, 98.0 + near, "accuracy") + rows("ticket", 10, 98.3 + near, "accuracy")
    out += rows("random_mask", 10, 97.5 + near, "accuracy") + rows("ticket", 0, 98.0 + near, step=8000)
    out += rows("ticket", 7, 98.4 + near, step=5000) + rows("ticket", 9, 98.5 + near, step=5000)
    out += rows("ticket", 15, 98.0 + near) + rows("one_shot", 15, 97.0 + near)
    out += [
        r
        for arm in ("random_reinit", "random_reinit_2", "random_reinit_3")
        for r in rows(arm, 7, 97.7 + near, step=12500)
    ]
    out += [r for arm in ("sgd", "momentum") for k in (0, 7) for r in rows(arm, k, 98.0 + near + k / 100)]
    out += rows("ticket", 20, 97.0 + near) + rows("sgd", 20, 98.0 + near)
    return table(
        out,
        rows("ticket", 9, 98.4 + near, "accuracy", "validation"),
        rows("ticket", 7, 98.3 + near, "accuracy", "validation"),
    )


def test_the_papers_claims_hold_where_its_numbers_come_out_and_not_elsewhere():
    config = configure("paper", "report")
    judged = claims.judge(good(), config)
    assert dict(zip(judged["claim"], judged["verdict"], strict=False))  # something is judged
    first = judged[judged["verdict"] != ""].set_index("claim")["verdict"]
    assert (first == "holds").all(), first
    assert len(first) == 10
    bad = good()
    swap = {"ticket": "random_mask", "random_mask": "ticket"}
    bad["arm"] = [swap.get(a, a) if k == 10 else a for a, k in zip(bad["arm"], bad["level"], strict=True)]
    wrong = claims.judge(bad, config)
    assert wrong[wrong["claim"] == "paper-random"]["verdict"].iloc[0] == "does not hold"
    early = judged[judged["claim"] == "paper-early"].iloc[0]
    assert early["ours"] == pytest.approx(5000 / 8000)
    slower = judged[(judged["claim"] == "paper-reinit") & judged["measured"].str.contains("steps")].iloc[0]
    assert slower["ours"] == pytest.approx(2.5)


def test_a_rise_on_the_way_is_measured_from_the_mean_of_both_ends():
    way = [98.0, 97.0, 96.0, 95.0, 93.0, 90.0, 93.0, 95.0, 96.0, 97.0, 99.0]
    frame = table(
        [r for t, v in enumerate(way) for r in rows("order_ticket_0", 10, [v, 98.0], f"path_accuracy:{t / 10}")]
    )
    assert statistics.barriers(frame).tolist() == [98.5 - 90.0, 0.0]


def test_where_outputs_are_disconnected_is_read_off_the_masks():
    def masks(arm, head, live):
        named = ("kept:head", head), ("live_outputs", live), ("on_path:head", [h + 1 for h in head])
        return [
            row
            for name, values in named
            for k, value in enumerate(values)
            for row in rows(arm, k, [value] * 3, name, "mask", density=0.5**k)
        ]

    seen = table(masks("a", [100, 50, 20, 9], [10, 9, 8, 5]), rows("a", 3, [50.0] * 3, "accuracy", density=0.125))
    predicted = table(masks("a", [100, 50, 20, 9], [10, 10, 9, 6]))
    row = statistics.disconnections(seen, predicted).loc["a"]
    assert (row["certain"], row["predicted"], row["seen"], row["below_80"], row["first"]) == (
        0.125,
        0.25,
        0.5,
        0.125,
        "",
    )


# ------------------------------------------------------------------------------------------------- the command line


def test_wide_notebooks_are_run_on_request_alone(capsys):
    def asked(*words):
        return [job.experiment for job in cli.wanted(cli.parser().parse_args(words))]

    report = ["mlp", "lenet5", "task1", "task2", "task3"]
    assert asked("quick") == report
    wide = ["paper", "fashion_conv2", "rewind", "criteria", "transfer", "early_bird", "collapse"]
    assert asked("quick", "--wide") == [*report, *wide]
    assert asked("quick", "--only", "conv2") == ["conv2"]
    assert asked("quick", "--only", "06_lottery_ticket_paper") == ["paper", "fashion_conv2"]
    assert [s.config.experiment for s in experiments.every(preset="report")] == report
    assert {s.config.experiment for s in experiments.every(True, preset="report")} == {*report, *BEYOND}


def test_a_config_of_every_field_is_still_hashable():
    assert len({Config(), dataclasses.replace(Config(), dropout=0.1)}) == 2
