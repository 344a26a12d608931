import jax
import pytest

from tests.sweeps import small


@pytest.fixture(scope="session")
def regression():
    return small.regression()


@pytest.fixture
def compilations():
    """Count the programs XLA compiles inside a `with` block, by the functions' names."""

    class Counter:
        def __enter__(self):
            self.names = []
            self.on = True
            jax.monitoring.register_event_duration_secs_listener(self.listen)
            return self

        def listen(self, event, duration, **details):
            if self.on and event.endswith("backend_compile_duration"):
                self.names.append(details.get("fun_name"))

        def __exit__(self, *_):
            self.on = False

        @property
        def lanes(self):
            """How many programs of trials there were."""
            return self.names.count("jit(on_device)")

    return Counter
