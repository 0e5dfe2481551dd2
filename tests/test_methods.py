"""Criteria and rewind rules say what they need; those of a user work to the end, in every process."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
import torch
from alone import find_ticket

from lthcore import lottery, methods, pruning
from lthcore.config import configure
from lthcore.data import Split, whole
from lthcore.models import build, initial
from lthcore.probes import trained_on
from lthcore.runs import sending, store, sweep
from lthcore.schedule import ARCHITECTURES
from lthcore.studies import experiments
from lthcore.unit import Unit

ROOT = Path(__file__).resolve().parents[1]
CONVOLUTIONS = [model for model, known in ARCHITECTURES.items() if any(len(s) == 4 for s in known.weights.values())]


@pytest.fixture(autouse=True)
def registries():
    """What a test adds is taken out again."""
    before = {setting: dict(records) for setting, (records, _) in methods.SETTINGS.items()}
    yield
    for setting, (records, _) in methods.SETTINGS.items():
        records.clear()
        records.update(before[setting])


def refusal(call, *arguments, **options):
    with pytest.raises(ValueError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert len(text.splitlines()) == 1, text
    return text


def load(subset="full"):
    (images, labels), (test, test_labels) = whole()["train"], whole()["test"]
    held = slice(240, 300)
    return Split((images[:240], labels[:240]), (images[held], labels[held]), (test[:100], test_labels[:100]))


def tiny(model="mlp", **options):
    return configure(model, "smoke", **{"max_steps": 6, "batch_size": 40, "levels": (0, 1, 2), **options})


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


# -------------------------------------------------------------------------------------------------- the records


def test_the_built_in_records_are_those_that_there_were():
    assert list(methods.CRITERIA) == ["magnitude", "random", "obd", "initial_magnitude", "snip", "synflow"]
    assert list(methods.REWINDS) == ["reset", "final", "keep_biases"]
    for setting, (records, kind) in methods.SETTINGS.items():
        for name in records:
            record = methods.find(setting, name)
            assert isinstance(record, kind) and callable(methods.function(record[0]))
    assert sending.added() == {}


def test_settings_are_checked_and_levels_planned_without_torch():
    code = (
        "import sys; from lthcore.config import configure; from lthcore.unit import Unit; "
        "u = Unit(configure('mlp', rewind='final', criterion='obd'), 'x', 0); "
        "print(u.continues, len(u.key) > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["True", "True", "False"]


@pytest.mark.parametrize("value", ["nothing", "a b", "", "Magnitude", "a\nb", 1, None, [], {"a": 1}, ("obd",)])
@pytest.mark.parametrize("setting", methods.SETTINGS)
def test_a_name_that_there_is_not_is_refused_with_those_there_are(setting, value):
    names = ", ".join(map(repr, methods.SETTINGS[setting][0]))
    for call in (
        lambda: configure("mlp", **{setting: value}),
        lambda: experiments.study("mlp", overrides={setting: value}),
    ):
        near = "; did you mean 'magnitude'?" if (setting, value) == ("criterion", "Magnitude") else ""
        assert refusal(call) == f"{setting} = {value!r}: must be one of {names}{near}"


@pytest.mark.parametrize("model", CONVOLUTIONS)
def test_obd_is_refused_for_every_network_with_convolutions(model):
    experiment = "lenet5" if model == "lenet5" else model
    text = refusal(configure, experiment, criterion="obd")
    assert text == f"criterion = 'obd': needs a network of fully connected layers, model = 'mlp', not {model!r}"


@pytest.mark.parametrize(
    ("experiment", "settings"),
    [
        ("lenet5", {}), ("task1", {"model": "lenet5"}), ("task3", {"model": "lenet5"}), ("fashion_conv2", {}),
        ("conv4", {}), ("lenet5", {"structure": "filters"}),
    ],
)  # fmt: skip
def test_what_a_criterion_cannot_score_is_refused_when_the_study_is_made(experiment, settings, monkeypatch):
    monkeypatch.setattr(sweep, "run", lambda *_: pytest.fail("something is trained"))
    overrides = {"criterion": "obd", **{k: v for k, v in settings.items() if k != "model"}}
    text = refusal(experiments.study, experiment, "smoke", model=settings.get("model", ""), overrides=overrides)
    assert text.startswith("criterion = 'obd': needs a network of fully connected layers")


def test_a_criterion_of_ones_own_says_what_it_supports():
    def whole_filters(config):
        return "" if config.structure == "filters" else "needs structure = 'filters'"

    methods.CRITERIA["mine"] = methods.Criterion(pruning.magnitudes, supports=whole_filters)
    assert refusal(configure, "lenet5", criterion="mine") == "criterion = 'mine': needs structure = 'filters'"
    assert configure("lenet5", criterion="mine", structure="filters").criterion == "mine"


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda w: {"fc1": w["fc1.weight"].sum(0)}, "its scores of fc1 are (784,), must be (300, 784)"),
        (lambda w: {"fc1": w["fc1.weight"]}, "its scores of fc2 are of type NoneType, must be (100, 300)"),
        (lambda w: {"fc1": w["fc1.weight"].numpy()}, "its scores of fc1 are of type ndarray, must be (300, 784)"),
        (lambda w: 3, "its scores of fc1 are of type int, must be (300, 784)"),
    ],
)
def test_scores_of_another_shape_are_said_with_the_criterions_name(scores, message):
    methods.CRITERIA["mine"] = lambda weights, mask, unit, data: scores(weights)
    chain = Unit(tiny(criterion="mine"), "x", 0)
    assert refusal(list, find_ticket(chain, load)) == f"criterion = 'mine': {message}"


@pytest.mark.parametrize(
    "start",
    [
        lambda values: ({}, 0), lambda values: None, lambda values: values, lambda values: (list(values), 0),
        lambda values: ({name: v[:-1] for name, v in values.items()}, 0),
        lambda values: (values | {"fc1.bias": 0.0}, 0),
    ],
    ids=["nothing", "None", "no step", "a list", "other shapes", "a number"],
)  # fmt: skip
def test_what_a_rule_gives_that_is_no_start_is_said_with_its_name(start):
    methods.REWINDS["mine"] = lambda unit, level, before, load: start(before)
    text = refusal(list, find_ticket(Unit(tiny(rewind="mine"), "x", 0), load))
    assert text.startswith("rewind = 'mine': must give weights and biases {'fc1.weight': (300, 784), ")
    assert text.endswith(", and a step")


def test_what_is_no_function_is_refused_by_its_name():
    methods.CRITERIA["mine"] = 3
    text = "criterion = 'mine': must be registered with a function, not 3"
    assert refusal(configure, "mlp", criterion="mine") == text


@pytest.mark.parametrize("where", ["no.such.module:scores", "lthcore.pruning:no_such", "lthcore..pruning", ""])
def test_a_function_that_is_nowhere_is_refused_before_it_is_needed(where):
    methods.CRITERIA["mine"] = methods.Criterion(where)
    text = refusal(configure, "mlp", criterion="mine")
    assert text.startswith(f"criterion = 'mine': {where!r}: must say where a function stands, as 'module:name' (")
    assert "\n" not in text


def test_a_rule_says_whether_it_takes_a_step_and_needs_the_level_before():
    methods.REWINDS["late"] = methods.RewindRule(lottery.reset, needs_previous=False, takes_step=True)
    methods.REWINDS["plain"] = lottery.final  # a function alone: it is given what there is
    assert "must be 0 unless rewind = 'reset' or 'late'" in refusal(configure, "mlp", rewind="final", rewind_step=3)
    assert "rewind_step = 3" in refusal(configure, "mlp", rewind="plain", rewind_step=3)
    assert configure("mlp", rewind="late", rewind_step=3).rewind_step == 3
    on = {name: Unit(configure("mlp", rewind=name), "x", 0).continues for name in methods.REWINDS}
    assert on == {"reset": False, "final": True, "keep_biases": True, "late": False, "plain": True}
    late, plain = (Unit(tiny(rewind=name, rewind_step=2), "x", 0) for name in ("late", "reset"))
    for one, other in zip(find_ticket(late, load), find_ticket(plain, load), strict=True):
        assert same(one.start, other.start) and same(one.weights, other.weights)


# -------------------------------------------------------------------------------------------- when it is scored


def before(weights, mask, unit, data):
    """|gradient x weight| on a hundred images (Lee et al. 2019)."""
    net = build(unit.config.model)
    net.load_state_dict({k: v * mask[k[:-7]] if k.endswith("weight") else v for k, v in weights.items()})
    images, labels = trained_on(data, 100)
    torch.nn.functional.cross_entropy(net(images.cpu()), labels.cpu()).backward()
    return {name: (net.get_submodule(name).weight * net.get_submodule(name).weight.grad).abs() for name in mask}


@pytest.mark.parametrize("model", ["mlp", "lenet5"])
def test_a_criterion_at_the_start_is_given_the_values_that_a_level_starts_from(model):
    methods.CRITERIA["before"] = methods.Criterion(before, when="start")
    chain = Unit(tiny(model, criterion="before"), "before", 0)
    dense, first, _ = find_ticket(chain, load)
    theta0 = initial(model, 0, "theta0", 0)
    for result in (dense, first):
        level = result.level + 1
        scores = before(theta0, result.mask, chain, load())
        assert same(result.next_mask, pruning.keep_top(scores, result.mask, chain.config.schedule[level]))
    methods.CRITERIA["late"] = methods.Criterion(before)
    (late, *_) = find_ticket(Unit(tiny(model, criterion="late"), "late", 0), load)
    assert same(late.weights, dense.weights) and not same(late.next_mask, dense.next_mask)


def test_a_mask_of_the_start_has_no_early_epoch():
    methods.CRITERIA["before"] = methods.Criterion(before, when="start")
    text = refusal(configure, "early_bird", criterion="before", early_bird=0.1)
    assert text.startswith("early_bird = 0.1: must be 0 with criterion = 'before'")


# ------------------------------------------------------------------------------------- in processes of their own

SCRIPT = """
from lthcore.studies import experiments
from lthcore import lottery, methods

