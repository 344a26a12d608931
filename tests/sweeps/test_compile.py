"""Programs of trials: told apart where they differ, compiled once where they do not, narrower where memory is short."""

import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, sweeps
from jaxopt_study.sweeps._execution import _compile as compilation
from jaxopt_study.sweeps._execution._layout import Layout, default_mesh
from jaxopt_study.sweeps._execution._run_lanes import run_lanes
from tests.sweeps import small

SEEDS = jax.random.split(jax.random.key(0), 2)
SETTINGS = {"num_trials": 5, "num_steps": 6, "key": small.KEY}


def traced(problem, make_optimizer=optax.sgd, **changes):
    made = small.trials(make_optimizer, problem, 6, **changes)
    values = {"learning_rate": 0.1}
    shared = made.shared({}, values, SEEDS)
    one = {"values": {"learning_rate": np.float32(0.1)}, "seed": np.int32(0)}
    start = made.start({}) if made.start_varies() else None
    return compilation.trace(made.lane({}), start, one, shared, default_mesh())


def with_matrix(matrix, compiled=False):
    def loss(params, _):
        return 0.5 * params @ (matrix @ params)

    return small.quadratic().replace(loss=jax.jit(loss) if compiled else loss)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
def test_programs_that_differ_in_a_captured_array_are_told_apart(array, compiled):
    """Such arrays lie in programs inside the program, and are not printed with it."""
    one, other = np.diag(np.float32([1.0, 2.0, 3.0])), np.diag(np.float32([1.0, 2.0, 3.5]))
    first, again = (traced(with_matrix(array(one), compiled)).fingerprint for _ in range(2))
    assert first == again
    assert first != traced(with_matrix(array(other), compiled)).fingerprint


def test_programs_that_differ_in_the_last_digit_of_a_number_are_told_apart():
    number = np.float32(0.1)
    next_number = np.nextafter(number, np.float32(1))
    prints = {traced(small.quadratic(), lambda learning_rate, n=n: optax.sgd(learning_rate * n)).fingerprint
              for n in (number, next_number)}  # fmt: skip
    assert len(prints) == 2


def test_programs_that_differ_in_a_captured_key_are_told_apart():
    def make(seed):
        return lambda learning_rate: optax.chain(optax.add_noise(0.1, 0.5, seed), optax.sgd(learning_rate))

    assert traced(small.quadratic(), make(0)).fingerprint == traced(small.quadratic(), make(0)).fingerprint
    assert traced(small.quadratic(), make(0)).fingerprint != traced(small.quadratic(), make(1)).fingerprint


def test_programs_of_other_code_are_told_apart_and_of_equal_code_are_not():
    def decayed(decay):
        return lambda learning_rate: optax.sgd(learning_rate, momentum=decay)

    makers = [optax.sgd, decayed(0.9), decayed(0.91), lambda learning_rate: optax.adam(learning_rate)]
    assert len({traced(small.quadratic(), maker).fingerprint for maker in makers}) == 4
    assert traced(small.quadratic(), decayed(0.9)).fingerprint == traced(small.quadratic(), decayed(0.9)).fingerprint

    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, None), lambda _, g: (2.0 * g,))  # which only a gradient shows
    plain = small.quadratic()
    assert traced(plain.replace(loss=lambda p, b: plain.loss(f(p), b))).fingerprint != traced(plain).fingerprint


def test_another_start_is_another_program_where_starts_are_computed_by_one():
    def make(scale):
        problem = small.quadratic().replace(init=lambda key: scale * jax.random.normal(key, (3,)))
        return traced(lambda: problem)

    assert make(1.0).fingerprint == make(1.0).fingerprint
    assert make(1.0).fingerprint != make(2.0).fingerprint


def test_a_search_never_runs_the_program_of_another_problem():
    """Both programs print alike: only the matrix in them differs."""
    finals = []
    for curvature in (1.0, 3.0):
        spectrum = curvature * np.float32([1.0, 0.5, 2.0])
        problem = with_matrix(jnp.diag(jnp.asarray(spectrum)))
        found = sweeps.search(optax.sgd, {"learning_rate": sweeps.uniform(0.1, 0.11)}, problem, **SETTINGS)
        start = np.asarray(problem.init(small.seed_keys(small.KEY, 1)[0][0]))
        rates = np.array([config["learning_rate"] for config in found.configs])[:, None]
        np.testing.assert_allclose(
            found.final[:, 0], 0.5 * (start * (1 - rates * spectrum) ** 6) ** 2 @ spectrum, rtol=1e-4
        )
        finals.append(found.final)
    assert (finals[0] > 1.5 * finals[1]).all()


def test_a_search_that_calls_back_into_python_calls_its_own_function():
    finals, plain, like = [], small.quadratic(), jax.ShapeDtypeStruct((), np.float32)
    for offset in (1.0, 2.0):

        def loss(params, batch, offset=offset):
            called = jax.pure_callback(lambda: np.float32(offset), like, vmap_method="sequential")
            return plain.loss(params, batch) + jax.lax.stop_gradient(called)

        finals.append(sweeps.search(optax.sgd, small.RATES, plain.replace(loss=loss), **SETTINGS).final)
    np.testing.assert_allclose(finals[1] - finals[0], 1.0, rtol=1e-5)


