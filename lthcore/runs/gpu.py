"""What a GPU must show before it is used, how much it holds at once, and what its errors mean.

Before the first level a few steps of every kind are trained on it and on the CPU and compared. What it raises later
becomes :class:`Lost`, upon which the queue continues on the CPU. A GPU is any device but "cpu": "cpu:0", which computes
on the CPU, stands in for one where there is none.
"""

import contextlib
import dataclasses
import gc
import math
import sys
import warnings
from glob import glob
from pathlib import Path
from typing import NamedTuple

from ..config import DATASETS
from ..schedule import ARCHITECTURES

STEPS = 3  # whole batches that the self-check trains, and a short one after them
SHOWN = 200  # test images whose logits it compares
PATIENCE = 300.0  # seconds for the self-check: a first CUDA context on a slow disk takes half a minute
# Its learning rates, whatever the settings: at a wild rate rounding errors explode.
RATES = {"adam": 0.0012, "adamw": 0.0012, "sgd": 0.01}
# Largest relative differences that pass, or NOISE times how far the CPU's own float32 is from float64, where that is
# more: both sides round and sum in other orders, which Adam makes visible where a gradient is nothing but rounding.
# Measured on a CPU over three steps, float32 against float64 (losses; weights, of the way that they went; logits): the
# MLP and LeNet-5 by all rules 1e-7, 3e-5, 1e-6; Conv-2 and -6, batch 60, 1e-7, 2e-3, 1e-4; Conv-6, batch 20, 8e-5, 0.1,
# 0.08. What is wrong rather than rounded is far outside. So are products rounded to 10 bits, as TF32 does it (the MLP
# by Adam: 4e-4, 7e-2, 1e-2), but for SGD, whose steps they change too little to be seen (5e-6, 6e-3, 6e-4).
TOLERANCES = {"losses": 1e-4, "weights": 2e-2, "logits": 2e-3}
NOISE = 5
# Of all weights, a replicate: values, gradients, two moments, the best so far, and what a graph or a copy adds.
COPIES = 10
SPARE = 0.3e9  # bytes for the libraries' workspaces
SHARE = 0.8  # of the free memory that is planned with: the rest is lost between the blocks
# What a GPU leaves on Linux: a driver's files, which may come only when it is first called, or the card itself
TRACES = "/dev/nvidia*", "/dev/nvhost*", "/dev/nvmap", "/dev/nvgpu*", "/dev/dxg", "/dev/kfd", "/proc/driver/nvidia"
VENDORS = "/sys/bus/pci/devices/*/vendor"
NVIDIA = "0x10de"


class Lost(RuntimeError):
    """A GPU that failed or whose results are wrong; states the reason in one line."""

    full = False  # whether its memory was what failed


class Seen(NamedTuple):
    """What the self-check found."""

    name: str
    free: int  # bytes of its memory
    kinds: int
    worst: dict  # of each of TOLERANCES the largest relative difference
    warned: tuple  # lines

    def line(self):
        """The result in one line: str."""
        within = ", ".join(f"{what} within {value:.1g}" for what, value in self.worst.items())
        text = f"the GPU ({self.name}) agrees with the CPU in {self.kinds} kinds of steps: {within} (relative)"
        return "; ".join([text, *self.warned])


def one_line(error):
    """An error in one line: str. CUDA's messages have several lines, of which the first is enough."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    return f"{type(error).__name__}: {lines[0][:200]}".removesuffix(": ")


def not_used(why):
    """The message about a GPU that is not used at all: str."""
    return f"the GPU is not used: {why}; training continues on the CPU"


def given_up(why):
    """The message about a GPU that failed during a run: str."""
    return f"the GPU failed: {why}; remaining levels are trained on the CPU"


@contextlib.contextmanager
def guarded(device):
    """Turn what is raised on a GPU into :class:`Lost`, but for what the study itself refuses.

    An error of this code included: the CPU gives the level another chance, and raises it again if it is ours.
    """
    try:
        yield
    except (Lost, ValueError, ArithmeticError):  # a loss that is not finite is one on the CPU too
        raise
    except Exception as error:
        if device == "cpu":
            raise
        import torch

        lost = Lost(one_line(error))
        lost.full = isinstance(error, torch.OutOfMemoryError)
        raise lost from error


def fitting(train, groups):
    """What ``train(groups)`` gives, a dict; in halves where all of them together do not fit into the GPU's memory."""
    try:
        return train(groups)
    except Lost as lost:
        if not lost.full or len(groups) == 1:
            raise
    import torch

    gc.collect()  # only now, since the error kept alive what it failed at
    torch.cuda.empty_cache()
    half = len(groups) // 2
    return fitting(train, groups[:half]) | fitting(train, groups[half:])


