"""Layers, losses and initial scales agree with NumPy, Flax and the formulas they are named after."""

import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study.problems.networks import (
    CNN,
    GRU,
    LSTM,
    MLP,
    RNN,
    Conv,
    accuracy,
    convolve,
    cross_entropy,
    initialisers,
    max_pool,
    mse,
    weight_penalty,
)
from jaxopt_study.problems.networks import _layers as layers

KEY = jax.random.key(0)


def primitives(function, *args) -> set[str]:
    """Names of all primitives in a traced function, those inside its loops included."""
    found = set()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            found.add(equation.primitive.name)
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    visit(getattr(inner, "jaxpr", inner))

    visit(jax.make_jaxpr(function)(*args).jaxpr)
    return found


# Losses


def test_cross_entropy_equals_numpy_with_soft_targets():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(7, 5)) * 4, rng.integers(0, 5, 7)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    with jax.enable_x64(True):
        for smoothing in (0.0, 0.1, 0.6):
            targets = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
            expected = -(targets * log_probabilities).sum(axis=1).mean()
            value = cross_entropy(jnp.asarray(logits), labels, label_smoothing=smoothing)
            np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_cross_entropy_keeps_the_digits_and_the_nan_that_optaxs_lose():
    logits, labels, exact = jnp.array([[100.0, 90.0]]), jnp.array([0]), np.log1p(np.exp(-10.0))
    theirs = jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels))
    assert abs(cross_entropy(logits, labels) / exact - 1) < 1e-3 < 5e-3 < abs(theirs / exact - 1)
    too_large = jnp.array([10])
    assert jnp.isnan(jax.jit(cross_entropy)(jnp.zeros((1, 10)), too_large))
    assert optax.losses.softmax_cross_entropy(jnp.zeros((1, 10)), jax.nn.one_hot(too_large, 10)) == 0.0


def test_cross_entropy_is_finite_for_hopeless_logits():
    value, gradient = jax.value_and_grad(cross_entropy)(jnp.array([[1e4, -1e4]]), jnp.array([1]))
    assert value == 2e4
    np.testing.assert_array_equal(gradient, [[1, -1]])


def test_mse_averages_over_examples_and_outputs_and_does_not_broadcast():
    predictions, targets = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), np.zeros((2, 2), np.float32)
    assert mse(jnp.asarray(predictions), targets) == 30 / 4
    with pytest.raises(ValueError, match=r"\(2, 1\) and \(2,\).*Reshape"):
        mse(jnp.zeros((2, 1)), np.zeros(2, np.float32))


def test_accuracy_counts_correct_labels():
    logits = jnp.array([[0.0, 1.0], [1.0, 0.0], [0.2, 0.1], [3.0, -1.0]])
    assert accuracy(logits, np.array([1, 1, 0, 0])) == 0.75


def test_weight_penalty_of_any_precision_is_the_sum_of_squares():
    half = {"kernel": jnp.full((300, 300), 1.5, jnp.float16), "single": jnp.ones((2, 2))}  # more than float16 holds
    with jax.numpy_dtype_promotion("strict"):
        assert weight_penalty(half) == 0.5 * (300 * 300 * 1.5**2 + 4)
        with jax.enable_x64(True):
            assert weight_penalty({"kernel": jnp.ones((2, 3), jnp.float32)}).dtype == jnp.float32
            predictions, targets = jnp.ones((2, 1), jnp.float32), jnp.zeros((2, 1), jnp.float64)
            assert mse(predictions, targets) == 1.0


def test_weight_penalty_leaves_biases_and_scales_alone():
    params = {"a": {"kernel": jnp.array([[1.0, 2.0]]), "bias": jnp.array([5.0])}, "conv": jnp.full((1, 1, 1, 2), 3.0)}
    assert weight_penalty(params) == 0.5 * (1 + 4 + 9 + 9)
    gradient = jax.grad(weight_penalty)(params)
    np.testing.assert_array_equal(gradient["a"]["kernel"], params["a"]["kernel"])
    np.testing.assert_array_equal(gradient["a"]["bias"], 0)


# Initial scales


