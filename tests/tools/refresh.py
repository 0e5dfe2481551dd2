"""Rewrite what is derived: badges and setup cells from pyproject's address, the README's tables from what was measured.

Run ``python tests/tools/refresh.py`` after changing ``[project.urls]`` or after a run of the preset ``report``;
``--check`` only says what is out of step (exit status 1).
"""

import csv
import json
import os
import re
import sys
import textwrap
import tomllib
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lthcore.explore.notebooks import KERNEL, LANGUAGE  # noqa: E402

FIGURES = ROOT / "figures"


def address():
    """The repository's address, from its one place."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"].removesuffix("/")


def badge(notebook):
    """Markdown of the badge that opens a notebook in Colab."""
    path = address().removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{notebook}.ipynb"
    return f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({target})"


SETUP = """# Finds the study: the checkout that this notebook lies in. Colab clones it, and installs what Colab lacks.
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
    notebook["metadata"] |= {"kernelspec": KERNEL, "language_info": LANGUAGE}
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def notebooks_table():
    """Markdown: a row per notebook, with the question that is its title."""
    lines = ["| notebook | its question | |", "|---|---|---|"]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        title = json.loads(path.read_text())["cells"][0]["source"][0].strip("# \n")
        lines.append(f"| [{path.stem}](notebooks/{path.name}) | {title} | {badge(path.stem)} |")
    return "\n".join(lines)


@lru_cache
def committed_verdicts(wide):
    """Verdicts on the report's claims, or on what goes beyond it, from the levels of the preset ``report``."""
    from lthcore.studies import experiments

    os.environ["LTH_RUNS"] = os.devnull  # what is committed, not what this machine happens to have finished
    every = experiments.every(wide=True, preset="report")
    return experiments.verdicts(*(s for s in every if (s.experiment.group != "report") == wide))


@lru_cache
def finished(name):
    """What is committed of an experiment at the preset ``report``: tidy rows."""
    from lthcore.studies import experiments

    return experiments.finished(experiments.study(name, "report"))


def accuracy(name, arm, level):
    """Test accuracy over the last fifth of training in all committed replicates, in words."""
    from lthcore.results import rules, statistics

    n, mean, low, high = statistics.interval(rules.last_fifth(finished(name))[arm, level])
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]%" if high - low > 1e-6 else f"{mean:.4f}% in all {n}"


def of_whom(name):
    """How many replicates a number is of, and of which kind, in words."""
    from lthcore.results import rules

    there = set(finished(name)["replicate"])
    explored = {r for rule in rules.REPORT if rule.experiment == name for r in rule.exploratory}
    kinds = [kind for kind, some in (("exploratory", there & explored), ("confirmatory", there - explored)) if some]
    return f"n = {len(there)}, {' and '.join(kinds)} replicates"


def kept(name, arm, level):
    """A density in words."""
    from lthcore.results import statistics

    return f"{100 * statistics.density_at(finished(name), arm, level):.2g}% kept"


def cliff_text():
    """Where the MLP's accuracy falls, and what falls there."""
    from lthcore.results import rules, statistics

    frame = finished("mlp")
    means = rules.last_fifth(frame)["ticket"].groupby("level").mean()
    first = means.index[means < 80][0]
    dead = statistics.deaths(frame, "ticket")["an output"]

    def at(arm, level):
        return f"{accuracy('mlp', arm, level)} at {kept('mlp', arm, level)}"

    sentences = (
        f"**Where the report's cliff is.** Beyond 95% pruned the MLP does not fall at once: it has {at('ticket', 9)}.",
        f"Its mean first falls below 80% at level {first}: {at('ticket', first)} ({of_whom('mlp')}).",
        f"What falls there is the output layer: from level {dead} on",
        "an output has lost its last path in some replicate.",
        "With the output layer spared, at the same total, the network has",
        f"{at('ticket_spared', 11)}, and {at('ticket_spared', 15)}.",
    )
    return textwrap.fill(" ".join(sentences), 120, break_on_hyphens=False)


