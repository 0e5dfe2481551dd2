"""What a GPU does for this study, in minutes: python tests/tools/gpu.py [--minutes 8] [--out FOLDER]

Four parts, each in a process of its own: a part that fails, hangs or takes the device down is recorded, and the next
one begins. What is measured is written as it comes.

check    a few steps of every kind that any experiment trains, on the device and on the CPU, compared
steps    dense steps of 1, 4, 16 and 64 replicates at once beside one network in eager torch and by a DataLoader, in
         turn, and the device memory that they take
graph    the recorded step (a CUDA graph) against plain steps, in turn
report   the report's dense levels at as many replicates as there is time for, the projection of the whole report from
         their times, and then the report itself until the time is up, into a store of its own under --out

Writes ``gpu.csv`` (medians and ranges), ``gpu.json`` (hardware, versions, how each part ended, projection) and
``gpu.jsonl`` (every single measurement) to --out. With ``--device cpu`` the same runs on the CPU as a stand-in.
"""

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

REPLICATES = (1, 4, 16, 64)
PARTS = {"check": 0.3, "steps": 0.35, "graph": 0.3, "report": 1.0}  # share of the time that is left when it begins
TRIES = 3  # times that a part is begun again, after what brought it down
AGAIN = 3  # exit status that asks for it
GRACE = 15.0  # seconds that a part has to end by itself
NAMES = {"mlp": "MLP", "lenet5": "LeNet-5"}


class Deadline(BaseException):
    """The time of a part is up; no ``except Exception`` stops it."""


class Journal:
    """Measurements and failures, a line each, appended at once.

    Parameters
    ----------
    path : Path
    part : str
    """

    def __init__(self, path, part=""):
        self.path, self.part = path, part

    def lines(self):
        """What has been written so far: list of dict. A last line that was cut is left out."""
        out = []
        with contextlib.suppress(FileNotFoundError):
            for line in self.path.read_text().splitlines():
                with contextlib.suppress(ValueError):
                    out.append(json.loads(line))
        return out

    def write(self, **facts):
        with open(self.path, "a") as f:
            f.write(json.dumps({"part": self.part, **facts}) + "\n")
            f.flush()
            os.fsync(f.fileno())

    def add(self, what, value, unit, at=""):
        """One measurement."""
        self.write(what=what, at=at, unit=unit, value=float(value))

    def attempt(self, name, call, device):
        """Call, unless it was called before; an error is recorded, and ends the process if the device went with it."""
        if any(line.get("attempt") == name and line["part"] == self.part for line in self.lines()):
            return None
        print(f"{self.part}: {name}", flush=True)
        self.write(attempt=name)  # before, so that what kills the process is not tried again
        try:
            return call()
        except Exception as error:
            from lthcore.runs.gpu import one_line

            where = traceback.format_exc().splitlines()[-12:]
            self.write(failed=name, error=one_line(error), traceback=where)
            print(f"{self.part}: {name} failed: {one_line(error)}", flush=True)
        if broken(device):
            print(f"{self.part}: the device is gone for this process, which begins again", flush=True)
            sys.exit(AGAIN)
        return None


def broken(device):
    """Whether a process can do nothing more on the device, as after an illegal access: bool."""
    import torch

    try:
        torch.ones(1, device=device).sum().item()
    except torch.OutOfMemoryError:
        return False
    except Exception:
        return True
    return False


def synchronize(device):
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


def seconds(call, device):
    synchronize(device)
    started = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - started


# -------------------------------------------------------------------------------------------------------------- check


