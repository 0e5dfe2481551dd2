"""What all notebooks share: their parameters, the checkout they work on, how an error looks, and foreign copies."""

import ast
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest
from jupyter_client.manager import start_new_kernel
from nbformat import v4
from tools import refresh

from lthcore import cli
from lthcore.explore import notebooks
from lthcore.runs import estimate, processes, sweep
from lthcore.studies import REGISTRY, experiments

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    """The sources of a notebook's cells of code."""
    return [cell.source for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.fixture
def environment(tmp_path):
    """An environment of a user's, with an empty store, in which only this checkout's package can be found."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return environment | {
        "PYTHONPATH": str(ROOT),
        "LTH_RUNS": str(tmp_path / "runs"),
        "LTH_ARCHIVE": str(tmp_path / "archive"),
    }


def papermill(*arguments, cwd=ROOT, env=None):
    """Plain papermill: (exit status, the last line of its error)."""
    command = [sys.executable, "-m", "papermill", *map(str, arguments), "--no-progress-bar", "--log-level", "ERROR"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=env, timeout=300)
    return done.returncode, (done.stderr.strip().splitlines() or [""])[-1] * bool(done.returncode)


# -------------------------------------------------------------------------------------------------------- parameters


@every_notebook
def test_the_setup_cell_comes_first_and_is_the_same_in_all(path):
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    assert cells[0].source == refresh.setup_cell()
    assert "parameters" in cells[1].metadata.tags and notebooks.ALWAYS in notebooks._assigned(cells[1].source)


NOT_RUN = set.difference(*({r.notebook for r in REGISTRY.values() if (r.group == "named") == k} for k in (True, False)))


@every_notebook
def test_a_notebook_reads_the_committed_schedule_by_default(path):
    default = ast.literal_eval(notebooks._assigned(code(path)[1])[notebooks.ALWAYS][1])
    assert default == ("quick" if path.stem in NOT_RUN else "report")


ORDER = (
    "# ", "@title Set-up", "## Predict first", "preset: str", "answers.settings(study)", "experiments.run(study)",
    "answers.answer(results", "## Protocol", "## The figure", "answers.figures(results)",
    "answers.conclusion(results", "## Two exercises", "explorer.levels(",
)  # fmt: skip


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem[:2] not in ("00", "05")], ids=lambda path: path.stem)
def test_a_notebook_asks_predicts_answers_and_ends_with_its_widget(path):
    cells = nbformat.read(path, 4).cells
    text = "\n".join(cell.source for cell in cells)
    places = [text.index(part) for part in ORDER]
    assert places == sorted(places) and places[0] == 0 and len(cells) <= 16
    assert cells[0].source.splitlines()[0].endswith("?")
    assert ("trained: the committed results are read" in text) == (path.stem not in NOT_RUN)
    exercises = cells[-2].source.partition("## Move")[0].splitlines()[2:]
    assert [line[:3] for line in exercises if line] == ["1. ", "2. "] and exercises[0].endswith("?")


@every_notebook
def test_plumbing_is_folded_and_what_needs_a_kernel_is_marked(path):
    for cell in nbformat.read(path, 4).cells:
        folded = notebooks.COLLAPSED in cell.metadata.get("tags", ())
        assert folded == (cell.cell_type == "code" and cell.source.startswith("# @title "))
        assert {name: cell.metadata.get(name) for name in notebooks.FOLDED} == (
            notebooks.FOLDED if folded else dict.fromkeys(notebooks.FOLDED)
        )


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS[::4], ids=lambda path: path.stem)
def test_plain_papermill_refuses_an_unknown_parameter(path, tmp_path, environment):
    """Nothing is trained, the exit is not 0, and the last line says what is wrong and what is allowed."""
    given = ["-p", "preset", "smoke", "-p", "replicate", "3", "-p", "epoch", "2"]
    status, line = papermill(path, tmp_path / "out.ipynb", *given, cwd=tmp_path, env=environment)
    assert status == 1
    assert line.startswith("ValueError: unknown parameters 'replicate', 'epoch': must be one of preset, replicates, ")
    assert "for 'replicate', did you mean 'replicates'?" in line
    assert not (tmp_path / "runs").exists()


PARAMETERS = 'preset: str = "quick"\nreplicates: int = 0\ncontrols: bool = True\nlr: float = 0.1\noverrides: dict = {}'
SETUP = "from lthcore import notebooks\nnotebooks.start()"


@pytest.fixture
def shell(monkeypatch):
    """A stand-in for IPython in which cells are run: their errors come out."""

    class Shell(SimpleNamespace):
        def run(self, *cells):
            for cell in cells:
                self.user_ns["In"].append(cell)
                for transformer in self.input_transformers_cleanup:
                    transformer(cell.splitlines(keepends=True))
                if "notebooks.start()" in cell:
                    notebooks.start()
                if cell.startswith("study"):
                    notebooks.watch()

        def set_custom_exc(self, kinds, handler):
            self.custom_exceptions = kinds

    made = Shell(user_ns={"In": [""]}, input_transformers_cleanup=[], custom_exceptions=())
    monkeypatch.setattr(notebooks, "_shell", lambda: made)
    return made


@every_notebook
def test_every_notebook_refuses_an_unknown_parameter(path, shell):
    setup, parameters, *_ = code(path)
    shell.run(setup, parameters, injected('preset = "smoke"', "replicates = 3"))
    with pytest.raises(ValueError, match="unknown parameter 'replicate': must be one of preset, replicates, controls"):
        shell.run(injected('preset = "smoke"', "replicate = 3"))
    with pytest.raises(ValueError, match="seed = 'first': must be an int"):
        shell.run(injected('seed = "first"'))


def injected(*lines):
    """A cell as papermill puts it in."""
    return "\n".join([notebooks.INJECTED, *lines, ""])


UNKNOWN = {
    "replicate = 3": "'replicate'",
    'Preset = "smoke"': "'Preset'",
    'preset = "smoke"\nlearning_rate = 0.3': "'learning_rate'",
    "prune-rate = 0.2": "'prune-rate'",
    "class = 3": "'class'",
    "my rate = 3": "'my rate'",
    "a.b = 3": "'a.b'",
    "a[0] = 3": "'a[0]'",
    "a, b = 3, 4": "'(a, b)'",
    " = 3": "''",
    "print = 3": "'print'",
    "übung = 3": "'übung'",
    'x = {"preset": 1,\n     "replicates": 2}': "'x'",
    "rate = lambda: 1": "'rate'",
}


@pytest.mark.parametrize("line", UNKNOWN)
@pytest.mark.parametrize("how", ["with the setup cell", "without it"])
def test_unknown_parameters(line, how, shell):
    cells = [SETUP] if how == "with the setup cell" else []
    with pytest.raises(ValueError) as caught:
        shell.run(*cells, PARAMETERS, f"{notebooks.INJECTED}\n{line}\n", "study = ...")
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and f"unknown parameter {UNKNOWN[line]}: must be one of preset, " in text
    assert caught.value._render_traceback_() == [f"ValueError: {text}"]
    assert shell.user_ns["In"][-1].startswith(notebooks.INJECTED if cells else "study")


WRONG = {
    'replicates = "3"': "replicates = '3': must be an int",
    "replicates = 1.0": "replicates = 1.0: must be an int",
    "replicates = True": "replicates = True: must be an int",
    "replicates = None": "replicates = None: must be an int",
    "replicates = [1]": "replicates = [1]: must be an int",
    "controls = 0": "controls = 0: must be a bool",
    'controls = "no"': "controls = 'no': must be a bool",
    "preset = 3": "preset = 3: must be a str",
    'lr = "0.1\\n"': "lr = '0.1\\n': must be a float",
    "overrides = '{\"epochs\": 2}'": "overrides = '{\"epochs\": 2}': must be a dict",
    'preset = "smoke"\nlr = False': "lr = False: must be a float",
}


@pytest.mark.parametrize("line", WRONG)
def test_values_of_a_wrong_type(line, shell):
    with pytest.raises(ValueError) as caught:
        shell.run(SETUP, PARAMETERS, f"{notebooks.INJECTED}\n{line}\n")
    assert str(caught.value) == WRONG[line]


@pytest.mark.parametrize(
    "cells",
    [
        [SETUP, PARAMETERS, injected('preset = "smoke"', "replicates = 3", "lr = 1", "overrides = {}"), "study = 1"],
        [SETUP, PARAMETERS, injected("lr = float('nan')", "replicates = -1"), "study = 1"],
        [SETUP, PARAMETERS, injected('preset = "smoke"'), 'preset = "report"', injected("replicates = 3"), "study = 1"],
        [SETUP, SETUP, PARAMETERS, PARAMETERS, injected("lr = 0.3"), SETUP, "study = 1"],
        [SETUP, PARAMETERS, "1 +", injected("lr = 0.3"), "study = 1"],
        ['preset = "quick"\nlr = 1', injected("lr = '2'"), "study = 1"],  # without annotations any value goes
        ["# Parameters\nlr = 0.1\nrounds = 3", "study = 1"],  # a cell of the user's own that begins alike
        ["# Parameters of mine\nlr = 0.1", "x = 3", "study = 1"],
        ["x = 3", "# Parameters\nlr = 0.1", "study = 1"],
        [SETUP, "study = 1"],
        [SETUP, "%matplotlib inline\n!ls", "%%time\nlr = 3", PARAMETERS, "study = 1"],
    ],
)
def test_what_is_allowed(cells, shell):
    shell.run(*cells)


def test_parameters_are_refused_until_they_are_mended(shell):
    """In JupyterLab, where the user edits the injected cell and runs it again."""
    shell.run(SETUP, PARAMETERS)
    with pytest.raises(ValueError):
        shell.run(injected("replicate = 3"))
    with pytest.raises(ValueError):
        shell.run("study = 1")
    shell.run(injected("replicates = 3"), "study = 1", 'preset = "smoke"', "study = 2")
    with pytest.raises(ValueError):
        shell.run(injected("epochs = 3"))
    shell.run(PARAMETERS, "study = 1")


def test_parameters_that_papermill_puts_first_are_refused(shell):
    """Without a tagged cell papermill puts them at the top, where the notebook's own replace them."""
    with pytest.raises(ValueError, match=r"come first.*'preset' must be tagged 'parameters'"):
        shell.run(injected('preset = "smoke"'), SETUP)


def test_outside_ipython_nothing_is_done(capsys):
    notebooks.start()
    notebooks.watch()
    assert capsys.readouterr() == ("", "")


def test_somebody_elses_handler_of_errors_stays(shell):
    shell.custom_exceptions = (KeyError,)
    shell.run(SETUP)
    assert shell.custom_exceptions == (KeyError,)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["-p", "prune-rate", "0.2"], "unknown parameter 'prune-rate'"),
        (["-f", "parameters.yaml"], "unknown parameter 'Model'"),
        (["-r", "replicates", "3"], "replicates = '3': must be an int"),
        (["-y", "overrides: {epoch: 2}"], "unknown setting 'epoch': must be one of "),
    ],
)
def test_papermill_ends_in_one_line(given, says, tmp_path, environment):
    (tmp_path / "parameters.yaml").write_text("preset: smoke\nModel: mlp\n")
    status, line = papermill(NOTEBOOKS[2], tmp_path / "out.ipynb", *given, cwd=tmp_path, env=environment)
    assert status == 1 and line.startswith(f"ValueError: {says}")
    shown = [o for c in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in c.get("outputs", ())]
    assert [o.traceback for o in shown if o.output_type == "error"] == [[line]]
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_executed_copy_is_executed_again_with_other_parameters(tmp_path, environment):
    """papermill replaces the cell that it had put in."""
    (tmp_path / "short.ipynb").write_text(json.dumps(tiny()))
    book = nbformat.read(tmp_path / "short.ipynb", 4)
    book.cells.insert(0, v4.new_code_cell(SETUP))
    nbformat.write(book, tmp_path / "short.ipynb")
    assert papermill("short.ipynb", "1.ipynb", "-p", "preset", "smoke", cwd=tmp_path, env=environment) == (0, "")
    status, line = papermill("1.ipynb", "2.ipynb", "-p", "presets", "smoke", cwd=tmp_path, env=environment)
    assert status == 1 and "did you mean 'preset'?" in line


