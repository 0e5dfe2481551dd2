"""The files of Fashion-MNIST and CIFAR-10: where they are found, and what is read from them."""

import gzip
import hashlib
import io
import tarfile

import numpy as np
import pytest

from lthcore import data
from lthcore.data import whole
from lthcore.runs import download
from lthcore.studies import experiments


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LTH_DATA", str(tmp_path))
    for source in ("_mirrors", "_debian"):
        monkeypatch.setattr(download, source, lambda root, name, **_: (_ for _ in ()).throw(OSError("nothing here")))
    data.whole.cache_clear()
    yield tmp_path
    data.whole.cache_clear()


def cifar(records):
    """A small archive in CIFAR-10's own form: bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, part in zip([f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"], records, strict=True):
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            info.size = part.size
            tar.addfile(info, io.BytesIO(part.tobytes()))
    return out.getvalue()


def test_cifar_is_read_in_its_own_form(folder, monkeypatch):
    random = np.random.default_rng(0)
    records = [np.column_stack([random.integers(0, 10, 4), random.integers(0, 256, (4, 3072))]) for _ in range(6)]
    content = cifar([r.astype(np.uint8) for r in records])
    name = "cifar-10-binary.tar.gz"
    monkeypatch.setitem(download.MORE, "cifar10", {name: hashlib.sha256(content).hexdigest()})
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / name).write_bytes(content)
    images, labels = data.whole("cifar10")["train"]
    assert images.shape == (20, 3, 32, 32) and labels.tolist() == [int(r[0]) for part in records[:5] for r in part]
    red, blue = records[3][2][1 : 1 + 1024].reshape(32, 32), records[3][2][2049:].reshape(32, 32)
    assert np.allclose(images[14, 0], (red / 255 - 0.4914) / 0.2470, atol=1e-5)
    assert np.allclose(images[14, 2], (blue / 255 - 0.4465) / 0.2616, atol=1e-5)
    assert data.whole("cifar10")["test"][1].tolist() == records[5][:, 0].tolist()
    looks, named = download.digits("full", dataset="cifar10")
    assert looks.shape == (4, 32, 32) and named.tolist() == records[5][:, 0].tolist()
    download.digits.cache_clear()


def test_an_altered_cifar_is_set_aside_and_its_name_said(folder):
    (folder / "cifar10").mkdir()
    (folder / "cifar10" / "cifar-10-binary.tar.gz").write_bytes(b"not it")
    with pytest.raises(RuntimeError, match=r"^[^\n]*put cifar-10-binary.tar.gz into [^\n]*$"):
        download.fetch(dataset="cifar10", log=lambda _: None)
    assert (folder / "cifar10" / "cifar-10-binary.tar.gz.bad-1").exists()


def test_fashion_comes_from_files_by_hand_or_from_debian_and_never_in_mnists_place(folder, monkeypatch):
    content = {name: f"{name} of Fashion-MNIST".encode() for name in download.SHA256}
    sums = {name: hashlib.sha256(c).hexdigest() for name, c in content.items()}
    monkeypatch.setitem(download.MORE, "fashion", sums)
    first, *rest = content
    (folder / "fashion").mkdir()
    (folder / "fashion" / f"{first}.gz").write_bytes(gzip.compress(content[first]))
    monkeypatch.setattr(download, "_debian", lambda root, name: [("Debian", content[name])])
    said = []
    root = download.fetch(said.append, "fashion")
    assert root == folder / "fashion" and all((root / n).read_bytes() == c for n, c in content.items())
    assert [" from Debian" in line for line in said] == [False, True, True, True] and rest
    assert not any((folder / name).exists() for name in download.SHA256)


@pytest.mark.slow
def test_a_tenth_is_stratified():
    labels = whole()["train"][1].numpy()
    parts = data.split_indices(labels, labels[:50], "tenth", 1 / 12, 0, "fashion_conv2", 0)
    chosen = np.concatenate(parts[:2])
    assert (np.bincount(labels[chosen]) == np.bincount(labels) // 10).all()
    assert len(np.unique(chosen)) == len(chosen)
    config = experiments.study("fashion_conv2", "report").config
    assert len(parts[0]) >= config.batch_size