def check(journal, options):
    """The self-check of the package, kind by kind, cheap ones first."""
    from lthcore.config import configure
    from lthcore.runs import gpu
    from lthcore.studies import experiments

    units = [u for study in experiments.every(extended=True, preset=options.preset) for u in study.units]
    tasks = [(unit, level) for unit in units for level in {unit.levels[0], unit.levels[-1]}]
    more = configure("mlp", dropout=0.5), configure("mlp", warmup=100), configure("mlp", optimizer="adamw")
    more += (configure("mlp", frozen_below=1e-6, weight_decay=1e-4),)
    pairs = gpu.kinds(tasks) + [(config, "full") for config in more]
    on_mnist = {}  # other data sets may not be here, and other pixels are not another kind of step
    for config, subset in pairs:
        config = dataclasses.replace(config, dataset="mnist")
        kind = (config.model, config.activation, config.pool, config.batch_size, config.optimizer)
        kind += tuple(getattr(config, name) for name in gpu.OF_STEPS)
        on_mnist.setdefault(kind, (config, subset))

    def size(item):
        config, _ = item[1]
        return len(config.convolutions), sum(config.schedule[0].values())

    for kind, (config, subset) in sorted(on_mnist.items(), key=size):
        text = f"{config.model} {config.activation} {config.pool} {config.optimizer} batch {config.batch_size}"
        facts = zip(gpu.OF_STEPS, kind[-len(gpu.OF_STEPS) :], strict=True)
        text += "".join(f" {name} {value:g}" for name, value in facts if value)

        def compare(config=config, subset=subset, text=text):
            found, allowed = gpu.differences(config, subset, options.on)
            for what, value in found.items():
                journal.add(f"{what} differ, relatively", value, "1", text)
            passed = all(value <= allowed[what] for what, value in found.items())
            journal.add("passed", passed, "1", text)
            journal.write(kind=text, allowed=allowed, passed=passed)

        journal.attempt(text, compare, options.on)


# -------------------------------------------------------------------------------------------------------------- steps


@functools.lru_cache
def recipe(model):
    from lthcore.config import configure

    return configure(model, "report", batch_size=60)


def split(model, replicate, device):
    from lthcore import data

    return data.split(recipe(model), "full", replicate, device)


def engine(model, replicates, device):
    """The study's own engine for a GPU, dense."""
    from lthcore import lottery, models
    from lthcore.engines.batched import Lockstep

    values = [models.initial(model, 0, "theta0", r) for r in range(replicates)]
    masks = [lottery.dense_mask(model) for _ in values]
    return Lockstep(values, masks, [split(model, 0, device)] * replicates, recipe(model))


def orders(model, replicates, steps, seed, device):
    import torch

    random = torch.Generator().manual_seed(seed)
    chosen = split(model, 0, device).chosen
    places = [torch.randperm(len(chosen), generator=random)[: 60 * steps] for _ in range(replicates)]
    return chosen[torch.stack(places).to(device)]


def ours(model, replicates, device):
    """A function that takes steps of so many replicates at once: seconds a step, of all of them."""
    trained = engine(model, replicates, device)
    trained.advance(orders(model, replicates, 5, 0, device))

    def run(steps, seed):
        places = orders(model, replicates, steps, seed, device)
        return seconds(lambda: trained.advance(places), device) / steps

    return run


def network(model, device):
    import torch

    from lthcore import models

    net = models.build(model)
    net.load_state_dict(models.initial(model, 0, "theta0", 0))
    net = net.to(device)
    return net, torch.optim.Adam(net.parameters(), lr=0.0012, fused=True)


def one_step(net, adam, images, labels):
    from torch.nn.functional import cross_entropy

    adam.zero_grad()
    cross_entropy(net(images), labels).backward()
    adam.step()


def eager(model, device):
    """The same for one network in plain torch, its images on the device."""
    (net, adam), (images, labels) = network(model, device), split(model, 0, device).train

    def run(steps, seed):
        batches = orders(model, 1, steps, seed, device)[0].split(60)

        def go():
            for batch in batches:
                one_step(net, adam, images[batch], labels[batch])

        return seconds(go, device) / steps

    run(5, 0)
    return run


def loader(model, device, processes, root):
    """The same as a tutorial writes it: torchvision's MNIST, a DataLoader, each batch moved to the device."""
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import MNIST

    from lthcore import data

    change = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(data.DATASETS["mnist"].mean, data.DATASETS["mnist"].std)]
    )
    settings = {"batch_size": 60, "shuffle": True, "drop_last": True, "num_workers": processes}
    settings |= {"pin_memory": device == "cuda", "persistent_workers": processes > 0}
    batches = itertools.chain.from_iterable(itertools.repeat(DataLoader(MNIST(root, True, change), **settings)))
    net, adam = network(model, device)

    def run(steps, seed):
        def go():
            for images, labels in itertools.islice(batches, steps):
                one_step(net, adam, images.to(device, non_blocking=True), labels.to(device, non_blocking=True))

        return seconds(go, device) / steps

    run(5, 0)
    return run


