"""Kill a run at random moments, go on, and see whether anything is lost: python tests/tools/kill.py --times 60 --seed 0

The run is `python -m lthcore smoke --only mlp` with a few steps a level, as a user starts it. It announces
its phases (tests/watched), and each kill waits for a random announcement of its phase; a few kills, then the run goes
to its end and is compared, byte for byte, with one that was never interrupted. Every victim is killed in every phase
that it has, by every signal, in turn: 42 cases, and then again from the first. With --first 30 it begins with the 31st,
in another checkout at the same time if you like.
"""

import argparse
import gzip
import hashlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lthcore import tickets  # noqa: E402
from lthcore.disk.files import LOCK  # noqa: E402
from lthcore.runs import download, sweep  # noqa: E402
from lthcore.studies import experiments  # noqa: E402

TINY = {"rounds": 2, "max_steps": 12, "test_images": 200, "validation": 0.02}
OVERRIDES = {**TINY, "tolerance": 0.625}  # which gives the figures a folder of their own, and changes no number
COMMAND = [sys.executable, "-m", "lthcore", "smoke", "--only", "mlp", "--workers", "2"]
COMMAND += [word for name, value in OVERRIDES.items() for word in ("--set", f"{name}={value}")]
SIGNALS = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
# victim -> phase -> how many announcements of it there are to choose from, in a run from the start
PHASES = {
    "driver": {"start": 1, "fetch": 4, "train": 4, "prune": 4, "write": 8, "execute": 1, "plot": 6},
    "worker": {"train": 4, "prune": 4, "write": 8},
    "papermill": {"execute": 1, "plot": 6},
    "kernel": {"execute": 1, "plot": 6},
}
KINDS = {"fetch": "fetch", "execute": "notebook", "plot": "notebook"}  # of runs, by phase; the others are sweeps
KILLS = {"fetch": 3, "sweep": 3, "notebook": 6}  # at most, before a store is taken to its end
STATUS = {"driver": (-9, 143, -15, 130, -2), "papermill": (1,), "kernel": (0, 1), "worker": (0, 143)}
HELD = 0.02  # seconds for which a phase is held open after it is announced
LATER = {"start": 3.0, "execute": 3.0}  # seconds after which at most the signal comes; else within two of those


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
    """A fresh store with all that belongs to a run, and the runs in it.

    A run of kind ``notebook`` goes to its end, one of another kind until its levels are finished.
    """

    def __init__(self, folder, kind, held=HELD):
        self.folder, self.kind, self.held, self.command = Path(folder), kind, held, COMMAND
        self.runs, self.log, self.said = (self.folder / name for name in ("runs", "log", "said"))
        self.raw = self.folder / "raw" if kind == "fetch" else download.folder()
        self.figures = experiments.study("mlp", "smoke", overrides=OVERRIDES).folder
        self.folder.mkdir(parents=True)
        if kind == "notebook":  # the others draw nothing, and may run beside one that does
            shutil.rmtree(self.figures, ignore_errors=True)
        if kind == "fetch":  # put there by hand, as .gz: the source that needs no network
            self.raw.mkdir()
            for name in download.SHA256:
                (self.raw / f"{name}.gz").write_bytes(gzip.compress((download.folder() / name).read_bytes(), 1))

    def start(self):
        """Start the command in a session of its own."""
        self.log.write_bytes(b"")
        places = {"LTH_RUNS": self.runs, "LTH_ARCHIVE": self.folder / "archive", "LTH_DATA": self.raw}
        watched = {"LTH_LOG": self.log, "LTH_HELD": self.held, "PYTHONPATH": f"{ROOT / 'tests/watched'}:{ROOT}"}
        environment = os.environ | {name: str(value) for name, value in (places | watched).items()}
        with open(self.said, "wb") as said:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=environment, stdout=said, stderr=said, start_new_session=True
            )
        self.stopped = False

    def ended(self):
        """Whether the driver has ended; where the notebooks are not wanted it is stopped before them."""
        if self.kind != "notebook" and not self.stopped and b"\nexecuting " in self.said.read_bytes():
            self.process.terminate()
            self.stopped = True
        return self.process.poll() is not None

    def announcements(self):
        """Of the present run: list of (phase, process id, detail)."""
        lines = [line.split(" ", 2) for line in self.log.read_text().splitlines()]
        return [(phase, int(pid), detail) for phase, pid, detail in lines]

    def find(self, victim):
        """Ids of the processes to choose from."""
        word = {"papermill": b"papermill", "kernel": b"ipykernel"}.get(victim)
        if word:
            return processes(lambda stat, env, command: str(self.runs).encode() in env and word in command)
        return [self.process.pid]

    def left(self):
        """Ids of what still lives of the run: its session, and the kernels, which have sessions of their own."""
        driver = str(self.process.pid)
        return processes(lambda stat, env, command: stat[3] == driver or str(self.runs).encode() in env)

    def seen(self, phase):
        """How often a phase has been entered."""
        if phase == "execute":
            return len(self.find("kernel"))
        return phase == "start" or [name for name, _, _ in self.announcements()].count(phase)

    def kill(self, victim, by, phase, draw):
        """Wait for the phase and send the signal: whether the victim was in it then, None where the run was over."""
        nth = draw.randint(1, PHASES[victim][phase])
        wait_until(lambda: self.seen(phase) >= nth or self.ended(), 900, 0.05 if phase == "execute" else 0.002)
        time.sleep(draw.random() * LATER.get(phase, 2 * HELD))
        those = self.find(victim)
        if victim == "worker" and self.seen(phase):
            those = [[pid for name, pid, _ in self.announcements() if name == phase][-1]]
        if self.ended() or self.stopped or not those:
            return None
        os.kill(those[0], by)
        last = [name for name, pid, _ in self.announcements() if victim != "worker" or pid == those[0]][-1:]
        return last in ([], ["start"]) if phase == "start" else phase == "execute" or last == [phase]

    def run(self, victim=None, by=None, phase=None, draw=None):
        """Run, kill if told to, and wait for the end: what was wrong, levels lost, and what :meth:`kill` says."""
        before = {p: p.stat().st_mtime_ns for p in self.runs.rglob("facts.json")}
        self.start()
        inside = self.kill(victim, by, phase, draw) if victim else None
        if not wait_until(self.ended, 900):
            self.process.kill()
            raise TimeoutError(f"the driver does not end: {self.said.read_text()}")
        wrong, killed = [], inside is not None
        if not wait_until(lambda: not self.left(), 30):
            wrong.append(f"left behind: {self.left()}")
        after = {p: p.stat().st_mtime_ns for p in self.runs.rglob("facts.json")}
        wrong += [f"trained again: {p.parent}" for p in before if after.get(p) != before[p]]
        lost = self.seen("train") - len(after.keys() - before.keys())
        if lost > 2:
            wrong.append(f"{lost} levels lost, more than one of each of two processes")
        if self.process.returncode not in (STATUS[victim] if killed else (0, 143)):
            wrong.append(f"exit status {self.process.returncode}: {self.said.read_text()[-1000:]}")
        return wrong, lost, inside

    def asides(self):
        """Files that a killed writer left, everywhere."""
        inside = [self.folder.rglob(name) for name in (".*.aside", LOCK)]
        return list(itertools.chain(*inside, self.figures.rglob(".*.aside"), self.figures.rglob("*.partial-*")))

    def results(self):
        """All that must be equal in the end: name -> values."""
        with mock.patch.dict(os.environ, LTH_RUNS=str(self.runs), LTH_ARCHIVE=str(self.folder / "archive")):
            units = experiments.study("mlp", "smoke", overrides=OVERRIDES).units
            files = {(u, k): tickets.to_bytes(sweep.ticket(u, k)) for u in units for k in u.levels}
        tables = {p.name: p.read_bytes() for p in self.figures.glob("*.csv")} if self.kind == "notebook" else {}
        raw = {name: hashlib.sha256((self.raw / name).read_bytes()).hexdigest() for name in download.SHA256}
        return {"rows and masks": numbers(self.runs), "tickets": files, "tables": tables, "data": raw}

    def finish(self):
        """Go to the end and clean up after the killed: what is wrong then, and how many files they had left."""
        left = self.asides()
        for path in left:  # as if the kill were two hours ago
            os.utime(path, (time.time() - 7200,) * 2)
        wrong, _, _ = self.run()
        wrong += [f"set aside: {path}" for path in self.folder.rglob("*.bad-*")]  # a kill damages nothing
        return wrong + [f"not cleared: {path}" for path in left if path.exists()], len(left)


