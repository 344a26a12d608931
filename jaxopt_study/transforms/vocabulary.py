"""Names allowed in saved and command-line expressions: constructors and elementwise functions.

A saved expression and an expression on a command line are untrusted data. Their names are looked up only in these
tables: no module is imported because a text names it, and no package is trusted as a whole, since each contains
functions that write files, call back into Python, or apply arbitrary functions. A function belongs here if calling it,
with any arguments, only computes with arrays.
"""

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from jaxopt_study.transforms._printing import import_path

# All of Optax's public names that return a transformation or a schedule, except those that apply a user's function to
# parameters, updates or other constructors: `stateless`, `inject_hyperparams`, `conditionally_mask`, `monitor`,
# `snapshot`, `microbatch` and the like. `tree_map_params` and the losses are not constructors.
OPTAX: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "optax": (
        "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan",
        "adaptive_grad_clip", "add_decayed_weights", "add_noise", "amsgrad", "apply_every", "apply_if_finite",
        "centralize", "chain", "clip", "clip_by_block_rms", "clip_by_global_norm", "constant_schedule",
        "cosine_decay_schedule", "cosine_onecycle_schedule", "ema", "exponential_decay", "flatten", "freeze", "fromage",
        "identity", "join_schedules", "keep_params_nonnegative", "lamb", "lars", "lbfgs", "linear_onecycle_schedule",
        "linear_schedule", "lion", "lookahead", "masked", "multi_transform", "nadam", "nadamw", "named_chain",
        "noisy_sgd", "normalize_by_update_norm", "novograd", "optimistic_adam", "optimistic_adam_v2",
        "optimistic_gradient_descent", "partition", "piecewise_constant_schedule", "piecewise_interpolate_schedule",
        "polyak_sgd", "polynomial_schedule", "radam", "rmsprop", "rprop", "scale", "scale_by_adadelta", "scale_by_adam",
        "scale_by_adamax", "scale_by_adan", "scale_by_amsgrad", "scale_by_backtracking_linesearch", "scale_by_belief",
        "scale_by_distance_over_gradients", "scale_by_factored_rms", "scale_by_lbfgs", "scale_by_learning_rate",
        "scale_by_lion", "scale_by_novograd", "scale_by_optimistic_gradient", "scale_by_param_block_norm",
        "scale_by_param_block_rms", "scale_by_polyak", "scale_by_radam", "scale_by_rms", "scale_by_rprop",
        "scale_by_rss", "scale_by_schedule", "scale_by_sign", "scale_by_sm3", "scale_by_stddev", "scale_by_trust_ratio",
        "scale_by_yogi", "scale_by_zoom_linesearch", "selective_transform", "set_to_zero", "sgd", "sgdr_schedule",
        "sign_sgd", "signum", "sm3", "trace", "warmup_constant_schedule", "warmup_cosine_decay_schedule",
        "warmup_exponential_decay_schedule", "with_extra_args_support", "yogi", "zero_nans",
    ),
    "optax.contrib": (
        "acprop", "ademamix", "adopt", "cocob", "dadapt_adamw", "differentially_private_aggregate", "dog", "dowg",
        "dpsgd", "galore", "hutchinson_estimator_diag_hessian", "madgrad", "mechanize", "momo", "momo_adam", "muon",
        "normalize", "prodigy", "reduce_on_plateau", "sam", "scale_by_acprop", "scale_by_ademamix", "scale_by_adopt",
        "scale_by_cocob", "scale_by_galore", "scale_by_madgrad", "scale_by_muon", "scale_by_simplified_ademamix",
        "schedule_free", "schedule_free_adamw", "schedule_free_sgd", "simplified_ademamix", "sophia",
        "split_real_and_imaginary",
    ),
})  # fmt: skip

