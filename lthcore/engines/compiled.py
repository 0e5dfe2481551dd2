"""Compile loops by numba, and keep the machine code where only this user writes: a cache that can be lost at any time.

numba's own cache trusts what it finds: an index that is empty or cut ends the run, a damaged object file ends the
process, and anyone who can write there can run code here, since both are pickles. So a file here is one signature's
machine code behind a sum over it and over all that it depends on, in a folder of this user's. What does not fit,
whatever the reason, is compiled again and replaced.
"""

import contextlib
import hashlib
import os
import pickle
import stat
import sys
from pathlib import Path

import llvmlite
import numba
from numba import njit
from numba.core import caching

from ..disk.files import set_aside, write
from ..disk.tensors import read_file

FLAGS = ("reassoc", "contract", "nsz")
FOLDER = "machine-code"  # in each of numba's places, so that its mode is ours to choose
SUM = hashlib.sha256().digest_size


def compiled(function):
    """Compile `function` at its first call, and keep the machine code for the next process where there is a place."""
    # Sums may be reordered and contracted; "nnan" and "ninf" are left out: a loss that is not finite must be seen.
    dispatcher = njit(nogil=True, error_model="numpy", fastmath=set(FLAGS))(function)
    with contextlib.suppress(RuntimeError):  # there is none
        dispatcher._cache = _Cache(function)
    return dispatcher


def trusted(facts):
    """Whether nobody but this user, or root, can have written a file or a folder of such a stat: bool."""
    if not hasattr(os, "getuid"):  # Windows, where numba's places are the user's own
        return True
    return facts.st_uid in (0, os.getuid()) and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _sources(function):
    """Sums over the sources beside a function's: it is compiled again when what it calls may have changed."""
    files = sorted(Path(function.__code__.co_filename).parent.glob("*.py"))
    return [(path.name, hashlib.sha256(path.read_bytes()).hexdigest()) for path in files if path.is_file()]


class _Private:
    """One of numba's places, with a folder for this user alone; numba tries the next place where that fails."""

    def get_cache_path(self):
        return os.path.join(super().get_cache_path(), FOLDER)

    def ensure_cache_path(self):
        path = self.get_cache_path()
        os.makedirs(path, mode=0o700, exist_ok=True)
        if not trusted(os.stat(path)):
            raise PermissionError(f"{path}: others can write there")
        super().ensure_cache_path()


class _Given(_Private, caching.UserProvidedCacheLocator):
    """``NUMBA_CACHE_DIR``."""


class _InTree(_Private, caching.InTreeCacheLocator):
    """``__pycache__`` beside the source."""


class _Home(_Private, caching.UserWideCacheLocator):
    """The user's cache folder, where the source lies in a folder that cannot be written to."""


class _Place(caching.CompileResultCacheImpl):
    _locator_classes = (_Given, _InTree, _Home)


class _Files:
    """A file for each signature and processor, in the place of numba's index and data files."""

    def __init__(self, place, stamp):
        self.folder, self.name = Path(place.locator.get_cache_path()), place.filename_base
        self.made_for = numba.__version__, llvmlite.__version__, sys.version, numba.config.USING_SVML, FLAGS, stamp

    def _path(self, key):
        signature_and_processor = hashlib.sha256(repr(key[:2]).encode()).hexdigest()[:16]
        return self.folder / f"{self.name}.{signature_and_processor}.nbc"

    def _sum(self, key, content):
        return hashlib.sha256(repr((*self.made_for, key)).encode() + content).digest()

    def load(self, key):
        """The machine code, or None."""
        with contextlib.suppress(OSError, ValueError):
            content = read_file(self._path(key), trusted)
            if content[:SUM] == self._sum(key, content[SUM:]):
                return pickle.loads(content[SUM:])
        return None

    def save(self, key, data):
        """Keep machine code in the place of what was there, if the disk lets us."""
        path, content = self._path(key), caching.dumps(data)
        with contextlib.suppress(OSError):
            if path.is_dir():
                set_aside(path)
            write(path, self._sum(key, content) + content, mode=0o644)  # else, where groups may write, not `trusted`

    def flush(self):
        """Forget all of it."""
        for path in self.folder.glob(f"{self.name}.*.nbc"):
            with contextlib.suppress(OSError):
                path.unlink()


class _Cache(caching.FunctionCache):
    """numba's cache of one function, with our place and our files."""

    _impl_class = _Place

    def __init__(self, function):
        super().__init__(function)
        self._cache_file = _Files(self._impl, _sources(function))

    def load_overload(self, signature, context):
        """The compiled function, or None; what cannot be made of a file is compiled again, whatever the error."""
        try:
            return super().load_overload(signature, context)
        except Exception:
            return None

    def save_overload(self, signature, result):
        """Keep a compiled function; its folder may be gone, or no longer this user's alone."""
        with contextlib.suppress(OSError):
            super().save_overload(signature, result)
