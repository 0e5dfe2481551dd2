"""How early a mask is decided: the distance between masks of different epochs (You et al. 2020)."""

import numpy as np


def mask_distance(one, other):
    """Share of the weights that one of two masks keeps and the other does not (You et al. 2020), in [0, 1]."""
    return sum(int((m ^ other[name]).sum()) for name, m in one.items()) / sum(m.numel() for m in one.values())


def chance_distance(mask):
    """The expected :func:`mask_distance` of two random masks with as many weights per tensor as `mask`.

    Of n weights two random masks of density d differ in 2 d (1 - d) n.
    """
    kept = [(int(m.sum()), m.numel()) for m in mask.values()]
    return sum(2 * k * (n - k) / n for k, n in kept) / sum(n for _, n in kept)


def early_bird(distances, threshold, last=5):
    """The first epoch at which no two of the last five masks differ by as much as `threshold`.

    You et al. 2020 keep the masks of the last five epochs and stop when the greatest distance among them is below 0.1.

    Parameters
    ----------
    distances : (E + 1, E + 1) array of float
        Between the masks after each epoch; row 0 is the mask before the first step, which is not waited for.
    threshold : float
    last : int
        How many masks must agree.

    Returns
    -------
    int
        In 1..E; E where they never agree.
    """
    epochs = range(1, len(distances))
    agree = (e for e in epochs[last - 1 :] if distances[e - last + 1 : e + 1, e - last + 1 : e + 1].max() < threshold)
    return next(agree, epochs[-1])


def draw(unit, trained, level, masks):
    """Which of an epoch's masks the next level is trained under, and how far they are apart.

    The rows are named by the level that the mask is for: ``mask_distance_2_0`` at epoch 3 is the distance of the masks
    after 0 and 3 epochs, ``drawn_epoch_2`` when it was drawn, ``chance_distance_2`` how far two random masks are apart.

    Parameters
    ----------
    unit : Unit
    trained : lthcore.lottery.TrainedLevel
        With the weights at the start and the end of every epoch.
    level : int
        The next one.
    masks : list of dict of str to bool Tensor
        What its mask would be after each epoch.

    Returns
    -------
    int, list of (step, epoch, split, metric, value)
        A place in `masks`, and the rows.
    """
    end = max(row[:2] for row in trained.rows)
    times = [(step, step * end[1] / end[0]) for step, _ in trained.epochs]
    distances = np.array([[mask_distance(a, b) for b in masks] for a in masks])
    at = early_bird(distances, unit.config.early_bird)
    facts = {"drawn_epoch": times[at][1], "chance_distance": chance_distance(masks[at])}
    rows = [(*end, "mask", f"{name}_{level}", value) for name, value in facts.items()]
    for j, time in enumerate(times):
        rows += [(*time, "mask", f"mask_distance_{level}_{i}", float(distances[i, j])) for i in range(j)]
    return at, rows
