"""Transformers against NumPy, their own definitions, and each other: scanned, recomputed, or neither."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import erf, log_softmax, softmax

from jaxopt_study import curvature, training
from jaxopt_study.problems import datasets, networks
from jaxopt_study.problems.networks import _transformer_layers as layers

KEY = jax.random.key(0)
TASK = datasets.copy(num_symbols=4, length=3, num_train=6, num_validation=0, num_test=2)
MANNERS = [
    pytest.param({"remat": True}, marks=pytest.mark.slow),
    pytest.param({"scan": True}, marks=pytest.mark.slow),
    {"remat": True, "scan": True},
]


def problem(**options):
    return networks.gpt(TASK, **{"depth": 2, "width": 8, "initialiser": 0.3} | options)


def drawn(posed, seed=0):
    """Parameters in double precision of which none is 0 or 1, so that every offset and scale counts."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: 0.3 * rng.standard_normal(leaf.shape), jax.eval_shape(posed.init, KEY))


# The forward pass in NumPy, head by head and position by position, from the papers.


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0)


def normalise(p, x, kind):
    if kind == "rms":
        return p["scale"] * x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-5)
    centred = x - x.mean(axis=-1, keepdims=True)
    return p["scale"] * centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + 1e-5) + p["bias"]


def turned(vector, position):
    """RoFormer's rotation, written as complex multiplication of the pairs."""
    size = len(vector)
    angles = [position * 10_000 ** (-2 * i / size) for i in range(size // 2)]
    pairs = (vector[0::2] + 1j * vector[1::2]) * np.exp(1j * np.array(angles))
    return np.stack([pairs.real, pairs.imag], axis=1).ravel()


def attention(p, x, heads, *, causal, rotary):
    positions, width = x.shape
    size, out = width // heads, np.zeros_like(x)
    query, key, value = (dense(p[name], x) for name in ("query", "key", "value"))
    for h in range(heads):
        part = slice(h * size, (h + 1) * size)
        for t in range(positions):
            seen = range(t + 1) if causal else range(positions)
            asked = turned(query[t, part], t) if rotary else query[t, part]
            keys = [turned(key[s, part], s) if rotary else key[s, part] for s in seen]
            weights = softmax([asked @ k / np.sqrt(size) for k in keys])
            out[t, part] = sum(w * value[s, part] for w, s in zip(weights, seen, strict=True))
    return dense(p["output"], out)


def gelu(x):
    return x / 2 * (1 + erf(x / np.sqrt(2)))


def stack(p, x, depth, heads, kind, *, causal, rotary, activation=np.tanh):
    for i in range(depth):
        b = p[f"block_{i}"]
        x = x + attention(b["attention"], normalise(b["attention_norm"], x, kind), heads, causal=causal, rotary=rotary)
        x = x + dense(b["mlp_out"], activation(dense(b["mlp_in"], normalise(b["mlp_norm"], x, kind))))
    return normalise(p["norm"], x, kind)


def forward(p, tokens, *, depth, heads, kind, rotary, tied):
    x = p["token_embedding"]["embedding"][tokens]
    if not rotary:
        x = x + p["position_embedding"]["embedding"][: len(tokens)]
    x = stack(p, x, depth, heads, kind, causal=True, rotary=rotary)
    return x @ p["token_embedding"]["embedding"].T if tied else dense(p["output"], x)


@pytest.mark.parametrize(
    ("kind", "positions", "tied", "heads"), [("layer", "learned", True, 4), ("rms", "rotary", False, 2)]
)
def test_the_forward_pass_and_the_loss_are_those_of_the_papers(kind, positions, tied, heads):
    posed = problem(normalisation=kind, positions=positions, tied=tied, heads=heads, activation="tanh")
    with jax.enable_x64(True):
        params = drawn(posed)
        model = networks.GPT(
            5, 6, depth=2, width=8, heads=heads, normalisation=kind, positions=positions, tied=tied, activation="tanh"
        )
        logits = jax.jit(model.apply)({"params": params}, TASK.train["x"])
        loss = networks.token_cross_entropy(logits, TASK.train["y"])
        accuracy = networks.token_accuracy(logits, TASK.train["y"])
    options = {"depth": 2, "heads": heads, "kind": kind, "rotary": positions == "rotary", "tied": tied}
    expected = np.array([forward(params, tokens, **options) for tokens in TASK.train["x"]])
    np.testing.assert_allclose(logits, expected, rtol=1e-10, atol=1e-12)
    picked = np.take_along_axis(log_softmax(expected, axis=-1), TASK.train["y"][..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(loss, -picked[:, 3:].mean(), rtol=1e-10)
    np.testing.assert_allclose(accuracy, (expected.argmax(-1) == TASK.train["y"])[:, 3:].mean(), rtol=1e-12)


def test_a_vision_transformer_is_that_of_the_paper():
    data = datasets.digits(num_train=20, num_validation=0, num_test=4, flatten=False)
    posed = networks.vision_transformer(data, depth=1, width=8)
    images = data.train["x"][:2]
    with jax.enable_x64(True):
        params = drawn(posed)
        model = networks.VisionTransformer(10, depth=1, width=8, activation=lambda x: jax.nn.gelu(x, approximate=False))
        outputs = jax.jit(model.apply)({"params": params}, images)
    for image, output in zip(images, outputs, strict=True):
        patches = [image[r : r + 2, c : c + 2].ravel() for r in range(0, 8, 2) for c in range(0, 8, 2)]
        x = np.concatenate([params["class_token"], dense(params["patch_embedding"], np.array(patches))])
        x = x + params["position_embedding"]["embedding"]
        x = stack(params, x, 1, 4, "layer", causal=False, rotary=False, activation=gelu)
        np.testing.assert_allclose(output, dense(params["output"], x[0]), rtol=1e-10, atol=1e-12)
    assert posed.metadata["num_params"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_rotated_products_depend_on_the_distance_alone():
    with jax.enable_x64(True):
        vectors = jax.random.normal(KEY, (2, 1, 1, 2, 6), jnp.float64)  # a query and a key, two heads of six
        query, key = (layers.rotate(jnp.broadcast_to(v, (1, 9, 2, 6))) for v in vectors)
    vectors, query, key = (np.asarray(array) for array in (vectors, query, key))
    products = np.einsum("bqhd,bkhd->hqk", query, key)
    for distance in range(-8, 9):
        for head in products:
            diagonal = np.diagonal(head, distance)
            np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-12)
    assert np.ptp(products[0][:, 0]) > 0.01
    np.testing.assert_allclose(query[0, 0], vectors[0, 0, 0], rtol=1e-15)
    for position in range(9):
        np.testing.assert_allclose(query[0, position, 1], turned(vectors[0, 0, 0, 1], position), rtol=1e-12)


def test_a_later_token_changes_no_earlier_logit():
    posed = problem(depth=1)
    model = networks.GPT(5, 6, depth=1, width=8)
    params = jax.tree.map(np.float32, drawn(posed))
    tokens = np.tile(np.array([0, 1, 2, 3, 4, 0]), (3, 1))
    tokens[1, 2], tokens[2, 5] = 0, 4
    before, third, last = jax.jit(model.apply)({"params": params}, tokens)
    for place, after in ((2, third), (5, last)):
        np.testing.assert_array_equal(after[:place], before[:place])
        assert (np.abs(after[place:] - before[place:]).max(axis=-1) > 1e-6).all()


@pytest.mark.parametrize("manner", MANNERS, ids=str)
def test_scanned_and_recomputed_layers_are_the_same_network_with_the_same_parameters(manner):
    plain, other = problem(dropout=0.3), problem(dropout=0.3, **manner)
    with jax.enable_x64(True):
        params = drawn(plain)
        assert jax.eval_shape(plain.init, KEY) == jax.eval_shape(other.init, KEY)
        results = []
        for posed in (plain, other):
            step = lambda p, posed=posed: posed.step_loss(p, None, TASK.train, jax.random.key(3))[0]
            results.append(jax.jit(jax.value_and_grad(step))(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *results)


@pytest.mark.parametrize(
    "manner",
    [{}, pytest.param({"remat": True, "scan": True}, marks=pytest.mark.slow)],
    ids=["plain", "scanned"],
)
def test_products_with_the_hessian_are_those_of_the_dense_hessian_in_either_order_of_the_modes(manner):
    posed = problem(depth=1, width=4, mlp_ratio=1, activation="tanh", **manner)
    with jax.enable_x64(True):
        params = drawn(posed)
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        loss = lambda vector: posed.loss(unflatten(vector), TASK.train)
        v = jax.random.normal(KEY, flat.shape, flat.dtype)
        dense_hessian = jax.jit(jax.jacrev(jax.grad(loss)))(flat)
        np.testing.assert_allclose(dense_hessian, dense_hessian.T, atol=1e-12)
        backward = jax.jit(jax.grad(lambda p: jax.jvp(loss, (p,), (v,))[1]))(flat)
        np.testing.assert_allclose(backward, dense_hessian @ v, rtol=1e-9, atol=1e-11)
        op = curvature.hessian(posed.loss, params, posed.data)
        np.testing.assert_allclose(
            jax.flatten_util.ravel_pytree(op @ unflatten(v))[0], dense_hessian @ v, rtol=1e-9, atol=1e-11
        )


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(2, 48, 0.056), (4, 128, 0.793), (6, 384, 10.6), (12, 768, 85.0)]
)
def test_the_sizes_of_the_docstring(depth, width, millions):
    model = networks.GPT(103, 64, depth=depth, width=width)
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 64), jnp.int32))["params"]
    blocks = [shapes[f"block_{i}"] for i in range(depth)]
    size = sum(leaf.size for leaf in jax.tree.leaves(blocks))
    assert size == depth * (12 * width**2 + 13 * width)
    np.testing.assert_allclose(size / 1e6, millions, rtol=0.01)


