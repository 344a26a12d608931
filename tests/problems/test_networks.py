"""Networks posed as problems: what is trained, what is carried, what is random, what is reported."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.problems import datasets, networks
from jaxopt_study.problems.networks import MLP, initialisers

KEY = jax.random.key(0)
DIGITS = datasets.digits(num_train=200, num_validation=50, num_test=50)
IMAGES = datasets.digits(num_train=60, num_validation=0, num_test=20, flatten=False)


def halves(batch):
    return jax.tree.map(lambda leaf: leaf[:50], batch), jax.tree.map(lambda leaf: leaf[50:], batch)


def descend(problem, *, num_steps: int, learning_rate: float, carry_state: bool = False):
    """Full-batch gradient descent in one scan; returns parameters, model state and losses."""
    params = jax.jit(problem.init)(KEY)
    state = problem.init_state(KEY) if problem.init_state else None
    data = jax.tree.map(jnp.asarray, problem.data)

    def step(carry, key):
        params, state = carry
        if problem.step_loss is None:
            loss, gradient = jax.value_and_grad(problem.loss)(params, data)
        else:
            (loss, state), gradient = jax.value_and_grad(problem.step_loss, has_aux=True)(params, state, data, key)
        return (jax.tree.map(lambda p, g: p - learning_rate * g, params, gradient), state), loss

    keys = jax.random.split(jax.random.key(1), num_steps)
    (params, state), losses = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))((params, state))
    return params, state, losses


@pytest.mark.parametrize("normalisation", [None, "group"])
def test_plain_networks_are_a_loss_of_parameters_and_batch_and_nothing_else(normalisation):
    problem = networks.mlp_classifier(DIGITS, widths=(8,), normalisation=normalisation)
    assert problem.init_state is None
    assert problem.step_loss is None
    params = jax.jit(problem.init)(KEY)
    first, second = halves(DIGITS.train)
    whole = problem.loss(params, DIGITS.train)
    np.testing.assert_allclose(
        whole, 0.25 * problem.loss(params, first) + 0.75 * problem.loss(params, second), rtol=1e-5
    )
    assert problem.num_examples == 200
    assert problem.validation is DIGITS.validation
    assert problem.test is DIGITS.test


def test_the_loss_starts_near_chance_and_metrics_are_as_named():
    problem = networks.mlp_classifier(DIGITS, widths=(16,), initialiser=1e-4)
    params = jax.jit(problem.init)(KEY)
    np.testing.assert_allclose(problem.loss(params, problem.data), np.log(10), rtol=1e-3)
    logits = MLP(10, widths=(16,)).apply({"params": params}, problem.test["x"])
    accuracy = np.mean(np.argmax(logits, axis=1) == problem.test["y"])
    np.testing.assert_allclose(problem.metrics["accuracy"](params, problem.test), accuracy, rtol=1e-6)
    np.testing.assert_allclose(problem.metrics["cross_entropy"](params, problem.test), np.log(10), rtol=1e-3)


def test_smoothing_and_penalty_enter_the_loss_and_not_the_metrics():
    plain = networks.mlp_classifier(DIGITS, widths=(8,))
    full = networks.mlp_classifier(DIGITS, widths=(8,), label_smoothing=0.2, weight_decay=0.1)
    params = jax.jit(plain.init)(KEY)
    logits = MLP(10, widths=(8,)).apply({"params": params}, DIGITS.train["x"])
    log_probabilities = jax.nn.log_softmax(logits)
    expected = (
        0.8 * plain.loss(params, DIGITS.train)
        - 0.2 * jnp.mean(log_probabilities)
        + 0.05 * sum(jnp.sum(params[layer]["kernel"] ** 2) for layer in ("dense_0", "output"))
    )
    np.testing.assert_allclose(full.loss(params, DIGITS.train), expected, rtol=1e-5)
    for name in ("accuracy", "cross_entropy"):
        assert full.metrics[name](params, DIGITS.test) == plain.metrics[name](params, DIGITS.test)


def test_the_penalty_adds_lambda_times_the_weights_to_the_gradient():
    plain, penalised = (networks.mlp_classifier(DIGITS, widths=(8,), weight_decay=value) for value in (0.0, 0.3))
    params = jax.tree.map(lambda leaf: leaf + 0.1, plain.init(KEY))
    without, with_penalty = (jax.jit(jax.grad(problem.loss))(params, DIGITS.train) for problem in (plain, penalised))
    extra = jax.tree.map(jnp.subtract, with_penalty, without)
    for layer in params:
        np.testing.assert_allclose(extra[layer]["kernel"], 0.3 * params[layer]["kernel"], atol=1e-6)
        np.testing.assert_allclose(extra[layer]["bias"], 0, atol=1e-7)


def test_scales_smoothing_and_penalty_can_be_axes_of_one_program():
    def loss(std, smoothing, weight_decay):
        problem = networks.mlp_classifier(
            DIGITS, widths=(8,), initialiser=std, label_smoothing=smoothing, weight_decay=weight_decay
        )
        return problem.loss(problem.init(KEY), DIGITS.train)

    settings = [(0.01, 0.0, 0.0), (0.3, 0.1, 0.0), (1.0, 0.2, 0.5)]
    together = jax.jit(jax.vmap(loss))(*jnp.array(settings).T)
    np.testing.assert_allclose(together, [loss(*setting) for setting in settings], rtol=1e-5)


def test_batch_statistics_are_threaded_exactly():
    problem = networks.mlp_classifier(DIGITS, widths=(8,), normalisation="batch")
    params, state = jax.jit(problem.init)(KEY), problem.init_state(KEY)
    batch, _ = halves(DIGITS.train)
    _, updated = jax.jit(problem.step_loss)(params, state, batch, KEY)
    pre = np.asarray(batch["x"], np.float64) @ np.asarray(params["dense_0"]["kernel"], np.float64)
    kept = updated["batch_stats"]["norm_0"]
    np.testing.assert_allclose(kept["mean"], 0.1 * pre.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * pre.var(axis=0), rtol=1e-5)
    assert jax.tree.structure(updated) == jax.tree.structure(state)


def test_batch_norm_trains_with_the_batchs_statistics_and_evaluates_with_the_running_ones():
    problem = networks.mlp_classifier(DIGITS, widths=(8,), normalisation="batch")
    params, state = jax.jit(problem.init)(KEY), problem.init_state(KEY)
    shifted = {"batch_stats": {"norm_0": {"mean": jnp.full(8, 3.0), "var": jnp.full(8, 4.0)}}}
    step = lambda state: problem.step_loss(params, state, DIGITS.train, KEY)[0]
    assert step(state) == step(shifted)
    pre = DIGITS.train["x"] @ params["dense_0"]["kernel"]
    hidden = jax.nn.relu((pre - 3) / jnp.sqrt(4 + 1e-5))
    logits = hidden @ params["output"]["kernel"]
    expected = networks.cross_entropy(logits, DIGITS.train["y"])
    np.testing.assert_allclose(problem.loss(params, DIGITS.train, shifted), expected, rtol=1e-5)
    np.testing.assert_allclose(problem.metrics["cross_entropy"](params, DIGITS.train, shifted), expected, rtol=1e-5)
    # Evaluation treats examples one by one, so that a ragged batch weighs them right.
    first, second = halves(DIGITS.train)
    parts = 0.25 * problem.loss(params, first, shifted) + 0.75 * problem.loss(params, second, shifted)
    np.testing.assert_allclose(parts, expected, rtol=1e-5)


def test_running_statistics_approach_those_of_the_data_so_that_evaluation_meets_training():
    problem = networks.mlp_classifier(DIGITS, widths=(16,), normalisation="batch")
    params, state, losses = descend(problem, num_steps=60, learning_rate=0.3)
    fresh = problem.init_state(KEY)
    evaluated = problem.loss(params, problem.data, state)
    np.testing.assert_allclose(evaluated, losses[-1], atol=0.05)
    assert problem.loss(params, problem.data, fresh) > 2 * evaluated  # forgotten statistics would show


def test_dropout_draws_from_the_steps_key_and_evaluation_draws_nothing():
    problem = networks.mlp_classifier(DIGITS, widths=(32,), dropout=0.5)
    params = jax.jit(problem.init)(KEY)
    assert problem.init_state is None
    step = jax.jit(lambda key: problem.step_loss(params, None, DIGITS.train, key))
    losses = [step(jax.random.key(seed))[0] for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    assert step(KEY)[1] is None
    plain = networks.mlp_classifier(DIGITS, widths=(32,))
    assert problem.loss(params, DIGITS.train) == plain.loss(params, DIGITS.train)


def test_dropout_zeroes_its_fraction_and_keeps_the_mean():
    model = MLP(1, widths=(4000,), dropout=0.3, activation="identity", initialiser=nn.initializers.ones)
    x = jnp.ones((2, 1))
    variables = model.init(KEY, x)
    outputs = [model.apply(variables, x, train=True, rngs={"dropout": jax.random.key(i)}) for i in range(20)]
    kept = np.array(outputs) * 0.7 / 4000
    # Fractions kept of 4,000 units: mean .7, standard deviation √(.21/4000) = .0072.
    assert abs(kept.mean() - 0.7) < 4 * 0.0072 / np.sqrt(kept.size)
    np.testing.assert_allclose(kept.std(), 0.0072, rtol=0.5)
    assert model.apply(variables, x)[0, 0] == 4000


def test_batch_norm_and_dropout_together_stay_in_a_loop_with_different_noise_in_each_lane():
    problem = networks.mlp_classifier(DIGITS, widths=(8,), normalisation="batch", dropout=0.2)
    params, state = jax.jit(problem.init)(KEY), problem.init_state(KEY)
    keys = jax.random.split(KEY, 3)
    losses, states = jax.vmap(problem.step_loss, in_axes=(None, None, None, 0))(params, state, DIGITS.train, keys)
    assert len(set(losses.tolist())) == 3
    assert all(len(leaf) == 3 for leaf in jax.tree.leaves(states))
    _, state, losses = descend(problem, num_steps=20, learning_rate=0.1)
    assert jax.tree.structure(state) == jax.tree.structure(problem.init_state(KEY))
    assert losses[-1] < losses[0]


class Bare(nn.Module):
    """A user's own module: no `train`, no options."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x)


