"""Where a run lives on disk: finished levels, the committed archive, provenance.

A finished level is a folder ``runs/<unit key>/level-07/`` of three files: ``rows.csv`` (what was
measured), ``mask.safetensors`` (the mask the next level starts from, a bit a weight) and
``facts.json``, which is written last and holds the SHA-256 of the other two: where it is missing
or does not fit, the level is not finished. Beside them lie the level's weights, where someone asked
for them or the next level goes on from them (``weights.safetensors``, ``weights.json``). The archive
in ``figures/archive/`` holds the same but the weights, packed per experiment and replicate. Nothing
that is read can execute anything.
"""

import contextlib
import hashlib
import io
import json
import lzma
import os
import platform
import re
import subprocess
import sys
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors import numpy as safetensors
from safetensors.numpy import load as load_tensors

from .. import __version__
from ..config import DATASETS, EXPERIMENTS
from ..schedule import ARCHITECTURES
from .files import LOCK, clear, data_folder, folder_named, folders, hold, remove, set_aside, write

ROOT = Path(__file__).resolve().parents[2]  # the checkout
FIGURES = ROOT / "figures"
DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RecursionError)
DAMAGED += (SafetensorError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what reading a damaged file may raise
PACKED = "levels.json", "rows.csv", "masks.safetensors"  # the members of a pack of the archive,
SUMS = "sha256.json"  # and the one with their sums
ROWS = ["step", "epoch", "split", "metric", "value"]
MOST = 1 << 28  # bytes: no file of the store and no member of a pack is nearly as large


def runs():
    """Folder of finished levels: ``LTH_RUNS``, or ``runs`` in the checkout."""
    return folder_named("LTH_RUNS", ROOT / "runs")


def use_drive(wanted):
    """In Colab, keep finished levels on Google Drive, so that a later session goes on.

    Raises
    ------
    ValueError
        If it is wanted anywhere else.
    """
    if not isinstance(wanted, bool) or (wanted and "google.colab" not in sys.modules):
        raise ValueError(f"drive = {wanted!r}: must be False outside Colab, True or False there")
    if wanted:
        from google.colab import drive

        try:
            drive.mount("/content/drive")
        except Exception as error:  # refused, timed out, ...
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"drive = True: Google Drive cannot be mounted ({reason}): try again, or set drive = False, "
                "and finished levels last as long as this session"
            ) from None
        os.environ["LTH_RUNS"] = "/content/drive/MyDrive/lth-runs"


def archive():
    """Folder of the committed levels."""
    return folder_named("LTH_ARCHIVE", FIGURES / "archive")


def _folder(unit, level):
    return runs() / unit.key / f"level-{level:02d}"


def hold_level(unit, level):
    """Keep other runs on the same store from training a level too: context manager, whether none does already."""
    return hold(_folder(unit, level) / LOCK)


@contextlib.contextmanager
def _writing(folder, variable):
    """Say in one line that a folder cannot be written."""
    try:
        yield
    except OSError as error:
        raise RuntimeError(
            f"{folder()} cannot be written ({error.strerror or error}): make room there, bring it back or "
            f"set {variable} to another folder; what is finished is kept, and the same command goes on from it"
        ) from None


# What the study writes, and where: whole names, as regular expressions. Nothing else is ever cleared away.
LEVEL = r"level-\d{2,}"
OF_A_LEVEL = (r"rows\.csv", r"mask\.safetensors", r"facts\.json", r"weights\.safetensors", r"weights\.json")
MARK = re.compile(r"\.[0-9a-f]{16}\.aside", re.ASCII)  # by which the workers of a cluster know the store
PACK = r"r\d+\.zip"
OF_THE_DATA = (r"(?:train|t10k)-(?:images-idx3|labels-idx1)-ubyte", r"cifar-10-binary\.tar\.gz")
FIGURE = r"fig\d+[a-z]?_[a-z0-9_]+\.(?:png|svg|csv|json)"
COPY = r"\d\d_[a-z0-9_]+"  # an executed notebook
PARTIAL = re.compile(rf"{COPY}\.partial-[0-9a-f]{{8}}\.ipynb", re.ASCII)