def sevens_text():
    """What the number 21.1479 is: how many networks have it, and what is left with the output layer spared."""
    from lthcore.results import rules, statistics
    from lthcore.studies import claims

    frame, of = finished("task2"), of_whom("task2")
    dead = statistics.dead_labels(frame, "t1_on_s2", range(5, 10))
    first, as_pruned, spared = dead["level"].min(), rules.L["task2"], rules.L["task2 ticket"]
    there = dead[dead["level"] == as_pruned]
    same = "all" if dead["one_class"].all() else dead["one_class"].sum()
    arms = {"T1 on S2": "t1_on_s2", "S2's own ticket": "t2_on_s2", "T1's mask re-initialised": "random_reinit"}
    arms["a random mask"] = "random_mask"
    learned = "; ".join(f"{words} {accuracy('task2', f'{arm}_spared', spared)}" for words, arm in arms.items())
    found = rules.at_one_class(frame)
    active = found[found["instance"]]
    whose = ", ".join(f"{len(rows)} of the arm `{arm}`" for arm, rows in active.groupby("arm"))
    table = committed_verdicts(wide=False)
    verdict = table.drop_duplicates("claim").set_index("claim")["verdict"]
    below, share = (
        next(row for _, row in table.iterrows() if row["claim"] == "task2-ticket" and row["measured"].startswith(words))
        for words in ("T1 on S2 - T2", "share")
    )
    sentences = (
        f"In the preset `report` ({of}) none of the outputs 5-9 is alive in {len(dead)} (level, replicate) pairs,",
        f"from level {first} ({kept('task2', 't1_on_s2', first)}) on;",
        f"{same} of these networks answer one class and nothing else, at exactly its share.",
        f"At level {as_pruned} ({kept('task2', 't1_on_s2', as_pruned)}), to which the ticket stands on its own labels,",
        f"that is so in {len(there)} of {frame['replicate'].nunique()} replicates,",
        f"while S2's own ticket has {accuracy('task2', 't2_on_s2', as_pruned)}.",
        f"With the output layer spared it stands to level {spared} ({kept('task2', 't1_on_s2_spared', spared)}),",
        f"and the new labels are learned: {learned}.",
        f"There T1 on S2 less S2's own ticket is {claims.number(below, 'pooled')} points",
        f"(confirmatory: {claims.number(below) or 'none yet'}), and T1 carries over {claims.number(share, 'pooled')}",
        "of what S2's own ticket gains over a random mask.",
        f'That T1 fails on S2: "{verdict["task2-as-pruned"]}" as the report pruned, which says nothing of the ticket;',
        f'"{verdict["task2-ticket"]}" with the output layer spared, by about a point instead of 77.',
        'That the pruned model is "not able to learn the features" is judged by counting:',
        f'"{verdict["task2-cause"]}". Of the {len(found)} networks at exactly 21.1479%, {len(active)} have an active',
        f"output among 5-9 ({whose}); the other {len(found) - len(active)} have none,",
        "and could not learn whatever their mask.",
    )
    return textwrap.fill(" ".join(sentences), 120, break_on_hyphens=False)


