"""What a notebook shows: its settings, the answer in a box, and its figures with their alt texts.

The sentences are in the study's record and chosen by the verdict; the numbers are read from the results. Nothing
here states a result.
"""

import html
from weakref import WeakKeyDictionary

from IPython.display import Image, display

from ..methods import one_of
from ..results import forest, measures, rules, statistics
from ..results.figures import full_label
from ..runs import presets
from ..runs.presets import configure
from ..studies import claims, experiments, plots

UNCORRECTED = (
    "These verdicts are not corrected for multiple comparisons: notebook 00 applies Holm's procedure to all published "
    "claims together."
)
COUNTED = (rules.HOLDS, rules.REFUTED, rules.UNRESOLVED, "not judged", "not run")
LEFT = 'style="text-align:left;vertical-align:top"'  # of a cell of a table
_judged = WeakKeyDictionary()


def chosen(answer, verdict):
    """The answer for a verdict and what follows from it: (str, str), empty where nothing is judged."""
    by_verdict = {rules.HOLDS: answer.holds, rules.REFUTED: answer.fails, rules.UNRESOLVED: answer.unresolved}
    return by_verdict.get(verdict, ("", ""))


class Shown:
    """A result as html, and as plain text where html is not shown."""

    def __init__(self, text, plain):
        self.text, self.plain = text, plain

    def _repr_html_(self):
        return self.text

    def __repr__(self):
        return self.plain


# ------------------------------------------------------------------------------------------------------- the settings


def settings(study):
    """What a study is run with: the rows that the report's tables fix, and what differs from the committed schedule.

    Returns
    -------
    Shown
        ``name value`` in a line that wraps, with the committed schedule's value in brackets where that is another.
    """
    config = study.config
    committed = presets.table(configure(config.experiment, "report"))
    first = ["experiment", "preset", "replicates", *study.experiment.settings]
    given = presets.table(config)
    changed = [name for name, value in given.items() if name != "device" and value != committed[name]]
    parts = {name: str(given[name]) for name in (*first, *changed)}
    parts |= {name: f"{given[name]} (committed schedule: {committed[name]})" for name in changed}
    spans = [f"<span><b>{name}</b>&ensp;{html.escape(value)}</span>" for name, value in parts.items()]
    text = f'<div style="display:flex;flex-wrap:wrap;gap:.2em 1.8em">{"".join(spans)}</div>'
    return Shown(text, "\n".join(f"{name}: {value}" for name, value in parts.items()))


# --------------------------------------------------------------------------------------------------------- the answer


def verdicts(results):
    """:func:`lthcore.studies.experiments.verdicts` of one study's results, judged once."""
    if results not in _judged:
        _judged[results] = experiments.verdicts(results)
    return _judged[results]


def answer(results, found="No claim is judged about this experiment: its figures and numbers follow."):
    """The answer to the notebook's question: a sentence, the number that it rests on with its interval, the verdict.

    Parameters
    ----------
    results : Results
        Of :func:`lthcore.studies.experiments.load`.
    found : str
        What is said of a study about which no claim is judged.

    Returns
    -------
    Shown
    """
    rows = _rows(results)
    if rows is None:
        return Shown(f'<div role="note" style="{_box(forest.OTHER[0])}">{html.escape(found)}</div>', found)
    row, verdict = claims.decisive(rows), rows["verdict"].iloc[0]
    explored = verdict.endswith(rules.EXPLORATORY)
    sentence = "Exploratory: " * explored + (_about(results)[0] or _not_judged(results, verdict))
    number, rest = _number(row), _tally(verdicts(results))
    if verdict.endswith(rules.NOT_AFTER_HOLM):
        rest = f"Among all claims of the report this verdict does not survive Holm's correction at 5%. {rest}"
    if explored:
        rest = f"These replicates had been analysed before the claim's rule was final. {rest}"
    colour, _, icon = forest.style(verdict)
    parts = f'<div style="font-size:1.15em;font-weight:600;margin-bottom:.4em">{html.escape(sentence)}</div>'
    parts += f"<div>claim <b>{html.escape(row['claim'])}</b> {plots.chip(verdict)}&ensp;{html.escape(number)}</div>"
    parts += f'<div style="margin-top:.4em;opacity:.85">{html.escape(rest)}</div>'
    plain = f"{sentence}\nclaim {row['claim']}: {icon} {verdict}: {number}\n{rest}"
    return Shown(f'<div role="note" style="{_box(colour)}">{parts}</div>', plain)


def conclusion(results, found=""):
    """What follows from the answer, in one sentence that begins "So:"; `found` where no claim is judged."""
    if _rows(results) is None:
        return Shown(f"<p><b>So:</b> {html.escape(found)}</p>", f"So: {found}") if found else Shown("", "")
    small = results.study.config.preset != "report"
    nothing = f"nothing is concluded {'at this scale' if small else 'before the claim is judged'}."
    text = _about(results)[1] or nothing
    verdict = _rows(results)["verdict"].iloc[0]
    if verdict.endswith(rules.EXPLORATORY) and rules.plain(verdict) != rules.UNRESOLVED:
        text = f"if fresh replicates confirm it, {text}"
    return Shown(f"<p><b>So:</b> {html.escape(text)}</p>", f"So: {text}")


