"""The queue: the same numbers with any number of processes, however often it is killed; nothing is trained twice."""

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import SECONDS, TINY, InlinePool, numbers, runs_in, tasks_of, tiny_study

from lthcore import data
from lthcore.config import configure
from lthcore.disk import files
from lthcore.disk.files import LOCK
from lthcore.runs import archive, gpu, processes, store, sweep, worker
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments
from lthcore.unit import Unit

DENSE = {name: np.ones(shape, bool) for name, shape in ARCHITECTURES["mlp"].weights.items()}
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and PR_SET_PDEATHSIG")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The tiny study as two processes train it, and what was said."""
    folder, said = tmp_path_factory.mktemp("two") / "runs", []
    with pytest.MonkeyPatch.context() as patch:
        runs_in(folder, patch)
        experiments.run(tiny_study(), workers=2, log=said.append)
    return folder, said


@pytest.mark.slow
def test_every_level_is_finished_and_reported_once(uninterrupted):
    folder, said = uninterrupted
    tasks = {f"{u.key}/level-{k:02d}" for u in tiny_study().units for k in u.levels}
    assert {str(p.parent.relative_to(folder)) for p in folder.rglob("facts.json")} == tasks and len(tasks) == 10
    assert "0 of 10 levels found; training 10 with 2 processes on cpu" in said[0]
    assert [line.split("]")[0].split("[")[1].strip() for line in said[2:-1]] == [f"{i}/10" for i in range(1, 11)]
    assert said[-1].startswith("trained 10 levels in ")
    assert all(len(line.splitlines()) == 1 for line in said)
    assert not [p for p in folder.rglob("*") if p.is_file() and p.name.startswith(".")]


@pytest.mark.slow
def test_one_process_finds_the_same_as_two(uninterrupted, fresh):
    experiments.run(tiny_study(), workers=1, log=lambda line: None)
    assert len(numbers(fresh)) == 10 + 2 * 2  # rows of 10 levels; masks of the two chains' levels 0 and 1
    assert numbers(fresh) == numbers(uninterrupted[0])


@pytest.mark.slow
def test_the_loop_in_one_process_finds_the_same(uninterrupted, monkeypatch):
    import torch

    from lthcore import lottery

    runs_in(uninterrupted[0], monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for chain in [u for u in tiny_study().units if u.prunes]:
            for result in lottery.find_ticket(chain, data.load):
                found = store.find_level(chain, result.level)
                assert [tuple(row) for row in found.rows().itertuples(index=False)] == result.rows
                if result.next_mask:
                    mask = found.next_mask("mlp")
                    assert all((mask[name] == result.next_mask[name].numpy()).all() for name in mask)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["store", "archive"])
