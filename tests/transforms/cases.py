"""Every public transformation with example arguments, and chains of them: what the laws are checked on.

A new atom or optimizer that can be built without arguments gets its cases by itself, one for each convention. One that
cannot needs an entry in `EXAMPLES`, of which the first is built under each convention; a test fails until it has one.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.transforms import *  # noqa: F403 - the examples read as users write them
from jaxopt_study.transforms import Transform, chain, from_optax, merge


@dataclass(frozen=True)
class Case:
    """A transformation, and what it promises beside the laws."""

    name: str
    build: Callable[[], Transform]
    needs_params: bool = False  # the update refuses to run without parameters
    keeps_dtype: bool = True  # the output has the dtype of the gradient
    half_precision: bool = True  # finite and of the same dtype there too: Optax's ε of 1e-8 is 0 in float16
    # An argument, or the loss of an update, has the structure of `params()`, so other parameters do not fit.
    names_leaves: bool = False
    is_variant: bool = (
        False  # made of atoms that have cases of their own, as an optimizer under a further convention is
    )

    @cached_property
    def tx(self) -> Transform:
        return self.build()

    def __str__(self):
        return self.name


@dataclass(frozen=True)
class Example:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    needs_params: bool = False
    keeps_dtype: bool = True
    half_precision: bool = True
    names_leaves: bool = False
    is_variant: bool = False


def call(
    *args, needs_params=False, keeps_dtype=True, half_precision=True, names_leaves=False, is_variant=False, **kwargs
) -> Example:
    return Example(args, kwargs, needs_params, keeps_dtype, half_precision, names_leaves, is_variant)


def halving(count):
    """A schedule: 0.1, 0.05, 0.033…"""
    return 0.1 / (1.0 + count)


def is_matrix(params):
    """Choose the leaves that usually decay."""
    return jax.tree.map(lambda p: jnp.ndim(p) > 1, params)


COSINE = from_optax(optax.cosine_decay_schedule)(0.1, 20)
WARMING = from_optax(optax.linear_schedule)(0.5, 0.9, 4)
T = transforms

EXAMPLES: dict[str, list[Example]] = {
    "transforms.add_decayed_weights": [
        call(0.1, needs_params=True),
        call(0.1, mask={"kernel": True, "scale": False}, needs_params=True, names_leaves=True),
        call(0.1, flip_sign=True, needs_params=True),
    ],
    "transforms.add_gradient_noise": [call(0.01, 0.55, jax.random.key(3))],
    "transforms.average_iterates": [call(needs_params=True), call(2.0, dtype=jnp.float32, needs_params=True)],
    "transforms.bias_correction": [call(0.9), call(0.999, power=-0.5), call(0.9, ahead=1)],
    "transforms.chain": [
        call(T.clip_by_global_norm(1.0), T.heavy_ball(0.9), T.scale_by_learning_rate(0.1)),
        call(T.identity()),
        call(T.tap("in"), T.tap("clip", T.clip_by_value(0.3)), T.scale_by_learning_rate(0.1)),
        call(optimizers.adam(0.1), T.project_to_max_norm(1.0), needs_params=True),
        call(
            from_optax(optax.scale_by_adam)(b2=0.99),
            T.chain(T.nesterov(0.9)),
            T.scale_by_learning_rate(COSINE),
            half_precision=False,
        ),
    ],
    "transforms.clip_by_global_norm": [call(0.5)],
    "transforms.clip_by_leaf_norm": [call(0.5)],
    "transforms.clip_by_percentile": [call(50.0, window=3)],
    "transforms.clip_by_unit_norm": [call(0.1, needs_params=True)],
    "transforms.clip_by_value": [call(0.5)],
    "transforms.clip_weights": [call(0.7, needs_params=True)],
    "transforms.dampen": [call(0.3)],
    "transforms.decay_proximally": [call(0.1, 0.1, needs_params=True), call(0.1, COSINE, needs_params=True)],
    "transforms.elementwise": [call(jnp.tanh), call(T.root(eps=0.1, eps_root=30.0)), call(T.magnitude(eps=0.1))],
    "transforms.ema": [
        call(0.9),
        call(0.3, of=jnp.square, initial=0.1),
        call(0.99, dtype=jnp.float32, keeps_dtype=False),
    ],
    "transforms.heavy_ball": [call(0.9), call(WARMING)],
    "transforms.merge": [
        call(T.divide_by_root(), T.identity(), T.total()),
        call(T.divide_by_root(eps=0.0), T.identity(), T.total()),
        call(T.divide_by_deviation(eps=1e-4), T.identity(), T.ema(0.9, of=jnp.square), T.ema(0.9)),
        call(T.divide_by(), T.ema(0.9), T.running_max(0.99, of=T.magnitude())),
        call(T.weighted_sum(0.5), T.identity(), T.gradient_difference()),
        call(T.interpolate(0.3), T.identity(), T.merge(jnp.minimum, T.ema(0.9), T.negate())),
    ],
    "transforms.nesterov": [call(0.9), call(WARMING)],
    "transforms.nesterov_lookahead": [call(0.1, 0.9), call(COSINE, WARMING)],
    "transforms.project_to_max_norm": [call(0.7, needs_params=True), call(0.7, axis=1, needs_params=True)],
    "transforms.running_max": [call(), call(0.9, of=jnp.abs, initial=0.1)],
    "transforms.scale_by_amsgrad": [call(correction=correction) for correction in ("none", "before", "after")],
    "transforms.scale_by_factored_rms": [
        call(),
        call(eps=None, eps_is_floor=True),
        call(axes="largest", min_dim_size_to_factor=2),
    ],
    "transforms.scale_by_learning_rate": [
        call(0.1),
        call(COSINE),
        call(halving),
        call(0.1, flip_sign=False),
        call(T.schedule_product(T.inverse_time_decay(COSINE, 0.5), T.relative_step(0.7))),
        call(T.regularised_decay(0.1, 0.5, lagged=True)),
    ],
    "transforms.scale_by_nadam": [call(), call(momentum_decay=None)],
    "transforms.scale_by_param_rms": [call(needs_params=True)],
    "transforms.scale_by_rprop": [call(), call(on_reversal="rest", lagged=True)],
    "transforms.scale_by_newton": [
        call(0.1, needs_params=True, names_leaves=True),
        call(0.1, 1e-3, stop_at_negative_curvature=False, needs_params=True, names_leaves=True, is_variant=True),
    ],
    "transforms.scale_by_saddle_free_newton": [
        call(0.1, needs_params=True, names_leaves=True),
        call(0.1, max_matvecs=2, needs_params=True, names_leaves=True, is_variant=True),
    ],
    "transforms.scale_by_radam": [call(), call(0.9, 0.9, eps=1e-8, inclusive=True, eps_corrected=False)],
    "transforms.scale_by_rms": [call(), call(centered=True, eps=1e-4)],
    "transforms.tap": [call("here"), call("norm", T.clip_by_global_norm(0.5)), call("off", enabled=False)],
    "transforms.total": [call(), call(of=jnp.abs, initial=0.1)],
    "optimizers.adafactor": [
        call(needs_params=True),
        call(
            0.1,
            momentum=0.9,
            momentum_dtype=jnp.float32,
            weight_decay=0.1,
            maximize=True,
            needs_params=True,
            keeps_dtype=False,
        ),
    ],
    "optimizers.adagrad": [call(0.1)],
    "optimizers.adamw": [
        call(needs_params=True),
        call(0.1, weight_decay=0.1, schedule=COSINE, needs_params=True),
        call(0.1, amsgrad=True, maximize=True, needs_params=True),
    ],
    "optimizers.asgd": [call(0.1, needs_params=True)],
    "optimizers.adan": [call(needs_params=True)],
    "optimizers.lion": [call(needs_params=True)],
    "optimizers.momentum": [call(0.1), call(COSINE, WARMING)],
    "optimizers.nesterov": [call(0.1), call(COSINE, WARMING)],
    "optimizers.nesterov_lookahead": [call(0.1)],
    "optimizers.newton": [call(damping=0.1, needs_params=True, names_leaves=True, is_variant=True)],
    "optimizers.rmsprop": [call(0.1), call(0.1, centered=True, momentum=0.9)],
    "optimizers.saddle_free_newton": [call(damping=0.1, needs_params=True, names_leaves=True, is_variant=True)],
    "optimizers.sgd": [
        call(0.1),
        call(COSINE),
        call(0.1, 0.9, dampening=0.3, weight_decay=COSINE, mask=is_matrix, maximize=True, needs_params=True),
    ],
}

LABELS = {"kernel": "fast", "scale": "slow"}
OPTAX: list[Case] = [
    Case("wrapped-adam", lambda: from_optax(optax.adam)(COSINE, b1=0.8), half_precision=False),
    Case("wrapped-sgd", lambda: from_optax(optax.sgd)(0.1, momentum=0.9, nesterov=True)),
    Case("wrapped-clip", lambda: from_optax(optax.clip_by_global_norm)(0.5), half_precision=False),
    Case(
        "wrapped-masked",
        lambda: from_optax(optax.masked)(T.heavy_ball(0.9), {"kernel": True, "scale": False}),
        names_leaves=True,
    ),
    Case(
        "wrapped-partition",
        lambda: from_optax(optax.partition)(
            {"fast": optimizers.adam(0.1), "slow": T.scale_by_learning_rate(0.01)}, dict(LABELS)
        ),
        names_leaves=True,
    ),
    Case("wrapped-chain", lambda: from_optax(optax.chain)(T.ema(0.9), from_optax(optax.scale)(-0.1))),
    Case("unflattened-adam", lambda: jax.tree.map(lambda x: x, optimizers.adam(0.1))),
    Case(
        "bare-inside",
        lambda: chain(BARE, merge(jnp.add, BARE_TOO, T.ema(0.9))),
        half_precision=False,
    ),
]
BARE, BARE_TOO = optax.scale_by_adam(), optax.identity()  # built once: two calls would not compare equal


def constructors() -> dict[str, Any]:
    """Every public constructor of transformations, by its stage and name."""
    atoms = {f"transforms.{name}": getattr(transforms, name) for name in transforms.__all__}
    named = {f"optimizers.{name}": value for name, value in optimizers.named().items()}
    return {
        path: value
        for path, value in {**atoms, **named}.items()
        if hasattr(value, "constructor") and value.constructor.kind != "function"
    }


def functions() -> dict[str, Any]:
    """Every public constructor of functions: they are checked inside the transformations that use them."""
    public = {name: getattr(transforms, name) for name in transforms.__all__}
    return {name: f for name, f in public.items() if getattr(getattr(f, "constructor", None), "kind", "") == "function"}


def needed_arguments(path: str, constructor: Any) -> dict[str, Any]:
    """The arguments without defaults, from the constructor's first example."""
    signature, defaults = constructor.constructor.signature, constructor.constructor.defaults()
    example = EXAMPLES.get(path, [call()])[0]
    given = signature.bind_partial(*example.args, **example.kwargs).arguments
    return {name: value for name, value in given.items() if name not in defaults}


