"""How fast the study trains, measured side by side in one run: ``./run_all.sh bench``.

Every ratio is taken within a repeat, its two sides one after the other, and given as median [least, greatest] over
the repeats. Writes ``speed.{png,svg,csv,json}`` to ``figures/``, or to the folder that ``--out`` names.
SparseLab, a library for sparse training, is measured as well where it is installed (``pip install sparselab``).
"""

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numba
import numpy as np
import torch
import torch.nn.functional as F

from lthcore import data, lottery, models
from lthcore.cli import Parser
from lthcore.config import configure
from lthcore.engines.batched import Lockstep
from lthcore.engines.sparse import Sparse
from lthcore.runs import download, store, sweep

BATCH = 60
DENSITIES = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
COMPARED = (1.0, 0.2, 0.05, 0.01)  # densities at which SparseLab is measured
NAMES = {"mlp": "MLP", "lenet5": "LeNet-5"}


# ------------------------------------------------------------------------------------------------ what is measured


@lru_cache
def split(device="cpu"):
    """All of MNIST but the validation images, as the study trains on it."""
    return data.split(configure("mlp"), "full", 0, device)


def recipe(model, batch=BATCH):
    return configure("task1", batch_size=batch, model=model)  # which takes any model


def random_mask(model, density):
    random = torch.Generator().manual_seed(0)
    return {n: torch.rand(m.shape, generator=random) < density for n, m in lottery.dense_mask(model).items()}


def order(steps, seed=0, batch=BATCH):
    places = np.random.default_rng(seed).permutation(split().trained_on)[: steps * batch]
    return split().chosen[torch.from_numpy(places)]


def ours(model, density, batch=BATCH):
    """A function that takes `steps` steps of the study's own engine on one thread: seconds a step."""
    mask = random_mask(model, density)
    engine = Sparse(models.initial(model, 0, "theta0", 0), mask, split(), recipe(model, batch))
    engine.advance(order(10, batch=batch))

    def steps(number, seed):
        places = order(number, seed, batch)
        return seconds(lambda: engine.advance(places)) / number

    return steps


def eager(model, channels_last):
    """The same for plain torch under a mask of 50% density, from tensors: gradients times mask, fused Adam."""
    net, (images, labels) = models.build(model), split().train
    net.load_state_dict(models.initial(model, 0, "theta0", 0))
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
    masks = [(net.get_submodule(name).weight, m) for name, m in random_mask(model, 0.5).items()]
    adam = torch.optim.Adam(net.parameters(), lr=0.0012, fused=True)

    def run(places):
        for batch in places.split(BATCH):
            loss = F.cross_entropy(net(images[batch]), labels[batch])
            adam.zero_grad()
            loss.backward()
            for weight, m in masks:
                weight.grad.mul_(m)
            adam.step()

    run(order(3))
    return lambda number, seed: seconds(lambda: run(order(number, seed))) / number


