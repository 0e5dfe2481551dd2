"""From tidy tables to numbers with intervals. No torch.

An interval is the 95% t-interval over replicates; the sampling of the test images is not in it.
Differences are paired: arms of one replicate share theta0 and, in one experiment, the data and the order of the batches
at a level.
"""

import math

import numpy as np
import pandas as pd

KEYS = ["arm", "level", "replicate"]  # of a network


def interval(values):
    """Mean and 95% t-interval of replicates.

    Parameters
    ----------
    values : (n,) array of float

    Returns
    -------
    n, mean, low, high : int, float, float, float
        `low` and `high` are NaN for n < 2.
    """
    values = np.asarray(values, float)
    n = len(values)
    if n < 2:
        return n, float(values.mean()) if n else math.nan, math.nan, math.nan
    from scipy.special import stdtrit  # here: a command's first line needs none of scipy

    half = stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n)
    mean = float(values.mean())
    return n, mean, mean - half, mean + half


def in_brackets(mean, low, high):
    """A number and its interval, as in ``97.01 [96.88, 97.15]``; the number alone where `low` is NaN: str."""
    return f"{mean:.2f}" + ("" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]")


def at_end(frame, metric="accuracy", split="test"):
    """Values at each level's last step: Series over (arm, level, replicate)."""
    rows = frame[(frame["metric"] == metric) & (frame["split"] == split)].sort_values("step", kind="stable")
    return of_networks(rows, "value", "last").astype(float)


def of_networks(rows, column, how):
    """A column of each network's rows by `how` ("last", "mean", ...): Series over (arm, level, replicate)."""
    found = rows.groupby(KEYS, observed=True)[column].agg(how)
    return found.set_axis(found.index.set_levels(found.index.levels[0].astype(object), level=0))  # arms as plain names


def paired(series, first, level, second=None, second_level=None):
    """Values of arm `first` at `level`, minus those of `second` where one is given: Series over replicates."""
    values = _at(series, first, level)
    if second is not None:
        values = values - _at(series, second, level if second_level is None else second_level)
    return values.dropna()


def _at(series, arm, level):
    try:
        return series.loc[(arm, level)]
    except KeyError:
        return pd.Series(dtype=float)


def levels(frame, arm):
    """Levels at which an arm has rows: list of int, increasing."""
    return sorted(int(k) for k in frame.loc[frame["arm"] == arm, "level"].unique())


def ticket_level(frame, arm, tolerance):
    """The level L at which the ticket stands.

    The last level before the chain's mean validation accuracy first falls more than `tolerance` pp
    below level 0; the last level where there is no validation set.

    Returns
    -------
    int or None
        ``None`` where the dense network is not finished.
    """
    mean = at_end(frame[frame["arm"] == arm], split="validation").groupby("level").mean()
    if mean.empty:
        return max(levels(frame, arm), default=None)
    if 0 not in mean:
        return None
    fallen = mean.index[mean < mean[0] - tolerance]
    return int(max(mean.index[mean.index < min(fallen, default=math.inf)], default=0))


def stands_at(level):
    """The level at which a ticket of level L is examined, as number and text: L, or 1 if L is the dense network."""
    return (1, "L = 0, so level 1") if level == 0 else (level, f"L = {level}")


def shown_first(frame, arm, tolerance, there):
    """The level at which a ticket is looked at first: that at which it stands, or the last of those that are there."""
    level = stands_at(ticket_level(frame, arm, tolerance))[0]
    return level if level in there else there[-1]


def best_level(frame, arm):
    """Level >= 1 of best mean validation accuracy (test accuracy decides nothing): int or None."""
    mean = at_end(frame[frame["arm"] == arm], split="validation").groupby("level").mean()
    mean = mean[mean.index >= 1]
    return int(mean.idxmax()) if len(mean) else None


def first_below(frame, arm, accuracy):
    """First level at which the mean test accuracy is below `accuracy` percent: int or None."""
    mean = at_end(frame[frame["arm"] == arm]).groupby("level").mean()
    return int(mean.index[mean < accuracy].min()) if (mean < accuracy).any() else None


