"""Units -> futures: one queue for all experiments, as many processes as cores, one thread each.

The smallest piece of work is one level of one unit. A level is ready when the level whose pruning
gives its mask is finished; among the ready ones the one with the longest way behind it goes first,
so that the long chains never wait. Finished levels come from the store or the archive and are never
trained again, so a run that was killed simply goes on. Runs on one store share the work: a level is
held while it is trained, and one that another run holds is left for later.
"""

import atexit
import contextlib
import itertools
import os
import signal
import sys
import threading
import time
import types
import warnings
from bisect import insort
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from heapq import heappop, heappush
from multiprocessing.context import SpawnContext, SpawnProcess

import numpy as np

from .. import methods, tickets
from ..config import Config
from . import gpu, limits, store
from .files import die_with

DENSITIES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.28, 0.29, 0.5, 1.0)  # at which steps are timed, for estimates
OVERHEAD = 0.2  # seconds that a level takes besides steps and evaluations: masks, rows, files
MEMORY = 1.3e9  # bytes that a process takes: torch, MNIST, the subsets it has seen; measured: 1.26, the driver 1.52
SHORT = 0.8  # share of what is needed, below which memory is clearly short
RETRIES = 2  # times a level is tried again after its worker process died
LATE = 90.0  # seconds for which a network folder may show an older state: NFS's longest by default is 60
PAUSE = 1.0  # seconds before a level that another run holds is looked at again


class Plan:
    """What there is to do for some units: their levels, which are finished, and who waits for whom.

    Parameters
    ----------
    units : list of Unit
        The chains that they borrow masks from are added by themselves.
    device : {"cpu", "cuda"}
        Where they would be trained, for estimates.
    """

    def __init__(self, units, device="cpu"):
        self.device, self.free = device, None  # bytes of the GPU's memory, once they are known, a process
        self.units = list(dict.fromkeys([u.source for u in units if u.source] + list(units)))
        self.tasks = [(unit, level) for unit in self.units for level in unit.levels]
        self.found = {task for task in self.tasks if _finished(*task)}
        self.missing = [task for task in self.tasks if task not in self.found]
        self.waits_for = {
            task: before for task in self.missing if (before := task[0].needs(task[1])) and before not in self.found
        }
        self.followers = {}
        for task, before in self.waits_for.items():
            self.followers.setdefault(before, []).append(task)
        self.first = {}  # training -> the first of the tasks that share it
        for task in self.missing:
            self.first.setdefault(_training(task), task)

    def cost(self, task):
        """Seconds that a level takes on this machine, on one core or alone on the GPU, from a few steps of its kind."""
        shared = self.first.get(_training(task), task) != task
        try:
            return OVERHEAD if shared else seconds_per_level(*task, self.device)
        except gpu.Lost:  # it will be trained on the CPU then
            self.device = "cpu"
            return self.cost(task)

    def way_behind(self):
        """Seconds of the longest chain of missing levels that begins at a task: dict, task -> float."""
        way = {}
        for task in reversed(self._ordered()):
            way[task] = self.cost(task) + max((way[t] for t in self.followers.get(task, ())), default=0)
        return way

    def _ordered(self):
        """The missing tasks, each after the one it waits for."""
        out = [task for task in self.missing if task not in self.waits_for]
        for task in out:  # grows while it is read
            out += self.followers.get(task, ())
        return out

    def seconds(self, workers):
        """Estimated wall time with so many processes: float, by playing the queue through."""
        way, clock, busy, begun = self.way_behind(), 0.0, [], itertools.count()
        ready = sorted((task for task in self.missing if task not in self.waits_for), key=way.get)
        while ready or busy:
            while ready and len(busy) < workers:
                task = ready.pop()
                heappush(busy, (clock + self.cost(task), next(begun), task))
            clock, _, task = heappop(busy)
            for follower in self.followers.get(task, ()):
                insort(ready, follower, key=way.get)
        return clock


