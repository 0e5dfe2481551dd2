"""Every claim about an experiment, measured and judged: one table for all who show it. No torch.

The report's claims are judged by the rules in :mod:`lthcore.results.rules`, others' published ones by the measures in
their study's file.
"""

import math
from dataclasses import replace

import pandas as pd

from ..methods import one_of
from ..results import measures, rules, statistics
from ..runs import presets
from . import REGISTRY, names

REPORT_REPLICATES = 3  # a verdict needs at least so many, and the preset `report`


# Of each claim of the report a few of its words, and what shows it.
QUOTED = {
    "mlp-90": "we get accuracy almost same",
    "lenet-85": "we get accuracy almost similar",
    "mlp-cliff": "falls drastically to a level below 80%",
    "mlp-at-95": "gets pruned by more than 95%",
    "lenet-cliff": "falls drastically to a level below 80%",
    "lenet-relu-cliff": "falls drastically to a level below 80%",
    "lenet-at-95": "gets pruned by more than 95%",
    **{f"{network}-better": "better than the original network" for network in ("mlp", "lenet")},
    **{f"{network}-faster": "learn faster" for network in ("mlp", "lenet")},
    **{f"{network}-generalise": "generalizing better" for network in ("mlp", "lenet")},
    **{f"{network}-init": "an important criteria" for network in ("mlp", "lenet")},
    **{f"{network}-lth": "commensurate training time" for network in ("mlp", "lenet")},
    "task1": "generalized well when trained over S_2",
    "task2-as-pruned": "labels 5-9): 21.1479",
    "task2-ticket": "labels 5-9): 21.1479",
    "task2-cause": "not able to learn the features",
    **dict.fromkeys(("task3", "task3-sgd", "task3-momentum"), "optimizer-independent"),
}
# the same claims as a figure names them
NAMES = {
    "mlp-90": "MLP: almost as accurate as dense, over 90% pruned",
    "lenet-85": "LeNet-5: almost as accurate as dense, over 85% pruned",
    "mlp-cliff": "MLP: below 80% at 1.4% density",
    "mlp-at-95": "MLP: below 80% as soon as 95% is pruned",
    "lenet-cliff": "LeNet-5: below 80% at its last level",
    "lenet-relu-cliff": "LeNet-5: below 80% with ReLU and max pooling",
    "lenet-at-95": "LeNet-5: below 80% as soon as 95% is pruned",
    **{
        f"{id}-{claim}": f"{network}: {text}"
        for id, network in (("mlp", "MLP"), ("lenet", "LeNet-5"))
        for claim, text in (
            ("better", "ticket more accurate than dense"),
            ("faster", "ticket learns faster than dense"),
            ("generalise", "ticket generalises better than dense"),
            ("init", "ticket beats its mask with fresh values"),
            ("lth", "ticket no slower, at most 0.2 pp less accurate"),
        )
    },
    "task1": "Task 1: T1 at most 0.5 pp below T2, above a random mask",
    "task2-as-pruned": "Task 2: T1 fails on 5-9, pruned as in the report",
    "task2-ticket": "Task 2: T1 over 0.5 pp below T2, outputs unpruned",
    "task2-cause": "Task 2: networks at 21.1479% with a connected output 5-9",
    "task3": "Task 3: Adam's and SGD's masks equivalent, at Adam's rate",
    "task3-sgd": "Task 3: the same, SGD at a rate of its own",
    "task3-momentum": "Task 3: Adam's and momentum's masks equivalent",
}
OURS = "nothing"  # what is published of a claim that is this study's own
# the report's claims, those about a network or a task together
ORDER = sorted(rules.REPORT, key=lambda rule: names("report").index(rule.experiment.partition("_")[0]))
ORDER = {rule.id: place for place, rule in enumerate(ORDER)}
DECIDED_IN = {claim: name for name, record in REGISTRY.items() for claim in record.decides}
# others' claims, a family of their own in Holm's procedure: claim -> experiment
PUBLISHED = {
    claim.id: record.name
    for record in REGISTRY.values()
    if record.group in ("extended", "named")
    for claim in record.claims
    if claim.published != OURS
}
# what shows the report's claims
PLACES = {
    name: {"figure": next(iter(REGISTRY[name].figures)), "notebook": REGISTRY[name].notebook}
    for name in names()
    if name in (*names("report"), *DECIDED_IN.values(), *(rule.experiment for rule in rules.REPORT))
}

GROUPS = ("exploratory", "pooled", "later")  # of replicates that decide nothing and are shown beside those that do
COLUMNS = [
    "experiment", "claim", "text", "report", "role", "measured", "unit", "side", "above", "below", "published",
    "density", "n", "ours", "low", "high",
    *(column for group in GROUPS for column in (f"{group}_n", group, f"{group}_low", f"{group}_high")),
    "note", "n_needed", "alone", "p_holds", "p_refuted", "p", "verdict", "rule", "figure", "notebook",
]  # fmt: skip
WITHOUT = dict.fromkeys(COLUMNS, math.nan) | dict.fromkeys(("side", "note", "rule", "unit"), "") | {"role": "judged"}


