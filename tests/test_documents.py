"""The documents as texts: links, tables, generated parts, the list of metrics, numbers that stand in prose."""

import json
import math
import os
import pkgutil
import re
import subprocess
import zipfile
from pathlib import Path

import pandas as pd
import pytest
import refresh

from lthcore.config import EXPERIMENTS, Config, configure
from lthcore.results import rules
from lthcore.runs import presets
from lthcore.studies import REGISTRY, claims

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = refresh.documents()
NEVER = ("foretold", "starvation", "straight way", "told apart", "told from", "way behind", "had better", "rooms")


def name_of(path):
    return str(path.relative_to(ROOT))


def prose(path):
    """A document's text without its code blocks: str."""
    return re.sub(r"^```.*?^```", "", path.read_text(), flags=re.S | re.M)


def anchors(path):
    """The names by which GitHub links to a document's headings: set of str."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables(path):
    """A document's tables: list of list of str, a line each."""
    return [block.strip().splitlines() for block in re.findall(r"(?:^\|.*\n)+", prose(path), re.M)]


each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


@each_document
def test_every_link_leads_somewhere(path):
    text = prose(path)
    links = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r"^\[[^\]]+\]: (\S+)$", text, re.M)
    for link in links:
        if not re.match(r"https?://", link):
            where, _, anchor = link.partition("#")
            target = (path.parent / where).resolve() if where else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link
    defined = re.findall(r"^\[([^\]]+)\]:", text, re.M)
    used = re.findall(r"\]\[([^\]]+)\]", text)
    assert set(used) <= set(defined), "a reference that is nowhere defined"


@each_document
def test_tables_are_tables(path):
    """As many cells in every row as in the first, no row too long to read in an editor, and a line before each."""
    for head, rule, *rows in tables(path):
        assert re.fullmatch(r"\|(-+\|)+", rule)
        assert {line.count("|") - line.count("\\|") for line in (head, rule, *rows)} == {head.count("|")}, head
        assert max(map(len, (head, *rows))) <= 160, max((head, *rows), key=len)
    assert not re.search(r"^(?!\||<!--)\S.*\n\|", prose(path), re.M), "a table needs an empty line before it"


@each_document
def test_blocks_and_generated_parts_are_closed(path):
    text = path.read_text()
    assert text.count("\n```") % 2 == 0
    opened = re.findall(r"^<!-- (\w+) -->$", text, re.M)
    assert opened == re.findall(r"^<!-- /(\w+) -->$", text, re.M) and set(opened) <= set(refresh.PARTS)


def test_every_generated_part_stands_somewhere():
    text = "".join(path.read_text() for path in DOCUMENTS)
    assert not [name for name in refresh.PARTS if f"<!-- {name} -->" not in text]


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_bytes()) <= 12_000


@pytest.mark.parametrize("path", [p for p in DOCUMENTS if p.name != "ERRATA.md"], ids=name_of)
def test_no_document_has_a_private_word(path):
    text = re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", "", prose(path), flags=re.S)
    text = re.sub(r"`[^`]*`", "", text)
    assert not [word for word in NEVER if word in text]
    assert not re.search(r"\d %", text), "50%, without a space"


def test_every_package_has_its_reason():
    text = (ROOT / "lthcore/README.md").read_text()
    needed = re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.M)
    assert not [name for name in needed if f"`{name}`" not in text]


def test_what_is_named_is_there():
    """Files by their paths, and what the package's modules hold, wherever they stand between backticks."""
    folders = {path.parent.name: path for path in ROOT.glob("lthcore/*/__init__.py")}
    modules = folders | {path.stem: path for path in (ROOT / "lthcore").rglob("*.py")}
    for path in DOCUMENTS:
        for text in re.findall(r"`([^`\n]+)`", prose(path)):
            if re.fullmatch(r"[\w/]+\.(py|md|csv|sh)", text):
                assert any((place / text).exists() for place in (ROOT, ROOT / "lthcore", path.parent)), text
            name = re.match(r"(?:lthcore\.|results\.|studies\.|runs\.)*(\w+)\.([A-Za-z_]\w*)", text)
            if name and name[1] in modules and name[2] not in ("py", "csv"):
                assert re.search(rf"\b{name[2]}\b", modules[name[1]].read_text()), text


# ----------------------------------------------------------------------------------------------------------- metrics


