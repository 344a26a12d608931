"""Operators from a loss: its Hessian."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from jaxopt_study.curvature.checks import check_params, describe
from jaxopt_study.curvature.operator import Operator
from jaxopt_study.curvature.vectors import spread
from jaxopt_study.types import Batch, LossFn, Matvec, Params


@partial(jax.tree_util.register_dataclass, data_fields=("params", "data"), meta_fields=("loss", "shardings", "matmul"))
@dataclass(frozen=True, eq=False, repr=False)
class _Hessian(Operator):
    params: Params
    data: Batch
    loss: Callable[..., Any]
    shardings: tuple[Any, ...]
    matmul: str

    @property
    def like(self) -> Any:
        return describe(self.params, self.shardings)

    @property
    def precision(self) -> str:
        return self.matmul

    def linearize(self) -> Matvec:
        with jax.default_matmul_precision(self.matmul):
            return jax.linearize(jax.grad(lambda p: self.loss(p, self.data)), self.params)[1]


def hessian(loss: LossFn, params: Params, data: Batch | None = None, *, precision: str = "highest") -> Operator:
    """Return the Hessian of a loss as an operator."""
    params = check_params("hessian", params)
    return _Hessian(params, data, loss, tuple(map(spread, jax.tree.leaves(params))), precision)
