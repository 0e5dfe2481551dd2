"""How a rule is judged: intervals, verdicts, p-values, Holm's procedure. It knows no claim but by default. No torch."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..runs import presets
from .declared import REPORT
from .measures import COUNTS, DECIDING, FEWEST, LEVEL, QUANTITIES
from .statistics import density_at, interval

HOLDS = "holds"
REFUTED = "does not hold"
UNRESOLVED = "unresolved"
NOT_AFTER_HOLM = ", not after Holm"
EXPLORATORY = ", exploratory"  # of a verdict on replicates that had been analysed before the rule was final


def plain(verdict):
    """A verdict without what is added behind it: str."""
    return verdict.removesuffix(NOT_AFTER_HOLM).removesuffix(EXPLORATORY)


class Sample(NamedTuple):
    """What a measure gives over replicates."""

    values: pd.Series  # over replicates; logarithms of ratios
    unpaired: float  # variance that the difference of unpaired replicates would have
    bounds: int  # replicates whose number is only a bound


NOBODY = Sample(pd.Series(dtype=float), math.nan, 0)


def _compared(measure, ratio, readings, reached):
    """What a measure compares, over all replicates: frame with a column per network, ``value``, and ``bound``."""
    networks = [at for at in (measure.first, measure.second, measure.base) if at is not None]
    columns = [_of(readings, at) for at in networks]
    if ratio:
        columns = [np.log(column.where(column > 0)) for column in columns]  # a step 0 has no ratio
    table = pd.concat(columns, axis=1, keys=range(len(columns))).dropna()
    if measure.base is not None:
        table = table[table[1] != table[2]]  # of nothing there is no share
        values = (table[0] - table[2]) / (table[1] - table[2])
    elif measure.second is not None:
        values = table[0] - table[1]
    else:
        values = table[0]
    bound = False
    if reached is not None:
        sure = [_of(reached, at).reindex(values.index) for at in networks]
        bound = ~pd.concat(sure, axis=1).astype(bool).all(axis=1)
    return table.assign(value=values.astype(float), bound=bound)


def _sample(compared, replicates):
    """The Sample of these replicates."""
    table = compared[compared.index.isin(replicates)]
    if table.empty:  # most often, in a study that is not run
        return NOBODY
    paired = compared.shape[1] == 2 + 2 and len(table) > 1
    unpaired = float(table[[0, 1]].var(ddof=1).sum()) if paired else math.nan
    return Sample(table["value"], unpaired, int(table["bound"].sum()))


def _of(series, at):
    try:
        return series.loc[at]
    except KeyError:
        return pd.Series(dtype=float)


def constant(values):
    """Whether at least two values are all the same, up to rounding: bool."""
    return len(values) > 1 and float(np.ptp(np.asarray(values, float))) <= 1e-9


class Outcome(NamedTuple):
    """The verdict of a sample on a measure."""

    verdict: str
    p_holds: float  # one-sided, against the other side of the bound
    p_refuted: float  # one-sided, against the claim's side


def decide(values, above=-math.inf, below=math.inf, closed=False):
    """Judge values by their 95% t-interval against the claim's side (above, below).

    It holds if the interval lies on the claim's side, does not hold if it lies wholly on another, else it is
    unresolved. The p-values are those of the one-sided t-tests at the bounds: for ``holds`` the larger of two, for
    ``does not hold`` the smaller. Equal values have no t-test: they are counted, all n of n on one side, and their p is
    the sign test's, 1 / 2^n.

    Parameters
    ----------
    values : (n,) array of float
    above, below : float
    closed : bool
        Whether the bounds are on the claim's side.

    Returns
    -------
    Outcome
    """
    values = np.asarray(values, float)
    n, mean, low, high = interval(values)
    if n < 2:
        return Outcome(UNRESOLVED, 1.0, 1.0)
    if constant(values):
        inside = above <= mean <= below if closed else above < mean < below
        return Outcome(HOLDS, 0.5**n, 1.0) if inside else Outcome(REFUTED, 1.0, 0.5**n)
    error = values.std(ddof=1) / math.sqrt(n)
    from scipy.special import stdtr  # here: a command's first line needs none of scipy

    over = [float(stdtr(n - 1, (bound - mean) / error)) for bound in (above, below)]
    under = [float(stdtr(n - 1, (mean - bound) / error)) for bound in (above, below)]
    p_holds = max(over[0], under[1])
    p_refuted = min(under[0], over[1])
    if low > above and high < below:
        return Outcome(HOLDS, p_holds, p_refuted)
    if high < above or low > below:
        return Outcome(REFUTED, p_holds, p_refuted)
    return Outcome(UNRESOLVED, p_holds, p_refuted)


def combine(parts, refuted_at=()):
    """The Outcome of a claim from those of its parts.

    It holds if all parts do (p: their largest). It does not hold if one part does not (p: the smallest times their
    number), or, for a claim that something happens at some level, if none of the levels `refuted_at` does (p: their
    largest).
    """
    p_holds = max(part.p_holds for part in parts)
    if refuted_at:
        p_refuted = max(part.p_refuted for part in refuted_at)
        refuted = all(part.verdict == REFUTED for part in refuted_at)
    else:
        p_refuted = min(1.0, len(parts) * min(part.p_refuted for part in parts))
        refuted = any(part.verdict == REFUTED for part in parts)
    if all(part.verdict == HOLDS for part in parts):
        return Outcome(HOLDS, p_holds, p_refuted)
    return Outcome(REFUTED if refuted else UNRESOLVED, p_holds, p_refuted)


def needed(values, above=-math.inf, below=math.inf, limit=10_000):
    """How many replicates would resolve an unresolved measure.

    The smallest n for which the half width of the 95% t-interval, at the observed standard deviation, is less than the
    distance of the observed mean from the nearest bound. A guess: both are themselves uncertain.

    Returns
    -------
    float
        ``inf`` above `limit`; NaN for fewer than two values.
    """
    values = np.asarray(values, float)
    if len(values) < 2:
        return math.nan
    distance = min(abs(values.mean() - bound) for bound in (above, below))
    n = np.arange(2, limit + 1)
    from scipy.special import stdtrit

    half = stdtrit(n - 1, 1 - LEVEL / 2) * values.std(ddof=1) / np.sqrt(n)
    enough = n[half < distance]
    return float(enough[0]) if len(enough) else math.inf


def adjusted(p_values):
    """Holm's adjusted p-values: those at most `LEVEL` survive at that level over the whole family.

    Parameters
    ----------
    p_values : sequence of float

    Returns
    -------
    (n,) array of float
        In the order given.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    out = np.empty(len(p_values))
    out[order] = np.minimum(1, np.maximum.accumulate(steps)) if len(steps) else steps
    return out


