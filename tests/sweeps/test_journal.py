"""Journals: what was appended comes back exactly, whatever kills the process, and nothing else is believed."""

import errno
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import records
from jaxopt_study.records import _writing
from jaxopt_study.sweeps import Journal, JournalError
from jaxopt_study.sweeps._execution import _journal_format as chunks

CONFIG = {"space": {"lr": {"low": 1e-4, "high": 1.0}}, "num_trials": 8, "shape": (2, 3), "target": math.inf}


def losses(lanes, offset=0.0):
    return {"loss": np.asarray(lanes, np.float32)[:, None] * np.float32([1.0, 0.5]) + np.float32(offset)}


@pytest.fixture
def folder(tmp_path):
    """A journal of two chunks, lanes 0 to 4, closed."""
    with Journal.open(tmp_path / "study", CONFIG) as journal:
        for lanes in (np.array([0, 1, 2]), np.array([4, 3])):
            journal.append(lanes, losses(lanes))
    return tmp_path / "study"


def read(folder, config=CONFIG):
    with Journal.open(folder, config) as journal:
        return journal.load()


def test_chunks_come_back_joined_in_the_order_of_writing(folder):
    lanes, arrays = read(folder)
    assert lanes.dtype == np.int64
    assert lanes.tolist() == [0, 1, 2, 4, 3]
    assert arrays.keys() == {"loss"}
    np.testing.assert_array_equal(arrays["loss"], losses(lanes)["loss"], strict=True)


def test_an_empty_journal_has_no_lanes(tmp_path):
    for _ in range(2):
        lanes, arrays = read(tmp_path / "new" / "study")
        assert (lanes.shape, lanes.dtype, arrays) == ((0,), np.int64, {})


def test_every_dtype_comes_back_bit_by_bit(tmp_path):
    payload = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x80000000], np.uint32).view(np.float32)
    arrays = {
        "nan": payload,
        "bool": np.array([True, False, True, True]),
        "int64": np.array([2**63 - 1, -(2**63), 0, -1]),
        "float64": np.array([5e-324, -0.0, np.inf, np.pi]),
        "complex": np.array([1j, 2.0, complex(np.nan, -0.0), 0.0]),
        "word": np.array(["a", "bc", "", "é"]),
        "time": np.array(["2026-01-01", "NaT", "1970-01-01", "2000-02-29"], "M8[s]"),
        "lanes": np.zeros((4, 0, 2)),  # no name is taken
        "header": np.asfortranarray(np.arange(12.0).reshape(4, 3)),
        "file": np.arange(8, dtype=np.uint8).reshape(4, 2)[::-1, ::-1],
        "a/b.npy": np.array([[[1]], [[2]], [[3]], [[4]]], np.int8),
        "jax": jnp.arange(4, dtype=jnp.float32),
        "bfloat16": np.asarray(jnp.array([[1.5], [jnp.nan], [-0.0], [3e38]], jnp.bfloat16)),
        "float8": np.asarray(jnp.array([1.5, jnp.nan, -0.0, 3.0], jnp.float8_e4m3fn)),
        "int4": np.asarray(jnp.array([-8, 7, 0, -1], jnp.int4)),
    }
    with Journal.open(tmp_path, {}) as journal:
        journal.append(np.arange(4), arrays)
        _, loaded = journal.load()
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        array = np.asarray(array)
        assert (loaded[name].dtype, loaded[name].shape) == (array.dtype, array.shape), name
        assert loaded[name].tobytes() == array.tobytes(), name


def test_numbers_of_the_other_byte_order_keep_their_values(tmp_path):
    with Journal.open(tmp_path, {}) as journal:
        journal.append(np.arange(4), {"big": np.arange(4, dtype=">f4")})
        assert journal.load()[1]["big"].tolist() == [0, 1, 2, 3]


def test_lanes_of_any_integers_are_kept_as_int64(tmp_path):
    with Journal.open(tmp_path, {}) as journal:
        journal.append(np.array([7], np.uint8), losses([7]))
        journal.append(np.array([2**40]), losses([1]))
        lanes, _ = journal.load()
    assert (lanes.dtype, lanes.tolist()) == (np.int64, [7, 2**40])


def test_a_reader_without_this_package_can_read_a_chunk(folder):
    with np.load(folder / "chunk-00000.npz") as archive:
        assert archive["lanes"].tolist() == [0, 1, 2]
        np.testing.assert_array_equal(archive["array:loss"], losses(range(3))["loss"])
    assert records.load(folder / "study.json").config == records.plain(CONFIG)


# ---- killed -------------------------------------------------------------------------------------------------------


