"""Past one machine: a Dask cluster and shards, on loopback, by the commands that CLUSTER.md gives."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
from distributed import Client, LocalCluster
from hypothesis import given
from hypothesis import strategies as st
from kill import COMMAND, OVERRIDES, ROOT, Place, numbers, wait_until

from lthcore import cli, schedule
from lthcore.explore import offline
from lthcore.runs import cluster, download, estimate, store, sweep, worker
from lthcore.studies import experiments

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and bash")
SCALE = shlex.join([*COMMAND[3:6], *COMMAND[8:], "--replicates", "2"])  # in the place of the page's
PAGE = (ROOT / "lthcore/runs/CLUSTER.md").read_text()
HELD = 0.3  # seconds for which a worker holds each phase open


def commands(word):
    """The page's shell commands that hold a word: list of str, at the tests' scale."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    found = [line.split("  #")[0] for block in blocks for line in block.splitlines() if word in line]
    return [line.replace("report --replicates 30", SCALE).replace("report", SCALE, 1) for line in found]


def tiny():
    return experiments.study("mlp", "smoke", overrides=OVERRIDES, replicates=2)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What the process engine finds: relative name -> bytes of rows and masks."""
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTH_RUNS", str(folder / "runs"))
        patch.setenv("LTH_ARCHIVE", str(folder / "archive"))
        patch.setattr(estimate, "time_steps", lambda *_: None)
        patch.setattr(sweep.Plan, "cost", lambda self, task: 1.0)
        experiments.run(tiny(), workers=1, log=lambda line: None)
    return numbers(folder / "runs")


def trained(log):
    """The levels whose training began, in order: list of (process id, unit and level)."""
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    return [(int(pid), detail) for phase, pid, detail in lines if phase == "train"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return str(s.getsockname()[1])


@contextmanager
def running(lines, folder, **environment):
    """Processes that the page's lines start, in this checkout, with none of the study's folders but the data's."""
    plain = {k: v for k, v in os.environ.items() if k not in cluster.FOLDERS}
    plain |= {"LTH_DATA": str(download.folder()), "TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    out = []
    try:
        for line in lines:
            (dask_itself, *command), said = shlex.split(line), folder / f"said-{len(out)}"
            assert dask_itself == "dask"
            with open(said, "wb") as f:
                command = [sys.executable, "-m", "dask", *command]
                out.append(subprocess.Popen(command, cwd=ROOT, env=plain | environment, stdout=f, stderr=f))
        yield out
    finally:
        for process in out[::-1]:  # the workers first
            process.terminate()
            process.wait(60)


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    """A scheduler and two workers as the page starts them: (address, what they log, their processes)."""
    folder, port = tmp_path_factory.mktemp("cluster"), free_port()
    (folder / "log").touch()
    lines = [line.replace("8786", port) for line in commands("dask scheduler --host") + commands("dask worker tcp")]
    watched = {"PYTHONPATH": f"{ROOT / 'tests/watched'}:{ROOT}", "LTH_LOG": str(folder / "log"), "LTH_HELD": str(HELD)}
    with running(lines, folder, **watched) as started:
        yield f"tcp://127.0.0.1:{port}", folder / "log", started


@pytest.mark.slow
@LINUX
def test_a_cluster_finds_the_same_when_its_driver_and_a_worker_are_killed(two_workers, alone, tmp_path):
    address, log, started = two_workers
    (line,) = commands("--engine dask")
    place = Place(tmp_path / "place", "sweep", held=0)
    place.command = [sys.executable, "-m", "lthcore", *shlex.split(line)[1:-1], address]
    with Client(address, set_as_default=False, timeout=120) as client:
        client.wait_for_workers(2, timeout=120)

        place.start()

        def finished(begun):
            folders = (
                place.runs / key / f"level-{int(level):02d}" for key, level in (detail.split() for _, detail in begun)
            )
            return sum((folder / "facts.json").exists() for folder in folders)

        assert wait_until(lambda: len(trained(log)) >= 2, 300), place.said.read_text()
        place.process.kill()
        limit = finished(trained(log)) + 2  # one in flight at each worker
        assert wait_until(lambda: not any(client.processing().values()), 120), "the cluster has still something to do"
        assert wait_until(lambda: finished(trained(log)) == len(trained(log)), 120), "what was in flight ends"
        begun = trained(log)
        time.sleep(2)
        assert trained(log) == begun and len(begun) <= limit, "something new begins without a driver"
        found = len(list(place.runs.rglob("facts.json")))

        place.start()
        assert wait_until(lambda: len(trained(log)) > len(begun) + 2, 300), place.said.read_text()
        os.kill(trained(log)[-1][0], signal.SIGKILL)
        assert wait_until(place.ended, 300) and place.stopped, place.said.read_text()
    assert numbers(place.runs) == alone
    times = Counter(detail for _, detail in trained(log))
    assert sum(times.values()) - len(times) <= 1, times  # nothing twice but what the killed worker was at
    assert len({pid for pid, _ in trained(log)[:-2]}) >= 2, "one of them did all"
    said = place.said.read_text().splitlines()[1:]  # behind the line that it looks for what is finished
    assert f" with 2 workers of {address} on cpu; timing a few steps of every kind" in said[1]
    levels = [line for line in said if re.match(r"\[ *\d+/\d+\] .* left  mlp .*test accuracy", line)]
    assert len(levels) == 20 - found and said[1].startswith(f"{found} of 20 levels found; training {20 - found} with")
    ours = [
        p for process in started for p in (psutil.Process(process.pid), *psutil.Process(process.pid).children(True))
    ]
    listening = {c.laddr.ip for p in ours for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    assert listening == {"127.0.0.1"}


def with_certificate(environment):
    """What these variables mean to a process that is started with them, for this one."""
    names = {name: name.removeprefix("DASK_").lower().replace("__", ".").replace("_", "-") for name in environment}
    return dask.config.set({names[name]: value == "True" or value for name, value in environment.items()})


@pytest.mark.slow
@LINUX
def test_between_machines_only_who_has_the_key_gets_in(folders, tmp_path, monkeypatch):
    store.make()
    block = next(b for b in re.findall(r"```bash\n(.*?)```", PAGE, re.S) if "openssl" in b)
    script, port = [line for line in block.splitlines() if not line.startswith("dask ")], free_port()
    lines = [line.replace("8786", port) for line in block.splitlines() if line.startswith("dask ")]
    lines = [re.sub(r"--interface \S+", "--host 127.0.0.1", line.replace("HOST", "127.0.0.1")) for line in lines]
    certified = {}
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
        done = subprocess.run(
            ["bash", "-ec", "\n".join([*script, "env -0"])], cwd=tmp_path / name, capture_output=True, check=True
        )
        command = [word.decode().partition("=") for word in done.stdout.split(b"\0") if word.startswith(b"DASK_")]
        certified[name] = {name: value for name, _, value in command}
        assert len(certified[name]) == 8 and (tmp_path / name / "lth.key").stat().st_mode & 0o77 == 0
    address = f"tls://127.0.0.1:{port}"
    with running(lines, tmp_path, **certified["ours"]):
        with with_certificate(certified["ours"]):
            workers = cluster.Workers(address)
            assert workers.submit(os.getppid).result(120) != os.getppid()
            workers.shutdown()
        monkeypatch.setattr(cluster, "CONNECT", 3)
        for settings, at in (
            (with_certificate(certified["theirs"]), address),
            (nullcontext(), f"tcp://127.0.0.1:{port}"),
        ):
            with settings, pytest.raises(RuntimeError, match="no Dask scheduler"):
                cluster.Workers(at)
        with pytest.raises(ValueError, match=f"^scheduler = '{address}': "):  # without a certificate
            cluster.Workers(address)


@pytest.mark.slow
@LINUX
def test_two_shards_on_one_folder_finish_a_study_and_train_nothing_twice(alone, tmp_path):
    array, last = commands("sbatch")
    options = dict(word.split("=", 1) for word in shlex.split(array[len("job=$(") : -1]) if "=" in word)
    assert options["--array"] == "1-8" and options["--wrap"].endswith("--shard $SLURM_ARRAY_TASK_ID/8")
    command = options["--wrap"].replace("/8", "/2 --workers 1")
    environment = {k: v for k, v in os.environ.items() if k != "CONDA_PREFIX"} | {"VIRTUAL_ENV": sys.prefix}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    places = [Place(tmp_path / name, "sweep", held=0) for name in "12"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        for number, place in enumerate(places, 1):
            place.runs = tmp_path / "runs"
            place.command = ["bash", "-c", command.replace("$SLURM_ARRAY_TASK_ID", str(number))]
            place.start()
        for place in places:
            assert wait_until(place.ended, 300), place.said.read_text()
    said = [place.said.read_text() for place in places]
    times = Counter(detail for place in places for _, detail in trained(place.log))
    assert set(times.values()) == {1} and all(trained(place.log) for place in places), times
    assert numbers(tmp_path / "runs") == alone
    assert all(f"shard {n}/2, 0 of 10 levels finished" in text for n, text in enumerate(said, 1)), said
    assert "another run is training it" not in "".join(said)
    assert any(place.stopped for place in places), "none draws the figures"
    for place, text in zip(places, said, strict=True):
        waits = re.search("shard ./2 is finished, other shards are not: once all are, the same command", text)
        assert place.stopped or (waits and place.process.returncode == 0), text
    left = shlex.split(last)[-1].removeprefix("--wrap=")
    assert left == options["--wrap"].partition(" --shard")[0]


# ------------------------------------------------------------------------------------------------- shards on paper


def family(unit):
    return unit.chain.dense


@given(st.sampled_from(["mlp", "task2", "task3", "paper", "rewind", "collapse"]), st.integers(1, 6), st.integers(1, 9))
def test_shards_are_all_of_it_once_and_need_nothing_of_one_another(experiment, replicates, of):
    units = experiments.study(experiment, "smoke", replicates=replicates).units
    parts = [sweep.shard(units, place, of) for place in range(1, of + 1)]
    assert Counter(u for part in parts for u in part) == Counter(units)
    homes = {}
    for n, part in enumerate(parts):
        for unit in part:
            assert homes.setdefault(family(unit), n) == n
    sizes = [sum(len(u.levels) for u in part) for part in parts]
    largest = max(sum(len(u.levels) for u in units if family(u) == f) for f in homes)
    assert max(sizes) - min(sizes) <= largest
    assert parts == [sweep.shard(units, place, of) for place in range(1, of + 1)]


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "-1/2", "1/0", "1/2/3", "a/b", " 1/2", "1.0/2", "²/3", "1/99999999"]
)
def test_a_bad_shard_is_refused_in_one_line(text, capsys, folders):
    assert cli.main(["smoke", f"--shard={text}"]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err == (
        f"run_all.sh: --shard {text!r}: must be I/N, two whole numbers with 1 <= I <= N, such as 1/8\n"
    )
    assert list(folders.iterdir()) == []


def test_a_shard_draws_only_what_is_finished_and_else_says_what_to_do(capsys, folders, monkeypatch):
    executed, masks = [], {name: np.ones(shape, bool) for name, shape in schedule.ARCHITECTURES["mlp"].weights.items()}

    def finish(units, *_):
        for unit, level in ((u, k) for u in units for k in u.levels):
            store.save_level(unit, level, [(0, 0.0, "test", "accuracy", 10.0)], masks, {})

    monkeypatch.setattr(cli, "execute", lambda job, *_: executed.append(job.name) or 0.0)
    monkeypatch.setattr(cli, "_closing_table", lambda *_: None)
    monkeypatch.setattr(offline, "write", lambda studies, folder: executed.append(folder / offline.NAME))
    monkeypatch.setattr(sweep, "run", finish)
    command = shlex.split(SCALE)
    assert cli.main([*command, "--shard", "2/2"]) == 0
    assert executed == [] and capsys.readouterr().out.splitlines()[-1] == (
        "shard 2/2 is finished, other shards are not: once all are, the same command without --shard draws the figures"
    )
    assert cli.main([*command, "--shard", "1/2"]) == 0
    (page,) = [path for path in executed if not isinstance(path, str)]
    executed.remove(page)  # the scorecard comes after the figures, the explorer and its page beside them
    assert sorted(executed) == ["00_scorecard", "01_pre_midsem_mlp", "05_explorer"] and page.name == "explorer.html"
    assert executed.index("01_pre_midsem_mlp") < executed.index("00_scorecard")
    assert "shard 1/2, 0 of 10 levels finished" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ what is refused


@contextmanager
def local(**options):
    """A scheduler on loopback, with workers in this process or none: its address."""
    options = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "protocol": "tcp://"} | options
    where = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with LocalCluster(**options, **where) as made:
        yield made.scheduler_address


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "dask"], "--engine dask --scheduler '': must be given with dask"),
        (["--scheduler", "tcp://127.0.0.1:1"], "--engine processes --scheduler 'tcp://127.0.0.1:1': must be given"),
        (["--engine", "dask", "--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "--workers 2: must be 0 with"),
    ],
)
def test_options_that_do_not_go_together_are_refused_in_one_line(arguments, says, capsys, folders):
    assert cli.main(["smoke", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith(f"run_all.sh: {says}") and len(said.err.splitlines()) == 1
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1", "http://127.0.0.1:80", "tcp://", "tls://127.0.0.1:1"])
def test_an_address_that_is_none_is_refused_in_one_line(address, folders):
    with pytest.raises(ValueError) as caught:
        cluster.Workers(address)
    text = str(caught.value)
    assert text.startswith(f"scheduler = {address!r}: must be tcp://HOST:PORT or tls://HOST:PORT (")
    assert len(text.splitlines()) == 1


def test_a_scheduler_that_is_not_there_ends_the_run_in_one_line(folders, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "CONNECT", 0.5)
    address = f"tcp://127.0.0.1:{free_port()}"
    assert cli.main([*shlex.split(SCALE), "--engine", "dask", "--scheduler", address]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"run_all.sh: no Dask scheduler answers at {address}: start one with: dask scheduler (")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"n_workers": 0}, "no worker"),
        ({"threads_per_worker": 2}, "a worker of several threads, and a level takes one"),
    ],
)
def test_a_scheduler_without_workers_of_one_thread_is_refused_in_one_line(options, what, folders, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT", 2)
    with local(**options) as address, pytest.raises(RuntimeError) as caught:
        cluster.Workers(address)
    start = f"start some with: dask worker {address} --nthreads 1"
    assert str(caught.value) == f"the Dask scheduler at {address} has {what}: {start}"


def test_a_worker_of_other_code_or_another_store_is_refused_in_one_line(folders, monkeypatch):
    store.make()
    monkeypatch.setenv("LTH_DATA", str(download.folder()))  # a worker in this process takes it from the driver
    with local() as address:
        workers = cluster.Workers(address)
        try:
            assert workers.size() == 1 and workers.submit(os.getpid).result(60) == os.getpid()
            same = [workers.submit(time.monotonic) for _ in range(2)]  # is asked for again, not remembered
            assert len({future.result(60) for future in same}) == 2
            code, mark, where = workers.terms
            for terms, says in (
                (("0" * 12, mark, where), f"runs other code ({code}) than the driver ({'0' * 12}): update it"),
                ((code, ".other", where), f"does not see the driver's store in {store.runs()}: start it with LTH_RUNS"),
            ):
                workers.terms = terms
                with pytest.raises(ValueError, match=re.escape(says)) as caught:
                    workers.submit(os.getpid).result(60)
                assert len(str(caught.value).splitlines()) == 1
            with pytest.raises(ValueError):
                workers.call(os.getpid)  # which ends it
            assert workers.client.status == "closed" and not list(store.runs().iterdir())
        finally:
            workers.shutdown()


def test_a_worker_takes_the_drivers_folders_where_it_has_none(folders, monkeypatch):
    store.make()
    (store.runs() / ".mark").touch()
    monkeypatch.setattr("distributed.get_worker", lambda: type("", (), {"address": "tcp://here"}))
    monkeypatch.setattr(cluster, "GIVEN", ["LTH_ARCHIVE"])
    monkeypatch.setenv("LTH_DATA", str(download.folder()))
    driver = tuple((name, os.environ[name]) for name in cluster.FOLDERS)
    monkeypatch.setenv("LTH_RUNS", "/left/by/another/driver")
    monkeypatch.setenv("LTH_ARCHIVE", "/its/own")
    cluster._agree(cluster.CODE, ".mark", driver)
    assert (os.environ["LTH_RUNS"], os.environ["LTH_ARCHIVE"]) == (dict(driver)["LTH_RUNS"], "/its/own")


@pytest.mark.slow
def test_a_level_that_kills_workers_is_reported_unlike_one_that_fails(folders):
    store.make()
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}), local(processes=True) as address:
        workers = cluster.Workers(address)
        try:
            with pytest.raises(ZeroDivisionError):
                workers.submit(divmod, 1, 0).result(60)
            with pytest.raises(BrokenProcessPool):
                workers.submit(os._exit, 1).result(60)
        finally:
            workers.shutdown()