def by_sparselab(density, number, seed):
    """In a worker of this density alone, since its cache mixes networks up: seconds a step of SparseLab's MLP."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # read when it is imported
    run, places = _sparselab(density), order(number, seed)
    return seconds(lambda: run(places)) / number


@lru_cache
def _sparselab(density):
    import sparselab

    layers = [sparselab.SparseLinear(*sizes, sparsity=1 - density) for sizes in ((784, 300), (300, 100), (100, 10))]
    net = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    adam, (images, labels) = torch.optim.Adam(net.parameters(), lr=0.0012), split().train
    flat = images.flatten(1)

    def run(places):
        for batch in places.split(BATCH):
            loss = F.cross_entropy(net(flat[batch]), labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()

    run(order(3))
    return run


@contextlib.contextmanager
def workers_of_sparselab(model, densities):
    """By density, a process in which SparseLab is measured; none where it is not installed, or for convolutions."""
    with contextlib.ExitStack() as stack:
        there = model == "mlp" and importlib.util.find_spec("sparselab")
        spawn = {"mp_context": get_context("spawn")}
        yield {d: stack.enter_context(ProcessPoolExecutor(1, **spawn)) for d in densities if there and d in COMPARED}


PRODUCTS = {  # outputs, inputs and pixels of every layer; convolutions are products of unfolded images
    "mlp": [(300, 784, 1), (100, 300, 1), (10, 100, 1)],
    "lenet5": [(6, 25, 784), (16, 150, 100), (120, 400, 1), (84, 120, 1), (10, 84, 1)],
}


def operations(model):
    """Floating-point operations of the products of a dense step: forward, and back to weights and inputs but pixels."""
    return sum(2 * BATCH * out * into * pixels * (2 + (i > 0)) for i, (out, into, pixels) in enumerate(PRODUCTS[model]))


def peak():
    """Floating-point operations a second of one thread: a product of two matrices of 1024."""
    a, b, result = (torch.randn(1024, 1024) for _ in range(3))
    return 3 * 2 * 1024**3 / seconds(lambda: [torch.mm(a, b, out=result) for _ in range(3)])


def products(model):
    """The same for the dense matrix products alone, convolutions as products of unfolded images."""
    calls = []
    for i, (out, into, pixels) in enumerate(PRODUCTS[model]):
        w, x, z = torch.randn(out, into), torch.randn(into, pixels * BATCH), torch.randn(out, pixels * BATCH)
        calls += [(w, x, torch.empty_like(z)), (z, x.t(), torch.empty_like(w))]
        if i:
            calls.append((w.t(), z, torch.empty_like(x)))

    def run(number):
        for _ in range(number):
            for a, b, result in calls:
                torch.mm(a, b, out=result)

    run(3)
    return lambda number, seed: seconds(lambda: run(number)) / number


def usual_epoch(root, images):
    """Seconds of an epoch and its test as a user would write it: dataset, DataLoader, gradients times mask, Adam."""
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms
    from torchvision.datasets import MNIST

    change = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.DATASETS["mnist"].mean, data.DATASETS["mnist"].std)]
    )
    chosen = Subset(MNIST(root, True, change), range(images))
    test = Subset(MNIST(root, False, change), range(min(images, 10_000)))
    net = models.build("mlp")
    net.load_state_dict(models.initial("mlp", 0, "theta0", 0))
    masks = [(net.get_submodule(name).weight, m.float()) for name, m in lottery.dense_mask("mlp").items()]
    adam = torch.optim.Adam(net.parameters(), lr=0.0012)
    torch.set_num_threads(2)

    def epoch():
        for x, y in DataLoader(chosen, batch_size=BATCH, shuffle=True):
            adam.zero_grad()
            F.cross_entropy(net(x), y).backward()
            for weight, m in masks:
                weight.grad *= m
            adam.step()
        with torch.no_grad():
            sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(test, batch_size=BATCH))

    try:
        return seconds(epoch)
    finally:
        torch.set_num_threads(1)


@contextlib.contextmanager
def as_in_training():
    """One thread, and numbers that underflow are zero; afterwards both are as they were."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)


