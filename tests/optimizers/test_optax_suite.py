"""Optax's own tests, run on the optimizers of this package.

Optax ships its test modules in its wheel. Each is loaded once more under another name, with our constructors in the
place of Optax's, under Optax's convention where there are several. `DIFFERENT` lists what fails, and why; a test that
fails for another reason, or one that passes in spite of the list, fails here.
"""

import ast
import functools
import importlib.util
import re
import unittest
import warnings
from pathlib import Path
from types import ModuleType

import jax
import optax
import pytest

from jaxopt_study import optimizers, transforms

pytestmark = pytest.mark.slow


def _as_optax(name, **fixed):
    return functools.partial(optimizers.named()[name], **fixed)  # keeps the signature, which inject_hyperparams reads


def _sgd(learning_rate, momentum=None, nesterov=False, accumulator_dtype=None):
    return optimizers.sgd(learning_rate, momentum, nesterov, accumulator_dtype=accumulator_dtype)


CONVENTIONAL = (
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "adan", "amsgrad", "nadam", "radam", "rmsprop",
    "rprop",
)  # fmt: skip
ALIASES = {name: _as_optax(name, convention="optax") for name in CONVENTIONAL} | {
    "adamaxw": _as_optax("adamax", convention="optax", decoupled_weight_decay=True, weight_decay=1e-4),
    "lion": _as_optax("lion"),
    "nadamw": _as_optax("adamw", convention="optax", nesterov=True),
    "sgd": _sgd,
}
ATOMS = {
    "chain": transforms.chain,
    "clip": lambda max_delta: transforms.clip_by_value(max_delta),
    "clip_by_global_norm": transforms.clip_by_global_norm,
    "ema": lambda decay, debias=True, accumulator_dtype=None: (
        transforms.chain(transforms.ema(decay, dtype=accumulator_dtype), transforms.bias_correction(decay))
        if debias
        else transforms.ema(decay, dtype=accumulator_dtype)
    ),
    "scale_by_adam": lambda b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0: transforms.scale_by_adam(
        b1, b2, eps=eps, eps_root=eps_root
    ),
    "scale_by_adamax": lambda b1=0.9, b2=0.999, eps=1e-8: transforms.scale_by_adamax(b1, b2, eps=eps),
    "scale_by_adadelta": lambda rho=0.9, eps=1e-6: transforms.scale_by_adadelta(rho, eps=eps),
    "scale_by_adan": lambda: transforms.scale_by_adan(eps_root=1e-8, difference_weight=0.08),
    "scale_by_lion": transforms.scale_by_lion,
    "scale_by_rms": lambda decay=0.9, eps=1e-8, eps_in_sqrt=True, bias_correction=False: transforms.scale_by_rms(
        decay, eps=0.0 if eps_in_sqrt else eps, eps_root=eps if eps_in_sqrt else 0.0, corrected=bias_correction
    ),
    "scale_by_stddev": lambda: transforms.scale_by_rms(eps=0.0, eps_root=1e-8, centered=True),
    "scale_by_param_block_rms": transforms.scale_by_param_rms,
    "scale_by_factored_rms": lambda: transforms.scale_by_factored_rms(axes="largest", min_dim_size_to_factor=128),
    "trace": lambda decay, nesterov=False, accumulator_dtype=None: (
        transforms.nesterov if nesterov else transforms.heavy_ball
    )(decay, dtype=accumulator_dtype),
    "add_decayed_weights": lambda weight_decay=0.0, mask=None: transforms.add_decayed_weights(weight_decay, mask=mask),
    "clip_by_block_rms": transforms.clip_by_leaf_rms,
}
MODULES = (
    "optax._src.alias_test",
    "optax._src.combine_test",
    "optax._src.transform_test",
    "optax._src.factorized_test",
    "optax._src.float64_test",
    "optax._src.lookahead_test",
    "optax._src.sharding_test",
    "optax.transforms._adding_test",
    "optax.transforms._accumulation_test",
    "optax.transforms._clipping_test",
    "optax.transforms._combining_test",
    "optax.transforms._conditionality_test",
    "optax.transforms._freezing_test",
    "optax.transforms._layouts_test",
    "optax.transforms._masking_test",
    "optax.transforms._monitoring_test",
    "optax.contrib._privacy_test",
    "optax.contrib._schedule_free_test",
)
# Optimizers that are not ours: their tests say nothing about this package.
THEIRS = re.compile(
    r"adabelief|fromage|lamb|lars|noisy_sgd|novograd|optimistic|polyak_sgd|sign_sgd|signum|sm3|yogi|lbfgs|LBFGS"
)
COMPLEX = "complex parameters are refused by what is not linear in the gradient, where |g|² would stand for g²"
NAMES = "the test looks for Optax's name of a field of the state (mu); ours is EmaState.average"
STATE = "the test invents the state, None or 0, of a stateless atom; ours checks whose state it is"
NEVER = "a decay of 1 never forgets and is refused"
DIFFERENT = {
    ("alias_test", r"test_explicit_dtype.*opt_name='adamw?'"): NAMES,
    ("alias_test", r"test_explicit_dtype.*state_dtype='complex64'.*opt_name='sgd_mom'"): COMPLEX,
    (
        "alias_test",
        r"(test_optimization\d|shard_stability).*opt_name='(rmsprop|adafactor|ada|amsgrad|nadam|radam).*complex",
    ): COMPLEX,
    ("combine_test", r"test_labels_mismatch"): NEVER,
    ("_combining_test", r"test_labels_mismatch"): NEVER,
    ("_freezing_test", r"test_(selective_)?bad_structure"): "the test looks for Optax's words in the message",
    ("transform_test", r"test_lion_(invalid_mode|modes)"): "Lion has no `mode` here: only the paper's",
    ("_adding_test", r"test_none_argument"): STATE,
    ("_clipping_test", r"test_clip(_by_block_rms|_by_global_norm)?$"): STATE,
    ("_accumulation_test", r"test_ema_debias"): "the test reads fields of Optax's state",
}

