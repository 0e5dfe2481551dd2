"""Data sets as whole tensors on the device, and the parts of them that the experiments train on.

To add one, write a function that gives its bytes and add a line to `methods.DATASETS`.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .config import Config
from .methods import DATASETS, SUBSETS, forget_replaced, function
from .schedule import CLASSES, apportion
from .unit import Unit, draw_seed

Array = np.ndarray
READ = "lthcore.runs.download:read_checked"  # where the bytes come from: the core knows no disk


class Split(NamedTuple):
    """What one arm trains and is tested on: normalised images (N, *shape) float32, labels (N,) int64."""

    train: tuple  # (images, labels): all there are, shared by every subset and replicate
    validation: tuple | None  # held out of the training subset; None where nothing is
    test: tuple
    chosen: Any = None  # tensor (n,) int64, the places in `train` that are trained on; None: all of them

    @property
    def trained_on(self) -> int:
        """Number of images that are trained on."""
        return len(self.train[1] if self.chosen is None else self.chosen)


@lru_cache(maxsize=2)
def whole(dataset: str = "mnist", device: str = "cpu") -> dict[str, tuple]:
    """All of a data set: dict, ``train`` and ``test`` -> (images, labels) as in :class:`Split`."""
    import torch  # here: which images there are is asked without it

    mean, std = (torch.tensor(x, device=device).view(-1, 1, 1) for x in (DATASETS[dataset].mean, DATASETS[dataset].std))
    parts = {
        name: [torch.tensor(x.copy(), device=device) for x in both] for name, both in function(READ)(dataset).items()
    }
    return {name: ((pixels / 255 - mean) / std, labels.long()) for name, (pixels, labels) in parts.items()}


def split_indices(
    train_labels: Array, test_labels: Array, subset: str, fraction: float, seed: int, experiment: str, replicate: int
) -> tuple[Array, Array, Array]:
    """Indices of a subset's training, validation and test images: (n,) arrays of int64, increasing.

    Parameters
    ----------
    train_labels, test_labels : (N,) array of int
    subset : str
        One of ``methods.SUBSETS``. The two halves are disjoint, stratified and together everything.
    fraction : float
        Of the subset, held out for validation, stratified, in [0, 0.5].
    seed, experiment, replicate : int, str, int
        Keys of the draw; halves and validation depend on nothing else.
    """
    rule = SUBSETS[subset]
    labels, wanted = np.asarray(train_labels), rule.get("labels", range(CLASSES))
    random = np.random.default_rng(draw_seed(seed, "subset", experiment, replicate))
    members = {c: random.permutation(np.flatnonzero(labels == c)) for c in range(CLASSES)}
    if "half" in rule:
        halves = apportion({c: len(m) for c, m in members.items()}, len(labels) // 2)
        members = {c: (m[: halves[c]], m[halves[c] :])[rule["half"]] for c, m in members.items()}
    members = {c: members[c][: len(members[c]) // rule.get("share", 1)] for c in wanted}
    sizes = {c: len(m) for c, m in members.items()}
    held = apportion(sizes, round(fraction * sum(sizes.values())))
    train = np.concatenate([m[held[c] :] for c, m in members.items()])
    held_out = np.concatenate([m[: held[c]] for c, m in members.items()])
    return np.sort(train), np.sort(held_out), np.flatnonzero(np.isin(np.asarray(test_labels), list(wanted)))


@lru_cache(maxsize=8)
def split(config: Config, subset: str, replicate: int, device: str = "cpu") -> Split:
    """The images that `subset` trains and is tested on, for one replicate: :class:`Split`."""
    everything = whole(config.dataset, device)
    (images, labels), (test_images, test_labels) = everything["train"], everything["test"]
    keys = config.validation, config.seed, config.experiment, replicate
    chosen = split_indices(labels.cpu(), test_labels.cpu(), subset, *keys)
    train, held_out, test = (labels.new_tensor(i) for i in chosen)
    if config.test_images:
        test = test[: config.test_images]
    validation = (images[held_out], labels[held_out]) if len(held_out) else None
    shared = len(test) == len(test_labels)  # then it is not copied
    test = everything["test"] if shared else (test_images[test], test_labels[test])
    return Split(everything["train"], validation, test, train)


def load(unit: Unit, device: str = "cpu") -> Split:
    """The same for a unit: what the loop is given the data by."""
    forget_replaced(unit.config.dataset, whole, split)
    return split(unit.config, unit.subset, unit.replicate, device)
