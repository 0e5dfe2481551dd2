"""Where a run lives on disk: finished levels, the committed archive, provenance.

A finished level is a folder ``runs/<unit key>/level-07/`` of three files: ``rows.csv`` (what was
measured), ``mask.safetensors`` (the mask the next level starts from, a bit a weight) and
``facts.json``, which is written last and holds the SHA-256 of the other two: where it is missing
or does not fit, the level is not finished. Beside them lie the level's weights, where someone asked
for them or the next level continues from them (``weights.safetensors``, ``weights.json``). The archive
in ``figures/archive/`` holds the same but the weights, packed per experiment and replicate. Nothing
that is read can execute anything.
"""

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_tensors

from .. import __version__
from ..config import DATASETS
from ..disk.files import LOCK, clear, data_folder, folder_named, folders, hold, remove, set_aside, try_out, write
from ..disk.tensors import DAMAGED, read_file, save_tensors
from .formats import ROWS, Found, is_measured, may_hold, read_pack, read_rows, sums, whole_pack
from .presets import EXPERIMENTS

ROOT = Path(__file__).resolve().parents[2]  # the checkout
FIGURES = ROOT / "figures"
CPUINFO = Path("/proc/cpuinfo")


def runs():
    """Folder of finished levels: ``LTH_RUNS``, or ``runs`` in the checkout."""
    return folder_named("LTH_RUNS", ROOT / "runs")


def use_drive(wanted):
    """In Colab, keep finished levels on Google Drive, so that a later session continues.

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
    """Hold a level, so that no other run on this store trains it: context manager, False where another holds it."""
    return hold(_folder(unit, level) / LOCK)


@contextlib.contextmanager
def writing(folder, variable=""):
    """Report in one line that a folder cannot be written."""
    try:
        yield
    except OSError as error:
        instead = f", bring it back or set {variable} to another folder" if variable else " or let it be written"
        raise RuntimeError(
            f"{folder()} cannot be written ({error.strerror or error}): free some space there{instead}; "
            "what is finished is kept, and the same command continues from it"
        ) from None


# What the study writes, and where: whole names, as regular expressions. Nothing else is ever cleared away.
LEVEL = r"level-\d{2,}"
OF_A_LEVEL = (r"rows\.csv", r"mask\.safetensors", r"facts\.json", r"weights\.safetensors", r"weights\.json")
MARK = re.compile(r"\.[0-9a-f]{16}\.aside", re.ASCII)  # by which the workers of a cluster know the store
PACK = r"r\d+\.zip"
OF_THE_DATA = (r"(?:train|t10k)-(?:images-idx3|labels-idx1)-ubyte", r"cifar-10-binary\.tar\.gz")
FIGURE = r"(?:fig\d+[a-z]?_[a-z0-9_]+\.(?:png|svg|csv|json)|explorer\.html)"
COPY = r"\d\d_[a-z0-9_]+"  # an executed notebook
PARTIAL = re.compile(rf"{COPY}\.partial-[0-9a-f]{{8}}\.ipynb", re.ASCII)


def clear_up(figures):
    """Remove this study's leftover files of killed runs, in the folders it writes to.

    These are copies aside that are an hour old, in the store, the archive, the data's folder and the folders of
    figures, partial copies of executed notebooks as old, and locks that nobody holds.
    See :func:`lthcore.disk.files.clear`.

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


@writing(runs, "LTH_RUNS")
def _keep(unit, level, name, files, facts):
    """Write files of a level and then, as `name`, the record that holds their sums."""
    folder = _folder(unit, level)
    for file, content in files.items():
        write(folder / file, content)
    record = {"unit": unit.key, "level": level, "identity": unit.identity, "facts": facts, "sha256": sums(files)}
    write(folder / name, json.dumps(record | {"sum": _sum_of(record)}, indent=1, sort_keys=True) + "\n")


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
    return (record, files) if sums(files) == record["sha256"] else None