def shard(units, place, of):
    """The units of one of several shards, which need nothing of one another and may run at any time, anywhere.

    Chains that share a dense network stay together, and with them the arms that borrow their masks. The largest such
    group goes first, to the shard that has the fewest levels: a pure function of the units, whatever is finished.

    Parameters
    ----------
    units : list of Unit
    place, of : int
        Which shard, from 1 on, of how many.

    Returns
    -------
    list of Unit
    """
    groups = {}
    for unit in units:
        groups.setdefault((unit.source or unit).dense, []).append(unit)
    shards, loads = [[] for _ in range(of)], [(0, k) for k in range(of)]
    sizes = {dense: sum(len(unit.levels) for unit in group) for dense, group in groups.items()}
    for dense in sorted(sizes, key=sizes.get, reverse=True):
        load, k = heappop(loads)
        heappush(loads, (load + sizes[dense], k))
        shards[k] += groups[dense]
    return shards[place - 1]


def _finished(unit, level):
    """The finished level, or None; in a chain it is not finished without what the next level still needs of it."""
    found = store.find_level(unit, level)
    if not found or unit.source or level == unit.levels[-1]:
        return found
    if not found.has_mask(unit.config.model):
        return None
    after = unit.levels[unit.levels.index(level) + 1]
    there = not unit.goes_on or store.find_weights(unit, level) or _finished(unit, after)
    return found if there else None


def all_finished(units):
    """Whether these units are finished: bool. It looks no further than the first level that is missing."""
    return all(_finished(unit, level) for unit in units for level in unit.levels)


def _training(task):
    """What a level's training depends on: the same for the dense networks of chains that only prune otherwise."""
    unit, level = task
    return unit.dense if level == 0 and unit.source is None else task


def run(units, device="auto", workers=0, say=print, scheduler=""):
    """Train what is missing of these units.

    Parameters
    ----------
    units : list of Unit
    device : {"auto", "cpu", "cuda"}
    workers : int
        Processes; 0: one per core, or one where there is a GPU.
    say : callable
        Called with a line at the start, per finished level, and at the end.
    scheduler : str
        Address of a Dask scheduler: its workers train, in the place of processes here.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names unit, level and step.
    RuntimeError
        If a level's process died more than ``RETRIES`` times, memory is clearly short, the store cannot be written, or
        the cluster is not there.
    ValueError
        If a device or a scheduler's address is none, or a worker of the cluster is not the driver's like.
    """
    plan, asked = Plan(units), workers
    store.set_aside_damaged(plan.units, say)
    if not plan.missing:
        say(f"all {len(plan.tasks)} levels of {len(plan.units)} units found, nothing to train")
        return
    if not scheduler:
        device = resolve(device, say)  # only now, since it loads torch
        workers = workers or default_workers(device)
        those = f"{workers} process{'es' * (workers > 1)} on {device} in {_memory(workers) / 1e9:.1f} GB of memory"
    store.make()
    _prepare_data({unit.config.dataset for unit in plan.units})
    pool = _pool(workers, scheduler, say, device)
    if scheduler:
        device, workers = pool.call(resolve, device), pool.size()
        those = f"{workers} worker{'s' * (workers > 1)} of {scheduler} on {device}"
    plan.device = device
    say(
        f"{len(plan.found)} of {len(plan.tasks)} levels found; training {len(plan.missing)} with {those}; "
        "timing a few steps of every kind"
    )
    try:
        if device != "cpu":
            plan.free = _check_gpu(plan.missing, device, pool, say).free // workers
        _time_steps(plan, pool, workers)
        total, progress = plan.seconds(workers), _Progress(plan, workers, say)
    except gpu.Lost as lost:
        _stop(pool)
        say(gpu.not_used(lost))
        pool, workers = _on_the_cpu(plan, asked, scheduler, say)
        total, progress = plan.seconds(workers), _Progress(plan, workers, say)
    except BaseException:  # from here on the queue ends its workers itself
        _stop(pool)
        raise
    say(f"this will take about {duration(total)}")
    way, failures = plan.way_behind(), 0
    ready = [task for task in plan.missing if task not in plan.waits_for]
    while ready:  # once, and again with a fresh pool after a worker died
        done = progress.done
        pool = pool or _pool(workers, scheduler, say, plan.device)
        ready, died, lost = _drain(plan, ready, way, plan.device, pool, workers, progress)
        pool = None
        failures = 1 if progress.done > done else failures + 1
        if died and failures > RETRIES and not lost:
            lost = f"its process died {failures} times (out of memory?)"
            if plan.device == "cpu":
                names = ", ".join(f"{unit.key} level {level}" for unit, level in died)
                raise RuntimeError(f"{names}: {lost}")
        ready += died
        if lost:
            say(gpu.given_up(lost))
            pool, workers = _on_the_cpu(plan, asked, scheduler, say)
            way, failures = plan.way_behind(), 0
            progress.moved(workers)
    say(f"trained {progress.trained} levels in {duration(time.monotonic() - progress.start)}")


