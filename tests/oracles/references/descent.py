"""Gradient descent, momentum in both conventions, and Nesterov's method in all of its forms."""

from tests.oracles.references.reference import Number, Reference, at, zeros


def sgd(lr: Number) -> Reference:
    """θ ← θ − ηₜ g (Robbins and Monro 1951)."""

    def init(params):
        return {"count": 0}

    def step(grad, state, params):
        return params - at(lr, state["count"]) * grad, {"count": state["count"] + 1}

    return Reference(init, step)


def momentum_paper(lr: Number, decay: Number) -> Reference:
    """v ← γₜ v + ηₜ g, θ ← θ − v: the learning rate is inside the velocity.

    Polyak (1964); Rumelhart, Hinton and Williams (1986), equation 9; Sutskever et al. (2013), equations 1–2, with the
    velocity's sign turned; the study notes.
    """

    def init(params):
        return {"count": 0, "velocity": zeros(params)}

    def step(grad, state, params):
        count = state["count"]
        velocity = at(decay, count) * state["velocity"] + at(lr, count) * grad
        return params - velocity, {"count": count + 1, "velocity": velocity}

    return Reference(init, step)


def momentum_trace(lr: Number, decay: Number, dampening: float = 0.0) -> Reference:
    """a ← β a + (1 − dampening) g, θ ← θ − ηₜ a: the learning rate is outside (the Optax and PyTorch trace).

    PyTorch's `SGD` takes the first gradient undampened; with dampening 0 there is no first-step rule.
    """

    def init(params):
        return {"count": 0, "trace": zeros(params)}

    def step(grad, state, params):
        count = state["count"]
        kept = 1.0 if count == 0 else 1.0 - dampening
        trace = at(decay, count) * state["trace"] + kept * grad
        return params - at(lr, count) * trace, {"count": count + 1, "trace": trace}

    return Reference(init, step)


def nesterov_lookahead(lr: Number, decay: Number) -> Reference:
    """v ← γₜ v + ηₜ ∇J(θ − γₜ v), θ ← θ − v. `step` takes the gradient function.

    Nesterov (1983); Sutskever et al. (2013), equations 3–4. One step uses one γ, at the look-ahead and in the
    velocity: Sutskever et al. write μ_t in both places.
    """

    def init(params):
        return {"count": 0, "velocity": zeros(params)}

    def step(gradient, state, params):
        count, velocity = state["count"], state["velocity"]
        gamma = at(decay, count)
        velocity = gamma * velocity + at(lr, count) * gradient(params - gamma * velocity)
        return params - velocity, {"count": count + 1, "velocity": velocity}

    return Reference(init, step)


def nesterov_bengio(lr: Number, decay: Number) -> Reference:
    """The look-ahead method in the coordinates of its own gradient point φ = θ − γₜ v, exact under schedules.

    v ← γₜ v + ηₜ ∇J(φ),  φ ← φ + γₜ v_old − v_new − γₜ₊₁ v_new. Bengio, Boulanger-Lewandowski and Pascanu (2013),
    "Advances in optimizing recurrent networks", equations 6–7, with the velocity's sign turned.
    """

    def init(params):
        return {"count": 0, "velocity": zeros(params)}

    def step(grad, state, params):
        count, old = state["count"], state["velocity"]
        gamma, gamma_next = at(decay, count), at(decay, count + 1)
        new = gamma * old + at(lr, count) * grad
        return params + gamma * old - new - gamma_next * new, {"count": count + 1, "velocity": new}

    return Reference(init, step)


def nesterov_trace(lr: Number, decay: Number) -> Reference:
    """a ← β a + g, φ ← φ − ηₜ (g + β a): what PyTorch (`nesterov=True`) and Optax (`trace(nesterov=True)`) do.

    At constant η it is `nesterov_bengio` with v = ηa; under a schedule of η it is another method.
    """

    def init(params):
        return {"count": 0, "trace": zeros(params)}

    def step(grad, state, params):
        count = state["count"]
        beta = at(decay, count)
        trace = beta * state["trace"] + grad
        return params - at(lr, count) * (grad + beta * trace), {"count": count + 1, "trace": trace}

    return Reference(init, step)


def nesterov_misordered(lr: float, decay: float) -> Reference:
    """The common error: v is updated before it is used. A negative control, not a method.

    v ← γv − ηg, φ ← φ + γ²v − (1 + γ)ηg. On a quadratic it is stable only for ηL < (2 + 2γ)/(1 + 2γ + 2γ²) = .860 at
    γ = .9, where Nesterov's method holds until (2 + 2γ)/(1 + 2γ) = 1.357.
    """

    def init(params):
        return {"velocity": zeros(params)}

    def step(grad, state, params):
        velocity = decay * state["velocity"] - lr * grad
        return params + decay**2 * velocity - (1.0 + decay) * lr * grad, {"velocity": velocity}

    return Reference(init, step)
