"""A GPU that fails costs a line. "cpu:0" stands in for one: the package takes it for a GPU, and torch for the CPU."""

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from stand_ins import FakePool, InlinePool, numbers, runs_in, tasks_of, tiny_study

from lthcore import lottery, tickets
from lthcore.config import configure
from lthcore.data import Split
from lthcore.engines.batched import Lockstep, activations
from lthcore.models import build, initial
from lthcore.pruning import dense_mask
from lthcore.runs import download, estimate, gpu, processes, store, sweep, worker
from lthcore.studies import experiments
from lthcore.unit import Unit

ROOT = Path(__file__).resolve().parents[1]
STAND_IN = "cpu:0"
FAULTS = {
    "illegal access": getattr(torch, "AcceleratorError", RuntimeError)(  # which torch has from 2.8 on
        "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later\n"
    ),
    "no kernel": RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    "cudnn": RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "no memory": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "not compiled": AssertionError("Torch not compiled with CUDA enabled"),
    "no driver": RuntimeError("Found no NVIDIA driver on your system."),
    "library": OSError("libcudart.so.12: cannot open shared object file"),
    "no words": RuntimeError(),
}
SEEN = gpu.Seen("a stand-in", 10**11, 1, dict.fromkeys(gpu.TOLERANCES, 1e-6), ())
fault = pytest.mark.parametrize("error", FAULTS.values(), ids=FAULTS)


def small(experiment="task1", **settings):
    return configure(experiment, "smoke", **{"batch_size": 20, **settings})


def one_line(text):
    return len(str(text).splitlines()) == 1


# ------------------------------------------------------------------------------------------------------ the self-check


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"model": "lenet5"},
        {"optimizer": "sgd"},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "adamw", "weight_decay": 0.1},
        {"dropout": 0.5, "warmup": 50},
        {"model": "lenet5", "activation": "relu", "pool": "max", "optimizer": "sgd"},
        {"lr": 10, "optimizer": "sgd"},  # a rate at which rounding errors would explode
        {"batch_size": 20_000},  # more than there is for whole batches
    ],
    ids=str,
)
def test_what_computes_the_same_passes(settings):
    seen = gpu.check([(small(**settings), "half1")], STAND_IN)
    assert seen.kinds == 1 and seen.worst["losses"] < 1e-5 and one_line(seen.line())


def test_every_kind_of_step_is_checked_once():
    units = [u for name in ("mlp", "task1", "task3") for u in experiments.study(name, "report").units]
    found = gpu.kinds([(unit, level) for unit in units for level in unit.levels])
    kinds = {(c.batch_size, c.optimizer, c.momentum) for c, _ in found}
    assert kinds == {(60, "adam", 0), (50, "adam", 0), (50, "sgd", 0), (50, "sgd", 0.9)} and len(found) == 4
    some = [{}, {"warmup": 5}, {"dropout": 0.2}, {"weight_decay": 0.1}, {"model": "lenet5"}, {"activation": "tanh"}]
    some += [{"dataset": "fashion"}, {"lr": 0.1}, {"epochs": 3}]  # the last two are no kinds of their own
    assert len(gpu.kinds([(Unit(small(**settings), "ticket", 0), 0) for settings in some])) == 7


def nan(losses, *_):
    return losses * float("nan")


# what a wrong device might do: a method of the engine, and how its result is changed where two replicates are trained
WRONG = {
    "losses a little high": ("_step", lambda losses: losses * 1.001),
    "one replicate's losses": ("_step", lambda losses: losses * torch.tensor([1.0, 1.001])),
    "losses of no number": ("_step", nan),
    "replicates exchanged": ("_step", lambda losses: losses.flip(0)),
    "logits a little off": ("logits", lambda logits: logits * 1.01),
    "logits of no number": ("logits", nan),
    "weights scaled": ("values", lambda values: {n: 1.05 * v for n, v in values.items()}),
    "a bias that stays": ("values", lambda values: values | {"fc2.bias": 0 * values["fc2.bias"]}),
    "weights of no number": ("values", lambda values: values | {"fc1.weight": values["fc1.weight"] * float("nan")}),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WRONG)
