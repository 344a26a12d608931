"""A sampler of one's own is asked for trials and told their scores."""

import numpy as np
import pytest

from jaxopt_study import optimizers, sweeps
from tests.sweeps import small

SETTINGS = {"num_trials": 12, "num_steps": 30, "key": small.KEY, "width": 1}


class Bisection:
    """Halve the interval of log rates towards the better of its ends; each trial waits for the one before."""

    def __init__(self):
        self.ends, self.scores, self.told = [1e-3, 0.5], {}, []

    def ask(self, space, count, *, num_trials):
        assert list(space) == ["learning_rate"]
        if len(self.told) == num_trials:
            return []
        rate = next((end for end in self.ends if end not in self.scores), float(np.sqrt(np.prod(self.ends))))
        return [(rate, {"learning_rate": rate})]

    def tell(self, handle, score):
        self.scores[handle] = score
        self.told.append((handle, score))
        if handle not in self.ends:
            worse = max(self.ends, key=lambda end: np.inf if np.isnan(self.scores[end]) else self.scores[end])
            self.ends[self.ends.index(worse)] = handle


def test_its_trials_are_run_one_after_the_other_and_their_scores_told():
    sampler = Bisection()
    assert isinstance(sampler, sweeps.Sampler)
    found = sweeps.search(optimizers.sgd, small.RATES, small.quadratic(), sampler=sampler, **SETTINGS)
    assert [config["learning_rate"] for config in found.configs] == [rate for rate, _ in sampler.told]
    np.testing.assert_allclose(found.scores, [score for _, score in sampler.told], rtol=1e-6)
    # 30 steps of rate r multiply coordinates by (1 − 4r)³⁰, (1 − r)³⁰, (1 − r/4)³⁰: the last decides, up to r < ½.
    assert 0.3 < found.best.config["learning_rate"] < 0.5


class Elsewhere(Bisection):
    def ask(self, space, count, *, num_trials):
        return [(0, {"decay": 0.5})]


class ForAccuracy(Bisection):
    mode = "max"


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (Elsewhere(), r"configurations in the space, with the names \['learning_rate'\]; received"),
        (ForAccuracy(), "The sampler has mode='max', but"),
    ],
)
def test_what_does_not_fit_is_refused(sampler, message):
    with pytest.raises(ValueError, match=message):
        sweeps.search(optimizers.sgd, small.RATES, small.quadratic(), sampler=sampler, **SETTINGS)


@pytest.mark.parametrize("sampler", [Bisection, object(), None])
def test_what_is_no_sampler_is_refused(sampler):
    with pytest.raises(TypeError, match="an object with ask"):
        sweeps.search(optimizers.sgd, small.RATES, small.quadratic(), sampler=sampler, **SETTINGS)
