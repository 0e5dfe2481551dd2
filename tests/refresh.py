"""Rewrite what is derived: badges and setup cells from pyproject's address, the README's table from the archive.

Run ``python tests/refresh.py`` after changing ``[project.urls]`` or after a run of the preset ``report``;
``--check`` only says what is out of step (exit status 1).
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def address():
    """The repository's address, from its one place."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"].removesuffix("/")


def badge(notebook):
    """Markdown of the badge that opens a notebook in Colab."""
    path = address().removeprefix("https://github.com/")
    target = f"https://colab.research.google.com/github/{path}/blob/main/notebooks/{notebook}.ipynb"
    return f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({target})"


def notebook_text(path):
    """A notebook's source with its badge and setup cell as they should be (edited as text: nothing else moves)."""
    text = re.sub(r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*\)", badge(path.stem), path.read_text())
    return re.sub(r"(git clone --quiet --depth=1 )\S+", rf"\g<1>{address()}", text)


def claims_table():
    """Markdown: a row per claim, from the finished levels of the preset ``report``."""
    from lthcore import experiments

    verdicts = experiments.verdicts(*experiments.every(preset="report"))
    lines = ["| claim of the report | notebook | figure | ours | verdict |", "|---|---|---|---|---|"]
    for _, rows in verdicts.groupby("claim", sort=False):
        first = rows.iloc[0]
        picture = f"figures/{first['figure']}.png"
        figure = f"[{first['figure'].split('_')[0]}]({picture})" if (ROOT / picture).exists() else "not drawn yet"
        ours = "" if not first["n"] else f"{first['measured']}: {first['ours']:.2f}"
        if first["n"] > 1:
            ours += f" [{first['low']:.2f}, {first['high']:.2f}], n = {first['n']}"
        name = first["notebook"]
        notebook = f"[{name}](notebooks/{name}.ipynb) {badge(name)}"
        lines.append(
            f"| {first['text']} (report: {first['report']}) | {notebook} | {figure} | {ours} | **{first['verdict']}** |"
        )
    return "\n".join(lines)


def readme_text():
    """The README with its table as it should be."""
    text = (ROOT / "README.md").read_text()
    return re.sub(
        r"(<!-- claims -->\n).*?(\n<!-- /claims -->)", lambda m: m[1] + claims_table() + m[2], text, flags=re.S
    )


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