def test_what_computes_otherwise_is_refused_in_one_line(monkeypatch, wrong):
    name, change = WRONG[wrong]
    right = getattr(Lockstep, name)

    def method(self, *arguments):
        out = right(self, *arguments)
        together = len(next(iter(self.parameters.values()))) == 2
        return change(out) if together else out

    monkeypatch.setattr(Lockstep, name, method)
    with pytest.raises(gpu.Lost, match="differ from the CPU's by") as caught:
        gpu.check([(small(), "half1")], STAND_IN)
    assert one_line(caught.value) and "mlp by adam, batch 20" in str(caught.value)


@pytest.mark.slow
def test_rounding_to_ten_bits_is_refused(monkeypatch):
    """As a GPU's TF32 does it."""
    forward = Lockstep._forward

    def rounded(self, images):
        mantissa, exponent = torch.frexp(images)
        images = torch.ldexp(torch.round(mantissa * 2**6) / 2**6, exponent) if len(images) == 2 else images
        return forward(self, images)

    monkeypatch.setattr(Lockstep, "_forward", rounded)
    with pytest.raises(gpu.Lost, match="differ"):
        gpu.check([(small(), "half1")], STAND_IN)


@pytest.mark.slow
def test_dropout_that_gives_no_number_is_refused(monkeypatch):
    step = Lockstep._step
    monkeypatch.setattr(Lockstep, "_step", lambda self, b: step(self, b) / (0.0 if self.config.dropout else 1.0))
    with pytest.raises(gpu.Lost, match="losses differ"):
        gpu.check([(small(dropout=0.5), "half1")], STAND_IN)


@fault
def test_an_error_in_the_self_check_is_one_line(monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(gpu, "_properties", fail)
    with pytest.raises(gpu.Lost) as caught:
        gpu.check([(small(), "half1")], STAND_IN)
    assert one_line(caught.value) and str(caught.value).startswith(type(error).__name__)


def test_what_torch_warned_of_stands_beside_the_error(monkeypatch):
    def fail(*_):
        warnings.warn("Found GPU0 Tesla K80 which is of cuda capability 3.7.\n  The minimum is 5.0", stacklevel=1)
        raise FAULTS["no kernel"]

    monkeypatch.setattr(gpu, "_properties", fail)
    with pytest.raises(gpu.Lost, match=r"no kernel image .* \(UserWarning: Found GPU0 Tesla K80 .*\)$"):
        gpu.check([(small(), "half1")], STAND_IN)


@pytest.mark.parametrize("free", [0, 10**8, 1.7e9])
def test_too_little_memory_is_said(monkeypatch, free):
    monkeypatch.setattr(gpu, "_properties", lambda device: ("a small one", free))
    with pytest.raises(gpu.Lost, match=rf"^{free / 1e9:.1f} GB of its memory are free, 1.8 GB are needed$"):
        gpu.check([(small(), "half1")], STAND_IN)


# -------------------------------------------------------------------------------------------------- is there a GPU here


def too_old():
    warnings.warn(
        "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).", stacklevel=1
    )
    return False


def unknown():
    raise RuntimeError("Unexpected error from cudaGetDeviceCount()\nDid you run some cuda functions before?")


def no_library():
    raise OSError("libcuda.so.1: cannot open shared object file")


@pytest.mark.parametrize("device", ["auto", "cuda"])
@pytest.mark.parametrize("available", [too_old, unknown, no_library])
def test_a_gpu_that_torch_cannot_use_is_said_in_one_line(monkeypatch, available, device):
    said = []
    monkeypatch.setattr(torch.cuda, "is_available", available)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the line takes the warning's place
        assert sweep.resolve(device, said.append) == "cpu"
    assert len(said) == 1 and one_line(said[0])
    assert said[0].startswith("the GPU is not used: ") and said[0].endswith("; training continues on the CPU")


WITHOUT_TORCH = """
import sys
from lthcore.runs import estimate, gpu, processes, sweep
from lthcore.studies import experiments
gpu.TRACES, gpu.NVIDIA = ("/dev/no-such-driver*",), "no such vendor"
assert processes.resolve("auto") == "cpu"
study = experiments.study("task1", "smoke")
for unit in study.units:
    estimate.TIMES[estimate._kind(unit.config), "cpu"] = [0.001] * 10, [0.0001] * 10
assert sweep.Plan(study.units).seconds(2) > 0
assert "torch" not in sys.modules
for trace in ({"TRACES": ("/dev/nul?",)}, {"VENDORS": "/proc/sys/kernel/ostype", "NVIDIA": "Linux"}):
    before = {name: getattr(gpu, name) for name in trace}
    vars(gpu).update(trace)
    assert gpu.possible()
    vars(gpu).update(before)
assert not gpu.possible()
try:
    processes.resolve("cuda")  # who asks for one is told what torch says
except ValueError as error:
    assert "no CUDA device is found here" in str(error)
assert "torch" in sys.modules
"""


@pytest.mark.skipif(sys.platform != "linux", reason="drivers have files in /dev on Linux")
def test_the_driver_loads_torch_only_where_a_gpu_may_be(tmp_path):
    environment = {**os.environ, "LTH_RUNS": str(tmp_path), "LTH_ARCHIVE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", WITHOUT_TORCH], check=True, env=environment)