@contextlib.contextmanager
def torchvision_root():
    """A folder that torchvision's MNIST reads, with our files in it."""
    from lthcore.runs import download

    with tempfile.TemporaryDirectory() as root:
        (Path(root) / "MNIST").mkdir()
        (Path(root) / "MNIST" / "raw").symlink_to(download.fetch().absolute())
        yield root


def steps(journal, options):
    """Step times of all contestants, in turn; ratios are of one network's step, within a repeat."""
    for model in NAMES:
        journal.attempt(f"memory, {model}", lambda model=model: memory(journal, options, model), options.on)
    with torchvision_root() as root:
        for model in NAMES:
            made = {}
            for n in REPLICATES:
                made["ours", n] = lambda model=model, n=n: ours(model, n, options.on)
            made["eager torch", 1] = lambda model=model: eager(model, options.on)
            for processes in (0, 2):
                name = f"DataLoader, {processes} processes"
                made[name, 1] = lambda model=model, p=processes: loader(model, options.on, p, root)
            runs = {}
            for (name, n), make in made.items():
                run = journal.attempt(f"{model}: {name}, {n} at once", make, options.on)
                if run:
                    runs[name, n] = run
            for repeat in range(options.repeats):
                turn = functools.partial(in_turn, journal, runs, NAMES[model], options.steps, repeat)
                journal.attempt(f"{model}: repeat {repeat + 1} of {options.repeats}", turn, options.on)


def in_turn(journal, runs, model, count, repeat):
    """One repeat of all contestants, each followed by the ratios with what the same repeat gave before."""
    each = {}
    for (name, n), run in runs.items():
        value = run(count, repeat)
        each[name, n] = value / n
        journal.add(f"{model}: {name}, a step of all at once", 1e3 * value, "ms", n)
    for (name, _), value in each.items():
        for n in REPLICATES:
            if name != "ours" and ("ours", n) in each:
                journal.add(f"{model}: {name} / ours, per network", value / each["ours", n], "times", n)


def memory(journal, options, model):
    """Peak device memory of a short level, evaluations included, and a replicate's share of it."""
    import torch

    from lthcore import lottery, models, train
    from lthcore.runs import gpu

    config = dataclasses.replace(recipe(model), epochs=1, max_steps=10)
    shared, each = gpu.bytes_of(config)
    journal.add(f"{NAMES[model]}: a replicate's device memory, estimate", each / 1e6, "MB")
    journal.add(f"{NAMES[model]}: device memory shared by all, estimate", shared / 1e6, "MB")
    if torch.device(options.on).type != "cuda":
        return
    peaks = {}
    for n in REPLICATES:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        values = [models.initial(model, 0, "theta0", r) for r in range(n)]
        masks = [lottery.dense_mask(model) for _ in values]
        parts = [split(model, r, options.on) for r in range(n)]
        train.train(values, masks, parts, train.Training(config, 0, tuple(range(n)), "full"))
        peaks[n] = torch.cuda.max_memory_allocated()
        journal.add(f"{NAMES[model]}: peak device memory", peaks[n] / 1e6, "MB", n)
    least, greatest = min(peaks), max(peaks)
    share = (peaks[greatest] - peaks[least]) / (greatest - least)
    journal.add(f"{NAMES[model]}: a replicate's device memory, measured", share / 1e6, "MB")


# -------------------------------------------------------------------------------------------------------------- graph


