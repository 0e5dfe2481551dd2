"""Progress of a run: a moving bar on a terminal and in a live notebook, elsewhere a line per level.

Where output is a file, a log or the copy that papermill or nbconvert makes, a bar would freeze or repeat itself.
"""

import contextlib
import os
import sys
import time
from pathlib import Path

NOTEBOOK_COLUMNS = 94  # characters of a bar in a notebook, whose width is unknown
ENGINE = Path(__file__).resolve().parents[1] / "engines" / "sparse.py"
SENT = {
    "cellId",
    "deletedCells",
    "recordTiming",
}  # what a page that shows a notebook sends with a cell, and nbclient not


def shown(verbose=False):
    """What reports the progress of a run here: a :class:`Bar`, or ``print``.

    Parameters
    ----------
    verbose : bool
        A line per level wherever it runs.
    """
    with contextlib.suppress(ImportError):
        import tqdm  # noqa: F401

        if not verbose and (_live() or _terminal()):
            return Bar()
    return _line


def close(log):
    """End the bar, if it is one, so that what is printed next has a line of its own."""
    if isinstance(log, Bar):
        log.close()


def _line(text):
    print(text, flush=True)


def _terminal():
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def _live():
    """Whether this is a kernel of a notebook that is open in a browser."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if not hasattr(shell, "kernel"):
        return False
    if "google.colab" in sys.modules:
        return True
    with contextlib.suppress(Exception):  # whatever cannot be learned changes nothing
        return bool(SENT & set(shell.kernel.get_parent("shell")["metadata"]))
    return False


class Bar:
    """Levels, the last one's accuracy, and the time left, in one line that is overwritten, below other lines."""

    def __init__(self):
        self.bar, self.begun = None, time.time()

    def __call__(self, text):
        if self.bar is None:
            _line(text)
        else:
            self.bar.write(text, file=sys.stdout)

    def level(self, done, total, left, text):
        """Move on: so many levels of so many, the time left and the result, both as text."""
        from tqdm import tqdm

        if self.bar is None:
            width = {"dynamic_ncols": True} if _terminal() else {"ncols": NOTEBOOK_COLUMNS}
            form = "{n_fmt}/{total_fmt} levels |{bar}| {elapsed}, {desc}"
            self.bar = tqdm(total=total, file=sys.stdout, bar_format=form, mininterval=0, **width)
            self.bar.start_t = self.begun
        self.bar.n = done
        self.bar.set_description_str(f"{left} left, {text}")
        if done == total:
            self.close()

    def close(self):
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def engine_is_compiled():
    """Whether the engine's machine code is kept in one of numba's places, from after its source was last changed."""
    places = [ENGINE.parent / "__pycache__", Path.home() / ".cache" / "numba"]
    if folder := os.environ.get("NUMBA_CACHE_DIR"):
        places.insert(0, Path(folder))
    with contextlib.suppress(OSError):
        written = ENGINE.stat().st_mtime
        kept = (path for place in places for path in place.rglob(f"machine-code/{ENGINE.stem}.*.nbc"))
        return any(path.stat().st_mtime >= written for path in kept)
    return False