def test_the_initialisation_is_gpt2s():
    params = jax.jit(problem(width=64, initialiser=0.02).init)(KEY)
    block = params["block_1"]
    for kernel, std in [
        (params["token_embedding"]["embedding"], 0.02),
        (block["attention"]["value"]["kernel"], 0.02),
        (block["mlp_in"]["kernel"], 0.02),
        (block["attention"]["output"]["kernel"], 0.02 / 2),
        (block["mlp_out"]["kernel"], 0.02 / 2),
    ]:
        np.testing.assert_allclose(np.std(kernel), std, rtol=0.15)
    assert not np.any(block["mlp_in"]["bias"])


def test_dropout_acts_in_training_alone_and_the_data_without_targets_that_count_add_nothing():
    posed, plain = problem(dropout=0.5, depth=1), problem(depth=1)
    params = jax.tree.map(np.float32, drawn(posed))
    assert plain.step_loss is None
    assert jax.jit(posed.loss)(params, TASK.train) == jax.jit(plain.loss)(params, TASK.train)
    step = jax.jit(lambda key: posed.step_loss(params, None, TASK.train, key)[0])
    steps = [step(jax.random.key(seed)) for seed in (1, 1, 2)]
    assert steps[0] == steps[1] != steps[2]
    logits = jax.random.normal(KEY, (2, 3, 4))
    targets = np.array([[1, -1, -1], [0, 2, 3]])
    each = -np.take_along_axis(log_softmax(np.asarray(logits), -1), np.maximum(targets, 0)[..., None], -1)[..., 0]
    expected = (each[0, 0] + each[1].mean()) / 2
    np.testing.assert_allclose(networks.token_cross_entropy(logits, targets), expected, rtol=1e-5)
    smooth = networks.token_cross_entropy(logits, targets, label_smoothing=0.9)
    flat = networks.cross_entropy(logits[1], targets[1], label_smoothing=0.9)
    first = networks.cross_entropy(logits[0, :1], targets[0, :1], label_smoothing=0.9)
    np.testing.assert_allclose(smooth, (flat + first) / 2, rtol=1e-5)


