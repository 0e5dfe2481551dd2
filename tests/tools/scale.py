"""Where the time and the files go as the levels grow in number: python tests/tools/scale.py --levels 200 2000

The levels are empty, nothing is trained: what is left is what a level costs the driver, the scheduler and the store. A
cost is this process's time on a processor, so that what else the machine does is not in it; with Dask the scheduler
runs in this process too. Files hold what a level of the committed archive holds; ``--folder`` puts them on the disk, or
the shared folder, that is asked about. Writes ``scale.{csv,json}`` to ``figures/``, or to the folder of ``--out``.
"""

import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

from distributed import LocalCluster, __version__

from lthcore import train  # noqa: F401 (an estimate would load it)
from lthcore.cli import Parser
from lthcore.runs import estimate, processes, store, sweep, worker
from lthcore.runs import queue as runs_queue
from lthcore.studies import experiments

WORKERS = 2
COUNTED = Counter()  # file operations in the store, by name, while it is counted
OPERATIONS = {"open": "opened", "os.rename": "renamed", "os.remove": "removed", "os.mkdir": "made"}


def empty(tasks, *_):
    """In the place of :func:`lthcore.runs.sweep.run_levels`: a level that takes no time."""
    return [(1e-6, 0.0)] * len(tasks)


def chains(levels):
    """Units of the report's MLP, with as many seeds as give about so many levels: list of Unit."""
    study = experiments.study("mlp", "report", replicates=1)
    one = sum(len(unit.levels) for unit in study.units)
    return experiments.study("mlp", "report", replicates=max(1, round(levels / one))).units


def keep(unit, level, sample):
    """Write a level with another's content."""
    continues = unit.prunes and level != unit.levels[-1]
    store.save_level(unit, level, sample["rows"], sample["mask"] if continues else None, sample["facts"])


def queue(units, address=""):
    """A function that takes empty levels through the queue, on processes or on a cluster's workers."""
    plan = sweep.Plan(units)
    pool, progress = processes.pool(WORKERS, address), runs_queue._Progress(plan, WORKERS, lambda line: None)
    for future in [pool.submit(empty, [0]) for _ in range(4 * WORKERS)]:  # the workers are up
        future.result()
    way, ready = plan.remaining(), [task for task in plan.missing if task not in plan.waits_for]
    return lambda: runs_queue._drain(plan, ready, way, "cpu", pool, WORKERS, progress)


def operations(task, sample):
    """File operations in the store for one level, from its lock to its end, and the bytes it leaves: dict."""
    with mock.patch.object(worker, "_train", lambda tasks, _: {t: keep(*t, sample) or (1.0, 0.0) for t in tasks}):
        COUNTED.clear()
        sweep.run_levels([task])
        counts = {name: COUNTED[name] for name in OPERATIONS.values()}
    left = [p.stat() for p in store._folder(*task).iterdir()]
    return counts | {
        "files": len(left),
        "bytes": sum(s.st_size for s in left),
        "disk": sum(s.st_blocks for s in left) * 512,
    }


def count(event, arguments):
    if event in OPERATIONS and str(arguments[0]).startswith(str(store.runs())):
        COUNTED[OPERATIONS[event]] += 1


def measure(levels, repeats, folder, sample, address):
    """Costs at one number of levels: yields (part, levels, values in microseconds a level)."""
    units = chains(levels)
    number = sum(len(unit.levels) for unit in units)
    with tempfile.TemporaryDirectory(dir=folder) as root, mock.patch.dict(os.environ, LTH_RUNS=root, LTH_ARCHIVE=root):
        plan = sweep.Plan(units)
        parts = {
            "shards dealt out": lambda: sweep.shard(units, 1, 8),
            "plan, nothing finished": lambda: sweep.Plan(units),
            "estimate": lambda: plan.seconds(1000),
            "queue, processes": lambda: queue(units),
            "queue, Dask": lambda: queue(units, address),
            "levels written": lambda: [keep(u, k, sample) for u in units for k in u.levels],
            "plan, all finished": lambda: sweep.Plan(units),
            "damage looked for": lambda: store.set_aside_damaged(units, print),
            "leftovers cleared": lambda: store.clear_up([]),
        }
        for name, call in parts.items():
            values = []
            for _ in range(repeats):
                run = call() if name.startswith("queue") else call  # its processes are started before
                begun = time.process_time()
                run()
                values.append(1e6 * (time.process_time() - begun) / number)
            yield name, number, values


def main(argv=None):
    p = Parser(prog="python tests/tools/scale.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    p.add_argument("--levels", type=int, nargs="+", default=[200, 2000], metavar="N", help="(default 200 2000)")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="times that each is measured (default 3)")
    p.add_argument(
        "--folder", type=Path, default=None, metavar="FOLDER", help="where the store is made (default: /tmp)"
    )
    p.add_argument("--out", type=Path, default=store.FIGURES, metavar="FOLDER", help="default: figures/")
    options = p.parse_args(argv)
    for name, value in [("repeats", options.repeats), *(("levels", n) for n in options.levels)]:
        if value < 1:
            p.error(f"--{name} {value}: must be a whole number from 1 on")
    chain = next(u for u in experiments.study("mlp", "report").units if u.prunes)
    found = store.find_level(chain, 5)
    sample = {"rows": list(found.rows().itertuples(index=False, name=None)), "mask": found.next_mask("mlp")}
    sample["facts"] = found.facts["facts"]
    sys.addaudithook(count)
    times = {(kind, "cpu"): ([1e-4] * 10, [1e-6] * 10) for kind in {estimate._kind(chain.config)}}  # none is timed
    cluster = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "protocol": "tcp://", "silence_logs": 50}
    lines = ["part,levels,n,median,least,greatest"]
    with (
        mock.patch.dict(estimate.TIMES, times),
        mock.patch.object(worker, "run_levels", empty),
        LocalCluster(n_workers=WORKERS, threads_per_worker=1, **cluster) as made,
    ):
        for part, number, values in itertools.chain.from_iterable(
            measure(n, options.repeats, options.folder, sample, made.scheduler_address) for n in options.levels
        ):
            middle, least, greatest = (f"{f(values):.4g}" for f in (statistics.median, min, max))
            lines.append(f'"{part}",{number},{len(values)},{middle},{least},{greatest}')
            print(f"{part:<24} {number:>8} levels {middle:>8} [{least}, {greatest}] microseconds a level", flush=True)
    with (
        tempfile.TemporaryDirectory(dir=options.folder) as root,
        mock.patch.dict(os.environ, LTH_RUNS=root, LTH_ARCHIVE=root),
    ):
        some = chains(1)
        facts = {**store.machine(), "distributed": __version__, "code": store.code_version()}
        facts |= {"repeats": options.repeats, "levels_per_unit": len(sum((u.levels for u in some), ())) / len(some)}
        facts |= {"level": operations((chain, 0), sample)}
    print(json.dumps(facts, indent=1))
    store.write(options.out / "scale.csv", "\n".join(lines) + "\n")
    store.write(options.out / "scale.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
