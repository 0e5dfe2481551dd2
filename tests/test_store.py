"""The store and the archive: what comes back is what was kept, and what is damaged counts as missing."""

import errno
import hashlib
import io
import json
import math
import os
import pickle
import re
import struct
import subprocess
import sys
import time
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthcore.config import configure
from lthcore.disk import files
from lthcore.disk.files import data_folder
from lthcore.runs import archive, formats, store
from lthcore.schedule import ARCHITECTURES, Architecture
from lthcore.studies import experiments
from lthcore.unit import Unit

TESTED = (0, 0.0, "test", "accuracy", 10.28)  # which every level has
ROWS = [TESTED, (30, 0.1 + 0.2, "test", "loss", 1 / 3)]


pytestmark = pytest.mark.usefixtures("folders")


def unit(arm="ticket", replicate=0, experiment="lenet5", **settings):
    return Unit(configure(experiment, "report", **settings), arm, replicate)


def draw_mask(seed=0, model="lenet5", density=0.4):
    random = np.random.default_rng(seed)
    return {name: random.random(shape) < density for name, shape in ARCHITECTURES[model].weights.items()}


def save(u=None, level=0, rows=ROWS, mask=0):
    mask = draw_mask(mask) if isinstance(mask, int) else mask
    store.save_level(u or unit(), level, rows, mask, {"seconds": 1.5, "device": "cpu"})


def level_folder(u=None, level=0):
    return store.runs() / (u or unit()).key / f"level-{level:02d}"


def assert_same_mask(one, other):
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == bool and np.array_equal(one[name], other[name])


def assert_same_rows(frame, rows):
    assert list(frame.columns) == ["step", "epoch", "split", "metric", "value"]
    assert [tuple(row) for row in frame.itertuples(index=False)] == rows


# ------------------------------------------------------------------------------------------------------- round trip

EXACT = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False)  # training flushes those to zero


@settings(max_examples=40, deadline=None)
@given(values=st.lists(st.tuples(st.integers(0, 10**6), EXACT, EXACT), min_size=1, max_size=20))
def test_rows_come_back_bit_for_bit(values):
    rows = [(step, epoch, "test", "loss", value) for step, epoch, value in values]
    save(rows=[*rows, TESTED])
    back = store.find_level(unit(), 0).rows()[:-1]
    for column, at in (("epoch", 1), ("value", 2)):
        bits = [struct.pack("d", v[at]) for v in values]
        assert [struct.pack("d", v) for v in back[column]] == bits
    assert back["step"].tolist() == [v[0] for v in values]


SHAPES = st.lists(st.integers(1, 13), min_size=1, max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(
    shapes=st.lists(SHAPES, min_size=1, max_size=4),
    seed=st.integers(0, 99),
    density=st.floats(0, 1, allow_subnormal=False),
)
def test_masks_of_any_shape_come_back(shapes, seed, density):
    with pytest.MonkeyPatch.context() as patch:
        weights = {f"layer{i}": shape for i, shape in enumerate(shapes)}
        patch.setattr("lthcore.runs.sending.fault", lambda *_: "")  # the store asks for no more than shapes
        patch.setitem(ARCHITECTURES, "lenet5", Architecture(weights, "tanh"))
        mask = draw_mask(seed, density=density)
        save(mask=mask)
        assert_same_mask(store.find_level(unit(), 0).next_mask("lenet5"), mask)


def test_a_mask_takes_a_bit_a_weight():
    save()
    size = (level_folder() / "mask.safetensors").stat().st_size
    assert size < 61_470 / 8 + 1000


def test_the_last_level_of_a_chain_has_no_mask_but_is_finished():
    save(level=20, mask=None)
    assert sorted(p.name for p in level_folder(level=20).iterdir()) == ["facts.json", "rows.csv"]
    assert_same_rows(store.find_level(unit(), 20).rows(), ROWS)


def test_facts_are_kept_with_the_identity():
    save()
    record = json.loads((level_folder() / "facts.json").read_text())
    assert record["facts"] == {"seconds": 1.5, "device": "cpu"}
    assert record["identity"] == json.loads(json.dumps(unit().identity))
    assert store.find_level(unit(), 0).facts["facts"] == record["facts"]


def test_levels_and_units_do_not_answer_for_each_other():
    save(level=1)
    assert store.find_level(unit(), 0) is None and store.find_level(unit(), 2) is None
    assert store.find_level(unit(replicate=1), 1) is None
    assert store.find_level(unit(lr=0.01), 1) is None
    assert store.find_level(unit(), 1) is not None


# ----------------------------------------------------------------------------------------------- what counts as missing


def _truncate(name, keep):
    path = level_folder() / name
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])