# ------------------------------------------------------------------------------------------- interruptions and errors


@pytest.fixture
def kernel(tmp_path, environment):
    """A kernel as JupyterLab starts it, in notebooks/; run(source) gives its outputs, or with `then` before its end."""
    environment.pop("PYTHONPATH")
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT / "notebooks"), env=environment)

    def run(source, then=lambda: None):
        sent, outputs, until = client.execute(source), [], time.monotonic() + 120
        then()
        while time.monotonic() < until:
            message = client.get_iopub_msg(timeout=120)
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] == "error":
                outputs.append(message["content"]["traceback"])
            if message["msg_type"] == "stream":
                outputs.append(message["content"]["text"])
            if message["content"].get("execution_state") == "idle":
                return outputs
        raise AssertionError("the cell did not end")

    run.interrupt = manager.interrupt_kernel
    run.children = lambda: psutil.Process(manager.provisioner.pid).children(recursive=True)
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 5])
def test_an_interrupted_run_ends_in_one_line_and_leaves_no_worker(kernel, seconds):
    setup, parameters, study, run, *_ = code(NOTEBOOKS[2])
    longer = "overrides = {'max_steps': 5000}"  # than it takes until it is interrupted
    for cell in (setup, f"{parameters}\npreset = 'smoke'\n{longer}", study):
        kernel(cell)
    outputs = kernel(run, lambda: (time.sleep(seconds), kernel.interrupt()))
    says = "KeyboardInterrupt: interrupted; finished levels are kept, the same cell continues from them"
    assert outputs[-1] == [says]
    assert not [o for o in outputs[:-1] if isinstance(o, list) or "Traceback" in o]
    until = time.monotonic() + 10
    while workers := [p for p in kernel.children() if "resource_tracker" not in " ".join(p.cmdline())]:
        assert time.monotonic() < until, workers
        time.sleep(0.1)