def test_a_module_of_ones_own_is_posed_alike_and_metadata_tell_what_was_posed():
    model = networks.GPT(5, 6, depth=1, width=8)
    posed = networks.language_model(model, TASK, name="mine")
    assert posed.name == "mine"
    assert networks.gpt(TASK, depth=1, width=8).metadata == dict(posed.metadata)
    assert "depth=1, width=8" in posed.metadata["model"]


@pytest.mark.slow
@pytest.mark.parametrize("token", [-1, 5])
def test_a_token_outside_of_the_vocabulary_has_no_loss(token):
    posed = problem()
    x = np.zeros((2, 6), np.int32)
    x[0, 2] = token  # the mask of targets among them: it is not the last symbol
    assert np.isnan(posed.loss(posed.init(KEY), {"x": x, "y": np.zeros_like(x)}))


def test_training_is_that_of_any_problem():
    posed = problem(depth=1)
    run = training.train(posed, optax.adam(0.02), num_steps=40, batch_size=6, key=KEY)
    assert run.losses[-1] < 0.8 * run.losses[0]


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        (lambda: networks.gpt(datasets.digits()), "data set of tokens.*digits"),
        (lambda: networks.mlp_classifier(TASK), "copy-3"),
        (lambda: networks.classifier(networks.MLP(3), TASK), "Use gpt"),
        (lambda: networks.regressor(networks.MLP(3), TASK), "Use gpt"),
        (lambda: problem(width=9, heads=2), "multiple of its heads"),
        (lambda: problem(width=12, heads=4, positions="rotary"), "even"),
        (lambda: problem(positions="sine"), "positions"),
        (lambda: problem(normalisation="batch"), "normalisation"),
        (lambda: problem(context=5), "context=5"),
        (lambda: problem(weight_decay=-1.0), "language_model.*weight_decay"),
        (lambda: networks.vision_transformer(datasets.digits()), "flatten=False"),
        (lambda: networks.vision_transformer(datasets.digits(flatten=False), patch_size=3), "divides the height"),
        (lambda: networks.token_cross_entropy(jnp.zeros((2, 3)), jnp.zeros(2, int)), "positions"),
    ],
)
def test_what_cannot_be_posed_is_refused_with_the_remedy(pose, message):
    with pytest.raises(ValueError, match=message):
        pose()


