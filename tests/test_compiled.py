"""Kept machine code: whatever happens to it, functions compute the same, and the next process finds it whole again."""

import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from lthcore.engines import compiled

ROOT = Path(__file__).resolve().parents[1]
SOURCE = """from lthcore.engines.compiled import compiled


@compiled
def double(x):
    return 2 * x
"""
RUN = "import sys; sys.path.insert(0, sys.argv[1]); from tiny import double; print(double(3), *double.stats.cache_hits)"
needs_owners = pytest.mark.skipif(not hasattr(os, "getuid"), reason="files have no owner here")


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A module of one function that compiles in no time: the folder that it lies in."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "tiny.py").write_text(SOURCE)
    return folder


def call(folder):
    """Import the module anew and call its function: whether the machine code was found."""
    spec = importlib.util.spec_from_file_location("tiny", folder / "tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.double(3) == 6
    return bool(module.double.stats.cache_hits)


def kept(folder):
    """The one file of machine code."""
    (path,) = folder.rglob("*.nbc")
    return path


def test_the_next_process_finds_it(tiny):
    assert not call(tiny)
    before = kept(tiny).read_bytes()
    assert call(tiny)
    assert kept(tiny).read_bytes() == before


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "executed")


def _directory(path):
    path.unlink()
    path.mkdir()
    (path / "something").touch()


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


def _link(target):
    def damage(path):
        path.unlink()
        path.symlink_to(target(path))

    return damage


DAMAGES = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut in its sum": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "cut behind its sum": lambda path: path.write_bytes(path.read_bytes()[:32]),
    "cut by a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "longer by a byte": lambda path: path.write_bytes(path.read_bytes() + b"."),
    "a bit turned": lambda path: path.write_bytes(path.read_bytes()[:-500] + b"\xff" + path.read_bytes()[-499:]),
    "garbage": lambda path: path.write_bytes(os.urandom(9000)),
    "zeros": lambda path: path.write_bytes(bytes(9000)),
    "text": lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb(path.parent / "executed"))),
    "a pickle behind the sum": lambda path: path.write_bytes(
        path.read_bytes()[: compiled.SUM] + pickle.dumps(Bomb(path.parent / "executed"))
    ),
    "a directory": _directory,
    "a dangling link": _link(lambda path: path.parent / "nowhere"),
    "a link to itself": _link(lambda path: path),
    "a pipe without a writer": _pipe,
    "without its folder": lambda path: shutil.rmtree(path.parent),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_machine_code_is_compiled_again_and_replaced(tiny, damage, capsys):
    call(tiny)
    DAMAGES[damage](kept(tiny))
    assert not call(tiny)
    assert call(tiny), "the damaged file is replaced"
    assert not list(tiny.rglob("executed")) and capsys.readouterr() == ("", "")


def test_what_does_not_become_a_function_is_compiled_again(tiny, monkeypatch):
    """A file whose sum fits and that numba cannot use after all."""
    call(tiny)
    with monkeypatch.context() as patch:
        patch.setattr(compiled.pickle, "loads", lambda content: ("not", "a result"))
        assert not call(tiny)
    assert call(tiny)


