"""The figures of a study, drawn, saved and shown, and the scorecard. No torch."""

import base64
import html
import inspect
import io
import json
import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import PIL.Image
from IPython.display import HTML, Image, display

from ..results import figures, forest, rules
from ..runs import presets, store
from . import REGISTRY, claims, experiments

WIDTH = 88  # dots per inch at which a figure is shown; it is drawn at 130, for fine screens and print


def styles():
    """Label, colour and marker of every arm of every study, those of the first study that has it: dict."""
    return {arm: style for record in reversed(REGISTRY.values()) for arm, style in record.styles.items()}


def style(arm):
    """Label, colour (in hexadecimal) and marker of an arm of any study."""
    return figures.style(arm, styles())


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
    return _save(results.study.folder, results.provenance, name, figure, drawn)


def _save(folder, provenance, name, figure, drawn):
    if layout := figure.get_layout_engine():
        layout.execute(figure)  # once, not for each file and again where it is shown
        figure.set_layout_engine(None)
    vector, raster, few = io.BytesIO(), io.BytesIO(), io.BytesIO()
    figure.savefig(vector, format="svg", metadata={"Date": None})
    figure.savefig(raster, format="png", dpi=130, metadata={"Software": None}, pil_kwargs={"compress_level": 0})
    colours = PIL.Image.open(raster).convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE)
    colours.save(few, "png", optimize=True)  # a third of the size; flat colours lose nothing that an eye sees
    with store.writing(lambda: folder):
        store.write(folder / f"{name}.svg", vector.getvalue())
        store.write(folder / f"{name}.png", few.getvalue())
        store.write(folder / f"{name}.csv", drawn.to_csv(index=False, lineterminator="\n"))
        store.write(folder / f"{name}.json", json.dumps(provenance, indent=1, sort_keys=True) + "\n")
    return folder / f"{name}.png"


def tiles(studies, verdicts=None):
    """How many of the report's claims hold, do not hold, and are open, at a glance: HTML."""
    table = _verdicts(studies, verdicts)
    verdicts = claims.in_short(table[table["rule"] != ""])["verdict"]
    verdict, open_to_holm = verdicts.map(rules.plain), verdicts.str.endswith(rules.NOT_AFTER_HOLM)
    counts = {
        "hold": verdict == rules.HOLDS,
        "do not hold": verdict == rules.REFUTED,
        "unresolved": verdict == "unresolved",
    }
    counts["without a verdict yet"] = ~verdict.isin([rules.HOLDS, rules.REFUTED, rules.UNRESOLVED])
    marks = [forest.style(v) for v in (rules.HOLDS, rules.REFUTED, rules.UNRESOLVED, "")]
    return HTML(
        "".join(
            _tile(label, there.sum(), (there & open_to_holm).sum(), mark)
            for (label, there), mark in zip(counts.items(), marks, strict=True)
        )
    )


def _tile(label, count, not_after_holm, mark):
    colour, _, character = mark
    note = f" ({not_after_holm} not after Holm)" if not_after_holm else ""
    box = f"display:inline-block;margin:0 12px 8px 0;padding:8px 12px;border:2px solid {colour};border-radius:6px"
    return f'<div style="{box}"><b style="font-size:28px">{character} {count}</b><br>{label}{note}</div>'


def chip(verdict):
    """A verdict as a label of icon, word and colour: str of html."""
    colour, _, icon = forest.style(verdict)
    css = f"display:inline-block;background:{colour};color:#fff;border-radius:.9em;padding:.1em .7em;font-weight:600"
    css += ";white-space:nowrap"
    return f'<span style="{css}"><span aria-hidden="true">{icon}</span> {html.escape(verdict)}</span>'


def _verdicts(studies, verdicts):
    return experiments.verdicts(*studies) if verdicts is None else verdicts


