"""How a run tells how far it is: a bar on a terminal and in a live notebook, lines elsewhere."""

import io
import os
import re
import sys
from types import SimpleNamespace

import pytest

from lthcore.runs import progress, queue, sweep
from lthcore.studies import experiments


class Terminal(io.StringIO):
    def isatty(self):
        return True


def on_a_terminal(patch):
    """What is written from now on, as on a terminal."""
    out = Terminal()
    patch.setattr(sys, "stdout", out)  # by the test itself: between fixtures and test pytest puts its own there
    patch.setenv("TERM", "xterm")
    return out


def kernel(monkeypatch, metadata):
    """A stand-in for IPython in a kernel, whose cell was sent with these metadata."""
    shell = SimpleNamespace(kernel=SimpleNamespace(get_parent=lambda channel: {"metadata": metadata}))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))


def test_a_bar_on_a_terminal_and_lines_elsewhere(monkeypatch):
    on_a_terminal(monkeypatch)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert isinstance(progress.shown(), progress.Bar)
    assert not isinstance(progress.shown(verbose=True), progress.Bar)
    monkeypatch.setenv("TERM", "dumb")
    assert not isinstance(progress.shown(), progress.Bar)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not isinstance(progress.shown(), progress.Bar)


@pytest.mark.parametrize(
    ("metadata", "bar"), [({"cellId": "a", "deletedCells": []}, True), ({}, False), ({"other": 1}, False)]
)
def test_a_bar_in_a_live_notebook_and_lines_in_an_executed_copy(monkeypatch, metadata, bar):
    kernel(monkeypatch, metadata)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert isinstance(progress.shown(), progress.Bar) == bar


def test_a_kernel_that_says_nothing_of_itself_has_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=None)))
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not isinstance(progress.shown(), progress.Bar)


def test_the_bar_counts_levels_and_says_accuracy_and_time(monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    bar = progress.Bar()
    bar("before")
    for n in (1, 2, 3):
        bar.level(n, 3, f"{3 - n} s", f"mlp ticket r0 level {n}: test accuracy 9{n}.00%")
        if n == 1:
            bar("in between")
    assert bar.bar is None  # it has ended by itself
    bar("after")
    text = terminal.getvalue()
    states = re.findall(r"\r([^\r\n]*levels [^\r\n]*)", text)
    assert "3/3 levels" in states[-1] and "0 s left" in states[-1] and "level 3: test accuracy 93.00%" in states[-1]
    assert any("1/3 levels" in state and "2 s left" in state for state in states)
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    assert "before" in lines and "in between" in lines and "after" in lines


@pytest.mark.slow
def test_a_run_on_a_terminal_is_one_line_that_moves_and_says_what_it_costs_before(folders, monkeypatch):
    terminal = on_a_terminal(monkeypatch)
    monkeypatch.setattr(queue, "LONG", -1)
    monkeypatch.setattr(queue, "engine_is_compiled", lambda: False)
    small = {"rounds": 1, "max_steps": 2, "test_images": 50, "validation": 0.02}
    study = experiments.study("mlp", "smoke", controls=False, overrides=small)
    experiments.run(study, workers=1)
    text = terminal.getvalue()
    cost, bar = text.index("this will take about"), text.index("levels |")
    assert text.index("compiling the engine: about a minute, once") < cost < bar
    assert "the preset quick" in text[cost:bar] and "test accuracy" in text[bar:]
    assert len([line for line in text.split("\n") if "test accuracy" in line]) == 1
    assert "trained " in text.splitlines()[-1]


def test_an_interrupted_run_ends_its_bar(folders, monkeypatch):
    terminal = on_a_terminal(monkeypatch)

    def interrupted(units, device, workers, log, scheduler):
        log.level(1, 3, "2 s", "words")
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        experiments.run(experiments.study("mlp", "smoke"))
    assert terminal.getvalue().endswith("\n")


def test_whether_the_engine_is_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "ENGINE", tmp_path / "engines" / "sparse.py")
    monkeypatch.setattr(progress.Path, "home", lambda: tmp_path / "home")
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    progress.ENGINE.parent.mkdir()
    progress.ENGINE.touch()
    assert not progress.engine_is_compiled()
    for place in (tmp_path / "engines/__pycache__", tmp_path / "home/.cache/numba/x", tmp_path / "given/x"):
        if "given" in str(place):
            monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "given"))
        kept = place / "machine-code" / "sparse._adam-550.py311.6bcb.nbc"
        kept.parent.mkdir(parents=True)
        kept.touch()
        assert progress.engine_is_compiled()
        os.utime(kept, (0, 0))
        assert not progress.engine_is_compiled()