def clear_up(figures):
    """Remove what the killed left of this study's own files, where it writes them.

    These are copies aside that are an hour old, in the store, the archive, the data's folder and the folders of
    figures, partial copies of executed notebooks as old, and locks that nobody holds. See :func:`lthcore.runs.files.clear`.

    Parameters
    ----------
    figures : iterable of pathlib.Path
        Folders to which figures go.
    """
    remove(runs(), MARK.fullmatch)
    names = "|".join(map(re.escape, EXPERIMENTS))
    for unit in folders(runs(), rf"(?:{names})-.+-r\d+-[0-9a-f]{{12}}"):
        for level in folders(unit, LEVEL):
            clear(level, *OF_A_LEVEL)
            if (level / LOCK).is_file():
                with hold(level / LOCK):  # it goes if nobody else holds it
                    pass
    for experiment in EXPERIMENTS:
        clear(archive() / experiment, PACK)
    for folder in (data_folder(), *(data_folder() / dataset for dataset in DATASETS)):
        clear(folder, *OF_THE_DATA)
    for folder in set(figures):
        clear(folder, FIGURE)
        clear(folder / "executed", rf"{COPY}\.html")
        remove(folder / "executed", PARTIAL.fullmatch)


def save_level(unit, level, rows, next_mask, facts):
    """Keep a finished level.

    Parameters
    ----------
    unit : Unit
    level : int
    rows : list of (step, epoch, split, metric, value)
    next_mask : dict of str to (bool) array, or None
    facts : dict
        Plain values: seconds, device, versions, ...
    """
    files = {"rows.csv": pd.DataFrame(rows, columns=ROWS).to_csv(index=False, lineterminator="\n").encode()}
    if next_mask is not None:
        files["mask.safetensors"] = save_tensors({name: np.packbits(np.asarray(m)) for name, m in next_mask.items()})
    _keep(unit, level, "facts.json", files, facts)


@_writing(runs, "LTH_RUNS")
def _keep(unit, level, name, files, facts):
    """Write files of a level and then, as `name`, the record that holds their sums."""
    folder = _folder(unit, level)
    for file, content in files.items():
        write(folder / file, content)
    record = {"unit": unit.key, "level": level, "identity": unit.identity, "facts": facts, "sha256": _sums(files)}
    write(folder / name, json.dumps(record | {"sum": _sum_of(record)}, indent=1, sort_keys=True) + "\n")


def save_tensors(tensors, metadata=None):
    """Arrays by name as bytes; safetensors itself would write a view, such as a transpose, in its memory's order."""
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)


def _sums(files):
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _sum_of(record):
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _kept(unit, level, name):
    """What `_keep` wrote: (record, dict of file -> bytes), or None where it is missing, damaged or another unit's."""
    folder = _folder(unit, level)
    try:
        record = json.loads(read_file(folder / name))
        if record.pop("sum", None) not in (None, _sum_of(record)):  # a level of an older version has none
            return None
        if (record["unit"], record["identity"], record["level"]) != (unit.key, unit.identity, level):
            return None
        if any(os.path.basename(file) != file for file in record["sha256"]):  # not out of this folder
            return None
        files = {file: read_file(folder / file) for file in record["sha256"]}
    except DAMAGED:
        return None
    return (record, files) if _sums(files) == record["sha256"] else None


def read_file(path):
    """A file's bytes, but no endless ones."""
    with open(path, "rb") as f:
        content = f.read(MOST + 1)
    if len(content) > MOST:
        raise ValueError(f"{path} is larger than any file of the store")
    return content


class Found:
    """A finished level as read from the store or the archive."""

    def __init__(self, facts, rows, mask):
        self.facts, self._rows, self._mask = facts, rows, mask

    def rows(self):
        """Frame with the columns ``ROWS``."""
        return self._rows()

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


@_writing(runs, "LTH_RUNS")
def make():
    """Make the store before anything is trained."""
    runs().mkdir(parents=True, exist_ok=True)
    if not os.access(runs(), os.W_OK | os.X_OK):
        raise PermissionError("read-only")


@_writing(runs, "LTH_RUNS")
def check_there():
    """A store that has vanished (a disk or a share that is gone) is not made anew in another place."""
    if not runs().is_dir():
        raise FileNotFoundError("it is not there any more")


@_writing(runs, "LTH_RUNS")
def set_aside_damaged(units, say):
    """Rename levels and packs that say they are finished and are not what they say; they count as missing anyway."""
    for unit in units:
        for level in unit.levels:
            path = _folder(unit, level)
            if (path / "facts.json").exists() and _in_store(unit, level) is None:
                with contextlib.suppress(FileNotFoundError):  # another run was faster
                    say(f"{path} is damaged or another level's: kept as {set_aside(path).name} and trained again")
    for path in dict.fromkeys(map(_pack_path, units)):
        if path.exists() and not _read_pack(path)["levels"]:
            say(f"{path} is damaged: kept as {set_aside(path).name}; what it alone held is trained again")


def find_level(unit, level):
    """The finished level, from the store, else from the archive, else None."""
    return _in_store(unit, level) or _in_archive(unit, level)