def test_a_finished_study_trains_nothing_and_needs_no_torch(uninterrupted, tmp_path, where):
    folder = uninterrupted[0]
    left = tmp_path / "data" / ".train-images-idx3-ubyte.x1y2z3w4.aside"  # of a fetch that was killed two hours ago
    left.parent.mkdir()
    left.touch()
    os.utime(left, (time.time() - 7200,) * 2)
    environment = {**os.environ, "LTH_RUNS": str(folder), "LTH_ARCHIVE": str(tmp_path / "archive")}
    environment["LTH_DATA"] = str(left.parent)
    if where == "archive":
        with pytest.MonkeyPatch.context() as patch:
            runs_in(folder, patch)
            patch.setenv("LTH_ARCHIVE", environment["LTH_ARCHIVE"])
            archive.write(tiny_study().units)
        environment["LTH_RUNS"] = str(tmp_path / "nothing")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    code = (
        f"import sys; from lthcore import experiments; s = experiments.study('mlp', 'smoke', overrides={TINY!r});"
        "experiments.run(s); print(len(experiments.finished(s))); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    said, rows, torch_there = done.stdout.splitlines()
    assert said == "all 10 levels of 4 units found, nothing to train"
    assert int(rows) > 100 and torch_there == "False" and not left.exists()
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


@pytest.mark.parametrize("level", [-1, 99, "x"])
def test_a_ticket_of_a_level_that_is_none_is_refused(level):
    with pytest.raises(ValueError, match=rf"^level = {level!r}: must be one of 0, 1"):
        sweep.ticket(tiny_study().units[0], level)


# ---------------------------------------------------------------------------------------------------------- killed


def processes_with(text):
    """Ids of the living processes whose environment contains `text`."""
    out = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            try:
                state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
                if text.encode() in Path(f"/proc/{name}/environ").read_bytes() and state != "Z":
                    out.append(int(name))
            except OSError:
                pass
    return out


def wait_until(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(0.02)
    return condition()


@pytest.mark.slow
@LINUX
def test_a_killed_driver_leaves_no_process_and_the_next_run_resumes(uninterrupted, fresh, monkeypatch):
    code = f"""from lthcore import experiments, sweep
from lthcore.runs import estimate
sweep.Plan.cost, estimate.time_steps = lambda self, task: 1.0, lambda *_: None
experiments.run(experiments.study('mlp', 'smoke', overrides={TINY!r}), workers=2)"""
    driver = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ), stdout=subprocess.DEVNULL)
    try:
        assert wait_until(lambda: list(fresh.rglob("facts.json")), 90)
        assert len(processes_with(str(fresh))) >= 3  # the driver and its workers
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait(10)
    assert wait_until(lambda: not processes_with(str(fresh)), 3), "workers outlive their driver"
    first = {p: p.stat().st_mtime_ns for p in fresh.rglob("facts.json")}
    assert 0 < len(first) <= 10

    said = []
    monkeypatch.setattr(processes, "ProcessPoolExecutor", InlinePool)
    experiments.run(tiny_study(), workers=1, log=said.append)
    assert all(p.stat().st_mtime_ns == t for p, t in first.items())  # not trained again
    if len(first) < 10:
        assert f"{len(first)} of 10 levels found; training {10 - len(first)} " in said[0]
    assert numbers(fresh) == numbers(uninterrupted[0])