def _check_gpu(tasks, device, pool, say):
    """Hold the GPU against the CPU in one of the processes, before anything is trained: :class:`gpu.Seen`."""
    try:
        seen = pool.submit(gpu.check, gpu.kinds(tasks), device).result(gpu.PATIENCE)
    except TimeoutError:
        raise gpu.Lost(f"its self-check gave no answer within {gpu.PATIENCE:g} s") from None
    except BrokenProcessPool:
        raise gpu.Lost("the process of its self-check died") from None
    say(seen.line())
    return seen


def _on_the_cpu(plan, asked, scheduler, say):
    """Fresh processes for what is left, on the CPU, and their number: an error may stay in those that used the GPU."""
    plan.device, workers = "cpu", asked or default_workers("cpu")
    if not scheduler:
        _memory(workers)
    pool = _pool(workers, scheduler, say)
    if scheduler:
        workers = pool.size()
    _time_steps(plan, pool, workers)
    return pool, workers


def _drain(plan, ready, way, device, pool, workers, progress):
    """Work off the queue until it is empty, or a worker or the GPU is lost.

    What is ready then, what was in flight, and what is said of the GPU.
    """
    flying, died, lost = {}, [], None

    def turn(task):
        return task not in progress.held, way[task]

    ready.sort(key=turn)
    try:
        while (ready or flying) and not died:
            if hasattr(pool, "size"):  # a cluster's workers come and go
                workers = pool.size()
                progress.workers = workers or 1
            while ready and len(flying) < workers:
                tasks = _alike(ready, ready.pop(), device, plan.free)
                pause = PAUSE * (tasks[0] in progress.held)
                try:
                    flying[pool.submit(run_levels, tasks, device, pause)] = tasks
                except BrokenProcessPool:  # a worker died since
                    died += tasks
            for future in wait(flying, PAUSE, FIRST_COMPLETED).done:
                tasks = flying.pop(future)
                try:
                    results = future.result()
                except (BrokenProcessPool, gpu.Lost) as error:
                    died += tasks
                    if isinstance(error, gpu.Lost):
                        lost = error
                    continue
                progress.came_back(tasks, results)
                for task, result in zip(tasks, results, strict=True):
                    if result:
                        for follower in plan.followers.get(task, ()):
                            insort(ready, follower, key=turn)
                    else:
                        insort(ready, task, key=turn)
        return ready, died + [task for tasks in flying.values() for task in tasks], lost
    finally:
        _stop(pool)


def _pool(workers, scheduler="", say=print, device="cpu"):
    if scheduler:
        from .cluster import Workers

        return Workers(scheduler, say)
    options = {"initializer": _start_worker, "initargs": (os.getpid(), methods.added(), device)}
    return ProcessPoolExecutor(workers, mp_context=_Context(), **options)