def draw_scorecard(studies, verdicts=None):
    """Draw, save and show the report's claims as a forest plot; save another of what others have published.

    At another scale than the report's, claims that were not run are left out, where any was; where none beyond the
    report was run, that figure is not drawn.

    Parameters
    ----------
    studies : list of Study or Results
    verdicts : DataFrame
        What :func:`lthcore.studies.experiments.verdicts` says of them, if it is known.

    Returns
    -------
    list of pathlib.Path
        The pictures, with the same files beside them as those of :func:`draw`.
    """
    results = [experiments.load(s) for s in studies]
    verdicts = _verdicts(results, verdicts)
    ruled = verdicts["rule"] != ""
    paths = []
    for name, (title, lines) in SCORECARD.items():
        chosen = verdicts[ruled == (lines == 2)]
        if chosen.empty:
            continue
        about = [r for r in results if r.study.config.experiment in set(chosen["experiment"])]
        table = claims.in_short(chosen)
        left = table["verdict"] == "not run"
        small = any(r.study.config.preset != "report" for r in about)
        if left.all() and small and lines != 2:
            continue  # nothing beyond the report was run
        if left.any() and not left.all() and small:
            title = f"{title}; {left.sum()} that were not run are left out"
            table = table[~left]
        if lines == 2:
            table = pd.concat([table, claims.reported(about)], ignore_index=True)
        with matplotlib.rc_context():
            figure = forest.forest(table, title, _stamp(about), lines)
            paths.append(_save(_folder(results), _together(about), name, figure, table))
            if lines == 2:
                display(Image(paths[-1], width=round(WIDTH * figure.get_figwidth()), alt=title))
            plt.close(figure)
    return paths


SCORECARD = {
    "fig0a_claims": ("The report's claims: 95% t-intervals against their bounds", 2),
    "fig0b_published": ("Claims beyond the report, published or our own, on this study's small networks", 3),
}


def _folder(results):
    """Where figures about several studies go: beside the notebook that is executed, else to the first other scale."""
    if executed := os.environ.get("LTH_LINKS_FROM"):
        return Path(executed).parent
    folders = [r.study.folder for r in results]
    return next((folder for folder in folders if folder != store.FIGURES), store.FIGURES)


def _together(results):
    """The provenance of a figure about several studies; those that are not begun are named."""
    begun = [r for r in results if r.provenance["levels"]]
    return {
        "config": {"preset": (begun or results)[0].study.config.preset},
        "levels": sum(r.provenance["levels"] for r in begun),
        "levels_expected": sum(r.provenance["levels_expected"] for r in begun),
        "studies": {r.study.config.experiment: r.provenance for r in begun},
        "not_begun": [r.study.config.experiment for r in results if r not in begun],
    }


def _stamp(results):
    scales = " and ".join(dict.fromkeys(r.study.config.preset for r in results))
    changes = {
        k: v for r in results for k, v in presets.changes(r.study.config).items() if k not in ("replicates", "model")
    }
    parts = [f"preset {scales}", *(f"{k} = {v}" for k, v in changes.items()), "mean [95% t-interval] over n replicates"]
    return " · ".join(parts)


def scorecard(studies, verdicts=None):
    """Every claim about these studies: HTML with verdicts, numbers and links to figures.

    The report's claims come first, a row each; what else is known of them, and the claims that others have published,
    are folded. Links are relative to ``LTH_LINKS_FROM`` (where an executed notebook will lie), else to the working
    directory.

    Parameters
    ----------
    studies : list of Study or Results
    verdicts : DataFrame
        What :func:`lthcore.studies.experiments.verdicts` says of them, if it is known.
    """
    results = [experiments.load(s) for s in studies]
    verdicts = _verdicts(results, verdicts)
    ruled = verdicts["rule"] != ""
    links = _links(verdicts, {r.study.config.experiment: r.study.folder for r in results})
    parts = []
    if ruled.any():
        every = claims.show(verdicts[ruled]).drop(columns="verdict")
        parts += [_in_short(verdicts[ruled], links), _folded("Every measure of these claims", _scrolling(every))]
    if not ruled.all():
        table = claims.show(verdicts[~ruled])
        table["figure"] = [links[claim] if claim else "" for claim in table.index]
        path = _folder(results) / f"{list(SCORECARD)[1]}.png"
        seen = picture(path, SCORECARD[path.stem][0]) if path.exists() else ""
        parts.append(_folded("Claims beyond the report, published or our own", seen + _scrolling(table)))
    return HTML("".join(parts))