def judge(frame, config):
    """Every claim about one experiment, measured and judged.

    Parameters
    ----------
    frame : DataFrame
        Tidy rows of one experiment; may be incomplete.
    config : Config
        Gives tolerance, margin and preset.

    Returns
    -------
    DataFrame
        A row per measure, with the columns

        experiment, claim, text, report : its experiment, name and words; the number or the section that is published
        role : ``judged``, ``some level`` or ``shown``; see :func:`lthcore.results.rules.judge`
        measured, unit, density : what is compared, and at which density in [0, 1]
        side, above, below : the claim's side of the bound, in words and numbers
        published : the number that was published for this measure, if there is one
        n, ours, low, high : replicates that decide, the first `rules.DECIDING` confirmatory ones; mean and 95% interval
        exploratory*, pooled*, later* : the same of the exploratory replicates, of all, and, if there are more than
            decide, of all confirmatory ones; NaN where all replicates are of one kind
        note, n_needed : counts and bounds; the replicates it would take to resolve what is unresolved
        alone, p_holds, p_refuted : the measure's own verdict, and its one-sided p-values
        p, verdict : the claim's, on its first row, and no p of what is exploratory: ``holds`` if all its measures do,
            ``does not hold`` if one does not, else ``unresolved``, with ", exploratory" behind it where no replicate
            is confirmatory; ``not judged (...)`` below the preset ``report``, below 3 replicates or without a
            validation set
        rule : the commit in which the rule was written down
        figure, notebook : what shows it
    """
    known = WITHOUT | {"experiment": config.experiment}
    rows = [known | row for row in (*_published(frame, config), *_by_rule(frame, config))]
    return pd.DataFrame(rows, columns=COLUMNS)


def _published(frame, config):
    """Rows of the claims that others have published, and of the study's own."""
    experiment = REGISTRY[config.experiment]
    of_group = _by_group(frame, config)
    for claim in experiment.claims:
        about = {"claim": claim.id, "text": claim.text, "report": claim.published}
        about |= {"figure": claim.figure, "notebook": experiment.notebook}
        groups = {name: claim.measures(rows, config) for name, rows in of_group.items() if len(rows)}
        fresh = groups.pop("", [])
        explored = "exploratory" in groups and _fewest(fresh) < REPORT_REPLICATES
        parts = groups.pop("exploratory") if explored else fresh
        if experiment.group == "own":
            _check_networks(claim, parts, config)
        verdict, p = _verdict(parts, config)
        final = p == p
        of_claim = {"verdict": verdict + rules.EXPLORATORY * (final and explored), "p": math.nan if explored else p}
        for i, m in enumerate(parts):
            found = _estimate("", m) | {"note": m.note}
            found |= {"measured": m.what, "density": m.density, "role": "judged" if m.judged else "shown"}
            found |= {"unit": m.unit, "above": m.above, "below": m.below, "published": m.published}
            for name, others in groups.items():
                found |= next((_estimate(name, other) for other in others if other.what == m.what), {})
            if m.judged:
                found |= {"side": measures.side(m.above, m.below)}
                found |= dict(zip(("p_holds", "p_refuted"), m.p_values(), strict=True))
            found |= {"alone": m.verdict(), "n_needed": m.needed()} if final else {"alone": ""}
            yield about | found | ({"verdict": ""} if i else of_claim)
        if not parts:
            yield about | {"measured": "", "n": 0, "alone": "", "verdict": verdict}


def _by_group(frame, config):
    """The rows of the replicates that decide, under an empty name, and those of each of ``GROUPS``: dict.

    Only of the committed schedule replicates had been analysed before the rules were final.
    """
    experiment, there = REGISTRY[config.experiment], sorted(frame["replicate"].unique())
    seen = [] if rules.another(config) or config.seed else [r for r in there if r < experiment.exploratory]
    later = [r for r in there if r not in seen]
    if not later:
        return {"exploratory" if seen else "": frame}
    groups = {"": later[: rules.DECIDING]}
    groups |= {"exploratory": seen} if seen else {}
    groups |= {"later": later} if len(later) > rules.DECIDING else {}
    groups |= {"pooled": there} if len(groups) > 1 else {}
    return {name: frame[frame["replicate"].isin(replicates)] for name, replicates in groups.items()}


def _estimate(group, measure):
    """The numbers of a group of replicates, by their columns: dict."""
    return {_column(group, name): x for name, x in zip(("n", "ours", "low", "high"), measure.estimate(), strict=True)}


