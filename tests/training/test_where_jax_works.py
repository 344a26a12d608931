"""Training where else JAX works: meshes of devices, data and models of other libraries, debug modes."""

import json
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxopt_study import curvature, optimizers, problems, records
from jaxopt_study.problems import Problem, datasets
from jaxopt_study.training import CurvatureProbe, EarlyStopping, Probe, evaluate, train

KEY = jax.random.key(0)

ON_MESHES = """
import json
import os
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from jaxopt_study import optimizers
from jaxopt_study.problems import Problem, from_pytree
from jaxopt_study.training import evaluate, train

X = np.arange(128.0, dtype=np.float32).reshape(16, 8) / 128
loss = lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2)
found = []
for kind in (AxisType.Auto, AxisType.Explicit):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        for spec, data_spec, batch_size in ((P("d"), P(), None), (P(), P("d"), 8), (P(), P("d"), 5)):
            put = lambda x, s: jax.device_put(x, NamedSharding(mesh, s))
            problem = Problem("p", init=lambda key: jnp.ones(8), loss=loss,
                              data={"x": put(X, data_spec), "y": put(X.sum(1), data_spec)})
            run = train(problem, optimizers.adam(0.01), num_steps=4, key=jax.random.key(0), batch_size=batch_size,
                        params=put(0.5 * jnp.ones(8), spec), progress=False)
            moments = [leaf for leaf in jax.tree.leaves(run.opt_state) if leaf.ndim]
            kept = all(leaf.sharding.shard_shape(leaf.shape) == ((1,) if spec == P("d") else (8,))
                       for leaf in (run.params, *moments))
            found.append([kept, np.asarray(run.losses).tolist(), bool(run.stalled)])
# The mesh is not set here: a problem's own start and batches of its evaluations are spread.
for kind, spec, data_spec in ((AxisType.Explicit, P("d"), P()), (AxisType.Explicit, P(), P("d")),
                              (AxisType.Auto, P("d"), P()), (AxisType.Auto, P(), P("d"))):
    mesh = jax.make_mesh((8,), ("d",), axis_types=(kind,))
    start = put(0.5 * jnp.ones(8), spec)
    problem = from_pytree(start, loss, data={"x": put(X, data_spec), "y": put(X.sum(1), data_spec)})
    run = train(problem, optimizers.sgd(0.0), num_steps=2, key=jax.random.key(0), evaluate_every=1,
                evaluate_batch_size=5, progress=False)
    kept = run.params.sharding.is_equivalent_to(start.sharding, 1)
    losses = [*run.losses, *run.evaluations["train_loss"], evaluate(problem, start, on="train", batch_size=8)["loss"]]
    found.append([kept, [float(loss) for loss in losses], False])
print(json.dumps(found))
"""


def test_arrays_on_explicit_and_automatic_meshes_stay_where_they_are():
    environment = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", ON_MESHES], capture_output=True, text=True, timeout=600, check=False,
        env=dict(os.environ) | environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    x = np.arange(128.0, dtype=np.float32).reshape(16, 8) / 128
    problem = Problem(
        "p", init=lambda key: jnp.ones(8), loss=lambda w, batch: jnp.mean((batch["x"] @ w - batch["y"]) ** 2),
        data={"x": x, "y": x.sum(1)},
    )  # fmt: skip
    for kept, losses, _ in found[6:]:
        assert kept
        np.testing.assert_allclose(losses, float(problem.loss(0.5 * jnp.ones(8), problem.data)), rtol=1e-5)
    for (kept, losses, stalled), batch_size in zip(found[:6], 2 * (None, 8, 5), strict=True):
        assert kept
        assert not stalled
        alone = train(
            problem, optimizers.adam(0.01), num_steps=4, key=KEY, batch_size=batch_size, params=0.5 * jnp.ones(8)
        )
        np.testing.assert_allclose(losses, alone.losses, rtol=1e-5)


class Tensor:
    """What torch.Tensor looks like from outside; torch itself is no dependency."""

    __module__ = "torch"

    def __init__(self, values):
        self.values, self.requires_grad = np.asarray(values), True
        self.dtype, self.shape = types.SimpleNamespace(), self.values.shape

    def detach(self):
        return self.values_only()

    def values_only(self):
        clone = Tensor(self.values)
        clone.requires_grad = False
        return clone

    def cpu(self):
        return self

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad.")
        return self.values


