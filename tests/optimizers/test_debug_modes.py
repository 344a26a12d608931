"""Every named optimizer steps under each of JAX's debugging and strictness modes."""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import optimizers
from tests.transforms.cases import value_fn

MODES = {
    "debug_nans": lambda: jax.debug_nans(True),
    "debug_infs": lambda: jax.debug_infs(True),
    "rank promotion": lambda: jax.numpy_rank_promotion("raise"),
    "dtype promotion": lambda: jax.numpy_dtype_promotion("strict"),
    "no compilation": jax.disable_jit,
    "double precision": lambda: jax.enable_x64(True),
}


def _optimizers():
    for name, constructor in optimizers.named().items():
        required = {p.name: 0.1 for p in inspect.signature(constructor).parameters.values() if p.default is p.empty}
        for convention, _ in constructor.constructor.conventions or [(None, ())]:
            chosen = {} if convention is None else {"convention": convention}
            yield f"{name}, {convention}", constructor(**required, **chosen)
    yield "sgd, options", optimizers.sgd(0.1, 0.9, dampening=0.1, weight_decay=0.1, maximize=True)
    yield "rmsprop, options", optimizers.rmsprop(0.1, centered=True, momentum=0.9, nesterov=True, bias_correction=True)
    yield "adamw, options", optimizers.adamw(0.1, amsgrad=True, mu_dtype=jnp.float32, maximize=True)
    yield "adafactor, options", optimizers.adafactor(0.1, momentum=0.9, weight_decay=0.1, convention="torch")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_named_optimizer_steps_in_every_mode(mode):
    context = MODES[mode]() if mode in MODES else contextlib.nullcontext()
    with context:
        for half in (False, True):
            params = {"kernel": jnp.ones((2, 3), dtype=jnp.float16 if half else None), "bias": jnp.zeros(3)}
            grads = jax.tree.map(lambda p: jnp.asarray(np.resize([1.0, 0.0, -2.0], p.shape), dtype=p.dtype), params)
            for name, optimizer in _optimizers():
                state = optimizer.init(params)
                for _ in range(2):
                    updates, state = optimizer.update(grads, state, params, value_fn=value_fn)
                assert all(np.isfinite(u).all() for u in jax.tree.leaves(updates)), name
