"""Parts of a comparison on disk: read if they are what their run writes, and made again otherwise."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxopt_study import optimizers, problems, records
from jaxopt_study.cli import _single_runs

BAR = SimpleNamespace(begin=lambda *_: None, end=lambda _: None)
FORGED = {
    "curves": [5, [], {"step": [0]}, {"step": "x", "train_loss": [[1.0]], "path": [[]]}],
    "finals": [None, {"train_loss": [0.5, 0.5]}, {"train_loss": ["x"]}, {"train_loss": 1.0}, {"x": [0.5]}],
    "diverged": ["no", [], [None], [[1], [2]]],
    "seeds": [2, -1, "1", None],
    "run_seconds": ["fast", None],
    "optimizer": ["../../elsewhere", 3],
}
CURVATURE = [3, {"step": ["x"], "limit": 1.0}, {"step": [0], "limit": 1.0, "sharpness": [["x"]]}, {"step": [0]}]


def the_path():
    plane = problems.planar.bowl()
    candidate = SimpleNamespace(plane=optimizers.sgd(0.1), path="", network=None)
    return _single_runs.plane_runs(plane, {"sgd": candidate})[0]


def kept(run, folder):
    return list(_single_runs.kept_runs([run], {"seed": 0}, folder, BAR, resume=True))


def counted(run):
    """Return the run, and the list of its calls."""
    calls = []
    return dataclasses.replace(run, results=lambda: (calls.append(run.name), run.results())[1]), calls


def forge(path, name, value):
    """Change a record and its hash: whoever writes a file can compute one."""
    record = records.load(path)
    records.save(dataclasses.replace(record, results={**record.results, name: value}), path)


@pytest.fixture(scope="module")
def path_results():
    return the_path().results()


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in FORGED for value in FORGED[name]])
def test_a_forged_part_is_made_again(tmp_path, path_results, name, value):
    run, calls = counted(dataclasses.replace(the_path(), results=lambda: path_results))
    first = kept(run, tmp_path)
    assert (kept(run, tmp_path), len(calls)) == (first, 1)
    forge(tmp_path / "parts" / "bowl-sgd.json", name, value)
    again = kept(run, tmp_path)
    assert len(calls) == 2
    assert {**again[0], "run_seconds": 0} == {**first[0], "run_seconds": 0}


@pytest.mark.parametrize("value", CURVATURE)
def test_a_forged_measurement_of_curvature_is_made_again(tmp_path, value):
    results = {"curvature": {"step": jax.numpy.arange(2), "limit": np.nan, "sharpness": np.ones((1, 2))}}
    run = _single_runs.Run("digits", "sgd", "default", optimizers.sgd(0.1), lambda: results, ("curvature",))
    run, calls = counted(run)
    first = kept(run, tmp_path)
    assert len(calls) == 1
    assert str(kept(run, tmp_path)) == str(first)
    assert len(calls) == 1
    forge(tmp_path / "parts" / "digits-sgd.json", "curvature", value)
    kept(run, tmp_path)
    assert len(calls) == 2