@pytest.mark.parametrize(
    ("initialiser", "std"),
    [
        ("xavier", lambda fan_in, fan_out: fan_in**-0.5),
        ("lecun", lambda fan_in, fan_out: fan_in**-0.5),
        ("he", lambda fan_in, fan_out: (2 / fan_in) ** 0.5),
        ("glorot", lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** 0.5),
        (0.01, lambda fan_in, fan_out: 0.01),
        (initialisers.he(3.0), lambda fan_in, fan_out: 3 * (2 / fan_in) ** 0.5),
        (initialisers.xavier(0.5), lambda fan_in, fan_out: 0.5 * fan_in**-0.5),
        (nn.initializers.constant(2.0), lambda fan_in, fan_out: 0.0),
    ],
)
@pytest.mark.parametrize("shape", [(300, 200), (5, 5, 12, 200)])
def test_initial_weights_have_the_scale_of_their_formula(initialiser, std, shape):
    weights = np.asarray(initialisers.resolve(initialiser)(KEY, shape, jnp.float32), np.float64)
    receptive = np.prod(shape[:-2], dtype=int)
    expected = std(receptive * shape[-2], receptive * shape[-1])
    # 60,000 draws: the standard error of a normal's standard deviation is .29%; four of them.
    assert abs(weights.std() - expected) <= 0.012 * expected
    if expected:
        assert abs(weights.mean()) < 4 * expected / np.sqrt(weights.size)


@pytest.mark.parametrize("name", ["xavier", "he"])
def test_normal_initialisers_are_not_truncated(name):
    weights = initialisers.resolve(name)(KEY, (300, 200), jnp.float32)
    beyond = np.mean(np.abs(weights) > 2.5 * weights.std())  # 1.24% of a normal; none once truncated at two
    assert 0.009 < beyond < 0.016


def test_glorot_is_uniform():
    weights = np.asarray(initialisers.glorot()(KEY, (300, 200), jnp.float32))
    bound = np.sqrt(6 / 500)
    assert 0.999 * bound < np.abs(weights).max() <= bound
    np.testing.assert_allclose(np.mean(np.abs(weights) < bound / 2), 0.5, atol=0.01)


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8)])
def test_orthogonal_weights_have_all_singular_values_equal_to_the_gain(shape):
    weights = initialisers.orthogonal(1.7)(KEY, shape, jnp.float32)
    np.testing.assert_allclose(np.linalg.svd(weights, compute_uv=False), 1.7, rtol=1e-5)


@pytest.mark.parametrize("make", [initialisers.normal, *initialisers.NAMED.values()])
def test_scales_can_be_traced(make):
    scales = jnp.array([0.1, 2.0])
    together = jax.vmap(lambda scale: make(scale)(KEY, (6, 4)))(scales)
    for scale, weights in zip([0.1, 2.0], together, strict=True):
        np.testing.assert_allclose(weights, make(scale)(KEY, (6, 4)), rtol=1e-5)


@pytest.mark.parametrize(("initialiser", "per_layer"), [("he", 1.0), ("xavier", 0.5)])
def test_relu_layers_keep_the_second_moment_under_he_and_halve_it_under_xavier(initialiser, per_layer):
    depth = 4
    x = jax.random.normal(jax.random.key(1), (200, 500))
    moments = []
    model = MLP(1, widths=(500,) * depth, initialiser=initialiser)
    run = jax.jit(lambda key: model.init_with_output(key, x, capture_intermediates=True))
    for i in range(6):
        _, kept = run(jax.random.key(i))
        moments.append(np.mean(np.square(kept["intermediates"][f"dense_{depth - 1}"]["__call__"][0])))
    # The moment of the last pre-activations: the first layer sees unhalved inputs, and ReLU halves what it passes on.
    expected = (2.0 if initialiser == "he" else 1.0) * per_layer ** (depth - 1)
    np.testing.assert_allclose(np.mean(moments), expected, rtol=0.15)


def test_unknown_names_are_refused_with_those_that_exist():
    with pytest.raises(ValueError, match=r"'kaiming'.*xavier.*standard deviation"):
        initialisers.resolve("kaiming")
    with pytest.raises(ValueError, match=r"'swish'.*relu.*elementwise"):
        layers.resolve_activation("swish")
    with pytest.raises(ValueError, match=r"'weight'.*batch"):
        inspect.unwrap(layers.normalisation_layer)("weight", num_groups=1, train=True, name="n")
    with pytest.raises(ValueError, match=r"'fft'.*patches"):
        inspect.unwrap(convolve)(jnp.ones((1, 3, 3, 1)), jnp.ones((2, 2, 1, 1)), method="fft")