def cases(times, first=0):
    """So many cases (victim, signal, phase), from the first on, the victims in turn."""
    of = [list(itertools.product([victim], SIGNALS, phases)) for victim, phases in PHASES.items()]
    order = [case for some in itertools.zip_longest(*of) for case in some if case]
    return list(itertools.islice(itertools.cycle(order), first, first + times))


def go_through(cases, seed, folder, log):
    """Kill in each of these cases: what was lost, a list of lines."""
    draw, folder, begun = random.Random(seed), Path(folder), time.monotonic()
    tally, bad, files, retrained = Counter(), [], 0, 0
    todo = {}
    for case in cases:
        todo.setdefault(KINDS.get(case[2], "sweep"), []).append(case)
    whole = Place(folder / "whole", "notebook" if "notebook" in todo else "sweep")
    wrong, _, _ = whole.run()
    assert not wrong, wrong
    expected = whole.results()
    for kind, waiting in todo.items():
        for n in itertools.count():
            if not waiting:
                break
            place = Place(folder / f"{kind}-{n}", kind)
            if kind == "notebook":
                shutil.copytree(whole.runs, place.runs)
            for case in waiting[: KILLS[kind]]:
                victim, by, phase = case
                wrong, lost, inside = place.run(*case, draw)
                bad += [f"{case}: {text}" for text in wrong]
                if inside is None:  # the run came to its end first: the case is tried again in a fresh store
                    break
                waiting.remove(case)
                retrained += lost
                tally[victim, by.name, phase, "in it" if inside else "just after"] += 1
                log(f"{victim:<10}{by.name:<8} {phase:<8} {'; '.join(wrong) or 'ok'}, {lost} level(s) begun and lost")
            wrong, left = place.finish()
            files += left
            results = place.results()
            wrong += [f"{what} differ" for what, value in results.items() if value and value != expected[what]]
            bad += [f"{kind}-{n}: {text}" for text in wrong]
            log(f"          to the end: {'; '.join(wrong) or 'equal'}; {left} file(s) of the killed cleared")
            shutil.rmtree(place.folder)
    shutil.rmtree(whole.figures, ignore_errors=True)
    log(f"\n{'victim':<11}{'signal':<9}{'phase':<9}{'kills':>5}")
    for (victim, by, phase, where), count in sorted(tally.items()):
        log(f"{victim:<11}{by:<9}{phase:<9}{count:>5}  {where}")
    for place, name in enumerate(("victims", "signals", "phases")):
        count = Counter()
        for key, n in tally.items():
            count[key[place]] += n
        log(f"{name}: {', '.join(f'{n} {key}' for key, n in sorted(count.items()))}")
    log(f"{retrained} levels trained again, {files} files of the killed cleared, {time.monotonic() - begun:.0f} s")
    log(f"{sum(tally.values())} kills, {len(bad)} losses")
    return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=60)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in a shell's background it is ignored, by children too
    with tempfile.TemporaryDirectory() as folder:
        todo = cases(options.times, options.first)
        return bool(go_through(todo, options.seed, folder, lambda line: print(line, flush=True)))


if __name__ == "__main__":
    sys.exit(main())
