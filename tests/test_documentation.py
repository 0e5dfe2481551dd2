"""Whatever the documentation shows is run as it stands, to its end: by the lines' own names, in a copy of the checkout.

What takes more than a minute is scaled down by its preset alone. What needs a service that is not there has a
stand-in: `sbatch` runs what it is given, one shard after the other.
"""

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from lthcore.cli import JOBS
from lthcore.runs import download, store

ROOT = store.ROOT
pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")]

# line -> what is run in its place; a line that is not here and in none of the lists below is run as it stands
SCALED = {
    "./run_all.sh": "./run_all.sh smoke",
    "./run_all.sh report": "./run_all.sh smoke",
    "./run_all.sh quick --extended": "./run_all.sh smoke --extended",
    "./run_all.sh quick --replicates 5 --only mlp": "./run_all.sh smoke --replicates 5 --only mlp",
    "./run_all.sh quick --only mlp --set prune_rate=0.2 --set scope=global": (
        "./run_all.sh smoke --only mlp --set prune_rate=0.2 --set scope=global"
    ),
    "./run_all.sh bench": "./run_all.sh bench --repeats 2 --steps 2 --images 600 --out speed",
    "./run_all.sh test": "./run_all.sh test --collect-only -q tests/test_models.py",  # it does not run itself
}
SERVERS = ("./run_all.sh lab",)  # started, answered once, ended
CLUSTER = ("dask ", "openssl ", "--engine dask", "DASK_", "for who in", "done")  # tests/test_cluster.py runs these
SLURM = ("sbatch ", "LTH_RUNS=/shared", "./run_all.sh smoke --only task1")  # together, with a stand-in


def documents():
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    return [ROOT / name for name in listed] or [ROOT / "README.md"]


def fenced():
    """Code blocks of every document: list of (language, text)."""
    found, language, block = [], None, []
    for line in "\n".join(path.read_text() for path in documents()).splitlines():
        if line.startswith("```") and language is None:
            language, block = line[3:].strip(), []
        elif line.startswith("```"):
            found.append((language, "\n".join(block) + "\n"))
            language = None
        else:
            block.append(line)
    return found


def blocks(*languages):
    return [block for language, block in fenced() if language in languages]


def shell_lines():
    lines = [line.split("  #")[0].strip() for block in blocks("bash", "sh", "console") for line in block.splitlines()]
    return list(dict.fromkeys(line for line in lines if line))


def one_of(line, kinds):
    return any(kind in line for kind in kinds)