def test_programs_are_kept_from_search_to_search(regression, compilations):
    sweeps.search(optimizers.sgd, small.RATES, regression, width=2, **SETTINGS)
    others = {"learning_rate": sweeps.uniform(0.01, 0.02)}
    with compilations() as counter:
        found = sweeps.search(
            optimizers.sgd, others, regression, width=2, num_trials=9, num_steps=6, key=jax.random.key(8)
        )
    assert counter.lanes == 0
    assert np.isfinite(found.final).all()
    with compilations() as counter:
        sweeps.search(optimizers.sgd, small.RATES, regression, width=3, **SETTINGS)
    assert counter.lanes == 1  # the control: another width is another program


def test_only_the_latest_programs_are_kept(monkeypatch, compilations):
    monkeypatch.setattr(compilation, "_programs", {})
    monkeypatch.setattr(compilation, "_MAX_PROGRAMS", 2)
    counts = []
    for width in (1, 2, 3, 3, 2, 1):
        with compilations() as counter:
            sweeps.search(optax.sgd, small.RATES, small.quadratic(), width=width, **SETTINGS)
        counts.append(counter.lanes)
        assert len(compilation._programs) <= 2
    assert counts == [1, 1, 1, 0, 0, 1]


def test_less_memory_gives_narrower_programs_and_the_same_results(monkeypatch):
    problem = small.quadratic()
    wide = sweeps.search(optax.sgd, small.RATES, problem, width=16, **SETTINGS | {"num_trials": 20})
    monkeypatch.setattr(compilation, "_bytes_needed", lambda executable: 100 * _lanes(executable))
    monkeypatch.setattr(compilation, "device_memory", lambda: 500)
    narrow = sweeps.search(optax.sgd, small.RATES, problem, width=16, **SETTINGS | {"num_trials": 20})
    assert wide.layout["width"] == [16]
    assert 1 <= narrow.layout["width"][0] <= 5
    small.assert_same(wide, narrow)


def _lanes(executable):
    return executable.in_avals[0][0]["seed"].shape[0]


def test_a_trial_that_fits_no_memory_runs_one_at_a_time(monkeypatch):
    monkeypatch.setattr(compilation, "device_memory", lambda: 0)
    found = sweeps.search(optax.sgd, small.RATES, small.quadratic(), width=4, **SETTINGS)
    assert found.layout["width"] == [1]
    assert np.isfinite(found.final).all()


def test_some_memory_is_there():
    assert compilation.device_memory() > 2**20


def test_examples_are_not_constants_of_the_program(monkeypatch):
    """They would be compiled into it, in every program anew."""
    x = np.random.default_rng(0).normal(size=(20_000, 3)).astype(np.float32)
    problem = small.regression(data=(x, x[:, 0]), validation=(x, x[:, 1]), test=(x, x[:, 2]))
    sizes = []
    lower = compilation._compiled

    def watched(pool, begun, interrupted, made, lanes, shared, layout):
        sizes.append(len(jax.jit(made.lane).lower(jax.tree.map(lambda leaf: leaf[0], lanes), shared).as_text()))
        return lower(pool, begun, interrupted, made, lanes, shared, layout)

    monkeypatch.setattr(compilation, "_compiled", watched)
    made = traced(problem)
    shared = small.trials(optax.sgd, problem, 6).shared({}, {"learning_rate": 0.1}, SEEDS)
    lanes = {"values": {"learning_rate": np.float32([0.1])}, "seed": np.int32([0])}
    compilation.compile_programs([(made, lanes, shared, Layout(default_mesh()))])
    assert sizes[0] < 100_000
    assert sum(np.size(value) for value in compilation.constants(made.jaxpr)) < 1000


def test_only_calls_with_something_to_do_are_made():
    problem = small.quadratic()
    made = small.trials(optax.sgd, problem, 6)
    shared = made.shared({}, {"learning_rate": 0.1}, SEEDS)
    lanes = {"values": {"learning_rate": np.linspace(0.1, 0.2, 9, dtype=np.float32)}, "seed": np.zeros(9, np.int32)}
    layout = Layout(default_mesh(), 2)
    [program] = compilation.compile_programs([(traced(problem), lanes, shared, layout)])
    which, done = np.array([0, 1, 2, 4, 5, 7, 8]), np.zeros(9, bool)
    everything = list(run_lanes(program, lanes, shared, which, done))
    assert [part.tolist() for part, _ in everything] == [[0, 1], [2, 4], [5, 7], [8]]

    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return program.executable(*arguments)

    done[[2, 4, 5]] = True
    rest = list(run_lanes(compilation.Program(layout, counted, None), lanes, shared, which, done))
    assert [part.tolist() for part, _ in rest] == [[0, 1], [7], [8]]  # what is done is not handed out again
    assert len(calls) == 3
    whole = {lane: values["train_loss"][i] for part, values in everything for i, lane in enumerate(part)}
    for part, values in rest:
        assert all(len(value) == len(part) for value in values.values())
        for i, lane in enumerate(part):
            np.testing.assert_array_equal(values["train_loss"][i], whole[lane])


def test_a_call_that_the_device_does_not_take_yet_keeps_no_interrupt_waiting():
    layout = Layout(default_mesh(), 1)
    taken = threading.Event()

    def executable(lanes, shared):
        assert taken.wait(30)
        return {"loss": jnp.zeros(layout.lanes_per_call)}

    program, began = compilation.Program(layout, executable, None), time.perf_counter()
    which = np.arange(3 * layout.lanes_per_call)
    lanes, done = {"rate": np.ones(len(which), np.float32)}, np.zeros(len(which), bool)
    late = lambda: time.perf_counter() - began > 0.2
    try:
        assert list(run_lanes(program, lanes, {}, which, done, late)) == []
        assert time.perf_counter() - began < 5
    finally:
        taken.set()
    assert len(list(run_lanes(program, lanes, {}, which, done))) == 3
