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

from lthcore.config import EXPERIMENTS, PRESETS, configure
from lthcore.methods import DATASETS, DataSet
from lthcore.runs import store
from lthcore.schedule import ARCHITECTURES, Architecture
from lthcore.studies import experiments
from lthcore.unit import Unit

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
    studies = [experiments.study(pack.parent.name, "report", replicates=replicate + 1)]
    studies += [experiments.study(name, "report") for name in EXPERIMENTS if name != pack.parent.name]
    units = [u for study in studies for u in study.units]  # of other studies too, which trained a chain more
    units = [u for u in units if u.replicate == replicate and u.config.experiment == pack.parent.name]
    there = {f"{u.key}/{level}": u.identity for u in units for level in u.levels}
    archived = {name: facts["identity"] for name, facts in levels_of(pack).items()}
    assert set(archived) <= set(there), "levels that belong to no study"
    assert archived == {name: there[name] for name in archived}
    assert set(archived) == set(there), "a pack of a replicate is complete"


def test_identities_need_no_torch():
    code = "import sys; from lthcore import experiments as e; e.study('transfer', 'report').units[0].key; "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=store.ROOT).returncode == 0


def keys_under_one_name(monkeypatch, setting, registry, records):
    """The keys of a unit whose model or data set is registered again and again under the same name."""
    keys = []
    for record in records:
        monkeypatch.setitem(registry, "own", record)
        unit = Unit(configure("task1", "smoke", **{setting: "own"}), "ticket", 0)
        assert json.loads(json.dumps(unit.identity)) == unit.identity  # as the store compares it
        keys.append(unit.key)
    return keys


def test_a_changed_model_has_other_levels_under_the_same_name(monkeypatch):
    plain = Architecture({"a": (30, 784), "b": (10, 30)})
    smaller = Architecture({"a": (20, 784), "b": (10, 20)})
    module = plain._replace(module="lthcore.models:Network")
    images = plain._replace(images=((1, 28, 28), (1, 14, 56)))  # what else it can read changes no number
    again = Architecture({"a": (30, 784), "b": (10, 30)})
    records = [plain, smaller, plain._replace(activation="tanh"), module, images, again]
    keys = keys_under_one_name(monkeypatch, "model", ARCHITECTURES, records)
    assert len(set(keys[:4])) == 4 and set(keys[4:]) == {keys[0]}


def test_a_changed_data_set_has_other_levels_under_the_same_name(monkeypatch):
    plain = DataSet("lthcore.runs.download:read_mnist", 6000, 1000, (0.5,), (0.25,))
    others = [{"train": 5000}, {"test": 900}, {"mean": (0.4,)}, {"std": (0.2,)}]
    records = [plain, *(plain._replace(**other) for other in others)]
    assert len(set(keys_under_one_name(monkeypatch, "dataset", DATASETS, records))) == 5


def test_a_built_in_name_that_is_registered_anew_has_other_levels(monkeypatch):
    before = Unit(configure("mlp", "smoke"), "ticket", 0).key
    monkeypatch.setitem(ARCHITECTURES, "mlp", ARCHITECTURES["mlp"]._replace(activation="tanh"))
    assert Unit(configure("mlp", "smoke"), "ticket", 0).key != before
