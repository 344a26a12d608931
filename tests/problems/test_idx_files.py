"""Image files are read, recognised and refused for the right reason, whatever their packing; none is ever needed."""

import functools
import gzip
import hashlib
import http.server
import os
import struct
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from jaxopt_study.problems import datasets
from jaxopt_study.problems.datasets import DatasetError, IdxArchive, IdxFile, read_idx
from jaxopt_study.problems.datasets import _archives as archives

NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
rng = np.random.default_rng(0)
ARRAYS = {
    NAMES[0]: rng.integers(0, 256, (40, 5, 4), dtype=np.uint8),
    NAMES[1]: rng.integers(0, 10, 40, dtype=np.uint8),
    NAMES[2]: rng.integers(0, 256, (20, 5, 4), dtype=np.uint8),
    NAMES[3]: rng.integers(0, 10, 20, dtype=np.uint8),
}


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


CONTENTS = {name: idx(array) for name, array in ARRAYS.items()}
PACKED = {name: gzip.compress(content, mtime=0) for name, content in CONTENTS.items()}


def archive(name: str = "toy", mirrors: tuple[str, ...] = (), folders: tuple[str, ...] = ("toy",)) -> IdxArchive:
    """An archive whose originals are the arrays above."""
    files = {
        name: IdxFile(
            "images" if "images" in name else "labels",
            hashlib.md5(CONTENTS[name]).hexdigest(),
            hashlib.sha256(PACKED[name]).hexdigest(),
        )
        for name in NAMES
    }
    return IdxArchive(name=name, title="Toy", mirrors=mirrors, files=files, folders=folders)


def write(folder: Path, *, packed: bool = True, **changes: bytes | None) -> Path:
    """Write the four files, with some contents changed or, if None, left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**(PACKED if packed else CONTENTS), **changes}.items():
        if content is not None:
            (folder / (f"{name}.gz" if packed else name)).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def no_data_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.delenv(archives.DATA_VARIABLE, raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache")


@pytest.fixture
def server(tmp_path):
    """Serve the folder `served` of the test on this machine; yield its address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_idx_files_are_read_whatever_their_packing_and_suffix(tmp_path, name, packed, suffix):
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes((PACKED if packed else CONTENTS)[name])
    np.testing.assert_array_equal(read_idx(path, "images" if "images" in name else "labels"), ARRAYS[name])


IMAGES, LABELS = CONTENTS[NAMES[0]], CONTENTS[NAMES[1]]
FLIPPED = bytearray(PACKED[NAMES[0]])
FLIPPED[len(FLIPPED) // 2] ^= 0xFF
BAD_CRC = PACKED[NAMES[0]][:-8] + bytes(8)


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        pytest.param(IMAGES, "labels", "holds images .magic number 2051.*swapped", id="images for labels"),
        pytest.param(LABELS, "images", "holds labels .magic number 2049.*swapped", id="labels for images"),
        pytest.param(b"<html>404</html>", "images", "but it starts with.*<htm.*Download", id="an error page"),
        pytest.param(b"", "images", "but it starts with.*Download", id="empty"),
        pytest.param(IMAGES[:10], "images", "truncated.*header.*Download", id="half a header"),
        pytest.param(IMAGES[:-1], "images", "truncated.*40 images.*816 bytes.*815", id="a byte short"),
        pytest.param(IMAGES + b"x", "images", "corrupted.*816 bytes.*817", id="a byte long"),
        pytest.param(PACKED[NAMES[0]][:-20], "images", "truncated.*compressed.*Download", id="half a gzip"),
        pytest.param(bytes(FLIPPED), "images", "corrupted.*Download", id="a flipped byte"),
        pytest.param(BAD_CRC, "images", "corrupted.*Download", id="a wrong checksum"),
    ],
)
def test_damaged_files_are_named_with_fault_and_remedy(tmp_path, content, kind, message):
    path = tmp_path / "the-file"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=f"(?s)the-file.*{message}"):
        read_idx(path, kind)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere cannot be read"):
        read_idx(tmp_path / "nowhere", "images")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_idx(tmp_path, "images")


