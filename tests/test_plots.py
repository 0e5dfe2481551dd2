"""Figures of a tiny study: drawn, saved, not blank, and with exactly the numbers of the table behind them."""

import itertools
import json
import math
import os
import re
import subprocess
import sys

os.environ["MPLBACKEND"] = "Agg"

import matplotlib.colors
import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lthcore.explore import panels
from lthcore.results import figures, forest, measures, rules, statistics
from lthcore.runs import presets, store
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import REGISTRY, claims, experiments, plots, task1, task2

pytestmark = pytest.mark.slow
NAMES = ("mlp", "lenet5", "task1", "task2", "task3")
TINY = {"levels": [0, 1, 15], "max_steps": 5, "test_images": 200, "validation": 0.02}
ALL = [(e, name) for e in NAMES for name in REGISTRY[e].figures]


@pytest.fixture(scope="module")
def studies(module_folders, finish):
    """Each experiment with its tidy table: trained here, once."""
    found = [finish(experiments.study(name, "smoke", overrides=TINY)) for name in NAMES]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plt, "show", lambda: None)
        yield {s.config.experiment: (s, experiments.finished(s)) for s in found}
    plt.close("all")


@pytest.fixture(scope="module")
def drawn(studies):
    """Each experiment's pictures."""
    return {name: plots.draw(*studies[name]) for name in NAMES}


def test_a_control_of_another_level_is_named_on_its_panel(studies):
    """Controls stand at every fourth level in `quick`: what is drawn under a level's title is not of that level."""
    s, frame = studies["task2"]
    last = frame["level"].max()
    less = frame[~((frame["arm"] == "random_mask") & (frame["level"] == last))]
    for table, expected in ((frame, []), (less, ["but for\nrandom mask, level 1 (dashed)"])):
        figure, _ = task2.fig4a(s, table)
        assert [text.get_text() for text in figure.axes[0].texts] == expected
        plt.close(figure)
    s, frame = studies["task1"]
    for table, expected in ((frame, []), (less.assign(experiment="task1"), ["but for\nrandom mask, level 1"])):
        sheet = figures.Sheet(s, "")
        sheet.against_step(sheet.axes[0], table, task1.ARMS, last)
        assert [text.get_text() for text in sheet.axes[0].texts] == expected
        plt.close(sheet.figure)


def twice(frame):
    """The table with a second replicate that is a little different."""
    other = frame.assign(replicate=1, value=frame["value"] * 0.9)
    return pd.concat([frame, other], ignore_index=True)


def figure_of(studies, experiment, name, frame=None):
    s, tidy = studies[experiment]
    figure, table = REGISTRY[experiment].figures[name](s, tidy if frame is None else frame)
    figure.draw_without_rendering()
    return figure, table


DIFFERENCE = "difference in accuracy,\nlast fifth of training (pp)"


def of_arms(figure):
    """The panels of a figure that show arms, not their differences."""
    return [axis for axis in figure.axes if axis.get_ylabel() != DIFFERENCE]


def without_differences(table):
    return table[~table["panel"].str.contains("differences: |minus ")]


def label_colours(figure):
    """Label of a curve, without its n -> its colours in the figure's panels."""
    out = {}
    for axis in of_arms(figure):
        for line in axis.get_lines():
            label = str(line.get_label())
            if not label.startswith("_"):
                out.setdefault(re.sub(r" \(n = \d+\)$", "", label), set()).add(
                    matplotlib.colors.to_hex(line.get_color())
                )
    return out


# ------------------------------------------------------------------------------------------------------- what is saved


def test_the_report_has_these_figures():
    prefixes = [name.split("_")[0] for _, name in ALL]
    assert prefixes == ["fig1a", "fig1b", "fig2a", "fig2b", "fig3", "fig4a", "fig4b", "fig5a", "fig5b"]


