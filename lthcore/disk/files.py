"""What a kill must not leave: half-written files, locks, and processes. Standard library only.

Files are written aside and moved into place, so that another process sees the old one or the new one.
"""

import contextlib
import ctypes
import errno
import os
import re
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

LEFT = 3600  # seconds after which a file aside is one whose writer was killed
LOCK = "training.lock"  # name of what `hold` holds
FOLDERS = ("LTH_RUNS", "LTH_ARCHIVE", "LTH_DATA")  # variables that name folders


def write(path, content, mode=0o666):
    """Write bytes or text aside, flush, and move into place, to last through a power failure.

    Of `mode` the user's umask takes its part, as for any new file.
    """
    path = Path(path)
    _make(path.parent)
    content = content.encode() if isinstance(content, str) else content
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.aside")
    try:
        with open(aside, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    _sync(path.parent)


def _make(folder):
    """Make a folder and those above it, to last as well."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder):
    """Write the names in a folder to the disk, where the system can be asked to."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC):  # else it cannot be asked: Windows, and some network folders
            raise


def try_out(folder):
    """Write a megabyte into a folder, or the next above it that is there, and keep nothing; OSError if that fails."""
    folder = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        file.write(bytes(1 << 20))


@contextlib.contextmanager
def hold(path):
    """Hold the lock of that name, if nobody does, and remove it at the end: whether it was free.

    The system frees it when its holder ends, however that ends, and tells the machines of a shared folder. It is
    asked directly: filelock before 3.25 waits for ever where a file system has no locks, and from then on leaves a
    file there that outlives a holder killed on another machine.
    """
    free = True
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            path.parent.mkdir(parents=True, exist_ok=True)
            handle = _open_lock(path)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(path.stat(), os.fstat(handle))  # or its last holder has just removed it
        except (BlockingIOError, FileNotFoundError):
            free = False
        except PermissionError:
            free = not os.path.lexists(path)  # what is there is another user's, who alone can tell
        except (OSError, ImportError):
            pass  # no locks here: two runs may train the same level, and find the same
        if free:
            stack.callback(_unlink, path)
        yield free


def _unlink(path):
    with contextlib.suppress(OSError):  # another user's lock may have to stay
        path.unlink()


def _open_lock(path):
    """Open a lock's file without waiting, be it a pipe; another user's only to read, which is enough to ask for it."""
    at_once = getattr(os, "O_NONBLOCK", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | at_once, 0o666)
    except PermissionError:
        return os.open(path, os.O_RDONLY | at_once)


def folder_named(variable, default):
    """Folder that an environment variable names, else a default: Path.

    A relative one is relative to where the process stands when it is first asked for, at the latest when it imports
    this module; from then on the variable holds it whole, for the processes that are started, wherever they stand.
    """
    if given := os.environ.get(variable):
        os.environ[variable] = os.path.abspath(os.path.expanduser(given))
    return Path(os.environ.get(variable) or default)


def data_folder():
    """Folder of the data, ``LTH_DATA`` or ``data/MNIST/raw`` in the checkout: found without torch."""
    return folder_named("LTH_DATA", Path(__file__).resolve().parents[2] / "data" / "MNIST" / "raw")


def clear(folder, *names):
    """Remove files directly in a folder whose writer was killed: the copies aside of what is written there.

    A copy aside is recognised by its whole name, and only once it is ``LEFT`` seconds old, since its writer may be at
    work. Nothing else is touched, and no folder below this one is entered.

    Parameters
    ----------
    folder : path
        A folder that the study writes to; it need not exist.
    *names : str
        Regular expressions: the whole names of the files that :func:`write` puts there.
    """
    aside = re.compile(rf"\.(?:{'|'.join(names)})\.[a-z0-9_]{{8}}\.aside", re.ASCII)
    remove(folder, aside.fullmatch)


def remove(folder, ours):
    """Remove the plain files directly in a folder that are ``LEFT`` seconds old and whose names `ours` accepts."""
    for path in plain_files(folder):
        with contextlib.suppress(OSError):  # another process may be clearing too, or the folder be read-only
            if ours(path.name) and time.time() - path.stat().st_mtime > LEFT:
                path.unlink()


def plain_files(folder):
    """The files directly in a folder, no links among them: list of Path, empty where the folder cannot be read."""
    return [Path(entry) for entry in _entries(folder) if entry.is_file(follow_symlinks=False)]


def folders(folder, pattern):
    """The folders directly in a folder whose whole names match, no links among them: list of Path."""
    match = re.compile(pattern, re.ASCII).fullmatch
    return [Path(entry) for entry in _entries(folder) if match(entry.name) and entry.is_dir(follow_symlinks=False)]


def _entries(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:  # it is not there, or not ours to read
        return []


def set_aside(path):
    """Rename a damaged file or folder to ``<name>.bad-<n>``: its new path."""
    n = next(n for n in range(1, 10**6) if not os.path.lexists(f"{path}.bad-{n}"))
    return Path(path).rename(f"{path}.bad-{n}")


def die_with(parent, by=signal.SIGKILL):
    """End this process when its parent, of that id, ends; on Linux, and elsewhere only if it has ended already."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            ctypes.CDLL(None).prctl(1, by)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


for _variable in FOLDERS:
    folder_named(_variable, "")
