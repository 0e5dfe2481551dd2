"""Rewrite what is derived: the notebooks' badges and setup cells, and what stands between markers in the documents.

A document holds a generated part between ``<!-- name -->`` and ``<!-- /name -->``, where `name` is a key of `PARTS`.
Run ``python tests/tools/refresh.py`` after changing ``[project.urls]`` or after a run of the preset ``report``;
``--check`` only says what is out of step (exit status 1).
"""

import csv
import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from collections import Counter
from functools import lru_cache
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lthcore import config  # noqa: E402
from lthcore.explore.notebooks import COLLAPSED, FOLDED, KERNEL, LANGUAGE  # noqa: E402
from lthcore.results import measures, rules, statistics  # noqa: E402
from lthcore.runs import sweep  # noqa: E402
from lthcore.studies import REGISTRY, at_init, claims, experiments, overlap, public_step, signs  # noqa: E402

FIGURES = ROOT / "figures"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"


def address():
    """The repository's address, from its one place."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"].removesuffix("/")


def colab(notebook):
    """Where a notebook opens in Colab."""
    path = address().removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{notebook}.ipynb"


def badge(notebook):
    """Markdown of the badge that opens a notebook in Colab."""
    return f"[![Open In Colab]({BADGE})]({colab(notebook)})"


SETUP = """# @title Set-up: finds this notebook's checkout; Colab clones and installs it
import sys
from pathlib import Path

here = Path.cwd()
colab = Path("/content/lth-study")
address = "{address}"
if "google.colab" in sys.modules and not colab.exists():
    get_ipython().system(f"git clone --quiet --depth=1 {address} {colab}")
    get_ipython().system("pip freeze --exclude-editable | grep -v ' @ ' > /content/present.txt")
    get_ipython().system(f"pip install --quiet --constraint /content/present.txt --editable {colab}")
found = [str(p) for p in (here, *here.parents, colab) if (p / "lthcore/explore/notebooks.py").is_file()]
sys.path[:0] = found[:1]

from lthcore.explore import notebooks

notebooks.start()"""


def setup_cell():
    """The first cell of code of every notebook: the same text in all, with the address."""
    return SETUP.replace("{address}", address(), 1)


def notebook_text(path):
    """A notebook's source with its badge, its setup cell and its language as they should be; nothing else moves."""
    notebook = json.loads(re.sub(r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*\)", badge(path.stem), path.read_text()))
    first = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    first["source"] = setup_cell().splitlines(keepends=True)
    first["metadata"] = FOLDED | {"tags": [COLLAPSED]}
    notebook["metadata"] |= {"kernelspec": KERNEL, "language_info": LANGUAGE}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def notebooks_table():
    """Markdown: a row per notebook, with the question that is its title."""
    lines = ["| notebook | its question |", "|---|---|"]
    for path in NOTEBOOKS:
        title = json.loads(path.read_text())["cells"][0]["source"][0].strip("# \n")
        lines.append(f"| [{path.stem}](notebooks/{path.name}) | {title} |")
    return "\n".join(lines)


def badges():
    """Markdown: a row per notebook, with the badge that opens it in Colab; their addresses are below the table."""
    rows = [f"| [{path.stem}]({path.name}) | [![Open In Colab][badge]][{path.stem[:2]}] |" for path in NOTEBOOKS]
    links = [f"[{path.stem[:2]}]: {colab(path.stem)}" for path in NOTEBOOKS]
    return "\n".join(["| notebook | |", "|---|---|", *rows, "", f"[badge]: {BADGE}", *links])


# ------------------------------------------------------------------------------------------- what came out, in numbers


@lru_cache
def committed_verdicts(extended):
    """Verdicts on the report's claims, or on what goes beyond it, from the levels of the preset ``report``."""
    every = experiments.every(extended=True, preset="report")
    return experiments.verdicts(*(s for s in every if (s.config.experiment not in claims.PLACES) == extended))


@lru_cache
def finished(name):
    """What is committed of an experiment at the preset ``report``: tidy rows."""
    return experiments.finished(experiments.study(name, "report"))


def accuracy(name, arm, level):
    """Test accuracy over the last fifth of training in all committed replicates, in words."""
    n, mean, low, high = statistics.interval(rules.last_fifth(finished(name))[arm, level])
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]%" if high - low > 1e-6 else f"{mean:.4f}% in all {n}"


def of_whom(name):
    """How many replicates a number is of, and of which kind, in words."""
    there = set(finished(name)["replicate"])
    explored = {r for rule in rules.REPORT if rule.experiment == name for r in rule.exploratory}
    kinds = [kind for kind, some in (("exploratory", there & explored), ("confirmatory", there - explored)) if some]
    return f"n = {len(there)}, {' and '.join(kinds)} replicates"


def density(name, arm, level):
    """A density in words."""
    return f"{100 * statistics.density_at(finished(name), arm, level):.2g}% density"


def at(name, arm, level):
    """An accuracy and its density, in words."""
    return f"{accuracy(name, arm, level)} at {density(name, arm, level)}"


def report_rows():
    """Of every claim of the report: its first row in the table of verdicts, and the row that its verdict rests on."""
    for _, rows in committed_verdicts(extended=False).groupby("claim", sort=False):
        yield rows.iloc[0], claims.decisive(rows)


