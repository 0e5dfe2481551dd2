"""Iterative magnitude pruning with rewinding: Frankle & Carbin 2019, section 1.

1. Initialise a network f(x; theta0).           `starting_values`
2. Train it.                                    `train`
3. Prune the smallest final magnitudes.         `pruned`, by this criterion or another
4. Reset the survivors to their values in theta0 and go on with 2.

What else survivors may start from stands in `methods.REWINDS`; to add a rule, write a function and add a line there.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .methods import REWINDS as REWINDS  # where new ones are added
from .methods import SETTINGS, find, function
from .models import initial
from .pruning import (
    by_criterion,
    chance_distance,
    costs,
    dense_mask,
    diagnose,
    early_bird,
    keep_top,
    live_units,
    magnitude,
    mask_distance,
    on_path,
    random_mask,
    scored,
    without_filters,
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
    mask, before = dense_mask(chain.config.model), None
    for level in chain.levels:
        played = play(chain, level, mask, load, before)
        yield played
        mask, before = played.next_mask, played.weights


def play(unit, level, mask, load, before=None, values=None):
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
    before : dict of str to Tensor, optional
        Final weights and biases of the level before, for a chain that goes on from them.
    values : dict of str to Tensor, optional
        What the survivors start from, for a ticket that was found elsewhere; by default the unit's own.

    Returns
    -------
    Played

    Raises
    ------
    FloatingPointError
        If a loss is not finite; names the level and the step.
    ValueError
        If there is no such criterion or rewind rule, or `before` is missing.
    """
    started = {"befores": [before], "values": values and [values]}
    (played,) = play_together([unit], level, [mask], lambda subset, *_: load(subset), **started)
    return pruned(unit, played, load(unit.subset))


def play_together(units, level, masks, load, befores=None, values=None):
    """The same for replicates of one arm, in lockstep.

    Parameters
    ----------
    units : list of Unit
        Equal but for their replicates.
    level : int
    masks : list of dict of str to bool Tensor
    load : callable
        Subset name, replicate -> :class:`lthcore.data.Split`; for rewinding also with the chain's config.
    befores : list of dict of str to Tensor, optional
        Final weights and biases of the level before.
    values : list of dict of str to Tensor, optional
        What each starts from, at ``config.rewind_step``; by default :func:`starting_values`.

    Returns
    -------
    list of Played
        One per unit; the next mask is left to :func:`pruned`, since chains that prune otherwise may share a level.
    """
    config, subset = units[0].config.at(level), units[0].subset
    if units[0].mask == "random":
        masks = [random_mask(m, config.model, config.seed, u.replicate) for u, m in zip(units, masks, strict=True)]
    of_chain = (units[0].source or units[0]).config  # its data set may be another one
    if values:
        starts = [(v, config.rewind_step if level else 0) for v in values]
    else:
        starts = [
            starting_values(unit, level, lambda subset, r=unit.replicate: load(subset, r, of_chain), before)
            for unit, before in zip(units, befores or [None] * len(units), strict=True)
        ]
    data, replicates = [load(subset, unit.replicate) for unit in units], [unit.replicate for unit in units]
    keys = {"level": level, "replicates": replicates, "subset": subset, "first": starts[0][1]}
    epochs = []
    if config.early_bird and units[0].source is None:
        keys["each_epoch"] = lambda *of_epoch: epochs.append(of_epoch)
    trained = train_together([values for values, _ in starts], masks, data, config, **keys)
    out = []
    for unit, mask, d, t, (start, first) in zip(units, masks, data, trained, starts, strict=True):
        rows = t.rows + _diagnosis(config, mask, d, t)
        if unit.beside in ("order", "dense"):
            rows += _comparison(unit, level, mask, start, first, d, t)
        elif unit.beside == "deletion":
            rows += _deletion(unit, mask, start, d, t)
        elif unit.beside == "smaller":
            rows += _smaller(unit, mask, d, t)
        mine = [(step, {name: v[len(out)].cpu() for name, v in each.items()}) for step, each in epochs]
        out.append(Played(level, mask, None, t.weights, rows, start, t.logits, mine))
    return out


def pruned(unit, played, data):
    """A level as it was trained, with the mask that its chain's next level starts from.

    It is None after the last level, and for an arm that does not prune for itself. Where ``config.early_bird`` asks for
    the mask of an early epoch, rows are added, named by the level that the mask is for: ``mask_distance_2_0`` at epoch
    3 is the distance of the masks after 0 and 3 epochs, ``drawn_epoch_2`` when it was drawn, ``chance_distance_2`` how
    far two random masks are apart.
    """
    level = min((k for k in unit.levels if k > played.level), default=None)
    if unit.source or level is None:
        return played
    weights = _weights_to_score(unit, played.start, played.weights)
    counts, epochs = unit.config.schedule[level], played.epochs or [(None, weights)]
    masks = [by_criterion(unit, weights, played.mask, counts, data) for _, weights in epochs]
    if not played.epochs:
        return played._replace(next_mask=masks[0])
    end = max(row[:2] for row in played.rows)
    times = [(step, step * end[1] / end[0]) for step, _ in epochs]
    distances = np.array([[mask_distance(a, b) for b in masks] for a in masks])
    at = early_bird(distances, unit.config.early_bird)
    facts = {"drawn_epoch": times[at][1], "chance_distance": chance_distance(masks[at])}
    rows = [(*end, "mask", f"{name}_{level}", value) for name, value in facts.items()]
    for j, time in enumerate(times):
        rows += [(*time, "mask", f"mask_distance_{level}_{i}", float(distances[i, j])) for i in range(j)]
    return played._replace(next_mask=masks[at], rows=played.rows + rows)


