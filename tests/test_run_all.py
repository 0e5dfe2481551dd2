"""run_all.sh: which Python it uses, what it installs there, and what it hands on; in a checkout of stand-ins.

The environments are real ones without packages; what they have is said by metadata alone, and their pip writes down
what it is asked for.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ("bash", "cat", "cut", "dirname", "grep", "mktemp", "readlink", "rm", "sh", "tail", "touch", "tr")
NEEDED = dict(re.findall(r"^([\w-]+)>=([\d.]+)", (ROOT / "requirements.txt").read_text(), re.M))
STUDY = """import json, os, sys, lthcore
if "--check" in sys.argv:
    sys.exit("run_all.sh: refused" if "bad" in sys.argv else 0)
names = ("VIRTUAL_ENV", "LTH_RUNS", "LTH_ARCHIVE", "LTH_DATA", "PYTHONPATH")
said = {name: os.environ.get(name) for name in names}
print(json.dumps({**said, "prefix": sys.prefix, "lthcore": lthcore.__file__, "arguments": sys.argv[1:]}))
"""
PIP = """import json, os, pathlib, sys
asked = sys.argv[1:]
if asked == ["--version"]:
    sys.exit()
log = pathlib.Path(__file__).with_name("log")
kept = pathlib.Path(asked[asked.index("--constraint") + 1]).read_text() if "--constraint" in asked else ""
wanted = pathlib.Path(asked[asked.index("--requirement") + 1]).read_text() if "--requirement" in asked else ""
before = json.loads(log.read_text()) if log.exists() else []
log.write_text(json.dumps([*before, {"asked": asked, "kept": kept, "wanted": wanted}]))
if pathlib.Path(__file__).with_name("fails").exists():
    sys.exit("Collecting\\nERROR: No matching distribution found for numba>=0.61")
"""
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs bash")


class Place:
    """A checkout, another folder where the user stands, and the tools on PATH."""

    def __init__(self, folder):
        self.checkout, self.here, self.tools = folder / "study", folder / "here", folder / "bin"
        for each in (self.checkout / "lthcore", self.here, self.tools):
            each.mkdir(parents=True)
        for name in ("run_all.sh", "requirements.txt", "requirements.lock"):
            shutil.copy(ROOT / name, self.checkout)
        (self.checkout / "lthcore/__init__.py").touch()
        (self.checkout / "lthcore/__main__.py").write_text(STUDY)
        for name in TOOLS:
            (self.tools / name).symlink_to(shutil.which(name))

    def tool(self, name, *lines):
        """Put a shell script on PATH."""
        (self.tools / name).write_text("\n".join(["#!/bin/sh", *lines]))
        (self.tools / name).chmod(0o755)

    def environment(self, folder, lacks=(), versions=None, pip=True, study=True):
        """Make an environment that has all but a few of requirements.txt, and lthcore as installed from a checkout."""
        venv.create(folder, with_pip=False, symlinks=True)
        (site,) = folder.glob("lib/python*/site-packages")
        for name, version in {**NEEDED, **(versions or {})}.items():
            if name not in lacks:
                facts = site / f"{name.replace('-', '_')}-{version}.dist-info"
                facts.mkdir()
                (facts / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n")
        if study:
            (site / "study.pth").write_text(str(self.checkout if study is True else study))
        if pip:
            (site / "pip").mkdir()
            (site / "pip/__init__.py").touch()
            (site / "pip/__main__.py").write_text(PIP)
        return folder

    def run(self, *arguments, **variables):
        """Call run_all.sh from where the user stands: (what the study says of itself, lines on standard error)."""
        done = self.call(*arguments, **variables)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1]), done.stderr.splitlines()

    def call(self, *arguments, **variables):
        variables = {"PATH": str(self.tools), "HOME": str(self.here), **{k: str(v) for k, v in variables.items()}}
        command = [self.tools / "bash", self.checkout / "run_all.sh", *arguments]
        return subprocess.run(command, cwd=self.here, env=variables, capture_output=True, text=True, timeout=100)


def asked(environment):
    """What an environment's pip was asked for, call by call: list of dict, or None."""
    found = list(environment.glob("lib/python*/site-packages/pip/log"))
    return json.loads(found[0].read_text()) if found else None


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path.resolve())


# ------------------------------------------------------------------------------------------------- which Python is used


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_is_used_whatever_path_says(place, variable):
    active = place.environment(place.here / "my env")
    said, errors = place.run("smoke", **{variable: active})
    assert (said["prefix"], said["VIRTUAL_ENV"], errors) == (str(active), str(active), []) and asked(active) is None
    said, _ = place.run("smoke", **{variable: "my env"})  # relative to where the user stands
    assert said["prefix"] == str(active)