def without_example() -> list[str]:
    """The constructors that need arguments and have none here, and the entries that name nothing."""
    needy = [
        path
        for path, value in constructors().items()
        if path not in EXAMPLES and len(value.constructor.defaults()) < len(value.constructor.signature.parameters)
    ]
    return needy + [path for path in EXAMPLES if path not in constructors()]


def _cases() -> Iterator[Case]:
    for path, constructor in constructors().items():
        conventions = [name for name, _ in constructor.constructor.conventions]
        for position, example in enumerate(EXAMPLES.get(path, [] if path in without_example() else [call()])):
            for convention in (conventions if position == 0 else conventions[:1]) or [None]:
                chosen = {} if convention is None else {"convention": convention}
                name = path.replace("transforms.", "") + (f"-{convention}" if convention else "")
                yield Case(
                    f"{name}-{position}" if position else name,
                    lambda f=constructor, e=example, c=chosen: f(*e.args, **e.kwargs, **c),
                    example.needs_params,
                    example.keeps_dtype,
                    example.half_precision,
                    example.names_leaves,
                    example.is_variant or (path.startswith("optimizers.") and convention in conventions[1:]),
                )


CASES = [*_cases(), *OPTAX]
SAVED = [case for case in CASES if case.name != "bare-inside"]  # a bare Optax transformation cannot be written as text