def density_at(frame, arm, level):
    """Density of an arm at a level, in [0, 1]."""
    found = frame.loc[(frame["arm"] == arm) & (frame["level"] == level), "density"]
    return float(found.iloc[0]) if len(found) else math.nan


def summary(frame, metric="accuracy", split="test"):
    """Mean and interval per arm and level: frame with arm, level, density, n, mean, low, high."""
    rows = []
    for (arm, level), values in at_end(frame, metric, split).groupby(["arm", "level"], sort=False):
        n, mean, low, high = interval(values)
        rows.append((arm, level, density_at(frame, arm, level), n, mean, low, high))
    return pd.DataFrame(rows, columns=["arm", "level", "density", "n", "mean", "low", "high"])


def overview(frame):
    """The summary table of a notebook: a row per level, a column per arm, ``mean ± half interval`` in percent.

    ``(one class: 2)`` says that so many of the replicates answer one class whatever they see: they have not learned, or
    have died.
    """
    table = summary(frame)
    dead = (at_end(frame, "answered_classes") == 1).groupby(["arm", "level"]).sum()
    text = [
        f"{m:.2f}"
        + (f"\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{h - m:.2f}" if n > 1 else "")
        + (f" (one class: {dead[arm, level]})" if dead.get((arm, level)) else "")
        for arm, level, n, m, h in table[["arm", "level", "n", "mean", "high"]].itertuples(index=False)
    ]
    order = list(frame["arm"].unique())
    return table.assign(text=text).pivot(index="level", columns="arm", values="text").reindex(columns=order).fillna("")


def early_steps(frame):
    """Step of the minimum validation loss: Series over (arm, level, replicate)."""
    rows = frame[frame["metric"] == "early_accuracy"]
    return of_networks(rows, "step", "last").astype(float)


def barriers(frame):
    """Error barrier on the linear path between two copies: Series over (arm, level, replicate), in pp.

    The largest error on the path, ends included, minus the mean error of both ends (Frankle et al. 2020, *Linear Mode
    Connectivity*): never negative, and half the difference of the ends where the error does not rise between them.
    """
    way = [at_end(frame, f"path_accuracy:{tenth / 10}") for tenth in range(11)]
    return (way[0] + way[-1]) / 2 - pd.concat(way, axis=1).min(axis=1)


def deletions(frame):
    """Loss and accuracy after one-shot pruning without retraining: tidy rows, each density a level."""
    rows = frame[frame["metric"].str.startswith("deleted_")]
    if rows.empty:
        return rows
    parts = rows["metric"].str.removeprefix("deleted_").str.split(":", expand=True)
    density = parts[1].astype(float)
    level = density.rank(method="dense", ascending=False).astype(int) - 1
    return rows.assign(metric=parts[0], density=density, level=level)


def deletable(frame, arm, rise=0.1):
    """Percent of the weights that can be deleted before the training loss has risen by `rise` nats: Series.

    The loss is interpolated linearly between two densities; where it never rises so far, the largest share tried.

    Parameters
    ----------
    frame : DataFrame
        As of :func:`deletions`.
    """
    rows = frame[(frame["arm"] == arm) & (frame["metric"] == "loss") & (frame["split"] == "train")]
    out = {}
    for replicate, curve in rows.sort_values("level").groupby("replicate"):
        gone, loss = 100 * (1 - curve["density"].to_numpy(float)), curve["value"].to_numpy(float)
        above = np.flatnonzero(loss > loss[0] + rise)
        k = above[0] if len(above) else len(loss) - 1
        ends = slice(k - 1, k + 1)
        out[replicate] = np.interp(loss[0] + rise, loss[ends], gone[ends]) if len(above) else gone[-1]
    return pd.Series(out, dtype=float)


def mask_distances(frame, level, arm="early"):
    """Normalised Hamming distances between the masks that an arm would draw for `level` after each epoch.

    Returns
    -------
    DataFrame
        Symmetric, (E + 1) x (E + 1), its index and columns the epochs from 0 on; means over replicates, in [0, 1].
    """
    begin = f"mask_distance_{level}_"
    rows = frame[(frame["arm"] == arm) & frame["metric"].str.startswith(begin)]
    if rows.empty:
        return pd.DataFrame()
    means = rows.assign(first=rows["metric"].str.removeprefix(begin).astype(int)).groupby(["first", "epoch"])["value"]
    half = means.mean().unstack()
    epochs = [0.0, *half.columns]
    square = np.zeros((len(epochs), len(epochs)))
    square[:-1, 1:] = half.fillna(0)
    return pd.DataFrame(square + square.T, epochs, epochs)