LEFT = {
    "gone": lambda folder: None,
    "a file": lambda folder: folder.write_text(""),
    "no python": lambda folder: (folder / "bin").mkdir(parents=True),
    "a python that is gone": lambda folder: ((folder / "bin").mkdir(parents=True), link(folder, "/gone/python3")),
    "a python that fails": lambda folder: ((folder / "bin").mkdir(parents=True), link(folder, shutil.which("false"))),
    "not to be executed": lambda folder: ((folder / "bin").mkdir(parents=True), (folder / "bin/python").touch()),
    "Python 3.10": lambda folder: pretend(folder / "bin", "python", (3, 10, 4)),
    "Python 3.15": lambda folder: pretend(folder / "bin", "python", (3, 15, 0)),
}


def link(folder, target):
    (folder / "bin/python").symlink_to(target)


def pretend(folder, name, version):
    """A Python that says it is of a version."""
    folder.mkdir(parents=True, exist_ok=True)
    code = f"import sys; sys.version_info = {version}; exec(sys.argv[1])"
    lines = ["#!/bin/sh", f'[ "$1" = --version ] && echo "Python {".".join(map(str, version))}" && exit']
    lines += [f'[ "$1" = -m ] && exec {sys.executable} "$@"', f"exec {sys.executable} -c '{code}' \"$2\""]
    (folder / name).write_text("\n".join(lines))
    (folder / name).chmod(0o755)


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
@pytest.mark.parametrize("what", LEFT)
def test_a_variable_left_from_elsewhere_is_not_believed(place, variable, what):
    environment = place.environment(place.checkout / ".venv")
    LEFT[what](place.here / "left")
    said, errors = place.run("smoke", **{variable: place.here / "left"})
    assert errors == [f"run_all.sh: {variable} = {place.here / 'left'} is ignored: no Python 3.11 to 3.14 runs there"]
    assert said["prefix"] == said["VIRTUAL_ENV"] == str(environment)


def test_of_two_environments_the_one_on_path_is_meant(place):
    one, two = place.environment(place.here / "one"), place.environment(place.here / "two")
    for first, expected in ((one, one), (two, two), (place.here, one)):
        path = f"{first / 'bin'}:{place.tools}"
        assert place.run(VIRTUAL_ENV=one, CONDA_PREFIX=two, PATH=path)[0]["prefix"] == str(expected)
    assert place.run(VIRTUAL_ENV=place.here / "gone", CONDA_PREFIX=two)[0]["prefix"] == str(two)


def test_a_venv_that_does_not_run_is_named_and_kept(place):
    pretend(place.tools, "python3", (3, 12, 1))
    (place.checkout / ".venv/bin").mkdir(parents=True)
    link(place.checkout / ".venv", "/gone/python3")
    done = place.call("smoke")
    message = "run_all.sh: .venv has no working Python 3.11 to 3.14: remove it, and it is made again\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)
    assert (place.checkout / ".venv/bin/python").is_symlink()
    assert place.call("--help").returncode == 0  # by the Python on PATH


def test_a_python_without_venv_is_named_or_uv_makes_it(place):
    pretend(place.tools, "python3", (3, 12, 1))
    script = (place.tools / "python3").read_text().replace("#!/bin/sh", '#!/bin/sh\ncase "$2" in venv) exit 1;; esac')
    (place.tools / "python3").write_text(script)
    done = place.call("smoke")
    assert done.returncode == 1 and "apt install python3-venv" in done.stderr.splitlines()[-1]
    made = place.environment(place.here / "made")
    place.tool("uv", f'[ "$1" = venv ] && exec {shutil.which("cp")} -a {made} .venv', 'echo "$@" >uv.log')
    assert place.run("smoke")[0]["prefix"] == str(place.checkout / ".venv")


# ---------------------------------------------------------------------------------------------- what is installed there


def test_what_an_environment_lacks_is_installed_and_the_rest_stays(place):
    active = place.environment(place.here / "env", lacks=("papermill",), versions={"torch": "2.14.1+cpu"})
    place.run("smoke", VIRTUAL_ENV=active)
    packages, study = asked(active)
    assert packages["wanted"] == f"papermill>={NEEDED['papermill']}\n" and study["asked"][-2:] == ["--editable", "."]
    assert {"torch==2.14.1+cpu", f"pandas=={NEEDED['pandas']}"} <= set(packages["kept"].split())
    assert "papermill" not in packages["kept"]


