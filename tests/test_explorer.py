"""The explorer without a browser: what its widgets do, weights on demand, and tickets as files."""

import base64
import hashlib
import html
import io
import re
import struct
import subprocess
import sys
import time
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import PIL.Image
import pytest

from lthcore import data, tickets
from lthcore.config import configure
from lthcore.explore import by_hand, by_level, drawing, explorer, offline, panels
from lthcore.explore.explorer import Explorer
from lthcore.results import statistics
from lthcore.runs import download, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import REGISTRY, experiments
from lthcore.unit import Unit

SMALL = {"rounds": 2, "max_steps": 12, "test_images": 150, "validation": 0.02}


def small(experiment="mlp", **parameters):
    return experiments.study(experiment, "smoke", overrides=SMALL, **parameters)


@pytest.fixture(scope="module")
def studies(module_folders, finish):
    """Two finished studies; trained once."""
    return [finish(study) for study in (small(), small("lenet5", controls=False))]


@pytest.fixture
def page(studies):
    return Explorer(studies)


def unit_of(study, arm, replicate=0):
    return next(u for u in study.units if (u.arm, u.replicate) == (arm, replicate))


def end(page):
    """Wait for what the page has started."""
    if job := page.job:  # None where it has ended already
        job.thread.join()


# ----------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.slow
def test_it_offers_what_is_finished(page, studies):
    changes = "smoke, max_steps 12, test_images 150, validation 0.02, rounds 2"
    assert page.experiment.options == (f"mlp, {changes}", f"lenet5, {changes}")
    assert [arm for _, arm in page.arm.options] == ["ticket", "random_reinit", "random_mask", "ticket_spared"]
    assert page.replicate.options == (0,)
    assert [k for _, k in page.level.options] == [0, 1, 2]
    assert page.level.options[1][0] == "70% (level 1)"
    page.arm.value = "random_mask"
    assert [k for _, k in page.level.options] == [1, 2]
    assert page.player.max == 1


@pytest.mark.slow
def test_every_move_redraws_and_moving_back_gives_the_same_pictures(page):
    page.level.value = 1
    before = page.seen.value, page.stands.value
    page.level.value = 2
    assert page.seen.value != before[0] and page.stands.value != before[1]
    page.level.value = 1
    assert (page.seen.value, page.stands.value) == before
    page.arm.value = "random_mask"
    assert page.level.value == 1 and page.seen.value != before[0] and page.stands.value != before[1]
    page.experiment.value = page.experiment.options[1]
    assert [arm for _, arm in page.arm.options] == ["ticket", "ticket_spared"]
    assert bytes(page.seen.value).startswith(b"\x89PNG")


@pytest.mark.slow
def test_pictures_keep_their_shape(page):
    sizes = {struct.unpack(">II", image.value[16:24]) for image in
             (page.seen, page.stands, page.moved, page.answers, page.compared, page.loaded)}  # fmt: skip
    assert sizes == {(960, 310)}


