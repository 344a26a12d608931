"""Adam and what was made of it: AMSGrad, AdaMax, Nadam, RAdam, AdamW."""

import numpy as np

from tests.oracles.references.reference import Number, Reference, at, divide, one_minus_power, zeros


def _moments(grad, state, b1, b2):
    """The first lines of every member: t, mₜ = β₁mₜ₋₁ + (1 − β₁)g, vₜ = β₂vₜ₋₁ + (1 − β₂)g²."""
    return {
        "count": state["count"] + 1,
        "m": b1 * state["m"] + (1.0 - b1) * grad,
        "v": b2 * state["v"] + (1.0 - b2) * grad**2,
    }


def _init(params):
    return {"count": 0, "m": zeros(params), "v": zeros(params)}


def adam(
    lr: Number,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    *,
    correct_m: bool = True,
    correct_v: bool = True,
) -> Reference:
    """Kingma and Ba (2015), Algorithm 1: m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ), θ ← θ − α m̂/(√v̂ + ε).

    PyTorch computes the same with √v/√(1 − β₂ᵗ) + ε. Optax adds eps_root inside the root: √(v̂ + ε_root) + ε. The two
    `correct_*` switches ablate the corrections.
    """

    def step(grad, state, params):
        new = _moments(grad, state, b1, b2)
        t = new["count"]
        m_hat = new["m"] / (one_minus_power(b1, t) if correct_m else 1.0)
        v_hat = new["v"] / (one_minus_power(b2, t) if correct_v else 1.0)
        return params - at(lr, t - 1) * divide(m_hat, np.sqrt(v_hat + eps_root) + eps), new

    return Reference(_init, step)


def adam_eps_hat(lr: Number, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-7) -> Reference:
    """Kingma and Ba (2015), end of section 2: αₜ = α √(1 − β₂ᵗ)/(1 − β₁ᵗ), θ ← θ − αₜ m/(√v + ε̂).

    ε̂ is not rescaled, so it weighs 1/√(1 − β₂ᵗ) more than Algorithm 1's ε: 32 times at t = 1. The book "Deep Learning
    from Scratch" uses this form with ε̂ = 1e-7, and writes m += (1 − β₁)(g − m).
    """

    def step(grad, state, params):
        new = {
            "count": state["count"] + 1,
            "m": state["m"] + (1.0 - b1) * (grad - state["m"]),
            "v": state["v"] + (1.0 - b2) * (grad**2 - state["v"]),
        }
        t = new["count"]
        rate = at(lr, t - 1) * np.sqrt(one_minus_power(b2, t)) / one_minus_power(b1, t)
        return params - rate * divide(new["m"], np.sqrt(new["v"]) + eps), new

    return Reference(_init, step)


def amsgrad_paper(lr: Number, b1: float = 0.9, b2: float = 0.999, eps: float = 0.0) -> Reference:
    """Reddi, Kale and Kumar (2018), Algorithm 2: v̂ₜ = max(v̂ₜ₋₁, vₜ), θ ← θ − αₜ mₜ/√v̂ₜ; no bias correction, no ε.

    The paper prints no ε (0/0 = 0 here); `eps`, outside the root, is what every implementation adds. The projection
    Π is left out: it acts on the parameters, not on the step.
    """

    def init(params):
        return {**_init(params), "v_max": zeros(params)}

    def step(grad, state, params):
        new = _moments(grad, state, b1, b2)
        new["v_max"] = np.maximum(state["v_max"], new["v"])
        return params - at(lr, new["count"] - 1) * divide(new["m"], np.sqrt(new["v_max"]) + eps), new

    return Reference(init, step)


