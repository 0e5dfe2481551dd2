"""How long a level takes on this machine, from a few timed steps of its kind."""

import time
from concurrent.futures.process import BrokenProcessPool

import numpy as np

from ..config import Config
from ..schedule import evaluation_steps, total_steps
from ..unit import FrozenOutside
from . import download, gpu, limits

DENSITIES = (0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.28, 0.29, 0.5, 1.0)  # at which steps are timed, for estimates
OVERHEAD = 0.2  # seconds that a level takes besides steps and evaluations: masks, rows, files
TIMES = {}  # (kind of step, device) -> seconds of a step, and of evaluating an image, at each of DENSITIES


def _kind(config):
    """The settings that the time of a step depends on: pairs of name and value. The density is left out."""
    names = "model", "activation", "pool", "batch_size", "optimizer", "dropout"
    some = {"momentum": 0.9, "weight_decay": 1e-4}  # whatever is more than 0 takes as long
    some = {name: value if getattr(config, name) else 0.0 for name, value in some.items()}
    return *((name, getattr(config, name)) for name in names), *some.items()


def time_steps(plan, pool, workers):
    """Time each kind of step in all processes at once, as they will train: cores that are all busy are slower."""
    kinds = {_kind(unit.config) for unit, _ in plan.missing}
    kinds = sorted(kind for kind in kinds if (kind, plan.device) not in TIMES)
    try:
        every = [future.result() for future in [pool.submit(_measure_all, kinds, plan.device) for _ in range(workers)]]
    except BrokenProcessPool:  # the levels will see that, and get a fresh one
        return
    TIMES.update({(kind, plan.device): np.mean(times, axis=0) for kind, *times in zip(kinds, *every, strict=True)})


def _measure_all(kinds, device):
    with gpu.guarded(device):
        return [_measure(kind, device) for kind in kinds]


def seconds_per_level(unit, level, device="cpu"):
    """Seconds for one level of this unit on one thread, or alone on a GPU, from measured steps and evaluations."""
    config = unit.config.at(level)
    if (kind := (_kind(config), device)) not in TIMES:
        (TIMES[kind],) = _measure_all([kind[0]], device)
    density = 1.0 if isinstance(unit.mask, FrozenOutside) else config.density(level)
    others = {"order": density, "dense": 1.0}  # what trains another network beside it
    densities = [density, *(others[probe] for probe in unit.probes if probe in others)]
    step, image = (sum(np.interp(densities, DENSITIES, times)) for times in TIMES[kind])
    n_train, n_validation, n_test = download.sizes(config, unit.subset)
    validation, test = evaluation_steps(config, n_train)
    evaluated = n_validation * len(validation) + n_test * (len(test) + 1)
    return float(OVERHEAD + step * total_steps(config, n_train) + image * evaluated)


@limits.one_thread()
def _measure(kind, device="cpu"):
    """Seconds of one optimizer step and of evaluating one image at each of ``DENSITIES``: two lists of float.

    On MNIST itself, in random order: fetching the images from memory is a good part of a sparse step.
    """
    import torch

    from .. import data, lottery, train

    config = Config(experiment="task1", **dict(kind))
    model, batch_size = config.model, config.batch_size
    dense = not train.choose_engine(config, device).skips_pruned  # then a mask makes nothing cheaper
    random = torch.Generator().manual_seed(0)
    images, labels = data.whole(device=device)["train"]
    batches = 3 if dense and device == "cpu" else 15
    order = torch.randperm(len(images), generator=random)[: batches * batch_size].to(device)
    few = images[order[:500]]
    steps, evaluations = [], []
    for density in DENSITIES[-1:] if dense else DENSITIES:
        mask = {k: torch.rand(m.shape, generator=random) < density for k, m in lottery.dense_mask(model).items()}
        values = lottery.initial(model, 0, "theta0", 0)
        engine = train.build_engine([values], [mask], [data.Split((images, labels), None, None)], config)
        engine.advance(order[None])  # once, to load or compile it
        engine.logits(few[None])
        steps.append(_median(lambda: engine.advance(order[None]), device) / -(-len(order) // batch_size))  # noqa: B023
        evaluations.append(_median(lambda: engine.logits(few[None]), device) / len(few))  # noqa: B023
    copies = len(DENSITIES) // len(steps)
    return steps * copies, evaluations * copies


def _median(call, device, times=3):
    """Seconds of a call, the median of a few."""
    import torch

    out = []
    for _ in range(times):
        started = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        out.append(time.perf_counter() - started)
    return sorted(out)[len(out) // 2]
