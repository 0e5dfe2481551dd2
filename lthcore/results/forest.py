"""The forest plot of a table of claims: a row per claim, its interval against its bound. No torch.

There is a panel per unit. The shaded part of a row is the claim's side of its bound: a claim holds if its whole
interval lies there. Colour, symbol and word give the verdict.
"""

import math
import textwrap

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

from .figures import RC, sns
from .judging import EXPLORATORY, HOLDS, NOT_AFTER_HOLM, REFUTED, UNRESOLVED, plain

COLUMNS = [
    "claim", "name", "measured", "unit", "above", "below", "published", "n", "mean", "low", "high", "number",
    "verdict",
]  # fmt: skip
# verdict -> colour (white on it has a contrast of at least 4.5), marker, the same as a character
STYLES = {HOLDS: ("#0072B2", "o", "✔"), REFUTED: ("#B84A00", "X", "✘"), UNRESOLVED: ("#5F6368", "D", "?")}
OTHER = ("#737373", "s", "–")  # not judged, not run, or no claim
SIDE = "#e3e3e3"  # the claim's side of the bound
LEFT, MIDDLE, RIGHT = 4.6, 3.3, 3.3  # inches: words, axis, numbers
GAP, TOP, BOTTOM = 0.56, 0.85, 0.2  # inches: below a panel, above all, below all


def style(verdict):
    """Colour, marker and character of a verdict."""
    return STYLES.get(plain(verdict), OTHER)


def forest(table, title, stamp, lines=2):
    """Draw a forest plot.

    Parameters
    ----------
    table : DataFrame
        A row per claim, with the columns

        claim, name, measured : its name in tables and in words; what is compared
        unit : of its numbers; there is a panel for each
        above, below : the bounds of its side
        published : the number that was published, or NaN
        n, mean, low, high : replicates, mean and interval; NaN where there is none
        number : the same in words
        verdict : in words
    title, stamp : str
    lines : int
        Lines of text that a row takes.

    Returns
    -------
    matplotlib.figure.Figure
    """
    matplotlib.rcdefaults()  # not the user's own settings
    sns.set_theme(style="white", font="DejaVu Sans", rc=RC)
    units = list(dict.fromkeys(table["unit"]))
    counts = [int((table["unit"] == unit).sum()) for unit in units]
    row = 0.07 + 0.145 * lines
    height = TOP + BOTTOM + row * sum(counts) + GAP * len(counts)
    width = LEFT + MIDDLE + RIGHT
    figure = plt.figure(figsize=(width, height))
    top = height - TOP
    for unit, count in zip(units, counts, strict=True):
        place = (LEFT / width, (top - row * count) / height, MIDDLE / width, row * count / height)
        _panel(figure.add_axes(place), table[table["unit"] == unit], unit, lines)
        top -= row * count + GAP
    figure.suptitle(title, x=0.01, y=1 - 0.12 / height, ha="left", va="top", fontsize=13)
    _legend(figure, table, 1 - 0.45 / height)
    figure.text(0.99, 0.1 / height, stamp, fontsize=8, color="0.4", ha="right")
    return figure


def _panel(axis, rows, unit, lines):
    low, high = _limits(rows, unit)
    axis.set(xlim=(low, high), ylim=(len(rows) - 0.5, -0.5), yticks=[])
    if "ratio" in unit:
        axis.set_xscale("log")
        known = (0.1, 0.2, 0.5, 1, 2, 5, 10) if high > 4 * low else (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 2, 3, 5, 10)
        ticks = [t for t in known if low <= t <= high]
        axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
        axis.minorticks_off()
    axis.tick_params(axis="x", labelsize=8, pad=1, bottom=True, length=3)
    axis.set_xlabel(unit[:1].upper() + unit[1:], fontsize=8.5, labelpad=1)
    for side in ("top", "left", "right"):
        axis.spines[side].set_visible(False)
    for y, row in enumerate(rows.to_dict("records")):
        if y:
            axis.axhline(y - 0.5, color="0.9", lw=0.6)
        _bounds(axis, y, row, low, high)
        _interval(axis, y, row, low, high)
        _text(axis, y, row, lines)


def _limits(rows, unit):
    """Limits of a panel: all ends and bounds but those that lie far from the others."""
    ends = rows[["mean", "low", "high", "above", "below", "published"]].to_numpy(float).ravel()
    ends = ends[np.isfinite(ends)]
    if not len(ends):
        return (0.5, 2.0) if "ratio" in unit else (-1.0, 1.0)
    if "ratio" in unit:
        ends = np.log(ends[ends > 0])
    first, third = np.quantile(ends, (0.25, 0.75))
    far = 3 * (third - first) if len(rows) > 3 else math.inf
    ends = ends[(ends >= first - far) & (ends <= third + far)] if far > 0 else ends
    low, high = float(ends.min()), float(ends.max())
    margin = 0.08 * (high - low) or 0.5
    low, high = low - margin, high + margin
    return (math.exp(low), math.exp(high)) if "ratio" in unit else (low, high)