@as_in_training()
def our_epochs(model, density, epochs, images):
    """In a worker: seconds of some epochs of the study's engine, each with its test evaluation."""
    engine = _engine(model, density)
    places = order(max(images // BATCH, 1))

    def run():
        for _ in range(epochs):
            engine.advance(places)
            engine.logits(split().test[0][:images])

    return seconds(run)


@lru_cache
def _engine(model, density):
    mask = random_mask(model, density)
    engine = Sparse(models.initial(model, 0, "theta0", 0), mask, split(), recipe(model))
    engine.advance(order(10))
    engine.logits(split().test[0])
    return engine


def together(pool, processes, *task):
    """Epochs a second of so many processes at once."""
    started = time.perf_counter()
    for future in [pool.submit(our_epochs, *task) for _ in range(processes)]:
        future.result()
    return processes * task[2] / (time.perf_counter() - started)


def lockstep(replicates):
    """On a GPU: a function that takes steps of so many replicates at once: seconds a step."""
    c, r = recipe("mlp"), range(replicates)
    values, masks = [models.initial("mlp", 0, "theta0", i) for i in r], [lottery.dense_mask("mlp") for _ in r]
    engine = Lockstep(values, masks, [split("cuda") for _ in r], c)

    def steps(number, seed):
        places = order(number, seed).cuda().expand(replicates, -1)

        def run():
            engine.advance(places)
            torch.cuda.synchronize()

        return seconds(run) / number

    steps(10, 0)
    return steps


def seconds(call):
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


# --------------------------------------------------------------------------------------------------------- the run


class Table:
    """Rows of measurements: what, at which density, processes or replicates, in which unit; one value a repeat."""

    def __init__(self):
        self.values = {}

    def add(self, part, what, value, unit, at=""):
        self.values.setdefault((part, what, at, unit), []).append(value)

    def rows(self):
        for (part, what, at, unit), values in self.values.items():
            yield part, what, at, unit, len(values), statistics.median(values), min(values), max(values)

    def middle(self, part, what, at=""):
        return next(row[5] for row in self.rows() if row[:3] == (part, what, at))


@as_in_training()
def measure(repeats, steps, images, densities, log):
    """All of it: Table."""
    table, cores = Table(), sweep.default_workers("cpu")
    for model in NAMES:
        log(f"{NAMES[model]}: steps")
        engines = {density: ours(model, density) for density in densities}
        rivals = {"products alone": products(model), "eager torch": eager(model, False)}
        if model == "lenet5":
            rivals["eager torch, channels_last"] = eager(model, True)
        with workers_of_sparselab(model, densities) as peers:
            for r in range(repeats):
                dense, rate = {}, peak()
                table.add(model, "product of 1024 x 1024", rate / 1e9, "GFLOP/s")
                for name, run in rivals.items():
                    dense[name] = run(steps, r)
                    table.add(model, name, 1e3 * dense[name], "ms a step")
                for density, run in engines.items():
                    value = run(steps, r)
                    dense.setdefault("ours, dense", value)
                    table.add(model, "ours", 1e3 * value, "ms a step", density)
                    limit = density * operations(model) / rate
                    table.add(model, "ours / its multiply-adds", value / limit, "times", density)
                    for name, other in dense.items():
                        if other is value:
                            continue
                        table.add(model, f"{name} / ours", other / value, "times", density)
                    if density in peers:
                        peer = peers[density].submit(by_sparselab, density, steps, r).result()
                        table.add(model, "SparseLab", 1e3 * peer, "ms a step", density)
                        table.add(model, "SparseLab / ours", peer / value, "times", density)
    with tempfile.TemporaryDirectory() as root, ProcessPoolExecutor(cores, mp_context=get_context("spawn")) as pool:
        (Path(root) / "MNIST").mkdir()
        (Path(root) / "MNIST" / "raw").symlink_to(download.fetch())
        task = "mlp", 1.0, 3, images
        together(pool, cores, *task)  # loads and compiles
        for r in range(repeats):
            log(f"an epoch of the MLP, the usual loop against ours, and processes: repeat {r + 1} of {repeats}")
            usual = 1 / usual_epoch(root, images)
            table.add("epochs", "the usual loop, two threads", usual, "epochs a second")
            for processes in [n for n in (1, 2, 4, 8, 16, 32, 64) if n <= cores]:
                for density in (1.0, 0.05):
                    rate = together(pool, processes, "mlp", density, 3, images)
                    what = f"ours, {100 * density:g}% density"
                    table.add("epochs", what, rate, "epochs a second", processes)
                    table.add("epochs", f"{what} / the usual loop", rate / usual, "times", processes)
    if torch.cuda.is_available():
        log("replicates in lockstep on the GPU")
        runs = {n: lockstep(n) for n in (1, 2, 4, 8, 16)}
        for r in range(repeats):
            values = {n: run(steps, r) for n, run in runs.items()}
            for n, value in values.items():
                table.add("gpu", "a step of all replicates", 1e3 * value, "ms a step", n)
                table.add("gpu", "against one replicate", value / values[1], "times", n)
    return table


def draw(table, facts):
    """Step times over density, a panel a model: Figure."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    import seaborn as sns
    from matplotlib.ticker import FuncFormatter

    from lthcore.results.figures import density_axis

    matplotlib.rcdefaults()  # not the user's settings
    sns.set_theme(style="whitegrid", palette="colorblind")
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained")
    for axis, model in zip(axes, NAMES, strict=True):
        rows = sorted(row for row in table.rows() if row[:2] == (model, "ours"))
        density, middle, low, high = (np.array([row[i] for row in rows], float) for i in (2, 5, 6, 7))
        axis.plot(density, middle, marker="o", ms=4, label="ours: surviving weights only", color="C0")
        axis.fill_between(density, low, high, alpha=0.2, color="C0")
        if peers := sorted(row for row in table.rows() if row[:2] == (model, "SparseLab")):
            axis.plot(
                *zip(*((row[2], row[5]) for row in peers), strict=True), "s-", ms=4, color="C2", label="SparseLab"
            )
        for i, (name, colour) in enumerate(
            (("eager torch", "C3"), ("eager torch, channels_last", "C1"), ("products alone", "0.4"))
        ):
            if found := [row for row in table.rows() if row[:2] == (model, name)]:
                label = "dense matrix products alone" if name == "products alone" else f"{name}, masked gradients"
                axis.axhline(found[0][5], color=colour, ls=("--", "-.", ":")[i], label=label)
        axis.set(yscale="log", ylabel="ms a step", title=NAMES[model])
        axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
        density_axis(axis)
        axis.legend(fontsize=8)
    n = next(table.rows())[4]
    where = f"{facts['processor']} · torch {facts['torch']}"
    text = f"batch {BATCH}, one thread · {where} · n = {n} · line: median, band: range"
    figure.supxlabel(text, fontsize=8, color="0.4", x=0.99, ha="right")
    figure.suptitle("What a step of training costs, by density", x=0.01, ha="left")
    return figure


def save(folder, name, figure, table, facts):
    """Print a table, and write it with its figure and facts: name.png, .svg, .csv and .json; the figure is closed."""
    import matplotlib.pyplot as plt

    lines = ["part,what,at,unit,n,median,least,greatest"]
    for part, what, at, unit, n, *values in table.rows():
        text = [f"{v:.4g}" for v in values]
        lines.append(",".join([part, f'"{what}"', str(at), unit, str(n), *text]))
        print(f"{part:<12} {what:<44} {at!s:>7} {text[0]:>8} [{text[1]}, {text[2]}] {unit}")
    for kind in ("png", "svg"):
        content = io.BytesIO()
        figure.savefig(content, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else {"Software": None})
        store.write(folder / f"{name}.{kind}", content.getvalue())
    plt.close(figure)
    store.write(folder / f"{name}.csv", "\n".join(lines) + "\n")
    store.write(folder / f"{name}.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")


def parser(prog, about, repeats):
    """The options that every benchmark has: Parser."""
    p = Parser(prog=prog, description=about.split("\n")[0], allow_abbrev=False)
    text = f"times that each point is measured (default {repeats})"
    p.add_argument("--repeats", type=int, default=repeats, metavar="N", help=text)
    p.add_argument("--steps", type=int, default=60, metavar="N", help="steps a measurement (default 60)")
    p.add_argument("--out", type=Path, default=store.FIGURES, metavar="FOLDER", help="default: figures/")
    return p


def parsed(p, argv):
    """What was asked for; a number below 1 is refused."""
    options = p.parse_args(argv)
    for name, value in vars(options).items():
        if isinstance(value, int) and value < 1:
            p.error(f"--{name} {value}: must be a whole number from 1 on")
    return options


def facts_of(options):
    """On what, with what and how often it is measured: dict."""
    facts = {**store.machine(), "torch": torch.__version__, "numba": numba.__version__, "numpy": np.__version__}
    return facts | {"code": store.code_version(), "repeats": options.repeats, "steps": options.steps}


def main(argv=None):
    p = parser("./run_all.sh bench", __doc__, 7)
    p.add_argument("--images", type=int, default=55_000, metavar="N", help="images of the epochs (default 55000)")
    options = parsed(p, argv)
    if options.images > 55_000:
        p.error(f"--images {options.images}: must be at most 55000")
    densities = DENSITIES if options.steps > 5 else DENSITIES[::4]
    started = time.monotonic()
    table = measure(options.repeats, options.steps, options.images, densities, lambda line: print(line, flush=True))
    facts = facts_of(options)
    if importlib.util.find_spec("sparselab"):
        facts["SparseLab"] = importlib.metadata.version("sparselab")
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    save(options.out, "speed", draw(table, facts), table, facts)
    print(f"\n{', '.join(f'{k} {v}' for k, v in facts.items())}")
    print(f"measured in {sweep.duration(time.monotonic() - started)}: speed.png, .svg, .csv, .json in {options.out}")


if __name__ == "__main__":
    main()
