"""What share of the kept weights is negative, layer by layer, while a network is trained."""

CLEARLY = 0.001  # a weight below minus this is clearly negative: theta0's standard deviations are 0.04 to 0.13 (MLP)


def measure(unit, trained, data):
    """Rows ``negative_share:<layer>`` at the start of training and at the end of every epoch, in percent.

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
    return _shares(trained, "negative_share", 0)


def clearly(unit, trained, data):
    """Rows ``clearly_negative_share:<layer>``, of weights below -0.001, as :func:`measure` has them."""
    return _shares(trained, "clearly_negative_share", -CLEARLY)


def _shares(trained, metric, below):
    last_step, last_epoch = max(row[:2] for row in trained.rows)
    rows = []
    for step, weights in trained.epochs:
        for layer, kept in trained.mask.items():
            found = weights[f"{layer}.weight"][kept] < below
            share = 100 * found.double().mean().item() if len(found) else 0.0
            rows.append((step, step * last_epoch / last_step, "mask", f"{metric}:{layer}", share))
    return rows


measure.each_epoch = clearly.each_epoch = True  # they are given the weights at the end of every epoch