FAMILY = tuple(rule.id for rule in REPORT if not rule.count)  # the report's claims; those by count stand outside
COLUMNS = [
    "claim", "section", "quotation", "role", "measured", "quantity", "unit", "density", "side", "above", "below",
    "replicates", "n", "estimate", "low", "high", "alone", "p_holds", "p_refuted", "note", "n_needed", "pairing",
    "exploratory_n", "exploratory", "exploratory_low", "exploratory_high",
    "pooled_n", "pooled", "pooled_low", "pooled_high",
    "later_n", "later", "later_low", "later_high",
    "p", "verdict",
]  # fmt: skip


def judge(frame, config, rules=None, exploratory=False):
    """Judge every claim about one experiment.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of one study, as of :func:`lthcore.studies.experiments.finished`; may be incomplete.
    config : Config
        The study's settings: experiment, preset and seed.
    rules : tuple of Rule
        By default ``REPORT``.
    exploratory : bool
        True: judge the exploratory replicates instead, for comparison; the verdicts then begin with
        "exploratory:".

    Returns
    -------
    DataFrame
        A row per measure, in the order of the rules, with the columns

        claim, section, quotation : the rule's
        role : ``judged``; ``some level`` (a level at which a claim that something happens at some level must fail to be
            refuted); ``shown``
        measured, quantity, unit, density : what is compared, and at which density in [0, 1]
        side, above, below : the claim's side of the bound, in words and numbers
        replicates, n : those that decide: the first `DECIDING` confirmatory ones
        estimate, low, high : their mean (of ratios the geometric one) and 95% t-interval; for a count, the instances
            among n networks. Equal values have no interval: `note` counts them
        alone : the measure's own verdict
        p_holds, p_refuted : its one-sided p-values
        note : counts, bounds ("at least"), where it happens
        n_needed : replicates that would resolve an unresolved measure; see :func:`needed`
        pairing : variance of the difference of unpaired replicates over that of paired ones
        exploratory*, pooled*, later* : n, estimate and interval of the exploratory replicates, of all replicates, and,
            if there are more than `DECIDING`, of all confirmatory ones: the second look
        p, verdict : the claim's, on its first row. p is the smaller of its one-sided p-values (of the two verdicts on a
            claim exactly one is wrong, so that each claim counts once); NaN where nothing is judged, or by count. The
            verdict is ``holds``, ``does not hold``, ``unresolved``, ``not run`` or ``not judged (why)``; see
            :func:`holm` for what is added to it.
    """
    rules = REPORT if rules is None else rules
    chosen = [rule for rule in rules if rule.experiment == config.experiment]
    # each quantity is taken from the frame once
    readings = {"densities": frame[["arm", "level", "density"]].drop_duplicates(["arm", "level"])}
    rows = [row for rule in chosen for row in _Judged(rule, frame, config, exploratory, readings).rows()]
    return pd.DataFrame(rows, columns=COLUMNS)


