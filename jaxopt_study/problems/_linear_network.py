"""Linear networks ½‖Y − W_L ⋯ W₁‖², whose saddles of every index are known."""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, check_key, check_numbers, check_static_real, describe_argument
from jaxopt_study.problems._problem import CriticalPoint, Kind, Problem
from jaxopt_study.problems._quadratic import Values, random_rotation
from jaxopt_study.problems._registry import listed
from jaxopt_study.types import Batch, Key, Scalar

Layers = tuple[Float[Array | np.ndarray, "_ _"], ...]  # W₁, …, W_L, each of shape (outputs, inputs)
MAX_LISTED_MODES = 10  # r modes have 2ʳ critical points


@listed
def linear_network(
    singular_values: Values = (3.0, 2.0, 1.0),
    *,
    hidden: int | Sequence[int] = 4,
    sizes: tuple[int, int] = (5, 6),
    init_scale: float | int = 0.1,
    key: Key | None = None,
) -> Problem:
    """Build ½‖Y − W_L ⋯ W₁‖² with its balanced critical points, two-layer by default.

    Y = Σᵢ σᵢ uᵢvᵢᵀ has r modes. For every subset S of at most min(hidden) modes with complement C, the network that has
    learned exactly S is a critical point of loss ½ Σ_C σⱼ²; balanced means that mode i passes each layer with strength
    σᵢ^(1/L). With s = |S| and h hidden units, the number of negative eigenvalues of its Hessian is

        two layers:     (h − s)(r − s) + #{i ∈ S, j ∈ C : σⱼ > σᵢ}
        L ≥ 3 layers:                    #{i ∈ S, j ∈ C : σⱼ > σᵢ}

    The first term counts pairs of a free hidden unit and a missing mode that it could start to learn, the second counts
    learned modes that could be exchanged for a stronger one. In a deep network a free unit's path is a product of at
    least three zeros, which the Hessian does not see: such points, the origin first, are listed as degenerate. They are
    not minima: every local minimum is global, and a point is a minimum exactly when the min(r, min(hidden)) strongest
    modes are learned. Each listed point represents a manifold of critical points (W₂G, G⁻¹W₁), so none is isolated and
    minima have zero eigenvalues.

    Args:
        singular_values: σ, at most min(sizes) positive numbers.
        hidden: Width of the hidden layer, or of each of the L − 1 hidden layers, ≥ 1.
        sizes: Number of inputs and of outputs.
        init_scale: Standard deviation of the initial weights, ≥ 0. Small weights (the default .1 is our choice) start
            near the saddle at the origin and learn one mode after another; with 0 they stay there.
        key: Draws the singular vectors uniformly. None takes the coordinate axes.

    Returns:
        The problem; its parameters are the tuple (W₁, …, W_L), Wₗ of shape (outputs, inputs) of the layer; it has no
        data. Critical points are sorted by loss and labelled by S. For r ≤ 10 all are listed, otherwise only those in
        which the k strongest modes are learned, k ≤ r.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a size, singular value or scale is out of range.

    Example:
        >>> problem = linear_network()
        >>> for point in problem.critical_points[:5]:  # the index does not increase with the loss
        ...     print(point.label, point.value, point.index, point.kind)
        modes {0, 1, 2} 0.0 0 minimum
        modes {0, 1} 0.5 2 saddle
        modes {0, 2} 2.0 3 saddle
        modes {0} 2.5 6 saddle
        modes {1, 2} 4.5 4 saddle

    References:
        Baldi and Hornik (1989), Neural Networks 2(1): the critical points. Kawaguchi (2016), Deep learning without poor
        local minima, NeurIPS: deep ones. Saxe, McClelland and Ganguli (2014), ICLR: learning one mode after another.
    """
    who = "linear_network"
    sigma = check_numbers(who, "singular_values", singular_values, finite=False)
    for name, counts in (("hidden", (hidden,) if isinstance(hidden, int) else hidden), ("sizes", sizes)):
        if not isinstance(counts, Sequence) or isinstance(counts, str | bytes):
            raise TypeError(f"{who} needs {name} to be integers ≥ 1; received {describe_argument(counts)}.")
        for count in counts:
            check_integer(who, name, count, 1)
    if len(sizes) != 2:
        raise ValueError(f"{who} needs sizes to be two integers, the numbers of inputs and outputs; received {sizes}.")
    init_scale = check_static_real(who, "init_scale", init_scale, 0)
    if key is not None:
        key = check_key(who, key)
    widths = (hidden,) if isinstance(hidden, int) else tuple(hidden)
    if not widths:
        raise ValueError(f"{who} needs at least one hidden layer; received hidden=().")
    if sigma.ndim != 1 or not 1 <= sigma.size <= min(sizes):
        raise ValueError(
            f"{who} needs singular_values to be 1 to {min(sizes)} numbers for a {sizes[1]}×{sizes[0]} matrix; "
            f"received shape {sigma.shape}. Give fewer of them, or larger sizes."
        )
    if not (np.isfinite(sigma).all() and sigma.min() > 0):
        raise ValueError(f"singular_values must be finite and positive; received {sigma.tolist()}. Leave zeros out.")
    shapes = list(itertools.pairwise((sizes[0], *widths, sizes[1])))  # (inputs, outputs) of each layer
    right, left = _singular_vectors(sizes, sigma.size, key)
    target = (left * sigma) @ right.T

    def init(key: Key) -> Layers:
        keys = jax.random.split(key, len(shapes))
        return tuple(
            init_scale * jax.random.normal(k, (fan_out, fan_in), dtype=float)
            for k, (fan_in, fan_out) in zip(keys, shapes, strict=True)
        )

    def loss(params: Layers, batch: Batch | None = None) -> Scalar:
        del batch
        product = functools.reduce(lambda below, layer: layer @ below, params)
        return jnp.sum((jnp.asarray(target, dtype=product.dtype) - product) ** 2) / 2

    points = [_balanced_point(sigma, modes, right, left, widths) for modes in _subsets(sigma, min(widths))]
    return Problem(
        "linear_network" if len(widths) == 1 else f"linear_network_{len(shapes)}_layers",
        init,
        loss,
        critical_points=tuple(sorted(points, key=lambda point: point.value)),
        metadata={"singular_values": sigma.tolist(), "hidden": list(widths), "sizes": list(sizes)},
    )