@pytest.mark.slow
def test_modular_addition_is_learned():
    data = datasets.modular_addition(modulus=13, num_validation=20, num_test=20)
    posed = networks.gpt(data, initialiser="xavier", depth=1, width=64)
    run = training.train(posed, optax.adam(3e-3), num_steps=1500, batch_size=64, key=KEY)
    assert run.losses[-1] < 0.1 * run.losses[0]


@pytest.mark.slow
def test_induction_is_learned_on_sequences_never_seen():
    data = datasets.induction(num_symbols=8, length=12, num_train=4_000, num_validation=0, num_test=300)
    posed = networks.gpt(data, initialiser="xavier", depth=2, width=32, positions="rotary", scan=True)
    run = training.train(posed, optax.adam(3e-3), num_steps=600, batch_size=64, key=KEY)
    assert run.losses[-1] < 0.1 < run.losses[0]
    assert posed.metrics["accuracy"](run.params, posed.test) > 0.95


@pytest.mark.parametrize("name", ["gpt", "vision_transformer", "mlp_classifier", "cnn_classifier", "rnn_classifier"])
def test_unknown_options_of_a_network_are_named(name):
    images = np.zeros((4, 8, 8, 1), np.float32)
    data = {
        "gpt": TASK, "rnn_classifier": datasets.temporal_order(num_steps=11, num_train=2, num_validation=1, num_test=1)
    }.get(name, datasets.Dataset("images", {"x": images, "y": np.arange(4) % 2}, num_classes=2))  # fmt: skip
    first = "vocabulary_size" if name == "gpt" else "num_outputs"
    with pytest.raises(TypeError, match=rf"{name} has the options .*dropout.* for its network. Received 'wdith'"):
        getattr(networks, name)(data, wdith=8)
    with pytest.raises(TypeError, match=rf"{first} is that of the data set. Received '{first}'"):
        getattr(networks, name)(data, **{first: 8})