def _links(verdicts, folders):
    """A link to the figure of each claim, or an empty str where there is none: dict of claim to HTML."""
    start, links = os.environ.get("LTH_LINKS_FROM") or Path.cwd(), {}
    for row in verdicts.drop_duplicates("claim").to_dict("records"):
        path = folders[row["experiment"]] / f"{row['figure']}.png"
        link = os.path.relpath(path, start).replace(os.sep, "/")
        number = row["figure"].split("_")[0]
        links[row["claim"]] = _Html(f'<a href="{link}">{number}</a>' if path.exists() else "")
    return links


class _Html(str):
    """Text that is HTML already."""


LEFT_ALIGNED = "text-align:left;vertical-align:top"


def _in_short(verdicts, links):
    """HTML: a row per claim of the report, its verdict first."""
    columns = {"verdict": 14, "claim, and the report's words": 40, "holds if": 20, "ours": 20, "figure": 6}
    lines = ["".join(f'<th style="{LEFT_ALIGNED};width:{width}%">{name}</th>' for name, width in columns.items())]
    for row in claims.in_short(verdicts).to_dict("records"):
        of_claim = verdicts[verdicts["claim"] == row["claim"]]
        side = _escaped(claims.decisive(of_claim)["side"])
        cells = [
            chip(row["verdict"]),
            f"{_escaped(row['name'])}<br><i>{_escaped(of_claim['text'].iloc[0])}</i> ({row['claim']})",
            f"{_escaped(row['measured'])}<br><b>{side}</b>",
            _escaped(row["number"]).replace(", n", "<br>n"),
            links[row["claim"]],
        ]
        unbroken = f"{LEFT_ALIGNED};white-space:nowrap"
        css = [LEFT_ALIGNED, LEFT_ALIGNED, LEFT_ALIGNED, unbroken, unbroken]
        lines.append("".join(f'<td style="{one}">{cell}</td>' for one, cell in zip(css, cells, strict=True)))
    rows = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="table-layout:fixed;width:100%;max-width:960px">{rows}</table>'


def _escaped(text):
    return text if isinstance(text, _Html) else html.escape(str(text)).replace("&#x27;", "'")


def _scrolling(table):
    """HTML of a table that may be wider than the page."""
    text = table.reset_index().map(_escaped).to_html(escape=False, index=False)
    for cell in ("th", "td"):
        text = text.replace(f"<{cell}>", f'<{cell} style="{LEFT_ALIGNED}">')
    return f'<div style="overflow-x:auto">{text}</div>'


def _folded(title, content):
    return f"<details><summary><b>{title}</b></summary>{content}</details>"


def picture(path, alt, width=1000):
    """An image file as HTML that needs no other file: str. `alt` describes it for readers who cannot see it."""
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}" style="width:{width}px;max-width:100%">'


def gallery(studies):
    """Show the figures of these studies that have been drawn, folded by study."""
    for study in studies:
        drawn, missing = [], []
        for name, function in study.experiment.figures.items():
            path = study.folder / f"{name}.png"
            if path.exists():
                drawn.append(picture(path, f"{name.split('_')[0]}: {inspect.getdoc(function) or name}"))
            else:
                missing.append(f"<p>{name}: not drawn yet</p>")
        display(HTML(_folded(study.experiment.title or study.config.experiment, "".join(drawn + missing))))