@pytest.mark.slow
def test_errors_of_ours_are_a_line_and_others_keep_their_frames(kernel):
    kernel(code(NOTEBOOKS[2])[0])
    assert kernel("from lthcore import experiments; experiments.study('task9')")[0][0].startswith(
        "ValueError: experiment = 'task9': must be one of 'mlp', "
    )
    assert kernel("experiments.study('task1', overrides={'epoch': 1})")[0][0].startswith("ValueError: unknown setting")
    in_a_worker = "from concurrent.futures import Future; f = Future(); f.set_exception(FloatingPointError('nan'))"
    assert kernel(f"{in_a_worker}; f.result()") == [["FloatingPointError: nan"]]
    for broken in ("int('x')", "raise ValueError('of the user')", "experiments.study(1, 2, 3, 4, 5)", "1 / 0"):
        (frames,) = kernel(broken)
        assert len("".join(frames).splitlines()) > 2, broken
    (frames,) = kernel("import time; time.sleep(9)", lambda: (time.sleep(0.5), kernel.interrupt()))
    assert len(frames) == 1


def test_an_interruption_before_the_queue_ends_the_workers(monkeypatch, tmp_path):
    """While the time is estimated the queue does not run yet."""
    stopped = []

    def interrupted(plan, workers):
        raise KeyboardInterrupt

    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LTH_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setattr(estimate, "time_steps", lambda *_: None)
    monkeypatch.setattr(sweep.Plan, "seconds", interrupted)
    monkeypatch.setattr(processes, "stop", stopped.append)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(experiments.study("task1", "smoke").units, "cpu", 1, lambda line: None)
    assert len(stopped) == 1