def graph(journal, options):
    """The same engine with and without its recorded step, in turn."""
    for model in NAMES:
        for n in (1, 16):

            def against(model=model, n=n):
                both = {"graph": engine(model, n, options.on), "plain steps": engine(model, n, options.on)}
                recorded = both["graph"].replay is not None
                journal.add(f"{NAMES[model]}: a graph is recorded", recorded, "1", n)
                both["plain steps"].replay = None
                for one in both.values():
                    one.advance(orders(model, n, 5, 0, options.on))
                for repeat in range(options.repeats):
                    places, took = orders(model, n, options.steps, repeat, options.on), {}
                    for name, one in both.items():
                        took[name] = seconds(functools.partial(one.advance, places), options.on) / options.steps
                        journal.add(f"{NAMES[model]}: {name}, a step of all at once", 1e3 * took[name], "ms", n)
                    ratio = took["plain steps"] / took["graph"]
                    journal.add(f"{NAMES[model]}: plain steps / graph", ratio, "times", n)

            journal.attempt(f"{model}, {n} at once", against, options.on)


# ------------------------------------------------------------------------------------------------------------- report


def same_work(task):
    """What the time of a level depends on, on a GPU, where a mask makes nothing cheaper."""
    unit, level = task
    c = unit.config.at(level)
    kind = c.experiment, c.model, c.optimizer, c.momentum, c.batch_size, c.epochs, c.max_steps
    return *kind, unit.subset, unit.probes


def report(journal, options):
    """A dense level of each kind by the clock, the projection, and the report itself until the time is up."""
    from lthcore.runs import store, sweep
    from lthcore.studies import experiments, names

    store.make()
    count = carried(journal, options)
    studies = [
        experiments.study(name, options.preset, replicates=count, device="cpu" if options.on == "cpu:0" else options.on)
        for name in names("report")
    ]
    journal.write(replicates=count)
    units = [unit for study in studies for unit in study.units]
    plan = sweep.Plan(units, options.on)
    groups = {}  # what is trained at once: an arm's level of all replicates, once where chains share it
    for task in dict.fromkeys(plan.first.values()):
        unit, level = task
        groups.setdefault((unit.config, unit.arm, unit.subset, unit.start, unit.mask.name, level), []).append(task)
    work = {}
    for group in groups.values():
        work.setdefault(same_work(group[0]), []).append(group)
    for kind, all_groups in sorted(work.items(), key=lambda item: item[0][:2], reverse=True):  # tasks first
        ready = [group for group in all_groups if all(task[0].needs(task[1]) is None for task in group)]
        text = f"{kind[0]} {kind[2]}{' momentum' * bool(kind[3])} {kind[-2]}"
        journal.write(kind=text, groups=len(all_groups))
        if not ready:
            journal.write(failed=text, error="no dense level of this kind, which the projection lacks")
            continue

        def level(group=ready[0], text=text):
            started = time.perf_counter()
            done = sweep.run_levels(group, options.on)
            took = time.perf_counter() - started
            journal.add("seconds of a level of all replicates", took, "s", text)
            journal.add("test accuracy, mean over the replicates", sum(r[1] for r in done) / len(done), "%", text)

        journal.attempt(f"{text}, {len(ready[0])} replicates", level, options.on)

    def log(line):
        print(f"report: {line}", flush=True)
        journal.write(said=line)

    def rest():
        sweep.run(units, options.on, 1, log)

    journal.attempt("the report itself, until the time is up", rest, options.on)


def carried(journal, options):
    """The largest number of replicates whose dense levels the time carries, by the steps that were measured: int."""
    from lthcore import train
    from lthcore.studies import experiments

    kinds = {}
    for study in experiments.every(preset=options.preset, replicates=1):
        for unit in study.units:
            if unit.prunes:
                n_train = 60_000 // {"half": 2, "labe": 2}.get(unit.subset[:4], 1)
                kinds[same_work((unit, 0))] = unit.config.model, train.total_steps(unit.config, n_train)
    best = 1
    for n in REPLICATES:
        total = 0.0
        for model, number in kinds.values():
            name = f"{NAMES[model]}: ours, a step of all at once"
            times = [x["value"] for x in journal.lines() if (x.get("what"), x.get("at")) == (name, n)]
            total += number * statistics.median(times) / 1e3 if times else float("inf")
        if 1.5 * total < 0.7 * (options.until - time.time()):  # evaluations take about half as long again
            best = n
    return options.replicates or best


