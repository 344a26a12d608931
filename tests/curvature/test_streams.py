"""Operators over a loader are those over its concatenated batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import dynamics
from jaxopt_study.curvature import (
    audit,
    classify_point,
    diagonal,
    eigenpairs,
    empirical_fisher,
    find_critical_point,
    ggn,
    hessian,
    morse_index,
    path,
    plane,
    sharpness,
    spectral_density,
    trace,
)  # fmt: skip

X = np.random.default_rng(0).normal(size=(23, 4)).astype(np.float32)
Y = np.sin(X.sum(axis=1))
PARAMS = {"w": jax.random.normal(jax.random.key(1), (4, 5)) / 2, "v": jax.random.normal(jax.random.key(2), (5,)) / 2}
KEY = jax.random.key(0)


def model(params, batch):
    return jnp.tanh(batch[0] @ params["w"]) @ params["v"]


def output_loss(outputs, batch):
    return jnp.mean((outputs - batch[1]) ** 2)


def loss(params, batch):
    return output_loss(model(params, batch), batch)


def losses(params, batch):
    return (model(params, batch) - batch[1]) ** 2


def batches(size=6, x=X, y=Y):
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]  # the last has 5 examples


class Loader:
    """Minimal loader, with the two methods of torch's map-style sets."""

    def __getitem__(self, index):
        return batches()[index]

    def __len__(self):
        return len(batches())


class Iterates:
    def __iter__(self):
        return iter(batches())


SOURCES = {
    "list": batches(),
    "dictionaries": None,
    "factory": lambda: iter(batches()),
    "iterable": Iterates(),
    "sequence": Loader(),
}


@pytest.mark.parametrize("name", [name for name in SOURCES if SOURCES[name] is not None])
def test_a_stream_gives_the_hessian_of_all_examples(name):
    op = hessian(loss, PARAMS, SOURCES[name])
    whole = hessian(loss, PARAMS, (X, Y))
    np.testing.assert_allclose(op.to_dense(), whole.to_dense(), rtol=1e-4, atol=1e-6)
    v = jax.tree.map(jnp.ones_like, PARAMS)
    for a, b in zip(jax.tree.leaves(op @ v), jax.tree.leaves(whole @ v), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_a_list_of_arrays_is_one_pytree_as_ever():
    op = hessian(lambda p, batch: loss(p, tuple(batch)), PARAMS, [X, Y], batch_size=6)
    np.testing.assert_allclose(op.to_dense(), hessian(loss, PARAMS, (X, Y)).to_dense(), rtol=1e-4, atol=1e-6)


def test_dictionaries_are_batches():
    named = [{"x": x, "y": y} for x, y in batches()]
    op = hessian(lambda p, batch: loss(p, (batch["x"], batch["y"])), PARAMS, named)
    np.testing.assert_allclose(op.to_dense(), hessian(loss, PARAMS, (X, Y)).to_dense(), rtol=1e-4, atol=1e-6)


def test_torch_loaders_are_read():
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=6)
    op = hessian(loss, PARAMS, loader)
    np.testing.assert_allclose(op.to_dense(), hessian(loss, PARAMS, (X, Y)).to_dense(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda data: ggn(model, output_loss, PARAMS, data),
        lambda data: empirical_fisher(losses, PARAMS, data),
        lambda data: 2.0 * hessian(loss, PARAMS, data) + ggn(model, output_loss, PARAMS, data),
        lambda data: hessian(loss, PARAMS, data).restrict(lambda path: path == "w"),
        lambda data: hessian(loss, PARAMS, data).precondition(jax.tree.map(lambda x: 2.0 + 0 * x, PARAMS)),
        lambda data: hessian(loss, PARAMS, data, mode="finite_difference"),
    ],
    ids=["ggn", "fisher", "sum", "block", "preconditioned", "differences"],
)
def test_every_operator_and_its_algebra_take_streams(make):
    exact = make((X, Y)).to_dense()
    np.testing.assert_allclose(make(batches()).to_dense(), exact, rtol=1e-4, atol=2e-3 * float(jnp.abs(exact).max()))


