"""Train one network on the CPU on its surviving weights only: loops compiled by numba.

Images are the innermost axis everywhere: an activation is (channel, row, column, image), so that one
weight multiplies one contiguous run, a row of the feature map for all images of a group. A fully
connected layer is a convolution whose maps have one pixel. A step's cost grows with the surviving weights
(and with the activations), not with the dense size.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from ..schedule import ARCHITECTURES, CLASSES
from .compiled import compiled
from .vectors import LANES, combine, correlate8

ACTIVATIONS = {"identity": 0, "relu": 1, "tanh": 2}
POOLS = {"none": 0, "avg": 1, "max": 2}
OPTIMIZERS = {"adam": 0, "sgd": 1, "adamw": 2}
FLAT, MAPS = 64, 32  # images worked on at once, without and with feature maps: long runs that stay in the cache
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's, as in torch

# Places in arrays are unsigned: numba would test a signed one for "counted from the end" and not vectorise.
U0, U1, U2, U8 = (np.uint64(i) for i in (0, 1, 2, 8))


class Pixels(NamedTuple):
    """Images as what differs from their background, which four fifths of MNIST's pixels are."""

    background: float
    starts: np.ndarray  # (images + 1,) uint64, where an image's pixels start
    pixel: np.ndarray  # uint16, image after image
    value: np.ndarray  # float


class RowLayer(NamedTuple):
    """The first layer of a fully connected network while many of its weights survive: by whole rows.

    With x = background + d, where d is zero at most pixels, a unit's sum is background x (sum of its weights)
    + a few rows of the transposed weights (pixel, unit), rows padded to whole vectors. The gradient likewise.
    """

    on: bool
    width: np.uint64  # of a row: units, padded
    kept: np.ndarray  # (784 * width,) float, 1 where a weight survives; empty where all do
    base: np.ndarray  # (width,) what every image or pixel has in common
    z: np.ndarray  # (image, unit) what goes into the activations, then its gradient
    at: np.ndarray  # (785,) uint64, where a pixel's images start; these two:
    image: np.ndarray  # uint32
    strength: np.ndarray  # float


class Layer(NamedTuple):
    """One layer as the compiled loops see it: sizes, surviving weights ("taps"), and the buffers they work in.

    Taps are sorted by output unit, then input channel, kernel row and kernel column. Taps of units that no
    logit depends on are left out: their gradients are zero. Weight decay finds them behind all the parameters.
    """

    rows: np.uint64  # of a feature map before pooling
    columns: np.uint64
    kernel: np.uint64
    inputs: np.uint64  # input channels
    activation: int
    pool: int
    live: np.ndarray  # uint64, the units or output channels that a logit depends on
    start: np.ndarray  # (outputs + 1,) uint64, where a unit's taps start
    offset: np.ndarray  # (taps,) uint32, pixel of `x` under the tap for the map's first pixel
    back_start: np.ndarray  # (inputs * kernel * kernel + 1,) uint64, by (input channel, kernel column, kernel row)
    back_offset: np.ndarray  # (taps,) uint32, pixel of `z`, in the order of `back_start`
    back: np.ndarray  # (taps,) uint32, the taps in the order of `back_start`
    back_weight: np.ndarray  # (taps,) float, a step's weights in that order
    weight: np.ndarray  # (taps,) float, a view of all parameters
    bias: np.ndarray  # (outputs,) float, a view of all parameters
    weight_gradient: np.ndarray
    bias_gradient: np.ndarray
    x: np.ndarray  # input, the `y` of the layer before
    z: np.ndarray  # activation before pooling; then the gradient of what goes into the activation
    y: np.ndarray  # output: `z` itself where nothing is pooled
    dx: np.ndarray  # gradients of `x` and `y`
    dy: np.ndarray


@compiled
def _correlate(z, d, x, s, offset, out, t, end, n, run, rows, step):
    """As `correlate8`, for the taps t..end."""
    while t + U8 <= end:
        correlate8(z, d, x, s, offset, out, t, n, run, rows, step)
        t += U8
    while t < end:
        total = out[t]
        for row in range(rows):
            a, b = s + offset[t] * n + row * step, d + row * run
            for j in range(run):
                total += z[b + j] * x[a + j]
        out[t] = total
        t += U1