def report_table():
    """Markdown: a row per claim of the report, with the measure that its verdict rests on; the long form is in 00."""
    from lthcore.studies import claims

    lines = ["| claim | the report's words | holds if | n | confirmatory | exploratory | verdict |", "|---" * 7 + "|"]
    for _, rows in committed_verdicts(wide=False).groupby("claim", sort=False):
        row, first = claims.decisive(rows), rows.iloc[0]
        what, _, quantity = row["measured"].partition(" (")
        side = row["side"].replace("> -0.5 and < 0.5", "within 0.5")
        holds_if = f"{'steps: ' if quantity.startswith('steps') else ''}{what} {side}"
        if row["measured"].startswith("networks"):
            holds_if = "any has an active output 5-9"
        cells = [first["claim"], f'"{claims.WORDS[first["claim"]]}"', holds_if, f"{row['n'] or ''}"]
        cells += [claims.number(row), claims.number(row, "exploratory"), first["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def published_table():
    """Markdown: a row per claim that others have published."""
    from lthcore.studies import claims

    lines = ["| what is published | notebook | figure | ours | verdict |", "|---|---|---|---|---|"]
    for _, rows in committed_verdicts(wide=True).groupby("claim", sort=False):
        first = rows.iloc[0]
        picture = f"figures/{first['figure']}.png"
        figure = f"[{first['figure'].split('_')[0]}]({picture})" if (ROOT / picture).exists() else "not drawn yet"
        verdict, first = first["verdict"], claims.decisive(rows)
        ours = "" if not first["n"] else f"{first['measured']}: {first['ours']:.2f}"
        if first["n"] > 1:
            ours += f" [{first['low']:.2f}, {first['high']:.2f}], n = {first['n']}"
        notebook = f"[{first['notebook'][:2]}](notebooks/{first['notebook']}.ipynb)"
        claim = f"{first['text']} (published: {first['report']})"
        lines.append(f"| {claim} | {notebook} | {figure} | {ours} | **{verdict}** |")
    return "\n".join(lines)


def speed_table():
    """Markdown: what the benchmark measured last, from ``figures/speed.csv``."""
    rows = {
        tuple(row[k] for k in ("part", "what", "at")): row for row in csv.DictReader((FIGURES / "speed.csv").open())
    }
    facts = json.loads((FIGURES / "speed.json").read_text())

    def number(*key, unit=""):
        row = rows[key]
        return f"{row['median']}{unit} [{row['least']}, {row['greatest']}]"

    lines = ["| one step at batch 60, one thread | MLP | LeNet-5 |", "|---|---|---|"]
    models = ("mlp", "lenet5")
    plain = {"eager torch, masked gradients": "eager torch", "the dense matrix products alone": "products alone"}
    for words, what in plain.items():
        lines.append(f"| {words} | " + " | ".join(number(m, what, "", unit=" ms") for m in models) + " |")
    channels = number("lenet5", "eager torch, channels_last", "", unit=" ms")
    lines.insert(3, f"| the same in the memory format `channels_last` | | {channels} |")
    for at in ("1.0", "0.2", "0.05", "0.01"):
        cells = [number(m, "ours", at, unit=" ms") for m in models]
        if at != "1.0":
            ratios = [number(m, "ours, dense / ours", at) for m in models]
            cells = [f"{cell}: {ratio} times faster than dense" for cell, ratio in zip(cells, ratios, strict=True)]
        lines.append(f"| ours, {100 * float(at):g} % kept | {' | '.join(cells)} |")
    lines += ["", "| epochs of the MLP, each with its test | a second | times the usual loop |", "|---|---|---|"]
    usual = "the usual loop, two threads"
    lines.append(f"| {usual} (dataset, DataLoader, Adam, masked gradients) | {number('epochs', usual, '')} | 1 |")
    for (part, what, at), _ in rows.items():
        if part == "epochs" and what.startswith("ours") and not what.endswith("loop"):
            times = number("epochs", f"{what} / {usual.split(',')[0]}", at)
            lines.append(f"| {what}, processes: {at} | {number(part, what, at)} | {times} |")
    machine = f"{facts['processor']}, {facts['cores']} cores, {facts['system']}"
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", "torch", "numba", "numpy"))
    return "\n".join([*lines, "", f"Median [least, greatest] of {facts['repeats']} repeats; {machine}; {versions}."])


def scale_table():
    """Markdown: what a level costs beside its training, and what that makes of many, from ``figures/scale.csv``."""
    from lthcore.runs import sweep

    rows = list(csv.DictReader((FIGURES / "scale.csv").open()))
    facts = json.loads((FIGURES / "scale.json").read_text())
    sizes = sorted({int(row["levels"]) for row in rows})
    level, per_unit = facts["level"], facts["levels_per_unit"]
    cells = {(row["part"], int(row["levels"])): row for row in rows}
    head = [f"µs a level, at {size:,} levels" for size in sizes] + [f"10^{n} units" for n in (3, 4, 5, 6)]
    lines = [f"| | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for part in dict.fromkeys(row["part"] for row in rows):
        found = [cells[part, size] for size in sizes]
        words = [f"{row['median']} [{row['least']}, {row['greatest']}]" for row in found]
        words += [sweep.duration(float(found[-1]["median"]) / 1e6 * per_unit * 10**n) for n in (3, 4, 5, 6)]
        lines.append(f"| {part} | {' | '.join(words)} |")
    for name, each, unit in (("files", level["files"], ""), ("bytes on disk", level["disk"] / 1e9, " GB")):
        words = [f"{each * per_unit * 10**n:,.3g}{unit}" for n in (3, 4, 5, 6)]
        lines.append(f"| {name} |{' |' * len(sizes)} {' | '.join(words)} |")
    machine = f"{facts['processor']}, {facts['cores']} cores, {facts['system']}"
    versions = f"python {facts['python']}, distributed {facts['distributed']}"
    words = f"Median [least, greatest] of {facts['repeats']} repeats, of the processor's time; {machine}; {versions}. "
    words += f"Units are projections from the larger number, {per_unit:.3g} levels each, as in the report's MLP. "
    fed = 60 / (float(cells["queue, Dask", sizes[-1]]["median"]) / 1e6)
    words += f"While a level takes a minute, one driver and its scheduler on one core feed {fed:,.0f} workers. "
    words += f"A level opens {level['opened']} files of the store, renames {level['renamed']}, removes its lock, and "
    words += f"leaves {level['files']} files of {level['bytes']:,} bytes in a folder of its own."
    return "\n".join([*lines, "", words])


def readme_text():
    """The README with its tables as they should be."""
    text = (ROOT / "README.md").read_text()
    tables = {"notebooks": notebooks_table(), "speed": speed_table(), "scale": scale_table()}
    tables |= {"claims": report_table(), "published": published_table()}
    tables |= {"cliff": cliff_text(), "sevens": sevens_text()}
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"
    return text


def main():
    """Rewrite, or with ``--check`` only compare: exit status."""
    wanted = {path: notebook_text(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    wanted[ROOT / "README.md"] = readme_text()
    stale = [path for path, text in wanted.items() if path.read_text() != text]
    for path in stale:
        print(("out of step: " if "--check" in sys.argv else "rewritten: ") + str(path.relative_to(ROOT)))
        if "--check" not in sys.argv:
            path.write_text(wanted[path])
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
