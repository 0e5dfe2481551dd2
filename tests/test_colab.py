"""A machine as Colab is: its versions of what the pages and tables depend on, no papermill, the setup cell's own steps.

Colab's published list (August 2026) has pandas 2.2.3, numpy 2.1.3 and ipywidgets 7.7.1. Torch is that of the
environment that runs the tests, and so is Python.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
from packaging.requirements import Requirement
from tools import refresh

from lthcore.runs import download

ROOT = Path(__file__).resolve().parents[1]
COLAB = {"pandas": "2.2.3", "numpy": "2.1.3", "ipywidgets": "7.7.1"}
LINKED = ("torchvision", "ipykernel", "nbclient", "matplotlib", "seaborn", "scipy")  # not copied: torch alone is 5 GB
EXECUTE = """import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
for cell in notebook.cells:
    cell.metadata.pop("tags", None)  # widget cells are run as well
NotebookClient(notebook, kernel_name="python3", timeout=600).execute()
print([o.get("text", o) for c in notebook.cells for o in c.get("outputs", ()) if o.get("name") == "stderr"])
"""


def needed_by(name, extras=(), found=None):
    """A distribution and all that it needs here, with what its extras need: dict of Distribution by (name, extra)."""
    found = {} if found is None else found
    for extra in ("", *extras):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if (distribution.name, extra) not in found:
            found[distribution.name, extra] = distribution
            for needed in map(Requirement, distribution.requires or ()):
                if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                    needed_by(needed.name, tuple(needed.extras), found)
    return found


def written_since(begun, folders):
    """Files in these folders that are newer, but for Python's own caches."""
    every = (Path(root) / name for folder in folders for root, _, names in os.walk(folder) for name in names)
    return [path for path in every if "__pycache__" not in path.parts and path.lstat().st_ctime > begun]


def run(*command, **more):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """(python, environment, folder of the clone) of such a machine after the setup cell."""
    home = tmp_path_factory.mktemp("colab")
    run(sys.executable, "-m", "venv", home / "venv")
    python = home / "venv" / "bin" / "python"
    there = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    begun, links = time.time(), []
    linked = {}
    for name in LINKED:
        needed_by(name, found=linked)
    for distribution in linked.values():
        if distribution.name.lower() in (*COLAB, "pip", "setuptools"):
            continue
        for top in {Path(file).parts[0] for file in distribution.files or () if ".." not in Path(file).parts}:
            source = Path(distribution.locate_file(top))
            if source.exists() and not (there / top).exists() and top != "__pycache__":
                (there / top).symlink_to(source)
                links.append(source)
    known = [f"{name}=={version}" for name, version in COLAB.items()]
    run(python, "-m", "pip", "install", "--quiet", "--no-compile", *known)
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "MPLBACKEND")}
    environment |= {"PATH": f"{python.parent}{os.pathsep}{environment['PATH']}", "LTH_RUNS": str(home / "runs")}
    environment |= {"PIP_NO_COMPILE": "1"}  # a minute's work for modules that nothing here imports
    environment |= {"LTH_DATA": str(download.fetch()), "LTH_ARCHIVE": str(home / "none")}
    steps = []
    shell = SimpleNamespace(system=steps.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        exec(refresh.setup_cell().partition("found =")[0], {"get_ipython": lambda: shell})
    assert len(steps) == 3
    for step in steps:
        step = re.sub(r"https://\S+", f"file://{ROOT}", step.replace("/content", str(home)))
        run("bash", "-c", step, env=environment)
    assert not written_since(begun, links), "pip has written through a link, into the environment of these tests"
    yield python, environment, home / "lth-study"
    shutil.rmtree(home)  # tens of thousands of files


@pytest.mark.slow
def test_the_setup_cell_moves_nothing_and_brings_no_papermill(colab):
    python, environment, clone = colab
    listed = run(python, "-m", "pip", "list", "--format=freeze", env=environment).lower()
    for name, version in COLAB.items():
        assert f"{name}=={version}\n" in listed
    assert f"torch=={importlib.metadata.version('torch').lower()}\n" in listed
    assert "papermill==" not in listed
    where = run(python, "-c", "import lthcore; print(lthcore.__file__)", env=environment, cwd=clone.parent)
    assert Path(where.strip()).is_relative_to(clone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["02_task1_data_halves", "00_scorecard", "05_explorer"])
def test_a_notebook_runs_there_widgets_too(colab, name):
    python, environment, clone = colab
    notebook = nbformat.read(clone / "notebooks" / f"{name}.ipynb", 4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    cell.source = re.sub(r'preset: str = "\w+"', 'preset: str = "smoke"', cell.source)
    copy = clone.parent / f"{name}.ipynb"
    nbformat.write(notebook, copy)
    said = run(python, "-c", EXECUTE, copy, env=environment, cwd=clone / "notebooks", stdin=subprocess.DEVNULL)
    assert said.strip() == "[]", said
