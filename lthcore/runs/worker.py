"""What a worker does: train a level from its mask and keep it; a level's mask, weights and ticket."""

import contextlib
import time
from functools import partial

import numpy as np

from .. import tickets
from ..schedule import ARCHITECTURES
from ..unit import Fresh, FrozenOutside, RandomLike
from . import gpu, plan, store

LATE = 90.0  # seconds for which a network folder may show an older state: NFS's longest by default is 60
PAUSE = 1.0  # seconds before a level that another run holds is checked again


def run_levels(tasks, device="cpu", pause=0):
    """Train a level of one unit, or of several at once, and keep it.

    Parameters
    ----------
    tasks : list of (Unit, int)
        Identical except for the replicate, or dense networks that chains share.
    device : {"cpu", "cuda"}
    pause : float
        Seconds to wait first.

    Returns
    -------
    list of (float, float) or None
        Per task: seconds, and final test accuracy in percent; 0 seconds where another run on the same store has
        finished it meanwhile, None where one is at it.

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names unit, level and step.
    """
    time.sleep(pause)
    store.check_there()
    with contextlib.ExitStack() as held:
        free = [task for task in tasks if held.enter_context(store.hold_level(*task))]
        out = {task: (0.0, found.final_accuracy()) for task in tasks if (found := plan.finished(*task))}
        if free := [task for task in free if task not in out]:
            for before in {unit.needs(level) for unit, level in free} - {None}:
                _await(before)
            out |= _train(free, device)
        return [out.get(task) for task in tasks]


def _await(task):
    """Wait until a finished level is visible: a network folder may show another machine's files late."""
    until = time.monotonic() + LATE
    while not plan.finished(*task) and time.monotonic() < until:
        time.sleep(PAUSE)


def _train(tasks, device):
    """Train levels at once, what they share once, and keep them: dict, task -> (seconds, accuracy)."""
    groups = {}
    for task in tasks:
        groups.setdefault(plan.training(task), []).append(task)
    return gpu.fitting(lambda groups: _train_at_once(groups, device), list(groups.values()))


def _train_at_once(groups, device):
    """The same for lists of tasks that share their training, all of which the memory must hold together."""
    started, tasks = time.monotonic(), [task for group in groups for task in group]
    every, facts = _train_together([group[0] for group in groups], device)
    seconds = (time.monotonic() - started) / len(tasks)
    facts = {"seconds": round(seconds, 3), "at_once": len(tasks), "preset": tasks[0][0].config.preset, **facts}
    out = {}
    for trained, group in zip(every, groups, strict=True):
        for unit, level in group:
            store.check_there()  # again: training may have taken long
            p = _pruned(unit, trained, device)
            next_mask = p.next_mask and {k: v.numpy() for k, v in p.next_mask.items()}
            if unit.continues:  # first, so that the level is not finished without them
                _save_weights(unit, level, p, facts)
            store.save_level(unit, level, p.rows, next_mask, facts)
            out[unit, level] = seconds, _final_accuracy(p)
    return out


def _save_weights(unit, level, trained, facts):
    arrays = ({name: v.numpy() for name, v in part.items()} for part in (trained.mask, trained.start, trained.weights))
    store.save_weights(unit, level, store.Weights(*arrays, trained.logits.numpy()), facts)


def _weights_before(unit, level, device):
    """What a chain that continues starts a level from; trained again, from level 0 on, where it has not been kept."""
    import torch

    before = unit.needs(level) if unit.continues else None
    if before is None:
        return None
    if store.find_weights(*before) is None:
        keep_weights(*before, device)
    return {name: torch.from_numpy(v) for name, v in store.find_weights(*before).final.items()}


def _pruned(unit, trained, device):
    """A level as it was trained, pruned as this unit prunes: chains may share it."""
    from .. import data, lottery

    with gpu.guarded(device):
        return lottery.prune_level(unit, trained, data.load(unit, device))


def _chain_mask(unit, level):
    """The chain's mask at a level: dict of str to bool array."""
    before, model = unit.needs(level), unit.config.model
    if before is None:
        return {name: np.ones(shape, bool) for name, shape in ARCHITECTURES[model].weights.items()}
    if (found := plan.finished(*before)) is None:
        raise ValueError(f"{before[0].key} level {before[1]}, whose pruning gives the mask, is not finished")
    return found.next_mask(model)