def test_every_spectral_function_takes_streams():
    op, exact = hessian(loss, PARAMS, batches()), np.asarray(hessian(loss, PARAMS, (X, Y)).to_dense(), np.float64)
    values = np.linalg.eigvalsh(exact)
    np.testing.assert_allclose(eigenpairs(op, 2, key=KEY).values, values[::-1][:2], rtol=1e-4)
    bracket = sharpness(op, key=KEY)
    assert float(bracket.lower) <= values[-1] * (1 + 1e-5)
    assert values[-1] <= float(bracket.upper)
    np.testing.assert_allclose(trace(op, key=KEY, num_probes=30).value, np.trace(exact), rtol=1e-4)
    np.testing.assert_allclose(
        jax.flatten_util.ravel_pytree(diagonal(op, key=KEY, num_probes=30).value)[0], np.diag(exact), atol=1e-5
    )
    assert int(morse_index(op, key=KEY).estimate) == int((values < -float(morse_index(op, key=KEY).tau)).sum())
    density = spectral_density(op, num_probes=2, num_steps=8, key=KEY)
    assert np.isfinite(np.asarray(density.density)).all()


def test_a_point_is_classified_from_a_stream():
    streamed = classify_point(loss, PARAMS, batches(), key=KEY)
    whole = classify_point(loss, PARAMS, (X, Y), key=KEY)
    assert streamed.verdict == whole.verdict
    np.testing.assert_allclose(streamed.gradient_norm, whole.gradient_norm, rtol=1e-5)


def test_an_audit_of_a_stream_is_sound_and_compares_with_double_precision():
    told = audit(hessian(loss, PARAMS, batches()), key=KEY)
    assert told.verdict == "sound", told.messages
    assert told.rounding is not None
    assert told.partition is not None
    assert audit(hessian(loss, PARAMS, batches()) * 2.0, key=KEY).verdict == "sound"


def test_an_audit_tells_shuffling_from_augmentation():
    generator = np.random.default_rng(3)

    def shuffled():
        order = generator.permutation(len(X))
        return iter(batches(x=X[order], y=Y[order]))

    def augmented():
        return iter(batches(x=X + generator.normal(size=X.shape).astype(np.float32), y=Y))

    assert audit(hessian(loss, PARAMS, shuffled), key=KEY).verdict == "sound"
    told = audit(hessian(loss, PARAMS, augmented), key=KEY)
    assert told.verdict == "unsound"
    assert "other examples the second time" in told.messages[0]


def test_a_sum_over_examples_is_found_out():
    total = lambda params, batch: len(batch[1]) * loss(params, batch)
    assert audit(hessian(total, PARAMS, batches()), key=KEY).verdict == "unsound"


def test_memory_is_that_of_one_batch():
    alive = []

    def counted():
        for batch in batches(size=2):
            alive.append(sum(leaf.size for leaf in jax.live_arrays()))
            yield batch

    op = hessian(loss, PARAMS, counted)
    v = jax.tree.map(jnp.ones_like, PARAMS)
    op @ v
    alive.clear()
    op @ v
    assert max(alive[3:]) - min(alive[3:]) < 3 * 2 * 5 + 2 * 25  # not growing with the batches


class Once:
    """Batches whose every reading continues the one before, though it is no iterator itself."""

    def __init__(self):
        self.batches = iter(batches())

    def __iter__(self):
        return self.batches


class Persistent:
    """One iterator that every reading starts again, as that of a torch loader with persistent workers."""

    def __iter__(self):
        self.index = 0
        return self

    def __next__(self):
        self.index += 1
        if self.index > len(batches()):
            raise StopIteration
        return batches()[self.index - 1]


class Held:
    """A loader that holds its iterator, which is no type of `collections.abc` that could be told by its name."""

    def __init__(self):
        self.held = Persistent()

    def __iter__(self):
        return iter(self.held)


def test_one_iterator_that_starts_again_is_a_stream():
    v = jax.tree.map(jnp.ones_like, PARAMS)
    for found, right in zip(
        jax.tree.leaves(hessian(loss, PARAMS, Held()) @ v),
        jax.tree.leaves(hessian(loss, PARAMS, (X, Y)) @ v),
        strict=True,
    ):
        np.testing.assert_allclose(found, right, atol=1e-5)


def test_batches_without_examples_count_nothing():
    holes = [(X[:0], Y[:0]), *batches(), (X[:0], Y[:0])]
    whole = path(loss, PARAMS, PARAMS, (X, Y), steps=[0.0, 0.1])
    found = path(loss, PARAMS, PARAMS, holes, steps=[0.0, 0.1])
    np.testing.assert_allclose(found.losses, whole.losses, rtol=1e-5)


def test_a_stream_that_ends_for_good_after_it_was_accepted_is_refused_by_name():
    left = batches()
    op = hessian(loss, PARAMS, lambda: iter(list(left)))
    left.clear()
    with pytest.raises(ValueError, match=r"hessian reads its batches once for every product.*no longer yields any"):
        op @ PARAMS


