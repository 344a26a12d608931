"""Journals that were forged with a right hash end in the journal's own error, which names the file and the remedy."""

import hashlib
import io
import json
import zipfile

import numpy as np
import pytest

from jaxopt_study import records
from jaxopt_study.sweeps import Journal, JournalError
from jaxopt_study.sweeps._execution import _journal_format as chunks

CONFIG = {"num_trials": 8}
STUDY = records.content_hash(records.plain(CONFIG))
LIKE = {"loss": np.zeros((8, 2), np.float32), "diverged_at": np.zeros(8, np.int32)}


def good(*lanes):
    return {
        "header": {"format": chunks.FORMAT, "study": STUDY, "foreign": {}},
        "lanes": np.array(lanes, np.int64),
        "array:loss": np.ones((len(lanes), 2), np.float32),
        "array:diverged_at": np.full(len(lanes), -1, np.int32),
    }


def signed(body):
    return body + hashlib.sha256(body).hexdigest().encode()


def packed(content, **options):
    """Return a chunk with these members, bytes or arrays, and a right hash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, member in content.items():
            if name == "header" and not isinstance(member, bytes | np.ndarray):
                member = np.frombuffer(json.dumps(member).encode(), np.uint8)
            if not isinstance(member, bytes):
                file = io.BytesIO()
                np.lib.format.write_array(file, np.asarray(member), allow_pickle=True)
                member = file.getvalue()
            archive.writestr(f"{name}.npy", member)
        archive.comment = b"0" * 64
    return signed(buffer.getvalue()[:-64])


def npy(header, body=b"", version=b"\x01\x00"):
    text = header.encode() if isinstance(header, str) else header
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little") + text + body


def described(descr="'<f4'", shape="(2, 2)", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n"


class Trap:
    """An object whose unpickling is noticed."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


HEADER = good(0, 1)["header"]
DEEP = b"[" * 100_000
FORGED = {
    "negative lanes": {"lanes": np.array([-1, 0])},
    "lanes out of range": {"lanes": np.array([0, 8])},
    "huge lanes": {"lanes": np.array([0, 2**62])},
    "the same lane twice": {"lanes": np.array([1, 1])},
    "lanes as floats": {"lanes": np.array([0.0, 1.0])},
    "lanes as words": {"lanes": np.array(["0", "1"])},
    "small lanes": {"lanes": np.array([0, 1], np.int8)},
    "lanes as bools": {"lanes": np.array([False, True])},
    "lanes of two axes": {"lanes": np.array([[0, 1]])},
    "one lane": {"lanes": np.array(0)},
    "no lanes": {"lanes": None},
    "pickled lanes": {"lanes": np.array([Trap(), Trap()])},
    "a short array": {"array:loss": np.ones((1, 2), np.float32)},
    "a long array": {"array:loss": np.ones((3, 2), np.float32)},
    "an array without lanes": {"array:loss": np.float32(1)},
    "another dtype": {"array:loss": np.ones((2, 2))},
    "words": {"array:loss": np.array([["a", "b"], ["c", "d"]])},
    "times": {"array:loss": np.zeros((2, 2), "M8[s]")},
    "other axes": {"array:loss": np.ones((2, 3), np.float32)},
    "an array less": {"array:loss": None},
    "an array more": {"array:more": np.zeros(2)},
    "another member": {"more": np.zeros(2)},
    "objects": {"array:loss": np.array([Trap(), Trap()])},
    "a record": {"array:loss": np.zeros(2, [("a", "f4"), ("b", "f4")])},
    "raw bytes": {"array:loss": np.zeros(2, "V8")},
    "no header": {"header": None},
    "an empty header": {"header": b""},
    "a header of numbers": {"header": np.arange(300.0)},
    "a deep header": {"header": np.frombuffer(DEEP, np.uint8)},
    "a header of no text": {"header": np.frombuffer(b"\xff\xfe", np.uint8)},
    "a list for a header": {"header": [1]},
    "a header of nothing": {"header": {}},
    "another format": {"header": HEADER | {"format": {"a": [1]}}},
    "another study": {"header": HEADER | {"study": "0" * 64}},
    "a study that is no text": {"header": HEADER | {"study": [1]}},
    "no foreign dtypes": {"header": {"format": chunks.FORMAT, "study": STUDY}},
    "a list of foreign dtypes": {"header": HEADER | {"foreign": ["loss"]}},
    "a foreign dtype that is none": {"header": HEADER | {"foreign": {"loss": "object"}}},
    "a foreign dtype that is no text": {"header": HEADER | {"foreign": {"loss": {"a": 1}}}},
    "a foreign dtype of another array": {"header": HEADER | {"foreign": {"absent": "bfloat16"}}},
    "a foreign dtype of another size": {"header": HEADER | {"foreign": {"loss": "bfloat16"}}},
    "a huge shape": {"array:loss": npy(described(shape="(1000000000000, 2)"))},
    "a shape that wraps": {"array:loss": npy(described(shape=f"({2**32}, {2**32})"))},
    "a negative shape": {"array:loss": npy(described(shape="(-2, -2)"), bytes(16))},
    "a shape of floats": {"array:loss": npy(described(shape="(2.0, 2)"), bytes(16))},
    "a shape that is none": {"array:loss": npy(described(shape="'ab'"), bytes(16))},
    "too few bytes": {"array:loss": npy(described(), bytes(15))},
    "too many bytes": {"array:loss": npy(described(), bytes(17))},
    "a dtype without bytes": {"array:loss": npy(described("'<U0'"))},
    "an expression": {"array:loss": npy("__import__('os').system('true')\n")},
    "another version": {"array:loss": npy(described(), bytes(16), b"\x09\x00")},
    "no numpy file": {"array:loss": b"nothing"},
    "half a numpy file": {"array:loss": npy(described())[:12]},
    "a deep numpy header": {"array:loss": npy("(" * 9000 + "\n", bytes(16))},
}


