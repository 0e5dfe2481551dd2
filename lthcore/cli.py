"""The command line, ``python -m lthcore``: train everything in one sweep, then execute the notebooks.

run_all.sh sets up and calls it. `--help` and the rejection of bad options need no package.
"""

import argparse
import ast
import contextlib
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from . import methods
from .disk.files import FOLDERS, write
from .explore import notebooks
from .runs import limits, presets
from .studies import REGISTRY, asked

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
OTHERS = ("test", "bench", "lab")  # commands whose options are those of what they call


@dataclass(frozen=True)
class Job:
    """A notebook to execute, with the parameters that make it one of several."""

    name: str  # of the executed copy
    notebook: str
    experiment: str | None  # None: it reads them all
    parameters: dict = field(default_factory=dict)
    when: str = "always"  # or "extended", with --extended alone, or "named", with --only alone

    @property
    def takes_model(self):
        """Whether --model is for it: the tasks."""
        return self.when == "always" and not self.parameters


WHEN = {"report": "always", "extended": "extended", "named": "named"}
RECORDS = sorted((e for e in REGISTRY.values() if e.group in WHEN), key=lambda e: e.notebook)
JOBS = [Job(e.copy or e.notebook, e.notebook, e.name, e.parameters, WHEN[e.group]) for e in RECORDS]
SCORECARD = Job("00_scorecard", "00_scorecard", None)
EXPLORER = Job("05_explorer", "05_explorer", None)
READERS = [SCORECARD, EXPLORER]
EXECUTING, ENDED = set(), threading.Event()  # processes; whether the user has interrupted them
# papermill in a process that ends with this one, and ends its kernel then
PAPERMILL = """import signal, sys
sys.modules["rfc3987_syntax"] = None
from lthcore.disk.files import die_with
die_with(int(sys.argv.pop(1)), signal.SIGTERM)
from papermill.__main__ import papermill
papermill(prog_name="papermill")"""


class Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage message, and suggests what may have been meant."""

    def parse_args(self, args=None, namespace=None):
        options, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = re.findall(r"--[\w-]+", self.format_help())
            self.error(f"unrecognized arguments: {' '.join(unknown)}{_meant(unknown[0], known)}")
        return options

    def error(self, message):
        self.exit(2, f"run_all.sh: {' '.join(message.split())}\n")


def _meant(word, known):
    """A suggestion for a word that is no option or command, as the end of its error message: str."""
    name, equals, value = word.partition("=")
    setting = name.lstrip("-").replace("-", "_")
    if name in FOLDERS:
        return f"; did you mean {word} ./run_all.sh ...?"
    if setting in presets.SETTINGS and (equals or name.startswith("--")):
        return f"; did you mean --set {setting}={value or 'VALUE'}?"
    return methods.meant(name, known)


def _one_of(*names):
    """A type of argument: one of these words."""

    def check(word):
        if word not in names:
            raise argparse.ArgumentTypeError(f"{word!r} must be one of {', '.join(names)}{_meant(word, names)}")
        return word

    return check


def _whole(word):
    """A type of argument: a whole number."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{word!r} must be a whole number") from None