@pytest.mark.parametrize("packed", [True, False])
def test_an_archive_becomes_a_data_set(tmp_path, packed):
    folder = write(tmp_path, packed=packed)
    dataset = datasets.load_idx(archive(), folder, split="first", num_train=30, num_validation=10)
    np.testing.assert_array_equal(dataset.train["x"], ARRAYS[NAMES[0]][:30].reshape(30, 20).astype(np.float32) / 255)
    np.testing.assert_array_equal(dataset.validation["y"], ARRAYS[NAMES[1]][30:])
    np.testing.assert_array_equal(dataset.test["y"], ARRAYS[NAMES[3]])
    assert dataset.train["x"].max() <= 1
    assert dataset.test["y"].dtype == np.int32
    assert "original" in dataset.source
    assert str(tmp_path) not in str(dataset.details) + dataset.source  # records must not differ between machines
    images = datasets.load_idx(archive(), folder, flatten=False)
    assert images.input_shape == (5, 4, 1)
    assert images.sizes == {"train": 40, "test": 20}


def test_stratified_parts_of_an_archive_are_disjoint_and_complete(tmp_path):
    dataset = datasets.load_idx(archive(), write(tmp_path), num_validation=13, seed=2)
    rows = [tuple(x) for part in ("train", "validation") for x in dataset.parts[part]["x"]]
    assert len(set(rows)) == 40
    assert dataset.sizes == {"train": 27, "validation": 13, "test": 20}


def test_files_are_found_in_subfolders_with_other_spellings_and_through_the_environment(tmp_path, monkeypatch):
    expected = datasets.load_idx(archive(), write(tmp_path / "plain")).sha256
    write(tmp_path / "root" / "toy")
    (tmp_path / "root" / NAMES[0]).write_bytes(b"the subfolder comes first")
    assert datasets.load_idx(archive(), tmp_path / "root").sha256 == expected
    dotted = tmp_path / "dotted"
    dotted.mkdir()
    for name, content in CONTENTS.items():
        (dotted / name.replace("-idx", ".idx")).write_bytes(content)
    assert datasets.load_idx(archive(), str(dotted)).sha256 == expected
    monkeypatch.setenv(archives.DATA_VARIABLE, str(tmp_path / "root"))
    assert datasets.load_idx(archive()).sha256 == expected
    # An argument wins over the environment.
    with pytest.raises(DatasetError, match="elsewhere"):
        datasets.load_idx(archive(), tmp_path / "elsewhere")


def test_missing_files_are_listed_with_where_they_were_sought_and_what_to_do(tmp_path):
    write(tmp_path / "data", **{NAMES[1]: None})
    with pytest.raises(DatasetError) as raised:
        datasets.load_idx(archive(), tmp_path / "data")
    message = str(raised.value)
    assert NAMES[1] in message
    assert NAMES[0] not in message
    for hint in (str(tmp_path / "data"), "data_dir", "JAXOPT_STUDY_DATA", "download=True"):
        assert hint in message


def test_without_any_folder_the_message_offers_the_download():
    with pytest.raises(DatasetError, match=r"MNIST is missing or incomplete.*cache.*download=True"):
        datasets.mnist()
    with pytest.raises(DatasetError, match="Fashion-MNIST is missing or incomplete"):
        datasets.fashion_mnist()


def test_a_folder_that_is_none_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="data_dir, is not a folder"):
        datasets.mnist(tmp_path / "file")
    monkeypatch.setenv(archives.DATA_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="JAXOPT_STUDY_DATA, is not a folder"):
        datasets.mnist()


@pytest.mark.parametrize("load", [datasets.mnist, datasets.fashion_mnist])
def test_files_that_are_whole_but_not_the_originals_are_refused_unless_asked_for(tmp_path, load):
    write(tmp_path)
    with pytest.raises(DatasetError, match=r"train-images.*should be [0-9a-f]{32}, but is [0-9a-f]{32}.*verify=False"):
        load(tmp_path)
    dataset = load(tmp_path, verify=False, num_validation=0)
    assert dataset.sizes == {"train": 40, "test": 20}
    assert "unchecked" in dataset.source


def test_one_changed_pixel_in_an_uncompressed_file_is_noticed(tmp_path):
    changed = CONTENTS[NAMES[2]][:-1] + bytes([CONTENTS[NAMES[2]][-1] ^ 1])
    with pytest.raises(DatasetError, match="t10k-images-idx3-ubyte is not Toy's"):
        datasets.load_idx(archive(), write(tmp_path, packed=False, **{NAMES[2]: changed}))


def test_a_structural_fault_is_reported_rather_than_a_hash(tmp_path):
    folder = write(tmp_path, **{NAMES[2]: gzip.compress(CONTENTS[NAMES[2]][:-5])})
    with pytest.raises(DatasetError, match=r"t10k-images-idx3-ubyte.gz is truncated"):
        datasets.load_idx(archive(), folder)


