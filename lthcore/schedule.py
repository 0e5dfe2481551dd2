"""How many weights are kept at each level and when a level is evaluated, by counting alone. Standard library only."""

import math
import re
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .config import Config


class Architecture(NamedTuple):
    """What the study must know of a model without building it."""

    weights: dict
    """Name of a layer -> shape of its weight, (out, in) or, of a convolution, (out, in, rows, columns); from the
    input to the ten outputs. All of them are pruned; biases are not."""
    activation: str = "relu"
    """Used where ``Config.activation`` is ``default``."""
    module: Callable | str = "lthcore.models:MLP"
    """Function of (name, activation, pool, dropout), such as a class that extends :class:`lthcore.models.Network`,
    that gives the module, whose layers have the names above. Or where it stands, as ``"module:name"``. By default
    one fully connected layer after the other."""
    images: tuple = ((1, 28, 28),)
    """Shapes (channels, rows, columns) of the images that it can read."""


CLASSES = 10


class Models(dict):
    """Models by name. Those of other sizes need not be there: ``mlp_A_B``, of hidden layers of A and B units (or more),
    and ``lenet5_A_B_C_D``, LeNet-5 with A and B filters and C and D hidden units."""

    def __contains__(self, name: object) -> bool:
        sizes = r"(mlp(_[1-9]\d{0,3})+|lenet5(_[1-9]\d{0,3}){4})"
        return super().__contains__(name) or bool(re.fullmatch(sizes, str(name), re.ASCII))

    def __missing__(self, name: str) -> Architecture:
        if name not in self:
            raise KeyError(name)
        kind, *sizes = name.split("_")
        return {"mlp": _mlp, "lenet5": _lenet5}[kind](*map(int, sizes))


def _mlp(*hidden):
    sizes = [784, *hidden, CLASSES]
    layers = [*(f"fc{i}" for i in range(1, len(sizes) - 1)), "head"]
    return Architecture({layer: (out, into) for layer, into, out in zip(layers, sizes, sizes[1:], strict=False)})


def _lenet5(a, b, c, d):
    weights = {"conv1": (a, 1, 5, 5), "conv2": (b, a, 5, 5), "fc1": (c, 25 * b), "fc2": (d, c), "head": (CLASSES, d)}
    return Architecture(weights, "tanh", "lthcore.models:LeNet5")


ARCHITECTURES = Models({"mlp": _mlp(300, 100), "lenet5": _lenet5(6, 16, 120, 84)})


class Rates(NamedTuple):
    """Fractions of the survivors that one pruning takes; where a special one is None, the first holds."""

    every: float
    output: float | None = None  # of the output layer
    convolutions: float | None = None


def kept(model: str, rates: Rates, rounds: int, scope: str = "layer", spare: str = "none") -> list[dict[str, int]]:
    """Kept weights at each level 0..rounds, by pool; parameters as of :class:`lthcore.config.Config`.

    A pool is a weight tensor, or ``"*"`` for all tensors that a global rate ranks together.
    """
    shapes = tuple(ARCHITECTURES[model].weights.items())  # not the name alone, which may be registered again
    return _kept(shapes, rates, rounds, scope, spare)


@lru_cache
def _kept(shapes, rates, rounds, scope, spare):
    rate, output_rate, conv_rate = rates
    pools = {name: math.prod(shape) for name, shape in shapes}
    smallest, head = min(pools, key=pools.get), list(pools)[-1]
    special = {head: rate if output_rate is None else output_rate}
    if conv_rate is not None:
        special |= {name: conv_rate for name, shape in shapes if len(shape) == 4}
    if scope == "global":
        output = {} if output_rate is None else {head: pools.pop(head)}
        pools = {"*": sum(pools.values()), **output}
    exact = {name: Fraction(str(special.get(name, rate))) for name in pools}  # 0.35 of 650 is a tie
    levels = [pools]
    for _ in range(rounds):
        levels.append({name: n - round(exact[name] * n) for name, n in levels[-1].items()})
    return levels if spare == "none" else _spared(levels, smallest)


def _spared(levels, spared):
    """The same totals with `spared` left whole: the others shrink in proportion."""
    full, out = levels[0][spared], []
    for counts in levels:
        others = {name: n for name, n in counts.items() if name != spared}
        left = sum(counts.values()) - full
        shares = apportion(others, max(left, 0))
        if not all(shares.values()):
            break  # at this total nothing would be left of another layer
        out.append({name: shares.get(name, full) for name in counts})
    return out


def apportion(counts: dict, total: int) -> dict:
    """Split `total` in proportion to `counts` (dict, name -> int) by largest remainder: dict, name -> int."""
    whole = sum(counts.values())
    exact = {name: n * total / whole if whole else 0 for name, n in counts.items()}
    shares = {name: int(x) for name, x in exact.items()}
    for name in sorted(exact, key=lambda name: (shares[name] - exact[name], name))[: total - sum(shares.values())]:
        shares[name] += 1
    return shares


def steps_per_epoch(config: "Config", images: int) -> int:
    """Optimizer steps in one pass over `images` training images; a last, short batch is trained on."""
    return math.ceil(images / config.batch_size)


def total_steps(config: "Config", images: int) -> int:
    """Optimizer steps of one level."""
    steps = config.epochs * steps_per_epoch(config, images)
    return min(steps, config.max_steps) if config.max_steps else steps


def evaluation_steps(config: "Config", images: int) -> tuple[set[int], set[int]]:
    """Steps at which a level is evaluated: (validation, test), two sets of int.

    Validation every 100 steps in the first `config.frequent_epochs` epochs, then once an epoch; test at steps 0, 10,
    30, 100, 300, then once an epoch; both at the last step.
    """
    total, epoch = total_steps(config, images), steps_per_epoch(config, images)
    ends = set(range(epoch, total + 1, epoch)) | {total}
    early = config.frequent_epochs * epoch
    validation = set(range(0, min(total, early) + 1, 100)) | {s for s in ends if s > early} | {total}
    return validation, {s for s in (0, 10, 30, 100, 300) if s <= total} | ends
