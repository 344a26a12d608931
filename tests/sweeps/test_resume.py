"""A search with a journal: whatever stops it, it goes on and ends with the same result, or says what differs."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxopt_study import records, sweeps
from jaxopt_study.sweeps import JournalError, SearchInterrupted
from jaxopt_study.sweeps._execution import _compile as compilation
from jaxopt_study.sweeps._execution import _groups as groups
from jaxopt_study.sweeps._execution import _sweep as sweep
from tests.sweeps import small
from tests.sweeps.small import KEY, RATES, assert_same

ROOT = Path(__file__).parents[2]
SETTINGS = {"num_trials": 6, "num_seeds": 2, "num_steps": 8, "key": KEY, "width": 2}


@pytest.fixture(autouse=True)
def _a_chunk_per_call(monkeypatch):
    monkeypatch.setattr(sweep, "_SECONDS_PER_CHUNK", 0.0)


def searched(folder=None, make_optimizer=optax.sgd, space=RATES, problem=None, **changes):
    problem = small.regression(metrics={}) if problem is None else problem
    return sweeps.search(make_optimizer, space, problem, journal=folder, **SETTINGS | changes)


@pytest.fixture(scope="module")
def whole():
    """The search without a journal and without interruption."""
    return searched()


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """A journal to write other descriptions into."""
    folder = tmp_path_factory.mktemp("forged")
    searched(folder)
    return folder


@pytest.fixture
def folder(tmp_path):
    """A journal of the first six of twelve lanes, in three chunks."""

    def press(done, total, best):
        if done == 6:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SearchInterrupted):
        searched(tmp_path / "study", progress=press)
    assert len(chunks(tmp_path / "study")) == 3
    return tmp_path / "study"


def chunks(folder):
    return sorted(folder.glob("chunk-*.npz"))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_interrupted_search_goes_on_where_it_was(folder, whole):
    calls = []
    found = searched(folder, progress=lambda done, total, best: calls.append((done, best)))
    assert_same(found, whole)
    assert [done for done, _ in calls] == [6, 8, 10, 12]
    finals = whole.final.ravel()
    np.testing.assert_allclose([best for _, best in calls], [finals[:n].min() for n in (6, 8, 10, 12)], rtol=1e-6)
    assert len(chunks(folder)) == 6


def test_a_finished_search_is_read_and_not_run(folder, whole, compilations):
    searched(folder)
    jax.clear_caches()
    calls = []
    with compilations() as counter:
        found = searched(folder, progress=lambda *numbers: calls.append(numbers))
    assert_same(found, whole)
    assert counter.lanes == 0
    assert [numbers[:2] for numbers in calls] == [(12, 12)]


def test_a_journal_changes_nothing(tmp_path, whole):
    assert_same(searched(str(tmp_path / "deep" / "study")), whole)


def test_several_programs_share_a_journal(tmp_path):
    space = RATES | {"nesterov": sweeps.choices(True, False)}
    given = {"make_optimizer": lambda **given: optax.sgd(momentum=0.9, **given), "problem": small.quadratic()}

    def press(done, total, best):
        if done >= 8:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SearchInterrupted) as caught:
        searched(tmp_path, space=space, progress=press, **given)
    assert 0 < caught.value.search.finished.sum() < 12
    assert_same(searched(tmp_path, space=space, **given), searched(space=space, **given))


def test_a_search_that_got_less_memory_goes_on_with_more(tmp_path, monkeypatch):
    """Then calls have other lanes than before, and some of theirs are done."""
    monkeypatch.setattr(compilation, "device_memory", lambda: 0)

    def press(done, total, best):
        if done == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(SearchInterrupted) as caught:
        searched(tmp_path, problem=small.quadratic(), progress=press)
    assert caught.value.search.layout["width"] == [1]
    monkeypatch.setattr(compilation, "device_memory", lambda: 2**40)
    found = searched(tmp_path, problem=small.quadratic())
    assert found.layout["width"] == [2]
    assert_same(found, searched(problem=small.quadratic()))


def killed(folder, seed, kills, longest):
    command = [sys.executable, "-W", "error", "-m", "tests.sweeps.search_killing"]
    given = [str(given) for given in (folder, seed, kills, longest)]
    done = subprocess.run(command + given, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_killed_search_ends_with_the_result_of_one_that_was_not(tmp_path):
    found = killed(tmp_path, seed=0, kills=1, longest=0.25)
    assert found["kills"] >= 1
    assert found["equal"]
    assert found["resumed"]


@pytest.mark.slow
def test_searches_killed_many_times_end_with_the_result_of_one_that_was_not(tmp_path):
    found = killed(tmp_path, seed=1, kills=20, longest=0.1)
    assert found["kills"] >= 20
    assert found["equal"]
    assert found["resumed"]


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
def test_a_chunk_that_cannot_be_believed_is_named_and_only_its_lanes_are_lost(folder, whole, tmp_path, damage):
    chunk = chunks(folder)[1]
    data = bytearray(chunk.read_bytes())
    if damage == "truncated":
        chunk.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        data[len(data) // 2] ^= 1
        chunk.write_bytes(data)
    else:
        searched(tmp_path / "other", num_steps=7)
        shutil.copy(chunks(tmp_path / "other")[1], chunk)
    before = contents(folder)
    with pytest.raises(JournalError, match=f"{chunk.name} cannot be used.*Delete this file; only its lanes"):
        searched(folder)
    assert contents(folder) == before
    chunk.unlink()
    calls = []
    assert_same(searched(folder, progress=lambda done, total, best: calls.append(done)), whole)
    assert calls == [4, 6, 8, 10, 12]  # its two lanes, and the six that were missing


@pytest.mark.parametrize(
    "layout",
    [
        5, None, "x", {"width": 2}, [], ["x"], [None], [[2]], [{}], *(
            [{"axes": {"trials": 1}, "width": width, "device": "cpu"}]
            for width in (None, "2", 1.5, 0, -2, 13, 10**9, 10**30, {"float": "nan"})
        ),
    ],
    ids=repr,
)  # fmt: skip
def test_a_forged_layout_is_refused_as_another_search(forged, layout):
    path = forged / "study.json"
    document = json.loads(path.read_text())
    content = {name: value for name, value in document.items() if name not in {"format", "sha256"}}
    content["config"]["layout"] = layout
    path.write_text(json.dumps(document | content | {"sha256": records.content_hash(content)}))
    with pytest.raises(JournalError, match=r"has results of another configuration:\n  config\['layout'\]"):
        searched(forged, width="auto")


def test_no_program_is_wider_than_its_lanes(whole):
    assert searched(width=10**9).layout["width"] == [12]


@pytest.mark.parametrize("state", ["nothing", "half"])
def test_a_journal_without_its_description_is_refused(folder, state):
    description = folder / "study.json"
    text = description.read_text()
    if state == "nothing":
        description.unlink()
    else:
        description.write_text(text[: len(text) // 2])
    with pytest.raises(JournalError, match=r"[Rr]estore it"):
        searched(folder)
    description.write_text(text)
    searched(folder)


def shifted(examples):
    return (examples[0], examples[1] + np.float32(1e-6))


def another_start():
    problem = small.regression(metrics={})
    return problem.replace(init=lambda key: 1.001 * problem.init(key))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_trials": 7}, r"config\['num_trials'\]: stored 6, requested 7"),
        ({"num_seeds": 3}, r"config\['num_seeds'\]: stored 2, requested 3"),
        ({"num_steps": 9}, r"config\['num_steps'\]: stored 8, requested 9"),
        ({"key": jax.random.key(4)}, r"config\['key'\]\['values'\]\[1\]: stored 3, requested 4|config\['key'\]"),
        ({"sampler": "sobol"}, r"config\['sampler'\]: stored 'random', requested 'sobol'"),
        ({"space": {"learning_rate": sweeps.log_uniform(1e-3, 1.0)}}, r"\['high'\]: stored 0.5, requested 1.0"),
        ({"space": RATES | {"momentum": sweeps.uniform(0, 1)}}, r"config\['space'\]\['momentum'\]: not stored"),
        ({"batch_size": 7}, r"config\['programs'\]"),
        ({"evaluate_every": 4}, r"config\['programs'\]"),
        ({"width": 3}, r"config\['layout'\]\[0\]\['width'\]: stored 2, requested 3"),
        ({"make_optimizer": lambda learning_rate: optax.sgd(1.0001 * learning_rate)}, r"config\['programs'\]"),
        ({"problem": small.regression(metrics={}, data=shifted(small.TRAIN))}, r"config\['data'\]"),
        ({"problem": small.regression(metrics={}, validation=shifted(small.VALIDATION))}, r"config\['data'\]"),
        ({"problem": another_start()}, r"config\['starts'\]"),
    ],
)
def test_another_search_is_refused_with_what_differs(folder, compilations, changes, message):
    before = contents(folder)
    with compilations() as counter, pytest.raises(JournalError, match="another configuration") as error:
        searched(folder, **changes)
    assert counter.lanes == 0
    assert re.search(message, str(error.value)), str(error.value)
    assert contents(folder) == before


def test_another_version_is_refused(folder, whole, monkeypatch):
    here = records.environment()
    there = here | {"versions": here["versions"] | {"jax": "0.0.1"}}
    with monkeypatch.context() as patch:
        patch.setattr(groups, "environment", lambda: there)
        with pytest.raises(JournalError, match=r"config\['versions'\]\['jax'\]: stored .*requested '0.0.1'"):
            searched(folder)
    assert_same(searched(folder), whole)


def test_a_folder_that_cannot_be_used_is_refused_before_any_work(tmp_path, compilations):
    (tmp_path / "file").write_text("")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    for place, message in (
        ("file", "is a file"), ("file/below", "cannot be used"), ("mine", "neither empty nor a journal"),
    ):  # fmt: skip
        with compilations() as counter, pytest.raises(JournalError, match=message):
            searched(tmp_path / place)
        assert counter.lanes == 0
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_folder_in_use_is_refused(folder, whole):
    def meanwhile(done, total, best):
        with pytest.raises(JournalError, match="in use"):
            searched(folder)

    assert_same(searched(folder, progress=meanwhile), whole)


def test_a_disk_that_fills_up_loses_the_running_chunk_only(tmp_path, whole, monkeypatch):
    real, written = records.write_atomically, []

    def fails_later(path, *arguments, **keywords):
        written.append(path)
        if len(written) > 3:  # three chunks
            raise OSError(28, "No space left on device")
        return real(path, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_atomically", fails_later)
        with pytest.raises(JournalError, match=r"No space left.*The 6 lanes written before are safe.*these 2 are not"):
            searched(tmp_path)
    assert len(chunks(tmp_path)) == 3
    calls = []
    assert_same(searched(tmp_path, progress=lambda done, total, best: calls.append(done)), whole)
    assert calls == [6, 8, 10, 12]


def test_a_callback_that_fails_loses_nothing_that_was_on_disk(tmp_path, whole):
    def fail(done, total, best):
        if done == 8:
            raise RuntimeError("the callback's own")

    with pytest.raises(RuntimeError, match="the callback's own"):
        searched(tmp_path, progress=fail)
    assert_same(searched(tmp_path), whole)