UNPRUNED = {"task2-ticket": "output layer unpruned: "}
QUANTITIES = {"steps": "steps: ", "training minus test": "training - test: "}  # all others are test accuracy
UNITS = {"difference in accuracy (pp)": " pp", "test accuracy (%)": "%"}  # others stand in the words


def measured(row):
    """What a row compares, in words, without the level."""
    if row["measured"].startswith("networks"):
        return "count > 0"
    found = re.fullmatch(r"(.*?)(?: \((?!theta0\))(.*)\)?)?", row["measured"])
    what, quantity = found[1], found[2] or ""
    what = re.sub(r"^by (.*): (.*)'s mask - own\b", r"\1: \2's mask - own", what)
    what = re.sub(r"(, |: )level \d+$", "", UNPRUNED.get(row["claim"], "") + what)
    short = next((short for begin, short in QUANTITIES.items() if quantity.startswith(begin)), "")
    return short + what


def holds_if(row):
    """What a row compares, and the side of the bound on which the claim holds."""
    if row["measured"].startswith("networks"):
        return measured(row)
    unit = UNITS.get(row["unit"], "")
    side = re.sub(r"> -(\S+) and < \1$", r"within ±\1", row["side"])
    return f"{measured(row)} {side}{unit}"


def tickets_counted(claim):
    """How many of the networks that a count finds are tickets, in words; empty for a claim that is no count."""
    arms = committed_verdicts(extended=False).query("claim == @claim")
    arms = arms[arms["measured"].str.startswith("of these: ")]
    tickets = int(arms[arms["measured"].str.startswith("of these: t1")]["ours"].sum())
    return f", {tickets or 'no'} ticket{'s' * (tickets > 1)} among them" if len(arms) else ""


def claims_table():
    """Markdown: the verdict of every claim of the report, with the number that it rests on, and which have none."""
    lines = ["| claim | in plain words | deciding inequality | density | estimate | verdict |", "|---" * 6 + "|"]
    without = {}
    for first, row in report_rows():
        name, number = first["claim"], claims.number(row)
        verdict = first["verdict"].partition(" (")[0]  # why it is not judged stands in the long table
        if not number:
            without.setdefault(verdict, []).append(f"`{name}`")
            continue
        density = f"{100 * row['density']:.2g}%" if row["density"] == row["density"] else ""
        holds = holds_if(row).removeprefix(UNPRUNED.get(name, ""))  # which its words say
        plain = claims.NAMES[name].partition(": ")[2]  # of what, the claim's name says
        cells = [name, plain, holds, density, number + tickets_counted(name), verdict]
        lines.append(f"| {' | '.join(cells)} |")
    texts = (f"{verdict.capitalize()}: {', '.join(names)}." for verdict, names in without.items())
    others = "\n".join(map(filled, texts))
    return "\n".join([*lines, "", others])


SHORT_FOR = {  # the verdicts for which `short_text` is written
    "mlp-faster": "holds", "mlp-lth": "holds", "mlp-better": "holds, not after Holm", "mlp-init": "holds",
    "lenet-faster": "holds", "lenet-lth": "holds", "lenet-better": "holds", "lenet-init": "holds",
    "task1": "holds, not after Holm", "task2-as-pruned": "holds", "task3-sgd": "holds",
}  # fmt: skip


def short_text():
    """What came out, in a few sentences."""
    found = {first["claim"]: (first["verdict"], row) for first, row in report_rows()}
    if others := [name for name, verdict in SHORT_FOR.items() if found[name][0] != verdict]:
        raise SystemExit(f"short_text: the verdicts have changed, write it anew: {', '.join(others)}")
    number = {name: claims.number(row) for name, (_, row) in found.items()}
    density = {name: f"{100 * row['density']:.2g}%" for name, (_, row) in found.items()}
    row = found["task1"][1]
    below = f"{-row['ours']:.2f} [{-row['high']:.2f}, {-row['low']:.2f}] pp"
    early = [other_measures(f"{name}-faster", "step of minimum validation loss")[0] for name in ("mlp", "lenet")]
    return filled(
        "**In short** (n = 5; 95% intervals in brackets; pp: percentage points). Both networks have winning tickets on",
        f"MNIST. At {density['mlp-faster']} density (weights kept) the MLP's ticket reaches 97% validation accuracy in",
        f"{number['mlp-faster']} times the dense network's steps, and its test accuracy is {number['mlp-better']} pp",
        f"higher; LeNet-5's at {density['lenet-faster']} reaches 98% in {number['lenet-faster']} times the steps and",
        f"is {number['lenet-better']} pp more accurate. By the paper's measure, the step of minimum validation loss,",
        f"the ratios are {claims.number(early[0])} and {claims.number(early[1])}. Tickets beat their masks with new",
        f"random weights by {number['mlp-init']} pp (MLP, {density['mlp-init']}) and {number['lenet-init']} pp",
        f"(LeNet-5, {density['lenet-init']}). Trained on one half of the images, the ticket found on the other half is",
        f"{below} less accurate than that half's own (bound: 0.5). At learning rates that suit each, Adam and SGD",
        "train each other's masks to within 0.5 pp of their own. A ticket found on the digits 0-4 fails on 5-9 because",
        "pruning removes every path to the outputs 5-9. The claims on the halves and on the MLP's higher accuracy do",
        "not survive a correction for testing all claims.",
    )


