"""Optuna by ask and tell: our spaces in its words, states that say what happened, and one study of many processes."""

import json
import math
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import optuna
import pytest

from jaxopt_study.sweeps import OptunaSampler, Space, choices, conditional, integers, log_uniform, sample, uniform

SPACE = Space({
    "method": choices("sgd", "adam"),
    "b2": conditional(uniform(0.9, 1.0), on="method", equals="adam"),
    "rate": log_uniform(1e-4, 1.0),
    "layers": integers(1, 4),
    "heavy_ball.width": integers(1, 64, log=True),
    "sizes": choices((64, 64), (128,)),
    "scale": choices(None, True, 3, 0.5, "he"),
})  # fmt: skip
LINE = Space({"x": uniform(-1.0, 1.0)})
FAIL, PRUNED, COMPLETE = (getattr(optuna.trial.TrialState, name) for name in ("FAIL", "PRUNED", "COMPLETE"))


def states(sampler):
    return [trial.state for trial in sampler._study.get_trials(deepcopy=False)]


def random_sampler(seed=0):
    return optuna.samplers.RandomSampler(seed=seed)


def test_optuna_gets_our_dimensions_and_we_get_its_values():
    with OptunaSampler(sampler=random_sampler()) as sampler:
        batch = sampler.ask(SPACE, 60)
        trials = sampler._study.get_trials()
    assert [handle for handle, _ in batch] == list(range(60))
    assert {len(config) for _, config in batch} == {6, 7}
    points = SPACE.unit([config for _, config in batch])  # refuses a name or a value that the space has not
    assert ((points >= 0) & (points <= 1) | np.isnan(points)).all()
    assert {config["sizes"] for _, config in batch} == {(64, 64), (128,)}
    assert {repr(config["scale"]) for _, config in batch} == {"None", "True", "3", "0.5", "'he'"}
    of = optuna.distributions
    adam = next(trial for trial in trials if "b2" in trial.params)
    assert adam.distributions == {
        "method": of.CategoricalDistribution(["sgd", "adam"]),
        "b2": of.FloatDistribution(0.9, 1.0),
        "rate": of.FloatDistribution(1e-4, 1.0, log=True),
        "layers": of.IntDistribution(1, 4),
        "heavy_ball.width": of.IntDistribution(1, 64, log=True),
        "sizes": of.CategoricalDistribution(["0: (64, 64)", "1: (128,)"]),
        "scale": of.CategoricalDistribution([None, True, 3, 0.5, "he"]),
    }


def test_names_are_asked_for_only_where_they_exist():
    with OptunaSampler(sampler=random_sampler()) as sampler:
        sampler.ask(SPACE, 40)
        for trial in sampler._study.get_trials():
            assert ("b2" in trial.params) == (trial.params["method"] == "adam")


def test_finished_trials_come_back_as_they_were_asked_and_told():
    with OptunaSampler(sampler=random_sampler()) as sampler:
        batch = sampler.ask(SPACE, 20)
        for handle, _ in reversed(batch):
            assert sampler.tell(handle, None if handle % 5 == 0 else float(handle))
        expected = [(handle, config, None if handle % 5 == 0 else handle) for handle, config in batch]
        assert sampler.finished(SPACE) == expected


def test_a_diverged_trial_is_pruned_and_finished():
    with OptunaSampler(sampler=random_sampler()) as sampler:
        scores = [None, math.nan, math.inf, -math.inf, 1.0]
        for (handle, _), score in zip(sampler.ask(LINE, 5, num_trials=5), scores, strict=True):
            assert sampler.tell(handle, score)
        assert states(sampler) == [PRUNED] * 4 + [COMPLETE]
        assert sampler.ask(LINE, 5, num_trials=5) == []


def test_a_sampler_learns_from_batches_and_avoids_what_diverged():
    tails = []
    for seed in range(3):
        with OptunaSampler(sampler=optuna.samplers.TPESampler(seed=seed)) as sampler:
            while batch := sampler.ask(LINE, 5, num_trials=60):
                for handle, config in batch:
                    sampler.tell(handle, None if config["x"] > 0 else (config["x"] + 0.3) ** 2)
            last = [config["x"] for _, config, _ in sampler.finished(LINE)[30:]]
        tails.append((np.mean(np.array(last) > 0), np.median(np.abs(np.array(last) + 0.3))))
    diverged, distance = np.mean(tails, axis=0)
    random = np.array([config["x"] for config in sample(LINE, 1000, key=jax.random.key(0))[0]])
    assert diverged < 0.5 * np.mean(random > 0)
    assert distance < 0.5 * np.median(np.abs(random + 0.3))


