"""The convolution in tiles against XLA's, in values and in derivatives of every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_study.problems.networks import convolve, max_pool
from jaxopt_study.problems.networks._convolution import Geometry, tiles

KEY = jax.random.key(0)
# Image, kernel, strides, padding: whole rows, several tiles, a last tile beyond the row, kernels larger than the image.
CASES = {
    "one tile": ((2, 6, 5, 3), (3, 3, 3, 2), (1, 1), "SAME"),
    "several tiles": ((2, 9, 40, 2), (5, 5, 2, 8), (1, 1), "SAME"),
    "beyond the row": ((1, 7, 41, 1), (3, 4, 1, 16), (1, 1), "VALID"),
    "strides": ((2, 11, 37, 2), (4, 3, 2, 24), (3, 2), "SAME"),
    "strides past the kernel": ((2, 9, 33, 3), (2, 1, 3, 40), (4, 3), "VALID"),
    "pixel by pixel": ((3, 5, 6, 4), (1, 1, 4, 300), (1, 1), "SAME"),
    "kernel larger than the image": ((2, 2, 3, 1), (5, 7, 1, 2), (1, 1), "SAME"),
}


def drawn(case):
    image, kernel, strides, padding = CASES[case]
    rng = np.random.default_rng(0)
    x, k = (jnp.asarray(rng.standard_normal(shape)) for shape in (image, kernel))
    return x, k, {"strides": strides, "padding": padding}


def close(ours, theirs, tol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=tol, atol=tol * np.abs(b).max()), ours, theirs)


def functional(method, options):
    """A function of images and kernel that is not linear in its outputs."""
    return lambda x, k: jnp.sum(jnp.sin(convolve(x, k, method=method, **options)))


@pytest.mark.parametrize("case", CASES)
def test_values_and_first_derivatives_are_those_of_xlas_convolution(case):
    with jax.enable_x64(True):
        x, k, options = drawn(case)
        ours, theirs = (convolve(x, k, method=m, **options) for m in ("patches", "native"))
        assert ours.shape == theirs.shape
        close(ours, theirs)
        close(*(jax.grad(functional(m, options), (0, 1))(x, k) for m in ("patches", "native")))


@pytest.mark.parametrize("case", ["several tiles", "beyond the row", "strides", "strides past the kernel"])
def test_second_derivatives_are_those_of_xlas_convolution(case):
    with jax.enable_x64(True):
        x, k, options = drawn(case)
        rng = np.random.default_rng(1)
        tangents = tuple(jnp.asarray(rng.standard_normal(a.shape)) for a in (x, k))

        def products(method):
            gradient = jax.grad(functional(method, options), (0, 1))
            forward = jax.jvp(gradient, (x, k), tangents)[1]
            linear = jax.linearize(gradient, x, k)[1](*tangents)
            reverse = jax.vjp(gradient, x, k)[1](tangents)
            return forward, linear, reverse

        close(products("patches"), products("native"), 1e-11)


def test_third_derivatives_are_those_of_xlas_convolution():
    with jax.enable_x64(True):
        x, k, options = drawn("one tile")

        def third(method):
            f = lambda t: functional(method, options)(x + t * x**2, k + t * k**2)
            return jax.grad(jax.grad(jax.grad(f)))(0.3)

        close(third("patches"), third("native"), 1e-11)


@pytest.mark.parametrize("mapped", [(0, None), (None, 0), (0, 0)], ids=["images", "kernels", "both"])
def test_gradients_vectorise_over_images_kernels_and_both(mapped):
    with jax.enable_x64(True):
        x, k, options = drawn("several tiles")
        x, k = (jnp.stack([a, 2 * a, -a]) if axis == 0 else a for a, axis in zip((x, k), mapped, strict=True))

        def each(method):
            f = functional(method, options)
            inside = jax.vmap(jax.grad(f, (0, 1)), mapped)(x, k)
            outside = jax.grad(lambda x, k: jnp.sum(jax.vmap(f, mapped)(x, k)), (0, 1))(x, k)
            return inside, outside

        close(each("patches"), each("native"), 1e-11)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_and_errs_by_its_last_digits(dtype):
    with jax.enable_x64(True):
        x, k, options = drawn("several tiles")
        exact = jax.device_get(jax.grad(functional("native", options), (0, 1))(x, k))
    rounded = jax.grad(functional("patches", options), (0, 1))(x.astype(dtype), k.astype(dtype))
    for ours, theirs in zip(rounded, exact, strict=True):
        assert ours.dtype == dtype
        error = jnp.max(jnp.abs(ours.astype(jnp.float32) - theirs)) / jnp.max(jnp.abs(theirs))
        assert error < 8 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize(
    ("image", "kernel"), [((0, 5, 5, 2), (3, 3, 2, 4)), ((2, 2, 2, 1), (3, 3, 1, 4))], ids=["no examples", "no outputs"]
)
def test_empty_convolutions_are_empty(image, kernel):
    x, k = jnp.ones(image), jnp.ones(kernel)
    ours, theirs = (convolve(x, k, padding="VALID", method=m) for m in ("patches", "native"))
    assert ours.shape == theirs.shape


def geometry(image, kernel):
    margins = tuple(((size - 1) // 2, size // 2) for size in kernel[:2])
    return Geometry(image, kernel, (1, 1), margins)


@pytest.mark.parametrize(
    ("image", "kernel"),
    [
        ((500, 28, 28, 1), (5, 5, 1, 8)),
        ((128, 14, 14, 8), (5, 5, 8, 16)),
        ((64, 32, 32, 64), (3, 3, 64, 64)),
        ((8, 224, 224, 3), (7, 7, 3, 64)),
        ((32, 56, 56, 128), (3, 3, 128, 128)),
    ],
)
def test_patches_and_matrices_are_never_larger_than_the_patches_of_every_pixel(image, kernel):
    of = geometry(image, kernel)
    cut = tiles(of)
    high, across, channels, outputs = kernel
    examples, rows, columns, _ = of.output
    depth = len(cut.starts) * cut.reach * high * channels
    pixels = examples * rows * columns * high * across * channels
    assert depth * rows * examples <= pixels
    assert depth * cut.width * outputs <= pixels / 2


def test_gradients_hold_less_memory_than_the_patches_of_every_pixel():
    x, k = jax.ShapeDtypeStruct((256, 28, 28, 4), jnp.float32), jax.ShapeDtypeStruct((5, 5, 4, 8), jnp.float32)
    gradient = jax.jit(jax.grad(functional("patches", {}), (0, 1)))
    memory = gradient.lower(x, k).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < 4 * 256 * 28 * 28 * 4 * 25


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 6, 6, 3), 2), ((2, 7, 5, 3), 2), ((1, 9, 10, 2), 3), ((1, 3, 3, 1), 1)]
)
def test_both_forms_of_max_pooling_agree_where_values_tie(shape, size):
    with jax.enable_x64(True):
        x = jnp.round(2 * jax.random.normal(KEY, shape, jnp.float64))
        v = jax.random.normal(jax.random.key(1), shape, jnp.float64)

        def results(method):
            f = lambda x: jnp.sum(jnp.sin(max_pool(x, size, method=method)))
            return max_pool(x, size, method=method), jax.grad(f)(x), jax.jvp(jax.grad(f), (x,), (v,))[1]

        close(results("patches"), results("native"))


def test_max_pool_names_the_methods_that_there_are():
    with pytest.raises(ValueError, match=r"patches.*'fft'"):
        max_pool(jnp.ones((1, 4, 4, 1)), 2, method="fft")
