"""A saved expression is data: whatever the text says, it builds what is listed or ends in this package's error."""

import copy
import inspect
import json
import os
import random
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jaxopt_study
from jaxopt_study import optimizers
from jaxopt_study.transforms import (
    Function,
    Transform,
    add_gradient_noise,
    chain,
    clip_by_global_norm,
    elementwise,
    ema,
    from_json,
    from_optax,
    scale_by_learning_rate,
    vocabulary,
)
from jaxopt_study.transforms._expression import Expression

PACKAGE = str(Path(jaxopt_study.__file__).parent)
INNER = {"call": "jaxopt_study.optimizers:sgd", "arguments": {"learning_rate": 0.1}}
SCHEDULE = {"from_optax": "optax:constant_schedule", "arguments": {"value": 0.1}}
NEEDED = {  # arguments without defaults, by the parameter's name
    "learning_rate": 0.1, "max_learning_rate": 0.1, "clipping": 0.1, "eta": 0.1, "gamma": 0.5, "seed": 1, "k": 2,
    "key": {"key": [0, 1], "impl": "threefry2x32"}, "inner": INNER, "max_consecutive_errors": 2, "max_delta": 1.0,
    "threshold": 1.0, "max_norm": 1.0, "value": 0.1, "init_value": 0.1, "decay_steps": 10, "transition_steps": 10,
    "peak_value": 0.1, "decay": 0.9, "decay_rate": 0.9, "schedules": [SCHEDULE, SCHEDULE], "boundaries": [3],
    "fast_optimizer": INNER, "sync_period": 2, "slow_step_size": 0.5, "transforms": {"dict": {"a": INNER}},
    "param_labels": "a", "mask": True, "interpolate_type": "linear", "end_value": 0.0, "power": 1.0, "step_size": 0.1,
    "step_size_fn": SCHEDULE, "optimizer": INNER, "adv_optimizer": INNER, "base_optimizer": INNER, "warmup_steps": 2,
    "tx": INNER, "freeze_mask": True, "l2_norm_clip": 1.0, "noise_multiplier": 0.1, "cosine_kwargs": [],
    "max_backtracking_steps": 5, "max_linesearch_steps": 5,
}  # fmt: skip
LISTED = sorted(path for path in vocabulary.optax_constructors() if path.partition(":")[0] in vocabulary.OPTAX)
UNLISTED = sorted(
    f"{module.__name__}:{name}"
    for module in (optax, optax.contrib)
    for name, value in vars(module).items()
    if callable(value) and not name.startswith("_") and f"{module.__name__}:{name}" not in LISTED
)


def saved(expression, **document):
    return json.dumps({"format": "jaxopt_study.transform/2", "expression": expression} | document)