# ----------------------------------------------------------------------------------------------------- whose checkout


@pytest.fixture(scope="module")
def clones(tmp_path_factory):
    """Two other checkouts, each with the package and the notebooks."""
    made = []
    for name in ("a", "b"):
        root = tmp_path_factory.mktemp("clones") / name
        for folder in ("lthcore", "notebooks"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        made.append(root)
    return made


REPORTS = "from lthcore import store; print('works on', store.ROOT, store.runs())"


def short_of(clone, name="say.ipynb"):
    """A notebook of setup cell, parameters, and a cell that says which checkout it works on."""
    source = nbformat.read(clone / "notebooks" / NOTEBOOKS[2].name, 4)
    cells = [cell for cell in source.cells if cell.cell_type == "code"][:2]
    source.cells = [*cells, v4.new_code_cell(REPORTS)]
    path = clone / "notebooks" / name
    path.parent.mkdir(exist_ok=True)
    nbformat.write(source, path)
    return path


def said_by(path):
    return [o.text for c in nbformat.read(path, 4).cells for o in c.get("outputs", ()) if o.output_type == "stream"]


@pytest.mark.slow
@pytest.mark.parametrize("stands", ["in the other clone", "somewhere"])
def test_a_notebook_works_on_the_clone_it_lies_in(clones, stands, tmp_path, environment):
    """By plain papermill, where another clone's package is the one that is installed."""
    a, b = clones
    del environment["LTH_RUNS"]
    environment["PYTHONPATH"] = str(a)
    where = a if stands == "in the other clone" else tmp_path
    out = tmp_path / "out.ipynb"
    path = os.path.relpath(short_of(b), where)
    assert papermill(path, out, "-p", "preset", "smoke", cwd=where, env=environment) == (0, "")
    assert said_by(out) == [f"works on {b} {b / 'runs'}\n"]


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["notebooks/deeper/still", "."])
def test_in_jupyterlab_too(clones, folder, environment):
    """Where the kernel stands in the notebook's folder, and nothing but that tells the clone."""
    a, b = clones
    del environment["LTH_RUNS"]
    environment["PYTHONPATH"] = str(a)
    (b / folder).mkdir(parents=True, exist_ok=True)
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(b / folder), env=environment)
    try:
        outputs = []
        for cell in (code(NOTEBOOKS[2])[0], REPORTS):
            client.execute_interactive(cell, output_hook=outputs.append, timeout=60)
        assert [m["content"]["text"] for m in outputs if m["msg_type"] == "stream"] == [f"works on {b} {b / 'runs'}\n"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


@pytest.mark.slow
def test_a_notebook_that_lies_in_no_clone_says_on_which_it_works(clones, tmp_path, environment):
    environment["PYTHONPATH"] = str(clones[0])
    shutil.copy(short_of(clones[1]), tmp_path / "mine.ipynb")
    assert papermill("mine.ipynb", "out.ipynb", cwd=tmp_path, env=environment) == (0, "")
    text = "".join(said_by(tmp_path / "out.ipynb"))
    assert f"lies in no checkout of the study: it works on {clones[0]}, its runs and its figures" in text


# in the place of Colab's own modules and of what the shell would do
FAKE = """import json, pathlib, sys, types
commands, package = [], pathlib.Path("/content/lth-study/lthcore")

def system(command):
    commands.append(command)
    if command.startswith("git clone"):
        (package / "explore").mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "explore/__init__.py").touch()
        (package / "explore/notebooks.py").write_text("def start(): print('started')")

sys.modules["google.colab"] = types.ModuleType("google.colab")
get_ipython = lambda: types.SimpleNamespace(system=system)
"""


def setup_in_colab(content):
    """Execute the setup cell as in Colab, with a folder in the place of /content: the commands that it gives."""
    program = f"{FAKE}\n{refresh.setup_cell()}\nprint(sys.path[0]); print(json.dumps(commands))"
    done = subprocess.run(
        [sys.executable, "-I", "-c", program.replace("/content", str(content))],
        capture_output=True,
        text=True,
        cwd=content,
    )
    assert done.returncode == 0, done.stderr
    started, first, commands = done.stdout.splitlines()
    assert (started, first) == ("started", f"{content}/lth-study")
    return json.loads(commands)


def test_the_setup_cell_in_colab_clones_and_installs_once(tmp_path):
    clone, freeze, install = setup_in_colab(tmp_path)
    assert clone == f"git clone --quiet --depth=1 {refresh.address()} {tmp_path}/lth-study"
    assert freeze == f"pip freeze --exclude-editable | grep -v ' @ ' > {tmp_path}/present.txt"
    assert install == f"pip install --quiet --constraint {tmp_path}/present.txt --editable {tmp_path}/lth-study"
    assert setup_in_colab(tmp_path) == []


# --------------------------------------------------------------------------------------------------- as a script


@pytest.mark.slow
def test_nbconvert_writes_scripts_that_are_python(tmp_path):
    command = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "script", "--output-dir", tmp_path, *NOTEBOOKS]
    subprocess.run(list(map(str, command)), check=True, capture_output=True, cwd=ROOT)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{path.stem}.py" for path in NOTEBOOKS]
    for path in tmp_path.iterdir():
        text = path.read_text()
        ast.parse(text)
        assert "run_line_magic" not in text and refresh.setup_cell() in text