def _tensors(mask):
    import torch

    return {name: torch.from_numpy(m) for name, m in mask.items()}


def mask_at(unit, level):
    """The weights that the network of a level has: dict, layer name -> bool array.

    Raises
    ------
    ValueError
        If the level whose pruning gives it is not finished.
    """
    mask, config = _chain_mask(unit, level), unit.config
    if isinstance(unit.mask, FrozenOutside):
        return {name: np.ones_like(m) for name, m in mask.items()}
    if not isinstance(unit.mask, RandomLike):
        return mask  # without torch, which takes longer to import than a picture to draw
    from ..pruning import random_mask

    drawn = random_mask(_tensors(mask), config.model, config.seed, unit.replicate)
    return {name: m.numpy() for name, m in drawn.items()}


def _final_accuracy(trained):
    return [row[4] for row in trained.rows if row[2:4] == ("test", "accuracy")][-1]


def _train_together(tasks, device):
    """Train tasks of the same kind under their masks: list of TrainedLevel, and the facts of where that was done."""
    import torch

    from .. import data, lottery, train

    units, level = [unit for unit, _ in tasks], tasks[0][1]
    config, masks = units[0].config, [_tensors(_chain_mask(*task)) for task in tasks]
    previous = [_weights_before(*task, device) for task in tasks]
    engine = train.choose_engine(config, device).name
    facts = {"device": device, "engine": engine, "torch": torch.__version__, "code": store.code_version()}
    with gpu.guarded(device):
        try:
            trained = lottery.train_level(units, level, masks, partial(data.load, device=device), previous)
        except FloatingPointError as error:
            raise FloatingPointError(f"{', '.join(unit.key for unit in units)}: {error}") from None
        if device == "cuda":
            facts["gpu"] = torch.cuda.get_device_name()
    return trained, facts | store.machine()


def keep_weights(unit, level, device="cpu"):
    """Train a level from its mask and keep its weights.

    A level is a pure function of its mask (and of the weights before, where its chain continues), so its rows are those
    of the finished level, bit for bit where machine, versions and engine are the same.

    Returns
    -------
    tuple
        A line that says what came out and, if the level was finished before, whether its rows came out the same.
    """
    (trained,), facts = _train_together([(unit, level)], device)
    trained = _pruned(unit, trained, device)
    found = store.find_level(unit, level)
    same = () if found is None else (list(found.rows().itertuples(index=False, name=None)) == trained.rows,)
    _save_weights(unit, level, trained, facts)
    return f"{unit.arm} level {level}: test accuracy {_final_accuracy(trained):.2f}%", *same


def ticket(unit, level):
    """A level's ticket, with facts: :class:`lthcore.tickets.Ticket`.

    Raises
    ------
    ValueError
        If it has no such level or nothing is pruned, or its values at a rewind step past 0 have not been trained and
        kept.
    """
    from .. import data, lottery

    if level not in unit.levels:
        raise ValueError(f"level = {level!r}: must be one of {', '.join(map(str, unit.levels))}")
    if isinstance(unit.mask, FrozenOutside):
        raise ValueError(f"{unit.arm} has no tickets: its networks are dense, with weights that are not trained")
    kept, config = store.find_weights(unit, level), unit.config
    if kept:
        values = kept.start
    elif level and not isinstance(unit.start, Fresh) and (config.rewind_step or unit.continues):
        where = "that it starts from" if unit.continues else f"at step {config.rewind_step}"
        raise ValueError(f"the values {where} have not been kept: train the weights first")
    else:
        start, _ = lottery.starting_values(unit, level, data.load)
        values = {name: v.numpy() for name, v in start.items()}
    facts = {"unit": unit.key, "arm": unit.arm, "model": config.model, "level": level, "identity": unit.identity}
    facts |= {"density": config.density(level), "rewind_step": config.rewind_step if level else 0}
    if found := store.find_level(unit, level):
        facts["test_accuracy"] = found.final_accuracy()
    return tickets.Ticket(facts, mask_at(unit, level), values)