@pytest.mark.slow
def test_a_move_takes_less_than_the_bound(page):
    seconds = []
    for level in [0, 1, 2] * 4:
        start = time.process_time()
        page.level.value = level
        seconds.append(time.process_time() - start)
    assert sorted(seconds)[len(seconds) // 2] < 0.3


@pytest.mark.slow
def test_reading_an_experiment_is_said_once(page):
    said = []
    page.state.observe(lambda change: said.append(change["new"]), "value")
    mlp, lenet5 = page.experiment.options
    page.experiment.value = lenet5
    assert said[0] == f"reading 6 levels of {lenet5}" and said[-1].startswith("final weights: ")
    said.clear()
    page.experiment.value = mlp
    assert not any("reading" in text for text in said)


@pytest.mark.slow
def test_while_an_experiment_is_read_the_pictures_are_dim_and_nothing_can_be_chosen(page, monkeypatch):
    seen, read = [], explorer.panels.Pictures

    def reading(study):
        seen.append((page.seen._dom_classes, page.stands._dom_classes, page.arm.disabled, page.level.disabled))
        return read(study)

    monkeypatch.setattr(explorer.panels, "Pictures", reading)
    page.experiment.value = page.experiment.options[1]
    assert seen == [((explorer.DIM,), (explorer.DIM,), True, True)]
    assert not page.seen._dom_classes and not page.arm.disabled and not page.level.disabled
    assert f".{explorer.DIM} {{ opacity" in page.children[-1].value


@pytest.mark.slow
def test_a_view_is_one_line_that_brings_it_back(page, studies):
    page.experiment.value = page.experiment.options[1]
    page.arm.value, page.level.value, page.digit.value = "ticket_spared", 1, 7
    fill(page, preset="smoke", rounds=5, output_rate=0.0)
    line = page.place.value
    page.draw()
    line, pictures = page.place.value, (page.seen.value, page.stands.value)
    assert "\n" not in line and '"arm": "ticket_spared"' in line
    other = Explorer(studies)
    assert other.place.value != line
    other.place.value = line
    assert other.place.value == line and (other.seen.value, other.stands.value) == pictures
    assert other.digit.value == 7 and other.form["rounds"].value == 5 and other.refused.value == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("level 7", "must be a line that was copied from here"),
        ("[1]", "must be a line that was copied from here"),
        ('{"levle": 1}', "did you mean 'level'?"),
        ('{"arm": "tickt"}', "did you mean 'ticket'?"),
        ('{"level": 5}', "level = 5: must be one of 0, 1, 2"),
        ('{"digit": "x"}', "digit = 'x': must be a value such as 0"),
    ],
)
def test_what_is_no_view_is_refused_in_one_line(page, line, says):
    before = page.place.value
    page.place.value = line
    assert html.unescape(page.refused.value).count(says) == 1 and "\n" not in page.refused.value
    assert page.place.value == before


@pytest.mark.parametrize("name", REGISTRY)
def test_every_arm_has_a_label_of_its_own_in_words(name):
    arms = dict.fromkeys(unit.arm for unit in REGISTRY[name].arms(configure(name, "report"), 0))
    labels = [panels.full_label(arm) for arm in arms]
    assert len(set(labels)) == len(labels) and not [label for label in labels if "_" in label]


@pytest.mark.slow
def test_no_label_of_a_picture_is_cut_off(page):
    mask, standing, _ = page.view.panels("ticket", 0)
    for picture in (mask, standing, page.moved_panel, page.answers_panel):
        inside = picture.figure.bbox
        for axis in picture.axes:
            box = axis.get_tightbbox(picture.canvas.get_renderer())
            assert box.x0 >= 2 and box.x1 <= inside.x1 - 2 and box.y0 >= 0, type(picture).__name__


