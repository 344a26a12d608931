"""A product that does not fit in memory is refused, or read in batches, before it runs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import curvature, dynamics, examine, problems, training
from jaxopt_study.curvature.operators import _memory

N, WIDTH = 512, 64
X = jnp.asarray(np.random.default_rng(0).normal(size=(N, 4)), jnp.float32)
PARAMS = {"w": jax.random.normal(jax.random.key(0), (4, WIDTH)) / 2}
ONES = jax.tree.map(jnp.ones_like, PARAMS)
SGD = optax.sgd(0.1)
KEY = jax.random.key(1)


def model(params, batch):
    return jnp.tanh(batch @ params["w"])


def losses(params, batch):
    return jnp.mean(model(params, batch) ** 2, axis=1)


def loss(params, batch):
    return jnp.mean(losses(params, batch))


def squares(outputs, _):
    return jnp.mean(outputs**2)


def bytes_of(op):
    """Return XLA's count for one product."""
    found = jax.jit(lambda op, v: op.matvec(v)).lower(op, ONES).compile().memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes


@pytest.fixture(scope="module")
def whole():
    return curvature.hessian(loss, PARAMS, X)


@pytest.fixture(scope="module")
def needed(whole):
    return bytes_of(whole)


@pytest.fixture
def leave(monkeypatch):
    return lambda size: monkeypatch.setattr(_memory, "free_memory", lambda: int(size))


def test_what_does_not_fit_is_refused_and_the_batch_size_that_it_names_fits(leave, whole, needed):
    leave(0.9 * needed)
    with pytest.raises(ValueError, match=r"hessian needs about .* over 512 examples at once; .* are free") as refused:
        curvature.hessian(loss, PARAMS, X)
    size = int(re.search(r"batch_size=(\d+) or less", str(refused.value))[1])
    smaller = curvature.hessian(loss, PARAMS, X, batch_size=size)
    assert bytes_of(smaller) < 0.5 * needed
    np.testing.assert_allclose((smaller @ ONES)["w"], (whole @ ONES)["w"], atol=1e-6)


def test_residuals_that_do_not_fit_are_not_kept(leave, whole, needed):
    leave(7 * needed)
    assert not whole.remat
    assert curvature.hessian(loss, PARAMS, X).remat
    leave(1.5 * needed)
    for batch_size in (None, 64):
        with pytest.raises(ValueError, match=r"hessian with remat=False needs about .* Omit remat"):
            curvature.hessian(loss, PARAMS, X, batch_size=batch_size, remat=False)
    leave(3 * needed)
    assert not curvature.hessian(loss, PARAMS, X, remat=False).remat


def test_without_smaller_batches_the_remedy_is_another(leave, needed):
    leave(0.5 * needed)
    with pytest.raises(ValueError, match=r"for a product; .* jax\.checkpoint"):
        curvature.hessian(lambda p, batch: loss(p, batch[0]) + batch[1], PARAMS, (X, jnp.float32(1)))


def test_small_products_are_not_compiled_to_find_out(monkeypatch):
    monkeypatch.setattr(_memory, "_bytes_of_product", None)
    curvature.hessian(loss, PARAMS, X)


def probed():
    problem = problems.from_pytree(PARAMS, loss, data=X)
    training.train(
        problem, SGD, num_steps=1, key=KEY, batch_size=8, probe=training.CurvatureProbe(gains=False), progress=False
    )


STEP = (SGD, SGD.init(PARAMS), loss, PARAMS, X)
CALLS = {
    "hessian": lambda: curvature.hessian(loss, PARAMS, X),
    "ggn": lambda: curvature.ggn(model, squares, PARAMS, X),
    "empirical_fisher": lambda: curvature.empirical_fisher(losses, PARAMS, X),
    "classify_point": lambda: curvature.classify_point(loss, PARAMS, X, key=KEY),
    "find_critical_point": lambda: curvature.find_critical_point(loss, PARAMS, X, key=KEY),
    "stability": lambda: dynamics.stability(*STEP, key=KEY),
    "preconditioned_sharpness": lambda: dynamics.preconditioned_sharpness(*STEP, key=KEY),
    "account_step": lambda: dynamics.account_step(loss, PARAMS, ONES, X),
    "gradient_noise": lambda: dynamics.gradient_noise(loss, PARAMS, X, batch_size=N, key=KEY),
    "a loader": lambda: curvature.hessian(lambda p, batch: loss(p, batch[0]), PARAMS, [(X,), (X,)]),
    "CurvatureProbe": probed,
}


@pytest.mark.parametrize("name", CALLS)
def test_whatever_multiplies_by_the_hessian_of_all_examples_says_so_first(leave, name):
    leave(1e4)
    with pytest.raises(ValueError, match="of memory for a product over 512 examples at once"):
        CALLS[name]()


def test_an_examination_chooses_batches_that_fit_and_says_which(leave, needed, tmp_path):
    at_once = examine(loss, PARAMS, X, optimizer=SGD)
    assert at_once.batch_size is None
    leave(0.9 * needed)
    found = examine(loss, PARAMS, X, optimizer=SGD)
    assert found.errors == {}
    assert found.batch_size is not None
    assert found.batch_size < N / 4
    assert f"products in batches of {found.batch_size}" in str(found).splitlines()[0]
    assert type(found).load(found.save(tmp_path / "point.json")).batch_size == found.batch_size
    for stage, number in (("sharpness", "lower"), ("accounting", "realised")):
        assert found.results[stage][number] == pytest.approx(at_once.results[stage][number], rel=1e-2)


def test_an_examination_of_a_loss_without_batches_takes_all_at_once_while_that_fits(leave, needed):
    def coupled(params, batch):
        if batch.shape[0] < N:
            raise ValueError("the loss of all examples is no mean over batches")
        return loss(params, batch)

    leave(1.5 * needed)
    assert examine(coupled, PARAMS, X).batch_size is None
    leave(0.9 * needed)
    with pytest.raises(ValueError, match="512 examples at once"):
        examine(coupled, PARAMS, X)


def test_free_memory_is_that_of_the_machine_or_what_a_container_leaves(tmp_path):
    assert _memory.free_memory() > 0
    (tmp_path / "meminfo").write_text("MemTotal:  3000 kB\nMemAvailable:    2000 kB\n")
    assert _memory.of_machine(tmp_path / "meminfo") == 2000 * 1024
    for version, names in enumerate(
        (("memory.max", "memory.current", ""), ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_"))
    ):
        root = tmp_path / str(version)
        place = root / "memory" if version else root
        place.mkdir(parents=True)
        (place / names[0]).write_text("5000\n")
        (place / names[1]).write_text("3000\n")
        (place / "memory.stat").write_text(f"file 900\n{names[2]}inactive_file 700\n")
        assert _memory.of_group(root) == 2700
