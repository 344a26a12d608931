"""The command line: `jaxopt-study compare | curvature | optimizers | problems | explain`."""

from jaxopt_study.cli.app import main

__all__ = ["main"]
