"""The benchmark runs and writes what it says; how fast the machine is, no test asks."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import bench
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_the_benchmark_measures_every_pair_and_writes_its_figure(tmp_path):
    command = [sys.executable, "tests/tools/bench.py", "--repeats", "2", "--steps", "2", "--images", "600"]
    done = subprocess.run([*command, "--out", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "speed.csv").open()))
    assert {row["part"] for row in rows} >= {"mlp", "lenet5", "epochs"}
    assert all(row["n"] == "2" for row in rows)
    assert all(0 < float(row["least"]) <= float(row["median"]) <= float(row["greatest"]) for row in rows)
    for model in ("mlp", "lenet5"):
        named = {row["what"] for row in rows if row["part"] == model}
        assert named >= {"ours", "products alone", "eager torch", "ours, dense / ours", "eager torch / ours"}
    facts = json.loads((tmp_path / "speed.json").read_text())
    assert {"processor", "cores", "torch", "numba", "python", "code", "repeats"} <= set(facts)
    assert (tmp_path / "speed.png").stat().st_size > 10_000 and (tmp_path / "speed.svg").exists()


@pytest.mark.parametrize("option", ["--repeats=0", "--steps=-1", "--images=70000"])
def test_a_bad_value_is_refused_in_one_line(option, capsys):
    with pytest.raises(SystemExit) as caught:
        bench.main([option])
    (line,) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith(f"run_all.sh: {option.replace('=', ' ')}: must be ")
