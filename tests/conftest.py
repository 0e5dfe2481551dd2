"""What all tests share."""

import pytest
import torch

from lthcore import store

torch.set_num_threads(1)  # as in the study itself: these networks gain nothing from a second thread


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Store, archive and figures in a folder of the test's own."""
    monkeypatch.setenv("LTH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("LTH_ARCHIVE", str(tmp_path / "archive"))
    monkeypatch.setattr(store, "FIGURES", tmp_path / "figures")
    store._read_pack.cache_clear()
    yield tmp_path
    store._read_pack.cache_clear()