def another(config):
    """Why a study is not the report's schedule, and so not judged, in words; an empty str if it is."""
    if config.preset != "report":
        return config.preset
    changed = [name for name in presets.changes(config) if name not in ("replicates", "controls", "seed")]
    return f"other {', '.join(changed)}" if changed else ""


def holm(verdicts, *families):
    """Holm's procedure over each of some families of claims: what does not survive says so.

    Claims of a family that are not judged count with p = 1, so that nobody chooses it by what is run.

    Parameters
    ----------
    verdicts : DataFrame
        Of :func:`judge`, of one or several experiments together.
    *families : collection of str
        Names of claims; by default one, ``FAMILY``.

    Returns
    -------
    DataFrame
        A copy with a column ``p_holm`` after ``p``, and ", not after Holm" behind the verdicts that do not survive.
    """
    known = verdicts.reset_index(drop=True).dropna(subset="p")
    corrected = pd.Series(math.nan, range(len(verdicts)))
    for _, once in known.groupby(known.groupby("claim").cumcount()):  # of two seeds each claim is there twice
        for family in families or (FAMILY,):
            p_of = once.set_index("claim")["p"].reindex(list(family)).fillna(1.0)
            found = once["claim"].map(dict(zip(family, adjusted(p_of), strict=True)))
            corrected.update(found)
    out = verdicts.copy()
    out.insert(out.columns.get_loc("p") + 1, "p_holm", corrected.to_numpy())
    lost = out["p_holm"].gt(LEVEL) & out["verdict"].isin([HOLDS, REFUTED])
    out.loc[lost, "verdict"] += NOT_AFTER_HOLM
    return out