def test_lthcore_is_installed_where_it_alone_is_lacking(place):
    active = place.environment(place.here / "env", study=False)
    said, errors = place.run("smoke", VIRTUAL_ENV=active)
    assert [call["asked"] for call in asked(active)] == [["install", "--quiet", "--no-deps", "--editable", "."]]
    assert errors == []
    assert said["lthcore"] == str(place.checkout / "lthcore/__init__.py")


def test_a_dry_run_installs_nothing(place):
    active = place.environment(place.here / "env", study=False)
    assert place.run("smoke", "--dry-run", VIRTUAL_ENV=active)[0]["arguments"] == ["smoke", "--dry-run"]
    other = place.environment(place.here / "other", lacks=("papermill",))
    assert place.call("smoke", "--dry-run", VIRTUAL_ENV=other).stdout.startswith("would first set up: install req")
    assert asked(active) is asked(other) is None


@pytest.mark.parametrize("value", ["bad"])
def test_what_is_refused_is_refused_before_anything_is_installed(place, value):
    for lacks in ((), ("papermill",)):
        active = place.environment(place.here / f"env{len(lacks)}", lacks=lacks, study=False)
        done = place.call("smoke", value, VIRTUAL_ENV=active)
        assert (done.returncode, done.stdout, done.stderr) == (1, "", "run_all.sh: refused\n") and asked(active) is None


def test_another_checkouts_lthcore_is_said_and_not_used(place, tmp_path):
    other = tmp_path / "other"
    (other / "lthcore").mkdir(parents=True)
    (other / "lthcore/__init__.py").touch()
    active = place.environment(place.here / "env", study=other)
    said, (line,) = place.run("smoke", VIRTUAL_ENV=active)
    assert line == f"run_all.sh: the lthcore of {active} is that of {other}; this run uses that of {place.checkout}"
    assert said["lthcore"] == str(place.checkout / "lthcore/__init__.py") and asked(active) is None


def test_what_is_too_old_is_named_where_nothing_moves(place):
    old = {"torch": "2.5.1+cu121", "pandas": "1.5", "numpy": NEEDED["numpy"] + ".0"}
    active = place.environment(place.here / "env", versions=old)
    done = place.call("smoke", VIRTUAL_ENV=active)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "torch 2.5.1+cu121 (torch>=2.6), pandas 1.5 (pandas>=2.2) is too old" in line
    assert "numpy" not in line and asked(active) is None
    environment = place.environment(place.checkout / ".venv", versions=old)
    place.run("smoke")  # what the study made may move
    assert asked(environment)[0]["kept"] == (ROOT / "requirements.lock").read_text()
    assert asked(environment)[0]["wanted"] == (ROOT / "requirements.txt").read_text()


COLAB = {"filelock": "3.16.1", "jupyter-server": "2.14.0", "jupyterlab": "4.6.2", "pytest": "8.4.2", "numba": "0.61.2"}


@pytest.mark.parametrize("lacks", [(), ("papermill",)])
def test_what_is_under_an_advisory_is_named_and_used_where_nothing_moves(place, lacks):
    active = place.environment(place.here / "env", lacks=lacks, versions=COLAB)
    _, (line,) = place.run("smoke", VIRTUAL_ENV=active)
    for name, version in COLAB.items():
        assert (f"{name} {version} (" in line) == (name != "numba")
    assert line.startswith(f"run_all.sh: in {active} ") and "has known security flaws" in line
    if lacks:
        packages, _ = asked(active)
        assert "filelock==3.16.1" in packages["kept"] and packages["wanted"].startswith("papermill>=")
    else:
        assert asked(active) is None


def test_what_is_under_an_advisory_is_replaced_in_the_studys_own_environment(place):
    environment = place.environment(place.checkout / ".venv", versions=COLAB)
    assert place.run("smoke")[1] == [] and asked(environment)[0]["kept"] == (ROOT / "requirements.lock").read_text()


def test_the_latest_packages_are_for_the_studys_own_environment(place):
    environment = place.environment(place.checkout / ".venv")
    assert place.run("smoke", "--latest", "--verbose")[0]["arguments"] == ["smoke", "--verbose"]
    packages, _ = asked(environment)
    assert packages["asked"] == ["install", "--quiet", "--upgrade", "--requirement", "requirements.txt"]
    active = place.environment(place.here / "env")
    done = place.call("smoke", "--latest", VIRTUAL_ENV=active)
    assert done.returncode == 1 and asked(active) is None
    assert done.stderr == (
        f"run_all.sh: --latest is for .venv: {active} is not the study's, update it there or deactivate it\n"
    )


