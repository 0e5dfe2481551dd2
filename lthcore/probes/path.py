"""Two networks compared: their distance, and the linear path between them (Frankle et al. 2020)."""

import torch
import torch.nn.functional as F

from ..pruning import dense_mask
from ..train import Training, build_engine, train


def to_other_order(unit, trained, data):
    """Rows that compare a network with its copy trained in another batch order (Frankle et al. 2020, section 3).

    Besides ``distance``, of :func:`to_dense`, ``path_accuracy:0.3`` and ``path_loss:0.3`` are taken at three tenths of
    the linear path from the network to its copy.
    """
    config = unit.config.at(trained.level)
    other = _other(unit, trained, data, trained.mask, order=1)
    facts = {"distance": _distance(trained, other)}
    engine, (images, labels) = build_engine([other], [trained.mask], [data], config), data.test
    for tenth in range(11):
        engine.restore({name: torch.lerp(w, other[name], tenth / 10)[None] for name, w in trained.weights.items()})
        logits = engine.logits(images[None])[0].double()
        facts[f"path_accuracy:{tenth / 10}"] = 100 * (logits.argmax(1) == labels).double().mean().item()
        facts[f"path_loss:{tenth / 10}"] = F.cross_entropy(logits, labels).item()
    return _rows(trained, facts)


def to_dense(unit, trained, data):
    """Rows that compare a network with the dense one, trained from the same values on the same batches.

    ``distance`` is the Euclidean distance of the survivors' final weights (Frankle et al. 2019, section 4).
    """
    other = _other(unit, trained, data, dense_mask(unit.config.model), order=0)
    return _rows(trained, {"distance": _distance(trained, other)})


def _other(unit, trained, data, mask, order):
    config = unit.config.at(trained.level)
    training = Training(config, trained.level, (unit.replicate,), unit.subset, trained.first, order=order)
    return train([trained.start], [mask], [data], training)[0].weights


def _distance(trained, other):
    differences = [(trained.weights[f"{name}.weight"] - other[f"{name}.weight"])[m] for name, m in trained.mask.items()]
    return torch.cat(differences).double().norm().item()


def _rows(trained, facts):
    step, epoch = max(row[:2] for row in trained.rows)
    return [(step, epoch, "test" if "path" in name else "mask", name, value) for name, value in facts.items()]