P = tuple(np.float32(c) for c in (
    4.89352455891786e-03, 6.37261928875436e-04, 1.48572235717979e-05, 5.12229709037114e-08,
    -8.60467152213735e-11, 2.00018790482477e-13, -2.76076847742355e-16,
))  # fmt: skip
Q = tuple(
    np.float32(c) for c in (4.89352518554385e-03, 2.26843463243900e-03, 1.18534705686654e-04, 1.19825839466702e-06)
)
CLAMP = np.float32(7.99881172180175781)


@compiled
def _tanh32(x):
    """The rational approximation of Eigen and XLA, within a few units in the last place; vectorisable, keeps NaN."""
    x = CLAMP if x > CLAMP else x
    x = -CLAMP if x < -CLAMP else x
    q = x * x
    p = P[0] + q * (P[1] + q * (P[2] + q * (P[3] + q * (P[4] + q * (P[5] + q * P[6])))))
    return x * p / (Q[0] + q * (Q[1] + q * (Q[2] + q * Q[3])))


@compiled
def _activate(z, d, run, kind):
    zero = z.dtype.type(0)
    if kind == 1:
        for j in range(run):
            z[d + j] = zero if z[d + j] < zero else z[d + j]  # keeps NaN
    elif kind == 2 and z.itemsize == 4:
        for j in range(run):
            z[d + j] = _tanh32(z[d + j])
    elif kind == 2:
        for j in range(run):
            z[d + j] = math.tanh(z[d + j])


