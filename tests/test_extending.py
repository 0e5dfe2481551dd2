"""The rows of "To add something" in lthcore/README.md, each done as it says, trained in other processes and read."""

import os
import re
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch

from lthcore import data, engines, lottery, methods, models, pruning, schedule, studies
from lthcore.config import configure
from lthcore.results import rules, statistics
from lthcore.runs import download, store, sweep
from lthcore.studies import experiments
from lthcore.unit import Unit

ROOT = store.ROOT
TABLE = (ROOT / "lthcore/README.md").read_text().partition("## To add something\n")[2].partition("\n\nA study")[0]
FEW = {"levels": (0, 1), "max_steps": 5, "test_images": 100}


def row(what):
    """Where the document says that something is added: the names and the code that stand in that row."""
    (line,) = re.findall(rf"^\| {re.escape(what)} \| (.*) \|$", TABLE, re.M)
    return line


def carried_out(text, what):
    """What the lines of a notebook or a script leave behind; they name all that the row names."""
    missing = [place for place in re.findall(r"`([\w.]+)`", row(what)) if place.rpartition(".")[2] not in text]
    assert not missing, f"the row names {missing}"
    names = {"__name__": "__main__", "FEW": FEW}
    exec(text, names)
    return names


@pytest.fixture(autouse=True)
def forgotten(folders):
    """Everything goes to a folder of the test's own, and what it registers is taken out again."""
    plt.switch_backend("agg")
    registries = [records for records, _ in methods.RECORDS.values()] + [studies.REGISTRY]
    before = [dict(registry) for registry in registries]
    yield
    for registry, known in zip(registries, before, strict=True):
        registry.clear()
        registry.update(known)
    data.whole.cache_clear()


def the_loop_gives_the_same(study):
    """What other processes have trained of a study's first unit is what the loop gives here: list of TrainedLevel."""
    unit = study.units[0]
    here = list(lottery.find_ticket(unit, data.load))
    for trained in here:
        found = store.find_level(unit, trained.level)
        assert found.rows()["value"].tolist() == pytest.approx([value for *_, value in trained.rows], nan_ok=True)
    kept = store.find_level(unit, 0).next_mask(unit.config.model)
    assert all((mask.numpy() == kept[name]).all() for name, mask in here[0].next_mask.items())
    return here


# ------------------------------------------------------------------------------------------ in a notebook or a script

CRITERION = """
from lthcore import methods
from lthcore.studies import experiments

def smallest_stay(weights, mask, unit, data):
    return {name: -weights[f"{name}.weight"].abs() for name in mask}

methods.CRITERIA["smallest_stay"] = methods.Criterion(smallest_stay)
study = experiments.study("mlp", "smoke", controls=False, overrides={**FEW, "criterion": "smallest_stay"})
experiments.run(study, workers=1)
frame = experiments.finished(study)
"""


@pytest.mark.slow
def test_a_criterion():
    done = carried_out(CRITERION, "a criterion")
    dense, sparse = the_loop_gives_the_same(done["study"])
    for name, kept in dense.next_mask.items():
        size = dense.weights[f"{name}.weight"].abs()
        assert size[kept].max() <= size[~kept].min() and (sparse.weights[f"{name}.weight"][~kept] == 0).all()
    assert set(done["frame"]["level"]) == {0, 1}


RULE = """
from lthcore import lottery, methods
from lthcore.studies import experiments

def halved(unit, level, before, load):
    theta0, step = lottery.reset(unit, 0, None, None)
    return {name: value / 2 for name, value in theta0.items()}, step

methods.REWINDS["halved"] = methods.RewindRule(halved, needs_previous=False)
study = experiments.study("mlp", "smoke", controls=False, overrides={**FEW, "rewind": "halved"})
experiments.run(study, workers=1)
frame = experiments.finished(study)
"""


@pytest.mark.slow
def test_a_rewind_rule():
    done = carried_out(RULE, "a rewind rule")
    dense, sparse = the_loop_gives_the_same(done["study"])
    assert all((sparse.start[name] == value / 2).all() for name, value in dense.start.items())


CONNECTED = """
from lthcore.schedule import ARCHITECTURES, Architecture
from lthcore.studies import experiments
from lthcore.studies.record import Experiment
from lthcore.unit import Unit

def arms(config, replicate):
    yield Unit(config, "ticket", replicate)

ARCHITECTURES["mlp_60_20"] = Architecture({"fc1": (60, 784), "fc2": (20, 60), "head": (10, 20)})
record = Experiment("narrow", arms, settings={"model": "mlp_60_20", "rounds": 1})
study = experiments.study(record, "smoke", overrides=FEW)
experiments.run(study, workers=1)
frame = experiments.finished(study)
"""