OTHERS = {
    "numba": (numba, "__version__", "0.0.1"),
    "llvmlite": (compiled.llvmlite, "__version__", "0.0.1"),
    "Python": (sys, "version", "3.11.0 (another build)"),
    "a vector library": (numba.config, "USING_SVML", "otherwise"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_machine_code_of_another_version_is_compiled_again(tiny, other, monkeypatch):
    call(tiny)
    monkeypatch.setattr(*OTHERS[other])
    assert not call(tiny)
    assert call(tiny)


def test_another_processor_has_files_of_its_own(tiny, monkeypatch):
    call(tiny)
    with monkeypatch.context() as patch:
        codegen = type(numba.core.registry.cpu_target.target_context.codegen())
        patch.setattr(codegen, "magic_tuple", lambda self: ("triple", "another processor", "+avx9"))
        assert not call(tiny)
    assert len(list(tiny.rglob("*.nbc"))) == 2
    assert call(tiny)


def test_what_is_no_source_is_not_read(tiny):
    call(tiny)
    (tiny / ".#tiny.py").symlink_to("an editor's lock, which leads nowhere")
    (tiny / "folder.py").mkdir()
    assert call(tiny)


def test_a_changed_source_is_compiled_again(tiny):
    call(tiny)
    for name, source in (("tiny.py", SOURCE.replace("2 * x", "x + x")), ("other.py", "what it calls may stand here")):
        (tiny / name).write_text(source)
        assert not call(tiny)
        assert call(tiny)


@needs_owners
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_to_is_neither_read_nor_written(tiny, mode, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    call(tiny)
    path = kept(tiny)
    path.parent.chmod(mode)
    path.write_bytes(before := path.read_bytes())
    assert not call(tiny)
    assert path.read_bytes() == before
    (elsewhere,) = (tmp_path / "home").rglob("*.nbc")
    assert elsewhere.parent.stat().st_mode & 0o777 == 0o700
    assert call(tiny), "found in the user's own folder"


@needs_owners
@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_read(tiny, which, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    call(tiny)
    os.chown(kept(tiny).parent if which == "folder" else kept(tiny), 12345, -1)
    assert not call(tiny)
    assert call(tiny)


@needs_owners
def test_a_file_that_others_can_write_to_is_replaced(tiny):
    call(tiny)
    kept(tiny).chmod(0o666)
    assert not call(tiny)
    assert call(tiny) and not kept(tiny).stat().st_mode & 0o022


def test_without_any_place_it_is_compiled_every_time(tiny, monkeypatch, tmp_path):
    """As in a read-only installation of a user without a home."""
    (tiny / "__pycache__").touch()
    (tmp_path / "home").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert not call(tiny)
    assert not call(tiny)


def test_a_read_only_installation_uses_the_home(tiny, monkeypatch, tmp_path):
    (tiny / "__pycache__").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    assert not call(tiny)
    assert call(tiny)


def test_a_full_disk_is_no_error(tiny, monkeypatch):
    def full(path, content, mode):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(compiled, "write", full)
        assert not call(tiny)
    assert not call(tiny)
    assert call(tiny)


def test_it_can_be_forgotten(tiny):
    call(tiny)
    spec = importlib.util.spec_from_file_location("tiny", tiny / "tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.double.recompile()
    assert not call(tiny)


@pytest.mark.slow
def test_without_numbas_compiler_the_engine_says_so_in_one_line():
    command = [sys.executable, "-c", "import lthcore.engines.sparse"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.stderr.splitlines()[-1].startswith("RuntimeError: NUMBA_DISABLE_JIT = 1: must be unset")


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["PYTHONDONTWRITEBYTECODE", "NUMBA_DISABLE_JIT", "NUMBA_CACHE_DIR"])
def test_in_processes_of_their_own(tiny, variable, tmp_path):
    value = str(tmp_path / "given") if variable == "NUMBA_CACHE_DIR" else "1"
    command = [sys.executable, "-W", "error", "-c", RUN, str(tiny)]
    if variable == "NUMBA_DISABLE_JIT":  # then it stays the function that it was
        command[4] = RUN.replace(", *double.stats.cache_hits", "")
    environment = os.environ | {"PYTHONPATH": str(ROOT), variable: value}
    said = [subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path) for _ in range(2)]
    assert [(done.returncode, done.stderr) for done in said] == [(0, ""), (0, "")]
    if variable == "NUMBA_DISABLE_JIT":
        assert [done.stdout for done in said] == ["6\n", "6\n"]
    else:
        assert [done.stdout for done in said] == ["6\n", "6 (int64,)\n"]
    assert bool(list((tmp_path / "given").rglob("*.nbc"))) == (variable == "NUMBA_CACHE_DIR")