def run_killer(folder, *arguments):
    script = Path(__file__).with_name("journal_killing.py")
    command = [sys.executable, "-W", "ignore", str(script), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    return run_killer(tmp_path_factory.mktemp("killed"), "25", "0")


@pytest.mark.slow
def test_processes_killed_at_random_lose_at_most_one_chunk_and_resume_to_equal_results(killed):
    assert killed["random"]["kills"] >= 25
    assert killed["random"]["equal"]


def test_a_process_killed_at_any_step_of_a_write_leaves_all_or_nothing(killed):
    assert killed["every"] == {"kills": killed["every"]["kills"], "steps": killed["every"]["kills"] + 1, "lanes": 6}
    assert killed["every"]["kills"] > 20  # study.json, a chunk, and the beginning of another


def test_half_a_write_is_ignored_and_removed(killed):
    assert killed["within"] == {"killed": True, "drafts": 1, "safe": 3, "found": 3}


def test_two_processes_cannot_write_one_folder_and_a_killed_one_frees_it(killed):
    assert "is in use" in killed["two"]["message"]
    assert killed["two"]["after"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_processes_killed_at_random_very_often(tmp_path, seed):
    found = run_killer(tmp_path, "400", str(seed), "random")["random"]
    assert found["kills"] >= 400
    assert found["equal"]


def test_leftovers_of_a_killed_write_are_removed_and_other_files_are_not(folder):
    drafts = [folder / ".chunk-00002.npz.k3x9_a", folder / ".study.json.abc"]
    others = [folder / "notes.txt", folder / ".gitignore", folder / "chunk-1 copy.npz"]
    for path in drafts + others:
        path.write_bytes(b"half")
    lanes, _ = read(folder)
    assert len(lanes) == 5
    assert not any(path.exists() for path in drafts)
    assert all(path.exists() for path in others)


# ---- damaged, foreign ------------------------------------------------------------------------------------------------


def test_a_truncated_chunk_is_refused_by_name_and_without_it_only_its_lanes_are_missing(folder):
    path = folder / "chunk-00000.npz"
    whole = path.read_bytes()
    for length in (0, 1, 63, 64, 65, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(JournalError, match=r"chunk-00000.npz cannot be used: it is truncated or damaged.*Delete"):
            read(folder)
    path.unlink()
    with Journal.open(folder, CONFIG) as journal:
        assert journal.load()[0].tolist() == [4, 3]
        journal.append(np.array([0, 1, 2]), losses(range(3)))
        lanes, arrays = journal.load()
    assert lanes.tolist() == [4, 3, 0, 1, 2]
    np.testing.assert_array_equal(arrays["loss"], losses(lanes)["loss"])
    assert sorted(path.name for path in folder.glob("chunk*")) == ["chunk-00001.npz", "chunk-00002.npz"]


def test_any_flipped_byte_is_noticed():
    data = chunks.pack("study", np.arange(2), losses(range(2)))
    for position in range(len(data)):
        flipped = data[:position] + bytes([data[position] ^ (1 << position % 8)]) + data[position + 1 :]
        with pytest.raises(ValueError, match="truncated or damaged"):
            chunks.unpack("study", flipped)


def test_a_flipped_byte_in_a_file_is_refused_by_name(folder):
    path = folder / "chunk-00001.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(JournalError, match=r"chunk-00001.npz cannot be used.*only its lanes will be computed again"):
        read(folder)


def test_a_chunk_of_another_study_is_refused(folder, tmp_path):
    with Journal.open(tmp_path / "other", {"num_trials": 9}) as other:
        other.append(np.array([9]), losses([9]))
    shutil.copy(tmp_path / "other" / "chunk-00000.npz", folder / "chunk-00007.npz")
    with pytest.raises(JournalError, match=r"chunk-00007.npz cannot be used: it belongs to another study"):
        read(folder)


def test_a_chunk_of_another_format_is_refused(folder, monkeypatch):
    study = records.content_hash(CONFIG)
    monkeypatch.setattr(chunks, "FORMAT", "jaxopt_study.journal/999")
    data = chunks.pack(study, np.array([9]), losses([9]))
    monkeypatch.undo()
    (folder / "chunk-00002.npz").write_bytes(data)
    with pytest.raises(JournalError, match=r"chunk-00002.npz .*format is 'jaxopt_study.journal/999'"):
        read(folder)


def test_a_repeated_chunk_is_refused(folder):
    shutil.copy(folder / "chunk-00001.npz", folder / "chunk-00002.npz")
    with pytest.raises(JournalError, match=r"chunk-00002.npz cannot be used: it repeats lanes .* such as 3"):
        read(folder)


def test_a_chunk_with_other_arrays_is_refused(folder):
    data = chunks.pack(records.content_hash(CONFIG), np.array([9]), {"loss": np.zeros((1, 3), np.float32)})
    (folder / "chunk-00002.npz").write_bytes(data)
    with pytest.raises(JournalError, match=r"chunk-00002.npz cannot be used: its arrays are"):
        read(folder)


def test_another_configuration_is_refused_with_what_differs(folder):
    asked = {
        "space": {"lr": {"low": 1e-3, "high": 1}, "decay": 0.9},
        "num_trials": 8,
        "shape": [2, 4],
        "version": "2",
    }
    with pytest.raises(JournalError) as caught:
        Journal.open(folder, asked)
    lines = str(caught.value).splitlines()
    assert {line.strip() for line in lines[1:-1]} == {
        "config['space']['lr']['low']: stored 0.0001, requested 0.001",
        "config['space']['lr']['high']: stored 1.0, requested 1",
        "config['space']['decay']: not stored, requested 0.9",
        "config['shape'][1]: stored 3, requested 4",
        "config['target']: stored inf, not requested",
        "config['version']: not stored, requested '2'",
    }
    assert "choose another folder" in lines[-1]
    assert len(read(folder)[0]) == 5  # nothing was changed, and the lock is free


def test_many_differences_are_counted(tmp_path):
    read(tmp_path, {"seeds": {str(n): n for n in range(100)}})
    with pytest.raises(JournalError, match="and 88 more"):
        read(tmp_path, {"seeds": {str(n): -1 for n in range(100)}})


def test_the_same_configuration_in_other_words_is_accepted(folder):
    again = {"target": np.float32(np.inf), "shape": np.array([2, 3]), "num_trials": np.int64(8)}
    assert len(read(folder, CONFIG | again)[0]) == 5


@pytest.mark.parametrize("damage", ["edited", "cut", "foreign", "no journal"])
def test_a_damaged_study_file_is_refused_and_left_alone(folder, damage):
    path = folder / "study.json"
    text = path.read_text()
    record = records.Record("compare", "a", config=CONFIG, results={})
    damaged = {"edited": text.replace('"num_trials": 8', '"num_trials": 9'), "cut": text[:40], "foreign": "{}"}
    if damage == "no journal":
        records.save(record, path)
    else:
        path.write_text(damaged[damage])
    left = path.read_text()
    for config in (CONFIG, CONFIG | {"num_trials": 9}):
        with pytest.raises(JournalError, match=r"study.json.*another folder"):
            Journal.open(folder, config)
    assert path.read_text() == left
    path.write_text(text)
    assert len(read(folder)[0]) == 5


def test_chunks_without_a_study_file_are_refused(folder):
    os.rename(folder / "study.json", folder / "study.bak")
    with pytest.raises(JournalError, match=r"has chunks but no study.json"):
        Journal.open(folder, CONFIG)
    os.rename(folder / "study.bak", folder / "study.json")
    assert len(read(folder)[0]) == 5


def test_a_folder_that_vanishes_is_noticed_and_not_made_anew(folder):
    with Journal.open(folder, CONFIG) as journal:
        shutil.rmtree(folder)
        with pytest.raises(JournalError, match=r"study.json no longer exists"):
            journal.append(np.array([9]), losses([9]))
    assert not folder.exists()


# ---- places ----------------------------------------------------------------------------------------------------------


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(JournalError, match=r"is a file|cannot be used"):
            Journal.open(path, CONFIG)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_of_somebody_else_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(JournalError, match=r"neither empty nor a journal: it contains 'thesis.tex'"):
        Journal.open(tmp_path, CONFIG)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_refused():
    with pytest.raises(JournalError, match=r"/proc/study cannot be used: .*Choose a folder that you can write"):
        Journal.open("/proc/study", CONFIG)


@pytest.mark.parametrize("function", ["open", "mkdir"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path, monkeypatch, function):
    def fail(path, *_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(JournalError, match=r"Permission denied.*Choose a folder that you can write"):
        Journal.open(tmp_path / "study", CONFIG)


def test_a_folder_that_became_unwritable_is_refused_before_any_work(folder, monkeypatch):
    def fail(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", fail)
    with pytest.raises(JournalError, match=r"Read-only file system"):
        Journal.open(folder, CONFIG)
    monkeypatch.undo()
    assert len(read(folder)[0]) == 5  # the lock is free


def test_a_disk_without_room_is_refused_before_any_work(tmp_path):
    with pytest.raises(JournalError, match=r"need about 1,000,000,000,000,000,000 bytes; the disk .* has [\d,]+ free"):
        Journal.open(tmp_path / "study", CONFIG, expected_bytes=10**18)
    assert not (tmp_path / "study" / "study.json").exists()
    with Journal.open(tmp_path / "study", CONFIG, expected_bytes=1000):
        assert (tmp_path / "study" / "study.json").exists()


def the_device_full(monkeypatch):
    """Give drafts the device that is always full: a real ENOSPC, when the bytes are flushed."""
    make = tempfile.mkstemp

    def mkstemp(**options):
        handle, name = make(**options)
        os.close(handle)
        return os.open("/dev/full", os.O_WRONLY), name

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)


def the_folder_flush_fails(monkeypatch):
    def fail(folder):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_writing, "_flush_folder", fail)


def files_limited(monkeypatch):
    """Let the kernel refuse large files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    monkeypatch.callback = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("fill", [the_device_full, the_folder_flush_fails, files_limited])
def test_a_full_disk_loses_only_the_chunk_that_says_so(folder, monkeypatch, fill):
    with Journal.open(folder, CONFIG) as journal:
        before = journal.load()
        fill(monkeypatch)
        try:
            with pytest.raises(
                JournalError, match=r"(No space|too large).*The 5 lanes .* are safe in .*; these 2 are not"
            ):
                journal.append(np.array([5, 6]), losses([5, 6]))
        finally:
            getattr(monkeypatch, "callback", lambda: None)()
            monkeypatch.undo()
        after = journal.load()
        np.testing.assert_array_equal(before[0], after[0])
        assert sorted(entry.name for entry in folder.iterdir() if "chunk" in entry.name) == [
            "chunk-00000.npz",
            "chunk-00001.npz",
        ]
        journal.append(np.array([5, 6]), losses([5, 6]))  # there is room again
    assert read(folder)[0].tolist() == [0, 1, 2, 4, 3, 5, 6]


def test_a_full_disk_at_the_start_is_reported(tmp_path, monkeypatch):
    the_device_full(monkeypatch)
    with pytest.raises(JournalError, match=r"study.json could not be written: .*No space.*nothing is lost"):
        Journal.open(tmp_path / "study", CONFIG)


def test_an_interrupt_after_the_last_moment_does_not_confuse_the_journal(folder, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    with Journal.open(folder, CONFIG) as journal:
        monkeypatch.setattr(_writing, "_flush_folder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            journal.append(np.array([5]), losses([5]))
        monkeypatch.undo()
        with pytest.raises(JournalError, match=r"Lanes \[5\] are already in the journal"):
            journal.append(np.array([5]), losses([5]))
        journal.append(np.array([6]), losses([6]))
        assert journal.load()[0].tolist() == [0, 1, 2, 4, 3, 5, 6]


# ---- one writer, valid chunks -------------------------------------------------------------------------------------


def test_a_journal_is_open_once_even_in_one_process(tmp_path):
    journal = Journal.open(tmp_path, CONFIG)
    with pytest.raises(JournalError, match="is in use"):
        Journal.open(tmp_path, CONFIG)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="is closed"):
        journal.load()
    with pytest.raises(JournalError, match="is closed"):
        journal.append(np.array([1]), losses([1]))
    forgotten = Journal.open(tmp_path, CONFIG)
    del forgotten
    Journal.open(tmp_path, CONFIG).close()


@pytest.mark.parametrize(
    ("lanes", "arrays", "message"),
    [
        (np.array([0]), losses([0]), r"Lanes \[0\] are already in the journal"),
        (np.array([8, 9, 8]), losses([8, 9, 8]), r"duplicates in \[8, 9, 8\]"),
        (np.array([]), losses([]), "n ≥ 1"),
        (np.array([[8]]), losses([8]), "shape"),
        (np.array([8.0]), losses([8]), "integers"),
        (np.array([8]), losses([8, 9]), "leading axis 1; received dtype float32 and shape"),
        (np.array([8]), {"loss": np.float32(1.0)}, "leading axis"),
        (np.array([8]), {"loss": np.array([None])}, "object"),
        (np.array([8]), {}, "as in the chunks before"),
        (np.array([8]), {"loss": np.zeros((1, 2))}, "as in the chunks before"),
        (np.array([8]), {"loss": np.zeros((1, 3), np.float32)}, "as in the chunks before"),
    ],
)
def test_a_chunk_that_cannot_be_is_refused_and_changes_nothing(folder, lanes, arrays, message):
    before = sorted(entry.name for entry in folder.iterdir())
    with Journal.open(folder, CONFIG) as journal:  # append reads what is there by itself
        with pytest.raises(JournalError, match=message):
            journal.append(lanes, arrays)
        assert sorted(entry.name for entry in folder.iterdir()) == before
        assert len(journal.load()[0]) == 5


def test_a_configuration_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(JournalError, match=r"config\['loss'\] cannot be written"):
        Journal.open(tmp_path / "study", {"loss": print})
    assert not (tmp_path / "study").exists()
