"""Peers of the curvature benchmarks, on equal weights and data: PyHessian, curvlinops, eigenthings, matfree."""

import itertools
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import hessian_eigenthings
import jax
import jax.numpy as jnp
import numpy as np
import pyhessian
import scipy.sparse.linalg
import torch
from curvature_cases import Case
from curvature_torch import TorchCase
from curvlinops import HessianLinearOperator, hutchinson_trace
from curvlinops.papyan2020traces.spectrum import fast_lanczos
from matfree import decomp, eig, stochtrace

torch.set_num_threads(2)
warnings.filterwarnings("ignore", message="Using backward")  # PyHessian's way
PACKAGES = ("pyhessian", "curvlinops-for-pytorch", "hessian-eigenthings", "matfree")
VERSIONS = {name: metadata.version(name) for name in PACKAGES}
NOTES = {
    "pyhessian": "0.1 adds its gradients to those that are there, which doubles the Hessian of a second object built "
    "from a model; it is built from a fresh model in every call. Its power iteration stops on the change of the "
    "eigenvalue; defaults (100 iterations a pair, 1e-3) are used. Its density ends in torch.eig, which is no longer in "
    "torch; a substitute with torch.linalg.eig, as in its git head, is put in.",
    "curvlinops": "built once, without its check for determinism. Top 5 by ARPACK (scipy's eigsh, tol 1e-3, default "
    "basis of 20). Its Lanczos does not reorthogonalise; the spectrum's ends, which its public function estimates "
    "first, are not charged to it.",
    "eigenthings": "Lanczos of 20 steps for the top 5, with its full reorthogonalisation.",
    "matfree": "20 steps for the top 5, full reorthogonalisation; jitted, with a linearised product. Probes of the "
    "quadrature one after the other, which is faster on a CPU than its vmap.",
}

Method = Callable[[], Any]


def _eig(matrix: torch.Tensor, eigenvectors: bool) -> tuple[torch.Tensor, torch.Tensor]:
    values, vectors = torch.linalg.eig(matrix)
    return torch.stack([values.real, values.imag], 1), vectors.real


torch.eig = _eig


class Counter:
    """A function that counts its calls."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it."""
        self.calls += 1
        return self.function(*args, **kwargs)


def pyhessian_of(torch_case: TorchCase) -> Any:
    """PyHessian's object, from a fresh model; makes one gradient."""
    return pyhessian.hessian(torch_case.model(), torch_case.criterion, data=torch_case.data, cuda=False)


def curvlinops_of(torch_case: TorchCase) -> Any:
    """Curvlinops' operator."""
    model = torch_case.model()
    return HessianLinearOperator(
        model, torch_case.criterion, list(model.parameters()), [torch_case.data], check_deterministic=False
    )


def eigenthings_of(torch_case: TorchCase) -> Any:
    """The operator of hessian-eigenthings."""
    loss = hessian_eigenthings.supervised_loss(torch_case.criterion)
    return hessian_eigenthings.HessianOperator(torch_case.model(), [torch_case.data], loss)


def _top5_by_pyhessian(_: Case, torch_case: TorchCase, found: list[Any]) -> Method:
    seeds = itertools.count()

    def run() -> None:
        torch.manual_seed(next(seeds))
        found.append(pyhessian_of(torch_case).eigenvalues(top_n=5))

    return run


def _top5_by_curvlinops(_: Case, torch_case: TorchCase, found: list[Any]) -> Method:
    linear, seeds = curvlinops_of(torch_case).to_scipy(), itertools.count()

    def run() -> None:
        start = np.random.default_rng(next(seeds)).standard_normal(linear.shape[0]).astype(np.float32)
        values, vectors = scipy.sparse.linalg.eigsh(linear, k=5, which="LM", tol=1e-3, v0=start)
        found.append((values, list(vectors.T)))

    return run


def _top5_by_eigenthings(_: Case, torch_case: TorchCase, found: list[Any]) -> Method:
    operator, seeds = eigenthings_of(torch_case), itertools.count()

    def run() -> None:
        result = hessian_eigenthings.lanczos(operator, k=5, max_iter=20, seed=next(seeds))
        found.append((result.eigenvalues.numpy(), list(result.eigenvectors)))

    return run


def _top5_by_matfree(case: Case, _: TorchCase, found: list[Any]) -> Method:
    seeds = itertools.count()

    @jax.jit
    def solve(params: Any, data: Any, key: Any) -> Any:
        leaves = zip(jax.random.split(key, len(params)), params, strict=True)
        start = [jax.random.normal(k, p.shape) for k, p in leaves]
        product = jax.linearize(lambda p: jax.grad(case.loss)(p, data), params)[1]
        values, vectors = eig.eigh_partial(decomp.tridiag_sym(20))(product, start)
        chosen = jnp.argsort(-jnp.abs(values))[:5]
        return values[chosen], jax.tree.map(lambda x: x[chosen], vectors)

    def run() -> None:
        found.append(jax.block_until_ready(solve(case.params, case.data, jax.random.key(next(seeds)))))

    return run


# What each makes is a search for five eigenpairs, from another start in every call; results are appended to `found`.
TOP5 = {
    "pyhessian": _top5_by_pyhessian, "curvlinops": _top5_by_curvlinops, "eigenthings": _top5_by_eigenthings,
    "matfree": _top5_by_matfree,
}  # fmt: skip


