"""`examine`: curvature, stability and step of a point in one call."""

import time
from collections.abc import Iterator
from typing import Any, Literal

from jaxopt_study._checks import check_bool, check_choice, check_integer
from jaxopt_study.dynamics import as_transformation, check_optimizer
from jaxopt_study.examination._examination import Examination
from jaxopt_study.examination._findings import findings
from jaxopt_study.examination._stages import STAGES, Choices, Subject
from jaxopt_study.linalg.checks import check_concrete
from jaxopt_study.records import plain
from jaxopt_study.training import Bar
from jaxopt_study.types import Batch, LossFn, Params

Budget = Literal["seconds", "minutes", "thorough"]

_QUICK = ("audit", "sharpness", "threshold", "preconditioned", "accounting", "noise")
_BUDGETS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "seconds": (_QUICK, {"bracket": 0.05}),
    "minutes": (tuple(STAGES), {"num_eigenpairs": 6, "num_probes": 4, "num_steps": 40, "trace_probes": 30}),
    "thorough": (tuple(STAGES), {}),
}


def examine(
    loss: LossFn,
    params: Params,
    data: Batch | None = None,
    *,
    optimizer: Any = None,
    opt_state: Any = None,
    budget: Budget = "seconds",
    batch_size: int | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> Examination:
    """Examine a point of a loss: its curvature, the stability of the optimizer's next step, and what they mean.

    The audit of the Hessian's products comes first; its noise floor limits the tolerance of what follows, and an
    unsound audit ends the examination. A stage that fails does not keep the others from running: its error is in the
    result. An interrupt (Ctrl-C) ends the examination with what was measured before it.

    Args:
        loss: `loss(params, batch)`, as in `curvature.hessian`.
        params: θ, as in `curvature.hessian`; or `optax.LookaheadParams`, with an optimizer that takes them.
        data: All examples; the curvature alone also takes a loader, as in `curvature.hessian`.
        optimizer: Any Optax transformation; None examines the loss alone.
        opt_state: Its state at this point; None for a fresh one, whose first step may differ much from later ones.
        budget: "seconds" for audit, sharpness, the distance from the optimizer's limit, the change of the loss in the
            next step and the noise of the gradient, about 100 products; "minutes" also for eigenpairs, density, trace,
            kind of point, stability and the layers' blocks, about 1,500 products; "thorough" for the accuracy of
            `jaxopt-study curvature`, about 3,000.
        batch_size: Number of examples of arrays that a product takes at a time. None takes all at once, or as many
            as need an eighth of the free memory, if those are fewer; the result says how many. Give the number of all
            examples for a loss that is no mean over smaller batches.
        seed: Seed of start vectors and probes.
        progress: Whether to show a bar; None shows it at a terminal or in a notebook.

    Returns:
        The examination. It prints as a table with findings, draws itself, and can be saved.

    Raises:
        TypeError: If an argument has the wrong type, or arrays are traced.
        ValueError: If the budget is unknown, the optimizer's state does not fit, or `curvature.hessian` refuses the
            loss, the parameters or the data.

    Example:
        >>> import jax.numpy as jnp, optax
        >>> from jaxopt_study import examine
        >>> bowl = lambda p, _: 0.05 * p["x"] ** 2 + p["y"] ** 2
        >>> found = examine(bowl, {"x": jnp.array(-7.0), "y": jnp.array(2.0)}, optimizer=optax.sgd(1.2))
        >>> print(found.findings[0].text.partition(":")[0])
        The learning rate is beyond the edge of stability
    """
    check_choice("examine", "budget", budget, tuple(_BUDGETS))
    seed = check_integer("examine", "seed", seed, 0)
    progress = None if progress is None else check_bool("examine", "progress", progress)
    check_concrete("examine", opt_state, params, None if isinstance(data, Iterator) else data)
    stages, settings = _BUDGETS[budget]
    if optimizer is not None:
        if opt_state is None:
            opt_state = as_transformation(optimizer, "examine").init(params)
        optimizer, opt_state, params = check_optimizer("examine", optimizer, opt_state, params)
    elif opt_state is not None:
        raise ValueError("examine takes opt_state together with its optimizer; received a state alone.")
    subject = Subject(loss, params, data, optimizer, opt_state, Choices(**settings, batch_size=batch_size, seed=seed))
    chosen = {name: STAGES[name] for name in stages if STAGES[name].applies(subject)}
    results: dict[str, Any] = {}
    errors: dict[str, str] = {}
    seconds: dict[str, float] = {}
    unfinished = ""  # stages that an interrupt has left out
    with Bar(progress, "") as bar:
        for name, stage in chosen.items():
            bar.show(stage.title, len(seconds), len(chosen))
            began = time.perf_counter()
            try:
                results[name] = plain(stage.run(subject, results))
            except KeyboardInterrupt:
                unfinished = ", ".join(STAGES[one].title for one in list(chosen)[len(seconds) :])
                errors[name] = f"interrupted; not measured: {unfinished}"
            except Exception as error:  # a user's loss may raise anything; what is finished is kept
                errors[name] = f"{type(error).__name__}: {error}"
            seconds[name] = time.perf_counter() - began
            if unfinished or "audit" in errors or results["audit"]["verdict"] == "unsound":
                break
    return Examination(
        results=results, errors=errors, seconds=seconds, size=subject.op.size, budget=budget,
        precision=subject.op.precision, findings=findings(results, errors), batch_size=subject.choices.batch_size,
    )  # fmt: skip
