"""Any lane can be run again: how its keys follow is said, and the call of `train` that it is can be made."""

import jax
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from jaxopt_study import optimizers, sweeps
from jaxopt_study.training import train
from tests.sweeps import small
from tests.sweeps.small import RATES

KEYS = {
    "threefry": lambda: jax.random.key(5),
    "old": lambda: jax.random.PRNGKey(5),
    "rbg": lambda: jax.random.key(5, impl="rbg"),
    "unsafe_rbg": lambda: jax.random.key(5, impl="unsafe_rbg"),
}
SETTINGS = {"num_trials": 3, "num_seeds": 3, "num_steps": 9, "evaluate_every": 4, "batch_size": 5}


def test_the_keys_of_the_seeds_are_those_that_the_documentation_states():
    key = jax.random.key(5, impl="threefry2x32")  # its other half draws the trials
    assert (sweeps.search_keys(key, 3) == jax.random.split(jax.random.split(key)[1], 3)).all()


@pytest.mark.parametrize("kind", KEYS)
def test_a_lane_is_the_documented_call_of_train(kind, regression):
    """Whatever the implementation of the key, and wherever the lane is vectorised: bits of the keys are the same."""
    key = KEYS[kind]()
    wide, narrow = (
        sweeps.search(optimizers.sgd, RATES, regression, key=key, width=width, **SETTINGS) for width in (4, 1)
    )
    keys = sweeps.search_keys(key, 3)
    for found in (wide, narrow):
        for i, j in ((0, 0), (2, 1)):
            init_key, run_key = jax.random.split(keys[j])
            run = train(
                regression, optimizers.sgd(**found.configs[i]), params=regression.init(init_key), key=run_key,
                num_steps=9, evaluate_every=4, batch_size=5,
            )  # fmt: skip
            np.testing.assert_allclose(
                found.curves["validation_loss"][i, j], run.evaluations["validation_loss"], rtol=16 * 2**-23
            )
            again = found.replay(i, j)
            np.testing.assert_array_equal(again.evaluations["validation_loss"], run.evaluations["validation_loss"])
    starts = wide.curves["validation_loss"][:, :, 0]
    assert (starts == starts[0]).all()  # seeds are paired
    assert len(np.unique(starts)) == 3


def test_other_keys_are_other_searches_and_equal_ones_the_same(regression):
    found = {
        kind: sweeps.search(optimizers.sgd, RATES, regression, key=make(), width=1, **SETTINGS).configs
        for kind, make in KEYS.items()
    }
    assert found["old"] == found["threefry"]
    assert found["rbg"] != found["threefry"]


@pytest.mark.parametrize("kind", ["old", "rbg"])
def test_a_search_with_another_kind_of_key_resumes_from_its_journal(kind, regression, tmp_path):
    run = lambda key: sweeps.search(optimizers.sgd, RATES, regression, key=key, width=1, journal=tmp_path, **SETTINGS)
    first = run(KEYS[kind]())
    for chunk in sorted(tmp_path.glob("chunk-*"))[-1:]:
        chunk.unlink()
    small.assert_same(first, run(KEYS[kind]()))
    with pytest.raises(sweeps.JournalError, match="key"):
        run(jax.random.key(6, impl="rbg"))


def test_runs_of_a_comparison_are_run_again(regression):
    found = sweeps.compare(
        {"tuned": (optimizers.sgd, RATES), "fixed": optax.sgd(0.05)}, regression, budget=3, num_steps=8,
        key=jax.random.key(1, impl="rbg"), report_seeds=3, tune_seeds=2, width=2,
    )  # fmt: skip
    for name, report in found.of().items():
        again = report.replay(2, evaluate_on="test")
        np.testing.assert_allclose(again.evaluations["test_loss"][-1], report.scores[2], rtol=2e-6, err_msg=name)
    search = found.searches["regression", "tuned"]
    np.testing.assert_allclose(search.replay(1, 1).evaluations["validation_loss"][-1], search.final[1, 1], rtol=2e-6)
    keys = sweeps.report_keys(jax.random.key(1, impl="rbg"), 0, 3)
    np.testing.assert_array_equal(jax.random.key_data(found.of()["fixed"].seed_keys), jax.random.key_data(keys))


