"""Arguments of the wrong kind or range: the package's own error, or a transformation; and every mode of JAX.

The checker of annotations in these tests would answer first, so that the constructors' functions are called without it.
"""

import doctest
import importlib
import pkgutil
import traceback
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import optimizers, transforms
from jaxopt_study.transforms import chain
from tests.transforms.cases import constructors, functions, is_key, needed_arguments, value_fn

ABUSE = {
    "none": None,
    "text": "0.1",
    "nan": float("nan"),
    "infinite": float("inf"),
    "negative": -1.0,
    "huge": 10**400,
    "complex": 1j,
    "boolean": True,
    "array": np.ones(3),
    "key": jax.random.key(0),
    "list": [0.1],
    "transformation": optax.sgd(0.1),
}
OF_FUNCTIONS = dict.fromkeys(
    ("learning_rate", "schedule", "decay", "rate", "strength", "first", "second", "weight"), 0.1
)
REAL = ("none", "text", "nan", "complex", "boolean", "array", "list", "transformation", "huge")


def arguments(path, constructor):
    if constructor.constructor.kind != "function":
        return needed_arguments(path, constructor)
    parameters = constructor.constructor.signature.parameters
    return {name: OF_FUNCTIONS[name] for name, p in parameters.items() if p.default is p.empty}


@pytest.mark.parametrize("what", ABUSE)
def test_every_argument_of_every_constructor_is_checked(what):
    value, accepted = ABUSE[what], []
    for path, constructor in {**constructors(), **functions()}.items():
        if path.endswith((".chain", ".merge")):
            continue
        for name, parameter in constructor.constructor.signature.parameters.items():
            try:
                built = constructor(**{**arguments(path, constructor), name: value})
            except (TypeError, ValueError) as error:
                frames = [f.filename for f in traceback.extract_tb(error.__traceback__)]
                assert "jaxopt_study" in frames[-1] or "jaxtyping" in frames[-1] or "beartype" in frames[-1], (
                    path,
                    name,
                )
            else:
                if what == "none" and (
                    constructor.constructor.conventions or type(None) in get_args(parameter.annotation)
                ):
                    continue  # None stands for the convention's default
                if what == "boolean" and parameter.annotation in (bool, bool | None):
                    continue
                if what in REAL and parameter.annotation is not parameter.empty and parameter.default is not None:
                    accepted.append((path, name, built))
    allowed = {"text": {"name"}, "huge": {"min_dim_size_to_factor"}}
    wrong = [(path, name) for path, name, _ in accepted if name not in allowed.get(what, set())]
    assert wrong == []


MODES = {
    "nans": lambda: jax.debug_nans(True),
    "infs": lambda: jax.debug_infs(True),
    "rank": lambda: jax.numpy_rank_promotion("raise"),
    "strict": lambda: jax.numpy_dtype_promotion("strict"),
    "without jit": jax.disable_jit,
    "double": lambda: jax.enable_x64(True),
}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("package", ["transforms", "optimizers"])
def test_the_examples_of_the_docstrings_run_in_every_mode(package, mode):
    names = {name: getattr(transforms, name) for name in transforms.__all__}
    names |= {"jax": jax, "jnp": jnp, "np": np, "optax": optax, "transforms": transforms}
    where = importlib.import_module(f"jaxopt_study.{package}")
    modules = [importlib.import_module(f"{where.__name__}.{m.name}") for m in pkgutil.iter_modules(where.__path__)]
    runner, lines = doctest.DocTestRunner(verbose=False), []
    with MODES[mode]():
        for module in modules:
            for test in doctest.DocTestFinder().find(module):
                test.globs = names | vars(module)
                runner.run(test, out=lines.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(lines)


TRACED = [
    case for case in constructors() if case.startswith("transforms.scale_by") or case.endswith(("rectify", "nadam"))
]


@pytest.mark.parametrize("path", TRACED)
def test_traced_single_precision_hyperparameters_promote_nothing(path):
    constructor = constructors()[path]
    tx = constructor(**arguments(path, constructor))
    numbers = jax.tree.map(lambda x: x if is_key(x) else jnp.asarray(x, dtype=jnp.float32), tx)
    with jax.enable_x64(True), jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        start = {"a": jnp.ones((2, 3), dtype=jnp.float64), "b": jnp.ones(2, dtype=jnp.bfloat16)}

        def step(tx):
            return tx.update(start, tx.init(start), start, value_fn=value_fn)[0]

        shapes = jax.eval_shape(step, numbers)
    assert jax.tree.map(lambda x: x.dtype, shapes) == jax.tree.map(lambda x: x.dtype, start)


@pytest.mark.parametrize(
    "wrong", ["abc", {"a": "abc"}, {"a": object()}, np.array(["a"])], ids=["text", "leaf", "object", "array"]
)
def test_parameters_that_are_no_arrays_are_refused(wrong):
    for tx in (optimizers.adam(0.1), chain(transforms.clip_by_global_norm(1.0))):
        with pytest.raises(TypeError, match="needs params to be arrays"):
            tx.init(wrong)


def test_every_declared_neutral_value_is_one_that_the_argument_may_have():
    declared = {path: c for path, c in {**constructors(), **functions()}.items() if c.constructor.neutral}
    assert {transforms.add_decayed_weights, transforms.divide_by_root} <= set(declared.values())
    for path, constructor in declared.items():
        constructor(**{**arguments(path, constructor), **constructor.constructor.neutral})


def test_an_atom_declares_the_values_that_disable_its_arguments():
    @transforms.atom(neutral={"pull": 0.0})
    def towards(target: float, pull: float = 0.1) -> transforms.Transform:
        return transforms.Transform(lambda params: optax.EmptyState(), lambda g, s, p=None, **extra: (g, s))

    tx = chain(towards(1.0), transforms.from_optax(optax.scale_by_adam)(), towards(2.0))
    assert transforms.neutral_values(tx) == {
        "towards[0].pull": 0.0,
        "scale_by_adam.eps": 0.0,
        "scale_by_adam.eps_root": 0.0,
        "towards[1].pull": 0.0,
    }
    for decorator in (transforms.atom, transforms.named_function):
        with pytest.raises(TypeError, match=r"neutral to map arguments of <lambda> to numbers; received 'push'"):
            decorator(neutral={"push": 0.0})(lambda pull: None)
