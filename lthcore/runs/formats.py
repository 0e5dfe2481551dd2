"""How finished levels look as bytes, alone and packed, and how such bytes are read: nothing of it can execute anything.

What is damaged raises one of ``DAMAGED``, or is nothing.
"""

import hashlib
import io
import json
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from functools import cached_property, lru_cache

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_tensors

from ..disk.tensors import DAMAGED, MAX_BYTES, save_tensors
from ..schedule import ARCHITECTURES

PACKED = "levels.json", "rows.csv", "masks.safetensors"  # the members of a pack of the archive,
SUMS = "sha256.json"  # and the one with their sums
NOTHING = {"levels": {}, "rows": {}, "masks": {}}  # what a pack holds that is missing or damaged
ROWS = ["step", "epoch", "split", "metric", "value"]
ACCURACY = r"(?:early_|path_|deleted_)?accuracy(?::[^,\n]*)?"  # metrics in percent
# read back exactly what was written: pandas does so by itself from 3.1 on, which warns where it is asked for
EXACT = {} if tuple(map(int, pd.__version__.split(".")[:2])) >= (3, 1) else {"float_precision": "round_trip"}


class Found:
    """A finished level as read from the store or the archive.

    `place` says where a pack has its rows: (table of the whole pack, first row, row behind the last).
    """

    def __init__(self, facts, rows, mask, place=None):
        self.facts = facts
        self.place = place
        self._rows = rows
        self._mask = mask

    def rows(self):
        """Frame with the columns ``ROWS``."""
        return self._rows()

    def packed_mask(self):
        """The mask the next level starts from as it is kept: dict, layer name -> array of bytes, a bit a weight."""
        return self._mask()

    def next_mask(self, model):
        """The mask the next level starts from: dict, layer name -> bool array."""
        packed = self._mask()
        return {
            name: np.unpackbits(packed[name], count=int(np.prod(shape))).reshape(shape).astype(bool)
            for name, shape in ARCHITECTURES[model].weights.items()
        }

    def final_accuracy(self):
        """Test accuracy at the last step, in percent."""
        rows = self.rows().query("split == 'test' and metric == 'accuracy'")
        return float(rows.sort_values("step")["value"].iloc[-1])

    def has_mask(self, model):
        """Whether it has the mask that the next level starts from, of this model: bool."""
        expected = {name: -(-int(np.prod(shape)) // 8) for name, shape in ARCHITECTURES[model].weights.items()}
        try:
            return {name: len(v) for name, v in self._mask().items() if v.dtype == np.uint8} == expected
        except DAMAGED:
            return False


def sums(files):
    """SHA-256 of files, name -> bytes: dict."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def is_measured(content):
    """Whether a table's bytes have a level's test accuracy, and no accuracy that is not from 0 to 100."""
    found = re.findall(rf",{ACCURACY},([^,\n]*)$".encode(), content, re.M)
    try:
        percent = all(0 <= float(value) <= 100 for value in found)
    except ValueError:
        return False
    return percent and content.startswith(",".join(ROWS).encode()) and b",test,accuracy," in content


def read_rows(content, path, columns=ROWS):
    """The table in a CSV file's bytes; ValueError, in one line, where they are none."""
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype={"epoch": float, "value": float}, **EXACT)
        if list(frame) != columns or frame["step"].dtype != np.int64 or frame.isna().any(axis=None):
            raise ValueError(f"its columns are not {', '.join(columns)}, whole numbers, numbers and words")
        return frame
    except DAMAGED as error:
        raise ValueError(f"{path} is no table of a level ({' '.join(str(error).split())}): move it away") from None


class _Masks(Mapping):
    """The masks of a pack, unpacked when one is asked for: half of the work, and most who read a pack want its rows."""

    def __init__(self, path, pack, digest, levels):
        self._path, self._pack, self._digest, self._levels = path, pack, digest, levels

    @cached_property
    def _tensors(self):
        try:
            content = self._pack.read(PACKED[2])
            if hashlib.sha256(content).hexdigest() != self._digest:
                raise ValueError("not those that were written")
            found = load_tensors(content)
            if not {name.rpartition("/")[0] for name in found} <= self._levels:
                raise ValueError("of other levels")
        except DAMAGED as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"the masks of {self._path} are damaged ({reason}): a run sets it aside") from None
        return found

    def __getitem__(self, name):
        return self._tensors[name]

    def __iter__(self):
        return iter(self._tensors)

    def __len__(self):
        return len(self._tensors)


class _Rows(Mapping):
    """The table of a pack by level, each cut out when one is asked for; `places` are their ends in `table`."""

    def __init__(self, table, places):
        self.table, self.places = table, places

    def __getitem__(self, name):
        return self.table.iloc[slice(*self.places[name])]

    def __iter__(self):
        return iter(self.places)

    def __len__(self):
        return len(self.places)