def test_no_gpu_and_none_asked_for_is_not_worth_a_line(monkeypatch):
    said = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert sweep.resolve("auto", said.append) == sweep.resolve("cpu", said.append) == "cpu" and not said


def test_a_gpu_that_cannot_be_timed_is_not_estimated_with(monkeypatch, tmp_path):
    monkeypatch.setenv("LTH_RUNS", str(tmp_path))
    monkeypatch.setattr(estimate, "TIMES", {})

    def measure(kind, device="cpu"):
        if device != "cpu":
            raise FAULTS["no driver"]
        return [0.001] * len(estimate.DENSITIES), [0.0] * len(estimate.DENSITIES)

    monkeypatch.setattr(estimate, "_measure", measure)
    plan = sweep.Plan(tiny_study().units, "cuda")
    assert plan.seconds(1) > 0 and plan.device == "cpu"


# --------------------------------------------------------------------------------------------------- the queue goes on


class Pool(FakePool):
    """That pool, which knows of devices: fails on a GPU when told to."""

    devices, check, fails = [], None, {}

    def submit(self, function, *arguments):
        future = Future()
        if function is gpu.check:
            result = Pool.check(*arguments)
            future.set_exception(result) if isinstance(result, BaseException) else future.set_result(result)
            return future
        tasks, device, pause = arguments
        Pool.devices.append((device, tasks))
        error = Pool.fails.get(len(Pool.devices)) if device != "cpu" else None
        if error:
            future.set_exception(error)
            return future
        return super().submit(function, tasks, device, pause)


@pytest.fixture
def queue(tmp_path, monkeypatch):
    runs_in(tmp_path / "runs", monkeypatch)
    for name, value in {"started": [], "groups": [], "finished": set(), "dies": {}, "refuses": {}, "held": {}}.items():
        monkeypatch.setattr(FakePool, name, value)
    for name, value in {"devices": [], "fails": {}, "check": staticmethod(lambda *_: SEEN)}.items():
        monkeypatch.setattr(Pool, name, value)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr("lthcore.runs.queue._prepare_data", lambda datasets: None)
    monkeypatch.setattr(processes, "default_workers", lambda device: 2 if device == "cpu" else 1)
    monkeypatch.setattr("lthcore.runs.plan.STEPS", 1)  # however little there is to train
    return Pool


UNSEEN = {
    "mismatch": gpu.Lost("mlp by adam, batch 60: its losses differ from the CPU's by 0.3, relatively"),
    "error": gpu.Lost("AcceleratorError: CUDA error: an illegal memory access was encountered"),
    "memory": gpu.Lost("0.2 GB of its memory are free, 1.8 GB are needed"),
    "hangs": TimeoutError(),
    "dies": BrokenProcessPool(),
}


@pytest.mark.parametrize("what", UNSEEN)
def test_a_gpu_that_fails_its_check_trains_nothing(queue, monkeypatch, what):
    units, said = tiny_study().units, []
    monkeypatch.setattr(queue, "check", staticmethod(lambda *_: UNSEEN[what]))
    sweep.run(units, STAND_IN, log=said.append)
    assert {device for device, _ in queue.devices} == {"cpu"} and queue.finished == tasks_of(units) and queue.peak == 2
    (line,) = [line for line in said if "GPU" in line]
    assert one_line(line) and line.startswith("the GPU is not used: ") and line.endswith("continues on the CPU")