def projection(lines):
    """Minutes of the whole report by the levels that were measured: dict, or None without one."""
    groups = {x["kind"]: x["groups"] for x in lines if "groups" in x}
    took = {x["at"]: x["value"] for x in lines if x.get("what") == "seconds of a level of all replicates"}
    if not took:
        return None
    minutes = {kind: groups[kind] * took[kind] / 60 for kind in groups if kind in took}
    missing = sorted(set(groups) - set(took))
    replicates = [x["replicates"] for x in lines if "replicates" in x][-1:]
    out = {"replicates": replicates[0] if replicates else None, "minutes": round(sum(minutes.values()), 2)}
    return out | {"minutes_by_kind": {k: round(v, 2) for k, v in minutes.items()}, "without": missing, "n": 1}


# ------------------------------------------------------------------------------------------------------------ the run


def rows(lines):
    """Medians and ranges: list of (part, what, at, unit, n, median, least, greatest)."""
    values = {}
    for x in lines:
        if "value" in x:
            values.setdefault((x["part"], x["what"], x["at"], x["unit"]), []).append(x["value"])
    return [(*key, len(v), statistics.median(v), min(v), max(v)) for key, v in values.items()]


def facts(options):
    """Hardware and versions."""
    import numpy
    import torch

    from lthcore.runs import store

    out = {**store.machine(), "torch": torch.__version__, "numpy": numpy.__version__, "code": store.code_version()}
    out |= {"cuda": torch.version.cuda, "device": options.device, "preset": options.preset}
    out |= {"repeats": options.repeats, "steps": options.steps, "minutes": options.minutes}
    if options.device == "cuda":
        with contextlib.suppress(Exception):
            asked = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
            out["nvidia_smi"] = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout.strip()
    return out


def device_facts(journal, options):
    """What only a process that uses the device can say of it."""
    import torch

    if torch.device(options.on).type == "cuda":
        p = torch.cuda.get_device_properties(0)
        free, total = torch.cuda.mem_get_info()
        said = {"gpu": p.name, "capability": f"{p.major}.{p.minor}", "processors": p.multi_processor_count}
        said |= {"memory": total, "free": free, "cudnn": torch.backends.cudnn.version()}
        journal.write(device=said)


def write(options, journal, known, ended):
    """The table and the json, from what there is so far."""
    from lthcore.runs import store

    lines, table = journal.lines(), ["part,what,at,unit,n,median,least,greatest"]
    for part, what, at, unit, n, *values in rows(lines):
        table.append(",".join([part, f'"{what}"', f'"{at}"', unit, str(n), *(f"{v:.5g}" for v in values)]))
    found = dict(known)
    for line in lines:
        found |= line.get("device", {})
    failed = [{k: x[k] for k in ("part", "failed", "error")} for x in lines if "failed" in x]
    passed = [x["passed"] for x in lines if "passed" in x]
    found |= {"parts": ended, "failed": failed, "projection": projection(lines)}
    found["self_check"] = {"kinds": len(passed), "passed": sum(passed)}
    store.write(options.out / "gpu.csv", "\n".join(table) + "\n")
    store.write(options.out / "gpu.json", json.dumps(found, indent=1, sort_keys=True) + "\n")
    return found


def run_part(part, options):
    """A part in a process of its own: how it ended, in words."""
    share = PARTS[part] * (options.until - time.time() - GRACE)
    until, began = time.time() + share, time.time()
    environment = os.environ | {"LTH_RUNS": str(options.out / "runs"), "LTH_ARCHIVE": str(options.out / "archive")}
    command = [sys.executable, __file__, "--part", part, "--until", str(until), "--out", str(options.out)]
    for name in ("device", "preset", "repeats", "steps", "replicates"):
        command += [f"--{name}", str(getattr(options, name))]
    for _ in range(TRIES):
        if time.time() > until - 1:
            return "no time was left"
        child = subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)
        try:
            status = child.wait(until - time.time() + GRACE)
        except subprocess.TimeoutExpired:
            status = "hung"
        except BaseException:
            end(child)
            raise
        end(child)
        if status == "hung":
            return f"hung, and was ended after {time.time() - began:.0f} s"
        if status == 0:
            return f"done in {time.time() - began:.0f} s"
        if status == signal.SIGALRM:
            return f"stopped when its time was up, after {time.time() - began:.0f} s"
    return f"ended with status {status} {TRIES} times"