def _box(colour):
    """Css of a box; its border repeats what the text says, and the text has the page's colour."""
    return f"border:1px solid {colour};border-left:8px solid {colour};border-radius:4px;padding:.7em 1em;color:inherit"


def _rows(results):
    """The rows of the claim on which the answer rests, or of the first there is, or None."""
    table = verdicts(results)
    known = results.study.experiment.answer
    for name in (*([known.claim] if known else []), *table["claim"].head(1)):
        if len(rows := table[table["claim"] == name]):
            return rows
    return None


def _about(results):
    """The answer and what follows from it: (str, str), empty where nothing is judged."""
    rows, known = _rows(results), results.study.experiment.answer
    if rows is None:
        return "", ""
    verdict = rules.plain(rows["verdict"].iloc[0])
    if known and rows["claim"].iloc[0] == known.claim:
        return chosen(known, verdict)
    return (f"{rows['text'].iloc[0]}: {verdict}.", "") if verdict in forest.STYLES else ("", "")


def _not_judged(results, verdict):
    config = results.study.config
    if verdict == "not run":
        return "Not run yet: the levels that the answer needs are not finished."
    if config.preset != "report":
        return f"Not judged at this scale (preset {config.preset}): the numbers are a first look, not a result."
    return "Not judged yet: the numbers are a first look, not a result."


def _number(row):
    """What is compared, and the number with its interval: of the replicates that decide, else of what there is."""
    for group, whose in (("", ""), ("exploratory", ", exploratory replicates"), ("pooled", ", all replicates")):
        if number := claims.number(row, group):
            n = row[f"{group}_n" if group else "n"]
            bound = f"; holds if {row['side']}" if row["side"] else ""
            kind = "mean and 95% interval, " if "[" in number else ""
            counted = "" if " of " in number or " in all " in number else f" ({kind}n = {n:.0f}{whose})"
            value, among, rest = number.partition(" in all ")
            unit, replicates = _unit(row["unit"]), f"{among}{rest} replicates" if among else ""
            return f"{row['measured']} = {value}{unit}{replicates}{counted}{bound}"
    return row["measured"] or row["text"]


def _unit(unit):
    """What stands behind a number of this unit; ratios and counts have none."""
    ends = {"(pp)": " pp", "(%)": "%", "training steps": " steps"}
    return next((text for end, text in ends.items() if unit.endswith(end) and unit != measures.RATIO), "")


def _tally(table):
    """How many of these claims have each verdict: str."""
    found = table.drop_duplicates("claim")["verdict"].str.partition(" (")[0].str.partition(",")[0]
    counts = [f"{verdict} {(found == verdict).sum()}" for verdict in COUNTED if (found == verdict).any()]
    return f"All claims of this notebook: {', '.join(counts)}."


# --------------------------------------------------------------------------------------------------------- the claims


def claims_table(results):
    """The claims about a study: the verdict first, then the words, what is published, and our numbers.

    The whole table, with the replicates that decide nothing, is folded below it.
    """
    table = verdicts(results)
    if table.empty:
        return Shown("", "")
    head = ["verdict", "claim", "measured", "ours"]
    if (table["side"] != "").any():
        head.append("holds if")
    rows = [_cells(row)[: len(head)] for row in table[table["role"] != "some level"].to_dict("records")]
    cells = "".join(f"<tr>{''.join(f'<td {LEFT}>{cell}</td>' for cell in row)}</tr>" for row in rows)
    heads = "".join(f"<th {LEFT}>{name}</th>" for name in head)
    everything = claims.show(table)
    folded = f"<details><summary>all numbers, replicates and rules</summary>{everything.to_html(na_rep='–')}</details>"
    note = UNCORRECTED if table.loc[table["claim"].isin(claims.PUBLISHED), "p"].notna().any() else ""
    text = f"<table><thead><tr>{heads}</tr></thead><tbody>{cells}</tbody></table>{note and f'<p>{note}</p>'}{folded}"
    return Shown(text, "\n".join([everything.to_string(), *([note] if note else [])]))


def every_level(results, columns=6):
    """Test accuracies at the last step, mean ± half-width of the 95% t-interval: a row per level, a column per arm.

    Arms of other densities stand in another table, and at most so many in one, so that none is wider than a page.
    """
    table, record = statistics.overview(results.frame), results.study.experiment
    density = results.frame.groupby(["arm", "level"], observed=True)["density"].first().unstack() * 100
    blocks = []
    for arms in _of_one_schedule(density.reindex(table.columns)):
        for first in range(0, len(arms), columns):
            block = table[arms[first : first + columns]]
            block = block[(block != "").any(axis=1)].map(_in_two_lines)
            kept = density.loc[arms].bfill().iloc[0][block.index]
            block.columns = [full_label(arm, record.styles, record.full_labels) for arm in block.columns]
            block.insert(0, "density", [f"{d:.3g}%" for d in kept])
            blocks.append(block.rename_axis(columns=None))
    return Shown("".join(b.to_html() for b in blocks), "\n\n".join(b.to_string() for b in blocks))


