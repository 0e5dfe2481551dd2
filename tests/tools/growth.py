"""How the cost of training grows: python tests/tools/growth.py

A step against kept weights, batch size and width, one thread; and how many steps 1, 2 and 4 processes take together.
Each repeat measures every point once, in turn. Writes ``growth.{png,svg,csv,json}`` to ``figures/``, or to the folder
that ``--out`` names.
"""

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import bench
import numpy as np

from lthcore import lottery
from lthcore.runs import sweep

DENSITIES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)
TWO = (1.0, 0.05)  # densities of the other panels
BATCHES = (15, 30, 60, 120, 240, 480)
WIDTHS = ((100, 30), (200, 70), (300, 100), (600, 200), (1200, 400))  # of the MLP's hidden layers
PROCESSES = (1, 2, 4)
SECONDS = 2.0  # of each measurement with processes
LOADING = 20.0  # and before the first one of a density: each process loads the data and compiles


def points():
    """Every point that is measured on one thread: (part, line, x) -> arguments of `bench.ours`."""
    found = {}
    for model, name in bench.NAMES.items():
        weights = sum(m.numel() for m in lottery.dense_mask(model).values())
        found |= {("kept weights", name, round(d * weights)): (model, d) for d in DENSITIES}
    for density in TWO:
        line = f"MLP, {100 * density:g}% density"
        found |= {("batch", line, batch): ("mlp", density, batch) for batch in BATCHES}
        for first, second in WIDTHS:
            model = f"mlp_{first}_{second}"
            weights = sum(m.numel() for m in lottery.dense_mask(model).values())
            found["width", line, weights] = model, density
    return found


@bench.as_in_training()
def steps_in(density, until):
    """In a worker: how many steps of the MLP it takes until a time; what it needs is made before."""
    run, taken = bench.ours("mlp", density), 0
    while time.time() < until - SECONDS:
        time.sleep(0.001)
    while time.time() < until:
        run(20, taken)
        taken += 20
    return taken


@bench.as_in_training()
def measure(repeats, steps, log):
    """All of it: bench.Table, in which x stands in the place of the density."""
    table, runs = bench.Table(), {key: bench.ours(*arguments) for key, arguments in points().items()}
    with ProcessPoolExecutor(max(PROCESSES), mp_context=get_context("spawn")) as pool:
        list(pool.map(time.sleep, [1.0] * max(PROCESSES)))  # all of them are there
        for r in range(repeats):
            log(f"repeat {r + 1} of {repeats}")
            for (part, line, x), run in runs.items():
                table.add(part, line, 1e3 * run(steps, r), "ms a step", x)
            for density in TWO:
                for processes in PROCESSES:
                    taken = [0]
                    while not all(taken):  # again, where one was not ready in time
                        until = time.time() + SECONDS + LOADING * (r == 0)
                        futures = [pool.submit(steps_in, density, until + 1) for _ in range(processes)]
                        taken = [future.result() for future in futures]
                    rate = sum(taken) / SECONDS
                    table.add("processes", f"MLP, {100 * density:g}% density", rate, "steps a second", processes)
    return table


def draw(table, facts):
    """A panel for each that grows: Figure."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import FuncFormatter

    matplotlib.rcdefaults()  # not the user's settings
    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    labels = {
        "kept weights": "kept weights, batch 60", "batch": "images in a batch",
        "width": "weights of the dense MLP, widths 100-30 to 1200-400", "processes": "processes",
    }  # fmt: skip
    for axis, (part, label) in zip(axes.flat, labels.items(), strict=True):
        rows = [row for row in table.rows() if row[0] == part]
        for i, line in enumerate(dict.fromkeys(row[1] for row in rows)):
            x, middle, low, high = zip(*(row[2:3] + row[5:8] for row in rows if row[1] == line), strict=True)
            order = np.argsort(x, kind="stable")
            x, middle, low, high = (np.array(v, float)[order] for v in (x, middle, low, high))
            if part == "processes":
                low, high, middle = low / middle[0], high / middle[0], middle / middle[0]
            axis.plot(x, middle, marker="os"[i], ms=5, label=line, color=f"C{i}")
            axis.fill_between(x, low, high, alpha=0.2, color=f"C{i}")
        if part == "processes":
            axis.plot(PROCESSES, PROCESSES, ls=":", color="0.4", label="as many times as processes")
            axis.axvline(facts["cores"], color="0.6", lw=1, ls="--", label="processors of this machine")
            axis.set(ylabel="steps a second, times those of one process", xticks=PROCESSES, ylim=0)
        else:
            axis.set(xscale="log", yscale="log", ylabel="ms a step")
            axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
            ticks = BATCHES if part == "batch" else [10**k * i for k in range(2, 8) for i in (1, 3)]
            ends = axis.get_xlim()
            axis.set_xticks(ticks, [f"{t:,}" for t in ticks])
            axis.set_xticks([], minor=True)
            axis.set_xlim(ends)
        axis.set_xlabel(label)
        axis.legend(fontsize=8)
    text = f"one thread a process · {facts['processor']} · n = {facts['repeats']} · line: median, band: range"
    figure.supxlabel(text, fontsize=8, color="0.4", x=0.99, ha="right")
    figure.suptitle("How the cost of training grows", x=0.01, ha="left")
    return figure


def main(argv=None):
    options = bench.parsed(bench.parser("growth.py", __doc__, 5), argv)
    started = time.monotonic()
    table = measure(options.repeats, options.steps, lambda line: print(line, flush=True))
    facts = bench.facts_of(options)
    bench.save(options.out, "growth", draw(table, facts), table, facts)
    print(f"measured in {sweep.duration(time.monotonic() - started)}: growth.png, .svg, .csv, .json in {options.out}")


if __name__ == "__main__":
    sys.exit(main())
