"""Error messages name the atom, the mistake and the remedy. Errors inside chains name the atom, not the chain."""

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.transforms import (
    add_decayed_weights,
    add_gradient_noise,
    bias_correction,
    chain,
    clip_by_global_norm,
    clip_by_percentile,
    clip_by_unit_norm,
    ema,
    heavy_ball,
    identity,
    merge,
    nesterov,
    nesterov_lookahead,
    project_to_max_norm,
    rectify,
    running_max,
    scale_by_learning_rate,
    scale_by_update_rms,
    tap,
    total,
)
from jaxopt_study.transforms._scalars import check_interval

PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}


@pytest.mark.parametrize("decay", [1.0, 1.5, -0.1, float("nan")])
@pytest.mark.parametrize(
    "build",
    [
        ema,
        bias_correction,
        heavy_ball,
        nesterov,
        rectify,
        scale_by_update_rms,
        transforms.nadam_average,
        lambda decay: nesterov_lookahead(0.1, decay),
    ],
    ids=["ema", "bias_correction", "heavy_ball", "nesterov", "rectify", "update_rms", "nadam", "lookahead"],
)
def test_decay_outside_its_range(build, decay):
    name = getattr(build, "__name__", "").replace("<lambda>", "nesterov_lookahead")
    with pytest.raises(
        ValueError, match=rf"{name} needs decay to be a real number in \[0, 1\); received {decay}\. A decay is the"
    ):
        build(decay)


def test_decay_that_is_a_number_of_steps_is_translated():
    with pytest.raises(ValueError, match=r"For a memory of n steps use 1 - 1/n \(here 0\.99\)"):
        ema(100)


@pytest.mark.parametrize("name", ["adam", "amsgrad", "adamax", "nadam", "radam", "adamw", "adan"])
def test_named_optimizers_pass_the_check_on(name):
    with pytest.raises(ValueError, match=r"(decay|b2) to be a real number in \[0, 1\); received 1\.0"):
        optimizers.named()[name](b2=1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: chain(), r"chain: expected at least one transformation, received none; use identity\(\)"),
        (lambda: merge(jnp.add), "merge: expected at least one branch, received none"),
        (
            lambda: scale_by_learning_rate(-0.1),
            r"learning_rate to be a finite real number ≥ 0; received -0.1.*flip_sign=False",
        ),
        (
            lambda: clip_by_global_norm(-1.0),
            r"clip_by_global_norm needs max_norm to be a real number ≥ 0; received -1.0",
        ),
        (lambda: project_to_max_norm(0.0), r"project_to_max_norm needs max_norm to be a real number > 0; received 0.0"),
        (
            lambda: clip_by_unit_norm(eps=0.0),
            r"clip_by_unit_norm needs eps to be a finite real number > 0; received 0.0",
        ),
        (
            lambda: clip_by_percentile(101.0),
            r"clip_by_percentile needs percentile to be a real number in \[0, 100\]; received 101.0",
        ),
        (
            lambda: clip_by_percentile(window=0),
            "clip_by_percentile needs window to be an integer ≥ 1; received 0",
        ),
        (lambda: transforms.scale_by_rms(initial=-1.0), r"scale_by_rms needs initial to be a finite real number ≥ 0"),
        (
            lambda: optimizers.rprop(0.1, min_step_size=2.0, max_step_size=1.0),
            "max_step_size to be .* ≥ 2",
        ),
        (lambda: transforms.bias_correction(0.9, power=1e300), r"power to be a real number in \[-10, 10\]"),
        (lambda: running_max(1.1), r"running_max needs decay to be a real number in \[0, 1\]; received 1.1"),
        (lambda: total(initial=-1.0), r"total needs initial to be a finite real number ≥ 0; received -1.0"),
        (
            lambda: transforms.divide_by_root(eps=-1e-8),
            r"divide_by_root needs eps to be a finite real number ≥ 0; received -1e-08",
        ),
        (lambda: add_gradient_noise(-1.0, 0.5, jax.random.key(0)), "add_gradient_noise needs eta to be a finite"),
        (
            lambda: rectify(threshold=3.0),
            "rectify needs threshold to be a finite real number ≥ 4; .* Below 4 the variance is infinite",
        ),
        (lambda: tap(""), "tap: expected a non-empty name for the measurements, received an empty one"),
        (lambda: optimizers.adam(convention="notes"), r"adam: convention must be one of 'paper', .* received 'notes'"),
        (lambda: optimizers.adam().replace(convention=None), r"adam: convention must be one of .* received None"),
        (lambda: optimizers.adadelta(0.1), r"adadelta: the paper's method has no learning rate; received 0.1. .*torch"),
    ],
)
def test_arguments_outside_their_range(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: chain(ema(0.9), clip_by_global_norm), r"chain: part 1 must be .* Call it: it is a constructor\."),
        (lambda: chain(0.1), r"chain: part 0 must be an Optax transformation, received 0\.1"),
        (lambda: merge(jnp.add, identity(), 2.0), "merge: part 1 must be an Optax transformation"),
        (lambda: merge(identity(), identity()), "merge: expected the function that combines"),
    ],
)
def test_parts_that_are_no_transformations(build, message):
    with pytest.raises(TypeError) as caught:
        build()
    assert "Type-check error" in str(caught.value) or caught.match(message)  # the checker of these tests comes first


# State, gradient and parameters that do not belong together.

