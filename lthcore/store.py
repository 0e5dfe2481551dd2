"""Where a run lives on disk: finished levels, the committed archive, provenance.

A finished level is a folder ``runs/<unit key>/level-07/`` of three files: ``rows.csv`` (what was
measured), ``mask.safetensors`` (the mask the next level starts from, a bit a weight) and
``facts.json``, which is written last and holds the SHA-256 of the other two: where it is missing
or does not fit, the level is not finished. The archive in ``figures/archive/`` holds the same,
packed per experiment and replicate. Nothing that is read can execute anything.
"""

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from . import __version__
from .config import ARCHITECTURES
from .files import write

ROOT = Path(__file__).resolve().parents[1]  # the checkout
FIGURES = ROOT / "figures"
DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, NotImplementedError, SafetensorError)
DAMAGED += (zipfile.BadZipFile, zlib.error)  # what reading a damaged file may raise
PACKED = "levels.json", "rows.csv", "masks.safetensors"  # the members of a pack of the archive
ROWS = ["step", "epoch", "split", "metric", "value"]


def runs():
    """Folder of finished levels: ``LTH_RUNS``, or ``runs`` in the checkout."""
    return Path(os.environ.get("LTH_RUNS") or ROOT / "runs").expanduser()


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

        drive.mount("/content/drive")
        os.environ["LTH_RUNS"] = "/content/drive/MyDrive/lth-runs"


def archive():
    """Folder of the committed levels."""
    return Path(os.environ.get("LTH_ARCHIVE") or FIGURES / "archive")


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
    folder = runs() / unit.key / f"level-{level:02d}"
    files = {"rows.csv": pd.DataFrame(rows, columns=ROWS).to_csv(index=False, lineterminator="\n").encode()}
    if next_mask is not None:
        files["mask.safetensors"] = save_tensors({name: np.packbits(np.asarray(m)) for name, m in next_mask.items()})
    for name, content in files.items():
        write(folder / name, content)
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    record = {"unit": unit.key, "level": level, "identity": unit.identity, "facts": facts, "sha256": sums}
    write(folder / "facts.json", json.dumps(record, indent=1, sort_keys=True) + "\n")


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


def find_level(unit, level):
    """The finished level, from the store, else from the archive, else None."""
    return _in_store(unit, level) or _in_archive(unit, level)


def _in_store(unit, level):
    folder = runs() / unit.key / f"level-{level:02d}"
    try:
        record = json.loads((folder / "facts.json").read_bytes())
        if record["identity"] != unit.identity or record["level"] != level:
            return None
        files = {name: (folder / name).read_bytes() for name in record["sha256"]}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if any(hashlib.sha256(files[name]).hexdigest() != digest for name, digest in record["sha256"].items()):
        return None
    return Found(record, lambda: _frame(files["rows.csv"]), lambda: load_tensors(files["mask.safetensors"]))


def _frame(content):
    # Python's float reads back exactly what was written; pandas' own readers differ between its versions
    return pd.read_csv(io.BytesIO(content), converters={"epoch": float, "value": float})


def archived_replicates(experiment):
    """Number of replicates that the archive has of an experiment."""
    return len(list((archive() / experiment).glob("r*.zip")))


def _pack_path(unit):
    return archive() / unit.config.experiment / f"r{unit.replicate}.zip"


def _in_archive(unit, level):
    pack = _read_pack(_pack_path(unit))
    name = f"{unit.key}/{level}"
    if name not in pack["levels"]:
        return None

    def mask():
        return {k.removeprefix(f"{name}/"): v for k, v in pack["masks"].items() if k.startswith(f"{name}/")}

    return Found(pack["levels"][name], lambda: pack["rows"][name][ROWS].reset_index(drop=True), mask)


@lru_cache(maxsize=8)
def _read_pack(path):
    """A pack's levels (name -> facts), rows (name -> frame) and masks; nothing where it is missing or damaged."""
    try:
        with zipfile.ZipFile(path) as pack:  # it checks each member's CRC
            levels, rows, masks = (pack.read(name) for name in PACKED)
        levels = dict(json.loads(levels))
        return {"levels": levels, "rows": dict(list(_frame(rows).groupby("at"))), "masks": load_tensors(masks)}
    except DAMAGED:
        return {"levels": {}, "rows": {}, "masks": {}}


def write_archive(units):
    """Pack the finished levels of these units into ``figures/archive/``.

    What the archive already holds of other units stays. Identical levels give identical bytes.

    Returns
    -------
    list of pathlib.Path
        The packs written.
    """
    packs = {}
    for unit in units:
        packs.setdefault(_pack_path(unit), []).append(unit)
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
        if levels:
            table = pd.concat([rows[name] for name in sorted(rows)])[["at", *ROWS]]
            write(path, _pack(levels, table, masks))
    _read_pack.cache_clear()
    return sorted(path for path in packs if path.exists())


def _pack(levels, table, masks):
    """One file, so that it is replaced as a whole; without times in it, so that the same levels give the same bytes."""
    contents = (
        json.dumps(levels, indent=0, sort_keys=True).encode(),
        table.to_csv(index=False, lineterminator="\n").encode(),
        save_tensors(dict(sorted(masks.items()))),
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as pack:
        for name, content in zip(PACKED, contents, strict=True):
            pack.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)
    return out.getvalue()


@lru_cache(maxsize=1)
def code_version():
    """Version of the package, with git's description where the checkout has one."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        described = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
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