def _weights_to_score(unit, start, final):
    """Those of a level's weights that the unit's criterion is given."""
    return start if find("criterion", unit.config.criterion).when == "start" else final


def reset(unit, level, before, load):
    """The values at step `config.rewind_step` of the dense training (Frankle & Carbin 2019; Frankle et al. 2020).

    For a step past 0 the chain's dense network is trained again so far: a pure function, so nothing need be kept.
    """
    chain, config = unit.source or unit, unit.config
    theta0 = initial(config.model, config.seed, "theta0", unit.replicate)
    k = config.rewind_step if level else 0
    if k == 0:
        return theta0, 0
    keys = {"level": 0, "replicate": unit.replicate, "subset": chain.subset}
    dense = train(theta0, dense_mask(config.model), load(chain.subset), chain.config, last=k, **keys)
    return dense.weights, k


def final(unit, level, before, load):
    """The final weights of the level before (Han et al. 2015): no reset.

    With the full length and rate of training this is learning-rate rewinding (Renda et al. 2020), since our rate is
    constant; with `retrain_epochs` and `retrain_lr` set lower, fine-tuning. The optimizer's moments start anew.
    """
    if before is None:
        raise ValueError(f"rewind = 'final': level {level} goes on from the level before, whose weights are not there")
    return before, 0


def check(settings):
    """Refuse, in one line, a criterion or a rewind rule that there is not; `settings` is a dict."""
    for setting in SETTINGS:
        if setting in settings:
            find(setting, settings[setting])


def starting_values(unit, level, load, before=None):
    """The values that a level's survivors start from, and the step they belong to: (dict of Tensor, int)."""
    config = unit.config
    if unit.start.startswith("reinit"):
        again = [unit.start] if unit.start != "reinit" else []
        return initial(config.model, config.seed, "reinit", unit.replicate, level, *again), 0
    own = level and unit.source is None  # who borrows the masks starts anew
    rule = function(find("rewind", config.rewind).values) if own else reset
    values, first = rule(unit, level, before, load)
    if unit.start == "fresh_head":
        fresh = initial(config.model, config.seed, "reinit", unit.replicate, level)
        values = values | {name: fresh[name] for name in list(fresh)[-2:]}  # the last layer's weight and bias
    return values, first


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


DELETED_TO = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02)  # densities


def _deletion(unit, mask, start, data, trained):
    """Rows of this network pruned at once to every density, over all layers, by its criterion, and not trained again.

    ``deleted_loss:0.5`` and ``deleted_accuracy:0.5`` at half of the weights (LeCun et al. 1990, Figure 1), on the test
    images and, since that is what second derivatives foretell, on as many training images; and, by ``obd``,
    ``deleted_foretold:0.5``: the rise of the loss that the saliencies of what is deleted add up to.
    """
    scores = scored(unit, _weights_to_score(unit, start, trained.weights), mask, data)
    total, (step, epoch) = sum(m.numel() for m in mask.values()), max(row[:2] for row in trained.rows)
    rows = []
    for density in DELETED_TO:
        kept = keep_top(scores, mask, {"*": round(density * total)})
        engine = build_engine([trained.weights], [kept], [data], unit.config)
        for split, (images, labels) in (("train", data.first(len(data.test[1]))), ("test", data.test)):
            logits = engine.logits(images[None])[0].double()
            loss = F.cross_entropy(logits, labels).item()
            accuracy = 100 * (logits.argmax(1) == labels).double().mean().item()
            facts = {"loss": loss, "accuracy": accuracy}
            if unit.config.criterion == "obd" and split == "train":
                facts["foretold"] = sum(scores[name][~kept[name]].sum().item() for name in mask)
            rows += [(step, epoch, split, f"deleted_{name}:{density}", value) for name, value in facts.items()]
    return rows


def _smaller(unit, mask, data, trained):
    """Rows of the network whose removed filters are taken out: what it costs, and how far its logits are from these."""
    images = data.test[0].cpu()
    net = without_filters(unit.config, trained.weights, mask)
    apart = (net(images) - trained.logits).abs().max().item()
    facts = costs(net, images.shape[1:]) | {"smaller_apart": apart}
    step, epoch = max(row[:2] for row in trained.rows)
    return [(step, epoch, "mask", name, value) for name, value in facts.items()]


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
