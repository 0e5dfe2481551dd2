"""Killed, and two at once: the short form of tests/kill.py."""

import sys

import pytest
from kill import Place, go_through, numbers, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, fork and PR_SET_PDEATHSIG"),
]


def test_nothing_is_lost_whenever_it_is_killed(tmp_path):
    said = []
    assert go_through(6, 0, tmp_path, said.append) == [], "\n".join(said)
    assert said[-1].startswith("6 kills, ") and said[-1].endswith(" 0 losses")


def test_two_runs_at_once_on_one_store_end_as_one(tmp_path):
    alone, one, other = (Place(tmp_path / name, "sweep") for name in ("alone", "one", "other"))
    other.runs = one.runs
    assert alone.run()[0] == "ok"
    for place in (one, other):
        place.start()
    for place in (one, other):
        assert wait_until(place.ended, 300) and place.status == 0, (place.folder / "said").read_text()
    assert numbers(one.runs) == numbers(alone.runs)
    assert not list(one.runs.rglob(".*.aside")) and not list(one.runs.rglob("*.bad-*"))
