"""The checkout as a whole: rooms, sizes, notebooks, README, and everything run once on the smallest scale."""

import ast
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tokenize
from pathlib import Path

import nbformat
import pytest
import refresh

from lthcore import data
from lthcore.cli import JOBS

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "lthcore").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ROOMS = re.findall(r"^    (\w+)", (ROOT / "lthcore/__init__.py").read_text(), re.M)
PARAMETERS = {"preset", "replicates", "controls", "seed", "device", "overrides", "drive"}


def lines_of_code(path):
    """Lines that hold code: no blanks, comments or docstrings."""
    source = path.read_text()
    docstrings = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
            docstrings |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    skip = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skip:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def imported_rooms(path):
    """Rooms of lthcore that a module imports, anywhere in it."""
    out = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            out |= {node.module} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lthcore"):
            out |= {node.module.partition(".")[2]} if "." in node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            out |= {alias.name.partition(".")[2] for alias in node.names if alias.name.startswith("lthcore.")}
    return (out & {p.stem for p in MODULES}) - {"__init__"}


def test_every_module_has_a_room():
    assert set(ROOMS) == {p.stem for p in MODULES} - {"__init__"}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_imports_point_downwards(path):
    if path.stem != "__init__":
        above = {room for room in imported_rooms(path) if ROOMS.index(room) <= ROOMS.index(path.stem)}
        assert not above, f"{path.stem} imports {above}, which is not below it"


def test_the_loop_needs_neither_store_nor_sweep_nor_plots():
    code = "import sys, lthcore.models, lthcore.pruning, lthcore.lottery; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not {"lthcore.store", "lthcore.sweep", "lthcore.plots", "lthcore.experiments"} & set(loaded)


def test_sizes(capsys):
    sizes = {p.stem: lines_of_code(p) for p in MODULES}
    core = sum(sizes[name] for name in ("models", "pruning", "lottery", "train"))
    engines = sum(sizes.pop(name) for name in ("sparse", "lockstep"))  # only there to be fast
    checks = sizes.pop("gpu")  # only there to be careful with one of them
    explorer = sum(sizes.pop(name) for name in ("explorer", "pages"))  # only there to be looked at
    rules = sizes.pop("rules")  # half of it is a table
    with capsys.disabled():
        print(f"\nlines of code: {sizes}; {core} in models, pruning, lottery, train; {sum(sizes.values())} in all")
        print(f"beside them the engines, sparse and lockstep: {engines}, the GPU's checks: {checks}")
        print(f"and the explorer and its pages: {explorer}")
        print(f"and the rules: {rules}")
    assert core <= 600
    assert engines <= 700
    assert checks <= 200
    assert explorer <= 600
    assert rules <= 650
    assert sum(sizes.values()) <= 4000  # 2,500 for the report; the rest for what goes beyond it


def test_the_loop_fits_one_screen():
    tree = ast.parse((ROOT / "lthcore/lottery.py").read_text())
    loop = next(node for node in tree.body if getattr(node, "name", "") == "find_ticket")
    assert loop.end_lineno - loop.lineno < 40


