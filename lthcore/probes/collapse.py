"""What is active under a mask: layer collapse (Tanaka et al. 2020), effective density (Vysogorets & Kempe 2023)."""

from functools import lru_cache

import torch

from ..models import build, initial
from ..pruning import dense_mask, magnitudes
from ..schedule import ARCHITECTURES


def on_path(model, mask):
    """Kept weights that lie on a path from an input pixel to an output.

    The network is run on an image of ones with its mask for weights, no biases, nothing non-linear and
    average pooling: an activation then counts paths, and (weight x gradient of the summed outputs) is
    positive exactly on active paths. Exact for convolutions and their borders as well.

    Returns
    -------
    dict of str to bool Tensor
        A subset of `mask`.
    """
    net = _linear(model, repr(ARCHITECTURES[model]))
    net.zero_grad()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            layer, kind = name.split(".")
            parameter.copy_(mask[layer]) if kind == "weight" else parameter.zero_()
    net(torch.ones(1, *ARCHITECTURES[model].images[0], dtype=torch.float64)).sum().backward()
    return {name: m & (net.get_submodule(name).weight.grad > 0) for name, m in mask.items()}


@lru_cache
def _linear(model, record):
    """The network whose activations count paths; its values are those of the last mask. Building it takes a pass.

    By `record` too, since a model may be registered again.
    """
    return build(model, activation="identity", pool="avg").double()


def diagnose(model, mask):
    """Diagnose collapse: what is active under a mask.

    Returns
    -------
    dict of str to float
        ``kept:<layer>`` and ``on_path:<layer>`` (weights), ``live_units:<layer>`` (units, filters or
        outputs on a live path), ``live_outputs``, ``density`` and ``effective_density`` in [0, 1].
    """
    live = on_path(model, mask)
    facts = {}
    for name in mask:
        facts[f"kept:{name}"] = int(mask[name].sum())
        facts[f"on_path:{name}"] = int(live[name].sum())
        facts[f"live_units:{name}"] = len(live_units(live, name))
    total = sum(m.numel() for m in mask.values())
    facts["live_outputs"] = facts[f"live_units:{name}"]  # the last layer's
    facts["density"] = sum(int(m.sum()) for m in mask.values()) / total
    facts["effective_density"] = sum(int(m.sum()) for m in live.values()) / total
    return facts


def live_units(live, layer):
    """Indices of the layer's units on a live path, from the masks of :func:`on_path`: list of int."""
    return live[layer].flatten(1).any(1).nonzero().flatten().tolist()


def measure(unit, trained, data):
    """Rows of the collapse diagnosis, and of what the network answers on the test images at its last step."""
    model, mask = unit.config.model, trained.mask
    facts = diagnose(model, mask)
    live = live_units(on_path(model, mask), list(mask)[-1])
    answers, labels = trained.logits.argmax(1), data.test[1].cpu()
    classes = range(trained.logits.shape[1])
    given = [int((answers == c).sum()) for c in classes]
    dead = [c for c in classes if c not in live]
    possible = live + sorted(dead, key=lambda c: -trained.logits[0, c])[:1]  # constant logits: only the largest can win
    facts |= {f"live_output:{c}": int(c in live) for c in classes}
    facts["answered_classes"] = sum(n > 0 for n in given)
    facts["answers_outside"] = sum(n for c, n in enumerate(given) if c not in possible)
    facts["top_answer"] = top = max(classes, key=lambda c: given[c])
    facts["top_answer_share"] = 100 * (labels == top).double().mean().item()
    step, epoch = max(row[:2] for row in trained.rows)
    return [(step, epoch, "test" if "answer" in name else "mask", name, value) for name, value in facts.items()]


def untrained(chain):
    """The masks of a chain if training changed nothing, level after level: theta0 pruned by its own magnitudes.

    They predict, before any training, which layers collapse and which outputs a schedule disconnects.
    """
    config = chain.config
    together = tuple(name for name in ARCHITECTURES[config.model].weights if name not in config.schedule[0])
    places = _places(config.model, repr(ARCHITECTURES[config.model]), config.seed, chain.replicate, together)
    for counts in config.schedule:  # whose masks are nested, so that one order gives them all
        yield {name: place < counts.get(name, counts.get("*")) for name, place in places.items()}


@lru_cache(maxsize=8)
def _places(model, record, seed, replicate, together):
    """By layer, the place of each weight of theta0 in the order of magnitudes of its layer, or of those `together`."""
    scores = magnitudes(initial(model, seed, "theta0", replicate), dense_mask(model))
    places = {}
    for names in [[name] for name in scores if name not in together] + [together] * bool(together):
        order = torch.cat([scores[name].flatten() for name in names]).argsort(descending=True, stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        places |= dict(zip(names, place.split([scores[name].numel() for name in names]), strict=True))
    return {name: places[name].view_as(score) for name, score in scores.items()}
