"""What all tests share."""

import contextlib

import pytest
import torch
from helpers import train

from lthcore.runs import formats, store

torch.set_num_threads(1)  # as in the study itself: these networks gain nothing from a second thread


@contextlib.contextmanager
def _folders_in(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTH_RUNS", str(folder / "runs"))
        patch.setenv("LTH_ARCHIVE", str(folder / "archive"))
        patch.setattr(store, "FIGURES", folder / "figures")
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
