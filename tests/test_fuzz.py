"""Whatever is asked for is a valid run or one clear line: 600 random studies and command lines."""

import contextlib
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import NAMES, VALUES

from lthcore import cli
from lthcore.studies import experiments
from lthcore.studies.experiments import Study

SOME = st.sampled_from(["mlp", "lenet5", "pre_midsem", "task1", "task2", "task3"])


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    experiment=SOME | VALUES,
    preset=st.sampled_from(["quick", "report", "smoke"]) | VALUES,
    given_too=st.fixed_dictionaries(
        {},
        optional={
            "replicates": st.integers(-2, 4) | VALUES,
            "controls": st.booleans() | VALUES,
            "seed": st.integers() | VALUES,
            "device": st.sampled_from(["auto", "cpu"]) | VALUES,
            "model": st.sampled_from(["", "mlp"]) | VALUES,
            "overrides": st.none() | st.dictionaries(NAMES, VALUES, max_size=2) | VALUES,
        },
    ),
)
def test_whatever_a_notebook_asks_for_is_a_study_or_one_line(experiment, preset, given_too):
    try:
        study = experiments.study(experiment, preset, **given_too)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and str(error)
        return
    assert isinstance(study, Study)
    asked = given_too.get("replicates", 0)
    assert type(asked) is int and study.config.replicates == (asked or study.config.replicates)
    assert study.config.seed == given_too.get("seed", 0)
    for name, value in (given_too.get("overrides") or {}).items():
        assert getattr(study.config, name) == (tuple(value) if isinstance(value, list) else value)
    assert study.folder.name == experiments.store.file_name(study.folder.name)  # no path out of figures/


NUMBER = st.sampled_from(["-1", "0", "1", "3", "x", "", "1.5", "2e3", "9" * 30, "nan", "--"])
NAME = st.sampled_from(["lr", "epochs", "levels", "scope", "validation", "seed", "rounds", "", "__class__", "é", "a b"])
VALUE = st.sampled_from(
    ["0.01", "[0, 1]", "sgd", "global", "None", "{[]: 1}", "-" * 3000 + "1", "(" * 300, "[" * 300 + "]" * 300,
     "1" * 5000, "'\\x00'", "__import__('os').abort()", "lambda: 0", "1e999", "\n", "{0, 1}", "b''", "1j", "..."]
) | st.text(max_size=12)  # fmt: skip
OPTION = st.one_of(
    st.tuples(st.sampled_from(["--replicates", "--seed", "--workers"]), NUMBER),
    st.tuples(st.sampled_from(["--device", "--model", "--only"]), st.sampled_from(["cpu", "mlp", "task1", "x", ""])),
    st.builds(lambda name, value: ("--set", f"{name}={value}"), NAME, VALUE),
    st.just(("--no-controls",)),
    st.tuples(st.text(max_size=8)),
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(command=st.sampled_from(["smoke", "quick", "test", "lab"]), options=st.lists(OPTION, max_size=3))
def test_whatever_is_typed_is_a_dry_run_or_one_line(command, options):
    out, err = io.StringIO(), io.StringIO()
    arguments = [command, "--dry-run", *(word for option in options for word in option)]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = cli.main(arguments)
        except SystemExit as left:  # argparse's own
            if left.code == 0:  # --help
                return
            status = left.code
    assert status in (0, 1, 2)
    if status:
        assert err.getvalue().startswith("run_all.sh: ") and len(err.getvalue().splitlines()) == 1
        assert out.getvalue() == ""
    else:
        assert "would " in out.getvalue() and err.getvalue() == ""
