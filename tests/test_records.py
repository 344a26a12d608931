"""Records: what is written comes back, and what is damaged is refused."""

import contextlib
import csv
import json
import math
import os
from dataclasses import dataclass
from inspect import unwrap
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import records
from jaxopt_study.records import Record, RecordError
from jaxopt_study.records._plain_values import MAX_DEPTH, decode


@dataclass
class Config:
    rate: float = 0.1
    folder: Path = Path("a/b")


def a_record(**changes):
    results = {
        "losses": np.array([1.0, np.nan, np.inf, -np.inf]),
        "single": jnp.float32(0.1),
        "count": np.int64(3),
        "flags": [True, None, "text"],
        "tiny": 5e-324,
    }
    return Record("demo", "a", config=records.plain(Config()), results=results, **changes)


def test_a_record_comes_back_equal_with_every_digit_and_nan(tmp_path):
    record = a_record(data_hash="ab", status="interrupted")
    loaded = records.load(records.save(record, tmp_path / "new" / "folder"))
    assert loaded == record
    losses = loaded.results["losses"]
    assert math.isnan(losses[1])
    assert losses[2:] == [math.inf, -math.inf]
    assert loaded.results["single"] == float(np.float32(0.1))
    assert loaded.results["tiny"] == 5e-324
    assert loaded.results["flags"] == [True, None, "text"]
    assert loaded.config == {"rate": 0.1, "folder": "a/b"}


def test_the_file_is_standard_json(tmp_path):
    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    path = records.save(a_record(), tmp_path)
    document = json.loads(path.read_text(), parse_constant=refuse)
    assert document["format"] == records.FORMAT
    assert document["results"]["losses"][1:] == ["NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "damaged"),
        (lambda text: text.replace('"tiny": 5e-324', '"tiny": 6e-3'), "hash"),
        (lambda text: text.replace("record/1", "record/999"), "format"),
        (lambda text: "[1, 2]", "received 'list'"),
        (lambda text: '{"format": "jaxopt_study.record/1", "kind": "demo", "extra": 1}', r"missing .*'config'"),
        (lambda text: text.replace('"demo"', '"\udcff"'), "damaged"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_with_its_name(tmp_path, damage, message):
    path = records.save(a_record(), tmp_path)
    path.write_text(damage(path.read_text()), errors="surrogateescape")
    with pytest.raises(RecordError, match=message) as caught:
        records.load(path)
    assert str(path) in str(caught.value)


def test_reformatting_a_file_does_not_damage_it(tmp_path):
    path = records.save(a_record(), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=8, sort_keys=True))
    assert records.load(tmp_path).kind == "demo"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RecordError, match=r"absent\.json does not exist"):
        records.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"f": print}, r"results\['f'\] cannot be written"),
        ({"a": {1: 2}}, "keys in a record must be strings"),
        ({"word": "NaN"}, "represents a number"),
    ],
)
def test_what_json_cannot_hold_is_refused_at_once(results, message):
    with pytest.raises(RecordError, match=message):
        Record("demo", "a", config={}, results=results)


def test_an_unknown_status_is_refused():
    with pytest.raises((RecordError, TypeError)):
        Record("demo", "a", config={}, results={}, status="done")


def test_content_hash_sees_values_and_not_order():
    one = records.content_hash({"a": 1.0, "b": [1, 2]})
    assert one == records.content_hash({"b": (1, 2), "a": np.float64(1.0)})
    assert one != records.content_hash({"a": 1.0, "b": [2, 1]})
    assert one != records.content_hash({"a": np.nextafter(1.0, 2.0), "b": [1, 2]})


def test_environment_names_versions_and_devices_but_nobody():
    found = records.environment()
    assert found["versions"]["jax"]
    assert found["devices"]["platform"] in {"cpu", "gpu", "tpu"}
    assert str(Path.home()) not in json.dumps(found)


def test_a_table_keeps_its_digits(tmp_path):
    rows = [{"name": "a, b", "value": 0.1 + 0.2, "step": 1}, {"name": "c", "value": float("nan"), "step": None}]
    path = records.write_csv(tmp_path / "sub" / "table.csv", rows)
    with path.open(newline="") as file:
        read = list(csv.DictReader(file))
    assert read[0] == {"name": "a, b", "value": repr(0.1 + 0.2), "step": "1"}
    assert math.isnan(float(read[1]["value"]))
    assert read[1]["step"] == ""


def test_a_table_with_uneven_rows_is_refused(tmp_path):
    with pytest.raises(RecordError, match="Row 1"):
        records.write_csv(tmp_path / "table.csv", [{"a": 1}, {"b": 2}])
    with pytest.raises(RecordError, match="columns"):
        records.write_csv(tmp_path / "table.csv", [])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([{"a": 1}], 3, "columns to be a list of texts; received 3"),
        ([{"a": 1}], "a", "columns to be a list of texts; received 'a'"),
        ([{1: 2}], None, "columns to be a list of texts"),
        ([[1], [1, 2]], None, "row 0 to be a mapping; received a list"),
        (3, None, "row 0 to be a mapping; received 3"),
    ],
)
def test_what_is_no_table_is_refused(rows, columns, message, tmp_path):
    with pytest.raises(RecordError, match=message):
        unwrap(records.write_csv)(tmp_path / "table.csv", rows, columns)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "content", "durable", "kind", "message"),
    [
        ("a", np.ones(2), False, TypeError, "content to be text or bytes; received an array"),
        ("a", "text", "x", TypeError, "durable to be True or False; received 'x'"),
        ("x" * 300, "text", False, RecordError, "more than 255 bytes"),
    ],
)
def test_what_cannot_be_written_atomically_is_refused(name, content, durable, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        unwrap(records.write_atomically)(tmp_path / name, content, durable=durable)
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch):
    path = records.write_atomically(tmp_path / "file.txt", "old")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        records.write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_durable_write_flushes_the_file_before_it_takes_its_name_and_the_folder_after(tmp_path, monkeypatch):
    steps, flush, replace = [], os.fsync, os.replace

    def fsync(handle):
        steps.append("folder" if os.path.isdir(handle) else os.fstat(handle).st_size)
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", lambda *names: (steps.append("name"), replace(*names)))
    records.write_atomically(tmp_path / "file.txt", "text")
    assert steps == ["name"]
    path = records.write_atomically(tmp_path / "file.txt", "durable", durable=True)
    assert steps[1:] == [len("durable"), "name", "folder"]
    assert path.read_text() == "durable"