def test_a_gpu_that_passes_is_used_and_said(queue):
    said = []
    sweep.run(tiny_study().units, STAND_IN, log=said.append)
    assert {device for device, _ in queue.devices} == {STAND_IN}
    assert "the GPU (a stand-in) agrees with the CPU in 1 kinds of steps: losses within 1e-06" in said[1]


def test_an_interrupt_in_the_check_leaves_no_process(queue, monkeypatch):
    ended = []
    monkeypatch.setattr(queue, "check", staticmethod(lambda *_: KeyboardInterrupt()))
    monkeypatch.setattr(processes, "stop", ended.append)
    with pytest.raises(KeyboardInterrupt):
        sweep.run(tiny_study().units, STAND_IN, log=lambda line: None)
    assert ended


@pytest.mark.parametrize("at", [1, 2, 4, 9])
def test_a_gpu_that_is_lost_on_the_way_leaves_the_rest_to_the_cpu(queue, at):
    units, said = tiny_study().units, []
    queue.fails = {at: gpu.Lost("AcceleratorError: CUDA error: unspecified launch failure")}
    sweep.run(units, STAND_IN, log=said.append)
    assert queue.finished == tasks_of(units) and len(queue.started) == len(set(queue.started))
    first = [device for device, _ in queue.devices]
    assert first == [STAND_IN] * at + ["cpu"] * (len(first) - at)  # and none goes back to it
    lines = [line for line in said if "the GPU failed" in line]
    assert lines == [gpu.given_up("AcceleratorError: CUDA error: unspecified launch failure")]
    assert said[-1].startswith(f"trained {len(tasks_of(units))} levels in ")


def test_a_gpu_on_which_processes_die_leaves_the_rest_to_the_cpu(queue):
    units, said = tiny_study().units, []
    queue.fails = dict.fromkeys(range(2, 99), BrokenProcessPool())
    sweep.run(units, STAND_IN, log=said.append)
    assert queue.finished == tasks_of(units)
    devices = [device for device, _ in queue.devices]
    assert 1 + sweep.RETRIES <= devices.count(STAND_IN) - 1 <= 2 + sweep.RETRIES
    assert len([line for line in said if "its process died" in line and "the GPU failed" in line]) == 1


def test_without_memory_for_all_replicates_some_are_trained_at_once(queue, monkeypatch):
    units = experiments.study("task2", "smoke", replicates=8).units
    shared, each = gpu.bytes_of(units[0].config)
    monkeypatch.setattr(queue, "check", staticmethod(lambda *_: SEEN._replace(free=(shared + 3.5 * each) / gpu.SHARE)))
    sweep.run(units, STAND_IN, log=lambda line: None)
    assert queue.finished == tasks_of(units)
    assert {len({unit.replicate for unit, _ in group}) for group in queue.groups} == {3, 2}
    for group in queue.groups:  # a level that several chains share is trained once
        assert len({unit.subset for unit, _ in group}) == 1


@pytest.fixture
def store_here(tmp_path, monkeypatch):
    """A store, and levels that are trained in this process."""
    runs_in(tmp_path / "runs", monkeypatch)
    monkeypatch.setattr(processes, "ProcessPoolExecutor", InlinePool)
    return tmp_path / "runs"


class Inline(InlinePool):
    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.mark.slow
@fault
def test_levels_after_a_fault_are_those_of_the_cpu(store_here, monkeypatch, error):
    """Trained for real; the second level finds the device broken."""
    study, said, train_level, calls = tiny_study(), [], lottery.train_level, []

    def broken(units, level, masks, load, *more):
        calls.append(level)
        if len(calls) == 2:
            raise error
        return train_level(units, level, masks, load, *more)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(lottery, "train_level", broken)
    sweep.run(study.units, STAND_IN, log=said.append)
    assert all(store.find_level(unit, level) for unit, level in tasks_of(study.units))
    devices = [store.find_level(unit, level).facts["facts"]["device"] for unit, level in tasks_of(study.units)]
    assert set(devices) == {"cpu", STAND_IN}
    (line,) = [line for line in said if "the GPU failed" in line]
    assert one_line(line) and type(error).__name__ in line
    assert len([line for line in said if "GPU" in line]) == 2  # this one, and that it had passed


