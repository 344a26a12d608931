"""An examination says what is true of points whose answer is known, and keeps what it has."""

import copy
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxopt_study import Examination, examine, records
from jaxopt_study._display import with_error
from jaxopt_study.examination import STAGES, Choices, Subject, _examine, _stages
from jaxopt_study.examination._findings import findings
from jaxopt_study.files import PathError

CURVATURES = jnp.array([0.1, 2.0, 0.5])


def bowl(params, _):
    return 0.5 * jnp.sum(CURVATURES * params["x"] ** 2)


def saddle(params, _):
    return 0.5 * jnp.sum(jnp.array([3.0, -1.0]) * params**2)


def loss(params, batch):
    return jnp.mean((jnp.tanh(batch[0] @ params["w"]) - batch[1]) ** 2)


POINT = {"x": jnp.array([-7.0, 2.0, 1.0])}
X = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
DATA = (X, np.sin(X.sum(axis=1)))
PARAMS = {"w": jnp.array([0.3, -0.2, 0.5])}


def subjects(found):
    return [finding.subject for finding in found.findings]


def text(found, subject):
    return next(" ".join(finding) for finding in found.findings if finding.subject == subject)


@pytest.fixture(scope="module")
def beyond():
    return examine(bowl, POINT, optimizer=optax.sgd(1.2))


@pytest.fixture(scope="module")
def whole():
    return examine(saddle, jnp.zeros(2), optimizer=optax.sgd(0.5), budget="minutes")


def test_a_rate_beyond_the_limit_is_called_so_with_the_factor(beyond):
    ratio = beyond.results["preconditioned"]["ratio"]  # λmax = 2, and gradient descent's limit is 2/η
    np.testing.assert_allclose(ratio, 2 / (2 / 1.2), rtol=1e-3)
    assert "beyond the edge of stability" in text(beyond, "learning rate")
    assert "at least 1.2" in text(beyond, "learning rate")
    change = float(bowl({"x": POINT["x"] * (1 - 1.2 * CURVATURES)}, None) - bowl(POINT, None))
    assert beyond.results["accounting"]["realised"] == pytest.approx(change, rel=1e-4)
    assert "The loss rises" in text(beyond, "change of the loss")


@pytest.mark.parametrize("rate", [0.25, 0.5])
def test_the_room_below_the_limit_is_that_of_the_quadratic(rate):
    found = examine(bowl, POINT, optimizer=optax.sgd(rate))
    assert "below the edge of stability" in text(found, "learning rate")
    room = float(re.search(r"Up to ([\d.]+) times", text(found, "learning rate"))[1])
    assert room == pytest.approx(1.0 / rate, rel=1e-2)


def test_a_saddle_is_a_saddle_and_the_step_leaves_it(whole):
    assert "A saddle, with 1 negative eigenvalues" in text(whole, "kind of point")
    assert whole.results["stability"]["radius"] == pytest.approx(1.5, rel=1e-5)  # 1 − η λ = 1 + .5
    assert "leaves the point along negative curvature" in text(whole, "next step")
    assert "loss falls" in text(whole, "way down")


def test_it_shows_itself_without_arrays(whole, beyond):
    for found in (whole, beyond):
        assert repr(found) == str(found)
        assert len(str(found).splitlines()) < 50
        assert "array" not in str(found)
        assert found.num_matvecs == sum(result["num_matvecs"] for result in found.results.values())
    table = whole.to_pandas()
    assert table.loc["kind of point", "value"] == "saddle"
    assert "<td>kind of point</td><td>saddle</td>" in whole._repr_html_()


def test_it_draws_its_spectrum_or_says_what_it_lacks(whole, beyond):
    assert whole.figure().axes
    assert whole.plot().get_title(loc="left") == "spectral density"
    assert "<svg" in whole._repr_html_()
    assert "<svg" not in beyond._repr_html_()
    with pytest.raises(ValueError, match='budget="minutes"'):
        beyond.plot()
    with pytest.raises(ValueError, match='budget="minutes"'):
        beyond.figure()


def test_saved_and_loaded_it_is_the_same(whole, tmp_path):
    path = whole.save(tmp_path / "point.json")
    again = Examination.load(path)
    assert str(again) == str(whole)
    assert again.findings == whole.findings
    records.save(records.Record("examination", "other", config={}, results={"stages": 3}), tmp_path / "other.json")
    with pytest.raises(records.RecordError, match="does not hold an examination"):
        Examination.load(tmp_path / "other.json")