def or_on_the_cpu(call, device, log):
    """``call(device)``, or ``call("cpu")`` where that device is a GPU and fails, and the one that it was: a pair."""
    try:
        with guarded(device):
            return call(device), device
    except Lost as lost:
        log(given_up(lost))
    return call("cpu"), "cpu"


def possible():
    """Whether this machine may have a GPU, without loading torch, which takes seconds."""
    if sys.platform != "linux" or any(glob(name) for name in TRACES):
        return True
    with contextlib.suppress(OSError):
        return any(Path(vendor).read_text().strip() == NVIDIA for vendor in glob(VENDORS))
    return True


def find():
    """Whether torch finds a CUDA device, and in one line what it complained about: (bool, str).

    An old driver is a warning there, and no device.
    """
    import torch

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            there, complaint = torch.cuda.is_available(), ""
        except Exception as error:
            there, complaint = False, one_line(error)
    if not there and caught and not complaint:
        complaint = one_line(caught[0].message)
    return there, complaint


# ----------------------------------------------------------------------------------------------------- the self-check


OF_STEPS = ("momentum", "weight_decay", "frozen_below", "dropout", "warmup")  # 0 where a step is without


def kinds(tasks):
    """A (Config, subset) of every kind of step among (unit, level) tasks: list."""
    out = {}
    for unit, level in tasks:
        c = unit.config.at(level)
        kind = c.dataset, c.model, c.activation, c.pool, c.batch_size, c.optimizer
        used = (getattr(c, name) > 0 for name in OF_STEPS)
        out.setdefault((*kind, *used), (c, unit.subset))
    return list(out.values())


def check(kinds, device):
    """Train a few steps of every kind on a GPU and on the CPU and compare.

    Parameters
    ----------
    kinds : list of (Config, str)
        As of :func:`kinds`.
    device : str

    Returns
    -------
    Seen

    Raises
    ------
    Lost
        Where the GPU fails, differs by more than ``TOLERANCES``, or has too little memory.
    """
    import torch

    from .. import data

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            name, free = _properties(torch.device(device))
            worst = dict.fromkeys(TOLERANCES, 0.0)
            for config, subset in kinds:
                shared, each = bytes_of(config)
                if free < shared + each:
                    raise Lost(f"{free / 1e9:.1f} GB of its memory are free, {(shared + each) / 1e9:.1f} GB are needed")
                found, allowed = differences(config, subset, device)
                for what, value in found.items():
                    if not value <= allowed[what]:  # NaN as well
                        kind = f"{config.model} by {config.optimizer}, batch {config.batch_size}"
                        limit = f"at most {allowed[what]:.2g} is rounding"
                        raise Lost(f"{kind}: its {what} differ from the CPU's by {value:.2g}, relatively; {limit}")
                    worst[what] = max(worst[what], value)
        except Lost:
            raise
        except Exception as error:
            warned = "".join(f" ({line})" for line in _lines(caught)[:1])
            raise Lost(one_line(error) + warned) from error
        finally:
            data.split.cache_clear()  # a GPU's process has no use for the images on the CPU
            data.whole.cache_clear()
    return Seen(name, free, len(kinds), worst, tuple(_lines(caught)))


def _lines(caught):
    return list(dict.fromkeys(one_line(w.message) for w in caught if issubclass(w.category, UserWarning)))


def _properties(device):
    """Name and free bytes of a device."""
    import torch

    if device.type != "cuda":
        return str(device), 1 << 40
    return torch.cuda.get_device_name(device), torch.cuda.mem_get_info(device)[0]


