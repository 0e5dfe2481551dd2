"""A digit drawn by hand, brought into MNIST's form, and what a network answers to it."""

from pathlib import Path

import anywidget
import numpy as np
import PIL.Image
import traitlets

from ..methods import DATASETS
from ..runs.store import Weights
from ..unit import Unit

SENT = 112  # rows and columns that the page sends
BOX, SIDE = 20, 28  # MNIST's digits fit into 20 x 20 pixels of 28 x 28


class Canvas(anywidget.AnyWidget):
    """A square to draw in with a mouse, a pen or a finger, and a button that clears it."""

    _esm = Path(__file__).with_name("canvas.js").read_text(encoding="utf-8")
    pixels = traitlets.CBytes(b"").tag(sync=True)
    """What is drawn: 112 x 112 bytes, 0 blank to 255 ink; none where nothing is."""

    @property
    def digit(self) -> np.ndarray | None:
        """What is drawn as a test image, (28, 28) array of uint8, or None."""
        if len(self.pixels) != SENT * SENT:
            return None
        return as_mnist(np.frombuffer(self.pixels, np.uint8).reshape(SENT, SENT))


def as_mnist(ink: np.ndarray) -> np.ndarray | None:
    """A drawing in MNIST's form: fitted into 20 x 20 pixels, its centre of mass in the middle of 28 x 28.

    Parameters
    ----------
    ink : (N, M) array of uint8
        0 blank to 255 ink.

    Returns
    -------
    (28, 28) array of uint8, or None where all is blank

    Examples
    --------
    >>> ink = np.zeros((112, 112), np.uint8)
    >>> ink[10:90, 5:25] = 255
    >>> [int(place.min()) for place in np.nonzero(as_mnist(ink))]
    [4, 12]
    """
    rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
    if not len(rows):
        return None
    box = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = [max(1, round(n * BOX / max(box.shape))) for n in box.shape]
    small = np.asarray(PIL.Image.fromarray(box).resize(size[::-1], PIL.Image.Resampling.BILINEAR))
    place = []
    for axis, n in enumerate(size):
        centre = np.average(np.arange(n), weights=small.sum(1 - axis)) if small.any() else (n - 1) / 2
        place.append(min(max(0, round(SIDE / 2 - centre)), SIDE - n))
    page = np.zeros((SIDE, SIDE), np.uint8)
    page[place[0] : place[0] + size[0], place[1] : place[1] + size[1]] = small
    return page


def logits(unit: Unit, weights: Weights, digit: np.ndarray) -> np.ndarray:
    """What a trained network gives for a digit, (28, 28) array of uint8: (10,) array of float32."""
    import torch

    from .. import models

    config, record = unit.config, DATASETS[unit.config.dataset]
    image = torch.from_numpy((digit.astype(np.float32) / 255 - record.mean[0]) / record.std[0]).float()
    network = models.build(config.model, config.activation, config.pool)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.final.items()})
    with torch.no_grad():
        return network.eval()(image[None, None])[0].numpy()
