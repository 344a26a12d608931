"""Laws that every transformation obeys, on every case. A case declares what it promises; no law asks for its name."""

import copy
import functools
import pickle
import sys

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.transforms import Transform, from_json
from tests.transforms.cases import (
    CASES,
    OPTIMIZERS,
    PROGRAMS,
    SAVED,
    bits,
    each,
    functions,
    gradients,
    is_key,
    params,
    run,
    value_fn,
    without_example,
)

each_case = each(CASES)
each_portable = each(case for case in CASES if not case.names_leaves)
each_program = each(PROGRAMS)
each_saved = each(SAVED)
EXACT = 1e-11  # relative, in double precision: the same arithmetic in another order
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "mixed": (jnp.bfloat16, jnp.float32)}
HALF = (jnp.bfloat16, jnp.float16)


def assert_no_nan(state):
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(bits(state)))


def assert_close(actual, desired, rtol=EXACT):
    """Same structure, and leaves that agree relative to the largest entry of each."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    for a, d in zip(jax.tree.leaves(bits(actual)), jax.tree.leaves(bits(desired)), strict=True):
        near = rtol and max(rtol, 100 * float(jnp.finfo(d.dtype).eps)) if jnp.issubdtype(d.dtype, jnp.floating) else 0.0
        a, d = np.asarray(a, dtype=float), np.asarray(d, dtype=float)
        finite = np.abs(d[np.isfinite(d)]).max(initial=0.0)
        np.testing.assert_allclose(a, d, rtol=near, atol=near * finite)


def numeric(tx, dtype=None):
    """The transformation with arrays for hyperparameters, as a sweep or a jitted function has them."""
    return jax.tree.map(lambda x: x if is_key(x) else jnp.asarray(x, dtype=dtype), tx)


def scaled(tx, factor):
    """The transformation with other hyperparameters: those below 1 stay below, those above stay above."""
    return jax.tree.map(lambda x: x if is_key(x) else x * factor if abs(x) <= 1 else x / factor, tx)


@functools.cache
def plain(case):
    """What the case does in single precision in three steps: many laws compare with it."""
    start = params(jnp.float32)
    return run(case.tx, start, gradients(start))


def kinds(tree):
    return jax.tree.map(lambda x: (np.shape(x), jnp.result_type(x)), tree, is_leaf=lambda x: x is None)


def test_every_public_constructor_has_a_case():
    assert without_example() == []


def test_every_public_function_is_used_in_a_case():
    used = set()

    def walk(value):
        spec = getattr(value, "spec", None)
        if spec is not None:
            used.add(spec.constructor.name)
            jax.tree.map(walk, list(spec.arguments.values()), is_leaf=lambda x: getattr(x, "spec", None) is not None)

    for case in CASES:
        walk(case.tx.expand())
    assert set(functions()) <= used


@each_case
@pytest.mark.parametrize(
    ("dtype", "traced"),
    [*((dtype, False) for dtype in DTYPES), ("mixed", True)],  # of the traced ones, mixed leaves are the hardest
    ids=[*(f"numbers-{dtype}" for dtype in DTYPES), "traced-mixed"],
)
def test_structure_and_dtypes_are_kept(case, dtype, traced):
    start = params(DTYPES[dtype] if case.half_precision or not traced else jnp.float32)
    (grads,) = gradients(start, 1)
    tx = numeric(case.tx, jnp.float32) if traced else case.tx

    def update(tx):
        state = tx.init(start)
        return state, *tx.update(grads, state, start, value_fn=value_fn)

    before, updates, after = jax.eval_shape(update, tx) if traced else jax.eval_shape(lambda: update(case.tx))
    if case.keeps_dtype:
        assert kinds(updates) == kinds(grads)
    else:
        assert jax.tree.map(np.shape, updates) == jax.tree.map(np.shape, grads)
    chex.assert_trees_all_equal_structs(before, after)
    assert kinds(before) == kinds(after)


@each_case
def test_state_can_be_the_carry_of_a_scan(case):
    start = params(jnp.float32)

    def loop(tx):
        def step(carry, g):
            point, state = carry
            updates, state = tx.update(g, state, point, value_fn=value_fn)
            return (jax.tree.map(lambda p, u: p + u.astype(p.dtype), point, updates), state), None

        grads = jax.tree.map(lambda p: jnp.zeros((2, *p.shape)), start)
        return jax.lax.scan(step, (start, tx.init(start)), grads)

    jax.eval_shape(lambda: loop(case.tx))  # scan refuses a carry whose type changes
    jax.eval_shape(loop, case.tx)


traces = []


FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # to compile


@functools.partial(jax.jit, donate_argnums=1, keep_unused=True, compiler_options=FAST)
def compiled(tx, state, start, grads):
    traces.append(1)
    return tx.update(grads, state, start, value_fn=value_fn)


def two_steps(update, tx, start, grads):
    state, updates = tx.init(start), []
    for g in grads:
        before = state
        update_, state = update(tx, before, start, g)
        updates.append(update_)
        assert update is not compiled or all(leaf.is_deleted() for leaf in jax.tree.leaves(before))
    return updates, state


@each_program
def test_compiled_equals_eager_with_a_donated_state(case):
    with jax.enable_x64(True):
        start = params()
        grads = gradients(start, 2)
        assert_close(two_steps(compiled, case.tx, start, grads), two_steps(compiled.__wrapped__, case.tx, start, grads))


@each_program
def test_new_numbers_compile_nothing(case):
    with jax.enable_x64(True):
        start = params()
        grads = gradients(start, 2)
        two_steps(compiled, case.tx, start, grads)
        count, other = len(traces), scaled(case.tx, 0.875)
        two_steps(compiled, other, start, grads)  # right, as the law of the lanes of a sweep shows
        assert len(traces) == count


@each_program
def test_zero_gradients_stay_finite_with_traced_hyperparameters(case):
    with jax.enable_x64(True):
        start = params()
        updates, state = two_steps(compiled, case.tx, start, [jax.tree.map(jnp.zeros_like, start)] * 5)
        chex.assert_tree_all_finite(updates)
        assert_no_nan(state)


@each_case
def test_zero_gradients_stay_finite_in_every_precision(case):
    start = params(HALF if case.half_precision else jnp.float32)
    updates, state = run(case.tx, start, [jax.tree.map(jnp.zeros_like, start)] * 3)
    chex.assert_tree_all_finite(updates)
    assert_no_nan(state)


@each_program
def test_vmap_over_parameters_and_gradients_is_a_loop(case):
    with jax.enable_x64(True):
        start = params()
        lanes = [gradients(start, 2, seed) for seed in range(2)]
        starts = [jax.tree.map(lambda p, s=s: p * s, start) for s in (1.0, -0.5)]
        stack = lambda trees: jax.tree.map(lambda *x: jnp.stack(x), *trees)
        eager = functools.partial(two_steps, compiled.__wrapped__, case.tx)
        together = jax.vmap(eager)(stack(starts), stack(lanes))
        for lane in range(2):
            alone = two_steps(compiled, case.tx, starts[lane], lanes[lane])
            assert_close(jax.tree.map(lambda x, i=lane: x[i], together), alone)


@each_program
def test_lane_of_a_sweep_equals_the_solo_run(case):
    with jax.enable_x64(True):
        start = params()
        grads = gradients(start, 2)
        solo = [scaled(case.tx, factor) for factor in (0.5, 0.875)]
        lanes = jax.tree.map(lambda *x: jnp.stack(x), *map(numeric, solo))
        eager = lambda tx: two_steps(compiled.__wrapped__, tx, start, grads)
        together = jax.vmap(eager, axis_size=len(solo))(lanes)
        for lane, tx in enumerate(solo):
            assert_close(jax.tree.map(lambda x, i=lane: x[i], together), two_steps(compiled, tx, start, grads))


@each_program
def test_gradients_pass_through_three_steps(case):
    start = params(jnp.float32)

    def end(tx, grads):
        outputs, _ = run(tx, start, grads)
        return sum(jnp.sum(leaf) for leaf in jax.tree.leaves(outputs))

    numbers, rest = [], []
    leaves, structure = jax.tree.flatten(case.tx)
    for leaf in leaves:
        (rest if is_key(leaf) else numbers).append(leaf)

    def of_numbers(numbers, grads):
        values = iter(numbers)
        tx = jax.tree.unflatten(structure, [leaf if is_key(leaf) else next(values) for leaf in leaves])
        return end(tx, grads)

    arrays = [jnp.asarray(x, dtype=jnp.float32) for x in numbers]
    by_numbers, by_grads = jax.grad(of_numbers, argnums=(0, 1))(arrays, gradients(start))
    chex.assert_tree_all_finite((by_numbers, by_grads))


@each_case
def test_initial_state_shares_no_buffer(case):
    start = params(jnp.float32)
    first, second = (jax.tree.leaves(case.tx.init(start)) for _ in range(2))
    held = [*jax.tree.leaves(start), *(x for x in jax.tree.leaves(case.tx) if isinstance(x, jax.Array))]
    pointers = [bits(x).unsafe_buffer_pointer() for x in [*first, *second, *held] if x.size]
    assert len(pointers) == len(set(pointers))  # or donating one state would delete another


@each_case
def test_empty_and_missing_leaves_pass(case):
    start = {"kernel": jnp.ones((3, 0)), "scale": None}
    outputs, state = run(case.tx, start, [start] * 2)
    assert kinds(outputs[-1]) == kinds(start)
    assert kinds(state) == kinds(case.tx.init(start))


@each_case
def test_a_missing_leaf_stays_missing(case):
    start = params(jnp.float32) | {"scale": None}
    grads = [g | {"scale": None} for g in gradients(params(jnp.float32), 2)]
    outputs, _ = run(case.tx, start, grads)
    chex.assert_tree_all_finite(outputs)
    assert kinds(outputs[-1]) == kinds(start)


@each_case
def test_unknown_extra_arguments_are_tolerated(case):
    start = params(jnp.float32)
    grads = gradients(start, 1)
    plain = run(case.tx, start, grads)
    assert_close(run(case.tx, start, grads, value=jnp.ones(()), nobody_knows="this"), plain, rtol=0.0)


@each_case
def test_parameters_are_needed_only_where_declared(case):
    start = params(jnp.float32)
    (grads,) = gradients(start, 1)
    state = case.tx.init(start)
    if case.needs_params:
        with pytest.raises(ValueError, match=r"needs the current parameters: call update\(updates, state, params\)"):
            case.tx.update(grads, state, value_fn=value_fn)
    else:
        assert_close(
            case.tx.update(grads, state, value_fn=value_fn),
            case.tx.update(grads, state, start, value_fn=value_fn),
            rtol=0.0,
        )


@each_case
def test_arguments_have_optax_names(case):
    start = params(jnp.float32)
    (grads,) = gradients(start, 1)
    state = case.tx.init(params=start)
    by_name = case.tx.update(updates=grads, state=state, params=start, value_fn=value_fn)
    assert_close(by_name, case.tx.update(grads, state, start, value_fn=value_fn), rtol=0.0)


@each_case
def test_a_run_continues_from_its_checkpoint(case):
    start = params(jnp.float32)
    grads = gradients(start)
    _, state = run(case.tx, start, grads[:2])
    saved = flax.serialization.to_bytes(bits(state))
    restored = flax.serialization.from_bytes(bits(case.tx.init(start)), saved)
    with_keys = lambda old, x: jax.random.wrap_key_data(x) if is_key(old) else jnp.asarray(x)
    resumed = jax.tree.map(with_keys, state, restored)
    assert_close(
        case.tx.update(grads[2], resumed, start, value_fn=value_fn),
        case.tx.update(grads[2], state, start, value_fn=value_fn),
        rtol=0.0,
    )


@each_case
def test_works_inside_optax_chain(case):
    start = params(jnp.float32)
    grads = gradients(start)
    halved = [jax.tree.map(lambda g: 0.5 * g, g) for g in grads]
    inside, _ = run(optax.chain(optax.scale(0.5), case.tx), start, grads)
    assert_close(inside, run(case.tx, start, halved)[0], rtol=0.0)


@each_portable
def test_masked_is_the_transformation_of_the_part(case):
    start = {"outer": params(jnp.float32), "other": jnp.ones(2)}
    grads = [{"outer": g, "other": jnp.ones(2)} for g in gradients(params(jnp.float32))]
    outputs, _ = run(optax.masked(case.tx, {"outer": True, "other": False}), start, grads)
    alone, _ = plain(case)
    assert_close([u["outer"] for u in outputs], alone, rtol=0.0)
    assert_close([u["other"] for u in outputs], [g["other"] for g in grads], rtol=0.0)


@each_portable
def test_partition_is_the_transformation_of_each_part(case):
    start = {"left": params(jnp.float32), "right": params(jnp.float32)}
    sides = zip(gradients(start["left"]), gradients(start["left"], seed=1), strict=True)
    grads = [{"left": left, "right": right} for left, right in sides]
    parts = optax.partition({"a": case.tx, "b": case.tx}, {"left": "a", "right": "b"})
    outputs, _ = run(parts, start, grads)
    right, _ = run(case.tx, start["right"], [g["right"] for g in grads])
    for side, alone in (("left", plain(case)[0]), ("right", right)):
        assert_close([u[side] for u in outputs], alone, rtol=0.0)


@each_case
def test_inject_hyperparams_makes_the_numbers_part_of_the_state(case):
    spec = case.tx.spec
    reals = [name for name, value in spec.arguments.items() if type(value) is float]
    public = getattr(
        optimizers if spec.constructor.path.startswith("jaxopt_study.optimizers") else transforms,
        spec.constructor.name,
        None,
    )
    if spec.variadic() or public is None or not reals:
        pytest.skip("inject_hyperparams takes constructors with named, numeric arguments")
    fixed = [name for name in spec.arguments if name not in reals or spec.constructor.is_structural(name)]
    start = params(jnp.float32)
    injected = optax.inject_hyperparams(public, static_args=fixed)(**spec.arguments)
    assert_close(run(injected, start, gradients(start))[0], plain(case)[0], rtol=2e-4)  # decays are rounded


@each_program
def test_multi_steps_has_one_type_of_state(case):
    start = params(jnp.float32)
    several = optax.MultiSteps(case.tx, every_k_schedule=2)
    state = several.init(start)
    after = jax.eval_shape(lambda: several.update(start, state, start, value_fn=value_fn)[1])
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)


@each(OPTIMIZERS)
def test_multi_steps_steps_with_the_mean_gradient(case):
    start = params(jnp.float32)
    first, second = gradients(start, 2)
    several = optax.MultiSteps(case.tx, every_k_schedule=2)
    with jax.disable_jit():  # its branches run as Python
        waiting, state = several.update(first, several.init(start), start, value_fn=value_fn)
        updates, _ = several.update(second, state, start, value_fn=value_fn)
    assert not any(np.any(u) for u in jax.tree.leaves(waiting))
    mean = jax.tree.map(lambda a, b: (a + b) / 2, first, second)
    assert_close(updates, case.tx.update(mean, case.tx.init(start), start, value_fn=value_fn)[0], rtol=1e-5)


@each_program
def test_expanded_is_the_same_transformation(case):
    start = params(jnp.float32)
    expanded = case.tx.expand()
    assert_close(run(expanded, start, gradients(start)), plain(case), rtol=0.0)
    assert expanded.expand() == expanded


@each_saved
def test_prints_as_the_expression_that_builds_it(case):
    names = {name: getattr(transforms, name) for name in transforms.__all__}
    names |= {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "optimizers": optimizers}
    names |= {"tests": sys.modules["tests"]}
    assert eval(repr(case.tx), names) == case.tx


@each_saved
def test_json_round_trip_builds_an_equal_transformation(case):
    back = from_json(case.tx.to_json(), trusted=("tests",))
    assert back == case.tx
    assert hash(back) == hash(case.tx)
    start = params(jnp.float32)
    assert_close(run(back, start, gradients(start)), plain(case), rtol=0.0)


@each_case
def test_copies_and_rebuilt_pytrees_are_equal(case):
    leaves, structure = jax.tree.flatten(case.tx)
    rebuilt = jax.tree.unflatten(structure, leaves)
    assert isinstance(rebuilt, Transform)
    for other in (copy.copy(case.tx), copy.deepcopy(case.tx), rebuilt, case.build()):
        assert other == case.tx
        assert hash(other) == hash(case.tx)
        assert repr(other) == repr(case.tx)


@each_saved
def test_transformations_can_be_pickled(case):
    if "tests." in case.tx.to_json():
        with pytest.raises(ValueError, match="trusted"):
            pickle.loads(pickle.dumps(case.tx))
    else:
        assert pickle.loads(pickle.dumps(case.tx)) == case.tx


@each_program
def test_every_hyperparameter_can_be_replaced_by_its_path(case):
    values = case.tx.hyperparams
    numbers = {path for path, value in values.items() if type(value) is float and 0 < value < 1}
    changes = {path: values[path] * (0.5 + 0.01 * i) for i, path in enumerate(sorted(numbers))}
    changed = case.tx.replace(changes)
    assert changed.hyperparams == values | changes
    assert (changed == case.tx) == (not changes)
