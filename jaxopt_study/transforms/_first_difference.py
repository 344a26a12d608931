"""Comparison of two chains: the first step and atom at which their outputs differ, and the reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxopt_study._checks import check_integer, check_params, check_real
from jaxopt_study.transforms._composition import chain, merge
from jaxopt_study.transforms._expression import Transform, with_any_extra
from jaxopt_study.transforms._printing import render
from jaxopt_study.transforms._spec import same


@dataclass(frozen=True)
class Difference:
    """The result of `explain_difference`.

    Attributes:
        equal: Whether the updates agreed at every step.
        step: The first step at which the updates differed, counted from 1; None if equal.
        atom: The first atom, in the order of execution, whose output differed at that step; None if equal.
        reason: The difference at that atom; if equal, the differences between the expressions that had no effect.
        gap: Largest difference between the updates at that step, relative to the larger of them.
        num_steps: Number of steps compared.
    """

    equal: bool
    step: int | None
    atom: str | None
    reason: str
    gap: float
    num_steps: int

    def __str__(self) -> str:
        if self.equal:
            return f"The updates agree in all {self.num_steps} steps. {self.reason}"
        return (
            f"The updates first differ at step {self.step}, in {self.atom}: {self.reason} (relative gap {self.gap:.1e})"
        )


def explain_difference(
    a: optax.GradientTransformation,
    b: optax.GradientTransformation,
    *,
    params: Any = None,
    grads: Any = None,
    num_steps: int = 100,
    tolerance: float = 1e-9,
) -> Difference:
    """Run two chains on the same gradients and report the first step and atom at which they differ, and why.

    Both are expanded into atoms and given the same gradients in double precision; the outputs of corresponding atoms
    are compared. Agreement on these gradients does not prove that two chains agree on all.

    Args:
        a: A transformation.
        b: Another transformation.
        params: The parameters at which both are run, held fixed; random if None.
        grads: Gradients of the same structure with a leading step axis; if None, random ones with zeros, bursts and
            changing signs.
        num_steps: Number of steps to run if `grads` is None.
        tolerance: Relative difference above which two outputs count as different.

    Returns:
        The difference; `print` shows it as a sentence.

    Raises:
        TypeError: If an argument is not an Optax transformation.
        ValueError: If there are no steps, or gradients and parameters differ in structure.

    Example:
        >>> from jaxopt_study import optimizers
        >>> difference = explain_difference(optimizers.rmsprop(0.01), optimizers.rmsprop(0.01, eps=1e-3))
        >>> print(difference.step, difference.atom, difference.reason)
        1 merge.fn eps is 1e-08 in the first, 0.001 in the second
    """
    name = "explain_difference"
    for position, tx in (("first", a), ("second", b)):
        if not isinstance(tx, optax.GradientTransformation):
            raise TypeError(f"explain_difference: the {position} argument must be a transformation, received {tx!r}.")
    num_steps = check_integer(name, "num_steps", num_steps, 1)
    tolerance = check_real(name, "tolerance", tolerance, 0.0, 1.0, closed="[)")
    params = None if params is None else check_params(name, params)
    grads = None if grads is None else check_params(name, grads, name="grads")
    if grads is not None and params is not None and jax.tree.structure(grads) != jax.tree.structure(params):
        raise ValueError(
            "explain_difference: gradients and parameters must have the same structure, received "
            f"{jax.tree.structure(grads)} and {jax.tree.structure(params)}. A leaf of the gradients has the "
            "parameter's shape with a leading step axis."
        )
    with jax.enable_x64(True):
        if grads is None:
            params = jnp.asarray(np.random.default_rng(0).normal(size=8)) if params is None else params
            grads = _gradients(params, num_steps)
        else:
            grads = jax.tree.map(lambda g: jnp.asarray(g, dtype=float), grads)
            params = jax.tree.map(lambda g: jnp.ones_like(g[0]), grads) if params is None else params
        params = jax.tree.map(lambda p: jnp.asarray(p, dtype=float), params)
        atoms_a, final_a = _outputs(a, params, grads)
        atoms_b, final_b = _outputs(b, params, grads)
        count = len(jax.tree.leaves(grads)[0])
        gaps = _gaps(final_a, final_b)
    parts = [(x, y, _reason(x, y, atoms_a, atoms_b)) for x, y in _blocks(atoms_a, atoms_b)]
    parted = np.flatnonzero(~(gaps <= tolerance))
    if not len(parted):
        blocks = [reason for _, _, reason in parts if reason]
        written = f"The expressions differ: {'; '.join(blocks)}." if blocks else "The expressions are equal."
        return Difference(True, None, None, written, float(gaps.max(initial=0.0)), count)
    step = int(parted[0])
    for block_a, block_b, reason in parts:
        if reason and _block_differs(block_a, block_b, step, tolerance):
            name = (block_a or block_b)[-1].path
            return Difference(False, step + 1, name, reason, float(gaps[step]), count)
    everything = "; ".join(reason for _, _, reason in parts if reason)
    return Difference(False, step + 1, "the whole chain", everything or "unknown", float(gaps[step]), count)


class _Atom(NamedTuple):
    path: str
    name: str
    arguments: dict[str, Any]
    text: str  # as printed
    outputs: Any  # leading axis: steps


class _RecordState(NamedTuple):
    output: Any
    inner: Any


def _record(tx: optax.GradientTransformation) -> optax.GradientTransformationExtraArgs:
    """Return the same transformation, with the last output of every part kept in the state."""
    spec = getattr(tx, "spec", None)
    if spec is not None and spec.constructor.name == "chain":
        inner = chain(*(_record(part) for part in spec.arguments["parts"]))
    elif spec is not None and spec.constructor.name == "merge":
        inner = merge(spec.arguments["fn"], *(_record(part) for part in spec.arguments["branches"]))
    else:
        inner = with_any_extra(tx)

    def init(params):
        return _RecordState(jax.tree.map(jnp.zeros_like, params), inner.init(params))

    def update(updates, state, params=None, **extra):
        output, inner_state = inner.update(updates, state.inner, params, **extra)
        return output, _RecordState(output, inner_state)

    return optax.GradientTransformationExtraArgs(init, update)


def _outputs(tx: Any, params: Any, grads: Any) -> tuple[list[_Atom], Any]:
    expanded = tx.expand() if isinstance(tx, Transform) else tx
    recorder = _record(expanded)

    def step(state, g):
        updates, state = recorder.update(g, state, params)
        return state, (updates, state)

    _, (final, history) = jax.jit(lambda: jax.lax.scan(step, recorder.init(params), grads))()
    return list(_atoms(expanded, history, "")), final


def _atoms(tx: Any, history: Any, prefix: str) -> Iterator[_Atom]:
    """Yield the atoms in the order of execution, each with its outputs; a merge after its branches."""
    spec = getattr(tx, "spec", None)
    if spec is None:
        yield _Atom(prefix or "the whole", "", {}, "a transformation without a specification", history.output)
        return
    name = spec.constructor.name
    if name not in ("chain", "merge"):
        yield _Atom(prefix or name, name, spec.arguments, repr(tx), history.output)
        return
    parts = spec.arguments["parts" if name == "chain" else "branches"]
    inner = history.inner if name == "chain" else history.inner.branches
    labels = [_label(part) for part in parts]
    for position, (part, part_history) in enumerate(zip(parts, inner, strict=True)):
        label = labels[position]
        if labels.count(label) > 1:
            label += f"[{labels[:position].count(label)}]"
        yield from _atoms(part, part_history, f"{prefix}.{label}" if prefix else label)
    if name == "merge":
        function = spec.arguments["fn"]
        arguments = getattr(getattr(function, "spec", None), "arguments", {"fn": function})
        text = f"merge({render(function)}, …)"
        yield _Atom(
            f"{prefix or 'merge'}.fn", text.partition("(")[2].partition("(")[0], arguments, text, history.output
        )


def _label(part: Any) -> str:
    spec = getattr(part, "spec", None)
    return "bare" if spec is None else spec.constructor.name.rpartition(".")[2]


def _blocks(a: list[_Atom], b: list[_Atom]) -> list[tuple[list[_Atom], list[_Atom]]]:
    """Return two lists of atoms aligned by name: pairs where they correspond, runs where they do not."""

    def affinity(x: _Atom, y: _Atom) -> float:
        if x.name != y.name:
            return 0.0
        return 1.0 + (0.5 if same(x.arguments, y.arguments) else 0.0) + (0.25 if x.path == y.path else 0.0)

    # The longest common subsequence, weighted so that equal atoms in equal places are paired first.
    best = np.zeros((len(a) + 1, len(b) + 1))
    for i in reversed(range(len(a))):
        for j in reversed(range(len(b))):
            paired = affinity(a[i], b[j])
            best[i, j] = max(best[i + 1, j], best[i, j + 1], best[i + 1, j + 1] + paired if paired else 0.0)
    blocks: list[tuple[list[_Atom], list[_Atom]]] = []
    only_a: list[_Atom] = []
    only_b: list[_Atom] = []
    i = j = 0
    while i < len(a) or j < len(b):
        paired = affinity(a[i], b[j]) if i < len(a) and j < len(b) else 0.0
        if paired and best[i, j] == best[i + 1, j + 1] + paired:
            if only_a or only_b:
                blocks.append((only_a, only_b))
                only_a, only_b = [], []
            blocks.append(([a[i]], [b[j]]))
            i, j = i + 1, j + 1
        elif i < len(a) and (j == len(b) or best[i, j] == best[i + 1, j]):
            only_a.append(a[i])
            i += 1
        else:
            only_b.append(b[j])
            j += 1
    if only_a or only_b:
        blocks.append((only_a, only_b))
    return blocks


def _reason(a: list[_Atom], b: list[_Atom], all_a: list[_Atom], all_b: list[_Atom]) -> str:
    if len(a) == len(b) == 1 and a[0].name == b[0].name:
        names = [name for name in a[0].arguments if not same(a[0].arguments[name], b[0].arguments.get(name))]
        return "; ".join(
            f"{name} is {render(a[0].arguments[name])} in the first, {render(b[0].arguments.get(name))} in the second"
            for name in names
        )
    sides = (a, all_b, "first", "second"), (b, all_a, "second", "first")
    return "; ".join(_place(x, others, here, there) for own, others, here, there in sides for x in own)


def _place(atom: _Atom, others: list[_Atom], here: str, there: str) -> str:
    """Return a clause saying that the other chain lacks an atom, or applies it at another position."""
    for position, twin in enumerate(others):
        if twin.name == atom.name and same(twin.arguments, atom.arguments):
            elsewhere = f"after {others[position - 1].path}" if position else "at the start"
            return f"the {here} optimizer applies {atom.text} here, the {there} {elsewhere}"
    return f"only the {here} optimizer applies {atom.text}"


def _block_differs(a: list[_Atom], b: list[_Atom], step: int, tolerance: float) -> bool:
    if not a or not b:
        return True
    gaps = _gaps(a[-1].outputs, b[-1].outputs)
    # A statistic may differ long before the update does (a maximum that has had no effect yet).
    return bool((~(gaps[: step + 1] <= tolerance)).any())


def _gaps(a: Any, b: Any) -> np.ndarray:
    """Return the largest relative difference at every step."""
    pairs = list(zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))
    gaps = np.zeros(len(pairs[0][0]))
    for x, y in pairs:
        x, y = (np.asarray(z, dtype=float).reshape(len(z), -1) for z in (x, y))
        scale = np.maximum(np.abs(x), np.abs(y)).max(axis=1, initial=0.0)
        gap = np.abs(x - y).max(axis=1, initial=0.0)
        gaps = np.maximum(gaps, np.where(scale > 0, gap / np.where(scale > 0, scale, 1.0), 0.0))
        unequal = (np.isnan(x) != np.isnan(y)).any(axis=1)
        gaps = np.where(unequal, np.inf, np.where(np.isnan(gaps), 0.0, gaps))
    return gaps


def _gradients(params: Any, num_steps: int) -> Any:
    """Return random gradients on which optimizers differ: with zeros, bursts, tiny values and changing signs."""
    generator = np.random.default_rng(1)

    def draw(p):
        g = generator.normal(size=(num_steps, *np.shape(p)))
        g *= 10.0 ** generator.choice([-4, 0, 0, 0, 2], size=(num_steps,) + (1,) * np.ndim(p))
        g *= generator.random(g.shape) > 0.2
        return jnp.asarray(g)

    return jax.tree.map(draw, params)
