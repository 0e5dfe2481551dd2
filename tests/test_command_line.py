"""The command line and run_all.sh: what would be done, what is refused, and notebooks that fail."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lthcore import cli
from lthcore.config import EXPERIMENTS
from lthcore.runs import limits, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments

ROOT = Path(store.__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("folders")


@pytest.fixture
def nothing_runs(monkeypatch):
    """Training or executing anything is a failure."""

    def refuse(*_, **__):
        raise AssertionError("a dry run ran something")

    for module, name in ((experiments, "run"), (sweep, "run"), (cli, "execute"), (subprocess, "Popen")):
        monkeypatch.setattr(module, name, refuse)


@pytest.mark.parametrize("command", ["quick", "report", "smoke"])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(command, capsys, nothing_runs, folders):
    assert cli.main([command, "--dry-run"]) == 0
    *before, first, second = capsys.readouterr().out.splitlines()
    assert before[0] == "looking for what is finished"
    assert len(before) == 1 + (command == "report")  # that the archive is not there
    levels = sum(len(u.levels) for s in experiments.every(preset=command) for u in s.units)
    replicates = " or ".join(map(str, sorted({s.config.replicates for s in experiments.every(preset=command)})))
    assert first.startswith(
        f"{command}: mlp, lenet5, task1, task2, task3; {replicates} replicate(s); 0 of {levels} levels"
    )
    assert second.startswith(f"would train {levels} levels and execute ")
    for name in (
        "01_pre_midsem_mlp",
        "01_pre_midsem_lenet5",
        "02_task1",
        "03_task2",
        "04_task3",
        "00_scorecard",
        "05_explorer",
    ):
        assert name in second
    assert list(folders.iterdir()) == []


def test_quick_is_the_default(capsys, nothing_runs):
    assert cli.main(["--dry-run"]) == 0
    assert "\nquick: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["test", "-k", "x", "--dry-run"], "would run: python -m pytest -n 3 --dist loadfile -k x\n"),
        (["test", "-n", "5", "--dry-run"], "would run: python -m pytest -n 5\n"),
        (["test", "--pdb", "tests/test_x.py", "--dry-run"], "would run: python -m pytest --pdb tests/test_x.py\n"),
        (
            ["--dry-run", "test", "tests/test_x.py", "--help"],
            "would run: python -m pytest -n 3 --dist loadfile tests/test_x.py --help\n",
        ),
        (["bench", "--repeats", "3", "--dry-run"], "would run: python tests/tools/bench.py --repeats 3\n"),
        (["lab", "--dry-run"], "would run: python -m jupyterlab "),
    ],
)
def test_dry_runs_of_test_bench_and_lab(arguments, text, capsys, nothing_runs, monkeypatch):
    monkeypatch.setattr(limits, "processors", lambda: 2)
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.startswith(text)


def test_a_dry_run_counts_what_is_finished(capsys, nothing_runs):
    unit = experiments.study("task1", "smoke").units[0]
    mask = {name: np.ones(shape, bool) for name, shape in ARCHITECTURES["mlp"].weights.items()}
    store.save_level(unit, 0, [(0, 0.0, "test", "accuracy", 10.0)], mask, {"seconds": 1.0})
    assert cli.main(["smoke", "--only", "task1", "--dry-run"]) == 0
    assert "; 1 of " in capsys.readouterr().out


def only(capsys, *arguments):
    assert cli.main(["smoke", *arguments, "--dry-run"]) == 0
    return capsys.readouterr().out.split("smoke: ")[1].split(";")[0].split(", ")


def test_only(capsys, nothing_runs):
    assert only(capsys, "--only", "task2") == only(capsys, "--only", "03_task2_label_sets") == ["task2"]
    assert only(capsys, "--only", "01_pre_midsem") == ["mlp", "lenet5"]
    assert only(capsys, "--only", "task3", "--only", "mlp") == ["mlp", "task3"]


def test_a_model_is_for_the_tasks(capsys, nothing_runs):
    assert only(capsys, "--only", "task1", "--only", "mlp", "--model", "lenet5") == ["task1"]  # the other is left out
    assert cli.main(["smoke", "--only", "mlp", "--model", "lenet5", "--dry-run"]) != 0
    assert "--model 'lenet5': applies only to task1, task2 and task3" in capsys.readouterr().err


def parsed(*arguments):
    return cli.parameters(cli.parser().parse_args(["smoke", *arguments]))


def test_options_become_the_notebooks_parameters():
    assert parsed() == {
        "preset": "smoke", "replicates": 0, "controls": True, "seed": 0, "device": "auto", "overrides": {},
    }  # fmt: skip
    given = parsed("--replicates", "5", "--no-controls", "--seed", "7", "--device", "cpu")
    assert given["replicates"] == 5 and given["controls"] is False and given["seed"] == 7 and given["device"] == "cpu"
    assert set(given) <= set(experiments.study.__kwdefaults__) | {"preset"}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("lr=0.01", "lr", 0.01),
        ("epochs=3", "epochs", 3),
        ("optimizer=sgd", "optimizer", "sgd"),
        ("optimizer='sgd'", "optimizer", "sgd"),
        ("levels=[0, 1, 5]", "levels", [0, 1, 5]),
        ("levels=(0,5)", "levels", (0, 5)),
        ("output_rate=None", "output_rate", None),
        ("lr=", "lr", ""),
        ("x=a=b", "x", "a=b"),
        ("prune_rate=1e-1", "prune_rate", 0.1),
        ("lr=__import__('os')", "lr", "__import__('os')"),
        ("momentum=-0.5", "momentum", -0.5),
    ],
)
def test_set(text, name, value):
    overrides = parsed("--set", text)["overrides"]
    assert overrides == {name: value} and type(overrides[name]) is type(value)
    assert parsed("--set", text, "--set", "seed2=1")["overrides"] == {name: value, "seed2": 1}


def test_set_reaches_the_study_and_a_folder_of_its_own(capsys, nothing_runs, folders):
    assert cli.main(["smoke", "--only", "mlp", "--set", "rounds=1", "--set", "lr=0.01", "--dry-run"]) == 0
    s = experiments.study("mlp", "smoke", overrides={"rounds": 1, "lr": 0.01})
    out = capsys.readouterr().out
    assert str(s.folder) in out and f" of {sum(len(u.levels) for u in s.units)} levels" in out


def test_an_archive_that_is_not_there_is_said(capsys, nothing_runs, folders, monkeypatch, tmp_path):
    monkeypatch.setenv("LTH_ARCHIVE", str(tmp_path / "arhcive"))
    assert cli.main(["report", "--only", "task1", "--dry-run"]) == 0
    second = capsys.readouterr().out.splitlines()[1]
    assert second == f"LTH_ARCHIVE = {tmp_path / 'arhcive'}: no such folder, so no finished level is read from it"


BAD = [
    (["--replicates", "-1"], "replicates = -1: must be a whole number in 1..1000"),
    (["--seed", "-1"], "seed = -1: must be a whole number in 0..2147483647"),
    (["--device", "gpu"], "device = 'gpu': must be one of 'auto', 'cpu', 'cuda'"),
    (["--workers", "-1"], "--workers -1: must be a whole number from 0"),
    (["--set", "lr"], "--set 'lr': must be NAME=VALUE"),
    (["--set", "lr=0"], "lr = 0: must be a number in (0, 10]"),
    (["--set", "lr=fast"], "lr = 'fast': must be a number in (0, 10]"),
    (["--set", "learning_rate=0.1"], "unknown setting 'learning_rate': must be one of replicates, "),
    (["--set", "=1"], "unknown setting ''"),
    (["--set", "levels=[1]"], "levels = (1,): must begin with level 0"),
    (["--set", "prune_rate=nan"], "prune_rate = 'nan': must be a number in (0, 1)"),
    (["--set", "lr=0.01", "--set", "lr=0.02"], "--set 'lr=0.02': must be given once; it was 0.01 before"),
    (["--set", "momentum=0.9"], "momentum = 0.9: must be 0 unless optimizer = 'sgd'"),
    (["--set", "seed=3"], "seed"),
    (["--set", "model=lenet5", "--only", "task1"], "model"),
]
WORSE = [(["--set", "preset=report"], "preset"), (["--set", "experiment=mlp"], "experiment")]


@pytest.mark.parametrize(("arguments", "says"), [*BAD, *WORSE])
def test_a_bad_value_is_refused_in_one_line_before_anything_is_done(arguments, says, capsys, nothing_runs, folders):
    for more in ([], ["--dry-run"]):
        assert cli.main(["smoke", *arguments, *more]) not in (0, None)
        captured = capsys.readouterr()
        assert captured.out == "" and len(captured.err.splitlines()) == 1
        assert captured.err.startswith("run_all.sh: ") and says in captured.err
    assert list(folders.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "task9"], "task9"),
        (["full"], "full"),
        (["smoke", "--seed", "x"], "argument --seed: 'x' must be a whole number"),
        (["--replicates", "1.5"], "argument --replicates: '1.5' must be a whole number"),
        (["--workers", ""], "argument --workers: '' must be a whole number"),
        (["--frobnicate"], "--frobnicate"),
        (["smoke", "--rep", "3"], "--rep"),
        (["smoke", "--only"], "--only"),
    ],
)
def test_unknown_options_are_refused_in_one_line(arguments, says, capsys, nothing_runs):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code not in (0, None)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run_all.sh: ") and says in line


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["smok"], "did you mean 'smoke'?"),
        (["Report"], "did you mean 'report'?"),
        (["smoke", "--only", "task1s"], "did you mean 'task1'?"),
        (["smoke", "--only", "03_task2_labels_sets"], "did you mean '03_task2_label_sets'?"),
        (["smoke", "--only=early-bird"], "did you mean 'early_bird'?"),
        (["smoke", "--replicate", "3"], "did you mean '--replicates'?"),
        (["smoke", "--dryrun"], "did you mean '--dry-run'?"),
        (["smoke", "--no_controls"], "did you mean '--no-controls'?"),
        (["smoke", "--lr", "0.1"], "did you mean --set lr=VALUE?"),
        (["smoke", "--batch-size=4"], "did you mean --set batch_size=4?"),
        (["smoke", "lr=0.1"], "did you mean --set lr=0.1?"),
        (["epochs=3"], "did you mean --set epochs=3?"),
        (["smoke", "LTH_RUNS=mine"], "did you mean LTH_RUNS=mine ./run_all.sh ...?"),
        (["smoke", "--engine", "desk"], "did you mean 'dask'?"),
        (["smoke", "--set", "epoch=3"], "did you mean 'epochs'?"),
        (["smoke", "--set=batch-size=4"], "did you mean 'batch_size'?"),
        (["smoke", "--set", "LR=0.1"], "did you mean 'lr'?"),
        (["smoke", "--set", "optimiser=sgd"], "did you mean 'optimizer'?"),
        (["smoke", "--set", "momentun=0.9"], "did you mean 'momentum'?"),
        (["smoke", "--set", "criterion=magnitud"], "did you mean 'magnitude'?"),
        (["smoke", "--set", "rewind=rest"], "did you mean 'reset'?"),
        (["smoke", "--device", "cud"], "did you mean 'cuda'?"),
        (["smoke", "--model", "lenet"], "did you mean 'lenet5'?"),
    ],
)
def test_what_was_meant_is_named(arguments, meant, capsys, nothing_runs):
    with contextlib.suppress(SystemExit):
        assert cli.main(arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("run_all.sh: ") and line.endswith(f"; {meant}")


@pytest.mark.parametrize("arguments", [["x"], ["smoke", "--frobnicate"], ["smoke", "--set", "weight=1"], ["-z"]])
def test_nothing_is_guessed_for_what_is_far_from_everything(arguments, capsys, nothing_runs):
    with contextlib.suppress(SystemExit):
        assert cli.main(arguments) == 1
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("separate", "joined"),
    [
        (["--only", "task2"], ["--only=task2"]),
        (["--replicates", "2"], ["--replicates=2"]),
        (["--set", "lr=0.01"], ["--set=lr=0.01"]),
        (["--device", "cpu"], ["--device=cpu"]),
        (["--shard", "1/2"], ["--shard=1/2"]),
        (["--seed", "7"], ["--seed=7"]),
    ],
)
def test_an_options_value_follows_a_space_or_an_equals_sign(separate, joined, capsys, nothing_runs):
    said = []
    for text in (separate, joined):
        assert cli.main(["smoke", *text, "--dry-run"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["smoke", "--frobnicate"],
        ["smoke", "--set", "lr=0"],
        ["smoke", "--set", "lrr=0"],
        ["smoke", "--set", "scope=all"],
        ["report", "--set", "levels=3"],
        ["smoke", "--shard", "9"],
        ["smoke", "--workers", "-1"],
        ["smoke", "--set", "lr=0.1", "--check"],
        ["smoke", "--only", "task3", "--set", "momentum=0.9"],
        ["smoke", "--only", "mlp", "--set", "margin=0.1"],
        ["smoke", "--set", "seed=3"],
        ["smoke", "--seed", "-1"],
        ["smoke", "--set", "levels=[1]"],
    ],
)
def test_help_and_refusals_import_no_package(arguments, tmp_path):
    """From anywhere; so they come at once, and before anything is installed."""
    code = "import sys; from lthcore.cli import main; import atexit; atexit.register(lambda: print(*sys.modules))"
    command = [sys.executable, "-c", f"{code}; sys.exit(main())", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "lthcore.config" in loaded and not loaded & {"torch", "numpy", "pandas", "lthcore.studies.experiments"}
    assert (done.returncode == 0) == (arguments[-1] in ("--help", "--check")), done.stderr


def test_the_first_line_waits_for_no_package():
    code = """import sys