@pytest.mark.slow
def test_a_scheduler_that_dies_ends_the_run_in_one_line(folders, monkeypatch, caplog):
    monkeypatch.setattr(cluster, "CONNECT", 2)
    store.make()
    with local() as address:
        workers = cluster.Workers(address)
        future = workers.submit(time.sleep, 3)
    says = f"the Dask scheduler at {address} is gone: what is finished is kept"
    with pytest.raises(RuntimeError, match=says):
        future.result(60)
    workers.seen = 0.0
    with pytest.raises(RuntimeError, match=says):
        workers.size()
    workers.shutdown()
    assert not [record for record in caplog.records if record.name == "distributed.client"]


@pytest.mark.slow
def test_a_mask_that_a_network_folder_shows_late_is_waited_for(folders, monkeypatch):
    store.make()
    ticket, other = (u for u in tiny().units if u.arm == "ticket")
    monkeypatch.setattr(worker, "PAUSE", 0.01)
    sweep.run_levels([(ticket, 0)])
    looks, find = [], store.find_level

    def late(unit, level):
        looks.append(level)
        return find(unit, level) if level or looks.count(0) > 3 else None

    monkeypatch.setattr(store, "find_level", late)
    ((seconds, _),) = sweep.run_levels([(ticket, 1)])
    assert seconds and looks.count(0) >= 4
    monkeypatch.setattr(worker, "LATE", 0)
    with pytest.raises(ValueError, match="whose pruning gives the mask, is not finished"):
        sweep.run_levels([(other, 1)])
