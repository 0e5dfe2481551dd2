"""What share of the kept weights is negative, layer by layer, while a network is trained."""


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
    last_step, last_epoch = max(row[:2] for row in trained.rows)
    rows = []
    for step, weights in trained.epochs:
        for layer, kept in trained.mask.items():
            signs = weights[f"{layer}.weight"][kept] < 0
            share = 100 * signs.double().mean().item() if len(signs) else 0.0
            rows.append((step, step * last_epoch / last_step, "mask", f"negative_share:{layer}", share))
    return rows


measure.each_epoch = True  # it is given the weights at the end of every epoch