@every_notebook
def test_a_notebook_is_python_as_it_stands(path):
    """No magics: what a linter, nbconvert or an editor makes of it is valid."""
    for source in code(path):
        ast.parse(source)
    assert nbformat.read(path, 4).metadata == {"kernelspec": notebooks.KERNEL, "language_info": notebooks.LANGUAGE}


# ---------------------------------------------------------------------------------------------------- foreign copies


def tiny(*sources):
    """A notebook in JSON: a cell of text, one of parameters, the given ones."""
    cells = [v4.new_markdown_cell("# Tiny"), v4.new_code_cell('preset: str = "quick"  # which')]
    cells[1].metadata.tags = ["parameters"]
    cells += [v4.new_code_cell(source) for source in sources or ["print(preset, 'is given')"]]
    metadata = {"kernelspec": notebooks.KERNEL, "language_info": notebooks.LANGUAGE}
    return json.loads(nbformat.writes(v4.new_notebook(cells=cells, metadata=metadata)))


VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "abc", "version_major": 2, "version_minor": 0}}


def colab(book):
    """As Colab saves it: widgets without their state's wrapping, ids of its own, outputs."""
    model = {"abc": {"model_module": "@jupyter-widgets/controls", "model_name": "HBoxModel", "state": {}}}
    book["metadata"] = {
        "colab": {"provenance": [], "toc_visible": True, "include_colab_link": True},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
        "accelerator": "GPU",
        "widgets": {"application/vnd.jupyter.widget-state+json": model},
    }
    book["nbformat_minor"] = 0
    for n, cell in enumerate(book["cells"]):
        del cell["id"]
        cell["metadata"] |= {"id": f"aB3_{n}", "colab": {"base_uri": "https://localhost:8080/"}, "outputId": "1a-2b"}
    book["cells"][-1]["outputs"] = [{"output_type": "display_data", "data": VIEW, "metadata": {}}]
    book["cells"][-1]["metadata"]["tags"] = ["skip-execution"]
    book["cells"].append(tiny()["cells"][-1])


def without_tags(book):
    for cell in book["cells"]:
        cell["metadata"] = {}


def old_format(book):
    book |= {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}}
    cells = book.pop("cells")
    for cell in cells:
        cell.pop("id")
        if cell["cell_type"] == "code":
            cell |= {"input": cell.pop("source"), "language": "python", "collapsed": False, "prompt_number": 1}
            cell.pop("execution_count")
    book["worksheets"] = [{"cells": cells, "metadata": {}}]