@pytest.mark.slow
@pytest.mark.parametrize(
    "error", [FloatingPointError("level 0, step 3: the loss is nan"), ValueError("no such criterion")]
)
def test_what_the_study_refuses_is_no_fault_of_the_gpu(store_here, monkeypatch, error):
    def refuse(*_):
        raise error

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(lottery, "train_level", refuse)
    with pytest.raises(type(error)):
        sweep.run(tiny_study().units, STAND_IN, log=lambda line: None)


def test_an_error_on_the_cpu_is_raised(store_here, monkeypatch):
    def fail(*_):
        raise FAULTS["cudnn"]

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(lottery, "train_level", fail)
    with pytest.raises(RuntimeError, match="CUDNN") as caught:
        sweep.run(tiny_study().units, "cpu", log=lambda line: None)
    assert not isinstance(caught.value, gpu.Lost)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_the_gpu_it_asks_for_a_real_run_continues_on_the_cpu(tmp_path, monkeypatch):
    """Spawned processes, torch's own error."""
    runs_in(tmp_path / "runs", monkeypatch)
    monkeypatch.setattr(processes, "resolve", lambda device, log: device)
    said = []
    sweep.run(tiny_study().units, "cuda", 1, log=said.append)
    assert len(list((tmp_path / "runs").rglob("rows.csv"))) == len(tasks_of(tiny_study().units))
    (line,) = [line for line in said if "GPU" in line]
    assert one_line(line) and line.startswith("the GPU is not used: ")
    one = numbers(tmp_path / "runs")
    runs_in(tmp_path / "other" / "runs", monkeypatch)
    sweep.run(tiny_study().units, "cpu", 1, log=lambda line: None)
    assert one == numbers(tmp_path / "other" / "runs")


@pytest.mark.slow
def test_a_process_for_the_cpu_sees_no_gpu():
    for device, seen in (("cpu", ""), ("cuda", os.environ.get("CUDA_VISIBLE_DEVICES"))):
        pool = processes.pool(1, device=device)
        assert pool.submit(os.getenv, "CUDA_VISIBLE_DEVICES").result() == seen
        processes.stop(pool)


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 1, 2])
def test_weights_are_trained_again_on_the_cpu_where_the_gpu_fails(store_here, monkeypatch, at):
    study, said = tiny_study(), []
    sweep.run(study.units, "cpu", 1, log=lambda line: None)
    tasks = [(unit, level) for unit in study.units if unit.prunes for level in unit.levels]
    keep, calls = sweep.keep_weights, []

    def broken(unit, level, device):
        calls.append(device)
        if len(calls) > at and device != "cpu":
            raise gpu.Lost("AcceleratorError: CUDA error: device-side assert triggered")
        return keep(unit, level, device)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Inline)
    monkeypatch.setattr(worker, "keep_weights", broken)
    monkeypatch.setattr("lthcore.runs.queue.as_completed", list)
    sweep.weights(tasks, STAND_IN, 1, said.append)
    assert all(store.find_weights(*task) for task in tasks)
    assert len([line for line in said if "the GPU failed" in line]) == 1
    counts = [line.split("]")[0] for line in said if line.startswith("[")]
    assert counts == [f"[{n}/{len(tasks)}" for n in range(1, len(tasks) + 1)]


@pytest.mark.slow
def test_a_ticket_is_compared_on_the_cpu_where_the_gpu_fails(monkeypatch):
    said, train_level, calls = [], lottery.train_level, []

    def broken(units, level, masks, load, **more):
        device = load.keywords["device"]
        calls.append(device)
        if len(calls) == 2:
            raise FAULTS["illegal access"]
        return train_level(units, level, masks, load, **more)

    monkeypatch.setattr(sweep, "resolve", lambda device, log: STAND_IN)
    monkeypatch.setattr(lottery, "train_level", broken)
    values = {name: v.numpy() for name, v in initial("mlp", 0, "theta0", 0).items()}
    ticket = tickets.Ticket({"model": "mlp"}, {n: m.numpy() for n, m in dense_mask("mlp").items()}, values)
    frame = experiments.compare(ticket, "smoke", 1, said.append, max_steps=3, test_images=50)
    assert calls == [STAND_IN, STAND_IN, *["cpu"] * (len(calls) - 2)] and set(frame["level"]) == {0, 1}
    assert len([line for line in said if "the GPU failed" in line]) == 1


# -------------------------------------------------------------------------------------------------------------- memory


