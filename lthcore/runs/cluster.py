"""The workers of a Dask cluster in the place of the queue's own processes.

They share one folder with the driver, the store, and nothing else: no memory, no clock, perhaps no data. Dask is
imported only where a cluster is used.
"""

import contextlib
import gc
import hashlib
import logging
import os
import pickle
import secrets
import time
from concurrent.futures import CancelledError, Future
from concurrent.futures.process import BrokenProcessPool
from functools import lru_cache
from pathlib import Path

from ..disk.files import FOLDERS
from . import sending, store

CONNECT = 30  # seconds in which the scheduler must answer, and then a worker come
SECONDS = 1.0  # seconds for which the number of workers is taken to be what it was
GIVEN = [name for name in FOLDERS if os.environ.get(name)]  # those that this process was started with
# of the code as it was loaded: two checkouts that git calls dirty may differ, and a running worker sees no `git pull`
PACKAGE = Path(__file__).resolve().parents[1]
CODE = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(PACKAGE.rglob("*.py")))).hexdigest()[:12]


class Workers:
    """An executor over the workers of a Dask cluster, for the queue in :mod:`lthcore.runs.sweep`.

    Parameters
    ----------
    address : str
        The scheduler's, ``tcp://HOST:PORT`` or ``tls://HOST:PORT``.
    log : callable
        Called with a line where no worker is left.

    Raises
    ------
    ValueError
        If `distributed` is not installed, or the address is none.
    RuntimeError
        If no scheduler answers there, or it has no worker, or one of several threads.
    """

    _processes = None  # none is a child of this one

    def __init__(self, address, log=print):
        from . import download

        try:
            from distributed import Client
        except ImportError:
            raise ValueError("a Dask cluster needs the package distributed: pip install -e '.[cluster]'") from None
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # else a traceback where a line is enough
        self.log, self.seen, self.workers = log, 0.0, 0
        self.address, self.start = address, f"start some with: dask worker {address} --nthreads 1"
        refusal = None
        try:
            self.client = Client(address, timeout=CONNECT, set_as_default=False)
        except (ValueError, TypeError) as error:
            refusal = ValueError(f"scheduler = {address!r}: must be tcp://HOST:PORT or tls://HOST:PORT ({error})")
        except OSError as error:
            refusal = RuntimeError(f"no Dask scheduler answers at {address}: start one with: dask scheduler ({error})")
        if refusal:
            gc.collect()  # a client that came to nothing closes itself then; while the next is made, it would hang it
            raise refusal
        with contextlib.suppress(TimeoutError):
            self.client.wait_for_workers(1, timeout=CONNECT)
        threads = self.client.nthreads().values()
        if not threads or max(threads) > 1:
            self.client.close()
            what = "a worker of several threads, and a level takes one" if threads else "no worker"
            raise RuntimeError(f"the Dask scheduler at {address} has {what}: {self.start}")
        self.executor = self.client.get_executor(pure=False)  # a level that another run holds is asked for again
        self.mark = store.runs() / f".{secrets.token_hex(8)}.aside"  # whoever sees it sees this store
        folders = (str(folder().absolute()) for folder in (store.runs, store.archive, download.folder))
        self.terms = CODE, self.mark.name, tuple(zip(FOLDERS, folders, strict=True))
        self.mark.touch()

    def size(self):
        """How many workers there are now: int."""
        if time.monotonic() > self.seen + SECONDS:
            with contextlib.suppress(OSError):  # the workers will report it
                self.mark.touch()  # again and again, or another run would clear it after an hour
            try:
                workers = len(self.client.nthreads())
            except OSError:
                raise self._gone() from None
            if self.workers and not workers:
                self.log(f"no worker is left at {self.address}, waiting for one: {self.start}")
            self.seen, self.workers = time.monotonic(), workers
        if not self.workers:
            time.sleep(SECONDS)
        return self.workers

    def submit(self, function, *arguments):
        """Call a function on a worker: Future.

        It raises BrokenProcessPool where one worker after the other died of it.
        """
        import cloudpickle

        def level(*sent):  # goes by value, and what it calls as bytes: the scheduler needs no lthcore
            from importlib import import_module

            return import_module("lthcore.runs.cluster").at_worker(*sent)

        future, content = Future(), cloudpickle.dumps((function, arguments, sending.added()))
        done = self.executor.submit(level, self.terms, content)
        done.add_done_callback(lambda done: self._hand_over(done, future))
        return future

    def call(self, function, *arguments):
        """What a function gives on some worker; the end of this executor where it raises."""
        try:
            return self.submit(function, *arguments).result()
        except BaseException:
            self.shutdown()
            raise

    def _hand_over(self, done, future):
        from distributed import KilledWorker

        try:
            future.set_result(done.result())
        except KilledWorker:
            future.set_exception(BrokenProcessPool("one Dask worker after the other died (out of memory?)"))
        except CancelledError:
            future.set_exception(self._gone())
        except ImportError as error:
            text = f"a Dask worker at {self.address} lacks a module ({error}): start it in the environment of the study"
            future.set_exception(RuntimeError(text))
        except Exception as error:
            future.set_exception(error)

    def _gone(self):
        return RuntimeError(
            f"the Dask scheduler at {self.address} is gone: what is finished is kept, and once there is one again "
            "the same command continues from it"
        )

    def shutdown(self, **_):
        """Begin nothing more; a level that a worker is at goes to its end."""
        self.executor.shutdown(wait=False)
        self.client.close()
        self.mark.unlink(missing_ok=True)


def at_worker(terms, content):
    """On a worker: call a function, once it is sure that it means there what it means for the driver."""
    _agree(*terms)
    function, arguments, added = pickle.loads(content)
    sending.add(added)
    return function(*arguments)


@lru_cache(maxsize=1)
def _agree(code, mark, folders):
    """Take the driver's folders where this worker has no own; ValueError unless code and store are the driver's too.

    Other code may give a setting that the driver knows no meaning, and would keep its level under the driver's name.
    """
    import torch
    from distributed import get_worker

    os.environ.update({name: path for name, path in folders if name not in GIVEN})
    torch.set_num_threads(1)
    here = f"the Dask worker {get_worker().address}"
    if code != CODE:
        raise ValueError(f"{here} runs other code ({CODE}) than the driver ({code}): update it and start it again")
    if not (store.runs() / mark).exists():
        raise ValueError(
            f"{here} does not see the driver's store in {store.runs()}: start it with LTH_RUNS, the shared folder"
        )