# Files from anyone.


def forged(tmp_path, **changes):
    """Write a file with the right hash for whatever it says."""
    path = records.save(a_record(), tmp_path)
    document = json.loads(path.read_text()) | changes
    content = {name: value for name, value in document.items() if name not in {"format", "sha256"}}
    with contextlib.suppress(RecordError):
        document["sha256"] = records.content_hash(decode(content))
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": 3}, {"kind": ["a"]}, {"name": None}, {"name": "../../etc"}, {"name": "/etc"}, {"name": "a/b"},
        {"name": ""}, {"name": "x" * 300}, {"name": "a\0b"}, {"name": ".."}, {"status": []}, {"status": {}},
        {"config": []}, {"config": "x"}, {"config": None}, {"results": 3}, {"environment": [1]}, {"data_hash": 3},
        {"data_hash": {}}, {"created": None}, {"format": []}, {"results": {"a": "\ud800"}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_forged_record_ends_in_the_same_error(tmp_path, changes):
    path = forged(tmp_path, **changes)
    with pytest.raises(RecordError, match=r"record\.json"):
        records.load(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"a":' * 100_000, "[" * 100_000 + "]" * 100_000, "9" * 5000, "NaN", "", "\ufeff{}", "nul", '"x',
        '{"format": "jaxopt_study.record/1", "format": "jaxopt_study.record/1"}', "3", "null",
        '{"format": "jaxopt_study.record/1", "config": ' + "[" * 300 + "]" * 300 + "}",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_json_of_any_depth_type_or_size_ends_in_the_same_error(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"record\.json"):
        records.load(tmp_path)


def test_changes_anywhere_in_a_record_are_noticed_or_harmless(tmp_path):
    path = records.save(a_record(), tmp_path)
    text, draw, record = path.read_bytes(), np.random.default_rng(0), records.load(path)
    for _ in range(150):
        changed = bytearray(text)
        for _ in range(draw.integers(1, 4)):
            changed[draw.integers(len(text))] = draw.integers(256)
        path.write_bytes(changed[: draw.integers(1, len(text) + 1)] if draw.random() < 0.3 else changed)
        with contextlib.suppress(RecordError):
            assert records.load(path) == record


@pytest.mark.parametrize(
    "value", ["deep", "round", 10**5000, "\ud800", {"\ud800": 1}], ids=lambda value: str(type(value))
)
def test_what_could_not_be_read_again_is_not_written(value):
    if value == "deep":
        value = []
        for _ in range(5000):
            value = [value]
    if value == "round":
        value = []
        value.append(value)
    with pytest.raises(RecordError):
        Record("demo", "a", config={}, results={"value": value})


def test_the_deepest_record_comes_back(tmp_path):
    value = 1.0
    for _ in range(MAX_DEPTH):
        value = [value]
    record = Record("demo", "a", config={}, results={"value": value})
    assert records.load(records.save(record, tmp_path)) == record


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "x" * 300])
def test_a_record_is_named_by_what_can_be_a_files_name(name):
    for given in ({"kind": name, "name": "a"}, {"kind": "demo", "name": name}):
        with pytest.raises((RecordError, TypeError), match=r"A record's (kind|name) must|kind|name"):
            Record(**given, config={}, results={})


def test_home_is_understood_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert records.save(a_record(), "~/here") == tmp_path / "here" / "record.json"
    assert records.load("~/here") == records.load("~/here/record.json")
    assert records.write_csv("~/table.csv", [{"a": 1}]) == tmp_path / "table.csv"
    assert records.write_atomically("~/text", "x") == tmp_path / "text"


@pytest.mark.parametrize("path", ["", "\0", "x" * 300, "~nobody-of-this-name/x", "/proc/no/such", "/dev/zero"])
def test_a_path_that_cannot_be_is_refused_by_name(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((RecordError, TypeError)):
        records.load(path)
    if path != "/dev/zero":
        with pytest.raises((RecordError, TypeError)):
            records.save(a_record(), path)
        with pytest.raises((RecordError, TypeError)):
            records.write_csv(path, [{"a": 1}])


def test_a_folder_in_a_files_place_is_refused(tmp_path):
    (tmp_path / "table.csv").mkdir()
    with pytest.raises(RecordError, match=r"table.csv could not be written"):
        records.write_csv(tmp_path / "table.csv", [{"a": 1}])
    assert [entry.name for entry in tmp_path.iterdir()] == ["table.csv"]


def test_a_file_may_have_the_longest_name(tmp_path):
    assert records.write_atomically(tmp_path / ("é" * 127), "x").read_text() == "x"
