"""The study of signs and sizes: its table of starts against numpy, its units, and its measures by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lthcore import lottery
from lthcore.config import configure
from lthcore.runs import store, sweep
from lthcore.studies import REGISTRY, experiments, signs
from lthcore.unit import Altered, MaskOf, RandomLike, Unit

SIGNS_OF = {"theta0": "theta0", "fresh_sizes": "theta0", "one_size": "theta0",
            "fresh_signs": "fresh", "fresh_signs_one_size": "fresh", "fresh": "fresh"}  # fmt: skip
SIZES_OF = {"theta0": "theta0", "fresh_sizes": "fresh", "one_size": "one",
            "fresh_signs": "theta0", "fresh_signs_one_size": "one", "fresh": "fresh"}  # fmt: skip


def units(preset="report", replicate=5):
    return {unit.arm: unit for unit in REGISTRY["signs"].arms(configure("signs", preset), replicate)}


@pytest.mark.parametrize("arm", signs.STARTS)
@pytest.mark.parametrize("level", [5, 9])
def test_every_start_has_the_signs_and_the_sizes_that_its_name_says(arm, level):
    every = units()
    values = {name: lottery.starting_values(every[name], level, None)[0] for name in signs.STARTS}
    for name, value in values[arm].items():
        found = value.numpy()
        if name.endswith(".bias"):
            assert not found.any()
            continue
        theta0, fresh = (values[start][name].numpy() for start in ("theta0", "fresh"))
        assert np.array_equal(np.sign(found), np.sign(theta0 if SIGNS_OF[arm] == "theta0" else fresh))
        if SIZES_OF[arm] == "one":
            assert np.allclose(np.abs(found), theta0.std(ddof=1), rtol=1e-5)
        else:
            assert np.array_equal(np.abs(found), np.abs(theta0 if SIZES_OF[arm] == "theta0" else fresh))


@pytest.mark.parametrize("level", [5, 9])
def test_kept_sizes_are_those_of_theta0_in_another_order_under_its_signs(level):
    unit, mask = units()["permuted_sizes"], sweep.mask_at(units()["theta0"], level)
    found, theta0 = lottery.starting_values(unit, level, None)[0], lottery.drawn(unit, "theta0")
    for layer, kept in mask.items():
        value, before = (values[f"{layer}.weight"].numpy() for values in (found, theta0))
        assert np.array_equal(np.sign(value), np.sign(before)) and np.array_equal(value[~kept], before[~kept])
        assert np.array_equal(np.sort(np.abs(value[kept])), np.sort(np.abs(before[kept])))
        assert (value[kept] == before[kept]).mean() < 0.1
    again = lottery.starting_values(unit, level, None)[0]
    assert all(torch.equal(again[name], value) for name, value in found.items())


def test_fresh_values_differ_between_levels_and_replicates():
    one, other = units(), units(replicate=6)
    pairs = ((one["fresh_signs"], 5), (one["fresh_signs"], 7), (other["fresh_signs"], 5))
    draws = [lottery.starting_values(*pair, None)[0]["fc1.weight"].sign() for pair in pairs]
    for i, j in ((0, 1), (0, 2)):
        assert 0.48 < (draws[i] == draws[j]).float().mean() < 0.52


def test_biases_stay_as_they_are_where_they_are_not_zero():
    unit = units()["one_size"]
    unit = replace(unit, config=replace(unit.config, biases="normal"))
    values = lottery.starting_values(unit, 5, None)[0]
    theta0 = lottery.drawn(unit, "theta0")
    assert all(torch.equal(values[name], theta0[name]) for name in theta0 if name.endswith(".bias"))
    assert theta0["fc1.bias"].any()


def test_masks_are_those_of_the_archived_tickets():
    chains = {unit.arm: unit for unit in REGISTRY["mlp"].arms(configure("mlp", "report"), 5)}
    found = units()
    assert found["ticket"].key == chains["ticket"].key
    assert {arm for arm, unit in found.items() if isinstance(unit.mask, RandomLike)} == {"random_mask"}
    for arm in signs.STARTS:
        assert found[arm].mask == MaskOf(found["ticket"]) and found[arm].levels == signs.LEVELS
        assert store.find_level(*found[arm].needs(9)), "its mask is not in the archive"
        assert sweep.mask_at(found[arm], 9)["fc1"].mean() < 0.06
    assert [u.replicate for u in experiments.study("signs", "report").units if u.arm == "fresh"] == [5, 6, 7, 8, 9]


def test_a_start_that_is_nowhere_is_refused_before_training():
    record = replace(
        REGISTRY["signs"], name="nowhere", group="own", claims=(), answer=None,
        arms=lambda config, r: [
            chain := Unit(config, "ticket", r),
            Unit(config, "other", r, mask=MaskOf(chain), start=Altered("one_sise", signs.__name__), levels=(1,)),
        ],
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"^'lthcore.studies.signs:one_sise': must say where a function stands[^\n]*$"):
        experiments.study(record, "smoke")


def altered(name, *modules):
    """A study with an arm for each start of that name, by a function of each module."""
    return replace(
        REGISTRY["signs"], name="named_alike", group="own", claims=(), answer=None,
        arms=lambda config, r: [
            chain := Unit(config, "ticket", r),
            *(Unit(config, m, r, mask=MaskOf(chain), start=Altered(name, m), levels=(1,)) for m in modules),
        ],
    )  # fmt: skip


def theta0(unit, level, values):
    return values


def one_size(unit, level, values):
    return values


def test_starts_that_would_have_one_identity_are_refused():
    """A start enters the identity by its name alone."""
    for name, modules in (("theta0", [__name__]), ("one_size", [signs.__name__, __name__])):
        with pytest.raises(ValueError, match=rf"^arms of 'named_alike': two starts are called '{name}', must have"):
            experiments.study(altered(name, *modules), "smoke")
    assert experiments.study(altered("one_size", __name__), "smoke").units


def test_steps_are_drawn_as_geometric_means_where_every_replicate_gets_there():
    rows = []
    for arm, last in (("theta0", (100, 1000)), ("fresh", (100, 5000))):
        for replicate, step in enumerate(last):
            for at, accuracy in ((0, 10.0), (step, 97.5 if step < 5000 else 90.0)):
                for split in ("test", "validation"):
                    rows.append((arm, 9, 0.04, replicate, at, at / 100, split, "accuracy", accuracy))
    names = ["arm", "level", "density", "replicate", "step", "epoch", "split", "metric", "value"]
    _, drawn = signs.fig14b(experiments.study("signs", "report"), pd.DataFrame(rows, columns=names))
    steps = drawn[drawn["panel"].str.startswith("how fast")]
    assert steps["arm"].tolist() == ["theta0"] and steps["mean"].tolist() == pytest.approx([100 * 10**0.5])


def test_where_nothing_reaches_the_accuracy_the_panel_says_so():
    figure, _ = signs.fig14b(experiments.study("signs", "smoke"), frame(theta0=[50.0], fresh=[40.0]))
    assert "at no level" in figure.axes[1].texts[0].get_text()
    assert figure.axes[0].get_ylim() == (0, 80)


def frame(**accuracies):
    """Tidy rows: arm -> test accuracies at the last step of level `AT`, one per replicate; at step 0 half of each."""
    rows = []
    for arm, values in accuracies.items():
        for replicate, value in enumerate(values):
            for step, seen in ((0, value / 2), (100, value)):
                rows.append((arm, signs.AT, 0.04, replicate, step, step / 100, "test", "accuracy", seen))
    names = ["arm", "level", "density", "replicate", "step", "epoch", "split", "metric", "value"]
    return pd.DataFrame(rows, columns=names)


def test_half_of_the_lead_and_untrained_accuracy_by_hand():
    table = frame(
        theta0=[98.0, 98.2, 98.4], fresh=[97.0, 97.0, 97.0], fresh_sizes=[97.9, 98.0, 98.1],
        one_size=[97.8, 97.8, 97.8], fresh_signs=[97.1, 97.0, 97.2], random_mask=[95.0, 95.0, 95.0],
        permuted_sizes=[97.6, 97.8, 97.9], frozen=[96.0, 96.1, 96.2],
    )  # fmt: skip
    measured = {claim.id: claim.measures(table, None) for claim in signs.CLAIMS}
    values = {name: found[0].values.tolist() for name, found in measured.items()}
    assert values["signs-fresh-sizes"] == pytest.approx([0.4, 0.4, 0.4])
    assert values["signs-one-size"] == pytest.approx([0.3, 0.2, 0.1])
    assert values["signs-sizes-alone"] == pytest.approx([-0.4, -0.6, -0.5])
    assert values["signs-permuted"] == pytest.approx([0.1, 0.2, 0.2])
    assert values["signs-frozen"] == pytest.approx([-2.0, -2.1, -2.2]) and measured["signs-frozen"][0].below == 0
    assert values["signs-supermask"] == pytest.approx([49.0, 49.1, 49.2])
    assert measured["signs-one-size"][1].values.tolist() == pytest.approx([1.0, 1.2, 1.4])
    assert [m.judged for found in measured.values() for m in found].count(True) == len(signs.CLAIMS)
