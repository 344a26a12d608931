"""Arguments of the named optimizers: checks, names in other libraries, and combinations that are refused."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study import optimizers, transforms

ABUSE = (None, "x", b"x", 1j, float("nan"), -1.0, float("inf"), True, np.array([0.1, 0.2]), [0.1], object(), float)
# A pytree of booleans or a function, checked where it meets the parameters; integers, which the run-time type checker
# of the tests refuses first.
UNTYPED = {"mask", "max_matvecs", "min_dim_size_to_factor"}


def _sensible(parameter, value, has_conventions):
    """Return whether a value of the table is one that this argument may have."""
    if value is None:  # the default: of the argument, or of the convention
        return parameter.default is None or (has_conventions and parameter.name not in ("learning_rate", "convention"))
    if parameter.annotation is bool:
        return isinstance(value, bool)
    if parameter.name.endswith("dtype"):
        return value is float
    return parameter.name == "clipping_threshold" and isinstance(value, float) and value == float("inf")


@pytest.mark.parametrize("name", optimizers.named())
def test_every_argument_is_checked_under_the_name_the_user_gave(name):
    constructor = optimizers.named()[name]
    parameters = inspect.signature(constructor).parameters
    required = {p.name: 0.1 for p in parameters.values() if p.default is p.empty}
    for parameter in parameters.values():
        for value in ABUSE:
            if parameter.name in UNTYPED or _sensible(parameter, value, "convention" in parameters):
                continue
            with pytest.raises((TypeError, ValueError), match=rf"^{name}.*\b{parameter.name}\b") as caught:
                constructor(**{**required, parameter.name: value})
            assert "jaxopt_study" in caught.traceback[-1].path.as_posix()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: optimizers.sgd(0.1, nesterov=True), "sgd: nesterov and dampening need momentum"),
        (lambda: optimizers.sgd(0.1, 0.9, True, dampening=0.1), "sgd: nesterov and dampening cannot be combined"),
        (lambda: optimizers.rmsprop(0.1, nesterov=True), "rmsprop: nesterov needs momentum"),
        (
            lambda: optimizers.adam(nesterov=True, convention="saito2016"),
            "adam: saito2016's form has no Nesterov momentum",
        ),
        (lambda: optimizers.adamw(amsgrad=True, nesterov=True), "adamw: amsgrad and nesterov cannot be combined"),
        (lambda: optimizers.adam(mask=True), "adam: mask needs weight_decay; received weight_decay=None"),
        (lambda: optimizers.nadam(mu_dtype=jnp.float32), "mu_dtype needs constant momentum"),
        (lambda: transforms.scale_by_rprop(lagged=True), "scale_by_rprop: lagged=True cannot be combined"),
    ],
)
def test_options_that_contradict_each_other_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_names_of_optax_and_torch_are_understood_and_written_in_ours():
    tx = optimizers.adagrad(0.1, initial_accumulator_value=0.3)
    assert tx == optimizers.adagrad(0.1, initial=0.3)
    assert repr(tx) == "optimizers.adagrad(0.1, initial=0.3)"
    assert transforms.from_json(tx.to_json()) == tx
    with pytest.raises(TypeError, match="initial_accumulator_value is another name of initial; received both"):
        optimizers.adagrad(0.1, initial_accumulator_value=0.3, initial=0.3)
    with pytest.raises(TypeError, match="accumulator_dtype is another name of dtype; received both"):
        optimizers.sgd(0.1, 0.9, accumulator_dtype=jnp.float32, dtype=jnp.float32)


def test_traced_hyperparameters_pass_the_checks():
    def step(rate, decay):
        tx = optimizers.sgd(rate, decay, dampening=decay, weight_decay=rate)
        params = jnp.ones(2)
        return tx.update(params, tx.init(params), params)[0]

    rates = jnp.array([0.1, 0.2])
    np.testing.assert_allclose(jax.vmap(step)(rates, rates)[1], step(0.2, 0.2), rtol=1e-6)