def other_measures(claim, quantity):
    """Rows of a claim of the report, those beside its verdict included, of this quantity."""
    every = committed_verdicts(extended=False).query("claim == @claim").to_dict("records")
    return [row for row in every if quantity in row["measured"]]


def caveats_text():
    """Two verdicts that mean less than they say."""
    counted = tickets_counted("task2-cause")
    if counted != ", no ticket among them":
        raise SystemExit("caveats_text: task2-cause now counts tickets, write it anew")
    lower = [row for row in other_measures("mlp-cliff", "level") if row["role"] == "some level" and row["high"] < 80]
    return filled(
        f"`mlp-cliff` is judged at one level; below it accuracy does fall: {claims.number(lower[0])}% at",
        f"{100 * lower[0]['density']:.2g}% density.",
        "`task2-cause` holds by its rule, but only through random masks: no ticket supports the report's explanation.",
    )


def sgd_text():
    """Whether Adam's and SGD's masks are equivalent where SGD has a rate of its own."""
    first, row = next(pair for pair in report_rows() if pair[0]["claim"] == "task3-sgd")
    if first["verdict"] != rules.HOLDS:
        raise SystemExit("sgd_text: the verdict has changed, write it anew")
    by_adam, by_sgd = (
        next(part for part in other_measures("task3-sgd", f"by {whose}: ") if part["role"] == "judged")
        for whose in ("Adam", "SGD at 0.2")
    )
    return filled(
        f'There the verdict is "{first["verdict"]}" ({100 * row["density"]:.2g}% density, n = {row["n"]}, within',
        f"0.5 pp either way): under SGD's mask Adam is {claims.number(by_adam)} pp from its accuracy under its own,",
        f"and SGD under Adam's mask {claims.number(by_sgd)} pp. So at this density the report's sentence holds for",
        "an SGD that converges; its own comparison could not show it.",
    )


def report_table():
    """Markdown: of every claim of the report the bound, the numbers and the verdict."""
    lines = ["| claim | holds if | density | n | confirmatory | exploratory | verdict |", "|---" * 7 + "|"]
    for first, row in report_rows():
        numbers = claims.number(row), claims.number(row, "exploratory")
        density = f"{100 * row['density']:.2g}%" if row["density"] == row["density"] else ""
        cells = [first["claim"], holds_if(row), density, f"{row['n'] or ''}", *numbers]
        lines.append(f"| {' | '.join([*cells, first['verdict']])} |")
    return "\n".join(lines)


def rules_list():
    """Markdown: every claim of the report in its own words, and where it is judged."""
    lines = []
    for rule in rules.REPORT:
        levels = rule.levels.replace("% kept", "% density")  # the rules themselves keep the words they were declared in
        lines.append(f'- **{rule.id}** (section {rule.section}): "{rule.quotation}". Judged at {levels}.')
    return "\n".join(textwrap.fill(line, 120, subsequent_indent="  ", break_on_hyphens=False) for line in lines)


def published():
    """Of every published claim: its first row in the table of verdicts, and the row that its verdict rests on."""
    for _, rows in committed_verdicts(extended=True).groupby("claim", sort=False):
        yield rows.iloc[0], claims.decisive(rows)


def most_needed(first):
    """Replicates that would resolve the claim of this row: of those that its parts need, the most."""
    return committed_verdicts(extended=True).query("claim == @first.claim")["n_needed"].max()


def published_table():
    """Markdown: two rows per claim that others have published, its words and its number, under the same count."""
    text = ["| | claim | published | figure |", "|---" * 4 + "|"]
    numbers = ["| | holds if | density | n | ours | n needed | verdict |", "|---" * 7 + "|"]
    links = {}
    for i, (first, row) in enumerate(published(), 1):
        figure = first["figure"].partition("_")[0]
        if (FIGURES / f"{first['figure']}.png").exists():
            links[f"[{figure}]"] = f"{first['figure']}.png"
            figure = f"[{figure}]"
        cells = [f"{i}", first["text"], first["report"], figure]
        text.append(f"| {' | '.join(cells)} |")
        cells = [""] * 5
        if row["n"]:
            unresolved = rules.plain(first["verdict"]) == rules.UNRESOLVED
            needed = f"{most_needed(first):,.0f}".replace("inf", "> 10,000") if unresolved else ""
            cells = [holds_if(row), f"{100 * row['density']:.3g}%", f"{row['n']}", claims.number(row), needed]
        numbers.append(f"| {' | '.join([f'{i}', *cells, first['verdict']])} |")
    return "\n".join([*text, "", *numbers, "", *(f"{name}: {where}" for name, where in sorted(links.items()))])