def _flip(name):
    path = level_folder() / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _edit(**changes):
    path = level_folder() / "facts.json"
    record = json.loads(path.read_text())
    for key, value in changes.items():
        record[key] = {**record[key], **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(record))


DAMAGE = {
    "facts are not there": lambda: (level_folder() / "facts.json").unlink(),
    "facts are empty": lambda: _truncate("facts.json", 0),
    "facts are half": lambda: _truncate("facts.json", 0.5),
    "facts are no text": lambda: (level_folder() / "facts.json").write_bytes(b"\xff\xfe\x00"),
    "facts are a list": lambda: (level_folder() / "facts.json").write_text("[1]"),
    "facts say nothing": lambda: (level_folder() / "facts.json").write_text("{}"),
    "rows are not there": lambda: (level_folder() / "rows.csv").unlink(),
    "rows are half": lambda: _truncate("rows.csv", 0.5),
    "rows have another bit": lambda: _flip("rows.csv"),
    "mask is not there": lambda: (level_folder() / "mask.safetensors").unlink(),
    "mask is empty": lambda: _truncate("mask.safetensors", 0),
    "mask is half": lambda: _truncate("mask.safetensors", 0.5),
    "mask has another bit": lambda: _flip("mask.safetensors"),
    "another sum": lambda: _edit(sha256={"rows.csv": "0" * 64}),
    "another identity": lambda: _edit(identity={"lr": 0.5}),
    "an older algorithm": lambda: _edit(identity={"algorithm": 0}),
    "another level": lambda: _edit(level=1),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_level_counts_as_missing_and_can_be_written_again(damage):
    save()
    assert store.find_level(unit(), 0) is not None
    DAMAGE[damage]()
    assert store.find_level(unit(), 0) is None
    save()
    assert_same_rows(store.find_level(unit(), 0).rows(), ROWS)


@pytest.mark.parametrize("name", ["rows.csv", "mask.safetensors", "facts.json"])
def test_a_level_killed_between_its_files_is_missing(name, monkeypatch):
    """Whichever file is the first that is not written any more, at the first try and over an older one."""
    for rows in (ROWS, [(1, 1.0, "test", "loss", 2.0)]):  # the second time over finished files, with other numbers
        write = store.write

        def stop(path, content, write=write):
            if Path(path).name == name:
                raise KeyboardInterrupt
            write(path, content)

        monkeypatch.setattr(store, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            save(rows=rows, mask=len(rows))
        monkeypatch.setattr(store, "write", write)
        found = store.find_level(unit(), 0)
        assert found is None or found.rows()["value"].tolist() == [
            10.28,
            1 / 3,
        ]  # the old level or none, never a mixture
        save()


def test_levels_of_an_older_version_are_left_alone(monkeypatch):
    save()
    archive.write([unit()])
    old = {p: p.read_bytes() for p in store.runs().rglob("*") if p.is_file()}
    was = unit()
    assert was.key and store.find_level(was, 0)
    monkeypatch.setattr("lthcore.unit.ALGORITHM", 2)
    said = []
    store.set_aside_damaged([unit()], said.append)
    assert store.find_level(unit(), 0) is None and not said
    save(rows=[TESTED, (1, 1.0, "test", "loss", 2.0)])
    archive.write([unit()])
    assert {p: p.read_bytes() for p in old} == old
    formats.read_pack.cache_clear()
    assert_same_rows(store.in_archive(was, 0).rows(), ROWS)
    assert_same_rows(store.in_archive(unit(), 0).rows(), [TESTED, (1, 1.0, "test", "loss", 2.0)])


# ---------------------------------------------------------------------------------------------------- atomic writes


def test_the_folder_is_synced_after_a_file_is_moved_into_it(tmp_path, monkeypatch):
    """Else the move is what a power failure undoes."""
    done = []

    def fsync(handle):
        done.append("folder" if os.path.samestat(os.fstat(handle), tmp_path.stat()) else "file")

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *paths, move=os.replace: done.append("move") or move(*paths))
    files.write(tmp_path / "facts.json", "{}")
    assert done == ["file", "move", "folder"] and [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def test_where_a_folder_cannot_be_synced_the_file_is_written_all_the_same(tmp_path, monkeypatch):
    def refuses(path, *_, **__):
        raise PermissionError(13, "is a folder", str(path))

    monkeypatch.setattr(os, "open", lambda path, *rest, by=os.open: (refuses if path == tmp_path else by)(path, *rest))
    files.write(tmp_path / "facts.json", "{}")
    assert (tmp_path / "facts.json").read_text() == "{}"


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [None, b"old"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, error, before):
    path = tmp_path / "kept" / "file.csv"
    if before:
        store.write(path, before)

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(type(error)):
        store.write(path, b"new")
    assert [p.name for p in path.parent.iterdir()] == (["file.csv"] if before else [])
    assert before is None or path.read_bytes() == before


def test_a_write_replaces_text_and_bytes_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    store.write(path, "θ0\n")
    assert path.read_bytes() == "θ0\n".encode()
    store.write(path, b"\x00\r\n")
    assert path.read_bytes() == b"\x00\r\n" and len(list(path.parent.iterdir())) == 1


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_holds_for_what_is_written(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        files.write(tmp_path / "new" / "facts.json", "{}")
        with files.hold(tmp_path / "new" / "lock"):
            modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()}
    finally:
        os.umask(before)
    assert modes == {"facts.json": mode, "lock": mode}
    assert (tmp_path / "new").stat().st_mode & 0o777 == mode | (mode & 0o444) >> 2


class Disk:
    """Counts every call by which a level is written; the `n`-th fails with an error, or the power does before it."""

    def __init__(self, patch, n, error):
        self.calls, self.n, self.error, self.unsynced = [], n, error, set()
        for name in ("mkdir", "open", "fsync", "replace", "unlink"):
            patch.setattr(os, name, partial(self.do, name, getattr(os, name)))
        patch.setattr(files, "open", partial(DiskFile, self), raising=False)

    def do(self, name, call, *given, **more):
        self.calls.append(name)
        if self.error and len(self.calls) == self.n:
            raise OSError(self.error, os.strerror(self.error))
        if not self.error and len(self.calls) >= self.n:
            raise KeyboardInterrupt  # and nothing reaches the disk any more
        if name == "fsync":
            self.unsynced.discard(os.fstat(given[0]).st_ino)
        return call(*given, **more)

    def lose_what_is_not_synced(self, folder):
        for path in folder.rglob("*"):
            if path.is_file() and path.stat().st_ino in self.unsynced:
                os.truncate(path, path.stat().st_size // 2)


class DiskFile(io.FileIO):
    def __init__(self, disk, path, mode, opener):
        super().__init__(path, mode, opener=opener)
        self.disk = disk

    def write(self, content):
        self.disk.unsynced.add(os.fstat(self.fileno()).st_ino)
        return self.disk.do("write", super().write, content)


@pytest.mark.parametrize("before", [None, "a damaged level"])
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EACCES, None], ids=lambda e: errno.errorcode.get(e))
def test_whatever_call_fails_a_level_is_whole_or_missing_and_the_next_run_completes(folders, error, before):
    """Each in turn; without an error the power fails, and what was not synced is lost with it."""
    mask, done, seen = draw_mask(), False, set()
    for n in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LTH_RUNS", str(folders / str(n)))
            if before:
                save(rows=[TESTED], mask=1)
                _flip("rows.csv")
            with pytest.MonkeyPatch.context() as broken:
                disk = Disk(broken, n, error)
                try:
                    save(mask=mask)
                    done = len(disk.calls) < n
                except RuntimeError as failed:
                    assert error and len(str(failed).splitlines()) == 1 and os.strerror(error) in str(failed)
                except KeyboardInterrupt:
                    assert not error
            disk.lose_what_is_not_synced(store.runs())
            seen.update(disk.calls)
            found = store.find_level(unit(), 0)
            if found:
                assert_same_rows(found.rows(), ROWS)
                assert_same_mask(found.next_mask("lenet5"), mask)
            save(mask=mask)
            assert_same_mask(store.find_level(unit(), 0).next_mask("lenet5"), mask)
        if done:
            break
    assert done and {"open", "write", "fsync", "replace"} <= seen and n > 3 * 6


def test_a_folder_that_is_made_is_synced_in_the_one_above_it(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle).st_ino))
    files.write(tmp_path / "unit" / "level-00" / "facts.json", "{}")
    assert {folder.stat().st_ino for folder in (tmp_path, tmp_path / "unit", tmp_path / "unit/level-00")} <= set(synced)