def drawn(frame, arm, level):
    """Epoch at which an arm's mask for `level` was drawn, and the share of training saved, in percent: two Series."""
    epoch = _at(at_end(frame, f"drawn_epoch_{level}", "mask"), arm, 0)
    last = frame.loc[frame["level"] == 0, "epoch"].max()
    return epoch, 100 * (1 - epoch / last)


def loose_below(threshold):
    """Density below which two random masks, which differ in 2 d (1 - d) of the weights, differ by less than this."""
    return (1 - math.sqrt(1 - 2 * threshold)) / 2


# ------------------------------------------------------------------------------------------------------ the collapse


def collapse(frame, arm):
    """What networks predict, and how many outputs they have left: a row per level of an arm.

    Parameters
    ----------
    frame : DataFrame
    arm : str

    Returns
    -------
    DataFrame
        level, density, effective_density, live_outputs, answered_classes, accuracy (means over replicates),
        class_share (percent of the test images that have the most given answer, mean), same (replicates that answer one
        class, with exactly its share as accuracy), of (replicates).
    """
    rows = frame[frame["arm"] == arm]
    names = ("density", "effective_density", "live_outputs")
    facts = {name: at_end(rows, name, "mask") for name in names}
    facts |= {name: at_end(rows, name) for name in ("answered_classes", "accuracy", "top_answer", "top_answer_share")}
    table = pd.DataFrame(facts).reset_index()
    table["same"] = (table["answered_classes"] == 1) & np.isclose(
        table["accuracy"], table["top_answer_share"], rtol=0, atol=1e-9
    )
    means = table.groupby("level")[[*names, "answered_classes", "accuracy", "top_answer_share"]].mean()
    means = means.rename(columns={"top_answer_share": "class_share"})
    return means.assign(same=table.groupby("level")["same"].sum(), of=table.groupby("level").size())


def dead_labels(frame, arm, labels):
    """Networks without an active output for `labels`, and what they predict.

    Returns
    -------
    DataFrame
        A row per (level, replicate): level, replicate, accuracy, answered_classes, top_answer, class_share, one_class
        (bool: a single class is answered, and the accuracy is exactly that class's share of the test images).
    """
    rows = frame[frame["arm"] == arm]
    live = sum(at_end(rows, f"live_output:{c}", "mask") for c in labels)
    table = pd.DataFrame(
        {name: at_end(rows, name) for name in ("accuracy", "answered_classes", "top_answer", "top_answer_share")}
    )
    table = (
        table[live.reindex(table.index) == 0]
        .reset_index()
        .drop(columns="arm")
        .rename(columns={"top_answer_share": "class_share"})
    )
    one = (table["answered_classes"] == 1) & np.isclose(table["accuracy"], table["class_share"], rtol=0, atol=1e-9)
    return table.assign(one_class=one, top_answer=table["top_answer"].astype(int))


def deaths(frame, arm):
    """First level at which, in some replicate, a layer has no active weight or an output is cut off (None: never)."""
    rows = frame[frame["arm"] == arm]
    out = {}
    layers = [m.split(":")[1] for m in rows["metric"].unique() if m.startswith("on_path:")]
    for layer in layers:
        alive = at_end(rows, f"on_path:{layer}", "mask").groupby("level").min()
        out[layer] = int(alive.index[alive == 0].min()) if (alive == 0).any() else None
    outputs = at_end(rows, "live_outputs", "mask").groupby("level").min()
    out["an output"] = int(outputs.index[outputs < outputs.max()].min()) if (outputs < outputs.max()).any() else None
    return out


