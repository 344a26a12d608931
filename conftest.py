"""Names that the examples in docstrings use, as after `from jaxopt_study.transforms import *`."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import transforms


@pytest.fixture(autouse=True)
def _names(doctest_namespace):
    names = {name: getattr(transforms, name) for name in transforms.__all__}
    doctest_namespace.update(names, jax=jax, jnp=jnp, np=np, optax=optax, transforms=transforms)