def test_path_and_plane_take_streams():
    steps = [-0.5, 0.0, 0.7]
    oracle = [loss(jax.tree.map(lambda p, s=s: p * (1 + s), PARAMS), (X, Y)) for s in steps]
    found = path(loss, PARAMS, PARAMS, batches(), steps=steps)
    np.testing.assert_allclose(found.losses, oracle, rtol=1e-5)
    flat, unravel = jax.flatten_util.ravel_pytree(PARAMS)
    dense = jax.hessian(lambda p: loss(unravel(p), (X, Y)))(flat)
    np.testing.assert_allclose(found.curvature, flat @ dense @ flat, rtol=1e-4)
    np.testing.assert_allclose(found.slope, flat @ jax.grad(lambda p: loss(unravel(p), (X, Y)))(flat), rtol=1e-4)
    surface = plane(loss, PARAMS, (PARAMS, PARAMS), batches(), x=steps, y=[0.0])
    np.testing.assert_allclose(surface.losses[0], oracle, rtol=1e-5)


TAKES_DATA = {
    "find_critical_point": lambda data: find_critical_point(loss, PARAMS, data, key=KEY),
    "stability": lambda data: dynamics.stability(*STEP, data, key=KEY),
    "preconditioner": lambda data: dynamics.preconditioner(*STEP, data),
    "preconditioned_sharpness": lambda data: dynamics.preconditioned_sharpness(*STEP, data, key=KEY),
    "preconditioned_density": lambda data: dynamics.preconditioned_density(*STEP, data, key=KEY),
    "critical_sharpness": lambda data: dynamics.critical_sharpness(*STEP, data),
    "directional_sharpness": lambda data: dynamics.directional_sharpness(*STEP, data),
    "learning_rate_range": lambda data: dynamics.learning_rate_range(optax.sgd, loss, PARAMS, data, key=KEY),
    "account_step": lambda data: dynamics.account_step(loss, PARAMS, PARAMS, data),
    "gradient_noise": lambda data: dynamics.gradient_noise(loss, PARAMS, data, batch_size=2, key=KEY),
    "batch_sharpness": lambda data: dynamics.batch_sharpness(loss, PARAMS, data, batch_size=2, key=KEY),
}
STEP = (optax.sgd(0.1), optax.sgd(0.1).init(PARAMS), loss, PARAMS)


@pytest.mark.parametrize("name", TAKES_DATA)
def test_batches_that_can_be_read_once_are_refused(name):
    with pytest.raises(TypeError, match=r"can be read once|takes all examples as arrays"):
        TAKES_DATA[name](iter(batches()))


WRONG = {
    "once": (Once, TypeError, "which can be read once"),
    "function of one iterator": (lambda: Once().__iter__, TypeError, "which can be read once"),
    "another structure": (lambda: [batches()[0], {"x": X}], ValueError, "the structure of the first"),
    "no examples": (lambda: [(X[:0], Y[:0])], ValueError, "at least one batch with examples"),
    "generator": (lambda: (batch for batch in batches()), TypeError, "which can be read once.*a function that returns"),
    "function": (lambda: lambda *_: None, TypeError, "something that yields batches"),
    "function of batches": (lambda: lambda batch: batch, TypeError, "a function without arguments"),
    "no batches": (lambda: lambda: iter(()), ValueError, "at least one batch"),
    "ragged": (lambda: [(X, Y[:3])], ValueError, "common leading axis"),
    "numbers": (lambda: [(1.0, 2.0)], ValueError, "common leading axis"),
    "words": (lambda: [({"a": "seven"}, "eight")], TypeError, "must be arrays"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_stream_of_batches_is_refused(name):
    data, error, words = WRONG[name]
    with pytest.raises(error, match=words):
        hessian(loss, PARAMS, data()) @ PARAMS


def test_a_stream_has_its_own_batches_and_stays_outside_of_compiled_programs():
    with pytest.raises(ValueError, match="batches of a loader as they come"):
        hessian(loss, PARAMS, batches(), batch_size=3)
    op = hessian(loss, PARAMS, batches())
    with pytest.raises(TypeError, match=r"outside of jax\.jit"):
        jax.jit(lambda v: op.matvec(v))(PARAMS)
    with pytest.raises(TypeError, match="all examples as arrays"):
        find_critical_point(loss, PARAMS, batches(), key=KEY)