def _check_networks(claim, parts, config):
    """Refuse, in one line, a measure without values of an arm or a level that its study has at no scale."""
    levels = {}
    for scale in (config, presets.configure(config.experiment, "report")):  # at a smaller scale they may be missing
        for unit in REGISTRY[config.experiment].arms(scale, 0):
            levels.setdefault(unit.arm, set()).update(unit.levels)
    for arm, level in (network for m in parts if not len(m.values) for network in m.networks):
        if arm not in levels:
            raise ValueError(f"claim {claim.id!r}: arm = {arm!r}: {one_of(arm, levels)}")
        if level not in levels[arm]:
            allowed = ", ".join(map(str, sorted(levels[arm])))
            raise ValueError(f"claim {claim.id!r}: level = {level!r}: must be one of {allowed} in the arm {arm!r}")


def _by_rule(frame, config):
    """Rows of the report's claims.

    Only the report's own schedule has exploratory replicates: no others were seen when the rules were written.
    """
    known = []
    for rule in rules.REPORT:
        rule = replace(rule, experiment=DECIDED_IN.get(rule.id, rule.experiment))
        if rules.another(config):
            rule = replace(rule, exploratory=())
        known.append(rule)
    for row in rules.judge(frame, config, known).to_dict("records"):
        row |= {"text": row["quotation"], "ours": row["estimate"], "report": f"section {row['section']}"}
        if row["verdict"] == "not run" and len(frame) and rules.another(config):  # it lacks the levels of the rule
            row["verdict"] = f"not judged ({rules.another(config)})"
        if row["quantity"] not in ("networks", rules.QUANTITIES["accuracy"].meaning):
            row["measured"] += f" ({row['quantity']})"
        row |= {"rule": rules.COMMIT} | PLACES[config.experiment]
        yield {name: value for name, value in row.items() if name in COLUMNS}


def _verdict(parts, config):
    """The verdict of a claim that is no rule's, and the smaller of its one-sided p-values, NaN where there is none."""
    n, another, judged = _fewest(parts), rules.another(config), [m for m in parts if m.judged]
    if not judged or (n == 0 and another in ("", config.preset)):  # of other settings the level may not be there
        return "not judged (it has no measure that is)" if parts and not judged else "not run", math.nan
    whole = rules.combine([m.outcome() for m in judged])
    bounds = max(m.only_bounds for m in judged)
    reason = (
        config.preset if config.preset != "report"
        else f"n = {n}" if 0 < n < REPORT_REPLICATES
        else "no validation set" if not config.validation
        else another or f"{bounds} of {n} are only bounds" * (bounds > 1 and whole.verdict != rules.REFUTED)
    )  # fmt: skip
    if reason:
        return f"not judged ({reason})", math.nan
    return whole.verdict, min(whole.p_holds, whole.p_refuted)


def _fewest(parts):
    """Of the measures that are judged, the fewest replicates: int."""
    return min((len(m.values) for m in parts if m.judged), default=0)


def decisive(rows):
    """Of one claim's rows the one that its verdict rests on, else its first.

    Where all parts hold, or one is unresolved, that is the weakest part, whose p-value for ``holds`` is the largest;
    where a part does not hold, the part that is refuted most clearly.
    """
    verdict = rules.plain(rows["verdict"].iloc[0])
    same = rows[(rows["role"] == "judged") & (rows["alone"] == verdict)]
    if same.empty:
        return rows.iloc[0]
    refuted = verdict == rules.REFUTED
    p = same["p_refuted" if refuted else "p_holds"].astype(float)
    return same.iloc[0 if p.isna().all() else int(p.argmin() if refuted else p.argmax())]


def number(row, group=""):
    """Mean and interval of a row's replicates, or the instances of a count, in words: str.

    Parameters
    ----------
    row : Series
        Of :func:`judge`.
    group : str
        One of ``GROUPS``; by default those that decide.
    """
    mean, low, high, n = (row[_column(group, name)] for name in ("ours", "low", "high", "n"))
    if not n > 0:  # or NaN
        return ""
    if row["measured"] in rules.COUNTS or row["measured"].startswith("of these: "):
        return f"{mean:.0f} of {n:.0f}"
    digits = 0 if abs(mean) >= 100 else 2  # steps are whole
    mean, low, high = (f"{round(x, digits) + 0.0:,.{digits}f}" for x in (mean, low, high))  # never -0.00
    if low != "nan":
        return f"{mean} [{low}, {high}]"
    return mean + (f" in all {n:.0f}" if n > 1 else "")  # equal values are counted


def _column(group, name):
    return name if not group else group if name == "ours" else f"{group}_{name}"