def parser():
    """The command line: Parser."""
    p = Parser(
        prog="./run_all.sh",
        description="Regenerate every figure on real MNIST: train what is missing, then execute the notebooks.",
        epilog="Levels in runs/ (LTH_RUNS) and figures/archive/ (LTH_ARCHIVE) are finished and never trained again; "
        "the data lie in data/ (LTH_DATA).",
        allow_abbrev=False,
    )
    p.add_argument(
        "command", nargs="?", default="quick", type=_one_of(*presets.PRESETS, *OTHERS),
        help="quick (default, minutes), report (full schedule), smoke (seconds), test (all tests), "
        "bench (speed on this machine), lab (JupyterLab); options after one of these three are passed on to pytest, "
        "the benchmark or JupyterLab",
    )  # fmt: skip
    only = sorted({job.experiment for job in JOBS} | {job.notebook for job in JOBS})
    p.add_argument(
        "--only",
        action="append",
        type=_one_of(*only),
        metavar="NAME",
        help=f"only this one (may be repeated): {', '.join(only)}",
    )
    p.add_argument(
        "--replicates", type=_whole, default=0, metavar="N", help="independent repetitions; by default the preset's"
    )
    p.add_argument("--extended", action="store_true", help="also what goes beyond the report: notebooks 06 to 17")
    p.add_argument("--wide", dest="extended", action="store_true", help=argparse.SUPPRESS)  # its earlier name
    p.add_argument("--no-controls", action="store_true", help="leave out random reinitialisation and random masks")
    p.add_argument(
        "--model", default="", metavar="M", help="in the tasks: mlp, lenet5, or other sizes, mlp_A_B or lenet5_A_B_C_D"
    )
    p.add_argument("--seed", type=_whole, default=0, metavar="N", help="root of every random draw (default 0)")
    p.add_argument("--device", default="auto", metavar="D", help="auto (default), cpu or cuda")
    p.add_argument(
        "--workers", type=_whole, default=0, metavar="N", help="processes; by default one per core, one on a GPU"
    )
    p.add_argument(
        "--engine",
        default="processes",
        type=_one_of("processes", "dask"),
        metavar="E",
        help="what trains: processes on this machine (default), or dask, the workers of a Dask cluster",
    )
    p.add_argument("--scheduler", default="", metavar="ADDRESS", help="of the Dask cluster, e.g. tcp://127.0.0.1:8786")
    p.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="train only the I-th of N parts (I from 1 on); machines that share LTH_RUNS may do so at once",
    )
    p.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of lthcore.config.Config (may be repeated)",
    )
    p.add_argument("--verbose", action="store_true", help="a line for every level, on a terminal as well")
    p.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    p.add_argument(
        "--latest", action="store_true",
        help="update .venv to the newest packages that requirements.txt allows; else it has those of requirements.lock",
    )  # fmt: skip
    p.add_argument("--check", action="store_true", help=argparse.SUPPRESS)  # run_all.sh's, before it sets up
    return p


def main(argv=None):
    """Run the command line; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    dry_run = ["--dry-run"] * ("--dry-run" in arguments)
    rest = [word for word in arguments if word != "--dry-run"]
    more = []
    if rest[:1] and rest[0] in OTHERS:
        arguments = [rest[0], *dry_run]
        more = rest[1:]
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leave by way of the clean-up: no worker stays behind
    try:
        if not NOTEBOOKS.is_dir():
            raise RuntimeError(f"{ROOT} is not a checkout of the study: notebooks/ is missing")
        if options.command in OTHERS:
            return _other(options.command, more, options.dry_run)
        return run(options)
    except (ValueError, RuntimeError, FloatingPointError, OSError, ImportError) as error:  # a library does not load
        print(f"run_all.sh: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            "\nrun_all.sh: interrupted; finished levels are kept, the same command continues from them", file=sys.stderr
        )
        return 130


def _other(command, more, dry_run):
    """Run the tests, the benchmark or JupyterLab with options of their own: exit status."""
    lab = ["-m", "jupyterlab"]
    if not any(re.match(r"--(ip|ServerApp\.ip)(=|$)", word) for word in more):  # which it takes once
        lab.append("--ip=127.0.0.1")
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # in a container one often is, and Jupyter refuses without
        lab.append("--allow-root")
    call = {"test": ["-m", "pytest", *_processes(more)], "bench": ["tests/tools/bench.py"], "lab": lab}[command] + more
    print("would run:" if dry_run else "running:", " ".join(["python", *call]), flush=True)
    where = NOTEBOOKS if command == "lab" else ROOT
    return 0 if dry_run else subprocess.run([sys.executable, *call], cwd=where, env=_environment()).returncode


def _processes(more):
    """Options for parallel tests, unless the user's options say otherwise or start a debugger.

    One process more than there are cores: many tests wait for a process of their own.
    """
    given = ("-n", "--numprocesses", "--dist", "--pdb", "-s", "--capture=no", "--co", "--collect-only", "-p")
    count = limits.processors()
    if count == 1 or any(word.startswith(given) for word in more):
        return []
    return ["-n", str(count + 1), "--dist", "loadfile"]


def _environment(**more):
    """The environment of a subprocess, in which lthcore is that of this checkout as well: dict."""
    paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(paths))), **more}


def parameters(options):
    """The notebooks' parameters that the options ask for: dict."""
    overrides = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text!r}: must be NAME=VALUE")
        try:
            found = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
            found = value
        if repr(overrides.setdefault(name, found)) != repr(found):
            raise ValueError(f"--set {text!r}: must be given once; it was {overrides[name]!r} before")
    return {
        "preset": options.command, "replicates": options.replicates, "controls": not options.no_controls,
        "seed": options.seed, "device": options.device, "overrides": overrides,
    }  # fmt: skip