@pytest.mark.parametrize("experiment", NAMES)
def test_every_figure_has_four_files(studies, drawn, experiment):
    folder = studies[experiment][0].folder
    assert [p.name for p in drawn[experiment]] == [f"{name}.png" for name in REGISTRY[experiment].figures]
    for path in drawn[experiment]:
        assert path.parent == folder
        for ending in (".png", ".svg", ".csv", ".json"):
            assert path.with_suffix(ending).stat().st_size > 500
    assert folder.name.startswith("smoke_") and store.FIGURES in folder.parents


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_the_picture_is_not_blank(studies, drawn, experiment, name):
    picture = (
        (255 * matplotlib.image.imread(studies[experiment][0].folder / f"{name}.png")[..., :3]).round().astype(int)
    )
    assert picture.shape[0] > 400 and picture.shape[1] > 1000
    assert picture.std() > 5
    colours, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(colours) > 50
    coloured = colours.max(1) - colours.min(1) > 60  # curves, not the grey of grid and text
    assert counts[coloured].sum() > 300


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_preset_and_n_are_stamped_on_it(studies, drawn, experiment, name):
    text = (studies[experiment][0].folder / f"{name}.svg").read_text()
    model = "LeNet-5" if experiment == "lenet5" else "MLP"
    changes = [f"{k} = {v}" for k, v in presets.changes(studies[experiment][0].config).items() if k != "replicates"]
    assert changes and " · ".join(["MNIST", model, "preset smoke", *changes, "n = 1 "]) in text
    figure, _ = figure_of(studies, experiment, name, twice(studies[experiment][1]))
    assert " n = 2 " in figure.get_supxlabel()
    boxes = [*figure.legends, *(axis.get_legend() for axis in figure.axes if axis.get_legend())]
    legends = [t.get_text() for box in boxes for t in box.get_texts()]
    assert legends and all(text.endswith("(n = 2)") for text in legends)
    plt.close(figure)


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_provenance_lies_beside_it(studies, drawn, experiment, name):
    s = studies[experiment][0]
    facts = json.loads((s.folder / f"{name}.json").read_text())
    assert facts["config"]["preset"] == "smoke" and facts["config"]["max_steps"] == 5
    assert facts["levels"] == facts["levels_expected"] == sum(len(u.levels) for u in s.units)
    assert facts["torch"] and facts["device"] == ["cpu"] and facts["seconds_of_training"] > 0


def test_a_redraw_gives_the_same_bytes(studies, drawn):
    before = {p: p.read_bytes() for name in ("mlp", "task2") for p in studies[name][0].folder.glob("fig*")}
    assert len(before) == 4 * 9  # both lie in one folder with the others
    for name in ("mlp", "task2"):
        plots.draw(studies[name][0])  # from the finished levels
    assert [p.name for p, content in before.items() if p.read_bytes() != content] == []


USERS = {  # settings of a user's own
    "TeX": {"text.usetex": True},
    "sizes": {"font.size": 30, "lines.linewidth": 9, "savefig.dpi": 20, "figure.dpi": 40, "savefig.bbox": "tight"},
    "colours": {
        "axes.facecolor": "black",
        "savefig.facecolor": "red",
        "text.color": "red",
        "savefig.transparent": True,
    },
    "fonts": {"font.family": "monospace", "svg.fonttype": "none", "mathtext.fontset": "cm"},
    "a sketch": {"path.sketch": (1, 100, 2)},
    "axes": {"axes.formatter.limits": (-1, 1), "axes.xmargin": 0.3, "axes.grid": False, "ytick.right": True},
    "layout": {"figure.autolayout": True, "legend.loc": "center", "axes.spines.top": False},
}


@pytest.mark.parametrize("what", USERS)
def test_the_users_settings_do_not_change_figures_and_come_back(studies, drawn, what):
    s, frame = studies["task1"]
    before = {p: p.read_bytes() for p in s.folder.glob("fig3*")}
    with matplotlib.rc_context(USERS[what]):
        there = dict(matplotlib.rcParams)
        plots.draw(s, frame)
        assert dict(matplotlib.rcParams) == there
    assert len(before) == 4 and [p.name for p, content in before.items() if p.read_bytes() != content] == []