@pytest.mark.slow
def test_a_fully_connected_model():
    done = carried_out(CONNECTED, "a fully connected model")
    dense, sparse = the_loop_gives_the_same(done["study"])
    assert experiments.provenance(done["study"])["engine"] == ["Sparse"]
    assert [tuple(mask.shape) for mask in dense.mask.values()] == [(60, 784), (20, 60), (10, 20)]
    kept = statistics.at_end(done["frame"], "density", "mask")["ticket", 1].item()
    assert kept == done["study"].config.density(1) == sum(int(m.sum()) for m in sparse.mask.values()) / 48440
    assert experiments.study("task1", model="mlp_60_20").config.model == "mlp_60_20"


@pytest.mark.slow
def test_the_compiled_engine_trains_other_sizes_as_torch_does():
    torch.set_num_threads(1)
    schedule.ARCHITECTURES["other"] = schedule.Architecture({"a": (30, 784), "b": (70, 30), "c": (10, 70)}, "tanh")
    unit = Unit(configure("task1", "smoke", model="other"), "ticket", 0)
    split, values = data.load(unit), models.initial("other", 0, "theta0", 0)
    for share in (1.0, 0.5, 0.05):  # above and below what is trained by whole rows
        drawn = torch.Generator().manual_seed(1)
        mask = {name: torch.rand(m.shape, generator=drawn) < share for name, m in pruning.dense_mask("other").items()}
        ends = []
        for engine in (engines.SPARSE, engines.BATCHED):
            assert engine.supports(unit.config, "cpu")
            trained = engine.build([values], [mask], [split], unit.config)
            trained.advance(split.chosen[None, :500])
            ends.append({**trained.values(), "logits": trained.logits(split.test[0][None, :100])})
        assert all(torch.allclose(ends[0][name], value, atol=1e-5) for name, value in ends[1].items())


CONVOLUTIONAL = """
from lthcore import models
from lthcore.schedule import ARCHITECTURES, Architecture
from lthcore.studies import experiments
from lthcore.studies.record import Experiment
from lthcore.unit import Unit

def arms(config, replicate):
    yield Unit(config, "ticket", replicate)

class Shallow(models.Network):
    def forward(self, x):  # (B, 1, 28, 28)
        x = self.pool(self.activation(self.conv1(x)), 2)  # (B, 3, 12, 12)
        return self.classify(x)

ARCHITECTURES["shallow"] = Architecture({"conv1": (3, 1, 5, 5), "head": (10, 432)}, "tanh", Shallow)
record = Experiment("of_one_convolution", arms, settings={"model": "shallow", "pool": "max", "rounds": 1})
study = experiments.study(record, "smoke", overrides=FEW)
experiments.run(study, workers=1)
frame = experiments.finished(study)
"""


@pytest.mark.slow
def test_a_convolutional_model():
    done = carried_out(CONVOLUTIONAL, "a convolutional model")
    dense, _ = the_loop_gives_the_same(done["study"])
    assert experiments.provenance(done["study"])["engine"] == ["Lockstep"]
    assert [tuple(mask.shape) for mask in dense.mask.values()] == [(3, 1, 5, 5), (10, 432)]
    assert done["study"].config.convolutions == ["conv1"]


DATA = """
from lthcore import methods
from lthcore.runs import download
from lthcore.studies import experiments

def mirrored(parts, labels_only):
    there = download.read_mnist(parts)
    return {part: (images[..., ::-1], labels) for part, (images, labels) in there.items()}

methods.DATASETS["mirrored"] = methods.DataSet(mirrored, train=60_000, test=10_000, mean=(0.1307,), std=(0.3081,))
study = experiments.study("mlp", "smoke", controls=False, overrides={**FEW, "dataset": "mirrored"})
experiments.run(study, workers=1)
frame = experiments.finished(study)
"""


@pytest.mark.slow
def test_a_data_set():
    done = carried_out(DATA, "a data set")
    the_loop_gives_the_same(done["study"])
    images, labels = data.whole("mirrored")["test"]
    assert (images == data.whole()["test"][0].flip(3)).all() and (labels == data.whole()["test"][1]).all()
    figure, _ = done["study"].experiment.figures["fig1a_mlp_accuracy_vs_density"](done["study"], done["frame"])
    assert figure._supxlabel.get_text().startswith("mirrored · MLP")
    plt.close(figure)


