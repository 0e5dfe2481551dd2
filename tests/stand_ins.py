"""What stands in for processes and for levels that were trained: a tiny study, pools that train nothing, files."""

import hashlib
import json
import zipfile
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import pytest

from lthcore.runs import estimate, formats, processes, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments

TINY = {"rounds": 2, "max_steps": 12, "test_images": 200, "validation": 0.02}
SHAPES = ARCHITECTURES["mlp"].weights
SECONDS = {"ticket": 2.0, "ticket_spared": 1.0, "random_mask": 5.0, "random_reinit": 3.0}


def tiny_study():
    return experiments.study("mlp", "smoke", overrides=TINY)


def runs_in(folder, patch):
    patch.setenv("LTH_RUNS", str(folder))
    patch.setenv("LTH_ARCHIVE", str(folder.with_name("archive")))
    patch.setattr(estimate, "time_steps", lambda *_: None)  # nothing here is worth measuring
    patch.setattr(sweep.Plan, "cost", lambda self, task: 1.0)


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """An empty store."""
    runs_in(tmp_path / "runs", monkeypatch)
    return tmp_path / "runs"


def numbers(folder):
    """What a run found: relative name -> bytes of its rows and masks."""
    kept = [p for p in folder.rglob("*") if p.name in ("rows.csv", "mask.safetensors")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def tasks_of(units):
    return {(u, k) for u in units for k in u.levels}


class InlinePool:
    """Stands in for the process pool: trains in this process."""

    _processes = None

    def __init__(self, workers, **_):
        pass

    def shutdown(self, **_):
        pass

    def submit(self, function, *arguments):
        future = Future()
        future.set_result(function(*arguments))
        return future


class FakePool:
    """Stands in for the process pool: "trains" at once, or dies when told to; remembers the order."""

    started, groups, finished, dies, refuses, held, peak = [], [], set(), {}, {}, {}, 0

    def __init__(self, workers, **_):
        FakePool.peak, self._processes = workers, None

    def shutdown(self, **_):
        pass

    def submit(self, function, tasks, device, pause):
        future, together = Future(), set(tasks)
        if any(FakePool.refuses.get(task, 0) > 0 for task in tasks):  # a worker died since; it takes nothing any more
            FakePool.refuses = {task: n - (task in together) for task, n in FakePool.refuses.items()}
            raise BrokenProcessPool
        for unit, level in tasks:
            before = unit.needs(level)
            assert before is None or before in FakePool.finished, "started before its mask was there"
        FakePool.started += tasks
        FakePool.groups.append(tasks)
        if any(FakePool.dies.get(task, 0) > 0 for task in tasks):
            FakePool.dies = {task: n - (task in together) for task, n in FakePool.dies.items()}
            future.set_exception(BrokenProcessPool())
        else:
            held = {task for task in tasks if FakePool.held.get(task, 0) > 0}  # by another run
            FakePool.held = {task: n - (task in together) for task, n in FakePool.held.items()}
            FakePool.finished |= together - held
            future.set_result([None if task in held else (1.0, 97.0) for task in tasks])
        return future


@pytest.fixture
def queue(fresh, monkeypatch):
    """The sweep with that pool, and a second per level or what SECONDS says."""
    for name, value in {"started": [], "groups": [], "finished": set(), "dies": {}, "refuses": {}, "held": {}}.items():
        monkeypatch.setattr(FakePool, name, value)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", FakePool)
    monkeypatch.setattr("lthcore.runs.queue._prepare_data", lambda datasets: None)
    monkeypatch.setattr(sweep.Plan, "cost", lambda self, task: SECONDS.get(task[0].arm, 1.0))
    return FakePool


def save(unit, level, seed):
    """A level of its own numbers and its own mask."""
    random = np.random.default_rng(seed)
    mask = {name: random.random(shape) < 0.5 for name, shape in SHAPES.items()}
    continues = unit.prunes and level != unit.levels[-1]
    rows = [(0, 0.0, "test", "accuracy", float(seed)), (12, 0.5, "test", "accuracy", seed + 0.5)]
    store.save_level(unit, level, rows, mask if continues else None, {"seconds": 1.0})


def folder(task):
    return store.runs() / task[0].key / f"level-{task[1]:02d}"


def repack(path, sums=True, **members):
    """Change members of a pack; with sums that fit, the old ones (False), or none as in an older version (None)."""
    with zipfile.ZipFile(path) as pack:
        contents = {name: members.get(name.partition(".")[0], lambda c: c)(pack.read(name)) for name in formats.PACKED}
        old = pack.read(formats.SUMS)
    if sums is not None:
        contents[formats.SUMS] = json.dumps(formats.sums(contents)).encode() if sums else old
    with zipfile.ZipFile(path, "w") as pack:
        for name, content in contents.items():
            pack.writestr(name, content)
    formats.read_pack.cache_clear()


def forge(task, name, content):
    """Put a file into a level, and its sum into facts of the attacker's making."""
    path = folder(task) / "facts.json"
    record = json.loads(path.read_text())
    del record["sum"]
    record["sha256"][name] = hashlib.sha256(content).hexdigest()
    (folder(task) / name).parent.mkdir(parents=True, exist_ok=True)
    (folder(task) / name).write_bytes(content)
    path.write_text(json.dumps(record))