def test_drawing_leaves_scipys_statistics_to_those_who_ask_for_them():
    """seaborn tries to import them, which takes as long as the rest of it; a user may still want them afterwards."""
    code = (
        "import sys, lthcore.studies.plots; print('scipy.stats' in sys.modules); import seaborn, scipy.stats; "
        "print(scipy.stats.norm.cdf(0)); seaborn.kdeplot(x=[1, 2, 3])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=store.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "0.5"]


def pictures():
    """Pictures of the explorer, of every kind that needs no study: list of bytes."""
    shapes, random = ARCHITECTURES["mlp"].weights, np.random.default_rng(0)
    mask = {name: random.random(shape) < 0.3 for name, shape in shapes.items()}
    digit = random.integers(0, 255, (28, 28), dtype=np.uint8)
    line = pd.DataFrame({"density": [1, 0.5, 0.1], "mean": [97.0, 98.0, 96.0]})
    answers = {"dense": np.full(10, 0.1), "ticket": np.eye(10)[3]}
    out = [panels.Note().png("words"), panels.MaskView(shapes, "#0072B2").png(mask, digit)]
    return [*out, panels.Answers().png(digit, 3, answers), panels.Compared({"mine": (line, "ticket")}).png()]


@pytest.mark.parametrize("what", USERS)
def test_nor_the_explorers_pictures(what):
    expected = pictures()
    with matplotlib.rc_context(USERS[what]):
        there = dict(matplotlib.rcParams)
        assert pictures() == expected and dict(matplotlib.rcParams) == there


# ------------------------------------------------------------------------------------------------- what is drawn


def metric_of(name, panel):
    return "loss" if "loss" in name or panel.startswith("loss") else "accuracy"


@pytest.mark.parametrize(("experiment", "name"), ALL)
@pytest.mark.parametrize("replicates", [1, 2])
def test_the_csv_has_the_numbers_of_the_tidy_table(studies, drawn, experiment, name, replicates):
    s, frame = studies[experiment]
    if replicates == 1:
        table = pd.read_csv(s.folder / f"{name}.csv")
    else:
        frame = twice(frame)
        figure, table = figure_of(studies, experiment, name, frame)
        plt.close(figure)
    test = frame[frame["split"] == "test"]
    assert len(table) >= 4
    for row in without_differences(table).to_dict("records"):
        rows = test[(test["arm"] == row["arm"]) & (test["level"] == row["level"])]
        rows = rows[rows["metric"] == metric_of(name, row["panel"])]
        at = row.get("step")
        values = rows.loc[rows["step"] == (rows["step"].max() if at is None or np.isnan(at) else at), "value"]
        assert row["n"] == len(values) == replicates
        half = stats.t.ppf(0.975, replicates - 1) * stats.sem(values) if replicates > 1 else math.nan
        found = row["mean"], row["low"], row["high"], row["least"], row["greatest"]
        mean = values.mean()
        assert found == pytest.approx((mean, mean - half, mean + half, values.min(), values.max()), nan_ok=True)
        assert row["density"] == pytest.approx(rows["density"].iloc[0])


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_the_curves_are_those_of_the_csv(studies, drawn, experiment, name):
    """Every row is a point of a curve, every curve of data consists of rows."""
    figure, table = figure_of(studies, experiment, name)
    points = {
        (round(float(x), 9), round(float(y), 9))
        for axis in figure.axes
        for line in axis.get_lines()
        if line.get_linestyle() != ":"  # guides
        for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)
    }
    xs = (
        table["density"].where(table["step"].isna(), table["step"])
        if {"step", "arm"} <= set(table)
        else table["density"]
    )
    if name.startswith(("fig1b", "fig2b", "fig5b")):
        xs = table["step"]
    assert points == {(round(float(x), 9), round(float(y), 9)) for x, y in zip(xs, table["mean"], strict=True)}
    plt.close(figure)


@pytest.mark.parametrize(("experiment", "name"), [("mlp", ALL[0][1]), ("lenet5", ALL[2][1]), ("task3", ALL[7][1])])
def test_every_arm_and_level_is_on_the_density_figure(studies, drawn, experiment, name):
    """Once in full, and once near the dense network."""
    s, _ = studies[experiment]
    table = without_differences(pd.read_csv(s.folder / f"{name}.csv"))
    near = table["panel"].str.contains("near|enlarged")
    for there in (table[near], table[~near]):
        shown = sorted(zip(there["arm"], there["level"], strict=True))
        assert shown == sorted((u.arm, k) for u in s.units for k in u.levels)


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_of_curves_that_coincide_both_are_seen(studies, experiment, name):
    """The later a curve is drawn, the thinner it is; in the tasks the one that the claim is about comes last."""
    figure, _ = figure_of(studies, experiment, name)
    for axis in of_arms(figure) if "b_" not in name or experiment.startswith("task") else ():
        solid = [line for line in axis.get_lines() if line.get_linestyle() == "-"]
        widths = [line.get_linewidth() for line in solid]
        assert len(solid) > 1 and all(a > b + 0.3 for a, b in itertools.pairwise(widths))
        if experiment in ("task1", "task2"):
            assert solid[-1].get_label().startswith("T1 on S2")
    plt.close(figure)


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_the_title_says_how_the_levels_are_drawn(studies, experiment, name):
    figure, _ = figure_of(studies, experiment, name)
    texts = [figure.get_suptitle()] if name.startswith("fig5b") else [axis.get_title() for axis in figure.axes]
    for axis, title in zip(figure.axes, itertools.cycle(texts), strict=False):
        styles = {line.get_linestyle() for line in axis.get_lines()}
        assert ("--" in styles) == ("dashed: level" in title) and "faint" not in title
    plt.close(figure)