def beyond_text():
    """How many published claims came out how."""
    claimed = [first for first, _ in published()]
    n = Counter(rules.plain(c["verdict"]) for c in claimed)
    exactly = Counter(c["verdict"] for c in claimed)
    explored = {verdict: exactly[verdict + rules.EXPLORATORY] for verdict in n}
    lost = exactly[rules.HOLDS + rules.NOT_AFTER_HOLM]
    if exactly[rules.REFUTED + rules.NOT_AFTER_HOLM]:
        raise SystemExit("beyond_text: a refuted claim does not survive Holm's correction, write it anew")
    others = sum(c["report"] != claims.OURS for c in claimed)
    return filled(
        f"Of {len(claimed)} claims, {others} from papers (our bounds), {n['holds']} hold",
        f"({explored['holds']} exploratory, {lost} not after Holm), {n['does not hold']} do not",
        f"({explored['does not hold']} exploratory), {n['unresolved']} are unresolved ({explored['unresolved']}",
        f"exploratory), {n['not run']} (CIFAR-10) were not run.",
    )


@lru_cache
def masks_compared():
    """The study of masks at the committed scale, read."""
    return experiments.load(experiments.study("overlap", "report"))


def special_text():
    """What studies beyond the report found, a line each."""
    return "\n".join(f"- {line}" for line in (masks_text(), signs_text(), smaller_text(), init_text()))


def masks_text():
    """How far two runs find the same mask, in a sentence."""
    table = overlap.at(masks_compared())
    half, again = table.loc[overlap.OTHER_HALF], table.loc[overlap.ORDER, "overlap"]
    share, both, chance = (f"{100 * half[name]:.1f}%" for name in ("overlap", "by_both", "chance"))
    return filled(
        f"Masks of two halves of the data share {share} of their weights at {100 * overlap.AT:g}% density, those",
        f"of one half in two batch orders {100 * again:.1f}%; pixels and sizes explain {both}, chance {chance}",
        f"(13; n = {half['n']:.0f}).",
    )


def signs_text():
    """What of theta0 a ticket needs, in a sentence."""
    end = statistics.at_end(finished("signs"))
    over_fresh = {arm: statistics.interval(statistics.paired(end, arm, signs.AT, "fresh", signs.AT))
                  for arm in ("theta0", "fresh_sizes", "fresh_signs")}  # fmt: skip
    lead, of_signs, of_sizes = (f"{mean:.2f} [{low:.2f}, {high:.2f}]" for _, mean, low, high in over_fresh.values())
    n, *_ = over_fresh["theta0"]
    return filled(
        f"Of a ticket's lead over fresh values ({lead} pp at {density('signs', 'theta0', signs.AT)}) theta0's signs",
        f"keep {of_signs}, its sizes {of_sizes} (14; n = {n}).",
    )


def smaller_text():
    """How much more accurate a ticket is than a dense network of as many weights, in a sentence."""
    rows = {first["claim"]: row for first, row in published()}
    mlp, lenet = rows["smaller-dense"], rows["smaller-dense-lenet5"]
    return filled(
        f"At {100 * mlp['density']:.2g}% density a ticket is {claims.number(mlp)} pp more accurate than a dense",
        f"network of as many weights, LeNet-5's at {100 * lenet['density']:.2g}% {claims.number(lenet)}",
        f"(15; n = {mlp['n']}).",
    )


def init_text():
    """What the networks reach under masks that are chosen before and after training, in a sentence."""
    accuracy = measures.last_fifth(finished("at_init"))
    arms = {arm: statistics.paired(accuracy, arm, at_init.AT) for arm in (*at_init.METHODS, "random_mask")}
    trained, snip, synflow, initial, chance = (f"{values.mean():.1f}" for values in arms.values())
    return filled(
        f"At {density('at_init', 'trained', at_init.AT)} masks chosen by magnitude after training reach {trained}%,",
        f"before training by SNIP {snip}, SynFlow {synflow}, magnitude {initial}, at random {chance}",
        f"(17; n = {len(arms['trained'])}).",
    )


