"""What a kill must not leave: half-written files, locks, and processes. Standard library only.

Files are written aside and moved into place, so that another process sees the old one or the new one.
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

LEFT = 3600  # seconds after which a file aside is one whose writer was killed
LOCK = "training.lock"  # name of what `hold` holds
FOLDERS = ("LTH_RUNS", "LTH_ARCHIVE", "LTH_DATA")  # variables that name folders


def write(path, content):
    """Write bytes or text aside, flush, and move into place, to last through a power failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = content.encode() if isinstance(content, str) else content
    handle, aside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".aside")
    try:
        with os.fdopen(handle, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.chmod(aside, 0o644)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    _sync(path.parent)


def _sync(folder):
    """Write the names in a folder to the disk, where the system can be asked to."""
    with contextlib.suppress(OSError):  # Windows, and some network folders, cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


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
            file = stack.enter_context(open(path, "ab"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = os.path.samestat(path.stat(), os.fstat(file.fileno()))  # or its last holder has just removed it
        except (BlockingIOError, FileNotFoundError):
            free = False
        except (OSError, ImportError):
            pass  # no locks here: two runs may train the same level, and find the same
        if free:
            stack.callback(path.unlink, missing_ok=True)
        yield free


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