# Convolution


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "padding"),
    [
        ((7, 6), (3, 3), (1, 1), "SAME"),
        ((8, 9), (3, 2), (2, 1), "VALID"),
        ((9, 9), (5, 5), (2, 3), "SAME"),
        ((4, 5), (1, 1), (1, 2), "VALID"),
    ],
)
def test_both_ways_to_convolve_equal_flax_in_value_and_gradient(size, kernel_size, strides, padding):
    with jax.enable_x64(True):
        x = jax.random.normal(KEY, (3, *size, 4), jnp.float64)
        flax = nn.Conv(5, kernel_size, strides=strides, padding=padding, param_dtype=jnp.float64)
        params = jax.jit(flax.init)(jax.random.key(1), x)["params"]
        params["bias"] = jax.random.normal(jax.random.key(2), (5,), jnp.float64)

        def value_and_gradients(module):
            def scalar(params, x):
                y = module.apply({"params": params}, x)
                return jnp.sum(jnp.sin(y)), y

            run = jax.jit(jax.value_and_grad(scalar, argnums=(0, 1), has_aux=True))
            (_, y), gradients = run(params, x)
            return y, gradients

        expected = value_and_gradients(flax)
        for method in ("patches", "native"):
            ours = value_and_gradients(Conv(5, kernel_size, strides=strides, padding=padding, method=method))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12), ours, expected)


def test_convolutions_have_flax_parameters_so_either_can_be_used_with_them():
    x = jnp.ones((2, 6, 6, 3))
    ours, flax = (jax.eval_shape(module.init, KEY, x) for module in (Conv(5, (3, 2)), nn.Conv(5, (3, 2))))
    assert ours == flax


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (CNN(3, channels=(2,), widths=(4,), normalisation="batch"), (2, 4, 4, 1)),
        (RNN(3, widths=(4,), normalisation="layer"), (2, 3, 2)),
        (MLP(3, widths=(4,), normalisation="layer"), (2, 5)),
    ],
    ids=["CNN", "RNN", "MLP"],
)
def test_networks_are_in_single_precision_as_flaxs_layers_are_where_double_is_allowed(module, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    variables = module.init(KEY, x)
    expected = module.apply(variables, x)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"):
        assert {leaf.dtype for leaf in jax.tree.leaves(module.init(KEY, x))} == {np.dtype("float32")}
        np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_float64_weights_meet_float32_images():
    with jax.enable_x64(True):
        x, kernel = jnp.ones((1, 3, 3, 1), jnp.float32), jnp.full((2, 2, 1, 1), 1 / 3, jnp.float64)
        for method in ("patches", "native"):
            np.testing.assert_allclose(convolve(x, kernel, padding="VALID", method=method), 4 / 3, rtol=1e-15)


def test_curvature_products_agree_between_both_ways_to_convolve():
    x, labels = jax.random.normal(KEY, (4, 8, 8, 1)), jnp.arange(4)

    def product(method):
        model = CNN(4, channels=(3,), widths=(), activation="tanh", method=method)
        params = jax.jit(model.init)(jax.random.key(1), x)["params"]
        gradient = jax.grad(lambda params: cross_entropy(model.apply({"params": params}, x), labels))
        direction = jax.tree.map(jnp.ones_like, params)
        return jax.jit(lambda params, direction: jax.jvp(gradient, (params,), (direction,))[1])(params, direction)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), product("patches"), product("native")
    )


def test_on_a_cpu_the_gradient_of_a_cnn_holds_nothing_that_is_slow_in_loops(monkeypatch):
    x, labels = jnp.ones((4, 8, 8, 1)), jnp.arange(4)

    def used(**options):
        model = CNN(4, channels=(3, 4), widths=(5,), **options)
        params = jax.eval_shape(model.init, KEY, x)["params"]
        return primitives(jax.grad(lambda p: cross_entropy(model.apply({"params": p}, x), labels)), params)

    slow = {"conv_general_dilated", "reduce_window_max", "select_and_scatter_add"}
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert not used() & slow
    assert "dot_general" in used()
    assert "conv_general_dilated" in used(method="native")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in used()
    assert not used(method="patches") & slow


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 6, 6, 3), 2), ((2, 7, 5, 3), 2), ((1, 9, 10, 2), 3), ((1, 3, 3, 1), 1)]
)
def test_max_pool_equals_flax_in_value_and_gradient(shape, size):
    x = jax.random.normal(KEY, shape)

    def ours(x):
        return max_pool(x, size)

    def flax(x):
        return nn.max_pool(x, (size, size), (size, size))

    np.testing.assert_array_equal(ours(x), flax(x))
    gradients = [jax.jit(jax.grad(lambda x, pool=pool: jnp.sum(jnp.sin(pool(x)))))(x) for pool in (ours, flax)]
    np.testing.assert_allclose(*gradients, rtol=1e-6)


