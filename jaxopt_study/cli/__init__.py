"""The command line: `jaxopt-study compare | search | ablate | curvature | optimizers | problems | explain`."""

from jaxopt_study.cli._main import main

__all__ = ["main"]
