"""Named optimizers at the ends of the range of gradients, in half precision, and without parameters."""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import optimizers, transforms


def test_rprop_and_adafactor_step_on_gradients_whose_squares_do_not_exist():
    grads = jnp.array([[1e20, -1e20, 1e-30], [-1e20, 3e38, 1e-30]])
    for convention in ("paper", "torch", "optax"):
        for optimizer in (optimizers.rprop(convention=convention), optimizers.adafactor(0.1, convention=convention)):
            params = jnp.ones((2, 3))
            state = optimizer.init(params)
            for _ in range(3):
                updates, state = optimizer.update(grads, state, params)
                assert np.isfinite(updates).all(), optimizer
                params = params + updates
            assert (np.sign(updates) == -np.sign(grads))[:, :2].all(), optimizer
    np.testing.assert_allclose(optimizers.rprop(0.1).update(grads, optimizers.rprop(0.1).init(grads))[0][0, 2], -0.1)


@pytest.mark.parametrize("half", [jnp.float16, jnp.bfloat16])
def test_half_precision_with_wide_accumulators_is_single_precision_to_half_rounding(half):
    grads = np.random.default_rng(0).normal(size=(20, 3, 2)) * np.array([300.0, 1e-3])
    pairs = {
        "momentum": lambda dtype: optimizers.sgd(1e-3, 0.9, accumulator_dtype=dtype),
        "nesterov": lambda dtype: optimizers.nesterov(1e-3, accumulator_dtype=dtype, convention="torch"),
        "factored": lambda dtype: transforms.chain(
            transforms.scale_by_factored_rms(dtype=dtype), transforms.scale_by_learning_rate(1e-3)
        ),
    }
    for name, build in pairs.items():
        wide, narrow = (build(jnp.float32) for _ in range(2))
        states = wide.init(jnp.zeros((3, 2))), narrow.init(jnp.zeros((3, 2), dtype=half))
        for g in grads:
            g = jnp.asarray(g, dtype=half)
            expected, wide_state = wide.update(g.astype(jnp.float32), states[0])
            actual, narrow_state = narrow.update(g, states[1])
            states = wide_state, narrow_state
            np.testing.assert_allclose(
                np.asarray(actual, dtype=np.float32), expected, rtol=0.02, atol=1e-7, err_msg=name
            )


def test_nothing_to_train_is_no_error():
    for name, constructor in optimizers.named().items():
        required = {p.name: 0.1 for p in inspect.signature(constructor).parameters.values() if p.default is p.empty}
        optimizer = constructor(**required)
        assert optimizer.update({}, optimizer.init({}), {})[0] == {}, name