def _in_store(unit, level):
    record, files = _kept(unit, level, "facts.json") or ({}, {})
    if files.get("rows.csv", b"").startswith(",".join(ROWS).encode()):
        path = _folder(unit, level) / "rows.csv"
        return Found(record, lambda: _frame(files[path.name], path), lambda: load_tensors(files["mask.safetensors"]))
    return None


class Weights(NamedTuple):
    """What the training of a level began with and ended in."""

    mask: dict  # layer name -> bool array
    start: dict  # parameter name -> float32 array, the values at the rewind step
    final: dict  # the same at the last step
    logits: np.ndarray  # (N_test, 10) at the last step


def save_weights(unit, level, weights, facts):
    """Keep a level's :class:`Weights`; `facts` are plain values."""
    groups = {name: getattr(weights, name) for name in ("mask", "start", "final")}
    tensors = {f"{group}.{name}": value for group, values in groups.items() for name, value in values.items()}
    content = save_tensors({**tensors, "logits": weights.logits})
    _keep(unit, level, "weights.json", {"weights.safetensors": content}, facts)


def find_weights(unit, level):
    """A level's :class:`Weights`, or None where they have not been kept."""
    if not (kept := _kept(unit, level, "weights.json")):
        return None
    groups = {"mask": {}, "start": {}, "final": {}}
    try:
        tensors = load_tensors(kept[1]["weights.safetensors"])
        for name, value in tensors.items():
            group, _, rest = name.partition(".")
            if rest:
                groups[group][rest] = value
        return Weights(**groups, logits=tensors["logits"])
    except DAMAGED:
        return None


def _frame(content, path, columns=ROWS):
    """The table in a CSV file's bytes; ValueError, in one line, where they are none."""
    try:
        # Python's float reads back exactly what was written; pandas' own readers differ between its versions
        frame = pd.read_csv(io.BytesIO(content), converters={"epoch": float, "value": float})
        if list(frame) != columns or frame["step"].dtype != np.int64 or frame.isna().any(axis=None):
            raise ValueError(f"its columns are not {', '.join(columns)}, whole numbers, numbers and words")
        return frame
    except DAMAGED as error:
        raise ValueError(f"{path} is no table of a level ({' '.join(str(error).split())}): move it away") from None


def archived_replicates(experiment):
    """Number of replicates that the archive has of an experiment."""
    return len(list((archive() / experiment).glob("r*.zip")))


def _pack_path(unit):
    return archive() / unit.config.experiment / f"r{unit.replicate}.zip"


def _in_archive(unit, level):
    pack = _read_pack(_pack_path(unit))
    name = f"{unit.key}/{level}"
    if pack["levels"].get(name, {}).get("identity") != unit.identity:
        return None

    def mask():
        return {k.removeprefix(f"{name}/"): v for k, v in pack["masks"].items() if k.startswith(f"{name}/")}

    return Found(pack["levels"][name], lambda: pack["rows"][name][ROWS].reset_index(drop=True), mask)