def test_without_proc_the_provenance_says_that_digits_may_differ(tmp_path, monkeypatch):
    assert "/proc" not in store.machine()["processor"]
    monkeypatch.setattr(store, "CPUINFO", tmp_path / "none")
    assert ("no /proc" in store.machine()["processor"]) == (sys.platform == "linux")


OURS = {  # what a killed run leaves, by the folder that it lies in
    "runs": [
        ".0123456789abcdef.aside",
        "mlp-ticket-r0-0123456789ab/level-07/.rows.csv.a1_b2c3d.aside",
        "mlp-ticket-r0-0123456789ab/level-07/.weights.safetensors.abcdefgh.aside",
        "collapse-mlp layer 0.3 same-r12-0123456789ab/level-100/.facts.json.abcdefgh.aside",
        "mlp-ticket-r0-0123456789ab/level-08/training.lock",
    ],
    "archive": ["mlp/.r0.zip.abcdefgh.aside"],
    "data": [".train-images-idx3-ubyte.abcdefgh.aside", "fashion/.t10k-labels-idx1-ubyte.abcdefgh.aside"],
    "figures": [
        ".fig3_task1.png.abcdefgh.aside",
        ".explorer.html.abcdefgh.aside",
        "executed/.02_task1_data_halves.html.abcdefgh.aside",
        "executed/02_task1_data_halves.partial-0123abcd.ipynb",
    ],
}
STRANGERS = [  # what others may keep in any of them, and in folders below
    "thesis.partial-final.tex", "my.partial-0123abcd.ipynb", "02_task1.partial-0123abcd.ipynb.bak", ".notes.aside",
    ".notes.abcdefgh.aside", ".rows.csv.abcdefgh.aside~", "rows.csv.abcdefgh.aside", ".rows.csv.ABCDEFGH.aside",
    ".facts.json.abcdefghi.aside", ".0123456789abcdef.aside.txt", "training.lock", "my.lock", "mlp.aside",
]  # fmt: skip
BELOW = [
    "", "other", "executed/older", "mlp/kept", "mlp-ticket-r0-0123456789ab", "mlp-ticket-r0-0123456789ab/level-7",
    "mlp-ticket-r0-0123456789ab/level-07/mine", "mlp-ticket-r0/level-07", "ticket-r0-0123456789abc/level-07",
    "thesis-mlp-r0-0123456789ab/level-07", "fashion/raw", ".git",
]  # fmt: skip