def test_the_ring_at_the_last_level_is_whole():
    at = pd.MultiIndex.from_product([["ticket"], range(21)], names=["arm", "level"])
    standing = panels.Standing("ticket", pd.Series(98.0, at), pd.Series(0.7 ** np.arange(21), at), None, None, {})
    picture = standing.png(20, pd.DataFrame({"step": [0.0, 68_700.0], "value": [10.0, 98.0]}))
    drawn = np.asarray(PIL.Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    right = int(standing.axes[0].bbox.x1)
    beyond = drawn[:, right + 2 : right + 5].reshape(-1, 3)
    assert (beyond[:, 2] - beyond[:, 0] > 100).any()  # it is blue


def test_nothing_finished_is_said(folders, capsys):
    empty = Explorer([small()])
    assert "Nothing is finished" in empty.state.value
    empty.tabs.selected_index = 2
    explorer.still([small()])
    assert "Nothing is finished" in capsys.readouterr().out
    assert offline.write([small()], folders) is None


@pytest.mark.slow
def test_the_static_picture_is_the_first_view(page, studies, monkeypatch):
    shown = []
    monkeypatch.setattr(explorer, "display", lambda *pictures: shown.extend(p.data for p in pictures))
    explorer.still(studies)
    assert shown == [page.seen.value, page.stands.value]


@pytest.mark.slow
def test_the_static_picture_needs_no_torch():
    """Importing it takes longer than reading the archive and drawing."""
    code = (
        "import sys; from lthcore.explore import explorer; from lthcore.studies import experiments; "
        "explorer.still([experiments.study('task1', 'report')]); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=store.ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


@pytest.mark.slow
def test_the_page_without_a_kernel_shows_what_is_finished(studies, tmp_path):
    text = offline.write([*studies, small("task1")], tmp_path).read_text()
    assert text.startswith("<!DOCTYPE html>")
    mlp, lenet5 = (offline.network(experiments.load(study)) for study in studies)
    assert mlp["changes"]["rounds"] == "2" and lenet5["label"] == "LeNet-5" and list(lenet5["arms"]) == ["ticket"]
    assert mlp["arms"]["ticket"]["level"] == [0, 1, 2] and mlp["arms"]["random_mask"]["level"] == [1, 2]
    mean, low, high = mlp["arms"]["ticket"]["accuracy"]["end"][2]
    assert mean == pytest.approx(statistics.at_end(experiments.finished(studies[0]))["ticket", 2, 0], abs=1e-4)
    assert (low, high) == (None, None)  # of one replicate no interval is known


def test_the_mask_is_the_one_that_was_trained(studies):
    study = studies[0]
    for arm in ("ticket", "random_mask", "random_reinit", "ticket_spared"):
        unit, level = unit_of(study, arm), 2
        mask, layers = sweep.mask_at(unit, level), statistics.layers(experiments.finished(study), arm, 0, level)
        assert {name: int(m.sum()) for name, m in mask.items()} == dict(layers["kept"])
    with pytest.raises(ValueError, match=r"^mlp-ticket-r5-\w+ level 1, whose pruning gives the mask, is not finished$"):
        sweep.mask_at(Unit(study.config, "ticket", 5), 2)


def test_digits_are_those_of_the_subset(studies):
    config = studies[0].config
    for subset in ("full", "labels5-9"):
        images, labels = download.digits(subset, config.test_images)
        test_images, test_labels = data.split(config, subset, 0).test
        assert labels.tolist() == test_labels.tolist() and len(labels) == 150
        assert np.allclose(
            (images / np.float32(255) - data.DATASETS["mnist"].mean[0]) / data.DATASETS["mnist"].std[0],
            test_images[:, 0],
            atol=1e-6,
        )


def test_orders_of_digits():
    labels = np.array([0, 1, 1])
    sure, unsure = [5.0, 0.0], [0.0, 5.0]
    logits = {"dense": np.array([sure, unsure, unsure]), "ticket": np.array([sure, unsure, sure])}
    hard, disagreeing = list(statistics.ORDERS)[1:]
    assert list(statistics.digits_in_order(hard, logits, labels)) == [2, 0, 1]
    assert list(statistics.digits_in_order(disagreeing, logits, labels)) == [2, 0, 1]
    assert list(statistics.digits_in_order(hard, {}, labels)) == [0, 1, 2]
    assert np.allclose(statistics.probabilities(np.array([[0.0, np.log(3)]])), [[0.25, 0.75]])


def test_how_far_weights_move():
    m = statistics.moved(np.array([1.0, -2.0, 3.0, -4.0]), np.array([2.0, -2.0, -1.0, -8.0]))
    assert m == {"survivors": 4, "same_sign": 0.75, "move": 2.5, "size": 2.5}
    assert statistics.moved(np.array([]), np.array([]))["survivors"] == 0


# ---------------------------------------------------------------------------------------------------- rivals, weights


def test_rivals_share_chain_data_and_recipe():
    study = experiments.study("task1", "report")
    t1_on_s2 = unit_of(study, "t1_on_s2", 1)
    found = experiments.rivals(study, t1_on_s2, 3)
    assert {role: (u.arm, u.replicate, u.subset, k) for role, (u, k) in found.items()} == {
        "dense": ("t2_on_s2", 1, "half2", 0), "ticket": ("t1_on_s2", 1, "half2", 3),
        "random_reinit": ("random_reinit", 1, "half2", 3), "random_mask": ("random_mask", 1, "half2", 3),
    }  # fmt: skip
    for role in ("ticket", "random_reinit", "random_mask"):
        assert found[role][0] in study.units
        assert experiments.rivals(study, found[role][0], 3) == found
    made = experiments.rivals(study, unit_of(study, "t1_on_s1"), 2)  # the study has no controls on S1
    assert made["random_mask"][0] not in study.units
    assert {u.subset for u, _ in made.values()} == {"half1"}
    assert list(experiments.rivals(study, t1_on_s2, 0)) == ["dense"]
    for name in ("mlp", "task2", "task3"):
        study = experiments.study(name, "report")
        for unit in study.units:
            assert (unit, unit.levels[-1]) in experiments.rivals(study, unit, unit.levels[-1]).values()


@pytest.mark.parametrize("filters", [1, 2, 6, 7])
def test_a_first_layer_of_any_number_of_filters_is_drawn(filters):
    shapes = ARCHITECTURES[f"lenet5_{filters}_3_16_11"].weights
    mask = {name: np.ones(shape, bool) for name, shape in shapes.items()}
    assert panels.MaskView(shapes, "#0072B2").png(mask, np.zeros((28, 28), np.uint8))


@pytest.mark.parametrize("name", REGISTRY)
def test_every_arm_of_every_study_has_rivals(name):
    study = experiments.study(name, "smoke")
    for unit in study.units:
        found = experiments.rivals(study, unit, unit.levels[-1])
        assert all(level in (0, unit.levels[-1]) and u.config.model == unit.config.model for u, level in found.values())
        assert found["dense"][0].prunes


@pytest.mark.parametrize(
    ("which", "arm", "level"), [(0, "ticket", 0), (0, "ticket", 2), (0, "random_mask", 1), (1, "ticket", 1)]
)
def test_weights_trained_again_give_the_finished_rows_bit_for_bit(studies, which, arm, level):
    unit = unit_of(studies[which], arm)
    text, same = sweep.keep_weights(unit, level)
    assert same and text.startswith(f"{arm} level {level}: test accuracy ")
    rows = store.find_level(unit, level).rows()
    kept = store.find_weights(unit, level)
    _, labels = download.digits(unit.subset, unit.config.test_images)
    last = rows[(rows["split"] == "test") & (rows["metric"] == "accuracy")].sort_values("step")["value"].iloc[-1]
    assert 100 * np.mean(kept.logits.argmax(1) == labels) == pytest.approx(last, abs=1e-12)
    mask = sweep.mask_at(unit, level)
    for name, m in mask.items():
        assert np.array_equal(kept.mask[name], m)
        assert not kept.final[f"{name}.weight"][~m].any()
        assert np.all(kept.final[f"{name}.weight"][m] != 0)
    assert store.find_level(unit, level).rows().equals(rows)  # what was finished is as it was
    digits, _ = download.digits(unit.subset, unit.config.test_images)
    for digit, given in zip(digits[:5], kept.logits, strict=False):  # as the engine that trained it sees it
        assert drawing.logits(unit, kept, digit) == pytest.approx(given, abs=1e-3)


def test_damaged_weights_count_as_missing(studies):
    unit = unit_of(studies[0], "ticket")
    sweep.keep_weights(unit, 1)
    path = store.runs() / unit.key / "level-01/weights.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert store.find_weights(unit, 1) is None
    path.write_bytes(content)
    assert store.find_weights(unit, 1) is not None
    assert store.find_weights(Unit(unit.config, "ticket", 7), 1) is None


@pytest.mark.slow
def test_weights_on_demand_fill_the_tabs(page, studies):
    page.level.value = 2
    page.tabs.selected_index = 1
    without = page.answers.value
    assert not page.train.disabled
    page.train.click()
    assert not page.stop.disabled and page.find.disabled
    end(page)
    assert page.status.value.startswith("weights kept; ") and page.train.disabled and page.stop.disabled
    assert page.state.value == "final weights: 4 of 4 networks here"
    assert page.bar.value == page.bar.max
    assert page.answers.value != without
    before, mask = page.answers.value, page.seen.value
    page.digit.value = 5
    assert page.answers.value != before and page.seen.value != mask
    page.order.value = list(statistics.ORDERS)[1]
    page.digit.value = 99
    chosen = page.answers.value
    page.canvas.pixels = bytes(112 * 50) + b"\xff" * 112 * 8 + bytes(112 * 54)
    assert page.answers.value != chosen
    page.canvas.pixels = b""
    assert page.answers.value == chosen
    page.tabs.selected_index = 0
    assert page.moved.value != page.nothing


@pytest.mark.slow
def test_a_network_is_pruned_by_hand_and_a_step_taken_back(page, studies):
    unit, hand = unit_of(studies[0], "ticket"), page.by_hand
    sweep.keep_weights(unit, 1)
    page.weights.cache_clear()
    page.level.value, page.tabs.selected_index = 1, 4
    (trained,), before = hand.pruning.steps, hand.picture.value
    assert trained.accuracy == pytest.approx(statistics.at_end(experiments.finished(studies[0]))["ticket", 1, 0])
    hand.layer.value, hand.fraction.value, hand.criterion.value = "fc1", 0.5, "magnitude"
    hand.go.click()
    once = hand.pruning.steps[-1]
    assert {k: m.sum() for k, m in once.mask.items()} == {
        k: m.sum() - round(0.5 * m.sum()) if k == "fc1" else m.sum() for k, m in trained.mask.items()
    }
    sizes = np.abs(store.find_weights(unit, 1).final["fc1.weight"])
    assert sizes[once.mask["fc1"]].min() >= sizes[trained.mask["fc1"] & ~once.mask["fc1"]].max()
    assert hand.picture.value != before and f"{once.accuracy:.2f}%" in hand.history.value
    picture = hand.picture.value
    hand.layer.value, hand.fraction.value, hand.criterion.value = by_hand.ALL, 0.8, "random"
    hand.go.click()
    assert hand.pruning.steps[-1].density == pytest.approx(0.2 * once.density, rel=1e-3)
    assert "80% of all layers together, by random" in hand.history.value
    for criterion in hand.criterion.options:
        hand.fraction.value, hand.criterion.value = 0.1, criterion
        hand.go.click()
        assert hand.pruning.steps[-1].density == pytest.approx(0.18 * once.density, rel=1e-3)
        hand.back.click()
    hand.back.click()
    assert hand.picture.value == picture and "random" not in hand.history.value
    hand.back.click()
    hand.back.click()  # of the trained network nothing is taken back
    assert hand.pruning.steps == [trained] and hand.picture.value == before and hand.back.disabled
    page.arm.value = "ticket_spared"  # whose weights are not kept
    assert hand.pruning is None and hand.go.disabled


# ------------------------------------------------------------------------------------------------ a ticket of one's own


def fill(page, **values):
    for name, value in values.items():
        page.form[name].value = value


@pytest.mark.slow
def test_the_form_trains_and_the_ticket_joins(page):
    page.tabs.selected_index = 2
    before, chosen = page.compared.value, page.experiment.value
    fill(page, preset="smoke", rounds=1, scope="global", output_rate=0.0)
    page.find.click()
    end(page)
    assert page.status.value.startswith("trained 2 levels")
    name = "own mlp, smoke, rounds 1, scope global, output_rate 0.0"
    assert page.experiment.options[-1] == name and page.experiment.value == chosen
    assert page.compared.value != before
    page.experiment.value = name
    assert [k for _, k in page.level.options] == [0, 1]
    page.find.click()
    end(page)
    assert page.status.value.startswith("all 2 levels of 1 units found")
    assert page.cost.value.startswith("0 levels to train, ")


@pytest.mark.slow
def test_stop_keeps_what_is_finished(page):
    fill(page, preset="smoke", rounds=30, prune_rate=0.1)
    page.find.click()
    while page.job and not page.status.value.startswith("["):  # until the first level is finished
        time.sleep(0.02)
    page.stop.click()
    end(page)
    assert page.status.value.startswith("stopped; finished levels are kept")
    name = page.experiment.options[-1]
    assert name.startswith("own mlp, smoke, ") and "rounds 30" in name and "prune_rate 0.1" in name
    assert 1 <= len(page.views[name].levels["ticket", 0]) < 31 and not page.find.disabled


@pytest.mark.slow
def test_the_form_says_what_it_takes_before_it_is_started(page):
    assert page.cost.value == ""
    page.tabs.selected_index = 2
    fill(page, preset="smoke", rounds=8)
    text = "9 levels to train, 30 steps each; the run prints an estimate at its start and can be stopped"
    assert page.cost.value == text
    fill(page, preset="report", rounds=9)
    assert page.cost.value == text.replace("9 levels", "10 levels").replace("30 steps", "75 epochs")
    fill(page, preset="smoke")
    fill(page, rewind_step=999_999)
    assert "rewind_step = 999999: must be a whole number in 0.." in page.cost.value


@pytest.mark.slow
def test_bad_settings_are_refused_in_one_line(page):
    fill(page, preset="smoke", rewind_step=999_999)
    page.find.click()
    assert page.job is None and "rewind_step = 999999: must be a whole number in 0.." in page.status.value


@pytest.mark.slow
def test_an_error_in_the_process_is_said():
    said, ended = [], []
    job = sweep.Background(sweep.weights, ([("not a unit", 0)],), said.append, ended.append)
    job.thread.join()
    assert ended == ["AttributeError: 'str' object has no attribute 'key'"]


# ---------------------------------------------------------------------------------------------------- tickets as files


@pytest.fixture(scope="module")
def ticket(studies):
    return sweep.ticket(unit_of(studies[1], "ticket"), 2)


def upload(page, content, widgets=8):
    """As ipywidgets 7 or 8 hands it in."""
    file = {"name": "x.safetensors", "content": content if widgets == 7 else memoryview(content)}
    page.upload = SimpleNamespace(value={"x.safetensors": file} if widgets == 7 else (file,))
    page._load(None)


def test_a_ticket_comes_back_from_its_file(ticket, studies):
    back = tickets.from_bytes(tickets.to_bytes(ticket))
    unit = unit_of(studies[1], "ticket")
    assert back.facts["unit"] == unit.key and back.facts["level"] == 2 and back.facts["model"] == "lenet5"
    assert back.facts["test_accuracy"] == statistics.at_end(experiments.finished(studies[1]))["ticket", 2, 0]
    for written, other in ((ticket.mask, back.mask), (ticket.values, back.values)):
        assert list(written) == list(other) or set(written) == set(other)
        assert all(np.array_equal(written[k], other[k]) and written[k].dtype == other[k].dtype for k in written)


@pytest.mark.slow
@pytest.mark.parametrize("widgets", [7, 8])
def test_the_page_offers_and_loads_it(page, ticket, widgets):
    page.download.click()
    assert f'download="{page.chosen[0].key}-level-{page.level.value:02d}.safetensors"' in page.link.value
    before = page.loaded.value
    upload(page, tickets.to_bytes(ticket), widgets)
    assert page.loaded.value != before and ticket.facts["unit"] in page.facts.value
    upload(page, b"something else", widgets)
    assert "not a ticket: it is not a safetensors file" in page.facts.value


@pytest.mark.slow
@pytest.mark.parametrize("form", tickets.FORMS)
def test_the_page_offers_it_in_every_form(page, form):
    page.file_form.value = form
    page.download.click()
    name, encoded = re.fullmatch(
        r'<a download="(.+)" href="data:.+;base64,(.+)">.+</a> \(.+ MB\)', page.link.value
    ).groups()
    back, chosen = tickets.from_bytes(base64.b64decode(encoded)), sweep.ticket(*page.chosen)
    assert (
        name.endswith(f"02{'' if form == 'ticket' else f'-{form}'}.safetensors")
        and back.facts["unit"] == chosen.facts["unit"]
    )
    assert all((m == chosen.mask[layer]).all() for layer, m in back.mask.items())


@pytest.mark.slow
def test_what_a_foreign_file_says_is_shown_as_text(page, ticket):
    evil = ticket._replace(facts={**ticket.facts, "arm": "<img src=x onerror=alert(1)>"})
    upload(page, tickets.to_bytes(evil))
    assert "<img" not in page.facts.value and "&lt;img" in page.facts.value


def test_a_rewound_ticket_needs_its_trained_values(studies):
    study = experiments.study("mlp", "smoke", controls=False, overrides={**SMALL, "rewind_step": 5})
    unit = unit_of(study, "ticket")
    for level in (0, 1):
        sweep.run_levels([(unit, level)])
    theta0 = sweep.ticket(unit, 0).values
    with pytest.raises(ValueError, match="the values at step 5 have not been kept: train the weights first"):
        sweep.ticket(unit, 1)
    sweep.keep_weights(unit, 1)
    rewound = sweep.ticket(unit, 1)
    assert rewound.facts["rewind_step"] == 5
    assert not np.array_equal(rewound.values["head.weight"], theta0["head.weight"])


def test_identical_tickets_give_identical_files(studies):
    unit = unit_of(studies[1], "ticket")
    first, second = (tickets.to_bytes(sweep.ticket(unit, 1)) for _ in range(2))
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()


@pytest.mark.slow
def test_the_level_slider_starts_at_the_ticket_and_keeps_its_axes(folders, finish, monkeypatch):
    study = finish(experiments.study("task1", "smoke", overrides={"max_steps": 2, "test_images": 50}))
    frame = experiments.finished(study)
    slider, picture, *_ = explorer.levels(study, frame).children
    there = [level for _, level in slider.options]
    assert slider.value == statistics.shown_first(frame, "t1_on_s1", study.config.tolerance, there)
    start, first = slider.index, bytes(picture.value)
    assert first.startswith(b"\x89PNG") and not plt.get_fignums()
    slider.index = (start + 1) % len(there)
    assert bytes(picture.value) != first
    slider.index = start
    assert bytes(picture.value) == first

    drawn = []
    monkeypatch.setattr(by_level.figures, "curve", lambda axis, table, *_, **options: drawn.append((axis, table)))
    panel = by_level.Training(study, frame)
    assert all(set(t["arm"]) == {"t1_on_s1"} and set(t["level"]) == {0} for _, t in drawn) and len(drawn) == 2
    limits = {axis: (axis.get_xlim(), axis.get_ylim()) for axis in panel.axes}
    for level in there:
        drawn.clear()
        panel.png(level)
        assert {axis: (axis.get_xlim(), axis.get_ylim()) for axis in panel.axes} == limits
        plain = {a for a in frame["arm"][frame["level"] == level] if not a.endswith("_spared")}
        assert {a for axis, table in drawn if axis is panel.axes[0] for a in table["arm"]} == plain
        for axis, table in drawn:
            assert table["mean"].between(*limits[axis][1]).all() and set(table["level"]) == {level}


@pytest.mark.parametrize(("there", "first"), [(range(4), 2), ((0, 1), 1)])
def test_the_ticket_is_looked_at_first_where_it_stands_or_at_the_last_level(monkeypatch, there, first):
    monkeypatch.setattr(statistics, "ticket_level", lambda *_: 2)
    assert statistics.shown_first(None, "ticket", 0.5, list(there)) == first


def test_the_level_slider_shows_which_outputs_are_connected(monkeypatch):
    rows = []
    for replicate, (connected, classes) in enumerate([({7, 8}, 2), ({7}, 1), (set(), 1)]):
        for name, value in [*((f"live_output:{c}", float(c in connected)) for c in range(10))]:
            rows.append(("t1_on_s2", 1, replicate, "mask", name, value))
        for name, value in (("answered_classes", classes), ("top_answer", 7)):
            rows.append(("t1_on_s2", 1, replicate, "test", name, float(value)))
    frame = pd.DataFrame(rows, columns=["arm", "level", "replicate", "split", "metric", "value"])
    panel = by_level.Outputs(experiments.study("task2", "smoke"), frame)
    said = []
    monkeypatch.setattr(panel, "_png", lambda: said.extend(text.get_text() for text in panel.axes[0].texts))
    panel.png(1)
    assert said[:10] == ["0"] * 7 + ["2", "1", "0"] and said[10] == "2 of 3 answer one class: 7"
    assert panel.any_is_lost
    frame["value"] = 1.0
    assert not by_level.Outputs(experiments.study("task2", "smoke"), frame).any_is_lost