@pytest.mark.slow
def test_a_control():
    """The document's example, as it stands."""
    assert all(name in row("a control") for name in ("RandomLike", "MaskOf", "Fresh"))
    text = (ROOT / "lthcore/README.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "RandomLike" in block]
    exec(example, done := {"__name__": "__main__"})
    ticket, random_mask, fresh = done["study"].units
    assert ticket.levels == (0, 1, 2) and random_mask.levels == fresh.levels == (1, 2)
    finished = experiments.finished(done["study"])[["arm", "level"]].drop_duplicates()
    assert set(finished["arm"]) == {"ticket", "random_mask", "random_reinit"} and len(finished) == 7
    dense, *sparse = the_loop_gives_the_same(done["study"])
    for trained in sparse:
        for name, mask in trained.mask.items():
            random, kept = (torch.from_numpy(sweep.mask_at(unit, trained.level)[name]) for unit in (random_mask, fresh))
            assert (kept == mask).all() and (random != mask).any() and random.sum() == mask.sum()
    values = lottery.starting_values(fresh, 1, data.load)[0]
    assert not torch.equal(values["fc1.weight"], dense.start["fc1.weight"])


STUDY = """
from dataclasses import replace

from lthcore.results import figures, verdicts
from lthcore.studies import claims, experiments, plots
from lthcore.studies.record import Claim, Experiment
from lthcore.unit import Unit

def arms(config, replicate):
    yield Unit(config, "slow", replicate)
    yield Unit(replace(config, lr=10 * config.lr), "fast", replicate)

def better(frame, config):
    return [verdicts.difference(frame, "fast - slow, level 1", ("fast", 1), ("slow", 1), above=0)]

RATES = Experiment(
    name="rates",
    title="Does a ticket want a higher rate?",
    settings={"model": "mlp", "rounds": 1, "max_steps": 5, "test_images": 100, "lr": 1e-4},
    arms=arms,
    styles={"slow": ("1e-4", "blue", "o"), "fast": ("1e-3", "red", "D")},
    figures={"fig_rates": figures.accuracy_against_density},
    claims=(Claim("rates", "the higher rate is better", "nothing", "fig_rates", better),),
)
study = experiments.study(RATES, "report")
experiments.run(study, workers=1)
frame = experiments.finished(study)
drawn = plots.draw(study, frame)
judged = claims.judge(frame, study.config)
"""


@pytest.mark.slow
def test_a_study():
    done = carried_out(STUDY, "a study")
    assert experiments.progress([done["study"]]).loc["rates"].tolist() == ["report", 3, 12, 12]
    (picture,) = done["drawn"]
    assert set(pd.read_csv(picture.with_suffix(".csv"))["arm"]) == {"slow", "fast"}
    end = statistics.at_end(done["frame"])
    assert done["judged"]["ours"].item() == pytest.approx((end["fast", 1] - end["slow", 1]).mean())
    assert done["judged"]["verdict"].item() == "holds" and done["judged"]["n"].item() == 3


# -------------------------------------------------------------------------------------------------- in a study's file


def in_a_copy(folder, file, changes, script):
    """What a script prints with a copy of the package in which one file was changed."""
    shutil.copytree(ROOT / "lthcore", folder / "lthcore")  # with the machine code, which fits the same sources
    path = folder / "lthcore" / file
    text = path.read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path.write_text(text)
    places = {"PYTHONPATH": str(folder), "LTH_DATA": str(store.data_folder()), "MPLBACKEND": "agg"}
    places |= {"LTH_RUNS": str(folder / "runs"), "LTH_ARCHIVE": str(folder / "archive")}
    (folder / "script.py").write_text(f"FEW = {FEW}\n{script}")
    done = subprocess.run(
        [sys.executable, folder / "script.py"], env=os.environ | places, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


ARM = """
from lthcore.studies import experiments, plots
study = experiments.study("task1", "smoke", controls=False, overrides=FEW)
experiments.run(study, workers=1)
for path in plots.draw(study, experiments.finished(study)):
    print(path)
print(plots.style("t1_kept")[0])
"""


@pytest.mark.slow
def test_an_arm_that_is_drawn(tmp_path):
    assert re.findall(r"`(\w+)`", row("an arm")) == ["arms", "STYLES"] and "a figure lists" in row("an arm")
    both = 'yield from two_subsets(config, replicate, "half1", "half2")\n'
    kept = '    yield Unit(replace(config, rewind="final"), "t1_kept", replicate, "half1")\n'
    first, last = "from collections.abc import Iterator\n", '    "t1_on_s2": ("T1 on S2", "red", "D"),\n'
    changes = [
        (first, f"{first}from dataclasses import replace\n"),
        (both, both + kept),
        (last, last + '    "t1_kept": ("T1, not reset", "purple", "v"),\n'),
        ('"random_mask", "t1_on_s2")', '"random_mask", "t1_on_s2", "t1_kept")'),
    ]
    *_, picture, label = in_a_copy(tmp_path, "studies/task1.py", changes, ARM)
    assert picture.startswith(str(tmp_path)) and label == "T1, not reset"
    drawn = pd.read_csv(picture.removesuffix(".png") + ".csv")
    assert set(drawn[drawn["arm"] == "t1_kept"]["level"].dropna()) == {0, 1}


CLAIM = """
from lthcore.studies import claims, experiments
study = experiments.study("early_bird", "report")
judged = claims.judge(experiments.finished(study), study.config).set_index("claim")
print(*judged.loc["early-bird-whole", ["n", "figure", "verdict"]], sep=", ")
"""


@pytest.mark.slow
def test_a_claim(tmp_path):
    """Judged by what is archived: nothing is trained for it."""
    assert re.findall(r"`(\w+)`", row("a published claim")) == ["Claim", "CLAIMS"]
    shutil.copytree(ROOT / "figures/archive/early_bird", tmp_path / "archive/early_bird")
    measure = """def _whole(frame, config):
    return [verdicts.difference(frame, "whole - dense, level 1", ("whole", 1), ("whole", 0), above=-config.margin)]


CLAIMS = (
    Claim("early-bird-whole", "half of the weights do as well as all", "as well", _WORTH, _whole),
"""
    *_, said = in_a_copy(tmp_path, "studies/early_bird.py", [("CLAIMS = (\n", measure)], CLAIM)
    n, figure, verdict = said.split(", ", 2)
    assert int(n) >= 3 and figure == "fig10b_early_bird" and rules.plain(verdict) == "holds"


# ------------------------------------------------------------------------------------------- what makes no sense in it

STACKED = {"fc1": (60, 784), "head": (10, 60)}
REFUSED = {
    "no layers": (schedule.Architecture({}), "must be registered with the shapes of its weights, by layer"),
    "no record": (STACKED, "must be registered as Architecture(...), not {'fc1': (60, 784), 'head': (10, 60)}"),
    "no function": (schedule.Architecture(STACKED, module=3), "must be registered with a function, not 3"),
    "three axes": (schedule.Architecture(STACKED | {"fc1": (60, 1, 784)}), "its weights must have shapes (out, in)"),
    "two outputs": (schedule.Architecture(STACKED | {"head": (2, 60)}), "its last layer has 2 outputs, must be 10"),
    "a gap": (schedule.Architecture(STACKED | {"head": (10, 50)}), "its layer head takes 50 numbers and is given 60"),
    "other images": (schedule.Architecture(STACKED, images=((1, 8, 8),)), "its layer fc1 takes 784 numbers"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_model_that_makes_no_sense_is_refused_in_one_line(case):
    schedule.ARCHITECTURES["mine"], message = REFUSED[case]
    with pytest.raises(ValueError, match="^" + re.escape(f"model = 'mine': {message}")):
        configure("task1", model="mine")


def test_a_data_set_that_is_not_what_its_record_says_is_refused_in_one_line():
    def eight(parts, labels_only):
        return {part: (images[:8], labels[:8]) for part, (images, labels) in download.read_mnist(parts).items()}

    methods.DATASETS["small"] = methods.DataSet(eight, 100, 100, (0.1,), (0.3,))
    with pytest.raises(ValueError, match=r"^dataset = 'small': its train labels are \(8,\) uint8, must be \(100,\)"):
        data.whole("small")
    methods.DATASETS["small"] = methods.DataSet(eight, 100, 100, (0.1, 0.1), (0.3,))
    with pytest.raises(ValueError, match=r"^dataset = 'small': must be registered with a mean and a std for each of"):
        configure("task1", dataset="small", batch_size=10)
    methods.DATASETS["small"] = methods.DataSet(eight, 100, 100, (0.1,), (0.3,), (1, 8, 8))
    with pytest.raises(ValueError, match=r"^dataset = 'small': needs model = one that reads its images, not 'mlp'$"):
        configure("task1", dataset="small", batch_size=10)
