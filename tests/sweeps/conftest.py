import pytest

from tests.sweeps import small


@pytest.fixture(scope="session")
def regression():
    return small.regression()
