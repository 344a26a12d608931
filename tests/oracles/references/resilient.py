"""Rprop, coordinate by coordinate and case by case."""

import numpy as np

from tests.oracles.references.reference import Reference


def rprop(
    initial: float,
    minus: float = 0.5,
    plus: float = 1.2,
    smallest: float = 1e-6,
    largest: float = 50.0,
    *,
    backtracking: bool = True,
    lagged: bool = False,
    scale: float = 1.0,
) -> Reference:
    """Riedmiller and Braun (1993), section III, the pseudocode on its page 589.

        if ∂E(t−1) · ∂E(t) > 0: Δ(t) = min(Δ(t−1) η⁺, Δmax); Δw(t) = −sign(∂E(t)) Δ(t); ∂E(t−1) = ∂E(t)
        if < 0: Δ(t) = max(Δ(t−1) η⁻, Δmin); Δw(t) = −Δw(t−1) (with backtracking); ∂E(t−1) = 0
        if = 0: Δw(t) = −sign(∂E(t)) Δ(t); ∂E(t−1) = ∂E(t)

    Without backtracking it is iRprop⁻ of Igel and Hüsken (2003), and PyTorch: Δw = 0 where the sign turned. PyTorch
    also limits Δ where the product is 0, which matters only if Δ₀ is outside the limits. `lagged` is `optax.rprop`: the
    step returned is the one of the update before, and none if the sign turned. `scale` multiplies every step.
    """

    def init(params):
        size = np.full(params.shape, float(initial))
        return {"size": size, "direction": np.zeros(params.shape), "_last": np.zeros(params.shape)}

    def step(grad, state, params):
        size, direction, last = (state[name].copy() for name in ("size", "direction", "_last"))
        move = np.zeros(params.shape)
        for i in np.ndindex(params.shape):
            sign = np.sign(grad[i])
            if direction[i] * sign > 0:
                size[i] = min(size[i] * plus, largest)
            elif direction[i] * sign < 0:
                size[i] = max(size[i] * minus, smallest)
                move[i] = -last[i] if backtracking else 0.0
                direction[i] = last[i] = 0.0
                continue
            size[i] = min(max(size[i], smallest), largest)
            move[i] = last[i] if lagged else -sign * size[i]
            last[i] = -sign * size[i]
            direction[i] = sign
        return params + scale * move, {"size": size, "direction": direction, "_last": last}

    return Reference(init, step)