@pytest.mark.parametrize("name", ["fig4a_task2_accuracy", "fig4b_task2_loss"])
def test_task_2_has_no_column_for_what_its_settings_leave_out(module_folders, finish, name):
    """With a rate of its own the output layer is pruned in one way: one column, every panel drawn on, a legend."""
    study = finish(experiments.study("task2", "smoke", overrides=TINY | {"output_rate": 0.1}))
    figure, _ = study.experiment.figures[name](study, experiments.finished(study))
    assert all(axis.has_data() for axis in figure.axes) and any(axis.get_legend() for axis in figure.axes)
    assert "output layer pruned by 10% a round" in figure.axes[0].get_title()
    plt.close(figure)


@pytest.mark.parametrize("name", ["fig4a_task2_accuracy", "fig4b_task2_loss"])
def test_task_2_is_drawn_as_pruned_and_with_the_head_spared(studies, drawn, name):
    s, frame = studies["task2"]
    assert set(pd.read_csv(s.folder / f"{name}.csv")["arm"]) == set(frame["arm"])


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_axes(studies, experiment, name):
    figure, _ = figure_of(studies, experiment, name)
    by_density = by_step = 0
    for axis in figure.axes:
        low, high = axis.get_xlim()
        if "density" in axis.get_xlabel():
            by_density += 1
            assert axis.get_xscale() == "log" and low > 1 > high > 0  # decreasing to the right, dense at the left
            lines = [line for line in axis.get_lines() if line.get_linestyle() != ":"]
            assert all(high < x < low for line in lines for x in line.get_xdata())
        else:
            by_step += 1
            assert "step" in axis.get_xlabel() and low == 0 < high
        assert axis.get_ylabel() in ("test accuracy (%)", "test loss (nats)", DIFFERENCE)
        if "loss" in axis.get_ylabel():
            assert min(y for line in axis.get_lines() for y in line.get_ydata()) > 0
    assert by_density + by_step == len(figure.axes)
    assert by_density > 0 or name.startswith(("fig1b", "fig2b", "fig5b"))
    plt.close(figure)


def test_an_arm_has_one_colour_in_all_figures_and_no_other_arm_has_it_there(studies):
    everywhere = {}
    for experiment, name in ALL:
        if name.startswith(("fig1b", "fig2b")):  # a colour per level
            continue
        figure, _ = figure_of(studies, experiment, name)
        here = label_colours(figure)
        plt.close(figure)
        assert len(set.union(*here.values())) == len(here)
        for label, colours in here.items():
            everywhere.setdefault(label, set()).update(colours)
    assert all(len(colours) == 1 for colours in everywhere.values()), everywhere
    assert everywhere["T1 on S1"] and everywhere["reinitialised"] and everywhere["Adam, SGD's mask"]


@pytest.mark.parametrize("experiment", NAMES)
def test_every_arm_has_a_style_and_sparing_does_not_change_it(experiment):
    for unit in experiments.study(experiment).units:
        label, colour, marker = plots.style(unit.arm)
        assert label and matplotlib.colors.is_color_like(colour) and marker
    assert plots.style("t1_on_s2_spared") == plots.style("t1_on_s2")
    assert plots.style("ticket_spared") != plots.style("ticket")  # in one panel with it


