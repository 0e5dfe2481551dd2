"""Tensors as bytes, and bytes that may be damaged: nothing that is read can execute anything."""

import lzma
import zipfile
import zlib

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors

DAMAGED = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError, NotImplementedError, RecursionError)
DAMAGED += (SafetensorError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)  # what reading a damaged file may raise
MAX_BYTES = 1 << 28  # bytes: no file of the store and no member of a pack is nearly as large


def read_file(path):
    """A file's bytes, but no endless ones."""
    with open(path, "rb") as f:
        content = f.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{path} is larger than any file of the store")
    return content


def save_tensors(tensors, metadata=None):
    """Arrays by name as bytes; safetensors itself would write a view, such as a transpose, in its memory's order."""
    return safetensors.save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata)
