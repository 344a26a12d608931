"""Linear least squares with its closed-form solution."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxopt_study._checks import check_integer, check_key, check_numbers, check_static_real, check_text
from jaxopt_study.problems._problem import CriticalPoint, Problem
from jaxopt_study.problems._quadratic import Values
from jaxopt_study.problems._registry import listed
from jaxopt_study.types import Batch, Key, Scalar

Weights = Float[Array | np.ndarray, " features"] | Float[Array | np.ndarray, "features outputs"]


def least_squares(
    inputs: Values, targets: Values, *, start: Values | None = None, name: str = "least_squares"
) -> Problem:
    """Build the mean of ½‖xᵀw − y‖² over examples, with its closed-form solution.

    With the N examples as rows of X and Y, Hessian H = XᵀX/N (once per output) and minimum

        w* = X⁺Y,    from the singular value decomposition of X in double precision

    If X does not have full column rank, the minima form the affine subspace w* + null(X) (for each output); X⁺Y is the
    one of least norm, to which gradient descent with a step below 2/λ_max(H) converges from zero. There is no
    intercept; to add one, append a column of ones to the inputs.

    Args:
        inputs: X, shape (N, features).
        targets: Y, shape (N,) or (N, outputs).
        start: Initial parameters, shape (features,) or (features, outputs). None means zero.
        name: The problem's name.

    Returns:
        The problem, with parameters of shape (features,) or (features, outputs), data `{"x": inputs, "y": targets}` in
        the default float type, spectrum and minimum. `metadata` holds the rank of X. Cost: one SVD, O(N·features²).

    Raises:
        TypeError: If an argument does not consist of real numbers.
        ValueError: If shapes do not match or a number is not finite.

    Example:
        >>> X = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0]])
        >>> problem = least_squares(X, [1.0, 3.0, 5.0])  # y = 1 + 2x
        >>> print(np.round(problem.minima[0].params, 6))
        [1. 2.]

    References:
        Golub and Van Loan (2013), Matrix Computations, section 5.5: the minimum-norm solution.
    """
    check_text("least_squares", "name", name)
    X = check_numbers("least_squares", "inputs", inputs, finite=False)
    Y = check_numbers("least_squares", "targets", targets, finite=False)
    if X.ndim != 2 or Y.ndim not in {1, 2} or len(X) != len(Y) or X.size == 0 or Y.size == 0:
        raise ValueError(
            "least_squares needs inputs of shape (N, features) and targets of shape (N,) or (N, outputs), with the "
            f"same N ≥ 1; received {X.shape} and {Y.shape}."
        )
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        raise ValueError("The inputs and targets of least_squares must be finite; remove the examples that are not.")
    shape = X.shape[1:] + Y.shape[1:]
    first = np.zeros(shape) if start is None else check_numbers("least_squares", "start", start)
    if first.shape != shape:
        raise ValueError(f"The start must have shape {shape}, features by outputs; received {first.shape}.")

    def init(key: Key) -> Weights:
        del key
        return jnp.array(first, dtype=float)

    def loss(params: Weights, batch: Batch) -> Scalar:
        errors = (batch["x"] @ params - batch["y"]).reshape(len(batch["y"]), -1)
        return jnp.mean(jnp.sum(errors**2, axis=1)) / 2

    # One SVD serves the solution, the rank and the spectrum; XᵀX would square the condition number.
    left, singular, right = np.linalg.svd(X, full_matrices=False)
    rank = int(np.sum(singular > singular[0] * max(X.shape) * np.finfo(float).eps))
    solution = (right[:rank].T / singular[:rank]) @ (left[:, :rank].T @ Y)
    residual = (Y - X @ solution).reshape(len(Y), -1)
    eigenvalues = np.zeros(X.shape[1])
    eigenvalues[: len(singular)] = singular**2 / len(X)
    outputs = Y.shape[1] if Y.ndim == 2 else 1
    return Problem(
        name,
        init,
        loss,
        data={"x": jnp.asarray(X, dtype=float), "y": jnp.asarray(Y, dtype=float)},
        critical_points=(CriticalPoint(solution, float(np.sum(residual**2) / (2 * len(X))), "minimum", 0),),
        spectrum=np.sort(np.repeat(eigenvalues, outputs)),
        metadata={"rank": rank, "num_features": X.shape[1], "num_outputs": outputs},
    )


@listed
def linear_regression(
    num_examples: int = 200,
    num_features: int = 10,
    *,
    noise: float | int = 0.1,
    condition_number: float | int = 100.0,
    key: Key | None = None,
) -> Problem:
    """Build a random linear regression with known noise and ill-conditioned inputs.

    Inputs are independent normal variables. The standard deviation of feature j falls geometrically from 1 to
    1/√(condition_number), so that E[XᵀX/N] has this condition number, and XᵀX/N approximately. The true weights are
    standard normal, and targets are xᵀw + noise · N(0, 1).

    Args:
        num_examples: N ≥ 1.
        num_features: ≥ 1.
        noise: Standard deviation of the targets' noise, ≥ 0.
        condition_number: Condition number of the inputs' covariance, ≥ 1; without effect for a single feature.
        key: A PRNG key for the data. None means `jax.random.key(0)`.

    Returns:
        The problem; see `least_squares`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If an argument is outside its range.

    Example:
        >>> problem = linear_regression(noise=0.0)
        >>> problem.minima[0].value < 1e-12
        True
    """
    who = "linear_regression"
    check_integer(who, "num_examples", num_examples, 1)
    check_integer(who, "num_features", num_features, 1)
    noise = check_static_real(who, "noise", noise, 0)
    condition_number = check_static_real(who, "condition_number", condition_number, 1)
    if key is not None:
        key = check_key(who, key)
    keys = jax.random.split(jax.random.key(0) if key is None else key, 3)
    # Drawn in float32 and summed in double precision, so that the data do not depend on JAX's float type.
    draw = [
        np.asarray(jax.random.normal(k, shape, dtype=jnp.float32), dtype=float)
        for k, shape in zip(keys, [(num_examples, num_features), (num_features,), (num_examples,)], strict=True)
    ]
    scales = np.geomspace(1.0, condition_number**-0.5, num_features)
    inputs = draw[0] * scales
    return least_squares(inputs, inputs @ draw[1] + noise * draw[2], name="linear_regression")