@listed
def deep_linear_network(*, depth: int = 4, width: int = 4, init_scale: float | int = 0.3) -> Problem:
    """Build a deep linear network ½‖Y − W_L ⋯ W₁‖² of equal widths.

    `linear_network` with depth − 1 hidden layers. At the origin all derivatives below order L vanish: this plateau
    needs larger initial weights than the two-layer network does.

    Args:
        depth: L ≥ 2, the number of weight matrices.
        width: Units of every hidden layer, ≥ 1.
        init_scale: Standard deviation of the initial weights; the default is our choice.

    Returns:
        The problem; see `linear_network`.

    Raises:
        TypeError: If a count is not an integer.
        ValueError: If `depth` is below 2 or `width` below 1.

    Example:
        >>> problem = deep_linear_network(depth=3)
        >>> origin = problem.critical_points[-1]
        >>> print(origin.label, origin.kind, origin.index, origin.value)
        modes {} degenerate 0 7.0
    """
    check_integer("deep_linear_network", "depth", depth, 2)  # the number of weight matrices
    check_integer("deep_linear_network", "width", width, 1)
    return linear_network(hidden=(width,) * (depth - 1), init_scale=init_scale)


def _singular_vectors(sizes: tuple[int, int], rank: int, key: Key | None) -> list[Float[np.ndarray, "_ {rank}"]]:
    if key is None:
        return [np.eye(size)[:, :rank] for size in sizes]
    return [random_rotation(size, key=k)[:, :rank] for size, k in zip(sizes, jax.random.split(key), strict=True)]


def _subsets(sigma: Float[np.ndarray, " modes"], largest: int) -> list[tuple[int, ...]]:
    rank = sigma.size
    if rank > MAX_LISTED_MODES:
        strongest = np.argsort(-sigma, kind="stable")
        return [tuple(sorted(strongest[:k].tolist())) for k in range(min(rank, largest) + 1)]
    return [modes for size in range(min(rank, largest) + 1) for modes in itertools.combinations(range(rank), size)]


def _balanced_point(
    sigma: Float[np.ndarray, " modes"],
    modes: tuple[int, ...],
    right: Float[np.ndarray, "inputs modes"],
    left: Float[np.ndarray, "outputs modes"],
    widths: tuple[int, ...],
) -> CriticalPoint:
    # Hidden unit k of every layer carries the k-th mode of S.
    depth, count, narrowest = len(widths) + 1, len(modes), min(widths)
    indices = list(modes)
    missing = [j for j in range(sigma.size) if j not in modes]
    strength = sigma[indices] ** (1 / depth)
    layers = []
    for layer in range(depth):
        into = right[:, indices] if layer == 0 else np.eye(widths[layer - 1])[:, :count]
        out = left[:, indices] if layer == depth - 1 else np.eye(widths[layer])[:, :count]
        layers.append((out * strength) @ into.T)
    exchanges = sum(bool(sigma[j] > sigma[i]) for i in modes for j in missing)
    index = exchanges + ((widths[0] - count) * len(missing) if depth == 2 else 0)
    kind: Kind = "saddle" if index > 0 else "minimum" if count == min(sigma.size, narrowest) else "degenerate"
    value = float(np.sum(sigma[missing] ** 2) / 2)
    return CriticalPoint(tuple(layers), value, kind, index, f"modes {{{', '.join(map(str, modes))}}}")
