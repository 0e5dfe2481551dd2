"""Iterative magnitude pruning with rewinding: Frankle & Carbin 2019, section 1.

1. Initialise a network f(x; theta0).           `starting_values`
2. Train it.                                    `train`
3. Prune the smallest final magnitudes.         `pruned`, by this criterion or another
4. Reset the survivors to their values in theta0 and go on with 2.

What else survivors may start from stands in `methods.REWINDS`; to add a rule, write a function and add a line there.
"""

from typing import NamedTuple

from .methods import DRAW_EARLY, PROBES, SETTINGS, find, function
from .methods import REWINDS as REWINDS  # where new ones are added
from .models import initial
from .pruning import by_criterion, dense_mask, random_mask
from .train import train, train_together


class Played(NamedTuple):
    """One level: the mask it was trained under, what was seen, and the mask the next level starts from."""

    level: int
    mask: dict
    next_mask: dict | None  # None after the last level, and for arms that do not prune for themselves
    weights: dict
    rows: list  # (step, epoch, split, metric, value)
    start: dict  # the values that the survivors started from
    logits: object  # (N_test, 10) Tensor, at the last step
    first: int = 0  # the step of the training that `start` belongs to
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
        mine = [(step, {name: v[len(out)].cpu() for name, v in each.items()}) for step, each in epochs]
        played = Played(level, mask, None, t.weights, t.rows, start, t.logits, first, mine)
        for probe in ("collapse", unit.beside) if unit.beside else ("collapse",):
            played = played._replace(rows=played.rows + function(PROBES[probe])(unit, played, d))
        out.append(played)
    return out


def pruned(unit, played, data):
    """A level as it was trained, with the mask that its chain's next level starts from.

    It is None after the last level, and for an arm that does not prune for itself. Where ``config.early_bird`` asks for
    the mask of an early epoch, the rows of :func:`lthcore.probes.early_bird.draw` are added.
    """
    level = min((k for k in unit.levels if k > played.level), default=None)
    if unit.source or level is None:
        return played
    weights = weights_to_score(unit, played.start, played.weights)
    counts, epochs = unit.config.schedule[level], played.epochs or [(None, weights)]
    masks = [by_criterion(unit, weights, played.mask, counts, data) for _, weights in epochs]
    if not played.epochs:
        return played._replace(next_mask=masks[0])
    drawn, rows = function(DRAW_EARLY)(unit, played, level, masks)
    return played._replace(next_mask=masks[drawn], rows=played.rows + rows)


def weights_to_score(unit, start, final):
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
