"""Augmentations keep what they promise: weights sum to 1, boxes have their area, labels follow the area."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import ndimage

from jaxopt_study import training
from jaxopt_study.problems import Problem, augmentations, datasets, networks
from jaxopt_study.problems.augmentations import (
    augmented,
    compose,
    cutmix,
    cutout,
    flip,
    input_noise,
    mixup,
    rotation,
    shift,
    weight_noise,
)

KEY = jax.random.key(3)
EXAMPLES, HEIGHT, WIDTH, CLASSES = 6, 9, 7, 5


def a_batch(seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(1, 2, (EXAMPLES, HEIGHT, WIDTH, 2)).astype(np.float32)  # no zeros, so that a hole is seen
    return {"x": jnp.asarray(x), "y": jnp.asarray(rng.integers(0, CLASSES, EXAMPLES))}


ALL = {
    "input_noise": input_noise(0.3),
    "shift": shift(2),
    "rotation": rotation(30.0),
    "flip": flip(),
    "cutout": cutout(3),
    "cutout at the border": cutout(5, inside=False),
    "mixup": mixup(0.4, num_classes=CLASSES),
    "cutmix": cutmix(1.0, num_classes=CLASSES),
    "compose": compose(shift(1), flip(), mixup(1.0, num_classes=CLASSES)),
}


def test_every_augmentation_has_a_case():
    made = set(augmentations.__all__) - {"Augmentation", "augmented", "weight_noise"}
    assert made <= {name.split()[0] for name in ALL}


@pytest.mark.parametrize("name", ALL)
def test_it_is_a_pure_function_of_key_and_batch(name):
    augment, batch = ALL[name], a_batch()
    first, again, other = augment(KEY, batch), augment(KEY, batch), augment(jax.random.key(4), batch)
    jitted = jax.jit(augment)(KEY, batch)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), first, jitted)
    assert (first["x"] != other["x"]).any()
    assert first["x"].shape == batch["x"].shape
    assert first["x"].dtype == batch["x"].dtype


@pytest.mark.parametrize("name", ALL)
def test_lanes_of_keys_are_single_runs(name):
    augment, batch, keys = ALL[name], a_batch(), jax.random.split(KEY, 3)
    lanes = jax.vmap(augment, in_axes=(0, None))(keys, batch)
    for lane, key in enumerate(keys):
        alone = augment(key, batch)
        of_lane = jax.tree.map(lambda x, lane=lane: x[lane], lanes)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), of_lane, alone)


def test_strengths_may_be_lanes():
    batch = a_batch()
    cases = (
        (input_noise, [0.0, 0.5]), (shift, [0, 2]), (rotation, [0.0, 40.0]), (flip, [0.0, 1.0]), (cutout, [0, 3]),
    )  # fmt: skip
    for make, strengths in cases:
        lanes = jax.vmap(lambda s, make=make: make(s)(KEY, batch))(jnp.asarray(strengths))
        np.testing.assert_allclose(lanes["x"][0], batch["x"], rtol=1e-5)  # a strength of 0 changes nothing
        np.testing.assert_allclose(lanes["x"][1], make(strengths[1])(KEY, batch)["x"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [mixup, cutmix])
@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixed_targets_are_probabilities_and_follow_the_inputs(make, alpha):
    # Inputs that are their own one-hot label: the mixed input averaged over its pixels is then the mixed target.
    labels = np.arange(EXAMPLES) % CLASSES
    x = np.broadcast_to(np.eye(CLASSES, dtype=np.float32)[labels][:, None, None], (EXAMPLES, HEIGHT, WIDTH, CLASSES))
    for seed in range(20):
        mixed = make(alpha, num_classes=CLASSES)(jax.random.key(seed), {"x": jnp.asarray(x), "y": jnp.asarray(labels)})
        np.testing.assert_allclose(mixed["y"].sum(axis=1), 1, rtol=1e-6)
        np.testing.assert_allclose(mixed["x"].mean(axis=(1, 2)), mixed["y"], rtol=1e-5, atol=1e-6)


def test_mixing_weights_are_beta():
    alpha, count = 0.5, 4_000
    batch = {"x": jnp.eye(2), "y": jnp.array([0, 1])}
    mixed = jax.vmap(lambda key: mixup(alpha, num_classes=2)(key, batch)["y"])(jax.random.split(KEY, count))
    weights = np.asarray(mixed)[:, 0, 0]
    weights = weights[weights < 1]  # a partner that is the example itself leaves it unmixed
    error = np.sqrt(1 / (4 * (2 * alpha + 1)) / len(weights))  # the variance of Beta(α, α) is 1/(4(2α + 1))
    assert abs(weights.mean() - 0.5) < 4 * error
    assert abs(weights.var() - 1 / (4 * (2 * alpha + 1))) < 0.01


def test_probabilities_are_mixed_as_they_are():
    batch = a_batch()
    one_hot = {**batch, "y": jax.nn.one_hot(batch["y"], CLASSES)}
    augment = mixup(1.0, num_classes=CLASSES)
    np.testing.assert_array_equal(augment(KEY, batch)["y"], augment(KEY, one_hot)["y"])


@pytest.mark.parametrize("size", [0, 1, 4, 7])
def test_holes_have_the_area_asked_for(size):
    batch = a_batch()
    for seed in range(10):
        hole = np.asarray(cutout(size)(jax.random.key(seed), batch)["x"] == 0)
        np.testing.assert_array_equal(hole[..., 0], hole[..., 1])
        np.testing.assert_array_equal(hole[..., 0].sum(axis=(1, 2)), size**2)


def test_holes_at_the_border_are_cut_and_centred_on_every_pixel():
    batch, size = {"x": jnp.ones((4000, 5, 5, 1)), "y": jnp.zeros(4000, int)}, 3
    hole = np.asarray(cutout(size, inside=False)(KEY, batch)["x"] == 0)[..., 0]
    areas = hole.sum(axis=(1, 2))
    assert set(np.unique(areas)) == {4, 6, 9}  # at a corner, at an edge, inside
    # 9 of 25 centres lie inside: the mean area is (3·3 + 2·2)²/25.
    assert abs(areas.mean() - 169 / 25) < 4 * areas.std() / np.sqrt(4000)


def test_shifts_are_those_of_scipy_and_uniform():
    x = np.asarray(a_batch()["x"])
    moved = np.asarray(shift(2)(KEY, a_batch())["x"])
    candidates = {
        (dy, dx): ndimage.shift(x, (0, dy, dx, 0), order=0, cval=0) for dy in range(-2, 3) for dx in range(-2, 3)
    }
    for row in range(EXAMPLES):
        assert sum(np.array_equal(moved[row], image[row]) for image in candidates.values()) == 1
    single = jnp.zeros((5_000, 7, 7, 1)).at[:, 3, 3].set(1)
    counts = np.asarray(shift(1)(KEY, {"x": single, "y": jnp.zeros(5_000, int)})["x"]).sum(axis=(0, 3))[2:5, 2:5]
    np.testing.assert_allclose(counts, 5_000 / 9, atol=4 * np.sqrt(5_000 / 9))


def test_a_rotation_is_that_of_scipy():
    # A ramp is the same ramp turned, inside the image: bilinear interpolation is exact there.
    side = 21
    rows, columns = np.meshgrid(np.arange(side) - 10.0, np.arange(side) - 10.0, indexing="ij")
    batch = {"x": jnp.asarray(np.stack([rows, columns], axis=-1)[None], jnp.float32), "y": jnp.zeros(1, int)}
    turned = np.asarray(rotation(90.0)(KEY, batch)["x"])[0]
    angle = np.arctan2(turned[10, 12, 0], turned[10, 12, 1])  # of the pixel to the right of the centre
    expected = ndimage.rotate(np.asarray(batch["x"])[0], np.degrees(angle), reshape=False, order=1)
    inner = np.hypot(rows, columns) < 8
    np.testing.assert_allclose(turned[inner], expected[inner], atol=1e-4)
    assert abs(np.degrees(angle)) <= 90


def test_flips_mirror_left_and_right_as_often_as_asked():
    batch = {"x": jnp.tile(jnp.arange(4.0).reshape(1, 1, 4, 1), (2_000, 2, 1, 1)), "y": jnp.zeros(2_000, int)}
    x = np.asarray(flip(0.25)(KEY, batch)["x"])[:, 0, :, 0]
    mirrored = (x == [3, 2, 1, 0]).all(axis=1)
    assert ((x == [0, 1, 2, 3]).all(axis=1) | mirrored).all()
    assert abs(mirrored.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2_000)


def test_noise_has_its_standard_deviation():
    noise = input_noise(0.5)(KEY, {"x": jnp.zeros((100, 100)), "y": jnp.zeros(100, int)})["x"]
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * 10_000)
    assert abs(noise.mean()) < 4 * 0.5 / np.sqrt(10_000)


def test_training_augments_and_evaluation_does_not():
    problem = networks.cnn_classifier(datasets.digits(flatten=False), channels=(4,), widths=(8,))
    mixed = augmented(problem, shift(1), mixup(1.0, num_classes=10))
    options = {"num_steps": 4, "key": KEY, "batch_size": 32, "evaluate_every": 4, "progress": False}
    plain, run = (training.train(p, optax.sgd(0.1), **options) for p in (problem, mixed))
    assert not run.diverged
    assert (run.losses != plain.losses).all()
    np.testing.assert_array_equal(run.evaluations["validation_loss"][0], plain.evaluations["validation_loss"][0])


def test_training_moves_the_weights_and_evaluation_does_not():
    problem = networks.mlp_classifier(datasets.digits(), widths=(8,))
    options = {"num_steps": 4, "key": KEY, "batch_size": 32, "evaluate_every": 4, "progress": False}
    plain, silent, noisy = (
        training.train(p, optax.sgd(0.1), **options)
        for p in (problem, weight_noise(problem, 0.0), weight_noise(problem, 0.1))
    )
    np.testing.assert_array_equal(silent.losses, plain.losses)
    assert (noisy.losses != plain.losses).all()
    np.testing.assert_array_equal(noisy.evaluations["validation_loss"][0], plain.evaluations["validation_loss"][0])


def test_weights_get_noise_of_its_standard_deviation_and_the_inner_step_loss_another_key():
    seen = []
    problem = networks.mlp_classifier(datasets.digits(), widths=(64,))
    inner = problem.replace(step_loss=lambda p, s, b, key: (seen.append((p, key)), (0.0, s))[1])
    params = problem.init(KEY)
    weight_noise(inner, 0.5).step_loss(params, None, problem.data, KEY)
    ((moved, key),) = seen
    noise = np.concatenate([np.ravel(a - b) for a, b in zip(*map(jax.tree.leaves, (moved, params)), strict=True)])
    assert abs(noise.std() - 0.5) < 4 * 0.5 / np.sqrt(2 * noise.size)
    assert len(np.unique(noise)) > 0.99 * noise.size  # no leaf repeats another's noise
    assert (jax.random.key_data(key) != jax.random.key_data(KEY)).any()


def test_keys_of_augmentation_and_dropout_are_apart():
    keys = []
    problem = networks.mlp_classifier(datasets.digits(), widths=(8,), dropout=0.5)

    def seen(key, batch):
        keys.append(jax.random.key_data(key))
        return batch

    inner = problem.replace(step_loss=lambda p, s, b, key: (keys.append(jax.random.key_data(key)), (0.0, s))[1])
    augmented(inner, seen).step_loss(problem.init(KEY), None, problem.data, KEY)
    assert len({tuple(np.asarray(key)) for key in [*keys, jax.random.key_data(KEY)]}) == 3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: input_noise(-1.0), ValueError, "std"),
        (lambda: shift(1.5), TypeError, "max_pixels"),
        (lambda: shift(-1), ValueError, "max_pixels"),
        (lambda: rotation(200.0), ValueError, "max_degrees"),
        (lambda: flip(1.5), ValueError, "probability"),
        (lambda: cutout(-1), ValueError, "size"),
        (lambda: cutout(8)(KEY, a_batch()), ValueError, "smaller side, 7"),
        (lambda: mixup(0.0, num_classes=2), ValueError, "alpha"),
        (lambda: cutmix(1.0, num_classes=0), ValueError, "num_classes"),
        (lambda: cutmix(num_classes=3)(KEY, {"x": jnp.ones((2, 4)), "y": jnp.zeros(2, int)}), ValueError, "flatten"),
        (lambda: mixup(num_classes=3)(KEY, {"x": jnp.ones((2, 4)), "y": jnp.ones((2, 2))}), ValueError, "shape"),
        (lambda: shift(1)(KEY, jnp.ones((2, 4, 4, 1))), TypeError, "batch"),
        (lambda: compose(None), TypeError, "function"),
        (lambda: augmented(None), TypeError, "Problem"),
        (lambda: weight_noise(None, 0.1), TypeError, "Problem"),
        (lambda: weight_noise(networks.mlp_classifier(datasets.digits()), -0.1), ValueError, "std"),
    ],
)
def test_what_cannot_be_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_cross_entropy_of_probabilities_is_the_mean_over_their_labels():
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(1).dirichlet(np.ones(4), size=6), jnp.float32)
    for smoothing in (0.0, 0.3):
        found = networks.cross_entropy(logits, weights, label_smoothing=smoothing)
        parts = [
            networks.cross_entropy(logits[i : i + 1], jnp.array([c]), label_smoothing=smoothing) * weights[i, c]
            for i in range(6)
            for c in range(4)
        ]
        np.testing.assert_allclose(found, sum(parts) / 6, rtol=1e-5)
        one_hot = networks.cross_entropy(logits, jax.nn.one_hot(jnp.arange(6) % 4, 4), label_smoothing=smoothing)
        labels = networks.cross_entropy(logits, jnp.arange(6) % 4, label_smoothing=smoothing)
        np.testing.assert_allclose(one_hot, labels, rtol=1e-6)


@pytest.mark.parametrize(
    "labels", [jnp.ones((3, 2)), jnp.full((3, 4), 0.5), jnp.eye(4)[:3] * 2 - 1, jnp.zeros((3, 4), int)]
)
def test_cross_entropy_refuses_what_is_no_distribution(labels):
    with pytest.raises(ValueError, match="probabilities"):
        networks.cross_entropy(jnp.zeros((3, 4)), labels)


@pytest.mark.parametrize(
    "mode",
    [{"jax_numpy_rank_promotion": "raise"}, {"jax_numpy_dtype_promotion": "strict"}],
    ids=lambda mode: next(iter(mode)),
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_augmentation_runs_where_jax_is_strict(mode, dtype):
    batch = a_batch()
    expected = {name: augment(KEY, batch)["x"].shape for name, augment in ALL.items()}
    before = {name: getattr(jax.config, name) for name in mode}
    for name, value in mode.items():
        jax.config.update(name, value)
    try:
        for name, augment in ALL.items():
            found = jax.eval_shape(augment, KEY, {**batch, "x": batch["x"].astype(dtype)})["x"]
            assert (found.shape, found.dtype) == (expected[name], dtype), name
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_no_rotation_changes_no_pixel_of_a_large_image_in_half_a_precision():
    """bfloat16 has no number between 256 and 258: coordinates need more digits than pixels."""
    x = jnp.zeros((1, 2, 300, 1), jnp.bfloat16).at[0, 1, 257].set(1)
    np.testing.assert_array_equal(rotation(0.0)(KEY, {"x": x, "y": jnp.zeros(1)})["x"], x)


@pytest.mark.parametrize("mixes", [mixup, cutmix])
@pytest.mark.parametrize("alpha", [np.inf, 1e-38, 0.0, np.nan])
def test_a_beta_distribution_that_single_precision_cannot_draw_is_refused(mixes, alpha):
    with pytest.raises(ValueError, match="alpha"):
        mixes(alpha, num_classes=CLASSES)


@pytest.mark.parametrize("alpha", [1e-6, 1e6])
def test_mixing_with_an_extreme_alpha_is_finite(alpha):
    """Beta(α, α) has the variance 1 / (4 (2α + 1)): all at 0 and 1, or all at ½."""
    batch = {"x": jnp.array([[1.0], [0.0]], jnp.float16), "y": jnp.array([0, 1])}
    weights = jax.vmap(lambda key: mixup(alpha, num_classes=2)(key, batch)["x"][:, 0])(jax.random.split(KEY, 8))
    expected = np.array([0.0, 1.0]) if alpha < 1 else np.array([0.0, 0.5, 1.0])  # 0 and 1 where π is the identity
    assert np.abs(np.asarray(weights)[..., None] - expected).min(-1).max() < 5e-3


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("key", [None, 0, jax.random.split(KEY, 2)], ids=["none", "number", "keys"])
def test_what_is_no_key_is_refused_by_name(name, key):
    with pytest.raises((TypeError, ValueError), match=f"{name.split()[0]} needs key"):
        ALL[name](key, a_batch())


@pytest.mark.parametrize("make", [shift, cutout])
def test_a_traced_number_of_pixels_must_be_whole(make):
    batch = a_batch()
    run = jax.jit(lambda pixels: make(pixels)(KEY, batch)["x"])
    np.testing.assert_array_equal(run(2), make(2)(KEY, batch)["x"])
    with pytest.raises(TypeError, match="integer"):
        run(1.7)


def test_what_is_no_floating_number_gets_no_noise():
    seen = []
    problem = Problem("counted", init=lambda key: jnp.ones(2), loss=lambda p, _: (seen.append(p), jnp.float32(0))[1])
    params = {"w": jnp.ones(2), "steps": jnp.int32(3), "key": jax.random.key(1), "scale": 2.0}
    weight_noise(problem, 0.1).step_loss(params, None, None, KEY)
    (moved,) = seen
    assert (moved["w"] != 1).all()
    assert moved["scale"] != 2
    assert moved["steps"] == 3
    assert moved["key"] == params["key"]
