"""Tensors as bytes, and bytes that may be damaged: nothing that is read can execute anything."""

import lzma
import os
import stat
import zipfile
import zlib

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RecursionError)
DAMAGED += (SafetensorError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what reading a damaged file may raise
MAX_BYTES = 1 << 28  # bytes: no file of the store and no member of a pack is nearly as large


def read_file(path, allowed=lambda facts: True):
    """A plain file's bytes, but no endless ones; a pipe or a device is refused at once, and what its stat forbids."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0))) as f:
        facts = os.fstat(f.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError(f"{path} is not a plain file")
        if not allowed(facts):
            raise ValueError(f"{path} may be another user's")
        content = f.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than any file of the store")
    return content


def save_tensors(tensors, metadata=None):
    """Arrays by name as bytes; safetensors itself would write a view, such as a transpose, in its memory's order."""
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