def masks_table():
    """The same as a table."""
    heads = (
        "what differs",
        "density",
        "shared",
        "random",
        "within pixels",
        "within sizes",
        "within both",
        "beyond random",
        "beyond the last",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, row in overlap.at(masks_compared()).iterrows():
        cells = [name, *(f"{100 * row[k]:.1f}%" for k in ("density", "overlap", *overlap.BASELINES))]
        for first, low, high in (("mean", "low", "high"), ("rest", "rest_low", "rest_high")):
            cells.append(f"{row[first]:.3f} [{row[low]:.3f}, {row[high]:.3f}]")
        lines.append(f"| {' | '.join('' if 'nan' in cell else cell for cell in cells)} |")
    return "\n".join(lines)


def step_table():
    """Markdown: which of the report's numbers the step of a public repository explains, which the correct step."""
    names = "public_step", "public_step_lenet5"
    studies = [experiments.load(experiments.study(name, "report")) for name in names]
    table = public_step.in_short(studies)
    text = public_step.counted(table.reset_index())
    lines = [filled(f"Of the {len(table)} rows, in which Task 3's numbers and LeNet-5's stand twice, {text}."), ""]
    lines += markdown_table(table.reset_index())
    both = pd.concat(map(public_step.keeps_and_falls, studies))
    (n,) = {results.frame["replicate"].nunique() for results in studies}
    text = "The report says two things about each network: it keeps almost the dense network's accuracy beyond 85%"
    lines += ["", filled(f"{text} pruned (MLP: 90%), and falls below 80% beyond 95%. By either step (n = {n}):"), ""]
    return "\n".join([*lines, *markdown_table(both)])


def markdown_table(table):
    """A frame's rows, in words, under its columns: list of lines."""
    lines = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    return [*lines, *(f"| {' | '.join(map(str, row))} |" for row in table.itertuples(index=False))]


def filled(*sentences):
    """A paragraph."""
    return textwrap.fill(" ".join(sentences), 120, break_on_hyphens=False)


def cliff_text():
    """Where the accuracy of the report's two networks falls, and what falls there."""
    return f"{mlp_cliff()}\n\n{lenet_cliff()}\n\n{relu_cliff()}"


def mlp_cliff():
    frame = finished("mlp")
    means = rules.last_fifth(frame)["ticket"].groupby("level").mean()
    first = means.index[means < 80][0]
    dead = statistics.deaths(frame, "ticket")["an output"]
    return filled(
        f"The MLP does not fall at once beyond 95% sparsity: it reaches {at('mlp', 'ticket', 9)} ({of_whom('mlp')}).",
        f"Its mean first falls below 80% at level {first}: {at('mlp', 'ticket', first)}.",
        f"Before that, from level {dead} on, at least one replicate has a disconnected output.",
        "With the output layer unpruned and the same total number of weights, the network reaches",
        f"{at('mlp', 'ticket_spared', 11)} and {at('mlp', 'ticket_spared', 15)}.",
    )


def lenet_cliff():
    frame = finished("lenet5")
    last = max(statistics.levels(frame, "ticket"))
    active = 100 * statistics.at_end(frame, "effective_density", "mask")["ticket", last].mean()
    dead = statistics.deaths(frame, "ticket")["an output"]
    verdict = next(first["verdict"] for first, _ in report_rows() if first["claim"] == "lenet-cliff")
    judged = "is not judged yet" if verdict.startswith("not ") else f'has the verdict "{verdict}" on `lenet-cliff`'
    return filled(
        f"LeNet-5 {judged}. With tanh and average pooling it reaches, in the report's {last} rounds,",
        f"{at('lenet5', 'ticket', 14)}, {at('lenet5', 'ticket', last)} ({of_whom('lenet5')}).",
        f"At level {last}, the last, {active:.2g}% of all weights are active (on a path of kept weights from a",
        f"pixel to an output); the first disconnected output appears at level {dead}. With the first layer unpruned",
        f"and the others pruned harder, to the same total, it reaches {at('lenet5', 'ticket_spared', 18)} and",
        f"{at('lenet5', 'ticket_spared', last)}.",
    )


def relu_cliff():
    """The same of LeNet-5 in the other form that the report may mean."""
    (rule,) = (rule for rule in rules.REPORT if rule.id == "lenet-relu-cliff")
    verdict = next(first["verdict"] for first, _ in report_rows() if first["claim"] == rule.id)
    dead = statistics.deaths(finished("lenet5_relu"), "ticket")["an output"]
    so = {
        rules.HOLDS: "whether LeNet-5 falls below 80% depends on a choice that the report does not state",
        rules.REFUTED: "LeNet-5 falls below 80% in neither form",
        rules.UNRESOLVED: "with ReLU and max pooling this is open",
    }[verdict.partition(",")[0]]
    return filled(
        "The report does not say which activation and pooling its LeNet-5 used. With ReLU and max pooling, as in",
        f'most code, the verdict on `lenet-relu-cliff` is "{verdict}": LeNet-5 reaches',
        f"{at('lenet5_relu', 'ticket', 14)}, {at('lenet5_relu', 'ticket', rule.parts[0].first[1])}",
        f"({of_whom('lenet5_relu')}), and the first disconnected output appears at level {dead}. So {so}.",
    )


def dead_outputs():
    """Task 2's networks without an active output among 5-9, and those of them at the level that is judged."""
    dead = statistics.dead_labels(finished("task2"), "t1_on_s2", range(5, 10))
    return dead, dead[dead["level"] == rules.L["task2"]]


def task2_row(claim, text):
    """A claim's row whose measure begins with these words."""
    table = committed_verdicts(extended=False)
    rows = table[(table["claim"] == claim) & table["measured"].str.startswith(text)]
    return rows.iloc[0]


def story_text():
    """What the number 21.1479 is, in a few lines."""
    (_, there), level, unpruned = dead_outputs(), rules.L["task2"], rules.L["task2 ticket"]
    if set(there["top_answer"]) != {7}:
        raise SystemExit("story_text: not all of these networks answer 7, write it anew")
    row, n = task2_row("task2-ticket", "T1 on S2 - T2"), finished("task2")["replicate"].nunique()
    below, low, high = (-row[f"pooled{name}"] for name in ("", "_high", "_low"))
    return filled(
        "The report gives 21.1479% as the accuracy of a ticket found on the digits 0-4 and trained on 5-9.",
        "That is, to all four decimals, the share of sevens among the test images of 5-9 (1,028 of 4,861): the score",
        "of a network that predicts 7 for every image. In our networks, pruning on the",
        "digits 0-4 disconnects the outputs 5-9. Of these only the biases can then learn, and the network predicts the",
        f"most frequent label, 7, for every image: at level {level} ({density('task2', 't1_on_s2', level)}) in",
        f"{len(there)} of {n} replicates. With the output layer unpruned, the ticket reaches",
        f"{at('task2', 't1_on_s2_spared', unpruned)}:",
        f"{below:.2f} [{low:.2f}, {high:.2f}] pp below the ticket found on 5-9 (n = {n}).",
    )


def sevens_text():
    """How many networks have an accuracy of 21.1479%, and what is left with the output layer unpruned."""
    return f"{sevens_as_pruned()}\n\n{sevens_spared()}\n\n{sevens_cause()}"


def sevens_as_pruned():
    dead, there = dead_outputs()
    first, level = dead["level"].min(), rules.L["task2"]
    same = "all" if dead["one_class"].all() else dead["one_class"].sum()
    return filled(
        f"As the report pruned ({of_whom('task2')}): in {len(dead)} (level, replicate) pairs, from level {first}",
        f"({density('task2', 't1_on_s2', first)}) on, all outputs 5-9 are disconnected;",
        f"{same} of these networks predict one class, and their accuracy is exactly its share.",
        f"Level {level} ({density('task2', 't1_on_s2', level)}) is the last at which the ticket matches the dense",
        f"network on its own labels. There this happens in {len(there)} of {finished('task2')['replicate'].nunique()}",
        f"replicates, while S2's own ticket reaches {accuracy('task2', 't2_on_s2', level)}.",
    )


def sevens_spared():
    level = rules.L["task2 ticket"]
    arms = {"T1 on S2": "t1_on_s2", "S2's own ticket": "t2_on_s2", "T1's mask, reinitialised": "random_reinit"}
    arms["a random mask"] = "random_mask"
    learned = "; ".join(f"{text} {accuracy('task2', f'{arm}_spared', level)}" for text, arm in arms.items())
    below = task2_row("task2-ticket", "T1 on S2 - T2")
    share = task2_row("task2-ticket", "share")
    return filled(
        "With the output layer unpruned, the ticket matches the dense network down to level",
        f"{level} ({density('task2', 't1_on_s2_spared', level)}), and the new labels are learned: {learned}.",
        f"T1 on S2 - S2's own ticket: {claims.number(below, 'pooled')} pp",
        f"(confirmatory replicates: {claims.number(below) or 'none yet'}).",
        f"T1 retains {claims.number(share, 'pooled')} of that ticket's gain over a random mask.",
    )


def sevens_cause():
    found = rules.at_one_class(finished("task2"))
    connected = found[found["instance"]]
    tickets = connected["arm"].str.startswith("t1").sum()
    whose = ", ".join(f"{len(rows)} of the arm `{arm}`" for arm, rows in connected.groupby("arm"))
    row = next(row for first, row in report_rows() if first["claim"] == "task2-cause")
    verdict = committed_verdicts(extended=False).drop_duplicates("claim").set_index("claim")["verdict"]["task2-cause"]
    so = "" if tickets else "None is a ticket of S1, so the verdict does not support the report's explanation."
    only = connected["arm"].nunique() == 1
    return filled(
        f'The verdict on `task2-cause` is "{verdict}": {claims.number(row)} networks of the confirmatory replicates.',
        f"Over all replicates, {len(connected)} of the {len(found)} networks at exactly 21.1479% have a connected",
        f"output among 5-9{f', all of the arm `{connected.arm.iloc[0]}`' if only else f' ({whose})'}.",
        so,
        f"The other {len(found) - len(connected)} have none, and could not have told these digits apart.",
    )


def context_text():
    """What three verdicts must be read with: numbers of their own chains, parts and arms."""
    level, fifth = rules.L["task3"], rules.last_fifth(finished("task3"))
    _, below, low, high = statistics.interval(statistics.paired(fifth, "sgd", 0, "sgd", level))
    table = committed_verdicts(extended=False)
    parts = table[(table["claim"] == "task3-momentum") & (table["role"] == "judged")]
    other = parts[parts["measured"].str.startswith("by Adam")].iloc[0]
    found = rules.at_one_class(finished("task2"))
    arms = ", ".join(f"`{arm}`" for arm in sorted(found[found["instance"]]["arm"].unique()))
    return filled(
        "Three verdicts need their context. Plain SGD in `task3` runs at Adam's learning rate (0.0012), where its loss",
        f"still falls when training ends. At level {level}, where the claim is judged, its own chain is",
        f"{below:.1f} [{low:.1f}, {high:.1f}] pp below its dense network (all replicates): the verdict is about the",
        "masks of that undertrained chain, not about tickets of SGD in general. Of `task3-momentum` the part that is",
        f"not shown (by Adam: momentum's mask - own) is {claims.number(other)} pp.",
        f"`task2-cause` counts networks of every arm; those with an active output are of {arms}.",
    )


def heads_text():
    """What the output layer holds at the tasks' last levels: by counting alone."""
    kept = {name: config.configure(name, "report").schedule[-1]["head"] for name in ("task1", "task2", "task3")}
    text = ", ".join(f"{n} in Task {name[-1]}" for name, n in kept.items())
    given = [REGISTRY["task2"].reported["t1_on_s1"], *REGISTRY["task3"].reported.values()]
    return filled(
        f"At the last level the output layer of the MLP keeps few weights: {text}. Disconnected outputs have constant",
        "logits, of which only the largest can win: a network predicts at most one class more than it has",
        "connected outputs. So two weights allow three classes, and one weight allows two: the accuracies that the",
        f"report gives for Tasks 2 and 3 ({', '.join(f'{value}%' for value in given)}) cannot be those of their last",
        "levels, if the output layer was pruned at the same rate. Task 1 is not affected.",
    )


# -------------------------------------------------------------------------------------------------- speed, scale, times


def times_table():
    """Markdown: how long whole runs took, from ``figures/times.csv``."""
    lines = ["| command | | levels | time | training | estimate at the start | commit |", "|---" * 7 + "|"]
    for row in rows_of("times"):
        text = [sweep.duration(float(row[k])) if row[k] else "" for k in ("seconds", "training", "estimate")]
        cells = [f"`{row['command']}`", row["condition"], f"{int(row['levels']):,}", *text, row["commit"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def presets_table():
    """Markdown: what each of the first commands takes, from ``figures/times.csv``."""
    took = {}
    for row in rows_of("times"):
        took.setdefault(row["command"], sweep.duration(float(row["seconds"])))
    lines = ["| preset | what | time |", "|---|---|---|"]
    lines.append(f"| `quick` | every figure of the report, short training | {took['./run_all.sh']} |")
    lines.append(f"| `report` | the report's full schedule, read from the archive | {took['./run_all.sh report']} |")
    lines.append(f"| | trained from scratch, one replicate | {took['./run_all.sh report --replicates 1']} |")
    return "\n".join(lines)


def rows_of(name):
    """A measurement's rows: list of dict of str."""
    return list(csv.DictReader((FIGURES / f"{name}.csv").open()))


def spread(row, unit=""):
    """A measurement: median [least, greatest]."""
    return f"{row['median']}{unit} [{row['least']}, {row['greatest']}]"


def machine_of(name, *packages):
    """On what something was measured, and the facts beside it: (str, dict)."""
    facts = json.loads((FIGURES / f"{name}.json").read_text())
    versions = ", ".join(f"{package} {facts[package]}" for package in packages if package in facts)
    return f"{facts['processor']}, {facts['cores']} cores, {facts['system']}; {versions}.", facts


def speed_tables():
    """Markdown: what the benchmark measured last, from ``figures/speed.csv``."""
    rows = {(row["part"], row["what"], row["at"]): row for row in rows_of("speed")}
    machine, facts = machine_of("speed", "python", "torch", "numba", "numpy", "SparseLab")
    text = filled(
        f"Median [least, greatest] of {facts['repeats']} repeats; x: faster than ours at 100% density; what its",
        "multiply-adds take: those of the kept weights, at the rate of a product of 1024 x 1024",
        f"matrices ({spread(rows['mlp', 'product of 1024 x 1024', ''])} GFLOP/s). {machine}",
    )
    return "\n".join([*steps_table(rows), "", *epochs_table(rows), "", text])


def steps_table(rows):
    """Lines of the table on single steps."""
    lines = ["| one step at batch 60, one thread | MLP | LeNet-5 |", "|---|---|---|"]
    models = ("mlp", "lenet5")
    plain = {"eager torch, masked gradients": "eager torch", "the dense matrix products alone": "products alone"}
    for text, what in plain.items():
        lines.append(f"| {text} | " + " | ".join(spread(rows[m, what, ""], " ms") for m in models) + " |")
    channels = spread(rows["lenet5", "eager torch, channels_last", ""], " ms")
    lines.insert(3, f"| the same in the memory format `channels_last` | | {channels} |")
    for share in ("1.0", "0.2", "0.05", "0.01"):
        cells = []
        for m in models:
            parts = [spread(rows[m, "ours", share], " ms")]
            if share != "1.0":
                parts.append(spread(rows[m, "ours, dense / ours", share], "x"))
            cells.append(", ".join(parts))
        lines.append(f"| ours, {100 * float(share):g}% density | {' | '.join(cells)} |")
        limits = [spread(rows[m, "ours / its multiply-adds", share]) for m in models]
        lines.append(f"| times what its multiply-adds take | {' | '.join(limits)} |")
        if ("mlp", "SparseLab", share) in rows:
            cell = spread(rows["mlp", "SparseLab", share], " ms")
            cell += f", {spread(rows['mlp', 'SparseLab / ours', share])} times ours"
            lines.append(f"| SparseLab, {100 * float(share):g}% density | {cell} | |")
    return lines


def epochs_table(rows):
    """Lines of the table on whole epochs."""
    usual = "the usual loop, two threads"
    lines = ["| epochs of the MLP, each with its test | a second | times the usual loop |", "|---|---|---|"]
    lines.append(f"| {usual} (dataset, DataLoader, Adam, masked gradients) | {spread(rows['epochs', usual, ''])} | 1 |")
    for (part, what, at), row in rows.items():
        if part == "epochs" and what.startswith("ours") and not what.endswith("loop"):
            times = spread(rows["epochs", f"{what} / {usual.split(',')[0]}", at])
            lines.append(f"| {what}, processes: {at} | {spread(row)} | {times} |")
    return lines


def growth_table():
    """Markdown: what more weights, images, units and processes cost, from ``figures/growth.csv``."""
    rows, found = rows_of("growth"), {}
    machine, facts = machine_of("growth", "python", "torch", "numba")
    for row in rows:
        found.setdefault((row["part"], row["what"]), []).append((float(row["at"]), float(row["median"])))
    lines = ["| what grows | from | to | factor | factor of the step time |", "|---|---|---|---|---|"]
    for (part, what), points in found.items():
        if part == "processes":
            continue
        (first, before), (last, after) = min(points), max(points)
        name = {"kept weights": "kept weights", "batch": "images in a batch", "width": "weights, by width"}[part]
        cells = f"{first:,.0f} | {last:,.0f} | {last / first:,.3g} | {after / before:,.3g}"
        lines.append(f"| {what}: {name} | {cells} |")
    alone = {what: dict(points) for (part, what), points in found.items() if part == "processes"}
    several = "; ".join(
        f"{what}: " + ", ".join(f"{n:.0f} processes {rate / rates[1]:.3g}" for n, rate in rates.items() if n > 1)
        for what, rates in alone.items()
    )
    text = filled(f"Steps a second of several processes, times those of one: {several}.",
                  f"Medians of {facts['repeats']} repeats. {machine}")  # fmt: skip
    return "\n".join([*lines, "", text])


def scale_table():
    """Markdown: what a level costs beside its training, and what that makes of many, from ``figures/scale.csv``."""
    rows = rows_of("scale")
    machine, facts = machine_of("scale", "python", "distributed")
    sizes, powers = sorted({int(row["levels"]) for row in rows}), (3, 4, 5, 6)
    level, per_unit = facts["level"], facts["levels_per_unit"]
    cells = {(row["part"], int(row["levels"])): row for row in rows}
    head = [f"µs a level, at {size:,} levels" for size in sizes] + [f"10^{n} units" for n in powers]
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for part in dict.fromkeys(row["part"] for row in rows):
        seconds = float(cells[part, sizes[-1]]["median"]) / 1e6 * per_unit
        text = [spread(cells[part, size]) for size in sizes] + [sweep.duration(seconds * 10**n) for n in powers]
        lines.append(f"| {part} | {' | '.join(text)} |")
    for name, each, unit in (("files", level["files"], ""), ("bytes on disk", level["disk"] / 1e9, " GB")):
        text = [f"{each * per_unit * 10**n:,.3g}{unit}" for n in powers]
        lines.append(f"| {name} |{' |' * len(sizes)} {' | '.join(text)} |")
    fed = 60 / (float(cells["queue, Dask", sizes[-1]]["median"]) / 1e6)
    text = filled(
        f"Median [least, greatest] of {facts['repeats']} repeats, of the processor's time; {machine}",
        f"Units are projections from the larger number, {per_unit:.3g} levels each, as in the report's MLP.",
        f"While a level takes a minute, one driver and its scheduler on one core feed {fed:,.0f} workers.",
        f"A level opens {level['opened']} files of the store, renames {level['renamed']}, removes its lock, and",
        f"leaves {level['files']} files of {level['bytes']:,} bytes in a folder of its own.",
    )
    return "\n".join([*lines, "", text])


PARTS = {
    "notebooks": notebooks_table,
    "badges": badges,
    "short": short_text,
    "claims": claims_table,
    "caveats": caveats_text,
    "story": story_text,
    "presets": presets_table,
    "beyond": beyond_text,
    "verdicts": report_table,
    "context": context_text,
    "rules": rules_list,
    "published": published_table,
    "cliff": cliff_text,
    "sevens": sevens_text,
    "cause": sevens_cause,
    "special": special_text,
    "sgd": sgd_text,
    "step": step_table,
    "overlap": masks_table,
    "heads": heads_text,
    "times": times_table,
    "speed": speed_tables,
    "growth": growth_table,
    "scale": scale_table,
}


def documents():
    """Every document of the repository, by what git tracks: list of Path."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split()]


def document_text(path):
    """A document with its generated parts as they should be."""

    def written(match):
        return f"<!-- {match[1]} -->\n{PARTS[match[1]]()}\n<!-- /{match[1]} -->"

    return re.sub(r"<!-- (\w+) -->\n.*?<!-- /\1 -->", written, path.read_text(), flags=re.S)


def main():
    """Rewrite, or with ``--check`` only compare: exit status."""
    os.environ["LTH_RUNS"] = os.devnull  # what is committed, not what this machine happens to have finished
    wanted = {path: notebook_text(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    wanted |= {path: document_text(path) for path in documents()}
    stale = [path for path, text in wanted.items() if path.read_text() != text]
    for path in stale:
        print(("out of step: " if "--check" in sys.argv else "rewritten: ") + str(path.relative_to(ROOT)))
        if "--check" not in sys.argv:
            path.write_text(wanted[path])
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
