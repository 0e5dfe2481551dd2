"""Kill a run at random moments, go on, and see whether anything is lost: python tests/kill.py --times 60 --seed 0

The run is `./run_all.sh smoke --only mlp` with a few steps a level. It announces its phases, and each kill waits
for a random announcement of its phase; three kills, then the run goes to its end and is compared, byte for byte,
with one that was never interrupted. So that a kill costs a second and not ten, drivers and workers are forked
from this process, which has torch loaded, instead of being started afresh; papermill and kernels are started afresh.
"""

import argparse
import hashlib
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lthcore import data, experiments, lottery, sweep  # noqa: E402
from notebooks import run_all as cli  # noqa: E402

TINY = {"rounds": 2, "max_steps": 12, "test_images": 200, "validation": 0.02}
OVERRIDES = {**TINY, "margin": 0.125}  # which gives the figures a folder of their own, and changes no number
COMMAND = ["smoke", "--only", "mlp", "--workers", "2"]
COMMAND += [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
SWEEPS = [("driver", *kind) for kind in itertools.product((KILL, TERM, INT), ("start", "train", "prune", "write"))]
SWEEPS += [("worker", *kind) for kind in itertools.product((KILL, TERM), ("train", "prune", "write"))]
FETCHES = [("driver", by, "fetch") for by in (KILL, TERM, INT)]
NOTEBOOKS = list(itertools.product(("driver", "papermill", "kernel"), (KILL, TERM, INT), ("execute", "plot")))
KINDS = {"sweep": SWEEPS, "fetch": FETCHES, "notebook": NOTEBOOKS}
HELD = 0.02  # seconds for which a phase is held open after it is announced


def numbers(folder):
    """What a run found: relative name -> bytes of its rows and masks."""
    kept = [p for p in folder.rglob("*") if p.name in ("rows.csv", "mask.safetensors")]
    return {str(p.relative_to(folder)): p.read_bytes() for p in kept}


def wait_until(condition, seconds, pause=0.02):
    """Whether a condition comes true in time: its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and not condition():
        time.sleep(pause)
    return condition()


def processes(test):
    """Ids of the living processes of which `test` (stat fields from the state on, environment, command) is true."""
    out = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            if fields[0] not in "ZX" and test(fields, *((folder / n).read_bytes() for n in ("environ", "cmdline"))):
                out.append(int(folder.name))
        except OSError:
            pass
    return out


class Place:
    """A fresh store with all that belongs to a run, and the runs in it."""

    def __init__(self, folder, kind):
        self.folder, self.kind, self.driver = Path(folder), kind, None
        self.runs, self.raw, self.log = (self.folder / name for name in ("runs", "raw", "log"))
        self.figures = experiments.study("mlp", "smoke", overrides=OVERRIDES).folder
        self.folder.mkdir(parents=True)

    def start(self):
        """Start the command in a process of its own."""
        self.log.write_bytes(b"")
        self.over = False
        self.driver = os.fork()
        if self.driver == 0:
            status = 70
            try:
                os.setsid()
                status = self._drive()
            except SystemExit as left:
                status = left.code
            finally:
                os._exit(status)

    def _drive(self):
        said = os.open(self.folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        log = os.open(self.log, os.O_WRONLY | os.O_APPEND)

        def announced(phase, function, detail=lambda *_: ""):
            def call(*arguments, **options):
                os.write(log, f"{phase} {os.getpid()} {detail(*arguments)}\n".encode())
                time.sleep(HELD)
                return function(*arguments, **options)

            return call

        def start_worker(*arguments, start=sweep._start_worker):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a process that is started afresh
            start(*arguments)

        os.environ.update(LTH_RUNS=str(self.runs), LTH_ARCHIVE=str(self.folder / "archive"))
        lottery.play_together = announced("train", lottery.play_together, lambda units, k, *_: f"{units[0].key} {k}")
        lottery.magnitude = announced("prune", lottery.magnitude)
        os.replace = announced("write", os.replace)
        fork, execute = multiprocessing.get_context("fork"), cli.execute
        multiprocessing.get_context = lambda kind: fork
        sweep.Plan.cost, sweep._start_worker = lambda plan, task: 1.0, start_worker
        wanted = self.kind == "notebook"
        cli.execute = lambda job, *rest: execute(job, *rest) if job.experiment and wanted else 0.0
        if self.kind == "fetch":
            real = data.folder()
            os.environ["LTH_DATA"] = str(self.raw)
            data._mirrors = lambda root, name: [("the real folder", (real / name).read_bytes())]
            data.write = announced("fetch", data.write)
        os.write(log, f"start {os.getpid()} \n".encode())
        return cli.main(COMMAND)

    def announcements(self, phase):
        """Of the present run: list of (process id, detail)."""
        lines = [line.split(" ", 2) for line in self.log.read_text().splitlines()]
        return [(int(pid), detail) for name, pid, detail in lines if name == phase]

    def seen(self, phase):
        """How often a phase has been entered; of a notebook's, from outside."""
        if phase == "execute":
            return len(self.find("kernel"))
        return len(list(self.figures.glob("*.csv"))) if phase == "plot" else len(self.announcements(phase))

    def find(self, victim):
        """Ids of the processes to choose from."""
        word = {"papermill": b"papermill", "kernel": b"ipykernel"}.get(victim)
        if word:
            return processes(lambda stat, env, command: str(self.runs).encode() in env and word in command)
        return [self.driver]

    def left(self):
        """Ids of what still lives of the run: its session, and the kernels, which have sessions of their own."""
        mine = str(self.driver)
        return processes(lambda stat, env, command: stat[3] == mine or str(self.runs).encode() in env)

    def ended(self):
        """Whether the driver has ended; its exit status is then `status`."""
        if not self.over and (got := os.waitpid(self.driver, os.WNOHANG))[0]:
            self.status, self.over = os.waitstatus_to_exitcode(got[1]), True
        return self.over

    def run(self, victim=None, by=None, phase=None, draw=None):
        """Run, kill if told to, and wait for the end: outcome, or None where the run was over before its kill."""
        before = {p: p.stat().st_mtime_ns for p in self.runs.rglob("facts.json")}
        self.start()
        hit, nth = None, draw.randint(1, 3) if phase in ("train", "prune", "write", "fetch") else 1
        if phase:
            wait_until(lambda: self.seen(phase) >= nth or self.ended(), 900, 0.001)
            delay = {"start": 0.5, "execute": 3.0, "plot": 0.5}.get(phase, 2 * HELD)
            time.sleep(draw.random() * delay)
            those = [self.announcements(phase)[-1][0]] if victim == "worker" and self.seen(phase) else self.find(victim)
            if not self.ended() and those:
                hit = those[0]
                os.kill(hit, by)
        if not wait_until(self.ended, 900):
            os.kill(self.driver, KILL)
            raise TimeoutError(f"the driver does not end: {(self.folder / 'said').read_text()}")
        wrong = []
        if not wait_until(lambda: not self.left(), 15):
            wrong.append(f"left behind: {self.left()}")
        after = {p: p.stat().st_mtime_ns for p in self.runs.rglob("facts.json")}
        wrong += [f"trained again: {p.parent.name}" for p in before if after.get(p) != before[p]]
        begun = {tuple(detail.split()) for _, detail in self.announcements("train")}
        lost = [t for t in begun if not (self.runs / t[0] / f"level-{int(t[1]):02d}" / "facts.json").exists()]
        if len(lost) > 2:
            wrong.append(f"more than a level of each of two processes lost: {lost}")
        if self.status != 0 and (victim is None or victim == "worker"):
            wrong.append(f"exit status {self.status}")
        outcome = "; ".join(wrong) or ("ok" if hit or not phase else "over")
        return outcome, len(lost)

    def asides(self):
        """Files that a killed writer left, everywhere."""
        return [*self.folder.rglob(".*.aside"), *self.figures.rglob(".*.aside"), *self.figures.rglob("*.partial-*")]

    def results(self):
        """All that must be equal in the end: relative name -> bytes."""
        tables = {p.name: p.read_bytes() for p in self.figures.glob("*.csv")} if self.kind == "notebook" else {}
        raw = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in self.raw.glob("*ubyte")}
        return numbers(self.runs), tables, raw

    def finish(self):
        """Go to the end and clean up after the killed: what is wrong then, and how many files they had left."""
        left = self.asides()
        for path in left:  # as if the kill were two hours ago
            os.utime(path, (time.time() - 7200,) * 2)
        outcome, _ = self.run()
        wrong = [] if outcome == "ok" else [outcome]
        wrong += [f"not cleared: {path}" for path in self.asides()]
        return wrong, len(left)