def _in_two_lines(text):
    """A cell that breaks nowhere but before what stands in parentheses."""
    return text.replace(" ", "\N{NO-BREAK SPACE}").replace("\N{NO-BREAK SPACE}(", " (")


def _of_one_schedule(density):
    """Arms by their densities, a row each and a column per level: lists of those that agree wherever both are."""
    groups = []
    for arm in density.index:
        differs = (density / density.loc[arm] - 1).abs() > 1e-3  # not where either is missing
        group = next((group for group in groups if not differs.loc[group].any(axis=None)), None)
        groups.append([arm]) if group is None else group.append(arm)
    return groups


def _cells(row):
    """The cells of a measure: verdict, claim, what is measured, the number and the claim's side; the last two whole."""
    ours = claims.number(row)
    if not ours and (explored := claims.number(row, "exploratory")):
        ours = f"{explored}, exploratory"
    elif ours and " of " not in ours and " in all " not in ours:
        ours += f" (n = {row['n']:.0f})"
    alone = html.escape(row["alone"])
    about = [alone, ""]
    if row["verdict"]:  # that of the claim; a part of several may have another
        same = rules.plain(row["verdict"]) == row["alone"]
        about = [plots.chip(row["verdict"]) + (f"<br>this part: {alone}" if alone and not same else ""), _quoted(row)]
    unbroken = [f'<span style="white-space:nowrap">{html.escape(text)}</span>' for text in (ours, row["side"])]
    return [*about, html.escape(row["measured"]), *unbroken]


def _quoted(row):
    """A claim in its own words, with its name and where it stands or what is published."""
    published = "our question" if row["report"] == claims.OURS else str(row["report"])
    return f"<b>{html.escape(row['claim'])}</b>: {html.escape(row['text'])} <i>({html.escape(published)})</i>"


# -------------------------------------------------------------------------------------------------------- the figures


def figures(results):
    """Draw, save and show the figures of a study, each with its title, axes and claims in words.

    Returns
    -------
    list of pathlib.Path
        The pictures.
    """

    def show(name, figure, path):
        width = round(plots.WIDTH * figure.get_figwidth())
        display(Image(path, width=width, alt=alt_text(results, name, figure)))

    return plots.draw(results, show=show)


def alt_text(results, name, figure):
    """A figure's alt text: its title, its panels, what lines and bands are, the claims about it: str."""
    shown = {}  # what is drawn against what -> titles of the panels that do
    for axis in figure.axes:
        if axis.get_ylabel() and axis.get_xlabel():
            titles = shown.setdefault(f"{axis.get_ylabel()} against {axis.get_xlabel()}", {})
            if axis.get_title():
                titles[f'"{axis.get_title()}"'] = True
    panels = [f"{axes}, in {', '.join(titles)}" if titles else axes for axes, titles in shown.items()]
    parts = [figure.get_suptitle() or name, "; ".join(panels), figure.get_supxlabel()]
    table = verdicts(results)
    for _, rows in table[table["figure"] == name].groupby("claim", sort=False):
        row = claims.decisive(rows)
        number = claims.number(row)
        measured = f"{row['measured']} = {number}, " if number else ""
        parts.append(f'"{rows["text"].iloc[0]}": {measured}{rows["verdict"].iloc[0]}')
    return ". ".join(" ".join(part.split()).rstrip(".") for part in parts if part) + "."


# ------------------------------------------------------------------------------------------- particular to one notebook


def first_disconnected(results, arm="ticket"):
    """The first level at which a layer, or an output, of an arm has no active weight in some replicate: a sentence."""
    found = statistics.deaths(results.frame, arm)
    there = [f"{name}, from level {level} on" for name, level in found.items() if level is not None]
    text = f"In at least one replicate no path connects a pixel to {'; to '.join(there)}."
    if not there:
        text = "Every layer and every output has an active path from a pixel at all levels, in every replicate."
    return Shown(f"<p>{html.escape(text)}</p>", text)


def one_class(results, arm="t1_on_s2", labels=range(5, 10)):
    """How many networks of an arm have no active output among some labels, and what they predict: a sentence."""
    if arm not in (arms := dict.fromkeys(unit.arm for unit in results.study.units)):
        raise ValueError(f"arm = {arm!r}: {one_of(arm, arms)}")
    dead = statistics.dead_labels(results.frame, arm, labels)
    which = f"{min(labels)}-{max(labels)}"
    if dead.empty:
        return Shown("", f"No network of the arm {arm} has lost all its outputs {which}.")
    levels = dead["level"]
    density = 100 * statistics.density_at(results.frame, arm, int(levels.min()))
    text = (
        f"In {len(dead)} networks of the arm {arm} (levels {levels.min()} to {levels.max()}, from {density:.3g}% "
        f"density on) all outputs {which} are disconnected; {dead['one_class'].sum()} of them predict one class for "
        "every image, and their accuracy is exactly that class's share of the test images."
    )
    return Shown(f"<p>{html.escape(text)}</p>", text)
