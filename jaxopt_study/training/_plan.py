"""Plan of a run: its static part, with the layout and the loop, chosen before anything is compiled."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxopt_study._checks import check_choice, check_integer, describe_argument
from jaxopt_study._programs import contains_any_convolution, contains_convolution
from jaxopt_study.dynamics import call_update, differentiated, holds_lookahead
from jaxopt_study.problems import Problem
from jaxopt_study.training._batch_order import named_order
from jaxopt_study.training._compiled_loop import records_like
from jaxopt_study.training._curvature_probe import CurvatureProbe
from jaxopt_study.training._evaluate import (
    MISSING_DATA,
    explain_missing_data,
    init_like,
)
from jaxopt_study.training._flat_parameters import flatten_leaves, restore_leaves, shape_dependence
from jaxopt_study.training._order_in_program import split_order
from jaxopt_study.training._run_spec import Inputs, Plan
from jaxopt_study.training._start import start
from jaxopt_study.training._step import batch_at, the_optimizer, training_loss
from jaxopt_study.training._trajectory import EarlyStopping, Probe
from jaxopt_study.training._validate import (
    check_batches,
    check_metric,
    check_optimizer,
    check_requests,
    check_start,
    direction_of,
    splits_to_evaluate,
    steps_per_epoch,
)
from jaxopt_study.transforms import Transform

_BUFFER_BYTES = 2**26  # records held on the device between two returns to Python
_MAX_CAPACITY = 8192  # steps


def make_plan(
    problem: Problem,
    optimizer: Any,
    *,
    num_steps: Any,
    batch_size: Any,
    order: Any,
    params: Any,
    evaluate_every: int | None,
    evaluate_on: str | Sequence[str] | None,
    evaluate_batch_size: int | None,
    early_stopping: EarlyStopping | None,
    snapshot_every: int | None,
    probe: Probe | CurvatureProbe | Callable[..., Any] | None,
    layout: str,
    loop: str,
    traced: bool,
) -> tuple[Plan, Inputs]:
    """Return the static plan and the inputs of a run.

    Returns:
        The complete plan and the inputs. Cost: microseconds for a plan seen before, otherwise three traces.

    Raises:
        ValueError: If an argument is out of range.
        TypeError: If an argument is of the wrong kind.
    """
    num_steps = check_integer("train", "num_steps", num_steps, 0)
    for name, value in {
        "batch_size": batch_size, "evaluate_every": evaluate_every, "evaluate_batch_size": evaluate_batch_size,
        "record_params_every": snapshot_every,
    }.items():  # fmt: skip
        if value is not None:
            check_integer("train", name, value, 1, remedy="Leave it out, or give None, for the default.")
    check_choice("train", "layout", layout, ("auto", "tree", "flat"))
    check_choice("train", "loop", loop, ("auto", "compiled", "host"))
    check_requests(early_stopping, probe)
    if traced and loop == "host":
        raise ValueError("loop='host' cannot run inside jit or vmap; use loop='auto'.")
    if isinstance(probe, CurvatureProbe) and probe.reads_loader:
        if traced or loop == "compiled":
            raise ValueError(
                "train cannot measure on a loader inside jit or vmap or with loop='compiled'. Leave out the loop, or "
                "give the probe data='all'."
            )
        loop = "host"
    numeric = check_optimizer(optimizer)
    order = named_order("train", order)
    batch_size = check_batches(problem, batch_size, order, num_steps)
    static_order, order_arrays = split_order(order)
    like, paired = _check_params(problem, params, optimizer)
    sharded = _starts_sharded(problem.init) if params is None else any(map(_is_sharded, jax.tree.leaves(params)))
    leaves, structure = jax.tree.flatten(like)
    if early_stopping is not None and evaluate_every is None:
        evaluate_every = steps_per_epoch(problem, batch_size)
    splits = splits_to_evaluate(problem, evaluate_on)
    splits = splits if evaluate_every else ()
    if early_stopping is not None:
        check_metric(problem, early_stopping.metric, splits)
        early_stopping = replace(early_stopping, mode=direction_of(problem, early_stopping))
    plan = Plan(
        init=problem.init,
        loss=problem.loss,
        step_loss=problem.step_loss,
        init_state=problem.init_state,
        metrics=tuple(sorted(problem.metrics.items())),
        optimizer=None if numeric else optimizer,
        structure=structure,
        shapes=tuple(leaves),
        batch_size=batch_size,
        order=static_order,
        evaluate_every=evaluate_every,
        evaluate_on=splits,
        evaluate_batch_size=evaluate_batch_size,
        early_stopping=early_stopping,
        snapshot_every=snapshot_every,
        probe=_ready(probe, optimizer, like),
        layout="tree" if sharded else layout,
        loop=loop,
        careful=traced,
        sharded=sharded,
        paired=paired,
    )
    inputs = Inputs(
        optimizer=optimizer if numeric else None,
        data=problem.data,
        examples={split: getattr(problem, split) for split in splits if split != "train"},
        order=order_arrays,
    )
    described, tree = jax.tree.flatten(jax.tree.map(_abstract, inputs))
    try:
        return _decide(plan, tree, tuple(described), traced, jax.default_backend()), inputs
    except MISSING_DATA as error:
        explain_missing_data(problem, error)
        raise


@lru_cache(maxsize=64)
def _decide(plan: Plan, tree: Any, described: tuple[Any, ...], traced: bool, backend: str) -> Plan:
    """Return the plan with layout, loop and the length of the record buffers, which depend only on shapes."""
    inputs = jax.tree.unflatten(tree, described)
    key = jax.eval_shape(lambda: jax.random.key(0))
    begun = replace(plan, layout="tree", early_stopping=None, paired=False)  # `like` is a pair already
    constants, carry = jax.eval_shape(partial(start, begun), inputs, plan.like, key)
    batch = jax.eval_shape(partial(batch_at, plan), inputs, constants, jnp.int32(0))
    program, result = jax.make_jaxpr(partial(training_loss, plan), return_shape=True)(
        differentiated(plan.like), carry.model_state, batch, key
    )
    plan = replace(
        plan,
        loss_dtype=_check_loss(result),
        layout=_choose_layout(plan, inputs.optimizer, carry, batch, key),
        loop="host" if _wants_host(plan.loop, program, traced, backend) else "compiled",
        convolutional=contains_any_convolution(program),
    )
    like = records_like(replace(begun, loss_dtype=plan.loss_dtype), inputs, constants, carry)
    per_step = sum(
        leaf.size * leaf.dtype.itemsize / plan.cadences.get(what, 1)
        for what, record in like.items()
        for leaf in jax.tree.leaves(record)
    )
    return replace(plan, capacity=int(max(1, min(_MAX_CAPACITY, _BUFFER_BYTES // max(per_step, 1)))))


def _choose_layout(plan: Plan, leaves: Any, carry: Any, batch: Any, key: Any) -> str:
    """Return "flat" if the optimizer computes the same on vectors."""
    if plan.layout == "tree" or (plan.layout == "auto" and all(len(leaf.shape) < 2 for leaf in plan.shapes)):
        return "tree"
    flat = jax.eval_shape(flatten_leaves, plan.like)

    def program(params: Any) -> Any:
        def init_and_update(leaves: Any, grads: Any, params: Any, loss: Any, *rest: Any) -> Any:
            optimizer = the_optimizer(plan, leaves)
            state = optimizer.init(params)

            def value_fn(at: Any) -> Any:
                at = restore_leaves(differentiated(at), differentiated(plan.like))
                return training_loss(plan, at, *rest)[0]

            return state, call_update(optimizer, grads, state, params, loss, value_fn)

        loss = jax.ShapeDtypeStruct((), plan.shapes[0].dtype)
        grads = differentiated(params)
        return jax.make_jaxpr(init_and_update)(leaves, grads, params, loss, carry.model_state, batch, key)

    try:
        reason = shape_dependence(program(plan.like), program(flat))
    except Exception as error:  # the optimizer needs a matrix instead of a vector, or has an error of its own
        reason = f"it fails on vectors: {error}"
    if reason is None:
        return "flat"
    if plan.layout == "flat":
        raise ValueError(
            f"layout='flat' would change what this optimizer computes: {reason}. Use layout='auto', which keeps the "
            "shapes of leaves for such optimizers."
        )
    return "tree"


def _ready(probe: Any, optimizer: Any, like: Any) -> Any:
    if isinstance(probe, CurvatureProbe):
        return probe.prepare(optimizer, like)
    return Probe(probe) if callable(probe) else probe


def _wants_host(loop: str, program: Any, traced: bool, backend: str) -> bool:
    return loop == "host" or (loop == "auto" and backend == "cpu" and not traced and contains_convolution(program))


def _check_params(problem: Problem, params: Any, optimizer: Any) -> tuple[Any, bool]:
    """Return shapes of the carried parameters, and whether the start must first be made a pair."""
    made = init_like(problem.init)
    like = jax.tree.map(_abstract, made if params is None else params)
    for path, leaf in jax.tree.leaves_with_path(like):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"Parameters must be floating-point arrays; params{jax.tree_util.keystr(path)} of problem "
                f"{problem.name!r} is {leaf.dtype}. Convert it, or remove it from the parameters."
            )
    if not sum(leaf.size for leaf in jax.tree.leaves(like)):
        raise TypeError(f"The parameters of problem {problem.name!r} have no numbers to train.")
    if params is not None:
        check_start(problem, params, differentiated(like), made)
    paired = not isinstance(like, optax.LookaheadParams) and _wants_pair(optimizer, like)
    return (optax.LookaheadParams(like, like) if paired else like), paired


def _wants_pair(optimizer: Any, like: Any) -> bool:
    """Return whether an optimizer steps on pairs of parameters, as `optax.lookahead` does."""
    shapes, structure = jax.tree.flatten(like)
    travels = isinstance(optimizer, Transform)
    numbers, tree = jax.tree.flatten(jax.tree.map(_abstract, optimizer) if travels else None)
    return _steps_on_pairs(None if travels else optimizer, tree, tuple(numbers), structure, tuple(shapes))


@lru_cache(maxsize=64)
def _steps_on_pairs(optimizer: Any, tree: Any, numbers: tuple[Any, ...], structure: Any, shapes: tuple) -> bool:
    def init(numbers: Any, params: Any) -> Any:
        made = jax.tree.unflatten(tree, numbers) if optimizer is None else optimizer
        return made.init(params)

    like = jax.tree.unflatten(structure, shapes)
    try:
        return holds_lookahead(jax.eval_shape(init, numbers, optax.LookaheadParams(like, like)))
    except Exception:  # an optimizer that does not take pairs, or one whose error is raised later
        return False


@lru_cache(maxsize=64)
def _starts_sharded(init: Any) -> bool:
    """Return whether the parameters that `init` makes, or arrays that it holds, are spread over devices."""
    program, made = jax.make_jaxpr(lambda: init(jax.random.key(0)), return_shape=True)()
    return any(map(_is_sharded, [*jax.tree.leaves(made), *program.consts]))


def _is_sharded(leaf: Any) -> bool:
    sharding = getattr(leaf, "sharding", None)  # traced and abstract arrays have a sharding only if their type has one
    return sharding is not None and getattr(sharding, "num_devices", 1) > 1


def _check_loss(result: Any) -> Any:
    loss = result[0]
    if getattr(loss, "shape", None) != () or not jnp.issubdtype(loss.dtype, jnp.floating):
        raise TypeError(
            "The loss must be a floating scalar, the mean over the examples of a batch; received "
            f"{getattr(loss, 'dtype', type(loss))}{list(getattr(loss, 'shape', ()))}. Reduce it, for example with "
            "jnp.mean."
        )
    return loss.dtype


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    try:
        kind = jax.typeof(leaf)
    except (TypeError, OverflowError) as error:
        raise TypeError(
            f"Parameters must be arrays; received {describe_argument(leaf)} among them. Move what is not trained into "
            "the loss."
        ) from error
    return jax.ShapeDtypeStruct(kind.shape, kind.dtype, weak_type=kind.weak_type)