# ------------------------------------------------------------------------------------------------------- notebooks


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_well_formed(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not any(cell.outputs or cell.execution_count for cell in cells), "committed without outputs"
    source = "\n".join(cell.source for cell in cells)
    assert len([line for line in source.splitlines() if line.strip()]) <= 60
    assert not re.search(r"^\s*(def|class|for|while)\b", source, re.M), "code belongs in lthcore"
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    names = set()
    for node in ast.parse(tagged[0].source).body:
        assert isinstance(node, ast.AnnAssign), "one annotated literal a line"
        ast.literal_eval(node.value)
        names.add(node.target.id)
    assert all("#" in line for line in tagged[0].source.splitlines()), "unit and range in a comment"
    assert names - {"model", "experiment"} == PARAMETERS
    if path.stem != "00_scorecard":
        assert "skip-execution" in cells[-1].metadata["tags"]
        assert len(notebook.cells) <= 20


def test_notebooks_are_stripped():
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", *map(str, NOTEBOOKS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout


def test_badges_setup_cells_and_readme_are_in_step():
    done = subprocess.run(
        [sys.executable, "tests/tools/refresh.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_address_stands_in_one_place():
    mentions = [p for p in [*MODULES, ROOT / "run_all.sh"] if refresh.address() in p.read_text()]
    assert not mentions


# ------------------------------------------------------------------------------------------------- everything, once


WIDE_JOBS = [job for job in JOBS if job.when != "named"]  # every notebook that is run without being named
FASHION = ("fashion_conv2", "transfer")  # those that need Fashion-MNIST


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """`./run_all.sh smoke --wide` in a fresh store, called from elsewhere: (completed process, environment, where)."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "LTH_RUNS": str(elsewhere / "runs")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = ["bash", str(ROOT / "run_all.sh"), "smoke", "--wide"]
    try:
        data.fetch(dataset="fashion")
    except RuntimeError as error:  # no mirror in reach, no package of Debian's
        print(f"without Fashion-MNIST: {error}")
        command = command[:3] + [
            word for job in WIDE_JOBS if job.experiment not in FASHION for word in ("--only", job.experiment)
        ]
    return (
        subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment),
        environment,
        elsewhere,
    )


@pytest.mark.slow
def test_smoke_runs_every_notebook(smoke):
    done = smoke[0]
    assert done.returncode == 0, done.stdout + done.stderr
    folder = ROOT / "figures/smoke/executed"
    names = ["00_scorecard", "05_explorer", "01_pre_midsem_mlp", "01_pre_midsem_lenet5"]
    names += ["02_task1_data_halves", "03_task2_label_sets", "04_task3_optimizers"]
    names += [job.name for job in WIDE_JOBS if job.name in done.stdout]
    for name in names:
        assert name in done.stdout
        executed = nbformat.read(folder / f"{name}.ipynb", 4)
        outputs = [output for cell in code_cells(executed) for output in cell.outputs]
        assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"], name
        assert any("image/png" in o.get("data", {}) for o in outputs), f"{name} shows no figure"
        assert "data:image/png;base64," in (folder / f"{name}.html").read_text()
    assert not list(folder.glob("*.partial*"))


@pytest.mark.slow
def test_smoke_again_trains_nothing_and_gives_the_same_figures(smoke):
    _, environment, elsewhere = smoke
    files = {p: p.read_bytes() for p in sorted((ROOT / "figures/smoke").glob("fig*.*"))}
    assert len(files) >= (9 + 7) * 4
    command = ["bash", str(ROOT / "run_all.sh"), "smoke", "--only", "task2", "--only", "mlp"]
    again = subprocess.run(command, capture_output=True, text=True, cwd=elsewhere, env=environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing to train" in again.stdout
    assert {p: p.read_bytes() for p in files} == files


@pytest.mark.slow
def test_a_notebook_runs_from_its_own_folder_as_in_jupyterlab(smoke):
    """From notebooks/, without PYTHONPATH, training what it needs itself: the package is found as installed."""
    environment = {k: v for k, v in smoke[1].items() if k != "PYTHONPATH"}
    source = nbformat.read(ROOT / "notebooks/02_task1_data_halves.ipynb", 4)
    cell = next(c for c in source.cells if "parameters" in c.metadata.get("tags", []))
    cell.source = cell.source.replace('"quick"', '"smoke"').replace("seed: int = 0", "seed: int = 1")  # so it trains
    code = (
        "import nbformat, sys; from nbclient import NotebookClient; nb = nbformat.reads(sys.stdin.read(), 4); "
        "NotebookClient(nb, kernel_name='python3', timeout=300).execute(); print('executed', len(nb.cells))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, input=nbformat.writes(source), capture_output=True, text=True, cwd=ROOT / "notebooks", env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "executed" in done.stdout  # the widget's cell ran too
    assert len(list((smoke[2] / "runs").glob("task1-*"))) == 2 * 5


@pytest.mark.slow
def test_in_every_smoke_network_answers_stay_within_what_lives(smoke):
    """Live outputs plus the dead one of largest constant logit: on every image, in every network that was trained."""
    values = []
    for rows in (smoke[2] / "runs").rglob("rows.csv"):
        found = re.search(r"^.*answers_outside,(\S+)$", rows.read_text(), re.M)
        values.append(float(found[1]))
    assert len(values) >= 88
    assert not any(values)


def test_the_same_holds_in_the_archive():
    packs = sorted((ROOT / "figures/archive").rglob("*.zip"))
    from lthcore import experiments, results

    checked = set()
    for study in experiments.every(wide=True, preset="report"):
        frame = experiments.finished(study)
        if len(frame):
            outside = results.at_end(frame, "answers_outside")
            assert len(outside) and (outside == 0).all()
            checked.add(study.config.experiment)
    assert packs and checked == {path.parent.name for path in packs}


# ---------------------------------------------------------------------------------------------------------- README


def commands():
    """Every ./run_all.sh line of the README's shell blocks."""
    blocks = re.findall(r"```(?:bash|sh)\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("./run_all.sh")]


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_readme_commands_are_parsed(line):
    done = subprocess.run(
        [sys.executable, "-m", "lthcore", *shlex.split(line)[1:], "--dry-run"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_readme_has_what_a_user_needs():
    text = (ROOT / "README.md").read_text()
    assert {"./run_all.sh", "./run_all.sh test", "./run_all.sh report"} <= set(commands())
    for link in re.findall(r"\]\((?!https?://|#)([^)]+)\)", text):
        assert (ROOT / link).exists(), link
    assert all(f"`{name}`" in text for name in ("LTH_DATA", "LTH_RUNS", "LTH_ARCHIVE"))
    assert max(map(len, re.search("<!-- claims -->(.*)<!-- /claims -->", text, re.S)[1].splitlines())) < 400
    names = [
        re.match(r"[\w-]+", line)[0]
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if re.match(r"\w", line)
    ]
    for name in names:
        assert f"`{name}`" in text, f"{name}: why is it here?"


def test_pyproject_needs_nothing_that_requirements_lack():
    import tomllib

    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert set(needs) <= set((ROOT / "requirements.txt").read_text().splitlines())
    assert not [line for line in needs if "==" in line or "<" in line], "ranges without pins or upper bounds"


def test_committed_figures_are_complete():
    """Each committed picture has its svg, its table and its provenance, at the committed scale."""
    for picture in sorted((ROOT / "figures").glob("fig*.png")):
        assert picture.with_suffix(".svg").exists()
        assert len(picture.with_suffix(".csv").read_text().splitlines()) > 2
        facts = json.loads(picture.with_suffix(".json").read_text())
        assert facts["config"]["preset"] == "report"
        assert facts["levels"] == facts["levels_expected"]
