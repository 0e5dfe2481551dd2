"""Pruning filter by filter (Li et al. 2017): how many weights that keeps, and which. Counting needs no torch.

A filter of a convolution goes with all that reads it: a kernel of the next convolution, or columns behind the last.
"""

import math
from fractions import Fraction

from ..schedule import ARCHITECTURES


def kept(model, rates, rounds):
    """Kept weights at each level 0..rounds, by layer: at least one filter of a layer stays, what reads the others goes.

    Parameters are those of :func:`lthcore.schedule.kept`.
    """
    shapes = ARCHITECTURES[model].weights
    rate = Fraction(str(rates.every if rates.convolutions is None else rates.convolutions))
    filters, levels = {name: shape[0] for name, shape in shapes.items() if len(shape) == 4}, []
    for _ in range(rounds + 1):
        levels.append({})
        read = Fraction(1)  # share of the inputs that are left
        for name, (out, *rest) in shapes.items():
            levels[-1][name] = int(filters.get(name, out) * math.prod(rest) * read)
            read = Fraction(filters.get(name, out), out)
        filters = {name: max(1, n - round(rate * n)) for name, n in filters.items()}
    return levels


def group_scores(scores, mask, counts):
    """Scores of whole filters, for pruning filter by filter (Li et al. 2017).

    A filter's score is the sum of its survivors' (of magnitudes: its L1 norm), and each of its weights has it. What
    reads a filter that goes, a kernel of the next convolution or columns behind the last, goes first.

    Parameters
    ----------
    scores, mask, counts
        As for :func:`lthcore.pruning.keep_top`; `counts` those of whole filters.

    Returns
    -------
    dict of str to Tensor
    """
    import torch

    from ..pruning import keep_top

    out, left = {}, None
    for name, m in mask.items():
        value = torch.zeros(m.shape, dtype=torch.float64)
        if m.dim() == 4:
            value += (scores[name] * m).double().flatten(1).sum(1).view(-1, 1, 1, 1)
        if left is not None:
            value.view(len(m), len(left), -1)[:, ~left] = -math.inf
        out[name] = value
        left = (
            keep_top({name: value}, {name: m}, {name: counts[name]})[name].flatten(1).any(1) if m.dim() == 4 else None
        )
    return out
