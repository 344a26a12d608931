"""A transformation as a value: printed, edited, compared, saved, and passed through jit and vmap."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.transforms import (
    Function,
    Transform,
    chain,
    clip_by_global_norm,
    divide_by_root,
    elementwise,
    ema,
    from_json,
    from_optax,
    heavy_ball,
    identity,
    merge,
    nesterov,
    scale_by_adam,
    scale_by_learning_rate,
    tap,
)
from jaxopt_study.transforms._printing import resolve

GRADS, PARAMS = jnp.array([3.0, -4.0]), jnp.array([1.0, 2.0])


def first_update(tx):
    return np.asarray(tx.update(GRADS, tx.init(PARAMS), PARAMS)[0])


def tripled(x):
    return 3.0 * x


# Printing.


@pytest.mark.parametrize(
    ("tx", "text"),
    [
        (ema(0.9), "ema(0.9)"),
        (ema(0.9, of=jnp.square), "ema(0.9, of=jnp.square)"),
        (ema(0.9, initial=0.0), "ema(0.9)"),  # what equals its default is not shown
        (chain(identity(), ema(0.5)), "chain(identity(), ema(0.5))"),
        (optimizers.adam(), "optimizers.adam(0.001)"),
        (optimizers.adam(1e-3, eps=1e-8), "optimizers.adam(0.001)"),
        (optimizers.adam(convention="saito2016"), "optimizers.adam(0.001, convention='saito2016')"),
        (optimizers.nesterov(0.1), "optimizers.nesterov(0.1)"),
        (nesterov(0.1), "nesterov(0.1)"),
        (merge(divide_by_root(eps=1.0), identity(), ema(0.5)), "merge(divide_by_root(eps=1.0), identity(), ema(0.5))"),
        (from_optax(optax.adam)(0.1, b2=0.9), "from_optax(optax.adam)(0.1, b2=0.9)"),
        (from_optax(optax.constant_schedule)(0.1), "from_optax(optax.constant_schedule)(0.1)"),
        (scale_by_learning_rate(jnp.float32(0.5)), "scale_by_learning_rate(jnp.array(0.5, dtype='float32'))"),
        (scale_by_learning_rate(np.float64(0.5)), "scale_by_learning_rate(0.5)"),
        (elementwise(jax.nn.relu), "elementwise(jax.nn.relu)"),
    ],
)
def test_prints_what_was_written(tx, text):
    assert repr(tx) == text


def test_prints_long_expressions_one_part_to_a_line():
    tx = chain(*(clip_by_global_norm(1.0 / 3.0) for _ in range(4)))
    assert repr(tx) == "chain(\n" + 4 * "    clip_by_global_norm(0.3333333333333333),\n" + ")"


def test_says_so_where_there_is_nothing_to_print():
    bare = Transform(*optax.identity())
    assert "without a specification" in repr(bare)
    assert "<test_says_so" in repr(elementwise(lambda x: x))
    seen = []
    jax.eval_shape(lambda lr: seen.append(repr(optimizers.sgd(lr))), 0.1)
    assert seen == ["optimizers.sgd(<traced float32[]>)"]


# Hyperparameters by path.


def test_hyperparameters_are_listed_by_path():
    tx = chain(clip_by_global_norm(1.0), optimizers.momentum(0.1, decay=0.5), heavy_ball(0.2), heavy_ball(0.3))
    assert tx.hyperparams == {
        "clip_by_global_norm.max_norm": 1.0,
        "momentum.learning_rate": 0.1,
        "momentum.decay": 0.5,
        "momentum.convention": "paper",
        "momentum.dampening": None,
        "momentum.weight_decay": None,
        "momentum.mask": None,
        "momentum.maximize": False,
        "momentum.dtype": None,
        "heavy_ball[0].decay": 0.2,
        "heavy_ball[0].dtype": None,
        "heavy_ball[1].decay": 0.3,
        "heavy_ball[1].dtype": None,
    }


def test_paths_lead_into_functions_schedules_and_constructors_of_optax():
    tx = chain(
        merge(divide_by_root(eps=0.5), identity(), ema(0.9)),
        from_optax(optax.masked)(scale_by_learning_rate(from_optax(optax.linear_schedule)(1.0, 0.0, 4)), True),
    )
    values = tx.hyperparams
    assert values["merge.fn.eps"] == 0.5
    assert values["masked.scale_by_learning_rate.learning_rate.transition_steps"] == 4
    changed = tx.replace({"masked.scale_by_learning_rate.learning_rate.init_value": 2.0, "fn.eps": 0.25})
    assert changed.hyperparams == values | {
        "masked.scale_by_learning_rate.learning_rate.init_value": 2.0,
        "merge.fn.eps": 0.25,
    }
    assert changed == chain(
        merge(divide_by_root(eps=0.25), identity(), ema(0.9)),
        from_optax(optax.masked)(scale_by_learning_rate(from_optax(optax.linear_schedule)(2.0, 0.0, 4)), True),
    )


def test_replace_by_path_end_of_path_and_pattern():
    tx = chain(ema(0.9), heavy_ball(0.8), scale_by_learning_rate(0.1))
    assert tx.replace({"ema.decay": 0.5}) == chain(ema(0.5), heavy_ball(0.8), scale_by_learning_rate(0.1))
    assert tx.replace(learning_rate=0.2) == chain(ema(0.9), heavy_ball(0.8), scale_by_learning_rate(0.2))
    assert tx.replace({"*.decay": 0.5}) == chain(ema(0.5), heavy_ball(0.5), scale_by_learning_rate(0.1))
    assert tx == chain(ema(0.9), heavy_ball(0.8), scale_by_learning_rate(0.1))  # unchanged
    np.testing.assert_allclose(first_update(optimizers.sgd(0.1).replace(learning_rate=0.5)), [-1.5, 2.0])


def test_replace_can_put_a_schedule_or_a_function_in_place():
    schedule = from_optax(optax.constant_schedule)(0.25)
    assert optimizers.sgd(0.1).replace(learning_rate=schedule).hyperparams["learning_rate.value"] == 0.25
    assert elementwise(jnp.sin).replace(fn=jnp.cos) == elementwise(jnp.cos)


def test_replaced_convention_brings_its_own_defaults_and_keeps_what_was_given():
    adagrad = optimizers.adagrad(0.1, initial=0.5)
    other = adagrad.replace(convention="optax")
    assert other == optimizers.adagrad(0.1, initial=0.5, convention="optax")
    assert other.hyperparams["eps_root"] == 1e-7


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("decay", r"'decay' names several hyperparameters: ema.decay, heavy_ball.decay. .*use '\*.decay'"),
        ("dcay", r"No hyperparameter 'dcay' in chain. Did you mean 'decay'\? It has: ema.decay, "),
        ("*.b7", r"No hyperparameter '\*.b7' in chain"),
        ("ema", "No hyperparameter 'ema'"),
    ],
)
def test_replace_says_what_there_is(path, message):
    with pytest.raises(ValueError, match=message):
        chain(ema(0.9), heavy_ball(0.8)).replace({path: 0.5})


def test_replaced_values_are_checked_like_given_ones():
    with pytest.raises(ValueError, match=r"ema needs decay to be a real number in \[0, 1\); received 1.5"):
        ema(0.9).replace(decay=1.5)


# Equality.


def test_equal_if_the_calls_are():
    assert ema(0.9) == ema(decay=0.9, of=None)
    assert scale_by_learning_rate(1) == scale_by_learning_rate(1.0)
    assert scale_by_learning_rate(np.float64(0.1)) == scale_by_learning_rate(0.1)
    assert from_optax(optax.adam)(0.1) == from_optax(optax.adam)(learning_rate=0.1)
    assert ema(0.9, of=tripled) == ema(0.9, of=tripled)
    array = np.array(1.0)
    assert scale_by_learning_rate(array) == scale_by_learning_rate(array.copy())


@pytest.mark.parametrize(
    "other",
    [
        ema(0.91),
        ema(0.9, of=jnp.abs),
        ema(0.9, initial=1.0),
        ema(jnp.float32(0.9)),
        ema(0.9, dtype=jnp.float32),
        heavy_ball(0.9),
        chain(ema(0.9)),
        from_optax(optax.ema)(0.9),
        Transform(*ema(0.9)),
        optax.ema(0.9),
        None,
    ],
    ids=[
        "value",
        "function",
        "start",
        "dtype",
        "dtype of the state",
        "atom",
        "chain",
        "wrapped",
        "bare",
        "optax",
        "None",
    ],
)
def test_unequal_if_anything_differs(other):
    assert ema(0.9) != other


def test_equal_transformations_are_one_key_of_a_dictionary():
    table = {optimizers.adam(0.1): "adam", optimizers.adam(0.2): "faster"}
    assert table[optimizers.adam(learning_rate=0.1)] == "adam"
    assert table[optimizers.adam(0.1).replace(learning_rate=0.2)] == "faster"
    bare = Transform(*optax.identity())
    assert {bare: 1}[bare] == 1


def test_keys_are_compared_by_value():
    noise = lambda seed: transforms.add_gradient_noise(0.1, 0.5, jax.random.key(seed))
    assert noise(1) == noise(1)
    assert noise(1) != noise(2)


def test_replacing_the_functions_of_a_transformation_loses_its_specification():
    changed = ema(0.9)._replace(update=lambda updates, state, params=None: (updates, state))
    assert changed.spec is None
    assert changed != ema(0.9)
    np.testing.assert_array_equal(first_update(changed), GRADS)


# from_optax.


def test_lifted_constructor_does_what_optax_does():
    wrapped, plain = from_optax(optax.adamw)(0.1, weight_decay=0.1), optax.adamw(0.1, weight_decay=0.1)
    a, b = wrapped.init(PARAMS), plain.init(PARAMS)
    for _ in range(3):
        x, a = wrapped.update(GRADS, a, PARAMS)
        y, b = plain.update(GRADS, b, PARAMS)
        np.testing.assert_array_equal(x, y)


def test_schedule_of_optax_is_a_function():
    schedule = from_optax(optax.cosine_decay_schedule)(0.1, 100)
    assert isinstance(schedule, Function)
    assert schedule(50) == optax.cosine_decay_schedule(0.1, 100)(50)
    assert schedule.replace(init_value=0.2)(0) == pytest.approx(0.2)
    assert optax.adam(schedule).init(PARAMS)  # Optax takes it for a schedule


@pytest.mark.parametrize(
    ("build", "path"),
    [
        (lambda: from_optax(optax.masked)(heavy_ball(0.9), True), "masked.heavy_ball.decay"),
        (
            lambda: from_optax(optax.partition)({"a": heavy_ball(0.9), "b": identity()}, "a"),
            "a.decay",
        ),
        (lambda: from_optax(optax.chain)(heavy_ball(0.9), identity()), "heavy_ball.decay"),
        (lambda: from_optax(optax.MultiSteps)(heavy_ball(0.9), 2), None),
    ],
    ids=["masked", "partition", "chain", "MultiSteps"],
)
def test_constructors_of_optax_of_transformations_are_edited_inside(build, path):
    if path is None:
        with pytest.raises(TypeError, match="returned MultiSteps; a constructor must return"):
            build()
        return
    tx = build()
    assert tx.hyperparams[path.removeprefix("masked.")] == 0.9
    changed = tx.replace({"decay": 0.0})
    assert changed.hyperparams[path.removeprefix("masked.")] == 0.0
    np.testing.assert_array_equal(first_update(changed), GRADS)
    assert from_json(changed.to_json()) == changed
    leaves, _ = jax.tree.flatten(changed)
    assert leaves == [0.0]


def test_constructors_of_optax_expand_their_parts():
    tx = from_optax(optax.masked)(optimizers.sgd(0.1), True)
    assert tx.expand() == from_optax(optax.masked)(scale_by_learning_rate(0.1), True)


def test_bare_transformations_are_welcome():
    bare = optax.scale(2.0)
    tx = chain(bare, optimizers.sgd(0.5))
    np.testing.assert_array_equal(first_update(tx), -GRADS)
    assert tx.hyperparams["sgd.learning_rate"] == 0.5
    assert all(name == "parts[0]" or name.startswith("sgd.") for name in tx.hyperparams)
    assert tx.replace(learning_rate=1.0) == chain(bare, optimizers.sgd(1.0))
    assert tx != chain(optax.scale(2.0), optimizers.sgd(0.5))  # two functions cannot be compared


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(optax.adam(0.1), r"Write from_optax\(optax.adam\)\(1e-3\)"), (3.0, "from_optax needs a function")],
)
def test_lift_takes_constructors(wrong, message):
    with pytest.raises(TypeError, match=message):
        inspect.unwrap(from_optax)(wrong)  # without the run-time type checker of these tests


def test_wrapped_function_must_return_a_transformation():
    with pytest.raises(TypeError, match="returned float; a constructor must return an Optax transformation"):
        from_optax(tripled)(1.0)


def test_lift_keeps_dtypes_that_a_traced_hyperparameter_would_promote():
    grads = GRADS.astype(jnp.bfloat16)
    promoted = jax.eval_shape(lambda lr: optax.scale(lr).update(grads, optax.EmptyState())[0], jnp.float32(0.1))
    kept = jax.eval_shape(lambda lr: from_optax(optax.scale)(lr).update(grads, optax.EmptyState())[0], jnp.float32(0.1))
    assert promoted.dtype == jnp.float32
    assert kept.dtype == jnp.bfloat16


# JSON.


@pytest.mark.parametrize(
    "tx",
    [
        scale_by_learning_rate(np.float32(0.1)),
        scale_by_learning_rate(jnp.asarray(0.1, dtype=jnp.bfloat16)),
        scale_by_learning_rate(np.asarray(0.1)),
        ema(0.1 + 0.2, dtype=jnp.bfloat16),
        transforms.add_decayed_weights(0.1, mask={"a": True, "b": [False, None], "c": (True,)}),
        transforms.add_gradient_noise(0.1, 0.5, jax.random.key(2**31, impl="rbg")),
        from_optax(optax.cosine_decay_schedule)(0.1, 100),
        optimizers.sgd(from_optax(optax.piecewise_constant_schedule)(0.1, {30: 0.5, 60: 0.1})),
        tap("μ → ν", from_optax(optax.clip_by_global_norm)(float("inf"))),
    ],
    ids=lambda tx: repr(tx)[:40],
)
def test_json_keeps_every_kind_of_value(tx):
    text = tx.to_json(indent=2)
    assert json.loads(text)["format"] == "jaxopt_study.transform/2"
    assert from_json(text) == tx


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: elementwise(lambda x: x),
            r"elementwise: fn: <.*<lambda>> cannot be written as text. Define functions",
        ),
        (lambda: chain(optax.scale(0.1)), r"chain: parts is a bare Optax transformation; build it with from_optax"),
        (lambda: scale_by_learning_rate(optax.constant_schedule(0.1)), "build schedules with from_optax"),
        (lambda: Transform(*optax.identity()), "bare Optax transformation"),
        (lambda: from_optax(lambda rate: optax.scale(rate))(0.1), "define the function at the top level"),
    ],
    ids=["lambda", "bare", "schedule", "no specification", "wrapped lambda"],
)
def test_json_says_what_cannot_be_saved(build, message):
    with pytest.raises(ValueError, match=message):
        build().to_json()


def test_json_refuses_traced_values():
    with pytest.raises(ValueError, match="learning_rate is traced and has no concrete value to save"):
        jax.eval_shape(lambda lr: optimizers.sgd(lr).to_json(), 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Not JSON"),
        ("[]", "received 'list'"),
        ('{"format": "other/9"}', "received 'other/9'"),
        ('{"format": "jaxopt_study.transform/2"}', "Not a saved expression: None"),
        ('{"format": "jaxopt_study.transform/2", "expression": {"what": 1}}', "Not part of a saved expression"),
        ('{"format": "jaxopt_study.transform/2", "expression": 3}', "Not a saved expression: 3"),
    ],
)
def test_json_that_is_no_expression_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        from_json(text)


def saved(expression):
    return json.dumps({"format": "jaxopt_study.transform/2", "expression": expression})


def test_json_names_constructors_by_their_public_place():
    assert '"jaxopt_study.transforms:ema"' in ema(0.9).to_json()
    assert '"jaxopt_study.optimizers:nesterov"' in optimizers.nesterov(0.1).to_json()


REACHABLE = [  # what can be imported, and reached through what a trusted module has imported
    "os:system",
    "builtins:eval",
    "subprocess:Popen",
    "numpy:load",
    "jax._src.xla_bridge:os.system",
    "jax._src.numpy.lax_numpy:np.load",
    "jax._src.numpy.lax_numpy:np",
    "jaxopt_study.transforms._printing:importlib.import_module",
    "jaxopt_study.transforms._printing:importlib",
    "tests.transforms.test_spec:tripled",
]


@pytest.mark.parametrize("kind", ["call", "from_optax", "function"])
@pytest.mark.parametrize("path", REACHABLE)
def test_json_cannot_call_what_is_not_trusted(kind, path):
    assert resolve(path) is not None
    named = {kind: path} if kind == "function" else {kind: path, "arguments": {}}
    inside = {"call": "jaxopt_study.transforms._elementwise:elementwise", "arguments": {"fn": named}}
    for expression in (named, inside):
        with pytest.raises(ValueError, match=r"is neither a constructor nor an elementwise function"):
            from_json(saved(expression))


@pytest.mark.parametrize("path", ["jax.numpy:save", "jax.numpy:load", "jaxopt_study.transforms._printing:resolve"])
def test_json_lifts_only_from_optax_and_what_the_reader_trusts(path, tmp_path, monkeypatch):
    # JAX and this package hold functions that write and read files; a saved transformation needs none of them.
    assert resolve(path) is not None
    monkeypatch.chdir(tmp_path)
    for kind in ("from_optax", "call"):
        with pytest.raises(ValueError, match=r"is neither a constructor nor an elementwise function"):
            from_json(saved({kind: path, "arguments": {"file": "written", "arr": [1], "path": "os:system"}}))
    assert not list(tmp_path.iterdir())


def test_trusted_packages_are_named_by_the_reader():
    tx = elementwise(tripled)
    with pytest.raises(ValueError, match=r"tripled' is neither .* trust it explicitly: from_json\(text, trusted="):
        from_json(tx.to_json())
    for trusted in ("tests", "tests.transforms.test_spec", "tests.transforms.test_spec:tripled"):
        assert from_json(tx.to_json(), trusted=(trusted,)) == tx
    with pytest.raises(ValueError, match="is neither"):
        from_json(tx.to_json(), trusted=("test", "tests.transforms.test_spec:other"))


def test_json_of_another_version_says_so():
    text = saved({"call": "jaxopt_study.transforms._statistics:forgotten", "arguments": {}})
    with pytest.raises(ValueError, match=r"forgotten.* is neither a constructor nor"):
        from_json(text)
    text = ema(0.9).to_json().replace('"decay"', '"dekay"')
    with pytest.raises(ValueError, match=r"ema: .*'dekay'"):
        from_json(text)


# As an argument of compiled functions.


def test_is_an_argument_that_never_recompiles_for_a_number():
    count = []

    @jax.jit
    def step(tx, grads):
        count.append(1)
        return tx.update(grads, tx.init(grads), grads)[0]

    tx = chain(clip_by_global_norm(1.0), scale_by_adam(0.9, 0.99), scale_by_learning_rate(0.1))
    for path in ("max_norm", "b1", "b2", "eps", "learning_rate"):
        changed = tx.replace({path: 0.5})
        np.testing.assert_allclose(step(changed, GRADS), first_update(changed), rtol=1e-5)
    assert len(count) == 1
    step(chain(clip_by_global_norm(1.0), scale_by_adam(0.9, 0.99, eps_root=0.1), optimizers.sgd(0.1)), GRADS)
    assert len(count) == 2  # another program


def test_replaces_inside_jit_and_vmap():
    tx = optimizers.momentum(0.1)
    rates = jnp.array([0.1, 0.2, 0.4])
    lanes = jax.jit(jax.vmap(lambda rate: tx.update(GRADS, tx.init(PARAMS))[0] * 0 + _with(tx, rate)))(rates)
    np.testing.assert_allclose(lanes, -rates[:, None] * GRADS, rtol=1e-6)


def _with(tx, rate):
    changed = tx.replace(learning_rate=rate)
    return changed.update(GRADS, changed.init(PARAMS))[0]


def test_is_mapped_like_any_pytree():
    stacked = jax.tree.map(lambda *x: jnp.stack(x), optimizers.sgd(0.1), optimizers.sgd(0.2))
    assert stacked.hyperparams["learning_rate"].shape == (2,)
    updates = jax.vmap(lambda tx: tx.update(GRADS, tx.init(PARAMS))[0])(stacked)
    np.testing.assert_allclose(updates, [-0.1 * GRADS, -0.2 * GRADS], rtol=1e-6)


def test_structural_numbers_are_part_of_the_program():
    corrected = transforms.bias_correction(0.9, power=0.5)
    assert jax.tree.leaves(corrected) == [0.9]
    assert jax.tree.structure(corrected) != jax.tree.structure(transforms.bias_correction(0.9))