def amsgrad_torch(lr: Number, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Reference:
    """PyTorch's `Adam(amsgrad=True)`: the maximum of the raw v, corrected afterwards by the present 1 − β₂ᵗ."""

    def init(params):
        return {**_init(params), "v_max": zeros(params)}

    def step(grad, state, params):
        new = _moments(grad, state, b1, b2)
        t = new["count"]
        new["v_max"] = np.maximum(state["v_max"], new["v"])
        denominator = np.sqrt(new["v_max"] / one_minus_power(b2, t)) + eps
        return params - at(lr, t - 1) * divide(new["m"] / one_minus_power(b1, t), denominator), new

    return Reference(init, step)


def amsgrad_optax(
    lr: Number, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> Reference:
    """Optax's `amsgrad`: the maximum of the corrected v̂. An early large v̂ = g₁² then never leaves."""

    def init(params):
        return {**_init(params), "v_max": zeros(params)}

    def step(grad, state, params):
        new = _moments(grad, state, b1, b2)
        t = new["count"]
        new["v_max"] = np.maximum(state["v_max"], new["v"] / one_minus_power(b2, t))
        denominator = np.sqrt(new["v_max"] + eps_root) + eps
        return params - at(lr, t - 1) * divide(new["m"] / one_minus_power(b1, t), denominator), new

    return Reference(init, step)


def adamax(lr: Number, b1: float = 0.9, b2: float = 0.999, eps: float = 0.0) -> Reference:
    """Kingma and Ba (2015), section 7.1, Algorithm 2: u ← max(β₂u, |g|), θ ← θ − α/(1 − β₁ᵗ) m/u; 0/0 = 0.

    The paper has no ε. PyTorch and Optax take u ← max(β₂u, |g| + ε), ε = 1e-8.
    """

    def init(params):
        return {"count": 0, "m": zeros(params), "u": zeros(params)}

    def step(grad, state, params):
        t = state["count"] + 1
        m = b1 * state["m"] + (1.0 - b1) * grad
        u = np.maximum(b2 * state["u"], np.abs(grad) + eps)
        return params - at(lr, t - 1) / one_minus_power(b1, t) * divide(m, u), {"count": t, "m": m, "u": u}

    return Reference(init, step)


def nadam(
    lr: Number,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    momentum_decay: float = 0.004,
    *,
    average_with_mu: bool = False,
    nu_factor: bool = False,
) -> Reference:
    """Dozat (2016), ICLR workshop, Algorithm 2, with μₜ = β₁(1 − ½·.96^(tψ)) from the report (ψ = 1/250 = .004).

        m̂ = μₜ₊₁ m/(1 − Πᵢ₌₁ᵗ⁺¹ μᵢ) + (1 − μₜ) g/(1 − Πᵢ₌₁ᵗ μᵢ),  n̂ = v/(1 − β₂ᵗ),  θ ← θ − α m̂/(√n̂ + ε)

    Accepted readings. (1) The paper averages m with μₜ (`average_with_mu`), PyTorch and Keras with the constant β₁.
    (2) The paper prints n̂ = νn/(1 − νᵗ) (`nu_factor`), which everybody takes for a slip. Both switches off: PyTorch.
    With both on: the paper's page. ψ = 0 would be a constant μ = β₁/2; for a constant μ = β₁ see `nadam_optax`.
    """

    def mu(t):
        return b1 * (1.0 - 0.5 * 0.96 ** (t * momentum_decay))

    def init(params):
        return {**_init(params), "mu_product": 1.0}

    def step(grad, state, params):
        t = state["count"] + 1
        new = _moments(grad, state, mu(t) if average_with_mu else b1, b2)
        new["mu_product"] = state["mu_product"] * mu(t)
        product_next = new["mu_product"] * mu(t + 1)
        m_hat = mu(t + 1) * new["m"] / (1.0 - product_next) + (1.0 - mu(t)) * grad / (1.0 - new["mu_product"])
        n_hat = (b2 if nu_factor else 1.0) * new["v"] / one_minus_power(b2, t)
        return params - at(lr, t - 1) * divide(m_hat, np.sqrt(n_hat) + eps), new

    return Reference(init, step)


def nadam_optax(lr: Number, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0) -> Reference:
    """Dozat's rule with a constant μ = β₁: m̂ = β₁ m/(1 − β₁ᵗ⁺¹) + (1 − β₁) g/(1 − β₁ᵗ)."""

    def step(grad, state, params):
        new = _moments(grad, state, b1, b2)
        t = new["count"]
        m_hat = b1 * new["m"] / one_minus_power(b1, t + 1) + (1.0 - b1) * grad / one_minus_power(b1, t)
        v_hat = new["v"] / one_minus_power(b2, t)
        return params - at(lr, t - 1) * divide(m_hat, np.sqrt(v_hat + eps_root) + eps), new

    return Reference(_init, step)


def radam(
    lr: Number,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 0.0,
    *,
    threshold: float = 4.0,
    inclusive: bool = False,
    eps_corrected: bool = True,
) -> Reference:
    """Liu et al. (2020), "On the variance of the adaptive learning rate and beyond", Algorithm 2.

        ρ∞ = 2/(1 − β₂) − 1,  ρₜ = ρ∞ − 2tβ₂ᵗ/(1 − β₂ᵗ)
        ρₜ > 4: θ ← θ − α r m̂ l,  l = √((1 − β₂ᵗ)/v),  r = √((ρₜ−4)(ρₜ−2)ρ∞ / ((ρ∞−4)(ρ∞−2)ρₜ));  else θ ← θ − α m̂

    The paper: threshold 4, no ε (0/0 = 0). The authors' code: ρₜ ≥ 5, ε beside √v. PyTorch: ρₜ > 5 and
    l = √(1 − β₂ᵗ)/(√v + ε) (`eps_corrected=False`: ε is not divided by the correction). Optax: ρₜ ≥ 5 (`inclusive`)
    and l = 1/(√v̂ + ε) (`eps_corrected=True`).
    """
    rho_inf = 2.0 / (1.0 - b2) - 1.0

    def step(grad, state, params):
        new = _moments(grad, state, b1, b2)
        t = new["count"]
        correction = one_minus_power(b2, t)
        m_hat = new["m"] / one_minus_power(b1, t)
        rho = rho_inf - 2.0 * t * b2**t / correction
        if rho > threshold or (inclusive and rho == threshold):
            r = np.sqrt((rho - 4.0) * (rho - 2.0) * rho_inf / ((rho_inf - 4.0) * (rho_inf - 2.0) * rho))
            scale = np.sqrt(new["v"] / correction) + (eps if eps_corrected else eps / np.sqrt(correction))
            return params - at(lr, t - 1) * r * divide(m_hat, scale), new
        return params - at(lr, t - 1) * m_hat, new

    return Reference(_init, step)


def adamw_paper(
    alpha: float,
    weight_decay: float,
    schedule: Number = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> Reference:
    """Loshchilov and Hutter (2019), Algorithm 2, line 12: θ ← θ − ηₜ (α m̂/(√v̂ + ε) + λθ).

    λ is not multiplied by α: only the schedule multiplier ηₜ scales both.
    """
    inner = adam(alpha, b1, b2, eps)

    def step(grad, state, params):
        moved, new = inner.step(grad, state, zeros(params))
        return params + at(schedule, state["count"]) * (moved - weight_decay * params), new

    return Reference(_init, step)


def adamw_torch(
    lr: Number, weight_decay: float = 1e-2, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> Reference:
    """PyTorch and Optax: θ ← θ − ηₜ (m̂/(√v̂ + ε) + λθ), ηₜ the learning rate, so λ is scaled by it.

    PyTorch first multiplies θ by 1 − ηₜλ and then subtracts Adam's step: the same to rounding.
    """
    inner = adam(1.0, b1, b2, eps)

    def step(grad, state, params):
        moved, new = inner.step(grad, state, zeros(params))
        return params + at(lr, state["count"]) * (moved - weight_decay * params), new

    return Reference(_init, step)
