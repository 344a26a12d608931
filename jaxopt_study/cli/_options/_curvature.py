"""The options of `jaxopt-study curvature`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Curvature:
    """Diagnose the Hessian where a run of `compare` ended, or at your own parameters.

    It audits the Hessian's products, then finds eigenvalues at both ends, a bracket of the largest one and so of the
    critical learning rate, the density of the spectrum, its trace, the curvature along the gradient, and the kind of
    point; and with an optimizer its stability threshold, the sharpness in its own metric, and whether its next step is
    stable. Every number comes with its error.

    Writes into a folder: record.json (configuration, versions, hashes, every number), eigenvalues.csv (a row per
    eigenvalue, with its residual) and spectrum.png. The record is written after every stage; Ctrl-C keeps those.
    """

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """A results folder of `jaxopt-study compare`, whose run is repeated; or your own module:name, which is (loss,
    params), (loss, params, data) or (loss, params, data, opt_state) with a scalar loss(params, data), the mean over the
    examples, or a function that returns one."""
    optimizer: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """Of a folder: which of its optimizers, in the state in which the run left it; name one that your own code built as
    it was named in `compare`, module:function, for a folder runs no code. Of your own loss: one as in `jaxopt-study
    explain`, such as "adam(1e-3)", in the state that TARGET gives, else in the one before its first step."""
    settings: Annotated[
        Literal["default", "tuned"] | None,
        tyro.conf.arg(metavar="{default,tuned}", help_behavior_hint="(default: tuned, if it was)"),
    ] = None
    """Of a folder: at which of its settings."""
    start: int = 0
    """Of a folder: which of the run's starts."""
    num_eigenpairs: int = 10
    """Eigenvalues, half of them the largest, half the smallest."""
    tolerance: float = 1e-3
    """Residual asked of eigenvalues, relative to the largest magnitude."""
    num_probes: int = 10
    """Random vectors of the spectral density; its errors fall with their root."""
    num_steps: int = 100
    """Products for each of them; the bulk is resolved to about its width divided by this."""
    trace_probes: int = 60
    """Random vectors of the trace."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all at once)")] = None
    """Examples at a time, if all of them do not fit into memory. It does not change the Hessian."""
    seed: int = 0
    """Of all random vectors."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Of a folder of a run on MNIST or Fashion-MNIST: where the data are, as for `compare`."""
    download: bool = False
    """Download missing data, as for `compare`."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", aliases=["--output"], help_behavior_hint="(default: results/curvature-NAME-TIME)"
        ),
    ] = None
    """The results folder."""