def end(child):
    """No process of a part stays behind."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def run_child(options):
    """In the process of a part."""

    def stop(*_):
        raise Deadline

    if options.device == "cpu":
        import torch

        torch.set_num_threads(1)  # as the study itself
    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(0.1, options.until - time.time()))
    journal = Journal(options.out / "gpu.jsonl", options.part)
    call = {"check": check, "steps": steps, "graph": graph, "report": report}[options.part]
    try:
        if not any("device" in line for line in journal.lines()):
            device_facts(journal, options)
        call(journal, options)
    except Deadline:
        print(f"{options.part}: its time is up", flush=True)
        sys.exit(int(signal.SIGALRM))


def refuse(text):
    sys.exit(f"gpu.py: {text}")


def main(argv=None):
    p = argparse.ArgumentParser(prog="python tests/tools/gpu.py", description=__doc__.split("\n")[0])
    p.add_argument("--minutes", type=float, default=8.0, metavar="M", help="for all of it (default 8)")
    p.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: a stand-in (default cuda)")
    p.add_argument("--out", type=Path, default=ROOT / "figures" / "gpu", metavar="FOLDER", help="default figures/gpu")
    p.add_argument("--repeats", type=int, default=7, metavar="N", help="of what is measured in turn (default 7)")
    p.add_argument("--steps", type=int, default=100, metavar="N", help="of a measurement (default 100)")
    p.add_argument("--replicates", type=int, default=0, metavar="N", help="of the report (default: as time carries)")
    p.add_argument("--preset", default="report", choices=["report", "quick", "smoke"], help="(default report)")
    p.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    p.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = p.parse_args(argv)
    options.out = options.out.absolute()
    options.on = "cuda" if options.device == "cuda" else "cpu:0"  # the package takes all but "cpu" for a GPU
    for name, least in (("minutes", 0.2), ("repeats", 1), ("steps", 1), ("replicates", 0)):
        if not getattr(options, name) >= least:
            refuse(f"--{name} {getattr(options, name)}: must be at least {least}")
    if options.steps > 900:
        refuse(f"--steps {options.steps}: must be at most 900, an epoch has 916")
    if options.part:
        return run_child(options)
    began = time.time()
    options.until = began + 60 * options.minutes
    try:
        from lthcore.runs import download, gpu, store

        download.fetch()
    except ImportError as error:
        refuse(f"a package is missing ({error}): pip install -r requirements.txt")
    except RuntimeError as error:
        refuse(f"{error}; without a network carry data/MNIST/raw along")
    there, complaint = gpu.find() if options.device == "cuda" else (True, "")
    if not there:
        refuse(f"no CUDA device can be used here ({complaint or 'none is found'}); --device cpu is a stand-in")
    options.out.mkdir(parents=True, exist_ok=True)
    journal = Journal(options.out / "gpu.jsonl")
    store.write(journal.path, "")
    known, ended = facts(options), {}
    for part in PARTS:
        ended[part] = run_part(part, options)
        print(f"{part}: {ended[part]}", flush=True)
        found = write(options, journal, known, ended)
    for part, what, at, unit, n, *values in rows(journal.lines()):
        text = [f"{v:.4g}" for v in values]
        print(f"{part:<7} {what:<58} {at!s:>34} {text[0]:>9} [{text[1]}, {text[2]}] {unit}, n = {n}")
    for line in found["failed"]:
        print(f"failed: {line['part']}: {line['failed']}: {line['error']}")
    print(f"self-check: {found['self_check']}; projection: {found['projection']}")
    print(f"{time.time() - began:.0f} s: gpu.csv, gpu.json, gpu.jsonl in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