@pytest.fixture
def folder(tmp_path):
    with Journal.open(tmp_path, CONFIG):
        return tmp_path


def read(folder):
    with Journal.open(folder, CONFIG) as journal:
        return journal.load(num_lanes=8, like=LIKE)


def test_what_the_tests_forge_is_otherwise_right(folder):
    (folder / "chunk-00000.npz").write_bytes(packed(good(0, 1)))
    lanes, arrays = read(folder)
    assert lanes.tolist() == [0, 1]
    assert arrays["loss"].tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_chunk_is_refused_by_name_and_goes_when_it_is_deleted(folder, name):
    content = {what: member for what, member in (good(0, 1) | FORGED[name]).items() if member is not None}
    path = folder / "chunk-00003.npz"
    (folder / "chunk-00000.npz").write_bytes(packed(good(4, 5)))
    path.write_bytes(packed(content))
    with pytest.raises(JournalError, match=r"chunk-00003.npz cannot be used: .* Delete this file; only its lanes"):
        read(folder)
    path.unlink()
    assert read(folder)[0].tolist() == [4, 5]


def test_an_archive_that_is_none_or_expands_is_refused(folder):
    path = folder / "chunk-00000.npz"
    bomb = good(0, 1) | {"array:loss": bytes(2**20)}
    twice = packed(good(0, 1)).replace(b"array:diverged_at", b"array:loss.npy\0\0\0")[:-64]
    for data in (signed(b""), signed(b"PK\x03\x04"), signed(bytes(1000)), packed(bomb, compression=8), signed(twice)):
        path.write_bytes(data)
        with pytest.raises(JournalError, match=r"chunk-00000.npz cannot be used"):
            read(folder)


def test_changed_bytes_under_a_right_hash_end_in_the_same_error(folder):
    path, draw, body = folder / "chunk-00000.npz", np.random.default_rng(0), packed(good(0, 1))[:-64]
    refused = 0
    for _ in range(100):
        changed = bytearray(body)
        for _ in range(draw.integers(1, 4)):
            changed[draw.integers(len(body))] = draw.integers(256)
        path.write_bytes(signed(bytes(changed)))
        try:
            lanes, arrays = read(folder)
            assert 0 <= lanes.min() <= lanes.max() < 8
            assert arrays["loss"].shape == (len(lanes), 2)
        except JournalError:
            refused += 1
    assert refused > 60


@pytest.mark.parametrize("results", [3, None, [], {}, {"format": []}, {"format": "x"}])
@pytest.mark.parametrize("config", [CONFIG, [], {"a": 1}, "x"])
def test_a_forged_study_is_refused_by_name(folder, results, config):
    path = folder / "study.json"
    document = json.loads(path.read_text()) | {"results": results, "config": config}
    content = {name: value for name, value in document.items() if name not in {"format", "sha256"}}
    path.write_text(json.dumps(document | {"sha256": records.content_hash(content)}))
    with pytest.raises(JournalError, match=r"study.json"):
        Journal.open(folder, CONFIG)
    Journal.peek(folder)


@pytest.mark.parametrize("path", ["", "\0", "x" * 300, "~nobody-of-this-name/x", "/dev/null/x"])
def test_a_path_that_cannot_be_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(JournalError):
        Journal.open(path, CONFIG)
    assert Journal.peek(path) == {}
    assert not list(tmp_path.iterdir())


def test_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with Journal.open("~/study", CONFIG) as journal:
        assert journal.folder == tmp_path / "study"
    assert Journal.peek("~/study") == CONFIG