def metrics():
    """The list in the document: pattern of a metric's name -> (splits, low, high)."""
    section = (ROOT / "lthcore/README.md").read_text().partition("## Metrics\n")[2].partition("\n## ")[0]
    found = {}
    for line in re.findall(r"^\| `.*$", section, re.M):
        name, split, _, bounds, _ = (cell.strip() for cell in line.strip("|").split("|"))
        low, _, high = bounds.partition(" to ")
        pattern = re.sub(r"<\w+>", r"[\\w.]+", name.strip("`"))
        found[pattern] = set(split.split(", ")), float(low), float(high or low)
    return found


@pytest.mark.parametrize("experiment", sorted(p.name for p in (ROOT / "figures/archive").iterdir()))
def test_every_metric_of_the_archive_is_defined(experiment):
    """Each in exactly one line of the list, in its splits and its range."""
    first = min((ROOT / f"figures/archive/{experiment}").glob("r?.zip"))
    with zipfile.ZipFile(first) as pack, pack.open("rows.csv") as file:
        rows = pd.read_csv(file)
    for (name, split), values in rows.groupby(["metric", "split"])["value"]:
        ((splits, low, high),) = [facts for pattern, facts in metrics().items() if re.fullmatch(pattern, name)]
        assert split in splits, name
        assert low - 1e-9 <= values.min() and values.max() <= (high if high < math.inf else math.inf), name


@pytest.mark.slow
def test_every_defined_metric_is_in_the_archive():
    seen = set()
    for pack in (ROOT / "figures/archive").glob("*/r0.zip"):
        with zipfile.ZipFile(pack) as archive, archive.open("rows.csv") as file:
            seen |= set(pd.read_csv(file)["metric"])
    missing = [pattern for pattern in metrics() if not any(re.fullmatch(pattern, name) for name in seen)]
    assert missing == []


# ------------------------------------------------------------------------------------------------- numbers in prose


def constant(name):
    """A number of the package's, by the name that it is given in one of its modules: float."""
    sources = "\n".join(path.read_text() for path in (ROOT / "lthcore").rglob("*.py"))
    (value,) = set(re.findall(rf"^ *{name} = ([\d.e]+)", sources, re.M))
    return float(value)


def test_numbers_in_prose_are_the_codes():
    names = ("README.md", "figures/README.md", "notebooks/README.md", "lthcore/runs/CLUSTER.md")
    first, results, notebooks, cluster = ((ROOT / name).read_text() for name in names)
    assert f"committed ({rules.COMMIT})" in first and rules.DECIDING == 5 and "the five *confirmatory*" in first
    assert f"preset `quick`, {configure('mlp', 'quick').replicates} replicates" in first
    assert f"more than {configure('mlp', 'report').tolerance} pp below dense" in results
    quick = {name: configure(name, "quick").replicates for name in EXPERIMENTS if not name.startswith(("conv", "fash"))}
    assert quick.pop("lenet5_relu") == 1
    once = {REGISTRY[name].notebook[:2] for name, n in quick.items() if n == 1}
    assert once == {f"{k:02}" for k in range(6, 13)} and set(quick.values()) == {1, 3}
    assert not once & {REGISTRY[name].notebook[:2] for name, n in quick.items() if n == 3}
    assert "06 to 12 and `lenet5_relu` train one replicate, the others three" in notebooks
    assert f"needs {constant('MEMORY') / 1e9:g} GB" in cluster
    assert f"more than {100 * constant('ROW_DENSITY'):.0f}% of the MLP's first layer" in results
    assert f"waited for, {constant('LATE'):.0f} s at most" in cluster


def test_minutes_in_prose_add_up_to_the_measured_run():
    """Of one replicate of each experiment: together the run that was timed; of all replicates: as many times that."""
    text = (ROOT / "figures/README.md").read_text().replace("\n", " ")
    one, replicates, every = (
        [int(n) for n in re.findall(r"\d+", re.search(pattern, text)[1])]
        for pattern in (
            r"took about ([\d, and]+) minutes",
            r"their ([\d, and]+) replicates",
            r"take about ([\d, and]+) min",
        )
    )
    times = pd.read_csv(ROOT / "figures/times.csv").set_index("command")["seconds"]
    assert abs(sum(one) - times["./run_all.sh report --replicates 1"] / 60) < 0.5 * len(one)
    assert [round(m / n) for m, n in zip(every, replicates, strict=True)] == one


