"""Call every public function of a stage with bad arguments, one at a time, and write what was not refused as JSON.

`tests/test_abuse.py` runs it in a process of its own, where no annotation is checked at run time: what refuses a bad
argument must be the function itself.
"""

import contextlib
import inspect
import json
import signal
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

import jaxopt_study
from tests.abuse.valid_calls import KEY, public_calls

PACKAGE = str(Path(jaxopt_study.__file__).parent)
CALLER = str(Path(__file__).with_name("valid_calls.py"))
SECONDS = 60  # for one call

ABUSE: dict[str, Any] = {
    "None": None,
    "text": "nonsense",
    "nan": float("nan"),
    "inf": float("inf"),
    "negative": -1,
    "huge": 10**30,
    "fraction": 1.5,
    "complex": 1j,
    "bool": True,
    "array": np.array([0.25, 0.75]),
    "tree": {"nonsense": 1.0},
    "object": object(),
    "function": lambda *_, **__: None,
    "keys": jax.random.split(KEY, 2),
    "number": 0.5,
}


def call(function: Any, arguments: Mapping[str, Any]) -> None:
    """Call a function and wait for its result; an argument that collects positional ones gets one of them."""
    before, named = [], dict(arguments)
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL and p.name in named for p in parameters):
        before = [named.pop(p.name) for p in parameters if p.kind is not p.KEYWORD_ONLY and p.name in named]
    signal.alarm(SECONDS)
    try:
        jax.block_until_ready(function(*before, **named))
    finally:
        signal.alarm(0)


def outcome(function: Any, arguments: Mapping[str, Any]) -> str:
    """Return "accepted", "refused", or the error that came from somewhere else."""
    try:
        with TemporaryDirectory(ignore_cleanup_errors=True) as folder, contextlib.chdir(folder):  # texts are paths
            call(function, arguments)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = frames[-1]
        raised = last.filename.startswith(PACKAGE) and (last.line or "").startswith("raise")  # not None + 1 there
        checked = raised and isinstance(error, TypeError | ValueError)
        ours = type(error).__module__.startswith("jaxopt_study")
        if checked or ours or any(frame.filename == CALLER for frame in frames):
            return "refused"  # by the package, or by the function of the user's that it called
        return f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})"[:300]
    return "accepted"


def main(stage: str) -> None:
    """Write {function.argument: {abuse: outcome}} for all that was not refused."""
    signal.signal(signal.SIGALRM, _stop)
    found: dict[str, dict[str, str]] = {}
    for name, (function, valid) in public_calls(stage).items():
        call(function, valid())
        named = [p.name for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        for parameter in dict.fromkeys([*named, *valid()]):
            for label, value in ABUSE.items():
                result = outcome(function, {**valid(), parameter: value})
                if result != "refused":
                    found.setdefault(f"{name}.{parameter}", {})[label] = result
    sys.stdout.write(json.dumps(found) + "\n")


def _stop(*_: Any) -> None:
    raise TimeoutError(f"no answer in {SECONDS} s")


if __name__ == "__main__":
    main(sys.argv[1])
