"""Options of `jaxopt-study curvature`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclass(frozen=True)
class Curvature:
    """Diagnose the Hessian at the end point of a run of `compare`, or at your own parameters.

    The stages are: an audit of the Hessian's products; eigenvalues at both ends of the spectrum; bounds on the largest
    one, and so on the critical learning rate; the spectral density; the trace; the curvature along the gradient; the
    kind of critical point. With an optimizer also: its stability threshold, the preconditioned sharpness, and the
    stability of its next step. Every number has an error estimate.

    Output folder: record.json (configuration, versions, hashes, every number), eigenvalues.csv (a row per eigenvalue,
    with its residual) and spectrum.png. The record is written after every stage, so that Ctrl-C keeps finished stages.

    Example: jaxopt-study curvature results/digits --optimizer adam
    """

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="TARGET")]
    """A results folder of `jaxopt-study compare`, whose run is repeated; or your own module:name, a tuple (loss,
    params), (loss, params, data) or (loss, params, data, opt_state), where loss(params, data) is a mean over the
    examples, or a function that returns such a tuple."""
    optimizer: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    """For a results folder: the name of one of its optimizers, whose state is that at the end of the run. Your own must
    be given as module:function, as in `compare`: a results folder runs no code. For your own loss: an optimizer as in
    `jaxopt-study explain`, such as "adam(1e-3)", in the state of TARGET, or by default before its first step."""
    settings: Annotated[
        Literal["default", "tuned"] | None,
        tyro.conf.arg(metavar="{default,tuned}", help_behavior_hint="(default: tuned, if it was tuned)"),
    ] = None
    """For a results folder: the settings of the run."""
    start: int = 0
    """For a results folder: the seed of the run, counted from 0."""
    num_eigenpairs: int = 10
    """Number of eigenvalues, half of them the largest and half the smallest."""
    tolerance: float = 1e-3
    """Tolerance of the residuals of eigenvalues, relative to the largest magnitude."""
    num_probes: int = 10
    """Number of random vectors of the spectral density; its errors are proportional to 1/√n."""
    num_steps: int = 100
    """Number of Lanczos steps for each of them; the bulk is resolved to about its width divided by this."""
    trace_probes: int = 60
    """Number of random vectors of the trace."""
    batch_size: Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="(default: all that fit)")] = None
    """Number of examples evaluated at a time, to save memory. It does not change the Hessian."""
    seed: int = 0
    """Random seed of start and probe vectors."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """For a results folder of MNIST or Fashion-MNIST: the folder of the data, as in `compare`."""
    download: bool = False
    """Download missing data, as in `compare`."""
    out: Annotated[
        Path | None,
        tyro.conf.arg(
            metavar="PATH", aliases=["--output"], help_behavior_hint="(default: results/curvature-NAME-TIME)"
        ),
    ] = None
    """Results folder to write."""
