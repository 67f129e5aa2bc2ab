"""CIFAR-10: small files made here, and the real ones where they lie beside the repository."""

import hashlib
import io
import tarfile
import tracemalloc
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from cases import mentions

from minidl.data import CIFAR10_CLASSES, cifar10, open_dataset

pytestmark = pytest.mark.usefixtures("no_network")

REAL = Path(__file__).parents[2] / "shared" / "data" / "cifar-10-batches-bin"
NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def contents(name, count=3):
    rng = np.random.default_rng(NAMES.index(name))
    return rng.integers(256, size=(count, 3, 32, 32), dtype=np.uint8), rng.integers(10, size=count, dtype=np.uint8)


def as_bytes(images, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels))


@pytest.fixture
def root(tmp_path):
    """Two of the five training files, and the test file."""
    for name in (NAMES[0], NAMES[3], NAMES[5]):
        (tmp_path / name).write_bytes(as_bytes(*contents(name)))
    return tmp_path


def test_a_folder_is_read_as_far_as_it_goes(root):
    train, test = cifar10(root=root), cifar10(False, root)
    parts = [contents(name) for name in (NAMES[0], NAMES[3])]
    assert np.array_equal(train.images, np.concatenate([images for images, _ in parts]))
    assert np.array_equal(train.labels, np.concatenate([labels for _, labels in parts]))
    assert np.array_equal(test.images, contents(NAMES[5])[0])
    assert train.classes == CIFAR10_CLASSES and train[0][0].dtype == np.float32 and train[0][0].max() <= 1


def test_the_folder_of_the_archive_is_found_in_its_parent(root):
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for path in root.glob("*.bin"):
        path.rename(folder / path.name)
    assert len(cifar10(root=root)) == 6 and len(cifar10(False, folder)) == 3


def test_the_home_folder_may_be_written_as_a_tilde(root, monkeypatch):
    monkeypatch.setenv("HOME", str(root.parent))
    monkeypatch.setenv("USERPROFILE", str(root.parent))
    assert len(cifar10(root=f"~/{root.name}")) == 6


@pytest.mark.parametrize("place", ["cifar-10-batches-py/data_batch_1", "data_batch_1", "cifar-10-python.tar.gz"])
def test_the_python_version_is_not_taken_for_the_binary_one(tmp_path, place):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_bytes(b"a pickle")
    with pytest.raises(FileNotFoundError, match=mentions("the Python version of CIFAR-10", "cifar-10-binary.tar.gz")):
        cifar10(root=tmp_path)


def archived(files):
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz", compresslevel=1) as file:
        for name, content in files.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_the_archive_is_downloaded_and_read(monkeypatch, tmp_path):
    archive = archived({name: as_bytes(*contents(name)) for name in NAMES})
    path = tmp_path / "cifar10" / "cifar-10-binary.tar.gz"
    path.parent.mkdir()
    path.write_bytes(archive)
    monkeypatch.setenv("MINIDL_HOME", str(tmp_path))
    monkeypatch.setattr(import_module("minidl.data.cifar"), "_MD5", hashlib.md5(archive).hexdigest())
    for root in None, path.parent:
        assert np.array_equal(cifar10(root=root).labels, np.concatenate([contents(name)[1] for name in NAMES[:5]]))
        assert np.array_equal(cifar10(False, root).images, contents(NAMES[5])[0])


def test_an_archive_is_unpacked_no_further_than_its_files_go(tmp_path, monkeypatch):
    """Whether the zeros are in a member that is passed over or in one that is read."""
    monkeypatch.setattr(import_module("minidl.data.cifar"), "_UNPACKED_BYTES", 1 << 20)
    good = as_bytes(*contents(NAMES[5]))
    for files in {"other": bytes(8 << 20), NAMES[5]: good}, {NAMES[5]: bytes(8 << 20)}, {NAMES[5]: bytes(31_000_000)}:
        (tmp_path / "cifar-10-binary.tar.gz").write_bytes(archived(files))
        tracemalloc.start()
        with pytest.raises(ValueError, match="cifar-10-binary.tar.gz is damaged: "):
            cifar10(False, tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()


@pytest.mark.parametrize("content, values", [
    (b"", ["0 bytes", "3,073"]), (b"1" * 100, ["100 bytes"]), (bytes([9]) + bytes(3072) + bytes([10]) + bytes(3072),
                                                              ["image 1", "label 10"]),
])
def test_a_damaged_file_is_refused(root, content, values):
    (root / NAMES[5]).write_bytes(content)
    with pytest.raises(ValueError, match=mentions("test_batch.bin", *values)):
        cifar10(False, root)


def test_a_folder_without_them_says_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=mentions("data_batch_1.bin", "data_batch_5.bin", "cifar-10-binary")):
        cifar10(root=tmp_path)


def test_the_catalog_prepares_them(root):
    plain = open_dataset(f"cifar10:{root}", True, 32)
    images = contents(NAMES[0])[0]
    expected = (images[0] / 255 - np.reshape([0.4914, 0.4822, 0.4465], (3, 1, 1))) / np.reshape(
        [0.2470, 0.2435, 0.2616], (3, 1, 1))
    np.testing.assert_allclose(plain[0][0], expected, rtol=1e-5, atol=1e-6)
    assert open_dataset(f"cifar10:{root}", True, 64)[0][0].shape == (3, 64, 64)
    varied, rng = open_dataset(f"cifar10:{root}", True, 32, "cifar"), np.random.default_rng(0)
    assert not np.array_equal(varied.fetch([0], rng)[0], varied.fetch([0], rng)[0])
    with pytest.raises(ValueError, match="varied by 'cifar'"):
        open_dataset(f"cifar10:{root}", True, 32, "alexnet")


def test_the_real_files():
    if not REAL.is_dir():
        pytest.skip("data not found")
    train, test = cifar10(root=REAL), cifar10(False, REAL)
    assert train.images.shape == (20000, 3, 32, 32) and test.images.shape == (10000, 3, 32, 32)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    pixels = train.images.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    np.testing.assert_allclose(pixels.mean(axis=1), [0.4914, 0.4822, 0.4465], atol=3e-3)
    np.testing.assert_allclose(pixels.std(axis=1), [0.2470, 0.2435, 0.2616], atol=3e-3)
