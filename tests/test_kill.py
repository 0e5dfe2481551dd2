"""Killed, and two at once: the short form of tests/tools/kill.py."""

import signal
import sys
from collections import Counter

import pytest
from kill import Place, cases, go_through, numbers, wait_until

from lthcore.disk.files import LOCK

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and PR_SET_PDEATHSIG")]


def test_nothing_is_lost_whenever_it_is_killed(tmp_path):
    said = []
    assert go_through(cases(6), 0, tmp_path, said.append) == [], "\n".join(said)
    assert said[-1] == "6 kills, 0 losses"


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one run finds that nothing disturbs."""
    place = Place(tmp_path_factory.mktemp("kill") / "alone", "sweep")
    assert place.run()[0] == []
    return numbers(place.runs)


@pytest.mark.parametrize("kill", [False, True])
def test_two_runs_at_once_on_one_store_train_each_level_once(tmp_path, alone, kill):
    two = [Place(tmp_path / name, "sweep", held=1) for name in ("one", "other")]  # long enough to meet
    two[1].runs = two[0].runs
    for place in two:
        place.start()
    if kill:
        assert wait_until(lambda: two[0].seen("train"), 300)
        two[0].process.send_signal(signal.SIGKILL)
    for place in two:
        assert wait_until(place.ended, 600) and (place.stopped or (kill and place is two[0])), place.said.read_text()
    trained = [Counter(detail for phase, _, detail in p.announcements() if phase == "train") for p in two]
    again = sum(sum(trained, Counter()).values()) - 9  # two of the ten levels are one dense network
    assert again <= 2 if kill else again == 0, trained
    assert all(trained), "one of them did all"
    said = "".join(place.said.read_text() for place in two)
    assert kill or ("another run is training it" in said and "found finished" in said)  # the killed one may hold none
    assert numbers(two[0].runs) == alone
    assert not list(two[0].runs.rglob(LOCK)) and (kill or not list(two[0].runs.rglob(".*.aside")))
