"""What is damaged, foreign or hostile is found out, named, set aside and made again; a disk that fails is named."""

import errno
import hashlib
import itertools
import json
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import types
import zipfile

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import SHAPES, TINY, InlinePool, folder, forge, repack, save, tasks_of, tiny_study

from lthcore import cli
from lthcore.disk import files, tensors
from lthcore.explore import notebooks
from lthcore.runs import archive, download, formats, processes, store, sweep
from lthcore.studies import experiments, plots


@pytest.fixture
def finished(queue):
    """The tiny study as if it had been trained, each level with numbers of its own: list of tasks."""
    tasks = [(unit, level) for unit in tiny_study().units for level in unit.levels]
    for seed, task in enumerate(tasks):
        save(*task, seed)
    queue.finished.update(tasks)
    return tasks


def run():
    said = []
    sweep.run(tiny_study().units, "cpu", 2, log=said.append)
    return said


def flip(content, at, bit):
    content = bytearray(content)
    content[at] ^= 1 << bit
    return bytes(content)


# ---- damaged levels: every kind at every place -----------------------------------------------------------------------

PLACES = ["facts.json", "rows.csv", "mask.safetensors"]
KINDS = {
    "emptied": lambda content, other: b"",
    "cut by a byte": lambda content, other: content[:-2],
    "half": lambda content, other: content[: len(content) // 2],
    "a bit at the start": lambda content, other: flip(content, 0, 0),
    "a bit in the middle": lambda content, other: flip(content, len(content) // 2, 3),
    "a bit at the end": lambda content, other: flip(content, len(content) - 2, 6),
    "longer": lambda content, other: content + b"x",
    "another level's": lambda content, other: other,
    "foreign": lambda content, other: b"\x89PNG\r\n\x1a\n" + bytes(100),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("level", [0, 1])
def test_a_damaged_level_is_named_set_aside_and_alone_trained_again(queue, finished, place, kind, level):
    chain = finished[0][0]
    assert chain.prunes
    path, other = folder((chain, level)) / place, folder((chain, 1 - level)) / place
    damaged = KINDS[kind](path.read_bytes(), other.read_bytes())
    path.write_bytes(damaged)
    said = run()
    assert queue.started == [(chain, level)]  # that level, and nothing else
    assert f"{path.parent} is damaged" in said[0] and f"level-0{level}.bad-1" in said[0]
    assert len(said[0].splitlines()) == 1
    assert (path.parent.with_name(f"{path.parent.name}.bad-1") / place).read_bytes() == damaged
    assert not path.parent.exists() and not [line for line in said[1:] if "damaged" in line]


@pytest.mark.parametrize("place", PLACES)
def test_a_level_without_one_of_its_files_is_trained_again(queue, finished, place):
    (folder(finished[0]) / place).unlink()
    run()
    assert queue.started == [finished[0]]


def test_whole_levels_that_changed_places_are_both_trained_again(queue, finished):
    one, other = (folder(task) for task in finished[:2])
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    run()
    assert set(queue.started) == set(finished[:2]) and len(queue.started) == 2


def test_no_bit_of_a_level_can_turn_unnoticed(finished):
    """Every place, 60 bits of each: what is read is either nothing or what was written."""
    random, task = np.random.default_rng(0), finished[0]
    rows, mask = store.find_level(*task).rows(), store.find_level(*task).next_mask("mlp")
    noticed = 0
    for place in PLACES:
        path = folder(task) / place
        content = path.read_bytes()
        for at, bit in zip(random.integers(len(content), size=60), random.integers(8, size=60), strict=True):
            path.write_bytes(flip(content, at, bit))
            found = store.find_level(*task)
            noticed += found is None
            if found:  # a bit in the name of the sum itself, say
                assert found.rows().equals(rows) and found.facts["facts"] == {"seconds": 1.0}
                assert all((found.next_mask("mlp")[name] == m).all() for name, m in mask.items())
        path.write_bytes(content)
    assert noticed >= 175


def test_a_level_of_an_older_version_without_a_sum_of_its_facts_is_believed(queue, finished):
    path = folder(finished[0]) / "facts.json"
    record = json.loads(path.read_text())
    del record["sum"]
    path.write_text(json.dumps(record))
    assert store.find_level(*finished[0]) is not None
    run()
    assert queue.started == []


UNTESTED = {
    "no test rows": "12,0.5,validation,accuracy,97.0\n",
    "above 100": "12,0.5,test,accuracy,100.5\n",
    "below 0": "12,0.5,test,accuracy,97.0\n12,0.5,test,early_accuracy,-1.0\n",
    "infinite": "12,0.5,test,accuracy,inf\n",
    "none": "12,0.5,test,accuracy,\n",
    "of a path": "12,0.5,test,accuracy,97.0\n12,0.5,test,path_accuracy:0.5,nan\n",
}


@pytest.mark.parametrize("rows", UNTESTED)
def test_a_level_without_a_test_accuracy_from_0_to_100_is_damaged(queue, finished, rows):
    """Though its sums fit."""
    forge(finished[0], "rows.csv", f"step,epoch,split,metric,value\n{UNTESTED[rows]}".encode())
    said = run()
    assert queue.started == [finished[0]] and "is damaged" in said[0]


@pytest.fixture
def at_once():
    """A test that waits for a pipe ends."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits"))
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", ["pipe", "device"])
@pytest.mark.parametrize("place", PLACES)
def test_a_pipe_or_a_device_in_a_files_place_is_refused_at_once(queue, finished, at_once, place, kind):
    path = folder(finished[0]) / place
    path.unlink()
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    run()
    assert queue.started == [finished[0]]
    with pytest.raises(ValueError, match="is not a plain file"):
        tensors.read_file(next(store.runs().rglob(f"*.bad-1/{place}"), path))


def test_a_pipe_in_the_place_of_a_pack_a_lock_or_a_data_file_is_not_waited_for(queue, packed, at_once):
    packed.unlink()
    os.mkfifo(packed)
    assert f"{packed} is damaged" in run()[0]
    for name in ("training.lock", "train-labels-idx1-ubyte"):
        os.mkfifo(packed.with_name(name))
    with files.hold(packed.with_name("training.lock")):
        assert not download._good(packed.with_name("train-labels-idx1-ubyte"), download.SHA256)


def test_more_rounds_train_the_mask_that_fewer_did_not_need(queue, finished):
    units = experiments.study("mlp", "smoke", overrides={**TINY, "rounds": 3}).units
    queue.finished.update(task for task in tasks_of(units) if store.find_level(*task) and task[1] < 2)
    sweep.run(units, "cpu", 1, log=lambda line: None)
    chains = [u for u in units if u.prunes]
    assert {(u, 2) for u in chains} | {(u, 3) for u in chains} <= set(queue.started)
    assert not {(u, k) for u in chains for k in (0, 1)} & set(queue.started)


def test_a_dry_run_renames_nothing(finished):
    path = folder(finished[0]) / "rows.csv"
    path.write_bytes(b"")
    before = sorted(store.runs().rglob("*"))
    sweep.Plan(tiny_study().units)
    experiments.finished(tiny_study())
    assert sorted(store.runs().rglob("*")) == before


# ---- damaged packs of the archive ------------------------------------------------------------------------------------


@pytest.fixture
def packed(finished, monkeypatch, tmp_path):
    """The same in the archive alone: path of the pack."""
    (path,) = archive.write(tiny_study().units)
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "elsewhere"))
    return path


PACK_KINDS = [kind for kind in KINDS if kind not in ("another level's", "longer")]


@pytest.mark.parametrize("kind", PACK_KINDS)
def test_a_damaged_pack_is_named_and_set_aside(queue, packed, kind):
    damaged = KINDS[kind](packed.read_bytes(), b"")
    packed.write_bytes(damaged)
    formats.read_pack.cache_clear()
    said = run()
    if queue.started:  # a bit of a zip's date, say, damages nothing
        assert f"{packed} is damaged" in said[0] and packed.with_name("r0.zip.bad-1").read_bytes() == damaged
        assert set(queue.started) == tasks_of(tiny_study().units)


@pytest.mark.parametrize("kind", ["emptied", "half", "foreign"])
@pytest.mark.parametrize("member", ["levels", "rows", "masks"])
def test_a_pack_with_a_damaged_member_is_set_aside(queue, packed, member, kind):
    repack(packed, **{member: lambda content: KINDS[kind](content, b"")})
    said = run()
    assert packed.with_name("r0.zip.bad-1").exists() and "is damaged" in said[0]
    assert set(queue.started) == tasks_of(tiny_study().units)


@pytest.mark.parametrize("sums", [True, None])
def test_packs_that_changed_places_are_named_and_set_aside(queue, monkeypatch, tmp_path, sums):
    units = experiments.study("mlp", "smoke", replicates=2, overrides=TINY).units
    for seed, task in enumerate(tasks_of(units)):
        save(*task, seed)
    one, other = archive.write(units)
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "elsewhere"))
    content, others = one.read_bytes(), other.read_bytes()
    one.write_bytes(others)
    other.write_bytes(content)
    for path in (one, other):
        repack(path, sums)
    said = []
    sweep.run(units, "cpu", 2, log=said.append)
    for path, line in zip((one, other), said[:2], strict=True):
        assert line.startswith(f"{path} is damaged: kept as {path.name}.bad-1")
    assert set(queue.started) == tasks_of(units)
    assert not one.exists() and not other.exists()


def test_a_pack_whose_numbers_were_edited_is_refused(queue, packed):
    """Unpacked, edited and packed again: its CRCs fit, its sums do not."""
    repack(packed, False, rows=lambda content: content.replace(b"0.5", b"99.5"))
    said = run()
    assert packed.with_name("r0.zip.bad-1").exists() and "is damaged" in said[0]
    assert set(queue.started) == tasks_of(tiny_study().units)


@pytest.mark.parametrize("value", ["100.5", "inf", "-1"])
def test_a_pack_with_an_accuracy_that_is_none_is_refused(queue, packed, value):
    repack(packed, rows=lambda content: content.replace(b"accuracy,0.5", f"accuracy,{value}".encode()))
    assert "is damaged" in run()[0] and packed.with_name("r0.zip.bad-1").exists()


def test_a_pack_with_a_level_that_was_not_tested_is_refused(queue, packed):
    repack(packed, rows=lambda content: content.replace(b"test", b"train", 2))
    assert "is damaged" in run()[0] and packed.with_name("r0.zip.bad-1").exists()


def test_a_pack_without_its_sums_is_refused(queue, packed):
    repack(packed, None)
    said = run()
    assert packed.with_name("r0.zip.bad-1").exists() and "is damaged" in said[0]
    assert set(queue.started) == tasks_of(tiny_study().units)


def test_no_bit_of_a_pack_can_turn_unnoticed(packed):
    random, content, tasks = np.random.default_rng(0), packed.read_bytes(), tasks_of(tiny_study().units)
    rows = {task: store.find_level(*task).rows() for task in tasks}
    for at, bit in zip(random.integers(len(content), size=60), random.integers(8, size=60), strict=True):
        packed.write_bytes(flip(content, at, bit))
        formats.read_pack.cache_clear()
        for task in tasks:
            found = store.find_level(*task)
            assert found is None or found.rows().equals(rows[task])


# ---- the data folder -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", range(4))
def test_a_damaged_data_file_is_set_aside_and_fetched_again(tmp_path, monkeypatch, place, kind):
    contents = {name: f"the bytes of {name} ".encode() * 50 for name in download.SHA256}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(download, "SHA256", sums)
    monkeypatch.setattr(download, "_mirrors", lambda root, name: [("a mirror", contents[name])])
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    name, other = list(contents)[place], list(contents)[place - 1]
    damaged = KINDS[kind](contents[name], contents[other])
    (tmp_path / name).write_bytes(damaged)
    said = []
    download.fetch(said.append)
    assert (tmp_path / f"{name}.bad-1").read_bytes() == damaged and f"{name}.bad-1" in said[0] and len(said) == 2
    assert all((tmp_path / n).read_bytes() == content for n, content in contents.items())


# ---- a disk that fails -----------------------------------------------------------------------------------------------


def one_line(caught, *parts):
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and all(str(word) in text for word in parts), text


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["full", "gone"])
def test_a_store_that_fails_while_training_stops_the_run_in_one_line(fresh, monkeypatch, capsys, trouble):
    write, written = store.write, itertools.count()

    def fail(path, content):
        if next(written) < 5:
            return write(path, content)
        raise OSError(28, "No space left on device")

    def lose(path, content):
        write(path, content)
        if path.name == "facts.json":
            fresh.rename(fresh.with_name("unplugged"))

    monkeypatch.setattr(store, "write", {"full": fail, "gone": lose}[trouble])
    monkeypatch.setattr(processes, "ProcessPoolExecutor", InlinePool)
    options = [word for name, value in TINY.items() for word in ("--set", f"{name}={value}")]
    assert cli.main(["smoke", "--only", "mlp", "--workers", "1", *options]) == 1
    said = capsys.readouterr().err
    assert (
        len(said.splitlines()) == 1 and str(fresh) in said and "LTH_RUNS" in said and "what is finished is kept" in said
    )
    if trouble == "gone":
        assert not fresh.exists()  # it is not made anew in its place
        fresh.with_name("unplugged").rename(fresh)
    found = [task for task in tasks_of(tiny_study().units) if store.find_level(*task)]
    assert len(found) == 1 and not list(fresh.rglob(".*.aside"))


def test_a_read_only_store_is_refused_before_anything_is_trained(queue, monkeypatch):
    monkeypatch.setattr(files.tempfile, "TemporaryFile", failing(errno.EROFS))
    with pytest.raises(RuntimeError) as caught:
        run()
    one_line(caught, store.runs(), "Read-only file system", "LTH_RUNS")
    assert queue.started == []


def failing(number):
    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", [errno.EROFS, errno.ENOSPC])
def test_figures_that_cannot_be_written_are_named_before_anything_is_trained(folders, monkeypatch, capsys, number):
    monkeypatch.setattr(files.tempfile, "TemporaryFile", failing(number))
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("trained"))
    assert cli.main(["smoke", "--only", "mlp"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run_all.sh: {folders / 'figures' / 'smoke'} cannot be written ({os.strerror(number)})")
    assert not (folders / "figures").exists()


@pytest.mark.parametrize("name", ["figures", "figures/smoke", "figures/smoke/executed"])
def test_a_file_where_figures_go_is_named_before_anything_is_trained(folders, monkeypatch, capsys, name):
    path = folders / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("trained"))
    assert cli.main(["smoke", "--only", "mlp"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run_all.sh: {folders / 'figures' / 'smoke'} cannot be written (Not a directory)")
    assert path.read_text() == "mine"


def test_a_notebook_that_cannot_be_read_is_named_before_anything_is_trained(folders, monkeypatch, capsys):
    shutil.copytree(store.ROOT / "notebooks", folders / "notebooks")
    (folders / "notebooks" / "00_scorecard.ipynb").write_text("<<<<<<< HEAD")
    monkeypatch.setattr(cli, "ROOT", folders)
    monkeypatch.setattr(experiments, "run", lambda *_, **__: pytest.fail("trained"))
    assert cli.main(["smoke", "--only", "mlp"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "00_scorecard.ipynb cannot be read as a notebook" in line


def test_figures_whose_disk_fills_while_they_are_drawn_are_named(folders, monkeypatch):
    monkeypatch.setattr(store, "write", failing(errno.ENOSPC))
    with pytest.raises(RuntimeError) as caught:
        plots._save(folders / "figures", {}, "fig1", plt.figure(), pd.DataFrame())
    plt.close("all")
    one_line(caught, folders / "figures", "No space left on device")
    cell = "PapermillExecutionError\n---- cell 3\nOSError\n"
    assert notebooks.why_it_failed(1, f"{cell}RuntimeError: {caught.value}\n") == f"RuntimeError: {caught.value}"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_an_archive_that_cannot_be_written_is_named(finished, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(files, "write", fail)
    with pytest.raises(RuntimeError) as caught:
        archive.write(tiny_study().units)
    one_line(caught, store.archive(), error.strerror, "LTH_ARCHIVE")


@pytest.fixture
def colab(monkeypatch, tmp_path):
    """Stands in for Colab's module: what `mount` does is set by the test."""
    drive = types.SimpleNamespace(mount=lambda where: None)
    module = types.ModuleType("google.colab")
    module.drive = drive
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "runs"))
    return drive


def test_on_drive_levels_are_written_directly_and_a_full_drive_is_named(colab, monkeypatch):
    mounted = []
    colab.mount = mounted.append
    store.use_drive(True)
    assert mounted == ["/content/drive"] and str(store.runs()) == "/content/drive/MyDrive/lth-runs"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(RuntimeError) as caught:
        save(tiny_study().units[0], 0, 0)
    one_line(caught, "/content/drive/MyDrive/lth-runs cannot be written (No space left on device)")


def test_a_drive_that_cannot_be_mounted_is_said_in_one_line_and_changes_nothing(colab, tmp_path):
    def refuse(where):
        raise RuntimeError("mount failed:\ninvalid oauth code")

    colab.mount = refuse
    with pytest.raises(ValueError) as caught:
        store.use_drive(True)
    one_line(caught, "drive = True", "invalid oauth code", "drive = False")
    assert store.runs() == tmp_path / "runs"


# ---- two at once -----------------------------------------------------------------------------------------------------


def test_a_level_that_another_run_finished_meanwhile_is_not_trained(finished, monkeypatch):
    from lthcore import lottery

    def refuse(*_):
        raise AssertionError("trained")

    monkeypatch.setattr(lottery, "train_level", refuse)
    assert sweep.run_levels([finished[3]]) == [(0.0, 3.5)]
    assert sweep.run_levels(finished[:2]) == [(0.0, 0.5), (0.0, 1.5)]


# ---- hostile files ---------------------------------------------------------------------------------------------------


def header(**tensors):
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


LYING = {
    "a tensor of 8 GB": header(fc1={"dtype": "U8", "shape": [1 << 33], "data_offsets": [0, 1 << 33]}),
    "a header of 2**60 bytes": struct.pack("<Q", 1 << 60) + b"{}",
    "negative offsets": header(fc1={"dtype": "U8", "shape": [8], "data_offsets": [-8, 0]}),
    "a shape that overflows": header(fc1={"dtype": "F64", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}),
    "other layers": header(fc9={"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}) + b"x",
    "other types": header(**{n: {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in SHAPES}),
    "other sizes": header(**{n: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for n in SHAPES}),
    "deep nesting": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "no header": b"\x80\x04\x95",
}


@pytest.mark.parametrize("lie", LYING)
def test_a_mask_that_lies_is_refused_without_memory_for_its_lie(queue, finished, lie):
    forge(finished[0], "mask.safetensors", LYING[lie])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not store.find_level(*finished[0]).has_mask("mlp")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB
    run()
    assert queue.started == [finished[0]]


@pytest.mark.parametrize("name", ["../secret", "../../secret", "/etc/hostname", "a/../../secret"])
def test_a_name_with_a_path_does_not_leave_its_folder(finished, name, monkeypatch):
    read = []
    monkeypatch.setattr(store, "read_file", lambda path, real=store.read_file: read.append(path) or real(path))
    path = folder(finished[0]) / "facts.json"
    record = json.loads(path.read_text())
    del record["sum"]
    record["sha256"][name] = "0" * 64
    path.write_text(json.dumps(record))
    assert store.find_level(*finished[0]) is None
    assert read == [path]


@pytest.mark.parametrize("text", ["[" * 300_000, '{"a":' * 300_000, "1" * 100_000, '"' + "x" * 1000, "NaN", "[1e999]"])
def test_json_bombs_are_no_facts(finished, text):
    (folder(finished[0]) / "facts.json").write_text(text)
    assert store.find_level(*finished[0]) is None


def test_a_file_without_an_end_is_not_read_to_it(finished, monkeypatch):
    monkeypatch.setattr(tensors, "MAX_BYTES", 100_000)  # more than the mask has, which is read before
    (folder(finished[0]) / "rows.csv").unlink()
    (folder(finished[0]) / "rows.csv").symlink_to("/dev/zero")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert store.find_level(*finished[0]) is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_member_that_says_it_is_enormous_is_not_unpacked(packed, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 10_000)
    repack(packed, rows=lambda content: content + b"\n" * 20_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("unpacked"))
    assert formats.read_pack(packed)["levels"] == {}


def test_members_with_a_path_are_not_unpacked_anywhere(packed, tmp_path):
    with zipfile.ZipFile(packed, "a") as pack:
        pack.writestr("../../escaped", b"x")
    formats.read_pack.cache_clear()
    assert store.find_level(tiny_study().units[0], 0) is not None
    assert not list(tmp_path.rglob("escaped")) and not (tmp_path.parent / "escaped").exists()


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(place=st.sampled_from(PLACES), content=st.binary(max_size=300), front=st.integers(0, 400))
def test_whatever_stands_in_a_file_is_a_level_or_none(place, content, front):
    """With the right sum, so that its content is what is judged."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
        patch.setenv("LTH_RUNS", root)
        task = tiny_study().units[0], 0
        save(*task, 0)
        path = folder(task) / place
        content = path.read_bytes()[:front] + content
        path.write_bytes(content) if place == "facts.json" else forge(task, place, content)
        found = store.find_level(*task)
        if found:
            assert found.has_mask("mlp") in (True, False)