class _Process(SpawnProcess):
    """A process that does not run the program of its parent a second time, as spawned ones do.

    So a script needs no ``if __name__ == "__main__":``, and one that is no file (``python -``) can be at work too.
    What our processes are asked to do stands in modules, and what a user has added is sent (:func:`methods.added`).
    """

    starting = threading.Lock()

    @staticmethod
    def _Popen(process):
        with _Process.starting:
            program = sys.modules["__main__"]
            sys.modules["__main__"] = types.ModuleType("__main__")  # of no file and no name, to be run again by
            try:
                return SpawnProcess._Popen(process)
            finally:
                sys.modules["__main__"] = program


class _Context(SpawnContext):
    Process = _Process


def _stop(pool):
    """End the workers at once: what they had not finished is trained again from its mask."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(parent, added, device=""):
    """In a worker: the driver's criteria and rules, one thread, no Ctrl-C of its own, on Linux no life after its.

    One that trains on the CPU sees no GPU: torch asks it things even then, and it may be broken.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    methods.add(added)
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        warnings.filterwarnings("ignore", "CUDA initialization")  # an old driver: the driving process has said it
    import torch

    torch.set_num_threads(1)


def run_levels(tasks, device="cpu", pause=0):
    """Train a level of one unit, or of several at once, and keep it.

    Parameters
    ----------
    tasks : list of (Unit, int)
        Alike but for the replicate, or dense networks that chains share.
    device : {"cpu", "cuda"}
    pause : float
        Seconds to wait first.

    Returns
    -------
    list of (float, float) or None
        Per task: seconds, and final test accuracy in percent; 0 seconds where another run on the same store has
        finished it meanwhile, None where one is at it.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names unit, level and step.
    """
    time.sleep(pause)
    store.check_there()
    with contextlib.ExitStack() as held:
        mine = [task for task in tasks if held.enter_context(store.hold_level(*task))]
        out = {task: (0.0, found.final_accuracy()) for task in tasks if (found := _finished(*task))}
        if mine := [task for task in mine if task not in out]:
            for before in {unit.needs(level) for unit, level in mine} - {None}:
                _await(before)
            out |= _train(mine, device)
        return [out.get(task) for task in tasks]


def _await(task):
    """Wait for a finished level to be seen: a network folder may show late what another machine has written to it."""
    until = time.monotonic() + LATE
    while not _finished(*task) and time.monotonic() < until:
        time.sleep(PAUSE)


def _train(tasks, device):
    """Train levels at once, what they share once, and keep them: dict, task -> (seconds, accuracy)."""
    groups = {}
    for task in tasks:
        groups.setdefault(_training(task), []).append(task)
    return gpu.fitting(lambda groups: _train_at_once(groups, device), list(groups.values()))


def _train_at_once(groups, device):
    """The same for lists of tasks that share their training, all of which the memory must hold together."""
    started, tasks = time.monotonic(), [task for group in groups for task in group]
    every, facts = _play([group[0] for group in groups], device)
    seconds = (time.monotonic() - started) / len(tasks)
    facts = {"seconds": round(seconds, 3), "at_once": len(tasks), "preset": tasks[0][0].config.preset, **facts}
    out = {}
    for played, group in zip(every, groups, strict=True):
        for unit, level in group:
            store.check_there()  # again: training may have taken long
            p = _pruned(unit, played, device)
            next_mask = p.next_mask and {k: v.numpy() for k, v in p.next_mask.items()}
            if unit.goes_on:  # first, so that the level is not finished without them
                _save_weights(unit, level, p, facts)
            store.save_level(unit, level, p.rows, next_mask, facts)
            out[unit, level] = seconds, _final_accuracy(p)
    return out


def _save_weights(unit, level, played, facts):
    arrays = ({name: v.numpy() for name, v in part.items()} for part in (played.mask, played.start, played.weights))
    store.save_weights(unit, level, store.Weights(*arrays, played.logits.numpy()), facts)