BUILDERS = {
    "ema": lambda: ema(0.9),
    "total": total,
    "running_max": running_max,
    "gradient_difference": transforms.gradient_difference,
    "heavy_ball": lambda: heavy_ball(0.9),
    "nesterov": lambda: nesterov(0.9),
    "nesterov_lookahead": lambda: nesterov_lookahead(0.1, 0.9),
    "scale_by_update_rms": scale_by_update_rms,
    "nadam_average": transforms.nadam_average,
}
OTHERS = {
    "another structure": {"kernel": jnp.ones((3, 2))},
    "another shape": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)},
    "a shape that broadcasts": {"kernel": jnp.ones((3, 1)), "bias": jnp.ones(2)},
    "one that is larger": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones((5, 2))},
}
WRAPPERS = {
    "alone": (lambda tx: tx),
    "in a chain": lambda tx: chain(identity(), tx, scale_by_learning_rate(0.1)),
    "in a merge in a chain": lambda tx: chain(merge(jnp.add, identity(), chain(tx))),
    "in a tap": lambda tx: chain(tap("here", tx)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("name", BUILDERS)
def test_state_of_other_parameters(name, other, wrapper):
    tx = WRAPPERS[wrapper](BUILDERS[name]())
    state = tx.init(OTHERS[other])
    with pytest.raises(
        ValueError, match=rf"^{name}: .*(shape|parameters).* Call init with the parameters to be trained"
    ):
        tx.update(PARAMS, state, PARAMS)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("name", BUILDERS)
def test_state_of_another_transformation(name, wrapper):
    tx, other = (WRAPPERS[wrapper](part) for part in (BUILDERS[name](), bias_correction(0.9)))
    expected = r"the state belongs to another transformation: expected \w+State, received BiasCorrectionState"
    with pytest.raises(ValueError, match=rf"^{name}: {expected}. Use the state that init of this chain returned"):
        tx.update(PARAMS, other.init(PARAMS), PARAMS)


def test_state_of_a_longer_chain():
    state = chain(identity(), ema(0.9)).init(PARAMS)
    message = "chain: the state belongs to another chain: it has 2 parts, this chain has 1. Use the state that init"
    with pytest.raises(ValueError, match=message):
        chain(identity()).update(PARAMS, state)


def test_state_of_another_chain_of_the_same_length():
    state = optimizers.momentum(0.1, convention="torch").init(PARAMS)
    with pytest.raises(ValueError, match="expected LearningRateState, received HeavyBallState"):
        optimizers.momentum(0.1).update(PARAMS, state)


def test_no_state_at_all():
    with pytest.raises(ValueError, match="ema: the state belongs to another transformation: expected EmaState"):
        ema(0.9).update(PARAMS, PARAMS)
    with pytest.raises(ValueError, match="chain: the state belongs to another transformation: expected tuple"):
        optimizers.adam().update(PARAMS, PARAMS)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("add_decayed_weights", lambda: add_decayed_weights(0.1)),
        ("clip_by_unit_norm", clip_by_unit_norm),
        ("clip_weights", lambda: transforms.clip_weights(0.1)),
        ("decay_proximally", lambda: transforms.decay_proximally(0.1, 0.1)),
        ("project_to_max_norm", lambda: project_to_max_norm(0.1)),
    ],
)
def test_parameters_missing_or_of_another_kind(name, build, wrapper):
    tx = WRAPPERS[wrapper](build())
    state = tx.init(PARAMS)
    with pytest.raises(ValueError, match=rf"^{name} needs the current parameters: call update\(updates, state, params"):
        tx.update(PARAMS, state)
    for other in ("another structure", "another shape", "one that is larger"):
        with pytest.raises(
            ValueError, match=rf"^{name}: (gradient and parameters do not match|gradient, state and parameters)"
        ):
            tx.update(PARAMS, state, OTHERS[other])


def test_errors_of_the_users_own_functions_come_through():
    def wrong(x):
        raise ValueError("mine")

    with pytest.raises(ValueError, match=r"^mine$"):
        chain(transforms.elementwise(wrong)).update(PARAMS, (optax.EmptyState(),))


def test_function_that_changes_the_shape_is_named():
    tx = chain(merge(lambda a: a[:1], identity()))
    with pytest.raises(ValueError, match=r"^merge: gradient, state and parameters differ in shape"):
        tx.update(PARAMS, tx.init(PARAMS))


def test_correction_of_amsgrad_is_one_of_three():
    message = r"correction to be one of 'none', 'before', 'after'; received 'never'|Type-check error"
    with pytest.raises((ValueError, TypeError), match=message):
        transforms.scale_by_amsgrad(correction="never")


def test_key_must_be_a_key():
    with pytest.raises(
        TypeError, match=r"key to be a random key of JAX; received 0\. Give jax\.random\.key\(0\)|Type-check"
    ):
        add_gradient_noise(0.1, 0.5, 0)


@pytest.mark.parametrize("wrong", ["0.1", None], ids=str)
def test_what_is_not_a_number_is_refused(wrong):
    # Called by itself, because in these tests the annotations of the constructors are checked before it.
    with pytest.raises(TypeError, match=f"sgd needs rate to be a real number in .*; received {wrong!r}"):
        check_interval("sgd", "rate", wrong, 0.0, 1.0)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("elementwise needs fn", transforms.elementwise),
        ("ema needs of", lambda fn: ema(0.9, of=fn)),
        ("total needs of", lambda fn: total(of=fn)),
        ("running_max needs of", lambda fn: running_max(of=fn)),
        ("merge needs fn", lambda fn: merge(fn, transforms.identity())),
    ],
)
@pytest.mark.parametrize("returned", [None, "text", {}])
def test_a_function_that_returns_no_array_is_named(name, make, returned):
    params = {"w": jnp.ones(2)}
    tx = make(lambda g: returned)
    with pytest.raises(TypeError, match=f"{name} to return an array; received"):
        tx.update(params, tx.init(params), params)
