"""MNIST and Fashion-MNIST: small files made here, and the real ones where they lie beside the repository."""

import gzip
import hashlib
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from test_data_idx import idx_bytes

from minidl.data import Fit, fashion_mnist, mnist

pytestmark = pytest.mark.usefixtures("no_network")

NAMES = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
REAL = Path(__file__).parents[2] / "shared" / "data" / "mnist"


def contents(count):
    images = np.random.default_rng(count).integers(256, size=(count, 28, 28), dtype=np.uint8)
    return images, np.arange(count, dtype=np.uint8) % 10


@pytest.fixture
def root(tmp_path):
    """12 training and 5 test images; the test files gzipped."""
    arrays = [*contents(12), *contents(5)]
    for name, array in zip(NAMES, arrays):
        if name.startswith("train"):
            (tmp_path / name).write_bytes(idx_bytes(array))
        else:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
    return tmp_path


@pytest.mark.parametrize("load", [mnist, fashion_mnist])
@pytest.mark.parametrize("train, count", [(True, 12), (False, 5)])
def test_a_folder_is_read_gzipped_or_not(root, load, train, count):
    data = load(train, root=root, transform=Fit(32))
    images, labels = contents(count)
    np.testing.assert_array_equal(data.images, images[:, np.newaxis])
    np.testing.assert_array_equal(data.labels, labels)
    assert data[0][0].shape == (1, 32, 32) and data[0][0].max() <= 1


@pytest.mark.parametrize("place", [
    "{dotted}", "{dotted}.gz", "{name}/{name}", "{dotted}/{dotted}", "{dotted}/{name}", "raw/{name}", "raw/{name}.gz",
    "{torchvision}/raw/{name}", "{torchvision}/raw/{name}.gz", "{name}/{name}.gz",
])
@pytest.mark.parametrize("load, torchvision", [(mnist, "MNIST"), (fashion_mnist, "FashionMNIST")])
def test_files_are_found_where_unpackers_kaggle_and_torchvision_put_them(tmp_path, place, load, torchvision):
    for name, array in zip(NAMES, [*contents(12), *contents(5)]):
        path = tmp_path / place.format(name=name, dotted=name.replace("-idx", ".idx"), torchvision=torchvision)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx_bytes(array)) if path.suffix == ".gz" else idx_bytes(array))
    assert (len(load(root=tmp_path)), len(load(False, root=tmp_path))) == (12, 5)


def test_the_home_folder_may_be_written_as_a_tilde(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    assert len(mnist(root=f"~/{root.name}")) == 12


def test_classes_are_named(root):
    assert mnist(root=root).classes == tuple("0123456789")
    assert fashion_mnist(root=root).classes == (
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )


def test_a_missing_file_is_named_with_all_its_names(root):
    (root / NAMES[1]).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{root} has neither {NAMES[1]}.gz nor {NAMES[1]}")):
        mnist(root=root)
    assert len(mnist(False, root=root)) == 5


@pytest.mark.parametrize("name, array, complaint", [
    (NAMES[0], contents(11)[0], r"do not belong together: labels have the shape \(12,\); expected \(11,\)"),
    (NAMES[1], np.full(12, 10, np.uint8), "label 10 of image 0; expected 0 to 9 for 10 classes"),
    (NAMES[0], np.zeros((12, 32, 28), np.uint8), r"uint8 of shape \(12, 32, 28\); expected .* \(N, 28, 28\)"),
    (NAMES[0], np.zeros((12, 28, 28), np.float32), "float32 of shape .* expected uint8"),
    (NAMES[1], np.zeros((12, 1), np.uint8), r"uint8 of shape \(12, 1\); expected uint8 of shape \(N\)"),
    (NAMES[1], np.zeros((), np.uint8), r"uint8 of shape \(\); expected uint8 of shape \(N\)"),
])
def test_files_that_are_not_what_they_should_be(root, name, array, complaint):
    (root / name).write_bytes(idx_bytes(array))
    with pytest.raises(ValueError, match=complaint) as caught:
        mnist(root=root)
    assert str(root / name) in str(caught.value)


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """The arguments of each download, which gives the bytes of a small file instead."""
    calls = []

    def download(urls, path, checksum, size):
        calls.append((urls, path, checksum, size))
        array = contents(3)["labels" in path.name]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(idx_bytes(array)))
        return path

    monkeypatch.setenv("MINIDL_HOME", str(tmp_path / "cache"))
    # minidl.data.mnist is the function; the module of the same name is found by import_module.
    monkeypatch.setattr(import_module("minidl.data.mnist"), "download", download)
    return calls


@pytest.mark.parametrize("load, folder, mirrors", [
    (mnist, "mnist", ["https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"]),
    (fashion_mnist, "fashion_mnist", ["http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"]),
])
def test_without_a_folder_the_files_come_from_the_official_addresses(downloads, tmp_path, load, folder, mirrors):
    for train in True, False:
        assert len(load(train)) == 3
    assert [path for _, path, *_ in downloads] == [tmp_path / "cache" / folder / f"{name}.gz" for name in NAMES]
    assert [list(urls) for urls, *_ in downloads] == [[f"{url}{name}.gz" for url in mirrors] for name in NAMES]
    assert len({checksum for _, _, checksum, _ in downloads}) == len({size for *_, size in downloads}) == 4


def test_a_folder_means_no_download(downloads, root):
    mnist(root=root)
    with pytest.raises(FileNotFoundError):
        mnist(root=root / "elsewhere")
    assert downloads == []


def real():
    if not REAL.is_dir():
        pytest.skip("skipped: data not found")
    return REAL


def test_the_checksums_and_sizes_are_those_of_the_real_files(downloads):
    folder = real()
    for train in True, False:
        mnist(train)
    for _, path, checksum, size in downloads:
        assert (folder / path.name).stat().st_size == size
        assert hashlib.md5((folder / path.name).read_bytes()).hexdigest() == checksum


def test_real_mnist():
    train, test = mnist(root=real()), mnist(False, root=real())
    assert train.images.shape == (60000, 1, 28, 28) and test.images.shape == (10000, 1, 28, 28)
    assert np.bincount(train.labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert round(train.images.mean() / 255, 4) == 0.1307  # the mean that everyone normalises with
