"""Adafactor's factored moments, which a vector does not show, against its reference and Optax."""

import numpy as np
import optax
import pytest

from jaxopt_study import optimizers
from tests.oracles import gradients
from tests.oracles.closeness import assert_agree
from tests.oracles.references import adafactor
from tests.oracles.references.reference import run
from tests.oracles.running import run_transform, states_of
from tests.oracles.running import traced_staircase as stairs

STAIRS = gradients.staircase
DOUBLE = float(np.finfo(np.float64).eps)


FACTORED_CASES = {
    "matrix, paper": (optimizers.adafactor(stairs), adafactor.adafactor(STAIRS), (2, 3)),
    "matrix, torch": (
        optimizers.adafactor(stairs, weight_decay=0.1, convention="torch"),
        adafactor.adafactor(STAIRS, eps1=DOUBLE, as_torch=True, weight_decay=0.1),
        (3, 2),
    ),
    "matrix, optax, with momentum and decay": (
        optimizers.adafactor(stairs, momentum=0.9, weight_decay=0.01, min_dim_size_to_factor=2, convention="optax"),
        adafactor.adafactor(STAIRS, relative=False, momentum=0.9, weight_decay=0.01),
        (2, 3),
    ),
    "the largest axes, optax": (
        optimizers.adafactor(stairs, min_dim_size_to_factor=2, convention="optax"),
        adafactor.adafactor(STAIRS, relative=False, axes=(2, 0)),
        (4, 1, 3),
    ),
    "the last axes, paper": (optimizers.adafactor(stairs), adafactor.adafactor(STAIRS), (4, 1, 3)),
    "not factored, optax": (
        optimizers.adafactor(stairs, convention="optax"),
        adafactor.adafactor(STAIRS, relative=False, axes=None),
        (2, 3),
    ),
    "not factored, paper": (
        optimizers.adafactor(stairs, factored=False),
        adafactor.adafactor(STAIRS, axes=None),
        (2, 3),
    ),
    "a number without a rate, optax": (
        optimizers.adafactor(convention="optax"),
        adafactor.adafactor(None, relative=False),
        (),
    ),
}


@pytest.mark.parametrize("name", FACTORED_CASES)
def test_adafactor_keeps_rows_and_columns_as_its_reference_does(name):
    optimizer, reference, shape = FACTORED_CASES[name]
    grads, start = gradients.shaped_stream(shape, 3), gradients.shaped_start(shape, 3)
    params, _, state = run_transform(optimizer, grads, start)
    expected = run(reference, grads, start)
    assert_agree(params, expected["params"], name="params", cumulative=True)
    second = states_of(state, "FactoredRmsState")[0].second
    if "row" in expected:
        assert_agree(second.row, expected["row"], name="row", cumulative=True)
        assert_agree(second.column, expected["column"], name="column", cumulative=True)
    else:
        assert_agree(second, expected["v"], name="v", cumulative=True)


def test_adafactor_with_optaxs_defaults_is_optaxs_on_leaves_of_many_shapes():
    shapes = {"large": (3, 128, 130), "square": (129, 129), "small": (127, 140), "bias": (130,), "one": ()}
    generator = np.random.default_rng(0)
    grads = {name: generator.normal(size=(6, *shape)) for name, shape in shapes.items()}
    start = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    mask = {name: len(shape) > 1 for name, shape in shapes.items()}
    ours = optimizers.adafactor(stairs, weight_decay=0.01, mask=mask, convention="optax")
    theirs = optax.adafactor(stairs, weight_decay_rate=0.01, weight_decay_mask=mask)
    ours, theirs = (run_transform(optimizer, grads, start)[0] for optimizer in (ours, theirs))
    for name in shapes:
        assert_agree(ours[name], theirs[name], name=name, rtol=1e-6, cumulative=True)
