"""Averaged gradient descent."""

from tests.oracles.references.reference import Number, Reference, at, zeros


def asgd_bottou(lr: Number, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 0.0) -> Reference:
    """Bottou (2012), "Stochastic gradient descent tricks", section 5.3; Xu (2011), section 5.

    With t = 0 at the first step: γₜ = γ₀(1 + γ₀λt)^−α, θ ← θ − γₜ(g + λθ) (the loss has the term ½λ‖θ‖²), and θ̄ is the
    mean of the iterates after step t₀, which is θ itself until then (Polyak and Juditsky 1992).
    """

    def init(params):
        return {"count": 0, "_sum": zeros(params), "average": zeros(params)}

    def step(grad, state, params):
        t, rate = state["count"], at(lr, state["count"])
        params = params - rate / (1.0 + lambd * rate * t) ** alpha * (grad + lambd * params)
        total = state["_sum"] + params if t + 1 > t0 else state["_sum"]
        average = total / (t + 1 - t0) if t + 1 - t0 >= 1 else params
        return params, {"count": t + 1, "_sum": total, "average": average}

    return Reference(init, step)


def asgd_torch(lr: Number, lambd: float = 1e-4, alpha: float = 0.75, t0: float = 1e6) -> Reference:
    """`torch.optim.ASGD`, line by line: η and μ of a step are formed at the end of the step before, from its rate."""

    def init(params):
        return {"count": 0, "average": zeros(params), "_eta": at(lr, 0), "_mu": 1.0}

    def step(grad, state, params):
        step_number, rate = state["count"] + 1, at(lr, state["count"])
        params = params * (1.0 - lambd * state["_eta"]) - state["_eta"] * grad
        average = state["average"] + (params - state["average"]) * state["_mu"] if state["_mu"] != 1.0 else params
        eta = rate / (1.0 + lambd * rate * step_number) ** alpha
        mu = 1.0 / max(1.0, step_number - t0)
        return params, {"count": step_number, "average": average, "_eta": eta, "_mu": mu}

    return Reference(init, step)
