"""What is archived stays what it is: identities as they were when the archive was trained, and no level without a unit.

`golden/identities.csv` was written by commit 738f36e, by the code that trained the archive, for every unit of every
preset, replicates 0 to 14. New units may come; those there may not change.
"""

import csv
import hashlib
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lthcore.config import EXPERIMENTS, PRESETS
from lthcore.runs import store
from lthcore.studies import experiments

GOLDEN = Path(__file__).parent / "golden" / "identities.csv"
REPLICATES = 15
ARCHIVE = store.ROOT / "figures" / "archive"
PACKS = sorted(ARCHIVE.glob("*/r*.zip"))


def digests(preset, experiment):
    """Key of replicate 0 -> hash of what 15 replicates of a unit are identified by."""
    units = experiments.study(experiment, preset, replicates=REPLICATES).units
    by_replicate = [[unit for unit in units if unit.replicate == r] for r in range(REPLICATES)]
    found = {}
    for same in zip(*by_replicate, strict=True):
        digest = hashlib.sha256()
        for unit in same:
            digest.update(json.dumps([unit.identity, unit.dense, unit.key], sort_keys=True).encode())
        found[same[0].key] = digest.hexdigest()[:32]
    return found


@pytest.mark.parametrize("preset", PRESETS)
def test_identities_are_those_of_the_archive(preset):
    golden = {}
    for row in csv.DictReader(GOLDEN.open()):
        if row["preset"] == preset:
            golden.setdefault(row["experiment"], {})[row["key of replicate 0"]] = row["sha256 over replicates 0 to 14"]
    assert set(golden) <= set(EXPERIMENTS)
    for experiment, expected in golden.items():
        found = digests(preset, experiment)
        assert {key: found.get(key) for key in expected} == expected, experiment


def levels_of(pack):
    with zipfile.ZipFile(pack) as opened:
        return json.loads(opened.read("levels.json"))


@pytest.mark.parametrize("pack", PACKS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_archived_level_is_one_of_a_unit_and_has_its_identity(pack):
    replicate = int(pack.stem[1:])
    units = experiments.study(pack.parent.name, "report", replicates=replicate + 1).units
    there = {f"{u.key}/{level}": u.identity for u in units if u.replicate == replicate for level in u.levels}
    archived = {name: facts["identity"] for name, facts in levels_of(pack).items()}
    assert set(archived) <= set(there), "levels that belong to no study"
    assert archived == {name: there[name] for name in archived}
    assert set(archived) == set(there), "a pack of a replicate is complete"


def test_identities_need_no_torch():
    code = "import sys; from lthcore import experiments as e; e.study('transfer', 'report').units[0].key; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=store.ROOT).returncode == 0
