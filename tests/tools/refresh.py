"""Rewrite what is derived: badges and setup cells from pyproject's address, the README's tables from what was measured.

Run ``python tests/tools/refresh.py`` after changing ``[project.urls]`` or after a run of the preset ``report``;
``--check`` only says what is out of step (exit status 1).
"""

import csv
import json
import os
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from lthcore.notebooks import KERNEL, LANGUAGE  # noqa: E402

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
found = [str(p) for p in (here, *here.parents, colab) if (p / "lthcore/notebooks.py").is_file()]
sys.path[:0] = found[:1]

from lthcore import notebooks

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


def claims_table(wide):
    """Markdown: a row per claim, of the report or of what goes beyond it, from the levels of the preset ``report``."""
    from lthcore import config, experiments

    os.environ["LTH_RUNS"] = os.devnull  # what is committed, not what this machine happens to have finished
    every = experiments.every(wide=True, preset="report")
    verdicts = experiments.verdicts(*(s for s in every if (s.config.experiment in config.WIDE) == wide))
    who = "published" if wide else "report"
    lines = [f"| {'what is published' if wide else 'claim of the report'} | notebook | figure | ours | verdict |"]
    lines.append("|---|---|---|---|---|")
    for _, rows in verdicts.groupby("claim", sort=False):
        first = rows.iloc[0]
        picture = f"figures/{first['figure']}.png"
        figure = f"[{first['figure'].split('_')[0]}]({picture})" if (ROOT / picture).exists() else "not drawn yet"
        decisive = rows[rows["alone"] == first["verdict"]]  # the measure that the verdict rests on
        verdict, first = first["verdict"], (decisive if len(decisive) else rows).iloc[0]
        ours = "" if not first["n"] else f"{first['measured']}: {first['ours']:.2f}"
        if first["n"] > 1:
            ours += f" [{first['low']:.2f}, {first['high']:.2f}], n = {first['n']}"
        notebook = f"[{first['notebook'][:2]}](notebooks/{first['notebook']}.ipynb)"
        lines.append(f"| {first['text']} ({who}: {first['report']}) | {notebook} | {figure} | {ours} | **{verdict}** |")
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
    from lthcore import sweep

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
    tables |= {"claims": claims_table(wide=False), "published": claims_table(wide=True)}
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