def test_tensors_and_frames_are_converted():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    data = {"x": frame, "y": frame["a"], "z": Tensor([5.0, 6.0])}
    problem = Problem("frames", init=jnp.zeros, loss=lambda p, batch: p, data=data)
    np.testing.assert_array_equal(problem.data["x"], [[1.0, 3.0], [2.0, 4.0]])
    np.testing.assert_array_equal(problem.data["y"], [1.0, 2.0])
    np.testing.assert_array_equal(problem.data["z"], [5.0, 6.0])
    dataset = datasets.from_arrays(Tensor(np.ones((4, 2))), pandas.Series([0, 1, 0, 1]), num_classes=2)
    assert dataset.train["x"].shape == (4, 2)
    with pytest.raises(TypeError, match="Encode text and categories as integers"):
        problem.replace(data={"x": pandas.DataFrame({"a": ["x", "y"]})})
    with pytest.raises(TypeError, match="times as numbers"):
        problem.replace(data={"x": pandas.DataFrame({"a": pandas.to_datetime(["2020-01-01"])})})
    with pytest.raises(TypeError, match=r"Fill missing values, then convert .* astype\(float\)"):
        problem.replace(data={"x": pandas.DataFrame({"a": pandas.array([1, 2], dtype="Int64"), "b": [True, False]})})
    with pytest.raises(TypeError, match=r"received a DataFrame\. Give its columns by name"):
        problem.replace(data=frame)
    assert set(Problem("columns", init=jnp.zeros, loss=lambda p, batch: p, data=dict(frame)).data) == {"a", "b"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([2**40, 2**32 + 1]), "has int64 values that overflow int32"),
        (np.array([-1, -(2**31) - 1]), "has int64 values that overflow int32"),
        (np.array([0, 2**32], np.uint64), "has uint64 values that overflow uint32"),
        (np.array([0.0, 1e39]), "has float64 values that overflow float32"),
        (np.ma.masked_array([0.0, 1e30], mask=[False, True]), "has masked entries"),
    ],
)
def test_data_that_would_change_on_the_device_are_refused(values, message):
    loss = lambda p, batch: jnp.mean((p - batch["y"]) ** 2)
    with pytest.raises(ValueError, match=rf"The data of problem 'p'\['y'\] {message}"):
        Problem("p", init=lambda key: jnp.zeros(()), loss=loss, data={"y": values})
    if values.dtype.kind in "iu":
        with pytest.raises(ValueError, match=message):
            curvature.hessian(loss, jnp.zeros(()), {"y": values})
        with jax.enable_x64(True):
            assert Problem("p", init=lambda key: jnp.zeros(()), loss=loss, data={"y": values}).data["y"] is values
    else:
        with pytest.raises(datasets.DatasetError):
            datasets.from_arrays(values[:, None], [0, 1])


def test_numbers_at_the_ends_of_32_bits_are_data():
    data = {"i": np.array([2**31 - 1, -(2**31)]), "u": np.array([0, 2**32 - 1], np.uint64), "f": np.array([3.4e38, 0])}
    assert Problem("p", init=lambda key: jnp.zeros(()), loss=lambda p, _: p, data=data).data["i"] is data["i"]
    with pytest.raises(datasets.DatasetError, match="must lie in 0…1; received labels from 0 to 4294967296"):
        datasets.from_arrays([[1.0], [2.0]], [0, 2**32], num_classes=2)


def test_parameters_beyond_single_precision_are_refused():
    with pytest.raises(ValueError, match=r"params\['a'\] has float64 values that overflow float32"):
        problems.from_pytree({"a": np.array(1e300)}, lambda p, _: p["a"])
    small = problems.from_pytree({"a": 1.0}, lambda p, _: p["a"] ** 2)
    with pytest.raises(ValueError, match=r"params\['a'\] has float64 values that overflow float32"):
        train(small, optax.sgd(0.1), num_steps=1, key=KEY, params={"a": 1e300})


def test_python_floats_and_scalars_of_numpy_are_parameters():
    def loss(params, batch):
        return params["a"] ** 2 + params["b"] ** 2

    settings = {"num_steps": 1, "key": KEY}
    made = problems.from_pytree({"a": 1.0, "b": np.float32(2)}, loss)
    drawn = Problem("drawn", init=lambda key: {"a": 1.0, "b": np.float64(2)}, loss=loss)
    given = Problem("given", init=lambda key: {"a": 0.0, "b": 0.0}, loss=loss)
    for run in (
        train(made, optax.sgd(0.25), **settings),
        train(drawn, optax.sgd(0.25), **settings),
        train(given, optax.sgd(0.25), params={"a": 1.0, "b": np.float32(2)}, **settings),
    ):
        assert (float(run.params["a"]), float(run.params["b"])) == (0.5, 1.0)


