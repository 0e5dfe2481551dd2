"""Iterative magnitude pruning with rewinding: Frankle & Carbin 2019, section 1.

1. Initialise a network f(x; theta0).           `starting_values`
2. Train it.                                    `train`
3. Prune the smallest final magnitudes.         `magnitude`
4. Reset the survivors to their values in theta0 and go on with 2.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .models import initial
from .pruning import (
    chance_distance,
    dense_mask,
    diagnose,
    early_bird,
    live_units,
    magnitude,
    mask_distance,
    on_path,
    random_mask,
)
from .train import build_engine, train, train_together


class Played(NamedTuple):
    """One level: the mask it was trained under, what was seen, and the mask the next level starts from."""

    level: int
    mask: dict
    next_mask: dict | None  # None after the last level, and for arms that do not prune for themselves
    weights: dict
    rows: list  # (step, epoch, split, metric, value)
    start: dict  # the values that the survivors started from
    logits: object  # (N_test, 10) Tensor, at the last step
    epochs: list = ()  # (step, weights) at the start and the end of every epoch, where an early mask is asked for


def find_ticket(chain, load):
    """The loop itself: train, prune, rewind, level after level.

    Parameters
    ----------
    chain : Unit
        A unit without a source.
    load : callable
        Subset name -> :class:`lthcore.data.Split`.

    Yields
    ------
    Played
        The ticket at a level is (its `mask`, :func:`starting_values`).
    """
    mask = dense_mask(chain.config.model)
    for level in chain.levels:
        played = play(chain, level, mask, load)
        yield played
        mask = played.next_mask


def play(unit, level, mask, load):
    """One level of any arm: rewind, train under `mask`, and, in a chain, prune.

    Parameters
    ----------
    unit : Unit
    level : int
        One of ``unit.levels``.
    mask : dict of str to bool Tensor
        The chain's mask at this level.
    load : callable
        Subset name -> :class:`lthcore.data.Split`.

    Returns
    -------
    Played

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names the level and the step.
    """
    return early(unit, play_together([unit], level, [mask], lambda subset, *_: load(subset))[0])


def play_together(units, level, masks, load):
    """The same for replicates of one arm, in lockstep.

    Parameters
    ----------
    units : list of Unit
        Equal but for their replicates.
    level : int
    masks : list of dict of str to bool Tensor
    load : callable
        Subset name, replicate -> :class:`lthcore.data.Split`; for rewinding also with the chain's config.

    Returns
    -------
    list of Played
        One per unit; what is drawn early is left to :func:`early`.
    """
    config, subset = units[0].config, units[0].subset
    if units[0].mask == "random":
        masks = [random_mask(m, config.model, config.seed, u.replicate) for u, m in zip(units, masks, strict=True)]
    of_chain = (units[0].source or units[0]).config  # its data set may be another one
    starts = [starting_values(u, level, lambda subset, r=u.replicate: load(subset, r, of_chain)) for u in units]
    data, replicates = [load(subset, unit.replicate) for unit in units], [unit.replicate for unit in units]
    keys = {"level": level, "replicates": replicates, "subset": subset, "first": starts[0][1]}
    epochs = []
    if config.early_bird and units[0].source is None:
        keys["each_epoch"] = lambda *of_epoch: epochs.append(of_epoch)
    trained = train_together([values for values, _ in starts], masks, data, config, **keys)
    out = []
    for unit, mask, d, t, (start, first) in zip(units, masks, data, trained, starts, strict=True):
        rows = t.rows + _diagnosis(config, mask, d, t)
        if unit.beside:
            rows += _comparison(unit, level, mask, start, first, d, t)
        mine = [(step, {name: v[len(out)].cpu() for name, v in values.items()}) for step, values in epochs]
        out.append(Played(level, mask, prune(unit, level, mask, t.weights), t.weights, rows, start, t.logits, mine))
    return out


def prune(unit, level, mask, weights):
    """The mask that a chain's next level starts from, by the weights that this one ended in.

    None after the last level, and for an arm that does not prune for itself.
    """
    later = [k for k in unit.levels if k > level]
    return magnitude(weights, mask, unit.config.schedule[later[0]]) if later and unit.source is None else None


def early(unit, played):
    """A level as it was played, with the mask of its early epoch where ``config.early_bird`` asks for one.

    Rows are added, named by the level that the mask is for: ``mask_distance_2_0`` at epoch 3 is the distance of the
    masks after 0 and 3 epochs, ``drawn_epoch_2`` when it was drawn, ``chance_distance_2`` how far two random masks are
    apart.
    """
    if not (played.epochs and played.next_mask):
        return played
    end, level = max(row[:2] for row in played.rows), min(k for k in unit.levels if k > played.level)
    masks = [prune(unit, played.level, played.mask, weights) for _, weights in played.epochs]
    times = [(step, step * end[1] / end[0]) for step, _ in played.epochs]
    distances = np.array([[mask_distance(a, b) for b in masks] for a in masks])
    at = early_bird(distances, unit.config.early_bird)
    facts = {"drawn_epoch": times[at][1], "chance_distance": chance_distance(masks[at])}
    rows = [(*end, "mask", f"{name}_{level}", value) for name, value in facts.items()]
    for j, time in enumerate(times):
        rows += [(*time, "mask", f"mask_distance_{level}_{i}", float(distances[i, j])) for i in range(j)]
    return played._replace(next_mask=masks[at], rows=played.rows + rows)


def starting_values(unit, level, load):
    """The values that a level's survivors start from, and the step they belong to: (dict of Tensor, int).

    Rewinding to step k > 0 (Frankle et al. 2020) trains the chain's dense network again for k steps: a pure
    function, so nothing need be kept for it.
    """
    chain, config = unit.source or unit, unit.config
    if unit.start == "fresh_head":
        values, k = starting_values(replace(unit, start="theta0"), level, load)
        fresh = initial(config.model, config.seed, "reinit", unit.replicate, level)
        return values | {name: fresh[name] for name in list(fresh)[-2:]}, k  # the last layer's weight and bias
    if unit.start.startswith("reinit"):
        again = [unit.start] if unit.start != "reinit" else []
        return initial(config.model, config.seed, "reinit", unit.replicate, level, *again), 0
    theta0 = initial(config.model, config.seed, "theta0", unit.replicate)
    k = config.rewind_step if level else 0
    if k == 0:
        return theta0, 0
    keys = {"level": 0, "replicate": unit.replicate, "subset": chain.subset}
    dense = train(theta0, dense_mask(config.model), load(chain.subset), chain.config, last=k, **keys)
    return dense.weights, k


def untrained(chain):
    """The masks of a chain if training changed nothing, level after level: theta0 pruned by its own magnitudes.

    What counting alone foretells, before any training: which layers and outputs a schedule starves.
    """
    config, mask = chain.config, dense_mask(chain.config.model)
    theta0 = initial(config.model, config.seed, "theta0", chain.replicate)
    for counts in config.schedule:
        mask = magnitude(theta0, mask, counts)
        yield mask


def _comparison(unit, level, mask, start, first, data, trained):
    """Rows that set a network beside another (Frankle et al. 2020, sections 3 and 4).

    ``distance`` is the Euclidean distance of the survivors' final weights; ``path_accuracy:0.3`` and ``path_loss:0.3``
    are taken three tenths of the straight way from one network to its copy in another order.
    """
    config, copy = unit.config, unit.beside == "order"
    keys = {"level": level, "replicate": unit.replicate, "subset": unit.subset, "first": first, "order": int(copy)}
    other = train(start, mask if copy else dense_mask(config.model), data, config, **keys).weights
    apart = [(trained.weights[f"{name}.weight"] - other[f"{name}.weight"])[m] for name, m in mask.items()]
    facts = {"distance": torch.cat(apart).double().norm().item()}
    if copy:
        engine, (images, labels) = build_engine([other], [mask], [data], config), data.test
        for tenth in range(11):
            engine.restore({name: torch.lerp(w, other[name], tenth / 10)[None] for name, w in trained.weights.items()})
            logits = engine.logits(images[None])[0].double()
            facts[f"path_accuracy:{tenth / 10}"] = 100 * (logits.argmax(1) == labels).double().mean().item()
            facts[f"path_loss:{tenth / 10}"] = F.cross_entropy(logits, labels).item()
    step, epoch = max(row[:2] for row in trained.rows)
    return [(step, epoch, "test" if "path" in name else "mask", name, value) for name, value in facts.items()]


def _diagnosis(config, mask, data, trained):
    """Rows of the collapse diagnosis, and of what the network answers on the test images at its last step."""
    facts = diagnose(config.model, mask)
    live = live_units(on_path(config.model, mask), list(mask)[-1])
    answers, labels = trained.logits.argmax(1), data.test[1].cpu()
    classes = range(trained.logits.shape[1])
    given = [int((answers == c).sum()) for c in classes]
    dead = [c for c in classes if c not in live]
    possible = live + sorted(dead, key=lambda c: -trained.logits[0, c])[:1]  # constant logits: only the largest can win
    facts |= {f"live_output:{c}": int(c in live) for c in classes}
    facts["answered_classes"] = sum(n > 0 for n in given)
    facts["answers_outside"] = sum(n for c, n in enumerate(given) if c not in possible)
    facts["top_answer"] = top = max(classes, key=lambda c: given[c])
    facts["top_answer_share"] = 100 * (labels == top).double().mean().item()
    step, epoch = max(row[:2] for row in trained.rows)
    return [(step, epoch, "test" if "answer" in name else "mask", name, value) for name, value in facts.items()]
