"""What all tests share."""

import contextlib
import os
import sys

import pytest
import torch
from helpers import train
from stand_ins import fresh as fresh  # fixtures, here for all
from stand_ins import queue as queue

from lthcore.runs import formats, store
from lthcore.studies import REGISTRY

torch.set_num_threads(1)  # as in the study itself: these networks gain nothing from a second thread


# Groups of tests that take longest, longest first: begun last, one of them would leave a process waiting for the other
FIRST = ("test_documentation", "test_browser", "test_kill", "test_cluster", "test_takes", "test_gpu", "test_colab")
SEPARATE = {  # tests that may run in another process than those beside them (groups are not kept by pytest 9.2)
    "test_what_is_accepted_ends_well_and_is_shown",
    "test_a_server_answers_and_ends",
    "test_the_lines_for_slurm",
    "test_every_setting_works_to_the_end_beside_others",
}


def pytest_configure(config):
    config.option.loadscopereorder = False  # pytest-xdist begins with what is collected first


@pytest.hookimpl(optionalhook=True)  # without pytest-xdist there is nothing to hand out
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay together in one process, but for those that need nothing of each other's."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path, _, test = nodeid.partition("::")
            return nodeid if test.partition("[")[0] in SEPARATE else path

    return ByFile(config, log)


def pytest_collection_modifyitems(items):
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: FIRST.index(item.path.stem) if item.path.stem in FIRST else len(FIRST))


def _of_the_process():
    """What a test shares with those that come after it in the same process, whichever these are."""
    return {
        "numbers that underflow are zero": torch.tensor(1e-39).mul(0.5).item() == 0,
        "threads of torch": torch.get_num_threads(),
        "folder": os.getcwd(),
        "variables": {name: value for name, value in os.environ.items() if name.startswith("LTH_")},
    }


@pytest.fixture(autouse=True)
def as_it_was():
    """Fails a test that leaves the process other than it was: the next would fail in its place."""
    before, known = _of_the_process(), dict(REGISTRY)
    yield
    REGISTRY.clear()
    REGISTRY.update(known)  # without the studies that the test wrote
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
    after = _of_the_process()
    assert after == before, {name: value for name, value in after.items() if value != before[name]}


@contextlib.contextmanager
def _folders_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTH_RUNS", str(folder / "runs"))
        patch.setenv("LTH_ARCHIVE", str(folder / "archive"))
        patch.setattr(store, "FIGURES", folder / "figures")
        patch.setattr(os, "fsync", lambda file: None)  # no power fails here, and a level waits for it six times
        formats.read_pack.cache_clear()
        yield folder
    formats.read_pack.cache_clear()


@pytest.fixture
def folders(tmp_path):
    """Store, archive and figures in a folder of the test's own."""
    with _folders_in(tmp_path):
        yield tmp_path


@pytest.fixture(scope="module")
def module_folders(tmp_path_factory):
    """The same for the tests of a module together."""
    with _folders_in(tmp_path_factory.mktemp("module")) as folder:
        yield folder


@pytest.fixture(scope="session")
def finish():
    """Trains a study here, without processes."""

    return train