# Normalisation


@pytest.mark.parametrize(
    ("kind", "axes"), [("batch", (0, 1, 2)), ("layer", (3,)), ("instance", (1, 2)), ("group", None)]
)
def test_normalisations_standardise_over_the_axes_they_name(kind, axes):
    x = np.random.default_rng(0).normal(50, 3, (6, 4, 5, 8))
    layer = layers.normalisation_layer(kind, num_groups=2, train=True, name="norm")
    y, _ = layer.init_with_output(KEY, jnp.asarray(x, jnp.float32))
    if kind == "group":  # two groups of four channels
        x, axes = x.reshape(6, 4, 5, 2, 4), (1, 2, 4)
    expected = (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected.reshape(y.shape), atol=2e-4)


# Networks


def test_mlp_equals_its_formula():
    model = MLP(3, widths=(5, 4), activation="tanh")
    x = np.random.default_rng(0).normal(size=(6, 2, 4)).astype(np.float32)
    params = jax.jit(model.init)(KEY, x)["params"]
    assert sorted(params) == ["dense_0", "dense_1", "output"]
    h = x.reshape(6, 8).astype(np.float64)
    for name in ("dense_0", "dense_1"):
        h = np.tanh(h @ np.asarray(params[name]["kernel"]) + np.asarray(params[name]["bias"]))
    expected = h @ np.asarray(params["output"]["kernel"]) + np.asarray(params["output"]["bias"])
    np.testing.assert_allclose(model.apply({"params": params}, x), expected, atol=1e-5)


@pytest.mark.parametrize("normalisation", [None, "layer"])
def test_rnn_equals_its_recursion_step_by_step(normalisation):
    model = RNN(2, widths=(4, 3), initialiser=0.5, normalisation=normalisation)
    x = np.random.default_rng(0).normal(size=(5, 7, 3)).astype(np.float32)
    params = jax.tree.map(np.asarray, jax.jit(model.init)(KEY, x)["params"])
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), params)
    sequence = [x[:, t].astype(np.float64) for t in range(7)]
    for i, width in enumerate((4, 3)):
        h, outputs = np.zeros((5, width)), []
        for step in sequence:
            total = step @ params[f"input_{i}"]["kernel"] + params[f"input_{i}"]["bias"] + h @ params[f"recurrent_{i}"]
            if normalisation:
                total = (total - total.mean(axis=1, keepdims=True)) / np.sqrt(total.var(axis=1, keepdims=True) + 1e-5)
                total = params[f"scale_{i}"] * total
            h = np.tanh(total)
            outputs.append(h)
        sequence = outputs
    expected = sequence[-1] @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(model.apply({"params": params}, x), expected, atol=2e-5)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_its_equations(x, params, layer):
    """Hochreiter and Schmidhuber's cell with forget gates, gate by gate, in double precision; the order is ifgo."""
    W, b = (np.asarray(params[f"input_{layer}"][name], float) for name in ("kernel", "bias"))
    U = np.asarray(params[f"recurrent_{layer}"], float)
    width = len(U)
    gate = [slice(k * width, (k + 1) * width) for k in range(4)]
    h, c, outputs = np.zeros((len(x), width)), np.zeros((len(x), width)), []
    for t in range(x.shape[1]):
        i, f, g, o = (x[:, t] @ W[:, k] + h @ U[:, k] + b[k] for k in gate)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def gru_by_its_equations(x, params, layer):
    """Cho's unit with the reset after the product, gate by gate, in double precision; gates in the order rzn."""
    W, b = (np.asarray(params[f"input_{layer}"][name], float) for name in ("kernel", "bias"))
    U, shift = (np.asarray(params[f"{name}_{layer}"], float) for name in ("recurrent", "reset"))
    width = len(U)
    gate = [slice(k * width, (k + 1) * width) for k in range(3)]
    h, outputs = np.zeros((len(x), width)), []
    for t in range(x.shape[1]):
        r = sigmoid(x[:, t] @ W[:, gate[0]] + b[gate[0]] + h @ U[:, gate[0]])
        z = sigmoid(x[:, t] @ W[:, gate[1]] + b[gate[1]] + h @ U[:, gate[1]])
        n = np.tanh(x[:, t] @ W[:, gate[2]] + b[gate[2]] + r * (h @ U[:, gate[2]] + shift))
        h = z * h + (1 - z) * n
        outputs.append(h)
    return np.stack(outputs, axis=1)