# One test compares two chains at a rate of 1 to 1e-6: ours agree so in double precision, 5e-4 apart in single.
DOUBLE = {"optax.contrib._schedule_free_test"}


class _Ours(ModuleType):
    """One of Optax's modules, with our constructors where we have one of the same name."""

    def __init__(self, theirs):
        super().__init__(theirs.__name__)
        self._theirs = theirs

    def __getattr__(self, name):
        ours = ALIASES.get(name) or ATOMS.get(name)
        return ours if ours and hasattr(self._theirs, name) else getattr(self._theirs, name)


def _load(name):
    """Execute a test module of Optax with every module of Optax that it imports replaced."""
    spec = importlib.util.find_spec(name)
    module = ModuleType(name)
    module.__file__ = spec.origin
    names = vars(module)
    for node in ast.parse(Path(spec.origin).read_text()).body:
        exec(compile(ast.Module([node], []), spec.origin, "exec"), names)
        if isinstance(node, ast.Import | ast.ImportFrom):
            for label, value in list(names.items()):
                if type(value) is ModuleType and value.__name__.partition(".")[0] == "optax":
                    names[label] = _Ours(value)
    return module


def _run(name):
    """Return the tests of a module that concern us: identifier → None if it passed, else what was raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module, outcome = _load(name), {}
    for case in vars(module).values():
        if not (isinstance(case, type) and issubclass(case, unittest.TestCase)) or case.__module__ != name:
            continue
        for test in unittest.defaultTestLoader.loadTestsFromTestCase(case):
            label = test.id().removeprefix(f"{name}.")
            if THEIRS.search(label):
                continue
            result = unittest.TestResult()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optax's tests are not written for warnings as errors
                test.run(result)
            if not result.skipped:
                raised = [text for _, text in result.failures + result.errors]
                outcome[label] = raised[0] if raised else None
    return outcome


@pytest.fixture(autouse=True)
def _configuration():
    before = jax.config.jax_enable_x64
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.mark.parametrize("name", MODULES)
def test_optax_own_tests_pass_on_our_optimizers_but_for_the_listed_differences(name):
    jax.config.update("jax_enable_x64", name in DOUBLE)
    outcome = _run(name)
    assert outcome, "nothing was run"
    short = name.rpartition(".")[2]
    patterns = {pattern: why for (module, pattern), why in DIFFERENT.items() if module == short}
    unexpected = {
        label: raised.strip().splitlines()[-1]
        for label, raised in outcome.items()
        if raised and not any(re.search(pattern, label) for pattern in patterns)
    }
    assert not unexpected
    for pattern in patterns:
        listed = {label: raised for label, raised in outcome.items() if re.search(pattern, label)}
        assert listed, f"{pattern} names no test"
        assert all(listed.values()), f"{pattern}: passes, so take it off the list: {listed}"


def test_the_shim_really_runs_ours():
    """A broken optimizer of ours fails Optax's tests, and Optax's own pass where ours are listed as different."""
    module = _load("optax._src.alias_test")
    assert isinstance(module.alias.adam(0.1), transforms.Transform)
    assert module.alias.lbfgs is optax.lbfgs
    assert set(ALIASES) <= set(dir(optax))