def test_numbers_of_extended_precision_are_those_of_double_precision():
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(6, 3)), rng.normal(size=6), rng.normal(size=3)

    def loss(params, batch):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    def everything(kind):
        params, data = {"w": w.astype(kind)}, {"x": x.astype(kind), "y": y.astype(kind)}
        problem = problems.from_pytree(params, loss, data=data)
        run = train(problem, optimizers.sgd(kind(0.1)), params=params, num_steps=3, batch_size=2, key=KEY)
        op = curvature.hessian(loss, params, data)
        matrix = curvature.from_matrix((x.T @ x).astype(kind))
        return [
            run.params, evaluate(problem, params, on="train"), op @ params, matrix @ w.astype(kind),
            curvature.log_det(matrix, key=KEY, shift=kind(1.0)).value, records.plain({"a": kind(0.5), "b": params}),
        ]  # fmt: skip

    for ours, theirs in zip(*map(jax.tree.leaves, map(everything, (np.longdouble, np.float64))), strict=True):
        np.testing.assert_array_equal(ours, theirs)


class AlwaysNormalised(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(linen.BatchNorm(use_running_average=False, momentum=0.5)(x))


def test_a_linen_module_that_always_updates_its_statistics_is_evaluated_as_it_is():
    x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    problem = problems.from_linen(
        AlwaysNormalised(), lambda out, batch: jnp.mean((out[:, 0] - batch["y"]) ** 2), {"x": x, "y": x.sum(1)}
    )
    run = train(problem, optax.sgd(0.0), num_steps=2, key=KEY, evaluate_every=1)
    kernel, bias = run.params["Dense_0"]["kernel"], run.params["Dense_0"]["bias"]
    normal = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    expected = np.mean((normal @ np.asarray(kernel)[:, 0] + np.asarray(bias) - x.sum(1)) ** 2)
    np.testing.assert_allclose(run.evaluations["train_loss"], expected, rtol=1e-4)  # by the batch's own statistics
    np.testing.assert_allclose(run.model_state["batch_stats"]["BatchNorm_0"]["mean"], 0.75 * x.mean(0), rtol=1e-4)


def test_what_nnx_holds_is_unwrapped():
    model = nnx.Linear(2, 1, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    data = {"x": jnp.ones((4, 2)), "y": jnp.zeros((4, 1))}
    problem = problems.from_nnx(model, lambda model, batch: jnp.mean((model(batch["x"]) - batch["y"]) ** 2), data)
    run = train(problem, optimizer.tx, num_steps=1, key=KEY, params=nnx.state(model, nnx.Param))
    again = train(problem, optimizer.tx, num_steps=1, key=KEY)
    np.testing.assert_array_equal(run.params["kernel"], again.params["kernel"])


@pytest.mark.slow
def test_a_probe_measures_at_the_fast_parameters_of_a_pair():
    bowl = Problem(
        "bowl", init=lambda key: jnp.ones(3), loss=lambda p, _: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p**2) / 2
    )
    run = train(
        bowl, optax.lookahead(optax.sgd(0.1), 3, 0.5), num_steps=2, key=KEY, probe=CurvatureProbe(every=2, gains=False)
    )
    np.testing.assert_allclose(run.probes["eigenvalues"][:, 0], 3.0, rtol=1e-2)
    np.testing.assert_allclose(run.probes["linear"][0], -0.1 * (1 + 4 + 9), rtol=1e-5)


def test_random_keys_in_a_state_or_a_memory_are_kept_without_compilation():
    bowl = Problem("bowl", init=lambda key: jnp.ones(3), loss=lambda p, _: jnp.sum(p**2))

    def drawn(key, params, opt_state, batch):
        return jax.random.split(key)[0], jax.random.normal(key)

    noise = optax.chain(optax.add_noise(0.1, 0.55, jax.random.key(1)), optax.sgd(0.1))
    run = lambda: train(bowl, noise, num_steps=3, key=KEY, probe=Probe(drawn, init=lambda *_: jax.random.key(2)))
    plain = run()
    with jax.disable_jit():
        found = run()
    np.testing.assert_allclose(found.losses, plain.losses, rtol=1e-6)
    np.testing.assert_allclose(found.probes, plain.probes, rtol=1e-6)
    assert len(set(plain.probes.tolist())) == 4  # before every step and at the end


def test_records_of_a_run_that_stops_early_do_not_trip_the_search_for_nan():
    late = Problem(
        "late", init=lambda key: jnp.array(-3.0), loss=lambda p, y: jnp.mean((p - y) ** 2), data=jnp.full(4, 2.0),
        validation=jnp.full(4, -1.0),
    )  # fmt: skip
    settings = {"num_steps": 200, "key": KEY, "evaluate_every": 2, "record_params_every": 2}
    plain = train(late, optax.sgd(0.02), early_stopping=EarlyStopping(patience=3), **settings)
    with jax.debug_nans(True), jax.debug_infs(True):
        run = train(late, optax.sgd(0.02), early_stopping=EarlyStopping(patience=3), **settings)
    assert run.stopped_early
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(run), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    assert np.isnan(np.asarray(run.losses)[int(run.num_steps) :]).all()