def change(**metadata):
    def apply(book):
        book["metadata"] |= metadata

    return apply


def cells_have(**more):
    def apply(book):
        for cell in book["cells"]:
            cell |= more

    return apply


def minor(number):
    def apply(book):
        book["nbformat_minor"] = number
        if number < 5:
            for cell in book["cells"]:
                del cell["id"]

    return apply


FROM_ELSEWHERE = {
    "Colab": colab,
    "widgets without state": change(widgets={"application/vnd.jupyter.widget-state+json": {}}),
    "widgets that are none": change(widgets=None),
    "widgets in a list": change(widgets=[1]),
    "widgets whose state is null": change(widgets={"application/vnd.jupyter.widget-state+json": {"state": None}}),
    "Colab's kernel": change(kernelspec={"name": "colab", "display_name": "Colab"}),
    "conda's kernel": change(kernelspec={"name": "conda-env-x-py", "display_name": "x", "language": "python"}),
    "no kernel": lambda book: book["metadata"].clear(),
    "no language": lambda book: book["metadata"].pop("language_info"),
    "R's language": change(language_info={"name": "R"}),
    "VS Code": change(vscode={"interpreter": {"hash": "x"}}, orig_nbformat=4),
    "jupytext": change(jupytext={"formats": "ipynb,py:percent"}),
    "papermill before": change(papermill={"input_path": "x", "parameters": {"old": 1}, "version": "1"}),
    "unknown keys": lambda book: book.update(extra={"a": 1}),
    "unknown keys of cells": cells_have(outputId="x", id="the same in all", source_hash=None),
    "wrong ids": cells_have(id="not valid!"),
    "ids in an older format": lambda book: book.update(nbformat_minor=4),
    "a newer minor": lambda book: book.update(nbformat_minor=99),
    "lost tags": without_tags,
    "lost metadata of cells": lambda book: [cell.pop("metadata") for cell in book["cells"]],
    "lost metadata": lambda book: book.pop("metadata"),
    "tags that are none": cells_have(metadata={"tags": [1, None]}),
    "outputs that are none": lambda book: book["cells"][-1].update(outputs=[{"output_type": "unknown"}]),
    "no outputs": lambda book: [cell.pop("outputs", None) for cell in book["cells"]],
    "metadata that are null": lambda book: [part.update(metadata=None) for part in (book, *book["cells"])],
    "tags that are null": cells_have(metadata={"tags": None}),
    "tags in a word": cells_have(metadata={"tags": "parameters"}),
    "outputs and attachments that are null": cells_have(outputs=None, attachments=None),
    "half a character": lambda book: book["cells"].insert(0, {"cell_type": "markdown", "source": "\ud83d alone"}),
    "an unknown kind of cell": lambda book: book["cells"].insert(0, {"cell_type": "sql", "source": "SELECT"}),
    "nbformat 3": old_format,
    **{f"minor {number}": minor(number) for number in range(6)},
}


@pytest.mark.parametrize("kind", FROM_ELSEWHERE)
def test_a_notebook_from_elsewhere_becomes_a_valid_one(kind, tmp_path):
    book = tiny()
    FROM_ELSEWHERE[kind](book)
    (tmp_path / "foreign.ipynb").write_text(json.dumps(book))
    found = notebooks.normalised(tmp_path / "foreign.ipynb")
    nbformat.validate(found)
    nbformat.write(found, tmp_path / "written.ipynb")
    assert found.metadata == {"kernelspec": notebooks.KERNEL, "language_info": notebooks.LANGUAGE}
    assert notebooks.parameters(found) == ["preset"]
    assert not any(cell.get("outputs") for cell in found.cells)
    assert found.cells[-1].source == "print(preset, 'is given')"
    assert len({cell.id for cell in found.cells}) == len(found.cells)


def test_links_lead_where_they_did_from_the_folder_of_the_copy(tmp_path):
    book = tiny()
    book["cells"].insert(0, {"cell_type": "markdown", "id": "a", "metadata": {}, "source":
                             "[a](../README.md#words) [b](https://x/../y) [c](other.ipynb) `x[0](../z)`"})  # fmt: skip
    (tmp_path / "notebooks").mkdir()
    path = tmp_path / "notebooks" / "book.ipynb"
    path.write_text(json.dumps(book))
    for folder, there in (("figures/executed", "../.."), ("figures/quick/executed", "../../..")):
        text = notebooks.normalised(path, tmp_path / folder).cells[0].source
        assert text.startswith(f"[a]({there}/README.md#words) [b](https://x/../y) [c](other.ipynb)")


