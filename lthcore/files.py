"""What a kill must not leave: half-written files, and processes. Standard library only.

Files are written aside and moved into place, so that another process sees the old one or the new one.
"""

import contextlib
import ctypes
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

LEFT = 3600  # seconds after which a file aside is one whose writer was killed


def write(path, content):
    """Write bytes or text aside, flush, and move into place."""
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


def clear(folder):
    """Remove what killed writers left in a folder: files aside and partial copies, once they are ``LEFT`` old."""
    for pattern in (".*.aside", "*.partial-*"):
        for path in Path(folder).rglob(pattern):
            with contextlib.suppress(OSError):  # another process may be clearing too, or the folder be read-only
                if time.time() - path.stat().st_mtime > LEFT:
                    path.unlink()


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
