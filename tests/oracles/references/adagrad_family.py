"""AdaGrad, AdaDelta and RMSprop: steps divided by a memory of squared gradients."""

import numpy as np

from tests.oracles.references.reference import Number, Reference, at, divide, zeros


def adagrad(lr: Number, eps: float, initial: float = 0.0, *, eps_inside: bool = False) -> Reference:
    """S ← S + g², θ ← θ − ηₜ g/(√S + ε), or g/√(S + ε); 0/0 = 0. S₀ = initial.

    Duchi, Hazan and Singer (2011), JMLR 12, Figure 1, diagonal case: H = δI + diag(s), so δ is outside the root
    and S₀ = 0. PyTorch: the same, ε = 1e-10. The book "Deep Learning from Scratch": the same, ε = 1e-7. Optax: S₀ = .1
    and ε = 1e-7 inside the root (the study note 002 has ε inside, 001 outside).
    """

    def init(params):
        return {"count": 0, "total": np.full_like(params, initial, dtype=np.float64)}

    def step(grad, state, params):
        total = state["total"] + grad * grad
        denominator = np.sqrt(total + eps) if eps_inside else np.sqrt(total) + eps
        params = params - at(lr, state["count"]) * divide(grad, denominator)
        return params, {"count": state["count"] + 1, "total": total}

    return Reference(init, step)


def adadelta(rho: float = 0.95, eps: float = 1e-6, lr: Number = 1.0) -> Reference:
    """Zeiler (2012), Algorithm 1, line by line; no learning rate (lr = 1).

    4: E[g²]ₜ = ρ E[g²]ₜ₋₁ + (1 − ρ) gₜ²     5: Δxₜ = −RMS[Δx]ₜ₋₁/RMS[g]ₜ · gₜ, RMS[y] = √(E[y²] + ε)
    6: E[Δx²]ₜ = ρ E[Δx²]ₜ₋₁ + (1 − ρ) Δxₜ²   7: xₜ₊₁ = xₜ + Δxₜ
    Defaults of section 4: ρ = .95, ε = 1e-6. PyTorch (ρ = .9) and Optax (ρ = .9) multiply line 7, and only line 7, by a
    learning rate.
    """

    def init(params):
        return {"count": 0, "square_grad": zeros(params), "square_delta": zeros(params)}

    def step(grad, state, params):
        square_grad = rho * state["square_grad"] + (1.0 - rho) * grad**2
        delta = -np.sqrt(state["square_delta"] + eps) / np.sqrt(square_grad + eps) * grad
        square_delta = rho * state["square_delta"] + (1.0 - rho) * delta**2
        params = params + at(lr, state["count"]) * delta
        return params, {"count": state["count"] + 1, "square_grad": square_grad, "square_delta": square_delta}

    return Reference(init, step)


def rmsprop(lr: Number, decay: float, eps: float, *, eps_inside: bool = False, centered: bool = False) -> Reference:
    """n ← ρn + (1 − ρ)g², θ ← θ − ηₜ g/(√n + ε), or g/√(n + ε); centred: n − m² for n, with m ← ρm + (1 − ρ)g.

    Tieleman and Hinton (2012), Coursera lecture 6.5, slide 29: decay .9, no ε printed. The book: decay .99, ε = 1e-7
    outside. PyTorch: decay .99, ε = 1e-8 outside. Optax: decay .9, ε = 1e-8 inside. Centred: Graves (2013),
    arXiv:1308.0850, equations 38–40 (there ε is inside the root).
    """

    def init(params):
        return {"count": 0, "square": zeros(params), **({"mean": zeros(params)} if centered else {})}

    def step(grad, state, params):
        new = {"count": state["count"] + 1, "square": decay * state["square"] + (1.0 - decay) * grad**2}
        power = new["square"]
        if centered:
            new["mean"] = decay * state["mean"] + (1.0 - decay) * grad
            power = new["square"] - new["mean"] ** 2
        denominator = np.sqrt(power + eps) if eps_inside else np.sqrt(power) + eps
        return params - at(lr, state["count"]) * divide(grad, denominator), new

    return Reference(init, step)


def rmsprop_momentum(
    lr: Number,
    decay: float,
    eps: float,
    momentum: float,
    *,
    eps_inside: bool = False,
    centered: bool = False,
    lr_first: bool = False,
) -> Reference:
    """RMSprop with a trace of the scaled gradients, in PyTorch's order, or (`lr_first`) in Optax's.

    PyTorch: b ← μb + g/(√n + ε), θ ← θ − ηₜ b. Optax: b ← μb − ηₜ g/√(n + ε), θ ← θ + b: the learning rate enters the
    trace, so the two differ as soon as η changes. Under `lr_first` the trace has the update's sign.
    """
    unit = rmsprop(1.0, decay, eps, eps_inside=eps_inside, centered=centered)

    def init(params):
        return {**unit.init(params), "trace": zeros(params)}

    def step(grad, state, params):
        eta = at(lr, state["count"])
        moved, new = unit.step(grad, state, zeros(params))  # moved = −(scaled gradient)
        if lr_first:
            trace = momentum * state["trace"] + eta * moved
            return params + trace, {**new, "trace": trace}
        trace = momentum * state["trace"] - moved
        return params - eta * trace, {**new, "trace": trace}

    return Reference(init, step)
