"""The examples of the docstrings under the modes in which JAX and Python are stricter.

Each mode has a process of its own, since most of them are read when a program is traced or a module is imported. Every
example of every module runs with the names that `conftest` gives it, must not raise, and must print what is written
down, numbers up to rounding; where a mode changes the random draws, it must only not raise.

The valid calls of `abuse/valid_calls.py` run in the same way, since examples do not reach every branch.

A mode by hand, over the modules of one package or over all, or over the calls, from the root of the repository:

    python tests/test_debug_modes.py debug_nans jaxopt_study.dynamics
    python tests/test_debug_modes.py rank_promotion calls
"""

import doctest
import importlib
import os
import pkgutil
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What is set in JAX's configuration, and what Python is told.
MODES = {
    "debug_nans": ({"jax_debug_nans": True}, ()),
    "debug_infs": ({"jax_debug_infs": True}, ()),
    "rank_promotion": ({"jax_numpy_rank_promotion": "raise"}, ()),
    "dtype_promotion": ({"jax_numpy_dtype_promotion": "strict"}, ()),
    "disable_jit": ({"jax_disable_jit": True}, ()),
    "enable_x64": ({"jax_enable_x64": True}, ()),
    "rbg": ({"jax_default_prng_impl": "rbg"}, ()),
    "unsafe_rbg": ({"jax_default_prng_impl": "unsafe_rbg"}, ()),
    "without_asserts": ({}, ("-O",)),
    "warnings_are_errors": ({}, ("-W", "error")),
}
OTHER_DRAWS = {"rbg", "unsafe_rbg"}

# (mode, name of the example as doctest prints it): why it cannot run so, a reason that lies outside this package.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("dtype_promotion", "jaxopt_study.dynamics._state_roles.state_roles"): (
        "optax.adam, whose bias correction raises a Python number to an integer array's power"
    ),
}

# The packages of one mode that always runs; all modes over all packages are for the long checks.
QUICK = ("debug_nans", "jaxopt_study.dynamics")


# The stages whose functions compute, and the modes that change neither their numbers nor the dtypes of their arguments.
STAGES = ("curvature", "dynamics", "training", "examination", "problems.networks", "problems.augmentations")
CALLED_IN = ("debug_nans", "debug_infs", "rank_promotion", "dtype_promotion")


@pytest.mark.parametrize(
    ("mode", "package"),
    [
        QUICK,
        *(pytest.param(mode, "jaxopt_study", marks=pytest.mark.slow) for mode in MODES),
        *(pytest.param(mode, "calls", marks=pytest.mark.slow) for mode in CALLED_IN),
    ],
    ids=str,
)
def test_every_example_runs_in_the_mode(mode, package):
    run = subprocess.run(
        [sys.executable, *MODES[mode][1], __file__, mode, package],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert run.returncode == 0, (run.stdout + run.stderr)[-6000:]
    assert re.search(r"\d+ examples", run.stdout), run.stdout


class _Numbers(doctest.OutputChecker):
    """Texts are equal if their words are, and their numbers up to a rounding of what is printed."""

    number = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")

    def check_output(self, want, got, optionflags):
        if super().check_output(want, got, optionflags):
            return True
        texts = [" ".join(self.number.sub(" # ", text).split()) for text in (want, got)]
        if texts[0] != texts[1]:
            return False
        pairs = zip(*(map(float, self.number.findall(text)) for text in (want, got)), strict=True)
        return all(abs(a - b) <= 2e-3 * max(abs(a), abs(b), 1e-3) for a, b in pairs)


class _Anything(doctest.OutputChecker):
    def check_output(self, want, got, optionflags):
        return True


def _examples(package):
    """Every docstring with examples, of the modules of a package and of those inside it."""
    names = [package]
    module = importlib.import_module(package)
    if hasattr(module, "__path__"):
        names += [found.name for found in pkgutil.walk_packages(module.__path__, package + ".")]
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in names:
        if not name.endswith("__main__"):
            module = importlib.import_module(name)
            yield from (test for test in finder.find(module, name) if test.examples)


def _names(module_names):
    """The names that `conftest` gives to examples."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jaxopt_study import transforms

    names = {name: getattr(transforms, name) for name in transforms.__all__}
    names |= {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "transforms": transforms}
    return names | module_names


def _called(mode):
    """Call every public function of the stages, and print those that raise."""
    from tests.abuse.run import call
    from tests.abuse.valid_calls import public_calls

    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # the mode may be slow
    failed, count = 0, 0
    for stage in STAGES:
        for name, (function, arguments) in public_calls(stage).items():
            count += 1
            try:
                call(function, arguments())
            except Exception as error:
                failed += 1
                sys.stdout.write(f"{stage}.{name}: {type(error).__name__}: {error}\n")
    sys.stdout.write(f"{mode}: {count} examples, {failed} calls failed\n")
    return min(failed, 1)


def main(mode: str, package: str = "jaxopt_study") -> int:
    """Run the examples of a package in a mode, and print those that fail."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # most examples compile longer than they run
    for name, value in MODES[mode][0].items():
        jax.config.update(name, value)
    if package == "calls":
        return _called(mode)
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS | doctest.FAIL_FAST
    runner = doctest.DocTestRunner(_Anything() if mode in OTHER_DRAWS else _Numbers(), verbose=False, optionflags=flags)
    failed, count = 0, 0
    for test in _examples(package):
        if (mode, test.name) in EXCEPTIONS:
            continue
        test.globs = _names(test.globs)
        count += 1
        failed += runner.run(test).failed
        if count % 20 == 0:
            jax.clear_caches()
    sys.stdout.write(f"{mode}: {count} examples, {failed} lines failed\n")
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