def top5_products(case: Case, torch_case: TorchCase) -> dict[str, int]:
    """Count each peer's products for five eigenpairs, in a call of its own."""
    module = sys.modules["pyhessian.hessian"]
    module.hessian_vector_product = counted = Counter(module.hessian_vector_product)
    torch.manual_seed(0)
    pyhessian_of(torch_case).eigenvalues(top_n=5)
    module.hessian_vector_product = counted.function
    linear = curvlinops_of(torch_case).to_scipy()
    matvec = Counter(linear.matvec)
    start = np.random.default_rng(0).standard_normal(linear.shape[0]).astype(np.float32)
    shell = scipy.sparse.linalg.LinearOperator(linear.shape, matvec=matvec, dtype=np.float32)
    scipy.sparse.linalg.eigsh(shell, k=5, which="LM", tol=1e-3, v0=start)
    return {"pyhessian": counted.calls, "curvlinops": matvec.calls, "eigenthings": 20, "matfree": 20}


def quadrature(
    case: Case, torch_case: TorchCase, probes: int, steps: int, found: dict[str, list[Any]]
) -> dict[str, Method]:
    """Return each peer's Lanczos quadrature; `found` gets the nodes, one row for each probe."""
    for name in NOTES:
        found[name] = []

    def by_pyhessian() -> None:
        found["pyhessian"] += pyhessian_of(torch_case).density(iter=steps, n_v=probes)[0]

    operator, things = curvlinops_of(torch_case), eigenthings_of(torch_case)

    def by_curvlinops() -> None:
        found["curvlinops"] += [fast_lanczos(operator, steps)[0].numpy() for _ in range(probes)]

    seeds = itertools.count()

    def by_eigenthings() -> None:
        seed = 1000 * next(seeds)
        result = hessian_eigenthings.spectral_density(things, num_runs=probes, lanczos_steps=steps, seed=seed)
        found["eigenthings"] += list(result.raw_eigenvalues.numpy())

    @jax.jit
    def solve(params: Any, data: Any, key: Any) -> Any:
        product = jax.linearize(lambda p: jax.grad(case.loss)(p, data), params)[1]
        start = stochtrace.sampler_signs(params, num=probes)(key)

        def of_one(v: Any) -> Any:
            values, rotations = jnp.linalg.eigh(decomp.tridiag_sym(steps)(product, v).J_small)
            return values, rotations[0] ** 2

        return jax.lax.map(of_one, start)

    keys = itertools.count()

    def by_matfree() -> None:
        nodes, _ = jax.block_until_ready(solve(case.params, case.data, jax.random.key(next(keys))))
        found["matfree"] += list(np.asarray(nodes))

    return {
        "pyhessian": by_pyhessian, "curvlinops": by_curvlinops, "eigenthings": by_eigenthings, "matfree": by_matfree,
    }  # fmt: skip


def traces(case: Case, torch_case: TorchCase, probes: int, found: dict[str, list[float]]) -> dict[str, Method]:
    """Return each peer's Hutchinson estimate of the trace; `found` gets the estimates."""
    for name in NOTES:
        found[name] = []

    def by_pyhessian() -> None:
        found["pyhessian"].append(float(np.mean(pyhessian_of(torch_case).trace(maxIter=probes, tol=0))))

    operator, things = curvlinops_of(torch_case), eigenthings_of(torch_case)

    def by_curvlinops() -> None:
        found["curvlinops"].append(float(hutchinson_trace(operator, probes)))

    seeds = itertools.count()

    def by_eigenthings() -> None:
        estimate = hessian_eigenthings.hutchinson(things, num_samples=probes, seed=next(seeds)).estimate
        found["eigenthings"].append(estimate)

    @jax.jit
    def solve(params: Any, data: Any, key: Any) -> Any:
        product = jax.linearize(lambda p: jax.grad(case.loss)(p, data), params)[1]
        sampler = stochtrace.sampler_signs(params, num=probes)
        return stochtrace.estimator_monte_carlo(stochtrace.monte_carlo_trace(), sampler)(product, key)

    keys = itertools.count()

    def by_matfree() -> None:
        found["matfree"].append(float(solve(case.params, case.data, jax.random.key(next(keys)))))

    return {
        "pyhessian": by_pyhessian, "curvlinops": by_curvlinops, "eigenthings": by_eigenthings, "matfree": by_matfree,
    }  # fmt: skip


def products(model: torch.nn.Module, data: Any, calls: int) -> dict[str, Method]:
    """Return PyHessian's product, `calls` times with one retained graph, and torch's gradient as often."""
    criterion = torch.nn.CrossEntropyLoss()
    form = pyhessian.hessian(model, criterion, data=data, cuda=False)
    parameters = list(model.parameters())
    v = [torch.randn_like(p) for p in parameters]
    product = sys.modules["pyhessian.hessian"].hessian_vector_product

    def gradients() -> None:
        for _ in range(calls):
            torch.autograd.grad(criterion(model(data[0]), data[1]), parameters)

    def many() -> None:
        for _ in range(calls):
            product(form.gradsH, form.params, v)

    return {"pyhessian": many, "torch_gradient": gradients}


def difference_of_products(case: Case, torch_case: TorchCase) -> float:
    """Return the relative difference of H v by PyHessian and by JAX, to see that the networks are the same."""
    form = pyhessian_of(torch_case)
    v = [torch.randn_like(p) for p in form.params]
    image = sys.modules["pyhessian.hessian"].hessian_vector_product(form.gradsH, form.params, v)
    theirs, start = torch_case.to_jax(list(image)), [jnp.asarray(leaf) for leaf in torch_case.to_jax(v)]
    gradient = jax.grad(case.loss)
    ours = jax.jit(lambda p, d, x: jax.jvp(lambda q: gradient(q, d), (p,), (x,))[1])(case.params, case.data, start)
    difference, length = (
        np.sqrt(sum(float(np.sum(np.asarray(x, np.float64) ** 2)) for x in t))
        for t in ([np.asarray(a) - b for a, b in zip(ours, theirs, strict=True)], theirs)
    )
    return float(difference / length)