@pytest.mark.slow
@LINUX
def test_a_worker_that_is_killed_is_replaced(uninterrupted, fresh):
    killed = []

    def kill_one():
        if wait_until(lambda: list(fresh.rglob("facts.json")), 90):
            victim = multiprocessing.active_children()[0]
            os.kill(victim.pid, signal.SIGKILL)
            killed.append(victim.pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    experiments.run(tiny_study(), workers=2, log=lambda line: None)
    killer.join()
    assert killed and not multiprocessing.active_children()
    assert numbers(fresh) == numbers(uninterrupted[0])


@pytest.mark.slow
def test_a_loss_that_is_no_number_stops_the_run_in_one_line(fresh):
    good = Unit(configure("mlp", "smoke", **TINY), "good", 0)
    wild = Unit(replace(good.config, optimizer="sgd", lr=10, momentum=0.99, levels=(0,)), "wild", 0)
    with pytest.raises(FloatingPointError) as caught:
        sweep.run([wild, good], "cpu", workers=1, log=lambda line: None)
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and text.startswith(f"{wild.key}: level 0, step ") and "loss is" in text
    assert "nan" in text or "inf" in text
    assert store.find_level(good, 0) is not None  # the longer chain went first; what it finished stays
    assert store.find_level(wild, 0) is None
    assert not multiprocessing.active_children()


# ---------------------------------------------------------------- the queue itself, with a pool that trains nothing


STUDIES = ["mlp", "lenet5", "task1", "task2", "task3"]


@pytest.mark.parametrize("experiment", STUDIES)
@pytest.mark.parametrize("workers", [1, 3])
def test_every_level_is_trained_once_and_never_before_its_mask(queue, experiment, workers):
    units = experiments.study(experiment, "report").units
    sweep.run(units[::-1], "cpu", workers, log=lambda line: None)  # in whatever order they come
    assert len(queue.started) == len(set(queue.started)) and set(queue.started) == tasks_of(units)
    assert queue.peak == workers


def test_on_a_gpu_the_replicates_of_an_arm_go_together(queue, monkeypatch):
    monkeypatch.setattr(processes, "resolve", lambda device, log: device)
    monkeypatch.setattr("lthcore.runs.queue._check_gpu", lambda *_: gpu.Seen("a GPU", 10**11, 1, {}, ()))
    units = experiments.study("task2", "smoke", replicates=3).units
    sweep.run(units, "cuda", 1, log=lambda line: None)
    assert len(queue.started) == len(set(queue.started)) and set(queue.started) == tasks_of(units)
    for group in queue.groups:
        level = group[0][1]
        assert sorted(unit.replicate for unit, _ in group) == sorted([0, 1, 2] * (1 if level else 2))
        assert len({(unit.arm.removesuffix("_spared"), unit.subset, level) for unit, level in group}) == 1
    queue.groups.clear()
    sweep.run(experiments.study("task2", "smoke", replicates=3, seed=1).units, "cpu", 1, log=lambda line: None)
    for group in queue.groups:
        level = group[0][1]
        assert [unit.arm.removesuffix("_spared") for unit, _ in group] == [group[0][0].arm.removesuffix("_spared")] * (
            1 if level else 2
        )
        assert len({unit.replicate for unit, _ in group}) == 1


def way_of(task, tasks):
    """Seconds of the longest chain that begins at a task, straight from its definition."""
    after = [t for t in tasks if t[0].needs(t[1]) == task]
    return SECONDS.get(task[0].arm, 1.0) + max((way_of(t, tasks) for t in after), default=0)


def test_the_longest_chain_goes_first(queue):
    units = experiments.study("mlp", "smoke", replicates=2).units
    sweep.run(units, "cpu", 1, log=lambda line: None)
    tasks, done = tasks_of(units), set()
    for group in queue.groups:
        ready = [t for t in tasks - done if t[0].needs(t[1]) is None or t[0].needs(t[1]) in done]
        assert way_of(group[0], tasks) == max(way_of(t, tasks) for t in ready)
        done |= set(group)


def test_chains_are_added_to_the_arms_that_borrow_their_masks(queue):
    (control,) = [u for u in experiments.study("task1", "smoke").units if u.arm == "random_mask"]
    sweep.run([control], "cpu", 2, log=lambda line: None)
    assert set(queue.started) == tasks_of([control, control.chain])


def test_what_is_found_is_not_trained_and_frees_what_waits_for_it(queue):
    (ticket,) = [u for u in tiny_study().units if u.arm == "ticket"]
    for level in (0, 1):
        store.save_level(ticket, level, [(0, 0.0, "test", "accuracy", 1.0)], DENSE, {})
    queue.finished.update({(ticket, 0), (ticket, 1)})
    sweep.run(tiny_study().units, "cpu", 2, log=lambda line: None)
    assert set(queue.started) == tasks_of(tiny_study().units) - {(ticket, 0), (ticket, 1)}


def test_a_level_whose_process_died_is_tried_again(queue):
    units = tiny_study().units
    tasks = list(tasks_of(units))
    queue.dies = dict.fromkeys(tasks[::3], sweep.RETRIES)
    sweep.run(units, "cpu", 2, log=lambda line: None)
    assert queue.finished == set(tasks)
    assert all(queue.started.count(task) == 1 + sweep.RETRIES for task in tasks[::3])


def test_a_level_whose_process_always_dies_is_named(queue):
    units = tiny_study().units
    task = next((u, 1) for u in units if u.arm == "random_reinit")
    queue.dies = {task: 99}
    with pytest.raises(RuntimeError, match=f"^{task[0].key} level 1: its process died 3 times") as caught:
        sweep.run(units, "cpu", 1, log=lambda line: None)
    assert len(str(caught.value).splitlines()) == 1 and queue.started.count(task) == 3


def test_a_pool_that_breaks_before_it_takes_a_level_loses_none(queue):
    """A worker may die while the driver is not waiting: then it is `submit` that says so."""
    units = tiny_study().units
    tasks = sorted(tasks_of(units), key=lambda task: (task[0].key, task[1]))
    queue.refuses = {tasks[3]: 1}
    sweep.run(units, "cpu", 2, log=lambda line: None)
    assert queue.finished == set(tasks)


def test_a_level_that_another_run_holds_is_left_until_nothing_else_is(queue):
    units, said = tiny_study().units, []
    (task,) = [(u, 0) for u in units if u.arm == "ticket"]  # the first otherwise
    queue.held = {task: 3}
    sweep.run(units, "cpu", 1, log=said.append)
    assert queue.finished == tasks_of(units)
    waiting = [t for t in queue.started if t[0] not in (task[0], *(u for u in units if u.chain is task[0]))]
    tries = [i for i, t in enumerate(queue.started) if t == task]
    assert len(tries) == 4 and tries[0] == 0 and max(map(queue.started.index, waiting)) < tries[1]
    lines = [line for line in said if "another run is training it" in line]
    assert len(lines) == 1 and "mlp ticket r0 level 0 (density 100%)" in lines[0]
    assert said[-1].startswith("trained 10 levels in ")


def test_levels_that_share_their_training_are_reported_with_the_same_time_left(queue):
    said = []
    sweep.run(tiny_study().units, "cpu", 1, log=said.append)
    dense = [line for line in said if "level 0 (density 100%)" in line]
    left = [line.split(", ")[1].split(" left")[0] for line in dense]
    assert len(dense) == 2 and len(set(left)) == 1, dense


def test_what_another_run_trained_is_said(queue):
    units, said = tiny_study().units, []
    submit = queue.submit

    def found(self, function, tasks, device, pause):
        future = submit(self, function, tasks, device, pause)
        if tasks[0][1] == 0:
            future = Future()
            future.set_result([(0.0, 96.0)] * len(tasks))
        return future

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(queue, "submit", found)
        sweep.run(units, "cpu", 2, log=said.append)
    assert len([line for line in said if line.endswith("test accuracy 96.00%, found finished")]) == 2
    assert said[-1].startswith("trained 8 levels in ")


# --------------------------------------------------------------------------------------------- a level that is held


def test_a_held_level_is_trained_by_nobody_else_and_its_lock_goes(fresh, monkeypatch):
    task, trained = (tiny_study().units[0], 0), []
    monkeypatch.setattr(
        worker, "_train", lambda tasks, device: trained.extend(tasks) or dict.fromkeys(tasks, (1.0, 97.0))
    )
    with store.hold_level(*task) as free:
        assert free and sweep.run_levels([task]) == [None] and trained == []
    assert sweep.run_levels([task]) == [(1.0, 97.0)] and trained == [task]
    assert not list(fresh.rglob(LOCK))


def test_a_killed_holder_holds_nothing_and_its_lock_is_cleared(fresh):
    path = store.runs() / "mlp-ticket-r0-0123456789ab" / "level-00" / LOCK
    code = f"""import pathlib, time
from lthcore.disk import files
with files.hold(pathlib.Path({str(path)!r})) as free:
    print(free, flush=True)
    time.sleep(99)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        store.clear_up([])  # what is held is not cleared
        with files.hold(path) as free:
            assert not free and path.exists()
        holder.kill()
    assert path.exists()
    store.clear_up([])
    assert not path.exists()


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_a_run_continues_without(fresh, monkeypatch, error):
    def refuse(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr("fcntl.flock", refuse)
    with files.hold(fresh / LOCK) as free:
        assert free


@pytest.mark.parametrize("readable", [True, False])
def test_a_lock_of_another_user_is_a_lock(fresh, monkeypatch, readable):
    """It cannot be opened to write; where it can be read it says whether it is held, and else it counts as held."""
    (fresh / LOCK).parent.mkdir(parents=True)
    (fresh / LOCK).write_bytes(b"")

    def refuse(path, flags, *mode, by=os.open):
        if Path(path).name == LOCK and (flags & os.O_RDWR or not readable):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return by(path, flags, *mode)

    with files.hold(fresh / LOCK) as first:
        monkeypatch.setattr(os, "open", refuse)
        with files.hold(fresh / LOCK) as second:
            assert first and not second
    (fresh / LOCK).write_bytes(b"")  # left by a killed holder
    monkeypatch.setattr(Path, "unlink", lambda *_: refuse(fresh / LOCK, os.O_RDWR))  # which is not ours to remove
    with files.hold(fresh / LOCK) as free:
        assert free == readable


def test_a_lock_that_its_last_holder_has_just_removed_is_not_taken_for_a_new_one(fresh, monkeypatch):
    import fcntl

    flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: (fresh / LOCK).unlink() or flock(file, how))
    with files.hold(fresh / LOCK) as free:
        assert not free


@pytest.mark.parametrize("experiment", STUDIES)
@pytest.mark.parametrize("workers", [1, 2, 5, 100])
def test_the_estimate_is_no_less_than_the_work_and_the_longest_way(queue, experiment, workers):
    plan = sweep.Plan(experiments.study(experiment, "report").units)
    total, longest = sum(map(plan.cost, plan.missing)), max(plan.remaining().values())
    assert plan.seconds(workers) >= max(total / workers, longest) - 1e-9
    assert plan.seconds(workers) <= total / workers + longest + 1e-9  # Graham's bound for any greedy queue
    assert plan.seconds(1) == pytest.approx(total)
    assert plan.seconds(10**6) == pytest.approx(longest)


def test_the_estimate_of_nothing_is_nothing(queue):
    assert sweep.Plan([]).seconds(2) == 0


def test_the_measured_cost_of_a_level_is_positive_and_grows_with_its_steps(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_RUNS", str(tmp_path))
    settings = {"test_images": 200, "validation": 0.02, "levels": [0]}
    units = [Unit(configure("mlp", "report", max_steps=n, **settings), "ticket", 0) for n in (1000, 50_000)]
    one, other = (sweep.Plan([u]).cost((u, 0)) for u in units)
    assert 0 < one < other


# ---------------------------------------------------------------------------------------------------- small things


def test_cuda_without_cuda_is_refused_in_one_line(monkeypatch, fresh):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError) as caught:
        sweep.run(tiny_study().units, "cuda", 1)
    assert str(caught.value) == "device = 'cuda': no CUDA device is found here, must be 'auto' or 'cpu'"
    assert sweep.resolve("auto") == sweep.resolve("cpu") == "cpu"
    assert not fresh.exists()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert sweep.resolve("auto") == sweep.resolve("cuda") == "cuda" and sweep.resolve("cpu") == "cpu"


def test_one_process_per_core_and_one_on_a_gpu():
    assert sweep.default_workers("cuda") == 1
    assert 1 <= sweep.default_workers("cpu") <= os.cpu_count()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (8, "8 s"), (8.4, "8 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (60, "1 min 00 s"),
        (250, "4 min 10 s"), (3599.4, "59 min 59 s"), (3599.7, "1 h 00 min"), (7500, "2 h 05 min"),
        (100 * 3600 + 59, "100 h 00 min"),
    ],
)  # fmt: skip
def test_durations_as_text(seconds, text):
    assert sweep.duration(seconds) == text


@given(seconds=st.floats(0, 10**7, allow_subnormal=False))
def test_a_duration_says_the_seconds_within_what_it_shows(seconds):
    numbers_and_units = sweep.duration(seconds).split()
    factor = {"s": 1, "min": 60, "h": 3600}
    said = sum(int(n) * factor[unit] for n, unit in zip(numbers_and_units[::2], numbers_and_units[1::2], strict=True))
    assert abs(said - seconds) <= (0.5 if seconds < 3599 else 60.5)


def test_little_work_is_worth_one_process_and_much_all_of_them():
    """To start another takes longer than a few hundred steps."""
    little = sweep.Plan(experiments.study("mlp", "smoke").units)
    much = sweep.Plan(experiments.study("mlp", "quick", replicates=2, seed=77).units)
    assert little.worth() == 1
    assert much.worth() == len(much.first) * (55_000 // 60) // 1000 > 16