def _one_per_program() -> list[Case]:
    found: dict[Any, Case] = {}
    for case in CASES:
        found.setdefault(jax.tree.structure(case.tx.expand()), case)
    return list(found.values())


PROGRAMS = _one_per_program()  # where a law is expensive: cases that differ by more than numbers


OPTIMIZERS = [case for case in PROGRAMS if case.name.startswith("optimizers.")]


def each(cases: Iterable[Case]) -> Any:
    """Return a decorator that runs a test on each of some cases; on variants in the slow suite only."""
    marked = [pytest.param(case, marks=pytest.mark.slow if case.is_variant else ()) for case in cases]
    return pytest.mark.parametrize("case", marked, ids=str)


def params(dtype: Any = float) -> dict[str, Any]:
    """Parameters: a matrix and a scalar, of one dtype or of one each."""
    draw = np.random.default_rng(5).normal(size=7)
    kernel, scale = dtype if isinstance(dtype, tuple) else (dtype, dtype)
    return {"kernel": jnp.asarray(draw[:6].reshape(3, 2), dtype=kernel), "scale": jnp.asarray(draw[6], dtype=scale)}


def gradients(like: Any, num_steps: int = 3, seed: int = 0) -> list[Any]:
    """Gradients of a normal distribution with a gap around zero, where kinks have no derivative."""
    generator = np.random.default_rng(seed)

    def draw(p):
        g = generator.normal(size=np.shape(p))
        return jnp.asarray(g + 0.1 * np.sign(g), dtype=p.dtype)

    return [jax.tree.map(draw, like) for _ in range(num_steps)]


def value_fn(point: Any) -> jax.Array:
    """Return a convex loss, for transformations that take products with its Hessian, of parameters of any structure."""
    return sum((jnp.sum(x**2 + x**4 / 12).astype(float) for x in jax.tree.leaves(point)), jnp.zeros(()))


def run(tx: Any, start: Any, grads: list[Any], **extra: Any) -> tuple[list[Any], Any]:
    """Return the updates of every step and the last state, with parameters that move."""
    state, outputs = tx.init(start), []
    for g in grads:
        updates, state = tx.update(g, state, start, value_fn=value_fn, **extra)
        start = optax.apply_updates(start, updates)
        outputs.append(updates)
    return outputs, state


def is_key(x: Any) -> bool:
    return isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def bits(tree: Any) -> Any:
    """The tree with its PRNG keys as numbers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, tree)