def test_the_better_direction_is_followed():
    found = {}
    for direction in ("minimize", "maximize"):
        with OptunaSampler(sampler=optuna.samplers.TPESampler(seed=0), direction=direction) as sampler:
            while batch := sampler.ask(LINE, 5, num_trials=40):
                for handle, config in batch:
                    sampler.tell(handle, config["x"])
            found[direction] = np.mean([config["x"] for _, config, _ in sampler.finished(LINE)[25:]])
    assert found["minimize"] < -0.3
    assert found["maximize"] > 0.3


# ---- storage --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["file", "sqlite"])
def storage(request, tmp_path):
    return tmp_path / "new" / "study.log" if request.param == "file" else f"sqlite:///{tmp_path}/study.db"


def test_a_study_is_continued_from_its_storage(storage):
    with OptunaSampler(storage, "a") as sampler:
        for handle, config in sampler.ask(LINE, 3, num_trials=5):
            sampler.tell(handle, config["x"])
        before = sampler.finished(LINE)
    with OptunaSampler(storage, "b") as other:
        assert other.finished(LINE) == []
    with OptunaSampler(str(storage), "a") as sampler:
        assert sampler.finished(LINE) == before
        assert [handle for handle, _ in sampler.ask(LINE, 9, num_trials=5)] == [3, 4]


def test_a_relative_path_is_the_same_file_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path)
    with OptunaSampler("below/study.log") as sampler:
        monkeypatch.chdir(tmp_path / "below")
        sampler.ask(LINE, 1)
    assert sorted(path.name for path in (tmp_path / "below").iterdir()) == ["study.log"]


def test_two_samplers_share_the_trials_of_a_study(storage):
    with OptunaSampler(storage) as one, OptunaSampler(storage) as other:
        mine = one.ask(LINE, 4, num_trials=6)
        theirs = other.ask(LINE, 4, num_trials=6)
        assert [handle for handle, _ in mine + theirs] == [0, 1, 2, 3, 4, 5]
        assert one.ask(LINE, 4, num_trials=6) == []  # it should tell first
        assert all(one.tell(handle, 0.0) for handle, _ in mine)
        assert all(other.tell(handle, 0.0) for handle, _ in theirs)
        assert one.ask(LINE, 4, num_trials=6) == other.ask(LINE, 4, num_trials=6) == []
        assert len(one.finished(LINE)) == 6


def test_trials_that_are_created_at_the_same_moment_are_never_too_many():
    with OptunaSampler() as sampler:
        sampler.ask(LINE, 3, num_trials=4)
        assert [handle for handle, _ in sampler._create(LINE, 3, 4)] == [3]  # as if it had not looked before
        assert states(sampler)[4:] == [FAIL, FAIL]


def test_what_a_dead_worker_had_asked_for_is_done_by_others(storage):
    with OptunaSampler(storage, heartbeat=0.05) as dead, OptunaSampler(storage, heartbeat=0.05) as alive:
        lost = dead.ask(LINE, 3, num_trials=4)
        assert dead.tell(lost[0][0], 1.0)
        dead._stop()  # its heart
        done = []
        while batch := alive.ask(LINE, 4, num_trials=4):
            done += [alive.tell(handle, 0.0) for handle, _ in batch]
        assert done == [True] * 3
        assert [dead.tell(handle, 1.0) for handle, _ in lost[1:]] == [False, False]  # given up in the meantime
        assert len(alive.finished(LINE)) == 4


def test_a_slow_worker_that_lives_is_waited_for(tmp_path):
    path = tmp_path / "study"
    with OptunaSampler(path, heartbeat=0.1) as slow, OptunaSampler(path, heartbeat=0.5) as other:
        ((handle, _),) = slow.ask(LINE, 1, num_trials=1)
        for _ in range(3):
            other._look()
            time.sleep(0.3)
        assert slow.tell(handle, 1.0)
        assert other.ask(LINE, 1, num_trials=1) == []


def test_closing_gives_up_what_was_not_told(storage):
    with OptunaSampler(storage) as leaving:
        leaving.ask(LINE, 2, num_trials=2)
    with OptunaSampler(storage) as sampler:
        assert states(sampler) == [FAIL, FAIL]
        assert len(sampler.ask(LINE, 2, num_trials=2)) == 2


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    script = Path(__file__).with_name("optuna_workers.py")
    command = [sys.executable, "-W", "ignore", str(script), str(tmp_path_factory.mktemp("shared"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_processes_reach_exactly_the_number_of_trials_though_one_is_killed(shared, kind):
    found = shared[kind]
    assert found["codes"] == [0, 0]
    killed, *workers = found["told"]
    assert all(workers)
    assert sorted(killed + workers[0] + workers[1]) == found["finished"]
    assert len(set(found["finished"])) == 24


def test_optuna_is_imported_only_when_it_is_used(shared):
    assert shared["lazy"]


# ---- errors, silence ------------------------------------------------------------------------------------------------


def test_a_missing_optuna_is_said_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"pip install 'jaxopt-study\[optuna\]'"):
        OptunaSampler()


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"text", b'{"rate": 0.1}\n'])
def test_a_file_of_something_else_is_refused_and_left_as_it_was(tmp_path, content):
    path = tmp_path / "results.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results.csv has other contents\. Choose another name"):
        OptunaSampler(path)
    assert path.read_bytes() == content