def _bounds(axis, y, row, low, high):
    """The claim's side, shaded, and its bounds."""
    if (math.isinf(row["above"]) and math.isinf(row["below"])) or row["above"] != row["above"]:
        return
    start, end = max(row["above"], low), min(row["below"], high)
    axis.fill_between([start, end], y - 0.36, y + 0.36, color=SIDE, lw=0)
    for bound in (row["above"], row["below"]):
        if math.isfinite(bound):
            axis.plot([bound, bound], [y - 0.36, y + 0.36], color="0.25", lw=1.6, solid_capstyle="butt")


def _interval(axis, y, row, low, high):
    colour, marker, _ = style(row["verdict"])
    mean, start, end = row["mean"], row["low"], row["high"]
    if mean == mean:
        inside = low <= mean <= high
        if start == start:
            axis.plot([max(start, low), min(end, high)], [y, y], color=colour, lw=2.2, solid_capstyle="butt")
            for cut, at, arrow in ((start < low, low, "<"), (end > high, high, ">")):
                if cut and low < end and start < high:  # the interval continues beyond the axis
                    axis.plot([at], [y], marker=arrow, color=colour, ms=4.5, clip_on=False)
        full = row["verdict"] in STYLES
        how = {"color": colour, "mfc": colour if full else "white", "mew": 1.4, "ms": 6.5, "clip_on": False}
        at = min(max(mean, low), high)
        axis.plot([at], [y], marker=marker if inside else "<" if mean < low else ">", zorder=4, **how)
    if low <= row["published"] <= high:
        axis.plot([row["published"]], [y], marker="*", color="black", ms=9, mec="white", mew=0.6, zorder=5)


def _text(axis, y, row, lines):
    """The claim on the left, verdict and number on the right."""
    inch = {"textcoords": "offset points", "annotation_clip": False, "va": "center"}
    left, right = ((0, y), ("axes fraction", "data")), ((1, y), ("axes fraction", "data"))
    name = textwrap.wrap(row["name"], 66 if lines > 2 else 58)[: lines - 1]
    step = 10.5
    up = (lines - 1) * step / 2
    for i, line in enumerate(name):
        axis.annotate(line, left[0], (-72 * LEFT + 8, up - i * step), xycoords=left[1], fontsize=9, **inch)
    small = {"fontsize": 7.5 * min(1, 80 / len(row["measured"] or " ")), "color": "0.4"}  # what is long stays whole
    below = (-72 * LEFT + 8, up - len(name) * step)
    axis.annotate(row["measured"], left[0], below, xycoords=left[1], **small, **inch)
    colour, _, character = style(row["verdict"])
    verdict = f"{character} {row['verdict']}"
    axis.annotate(verdict, right[0], (12, 5.5), xycoords=right[1], fontsize=9, color=colour, weight="bold", **inch)
    axis.annotate(row["number"], right[0], (12, -5.5), xycoords=right[1], fontsize=8, color="0.2", **inch)


def _legend(figure, table, y):
    """What the marks mean: only those that are there."""
    verdicts = set(table["verdict"].map(plain))
    handles = [_mark(style(v), v) for v in STYLES if v in verdicts]
    if hollow := [end for end in (NOT_AFTER_HOLM, EXPLORATORY) if table["verdict"].str.endswith(end).any()]:
        handles.append(_mark(("0.3", "o", ""), f"hollow: {' or '.join(end[2:] for end in hollow)}", "white"))
    if verdicts - {*STYLES, "no claim"}:
        handles.append(_mark(OTHER, "not judged", "white"))
    if table["published"].notna().any():
        handles.append(_mark(("black", "*", ""), "published number", size=9))
    handles.append(plt.Rectangle((0, 0), 1, 1, color=SIDE, label="the claim's side of its bound"))
    figure.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.003, y), ncols=len(handles), frameon=False,
        fontsize=8.5, handletextpad=0.4, columnspacing=1.4, borderaxespad=0,
    )  # fmt: skip


def _mark(style, label, face=None, size=6.5):
    colour, marker, _ = style
    how = {"ls": "", "ms": size, "mfc": face or colour, "mew": 1.4 if face else 0.5, "label": label}
    return plt.Line2D([], [], color=colour, marker=marker, **how)