class _Judged:
    """One rule on one frame."""

    def __init__(self, rule, frame, config, exploratory, readings):
        self.rule, self.frame, self.config, self.exploring = rule, frame, config, exploratory
        self.readings = readings
        there = sorted(int(r) for r in frame["replicate"].unique())
        self.explored = [r for r in there if config.seed == rule.seed and r in rule.exploratory]
        self.later = [r for r in there if r not in self.explored]
        self.looked_at = self.explored if exploratory else self.later[:DECIDING]
        self.everyone = there

    def rows(self):
        rule = self.rule
        if rule.count:
            rows, verdict, p = self._counted()
        else:
            parts = [self._row("judged", m, m.quantity) for m in rule.parts]
            levels = [self._row("some level", m, m.quantity) for m in rule.refuted_at]
            others = [self._row("shown", m, name) for m in rule.parts for name in m.also]
            shown = [self._row("shown", m, m.quantity) for m in rule.shown]
            rows = [*parts, *levels, *others, *shown]
            verdict, p = self._verdict(parts, levels)
            if levels and parts[0]["n"]:
                parts[0]["note"] = "; ".join(filter(None, (parts[0]["note"], self._where(levels))))
        for row in rows:
            row |= {"claim": rule.id, "section": rule.section, "quotation": rule.quotation}
            row |= {"p": math.nan, "verdict": ""}
            if verdict.startswith("not "):  # run or judged: the numbers stand alone
                row |= {"alone": "", "p_holds": math.nan, "p_refuted": math.nan, "n_needed": math.nan}
        rows[0] |= {"p": p, "verdict": verdict}
        return rows

    def _verdict(self, parts, levels):
        """The claim's verdict and p."""
        if not any(row["pooled_n"] for row in parts):
            return "not run", math.nan
        if reason := self._excluded(min(row["n"] for row in parts)):
            return f"not judged ({reason})", math.nan
        whole = combine([row["test"] for row in parts], [row["test"] for row in levels])
        verdict = whole.verdict
        bounds = [row["bounds"] for row in parts if row["bounds"] > 1]
        if bounds and verdict != REFUTED:
            return f"not judged ({max(bounds)} of {parts[0]['n']} are only bounds)", math.nan
        return ("exploratory: " if self.exploring else "") + verdict, min(whole.p_holds, whole.p_refuted)

    def _excluded(self, n):
        """Why this study's numbers are not judged, or an empty str."""
        if reason := another(self.config):
            return reason
        if not self.looked_at and not self.exploring:
            return "exploratory replicates only"
        return f"n = {n}" if n < FEWEST else ""

    def _row(self, role, measure, quantity):
        """One line of the table, as a dict."""
        kind = QUANTITIES[quantity]
        sample = self._sample(measure, quantity, self.looked_at)
        values = sample.values
        limits = [math.log(b) if kind.ratio and 0 < b < math.inf else b for b in (measure.above, measure.below)]
        tested = decide(values, *limits, measure.closed) if role != "shown" else None
        enough = len(values) >= FEWEST and sample.bounds <= 1
        if tested and not enough:
            tested = Outcome(UNRESOLVED, 1.0, 1.0)
        variance = values.var(ddof=1) if len(values) > 1 else math.nan
        row = {
            "role": role,
            "measured": f"{measure.what}, level {measure.first[1]}",
            "quantity": kind.meaning,
            "density": density_at(self.readings["densities"], *measure.first),
            "unit": measure.unit(quantity),
            "side": measure.side if tested else "",
            "above": measure.above,
            "below": measure.below,
            "replicates": ", ".join(map(str, values.index)),
            "alone": tested.verdict if tested and enough else "",
            "p_holds": tested.p_holds if tested else math.nan,
            "p_refuted": tested.p_refuted if tested else math.nan,
            "note": _note(sample, kind),
            "n_needed": math.nan,
            "pairing": sample.unpaired / variance if variance > 0 else math.nan,
            "test": tested,
            "bounds": sample.bounds,
        }
        if row["alone"] == UNRESOLVED and role == "judged":
            row["n_needed"] = needed(values, *limits)
        for prefix, replicates in self._groups():
            row |= _estimate(prefix, self._sample(measure, quantity, replicates).values, kind.ratio)
        return row

    def _sample(self, measure, quantity, replicates):
        kind = QUANTITIES[quantity]
        if quantity not in self.readings:
            reached = kind.reached(self.frame) if kind.reached else None
            self.readings[quantity] = kind.values(self.frame), reached
        if (measure, quantity) not in self.readings:
            self.readings[measure, quantity] = _compared(measure, kind.ratio, *self.readings[quantity])
        key = measure, quantity, tuple(replicates)
        if key not in self.readings:
            self.readings[key] = _sample(self.readings[measure, quantity], replicates)
        return self.readings[key]

    def _where(self, levels):
        """The first level whose mean is on the claim's side, in words."""
        for row, measure in zip(levels, self.rule.refuted_at, strict=True):
            if measure.above < row["estimate"] < measure.below:
                return f"mean {measure.side} first at level {measure.first[1]}, {100 * row['density']:.2g}% density"
        first, last = (self.rule.refuted_at[i].first[1] for i in (0, -1))
        return f"mean {measure.side} at no level from {first} to {last}"

    def _counted(self):
        """Rows, verdict and p of a claim judged by count: of all networks, and of each arm."""
        networks = COUNTS[self.rule.count](self.frame) if len(self.frame) else pd.DataFrame(columns=["arm"])
        rows = [self._count_row("judged", self.rule.count, networks)]
        rows += [self._count_row("shown", f"of these: {arm}", group) for arm, group in networks.groupby("arm")]
        whole = rows[0]
        if not len(self.frame):
            return rows, "not run", math.nan
        if reason := self._excluded(len(self.looked_at)):
            return rows, f"not judged ({reason})", math.nan
        refuted = whole["n"] >= self.rule.least
        verdict = HOLDS if whole["estimate"] else REFUTED if refuted else UNRESOLVED
        whole["alone"] = verdict
        return rows, ("exploratory: " if self.exploring else "") + verdict, math.nan

    def _count_row(self, role, what, networks):
        row = dict.fromkeys(COLUMNS, math.nan)
        row |= {"role": role, "measured": what, "quantity": "networks", "side": "> 0" if role == "judged" else ""}
        for prefix, replicates in self._groups():
            among = networks[networks["replicate"].isin(replicates)] if len(networks) else networks
            instances = int(among["instance"].sum()) if len(among) else 0
            row |= {_column(prefix, "n"): len(among), _column(prefix, "estimate"): instances}
        row |= {"replicates": ", ".join(map(str, self.looked_at)), "note": f"{row['estimate']} of {row['n']}"}
        return row | {"alone": ""}

    def _groups(self):
        """Which replicates each group of columns is about: list of (prefix, list of int)."""
        second = self.later if len(self.later) > DECIDING else []
        return [("", self.looked_at), ("exploratory", self.explored), ("pooled", self.everyone), ("later", second)]


def _column(prefix, name):
    if not prefix:
        return name
    return prefix if name == "estimate" else f"{prefix}_{name}"


def _estimate(prefix, values, ratio):
    n, mean, low, high = interval(values)
    if constant(values):
        low, high = math.nan, math.nan
    numbers = [math.exp(x) if ratio else x for x in (mean, low, high)]
    return dict(zip([_column(prefix, name) for name in ("n", "estimate", "low", "high")], [n, *numbers], strict=True))


def _note(sample, kind):
    """Counts and bounds in words."""
    n, parts = len(sample.values), []
    if constant(sample.values):
        value = float(sample.values.iloc[0])
        parts.append(f"{n} of {n} are {math.exp(value) if kind.ratio else value:.6g}")
    if sample.bounds:
        parts.append(f"at least: in {sample.bounds} of {n} a run never gets there and counts with its last step")
    return "; ".join(parts)
