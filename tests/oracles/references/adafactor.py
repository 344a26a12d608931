"""Adafactor."""

import numpy as np

from tests.oracles.references.reference import Array, Number, Reference, at, zeros


def rms(x: Array) -> float:
    """RMS(x) = √(Σx²/n)."""
    return float(np.sqrt(np.mean(np.square(x))))


def adafactor(
    lr: Number | None = 1e-2,
    decay_rate: float = 0.8,
    eps1: float = 1e-30,
    eps2: float = 1e-3,
    d: float = 1.0,
    *,
    as_torch: bool = False,
    relative: bool = True,
    axes: tuple[int, int] | None = (-2, -1),
    weight_decay: float = 0.0,
    momentum: float = 0.0,
) -> Reference:
    """Shazeer and Stern (2018), Algorithm 4 (matrices) and 5 (vectors) with the proposal of Algorithm 6.

        αₜ = max(ε₂, RMS(Xₜ₋₁)) ρₜ,  ρₜ = min(lr, 1/√t),  β̂₂ₜ = 1 − t^−.8
        R ← β̂R + (1 − β̂)(G² + ε₁1)1,  C ← β̂C + (1 − β̂)1ᵀ(G² + ε₁1),  V̂ = RC/1ᵀR
        U = G/√V̂,  Û = U/max(1, RMS(U)/d),  X ← X − αₜ Û

    The page sums over rows and columns; so does this, while the package takes means. `as_torch`: means; V̂ is bounded
    below by ε₁² and the mean of R by ε₁, nothing is added; θ first shrinks by 1 − lr·λ. Otherwise (`relative=False`)
    Optax: ρₜ = lr (None: 1), an average of the steps with β₁, and λθ subtracted whatever the learning rate.
    `axes`: the rows' and the columns' axis; None keeps V whole.
    """

    def factored(params):
        return axes is not None and params.ndim >= 2

    def init(params):
        state = {"count": 0, "_mean": zeros(params)}
        if not factored(params):
            return {**state, "v": zeros(params)}
        rows, columns = axes
        return {**state, "row": params.sum(axis=columns) * 0.0, "column": params.sum(axis=rows) * 0.0}

    def step(grad, state, params):
        t = state["count"] + 1
        beta = 1.0 - float(t) ** -decay_rate
        square = grad**2 + (0.0 if as_torch else eps1)
        new = {"count": t}
        if factored(params):
            rows, columns = (axis % params.ndim for axis in axes)
            n, m = params.shape[rows], params.shape[columns]
            new["row"] = beta * state["row"] + (1.0 - beta) * square.sum(axis=columns) / m
            new["column"] = beta * state["column"] + (1.0 - beta) * square.sum(axis=rows) / n
            row, column = np.expand_dims(new["row"], columns) * m, np.expand_dims(new["column"], rows) * n
            total = row.sum(axis=rows, keepdims=True)
            power = row * column / (np.maximum(total, eps1 * n * m) if as_torch else total)
        else:
            new["v"] = power = beta * state["v"] + (1.0 - beta) * square
        update = grad / np.sqrt(np.maximum(power, eps1**2) if as_torch else power)
        update = update / max(1.0, rms(update) / d)
        rate = 1.0 if lr is None else at(lr, t - 1)
        rho = min(rate, 1.0 / np.sqrt(t)) if relative else rate
        move = rho * max(eps2, rms(params)) * update
        new["_mean"] = momentum * state["_mean"] + (1.0 - momentum) * move
        if as_torch:
            return params * (1.0 - rate * weight_decay) - new["_mean"], new
        return params - new["_mean"] - weight_decay * params, new

    return Reference(init, step)