def _weights_before(unit, level, device):
    """What a chain that goes on starts a level from; trained again, from level 0 on, where it has not been kept."""
    import torch

    before = unit.needs(level) if unit.goes_on else None
    if before is None:
        return None
    if store.find_weights(*before) is None:
        keep_weights(*before, device)
    return {name: torch.from_numpy(v) for name, v in store.find_weights(*before).final.items()}


def _pruned(unit, played, device):
    """A level as it was trained, pruned as this unit prunes: chains may share it."""
    from .. import data, lottery

    with gpu.guarded(device):
        return lottery.prune_level(unit, played, data.load(unit, device))


def _chain_mask(unit, level):
    """The chain's mask at a level: dict of str to bool Tensor."""
    import torch

    from .. import lottery

    before = unit.needs(level)
    if before is None:
        return lottery.dense_mask(unit.config.model)
    if (found := _finished(*before)) is None:
        raise ValueError(f"{before[0].key} level {before[1]}, whose pruning gives the mask, is not finished")
    return {name: torch.from_numpy(m) for name, m in found.next_mask(unit.config.model).items()}


def mask_at(unit, level):
    """The mask under which a level is trained: dict, layer name -> bool array.

    Raises
    ------
    ValueError
        If the level whose pruning gives it is not finished.
    """
    from .. import pruning

    mask, config = _chain_mask(unit, level), unit.config
    if unit.mask == "random":
        mask = pruning.random_mask(mask, config.model, config.seed, unit.replicate)
    return {name: m.numpy() for name, m in mask.items()}


def _final_accuracy(played):
    return [row[4] for row in played.rows if row[2:4] == ("test", "accuracy")][-1]


def _play(tasks, device):
    """Train alike tasks under their masks: list of Played, and the facts of where that was done."""
    import torch

    from .. import data, lottery, train

    units, level = [unit for unit, _ in tasks], tasks[0][1]
    config, masks = units[0].config, [_chain_mask(*task) for task in tasks]
    befores = [_weights_before(*task, device) for task in tasks]
    engine = train.choose_engine(config, device).name
    facts = {"device": device, "engine": engine, "torch": torch.__version__, "code": store.code_version()}
    with gpu.guarded(device):
        try:
            played = lottery.train_level(units, level, masks, partial(data.load, device=device), befores)
        except FloatingPointError as error:
            raise FloatingPointError(f"{', '.join(unit.key for unit in units)}: {error}") from None
        if device == "cuda":
            facts["gpu"] = torch.cuda.get_device_name()
    return played, facts | store.machine()


# ------------------------------------------------------------------------------------------------- final weights


def weights(tasks, device="auto", workers=0, say=print):
    """Train levels again, each from its mask, and keep their weights; what is kept already is not trained.

    Parameters
    ----------
    tasks : list of (Unit, int)
    device, workers, say
        As for :func:`run`.
    """
    missing = [task for task in dict.fromkeys(tasks) if store.find_weights(*task) is None]
    device, number = resolve(device, say), len(missing)
    _prepare_data({unit.config.dataset for unit, _ in missing})
    say(f"training {number} networks again, each from its mask")
    same = []
    while missing:  # once, and again on the CPU where the GPU fails
        pool = _pool(workers or default_workers(device), device=device)
        try:
            if device != "cpu":
                _check_gpu(missing, device, pool, say)
            flying = {pool.submit(keep_weights, *task, device): task for task in missing}
            for future in as_completed(flying):
                words, *found = future.result()
                same += found
                missing.remove(flying[future])
                say(f"[{number - len(missing)}/{number}] {words}")
        except gpu.Lost as lost:
            say(gpu.given_up(lost))
            device = "cpu"
        finally:
            _stop(pool)
    say(f"kept; {sum(same)} of the {len(same)} finished levels among them came out the same to the last bit")


