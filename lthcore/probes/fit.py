"""How well a network fits the images that it was trained on: its training accuracy and loss."""

import math

import torch.nn.functional as F

from ..train import build_engine
from . import trained_on

BATCH = 10_000  # images at once


def measure(unit, trained, data):
    """Rows ``accuracy`` and ``loss`` of the split ``train``, at the end of each epoch of the last fifth of training.

    Over all images that are trained on (``config.test_images`` of them, where that is a bound), without dropout, at
    steps at which the test images are evaluated too.

    Parameters
    ----------
    unit : Unit
    trained : lthcore.lottery.TrainedLevel
        With the weights at the start and the end of every epoch.
    data : lthcore.data.Split

    Returns
    -------
    list of (step, epoch, split, metric, value)
    """
    images, labels = trained_on(data, unit.config.test_images or data.trained_on)
    engine = build_engine([trained.weights], [trained.mask], [data], unit.config.at(trained.level))
    last_step, last_epoch = max(row[:2] for row in trained.rows)
    ends = trained.epochs[1:]
    rows = []
    for step, weights in ends[-math.ceil(len(ends) / 5) :]:
        engine.restore({name: w[None] for name, w in weights.items()})
        correct, loss = 0, 0.0
        for first in range(0, len(labels), BATCH):
            batch, wanted = images[first : first + BATCH], labels[first : first + BATCH]
            logits = engine.logits(batch[None])[0].double()
            correct += (logits.argmax(1) == wanted).sum().item()
            loss += F.cross_entropy(logits, wanted, reduction="sum").item()
        at = step, step * last_epoch / last_step, "train"
        rows += [(*at, "accuracy", 100 * correct / len(labels)), (*at, "loss", loss / len(labels))]
    return rows


measure.each_epoch = True  # it is given the weights at the end of every epoch