@lru_cache(maxsize=8)
def _read_pack(path):
    """A pack's levels (name -> facts), rows (name -> frame) and masks; nothing where it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as pack:  # it checks each member's CRC
            if max(member.file_size for member in pack.infolist()) > MOST:
                raise ValueError("a member is larger than any that is written")
            contents = {name: pack.read(name) for name in PACKED}
            if json.loads(pack.read(SUMS)) != _sums(contents):
                raise ValueError("a member is not the one that was written")
        levels, masks = dict(json.loads(contents["levels.json"])), load_tensors(contents["masks.safetensors"])
        rows = dict(list(_frame(contents["rows.csv"], path, ["at", *ROWS]).groupby("at")))
        if set(levels) != set(rows) or not {name.rpartition("/")[0] for name in masks} <= set(levels):
            raise ValueError("its members do not belong together")
        whose = {(record["identity"]["experiment"], record["identity"]["replicate"]) for record in levels.values()}
        if {(experiment, f"r{replicate}.zip") for experiment, replicate in whose} != {(path.parent.name, path.name)}:
            raise ValueError("it is another replicate's")
        return {"levels": levels, "rows": rows, "masks": masks}
    except DAMAGED:
        return {"levels": {}, "rows": {}, "masks": {}}


@_writing(archive, "LTH_ARCHIVE")
def write_archive(units):
    """Pack the finished levels of these units into ``figures/archive/``.

    What the archive already holds of other units stays, and a pack that holds these levels is not written again.
    Identical levels give identical bytes.

    Returns
    -------
    list of pathlib.Path
        The packs written.
    """
    packs = _by_pack(units)
    for path, members in packs.items():
        old = _read_pack(path)
        levels, rows, masks = dict(old["levels"]), dict(old["rows"]), dict(old["masks"])
        for unit in members:
            for level in unit.levels:
                found, name = find_level(unit, level), f"{unit.key}/{level}"
                if found is None:
                    continue
                levels[name] = {k: v for k, v in found.facts.items() if k != "sha256"}
                rows[name] = found.rows().assign(at=name)
                if "mask.safetensors" in found.facts.get("sha256", ()):
                    masks |= {f"{name}/{k}": v for k, v in found._mask().items()}
        if levels != old["levels"]:  # else it holds them already
            write(path, _pack(levels, rows, masks))
    _read_pack.cache_clear()
    return sorted(path for path in packs if path.exists())


@_writing(archive, "LTH_ARCHIVE")
def take(other, units):
    """Take packs that this archive lacks from another archive.

    A pack is taken if it has every level of its units, each with its unit's identity, and nothing else. It is written
    anew, as :func:`write_archive` would write it; a pack that is here already stays as it is.

    Parameters
    ----------
    other : pathlib.Path
        The other archive, with packs ``<experiment>/r<replicate>.zip``.
    units : list of Unit
        All units of their replicates.

    Returns
    -------
    list of pathlib.Path
        The packs taken.

    Raises
    ------
    ValueError
        If a pack there is not what it should be; nothing is taken then.
    """
    new = {}
    for path, members in _by_pack(units).items():
        there = Path(other) / path.relative_to(archive())
        if path.exists() or not there.exists():
            continue
        pack = _read_pack(there)
        expected = {f"{unit.key}/{level}": unit.identity for unit in members for level in unit.levels}
        identities = {name: facts["identity"] for name, facts in pack["levels"].items()}
        if identities != expected:
            same = sum(identities.get(name) == identity for name, identity in expected.items())
            raise ValueError(f"{there} has {same} of the {len(expected)} levels, and {len(identities) - same} others")
        new[path] = _pack(**pack)
    for path, content in new.items():
        write(path, content)
    _read_pack.cache_clear()
    return sorted(new)


def _by_pack(units):
    """Units by the path of their pack: dict."""
    packs = {}
    for unit in units:
        packs.setdefault(_pack_path(unit), []).append(unit)
    return packs


def orphans(units):
    """Archived levels, in the packs of these units, that belong to none of them: dict, path -> list of names."""
    out = {}
    for path, members in _by_pack(units).items():
        known = {f"{unit.key}/{level}" for unit in members for level in unit.levels}
        if lost := sorted(set(_read_pack(path)["levels"]) - known):
            out[path] = lost
    return out


@_writing(archive, "LTH_ARCHIVE")
def remove_orphans(units):
    """Take out of the archive what :func:`orphans` finds; `units` must be all units of their experiments.

    Returns
    -------
    int
        How many levels were removed.
    """
    found = orphans(units)
    for path, lost in found.items():
        pack = _read_pack(path)
        levels, rows = ({k: v for k, v in pack[part].items() if k not in lost} for part in ("levels", "rows"))
        masks = {k: v for k, v in pack["masks"].items() if k.rpartition("/")[0] not in lost}
        write(path, _pack(levels, rows, masks))
    _read_pack.cache_clear()
    return sum(map(len, found.values()))


def _pack(levels, rows, masks):
    """One file, so that it is replaced as a whole; without times in it, so that the same levels give the same bytes."""
    table = pd.concat([rows[name] for name in sorted(rows)])[["at", *ROWS]]
    contents = (
        json.dumps(levels, indent=0, sort_keys=True).encode(),
        table.to_csv(index=False, lineterminator="\n").encode(),
        save_tensors(dict(sorted(masks.items()))),
    )
    contents = dict(zip(PACKED, contents, strict=True))
    contents[SUMS] = json.dumps(_sums(contents), indent=1).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as pack:  # half the size of deflate
        for name, content in contents.items():
            pack.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_LZMA)
    return out.getvalue()


@lru_cache(maxsize=1)
def code_version():
    """Version of the package, with git's description where the checkout has one."""
    try:
        where = [f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}"]  # not a repository that the checkout lies in,
        own = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}  # nor one that a hook is called by
        command = ["git", *where, "describe", "--always", "--dirty"]
        options = {"capture_output": True, "text": True, "timeout": 10, "check": True, "env": own}
        described = subprocess.run(command, **options).stdout.strip()
        return f"{__version__}+{described}"
    except (OSError, subprocess.SubprocessError):
        return __version__


def machine():
    """Facts of this machine and its Python: dict of str."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def file_name(text):
    """`text` as a file name: lower case, digits, ``.``, ``-`` and ``_``."""
    name = re.sub(r"[^a-z0-9_.]+", "-", text.lower()).strip("-")
    return name if len(name) <= 100 else f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"