def test_a_journal_that_is_empty_or_was_begun_is_added_to(tmp_path):
    path = tmp_path / "study"
    path.touch()
    for _ in range(2):
        with OptunaSampler(path) as sampler:
            sampler.tell(sampler.ask(LINE, 1)[0][0], 1.0)
    assert [score for *_, score in sampler.finished(LINE)] == [1.0, 1.0]


@pytest.mark.parametrize("cut", [1, 30, 200])
def test_a_line_that_a_killed_process_did_not_finish_costs_that_line_alone(tmp_path, cut):
    path = tmp_path / "study"
    with OptunaSampler(path) as sampler:
        for handle, config in sampler.ask(LINE, 3):
            sampler.tell(handle, config["x"])
        told = sampler.finished(LINE)
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines()[-1][:cut])
    for _ in range(2):
        with OptunaSampler(path) as sampler:
            assert sampler.finished(LINE)[: len(told)] == told
            sampler.tell(sampler.ask(LINE, 1)[0][0], 0.5)
    assert len(sampler.finished(LINE)) == len(told) + 2


def changed(path, key, value):
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line | {key: value} if key in line else line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("param_value_internal", 3.0, "Trial 0 .*does not belong to this space .*received 3.0"),
        ("param_value_internal", "a", "Trial 0 .*does not belong to this space"),
        ("values", ["low"], "Trial 0 .*does not belong to this space"),
        ("values", [1.0, 2.0], "Trial 0 .*does not belong to this space"),
        ("param_name", "y", "Trial 0 .*does not belong to this space"),
        ("distribution", "wide", "Optuna cannot read .*restore the file"),
        ("op_code", 99, "Optuna cannot read .*restore the file"),
    ],
)
def test_a_changed_journal_is_refused_by_name(tmp_path, key, value, words):
    path = tmp_path / "study"
    with OptunaSampler(path) as sampler:
        sampler.tell(sampler.ask(LINE, 1)[0][0], 0.5)
    changed(path, key, value)
    with pytest.raises(ValueError, match=words), OptunaSampler(path) as sampler:
        sampler.finished(LINE)