def test_what_cannot_be_installed_is_named_last(place):
    active = place.environment(place.here / "env", lacks=("numba",))
    next(active.glob("lib/python*/site-packages/pip")).joinpath("fails").touch()
    done = place.call("smoke", VIRTUAL_ENV=active)
    last = done.stderr.splitlines()[-1]
    version = ".".join(map(str, sys.version_info[:3]))
    assert done.returncode == 1 and last.startswith(
        f"run_all.sh: requirements.txt cannot be installed with Python {version}"
    )
    assert last.rstrip().endswith("No matching distribution found for numba>=0.61")


@pytest.mark.parametrize("lacks", [(), ("papermill",)])
def test_uv_installs_where_there_is_no_pip(place, lacks):
    active = place.environment(place.here / "env", lacks=lacks, pip=False, study=False)
    place.tool("uv", f'echo "$@" >>{place.here}/uv.log')
    place.run("smoke", VIRTUAL_ENV=active)
    command = (place.here / "uv.log").read_text().split()
    assert command[:5] == ["pip", "install", "--quiet", "--python", str(active / "bin/python")]
    assert command[-2:] == ["--editable", "."] and ("--requirement" in command) == bool(lacks)


@pytest.mark.slow
def test_pip_is_made_where_there_is_neither(place):
    """Python's own ensurepip makes it; this checkout cannot be installed, and the run goes on."""
    active = place.environment(place.here / "env", pip=False, study=False)
    said, errors = place.run("smoke", VIRTUAL_ENV=active)
    assert len(errors) == 1 and errors[0].startswith("run_all.sh: lthcore cannot be installed (")
    assert said["prefix"] == str(active) and list(active.glob("lib/python*/site-packages/pip/__init__.py"))


# --------------------------------------------------------------------------------------------------- what is handed on


def test_folders_are_relative_to_where_the_user_stands(place):
    active = place.environment(place.here / "env")
    given = {"LTH_RUNS": "my runs", "LTH_DATA": "../x/./y", "LTH_ARCHIVE": "/else/where"}
    said, _ = place.run("smoke", VIRTUAL_ENV=active, **given)
    assert said["LTH_RUNS"] == str(place.here / "my runs") and said["LTH_ARCHIVE"] == "/else/where"
    assert os.path.normpath(said["LTH_DATA"]) == str(place.here.parent / "x/y")
    said, _ = place.run("smoke", VIRTUAL_ENV=active, LTH_RUNS="~/runs", LTH_DATA="")
    assert (said["LTH_RUNS"], said["LTH_DATA"], said["LTH_ARCHIVE"]) == ("~/runs", "", None)


def test_nothing_of_the_users_hides_the_study(place):
    """Neither what lies where the user stands, nor what is installed or on PYTHONPATH under the same names."""
    active = place.environment(place.here / "env")
    (site,) = active.glob("lib/python*/site-packages")
    for folder in (place.here, site, place.here / "path"):
        for name in ("lthcore", "notebooks"):
            (folder / name).mkdir(parents=True)
            (folder / name / "__init__.py").write_text("raise SystemExit('the wrong one')")
    for more in ({}, {"PYTHONPATH": place.here / "path"}, {"PYTHONPATH": "."}, {"PYTHONSAFEPATH": "1"}):
        said, _ = place.run("smoke", VIRTUAL_ENV=active, CDPATH="/", **more)
        assert said["lthcore"] == str(place.checkout / "lthcore/__init__.py")


def test_a_link_to_the_script_leads_to_its_checkout(place):
    active = place.environment(place.here / "env")
    (place.here / "commands").mkdir()
    (place.here / "commands/study").symlink_to("../again")  # relative to where the link lies
    (place.here / "again").symlink_to(place.checkout / "run_all.sh")
    environment = {"PATH": str(place.tools), "VIRTUAL_ENV": str(active), "LTH_RUNS": "mine"}
    command = [place.tools / "bash", "commands/study", "smoke"]
    done = subprocess.run(command, cwd=place.here, env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["lthcore"] == str(place.checkout / "lthcore/__init__.py")
    assert said["LTH_RUNS"] == str(place.here / "mine")


def test_arguments_arrive_as_they_were_given(place):
    active = place.environment(place.here / "env")
    arguments = ["lab", "--port", "9999", "--set", "levels=[0, 1]", "--only=task1", "", "a b", "*"]
    assert place.run(*arguments, VIRTUAL_ENV=active)[0]["arguments"] == arguments
