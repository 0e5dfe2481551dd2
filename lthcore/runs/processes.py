"""Processes that train: how many, how they start and end, and one in the background that can be stopped."""

import atexit
import contextlib
import os
import signal
import sys
import threading
import types
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext, SpawnProcess

from ..disk.files import die_with
from . import gpu, limits, sending

MEMORY = 1.3e9  # bytes that a process takes: torch, MNIST, the subsets it has seen; measured: 1.26, the driver 1.52
SHORT = 0.8  # share of what is needed, below which memory is clearly short


def pool(workers, scheduler="", log=print, device="cpu"):
    if scheduler:
        from .cluster import Workers

        return Workers(scheduler, log)
    options = {"initializer": start_worker, "initargs": (os.getpid(), sending.added(), device)}
    return ProcessPoolExecutor(workers, mp_context=Context(), **options)


class _Process(SpawnProcess):
    """A process that does not run its parent's program again, as spawned processes do.

    So a script needs no ``if __name__ == "__main__":``, and one that is no file (``python -``) can be at work too.
    What our processes are asked to do stands in modules, and what a user has added is sent (:func:`sending.added`).
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


class Context(SpawnContext):
    Process = _Process


def stop(pool):
    """End the workers at once: unfinished levels are trained again from their masks."""
    for process in list((pool._processes or {}).values()):
        process.terminate()
    pool.shutdown(wait=True, cancel_futures=True)


def start_worker(parent, added, device=""):
    """In a worker: take the driver's criteria and rules, one thread, no Ctrl-C; on Linux end with the driver.

    One that trains on the CPU sees no GPU: torch asks it things even then, and it may be broken.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)
    sending.add(added)
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        warnings.filterwarnings("ignore", "CUDA initialization")  # an old driver: the driving process has said it
    import torch

    torch.set_num_threads(1)


class Background:
    """A call in a separate process that can be stopped; a thread reads its lines.

    Parameters
    ----------
    function : callable
        Of a module; called with `arguments` and ``log=``.
    arguments : tuple
    log : callable
        Called with each line, in the thread.
    done : callable
        Called at the end, in the thread: with "" if all went well, "stopped", or the error in one line.
    """

    def __init__(self, function, arguments, log, done):
        context = Context()
        receiver, sender = context.Pipe(duplex=False)
        self.stopped = False
        those = sender, os.getpid(), sending.added(), function, arguments
        self.process = context.Process(target=_called, args=those)
        self.process.start()
        sender.close()  # so that the thread sees the end when the process has let go of its own
        atexit.register(self.stop)  # before multiprocessing would wait for it
        self.thread = threading.Thread(target=self._listen, args=(receiver, log, done), daemon=True)
        self.thread.start()

    def _listen(self, receiver, log, done):
        outcome = None
        with contextlib.suppress(EOFError, OSError):
            while outcome is None:
                kind, text = receiver.recv()
                outcome = text if kind == "end" else log(text)
        self.process.join()
        atexit.unregister(self.stop)
        done("stopped" if self.stopped else "its process died (out of memory?)" if outcome is None else outcome)

    def stop(self):
        """End it; what it has finished is kept."""
        self.stopped = True
        self.process.terminate()


def _called(sender, parent, added, function, arguments):
    """In the process: call, send the lines, and send how it ended."""
    start_worker(parent, added)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of the clean-up: no worker stays behind
    outcome = ""
    try:
        function(*arguments, log=lambda line: sender.send(("line", line)))
    except Exception as error:  # whatever it is, the one who waits must read it
        outcome = " ".join(f"{type(error).__name__}: {error}".split())
    sender.send(("end", outcome))


def resolve(device, log=print):
    """``auto`` -> ``cuda`` where there is one, else ``cpu``; ValueError for a ``cuda`` that does not exist.

    Where torch cannot use the GPU, for example because of an old driver, a line says so, and it is ``cpu``.
    """
    if device not in ("auto", "cuda"):
        return device
    if device == "auto" and "torch" not in sys.modules and not gpu.possible():
        return "cpu"
    there, complaint = gpu.find()
    if there:
        return "cuda"
    if complaint:
        log(gpu.not_used(complaint))
    elif device == "cuda":
        raise ValueError("device = 'cuda': no CUDA device is found here, must be 'auto' or 'cpu'")
    return "cpu"


def default_workers(device):
    """One process per core that this process may use, fewer where memory is short; one on a GPU."""
    if device == "cuda":
        return 1
    free = limits.free_memory()
    count = limits.processors() if free is None else int(free / (SHORT * MEMORY)) - 1  # the driver needs as much as one
    return max(1, min(limits.processors(), count))


def memory(workers):
    """Bytes that so many processes and their driver need; RuntimeError where there is far less."""
    needed, free = MEMORY * (workers + 1), limits.free_memory()
    if free is not None and free < SHORT * needed:
        raise RuntimeError(
            f"{workers} process{'es' * (workers > 1)} and their driver need about {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are available: free some, or use fewer processes (--workers)"
        )
    return needed