def given_to(job, given, options):
    """A notebook's parameters: the options', and what makes it one of several; `model` is for the tasks."""
    return {**given, **({"model": options.model} if job.takes_model else job.parameters)}


def wanted(options):
    """The notebooks that the options ask for: list of Job."""
    if options.only:
        asked = set(options.only)
        return [j for j in JOBS if j.experiment in asked or (j.notebook in asked and j.when != "named")]
    return [job for job in JOBS if job.when == "always" or (options.extended and job.when == "extended")]


def shard(text):
    """Which part, of how many, ``I/N`` means: (int, int)."""
    if not (found := re.fullmatch(r"(\d{1,6})/(\d{1,6})", text, re.A)) or not 1 <= int(found[1]) <= int(found[2]):
        raise ValueError(f"--shard {text!r}: must be I/N, two whole numbers with 1 <= I <= N, such as 1/8")
    return int(found[1]), int(found[2])


def run(options):
    """Train what is missing, execute the notebooks, print the results: exit status."""
    given = parameters(options)
    jobs, part = wanted(options), shard(options.shard)
    if options.workers < 0:
        raise ValueError(f"--workers {options.workers}: must be a whole number from 0 (one per core) on")
    if (options.engine == "dask") != bool(options.scheduler):
        raise ValueError(
            f"--engine {options.engine} --scheduler {options.scheduler!r}: must be given with dask and only with dask"
        )
    if options.workers and options.scheduler:
        raise ValueError(f"--workers {options.workers}: must be 0 with --engine dask, which uses the cluster's workers")
    if options.model and not any(job.takes_model for job in jobs):
        raise ValueError(f"--model {options.model!r}: applies only to task1, task2 and task3")
    others = [job.name for job in jobs if options.model and not job.takes_model]
    jobs = [job for job in jobs if job.name not in others]
    every = {**given, "model": options.model}
    asked.each(lambda name: asked.config(name, **every), [job.experiment for job in jobs])  # refuses before any import
    if options.check:
        return 0
    print("looking for what is finished", flush=True)  # packages take seconds to import, and it more to be read
    os.environ["MPLBACKEND"] = "agg"  # no window is opened here, and the user's own may be none that there is
    from .runs import progress, store, sweep
    from .studies import experiments  # here, so that --help and --check need no package

    lines = [f"skipped, since --model applies only to task1, task2 and task3: {', '.join(others)}"] if others else []
    names = [job.experiment for job in jobs]
    by_name = experiments.several(names, log=lines.append, **every)
    if options.command == "report" and not store.archive().is_dir():  # a slip would train everything again, silently
        lines.append(f"LTH_ARCHIVE = {store.archive()}: no such folder, so no finished level is read from it")
    print(*lines, sep="\n", end="\n" if lines else "")
    jobs = [job for job in jobs if job.experiment in by_name]
    studies = list(by_name.values())
    folder = studies[0].folder
    units = [unit for s in studies for unit in s.units]
    plan = sweep.Plan(sweep.shard(units, *part))
    replicates = " or ".join(str(n) for n in sorted({s.config.replicates for s in studies}))
    of_shard = f"shard {options.shard}, " if part[1] > 1 else ""
    print(
        f"{options.command}: {', '.join(job.experiment for job in jobs)}; {replicates} replicate(s); {of_shard}"
        f"{len(plan.found)} of {len(plan.tasks)} levels finished; figures go to {_short(folder)}/", flush=True
    )  # fmt: skip
    if options.dry_run:
        print(f"would train {len(plan.missing)} levels and execute {', '.join(job.name for job in [*jobs, *READERS])}")
        return 0
    given_to_each = [(job, given_to(job, given, options)) for job in jobs]
    if part[1] == 1:  # a shard may never draw
        for each in {s.folder for s in studies}:
            store.check_figures(each)
        for job, values in [*given_to_each, *((job, every) for job in READERS)]:
            _prepared(job, values, folder)
    started = time.monotonic()
    where = {"workers": options.workers, "scheduler": options.scheduler, "shard": part}
    experiments.run(*studies, **where, log=progress.shown(options.verbose))
    trained = time.monotonic() - started if plan.missing else 0.0
    if part[1] > 1 and not sweep.all_finished(units):
        print(
            f"shard {options.shard} is finished, other shards are not: once all are, "
            "the same command without --shard draws the figures"
        )
        return 0
    first, each = (12, 5) if options.command == "report" else (10, 4)  # seconds on two cores
    takes = sweep.duration(first + each * len(jobs))
    print(f"executing {len(jobs) + len(READERS)} notebooks, about {takes}", flush=True)
    with ThreadPoolExecutor(sweep.default_workers("cpu")) as pool, _ending_what_executes():
        running = {job.name: pool.submit(execute, job, values, by_name[job.experiment].folder)
                   for job, values in given_to_each}  # fmt: skip
        explorer = pool.submit(execute, EXPLORER, every, folder)
        seconds = {}
        for name, notebook in running.items():
            seconds[name] = notebook.result()
            print(f"[{len(seconds):>2}/{len(jobs) + len(READERS)}] {name}: {seconds[name]:.0f} s", flush=True)
        scorecard = pool.submit(execute, SCORECARD, every, folder)  # when the others' figures are there
        seconds[EXPLORER.name] = explorer.result()
        from .explore import offline  # here, so that what is refused need not wait for it

        drawn = offline.write(experiments.every(**every), folder)
        seconds[SCORECARD.name] = scorecard.result()
    _closing_table(studies, jobs, seconds, folder, trained)
    if drawn:
        print(f"to look into, in any browser: {_short(drawn)}")
    if options.command == "quick":
        _print_report_time(options, bool(plan.missing))
    return 0


