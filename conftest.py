"""Names that the examples in docstrings use, and what a process of thousands of compiled programs needs."""

import atexit
import os
import shutil
import signal
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import transforms

# Most tests compile longer than they run. JAX_DISABLE_MOST_OPTIMIZATIONS=0 runs them on the programs that users run.
fast = os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # also for the processes that tests start
jax.config.update("jax_disable_most_optimizations", fast == "1")
if fast == "1":  # XLA's older emitters compile a program of these tests in about half the time
    os.environ["XLA_FLAGS"] = f"--xla_cpu_use_fusion_emitters=false {os.environ.get('XLA_FLAGS', '')}".strip()
# A program compiles once for all modules of a process, although its memory is given back after each.
compiled = tempfile.mkdtemp(prefix="compiled-")
atexit.register(shutil.rmtree, compiled, ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", compiled)
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{compiled}/commands"  # of processes that tests start, some to be killed
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# A shell that starts a job in the background has it ignore Ctrl-C, which tests send to themselves and their processes.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def _programs():
    """Forget compiled programs from module to module: thousands of them end a process, by memory and by mappings."""
    yield
    jax.clear_caches()


class Compilations:
    """Names of the functions that XLA compiled inside a `with` block."""

    def __enter__(self):
        self.names = []
        jax.monitoring.register_event_duration_secs_listener(self._listen)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._listen)

    def _listen(self, event, duration, **details):
        if event.endswith("backend_compile_duration"):
            self.names.append(details.get("fun_name"))

    @property
    def products(self):
        """How many programs of one product with an operator there were."""
        return self.names.count("jit(_matvec)")

    @property
    def lanes(self):
        """How many programs of trials of a sweep there were."""
        return self.names.count("jit(on_device)")


@pytest.fixture
def compilations():
    """Return a context that counts the programs XLA compiles inside it."""
    return Compilations


@pytest.fixture(autouse=True)
def _names(request, doctest_namespace):
    """Give doctests the names of `from jaxopt_study.transforms import *`."""
    module = getattr(getattr(request.node, "dtest", None), "globs", {})
    names = {name: getattr(transforms, name) for name in transforms.__all__}
    names |= {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "transforms": transforms}
    doctest_namespace.clear()  # it lives for the whole session
    doctest_namespace.update({name: value for name, value in names.items() if name not in module})