def keep_weights(unit, level, device="cpu"):
    """Train a level from its mask and keep its weights.

    A level is a pure function of its mask (and of the weights before, where its chain goes on), so its rows are those
    of the finished level, bit for bit where machine, versions and engine are the same.

    Returns
    -------
    tuple
        A line that says what came out and, if the level was finished before, whether its rows came out the same.
    """
    (played,), facts = _play([(unit, level)], device)
    played = _pruned(unit, played, device)
    found = store.find_level(unit, level)
    same = () if found is None else (list(found.rows().itertuples(index=False, name=None)) == played.rows,)
    _save_weights(unit, level, played, facts)
    return f"{unit.arm} level {level}: test accuracy {_final_accuracy(played):.2f} %", *same


def ticket(unit, level):
    """A level's ticket, with facts: :class:`lthcore.tickets.Ticket`.

    Raises
    ------
    ValueError
        If it has no such level, or its values at a rewind step past 0 have not been trained and kept.
    """
    from .. import data, lottery

    if level not in unit.levels:
        raise ValueError(f"level = {level!r}: must be one of {', '.join(map(str, unit.levels))}")
    kept, config = store.find_weights(unit, level), unit.config
    if kept:
        values = kept.start
    elif level and not unit.start.startswith("reinit") and (config.rewind_step or unit.goes_on):
        where = "that it starts from" if unit.goes_on else f"at step {config.rewind_step}"
        raise ValueError(f"the values {where} are not kept yet: train the weights first")
    else:
        start, _ = lottery.starting_values(unit, level, data.load)
        values = {name: v.numpy() for name, v in start.items()}
    facts = {"unit": unit.key, "arm": unit.arm, "model": config.model, "level": level, "identity": unit.identity}
    facts |= {"density": config.density(level), "rewind_step": config.rewind_step if level else 0}
    if found := store.find_level(unit, level):
        facts["test_accuracy"] = found.final_accuracy()
    return tickets.Ticket(facts, mask_at(unit, level), values)


class Apart:
    """A call in a process of its own, whose lines are read by a thread and which can be stopped.

    Parameters
    ----------
    function : callable
        Of a module; called with `arguments` and ``say=``.
    arguments : tuple
    say : callable
        Called with each line, in the thread.
    done : callable
        Called at the end, in the thread: with "" if all went well, "stopped", or the error in one line.
    """

    def __init__(self, function, arguments, say, done):
        context = _Context()
        receiver, sender = context.Pipe(duplex=False)
        self.stopped = False
        those = sender, os.getpid(), methods.added(), function, arguments
        self.process = context.Process(target=_apart, args=those)
        self.process.start()
        sender.close()  # so that the thread sees the end when the process has let go of its own
        atexit.register(self.stop)  # before multiprocessing would wait for it
        self.thread = threading.Thread(target=self._listen, args=(receiver, say, done), daemon=True)
        self.thread.start()

    def _listen(self, receiver, say, done):
        outcome = None
        with contextlib.suppress(EOFError, OSError):
            while outcome is None:
                kind, text = receiver.recv()
                outcome = text if kind == "end" else say(text)
        self.process.join()
        atexit.unregister(self.stop)
        done("stopped" if self.stopped else "its process died (out of memory?)" if outcome is None else outcome)

    def stop(self):
        """End it; what it has finished is kept."""
        self.stopped = True
        self.process.terminate()


def _apart(sender, parent, added, function, arguments):
    """In the process: call, send the lines, and say how it ended."""
    _start_worker(parent, added)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the clean-up: no worker stays behind
    outcome = ""
    try:
        function(*arguments, say=lambda line: sender.send(("line", line)))
    except Exception as error:  # whatever it is, the one who waits must read it
        outcome = " ".join(f"{type(error).__name__}: {error}".split())
    sender.send(("end", outcome))