def test_a_stopped_trial_is_run_as_far_as_it_went(regression):
    found = sweeps.search(
        optimizers.sgd, RATES, regression, num_trials=4, num_steps=8, key=KEYS["threefry"](), width=1,
        halving=sweeps.Halving(2, 2),
    )  # fmt: skip
    for i in range(4):
        run = found.replay(i, record_params_every=1)
        assert int(run.num_steps) == found.num_steps[i, 0]
        np.testing.assert_allclose(run.evaluations["validation_loss"][-1], found.final[i, 0], rtol=2e-6)


@pytest.mark.parametrize("wrong", [3, None, "key", np.zeros(3)])
def test_what_is_no_key_gets_the_key_error(wrong, regression):
    for run in (
        lambda: sweeps.search(optimizers.sgd, RATES, regression, key=wrong, **SETTINGS),
        lambda: sweeps.compare({"a": optax.sgd(0.1)}, regression, budget=0, num_steps=2, key=wrong),
        lambda: sweeps.search_keys(wrong, 2),
        lambda: sweeps.report_keys(wrong, 0, 2),
    ):
        with pytest.raises(TypeError):
            run()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_several_keys_are_no_key(impl, regression):
    with pytest.raises(ValueError, match=r"search needs key to be one key; received an array of keys of shape \(2,\)"):
        sweeps.search(optimizers.sgd, RATES, regression, key=jax.random.split(jax.random.key(0, impl=impl)), **SETTINGS)


def test_a_replay_of_nothing_is_refused(regression):
    found = sweeps.search(optimizers.sgd, RATES, regression, key=KEYS["threefry"](), width=1, **SETTINGS)
    with pytest.raises(ValueError, match="trial to be an integer from 0 to 2; received 3"):
        found.replay(3)
    with pytest.raises(ValueError, match="seed to be an integer from 0 to 2; received -1"):
        found.replay(0, -1)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("names", [("trials",), ("trials", "data")], ids=str)
def test_meshes_of_every_kind_hold_the_same_search(kind, names, regression):
    run = lambda **where: sweeps.search(
        optimizers.sgd, RATES, regression, key=KEYS["threefry"](), width=1, **where, **SETTINGS
    )
    plain = run()
    mesh = jax.make_mesh((1,) * len(names), names, axis_types=(kind,) * len(names))
    np.testing.assert_allclose(run(mesh=mesh).final, plain.final, rtol=1e-6)
    with jax.set_mesh(jax.make_mesh((1,), ("other",), axis_types=(kind,))):
        np.testing.assert_allclose(run().final, plain.final, rtol=1e-6)


@pytest.mark.parametrize("debugging", [jax.debug_nans, jax.debug_infs, jax.disable_jit], ids=["nans", "infs", "no jit"])
def test_a_sweep_is_the_same_while_jax_is_debugged(debugging):
    """Trials that diverge are results, and the program is compiled all the same."""
    rates = {"learning_rate": sweeps.choices(0.1, 1e25, 0.2)}
    run = lambda: sweeps.search(
        optax.sgd, rates, small.quadratic(), num_trials=3, num_steps=6, key=KEYS["threefry"](), sampler="grid", width=1
    )
    plain = run()
    with debugging(True):
        small.assert_same(plain, run())
    assert plain.diverged[:, 0].tolist() == [False, True, False]


def test_a_sweep_is_the_same_while_jit_is_disabled_for_all_threads(regression):
    """By a setting of JAX or of the environment, which the threads of a sweep see, too."""
    run = lambda: sweeps.search(optimizers.sgd, RATES, regression, key=KEYS["threefry"](), width=1, **SETTINGS)
    plain = run()
    jax.config.update("jax_disable_jit", True)
    try:
        small.assert_same(plain, run())
    finally:
        jax.config.update("jax_disable_jit", False)


@pytest.mark.parametrize(
    "default", [lambda: jax.numpy_rank_promotion("raise"), lambda: jax.default_prng_impl("rbg")], ids=["ranks", "rbg"]
)
def test_a_sweep_is_the_same_under_other_defaults(default, regression):
    key = jax.random.key(5, impl="threefry2x32")
    run = lambda: sweeps.search(optimizers.sgd, RATES, regression, key=key, width=1, **SETTINGS)
    plain = run()
    with default():
        np.testing.assert_allclose(run().final, plain.final, rtol=1e-6)
