"""The explorer as one file: the committed page is the archive's, and a wheel holds its template."""

import json
import re
import tomllib
from functools import lru_cache

import pandas as pd
import pytest

from lthcore.explore import offline, panels
from lthcore.runs import store
from lthcore.studies import experiments

PAGE = store.ROOT / "figures" / offline.NAME


def content(page):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


@lru_cache
def committed():
    return content(PAGE.read_text())


def test_the_committed_page_is_what_the_archive_gives():
    """LeNet-5's part, which is read fastest, and all that is not data."""
    assert committed()["networks"][1] == json.loads(
        json.dumps(offline.network(experiments.load(experiments.study("lenet5", "report"))))
    )
    assert committed()["glossary"] == panels.GLOSSARY
    before, after = offline.TEMPLATE.read_text().split('"DATA"', 1)
    assert PAGE.read_text().startswith(before) and PAGE.read_text().endswith(after)


@pytest.mark.parametrize(
    ("place", "figure"), [(0, "fig1a_mlp_accuracy_vs_density"), (1, "fig2a_lenet5_accuracy_vs_density")]
)
def test_its_numbers_are_those_of_the_figures(place, figure):
    table = (
        pd.read_csv(store.ROOT / f"figures/{figure}.csv").query("panel == 'whole range'").set_index(["arm", "level"])
    )
    for name, arm in committed()["networks"][place]["arms"].items():
        drawn = table.loc[name].loc[arm["level"]]
        assert arm["n"] == drawn["n"].tolist() and arm["density"] == pytest.approx(drawn["density"].tolist())
        assert arm["accuracy"]["end"] == [pytest.approx(row, abs=6e-5) for row in drawn[["mean", "low", "high"]].values]


def test_its_masks_have_the_weights_that_their_layers_keep():
    for network in committed()["networks"]:
        first = next(iter(network["layers"]))
        for at in network["masks"].values():
            for mask in at.values():
                assert sum(mask["kept"]) == mask["layers"][first][0] and max(mask["kept"]) <= mask["most"]


def test_it_needs_no_network_and_is_small():
    template = offline.TEMPLATE.read_text()
    assert "default-src 'none'" in template
    assert not re.search(r"https?:|\bsrc=|\bhref=|@import|url\((?!#)|fetch\(|\bimport\b", template)
    assert PAGE.stat().st_size <= 6_000_000


def test_a_wheel_holds_the_template():
    given = tomllib.loads((store.ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folder = store.ROOT / "lthcore/explore"
    assert offline.TEMPLATE in [path for pattern in given["lthcore.explore"] for path in folder.glob(pattern)]