def _alike(ready, task, device, free=None):
    """Take out of `ready` what is trained at once with `task`: list of tasks, itself included.

    What shares its training with it and, on a GPU, what can be trained in lockstep with it, as far as `free` bytes of
    its memory carry.
    """

    def kind(task):
        unit, level = task
        return unit.config, unit.arm, unit.subset, unit.start, unit.mask, level

    together = [task]
    if device != "cpu" and not task[0].config.dropout:  # whose draws must not depend on who trains beside whom
        together += [t for t in ready if kind(t) == kind(task)]
        if free is not None:
            together = together[: gpu.at_once(task[0].config, free)]
    trainings = {_training(t) for t in together}
    if trainings != set(together):  # else each has a training of its own
        together += [t for t in ready if t not in together and _training(t) in trainings]
    if len(together) > 1:
        ready[:] = [t for t in ready if t not in together]
    return together


def resolve(device, say=print):
    """``auto`` -> ``cuda`` where there is one, else ``cpu``; ValueError for a ``cuda`` where no sign of one is.

    A GPU that torch cannot use, for its driver is too old, say, is named in a line, and it is ``cpu``.
    """
    if device not in ("auto", "cuda"):
        return device
    there, complaint = gpu.find()
    if there:
        return "cuda"
    if complaint:
        say(gpu.not_used(complaint))
    elif device == "cuda":
        raise ValueError("device = 'cuda': no CUDA device is found here, must be 'auto' or 'cpu'")
    return "cpu"


def default_workers(device):
    """One process per core that this process may use, fewer where memory is short; one on a GPU."""
    if device == "cuda":
        return 1
    free = limits.free_memory()
    room = limits.processors() if free is None else int(free / (SHORT * MEMORY)) - 1  # the driver needs as much as one
    return max(1, min(limits.processors(), room))


def _memory(workers):
    """Bytes that so many processes and their driver need; RuntimeError where there is far less."""
    needed, free = MEMORY * (workers + 1), limits.free_memory()
    if free is not None and free < SHORT * needed:
        raise RuntimeError(
            f"{workers} process{'es' * (workers > 1)} and their driver need about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are available: free some, or use fewer processes (--workers)"
        )
    return needed


def _prepare_data(datasets):
    """Fetch before the fan-out, so that no two processes do."""
    from . import download

    for dataset in datasets & {"mnist", *download.MORE}:  # a user's own is read by a function that is sent
        download.fetch(dataset=dataset)


TIMES = {}  # (kind of step, device) -> seconds of a step, and of evaluating an image, at each of DENSITIES


def _kind(config):
    """The settings that the time of a step depends on: pairs of name and value. The density is left out."""
    names = "model", "activation", "pool", "batch_size", "optimizer", "dropout"
    some = {"momentum": 0.9, "weight_decay": 1e-4}  # whatever is more than 0 takes as long
    some = {name: value if getattr(config, name) else 0.0 for name, value in some.items()}
    return *((name, getattr(config, name)) for name in names), *some.items()


def _time_steps(plan, pool, workers):
    """Time each kind of step in all processes at once, as they will train: cores that are all busy are slower."""
    kinds = {_kind(unit.config) for unit, _ in plan.missing}
    kinds = sorted(kind for kind in kinds if (kind, plan.device) not in TIMES)
    try:
        every = [future.result() for future in [pool.submit(_measure_all, kinds, plan.device) for _ in range(workers)]]
    except BrokenProcessPool:  # the levels will see that, and get a fresh one
        return
    TIMES.update({(kind, plan.device): np.mean(times, axis=0) for kind, *times in zip(kinds, *every, strict=True)})


def _measure_all(kinds, device):
    with gpu.guarded(device):
        return [_measure(kind, device) for kind in kinds]


def seconds_per_level(unit, level, device="cpu"):
    """Seconds for one level of this unit on one thread, or alone on a GPU, from measured steps and evaluations."""
    from .. import data, train

    config = unit.config.at(level)
    if (kind := (_kind(config), device)) not in TIMES:
        (TIMES[kind],) = _measure_all([kind[0]], device)
    densities = [config.density(level), *{"order": [config.density(level)], "dense": [1.0]}.get(unit.beside, [])]
    step, image = (sum(np.interp(densities, DENSITIES, times)) for times in TIMES[kind])
    n_train, n_validation, n_test = data.sizes(config, unit.subset)
    validation, test = train.evaluation_steps(config, n_train)
    evaluated = n_validation * len(validation) + n_test * (len(test) + 1)
    return float(OVERHEAD + step * train.total_steps(config, n_train) + image * evaluated)


