"""The figures of a study, drawn, saved and shown, and the scorecard. No torch."""

import html
import io
import json
import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import PIL.Image
from IPython.display import HTML, Image, display

from ..results import figures, statistics
from ..runs import store
from . import REGISTRY, claims, experiments


def styles():
    """Label, colour and marker of every arm of every study, those of the first study that has it: dict."""
    return {arm: look for record in reversed(REGISTRY.values()) for arm, look in record.styles.items()}


def style(arm):
    """Label, colour (in hexadecimal) and marker of an arm of any study."""
    return figures.style(arm, styles())


def at_level(study, frame, level):
    """Test accuracy and loss against training step of every arm at one level: (Figure, DataFrame)."""
    arms = [arm for arm in dict.fromkeys(frame["arm"]) if level in statistics.levels(frame, arm)]
    sheet = figures.Sheet(
        study, f"{figures.at_levels(frame, arms[0], level, level).split(';')[0].removeprefix('solid: ')}"
    )
    for axis, metric in zip(sheet.axes, ("accuracy", "loss"), strict=True):
        plain = [arm for arm in arms if not arm.endswith("_spared") or arm == "ticket_spared"]
        sheet.against_step(axis, frame, plain, level, metric, f"test {metric}")
    return sheet.done()


def draw(study, frame=None, show=None):
    """Draw, save and show all figures of a study.

    Parameters
    ----------
    study : Study or Results
        What :func:`lthcore.studies.experiments.load` gave is not read again.
    frame : DataFrame
        The tidy rows to draw; by default those of the study.
    show : callable
        Called with a figure's name, itself and its path, to show it; by default pyplot shows it.

    Returns
    -------
    list of pathlib.Path
        The pictures; a csv of what is drawn, an svg and the provenance lie beside each.
    """
    results = experiments.load(study)
    study = results.study
    frame = results.frame if frame is None else frame
    paths = []
    for name, function in study.experiment.figures.items():
        with matplotlib.rc_context():  # the user's own settings, which a figure changes, come back
            figure, drawn = function(study, frame)
            paths.append(save_figure(results, name, figure, drawn))
            show(name, figure, paths[-1]) if show else plt.show()
            plt.close(figure)
    return paths


def save_figure(results, name, figure, drawn):
    """Write ``<name>.png``, ``.svg``, ``.csv`` (what is drawn) and ``.json`` (where it comes from): Path of the png.

    It reads nothing; `results` are what :func:`lthcore.studies.experiments.load` gives.
    """
    folder = results.study.folder
    vector, raster, few = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None})
    figure.savefig(raster, format="png", dpi=130, metadata={"Software": None})
    colours = PIL.Image.open(raster).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE)
    colours.save(few, "png", optimize=True)  # a third of the size; flat colours lose nothing that an eye sees
    store.write(folder / f"{name}.svg", vector.getvalue())
    store.write(folder / f"{name}.png", few.getvalue())
    store.write(folder / f"{name}.csv", drawn.to_csv(index=False, lineterminator="\n"))
    store.write(folder / f"{name}.json", json.dumps(results.provenance, indent=1, sort_keys=True) + "\n")
    return folder / f"{name}.png"


def scorecard(studies):
    """Every claim about these studies, or what was loaded of them: HTML with numbers, verdicts and links to figures.

    The report's claims come first, then those that others have published. Links are relative to ``LTH_LINKS_FROM``
    (where an executed notebook will lie), else to the working directory.
    """
    results = [experiments.load(s) for s in studies]
    verdicts = experiments.verdicts(*results)
    folders = {r.study.config.experiment: r.study.folder for r in results}
    ruled = verdicts["rule"] != ""
    parts = {"The report's claims": verdicts[ruled], "Published claims of others": verdicts[~ruled]}
    return HTML("".join(f"<h3>{words}</h3>{_table(part, folders)}" for words, part in parts.items() if len(part)))


def _table(verdicts, folders):
    """HTML of these verdicts, a link to the figure in each claim's first row."""
    start = os.environ.get("LTH_LINKS_FROM") or Path.cwd()
    table, links = claims.show(verdicts), []
    shown = verdicts[verdicts["role"] != "some level"]
    for claim, experiment, figure in zip(table.index, shown["experiment"], shown["figure"], strict=True):
        path = folders[experiment] / f"{figure}.png"
        link = os.path.relpath(path, start).replace(os.sep, "/")
        links.append(f'<a href="{link}">{figure.split("_")[0]}</a>' if claim and path.exists() else "")
    text = table.reset_index().map(lambda cell: html.escape(str(cell)).replace("&#x27;", "'")).assign(figure=links)
    return text.to_html(escape=False, index=False)


def gallery(studies):
    """Show the figures of these studies that have been drawn."""
    for study in studies:
        for name in study.experiment.figures:
            path = study.folder / f"{name}.png"
            if path.exists():
                display(Image(path, width=1000))
            else:
                print(f"{name}: not drawn yet")
