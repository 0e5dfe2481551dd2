"""The loop's functions for one network, and with data by the name of a subset, as most tests need them."""

from lthcore import lottery
from lthcore import train as loop


def train(values, mask, data, config, *, replicate, **keys):
    """One network: :func:`lthcore.train.train` without its axis of replicates."""
    return train_together([values], [mask], [data], config, replicates=[replicate], **keys)[0]


def train_together(values, masks, data, config, *, level, replicates, subset, each_epoch=None, **keys):
    """:func:`lthcore.train.train`, with what the training is in keywords."""
    training = loop.Training(config, level, tuple(replicates), subset, **keys)
    return loop.train(values, masks, data, training, each_epoch)


def train_and_prune(unit, level, mask, load, before=None, values=None):
    """One level of one unit, pruned; `load` takes the name of a subset."""
    (trained,) = lottery.train_level([unit], level, [mask], by_unit(load), [before], values and [values])
    return lottery.prune_level(unit, trained, load(unit.subset))


def find_ticket(chain, load):
    """The loop, with data by the name of a subset."""
    return lottery.find_ticket(chain, by_unit(load))


def starting_values(unit, level, load, before=None):
    """The values that survivors start from, with data by the name of a subset."""
    return lottery.starting_values(unit, level, by_unit(load), before)


def by_unit(load):
    return lambda unit: load(unit.subset)