ORACLES = {LSTM: lstm_by_its_equations, GRU: gru_by_its_equations}


def perturbed(model, x):
    """Parameters in which no bias is 0 and no two gates are alike."""
    params = jax.jit(model.init)(KEY, x)["params"]
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: np.asarray(leaf) + 0.3 * rng.normal(size=leaf.shape).astype(np.float32), params)


@pytest.mark.parametrize("network", ORACLES)
def test_gated_networks_equal_their_equations_step_by_step(network):
    model = network(2, widths=(4, 3))
    x = np.random.default_rng(0).normal(size=(5, 30, 3)).astype(np.float32)
    params = perturbed(model, x)
    for num_steps in (1, 2, 30):
        sequence = x[:, :num_steps].astype(float)
        for layer in range(2):
            sequence = ORACLES[network](sequence, params, layer)
        expected = sequence[:, -1] @ params["output"]["kernel"] + params["output"]["bias"]
        np.testing.assert_allclose(model.apply({"params": params}, x[:, :num_steps]), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("network", "cell", "gates"), [(LSTM, nn.OptimizedLSTMCell, "ifgo"), (GRU, nn.GRUCell, "rzn")], ids=["lstm", "gru"]
)
def test_gated_networks_equal_flaxs_cells(network, cell, gates):
    model, width = network(2, widths=(4,)), 4
    x = np.random.default_rng(0).normal(size=(5, 30, 3)).astype(np.float32)
    params = perturbed(model, x)
    W, b, U = params["input_0"]["kernel"], params["input_0"]["bias"], params["recurrent_0"]
    theirs = {}
    for k, gate in enumerate(gates):
        part = slice(k * width, (k + 1) * width)
        inputs, state = {"kernel": W[:, part]}, {"kernel": U[:, part]}
        if network is LSTM:
            state["bias"] = b[part]
        else:
            inputs["bias"] = b[part]
            state |= {"bias": params["reset_0"]} if gate == "n" else {}
        theirs |= {f"i{gate}": inputs, f"h{gate}": state}
    h = nn.RNN(cell(width)).apply({"params": {"cell": theirs}}, x)[:, -1]
    expected = h @ params["output"]["kernel"] + params["output"]["bias"]
    np.testing.assert_allclose(model.apply({"params": params}, x), expected, atol=2e-6)


@pytest.mark.parametrize("network", [RNN, LSTM, GRU])
@pytest.mark.parametrize("shape", [(2, 3), (2, 0, 3), (2, 5, 0)])
def test_sequences_without_steps_or_features_are_refused(network, shape):
    with pytest.raises(ValueError, match="with at least one step and one feature; received"):
        network(num_outputs=2).init(jax.random.key(0), jnp.ones(shape))


@pytest.mark.parametrize(("network", "gates"), [(RNN, 1), (LSTM, 4), (GRU, 3)])
def test_recurrent_weights_of_every_gate_start_orthogonal_and_different(network, gates):
    params = network(2, widths=(20,)).init(KEY, jnp.ones((1, 3, 2)))["params"]
    parts = np.split(params["recurrent_0"], gates, axis=1)
    for part in parts:
        np.testing.assert_allclose(np.linalg.svd(part, compute_uv=False), 1, rtol=1e-5)
    assert all(np.abs(part - parts[0]).max() > 0.1 for part in parts[1:])


def test_input_weights_of_every_gate_have_the_scale_of_a_layer_of_its_width():
    """Glorot's scale depends on the number of outputs; all gates as one layer would start at half of it or less."""
    x = jnp.ones((1, 3, 50))
    single, *gated = (
        net(2, widths=(50,), initialiser="glorot").init(KEY, x)["params"]["input_0"]["kernel"]
        for net in (RNN, LSTM, GRU)
    )
    for kernel in gated:
        np.testing.assert_allclose(np.std(kernel), np.std(single), rtol=0.05)


