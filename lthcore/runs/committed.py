"""Final weights that are committed, of a few networks, so that the explorer shows something before anything is trained.

A file per experiment and replicate, in the archive, holds the surviving weights and the biases. The rest follows:
masks from the archive, initial values from their keys, logits from the test images. They were trained again from the
masks: on another processor than the archived levels, whose accuracies differ by what rounding makes of a training.
"""

import hashlib
from functools import cached_property, lru_cache

import numpy as np
from safetensors.numpy import load as load_tensors

from ..disk import files
from ..disk.tensors import DAMAGED, read_file, save_tensors
from . import store, worker

SUM = "sha256"  # of all other tensors, a tensor itself


def path(unit):
    """The file of a unit's experiment and replicate: pathlib.Path."""
    return store.archive() / unit.config.experiment / f"weights-r{unit.replicate}.safetensors"


def find(unit, level):
    """A level's weights, of this machine's store or committed, or None.

    Returns
    -------
    lthcore.runs.store.Weights, Weights or None
    """
    return store.find_weights(unit, level) or _read(unit, level)


@store.writing(store.archive, "LTH_ARCHIVE")
def write(tasks):
    """Write levels whose weights the store has into the archive; the files are written anew.

    Parameters
    ----------
    tasks : iterable of (Unit, int)

    Returns
    -------
    list of pathlib.Path
    """
    by_file = {}
    for unit, level in tasks:
        kept = store.find_weights(unit, level)
        for name, value in kept.final.items():
            mask = kept.mask.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            by_file.setdefault(path(unit), {})[f"{unit.key}/{level}/{name}"] = value if mask is None else value[mask]
    for where, tensors in by_file.items():
        files.write(where, save_tensors({**dict(sorted(tensors.items())), SUM: _sum(tensors)}))
    return sorted(by_file)


def _sum(tensors):
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensors[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)


@lru_cache(maxsize=4)
def _tensors(where, state):
    """What a file holds, by name; nothing where it is missing or damaged."""
    try:
        tensors = load_tensors(read_file(where))
        expected = tensors.pop(SUM)
        return tensors if np.array_equal(expected, _sum(tensors)) else {}
    except DAMAGED:
        return {}


def _read(unit, level):
    where, prefix = path(unit), f"{unit.key}/{level}/"
    try:
        found = where.stat()
    except OSError:
        return None
    tensors = _tensors(where, (found.st_size, found.st_mtime_ns))
    values = {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}
    return Weights(unit, level, values) if values else None


class Weights:
    """The same as :class:`lthcore.runs.store.Weights`, computed when it is asked for."""

    def __init__(self, unit, level, values):
        self.unit, self.level, self.values = unit, level, values

    @cached_property
    def mask(self):
        """Layer name -> bool array."""
        return worker.mask_at(self.unit, self.level)

    @cached_property
    def final(self):
        """Parameter name -> float32 array, at the last step; zero where it is pruned."""
        out = dict(self.values)
        for layer, mask in self.mask.items():
            whole = np.zeros(mask.shape, np.float32)
            whole[mask] = out[f"{layer}.weight"]
            out[f"{layer}.weight"] = whole
        return out

    @cached_property
    def start(self):
        """Parameter name -> float32 array, at the rewind step."""
        from .. import data, lottery

        return {name: v.numpy() for name, v in lottery.starting_values(self.unit, self.level, data.load)[0].items()}

    @cached_property
    def logits(self):
        """(N_test, 10) array of float32, at the last step."""
        import torch

        from .. import data, models

        config = self.unit.config
        network = models.build(config.model, config.activation, config.pool)
        network.load_state_dict({name: torch.from_numpy(v) for name, v in self.final.items()})
        with torch.no_grad():
            parts = [network.eval()(images) for images in data.load(self.unit).test[0].split(1000)]
        return torch.cat(parts).numpy()