def test_the_citation_is_the_projects():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "CITATION.cff").read_text()
    assert f"version: {project['version']}\n" in text
    assert f"repository-code: {refresh.address()}\n" in text
    assert project["description"] in text


def test_what_is_said_of_ones_own_study_is_what_the_code_does():
    text = (ROOT / "lthcore/README.md").read_text()
    assert f"with at least {claims.REPORT_REPLICATES} replicates (the default" in text
    assert presets.PRESETS["report"]["replicates"] == claims.REPORT_REPLICATES
    assert f"all {Config.rounds} rounds are run" in text
    chain = re.search(r"`experiments\.run` calls.*`store\.save_level`", text, re.S).group()
    places = {
        "experiments": "lthcore.studies",
        "sweep": "lthcore.runs",
        "worker": "lthcore.runs",
        "store": "lthcore.runs",
    }
    for module, name in re.findall(r"`(\w+)\.(\w+)`", chain):
        assert callable(pkgutil.resolve_name(f"{places.get(module, 'lthcore')}.{module}:{name}"))


@pytest.mark.parametrize(
    ("what", "side", "unit", "text"),
    [
        ("ticket, level 12", "< 80", "test accuracy (%)", "ticket < 80%"),
        ("by Adam: SGD's mask - own, level 4", "> -0.5 and < 0.5", "difference in accuracy (pp)",
         "Adam: SGD's mask - own within ±0.5 pp"),
        ("early: training saved, in percent, level 1", "> 0", "percent", "early: training saved, in percent > 0"),
        ("ticket / dense, level 5 (steps to 97%)", "< 1", "ratio of training steps", "steps: ticket / dense < 1"),
        ("dense, at the last step", "> 97.8 and < 98.2", "", "dense, at the last step > 97.8 and < 98.2"),
        ("networks at exactly 1028/4861", "> 0", "", "count > 0"),
    ],
)  # fmt: skip
def test_a_bound_has_its_unit_and_no_level(what, side, unit, text):
    assert refresh.holds_if({"claim": "other", "measured": what, "side": side, "unit": unit}) == text


@pytest.mark.slow
def test_sentences_written_for_verdicts_are_refused_where_these_change(monkeypatch):
    assert refresh.short_text().startswith("**In short** ")
    rows = [(first | {"verdict": "unresolved"} if first["claim"] == "task1" else first, row)
            for first, row in ((f.to_dict(), r) for f, r in refresh.report_rows())]  # fmt: skip
    monkeypatch.setattr(refresh, "report_rows", lambda: rows)
    with pytest.raises(SystemExit, match=r"verdicts have changed, write it anew: task1$"):
        refresh.short_text()


@pytest.mark.parametrize(("tickets", "text"), [(0, ", no ticket among them"), (1, ", 1 ticket among them")])
def test_a_count_says_how_many_of_its_networks_are_tickets(monkeypatch, tickets, text):
    rows = pd.DataFrame(
        {
            "claim": ["other", *["counted"] * 3],
            "measured": ["ticket, level 1", "networks", "of these: random_mask", "of these: t1_on_s2"],
            "ours": [1.0, 12.0 + tickets, 12.0, tickets],
        }
    )
    monkeypatch.setattr(refresh, "committed_verdicts", lambda extended: rows)
    assert (refresh.tickets_counted("counted"), refresh.tickets_counted("other")) == (text, "")


def test_a_claim_in_plain_words_fits_its_line_of_the_forest_plot():
    """Which cuts a name after 58 characters."""
    assert not [name for name in claims.NAMES.values() if len(name) > 58]


def test_every_link_of_an_executed_notebook_leads_to_a_committed_file():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    known, missing = set(listed.splitlines()), []
    for path in sorted((ROOT / "figures/executed").glob("*.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            texts = [] if cell["cell_type"] == "code" else ["".join(cell["source"])]
            texts += ["".join(output.get("data", {}).get("text/html", "")) for output in cell.get("outputs", ())]
            found = [link for text in texts for link in re.findall(r'\]\(([^)\s]+)\)|href="([^"]+)"', text)]
            for link in {"".join(pair).partition("#")[0] for pair in found}:
                if link and not re.match(r"[a-z]+:", link):
                    there = os.path.normpath(os.path.join("figures/executed", link))
                    missing += [] if there in known else [(path.name, link)]
    assert not missing