class Stateful(nn.Module):
    """A user's own module with batch statistics and dropout, in Flax's usual spelling."""

    @nn.compact
    def __call__(self, x, train: bool = False):
        x = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(x))
        return nn.Dense(10)(nn.Dropout(0.1, deterministic=not train)(x))


def test_a_users_own_modules_are_posed_alike():
    bare = networks.classifier(Bare(), DIGITS)
    assert bare.step_loss is None
    assert bare.name == "digits-bare"
    assert jnp.isfinite(bare.loss(bare.init(KEY), bare.data))
    stateful = networks.classifier(Stateful(), DIGITS, name="mine")
    assert stateful.name == "mine"
    params, state = stateful.init(KEY), stateful.init_state(KEY)
    _, updated = stateful.step_loss(params, state, stateful.data, KEY)
    means = [values["batch_stats"]["BatchNorm_0"]["mean"] for values in (state, updated)]
    assert jnp.any(means[0] != means[1])
    assert jnp.isfinite(stateful.loss(params, stateful.data, updated))


@pytest.mark.parametrize(
    "model",
    [
        networks.MLP(1, normalisation="batch"),
        networks.CNN(1, channels=(2,)),
        networks.RNN(1, normalisation="layer"),
        networks.LSTM(1),
        networks.GRU(1),
    ],
    ids=["mlp", "cnn", "rnn", "lstm", "gru"],
)
def test_parameters_are_of_single_precision_wherever_double_is_allowed_too(model):
    inputs = {"MLP": (2, 3), "CNN": (2, 8, 8, 1)}.get(type(model).__name__, (2, 4, 3))
    with jax.enable_x64(True):
        made = jax.eval_shape(model.init, KEY, jnp.zeros(inputs, jnp.float32))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(made)} == {"float32"}