# Elementwise functions of one, two or three arrays, for the statistics of the gradient, `merge` and `elementwise`.
ELEMENTWISE: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "jax.numpy": (
        "abs", "absolute", "add", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "cbrt",
        "ceil", "clip", "conj", "conjugate", "copysign", "cos", "cosh", "divide", "exp", "exp2", "expm1", "float_power",
        "floor", "fmax", "fmin", "heaviside", "hypot", "imag", "isfinite", "isinf", "isnan", "log", "log10", "log1p",
        "log2", "logaddexp", "logaddexp2", "maximum", "minimum", "multiply", "nan_to_num", "negative", "ones_like",
        "positive", "power", "real", "reciprocal", "rint", "sign", "signbit", "sin", "sinc", "sinh", "sqrt", "square",
        "subtract", "tan", "tanh", "true_divide", "trunc", "where", "zeros_like",
    ),
    "jax.nn": (
        "celu", "elu", "gelu", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid",
        "mish", "relu", "relu6", "selu", "sigmoid", "silu", "soft_sign", "softplus", "sparse_plus", "sparse_sigmoid",
        "squareplus", "swish", "tanh",
    ),
    "jax.lax": (
        "abs", "add", "cbrt", "ceil", "div", "erf", "erfc", "exp", "exp2", "expm1", "floor", "log", "log1p", "logistic",
        "max", "min", "mul", "neg", "pow", "round", "rsqrt", "sign", "sqrt", "square", "stop_gradient", "sub", "tanh",
    ),
})  # fmt: skip

DTYPES: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "jax.numpy": ("bfloat16", "float16", "float32", "float64"),
    "numpy": ("float16", "float32", "float64"),
})  # fmt: skip

_MODULES = {
    "optax": optax,
    "optax.contrib": optax.contrib,
    "jax.numpy": jnp,
    "jax.nn": jax.nn,
    "jax.lax": jax.lax,
    "numpy": np,
}
_ALIASES = {"jax.numpy": "jnp", "numpy": "np"}
_HOMES = (
    "jaxopt_study.transforms",
    "jaxopt_study.optimizers",
)  # their public names are constructors

Table = Mapping[str, Callable[..., Any]]


@functools.cache
def own_constructors() -> Table:
    """Return this package's constructors of transformations and functions, by "module:name" of their public place.

    They are also found under the module that defines them, the path that earlier versions wrote.
    """
    constructors: dict[str, Any] = {}
    for home in _HOMES:
        module = importlib.import_module(home)  # by name, because optimizers stand above transforms
        for name in module.__all__:
            constructor = getattr(getattr(module, name), "constructor", None)
            if constructor is not None:
                constructors[f"{home}:{name}"] = constructors[constructor.path] = getattr(module, name)
    return MappingProxyType(constructors)


@functools.cache
def optax_constructors() -> Table:
    """Return Optax's constructors of transformations and schedules, by "module:name"."""
    return _table(OPTAX)


@functools.cache
def functions() -> Table:
    """Return the functions of arrays, by "module:name"; dtypes and the defaults of Optax's constructors among them."""
    allowed = dict(_table(ELEMENTWISE)) | dict(_table(DTYPES))
    for constructor in optax_constructors().values():
        for parameter in inspect.signature(constructor).parameters.values():
            path = import_path(parameter.default) if inspect.isfunction(parameter.default) else None
            if path is not None:
                allowed[path] = parameter.default
    return MappingProxyType(allowed)


def written(table: Table) -> Table:
    """Return a table by the names under which expressions print: "jnp.square", "optax.contrib.muon"."""
    split = ((path.partition(":"), value) for path, value in table.items() if "._" not in path)
    return {f"{_ALIASES.get(module, module)}.{name}": value for (module, _, name), value in split}


def _table(names: Mapping[str, tuple[str, ...]]) -> Table:
    objects: dict[str, Any] = {}
    for module, listed in names.items():
        for name in listed:
            value = getattr(_MODULES[module], name, None)  # other versions may lack some names
            if value is not None:
                home = f"{getattr(value, '__module__', module)}:{getattr(value, '__qualname__', name)}"
                objects.setdefault(home, value)  # the path that earlier versions wrote for names public in a subpackage
                objects[f"{module}:{name}"] = value
    return MappingProxyType(objects)
