"""The model of any training script is examined as the README does it, whatever library it comes from."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.flatten_util import ravel_pytree

from jaxopt_study import examine, problems

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32)
DATA = {"x": X, "y": (X[:, 0] * X[:, 1] > 0).astype(np.int32)}
TX = optax.adam(1e-2)

pytestmark = pytest.mark.slow  # each compiles a training step and an examination


def cross_entropy(logits, batch):
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"]).mean()


def trained(loss, params, data, steps=5):
    """Return parameters and state after a loop as training scripts have it."""

    @jax.jit
    def step(params, state):
        updates, state = TX.update(jax.grad(loss)(params, data), state, params)
        return optax.apply_updates(params, updates), state

    state = TX.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params, state


def check(found, loss, params, data):
    """Hold an examination against the dense Hessian of the plain function, from JAX alone."""
    assert found.errors == {}
    assert found.results["audit"]["verdict"] == "sound"
    assert {"sharpness", "threshold", "preconditioned", "accounting"} <= set(found.results)
    assert any(finding.subject == "learning rate" for finding in found.findings)
    flat, back = ravel_pytree(params)
    gradient = jax.grad(lambda w: loss(back(w), data))
    rows = jax.jit(lambda w: jax.lax.map(lambda e: jax.jvp(gradient, (w,), (e,))[1], jnp.eye(w.size)))(flat)
    largest = float(np.linalg.eigvalsh(rows)[-1])
    bounds = found.results["sharpness"]
    assert bounds["lower"] <= largest * (1 + 1e-4)
    assert largest <= bounds["upper"] * (1 + 1e-4)


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(5)(x))
        return linen.Dense(2)(jnp.tanh(x))


def test_a_linen_model_with_batch_norm_after_its_own_training_loop():
    model = LinenNet()
    variables = model.init(KEY, DATA["x"], train=True)
    params, stats = variables["params"], variables["batch_stats"]

    def step_loss(params, stats, batch):
        logits, changed = model.apply(
            {"params": params, "batch_stats": stats}, batch["x"], train=True, mutable=["batch_stats"]
        )
        return cross_entropy(logits, batch), changed["batch_stats"]

    state = TX.init(params)
    for _ in range(5):
        grads, stats = jax.grad(step_loss, has_aux=True)(params, stats, DATA)
        updates, state = TX.update(grads, state, params)
        params = optax.apply_updates(params, updates)

    def loss(params, batch):
        return cross_entropy(model.apply({"params": params, "batch_stats": stats}, batch["x"], train=False), batch)

    found = examine(loss, params, DATA, optimizer=TX, opt_state=state, batch_size=10)
    check(found, loss, params, DATA)
    with pytest.raises(ValueError, match=r"Give variables\['params'\]"):
        examine(loss, {"params": params, "batch_stats": stats}, DATA)
    in_training = examine(lambda p, batch: step_loss(p, stats, batch)[0], params, DATA)
    assert "is that of all data as one batch" in " ".join(in_training.results["audit"]["messages"])


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.hidden, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)
        self.out = nnx.Linear(4, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(jnp.tanh(self.norm(self.hidden(x))))


def test_an_nnx_model_with_its_own_optimizer():
    model = NnxNet(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, TX, wrt=nnx.Param)
    model_loss = lambda model, batch: cross_entropy(model(batch["x"]), batch)
    for _ in range(3):
        optimizer.update(model, nnx.grad(model_loss)(model, DATA))
    model.eval()
    graph, params, others = nnx.split(model, nnx.Param, ...)
    loss = lambda params, batch: model_loss(nnx.merge(graph, params, others), batch)
    found = examine(loss, params, DATA, optimizer=optimizer.tx, opt_state=optimizer.opt_state)
    check(found, loss, params, DATA)


def test_an_equinox_model():
    eqx = pytest.importorskip("equinox")
    model = eqx.nn.MLP(3, 2, 4, 1, activation=jnp.tanh, key=KEY)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    loss = lambda params, batch: cross_entropy(jax.vmap(eqx.combine(params, static))(batch["x"]), batch)
    whole = lambda model, batch: cross_entropy(jax.vmap(model)(batch["x"]), batch)
    problem = problems.from_pytree(model, whole, data=DATA, freeze_others=True)
    np.testing.assert_allclose(problem.loss(problem.init(KEY), DATA), loss(params, DATA), rtol=1e-6)
    params, state = trained(loss, params, DATA)
    check(examine(loss, params, DATA, optimizer=TX, opt_state=state), loss, params, DATA)


def vae_loss(params, x, noise):
    """The negative evidence lower bound with Gaussian noise that belongs to the examples."""
    mean, log_var = jnp.split(x @ params["encoder"], 2, axis=1)
    decoded = (mean + jnp.exp(0.5 * log_var) * noise) @ params["decoder"]
    divergence = 0.5 * jnp.sum(jnp.exp(log_var) + mean**2 - 1 - log_var, axis=1)
    return jnp.mean(jnp.sum((decoded - x) ** 2, axis=1) + divergence)


def test_a_variational_loss_with_a_key_and_with_noise_of_each_example():
    first, second = jax.random.split(KEY)
    params = {"encoder": jax.random.normal(first, (3, 4)) / 3, "decoder": jax.random.normal(second, (2, 3)) / 3}
    with_key = lambda params, x: vae_loss(params, x, jax.random.normal(KEY, (x.shape[0], 2)))
    params, state = trained(with_key, params, X)
    check(examine(with_key, params, X, optimizer=TX, opt_state=state), with_key, params, X)
    in_batches = examine(lambda params, batch: with_key(params, batch[0]), params, [(X[:9],), (X[9:],)])
    assert in_batches.results["audit"]["verdict"] == "unsound"  # a batch draws what no other batch does
    assert "keep noise with the examples" in in_batches.findings[0].advice

    data = {"x": X, "noise": np.asarray(jax.random.normal(KEY, (24, 2)))}
    loss = lambda params, batch: vae_loss(params, batch["x"], batch["noise"])
    check(examine(loss, params, data, optimizer=TX, opt_state=state, batch_size=9), loss, params, data)


class DataLoader:
    """What a training script has of torch: lists of arrays, shuffled anew in every epoch, with a smaller last batch."""

    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 3

    def __iter__(self):
        order = self.rng.permutation(24)
        for start in range(0, 24, 10):
            part = order[start : start + 10]
            yield [DATA["x"][part], DATA["y"][part]]


def test_a_loader_that_shuffles():
    def loss(params, batch):
        x, y = batch
        return cross_entropy(jnp.tanh(x @ params["w"]) @ params["v"], {"y": y})

    params = {"w": jax.random.normal(KEY, (3, 4)), "v": jax.random.normal(jax.random.key(1), (4, 2))}
    everything = [DATA["x"], DATA["y"]]
    params, state = trained(loss, params, everything)
    check(examine(loss, params, DataLoader(), optimizer=TX, opt_state=state), loss, params, everything)


def test_a_language_model():
    problem = problems.networks.gpt(problems.datasets.text(context=8, num_train=32), depth=1, width=8)
    params, state = trained(problem.loss, problem.init(KEY), problem.data)
    found = examine(problem.loss, params, problem.data, optimizer=TX, opt_state=state)
    check(found, problem.loss, params, problem.data)