@every_notebook
def test_ours_stay_as_they_are(path):
    assert notebooks.normalised(path) == nbformat.read(path, 4)


@pytest.mark.parametrize("mark", ["byte order mark", "Windows", "attachment"])
def test_other_ways_to_write_the_same(mark, tmp_path):
    book = tiny()
    if mark == "attachment":
        book["cells"][0]["attachments"] = {"x.png": {"image/png": "AAAA"}}
    text = json.dumps(book, indent=1)
    text = {"byte order mark": f"\ufeff{text}", "Windows": text.replace("\n", "\r\n")}.get(mark, text)
    (tmp_path / "book.ipynb").write_bytes(text.encode())
    found = notebooks.normalised(tmp_path / "book.ipynb")
    nbformat.validate(found)
    assert found.cells[0].get("attachments", {}).keys() == ({"x.png"} if mark == "attachment" else set())


NONE = [
    b"", b"\xff\xfe\x00", b"<<<<<<< HEAD\n{}", b"{}", b"[]", b"null", b'{"nbformat": 4, "nbformat_minor": 5}',
    b"[" * 99999, b'{"nbformat": 4, "cells": [{}], "metadata": {}}', b'{"nbformat": 9, "cells": []}',
    b'{"nbformat": 4, "cells": 3}',
]  # fmt: skip


@pytest.mark.parametrize("attachments", [{"a.png": {"image/png": 5}}, {"a.png": 5}])
def test_an_attachment_that_is_none_is_said_in_one_line(attachments, tmp_path):
    book = tiny()
    book["cells"].insert(0, {"cell_type": "markdown", "source": "x", "metadata": {}, "attachments": attachments})
    (tmp_path / "none.ipynb").write_text(json.dumps(book))
    with pytest.raises(ValueError) as caught:
        notebooks.normalised(tmp_path / "none.ipynb")
    assert len(str(caught.value).splitlines()) == 1 and "none.ipynb cannot be read as a notebook (" in str(caught.value)