def test_biases_start_at_zero_but_for_the_gate_that_keeps():
    x = jnp.ones((1, 3, 2))
    for forget in (1.0, -2.0):
        bias = LSTM(2, widths=(3,), forget_bias=forget).init(KEY, x)["params"]["input_0"]["bias"]
        np.testing.assert_array_equal(bias, [0] * 3 + [forget] * 3 + [0] * 6)
    np.testing.assert_array_equal(LSTM(2, widths=(1,)).init(KEY, x)["params"]["input_0"]["bias"], [0, 1, 0, 0])
    params = GRU(2, widths=(3,), update_bias=5).init(KEY, x)["params"]
    np.testing.assert_array_equal(params["input_0"]["bias"], [0] * 3 + [5] * 3 + [0] * 3)
    np.testing.assert_array_equal(params["reset_0"], [0] * 3)


def test_open_forget_gates_keep_a_gradient():
    """Through T steps a cell's gradient shrinks by about σ(bias)ᵀ; biases may be an axis of a sweep."""
    x = jax.random.normal(KEY, (1, 31, 2))

    def reach(network, name, bias):
        model = network(1, widths=(20,), initialiser=0.1, recurrent_initialiser=0.01, **{name: bias})
        params = model.init(KEY, x)["params"]
        norms = jnp.linalg.norm(jax.grad(lambda x: model.apply({"params": params}, x)[0, 0])(x)[0], axis=-1)
        return norms[0] / norms[-1]

    for network, name in ((LSTM, "forget_bias"), (GRU, "update_bias")):
        biases = jnp.array([0.0, 2.0, 4.0])
        found = jax.jit(jax.vmap(lambda bias, net=network, name=name: reach(net, name, bias)))(biases)
        np.testing.assert_allclose(np.log(found), 30 * np.log(sigmoid(np.asarray(biases))), rtol=0.1, atol=0.5)


@pytest.mark.parametrize("network", [LSTM, GRU])
def test_dropout_of_gated_networks_zeroes_between_layers_only_in_training(network):
    model, x = network(2, widths=(4, 4), dropout=0.5), jnp.ones((3, 5, 2))
    params = model.init(KEY, x)
    quiet = network(2, widths=(4, 4)).apply(params, x)
    np.testing.assert_array_equal(model.apply(params, x), quiet)
    assert np.any(model.apply(params, x, train=True, rngs={"dropout": KEY}) != quiet)


def test_depth_and_width_are_free():
    for widths in ((), (7,), (3, 5, 2)):
        params = jax.eval_shape(MLP(2, widths=widths).init, KEY, jnp.ones((1, 4)))["params"]
        assert [params[f"dense_{i}"]["kernel"].shape[1] for i in range(len(widths))] == list(widths)
    model = CNN(2, channels=(3, 4, 5), widths=(), kernel_size=(5, 5))
    cnn = jax.eval_shape(model.init, KEY, jnp.ones((1, 8, 8, 2)))["params"]
    assert [cnn[f"conv_{i}"]["kernel"].shape for i in range(3)] == [(5, 5, 2, 3), (5, 5, 3, 4), (5, 5, 4, 5)]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (CNN(2), (3, 64), "flatten=False"),
        (RNN(2), (3, 64), "An RNN needs inputs of shape .examples, steps, features"),
        (LSTM(2), (3, 64), "An LSTM needs inputs of shape .examples, steps, features"),
        (GRU(2), (3, 64), "A GRU needs inputs of shape .examples, steps, features"),
        (
            LSTM(2, recurrent_initialiser=lambda key, shape, dtype: jnp.zeros(3)),
            (3, 4, 2),
            "LSTM needs its recurrent_initialiser to return an array of shape .50, 50.; received an array float32.3.",
        ),
        (RNN(2, normalisation="batch"), (3, 4, 2), '"layer" or not at all'),
        (MLP(2, normalisation="instance"), (3, 4), "no|none"),
    ],
)
def test_inputs_and_normalisations_that_do_not_suit_are_refused(model, shape, message):
    with pytest.raises(ValueError, match=message):
        model.init(KEY, jnp.ones(shape))
