"""What a notebook shows: its settings, the answer in a box, the claims, and the text of a figure."""

import dataclasses
import html
import re
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from lthcore.config import configure
from lthcore.explore import answers, notebooks
from lthcore.results import forest, measures, rules
from lthcore.results.loading import Results
from lthcore.studies import REGISTRY, claims, experiments, plots


@pytest.fixture(scope="module")
def task1():
    """The committed results of Task 1."""
    return experiments.load(experiments.study("task1", "report"))


@pytest.fixture
def judged(task1):
    """Makes results of Task 1 whose claim has a given verdict."""

    def make(verdict):
        results = dataclasses.replace(task1)
        table = answers.verdicts(task1).copy()
        table.loc[table["verdict"] != "", "verdict"] = verdict
        answers._judged[results] = table
        return results

    return make


def shown_in_a_notebook():
    return [name for name, record in REGISTRY.items() if record.notebook and record.group in ("report", "extended")]


ANSWERS = {name: record.answer for name, record in REGISTRY.items() if record.answer}


def test_every_answer_rests_on_a_claim_of_its_experiment():
    for name, known in ANSWERS.items():
        ids = {rule.id for rule in rules.REPORT if claims.DECIDED_IN.get(rule.id, rule.experiment) == name}
        ids |= {c.id for c in REGISTRY[name].claims}
        assert known.claim in ids, name
    illustrations = {"fashion_conv2", "introduction", "overlap", "public_step", "public_step_lenet5"}  # with no claim
    assert set(shown_in_a_notebook()) - set(ANSWERS) <= illustrations


def test_no_answer_states_a_number_of_ours():
    thresholds = {"90%", "85%", "80%", "0.5", "0.2"}  # of the report's claims, and the margins in pp
    for known in ANSWERS.values():
        for sentence in (*known.holds, *known.fails, *known.unresolved):
            numbers = re.findall(
                r"\d[\d.]*%?", re.sub(r"\b0-4|\b5-9|\bS[12]|step 0|LeNet-5|LeNet-300-100", "", sentence)
            )
            assert set(numbers) <= thresholds, sentence


@pytest.mark.slow
def test_the_box_has_sentence_number_interval_and_verdict(task1):
    table = answers.verdicts(task1)
    row = claims.decisive(table[table["claim"] == "task1"])
    box = answers.answer(task1)
    for text in (html.unescape(box._repr_html_()), repr(box)):
        assert answers.chosen(ANSWERS["task1"], row["verdict"].removesuffix(rules.NOT_AFTER_HOLM))[0] in text
        assert claims.number(row) in text and f"n = {row['n']:.0f}" in text and row["verdict"] in text
    assert repr(answers.conclusion(task1)).startswith("So: ")


@pytest.mark.parametrize("verdict", [rules.HOLDS, rules.REFUTED, rules.UNRESOLVED])
def test_the_sentence_follows_the_verdict(verdict, judged):
    results, known = judged(verdict), ANSWERS["task1"]
    sentence, follows = answers.chosen(known, verdict)
    assert sentence in repr(answers.answer(results)) and repr(answers.conclusion(results)) == f"So: {follows}"
    assert f"All claims of this notebook: {verdict} 1." in repr(answers.answer(results))
    assert "Holm" not in repr(answers.answer(results))


def test_a_verdict_that_does_not_survive_the_correction_says_so(judged):
    box = repr(answers.answer(judged(rules.HOLDS + rules.NOT_AFTER_HOLM)))
    assert ANSWERS["task1"].holds[0] in box and "does not survive Holm's correction" in box


@pytest.mark.parametrize("preset", ["quick", "smoke"])
def test_at_a_small_scale_nothing_is_judged(preset, task1):
    study = experiments.study("task1", preset)
    results = Results(study, task1.frame, [], task1.provenance)
    box = repr(answers.answer(results))
    assert box.startswith(f"Not judged at this scale (preset {preset})")
    assert repr(answers.conclusion(results)) == "So: nothing is concluded at this scale."


def test_what_has_not_run_says_so(folders):
    results = experiments.load(experiments.study("task1", "report"))
    assert repr(answers.answer(results)).startswith("Not run yet")
    assert "nothing is concluded before" in repr(answers.conclusion(results))


