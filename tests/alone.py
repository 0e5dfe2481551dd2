"""The loop's functions for one network and with data by the name of a subset, a few images, short trainings."""

import torch

from lthcore import lottery
from lthcore import train as loop
from lthcore.config import configure
from lthcore.data import Split, whole


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


def few(train_images=240, test_images=100):
    """The first images of real MNIST, with 60 for validation."""
    (images, labels), (test, test_labels) = whole()["train"], whole()["test"]
    held = slice(train_images, train_images + 60)
    parts = (images[held], labels[held]), (test[:test_images], test_labels[:test_images])
    return Split((images[:train_images], labels[:train_images]), *parts)


def few_of_all(first=0, images=200):
    """All images of real MNIST, of which a few are trained on, from the place `first` on."""
    (train_images, labels), (test, test_labels) = everything = whole()["train"], whole()["test"]
    held = slice(first + images, first + images + 60)
    validation = train_images[held], labels[held]
    return Split(everything[0], validation, (test[:100], test_labels[:100]), torch.arange(first, first + images))


def tiny(experiment="mlp", **settings):
    """A training of twelve steps."""
    return configure(experiment, "smoke", **{"max_steps": 12, "batch_size": 40, "epochs": 2, **settings})


def eight_epochs(experiment="early_bird", **more):
    """A training of eight epochs, on a few images."""
    return configure(experiment, "smoke", **{"max_steps": 0, "batch_size": 50, "epochs": 8, **more})