FORGED = {
    "an infinite size": lambda results: results.update(size=np.inf),
    "an integer beyond floats": lambda results: results["stages"]["sharpness"].update(lower=10**400),
    "errors that are none": lambda results: results.update(errors=-1),
    "times that are none": lambda results: results["seconds"].update(audit="soon"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_file_of_other_values_is_no_examination(name, whole, tmp_path):
    record = records.load(whole.save(tmp_path / "point.json"))
    results = copy.deepcopy(dict(record.results))
    FORGED[name](results)
    path = records.save(replace(record, results=results), tmp_path / "forged.json")
    with pytest.raises(records.RecordError, match="does not hold an examination"):
        Examination.load(path)


def test_no_text_or_threshold_of_a_file_breaks_the_figure(whole, tmp_path):
    record = records.load(whole.save(tmp_path / "point.json"))
    results = copy.deepcopy(dict(record.results))
    results["stages"]["preconditioned"]["threshold"] = 0.0
    config = {**record.config, "budget": "$\\frac{$"}
    path = records.save(replace(record, config=config, results=results), tmp_path / "forged.json")
    assert Examination.load(path).report(tmp_path / "forged.html").exists()


def test_its_page_needs_nothing_else_and_escapes_what_it_is_told(whole, tmp_path):
    told = replace(whole, findings=(whole.findings[0]._replace(text="<script>x</script>"),))
    page = told.report(tmp_path / "deep" / "point.html").read_text()
    assert "<script>" not in page
    assert not re.search(r"""(src|href)=["']?(https?:|//)""", page)
    assert page.count("data:image/png;base64,") == 1
    with pytest.raises(PathError):
        whole.report(tmp_path)


def test_without_an_optimizer_the_loss_alone_is_examined():
    found = examine(loss, PARAMS, DATA, batch_size=5)
    assert set(found.results) == {"audit", "sharpness", "noise"}
    exact = jax.hessian(lambda w: loss({"w": w}, DATA))(PARAMS["w"])
    largest = float(np.linalg.eigvalsh(exact)[-1])
    assert found.results["sharpness"]["lower"] <= largest * (1 + 1e-5)
    assert largest <= found.results["sharpness"]["upper"] * (1 + 1e-5)


def test_noise_and_layers_are_those_of_the_library():
    two = {"first": {"w": jnp.eye(3)}, "last": {"w": jnp.array([3.0, -2.0, 0.5])}}
    deep = lambda params, batch: jnp.mean(
        (jnp.tanh(batch[0] @ params["first"]["w"]) @ params["last"]["w"] - batch[1]) ** 2
    )
    found = examine(deep, two, DATA, budget="minutes")
    noise = found.results["noise"]
    gradients = jax.vmap(lambda x, y: jax.flatten_util.ravel_pytree(jax.grad(deep)(two, (x[None], y[None])))[0])(*DATA)
    exact = float(jnp.sum(jnp.var(gradients, axis=0)) / jnp.sum(jnp.mean(gradients, axis=0) ** 2))
    assert noise["lower"] <= exact <= noise["upper"]
    assert "batch noise" in subjects(found)
    blocks = found.results["blocks"]
    for name, value in zip(blocks["names"], blocks["eigenvalues"], strict=True):
        flat, back = jax.flatten_util.ravel_pytree(two[name])
        dense = jax.hessian(lambda p, name=name, back=back: deep({**two, name: back(p)}, DATA))(flat)
        np.testing.assert_allclose(value, np.linalg.eigvalsh(dense)[-1], rtol=1e-3)
    assert any(row.startswith("λmax of") for row in str(found).splitlines())


def test_a_gradient_that_its_noise_hides_has_a_lower_bound_only():
    noise = {"noise_scale": 455.0, "lower": 144.0, "upper": np.inf}
    (finding,) = findings({"noise": noise}, {})
    assert finding.text.endswith("at 144 examples or more.")


def test_a_loader_is_examined_as_its_examples_are():
    batches = [(DATA[0][i : i + 5], DATA[1][i : i + 5]) for i in range(0, 12, 5)]
    found = examine(loss, PARAMS, batches, optimizer=optax.sgd(0.1))
    of_arrays = examine(loss, PARAMS, DATA, optimizer=optax.sgd(0.1))
    assert found.errors == {}
    assert found.results.keys() == of_arrays.results.keys()
    for stage, number in (("sharpness", "lower"), ("accounting", "realised")):
        assert found.results[stage][number] == pytest.approx(of_arrays.results[stage][number], rel=1e-2)


def test_the_gradient_of_a_loader_is_that_of_all_its_examples():
    batches = [(DATA[0][i : i + 5], DATA[1][i : i + 5]) for i in range(0, 12, 5)]
    subject = Subject(loss, PARAMS, batches, None, None, Choices(num_eigenpairs=2))
    found = STAGES["gradient"].run(subject, {"audit": {"noise_floor": 1e-6}})
    value, grads = jax.value_and_grad(loss)(PARAMS, DATA)
    assert found["loss"] == pytest.approx(float(value), rel=1e-5)
    assert found["gg"] == pytest.approx(float(grads["w"] @ grads["w"]), rel=1e-5)


def test_lookahead_is_examined_at_its_fast_parameters():
    params = optax.LookaheadParams(PARAMS, jax.tree.map(jnp.zeros_like, PARAMS))
    subject = Subject(loss, params, DATA, None, None, Choices(num_eigenpairs=2))
    found = STAGES["gradient"].run(subject, {"audit": {"noise_floor": 1e-6}})
    assert found["loss"] == pytest.approx(float(loss(PARAMS, DATA)), rel=1e-5)
    point = STAGES["classification"].run(subject, {"audit": {"noise_floor": 1e-6}})
    assert point["gradient_norm"] == pytest.approx(float(jnp.sqrt(found["gg"])), rel=1e-5)


def test_a_point_is_not_examined_inside_of_a_trace():
    for examined in (jax.jit, jax.vmap):
        with pytest.raises(TypeError, match="examine cannot run on traced arrays"):
            examined(lambda w: examine(bowl, {"x": w[0]}).num_matvecs)(POINT["x"][None, None])


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [(-7.5e29, 8e22, "-7.50000000e+29 ± 8.0e+22"), (12.345, 0.021, "12.345 ± 0.021"), (1234.5, 56.0, "1234 ± 56")],
)
def test_numbers_of_any_size_are_short(value, error, shown):
    assert with_error(value, error) == shown


def test_an_unsound_audit_ends_it_with_the_remedy():
    found = examine(lambda p, batch: len(batch[1]) * loss(p, batch), PARAMS, DATA, batch_size=5)
    assert set(found.results) == {"audit"}
    assert subjects(found) == ["audit"]
    assert "not those of a Hessian" in text(found, "audit")


def test_a_stage_that_fails_is_named_and_the_others_are_kept(monkeypatch):
    def fails(subject, so_far):
        raise FloatingPointError("it broke")

    stages = {
        name: replace(stage, run=fails) if name == "sharpness" else stage for name, stage in _examine.STAGES.items()
    }
    monkeypatch.setattr(_examine, "STAGES", stages)
    found = examine(loss, PARAMS, DATA, optimizer=optax.sgd(0.1))
    assert found.errors == {"sharpness": "FloatingPointError: it broke"}
    assert "accounting" in found.results
    assert "it broke" in text(found, "not measured")


def test_an_interrupt_ends_an_examination_and_keeps_what_was_measured(monkeypatch, tmp_path):
    def interrupted(subject, so_far):
        raise KeyboardInterrupt

    stages = {
        name: replace(stage, run=interrupted) if name == "threshold" else stage
        for name, stage in _examine.STAGES.items()
    }
    monkeypatch.setattr(_examine, "STAGES", stages)
    found = examine(loss, PARAMS, DATA, optimizer=optax.sgd(0.1))
    assert set(found.results) == {"audit", "sharpness"}
    told = text(found, "not measured")
    assert "threshold: interrupted; not measured: stability threshold of the optimizer, preconditioned" in told
    assert "noise of the gradient" in told
    assert Examination.load(found.save(tmp_path / "part.json")).findings == found.findings


def test_the_state_of_the_optimizer_counts():
    momentum = optax.sgd(0.1, momentum=0.9)
    state = momentum.init(PARAMS)
    moving = jax.tree.map(lambda v: v + 5.0, state)
    fresh, moved = (examine(loss, PARAMS, DATA, optimizer=momentum, opt_state=s) for s in (state, moving))
    assert moved.results["accounting"]["realised"] != fresh.results["accounting"]["realised"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"budget": "hours"}, ValueError, "budget"),
        ({"opt_state": ()}, ValueError, "together with its optimizer"),
        ({"optimizer": 3}, TypeError, "must be an Optax transformation"),
        ({"optimizer": optax.adam}, TypeError, "Call it"),
        ({"optimizer": optax.adam(1e-3), "opt_state": 7}, (TypeError, ValueError), "examine"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"seed": 1.5}, TypeError, "seed"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_measured(arguments, error, words):
    with pytest.raises(error, match=words):
        examine(loss, PARAMS, DATA, **arguments)


@pytest.mark.parametrize(("floor", "tolerance"), [(1e-6, 1e-3), (0.01, 0.02)])
def test_noisy_products_are_asked_for_no_more_than_they_hold(floor, tolerance):
    subject = SimpleNamespace(choices=_stages.Choices())
    assert _stages._tolerance(subject, {"audit": {"noise_floor": floor}}) == tolerance
    with pytest.raises(ValueError, match=r"noise floor, 9\.0e-01, is too high to resolve eigenvalues.*float32"):
        _stages._tolerance(subject, {"audit": {"noise_floor": 0.9}})
