"""The benchmark's options; what it measures is looked at where the documentation's line is run."""

import bench
import pytest


@pytest.mark.parametrize("option", ["--repeats=0", "--steps=-1", "--images=70000"])
def test_a_bad_value_is_refused_in_one_line(capsys, option):
    with pytest.raises(SystemExit) as ended:
        bench.main([option])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith(f"run_all.sh: {option.replace('=', ' ')}: must be ") and len(said.splitlines()) == 1
