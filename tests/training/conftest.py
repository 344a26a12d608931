import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.problems import Problem
from jaxopt_study.training._plan import make_plan


@pytest.fixture(scope="session")
def regression():
    """Least squares on 23 examples: a prime, so that no batch size divides an epoch. Mixed leaf shapes."""
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(40, 6)), rng.normal(size=40)
    y = x @ np.arange(1.0, 7.0) + 0.5 + 0.1 * noise
    x, y = x.astype(np.float32), y.astype(np.float32)

    def residuals(params, batch):
        features, target = batch
        return features @ params["weight"].reshape(-1) + params["bias"] - target

    return Problem(
        "regression",
        init=lambda key: {"weight": jax.random.normal(key, (2, 3)), "bias": jnp.zeros(())},
        loss=lambda params, batch: jnp.mean(residuals(params, batch) ** 2),
        data=(jnp.asarray(x[:23]), jnp.asarray(y[:23])),
        validation=(jnp.asarray(x[23:]), jnp.asarray(y[23:])),
        metrics={"worst": lambda params, batch: jnp.max(jnp.abs(residuals(params, batch)))},
    )


@pytest.fixture(scope="session")
def bowl():
    return Problem("bowl", init=lambda key: jnp.array([3.0, -2.0]), loss=lambda p, _: 0.5 * jnp.sum(p**2))


@pytest.fixture(scope="session")
def planned():
    """Plan a run with every option at its default."""

    def plan(problem, optimizer, **options):
        defaults = {
            "num_steps": 3, "batch_size": None, "order": "reshuffle", "params": None, "evaluate_every": None,
            "evaluate_on": None, "evaluate_batch_size": None, "early_stopping": None, "snapshot_every": None,
            "probe": None, "layout": "auto", "loop": "auto", "traced": False,
        }  # fmt: skip
        return make_plan(problem, optimizer, **defaults | options)

    return plan
