"""The checkout as a whole: folders, sizes, notebooks, README, and everything run once on the smallest scale."""

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import refresh

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "lthcore").rglob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CORE = ("lottery", "train", "pruning", "methods", "models", "data", "unit", "config", "schedule")
FOLDERS = ("disk", "engines", "probes", "tickets", "runs", "results", "studies", "explore", "cli")  # from the bottom up
LAYERS = ("core", *FOLDERS, "__main__")
PARAMETERS = {"preset", "replicates", "controls", "seed", "device", "overrides", "drive"}


def name_of(path):
    parts = path.relative_to(ROOT / "lthcore").with_suffix("").parts
    return ".".join(parts)


def layer_of(name):
    first = name.partition(".")[0]
    return "core" if first in CORE else first


def imports_of(path):
    """Layers of lthcore that a module imports, anywhere in it."""
    found = set()
    here = ("lthcore", *name_of(path).split(".")[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names = [f"{module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("lthcore.")}
    return {layer_of(name) for name in found if name in (*CORE, *FOLDERS)}


def test_every_module_has_its_place():
    assert {layer_of(name_of(path)) for path in MODULES} - {"__init__"} == set(LAYERS)
    top = [path.stem for path in (ROOT / "lthcore").glob("*.py")]
    assert set(top) - {"__init__", "__main__", "cli", "tickets"} == set(CORE)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path):
    name = name_of(path)
    if name != "__init__":
        level = LAYERS.index(layer_of(name))
        above = {layer for layer in imports_of(path) if LAYERS.index(layer) > level}
        assert not above, f"{name} imports {above}, which is above it"


def test_names_from_before_the_folders_still_lead_to_their_modules():
    import lthcore

    for old, new in {**lthcore._MOVED, "notebooks": "explore.notebooks"}.items():
        assert getattr(lthcore, old).__name__ == f"lthcore.{new}"
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = lthcore.nonsense


@pytest.mark.slow
def test_the_loop_needs_neither_store_nor_sweep_nor_plots():
    code = "import sys, lthcore.models, lthcore.pruning, lthcore.lottery; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not {"lthcore.runs.store", "lthcore.runs.sweep", "lthcore.studies.plots"} & set(loaded)


def test_the_loop_fits_one_screen():
    tree = ast.parse((ROOT / "lthcore/lottery.py").read_text())
    loop = next(node for node in tree.body if getattr(node, "name", "") == "find_ticket")
    assert loop.end_lineno - loop.lineno < 40


CORE_LINES = 1_500  # all nine together, docstrings included; may only shrink
LONG = {"engines.sparse": 753}  # lines of those over 500; may only shrink


def lines_of(path):
    return len(path.read_text().splitlines())


def test_the_core_is_nine_modules_that_only_shrink():
    paths = [ROOT / "lthcore" / f"{name}.py" for name in CORE]
    assert len(paths) == 9 and sum(map(lines_of, paths)) <= CORE_LINES


def test_no_other_module_is_long():
    long = {name_of(path): lines_of(path) for path in MODULES if lines_of(path) > 500}
    assert set(long) <= set(LONG) and all(lines <= LONG[name] for name, lines in long.items()), long


def core_functions():
    for name in CORE:
        for node in ast.walk(ast.parse((ROOT / "lthcore" / f"{name}.py").read_text())):
            if isinstance(node, ast.FunctionDef):
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                yield f"{name}.{node.name}", node, [a for a in given if a.arg not in ("self", "cls")]


def test_no_function_of_the_core_has_more_than_seven_parameters():
    assert not [name for name, _, given in core_functions() if len(given) > 7]


def test_every_public_function_of_the_core_is_annotated():
    public = [found for found in core_functions() if not found[1].name.startswith("_")]
    assert not [name for name, node, given in public if node.returns is None or not all(a.annotation for a in given)]


def test_nothing_in_the_core_is_decided_by_the_name_of_a_model_a_data_set_or_a_rule():
    """Such names are keys of tables and defaults; none is compared with."""
    from lthcore import config, methods, schedule

    names = {*schedule.ARCHITECTURES, *config.DATASETS, *methods.CRITERIA, *methods.REWINDS, "conv"} - {"random"}
    for name in CORE:
        for node in ast.walk(ast.parse((ROOT / "lthcore" / f"{name}.py").read_text())):
            asked = node.comparators if isinstance(node, ast.Compare) else []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("startswith", "endswith"):
                asked = node.args
            said = {part.value for a in asked for part in ast.walk(a) if isinstance(part, ast.Constant)}
            assert not said & names, f"{name}.py, line {node.lineno}"


# ------------------------------------------------------------------------------------------------------------ names

# Plain English in prose, and no names: what they stood for has a name in the field or a plain description.
NO_NAMES = {
    "alike", "apart", "beside", "borrowed", "flying", "foreign", "look", "mine", "most", "often", "own", "pages",
    "play", "played", "rooms", "say", "travel", "wide", "words",
}  # fmt: skip


def names_in(text):
    """What a text defines: functions, classes, parameters, variables and attributes."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@pytest.mark.slow
def test_names_are_no_private_words():
    for path in [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))]:
        names = {path.stem.removeprefix("test_"), *names_in(path.read_text())}
        found = {name for name in names if name.lower().strip("_") in NO_NAMES}
        assert not found, f"{path.name}: {found}"


# ---------------------------------------------------------------------------------------------------- executing code

# What unpickles: machine code in the user's own cache, behind a checksum, and calls between processes of one run. No
# file of the study is read so.
UNPICKLES = {
    "lthcore/engines/compiled.py": {"pickle.loads"},
    "lthcore/runs/cluster.py": {"pickle.loads"},
    "lthcore/runs/sending.py": {"cloudpickle.loads"},
}
EXECUTES = {
    "eval",
    "exec",
    "torch.load",
    "np.load",
    "numpy.load",
    "pd.read_pickle",
    "pandas.read_pickle",
    "joblib.load",
}
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib"}


def sources():
    """The code of the package, the tools and the notebooks: pairs of path and text."""
    for path in [*MODULES, *sorted((ROOT / "tests/tools").glob("*.py"))]:
        yield str(path.relative_to(ROOT)), path.read_text()
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "code":
                yield f"notebooks/{path.name}", "".join(cell["source"])


def executing(text):
    """Calls in a text that execute what they are given or read, under whatever name they are imported: set of str."""
    found = set()
    tree = ast.parse(text)
    renamed = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            base = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            renamed |= {alias.asname or alias.name: base + alias.name for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            called = renamed.get(first, first) + dot + rest
            module, _, name = called.rpartition(".")
            if called in EXECUTES or (module in PICKLES and name in ("load", "loads", "open", "Unpickler")):
                found.add(called)
    return found


def test_nothing_executes_what_it_reads():
    for name, text in sources():
        assert executing(text) <= UNPICKLES.get(name, set()), name


EXAMPLES = ["eval(x)", "exec(x)", "import torch as t; t.load(x)", "from pickle import loads; loads(x)"]


@pytest.mark.parametrize("text", [*EXAMPLES, "import numpy as np; np.load(x)"])
def test_what_executes_is_found(text):
    assert executing(text)


# ----------------------------------------------------------------------------------------------------------- tests


@pytest.mark.slow
def test_no_test_module_imports_another():
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = (
                    [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                )
                assert not [name for name in names if name.startswith("test_")], path.name


def test_every_module_has_tests_by_its_name_or_in_the_table():
    """`tests/README.md` names the test files of modules that have none by their own name."""
    rows = re.findall(r"^\| (`[a-z].*`) \| (`test_.*`) \|$", (ROOT / "tests/README.md").read_text(), re.M)
    table = {name: files for names, files in rows for name in re.findall(r"`([\w/]+)`", names)}
    for path in MODULES:
        name = name_of(path).replace(".", "/")
        if not path.stem.startswith("__") and not (ROOT / f"tests/test_{path.stem}.py").exists():
            assert name in table, f"tests/README.md must name the tests of {name}"
    for name, files in table.items():
        assert (ROOT / "lthcore" / f"{name}.py").exists(), name
        assert all((ROOT / "tests" / file).exists() for file in re.findall(r"`(test_\w+\.py)`", files)), name


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
        assert any("skip-execution" in cell.metadata.get("tags", ()) for cell in cells[-2:])
        assert len(notebook.cells) <= 20


@pytest.mark.slow
def test_notebooks_are_stripped():
    command = [sys.executable, "-m", "nbstripout", "--verify", "--keep-id", *map(str, NOTEBOOKS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing():
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run([sys.executable, "-m", "ruff", *command, "."], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda path: path.name)
def test_no_name_is_defined_twice(path):
    """A second function of a name replaces the first without a word; of two tests with one name, one never runs."""
    for scope in ast.walk(ast.parse(path.read_text())):
        if isinstance(scope, ast.Module | ast.ClassDef):
            defined = [node for node in scope.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            plain = [node for node in defined if not any(isinstance(d, ast.Attribute) for d in node.decorator_list)]
            assert [name for name, n in Counter(node.name for node in plain).items() if n > 1] == []


@pytest.mark.slow
def test_badges_setup_cells_and_documents_are_in_step():
    done = subprocess.run(
        [sys.executable, "tests/tools/refresh.py", "--check"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_address_stands_in_one_place():
    mentions = [p for p in [*MODULES, ROOT / "run_all.sh"] if refresh.address() in p.read_text()]
    assert not mentions


# ------------------------------------------------------------------------------------------------------- the archive


@pytest.mark.slow
def test_the_same_holds_in_the_archive():
    packs = sorted((ROOT / "figures/archive").rglob("*.zip"))
    from lthcore.results import statistics
    from lthcore.studies import experiments

    checked = set()
    for study in experiments.every(extended=True, preset="report"):
        frame = experiments.finished(study)
        if len(frame):
            outside = statistics.at_end(frame, "answers_outside")
            assert len(outside) and (outside == 0).all()
            checked |= set(frame["experiment"].unique())
    assert packs and checked == {path.parent.name for path in packs}


# ---------------------------------------------------------------------------------------------------------- README


def test_documents_have_what_a_user_needs():
    text = (ROOT / "README.md").read_text()
    assert all(f"\n{command} " in text for command in ("./run_all.sh", "./run_all.sh test", "./run_all.sh report"))
    text = (ROOT / "notebooks/README.md").read_text()
    assert all(f"`{name}`" in text for name in ("LTH_DATA", "LTH_RUNS", "LTH_ARCHIVE"))


def test_pyproject_needs_nothing_that_requirements_lack():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = {*project["dependencies"], *project["optional-dependencies"]["cluster"]}
    assert needs <= required()
    assert not [line for line in needs if "==" in line or "<" in line], "ranges without pins or upper bounds"


def required():
    """The lines of requirements.txt without their comments."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines())
    return set(filter(None, lines))


def test_the_lock_holds_a_version_of_every_package_that_its_range_allows():
    from packaging.requirements import Requirement

    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]  # no option, no address of an index
    for wanted in map(Requirement, required()):
        found = [str(pin.specifier) for pin in pins if pin.name == wanted.name]
        assert found and all(wanted.specifier.contains(pin.removeprefix("==")) for pin in found), (wanted, found)
    assert all(str(pin.specifier).startswith("==") and not pin.url for pin in pins)


def test_committed_figures_are_complete():
    """Each committed picture has its svg, its table and its provenance, at the committed scale."""
    for picture in sorted((ROOT / "figures").glob("fig*.png")):
        assert picture.with_suffix(".svg").exists()
        assert len(picture.with_suffix(".csv").read_text().splitlines()) > 2
        facts = json.loads(picture.with_suffix(".json").read_text())
        assert facts["config"]["preset"] == "report"
        assert facts["levels"] == facts["levels_expected"]
