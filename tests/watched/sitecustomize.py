"""On the path of a run that tests/tools/kill.py watches: it announces its phases and holds each open for a moment.

Python imports a module of this name at the start of every process, workers and kernels too. The run itself is as
users start it, but for its estimate: levels are not timed for it.
"""

import os
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path

HELD = float(os.environ["LTH_HELD"])  # seconds for which a phase is held open after it is announced
FIGURES = str(Path(__file__).resolve().parents[2] / "figures")
PLACES = {os.environ.get("LTH_RUNS", os.devnull): "write", os.environ["LTH_DATA"]: "fetch", FIGURES: "plot"}


def announce(phase, detail=""):
    log = os.open(os.environ["LTH_LOG"], os.O_WRONLY | os.O_APPEND)
    os.write(log, f"{phase} {os.getpid()} {detail}\n".encode())
    os.close(log)
    time.sleep(HELD)


def watch(event, arguments):
    """A file is complete and about to be moved into place."""
    if event == "os.rename":
        for folder, phase in PLACES.items():
            if str(arguments[1]).startswith(folder + os.sep):
                announce(phase)


def announced(phase, function, detail=lambda *_: ""):
    def call(*arguments, **options):
        announce(phase, detail(*arguments))
        return function(*arguments, **options)

    return call


def lottery(module):
    module.train_level = announced("train", module.train_level, lambda units, k, *_: f"{units[0].key} {k}")
    module.by_criterion = announced("prune", module.by_criterion)


def sweep(module):
    module.Plan.cost, module._time_steps = lambda plan, task: 1.0, lambda *_: None


class Watched(PathFinder):
    """Finds the two modules where they are, and changes them once they are loaded."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        change = {"lthcore.lottery": lottery, "lthcore.runs.sweep": sweep}.get(name)
        spec = PathFinder.find_spec(name, path, target) if change else None
        if spec:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                change(module)

            spec.loader.exec_module = exec_module
        return spec


sys.addaudithook(watch)
sys.meta_path.insert(0, Watched)
