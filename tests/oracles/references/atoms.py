"""The atoms: statistics, bias correction, clipping, projection and noise. Trees are lists of arrays here."""

import numpy as np

from tests.oracles.references.reference import Array, one_minus_power


def ema(values: Array, decay: float) -> Array:
    """mₜ = Σₛ (1 − β) βᵗ⁻ˢ xₛ from the recursion mₜ = βmₜ₋₁ + (1 − β)xₜ, m₀ = 0; all t, stacked."""
    mean, out = np.zeros_like(values[0]), []
    for value in values:
        mean = decay * mean + (1.0 - decay) * value
        out.append(mean)
    return np.stack(out)


def ema_closed_form(values: Array, decay: float) -> Array:
    """The same as a weighted sum, Σₛ (1 − β) βᵗ⁻ˢ xₛ, with no recursion in it."""
    t = np.arange(len(values))
    weights = np.where(t[:, None] >= t[None, :], (1.0 - decay) * decay ** np.abs(t[:, None] - t[None, :]), 0.0)
    return weights @ values


def bias_corrections(decay: float, num_steps: int) -> Array:
    """1 − βᵗ for t = 1 … num_steps (Kingma and Ba 2015, section 3)."""
    return np.array([one_minus_power(decay, t) for t in range(1, num_steps + 1)])


def total(values: Array, initial: float = 0.0) -> Array:
    """Sₜ = initial + Σₛ≤ₜ xₛ."""
    return initial + np.cumsum(values, axis=0)


def running_max(values: Array, initial: float = 0.0) -> Array:
    """max(initial, x₁ … xₜ)."""
    return np.maximum(initial, np.maximum.accumulate(values, axis=0))


def global_norm(tree: list[Array]) -> float:
    """The Euclidean norm of all leaves laid end to end; scaled, so that 1e200 does not overflow."""
    flat = np.concatenate([np.ravel(leaf) for leaf in tree]).astype(np.float64)
    largest = np.max(np.abs(flat), initial=0.0)
    return float(largest * np.sqrt(np.sum((flat / largest) ** 2))) if largest > 0.0 else 0.0


def clip_by_value(tree: list[Array], limit: float) -> list[Array]:
    """Each coordinate into [−limit, limit]."""
    return [np.minimum(np.maximum(leaf, -limit), limit) for leaf in tree]


def clip_by_global_norm(tree: list[Array], max_norm: float) -> list[Array]:
    """Pascanu, Mikolov and Bengio (2013), Algorithm 1: if ‖g‖ ≥ c then g ← c g/‖g‖, ‖·‖ over all leaves.

    PyTorch divides by ‖g‖ + 1e-6 instead.
    """
    norm = global_norm(tree)
    return [leaf * (max_norm / norm) if norm > max_norm else np.array(leaf) for leaf in tree]


def clip_by_leaf_norm(tree: list[Array], max_norm: float) -> list[Array]:
    """The same, each leaf by its own norm."""
    return [clip_by_global_norm([leaf], max_norm)[0] for leaf in tree]


def unit_norms(leaf: Array) -> Array:
    """‖·‖ of each unit: all axes but the last (the output) of a kernel, the whole of a vector or scalar."""
    if np.ndim(leaf) <= 1:
        return np.full(np.shape(leaf), global_norm([leaf]))
    axes = tuple(range(np.ndim(leaf) - 1))
    return np.sqrt(np.sum(np.square(leaf), axis=axes, keepdims=True)) * np.ones_like(leaf)


def clip_adaptively(tree: list[Array], params: list[Array], clipping: float, eps: float = 1e-3) -> list[Array]:
    """Brock et al. (2021), "High-performance large-scale image recognition without normalization", equation 3.

    Unit i: G ← λ max(‖W‖, ε)/‖G‖ · G if ‖G‖/max(‖W‖, ε) > λ. Units are the columns of an (in, out) kernel: equation
    3's rows of an (out, in) matrix; convolutions (…, in, out) likewise. A bias is one unit (the authors' code).
    """
    out = []
    for grad, weight in zip(tree, params, strict=True):
        limit = clipping * np.maximum(unit_norms(weight), eps)
        norm = unit_norms(grad)
        factor = np.ones_like(norm)
        np.divide(limit, norm, out=factor, where=norm > limit)
        out.append(grad * factor)
    return out


def clip_by_percentile(grads: Array, percentile: float, window: int | None = None) -> Array:
    """AutoClip: Seetharaman et al. (2020), Algorithm 1: clip ‖gₜ‖ at the percentile of ‖g₁‖ … ‖gₜ‖, gₜ included.

    The percentile interpolates linearly, as the authors' np.percentile does. `window` keeps only the last norms;
    the paper keeps all.
    """
    history, out = [], []
    for grad in grads:
        history.append(global_norm([grad]))
        kept = history if window is None else history[-window:]
        out.append(clip_by_global_norm([grad], float(np.percentile(kept, percentile)))[0])
    return np.stack(out)


def project_to_max_norm(params: list[Array], max_norm: float) -> list[Array]:
    """Srivastava et al. (2014), section 5.1: the incoming weights of each unit are kept at ‖w‖₂ ≤ c."""
    out = []
    for weight in params:
        norm = unit_norms(weight)
        out.append(np.where(norm > max_norm, weight * (max_norm / np.maximum(norm, np.finfo(float).tiny)), weight))
    return out


def gradient_noise_variance(eta: float, gamma: float, t: int) -> float:
    """Neelakantan et al. (2015), "Adding gradient noise improves learning", equation 1: σₜ² = η/(1 + t)^γ.

    The first step has t = 0, so its variance is η (the 1 + t of the page says so; some count from 1).
    """
    return eta / (1.0 + t) ** gamma
