"""A trained network pruned in one shot to many densities, without retraining (LeCun et al. 1990, Figure 1)."""

import torch.nn.functional as F

from ..lottery import weights_to_score
from ..methods import find
from ..pruning import keep_top, scored
from ..train import build_engine
from . import trained_on

DELETED_TO = (1.0, 0.8, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02)  # densities


def measure(unit, trained, data):
    """Rows of this network pruned in one shot to every density, over all layers, by its criterion, without retraining.

    ``deleted_loss:0.5`` and ``deleted_accuracy:0.5`` at half of the weights (LeCun et al. 1990, Figure 1), on the test
    images and, since that is what second derivatives predict, on as many training images; and, by a criterion that
    predicts the loss, ``deleted_foretold:0.5``: the predicted rise of the loss, the sum of the deleted weights' scores.
    """
    mask = trained.mask
    scores = scored(unit, weights_to_score(unit, trained), mask, data)
    total, (step, epoch) = sum(m.numel() for m in mask.values()), max(row[:2] for row in trained.rows)
    predicts = find("criterion", unit.config.criterion).predicts_loss
    rows = []
    for density in DELETED_TO:
        kept = keep_top(scores, mask, {"*": round(density * total)})
        engine = build_engine([trained.weights], [kept], [data], unit.config)
        for split, (images, labels) in (("train", trained_on(data, len(data.test[1]))), ("test", data.test)):
            logits = engine.logits(images[None])[0].double()
            loss = F.cross_entropy(logits, labels).item()
            accuracy = 100 * (logits.argmax(1) == labels).double().mean().item()
            facts = {"loss": loss, "accuracy": accuracy}
            if predicts and split == "train":
                facts["foretold"] = sum(scores[name][~kept[name]].sum().item() for name in mask)
            rows += [(step, epoch, split, f"deleted_{name}:{density}", value) for name, value in facts.items()]
    return rows