PLAIN = [line for line in shell_lines() if not one_of(line, (*CLUSTER, *SLURM)) and line not in SERVERS]
HERE = list(dict.fromkeys(SCALED.get(line, line) for line in PLAIN))
ALL, AGAIN = "./run_all.sh smoke --extended", "./run_all.sh smoke"  # what the first leaves, the second only redraws


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the checkout, and the environment in which a user stands in it."""
    folder = tmp_path_factory.mktemp("checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    download.fetch()
    code = "lthcore/engines/__pycache__/machine-code"  # compiled once for all tests: the sources have the same times
    with contextlib.suppress(OSError):
        (ROOT / code).mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / code).parent.mkdir(exist_ok=True)
        (folder / code).symlink_to(ROOT / code)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LTH_") and k != "PYTHONPATH"}
    environment |= {"VIRTUAL_ENV": sys.prefix, "LTH_DATA": str(download.folder())}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    return folder, environment


def shell(line, copy, **more):
    folder, environment = copy
    return subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment | more, capture_output=True, text=True, timeout=1800
    )


def test_every_line_is_run_somewhere():
    lines = shell_lines()
    assert set(SCALED) | set(SERVERS) <= set(lines), "a line that no document shows any more"
    text = (ROOT / "tests/test_cluster.py").read_text()
    assert all(word in text for word in ('commands("dask scheduler --host")', 'commands("--engine dask")', "openssl"))
    assert {language for language, _ in fenced()} <= {"bash", "sh", "console", "python", ""}, "a language unknown here"
    assert not [block for block in blocks("") if re.search(r"^(\./run_all|\$ )", block, re.M)]


# The report's notebooks as `./run_all.sh smoke --extended` executes them; the next tests look at what it left.


@pytest.fixture(scope="module")
def fashion():
    try:
        download.fetch(dataset="fashion")
    except RuntimeError as error:  # no mirror in reach, no package of Debian's
        pytest.skip(f"without Fashion-MNIST: {error}")


@pytest.fixture(scope="module")
def smoke(copy, fashion):
    return shell(ALL, copy)


@pytest.fixture(scope="module")
def again(smoke, copy):
    """The line that redraws what is there, and the figures before it."""
    figures = {p: p.read_bytes() for p in sorted((copy[0] / "figures/smoke").glob("fig*.*"))}
    return shell(AGAIN, copy), figures


def test_every_notebook_is_run(smoke, copy):
    assert smoke.returncode == 0, smoke.stdout + smoke.stderr
    folder = copy[0] / "figures/smoke/executed"
    names = ["00_scorecard", "05_explorer", *(job.name for job in JOBS if job.when != "named")]
    for name in names:
        assert name in smoke.stdout
        executed = nbformat.read(folder / f"{name}.ipynb", 4)
        outputs = [output for cell in executed.cells for output in cell.get("outputs", [])]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], name
        assert any("image/png" in o.get("data", {}) for o in outputs), f"{name} shows no figure"
        assert "data:image/png;base64," in (folder / f"{name}.html").read_text()
    assert not list(folder.glob("*.partial*"))


def test_in_every_network_answers_stay_within_what_lives(smoke, copy):
    """Live outputs plus the dead one of largest constant logit: on every image, in every network that was trained."""
    values = []
    for rows in (copy[0] / "runs").rglob("rows.csv"):
        found = re.search(r"^.*answers_outside,(\S+)$", rows.read_text(), re.M)
        values.append(float(found[1]))
    assert len(values) >= 88
    assert not any(values)


def test_again_it_trains_nothing_and_gives_the_same_figures(again):
    done, files = again
    assert len(files) >= (9 + 7) * 4
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to train" in done.stdout
    assert {p: p.read_bytes() for p in files} == files


def test_a_notebook_runs_from_its_own_folder_as_in_jupyterlab(smoke, copy):
    """From notebooks/, without PYTHONPATH, training what it needs itself."""
    folder, environment = copy
    source = nbformat.read(folder / "notebooks/02_task1_data_halves.ipynb", 4)
    cell = next(c for c in source.cells if "parameters" in c.metadata.get("tags", []))
    cell.source += "\npreset = 'smoke'\nseed = 1"  # so it trains
    code = (
        "import nbformat, sys; from nbclient import NotebookClient; nb = nbformat.reads(sys.stdin.read(), 4); "
        "NotebookClient(nb, kernel_name='python3', timeout=300).execute(); print('executed', len(nb.cells))"
    )
    before = len(list((folder / "runs").glob("task1-*")))
    done = subprocess.run(
        [sys.executable, "-c", code], input=nbformat.writes(source), capture_output=True, text=True,
        cwd=folder / "notebooks", env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "executed" in done.stdout  # the widget's cell ran too
    assert len(list((folder / "runs").glob("task1-*"))) == before + 5


@pytest.mark.parametrize("line", HERE)
def test_a_line_runs_to_its_end(smoke, again, copy, line):
    done = {ALL: smoke, AGAIN: again[0]}.get(line) or shell(line, copy)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if "--set" in line:  # what was set stands in the tables, and the scorecard has been made
        folder = copy[0] / "figures/smoke_prune_rate-0.2_scope-global"
        assert (folder / "executed/00_scorecard.html").exists() and (folder / "executed/05_explorer.html").exists()
        assert (folder / "explorer.html").exists()
        text = (folder / "executed/01_pre_midsem_mlp.ipynb").read_text()
        assert "prune_rate = 0.2" in text or "global" in text
    if "report --only" in line:
        assert "nothing to train" in done.stdout
    if " bench " in line:
        look_at_the_benchmark(copy[0] / "speed")


def look_at_the_benchmark(folder):
    """It measures every pair and writes its figure; how fast the machine is, no test asks."""
    rows = list(csv.DictReader((folder / "speed.csv").open()))
    assert {row["part"] for row in rows} >= {"mlp", "lenet5", "epochs"}
    assert all(row["n"] == "2" for row in rows)
    assert all(0 < float(row["least"]) <= float(row["median"]) <= float(row["greatest"]) for row in rows)
    for model in ("mlp", "lenet5"):
        named = {row["what"] for row in rows if row["part"] == model}
        assert named >= {"ours", "products alone", "eager torch", "ours, dense / ours", "eager torch / ours"}
    facts = json.loads((folder / "speed.json").read_text())
    assert {"processor", "cores", "torch", "numba", "python", "code", "repeats"} <= set(facts)
    assert (folder / "speed.png").stat().st_size > 10_000 and (folder / "speed.svg").exists()


# what is accepted, to its end: one experiment, or several of which some do not take it
WHOLE = {
    "--only mlp --set optimizer=adamw --set weight_decay=0.01": "01_pre_midsem_mlp",
    "--only lenet5 --set pool=max --set activation=relu": "01_pre_midsem_lenet5",
    "--only mlp --set scope=global --set rewind_step=5": "01_pre_midsem_mlp",
    "--only task1 --set rewind=final --set retrain_epochs=1": "02_task1_data_halves",
    "--only task1 --set dataset=fashion": "02_task1_data_halves",
    "--only task2 --set output_rate=0 --no-controls": "03_task2_label_sets",
    "--only task2 --model lenet5 --set rounds=2": "03_task2_label_sets",
    "--only task3 --only mlp --set optimizer=sgd --set momentum=0.9": "01_pre_midsem_mlp",
    "--only task3 --set validation=0": "04_task3_optimizers",
    "--only paper --set levels=[0,3]": "06_lottery_ticket_paper",
    "--only rewind --set early_bird=0.1": "07_rewinding_and_stability",
    "--only criteria --set warmup=5": "08_pruning_criteria",
    "--only transfer --set epochs=2 --set controls=0": "09_transfer",
    "--only early_bird --set criterion=random": "10_early_bird",
    "--only collapse --set lr=0.01 --set test_images=50": "11_collapse",
}


@pytest.mark.parametrize("options", WHOLE)
def test_what_is_accepted_ends_well_and_is_shown(copy, fashion, options):
    before = set((copy[0] / "figures").iterdir())
    done = shell(f"./run_all.sh smoke {options}", copy)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (folder,) = set((copy[0] / "figures").iterdir()) - before
    for name in (WHOLE[options], "00_scorecard", "05_explorer"):
        assert (folder / f"executed/{name}.html").exists()
    shown = (folder / f"executed/{WHOLE[options]}.html").read_text()
    for setting in re.findall(r"--set (\w+)=", options):
        assert setting in folder.name and f"<b>{setting}</b>" in shown
    assert ("skipped, since" in done.stdout) == ("--only task3 --only mlp" in options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--only criteria --set scope=global", "scope = 'global': differs between the arms in 'criteria'"),
        ("--only task3 --set optimizer=sgd", "optimizer = 'sgd': changes nothing in 'task3', which takes "),
        ("--only lenet5 --set criterion=obd", "criterion = 'obd': needs "),
        ("--only mlp --set prune_rte=0.2", "unknown setting 'prune_rte': must be one of "),
        ("--set momentum=0.9", "momentum = 0.9: must be 0 unless optimizer = 'sgd'"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_trained(copy, options, says):
    before = sorted((copy[0] / "runs").glob("*"))
    done = shell(f"./run_all.sh smoke {options}", copy)
    assert done.returncode == 1 and done.stdout == ""
    *_, line = done.stderr.splitlines()  # before it, that another checkout is installed
    assert line.startswith(f"run_all.sh: {says}")
    assert sorted((copy[0] / "runs").glob("*")) == before


@pytest.mark.parametrize("line", SERVERS)
def test_a_server_answers_and_ends(copy, line):
    folder, environment = copy
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = ["bash", "-c", f"exec {line} --no-browser --port {port} --IdentityProvider.token=''"]
    server = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        until, answer = time.monotonic() + 120, b""
        while b"JupyterLab" not in answer and time.monotonic() < until and server.poll() is None:
            time.sleep(0.5)
            try:
                answer = urllib.request.urlopen(f"http://127.0.0.1:{port}/lab", timeout=10).read()
            except OSError:
                continue
        assert b"JupyterLab" in answer, server.stdout.read() if server.poll() is not None else "no answer"
    finally:
        os.killpg(server.pid, signal.SIGINT)
        os.killpg(server.pid, signal.SIGTERM)
        assert server.wait(60) is not None


def test_the_lines_for_slurm(copy, tmp_path):
    """The whole block as it stands, with folders that there are, at preset smoke, and `sbatch` a stand-in."""
    (block,) = [b for b in blocks("bash") if "sbatch" in b]
    block = block.replace("/shared/lth/data", str(download.folder())).replace("/shared/lth", str(tmp_path))
    scale = "smoke --only mlp --replicates 2"
    block = block.replace("report --replicates 30", scale).replace("--array=1-8", "--array=1-2").replace("ID/8", "ID/2")
    sbatch = tmp_path / "bin/sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(
        '#!/usr/bin/env bash\nshards=1\nfor word in "$@"; do case $word in --array=1-*) '
        ' shards=${word##*-};; --wrap=*) line=${word#--wrap=};; esac; done\n'
        'for i in $(seq "$shards"); do SLURM_ARRAY_TASK_ID=$i bash -c "$line" >&2 || exit; done; echo 17\n'
    )  # fmt: skip
    sbatch.chmod(0o755)
    done = shell(f"set -e\n{block}", copy, PATH=f"{sbatch.parent}{os.pathsep}{copy[1]['PATH']}")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "shard 1/2 is finished, other shards are not" in done.stderr and "nothing to train" in done.stderr
    assert len(list((tmp_path / "runs").glob("mlp-*"))) == 2 * 4


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.split("\n")[0][:40])
def test_a_python_block_runs(copy, block):
    """As a script of a user's; `compare` at its smallest, since it trains twelve networks for an epoch otherwise."""
    folder, environment = copy
    block = block.replace("experiments.compare(ticket)", 'experiments.compare(ticket, "smoke", 2)')
    done = subprocess.run(
        [sys.executable, "-"], input=block, capture_output=True, text=True, cwd=folder, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_scaled_lines_differ_by_their_preset_alone():
    for line, scaled in SCALED.items():
        first, *arguments = line.split()
        if arguments[:1] in (["test"], ["bench"]):
            assert scaled.startswith(line)
        else:
            rest = arguments[1:] if arguments and arguments[0] in ("quick", "report") else arguments
            assert scaled.split() == [first, "smoke", *rest]