@compiled
def _forward(layer, n):
    """From layer.x to layer.z and layer.y, for `n` images."""
    z, run = layer.z, layer.columns * n
    stride = (layer.columns + layer.kernel - U1) * n
    for row in range(layer.rows):
        for u in range(layer.live.size):
            unit = layer.live[u]
            d, b = (unit * layer.rows + row) * run, layer.bias[unit]
            for j in range(run):
                z[d + j] = b
            first, last = layer.start[unit], layer.start[unit + U1]
            combine(z, d, layer.x, row * stride, layer.offset, layer.weight, first, last, n, run)
            _activate(z, d, run, layer.activation)
            if layer.pool and row & U1:
                _pool(z, d - run, layer.y, (unit * layer.rows + row) // U2 * (run // U2), n, run, layer.pool)


@compiled
def _pool(z, d, y, e, n, run, kind):
    """Two rows of `z` from `d` on to one row of `y` from `e` on."""
    quarter = z.dtype.type(0.25)
    for column in range(run // (n * U2)):
        a, c = d + column * U2 * n, e + column * n
        if kind == 1:
            for j in range(n):
                y[c + j] = quarter * ((z[a + j] + z[a + n + j]) + (z[a + run + j] + z[a + run + n + j]))
        else:
            for j in range(n):
                m = _larger(_larger(z[a + j], z[a + n + j]), z[a + run + j])
                y[c + j] = _larger(m, z[a + run + n + j])


@compiled
def _larger(a, b):
    return b if (b > a) | (b != b) else a  # keeps NaN


@compiled
def _slope(a, kind, zero, one):
    """Derivative of the activation where its value is `a`."""
    if kind == 1:
        return one if a > zero else zero
    return one - a * a if kind == 2 else one


@compiled
def _unpool(z, d, dy, e, n, run, activation, pool):
    """From the gradient of a pooled row to the gradients in its two rows of `z`, which held the activations."""
    zero, one, quarter = z.dtype.type(0), z.dtype.type(1), z.dtype.type(0.25)
    for column in range(run // (n * U2)):
        i, c = d + column * U2 * n, e + column * n
        if pool == 1:
            for k in (i, i + n, i + run, i + run + n):  # one after the other: four at once are not vectorised
                for j in range(n):
                    z[k + j] = quarter * dy[c + j] * _slope(z[k + j], activation, zero, one)
        else:
            for j in range(n):  # the first of the largest takes the gradient, as in torch
                v0, v1, v2, v3, g = z[i + j], z[i + n + j], z[i + run + j], z[i + run + n + j], dy[c + j]
                m = max(max(v0, v1), max(v2, v3))
                g = g * _slope(m, activation, zero, one)
                z[i + j] = g if v0 == m else zero
                z[i + n + j] = g if (v1 == m) & (v0 != m) else zero
                z[i + run + j] = g if (v2 == m) & (v0 != m) & (v1 != m) else zero
                z[i + run + n + j] = g if (v0 != m) & (v1 != m) & (v2 != m) else zero


@compiled
def _backward(layer, n, through):
    """From layer.dy, or for the last layer layer.z, to the parameters' gradients and, if `through`, layer.dx."""
    z, x, run = layer.z, layer.x, layer.columns * n
    width = layer.columns + layer.kernel - U1  # of the input's rows
    zero, one = z.dtype.type(0), z.dtype.type(1)
    for u in range(layer.live.size):
        unit = layer.live[u]
        first = unit * layer.rows * run
        if layer.pool:
            for row in range(layer.rows // U2):
                e = (unit * (layer.rows // U2) + row) * (run // U2)
                _unpool(z, first + row * U2 * run, layer.dy, e, n, run, layer.activation, layer.pool)
        elif layer.activation:
            for j in range(first, first + layer.rows * run):
                z[j] = layer.dy[j] * _slope(z[j], layer.activation, zero, one)
        total = layer.bias_gradient[unit]
        for j in range(first, first + layer.rows * run):
            total += z[j]
        layer.bias_gradient[unit] = total
        a, b = layer.start[unit], layer.start[unit + U1]
        _correlate(z, first, x, U0, layer.offset, layer.weight_gradient, a, b, n, run, layer.rows, width * n)
    if not through:
        return
    dx, k, height = layer.dx, layer.kernel, layer.rows + layer.kernel - U1
    dx[: layer.inputs * height * width * n] = 0
    for row in range(height):
        low = row + U1 - layer.rows if row >= layer.rows else U0  # kernel rows through which a map's row sees this one
        high = row + U1 if row < k else k
        for channel in range(layer.inputs):
            for column in range(k):
                at = (channel * k + column) * k
                a, b = layer.back_start[at + low], layer.back_start[at + high]
                if a < b:
                    d = ((channel * height + row) * width + column) * n
                    combine(dx, d, z, (row + U1 - k) * run, layer.back_offset, layer.back_weight, a, b, n, run)


@compiled
def _list(images, background, offset, starts, pixel, value):
    """Number of pixels that are not background; if the arrays are not empty, these get them, minus an offset."""
    found = U0
    for i in range(np.uint64(images.shape[0])):
        for p in range(np.uint64(images.shape[1])):
            if images[i, p] != background:
                if pixel.size:
                    pixel[found], value[found] = p, images[i, p] - offset
                found += U1
        starts[i + U1] = found
    return found


LISTED = {}  # what has been used last, in this order: a process trains level after level on the same images


def list_pixels(images, background, offset):
    """:class:`Pixels` of images, (N, 784) array: those that differ from `background`, minus an offset."""
    key = images.ctypes.data, images.shape, images.dtype.str, background, offset
    if key in LISTED:
        LISTED[key] = LISTED.pop(key)  # what was used last is the last to go
    else:
        if len(LISTED) >= 8:
            del LISTED[next(iter(LISTED))]
        starts, none = np.zeros(len(images) + 1, np.uint64), np.zeros(0, images.dtype)
        count = int(_list(images, background, offset, starts, none.astype(np.uint16), none))
        pixels = Pixels(background, starts, np.zeros(count, np.uint16), np.zeros(count, images.dtype))
        _list(images, background, offset, *pixels[1:])
        LISTED[key] = pixels, images  # the images as well: while they are kept, no others can take their place
    return LISTED[key][0]


@compiled
def _forward_rows(whole, layer, pixels, chosen, n):
    """From images to layer.z, (unit, image); the lanes beyond the chosen ones repeat the first one."""
    base, z, weight, width = whole.base, whole.z, layer.weight, whole.width
    units, count = np.uint64(layer.bias.size), np.uint64(chosen.size)
    base[:] = 0
    for p in range(U0, np.uint64(weight.size), width):
        for j in range(width):
            base[j] += weight[p + j]
    for j in range(units):
        base[j] = layer.bias[j] + pixels.background * base[j]
    for lane in range(count):
        image, d = np.uint64(chosen[lane]), lane * width
        for j in range(width):
            z[d + j] = base[j]
        first, last = pixels.starts[image], pixels.starts[image + U1]
        combine(z, d, weight, U0, pixels.pixel, pixels.value, first, last, width, width)
    for unit in range(units):
        for lane in range(n):
            layer.z[unit * n + lane] = z[(lane if lane < count else U0) * width + unit]
    _activate(layer.z, U0, units * n, layer.activation)


@compiled
def _backward_rows(whole, layer, pixels, chosen, n, again):
    """From layer.z, the gradient of what went into the activations, to the weights' gradient; `again`: add to it."""
    base, z, at, gradient, width = whole.base, whole.z, whole.at, layer.weight_gradient, whole.width
    units, count = np.uint64(layer.bias.size), np.uint64(chosen.size)
    for unit in range(units):
        base[unit] = 0
        for lane in range(count):
            z[lane * width + unit] = layer.z[unit * n + lane]
            base[unit] += layer.z[unit * n + lane]
        base[unit] *= pixels.background
    at[:] = 0  # pixel -> images, by counting
    for i in chosen:
        for t in range(pixels.starts[np.uint64(i)], pixels.starts[np.uint64(i) + U1]):
            at[np.uint64(pixels.pixel[t])] += U1
    for p in range(U1, np.uint64(at.size)):
        at[p] += at[p - U1]
    for lane in range(count):
        i = np.uint64(chosen[lane])
        for t in range(pixels.starts[i], pixels.starts[i + U1]):
            p = np.uint64(pixels.pixel[t])
            at[p] -= U1
            whole.image[at[p]], whole.strength[at[p]] = lane, pixels.value[t]
    for p in range(np.uint64(at.size) - U1):
        d = p * width
        for j in range(width):
            gradient[d + j] = gradient[d + j] + base[j] if again else base[j]
        combine(gradient, d, z, U0, whole.image, whole.strength, at[p], at[p + U1], width, width)
        if whole.kept.size:
            for j in range(width):
                gradient[d + j] *= whole.kept[d + j]  # no gradient, no moment, no step: it stays exactly 0


@compiled
def _lanes(count):
    """Runs as long as these take are fastest: 8, 32 or 64 images, the last of them blank (see `combine`)."""
    return U8 if count <= 8 else np.uint64(32) if count <= 32 else np.uint64((count + 63) // 64 * 64)


@compiled
def _scatter(x, pixels, chosen, blank, row, n):
    """Write the chosen images to `x`, (row, n); the lanes beyond them are blank."""
    for r in range(blank.size):
        for lane in range(n):
            x[r * n + lane] = blank[r]
    for lane in range(chosen.size):
        image = np.uint64(chosen[lane])
        for t in range(pixels.starts[image], pixels.starts[image + U1]):
            x[np.uint64(row[pixels.pixel[t]]) * n + lane] = pixels.value[t]


@compiled
def _entropy(z, labels, chosen, count, n, scale):
    """Sum of the cross-entropies; `z`, (10, n), becomes their gradient times `scale`, 0 in the lanes beyond `count`."""
    total, classes = 0.0, np.uint64(CLASSES)
    for lane in range(n):
        if lane >= count:
            for c in range(classes):
                z[c * n + lane] = 0
            continue
        top, norm, label = z[lane], 0.0, np.uint64(labels[chosen[lane]])
        for c in range(classes):
            top = max(top, z[c * n + lane])
        for c in range(classes):
            norm += math.exp(z[c * n + lane] - top)
        total += math.log(norm) - (z[label * n + lane] - top)
        for c in range(classes):
            z[c * n + lane] = (math.exp(z[c * n + lane] - top) / norm - (1.0 if c == label else 0.0)) * scale
    return total


@compiled
def _forward_all(layers, whole, pixels, part, blank, row, n):
    if whole.on:
        _forward_rows(whole, layers[0], pixels, part, n)
    else:
        _scatter(layers[0].x, pixels, part, blank, row, n)
        _forward(layers[0], n)
    for k in range(1, len(layers)):
        _forward(layers[k], n)


@compiled
def _advance(layers, whole, pixels, labels, order, batch, group, blank, row, parameters, fixed, rule, rates, done):
    """Train on `order`, a batch after the other: losses (steps,) float64."""
    gradient, losses = parameters[1], np.zeros((order.size + batch - 1) // batch)
    for step in range(losses.size):
        chosen = order[step * batch : (step + 1) * batch]
        gradient[layers[0].weight.size if whole.on else 0 :] = 0
        for k in range(1, len(layers)):
            layer = layers[k]
            for t in range(layer.back.size):
                layer.back_weight[t] = layer.weight[np.uint64(layer.back[t])]
        groups = (chosen.size + group - 1) // group
        for i in range(groups):
            part = chosen[i * chosen.size // groups : (i + 1) * chosen.size // groups]
            count, n = np.uint64(part.size), _lanes(part.size)
            _forward_all(layers, whole, pixels, part, blank, row, n)
            losses[step] += _entropy(layers[-1].z, labels, part, count, n, 1 / chosen.size)
            for k in range(len(layers) - 1, -1, -1):
                _backward(layers[k], n, k > 0)
            if whole.on:
                _backward_rows(whole, layers[0], pixels, part, n, i > 0)
        losses[step] /= chosen.size
        if rule[3]:
            for layer in layers:
                _freeze(layer.weight, layer.weight_gradient, rule[3])
        _update(parameters, rule, rates[step], done + step + 1)
        if fixed.size:
            _put_back(parameters[0], fixed[0], fixed[1])
    return losses


@compiled
def _put_back(value, trained, start):
    """Weights that are not trained take their start, which is 0 for all others, whatever the optimizer did."""
    for j in range(value.size):
        value[j] = value[j] * trained[j] + start[j]


@compiled
def _freeze(value, gradient, below):
    limit, zero = value.dtype.type(below), value.dtype.type(0)
    for j in range(value.size):
        gradient[j] = zero if value[j] < limit else gradient[j]


@compiled
def _update(parameters, rule, lr, step):
    """One step of the optimizer; `rule` is its number, momentum and weight decay, as torch takes them, and a limit."""
    value, gradient, m, v = parameters[0], parameters[1], parameters[2], parameters[3]
    optimizer, momentum, decay, _ = rule
    if decay and optimizer == 2:
        _shrink(value, lr * decay)
    elif decay:
        _add_decay(value, gradient, decay)
    if optimizer == 1:
        _descend(value, gradient, m, lr, momentum)
    else:
        _adam(value, gradient, m, v, lr, step)


@compiled
def _shrink(value, share):
    keep = value.dtype.type(1 - share)
    for j in range(value.size):
        value[j] *= keep


@compiled
def _add_decay(value, gradient, decay):
    share = value.dtype.type(decay)
    for j in range(value.size):
        gradient[j] += share * value[j]


@compiled
def _adam(value, gradient, m, v, lr, step):
    kind = value.dtype.type
    rate, scale, eps = kind(lr / (1 - BETA1**step)), kind(1 / math.sqrt(1 - BETA2**step)), kind(EPS)
    b1, c1, b2, c2 = kind(BETA1), kind(1 - BETA1), kind(BETA2), kind(1 - BETA2)
    for j in range(value.size):
        g = gradient[j]
        m[j] = b1 * m[j] + c1 * g
        v[j] = b2 * v[j] + c2 * g * g
        value[j] -= rate * m[j] / (np.sqrt(v[j]) * scale + eps)


@compiled
def _descend(value, gradient, m, lr, momentum):
    rate, keep = value.dtype.type(lr), value.dtype.type(momentum)
    for j in range(value.size):
        m[j] = keep * m[j] + gradient[j]
        value[j] -= rate * m[j]


@compiled
def _logits(layers, whole, pixels, group, blank, row, out):
    chosen = np.arange(out.shape[0])
    for first in range(0, chosen.size, group):
        part = chosen[first : first + group]
        count, n = np.uint64(part.size), _lanes(part.size)
        _forward_all(layers, whole, pixels, part, blank, row, n)
        z = layers[-1].z
        for lane in range(count):
            for c in range(U0, np.uint64(CLASSES)):
                out[np.uint64(first) + lane, c] = z[c * n + lane]


def _zeros(size, dtype):
    """As `np.zeros`, but from torch, which begins at a whole cache line: no run of eight lies across two."""
    return torch.from_numpy(np.zeros(0, dtype)).new_zeros(size).numpy()


class Sparse:
    """Training on the surviving weights, on the CPU; an engine's interface without the axis of replicates.

    Parameters
    ----------
    values : dict of str to Tensor
        Weights and biases by parameter name, all float32 (or all float64, to check the arithmetic).
    mask : dict of str to bool Tensor
        By layer name; True = kept, or, of a network with frozen weights (``config.frozen``), trained.
    data : lthcore.data.Split
        On the CPU; `data.train` is (N, 1, 28, 28) images of the values' dtype and (N,) int64 labels, not copied.
    config : Config
    first : int
        Step at which the training starts, for a learning rate that rises.
    """

    ROW_DENSITY = 0.28  # density of the MLP's first layer above which it is trained by whole rows; measured

    def __init__(self, values, mask, data, config, first=0):
        self.images, self.labels = data.train[0].numpy().reshape(-1, 784), data.train[1].numpy()
        self.config, self.done = config, 0
        self.first = first
        # floats, whatever was typed: for other types all would be compiled once more
        numbers = config.momentum, config.weight_decay, config.frozen_below
        self.rule = OPTIMIZERS[config.optimizer], *map(float, numbers)
        self.group = int(_lanes(min(MAPS if config.convolutions else FLAT, config.batch_size)))
        self.dense = {name: value.detach().numpy().copy() for name, value in values.items()}
        trained = {name: m.numpy() for name, m in mask.items()}
        self.mask = {name: np.ones_like(m) for name, m in trained.items()} if config.frozen else trained
        self._build()
        self.restore(values)
        self.fixed = self.parameters[:0]
        if config.frozen:
            self.fixed = np.zeros((2, self.parameters.shape[1]), self.parameters.dtype)
            for name, (place, index) in self.places.items():
                layer, kind = name.split(".")
                self.fixed[0, place] = trained[layer].reshape(-1)[index] if kind == "weight" else 1
            self.fixed[1] = np.where(self.fixed[0], 0, self.parameters[0])

    def _build(self):
        """Lay out the taps, the parameters and the buffers."""
        config, group = self.config, self.group
        architecture = ARCHITECTURES[config.model]
        names, shapes = list(architecture.weights), architecture.weights
        self.names = names
        alive, taps, live = np.ones(CLASSES, bool), {}, {}
        for i, name in reversed(list(enumerate(names))):
            kept = self.mask[name].reshape(len(alive), -1) & alive[:, None]
            taps[name], live[name] = np.flatnonzero(kept), np.flatnonzero(alive).astype(np.uint64)
            alive = kept.any(0).reshape(shapes[names[i - 1]][0] if i else 1, -1).any(1)
        first = self.mask[names[0]]
        self.width = 0  # of the first layer's rows, where they are whole
        if not config.convolutions and first.mean() > self.ROW_DENSITY:
            self.width, taps[names[0]] = -(-len(first) // LANES) * LANES, taps[names[0]][:0]
            live[names[0]] = np.arange(len(first))
        self.places = {}  # parameter name -> its place in self.parameters, its flat indices in the dense tensor
        at, slices = 0, {}
        for name in names:
            for key, index in ((f"{name}.weight", taps[name]), (f"{name}.bias", np.arange(shapes[name][0]))):
                size = len(index)
                place = np.arange(at, at + size)
                if at == 0 and self.width:
                    size, index = 784 * self.width, np.flatnonzero(first)
                    place = index % 784 * self.width + index // 784  # transposed
                slices[key], self.places[key] = slice(at, at + size), (place, index)
                at += size
        for name in names if config.weight_decay else ():  # what no logit depends on decays all the same
            place, index = self.places[f"{name}.weight"]
            idle = np.setdiff1d(np.flatnonzero(self.mask[name]), index)
            self.places[f"{name}.weight"] = np.append(place, at + np.arange(len(idle))), np.append(index, idle)
            at += len(idle)
        dtype = self.dense[f"{names[0]}.bias"].dtype
        # values, gradients, and the optimizer's two moments, each beginning at a cache line
        self.parameters = _zeros(4 * (-(-at // 16) * 16), dtype).reshape(4, -1)
        corner = self.images[0, 0]
        self.background = corner if np.isfinite(corner) else self.images.dtype.type(0)
        if not config.convolutions:  # a row of x per pixel that a weight sees, and one for all the others
            seen, self.row = np.unique(taps[names[0]] % 784), np.full(784, -1)
            self.row[seen] = np.arange(len(seen))
            self.row, self.blank = (
                (self.row % (len(seen) + 1)).astype(np.uint32),
                np.full(len(seen) + 1, self.background),
            )
        else:  # all of them, with a border of two
            pixel = np.arange(784)
            self.row, self.blank = ((pixel // 28 + 2) * 32 + pixel % 28 + 2).astype(np.uint32), np.zeros(1024, dtype)
            self.blank[self.row] = self.background
        layers, size, none = [], 28, np.zeros(0, dtype)
        for name in names:
            out, into, kernel = (*shapes[name], 1)[:3]
            size = (size if name == "conv1" else size - 4) if kernel > 1 else 1
            pool = POOLS[config.pool] if kernel > 1 else 0
            rule = architecture.activation if config.activation == "default" else config.activation
            activation = ACTIVATIONS["identity" if name == names[-1] else rule]
            unit, channel, row, column = np.unravel_index(taps[name], (out, into, kernel, kernel))
            padded = size + kernel - 1
            offset = (channel * padded + row) * padded + column if layers or kernel > 1 else self.row[channel]
            back = np.lexsort((unit, row, column, channel))
            key = ((channel * kernel + column) * kernel + row)[back]
            w, b = (slices[f"{name}.{kind}"] for kind in ("weight", "bias"))
            if layers:
                x, dx = layers[-1].y, layers[-1].dy
            else:
                x, dx = _zeros(len(self.blank) * group, dtype), none
            z = _zeros(out * size * size * group, dtype)
            y = _zeros(len(z) // 4, dtype) if pool else z
            layers.append(
                Layer(
                    *(np.uint64(i) for i in (size, size, kernel, into)), activation, pool, live[name].astype(np.uint64),
                    np.searchsorted(unit, np.arange(out + 1)).astype(np.uint64),
                    offset.astype(np.uint32),
                    np.searchsorted(key, np.arange(into * kernel * kernel + 1)).astype(np.uint64),
                    # counted from the tap's lowest row, so that it is not negative; _backward starts as much earlier
                    ((unit * size + kernel - 1 - row) * size)[back].astype(np.uint32),
                    back.astype(np.uint32), np.zeros(len(back), dtype),
                    self.parameters[0, w], self.parameters[0, b], self.parameters[1, w], self.parameters[1, b],
                    x, z, y, dx, _zeros(len(y), dtype),
                )
            )  # fmt: skip
            if pool:
                size //= 2
        self.layers = tuple(layers)
        kept, rows = first.T if self.width and not first.all() else first[:0], group if self.width else 0
        self.whole = RowLayer(
            bool(self.width), np.uint64(self.width),
            np.pad(kept, ((0, 0), (0, self.width - kept.shape[1]))).astype(dtype).reshape(-1) if len(kept) else none,
            _zeros(self.width, dtype), _zeros(rows * self.width, dtype),
            np.zeros(785, np.uint64), np.zeros(rows * 784, np.uint32), np.zeros(rows * 784, dtype),
        )  # fmt: skip

    def _pixels(self, images):
        offset = self.background if self.width else self.images.dtype.type(0)
        return list_pixels(images.reshape(-1, 784), self.background, offset)

    def advance(self, order):
        """One step per batch of `order`, (n,) indices of training images: losses, (steps,) Tensor."""
        config, steps = self.config, -(-len(order) // self.config.batch_size)
        rates = np.array(config.rates(self.first + self.done, steps))
        losses = _advance(
            self.layers, self.whole, self._pixels(self.images), self.labels, order.numpy(), config.batch_size,
            self.group, self.blank, self.row, self.parameters, self.fixed, self.rule, rates, self.done,
        )  # fmt: skip
        self.done += len(losses)
        return torch.from_numpy(losses)

    def logits(self, images):
        """Logits (N, 10) of images (N, 1, 28, 28)."""
        out = np.zeros((len(images), CLASSES), self.parameters.dtype)
        _logits(self.layers, self.whole, self._pixels(images.numpy()), self.group, self.blank, self.row, out)
        return torch.from_numpy(out)

    def values(self):
        """Weights and biases as they are now: dict of str to Tensor, copies; exactly 0, or frozen, where pruned."""
        for name, (place, index) in self.places.items():
            self.dense[name].reshape(-1)[index] = self.parameters[0, place]
        return {name: torch.from_numpy(value.copy()) for name, value in self.dense.items()}

    def restore(self, values):
        """Put these values in place of the present ones; the optimizer's moments stay."""
        for name, (place, index) in self.places.items():
            layer, kind = name.split(".")
            value = values[name].detach().numpy()
            self.dense[name][...] = np.where(self.mask[layer], value, 0) if kind == "weight" else value
            self.parameters[0, place] = self.dense[name].reshape(-1)[index]
