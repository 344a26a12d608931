"""Lion and Adan."""

import numpy as np

from tests.oracles.references.reference import Number, Reference, at, divide, one_minus_power, zeros


def lion(lr: Number, b1: float = 0.9, b2: float = 0.99, weight_decay: float = 0.0) -> Reference:
    """Chen et al. (2023), "Symbolic discovery of optimization algorithms", Algorithm 2.

    c = β₁m + (1 − β₁)g,  θ ← θ − ηₜ (sign(c) + λθ),  m ← β₂m + (1 − β₂)g.

    The step uses m before its update; sign 0 = 0.
    """

    def init(params):
        return {"count": 0, "m": zeros(params)}

    def step(grad, state, params):
        direction = np.sign(b1 * state["m"] + (1.0 - b1) * grad)
        params = params - at(lr, state["count"]) * (direction + weight_decay * params)
        return params, {"count": state["count"] + 1, "m": b2 * state["m"] + (1.0 - b2) * grad}

    return Reference(init, step)


def adan(
    lr: Number,
    b1: float = 0.98,
    b2: float = 0.92,
    b3: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    *,
    start: str = "zero",
    eps_inside: bool = False,
    v_weight: float | None = None,
) -> Reference:
    """Xie et al. (2022), arXiv:2208.06677, Algorithm 1 without restart; b = 1 − β for the paper's βᵢ (.02, .08, .01).

        m ← b₁m + (1 − b₁)gₖ,  v ← b₂v + (1 − b₂)(gₖ − gₖ₋₁),  n ← b₃n + (1 − b₃)(gₖ + b₂(gₖ − gₖ₋₁))²
        θ ← (θ − η (m + b₂v)/(√n + ε)) / (1 + λη)

    The factor 1 − β₂ of the page is b₂ here. Optax's `scale_by_adan` takes the paper's letters for its own and uses
    1 − b₂ = .08 (`v_weight`) instead of .92, nearly dropping the Nesterov term.

    Accepted readings of the start. "paper" (line 1): m₀ = g₀, v₀ = 0, n₀ = g₀² at the first gradient, v₁ = g₁ − g₀ at
    the second (not (1 − b₂)(g₁ − g₀)), no bias correction. "zero", the authors' code: m = v = n = 0, g₋₁ = g₀, and
    m, v, n corrected by 1 − bᵗ. Both make the first step −η g₀/(|g₀| + ε). ε: outside the root in the authors' code;
    some printings of Algorithm 1 have √(n + ε) (`eps_inside`).
    """
    weight = b2 if v_weight is None else v_weight

    def init(params):
        return {"count": 0, "m": zeros(params), "v": zeros(params), "n": zeros(params), "previous": zeros(params)}

    def step(grad, state, params):
        t = state["count"] + 1
        difference = zeros(grad) if t == 1 else grad - state["previous"]
        m = b1 * state["m"] + (1.0 - b1) * grad
        v = b2 * state["v"] + (1.0 - b2) * difference
        n = b3 * state["n"] + (1.0 - b3) * (grad + weight * difference) ** 2
        if start == "paper":
            m = grad if t == 1 else m
            n = grad**2 if t == 1 else n
            v = difference if t == 2 else v
            corrections = 1.0, 1.0, 1.0
        else:
            corrections = one_minus_power(b1, t), one_minus_power(b2, t), one_minus_power(b3, t)
        direction = m / corrections[0] + weight * v / corrections[1]
        power = n / corrections[2]
        denominator = np.sqrt(power + eps) if eps_inside else np.sqrt(power) + eps
        eta = at(lr, t - 1)
        params = (params - eta * divide(direction, denominator)) / (1.0 + weight_decay * eta)
        return params, {"count": t, "m": m, "v": v, "n": n, "previous": grad}

    return Reference(init, step)