def execute(job, given, folder):
    """Execute a notebook by papermill into ``<folder>/executed/``, and write it as html beside that: seconds.

    The copy gets its name only when it is complete.

    Raises
    ------
    ValueError
        If the notebook does not have one of the parameters, or cannot be read.
    RuntimeError
        If a cell fails; ends with the cell's own error.
    """
    started, target = time.monotonic(), folder / "executed" / f"{job.name}.ipynb"
    notebook, values = _prepared(job, given, folder)
    import nbformat
    import yaml

    from .runs import store

    partial = target.with_name(f"{job.name}.partial-{secrets.token_hex(4)}.ipynb")  # ids repeat across machines
    with store.writing(lambda: folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, partial)
    path = os.path.relpath(partial, ROOT)  # papermill notes it in the copy
    command = [sys.executable, "-c", PAPERMILL, str(os.getpid()), path, path]
    command += ["--parameters_yaml", yaml.safe_dump(values)]
    command += ["--no-progress-bar", "--log-level", "ERROR"]
    environment = _environment(
        LTH_LINKS_FROM=str(target.parent),
        PYDEVD_DISABLE_FILE_VALIDATION="1",
        OMP_NUM_THREADS="1",  # as many notebooks at once as there are processors
        MPLBACKEND="module://matplotlib_inline.backend_inline",
    )
    status, errors = _execute(command, environment)
    crossed = notebooks.NEVER_BEGAN in errors or notebooks.NOT_FOR_IT in partial.read_text(errors="replace")
    if crossed and not ENDED.is_set():  # another process was faster to take one of its ports
        status, errors = _execute(command, environment)
    if status:
        why = notebooks.why_it_failed(status, errors)
        raise RuntimeError(f"{job.name} failed; the partial notebook: {_short(partial)}; {why}")
    with store.writing(lambda: folder):
        notebooks.without_times(partial)
        os.replace(partial, target)
        write(target.with_suffix(".html"), notebooks.page(target))  # its pictures are in it
    return time.monotonic() - started