def test_a_stored_score_that_is_not_finite_is_that_of_a_diverged_trial(tmp_path):
    path = tmp_path / "study"
    with OptunaSampler(path) as sampler:
        handle, config = sampler.ask(LINE, 1)[0]
        sampler.tell(handle, 0.5)
    changed(path, "values", [-math.inf])
    with OptunaSampler(path) as sampler:
        assert sampler.finished(LINE) == [(handle, config, None)]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A study of two trials in SQLite: one with a score, one that diverged."""
    path = tmp_path_factory.mktemp("database") / "study.db"
    with OptunaSampler(f"sqlite:///{path}") as sampler:
        (first, _), (second, _) = sampler.ask(LINE, 2)
        sampler.tell(first, 0.5)
        sampler.tell(second, None)
    return path


def edited(database, folder, statement):
    path = folder / "edited.db"
    shutil.copy(database, path)
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


PARAMETER = "update trial_params set {} where trial_id = 1"
NONE_OF_THIS_SPACE = r"Trial 0 .*does not belong to this space.*restore the storage"
CANNOT_USE = r"Optuna cannot use the study 'study'.*restore the storage"


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        (PARAMETER.format("param_value = 'abc'"), NONE_OF_THIS_SPACE),
        (PARAMETER.format("param_value = null"), NONE_OF_THIS_SPACE),
        (PARAMETER.format("param_value = 7.5"), NONE_OF_THIS_SPACE),
        (PARAMETER.format("param_name = 'y'"), NONE_OF_THIS_SPACE),
        (PARAMETER.format("distribution_json = '{'"), CANNOT_USE),
        (PARAMETER.format("distribution_json = null"), CANNOT_USE),
        ("delete from trial_params", NONE_OF_THIS_SPACE),
        (
            "insert into trial_params (trial_id, param_name, param_value, distribution_json) "
            "select trial_id, 'y', param_value, distribution_json from trial_params where trial_id = 1",
            NONE_OF_THIS_SPACE,
        ),
        ("update trial_values set value = 'nan'", NONE_OF_THIS_SPACE),
        ("update trial_values set value = null", CANNOT_USE),
        ("update trial_values set value_type = 'OTHER'", CANNOT_USE),
        ("delete from trial_values", "Trial 0 .*score is missing"),
        ("update trials set state = 'OTHER'", CANNOT_USE),
        ("update trials set number = 'a' where trial_id = 1", CANNOT_USE),
        ("update trials set datetime_start = 'yesterday'", CANNOT_USE),
        ("update study_user_attributes set value_json = '{'", CANNOT_USE),
        ("update study_user_attributes set value_json = '[1]' where key like '%space'", "has no space, but"),
        ("update study_directions set direction = 'UP'", CANNOT_USE),
        ("delete from study_directions", CANNOT_USE),
        ("insert into study_directions (direction, study_id, objective) values ('MAXIMIZE', 1, 1)", CANNOT_USE),
        ("delete from studies", CANNOT_USE),
        ("drop table trial_values", "Trial 0 .*score is missing"),
        ("update alembic_version set version_num = 'other'", "cannot open the database"),
    ],
)
def test_a_changed_database_is_refused_by_name(database, tmp_path, statement, words):
    with pytest.raises(ValueError, match=words), OptunaSampler(edited(database, tmp_path, statement)) as sampler:
        sampler.finished(LINE)


def test_another_study_of_a_database_has_trials_of_its_own(database, tmp_path):
    path = edited(database, tmp_path, "update studies set study_name = 'other'")
    with OptunaSampler(path) as sampler:
        assert sampler.finished(LINE) == []
    with OptunaSampler(path, study_name="other") as sampler:
        assert [score for *_, score in sampler.finished(LINE)] == [0.5, None]


@pytest.mark.parametrize("kept", [100, 0.5])
def test_a_truncated_database_is_refused(database, tmp_path, kept):
    content = database.read_bytes()
    path = tmp_path / "cut.db"
    path.write_bytes(content[: kept if kept > 1 else int(kept * len(content))])
    with pytest.raises(ValueError, match="cannot open the database given as storage"):
        OptunaSampler(f"sqlite:///{path}")


def test_a_database_that_cannot_be_opened_is_said(tmp_path):
    with pytest.raises(ValueError, match="cannot open the database given as storage"):
        OptunaSampler("nonsense://place")


def test_another_space_or_direction_of_a_stored_study_is_refused(tmp_path):
    with OptunaSampler(tmp_path / "study") as sampler:
        sampler.ask(LINE, 1)
        for other in (Space({"x": uniform(-1.0, 2.0)}), Space({"x": uniform(-1.0, 1.0), "y": uniform(0, 1)})):
            with pytest.raises(ValueError, match=r"has another space, which differs in [xy]\. Use"):
                sampler.ask(other, 1)
            with pytest.raises(ValueError, match="another space"):
                sampler.finished(other)
    with pytest.raises(ValueError, match="has the direction 'minimize'; received direction='maximize'"):
        OptunaSampler(tmp_path / "study", direction="maximize")


def test_handles_that_cannot_be_told_are_refused():
    with OptunaSampler() as sampler:
        ((handle, _),) = sampler.ask(LINE, 1)
        with pytest.raises(ValueError, match="number 7 since it has not been created"):
            sampler.tell(7, 1.0)
        assert sampler.tell(handle, 1.0)
        for score in (2.0, None):
            with pytest.raises(ValueError, match="Cannot tell a COMPLETE trial"):
                sampler.tell(handle, score)
        assert sampler.finished(LINE)[0][2] == 1.0


def test_senseless_numbers_are_refused():
    with pytest.raises(ValueError, match="heartbeat to be a finite real number > 0"):
        OptunaSampler(heartbeat=0.0)
    with OptunaSampler() as sampler, pytest.raises(ValueError, match="count to be an integer ≥ 1; received 0"):
        sampler.ask(LINE, 0)


def test_nothing_is_printed_and_the_users_settings_stay(capfd, storage):
    optuna.logging.set_verbosity(optuna.logging.DEBUG)
    try:
        for _ in range(2):
            with OptunaSampler(storage) as sampler:
                ((handle, _),) = sampler.ask(LINE, 1)
                sampler.tell(handle, None)
        assert optuna.logging.get_verbosity() == optuna.logging.DEBUG
    finally:
        optuna.logging.set_verbosity(optuna.logging.INFO)
    assert capfd.readouterr() == ("", "")


def test_a_forgotten_sampler_stops_beating(tmp_path):
    import threading

    sampler = OptunaSampler(tmp_path / "study", heartbeat=0.05)
    name = "heartbeat of an Optuna worker"
    assert name in {thread.name for thread in threading.enumerate()}
    del sampler
    assert name not in {thread.name for thread in threading.enumerate()}