def _measure(kind, device="cpu"):
    """Seconds of one optimizer step and of evaluating one image at each of ``DENSITIES``: two lists of float.

    On MNIST itself, in random order: fetching the images from memory is a good part of a sparse step.
    """
    import torch

    from .. import data, lottery, train

    config = Config(experiment="task1", **dict(kind))
    model, batch_size = config.model, config.batch_size
    dense = not train.choose_engine(config, device).skips_pruned
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    images, labels = data.whole(device=device)["train"]
    batches = 3 if dense and device == "cpu" else 15
    order = torch.randperm(len(images), generator=random)[: batches * batch_size].to(device)
    few = images[order[:500]]
    steps, evaluations = [], []
    for density in DENSITIES[-1:] if dense else DENSITIES:
        mask = {k: torch.rand(m.shape, generator=random) < density for k, m in lottery.dense_mask(model).items()}
        values = lottery.initial(model, 0, "theta0", 0)
        engine = train.build_engine([values], [mask], [data.Split((images, labels), None, None)], config)
        engine.advance(order[None])  # once, to load or compile it
        engine.logits(few[None])
        steps.append(_median(lambda: engine.advance(order[None]), device) / -(-len(order) // batch_size))  # noqa: B023
        evaluations.append(_median(lambda: engine.logits(few[None]), device) / len(few))  # noqa: B023
    torch.set_num_threads(threads)
    alike = len(DENSITIES) // len(steps)
    return steps * alike, evaluations * alike


def _median(call, device, times=3):
    """Seconds of a call, the median of a few."""
    import torch

    out = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        out.append(time.perf_counter() - started)
    return sorted(out)[len(out) // 2]


class _Progress:
    """A line per finished level: how many, how long, how long still, and what came out."""

    def __init__(self, plan, workers, say):
        self.plan, self.workers, self.say, self.start = plan, workers, say, time.monotonic()
        self.left, self.done, self.spent, self.expected = sum(map(plan.cost, plan.missing)), 0, 0.0, 0.0
        self.trained, self.held = 0, set()  # levels by this run; tasks that another one was seen at
        self.there = set()  # tasks that are finished

    def moved(self, workers):
        """Count anew what is left, for other processes on another device."""
        self.workers, self.spent, self.expected = workers, 0.0, 0.0
        self.left = sum(self.plan.cost(task) for task in self.plan.missing if task not in self.there)

    def came_back(self, tasks, results):
        """Say of each level what came out, and how long the rest will take: together, since they share their time."""
        for task, result in zip(tasks, results, strict=True):
            if result:
                self.there.add(task)
                cost = self.plan.cost(task)
                self.left -= cost
                if result[0]:
                    self.trained, self.spent, self.expected = (
                        self.trained + 1,
                        self.spent + result[0],
                        self.expected + cost,
                    )
        for task, result in zip(tasks, results, strict=True):
            if result:
                self.done += 1
                self._line(task, f"test accuracy {result[1]:.2f} %" + ", found finished" * (not result[0]))
            elif task not in self.held:  # said once
                self.held.add(task)
                self._line(task, "another run is training it; looked at again when nothing else is left")

    def _line(self, task, words):
        unit, level = task
        config, pace = unit.config, self.spent / self.expected if self.expected else 1
        self.say(
            f"[{self.done:>4}/{len(self.plan.missing)}] {duration(time.monotonic() - self.start)}, "
            f"{duration(max(self.left, 0) * pace / self.workers)} left  "
            f"{config.experiment} {unit.arm} r{unit.replicate} level {level} "
            f"({100 * config.density(level):.3g} % kept): {words}"
        )


def duration(seconds):
    """Seconds as people say them: ``8 s``, ``4 min 10 s``, ``2 h 05 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