def test_a_verdict_has_an_icon_a_word_and_a_readable_colour():
    icons = {icon for _, _, icon in (*forest.STYLES.values(), forest.OTHER)}
    assert len(icons) == 4
    for verdict, (colour, _, icon) in {**forest.STYLES, "not run": forest.OTHER}.items():
        assert icon in plots.chip(verdict) and verdict in plots.chip(verdict) and colour in plots.chip(verdict)
        assert contrast_with_white(colour) >= 4.5


def contrast_with_white(colour):
    """By the web's rules of accessibility (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    light = sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 1.05 / (light + 0.05)


def test_the_table_of_claims_begins_with_the_verdict_and_folds_the_rest(task1):
    text = answers.claims_table(task1)._repr_html_()
    first, rest = text.split("<details>")
    assert first.index("verdict") < first.index("claim") and plots.chip(rules.HOLDS)[:30] in first
    assert "exploratory" not in first and "exploratory" in rest


@pytest.mark.parametrize(
    ("unit", "shown"),
    [
        (measures.PP, " pp"), (measures.PERCENT, "%"), (measures.RATIO, ""), ("share of the networks (%)", "%"),
        ("difference in training steps", " steps"), ("difference in deleted weights (pp)", " pp"), ("", ""),
    ],
)  # fmt: skip
def test_a_number_has_the_unit_of_its_measure(unit, shown):
    """A difference of steps was once shown in percentage points, since its words had a minus sign."""
    row = {"ours": 1.0, "low": 0.5, "high": 1.5, "n": 5, "side": "", "measured": "a - b", "unit": unit}
    assert answers._number(row).startswith(f"a - b = 1.00 [0.50, 1.50]{shown} (mean and")


def test_a_part_whose_verdict_is_another_than_the_claims_says_so():
    row = {"verdict": "unresolved", "alone": "holds", "claim": "c", "text": "t", "report": "r", "measured": "m",
           "ours": 1.0, "low": 0.5, "high": 1.5, "n": 5, "side": "> 0"}  # fmt: skip
    assert "this part: holds" in answers._cells(row)[0]
    assert "this part" not in answers._cells(row | {"alone": "unresolved"})[0]
    assert "this part" not in answers._cells(row | {"verdict": "holds, not after Holm"})[0]


def test_what_is_found_without_a_claim_stands_in_the_box(folders):
    results = experiments.load(experiments.study("overlap", "smoke"))
    assert answers.answer(results, "a < b")._repr_html_().endswith("a &lt; b</div>")
    assert repr(answers.conclusion(results, "a < b")) == "So: a < b" and repr(answers.conclusion(results)) == ""


def test_the_settings_are_the_reports_rows_and_what_is_changed():
    def shown(*asked, **more):
        text = answers.settings(experiments.study(*asked, **more))
        found = dict(re.findall(r"<b>(.+?)</b>&ensp;(.*?)</span>", text.text))
        assert repr(text) == "\n".join(f"{name}: {value}" for name, value in found.items())
        return found

    whole = shown("task1", "report")
    assert list(whole)[:3] == ["experiment", "preset", "replicates"] and "(" not in "".join(whole.values())
    assert set(list(whole)[3:]) == set(REGISTRY["task1"].settings)
    changed = shown("task1", "quick", overrides={"lr": 0.01})
    assert changed["lr"] == f"0.01 (committed schedule: {configure('task1', 'report').lr})"
    assert changed["preset"] == "quick (committed schedule: report)" and changed["model"] == "mlp"


def test_a_figure_in_words_has_title_axes_and_claims(task1):
    figure, axes = plt.subplots()
    axes.set(xlabel="density", ylabel="test\naccuracy")
    figure.suptitle("A title")
    text = answers.alt_text(task1, "fig3_task1", figure)
    assert text.startswith("A title. test accuracy against density. ") and '"the winning ticket T_1' in text
    assert "<" not in answers.alt_text(task1, "another", figure) and "winning" not in answers.alt_text(
        task1, "x", figure
    )
    axes.set_title("near the dense network")
    figure.supxlabel("bands: 95% t-interval")
    text = answers.alt_text(task1, "fig3_task1", figure)
    assert 'accuracy against density, in "near the dense network". bands: 95% t-interval. ' in text
    plt.close(figure)


def test_networks_of_one_class_are_one_sentence(task1):
    results = experiments.load(experiments.study("task2", "report"))
    text = repr(answers.one_class(results))
    assert re.match(r"In (\d+) networks of the arm t1_on_s2 .*; \1 of them predict one class", text)
    assert len(text.splitlines()) == 1
    assert "has lost all its outputs 5-9" in repr(answers.one_class(task1))
    with pytest.raises(ValueError, match=r"^arm = 't1_on_2': must be one of .*; did you mean 't1_on_s2'\?$"):
        answers.one_class(task1, "t1_on_2")


@pytest.mark.slow
def test_an_exported_page_has_the_figures_text_and_neither_plumbing_nor_dead_cells(tmp_path):
    import nbformat
    from nbformat import v4

    alt = 'a "figure" in words, 1 < 2'
    data = {"image/png": "iVBORw0KGgo="}
    shown = v4.new_output("display_data", data=data, metadata={"image/png": {"alt": alt, "width": 300}})
    plain = v4.new_output("display_data", data=data)
    widget = v4.new_code_cell("explorer.levels()", metadata={"tags": [notebooks.LIVE]})
    plumbing = v4.new_code_cell("import plumbing", metadata={"tags": [notebooks.COLLAPSED]})
    cells = [plumbing, v4.new_code_cell("figures()", outputs=[shown, plain]), widget]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "book.ipynb")
    page = notebooks.page(tmp_path / "book.ipynb")
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 2 and alt in html.unescape(images[0]) and "&lt;" in images[0] and alt not in images[1]
    assert "plumbing" not in page and "levels" not in page


def test_every_level_is_in_tables_of_at_most_six_arms_by_their_labels():
    rows, arms = [], ["ticket", "random_reinit", "random_mask", "ticket_spared", "a", "b", "c"]
    for arm in arms:
        for level in (0, 2) if arm != "c" else (2,):
            for replicate, value in enumerate((97.0, 98.0)):
                rows.append((arm, level, 0.7**level, replicate, 10, 1.0, "test", "accuracy", value))
    names = ["arm", "level", "density", "replicate", "step", "epoch", "split", "metric", "value"]
    study = experiments.study("mlp", "report")
    shown = answers.every_level(SimpleNamespace(study=study, frame=pd.DataFrame(rows, columns=names)))
    labels = ["ticket (theta0)", "reinitialised", "random mask", "ticket, smallest layer unpruned", "a", "b"]
    heads = [re.findall("<th>([^<]+)</th>", part) for part in shown.text.split("<table")[1:]]
    assert heads == [["density", *labels, "level", "0", "2"], ["density", "c", "level", "2"]]
    assert "<td>49%</td>" in shown.text and "97.50" in shown.text and labels[3] in repr(shown)
    rows += [("d", level, 0.9**level, 0, 10, 1.0, "test", "accuracy", 99.0) for level in (0, 2)]
    shown = answers.every_level(SimpleNamespace(study=study, frame=pd.DataFrame(rows, columns=names)))
    last = shown.text.split("<table")[-1]  # of a schedule of its own
    assert "<th>d</th>" in last and "<td>81%</td>" in last and "<td>49%</td>" not in last and "<th>c</th>" not in last
    nothing = SimpleNamespace(study=study, frame=pd.DataFrame([], columns=names))
    lines = answers._in_two_lines("15.81 ± 5.21 (one class: 2)").split(" ")
    assert [line.split() for line in lines] == [["15.81", "±", "5.21"], ["(one", "class:", "2)"]]
    assert answers.every_level(nothing).text == repr(answers.every_level(nothing)) == ""


@pytest.mark.slow
def test_what_is_exploratory_is_said_and_what_is_not_corrected():
    explored, fresh = (experiments.load(experiments.study(name, "report")) for name in ("rewind", "signs"))
    plain = repr(answers.answer(explored))
    assert plain.startswith("Exploratory: ") and "analysed before the claim's rule was final" in plain
    confirmed = repr(answers.conclusion(experiments.load(experiments.study("collapse", "report"))))
    assert confirmed.startswith("So: if fresh replicates confirm it, ")
    assert "if fresh" not in repr(answers.conclusion(explored))  # where nothing is resolved, nothing is to be confirmed
    assert answers.UNCORRECTED not in repr(answers.claims_table(explored))  # since it stays so in any table
    assert not repr(answers.answer(fresh)).startswith("Exploratory") and "if fresh" not in repr(
        answers.conclusion(fresh)
    )
    assert answers.UNCORRECTED in repr(answers.claims_table(fresh))