def test_a_panel_of_differences_has_the_paired_differences_and_the_bound(studies):
    s, frame = studies["task1"]
    frame = twice(frame)
    sheet = figures.Sheet(s, "")
    pairs = [("t1_on_s2", "T1 - T2", "t2_on_s2"), ("t1_on_s1", "T1 - dense", None)]
    sheet.differences(sheet.axes[0], frame, pairs, "differences", -0.5)
    drawn, final = pd.concat(sheet.drawn), statistics.at_end(frame)
    for row in drawn.to_dict("records"):
        other = ("t2_on_s2", row["level"]) if row["arm"] == "t1_on_s2" else ("t1_on_s1", 0)
        values = final[row["arm"], row["level"]] - final[other]
        assert (row["n"], row["mean"], row["least"]) == (2, pytest.approx(values.mean()), pytest.approx(values.min()))
    assert set(zip(drawn["arm"], drawn["level"], strict=True)) == {
        ("t1_on_s2", 1), ("t1_on_s2", 15), ("t1_on_s1", 1), ("t1_on_s1", 15)
    }  # fmt: skip
    assert [text.get_text() for text in sheet.axes[0].texts] == ["bound: -0.5"]
    guides = [line.get_ydata()[0] for line in sheet.axes[0].get_lines() if line.get_linestyle() == ":"]
    assert guides == [0, -0.5]
    plt.close(sheet.figure)


def test_the_reports_numbers_are_marked_where_they_are_in_view(studies):
    sheet = figures.Sheet(studies["task1"][0], "")
    sheet.axes[0].set_ylim(96, 99)
    sheet.reported(sheet.axes[0], ("t1_on_s1", "t1_on_s2", "t2_on_s2"))
    assert [text.get_text() for text in sheet.axes[0].texts] == ["report, T1 on S2: 96.14"]
    sheet.axes[1].set_ylim(75, 99)
    sheet.reported(sheet.axes[1], ("t1_on_s1", "t1_on_s2"))
    sheet.figure.canvas.draw()
    below, above = (text.get_window_extent() for text in sheet.axes[1].texts)  # 95.74 and 96.14
    assert below.y1 < above.y0
    plt.close(sheet.figure)


# ------------------------------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(("experiment", "name"), ALL)
def test_a_study_that_has_not_begun_can_be_drawn(studies, experiment, name):
    figure, table = figure_of(studies, experiment, name, studies[experiment][1].iloc[:0])
    assert len(table) == 0 and "n = 0" in figure.get_supxlabel()
    plt.close(figure)


PARTS = {
    "dense networks only": lambda frame: frame["level"] == 0,
    "few levels": lambda frame: frame["level"] <= 1,
    "chains only": lambda frame: ~frame["arm"].str.contains("random|_by_|t1_on_s2"),
    "without level 0": lambda frame: frame["level"] > 0,
}


def part(what, experiment, name):
    return pytest.param(what, experiment, name)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("what", "experiment", "name"), [part(w, *figure) for w in PARTS for figure in ALL])
def test_a_study_that_is_not_through_can_be_drawn(studies, what, experiment, name):
    frame = studies[experiment][1]
    partial = frame[PARTS[what](frame)]
    try:
        figure, table = figure_of(studies, experiment, name, partial)
        assert set(table["arm"]) <= set(partial["arm"]) and len(table)
        assert all(axis.get_window_extent().width > 200 for axis in figure.axes)
    finally:
        plt.close("all")


# ------------------------------------------------------------------------------------------------- scorecard and torch


def test_the_scorecard_links_what_is_there(studies, drawn, monkeypatch, tmp_path):
    monkeypatch.setenv("LTH_LINKS_FROM", str(store.FIGURES / "executed"))
    shown = [studies[name][0] for name in NAMES]
    page = plots.scorecard(shown).data
    verdicts = experiments.verdicts(*shown).drop_duplicates("claim")["verdict"].value_counts()
    assert set(verdicts.index) <= {"not judged (smoke)", "not run"}  # levels that are not trained here
    assert all(page.count(verdict) == count for verdict, count in verdicts.items())
    here = [rule.id for rule in rules.REPORT if claims.DECIDED_IN.get(rule.id, rule.experiment) in NAMES]
    assert len(here) == verdicts.sum() and "nan" not in page.lower()
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == len(here)
    assert all((store.FIGURES / "executed" / link).resolve().is_file() for link in links)
    monkeypatch.setattr(store, "FIGURES", tmp_path)
    assert "href" not in plots.scorecard([studies["mlp"][0]]).data
    seen = []
    monkeypatch.setattr(plots, "display", seen.append)
    plots.gallery([studies["mlp"][0]])
    assert seen[0].data.count("not drawn yet") == 2