def read_pack(path):
    """A pack's levels (name -> facts), rows (name -> frame) and masks; nothing where it is missing or damaged.

    A pack is unpacked once, and again when the file has changed. The masks are unpacked when they are used, and raise
    a ValueError in one line then; :func:`whole_pack` asks for them at once.
    """
    state = _state(path)
    return _read_state(path, *state) if state else NOTHING


def whole_pack(path):
    """The same as plain dicts, but nothing where a mask is damaged."""
    pack = read_pack(path)
    try:
        return pack | {part: dict(pack[part]) for part in ("rows", "masks")}
    except DAMAGED:
        return NOTHING


def may_hold(path, level):
    """Whether a pack lists this level: bool. Only the list is read, so the rest may still be damaged."""
    state = _state(path)
    return bool(state) and level in _listed(path, *state)


def _state(path):
    """Inode, size and time of a file, which change with its content; None for what is no regular file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


@lru_cache(maxsize=128)  # all that the archive has: the scorecard reads it whole, and some studies compare others'
def _read_state(path, *state):
    try:
        return _unpacked(path)
    except DAMAGED:
        return NOTHING


@lru_cache(maxsize=256)  # names alone: of every experiment
def _listed(path, *state):
    try:
        with zipfile.ZipFile(path) as pack:
            if _is_a_bomb(pack):
                return frozenset()
            return frozenset(json.loads(pack.read(PACKED[0])))
    except DAMAGED:
        return frozenset()


def forget():
    """Forget what has been read of packs, so that every pack is read again."""
    _read_state.cache_clear()
    _listed.cache_clear()


read_pack.cache_clear = forget


def _is_a_bomb(pack):
    return sum(member.file_size for member in pack.infolist()) > MAX_BYTES


def _unpacked(path):
    large = path.stat().st_size > MAX_BYTES
    pack = zipfile.ZipFile(io.BytesIO(b"" if large else path.read_bytes()))  # packed, whatever becomes of the file
    if _is_a_bomb(pack):
        raise ValueError("its members are larger than any that are written")
    known = json.loads(pack.read(SUMS))
    contents = {name: pack.read(name) for name in PACKED[:2]}  # each member's CRC is checked as well
    if set(known) != set(PACKED) or sums(contents) != {name: known[name] for name in contents}:
        raise ValueError("a member is not the one that was written")
    levels = dict(json.loads(contents["levels.json"]))
    rows = _by_level(read_rows(contents["rows.csv"], path, ["at", *ROWS]))
    if set(levels) != set(rows) or PACKED[2] not in pack.namelist():
        raise ValueError("its members do not belong together")
    whose = {(record["identity"]["experiment"], record["identity"]["replicate"]) for record in levels.values()}
    if {(experiment, f"r{replicate}.zip") for experiment, replicate in whose} != {(path.parent.name, path.name)}:
        raise ValueError("it is another replicate's")
    return {"levels": levels, "rows": rows, "masks": _Masks(path, pack, known[PACKED[2]], set(levels))}


def _by_level(table):
    """The table of a pack by its first column, the levels' names."""
    names = table.pop("at").to_numpy(object)
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1)]
    places = {names[a]: (a, b) for a, b in zip(starts, [*starts[1:], len(names)], strict=True)}
    if len(places) != len(starts):
        raise ValueError("the rows of a level do not stand together")
    at, metrics = pd.factorize(table["metric"])
    values = table["value"].to_numpy()[np.array([bool(re.fullmatch(ACCURACY, name)) for name in metrics])[at]]
    tested = (metrics == "accuracy")[at] & (table["split"] == "test").to_numpy()
    if not ((values >= 0) & (values <= 100)).all() or not np.logical_or.reduceat(tested, starts).all():
        raise ValueError("an accuracy is none, or a level has none on the test images")
    return _Rows(table, places)


def pack_bytes(levels, rows, masks):
    """One file, so that it is replaced as a whole; without times in it, so that the same levels give the same bytes."""
    table = pd.concat([rows[name].assign(at=name) for name in sorted(rows)])[["at", *ROWS]]
    contents = (
        json.dumps(levels, indent=0, sort_keys=True).encode(),
        table.to_csv(index=False, lineterminator="\n").encode(),
        save_tensors(dict(sorted(masks.items()))),
    )
    contents = dict(zip(PACKED, contents, strict=True))
    contents[SUMS] = json.dumps(sums(contents), indent=1).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as pack:  # half the size of deflate
        for name, content in contents.items():
            pack.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_LZMA)
    return out.getvalue()