from lthcore import cli
cli.print = lambda *words, **how: sys.exit(f"{words[0]}, {'numpy' in sys.modules}")
cli.main(["smoke", "--dry-run"])"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "looking for what is finished, False\n"


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 8, 1), (3, 10, 99)])
def test_an_old_python_is_refused_with_the_version_needed(version):
    number = ".".join(map(str, version))
    code = f"import sys, runpy; sys.version_info = {version}; sys.version = '{number} (main)'"
    command = [sys.executable, "-c", f"{code}; runpy.run_module('lthcore', run_name='__main__')", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    text = f"run_all.sh: the study needs Python 3.11 or newer, this is {number}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", text)


def test_an_installed_copy_without_notebooks_says_so(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(cli, "NOTEBOOKS", tmp_path / "notebooks")
    assert cli.main(["smoke"]) == 1
    assert capsys.readouterr().err == f"run_all.sh: {ROOT} is not a checkout of the study: notebooks/ is missing\n"


def test_the_command_line_is_a_module_of_the_package(tmp_path):
    """Its help is the same by every way in; from elsewhere too."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "lthcore", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout == run_all("--help", folder=tmp_path).stdout


def test_an_unknown_only_names_the_allowed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--only", "task9"])
    (line,) = capsys.readouterr().err.splitlines()
    assert all(name in line for name in (*EXPERIMENTS, "01_pre_midsem", "02_task1_data_halves", "04_task3_optimizers"))


def test_every_job_has_its_notebook_and_every_experiment_its_job():
    assert {job.experiment for job in cli.JOBS} == set(EXPERIMENTS)
    for job in [*cli.JOBS, *cli.READERS]:
        assert (ROOT / "notebooks" / f"{job.notebook}.ipynb").is_file()


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (KeyboardInterrupt(), 130, "finished levels are kept"),
        (FloatingPointError("unit: level 3, step 5: nan"), 1, "level 3, step 5"),
        (ImportError("libtorch_cuda.so: failed to map segment"), 1, "failed to map segment"),
        (RuntimeError("its process died"), 1, "its process died"),
        (ValueError("no CUDA"), 1, "no CUDA"),
    ],
)
def test_what_stops_a_run_is_said_in_one_line(error, status, says, capsys, monkeypatch):
    def stop(*_, **__):
        raise error

    monkeypatch.setattr(experiments, "run", stop)
    assert cli.main(["smoke", "--only", "mlp"]) == status
    text = capsys.readouterr().err.strip()
    assert len(text.splitlines()) == 1 and says in text


# ------------------------------------------------------------------------------------------------ executing notebooks


def cell(source, tags=()):
    return {
        "cell_type": "code", "execution_count": None, "metadata": {"tags": list(tags)}, "outputs": [], "source": source,
        "id": f"c{abs(hash(source)) % 10**8}",
    }  # fmt: skip


def test_jupyterlab_listens_on_this_machine_alone_and_keeps_its_token(capsys):
    assert cli.main(["lab", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "jupyterlab --ip=127.0.0.1" in said and "token" not in said and "password" not in said


@pytest.mark.parametrize(
    "text",
    [
        ["--port", "9999"],
        ["--no-browser"],
        ["--port=9999", "--no-browser", "02_task1_data_halves.ipynb"],
        ["--ServerApp.ip=0.0.0.0"],
        ["--ip", "0.0.0.0"],
        ["--ip=::1", "--port", "1"],
        ["--ipython-dir", "x"],
        ["--only", "task1"],
        ["--help"],
    ],
)
@pytest.mark.parametrize("user", [0, 1000])
def test_jupyterlab_gets_its_own_options_and_runs_as_root(text, user, monkeypatch):
    called = []

    def run(command, **how):
        called.append((command, how))
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    assert cli.main(["lab", *text]) == 3
    ((command, how),) = called
    assert command[1:3] == ["-m", "jupyterlab"] and command[-len(text) :] == text
    assert ("--allow-root" in command) == (user == 0)
    ours = not text[0].startswith(("--ip=", "--ServerApp.ip")) and text[0] != "--ip"
    assert ("--ip=127.0.0.1" in command) == ours  # Jupyter takes it once
    assert how["cwd"] == ROOT / "notebooks" and how["env"]["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """Makes a notebook of one parameters cell and the given ones: a job to execute."""
    monkeypatch.setattr(cli, "ROOT", tmp_path)

    def make(*sources):
        kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
        cells = [
            cell('preset: str = "quick"  # which\nreplicates: int = 0  # how many', ["parameters"]),
            *map(cell, sources),
        ]
        path = tmp_path / "notebooks" / "tiny.ipynb"
        path.parent.mkdir(exist_ok=True)
        content = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
        path.write_text(json.dumps(content))
        return cli.Job("01_tiny", "tiny", None, {"replicates": 2})

    return make


def test_an_unknown_parameter_is_refused(notebook, tmp_path):
    job = notebook("1")
    with pytest.raises(ValueError) as caught:
        cli.execute(job, {"preset": "smoke", "colour": "red"}, tmp_path / "figures")
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and "tiny has no parameter 'colour'" in text and "preset, replicates" in text
    assert not list(tmp_path.rglob("*.partial*"))


@pytest.mark.slow
def test_a_notebook_is_executed_with_its_parameters(notebook, tmp_path):
    job = notebook("import os; print(preset, replicates, os.path.basename(os.environ['LTH_LINKS_FROM']))")
    assert cli.execute(job, {"preset": "smoke"}, tmp_path / "figures") > 0
    page, path = sorted((tmp_path / "figures" / "executed").iterdir())
    assert (page.name, path.name) == ("01_tiny.html", "01_tiny.ipynb")
    assert "smoke 2 executed" in page.read_text()
    outputs = [o for c in json.loads(path.read_text())["cells"] for o in c["outputs"]]
    assert ["".join(o["text"]) for o in outputs] == ["smoke 2 executed\n"]


@pytest.mark.slow
def test_a_notebook_on_its_way_when_the_run_is_stopped_does_not_run(notebook, tmp_path):
    """The driver waits for its threads: one that was just about to start papermill must not hold it for minutes."""
    job, started = notebook("import time; time.sleep(300)"), time.monotonic()
    with pytest.raises(SystemExit), ThreadPoolExecutor(1) as pool, cli._ending_what_executes():
        future = pool.submit(cli.execute, job, {"preset": "smoke"}, tmp_path / "figures")
        sys.exit(143)
    cli.ENDED.clear()  # as the next run does
    assert time.monotonic() - started < 200 and isinstance(future.exception(), RuntimeError)
    assert not list((tmp_path / "figures" / "executed").glob("01_tiny.ipynb"))


@pytest.mark.slow
def test_a_notebook_that_fails_says_why_and_keeps_the_older_one(notebook, tmp_path):
    job = notebook("answer = 6 * 7", "1 / (answer - 42)", "print('never')")
    done = tmp_path / "figures" / "executed" / "01_tiny.ipynb"
    done.parent.mkdir(parents=True)
    done.write_text("the last good one")
    with pytest.raises(RuntimeError) as caught:
        cli.execute(job, {"preset": "smoke"}, tmp_path / "figures")
    text = str(caught.value)
    assert (
        text.startswith("01_tiny failed")
        and "ZeroDivisionError: division by zero" in text
        and "1 / (answer - 42)" in text
    )
    names = sorted(p.name for p in done.parent.iterdir())
    assert len(names) == 2 and ".partial" in names[1] and names[1] in text
    assert done.read_text() == "the last good one"


# ----------------------------------------------------------------------------------------------------------- the script


def run_all(*arguments, folder):
    environment = {k: v for k, v in os.environ.items() if k != "CONDA_PREFIX"}
    environment |= {"VIRTUAL_ENV": sys.prefix, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"LTH_RUNS": str(folder / "runs"), "LTH_ARCHIVE": str(folder / "archive")}
    return subprocess.run(
        ["bash", str(ROOT / "run_all.sh"), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
class TestScript:
    def test_help(self, tmp_path):
        done = run_all("--help", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        for word in (
            "./run_all.sh",
            "quick",
            "report",
            "smoke",
            "--only",
            "--replicates",
            "--set",
            "--dry-run",
            "--device",
            "LTH_RUNS",
            "LTH_ARCHIVE",
            "LTH_DATA",
        ):
            assert word in done.stdout

    def test_dry_run(self, tmp_path):
        done = run_all("smoke", "--only", "task1", "--dry-run", folder=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "smoke: task1; 1 replicate(s); 0 of " in done.stdout and "would train " in done.stdout
        assert list(tmp_path.iterdir()) == []

    def test_a_bad_value(self, tmp_path):
        done = run_all("smoke", "--set", "lr=0", folder=tmp_path)
        assert done.returncode == 1 and done.stdout == ""
        assert done.stderr.endswith("run_all.sh: lr = 0: must be a number in (0, 10]\n")
        assert "Error" not in done.stderr


@pytest.fixture
def fresh(tmp_path):
    """A checkout where nothing is installed, beside a python3 that says it is of a version: runs run_all.sh there."""
    for name in ("run_all.sh", "requirements.txt", "pyproject.toml", "notebooks", "lthcore"):
        (tmp_path / name).symlink_to(ROOT / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "cksum", "tail"):
        (tools / name).symlink_to(shutil.which(name))

    def run(version, *arguments):
        pretend = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
        here, text = sys.executable, "Python " + ".".join(map(str, version))
        lines = [f'[ "$1" = --version ] && echo "{text}" && exit', f'[ "$1" = -m ] && exec {here} "$@"']
        (tools / "python3").write_text("\n".join(["#!/bin/sh", *lines, f"exec {here} -c '{pretend}' \"$2\""]))
        (tools / "python3").chmod(0o755)
        command = [tools / "bash", tmp_path / "run_all.sh", *arguments]
        return subprocess.run(command, env={"PATH": str(tools)}, capture_output=True, text=True, timeout=60)

    return run


@pytest.mark.skipif(sys.platform == "win32", reason="needs bash")
class TestBeforeSetUp:
    def test_a_dry_run_says_what_would_be_set_up(self, fresh, tmp_path):
        done = fresh((3, 12, 4), "report", "--dry-run")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == (
            "would first set up: make .venv with Python 3.12.4 and install requirements.txt; "
            "what would be trained is known after that\n"
        )
        assert not (tmp_path / ".venv").exists()

    @pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1), (3, 15, 0)])
    def test_help_needs_no_package(self, version, fresh):
        done = fresh(version, "--help")
        assert (done.returncode, done.stderr) == (0, "") and "--dry-run" in done.stdout

    @pytest.mark.parametrize("version", [(3, 11, 0), (3, 14, 1)])
    def test_what_is_refused_is_refused_before_anything_is_installed(self, version, fresh, tmp_path):
        for arguments in (["smok"], ["smoke", "--set", "lr=0"], ["--lr=1", "--dry-run"], ["smoke", "--shard", "2/1"]):
            done = fresh(version, *arguments)
            assert done.returncode in (1, 2) and done.stdout == "" and len(done.stderr.splitlines()) == 1
        assert not (tmp_path / ".venv").exists()

    @pytest.mark.parametrize("version", [(3, 10, 9), (3, 15, 0)])
    def test_a_python_out_of_range_is_refused_in_one_line(self, version, fresh):
        for arguments in (["report", "--dry-run"], []):
            done = fresh(version, *arguments)
            found = ".".join(map(str, version))
            text = f"run_all.sh: no Python 3.11 to 3.14 is found (python3 --version: Python {found})\n"
            assert (done.returncode, done.stdout, done.stderr) == (1, "", text)