def test_losses_and_penalties_of_half_precision_neither_mix_nor_overflow():
    weights = jnp.full((10, 10), 100.0, jnp.float16)  # Σ w² = 1e6, beyond float16
    with jax.numpy_dtype_promotion("strict"):
        assert networks.weight_penalty({"kernel": weights}) == 5e5
        assert networks.mse(jnp.full(4, 3.0, jnp.bfloat16), jnp.ones(4)) == 4.0


def test_an_mlp_learns_the_digits_in_one_compiled_program():
    problem = networks.mlp_classifier(DIGITS, widths=(32,))
    params, _, losses = descend(problem, num_steps=150, learning_rate=0.5)
    assert losses[-1] < 0.1 < losses[0]
    assert problem.metrics["accuracy"](params, problem.test) > 0.8


@pytest.mark.parametrize("normalisation", ["batch", "instance"])
def test_a_cnn_learns_with_and_without_carried_statistics(normalisation):
    problem = networks.cnn_classifier(IMAGES, channels=(8,), widths=(), normalisation=normalisation)
    _, _, losses = descend(problem, num_steps=30, learning_rate=0.1)
    assert losses[-1] < 0.8 * losses[0]


def test_both_ways_to_convolve_are_one_problem():
    patches, native = (
        networks.cnn_classifier(IMAGES, channels=(4,), widths=(), method=m) for m in ("patches", "native")
    )
    params = patches.init(KEY)
    jax.tree.map(np.testing.assert_array_equal, params, native.init(KEY))
    np.testing.assert_allclose(patches.loss(params, IMAGES.train), native.loss(params, IMAGES.train), rtol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_gated_networks_learn_short_memories(cell):
    order = datasets.temporal_order(num_steps=10, num_train=256, num_validation=0, num_test=64)
    problem = networks.rnn_classifier(order, cell=cell, widths=(16,))
    assert problem.name == f"temporal_order-10-{cell}"
    assert f"{cell.upper()}(num_outputs=4, widths=(16,)" in problem.metadata["model"]
    _, _, losses = descend(problem, num_steps=150, learning_rate=1.0)
    assert losses[-1] < 0.8 * np.log(4)
    adding = datasets.adding(num_steps=4, num_train=16, num_validation=0, num_test=0)
    assert networks.rnn_regressor(adding, cell=cell).name == f"adding-4-{cell}"


def test_recurrent_networks_learn_short_memories():
    order = datasets.temporal_order(num_steps=10, num_train=256, num_validation=0, num_test=64)
    problem = networks.rnn_classifier(order, widths=(16,))
    _, _, losses = descend(problem, num_steps=80, learning_rate=0.5)
    assert losses[-1] < 0.8 * np.log(4)
    adding = datasets.adding(num_steps=4, num_train=256, num_validation=0, num_test=64)
    problem = networks.rnn_regressor(adding, widths=(16,), dropout=0.0)
    params, _, losses = descend(problem, num_steps=150, learning_rate=0.2)
    assert problem.metrics["mse"](params, problem.test) < 1 / 12  # better than remembering one of the two numbers
    assert networks.rnn_regressor(adding, dropout=0.1).step_loss is not None


def test_the_notes_regression_is_posed_in_one_line():
    data = datasets.damped_cosine(num_train=64, num_validation=0, num_test=16)
    problem = networks.mlp_regressor(data, widths=(64, 64), activation="tanh", initialiser="xavier", weight_decay=0.1)
    params = jax.jit(problem.init)(KEY)
    outputs = MLP(1, widths=(64, 64), activation="tanh").apply({"params": params}, data.train["x"])
    mean_square = np.mean((np.asarray(outputs) - data.train["y"]) ** 2)
    np.testing.assert_allclose(problem.metrics["mse"](params, data.train), mean_square, rtol=1e-5)
    penalty = 0.05 * sum(float(jnp.sum(layer["kernel"] ** 2)) for layer in params.values())
    np.testing.assert_allclose(problem.loss(params, data.train), mean_square + penalty, rtol=1e-5)


def test_metadata_can_be_stored_and_says_what_was_posed():
    for initialiser, shown in ((0.01, "0.01"), ("he", "'he'"), (initialisers.orthogonal(2.0), "'orthogonal(2.0)'")):
        problem = networks.mlp_classifier(DIGITS, widths=(8,), initialiser=initialiser, weight_decay=np.float32(0.5))
        stored = json.loads(json.dumps(dict(problem.metadata)))
        assert f"initialiser={shown}" in stored["model"]
        assert stored["data_sha256"] == DIGITS.sha256
        assert stored["num_params"] == 64 * 8 + 8 + 8 * 10 + 10
        assert stored["data_sizes"] == {"train": 200, "validation": 50, "test": 50}
        assert stored["weight_decay"] == 0.5
    traced = []
    jax.eval_shape(lambda std: traced.append(networks.mlp_classifier(DIGITS, initialiser=std).metadata["model"]), 0.1)
    assert "initialiser='traced'" in traced[0]


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (lambda: networks.classifier(MLP(1), datasets.damped_cosine(num_train=9)), "Use regressor"),
        (lambda: networks.regressor(MLP(1), DIGITS), "Use classifier"),
        (lambda: networks.classifier(MLP(7), DIGITS), r"\(examples, 7\).*\(examples, 10\)"),
        (
            lambda: networks.mlp_classifier(DIGITS, label_smoothing=1.0),
            r"label_smoothing to be a real number in \[0, 1\)",
        ),
        (lambda: networks.mlp_classifier(DIGITS, weight_decay=-0.1), "weight_decay.*received -0.1"),
        (lambda: networks.cnn_classifier(DIGITS), "flatten=False"),
        (lambda: networks.mlp_classifier(DIGITS, activation="relo"), "'relo'"),
        (lambda: networks.rnn_classifier(DIGITS, cell="LSTM"), "cell to be one of 'elman', 'lstm', 'gru'"),
        (lambda: networks.LSTM(2, forget_bias=np.nan), "forget_bias"),
        (lambda: networks.GRU(2, update_bias=np.inf), "update_bias"),
        (lambda: networks.mlp_regressor(datasets.from_arrays(np.zeros((4, 1)), np.zeros(4))), r"\(examples, 1\)"),
    ],
)
def test_what_cannot_be_posed_is_refused_with_the_remedy(pose, message):
    with pytest.raises(ValueError, match=message):
        pose()