def test_files_of_another_data_set_are_recognised_by_hash_even_unverified(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_KNOWN", {file.md5: ("Toy", name) for name, file in archive().files.items()})
    write(tmp_path)
    for verify in (True, False):
        with pytest.raises(DatasetError, match=r"mislabelled: it should be train-images.*of Fashion-MNIST.*of Toy"):
            datasets.fashion_mnist(tmp_path, verify=verify)


def test_swapped_files_of_the_same_data_set_are_recognised(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "_KNOWN", {file.md5: ("Toy", name) for name, file in archive().files.items()})
    folder = write(tmp_path, **{NAMES[0]: PACKED[NAMES[2]], NAMES[2]: PACKED[NAMES[0]]})
    with pytest.raises(DatasetError, match=r"it should be train-images.* but it is t10k-images"):
        datasets.load_idx(archive(), folder, verify=False)


def test_images_and_labels_of_different_number_are_refused(tmp_path):
    folder = write(tmp_path, **{NAMES[3]: gzip.compress(idx(ARRAYS[NAMES[3]][:-1]))})
    with pytest.raises(DatasetError, match="test files do not match: 20 images, 19 labels"):
        datasets.load_idx(archive(), folder, verify=False)


def test_labels_out_of_range_are_refused(tmp_path):
    labels = ARRAYS[NAMES[1]].copy()
    labels[3] = 11
    folder = write(tmp_path, **{NAMES[1]: gzip.compress(idx(labels))})
    with pytest.raises(DatasetError, match=r"0…9.*to 11"):
        datasets.load_idx(archive(), folder, verify=False)


def test_more_images_than_there_are_cannot_be_had(tmp_path):
    with pytest.raises(DatasetError, match="Request fewer"):
        datasets.load_idx(archive(), write(tmp_path), num_train=41)


def test_missing_files_are_downloaded_once_from_the_first_mirror_that_has_the_originals(tmp_path, server):
    folder, address = server
    write(folder / "good")
    write(folder / "bad", **dict.fromkeys(NAMES, b"tampered"))
    source = archive(mirrors=(f"{address}absent/", f"{address}bad/", f"{address}good/"))
    with pytest.raises(DatasetError, match="download=True"):
        datasets.load_idx(source)
    dataset = datasets.load_idx(source, download=True)
    assert dataset.sizes == {"train": 40, "test": 20}
    again = archive(mirrors=("http://127.0.0.1:9/",))  # nothing to download any more
    assert datasets.load_idx(again, download=True).sha256 == dataset.sha256
    assert datasets.load_idx(again).sha256 == dataset.sha256
    assert {path.name for path in (tmp_path / "cache" / "toy").iterdir()} == {f"{name}.gz" for name in NAMES}


def test_a_download_completes_the_folder_that_was_given(tmp_path, server):
    folder, address = server
    write(folder)
    data = write(tmp_path / "data", **{NAMES[3]: None})
    datasets.load_idx(archive(mirrors=(address,)), data, download=True)
    assert (data / f"{NAMES[3]}.gz").read_bytes() == PACKED[NAMES[3]]
    assert datasets.load_idx(archive(), data).sizes["test"] == 20


def test_a_download_with_the_wrong_hash_is_refused_and_not_kept(tmp_path, server):
    folder, address = server
    write(folder, **{name: gzip.compress(CONTENTS[name] + b"x") for name in NAMES})
    with pytest.raises(DatasetError, match=r"could not be downloaded.*hash"):
        datasets.load_idx(archive(mirrors=(address,)), tmp_path / "data", download=True)
    assert not [path for path in tmp_path.rglob("*.gz") if folder not in path.parents]


def test_without_a_network_the_message_says_what_to_do(tmp_path):
    unreachable = archive(mirrors=("http://127.0.0.1:9/",))
    with pytest.raises(
        DatasetError, match=r"train-images.*Check the network connection.*data_dir or JAXOPT_STUDY_DATA"
    ):
        datasets.load_idx(unreachable, tmp_path, download=True)


def test_known_hashes_are_complete_and_tell_all_files_apart():
    files = [file for source in (datasets.MNIST, datasets.FASHION_MNIST) for file in source.files.values()]
    assert tuple(datasets.MNIST.files) == tuple(datasets.FASHION_MNIST.files) == NAMES
    assert len({file.md5 for file in files}) == len({file.gzip_sha256 for file in files}) == 8
    assert all(len(bytes.fromhex(file.md5)) == 16 and len(bytes.fromhex(file.gzip_sha256)) == 32 for file in files)


# Files from anyone.


def header(*shape):
    return struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)