def in_short(verdicts):
    """A row per claim, with the measure that decides, for :func:`lthcore.results.forest.forest`.

    Of a claim of the report that only exploratory replicates speak of, their numbers.
    """
    rows = []
    for claim, of_claim in verdicts.groupby("claim", sort=False):
        first, row = of_claim.iloc[0], decisive(of_claim)
        counted = row["measured"] in rules.COUNTS
        group = "" if row["n"] > 0 or not row["exploratory_n"] > 0 else "exploratory"
        n, mean, low, high = (row[_column(group, name)] for name in ("n", "ours", "low", "high"))
        if counted:
            mean = 100 * mean / n if n else math.nan
        text = number(row, group)
        text += f", n = {n:.0f}" if text and not counted and " in all " not in text else ""
        at = f", {100 * row['density']:.2g}% density" if not counted and row["density"] < 1 else ""
        rows.append(
            {
                "claim": claim,
                "name": NAMES.get(claim, row["text"]) + " (ours)" * (row["report"] == OURS),
                "measured": row["measured"].replace(", mean of the last fifth of training", "") + at,
                "unit": "share of the networks (%)" if counted else row["unit"] or measures.PP,
                "above": 0.0 if counted else row["above"],
                "below": math.inf if counted else row["below"],
                "published": row["published"],
                "n": n,
                "mean": mean,
                "low": low,
                "high": high,
                "number": text + (" (exploratory)" if group else ""),
                "verdict": first["verdict"].replace(" (exploratory replicates only)", ""),
            }
        )
    return pd.DataFrame(rows)


def reported(results):
    """The accuracies that the report gives, with ours minus them: rows like those of :func:`in_short`, not judged.

    At the level of the ticket in the report's own schedule, over all replicates; other schedules have none.
    """
    rows = []
    for frame, config, numbers in ((r.frame, r.study.config, r.study.experiment.reported) for r in results):
        level = rules.L.get(config.experiment)
        if rules.another(config) or not numbers or frame.empty:
            continue
        accuracy = rules.last_fifth(frame)
        for arm, theirs in numbers.items():
            values = statistics.paired(accuracy, arm, level)
            n, mean, low, high = statistics.interval(values)
            if not n:
                continue
            if rules.constant(values):
                low, high = math.nan, math.nan
            ours = pd.Series({"measured": "", "n": n, "ours": mean, "low": low, "high": high})
            task, label = config.experiment.title(), REGISTRY[config.experiment].styles[arm][0].partition(",")[0]
            rows.append(
                {
                    "claim": "",
                    "name": f"{task[:-1]} {task[-1]}: {label}, {theirs:g}% in the report",
                    "measured": f"level {level}, {100 * statistics.density_at(frame, arm, level):.2g}% density",
                    "unit": "our accuracy minus the report's (pp)",
                    "above": -math.inf,
                    "below": math.inf,
                    "published": 0.0,
                    "n": n,
                    "mean": mean - theirs,
                    "low": low - theirs,
                    "high": high - theirs,
                    "number": f"ours {number(ours)}" + (f", n = {n}" if low == low else ""),
                    "verdict": "no claim",
                }
            )
    return pd.DataFrame(rows)


def show(verdicts):
    """The verdicts as a table for display: numbers and their intervals as text.

    Of the report's claims the levels are left out that only refute a claim that something happens at some level.
    """
    pd.set_option("display.max_colwidth", None)  # the words at the end of a cell name the level
    verdicts = verdicts[verdicts["role"] != "some level"]
    ruled = bool((verdicts["rule"] != "").any())
    out = verdicts[["claim", "text", "report", "measured"]].copy()
    out["density"] = [f"{100 * d:.3g}%" if d == d else "" for d in verdicts["density"]]
    records = verdicts.to_dict("records")
    out["holds if"] = verdicts["side"]
    out["confirmatory" if ruled else "ours"] = [number(row) for row in records]
    out["n"] = verdicts["n"]
    for group in GROUPS:
        if (verdicts[f"{group}_n"] > 0).any():
            numbers = [number(row, group) and f"{number(row, group)}, n = {row[f'{group}_n']:.0f}" for row in records]
            out[group] = numbers
    out["alone"] = verdicts["alone"]
    out["note"] = [_remark(row) for row in records]
    out["p"] = [f"{p:.2g}" if p == p else "" for p in verdicts["p"]]
    out["verdict"] = verdicts["verdict"]
    if ruled:
        out["rule"] = verdicts["rule"]
    repeated = out["claim"].duplicated()
    out.loc[repeated, ["claim", "text", "report", *(["rule"] if ruled else [])]] = ""
    return out.rename(columns={"report": "section or published"}).set_index("claim")


def _remark(row):
    more = row["n_needed"]
    needs = f"resolved at n = {more:.0f}, at this spread" if more < math.inf else "not resolved at any n in reach"
    return "; ".join(part for part in (row["note"], needs if more == more else "") if part)