def _old(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    os.utime(path, (time.time() - 7200,) * 2)
    return path


@pytest.fixture
def four(folders, monkeypatch):
    """The four folders that a run writes to, by name."""
    monkeypatch.setenv("LTH_DATA", str(folders / "data"))
    return {name: folders / name for name in OURS}


def test_what_a_killed_run_left_is_cleared_once_it_is_an_hour_old(four):
    left = [_old(four[name] / path) for name, paths in OURS.items() for path in paths]
    finished = [path.with_name(path.name.split(".")[1]) for path in left if path.name.endswith(".aside")]
    for path in (*left, *map(_old, finished)):
        os.utime(path)
    store.clear_up([four["figures"]])  # their writers may be at work
    assert [path.name for path in left if not path.exists()] == ["training.lock"]  # which nobody holds
    for path in left[:-1]:
        if path.exists():
            os.utime(path, (time.time() - 3700,) * 2)
    store.clear_up([four["figures"]])
    os.utime(left[-1], (time.time() - 3700,) * 2)
    store.clear_up(iter([four["figures"]]))
    assert not [path for path in left if path.exists()]
    assert all(path.exists() for path in finished)


@pytest.mark.parametrize("where", OURS)
def test_strangers_files_of_similar_names_are_left_alone(four, where):
    strangers = [_old(four[where] / below / name) for below in BELOW for name in STRANGERS]
    others = [_old(four[where] / path) for name, paths in OURS.items() if name != where for path in paths]
    store.clear_up([four["figures"]])
    assert [path for path in (*strangers, *others) if not path.exists()] == []


def test_links_are_not_followed_and_a_folder_is_no_file(four, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    strangers = [_old(elsewhere / "level-07/.rows.csv.abcdefgh.aside"), _old(elsewhere / "level-07/training.lock")]
    four["runs"].mkdir()
    (four["runs"] / "mlp-ticket-r0-0123456789ab").symlink_to(elsewhere)
    level = four["runs"] / "mlp-ticket-r1-0123456789ab/level-07"
    level.mkdir(parents=True)
    (level / ".facts.json.abcdefgh.aside").symlink_to(strangers[0])
    (level / ".rows.csv.abcdefgh.aside").mkdir()
    store.clear_up([])
    assert all(path.exists() for path in (*strangers, *level.iterdir())) and len(list(level.iterdir())) == 2


def test_a_run_clears_no_stranger_away(four, finish):
    study = finish(experiments.study("mlp", "smoke", controls=False, overrides={"rounds": 0, "levels": (0,)}))
    strangers = [_old(four[where] / "other" / name) for where in OURS for name in STRANGERS]
    left = _old(four["runs"] / OURS["runs"][1])
    experiments.run(study)
    assert all(path.exists() for path in strangers) and not left.exists()


# ------------------------------------------------------------------------------------------------------- the archive


def three_levels(u):
    """Two pruned levels and a last one without a mask."""
    for level, mask in ((0, 10), (1, 11), (20, None)):
        save(u, level, [(level, 0.5, "test", "loss", math.pi * level), *ROWS], mask)


def empty_runs(folders, monkeypatch, name="elsewhere"):
    monkeypatch.setenv("LTH_RUNS", str(folders / name))
    formats.read_pack.cache_clear()


def archived():
    return sorted(p for p in store.archive().rglob("*") if p.is_file())


def test_the_archive_alone_gives_the_same_rows_and_masks(folders, monkeypatch):
    u = unit()
    three_levels(u)
    kept = {k: store.find_level(u, k) for k in (0, 1, 20)}
    archive.write([u])
    empty_runs(folders, monkeypatch)
    for level, old in kept.items():
        new = store.find_level(u, level)
        assert_same_rows(new.rows(), [tuple(r) for r in old.rows().itertuples(index=False)])
        assert new.facts["facts"] == old.facts["facts"] and new.facts["identity"] == old.facts["identity"]
        if level < 20:
            assert_same_mask(new.next_mask("lenet5"), draw_mask(10 + level))
    assert store.find_level(u, 2) is None and store.find_level(unit(lr=0.01), 0) is None
    assert not store.runs().exists()  # reading writes nothing


def test_the_archive_is_byte_identical_when_written_again(folders, monkeypatch):
    units = [unit("ticket"), unit("ticket_spared", spare="smallest"), unit("ticket", 1)]
    for u in units:
        three_levels(u)
    archive.write(units)
    first = {p: p.read_bytes() for p in archived()}
    assert len(first) == 2  # one file for each of the two replicates
    archive.write(units)
    assert {p: p.read_bytes() for p in archived()} == first
    archive.write(units[::-1])  # in any order
    assert {p: p.read_bytes() for p in archived()} == first
    empty_runs(folders, monkeypatch)  # and from the archive itself, as in a fresh clone
    archive.write(units)
    assert {p: p.read_bytes() for p in archived()} == first


def test_the_archive_from_nothing_is_the_same_as_the_one_that_grew(folders, monkeypatch):
    one, two = unit("ticket"), unit("ticket_spared", spare="smallest")
    three_levels(one)
    three_levels(two)
    archive.write([one, two])
    at_once = [p.read_bytes() for p in archived()]
    monkeypatch.setenv("LTH_ARCHIVE", str(folders / "grown"))
    archive.write([two])
    archive.write([one])
    assert [p.read_bytes() for p in archived()] == at_once


def test_a_pack_that_holds_the_levels_is_not_written_again(folders, monkeypatch):
    three_levels(unit())
    (path,) = archive.write([unit()])
    os.utime(path, (1, 1))
    archive.write([unit()])
    empty_runs(folders, monkeypatch)
    archive.write([unit()])
    assert path.stat().st_mtime == 1
    monkeypatch.setenv("LTH_RUNS", str(folders / "runs"))
    save(unit(), 3)
    archive.write([unit(), unit("ticket_spared", spare="smallest")])
    assert path.stat().st_mtime > 1


def test_a_pack_compressed_as_it_used_to_be_is_read(folders, monkeypatch):
    three_levels(unit())
    (path,) = archive.write([unit()])
    with zipfile.ZipFile(path) as pack:
        members = {name: pack.read(name) for name in pack.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in members.items():
            pack.writestr(name, content)
    empty_runs(folders, monkeypatch)
    assert_same_rows(store.find_level(unit(), 0).rows(), [(0, 0.5, "test", "loss", 0.0), *ROWS])


def test_levels_that_belong_to_no_unit_are_found_and_removed(folders, monkeypatch):
    stays, abandoned, other = unit(), unit("abandoned", lr=0.1), unit(replicate=1)
    for u in (stays, abandoned, other):
        three_levels(u)
    archive.write([stays, abandoned, other])
    before = {path.name: path.read_bytes() for path in archived()}
    assert archive.orphans([stays, abandoned, other]) == {}
    lost = [f"{abandoned.key}/{level}" for level in (0, 1, 20)]
    assert {path.name: names for path, names in archive.orphans([stays, other]).items()} == {"r0.zip": sorted(lost)}
    assert archive.remove_orphans([stays, other]) == 3
    empty_runs(folders, monkeypatch)
    assert store.find_level(abandoned, 0) is None and store.find_level(stays, 20) is not None
    assert_same_mask(store.find_level(stays, 1).next_mask("lenet5"), draw_mask(11))
    assert (store.archive() / "lenet5" / "r1.zip").read_bytes() == before["r1.zip"]
    assert archive.remove_orphans([stays, other]) == 0


@pytest.fixture()
def trained_elsewhere(folders, monkeypatch):
    """Two complete replicates in another archive, and the other archive; this one is empty, and so is the store."""
    units = [unit(arm, replicate=r, levels=(0, 1, 20)) for r in (5, 6) for arm in ("ticket", "ticket_spared")]
    for u in units:
        three_levels(u)
    archive.write(units)
    other = folders / "other archive"
    store.archive().rename(other)
    empty_runs(folders, monkeypatch)
    return units, other


def test_packs_of_another_archive_are_taken_once(trained_elsewhere):
    units, other = trained_elsewhere
    assert [path.name for path in archive.take(other, units)] == ["r5.zip", "r6.zip"]
    for u in units:
        assert store.find_level(u, 20) is not None
        assert_same_mask(store.find_level(u, 1).next_mask("lenet5"), draw_mask(11))
    assert [p.read_bytes() for p in archived()] == [p.read_bytes() for p in sorted(other.rglob("*.zip"))]
    before = [p.stat().st_mtime_ns for p in archived()]
    assert archive.take(other, units) == [] and [p.stat().st_mtime_ns for p in archived()] == before


def test_a_pack_that_is_here_stays_and_one_that_is_not_there_is_passed_over(trained_elsewhere):
    units, other = trained_elsewhere
    (store.archive() / "lenet5").mkdir(parents=True)
    (store.archive() / "lenet5" / "r5.zip").write_bytes(b"here already")
    more = unit(replicate=9, levels=(0, 1, 20))
    assert [path.name for path in archive.take(other, [*units, more])] == ["r6.zip"]
    assert (store.archive() / "lenet5" / "r5.zip").read_bytes() == b"here already"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("level missing", "5 of the 6 levels, and 0 others"),
        ("unit missing", "6 of the 9 levels, and 0 others"),
        ("level too many", "6 of the 6 levels, and 1 others"),
        ("another identity", "3 of the 6 levels, and 3 others"),
        ("damaged", "0 of the 6 levels, and 0 others"),
        ("renamed", "0 of the 6 levels, and 0 others"),
    ],
)
def test_a_pack_that_is_not_what_it_should_be_is_refused_and_none_is_taken(trained_elsewhere, fault, message):
    units, other = trained_elsewhere
    last = units[-1]
    path = other / "lenet5" / "r6.zip"
    pack = formats.whole_pack(path)
    name, more = (f"{last.key}/{level}" for level in (20, 2))
    if fault == "level missing":
        del pack["levels"][name], pack["rows"][name]
        path.write_bytes(formats.pack_bytes(**pack))
    elif fault == "level too many":
        pack["levels"][more], pack["rows"][more] = pack["levels"][name], pack["rows"][name].assign(at=more)
        path.write_bytes(formats.pack_bytes(**pack))
    elif fault == "unit missing":
        units.append(unit("third", replicate=6, levels=(0, 1, 20)))
    elif fault == "another identity":
        units[-1] = replace(last, config=replace(last.config, lr=0.5))
    elif fault == "damaged":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        path.write_bytes((other / "lenet5" / "r5.zip").read_bytes())
    formats.read_pack.cache_clear()
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} has {message}$"):
        archive.take(other, units)
    assert not archived()


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "bit", "text", "other members", "member cut"])
def test_a_damaged_archive_is_ignored(folders, monkeypatch, damage):
    u = unit()
    three_levels(u)
    archive.write([u])
    (path,) = archived()
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "bit":
        path.write_bytes(
            content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
        )
    elif damage in ("other members", "member cut"):
        with zipfile.ZipFile(io.BytesIO(content)) as whole, zipfile.ZipFile(path, "w") as other:
            for name in whole.namelist()[damage == "other members" :]:
                member = whole.read(name)
                other.writestr(name, member if name != "masks.safetensors" else member[: len(member) // 2])
    else:
        path.write_bytes({"empty": b"", "half": content[: len(content) // 2], "text": b"<html>\xff</html>"}[damage])
    formats.read_pack.cache_clear()
    assert store.find_level(u, 0) is not None  # from the store
    empty_runs(folders, monkeypatch)
    found = store.find_level(u, 0)
    assert found is None or not found.has_mask("lenet5")  # its rows may be whole: a run sets the pack aside
    assert not formats.whole_pack(path)["levels"]


def test_a_pack_is_not_unpacked_for_levels_that_it_does_not_list(folders, monkeypatch):
    """Such as those of another preset, for which a command would read the whole archive."""
    u = unit()
    three_levels(u)
    archive.write([u])
    empty_runs(folders, monkeypatch)
    unpacked = []
    monkeypatch.setattr(formats, "load_tensors", lambda content: unpacked.append(content) or {})
    formats.read_pack.cache_clear()
    assert store.find_level(replace(u, config=replace(u.config, lr=0.5)), 0) is None and not unpacked
    assert store.find_level(u, 0).rows().shape and not unpacked  # who reads a level's rows needs no mask
    assert store.find_level(u, 0).packed_mask() == {} and unpacked


@pytest.mark.parametrize("text", ["{}", '{"sha256": null}', "[]", "null", "1", '"x"'])
def test_an_archive_whose_facts_are_of_another_kind_is_ignored(folders, monkeypatch, text):
    u = unit()
    three_levels(u)
    archive.write([u])
    (path,) = archived()
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in formats.PACKED}
    with zipfile.ZipFile(path, "w") as other:
        for name, content in (members | {"levels.json": text.encode()}).items():
            other.writestr(name, content)
    empty_runs(folders, monkeypatch)
    assert store.find_level(u, 0) is None


def test_a_damaged_archive_is_made_anew_from_the_store():
    u = unit()
    three_levels(u)
    archive.write([u])
    good = [p.read_bytes() for p in archived()]
    archived()[0].write_bytes(b"")
    formats.read_pack.cache_clear()
    archive.write([u])
    assert [p.read_bytes() for p in archived()] == good


def test_what_the_archive_holds_of_other_units_and_levels_stays(folders, monkeypatch):
    old, new = unit("ticket"), unit("ticket_spared", spare="smallest")
    three_levels(old)
    archive.write([old])
    empty_runs(folders, monkeypatch)
    three_levels(new)
    save(old, 2, ROWS, 12)  # one level more of the chain whose others are in the archive alone
    archive.write([new])
    archive.write([old])
    empty_runs(folders, monkeypatch, "nowhere")
    for level in (0, 1, 2, 20):
        assert store.find_level(old, level) is not None, level
    for level, seed in ((0, 10), (1, 11), (2, 12)):
        assert_same_mask(store.find_level(old, level).next_mask("lenet5"), draw_mask(seed))
    assert_same_mask(store.find_level(new, 1).next_mask("lenet5"), draw_mask(11))
    assert_same_rows(store.find_level(old, 2).rows(), ROWS)


def test_levels_1_and_10_are_distinguished(folders, monkeypatch):
    u = unit()
    for level in (1, 10):
        save(u, level, [TESTED, (level, 0.0, "test", "loss", float(level))], level)
    archive.write([u])
    empty_runs(folders, monkeypatch)
    for level in (1, 10):
        found = store.find_level(u, level)
        assert found.rows()["value"].tolist() == [10.28, level]
        assert_same_mask(found.next_mask("lenet5"), draw_mask(level))


def test_an_interrupted_archive_loses_nothing_that_it_alone_holds(folders, monkeypatch):
    u = unit()
    three_levels(u)
    archive.write([u])
    empty_runs(folders, monkeypatch)
    save(u, 2, ROWS, 12)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(store.os, "replace", stop)
        archive.write([u])
    assert len(archived()) == 1  # nothing half-written beside it
    formats.read_pack.cache_clear()
    assert store.find_level(u, 0) is not None


def test_an_archive_of_nothing_finished_is_no_error():
    assert store.find_level(unit(), 0) is None
    archive.write([unit()])
    assert store.find_level(unit(), 0) is None
    save()
    archive.write([unit(), unit(replicate=1)])  # replicate 1 has not begun
    assert store.find_level(unit(), 0) is not None


# ------------------------------------------------------------------------------------------------- nothing executes


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_in_place_of_a_mask_is_not_executed(folders):
    save()
    bomb, fuse = pickle.dumps(Bomb(folders / "went off")), level_folder() / "mask.safetensors"
    fuse.write_bytes(bomb)
    _edit(sha256={"mask.safetensors": hashlib.sha256(bomb).hexdigest()})
    found = store.find_level(unit(), 0)
    if found:
        with pytest.raises(Exception, match=r"(?i)header|safetensor|deserial"):
            found.next_mask("lenet5")
    assert not (folders / "went off").exists()
    pickle.loads(bomb)  # the test can fail
    assert (folders / "went off").exists()


def test_files_are_tables_json_and_safetensors():
    three_levels(unit())
    archive.write([unit()])
    names = {p.name for p in store.runs().rglob("*") if p.is_file()}
    assert names == {"rows.csv", "mask.safetensors", "facts.json"}
    with zipfile.ZipFile(*archived()) as pack:
        assert set(pack.namelist()) == {*formats.PACKED, formats.SUMS}
        assert pack.read("rows.csv").decode().splitlines()[0] == "at,step,epoch,split,metric,value"


# --------------------------------------------------------------------------------------------------- small things


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("LTH_RUNS")
    monkeypatch.delenv("LTH_ARCHIVE")
    assert store.runs() == store.ROOT / "runs"
    assert store.archive() == store.FIGURES / "archive"
    monkeypatch.setattr(store, "FIGURES", tmp_path)
    assert store.archive() == tmp_path / "archive"
    monkeypatch.setenv("LTH_RUNS", "~/somewhere")
    assert store.runs() == Path.home() / "somewhere"


@pytest.mark.parametrize("variable", ["LTH_RUNS", "LTH_ARCHIVE", "LTH_DATA"])
@pytest.mark.parametrize("given", ["mine", "./mine", "x/../mine", "two words", "é"])
def test_a_relative_folder_stays_where_it_was_when_it_was_first_asked_for(monkeypatch, tmp_path, variable, given):
    asks = {"LTH_RUNS": store.runs, "LTH_ARCHIVE": store.archive, "LTH_DATA": data_folder}[variable]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, given)
    expected = Path(os.path.normpath(tmp_path / given))
    assert asks() == expected
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert asks() == expected and os.environ[variable] == str(expected)  # for the processes that are started too


def test_a_relative_folder_is_relative_to_where_the_package_is_imported(tmp_path):
    (tmp_path / "later").mkdir()
    code = "import os; from lthcore import store; os.chdir('later'); print(store.runs())"
    environment = {**os.environ, "LTH_RUNS": "mine", "PYTHONPATH": str(store.ROOT)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "mine")


# ------------------------------------------------------------------------------------------------- the code's version


def git(*arguments, at):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *who, "-C", at, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository with one commit; in it a folder of the study, which is none. Asks anew for its version."""
    (tmp_path / "outer/study").mkdir(parents=True)
    git("init", "-q", at=tmp_path / "outer")
    (tmp_path / "outer/file").write_text("outer")
    git("add", ".", at=tmp_path / "outer")
    git("commit", "-q", "-m", "outer", at=tmp_path / "outer")
    monkeypatch.setattr(store, "ROOT", tmp_path / "outer/study")
    store.code_version.cache_clear()
    yield tmp_path / "outer"
    store.code_version.cache_clear()


def described(folder):
    command = ["git", "-C", folder, "describe", "--always", "--dirty"]
    return f"{store.__version__}+{subprocess.run(command, capture_output=True, text=True).stdout.strip()}"


@pytest.mark.parametrize("how", ["unpacked", "ignored", "GIT_DIR", "GIT_WORK_TREE too", "from a hook", "no git"])
def test_a_repository_around_the_checkout_is_not_its_own(repository, monkeypatch, how):
    if how == "ignored":
        (repository / ".gitignore").write_text("study\n")
    if how in ("GIT_DIR", "GIT_WORK_TREE too"):
        monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    if how == "GIT_WORK_TREE too":
        monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    if how == "from a hook":
        monkeypatch.setenv("GIT_INDEX_FILE", str(repository / ".git/index"))
    if how == "no git":
        monkeypatch.setenv("PATH", "")
    assert store.code_version() == store.__version__


@pytest.mark.parametrize("how", ["a clone", "a clone inside another", "a worktree", "with others' variables"])
def test_the_checkouts_own_commit_is_named(repository, monkeypatch, tmp_path, how):
    checkout = repository / "study" if how == "a clone inside another" else tmp_path / "own"
    if how == "a worktree":
        git("worktree", "add", "-q", checkout, at=repository)
    else:
        git("clone", "-q", repository, checkout, at=tmp_path)
    (checkout / "more").write_text("more")
    git("add", ".", at=checkout)
    git("commit", "-q", "-m", "own", at=checkout)
    monkeypatch.setattr(store, "ROOT", checkout)
    expected = described(checkout)
    assert expected != described(repository)
    if how == "with others' variables":
        for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CEILING_DIRECTORIES"):
            monkeypatch.setenv(name, str(repository / ".git"))
    assert store.code_version() == expected
    store.code_version.cache_clear()
    (checkout / "more").write_text("changed")
    assert store.code_version() == f"{expected}-dirty"


@pytest.mark.parametrize("wanted", [True, 1, 0, None, "no"])
def test_drive_is_refused_outside_colab(wanted):
    with pytest.raises(ValueError, match=f"drive = {wanted!r}: must be False outside Colab") as caught:
        store.use_drive(wanted)
    assert len(str(caught.value).splitlines()) == 1
    store.use_drive(False)


@given(text=st.text())
def test_a_file_name_has_no_surprises(text):
    name = store.file_name(text)
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-_")


def test_progress_counts_what_the_store_holds():
    s = experiments.study("task1", "report", overrides={"rounds": 1})
    done = [(u, k) for u in s.units for k in u.levels]
    for u, level in done[:5]:
        save(u, level)
    row = experiments.progress([s]).loc["task1"]
    assert row["levels finished"] == 5 and row["of"] == len(done) == s.config.replicates * (2 + 2 + 1 + 1 + 1)