SCALE = 0.5

def turned(w):
    return -w.abs()

def mine(weights, mask, unit, data):
    return {name: turned(weights[name + ".weight"]) for name in mask}

def half(unit, level, before, load):
    return {name: SCALE * v for name, v in lottery.reset(unit, level, None, None)[0].items()}, 0

def onward(unit, level, before, load):
    return {name: SCALE * v for name, v in before.items()}, 0

methods.CRITERIA["mine"] = mine
methods.REWINDS["half"] = methods.RewindRule(half, needs_previous=False)
methods.REWINDS["onward"] = onward
overrides = {"rounds": 1, "max_steps": 4, "test_images": 100, "criterion": "mine", "rewind": CHOSEN}
study = experiments.study("mlp", "smoke", controls=False, overrides=overrides)
experiments.run(study, workers=2, log=lambda line: print(line, flush=True))
print("ended well:", len(experiments.finished(study)) > 0)
"""
OUTSIDE = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONPATH": str(ROOT)}


def command(way, folder, text):
    """Arguments, and what goes in, with which Python runs that text in that way."""
    file, guarded = folder / "study_of_mine.py", folder / "guarded.py"
    file.write_text(text)
    guarded.write_text(f"if __name__ == '__main__':\n{textwrap.indent(text, '    ')}")
    return {
        "a file": ([file], ""),
        "a guard": ([guarded], ""),
        "standard input": (["-"], text),
        "interactive": (["-i", "-q"], f"exec(open({str(file)!r}).read())\nexit()\n"),
        "IPython": (["-m", "IPython", "--no-banner", "--colors=NoColor", file], ""),
    }[way]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["a file", "a guard", "standard input", "interactive", "IPython"])
def test_a_script_without_a_guard_trains_with_a_criterion_and_a_rule_of_its_own(way, tmp_path):
    text = SCRIPT.replace("CHOSEN", repr("half" if way in ("a file", "interactive") else "onward"))
    arguments, given = command(way, tmp_path, text)
    folders = {"LTH_RUNS": str(tmp_path / "runs"), "LTH_ARCHIVE": str(tmp_path / "archive")}
    arguments = [sys.executable, *map(str, arguments)]
    done = subprocess.run(arguments, input=given, capture_output=True, text=True, cwd=tmp_path, env=OUTSIDE | folders)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("ended well: True") == 1 and done.stdout.count("trained 4 levels") == 1, done.stdout
    assert "Traceback" not in done.stderr and "died" not in done.stdout
    assert len(list((tmp_path / "runs").rglob("facts.json"))) == 4


@pytest.mark.slow
def test_a_notebooks_cells_too(tmp_path):
    import nbformat
    from nbclient import NotebookClient

    cells = [nbformat.v4.new_code_cell(part) for part in SCRIPT.replace("CHOSEN", "'half'").split("\n\n")]
    for folder in ("RUNS", "ARCHIVE"):
        cells.insert(
            0, nbformat.v4.new_code_cell(f"import os; os.environ['LTH_{folder}'] = {str(tmp_path / folder)!r}")
        )
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    said = "".join(out.get("text", "") for out in notebook.cells[-1].outputs)
    assert "trained 4 levels" in said and "ended well: True" in said


@pytest.mark.slow
def test_a_script_that_is_interrupted_leaves_nothing_behind(tmp_path):
    """The processes of one without a guard end with it, as those of any other."""
    text = SCRIPT.replace("CHOSEN", "'half'").replace('"max_steps": 4', '"epochs": 50, "max_steps": 0')
    (tmp_path / "script.py").write_text(text)
    folders = {"LTH_RUNS": str(tmp_path / "runs"), "LTH_ARCHIVE": str(tmp_path / "archive")}
    script = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=OUTSIDE | folders, start_new_session=True,
    )  # fmt: skip
    for line in script.stdout:
        if "this will take" in line:
            break
    script.send_signal(signal.SIGINT)
    assert script.wait(30) != 0
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            os.killpg(script.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a process is left")


@pytest.mark.slow
def test_processes_that_are_begun_at_once_leave_the_program_as_it_is():
    """The program stands aside while a process starts; two that start at once give it back all the same."""
    methods.REWINDS["there"] = lottery.reset
    program, ends = sys.modules["__main__"], []
    begun = [
        threading.Thread(target=lambda: sweep.Background(_print_registered, (), ends.append, ends.append).thread.join())
        for _ in range(3)
    ]
    for thread in begun:
        thread.start()
    for thread in begun:
        thread.join()
    assert sys.modules["__main__"] is program
    assert sorted(ends) == ["", "", "", *["the rules reset, final, keep_biases, there"] * 3]


def _print_registered(log):
    log(f"the rules {', '.join(methods.REWINDS)}")


def test_what_cannot_be_sent_is_refused_in_one_line():
    lock = threading.Lock()
    methods.CRITERIA["held"] = lambda weights, mask, unit, data: lock and pruning.magnitudes(weights, mask)
    text = refusal(sending.added)
    assert text.startswith("criterion = 'held': cannot be sent to other processes (") and "lock" in text


def test_what_is_sent_arrives_and_the_built_in_records_stay():
    methods.CRITERIA["mine"] = methods.Criterion(lambda weights, mask, unit, data: "scores", when="start")
    methods.REWINDS["there"] = methods.RewindRule("lthcore.lottery:reset")
    sent = sending.added()
    del methods.CRITERIA["mine"], methods.REWINDS["there"]
    assert "criterion = 'mine'" in refusal(configure, "mlp", criterion="mine")
    sending.add(sent)
    assert methods.find("criterion", "mine").scores(1, 2, 3, 4) == "scores"
    assert methods.function(methods.find("rewind", "there").values) is lottery.reset
    assert methods.find("criterion", "mine").when == "start"


def test_the_ticket_of_a_rule_that_reads_data_or_nothing(finish, folders):
    """Its values are not kept where it needs no level before: they are made again."""

    def first_images(unit, level, before, load):
        theta0 = lottery.reset(unit, level, None, None)[0]
        return {k: v * float(load(unit).train[0][0].mean()) for k, v in theta0.items()}, 0

    methods.REWINDS["shone"] = methods.RewindRule(first_images, needs_previous=False)
    study = experiments.study(
        "mlp", "smoke", controls=False, overrides={"rounds": 1, "max_steps": 3, "rewind": "shone"}
    )
    finish(study)
    unit = study.units[0]
    ticket = sweep.ticket(unit, 1)
    sweep.keep_weights(unit, 1)
    kept = store.find_weights(unit, 1).start
    assert all((ticket.values[name] == v).all() for name, v in kept.items())