def disconnections(frame, predicted):
    """Where outputs are disconnected, predicted from theta0's magnitudes and after training: a row per chain.

    Parameters
    ----------
    frame, predicted : DataFrame
        Tidy rows of the trained networks, and of the masks that pruning theta0 without training predicts.

    Returns
    -------
    DataFrame
        Densities in [0, 1] (NaN: never): ``certain``, where the head has fewer weights than outputs; ``predicted`` and
        ``seen``, where the first output has no active path, median over replicates; ``below_80``, where the mean test
        accuracy is below 80% for the first time; and ``first``, the layer that is the first to have no live weight.
    """
    rows = []
    for arm in dict.fromkeys(predicted["arm"]):
        trained, counted = (f[f["arm"] == arm] for f in (frame, predicted))
        fallen, dead = (
            first_below(trained, arm, 80),
            {k: v for k, v in deaths(trained, arm).items() if k != "an output"},
        )
        layers = [k for k, v in sorted(dead.items(), key=lambda item: math.inf if item[1] is None else item[1]) if v]
        rows.append(
            {
                "arm": arm,
                "certain": _first_density(counted, "kept:head", 10).median(),
                "predicted": _first_density(counted, "live_outputs", 10).median(),
                "seen": _first_density(trained, "live_outputs", 10).median(),
                "below_80": math.nan if fallen is None else density_at(trained, arm, fallen),
                "first": layers[0] if layers else "",
            }
        )
    return pd.DataFrame(rows).set_index("arm")


def _first_density(frame, metric, least):
    """Density of the first level at which `metric` is below `least`: Series over replicates, NaN where it never is."""
    values = at_end(frame, metric, "mask").rename("value").reset_index()
    density = frame.groupby("level")["density"].first()
    below = values[values["value"] < least].groupby("replicate")["level"].min().map(density)
    return below.reindex(values["replicate"].unique())


# ------------------------------------------------------------------------------------------------ one network in detail


def layers(frame, arm, replicate, level):
    """What is left of each layer: frame with a row per layer, columns kept, on_path, live_units (whole numbers)."""
    rows = frame[(frame["arm"] == arm) & (frame["replicate"] == replicate) & (frame["level"] == level)]
    rows = rows[(rows["split"] == "mask") & rows["metric"].str.contains(":") & ~rows["metric"].str.startswith("live_o")]
    parts = rows["metric"].str.split(":", expand=True)
    table = rows.assign(what=parts[0], layer=parts[1]).pivot(index="layer", columns="what", values="value")
    return table.loc[list(dict.fromkeys(parts[1])), ["kept", "on_path", "live_units"]].astype(int)


def curves(frame, split="test", metric="accuracy"):
    """Training curves: dict, (arm, replicate, level) -> frame with step and value."""
    rows = frame[(frame["split"] == split) & (frame["metric"] == metric)].sort_values("step", kind="stable")
    networks = rows.groupby(["arm", "replicate", "level"], observed=True)
    return {key: c[["step", "value"]].astype(float) for key, c in networks}


def moved(start, final):
    """How far weights moved: dict of survivors (n), same_sign (share in [0, 1]), move and size (medians of magnitudes).

    Parameters
    ----------
    start, final : (n,) array of float
        The survivors' values at the rewind step and at the last step.
    """
    if not len(start):
        return {"survivors": 0, "same_sign": math.nan, "move": math.nan, "size": math.nan}
    same = np.mean(np.sign(start) == np.sign(final))
    move, size = np.median(np.abs(final - start)), np.median(np.abs(start))
    return {"survivors": len(start), "same_sign": float(same), "move": float(move), "size": float(size)}


def probabilities(logits):
    """Softmax over the last axis of an array of logits."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


ORDERS = {"in the order of the test set": None, "hardest for the ticket first": "loss", "answered differently": "apart"}


def digits_in_order(order, logits, labels):
    """Places of test digits, the most interesting ones first.

    Parameters
    ----------
    order : str
        One of ``ORDERS``.
    logits : dict of str to (N, 10) array
        By role; ``ticket`` decides what is hard.
    labels : (N,) array of int

    Returns
    -------
    (N,) array of int
    """
    everything = np.arange(len(labels))
    if ORDERS[order] is None or not logits:
        return everything
    if ORDERS[order] == "loss":
        judged = logits.get("ticket", logits["dense"])
        return np.argsort(probabilities(judged)[everything, labels], kind="stable")
    answers = np.stack([one.argmax(1) for one in logits.values()])
    return np.argsort(-(answers != answers[0]).sum(0), kind="stable")
