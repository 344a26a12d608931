"""The command line: `jaxopt-study compare | search | ablate | curvature | optimizers | problems | explain`.

The commands and their options are data for the documentation, loaded when they are first used: `main` handles signals
before it imports the parser.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jaxopt_study.cli._main import main

if TYPE_CHECKING:
    from jaxopt_study.cli._app import COMMANDS as COMMANDS
    from jaxopt_study.cli._app import DESCRIPTION as DESCRIPTION
    from jaxopt_study.cli._options import NetworkOptions as NetworkOptions

_MODULES = {"COMMANDS": "_app", "DESCRIPTION": "_app", "NetworkOptions": "_options"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["main"]
