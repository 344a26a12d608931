"""Every result shows itself: a screenful in a terminal, a card in a notebook, a picture where it has one."""

import html.parser
import io
import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxopt_study import _display, curvature, figures, optimizers, problems, sweeps, training, transforms
from jaxopt_study.curvature import Bracket, Eigenpairs, Estimate
from jaxopt_study.records import Record as AnyRecord
from jaxopt_study.records import RecordError, load, save
from tests.test_imports import loaded
from tests.test_results import STAGES, results, sweep

LINES, COLUMNS = 40, 100
HOSTILE = "<script>alert('x')</script>&\""


class Checker(html.parser.HTMLParser):
    """Well-formed HTML that loads nothing and runs nothing."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attributes):
        assert tag not in {"script", "link", "iframe", "img", "object"}, tag
        for name, value in attributes:
            assert not name.startswith("on"), name
            assert name in {"xmlns"} or "//" not in (value or ""), (name, value)
        self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_shown(name, result):
    text = repr(result)
    assert str(result) == text, name
    assert len(text.splitlines()) <= LINES, f"{name}\n{text}"
    assert max(map(len, text.splitlines())) <= COLUMNS, f"{name}\n{text}"
    assert not re.search(r"\barray\(|Array\(", text), f"{name}\n{text}"
    if hasattr(result, "_repr_html_"):
        checker = Checker()
        checker.feed(result._repr_html_())
        checker.close()
        assert not checker.open, name
        assert len(result._repr_html_()) < 30_000, name


def assert_drawn(name, result):
    ax = result.plot()
    picture, size = ax._repr_png_()  # what a notebook shows for the last line of a cell
    assert Image.open(io.BytesIO(picture)).size[0] == pytest.approx(2 * size["width"], abs=2), name
    mine = figures.new_figure(3, 3).subplots()
    assert result.plot(mine) is mine, name
    assert mine.has_data() or mine.patches, name


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_public_result_shows_itself(stage):
    drawn = 0
    for name, result in results(stage):
        assert_shown(name, result)
        if hasattr(result, "_repr_html_"):  # its card, not its bare fields
            several = isinstance(result, Estimate) and jnp.ndim(result.value) > 0
            assert several or repr(result).partition("\n")[0] != type(result).__name__, name
        if hasattr(result, "plot") and name != "plane":  # the example is a line
            assert_drawn(name, result)
            drawn += 1
    assert drawn


def bracket(**changes):
    numbers = {"lower": 14.31, "upper": 14.45, "residual": 0.003, "confidence": 0.95}
    fields = {name: jnp.float32(value) for name, value in numbers.items()}
    fields |= {"num_matvecs": jnp.int32(37), "converged": jnp.bool(True), "vector": jnp.ones(100)}
    return Bracket(**fields | changes)


def test_a_number_is_shown_with_its_error_and_unit():
    assert repr(bracket()).splitlines() == [
        "Bracket: bounds on the largest eigenvalue",
        "  λmax      14.31 to 14.45    95% confidence",
        "  2/λmax    0.1384 to 0.1398  critical learning rate of gradient descent",
        "  residual  0.003             ‖Hv − λv‖",
        "  products  37",
    ]
    assert repr(Estimate(jnp.float32(12.0), jnp.float32(0.5), jnp.int32(60))) == "Estimate(12.00 ± 0.50, 60 products)"


@pytest.mark.parametrize("name", ["search", "comparison", "ablation", "trajectory"])
def test_what_sweeps_and_training_return_shows_itself(name):
    assert_shown(name, sweep(False)[name])
    assert_drawn(name, sweep(False)[name])


def test_inside_of_jit_and_vmap_a_result_shows_its_fields():
    seen = []

    @jax.jit
    def traced(found):
        seen.append((repr(found), found._repr_html_()))
        return found.lower

    traced(bracket())
    jax.vmap(traced)(jax.tree.map(lambda x: jnp.stack([x, x]), bracket()))
    batch = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), bracket()._replace(converged=jnp.float32(1)))
    seen.append((repr(batch), batch._repr_html_()))
    assert all("Bracket" in text and "lower" in text and "<td>lower</td>" in card for text, card in seen)
    assert "traced float32[]" in seen[0][0]
    assert "float32[2], 14.31 to 28.62" in seen[-1][0]
    with pytest.raises(ValueError, match="one by one"):
        jax.tree.map(lambda x: jnp.stack([x, x]), eigenpairs(3)).plot()


def eigenpairs(k):
    values = jnp.linspace(-1.0, 5.0, k)
    return Eigenpairs(values, jnp.eye(k), 0.01 * jnp.ones(k), jnp.int32(60), values < 4, jnp.float32(5.0))


def test_a_result_with_any_leaves_is_still_printed():
    for leaf in (None, object(), 0, "a", jax.ShapeDtypeStruct((3,), jnp.float32)):
        assert "Bracket" in repr(jax.tree.map(lambda _, leaf=leaf: leaf, bracket()))
    runs = sweep(False)["trajectory"]
    assert "Trajectory" in repr(jax.tree.map(jnp.shape, runs))
    assert_shown("many runs", jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 3), runs))


def test_many_eigenvalues_are_shortened_and_drawn():
    found = eigenpairs(60)
    assert_shown("eigenpairs", found)
    assert_drawn("eigenpairs", found)
    assert "52 more" in repr(found)


def test_what_is_not_finite_is_shown_and_said():
    nothing = bracket(lower=jnp.float32(jnp.nan), upper=jnp.float32(jnp.inf))
    assert "nan to ∞" in repr(nothing)
    assert_shown("nan", eigenpairs(3)._replace(values=jnp.full(3, jnp.nan)))


def test_names_are_escaped_in_html():
    card = _display.Card(HOSTILE, [(HOSTILE, HOSTILE)], (HOSTILE, HOSTILE), [HOSTILE])
    picture = _display.intervals([(HOSTILE, 1.0, 0.0, 2.0)], label=HOSTILE)
    shown = _display.card_html(card._replace(picture=lambda: picture))
    assert "<script" not in shown
    Checker().feed(shown)
    assert all(
        len(line) <= COLUMNS for line in _display.card_text(card._replace(rows=[("a" * 300, "b" * 300)])).splitlines()
    )


def test_nothing_heavy_is_loaded_before_a_result_is_drawn():
    code = "import jax, jax.numpy as jnp\nfrom jaxopt_study import curvature\n"
    code += "found = curvature.path(lambda p, _: p**2, jnp.float32(1.0), jnp.float32(1.0))\n"
    code += "repr(found), found._repr_html_()\n"
    assert not {"matplotlib", "pandas"} & loaded(code)
    assert "matplotlib" in loaded(f"{code}found.plot()")


def test_plot_says_what_it_needs():
    found = eigenpairs(3)
    with pytest.raises(TypeError, match="has a picture"):
        figures.plot(3)
    with pytest.raises(TypeError, match="Matplotlib axes"):
        found.plot("ax")
    with pytest.raises(ValueError, match="numeric hyperparameter"):
        sweep(False)["search"].plot(over="nothing")


def test_a_chain_shows_its_tree_with_hyperparameters_and_memory():
    tx = transforms.chain(transforms.clip_by_global_norm(1.0), optimizers.adam(1e-3))
    assert "optimizers.adam(0.001)" in repr(tx)
    assert_shown("chain", tx.summary())
    params = {"w": jnp.zeros((100, 10)), "b": jnp.zeros(10)}
    found = tx.summary(params)
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(tx.init(params)))
    assert found.nodes[0].memory == held
    assert [node.name for node in found.nodes[:3]] == ["chain", "clip_by_global_norm", "adam"]
    assert found.nodes[2].hyperparams["b2"] == 0.999
    assert "8.1 kB" in repr(found)
    assert_shown("foreign", transforms.chain(optax.scale(2.0)).summary(params))
    assert "scale_by_adam" in tx._repr_html_()


@pytest.mark.parametrize("name", ["search", "comparison", "ablation"])
def test_a_saved_sweep_is_loaded_as_it_was(name, tmp_path):
    found = sweep(True)[name]
    path = found.save(tmp_path / "found.json")
    again = type(found).load(path)
    assert repr(again) == repr(found)
    assert again.to_pandas().equals(found.to_pandas())
    again.plot()
    other = {"search": sweeps.Ablation, "comparison": sweeps.Search, "ablation": sweeps.Comparison}[name]
    with pytest.raises(RecordError, match="expected a saved"):
        other.load(path)
    save(AnyRecord("sweep", name, config={}, results={"steps": [os.sep]}), tmp_path / "other.json")
    with pytest.raises(RecordError, match="does not hold"):
        type(found).load(tmp_path / "other.json")


def changed(content, new):
    """Yield a saved content once for each of its parts, with that part replaced; of lists, of their ends."""
    entries = content.items() if isinstance(content, dict) else [(i, content[i]) for i in {0, len(content) - 1}]
    for key, part in entries:
        yield (
            {**content, key: new}
            if isinstance(content, dict)
            else [new if i == key else x for i, x in enumerate(content)]
        )
        if isinstance(part, dict | list) and part:
            for inner in changed(part, new):
                yield (
                    {**content, key: inner}
                    if isinstance(content, dict)
                    else [inner if i == key else x for i, x in enumerate(content)]
                )


@pytest.mark.parametrize("new", [None, "<script>", -1, 10**400, float("inf"), [], {}], ids=lambda x: repr(x)[:9])
@pytest.mark.parametrize("name", ["search", "comparison", "ablation"])
def test_a_forged_sweep_is_refused_or_read(name, new, tmp_path):
    found = sweep(False)[name]
    written = load(found.save(tmp_path / "found.json")).results
    for number, content in enumerate(changed(written, new)):
        path = tmp_path / f"{number}.json"
        save(AnyRecord("sweep", name, config={}, results=content), path)
        try:
            again = type(found).load(path)
        except RecordError:
            continue
        assert "<script" not in again._repr_html_()
        repr(again), again.to_pandas()


def test_curves_and_configurations_of_a_forged_sweep_fit_its_runs(tmp_path):
    found = sweep(False)["comparison"]
    whole = load(found.save(tmp_path / "found.json")).results
    for part, wrong in ((whole["reports"][0], {"curves": {}}), (whole["searches"][0]["search"], {"configs": []})):
        kept = dict(part)
        part.update(wrong)
        save(AnyRecord("sweep", "comparison", config={}, results=whole), tmp_path / "forged.json")
        part.update(kept)
        with pytest.raises(RecordError, match="does not hold a comparison"):
            sweeps.Comparison.load(tmp_path / "forged.json")


def test_a_saved_search_in_half_precision_is_loaded_as_it_was(tmp_path):
    loss = lambda p, b: jnp.mean((b["x"].astype(p.dtype) @ p) ** 2)
    problem = problems.from_pytree(jnp.ones(2, jnp.bfloat16), loss, data={"x": np.ones((4, 2), np.float32)})
    space = {"learning_rate": sweeps.log_uniform(1e-3, 1e-1)}
    run = {"num_trials": 2, "num_steps": 2, "key": jax.random.key(0), "progress": False}
    found = sweeps.search(optimizers.sgd, space, problem, **run)
    again = sweeps.Search.load(found.save(tmp_path / "found.json"))
    assert repr(again) == repr(found)
    for name, curve in found.curves.items():
        assert again.curves[name].dtype == curve.dtype
        np.testing.assert_array_equal(np.asarray(again.curves[name], float), np.asarray(curve, float))


def test_a_loaded_search_says_why_it_cannot_run_again(tmp_path):
    found = sweep(False)["search"]
    again = sweeps.Search.load(found.save(tmp_path / "found.json"))
    np.testing.assert_array_equal(again.final, found.final)
    assert dict(again.space) == dict(found.space)
    with pytest.raises(ValueError, match="read from a file"):
        again.replay(0)


def test_every_kind_of_space_is_loaded_as_it_was():
    space = sweeps.Space({
        "rate": sweeps.log_uniform(1e-4, 1.0), "decay": sweeps.uniform(0.0, 1.0, static=True),
        "width": sweeps.integers(1, 8), "shape": sweeps.choices((1, 2), (3,)), "method": sweeps.choices("a", "b"),
        "power": sweeps.conditional(sweeps.uniform(1, 2), on="method", equals="a"),
    })  # fmt: skip
    assert dict(sweeps._saved.to_space(sweeps._saved.from_space(space))) == dict(space)


def test_a_table_of_pandas_holds_what_the_terminal_shows():
    table = eigenpairs(4).to_pandas()
    assert table.columns.tolist() == ["eigenvalue", "residual", "converged"]
    assert len(sweep(False)["trajectory"].to_pandas()) == 3


def test_diagnoses_and_choices_show_themselves():
    assert_shown("diagnosis", training.diagnose(np.exp(-np.arange(200) / 20)))
    assert_shown("choice", sweep(False)["search"].best)
    assert_shown("report", sweep(False)["comparison"].reports[0])
    assert_shown("differences", sweep(False)["ablation"].comparison.differences(None, "default"))
    assert_shown("audit", curvature.audit(curvature.from_matvec(lambda v: 2 * v, jnp.ones(3)), key=jax.random.key(0)))
