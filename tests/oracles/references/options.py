"""PyTorch's options for any rule: ascent, L2 regularisation, decoupled weight decay."""

from tests.oracles.references.reference import Number, Reference, at, zeros


def ascent(inner: Reference) -> Reference:
    """`maximize=True`: the gradient's sign is turned before anything else happens to it."""
    return Reference(inner.init, lambda grad, state, params: inner.step(-grad, state, params))


def l2(inner: Reference, weight_decay: float) -> Reference:
    """`weight_decay`: g + λθ takes the gradient's place, in the statistics too."""
    return Reference(inner.init, lambda grad, state, params: inner.step(grad + weight_decay * params, state, params))


def decoupled(unit: Reference, lr: Number, weight_decay: float) -> Reference:
    """θ ← (1 − ηₜλ) θ − ηₜ u, with the direction u of a rule whose learning rate is 1."""

    def step(grad, state, params):
        moved, new = unit.step(grad, state, zeros(params))
        eta = at(lr, state["count"])
        return (1.0 - eta * weight_decay) * params + eta * moved, new

    return Reference(unit.init, step)
