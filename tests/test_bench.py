"""The benchmarks' options; what the first measures is looked at where the documentation's line is run."""

import csv
import json

import bench
import growth
import pytest


@pytest.mark.parametrize(
    ("tool", "option"),
    [
        (bench, "--repeats=0"),
        (bench, "--steps=-1"),
        (bench, "--images=70000"),
        (growth, "--repeats=-2"),
        (growth, "--steps=0"),
    ],
)
def test_a_bad_value_is_refused_in_one_line(capsys, tool, option):
    with pytest.raises(SystemExit) as ended:
        tool.main([option])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"run_all.sh: {option.replace('=', ' ')}: must be ") and len(said.splitlines()) == 1


@pytest.mark.slow
def test_how_the_cost_grows_is_measured_drawn_and_written(monkeypatch, tmp_path):
    monkeypatch.setattr(growth, "PROCESSES", (1,))
    monkeypatch.setattr(growth, "WIDTHS", growth.WIDTHS[:2])
    monkeypatch.setattr(growth, "SECONDS", 0.5)
    monkeypatch.setattr(growth, "LOADING", 5.0)
    assert growth.main(["--repeats", "1", "--steps", "1", "--out", str(tmp_path)]) is None
    rows = list(csv.DictReader((tmp_path / "growth.csv").open()))
    assert {row["part"] for row in rows} == {"kept weights", "batch", "width", "processes"}
    assert all(float(row["median"]) > 0 for row in rows) and len(rows) == 2 * 7 + 2 * 6 + 2 * 2 + 2
    assert json.loads((tmp_path / "growth.json").read_text())["repeats"] == 1
    assert (tmp_path / "growth.png").stat().st_size > 10_000 and (tmp_path / "growth.svg").exists()


def test_the_operations_of_a_dense_step_are_those_of_its_products():
    """By hand for the MLP: forward and to the weights three times, to the inputs twice."""
    forward = 784 * 300 + 300 * 100 + 100 * 10
    assert bench.operations("mlp") == 2 * bench.BATCH * (2 * forward + 300 * 100 + 100 * 10)