def differences(config, subset, device):
    """Largest relative differences of a few steps of one kind on a device from those on the CPU, and those that pass.

    Two replicates in lockstep on the device, a dense network and a masked one; each alone on the CPU.

    Parameters
    ----------
    config : Config
    subset : str
    device : str

    Returns
    -------
    found, allowed : dict of str to float
        ``losses``; ``weights``, of each tensor against the way that it went; ``logits``.
    """
    import torch

    from .. import data, models, pruning

    here, there = (data.split(config, subset, 0, where) for where in ("cpu", device))
    gentle = dataclasses.replace(config, lr=RATES[config.optimizer], dropout=0.0, warmup=3 * bool(config.warmup))
    random = torch.Generator().manual_seed(0)
    dense = pruning.dense_mask(config.model)
    masks = [dense, {name: torch.rand(m.shape, generator=random) < 0.5 for name, m in dense.items()}]
    values = [models.initial(config.model, config.seed, "theta0", r) for r in range(2)]
    places = here.chosen[: STEPS * config.batch_size + config.batch_size // 2]
    orders = [places, places.flip(0)]
    if config.dropout:  # whose draws are the device's own, so that all it can be is finite
        wild = dataclasses.replace(gentle, dropout=config.dropout)
        if not all(end["losses"].isfinite().all() for end in _few_steps(values, masks, there, orders, wild)):
            return {"losses": float("nan")}, TOLERANCES
    ends = _few_steps(values, masks, there, orders, gentle)
    alone = [_few_steps([values[r]], [masks[r]], here, [orders[r]], gentle)[0] for r in range(2)]
    few = here.train[0][orders[1]].double(), here.train[1][orders[1]]
    precise = here._replace(train=few, test=(here.test[0][:SHOWN].double(), None))
    doubles = {name: value.double() for name, value in values[1].items()}
    (exact,) = _few_steps([doubles], [masks[1]], precise, [torch.arange(len(places))], gentle)
    each = [_difference(*pair) for pair in zip(ends, alone, strict=True)]
    found = {what: _largest(one[what] for one in each) for what in TOLERANCES}
    noise = _difference(alone[1], exact)
    return found, {what: max(least, NOISE * noise[what]) for what, least in TOLERANCES.items()}


def _few_steps(values, masks, split, orders, config):
    """Replicates in lockstep: of each its losses, logits of some images, and how far its weights went."""
    import torch

    from ..engines.batched import Lockstep

    engine = Lockstep(values, masks, [split] * len(values), config)
    start = engine.values()
    losses = engine.advance(torch.stack(orders).to(split.train[1].device))
    images = split.test[0][:SHOWN]
    logits = engine.logits(images.expand(len(values), *images.shape))
    ways = {name: (end - start[name]).cpu() for name, end in engine.values().items()}
    parts = zip(losses.T.cpu(), logits.cpu(), strict=True)
    return [{"losses": a, "logits": b, "weights": {n: w[r] for n, w in ways.items()}} for r, (a, b) in enumerate(parts)]


def _difference(one, other):
    """Relative differences of two of what `_few_steps` gives."""
    out = {
        what: _ratio((one[what] - other[what]).abs().max(), other[what].abs().max()) for what in ("losses", "logits")
    }
    ways = other["weights"].items()
    return out | {"weights": _largest(_ratio((one["weights"][name] - way).norm(), way.norm()) for name, way in ways)}


def _largest(values):
    """The largest number; NaN counts as infinite, which `max` would overlook."""
    return max(math.inf if math.isnan(x) else x for x in values)


def _ratio(difference, size):
    """One number over another, 0 where both are 0."""
    return 0.0 if difference == 0 else float(difference) / max(float(size), 1e-30)  # NaN stays NaN


# ------------------------------------------------------------------------------------------------------------- memory


def bytes_of(config):
    """Estimated bytes of GPU memory for the training of one kind: shared by all replicates, and a replicate's own.

    Measured beside it by ``tests/tools/gpu.py``.
    """
    from ..engines.batched import EVALUATED, activations
    from ..models import build

    known = DATASETS[config.dataset]
    pixels, n_train, n_test = math.prod(known.shape), known.train, known.test
    floats = activations(build(config.model, config.activation, config.pool, "meta"), known.shape)
    layers = ARCHITECTURES[config.model].weights.values()
    weights = sum(math.prod(shape) + shape[0] for shape in layers)
    held_out = round(config.validation * n_train)
    shared = 4 * pixels * (2 * n_train + n_test) + EVALUATED + SPARE  # twice: while they are normalised
    each = 4 * (COPIES * weights + 2 * config.batch_size * floats)  # activations, and their gradients
    each += 4 * 2 * pixels * held_out + 16 * n_train  # validation images, stacked once more, and orders
    return int(shared), int(each)


def at_once(config, free):
    """How many replicates are trained at once in so many free bytes of a GPU: int."""
    shared, each = bytes_of(config)
    return max(1, int((SHARE * free - shared) // each))