def full():
    lost = gpu.Lost("OutOfMemoryError: CUDA out of memory")
    lost.full = True
    return lost


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1, 2, 3, 7, 8, 9])
def test_what_does_not_fit_is_halved_until_it_does(capacity):
    seen = []

    def train(groups):
        if len(groups) > capacity:
            raise full()
        seen.append(groups)
        return {group[0]: len(groups) for group in groups}

    out = gpu.fitting(train, [[n] for n in range(8)])
    assert list(out) == list(range(8)) and all(0 < n <= capacity for n in out.values())
    assert sorted(group[0] for groups in seen for group in groups) == list(range(8))


def test_one_that_does_not_fit_alone_is_lost_and_other_faults_are_not_halved():
    for error, groups in ((full(), [[0]]), (gpu.Lost("CUDA error"), [[0], [1]])):
        calls = []

        def train(groups, error=error, calls=calls):
            calls.append(groups)
            raise error

        with pytest.raises(gpu.Lost):
            gpu.fitting(train, groups)
        assert len(calls) == 1


@pytest.mark.slow
def test_what_an_error_held_is_let_go_before_less_is_tried():
    class Tensor:
        alive = 0

        def __init__(self):
            Tensor.alive += 1

        def __del__(self):
            Tensor.alive -= 1

    def train(groups):
        assert Tensor.alive == 0
        held = Tensor()
        with gpu.guarded(STAND_IN):
            if len(groups) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
        del held
        return dict.fromkeys(groups[0], 1)

    assert gpu.fitting(train, [[0], [1], [2]]) == {0: 1, 1: 1, 2: 1}


@pytest.mark.slow
def test_replicates_without_room_are_trained_in_halves_for_real(store_here, monkeypatch):
    study = experiments.study("task1", "smoke", replicates=4, overrides={"max_steps": 5, "test_images": 100})
    tasks = [(u, 0) for u in study.units if u.arm == "t1_on_s1"]
    train_level, together = lottery.train_level, []

    def small_device(units, *more):
        if len(units) > 2:
            raise FAULTS["no memory"]
        together.append(len(units))
        return train_level(units, *more)

    store.make()
    monkeypatch.setattr(lottery, "train_level", small_device)
    assert len(sweep.run_levels(tasks, STAND_IN)) == 4 and together == [2, 2]
    assert [store.find_level(*task).facts["facts"]["at_once"] for task in tasks] == [2] * 4


@pytest.mark.parametrize("model", ["mlp", "lenet5", "conv2", "conv4", "conv6"])
def test_the_estimate_of_memory_counts_weights_images_and_activations(model):
    config = configure("mlp" if model == "mlp" else "task1", model=model)
    shared, each = gpu.bytes_of(config)
    weights = sum(v.numel() for v in initial(model, 0, "theta0", 0).values())
    validation = round(config.validation * 60_000) * 784
    assert each > 4 * (5 * weights + validation) and shared > 4 * 784 * 70_000
    assert gpu.at_once(config, shared) == gpu.at_once(config, 0) == 1  # at least one is tried
    many = gpu.at_once(config, 15e9)
    assert shared + many * each <= gpu.SHARE * 15e9 < shared + (many + 1) * each
    large = configure("mlp" if model == "mlp" else "task1", model=model, batch_size=600)
    assert gpu.bytes_of(large)[1] - each > 4 * 500 * 2 * 0.99 * activations(build(model, device="meta"), (1, 28, 28))


def test_activations_are_counted_at_their_sizes():
    assert activations(build("mlp", device="meta"), (1, 28, 28)) == 3 * (300 + 100 + 10)
    assert activations(build("lenet5", device="meta"), (1, 28, 28)) == 3 * (6 * 28**2 + 16 * 10**2 + 120 + 84 + 10)
    assert activations(build("conv2", device="meta"), (3, 32, 32)) == 3 * (2 * 64 * 32**2 + 256 + 256 + 10)


# ------------------------------------------------------------------------------------------------- the step, as on CUDA


def few(device="cpu"):
    random = torch.Generator().manual_seed(0)
    images, labels = torch.randn(100, 1, 28, 28, generator=random), torch.randint(0, 10, (100,), generator=random)
    images, labels = images.to(device), labels.to(device)
    return Split((images, labels), (images[:30], labels[:30]), (images, labels), torch.arange(90).to(device))