@pytest.mark.parametrize("content", NONE)
def test_what_is_no_notebook_is_said_in_one_line(content, tmp_path):
    (tmp_path / "none.ipynb").write_bytes(content)
    with pytest.raises(ValueError) as caught:
        notebooks.normalised(tmp_path / "none.ipynb")
    assert len(str(caught.value).splitlines()) == 1 and "none.ipynb cannot be read as a notebook" in str(caught.value)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Makes a notebook of JSON: a job to execute."""
    monkeypatch.setattr(cli, "ROOT", tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def make(book):
        path = tmp_path / "notebooks" / "tiny.ipynb"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(book))
        return cli.Job("01_tiny", "tiny", None, {})

    return make


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["Colab", "conda's kernel"])
def test_a_notebook_from_elsewhere_is_executed_and_exported(kind, job, tmp_path):
    book = tiny()
    FROM_ELSEWHERE[kind](book)
    cli.execute(job(book), {"preset": "smoke"}, tmp_path / "figures")
    page, path = sorted((tmp_path / "figures" / "executed").iterdir())
    assert (page.name, path.name) == ("01_tiny.html", "01_tiny.ipynb")
    assert "smoke is given" in page.read_text() and "<title>01_tiny</title>" in page.read_text()
    assert "widget-view+json" not in page.read_text()
    nbformat.validate(nbformat.read(path, 4))


STATE = "application/vnd.jupyter.widget-state+json"
MODEL = {"model_name": "HTMLModel", "model_module": "x", "model_module_version": "2", "state": {}}


@pytest.mark.parametrize(
    ("metadata", "shown"),
    [
        ({}, False),
        ({STATE: {"abc": {}}}, False),
        ({STATE: {"state": {}, "version_major": 2, "version_minor": 0}}, False),
        ({STATE: {"state": {"abc": MODEL}}}, True),
    ],
)  # fmt: skip
def test_a_page_shows_a_widget_only_with_its_state(metadata, shown, tmp_path):
    book = tiny()
    book["metadata"]["widgets"] = metadata
    data = {"text/plain": "HTML(value='')", **VIEW}
    book["cells"][-1]["outputs"] = [{"output_type": "display_data", "data": data, "metadata": {}}]
    (tmp_path / "done.ipynb").write_text(json.dumps(book))
    page = notebooks.page(tmp_path / "done.ipynb")
    assert ('<script type="application/vnd.jupyter.widget-view+json">' in page) == shown
    assert ("HTML(value=" in page) != shown


# ------------------------------------------------------------------------------------------------- papermill's own end


@pytest.mark.parametrize(
    ("status", "said", "why"),
    [
        (-9, "", "papermill was ended by SIGKILL (out of memory?)"),
        (-15, "Traceback\n x", "papermill was ended by SIGTERM"),
        (-11, "", "papermill was ended by SIGSEGV"),
        (1, "Traceback (most recent call last):\n  File\nnbclient.exceptions.DeadKernelError: Kernel died\n",
         "nbclient.exceptions.DeadKernelError: Kernel died"),
        (1, "", "papermill ended with status 1"),
        (2, "Usage: papermill\nError: No such option: -x\n", "Error: No such option: -x"),
    ],
)  # fmt: skip
def test_why_papermill_ended(status, said, why):
    assert notebooks.why_it_failed(status, said) == why


@pytest.mark.slow
@pytest.mark.parametrize(("who", "by"), [("papermill", signal.SIGTERM), ("kernel", signal.SIGKILL)])
def test_a_killed_notebook_is_said_in_one_line(who, by, job, tmp_path):
    victim = "os.getppid()" if who == "papermill" else "os.getpid()"
    book = tiny(f"import os, time; os.kill({victim}, {int(by)}); time.sleep(60)")
    with pytest.raises(RuntimeError) as caught:
        cli.execute(job(book), {"preset": "smoke"}, tmp_path / "figures")
    text = str(caught.value)
    assert len(text.splitlines()) == 1 and text.startswith("01_tiny failed; the partial notebook: ")
    assert by.name in text if who == "papermill" else "Kernel died" in text


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_kernel_that_dies_before_it_answers_is_started_once_more(times, job, tmp_path, monkeypatch):
    """As one whose port another process has taken since it was chosen."""
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "first.py").write_text(
        f"import os, pathlib\nbegun = pathlib.Path({str(tmp_path / 'begun')!r})\n"
        f"count = len(begun.read_text()) if begun.exists() else 0\nbegun.write_text('x' * (count + 1))\n"
        f"if count < {times}:\n    os._exit(1)\n"
    )
    monkeypatch.setenv("IPYTHONDIR", str(startup.parents[1]))
    ends = pytest.raises(RuntimeError, match=notebooks.NEVER_BEGAN) if times == 2 else contextlib.nullcontext()
    with ends:
        cli.execute(job(tiny("print('executed')")), {"preset": "smoke"}, tmp_path / "figures")
    assert (tmp_path / "begun").read_text() == "xx"


@pytest.mark.slow
def test_a_kernel_that_was_sent_what_is_for_another_one_is_started_once_more(job, tmp_path):
    """Its port was another's for a moment: what it says of that does not belong in the executed copy."""
    said = repr(notebooks.NOT_FOR_IT).replace(" ", "' ' ")  # the cell itself does not have these words
    code = f"import pathlib, sys\nbegun = pathlib.Path({str(tmp_path / 'begun')!r})\nfirst = not begun.exists()\n"
    code += f"begun.open('a').write('x')\nprint({said} if first else 'well', file=sys.stderr)"
    cli.execute(job(tiny(code)), {"preset": "smoke"}, tmp_path / "figures")
    (copy,) = (tmp_path / "figures/executed").glob("*.ipynb")
    assert (tmp_path / "begun").read_text() == "xx" and notebooks.NOT_FOR_IT not in copy.read_text()


def test_an_executed_copy_holds_no_times(tmp_path):
    """What papermill notes of a run goes, what it was given stays, and a second look changes nothing."""
    path = tmp_path / "copy.ipynb"
    copies = []
    for value in ("2026-01-01T00:00:00", "2026-01-02T00:00:00"):
        cell = nbformat.v4.new_code_cell("# Parameters\npreset = 'smoke'")
        cell.metadata = {"tags": ["injected-parameters"], "papermill": {"start_time": value}, "execution": {"x": value}}
        book = nbformat.v4.new_notebook(cells=[cell, nbformat.v4.new_markdown_cell("words", id="words")])
        book.metadata = {"papermill": {"start_time": value, "input_path": value, "parameters": {"preset": "smoke"}}}
        book.metadata["language_info"] = {"name": "python", "version": value}
        nbformat.write(book, path)
        notebooks.without_times(path)
        copies.append(path.read_text())
    assert copies[0] == copies[1] and "2026" not in copies[0]
    assert nbformat.read(path, 4).metadata.papermill == {"parameters": {"preset": "smoke"}}


def test_a_notebook_knows_whether_it_is_exported(monkeypatch):
    monkeypatch.delenv("LTH_LINKS_FROM", raising=False)
    asked = "from lthcore.explore import notebooks; print(notebooks.is_exported())"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {asked!r}])"
    for name in ("papermill", "another"):
        command = [sys.executable, "-c", parent, name, "a.ipynb"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.stdout == f"{name == 'papermill'}\n", done.stderr
    monkeypatch.setenv("LTH_LINKS_FROM", "figures/executed")
    assert notebooks.is_exported()
