"""`jaxopt-study optimizers | problems | explain`."""

import inspect
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.table import Table

from jaxopt_study import optimizers, problems
from jaxopt_study.cli.expressions import read_optimizer
from jaxopt_study.transforms import Transform


@dataclass(frozen=True)
class Optimizers:
    """List the named optimizers, their arguments, and the conventions they are known under."""

    def run(self, console: Console) -> int:
        """Print the list.

        Args:
            console: Where.

        Returns:
            The exit code.
        """
        table = Table("optimizer", "what it does", "conventions", box=None, pad_edge=False)
        for name, constructor in optimizers.named().items():
            described = constructor.constructor
            conventions = [convention for convention, _ in described.conventions]
            summary = (inspect.getdoc(constructor) or "").splitlines()[0]
            table.add_row(name, summary, ", ".join(conventions) or "the paper's")
        console.print(table, markup=False)
        console.print("\njaxopt-study explain 'adam(1e-3)' \"adam(1e-3, convention='book')\"", markup=False)
        return 0


@dataclass(frozen=True)
class Problems:
    """List the problems that can be built by name, with what is known about them."""

    def run(self, console: Console) -> int:
        """Print the list.

        Args:
            console: Where.

        Returns:
            The exit code.
        """
        table = Table("problem", "what it is", box=None, pad_edge=False)
        for name, constructor in problems.catalogue().items():
            table.add_row(name, (inspect.getdoc(constructor) or "").splitlines()[0].removeprefix("Build "))
        console.print(table, markup=False)
        console.print("\nIn Python: problems.catalogue()['rosenbrock']()", markup=False)
        return 0


@dataclass(frozen=True)
class Explain:
    """Run two optimizers side by side on the same gradients and say where they part.

    Names the first step, the first atom and the reason. Each optimizer is a name, such as adam; a call, such as
    "adam(1e-3, convention='book')" or "optax.adam(1e-3)"; a chain of atoms, such as "chain(ema(0.9), negate())"; or a
    function of yours, module:function. A bare name that needs a learning rate gets 0.01.
    """

    a: Annotated[str, tyro.conf.Positional]
    """The first optimizer."""
    b: Annotated[str, tyro.conf.Positional]
    """The second optimizer."""

    def run(self, console: Console) -> int:
        """Print the difference.

        Args:
            console: Where.

        Returns:
            The exit code.

        Raises:
            UserError: If one cannot be understood or built.
        """
        first, second = read_optimizer(self.a), read_optimizer(self.b)
        for title, tx in (("first: ", first), ("second:", second)):
            console.print(f"{title} {_written(tx)}", markup=False, highlight=False, soft_wrap=True)
        console.print(str(optimizers.explain_difference(first, second)), markup=False, highlight=False, soft_wrap=True)
        return 0


def _written(tx: Any) -> str:
    return repr(tx) if isinstance(tx, Transform) else "a bare Optax transformation"