def peak(function):
    """Return the most memory that Python held for a function, beside what it held before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_more_is_unpacked_than_the_header_announces(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header(3) + bytes(2**26), mtime=0))  # 65 kB that become 64 MB
    assert path.stat().st_size < 2**17

    def read():
        with pytest.raises(DatasetError, match=r"bomb.gz is corrupted: its header announces 3 labels.*has more"):
            read_idx(path, "labels")

    assert peak(read) < 2**20


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**32 - 1, 2**32 - 1, 2**32 - 1), r"more than the limit of 2,147,483,648"),
        ((2**16, 2**16, 2**32 - 1), r"more than the limit of 2,147,483,648"),
        ((2**31, 2**31, 2), r"more than the limit of 2,147,483,648"),  # 2⁶³, which is negative in 64 bits
        ((2**32 - 1, 0, 3), r"is empty"),
        ((0, 28, 28), r"is empty"),
        ((1000, 1000, 1000), r"is truncated.*(it has \d+|cannot hold them)"),
    ],
)
def test_what_a_header_announces_is_checked_before_anything_is_allocated(tmp_path, shape, message, packed):
    content = header(*shape) + bytes(100)
    if 0 in shape:
        content = header(*shape)
    path = tmp_path / "images"
    path.write_bytes(gzip.compress(content) if packed else content)

    def read():
        with pytest.raises(DatasetError, match=message):
            read_idx(path, "images")

    assert peak(read) < 2**20


@pytest.mark.parametrize("magic", [0x0802, 0x0804, 0x0903, 0x0D03, 0x0E01, 0xFFFF0803, 0x03080000])
def test_other_types_and_numbers_of_dimensions_are_refused(tmp_path, magic):
    path = tmp_path / "images"
    path.write_bytes(struct.pack(">4I", magic, 1, 1, 1) + b"x")
    for kind in ("images", "labels"):
        with pytest.raises(DatasetError, match="but it starts with"):
            read_idx(path, kind)


def test_a_gzip_file_of_several_members_is_one_file_and_rubbish_behind_it_is_refused(tmp_path):
    path, content = tmp_path / "labels", CONTENTS[NAMES[1]]
    path.write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]))
    np.testing.assert_array_equal(read_idx(path, "labels"), ARRAYS[NAMES[1]])
    for rubbish in (b"rubbish", gzip.compress(b"x")):
        path.write_bytes(gzip.compress(content) + rubbish)
        with pytest.raises(DatasetError, match="labels is corrupted"):
            read_idx(path, "labels")


def test_what_never_ends_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(DatasetError, match="device or a pipe"):
            read_idx(path, "images")


def test_cut_and_changed_files_end_in_the_same_error(tmp_path):
    draw, path, refused = np.random.default_rng(0), tmp_path / "file", 0
    for _ in range(300):
        content = bytearray([*CONTENTS.values(), *PACKED.values()][draw.integers(8)])
        for _ in range(draw.integers(1, 4)):
            content[draw.integers(min(len(content), 40))] = draw.integers(256)
        path.write_bytes(content[: draw.integers(len(content)) + 1])
        for kind in ("images", "labels"):
            try:
                assert read_idx(path, kind).ndim == (3 if kind == "images" else 1)
            except DatasetError:
                refused += 1
    assert refused > 300


def test_home_is_understood_in_a_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "data")
    assert len(read_idx(f"~/data/{NAMES[1]}.gz", "labels")) == 40
    assert datasets.load_idx(archive(), "~/data").sizes["test"] == 20


@pytest.mark.parametrize("path", ["", "\0", "x" * 300, "~nobody-of-this-name/x"])
def test_a_path_that_is_none_is_refused(path, monkeypatch):
    with pytest.raises(DatasetError):
        read_idx(path, "images")
    if path:
        with pytest.raises(DatasetError):
            datasets.load_idx(archive(), path)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "a\0b", "a\nb", "x" * 300])
def test_a_name_that_would_leave_its_folder_is_refused(name):
    data = {"x": np.ones((2, 1), np.float32), "y": np.zeros(2, np.int32)}
    with pytest.raises(DatasetError, match=r"A data set's name must"):
        datasets.Dataset(name, data)
    with pytest.raises(DatasetError, match="Every name in the archive"):
        archive(name)
    if name == "..":
        with pytest.raises(DatasetError, match="Every name in the archive"):
            archive(folders=("toy", "../toy"))