@writing(runs, "LTH_RUNS")
def make():
    """Make the store before anything is trained."""
    runs().mkdir(parents=True, exist_ok=True)
    try_out(runs())


def check_figures(folder):
    """See, before anything is trained, that a folder of figures and their executed notebooks can be written."""
    with writing(lambda: folder):
        try_out(folder / "executed")


@writing(runs, "LTH_RUNS")
def check_there():
    """Refuse a store that has vanished (an unmounted disk or share) rather than create another in its place."""
    if not runs().is_dir():
        raise FileNotFoundError("it no longer exists")


@writing(runs, "LTH_RUNS")
def set_aside_damaged(units, log):
    """Rename levels and packs that claim to be finished but are damaged; they count as missing anyway."""
    for unit in units:
        for level in unit.levels:
            path = _folder(unit, level)
            if (path / "facts.json").exists() and in_store(unit, level) is None:
                with contextlib.suppress(FileNotFoundError):  # another run was faster
                    log(f"{path} is damaged or of another level: kept as {set_aside(path).name} and trained again")
    for path in dict.fromkeys(map(pack_path, units)):
        if path.exists() and not whole_pack(path)["levels"]:
            log(f"{path} is damaged: kept as {set_aside(path).name}; levels that only it held are trained again")


def find_level(unit, level):
    """The finished level, from the store, else from the archive, else None."""
    return in_store(unit, level) or in_archive(unit, level)


def in_store(unit, level):
    """The finished level, from the store, else None."""
    record, files = _kept(unit, level, "facts.json") or ({}, {})
    if is_measured(files.get("rows.csv", b"")):
        path = _folder(unit, level) / "rows.csv"
        return Found(record, lambda: read_rows(files[path.name], path), lambda: load_tensors(files["mask.safetensors"]))
    return None


class Weights(NamedTuple):
    """Values and mask at the start of a level's training, and its results."""

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


def pack_path(unit):
    return archive() / unit.config.experiment / f"r{unit.replicate}.zip"


def in_archive(unit, level):
    """The finished level, from the archive, else None."""
    path, name = pack_path(unit), f"{unit.key}/{level}"
    if not may_hold(path, name):  # most often another preset's, for which nothing is unpacked
        return None
    pack = read_pack(path)
    if pack["levels"].get(name, {}).get("identity") != unit.identity:
        return None

    def mask():
        return {k.removeprefix(f"{name}/"): v for k, v in pack["masks"].items() if k.startswith(f"{name}/")}

    rows = pack["rows"]
    return Found(
        pack["levels"][name], lambda: rows[name].reset_index(drop=True), mask, (rows.table, *rows.places[name])
    )


def is_listed(unit, level):
    """Whether the store or the archive says that a level is finished: bool. Its content is not looked at."""
    return (_folder(unit, level) / "facts.json").exists() or may_hold(pack_path(unit), f"{unit.key}/{level}")


@lru_cache(maxsize=1)
def code_version():
    """Version of the package, with git's description where the checkout has one."""
    try:
        where = [f"--git-dir={ROOT / '.git'}", f"--work-tree={ROOT}"]  # not a repository that the checkout lies in,
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith("GIT_")
        }  # nor one that a hook is called by
        command = ["git", *where, "describe", "--always", "--dirty"]
        options = {"capture_output": True, "text": True, "timeout": 10, "check": True, "env": environment}
        described = subprocess.run(command, **options).stdout.strip()
        return f"{__version__}+{described}"
    except (OSError, subprocess.SubprocessError):
        return __version__


def machine():
    """Facts of this machine and its Python: dict of str."""
    processor = platform.processor() or platform.machine()
    try:
        lines = CPUINFO.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    except OSError:
        if platform.system() == "Linux":  # torch knows by it which instructions there are
            processor += " (no /proc: torch takes its plainest instructions, last digits may differ)"
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