def _prepared(job, given, folder):
    """A notebook as it will be executed, and its parameters; ValueError where it lacks one or cannot be read."""
    sys.modules.setdefault("rfc3987_syntax", None)  # a grammar for jsonschema: 1.7 s to import, and of no use here
    notebook = notebooks.normalised(ROOT / "notebooks" / f"{job.notebook}.ipynb", folder / "executed")
    values, known = {**given, **job.parameters}, notebooks.parameters(notebook)
    for name in values:
        if name not in known:
            raise ValueError(f"{job.notebook} has no parameter {name!r}: {methods.one_of(name, known, str)}")
    return notebook, values


def _execute(command, environment):
    """Run a process that ends with the user's interruption: its exit status, and what it wrote to stderr."""
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    EXECUTING.add(process)
    if ENDED.is_set():  # while this one was starting
        process.terminate()
    _, errors = process.communicate()
    EXECUTING.remove(process)
    return process.returncode, errors


@contextlib.contextmanager
def _ending_what_executes():
    """Leave no notebook executing when the user interrupts."""
    ENDED.clear()
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        ENDED.set()
        for process in list(EXECUTING):
            process.terminate()
        raise


def _closing_table(studies, jobs, seconds, folder, trained):
    from .runs import sweep
    from .studies import experiments

    print(f"\n{'notebook':<24}{'seconds':>8}  verdicts")
    verdicts = experiments.verdicts(*studies)
    for study, job in zip(studies, jobs, strict=True):
        found = verdicts[verdicts["experiment"] == study.config.experiment]
        text = "; ".join(f"{c}: {v}" for c, v in zip(found["claim"], found["verdict"], strict=True) if v)
        print(f"{job.name:<24}{seconds[job.name]:>8.1f}  {text}")
    for job, text in zip(READERS, ("all verdicts", "finished tickets in detail"), strict=True):
        print(f"{job.name:<24}{seconds[job.name]:>8.1f}  {text}: {_short(folder)}/executed/{job.name}.html")
    names = [name for study in studies for name in study.experiment.figures]
    training = f"training {sweep.duration(trained)}" if trained else "nothing was trained"
    print(f"\n{training}; figures (png, svg, csv, json) in {_short(folder)}/: {', '.join(names)}")


def _print_report_time(options, measured):
    from .runs import sweep
    from .studies import experiments

    if not measured:  # nothing was trained: do not measure the machine for this line alone
        print("the full schedule: ./run_all.sh report, which prints an estimate before it starts")
        return
    given = {**parameters(options), "preset": "report", "replicates": 0, "overrides": {}}
    device = sweep.resolve(options.device)
    plan = sweep.Plan([unit for s in experiments.every(**given) for unit in s.units], device)
    workers = options.workers or sweep.default_workers(device)
    takes = f"{sweep.duration(plan.seconds(workers))} here" if plan.missing else "finished, only redrawn"
    print(f"the full schedule, ./run_all.sh report: {takes}")


def _short(path):
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