def test_the_forest_plot_has_a_row_per_claim_and_is_not_judged_below_the_report(studies, drawn):
    shown = [studies[name][0] for name in NAMES]
    (path,) = plots.draw_scorecard(shown)
    assert path.name == "fig0a_claims.png" and path.parent == shown[0].folder
    table = pd.read_csv(path.with_suffix(".csv"))
    every = experiments.verdicts(*shown).drop_duplicates("claim").set_index("claim")["verdict"]
    assert table["claim"].tolist() == every.index[every != "not run"].tolist()
    assert set(table["verdict"]) == {"not judged (smoke)"} and set(every) >= set(table["verdict"])
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["config"] == {"preset": "smoke"} and facts["levels"] == facts["levels_expected"] > 0
    tiles = plots.tiles(shown).data
    assert f"{len(every)}</b><br>without a verdict yet" in tiles and tiles.count(" 0</b>") == 3


CLAIMED = {
    "claim": "a",
    "name": "a claim",
    "measured": "one - other",
    "unit": measures.PP,
    "above": 0,
    "below": math.inf,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"mean": 0.2, "low": 0.1, "high": 0.3, "n": 5, "verdict": "holds, not after Holm"},
        {"mean": 0, "n": 3, "verdict": "does not hold", "published": 0.5},
        {"mean": 0.7, "low": 0.5, "high": 0.9, "n": 4, "unit": measures.RATIO, "above": -math.inf, "below": 1},
        {"mean": 98.0, "low": 97.0, "high": 99.0, "n": 5, "verdict": "unresolved", "name": "many words " * 30},
    ],
)
def test_a_forest_plot_of_whatever_there_is(change):
    row = {**CLAIMED, **dict.fromkeys(("published", "mean", "low", "high"), math.nan), "n": 0, "number": "none yet"}
    rows = [row | {"verdict": "not run"}, row | {"verdict": "not judged"} | change]
    figure = forest.forest(pd.DataFrame(rows), "title", "stamp")
    figure.draw_without_rendering()
    texts = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert texts.count("none yet") == 2 and "– not run" in texts
    left = [
        mark for axis in figure.axes for line in axis.get_lines() if (mark := line.get_marker()) not in ("None", "")
    ]
    assert len(left) == ("mean" in change) + ("published" in change)
    plt.close(figure)


def test_figures_and_results_need_no_torch(studies, drawn):
    s = studies["task1"][0]
    code = (
        "import sys; from pathlib import Path; from lthcore import plots, results, experiments, store;"
        f"store.FIGURES = Path({str(store.FIGURES / 'again')!r});"
        f"s = experiments.study('task1', 'smoke', overrides={TINY!r});"
        "paths = plots.draw(s); experiments.verdicts(s); assert paths[0].exists();"
        "print(len(experiments.finished(s)), 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=dict(os.environ), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(len(studies["task1"][1])), "False"]
    again = store.FIGURES / "again" / s.folder.name / "fig3_task1.png"
    assert again.read_bytes() == (s.folder / "fig3_task1.png").read_bytes()


def test_a_level_that_keeps_nothing_has_no_place_on_the_axis_and_is_no_warning(recwarn):
    axis = plt.figure().subplots()
    axis.plot([1, 0.01, 0], [98, 90, 10])
    figures.density_axis(axis)
    assert axis.get_xlim() == (1.15, 0.01 / 1.15) and not recwarn.list
    plt.close("all")


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("scale", ["linear", "log"])
def test_a_band_ends_where_its_quantity_does_and_a_differences_band_does_not(scale, free):
    table = pd.DataFrame({"x": [1, 2], "n": 3, "mean": [1.0, 30.0], "low": [-4.0, -5.0], "high": [6.0, 110.0]})
    figure, axis = plt.subplots()
    axis.set_yscale(scale)
    figures.curve(axis, table, "x", "a", "black", free=free)
    heights = axis.collections[0].get_paths()[0].vertices[:, 1]
    ends = {("linear", False): (0, 100), ("linear", True): (-5, 110)}.get((scale, free), (0.1, 110))
    assert (heights.min(), heights.max()) == pytest.approx(ends)
    plt.close(figure)


def test_a_small_difference_shows_its_whole_interval(studies):
    """Even where all means are above 0, as in a difference of two masks that are as good."""
    s, frame = studies["task1"]
    frame = twice(frame)
    sheet = figures.Sheet(s, "")
    sheet.differences(sheet.axes[0], frame, [("t1_on_s2", "a", "t2_on_s2")], "differences")
    (table,), (band,) = sheet.drawn, sheet.axes[0].collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(table["low"].min())
    plt.close(sheet.figure)