@pytest.fixture
def untouched(tmp_path, monkeypatch):
    """A folder in which nothing may appear, and a system that may not be called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    yield tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "function",
    [
        "jax.numpy:savez", "jax.numpy:save", "jax.numpy:load", "jax.numpy:fromfile", "jax.numpy:frompyfunc",
        "jax.numpy:iterable", "jax.numpy:vectorize", "jax.numpy:apply_along_axis", "jax:pure_callback", "jax:jit",
        "jax.debug:callback", "jax.debug:print", "jax.experimental:io_callback", "jax.profiler:start_trace", "jax:vmap",
        "jax.tree_util:tree_map", "jax.tree_util:Partial", "jax.lax:map", "jax.lax:cond",
        "jax._src.xla_bridge:os.system", "jaxopt_study.records:save",
        "jaxopt_study.transforms._printing:resolve", "jaxopt_study.transforms:from_json",
        "jaxopt_study.transforms:from_optax", "optax:adam", "optax:tree_map_params", "optax:apply_updates", "os:system",
        "builtins:eval", "numpy:load", "jax.numpy:square.__call__", "jax.numpy:__loader__", "", ":", "jax.numpy",
        "a:b:c", "jax.numpy:", "..:x", "jax.numpy:square.__globals__", "\0:\0",
    ],
)  # fmt: skip
def test_a_text_names_no_function_outside_the_list(untouched, function):
    argument = {"function": function}
    documents = [
        argument,
        {"call": "jaxopt_study.transforms:elementwise", "arguments": {"fn": argument}},
        {
            "from_optax": "optax:masked",
            "arguments": {"inner": INNER, "mask": argument, "mask_compatible_extra_args": False},
        },
        {"from_optax": "optax:tree_map_params", "arguments": {"initable": argument, "f": argument, "state": "touch x"}},
    ]
    for document in documents:
        with pytest.raises(ValueError, match="is neither a constructor nor an elementwise function"):
            from_json(saved(document))


@pytest.mark.parametrize("path", UNLISTED)
def test_no_other_name_of_optax_is_called(untouched, path):
    for document in ({"from_optax": path, "arguments": {}}, {"call": path, "arguments": {}}, {"function": path}):
        with pytest.raises(ValueError, match="is neither a constructor nor"):
            from_json(saved(document))


def test_the_list_leaves_out_what_applies_other_functions():
    dangerous = {"tree_map_params", "stateless", "inject_hyperparams", "monitor", "snapshot", "microbatch"}
    assert dangerous <= {path.partition(":")[2] for path in UNLISTED}
    assert len(LISTED) == sum(map(len, vocabulary.OPTAX.values()))  # the installed version has all of them


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning", "ignore:Specifying a key:UserWarning")
@pytest.mark.parametrize("path", LISTED)
def test_every_listed_constructor_of_optax_builds_a_transformation_or_a_schedule(path):
    arguments = {}
    for name, parameter in inspect.signature(vocabulary.optax_constructors()[path]).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            part = {"tuple": ["a", INNER]} if path == "optax:named_chain" else INNER
            arguments[name] = {"tuple": [part]}
        elif parameter.default is parameter.empty:
            arguments[name] = NEEDED[name]
    if path == "optax:piecewise_interpolate_schedule":
        arguments["boundaries_and_scales"] = {"items": [[3, 0.1]]}
    if path == "optax:sgdr_schedule":
        keywords = {"init_value": 0.0, "peak_value": 0.1, "warmup_steps": 2, "decay_steps": 10}
        arguments["cosine_kwargs"] = [{"dict": keywords}]
    if path == "optax:noisy_sgd":
        arguments |= {"key": NEEDED["key"]}
    built = from_json(saved({"from_optax": path, "arguments": arguments}))
    if isinstance(built, Function):
        assert jax.eval_shape(built, jnp.int32(1)).shape == ()
    else:
        assert isinstance(built, Transform)
        assert jax.eval_shape(built.init, {"w": jnp.ones((3, 2))}) is not None


@pytest.mark.parametrize(
    "path", [f"{module}:{name}" for module, names in vocabulary.ELEMENTWISE.items() for name in names]
)
def test_every_listed_function_computes_with_arrays_entry_by_entry(path):
    function, x, number = vocabulary.functions()[path], jnp.array([[0.25, 0.5, 0.75]]), 1
    while True:
        try:
            result = jax.eval_shape(function, *[x if number < 3 else x > 0.5, x, x][:number])
            break
        except (TypeError, ValueError):
            number += 1
            assert number <= 3
    assert result.shape == x.shape


@pytest.mark.parametrize("trusted", ["optax", "jax", "jax.numpy", "numpy", "jaxopt_study.transforms", "builtins"])
def test_packages_of_others_are_not_trusted_as_a_whole(untouched, trusted):
    with pytest.raises(ValueError, match="cannot be trusted as a whole"):
        from_json(saved({"function": "jax.numpy:savez"}), trusted=(trusted,))


def test_trust_is_named_by_a_tuple_of_texts():
    for wrong in ("mine", (3,), (None,)):
        with pytest.raises(TypeError, match="trusted"):
            from_json(saved(INNER), trusted=wrong)
    with pytest.raises(TypeError, match="text"):
        from_json(3)


VALID = [
    optimizers.adam(1e-3),
    optimizers.adam(1e-3, convention="saito2016").expand(),
    chain(clip_by_global_norm(1.0), ema(jnp.array(0.5)), elementwise(jnp.sign), scale_by_learning_rate(0.1)),
    chain(add_gradient_noise(0.1, 0.5, key=jax.random.key(3)), from_optax(optax.masked)(ema(0.9), {"w": True})),
    from_optax(optax.piecewise_constant_schedule)(0.1, {3: 0.5, 7: 0.1}),
    from_optax(optax.add_noise)(np.array([0.1]), 0.5, key=jax.random.key(0, impl="rbg")),
]
JUNK = [
    None, True, -1, 0, 10**30, 1e308, float("nan"), float("inf"), "", "x", "..", "\0", [], {}, [[]], [None], {"a": 1},
    {"call": "jaxopt_study.transforms:ema", "arguments": []}, {"call": [], "arguments": {}}, {"function": {}},
    {"array": {}, "dtype": "object", "jax": True}, {"array": [1], "dtype": "O", "jax": False},
    {"array": [[1], [1, 2]], "dtype": "float32", "jax": True}, {"array": [1], "dtype": ["f4"], "jax": True},
    {"array": [300], "dtype": "uint8", "jax": True}, {"array": ["a"], "dtype": "float32", "jax": True},
    {"array": [1], "dtype": "M8[s]", "jax": True}, {"array": [1], "dtype": "S1", "jax": True}, {"array": [1]},
    {"key": [1], "impl": "threefry2x32"}, {"key": [0, 1], "impl": "nonsense"}, {"key": [-1, 1], "impl": "threefry2x32"},
    {"key": [0, 2**32], "impl": "threefry2x32"}, {"key": "01", "impl": "threefry2x32"}, {"key": [], "impl": {}},
    {"key": [0.5, 1], "impl": "threefry2x32"}, {"tuple": {}}, {"tuple": "ab"}, {"dict": []}, {"items": {}},
    {"items": [[1]]}, {"items": [[[], 1]]}, {"items": [[1, 1], [1, 2]]}, {"items": 3}, {"call": "x", "from_optax": "y"},
    {"array": [1.5], "dtype": "int32", "jax": True}, {"array": [1, 2], "dtype": "nothing", "jax": True},
    INNER, SCHEDULE,
    {"array": None, "dtype": "float32", "jax": True}, {"array": [1], "dtype": "float32", "jax": 1},
]  # fmt: skip


def places(node, path=()):
    yield path
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from places(node[key], (*path, key))


def mutated(document, draw):
    document = copy.deepcopy(document)
    for _ in range(draw.choice([1, 1, 2])):
        *path, last = draw.choice([place for place in places(document) if place])
        node = document
        for key in path:
            node = node[key]
        action = draw.choice(["replace", "replace", "replace", "remove", "wrap", "rename"])
        if action == "replace":
            node[last] = draw.choice(JUNK)
        elif action == "remove":
            del node[last]
        elif action == "wrap":
            node[last] = draw.choice([[node[last]], {"tuple": [node[last]]}, {"dict": {"x": node[last]}}])
        elif isinstance(node, dict):
            node[draw.choice(["x", "call", "array", "decay", ""])] = node.pop(last)
    return document


def refused_or_built(text):
    try:
        built = from_json(text)
    except ValueError as error:
        raised = traceback.extract_tb(error.__traceback__)[-1].filename
        if not raised.startswith(PACKAGE):
            pytest.fail(f"{text}: {error!r} comes from {raised}")
        return True
    assert isinstance(built, Expression)
    return False


def test_documents_that_are_changed_anywhere_are_refused_by_this_package_or_built(untouched):
    draw, refused = random.Random(0), 0
    documents = [json.loads(tx.to_json()) for tx in VALID]
    for _ in range(200):
        refused += refused_or_built(json.dumps(mutated(draw.choice(documents), draw)))
    assert 100 < refused < 200  # the changes are neither all fatal nor all harmless


@pytest.mark.parametrize("junk", JUNK, ids=lambda junk: json.dumps(junk)[:40])
def test_no_argument_or_expression_of_a_wrong_kind_gets_through(untouched, junk):
    refused_or_built(saved(junk))
    for name in ("decay", "of", "dtype"):
        refused_or_built(saved({"call": "jaxopt_study.transforms:ema", "arguments": {"decay": 0.5} | {name: junk}}))
    refused_or_built(saved({"call": "jaxopt_study.transforms:chain", "arguments": {"parts": junk}}))
    refused_or_built(saved({"call": "jaxopt_study.transforms:chain", "arguments": {"parts": {"tuple": [junk]}}}))
    refused_or_built(json.dumps(junk))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000 + "]" * 100_000, "deep"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "deep"),
        (saved(INNER).replace("0.1", "[" * 300 + "]" * 300), "deep"),
        (saved(INNER).replace("0.1", "9" * 5000), "Not JSON"),
        (saved(INNER).replace('"expression"', '"format": 1, "expression"'), "twice"),
        (saved(INNER).replace("0.1", r'"\ud800"'), "surrogates"),
        (saved(INNER, format={}), "Expected a document of format"),
        ("\ufeff" + saved(INNER), "Not JSON"),
        ("", "Not JSON"),
    ],
)
def test_json_of_any_depth_and_size_ends_in_the_same_error(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        from_json(text)
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename.startswith(PACKAGE)


def test_infinite_and_undefined_numbers_come_back():
    for value in (float("inf"), 1e-300):
        tx = clip_by_global_norm(value) if value > 1 else ema(0.5)
        assert from_json(tx.to_json()) == tx


def test_what_json_cannot_hold_is_refused_when_it_is_written():
    with pytest.raises(ValueError, match="array of complex64, which JSON cannot hold"):
        from_optax(optax.scale)(jnp.array(1j)).to_json()
    real = from_optax(optax.scale)(jnp.array(1.0)).to_json()
    with pytest.raises(ValueError, match="'complex64' is not a dtype of real numbers"):
        from_json(real.replace("float32", "complex64"))


@pytest.mark.parametrize("trusted", [("",), (".os",), ("os.",), ("a b",)])
def test_what_is_trusted_has_the_name_of_a_module(trusted):
    with pytest.raises(ValueError, match="needs trusted to name modules"):
        from_json(ema(0.9).to_json(), trusted=trusted)