def schedule(times, draw):
    """So many kills, spread over the kinds and within a kind over its cases: dict, kind -> list of cases."""
    notebooks, fetches = times // 4, times // 15
    counts = {"sweep": times - notebooks - fetches, "fetch": fetches, "notebook": notebooks}
    out = {}
    for kind, count in counts.items():
        cases = [draw.sample(KINDS[kind], len(KINDS[kind])) for _ in range(count // len(KINDS[kind]) + 1)]
        out[kind] = [case for some in cases for case in some][:count]
    return out


def go_through(times, seed, folder, say):
    """Kill so many times, at most three times a store: what was lost, a list of lines."""
    draw, folder = random.Random(seed), Path(folder)
    os.environ["LTH_DATA"] = str(data.folder())  # of the forked too, wherever they are
    data.whole()  # once, for all of them
    cases, tally, bad, files = schedule(times, draw), Counter(), [], 0
    whole = Place(folder / "whole", "notebook" if cases["notebook"] else "sweep")
    shutil.rmtree(whole.figures, ignore_errors=True)
    try:
        assert whole.run()[0] == "ok", (whole.folder / "said").read_text()
        expected = dict(zip(("numbers", "tables", "raw"), whole.results(), strict=True))
        expected["raw"] = data.SHA256
        for kind, todo in cases.items():
            for n in itertools.count():
                if not todo:
                    break
                place = Place(folder / f"{kind}-{n}", kind)
                shutil.rmtree(place.figures, ignore_errors=True)
                if kind == "notebook":
                    shutil.copytree(whole.runs, place.runs)
                for case in todo[:3]:
                    outcome, lost = place.run(*case, draw)
                    if outcome == "over":  # the run came to its end first: the case is tried again in a fresh store
                        break
                    todo.remove(case)
                    victim, by, phase = case
                    tally[phase, victim, by.name, outcome] += 1
                    say(f"{phase:<8}{victim:<10}{by.name:<8} {outcome}, {lost} level(s) begun and lost")
                    bad += [outcome] * (outcome != "ok")
                wrong, left = place.finish()
                files += left
                found = dict(zip(("numbers", "tables", "raw"), place.results(), strict=True))
                found["raw"] = {name: digest.hex() for name, digest in found["raw"].items()}
                for what, value in found.items():
                    if value != expected[what] and (value or what == "numbers"):
                        wrong.append(f"{what} differ")
                bad += [f"{kind}-{n}: {text}" for text in wrong]
                say(f"        to the end: {'; '.join(wrong) or 'equal'}; {left} file(s) of the killed cleared")
                shutil.rmtree(place.folder)
    finally:
        shutil.rmtree(whole.figures, ignore_errors=True)
    say(f"\n{'phase':<9}{'victim':<11}{'signal':<9}{'kills':>5}  outcome")
    for (phase, victim, by, outcome), count in sorted(tally.items()):
        say(f"{phase:<9}{victim:<11}{by:<9}{count:>5}  {outcome}")
    say(f"{sum(tally.values())} kills, {files} files of the killed cleared, {len(bad)} losses")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)  # no thread may run when a driver is forked
    with tempfile.TemporaryDirectory() as folder:
        return bool(go_through(options.times, options.seed, folder, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
