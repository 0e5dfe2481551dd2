"""Units -> futures: one queue for all experiments, as many processes as cores, one thread each.

The smallest piece of work is one level of one unit. A level is ready when the level whose pruning
gives its mask is finished; among the ready ones the one with the longest chain of levels behind it goes first,
so that the long chains never wait. Finished levels come from the store or the archive and are never
trained again, so a run that was killed simply continues. Runs on one store share the work: a level is
held while it is trained, and one that another run holds is left for later.
"""

import time
from bisect import insort
from concurrent.futures import FIRST_COMPLETED, as_completed, wait
from concurrent.futures.process import BrokenProcessPool

from . import download, estimate, gpu, processes, store, worker
from .plan import Plan, training, with_chains
from .progress import Bar, engine_is_compiled

LONG = 60  # seconds above which a run states how it could be shorter
CHEAPER = "; fewer replicates, epochs or rounds, or the preset quick, take less time; finished levels are kept"
RETRIES = 2  # times a level is tried again after its worker process died


def run(units, device="auto", workers=0, log=print, scheduler=""):
    """Train what is missing of these units.

    Parameters
    ----------
    units : list of Unit
    device : {"auto", "cpu", "cuda"}
    workers : int
        Processes; 0: one per core, or one where there is a GPU.
    log : callable
        Called with a line at the start, per finished level, and at the end; a :class:`lthcore.runs.progress.Bar` shows
        the levels in one line.
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
    store.set_aside_damaged(with_chains(units), log)
    plan, asked = Plan(units), workers
    if not plan.missing:
        log(f"all {len(plan.tasks)} levels of {len(plan.units)} units found, nothing to train")
        return
    if not scheduler:
        device = processes.resolve(device, log)  # only now, since it may load torch
        workers = workers or min(processes.default_workers(device), plan.worth())
        those = (
            f"{workers} process{'es' * (workers > 1)} on {device} in {processes.memory(workers) / 1e9:.1f} GB of memory"
        )
    store.make()
    _prepare_data({unit.config.dataset for unit in plan.units})
    pool = processes.pool(workers, scheduler, log, device)
    if scheduler:
        device, workers = pool.call(processes.resolve, device), pool.size()
        those = f"{workers} worker{'s' * (workers > 1)} of {scheduler} on {device}"
    plan.device = device
    log(
        f"{len(plan.found)} of {len(plan.tasks)} levels found; training {len(plan.missing)} with {those}; "
        "timing a few steps of every kind"
    )
    try:
        if device != "cpu":
            plan.free = _check_gpu(plan.missing, device, pool, log).free // workers
        elif not scheduler and not engine_is_compiled():
            log("compiling the engine: about a minute, once")
        estimate.time_steps(plan, pool, workers)
        total, progress = plan.seconds(workers), _Progress(plan, workers, log)
    except gpu.Lost as lost:
        processes.stop(pool)
        log(gpu.not_used(lost))
        pool, workers = _on_the_cpu(plan, asked, scheduler, log)
        total, progress = plan.seconds(workers), _Progress(plan, workers, log)
    except BaseException:  # from here on the queue ends its workers itself
        processes.stop(pool)
        raise
    log(f"this will take about {duration(total)}{CHEAPER * (total > LONG)}")
    remaining, failures = plan.remaining(), 0
    ready = [task for task in plan.missing if task not in plan.waits_for]
    while ready:  # once, and again with a fresh pool after a worker died
        done = progress.done
        pool = pool or processes.pool(workers, scheduler, log, plan.device)
        ready, died, lost = _drain(plan, ready, remaining, plan.device, pool, workers, progress)
        pool = None
        failures = 1 if progress.done > done else failures + 1
        if died and failures > RETRIES and not lost:
            lost = f"its process died {failures} times (out of memory?)"
            if plan.device == "cpu":
                names = ", ".join(f"{unit.key} level {level}" for unit, level in died)
                raise RuntimeError(f"{names}: {lost}")
        ready += died
        if lost:
            log(gpu.given_up(lost))
            pool, workers = _on_the_cpu(plan, asked, scheduler, log)
            remaining, failures = plan.remaining(), 0
            progress.moved(workers)
    log(f"trained {progress.trained} levels in {duration(time.monotonic() - progress.start)}")


def _check_gpu(tasks, device, pool, log):
    """Compare the GPU with the CPU in one of the processes, before anything is trained: :class:`gpu.Seen`."""
    try:
        seen = pool.submit(gpu.check, gpu.kinds(tasks), device).result(gpu.PATIENCE)
    except TimeoutError:
        raise gpu.Lost(f"its self-check did not finish within {gpu.PATIENCE:g} s") from None
    except BrokenProcessPool:
        raise gpu.Lost("the process of its self-check died") from None
    log(seen.line())
    return seen


def _on_the_cpu(plan, asked, scheduler, log):
    """New processes for the remaining levels, on the CPU, and their number: those that used the GPU may stay broken."""
    plan.device, workers = "cpu", asked or min(processes.default_workers("cpu"), plan.worth())
    if not scheduler:
        processes.memory(workers)
    pool = processes.pool(workers, scheduler, log)
    if scheduler:
        workers = pool.size()
    estimate.time_steps(plan, pool, workers)
    return pool, workers


def _drain(plan, ready, remaining, device, pool, workers, progress):
    """Train until the queue is empty, or a worker or the GPU is lost.

    Returns the tasks that are ready, those that were in flight, and the GPU's error.
    """
    running, died, lost = {}, [], None

    def turn(task):
        return task not in progress.held, remaining[task]

    ready.sort(key=turn)
    try:
        while (ready or running) and not died:
            if hasattr(pool, "size"):  # a cluster's workers come and go
                workers = pool.size()
                progress.workers = workers or 1
            while ready and len(running) < workers:
                tasks = _trained_with(ready, ready.pop(), device, plan.free)
                pause = worker.PAUSE * (tasks[0] in progress.held)
                try:
                    running[pool.submit(worker.run_levels, tasks, device, pause)] = tasks
                except BrokenProcessPool:  # a worker died since
                    died += tasks
            for future in wait(running, worker.PAUSE, FIRST_COMPLETED).done:
                tasks = running.pop(future)
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
        return ready, died + [task for tasks in running.values() for task in tasks], lost
    finally:
        processes.stop(pool)


def _trained_with(ready, task, device, free=None):
    """Remove from `ready` all tasks that are trained together with `task`: list of tasks, itself included.

    These share its training or, on a GPU, can be trained in lockstep with it, as many as fit into `free` bytes.
    """

    def kind(task):
        unit, level = task
        return unit.config, unit.arm, unit.subset, unit.start, unit.mask.name, level

    together = [task]
    if device != "cpu" and not task[0].config.dropout:  # whose draws must not depend on what is trained together
        together += [t for t in ready if kind(t) == kind(task)]
        if free is not None:
            together = together[: gpu.at_once(task[0].config, free)]
    trainings = {training(t) for t in together}
    if trainings != set(together):  # else each has a training of its own
        together += [t for t in ready if t not in together and training(t) in trainings]
    if len(together) > 1:
        ready[:] = [t for t in ready if t not in together]
    return together


def _prepare_data(datasets):
    """Fetch before the fan-out, so that no two processes do."""
    for dataset in datasets & {"mnist", *download.MORE}:  # a user's data set is read by a function that is sent
        download.fetch(dataset=dataset)


def weights(tasks, device="auto", workers=0, log=print):
    """Retrain levels from their masks and keep their weights; levels whose weights are kept already are skipped.

    Parameters
    ----------
    tasks : list of (Unit, int)
    device, workers, log
        As for :func:`run`.
    """
    missing = [task for task in dict.fromkeys(tasks) if store.find_weights(*task) is None]
    device, number = processes.resolve(device, log), len(missing)
    _prepare_data({unit.config.dataset for unit, _ in missing})
    log(f"retraining {number} networks from their masks")
    same = []
    while missing:  # once, and again on the CPU where the GPU fails
        pool = processes.pool(workers or processes.default_workers(device), device=device)
        try:
            if device != "cpu":
                _check_gpu(missing, device, pool, log)
            running = {pool.submit(worker.keep_weights, *task, device): task for task in missing}
            for future in as_completed(running):
                text, *found = future.result()
                same += found
                missing.remove(running[future])
                log(f"[{number - len(missing)}/{number}] {text}")
        except gpu.Lost as lost:
            log(gpu.given_up(lost))
            device = "cpu"
        finally:
            processes.stop(pool)
    log(f"weights kept; {sum(same)} of the {len(same)} finished levels among them came out bit-identical")


class _Progress:
    """A line per finished level: count, time passed, time left, accuracy."""

    def __init__(self, plan, workers, log):
        self.plan, self.workers, self.log, self.start = plan, workers, log, time.monotonic()
        self.left, self.done, self.spent, self.expected = sum(map(plan.cost, plan.missing)), 0, 0.0, 0.0
        self.trained, self.held = 0, set()  # levels by this run; tasks that another run holds
        self.there = set()  # tasks that are finished

    def moved(self, workers):
        """Recompute the remaining time, for other processes on another device."""
        self.workers, self.spent, self.expected = workers, 0.0, 0.0
        self.left = sum(self.plan.cost(task) for task in self.plan.missing if task not in self.there)

    def came_back(self, tasks, results):
        """Report each level and the time left; levels trained together share their time."""
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
                self._line(task, f"test accuracy {result[1]:.2f}%" + ", found finished" * (not result[0]))
            elif task not in self.held:  # told once
                self.held.add(task)
                self._line(task, "another run is training it; checked again when nothing else is left")

    def _line(self, task, text):
        unit, level = task
        config, pace = unit.config, self.spent / self.expected if self.expected else 1
        total, left = len(self.plan.missing), duration(max(self.left, 0) * pace / self.workers)
        name = f"{config.experiment} {unit.arm} r{unit.replicate} level {level}"
        if isinstance(self.log, Bar):
            self.log.level(self.done, total, left, f"{name}: {text}")
            return
        passed = duration(time.monotonic() - self.start)
        density = f"(density {100 * config.density(level):.3g}%)"
        self.log(f"[{self.done:>4}/{total}] {passed}, {left} left  {name} {density}: {text}")


def duration(seconds):
    """A duration as text: ``8 s``, ``4 min 10 s``, ``2 h 05 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"