def test_a_step_that_cannot_be_recorded_is_stepped_plainly():
    def record(step, batch):
        step(batch)
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    parts = [initial("mlp", 0, "theta0", 0)], [dense_mask("mlp")], [few()], small()
    with pytest.warns(
        UserWarning, match=r"cannot be recorded here \(CUDA error: operation .* capturing\): plain steps"
    ):
        engine = Lockstep(*parts, record)
    plain, order = Lockstep(*parts), torch.arange(60)[None]
    assert engine.replay is None and torch.equal(engine.advance(order), plain.advance(order))
    assert all(torch.equal(v, plain.values()[n]) for n, v in engine.values().items())


def test_without_memory_for_a_recording_fewer_are_trained():
    def record(step, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        Lockstep([initial("mlp", 0, "theta0", 0)], [dense_mask("mlp")], [few()], small(), record)


FAKES = [{}, {"model": "lenet5"}, {"optimizer": "sgd", "momentum": 0.9}, {"optimizer": "adamw", "weight_decay": 0.1}]


@pytest.mark.parametrize("settings", [*FAKES, {"dropout": 0.3}, {"model": "lenet5", "pool": "max"}], ids=str)
def test_no_step_mixes_devices(monkeypatch, settings):
    """Tensors without content that know that they are on a GPU: torch refuses what it would refuse there.

    But for the recording and the backward pass, which ask CUDA itself, and SGD's kernel, which takes none of these.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    config = small(**settings)
    monkeypatch.setattr(Lockstep, "_checked", lambda self, record: None)
    monkeypatch.setattr(torch.autograd, "grad", lambda loss, parameters: [torch.zeros_like(p) for p in parameters])
    monkeypatch.setattr(torch, "_fused_sgd_", lambda *_, **__: None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        values = [
            {name: mode.from_tensor(v) for name, v in initial(config.model, 0, "theta0", r).items()} for r in range(3)
        ]
        masks = [{name: mode.from_tensor(m) for name, m in dense_mask(config.model).items()} for _ in values]
        split = few("cuda")
        engine = Lockstep(values, masks, [split] * 3, config)
        losses = engine.advance(torch.arange(50, device="cuda").expand(3, -1))
        logits = engine.logits(split.test[0].expand(3, *split.test[0].shape))
        engine.restore({name: value.cpu() for name, value in engine.values().items()})
    assert (
        losses.device.type == logits.device.type == "cuda" and losses.shape == (3, 3) and logits.shape == (3, 100, 10)
    )
    assert all(parameter.device.type == "cuda" for parameter in engine.parameters.values())
    assert (config.optimizer == "sgd") != engine.optimizer.defaults.get("capturable", False)


@pytest.mark.slow
def test_evaluation_takes_no_more_memory_for_more_replicates(monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    monkeypatch.setattr(Lockstep, "_checked", lambda self, record: None)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        split, chunks = few("cuda"), []
        for n in (1, 64, 1000):
            values = [{k: mode.from_tensor(v) for k, v in initial("lenet5", 0, "theta0", 0).items()}] * n
            masks = [{k: mode.from_tensor(m) for k, m in dense_mask("lenet5").items()}] * n
            chunks.append(n * Lockstep(values, masks, [split] * n, small(model="lenet5")).chunk)
    assert chunks[0] == 5000 and all(5000 <= chunk < 14_000 for chunk in chunks)


# ------------------------------------------------------------------------------------------------------------ the tool


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("gpu_tool", ROOT / "tests/tools/gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_continues_after_a_failure(tool, tmp_path, capsys):
    journal, done = tool.Journal(tmp_path / "gpu.jsonl", "steps"), []

    def fail():
        raise FAULTS["cudnn"]

    journal.attempt("one", fail, "cpu")
    journal.attempt("two", lambda: done.append(2), "cpu")
    journal.attempt("two", lambda: done.append(3), "cpu")  # begun again: what was tried is not tried again
    with open(journal.path, "a") as f:
        f.write('{"part": "steps", "what": "cu')  # killed while it wrote
    assert done == [2]
    (failed,) = [line for line in journal.lines() if "failed" in line]
    assert failed["failed"] == "one" and failed["error"] == "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"


def test_the_tool_begins_a_part_again_where_the_device_is_gone(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "broken", lambda device: True)

    def fail():
        raise FAULTS["illegal access"]

    with pytest.raises(SystemExit) as caught:
        tool.Journal(tmp_path / "gpu.jsonl", "steps").attempt("one", fail, "cpu")
    assert caught.value.code == tool.AGAIN


PARTS = {
    "done": ("", "done in"),
    "hangs": (
        "import signal, time; signal.signal(signal.SIGALRM, signal.SIG_IGN); time.sleep(99)",
        "hung, and was ended",
    ),
    "crashes": ("import os; os.abort()", "ended with status -6 3 times"),
    "out of time": ("import sys; sys.exit(14)", "stopped when its time was up"),
    "again and again": ("import sys; sys.exit(3)", "ended with status 3 3 times"),
}


@pytest.mark.parametrize("kind", PARTS)
def test_a_part_ends_whatever_it_does(tool, tmp_path, monkeypatch, kind):
    code, text = PARTS[kind]
    (tmp_path / "part.py").write_text(code)
    monkeypatch.setattr(tool, "__file__", str(tmp_path / "part.py"))
    monkeypatch.setattr(tool, "GRACE", 0.5)
    given = {"until": time.time() + 6, "out": tmp_path, "device": "cpu", "preset": "smoke"}
    options = SimpleNamespace(**given, repeats=1, steps=1, replicates=1)
    began = time.time()
    assert tool.run_part("steps", options).startswith(text) and time.time() - began < 8


def test_the_projection_is_what_was_measured_times_what_there_is(tool):
    lines = [{"kind": "a", "groups": 30}, {"kind": "b", "groups": 10}, {"kind": "c", "groups": 5}, {"replicates": 16}]
    assert tool.projection(lines) is None
    what = "seconds of a level of all replicates"
    lines += [{"what": what, "at": "a", "value": 4.0}, {"what": what, "at": "b", "value": 6.0}]
    assert tool.projection(lines) == {
        "replicates": 16, "minutes": 3.0, "minutes_by_kind": {"a": 2.0, "b": 1.0}, "without": ["c"], "n": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("fetch", "text"),
    [
        (RuntimeError("no source has the right train-images-idx3-ubyte"), "carry data/MNIST/raw along"),
        (ImportError("No module named 'torch'"), "a package is missing"),
        (None, "no CUDA device can be used here"),
    ],
)
def test_the_tool_says_in_one_line_what_is_missing(tool, monkeypatch, tmp_path, fetch, text):
    def fail():
        if fetch:
            raise fetch

    monkeypatch.setattr(download, "fetch", fail)
    monkeypatch.setattr(gpu, "find", lambda: (False, ""))
    with pytest.raises(SystemExit) as caught:
        tool.main(["--out", str(tmp_path / "out")])
    assert one_line(caught.value.code) and text in caught.value.code and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_tool_measures_every_part_on_a_stand_in(tool, tmp_path, monkeypatch):
    """On two replicates at most, and few steps: how fast the machine is, no test asks."""
    text = (ROOT / "tests/tools/gpu.py").read_text().replace("REPLICATES = (1, 4, 16, 64)", "REPLICATES = (1, 2)")
    here = "    from lthcore.runs import gpu\n"
    assert here in text
    text = text.replace(here, f"{here}    gpu.STEPS = 1\n")  # a whole batch and a short one
    (tmp_path / "tests" / "tools").mkdir(parents=True)
    (tmp_path / "tests" / "tools" / "gpu.py").write_text(text)  # a copy of the checkout with no figures and no git
    for name in ("lthcore", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = [sys.executable, "tests/tools/gpu.py", "--device", "cpu", "--minutes", "15", "--preset", "smoke"]
    command += ["--steps", "2", "--repeats", "2", "--replicates", "2", "--out", str(tmp_path / "out")]
    began = time.time()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert time.time() - began < 15 * 60 + 30
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    assert set(found["parts"]) == {"check", "steps", "graph", "report"} and found["failed"] == []
    assert all(text.startswith(("done", "stopped")) for text in found["parts"].values())
    assert found["self_check"]["kinds"] == found["self_check"]["passed"] > 0
    assert {"processor", "torch", "code", "repeats", "steps", "projection"} <= set(found)
    table = (tmp_path / "out" / "gpu.csv").read_text()
    assert "MLP: eager torch / ours, per network" in table and "seconds of a level of all replicates" in table
    assert not (tmp_path / "figures").exists()
