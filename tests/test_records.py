"""The records of the studies: one file each, complete, and read without any package."""

import subprocess
import sys

import pytest

from lthcore import config, studies
from lthcore.results import figures
from lthcore.runs import presets, store
from lthcore.runs.presets import PRESETS, configure
from lthcore.studies import REGISTRY, experiments
from lthcore.studies.record import GROUPS

FOLDER = store.ROOT / "lthcore" / "studies"


def test_importing_them_needs_no_package():
    """So --help and --check know them where nothing is installed."""
    code = f"import sys; sys.path.insert(0, {str(store.ROOT)!r}); import lthcore.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "lthcore" in loaded and not {"numpy", "pandas", "matplotlib", "torch", "scipy"} & loaded


def test_there_is_one_registry_of_them_and_old_names_lead_to_it():
    assert config.EXPERIMENTS is presets.EXPERIMENTS is REGISTRY
    assert config.configure is configure and config.PRESETS is PRESETS
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = config.nonsense
    assert studies.names("report") == ["mlp", "lenet5", "task1", "task2", "task3"]
    assert sorted(studies.names(*GROUPS)) == sorted(REGISTRY) and not studies.names("own")


@pytest.mark.parametrize("name", REGISTRY)
def test_a_record_is_complete(name):
    record = REGISTRY[name]
    assert record.name == name and record.title and record.figures
    assert (store.ROOT / "notebooks" / f"{record.notebook}.ipynb").is_file()
    for preset in PRESETS:
        settings = configure(name, preset)
        units = experiments.study(name, preset).units
        assert units and presets.changes(settings) == {}
        assert all(getattr(settings, setting) == record.settings[setting] for setting in record.fixed)
    for label, colour, marker in record.styles.values():
        assert label and colour in figures.OKABE_ITO and marker


@pytest.mark.parametrize("name", REGISTRY)
def test_what_differs_is_all_that_is_written(name):
    """A setting that equals the default, or a preset's that equals the scale of the preset, says nothing."""
    record = REGISTRY[name]
    for preset, given in record.presets.items():
        settings = {**record.settings, **PRESETS[preset]}
        assert not [setting for setting, value in given.items() if settings.get(setting) == value]


def test_names_are_given_once():
    drawn = [figure for record in REGISTRY.values() for figure in record.figures]
    claimed = [claim.id for record in REGISTRY.values() for claim in record.claims]
    copies = [record.copy or record.notebook for record in REGISTRY.values()]
    for given in (drawn, claimed, copies):
        assert len(set(given)) == len(given)


def test_an_arm_looks_the_same_in_every_study():
    looks = {}
    for record in REGISTRY.values():
        for arm, style in record.styles.items():
            assert looks.setdefault(arm, style) == style


def test_no_module_of_theirs_is_long():
    assert all(len(path.read_text().splitlines()) <= 500 for path in FOLDER.glob("*.py"))
