"""`jaxopt-study curvature` from arguments to record, table, figure and exit code."""

import _thread
import csv
import io
import sys
import threading
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxopt_study import figures, problems, records
from jaxopt_study._display import with_error
from jaxopt_study.cli import _curvature, main
from jaxopt_study.cli._curvature_report import draw
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._progress import waiting
from jaxopt_study.cli._single_runs import repeat
from jaxopt_study.cli._targets import find_target
from jaxopt_study.curvature import value_and_gradient
from jaxopt_study.examination import Stage, _stages, eigenvalue_rows, interval, table_rows
from jaxopt_study.figures._spectrum_results import resolved

RATE, DECAY = 0.05, 0.9
MINE = """
import jax
import jax.numpy as jnp
import numpy as np
import optax

rng = np.random.default_rng(0)
SCALES = np.array([6.0, 3.0, 2.0, 1.0, 1.0, 0.7, 0.5, 0.3])
X = (rng.normal(size=(40, 8)) * SCALES).astype(np.float32)
Y = rng.normal(size=40).astype(np.float32)
W = rng.normal(size=8).astype(np.float32)

def squares(params, data):
    return 0.5 * jnp.mean((data["x"] @ params["w"] - data["y"]) ** 2)

def loss_and_params():
    return squares, {"w": W}, {"x": X, "y": Y}

without_data = (lambda params: jnp.sum(params**4), np.ones(3))

@jax.custom_jvp
def twisted(x):
    return 0.0 * x[0]

@twisted.defjvp
def _(primals, tangents):  # the gradient is a rolled x, so the "Hessian" is a permutation
    return twisted(primals[0]), jnp.sum(tangents[0] * jnp.roll(primals[0], 1))

def masked(params, data):
    keep = jax.random.bernoulli(jax.random.key(3), 0.5, data["x"].shape)
    return 0.5 * jnp.mean((keep * data["x"] @ params["w"] - data["y"]) ** 2)

dropped = (masked, {"w": W}, {"x": X, "y": Y})

moved = optax.trace(0.5).update({"w": W}, optax.trace(0.5).init({"w": W}))[1]
with_state = (squares, {"w": W}, {"x": X, "y": Y}, moved)
with_state_and_no_data = (lambda params: jnp.sum(params["w"] ** 4), {"w": W}, None, moved)

def optimizer(rate=0.05):
    with open("was-called", "w") as file:
        file.write("x")
    return optax.sgd(rate)

asymmetric = (twisted, np.array([1.0, 2.0, 3.0]))
vector = (lambda params: params, np.ones(3))
broken = (lambda params: 1 / 0, np.ones(3))
infinite = (lambda params: jnp.sum(params), np.array([1.0, np.inf]))
words = (lambda params: 0.0, "words")
number = 3

def crashes():
    raise RuntimeError("the user's own mistake")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the user's module, and a comparison of two optimizers on the digits."""
    path = tmp_path_factory.mktemp("curvature")
    (path / "mine_for_curvature.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(sys, "path", list(sys.path))
        patch.setattr("jaxopt_study.cli._compare_figures.draw", lambda *args, **options: [])  # not what is tested here
        race = ["--only", "momentum", "--steps=3", "--seeds=2", "--widths", "4", "--batch-size=16", "--evaluations=1"]
        assert main(["compare", "--out", "race", "--budget=0", *race]) == 0
        repeated = {}  # many of the tests repeat a run

        def once(problem, settings, optimizer, seed):
            asked = repr(optimizer), seed
            if asked not in repeated:
                repeated[asked] = repeat(problem, settings, optimizer, seed)
            return repeated[asked]

        patch.setattr("jaxopt_study.cli._target_from_run.repeat", once)
        yield path


@pytest.fixture(scope="module")
def mine(folder):
    sys.modules.pop("mine_for_curvature", None)
    return __import__("mine_for_curvature")


QUICK = ("audit", "eigenpairs", "sharpness", "spectral_density", "threshold")


@pytest.fixture(scope="module")
def diagnosed(folder):
    """A diagnosis by some of the stages."""
    with pytest.MonkeyPatch.context() as patch:
        some = {name: stage for name, stage in _stages.STAGES.items() if name in QUICK}
        patch.setattr(_curvature, "STAGES", some)
        return diagnose(folder, patch, "some")


@pytest.fixture(scope="module")
def wholly_diagnosed(folder):
    with pytest.MonkeyPatch.context() as patch:
        return diagnose(folder, patch, "whole")


def diagnose(folder, patch, name):
    out, err = io.StringIO(), io.StringIO()
    patch.setattr(sys, "stdout", out)
    patch.setattr(sys, "stderr", err)
    code = main([
        "curvature", "mine_for_curvature:loss_and_params", "--optimizer", f"momentum({RATE})", "--out", name,
        "--num-probes=2", "--num-steps=8", "--num-eigenpairs=4", "--trace-probes=2",
    ])  # fmt: skip
    return code, out.getvalue(), err.getvalue(), records.load(folder / name)


@pytest.fixture
def stages(monkeypatch):
    """Replace the stages of a diagnosis."""

    def use(**runs):
        table = {name: run if isinstance(run, Stage) else Stage(name, run) for name, run in runs.items()}
        for module in (_stages, _curvature):  # both imported before, or the second would begin with the table
            monkeypatch.setattr(module, "STAGES", table)

    return use


def passed(subject, so_far):
    return {"verdict": "sound", "noise_floor": 1e-6, "messages": [], "num_matvecs": 7}


def test_the_spectrum_of_a_least_squares_problem_is_right(diagnosed, mine):
    code, _, err, record = diagnosed
    assert (code, record.status, record.results["errors"]) == (0, "complete", {}), err
    x = np.asarray(mine.X, dtype=float)
    values = np.linalg.eigvalsh(x.T @ x / len(x))
    found = record.results
    assert found["audit"]["verdict"] == "sound"
    np.testing.assert_allclose(found["eigenpairs"]["values"], values[[0, 1, -2, -1]], atol=1e-3 * values[-1])
    assert found["sharpness"]["lower"] <= values[-1] <= found["sharpness"]["upper"]
    low, high = found["sharpness"]["critical_learning_rate"]
    assert low <= 2 / values[-1] <= high
    density = found["spectral_density"]
    assert np.trapezoid(density["density"], density["grid"]) == pytest.approx(1, abs=0.01)
    assert found["threshold"]["threshold"] == pytest.approx((2 + 2 * DECAY) / RATE, rel=1e-6)


@pytest.mark.slow
def test_every_stage_is_right_about_a_least_squares_problem(wholly_diagnosed, mine):
    code, out, err, record = wholly_diagnosed
    assert (code, record.status, record.results["errors"]) == (0, "complete", {}), err
    assert set(record.results["seconds"]) == set(_stages.STAGES)
    assert max(map(len, out.splitlines()[:-1])) <= 80
    x, y, w = (np.asarray(part, dtype=float) for part in (mine.X, mine.Y, mine.W))
    hessian, gradient = x.T @ x / len(x), x.T @ (x @ w - y) / len(x)
    values = np.linalg.eigvalsh(hessian)
    found = record.results
    np.testing.assert_allclose(found["trace"]["value"], np.trace(hessian), rtol=1e-2)
    assert found["gradient"]["loss"] == pytest.approx(0.5 * np.mean((x @ w - y) ** 2), rel=1e-5)
    assert found["gradient"]["ghg"] == pytest.approx(gradient @ hessian @ gradient, rel=1e-5)
    assert found["classification"]["verdict"] == "not critical"
    assert found["classification"]["index"]["estimate"] == 0
    edge = (2 + 2 * DECAY) / RATE
    low, high = found["preconditioned"]["ratio"]
    assert low <= values[-1] / edge <= high
    assert found["preconditioned"]["preconditioner"] == pytest.approx({"min": 1, "median": 1, "max": 1}, rel=1e-4)
    radius = max(np.abs(np.roots([1, RATE * value - 1 - DECAY, DECAY])).max() for value in values)
    assert abs(found["stability"]["radius"] - radius) <= found["stability"]["error"] + 1e-5
    assert found["stability"]["kind"] == ("oscillation" if values[-1] > edge else "stable")


def test_the_record_says_what_was_asked_of_which_parameters_and_data(diagnosed, folder):
    record = diagnosed[3]
    target = find_target("mine_for_curvature:loss_and_params", None, 0)
    assert record.kind == "curvature"
    assert record.config["target"] == "mine_for_curvature:loss_and_params"
    assert record.config["optimizer"] == f"momentum({RATE})"
    assert (record.config["num_probes"], record.config["seed"], record.config["precision"]) == (2, 0, "highest")
    assert record.data_hash == target.data_hash
    assert record.environment["versions"]["jax"]
    assert tuple(record.results["seconds"]) == QUICK
    assert all(record.results[name]["num_matvecs"] >= 0 for name in QUICK)
    assert str(folder) not in (folder / "some" / "record.json").read_text()


def test_the_table_of_eigenvalues_agrees_with_the_record(diagnosed, folder):
    rows = list(csv.DictReader((folder / "some" / "eigenvalues.csv").read_text().splitlines()))
    assert list(rows[0]) == ["source", "end", "rank", "value", "residual", "converged", "resolved"]
    pairs = [row for row in rows if row["source"] == "eigenpairs"]
    found = diagnosed[3].results["eigenpairs"]
    assert [float(row["value"]) for row in pairs] == found["values"]
    assert [float(row["residual"]) for row in pairs] == found["residuals"]
    assert [row["resolved"] == "True" for row in pairs] == found["resolved"]
    assert [(row["end"], row["rank"]) for row in pairs] == [
        ("smallest", "1"), ("smallest", "2"), ("largest", "2"), ("largest", "1")
    ]  # fmt: skip


def test_outliers_are_ranked_from_their_own_end():
    density = {"grid": [-1.0, 1.0], "outliers": {"values": [9.0, 5.0, -3.0], "residuals": [0.1, 0.2, 0.3]}}
    rows, _ = eigenvalue_rows({"spectral_density": density})
    assert [(row["end"], row["rank"], row["value"]) for row in rows] == [
        ("largest", 1, 9.0), ("largest", 2, 5.0), ("smallest", 1, -3.0)
    ]  # fmt: skip


def test_an_eigenvalue_that_converged_is_marked_where_its_residual_reaches_zero_or_another():
    pairs = {
        "values": [-0.5, -0.4, 0.1, 9.0], "residuals": [0.06, 0.06, 0.2, 0.2], "converged": [True] * 4, "num_matvecs": 5
    }  # fmt: skip
    pairs["resolved"] = resolved(pairs["values"], pairs["residuals"]).tolist()
    assert pairs["resolved"] == [False, False, False, True]
    rows, _ = eigenvalue_rows({"eigenpairs": pairs})
    assert [(row["converged"], row["resolved"]) for row in rows] == [(True, False)] * 3 + [(True, True)]
    errors = [error for _, _, error, _ in table_rows({"eigenpairs": pairs})]
    assert errors == ["residuals ≤ 2.0e-01, 1 not resolved", "residuals ≤ 6.0e-02, 2 not resolved"]


@pytest.mark.parametrize(
    ("interval", "confidence", "shown"),
    [
        ([178.1, 17002.9], 0.95, ("178 to 17,003", "λ < −2.0e-05 (95%), ≥ 16 proved")),
        ([16.0, 16.0], None, ("16", "λ < −2.0e-05")),
        ([16.0, 18.0], None, ("16 to 18", "λ < −2.0e-05")),
    ],
)
def test_a_count_that_is_only_bounded_is_shown_as_a_range(interval, confidence, shown):
    index = {
        "lower_bound": 16, "estimate": 722.6, "interval": interval, "flat": 3.0, "flat_interval": [3.0, 3.0],
        "tau": 2e-5, "confidence": confidence,
    }  # fmt: skip
    found = {
        "index": index, "gradient_norm": 1.0, "gradient_tol": 0.1, "verdict": "not critical", "num_matvecs": 9,
        "escape": {"seen": False},
    }  # fmt: skip
    rows = {quantity: (value, error) for quantity, value, error, _ in table_rows({"classification": found})}
    assert rows["negative eigenvalues"] == shown
    assert rows["flat eigenvalues"][0] == "3"


@pytest.mark.slow
def test_the_edge_in_the_figure_of_a_run_is_named_by_its_optimizer(folder, tmp_path, monkeypatch):
    labels = []

    def spectrum(results, *, edge_label, **options):
        labels.append(edge_label)
        return figures.new_figure(1, 1)

    monkeypatch.setattr(figures, "spectrum", spectrum)
    results = {
        "eigenpairs": {}, "threshold": {"limit": 2.0},
        "preconditioned": {"threshold": 20.0, "preconditioner": {"min": 1.0, "max": 1.0}},
    }  # fmt: skip
    draw(results, find_target("race", "momentum", 0), tmp_path)
    draw(results, find_target("mine_for_curvature:loss_and_params", "momentum(0.05)", 0), tmp_path)
    assert labels == ["edge of momentum: 20", "edge of momentum(0.05): 20"]


@pytest.mark.parametrize(("max_dense", "confidence"), [(500, None), (1, 0.95)])
def test_the_record_says_how_sure_the_counts_are(folder, stages, monkeypatch, max_dense, confidence):
    monkeypatch.setattr(_stages, "MAX_DENSE", max_dense)
    stages(audit=passed, classification=_stages.classification)
    assert main(["curvature", "mine_for_curvature:without_data", "--out", f"counts-{max_dense}"]) == 0
    index = records.load(f"counts-{max_dense}").results["classification"]["index"]
    assert index["confidence"] == (None if index["exact"] else confidence)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [(0.003021, 0.003024, "0.003021 to 0.003024"), (0.0194401, 0.0194402, "0.0194401 to 0.0194402"), (2.0, 2.0, "2")],
)
def test_the_ends_of_an_interval_are_printed_to_digits_that_differ(low, high, shown):
    assert interval(low, high) == shown


def test_the_printed_table_fits_eighty_columns_and_the_figure_can_be_opened(diagnosed, folder):
    _, out, err, record = diagnosed
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "8 parameters" in out
    assert f"{record.results['threshold']['threshold']:.6g}" in out
    assert "99% confidence" in out
    assert "spectral density" in err
    assert f"{record.results['spectral_density']['num_matvecs']} products" in err
    with Image.open(folder / "some" / "spectrum.png") as picture:
        assert picture.size[0] >= 1200


def test_a_run_is_diagnosed_where_it_ended(folder):
    entry = next(e for e in records.load("race").results["entries"] if e["problem"] == "digits")
    losses, states = [], []
    for start in (0, 1):
        target = find_target("race", None, start)
        network = problems.networks.mlp_classifier(problems.datasets.digits(), widths=(4,))
        losses.append(float(jax.jit(network.loss)(target.params, network.test)))
        velocity = jax.tree.leaves(target.opt_state)
        states.append(np.concatenate([np.ravel(leaf) for leaf in velocity]))
        assert target.data_hash == records.load("race").data_hash
        assert target.name == f"digits-momentum-{start}"
    np.testing.assert_allclose(losses, entry["finals"]["test_loss"], rtol=1e-5)
    assert all(np.abs(state).max() > 0 for state in states)  # not that of a fresh start
    assert not np.allclose(states[0], states[1])


def test_a_folder_can_be_diagnosed_from_the_command_line(folder, stages, capsys):
    def slope(subject, so_far):
        loss, grads = value_and_gradient(subject.op, subject.op.params)
        return {"loss": loss, "gg": sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(grads)), "num_matvecs": 0}

    stages(audit=passed, slope=slope)
    arguments = ["curvature", "race/record.json", "--optimizer", "momentum", "--start", "1"]
    assert main([*arguments, "--batch-size=500", "--output", "of-run"]) == 0
    record = records.load("of-run")
    assert record.config["start"] == 1
    assert record.config["compare"]["widths"] == [4]
    target = find_target("race", "momentum", 1)
    loss, whole = jax.jit(jax.value_and_grad(target.loss))(target.params, target.data)
    gg = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(whole))
    assert record.results["slope"]["loss"] == pytest.approx(float(loss), rel=1e-5)
    assert record.results["slope"]["gg"] == pytest.approx(gg, rel=1e-4)
    assert "digits, MLP 4, momentum, start 1 after 3 steps" in capsys.readouterr().out


def test_ctrl_c_keeps_the_stages_that_had_finished(folder, stages, capsys):
    def interrupted(subject, so_far):
        raise KeyboardInterrupt

    stages(audit=passed, sharpness=interrupted, trace=passed)
    assert main(["curvature", "mine_for_curvature:without_data", "--out", "interrupted"]) == 130
    record = records.load("interrupted")
    assert record.status == "interrupted"
    assert record.results["audit"]["num_matvecs"] == 7
    assert not {"sharpness", "trace"} & set(record.results)
    assert "The results of 1 of 3 stages are kept" in capsys.readouterr().err


def test_a_stage_that_fails_stops_nothing_else_and_is_code_1(folder, stages, capsys):
    def fails(subject, so_far):
        raise ValueError("no such thing here")

    stages(audit=passed, sharpness=fails, threshold=replace(Stage("", fails), of_optimizer=True), last=passed)
    assert main(["curvature", "mine_for_curvature:without_data", "--out", "failed"]) == 1
    record = records.load("failed")
    assert record.status == "failed"
    assert record.results["errors"] == {"sharpness": "ValueError: no such thing here"}  # and no optimizer was asked for
    assert record.results["last"]["num_matvecs"] == 7
    assert "sharpness failed: ValueError: no such thing here" in capsys.readouterr().err


def test_products_that_are_not_those_of_a_hessian_end_the_diagnosis_with_code_1(folder, capsys):
    assert main(["curvature", "mine_for_curvature:asymmetric", "--out", "unsound"]) == 1
    record = records.load("unsound")
    assert record.status == "failed"
    assert record.results["audit"]["verdict"] == "unsound"
    assert "eigenpairs" not in record.results
    assert "Not symmetric" in capsys.readouterr().err


def test_a_loss_with_a_fixed_dropout_key_is_diagnosed_like_any_other(folder, stages, capsys):
    stages(audit=_stages.audit, eigenpairs=_stages.eigenpairs)
    assert main(["curvature", "mine_for_curvature:dropped", "--out", "dropped", "--num-eigenpairs=2"]) == 0
    found = records.load("dropped").results
    assert (found["audit"]["verdict"], found["errors"]) == ("sound", {})
    assert found["audit"]["noise_floor"] < 1e-5
    assert all(found["eigenpairs"]["converged"])


@pytest.mark.parametrize("stage", ["eigenpairs", "spectral_density", "gradient"])
def test_a_tolerance_below_the_noise_floor_of_the_audit_is_refused_by_every_stage_that_has_one(folder, stages, stage):
    def noisy(subject, so_far):
        return {**passed(subject, so_far), "verdict": "noisy", "noise_floor": 0.01}

    stages(**{"audit": noisy, stage: _stages.STAGES[stage].run})
    assert main(["curvature", "mine_for_curvature:without_data", "--out", f"noisy-{stage}"]) == 1
    assert "noise floor, 1.0e-02" in records.load(f"noisy-{stage}").results["errors"][stage]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "neither a results folder"),
        (["mine_for_curvature:absent"], "has no 'absent'"),
        (["mine_for_curvature:number"], "gives 3; expected"),
        (["mine_for_curvature:crashes"], "RuntimeError: the user's own mistake"),
        (["mine_for_curvature:words"], "must be pytrees of arrays"),
        (["mine_for_curvature:vector"], "cannot be diagnosed: TypeError"),
        (["mine_for_curvature:broken"], "cannot be diagnosed: ZeroDivisionError"),
        (["mine_for_curvature:infinite"], "cannot be diagnosed: ValueError"),
        (["mine_for_curvature:without_data", "--batch-size=2"], "cannot be diagnosed: ValueError"),
        (["mine_for_curvature:without_data", "--optimizer", "adamant"], "neither an optimizer"),
        (["mine_for_curvature:without_data", "--start=1"], "are for a results folder"),
        (["race", "--start=2"], "from 0 to 1"),
        (["race", "--optimizer", "adam"], "not among those that ran, momentum"),
        (["race", "--num-probes=1"], "--num-probes must be at least 2"),
        (["race", "--tolerance=0"], "--tolerance must be between 0 and 1"),
        (["race", "--data-dir=."], "digits need neither"),
        (["race", "--out", "mine_for_curvature.py"], "is a file"),
        (["race", "--out", "race"], "is not empty"),
        (["mine_for_curvature:without_data", "--out", "mine_for_curvature.py/below"], "cannot be written"),
        (["\0"], "cannot be used"),
        (["x" * 300], "cannot be used"),
        (["mine_for_curvature:without_data", "--out", "x" * 300], "name another folder"),
        (["mine_for_curvature:without_data", "--out", ""], "name another folder"),
        (["race", "--settings", "tuned"], "ran at these settings only: default"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(folder, capsys, arguments, message):
    assert main(["curvature", *arguments]) == 2
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("Error: ")
    assert len(shown.splitlines()) == 1
    assert message.lower() in shown.lower()
    assert not (folder / "results").exists()


def changed(folder, name, change):
    """Save the record of the comparison, changed."""
    records.save(change(records.load(folder / "race")), folder / name)
    return str(folder / name)


def with_entries(change):
    """Return a change of a record's entries."""
    return lambda record: replace(record, results={**record.results, "entries": change(record.results["entries"])})


def without_settings(entries):
    return [{name: value for name, value in entry.items() if name != "config"} for entry in entries]


def twice(entries):
    return [entries[-1], {**entries[-1], "optimizer": "other"}]


def elsewhere(entries):
    """Let the second run have ended elsewhere."""
    first, second = entries[-1]["finals"]["test_loss"]
    return [*entries[:-1], {**entries[-1], "finals": {"test_loss": [first, 1.01 * second]}}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda record: replace(record, data_hash="0" * 64), "data differ"),
        (lambda record: replace(record, kind="experiment"), "kind 'experiment'"),
        (lambda record: replace(record, results={"entries": []}), "No optimizer has finished"),
        (with_entries(without_settings), "earlier version"),
        (with_entries(twice), "Choose one with --optimizer: momentum, other"),
    ],
)
def test_a_run_that_is_not_what_it_was_is_refused(folder, tmp_path, change, message):
    (tmp_path / "race").symlink_to(folder / "race")
    with pytest.raises(UserError, match=message):
        find_target(changed(tmp_path, "changed", change), None, 0)


def of_code(**named):
    """Return a change that lets the last entry be built by a function that the record names."""
    return with_entries(lambda entries: [*entries[:-1], {**entries[-1], "spec": None, **named}])


@pytest.mark.parametrize("optimizer", [None, "momentum", "subprocess:momentum", "os:momentum"])
@pytest.mark.parametrize(
    "named",
    [
        {"module": "subprocess:check_output", "config": {"args": ["touch", "was-called"]}},
        {"module": "os:system", "config": {"command": "touch was-called"}},
        {"module": "mine_for_curvature:optimizer", "config": {}},
        {"module": None}, {"module": 3}, {"module": ["os", "system"]},
    ],
)  # fmt: skip
def test_a_record_names_no_code(folder, tmp_path, optimizer, named):
    (tmp_path / "race").symlink_to(folder / "race")
    with pytest.raises(UserError, match=r"never run without your consent|has no expression|entries differ from those"):
        find_target(changed(tmp_path, "changed", of_code(**named)), optimizer, 0)
    assert not (folder / "was-called").exists()


def test_the_user_names_their_own_code(folder, tmp_path):
    (tmp_path / "race").symlink_to(folder / "race")
    change = of_code(module="mine_for_curvature:optimizer", config={"rate": 0.25}, optimizer="optimizer")
    path = changed(tmp_path, "changed", change)
    with pytest.raises(UserError, match=r"add --optimizer mine_for_curvature:optimizer"):
        find_target(path, "optimizer", 0)
    target = find_target(path, "mine_for_curvature:optimizer", 0)
    (folder / "was-called").unlink()
    step, _ = target.optimizer.update(target.params, target.opt_state, target.params)
    jax.tree.map(lambda new, old: np.testing.assert_allclose(new, -0.25 * old), step, target.params)


FORGED_SETTINGS = [
    {"data": "from_arrays"}, {"data": "load_idx"}, {"data": ["digits"]}, {"data": None}, {"widths": "44"},
    {"widths": [4.5]}, {"widths": [-1]}, {"widths": [2**40]},
    {"widths": [2**31 - 1]}, {"widths": [2**15, 2**15]}, {"steps": "3"}, {"steps": -1}, {"steps": True},
    {"batch_size": 0}, {"seed": "x"}, {"seed": 2**70}, {"seeds": None}, {"seeds": 10**9}, {"evaluate_every": 0},
]  # fmt: skip
FORGED_ENTRIES = [
    {"config": []}, {"optimizer": 3}, {"optimizer": ["momentum"]}, {"settings": {}}, {"spec": {"call": "os:system"}},
    {"spec": "[" * 10_000}, {"spec": "{}"}, {"finals": {}}, {"finals": {"test_loss": 3}}, {"diverged": [1]},
    {"finals": {"test_loss": ["a", "b"]}}, {"expression": 3}, {"diverged": {}},
]  # fmt: skip


@pytest.mark.parametrize("change", FORGED_SETTINGS, ids=repr)
def test_settings_in_a_record_are_checked_as_if_they_were_typed(folder, tmp_path, change):
    (tmp_path / "race").symlink_to(folder / "race")
    path = changed(tmp_path, "changed", lambda record: replace(record, config={**record.config, **change}))
    with pytest.raises(UserError):
        find_target(path, None, 0)


@pytest.mark.parametrize("change", FORGED_ENTRIES, ids=repr)
def test_entries_of_a_record_are_checked(folder, tmp_path, change):
    (tmp_path / "race").symlink_to(folder / "race")
    path = changed(tmp_path, "changed", with_entries(lambda entries: [*entries[:-1], {**entries[-1], **change}]))
    with pytest.raises(UserError):
        find_target(path, None, 0)


@pytest.mark.parametrize("results", [{}, {"entries": 3}, {"entries": [3]}, {"entries": {"a": 1}}])
def test_results_that_are_no_entries_are_refused(folder, tmp_path, results):
    (tmp_path / "race").symlink_to(folder / "race")
    with pytest.raises(UserError, match=r"entries|had finished"):
        find_target(changed(tmp_path, "changed", lambda record: replace(record, results=results)), None, 0)


def test_a_name_in_a_record_does_not_lead_out_of_the_results(folder, tmp_path, monkeypatch, capsys, stages):
    stages(audit=passed)
    (tmp_path / "race").symlink_to(folder / "race")
    change = with_entries(lambda entries: [*entries[:-1], {**entries[-1], "optimizer": "../../../up"}])
    path = changed(tmp_path, "changed", change)
    assert main(["curvature", path]) == 2
    assert "must be one name" in capsys.readouterr().err
    assert not (folder / "results").exists()


def test_the_state_that_the_user_gives_is_the_one_that_is_measured(folder, capsys, stages):
    seen = []

    def state(subject, so_far):
        seen.append(subject.opt_state)
        return {"num_matvecs": 0}

    stages(audit=passed, state=Stage("", state, of_optimizer=True))
    optimizer = "chain(from_optax(optax.trace)(0.5), scale_by_learning_rate(0.1))"
    for number, name in enumerate(("with_state", "with_state_and_no_data")):
        arguments = ["--optimizer", "optax.trace(0.5)", "--out", f"state-{number}"]
        assert main(["curvature", f"mine_for_curvature:{name}", *arguments]) == 0
        assert "fresh" not in capsys.readouterr().err
        assert records.load(f"state-{number}").config["opt_state"] == "given"
        np.testing.assert_array_equal(seen[-1].trace["w"], seen[0].trace["w"])
        assert np.abs(seen[-1].trace["w"]).min() > 0
    arguments = ["--optimizer", optimizer, "--out", "state-fresh"]
    assert main(["curvature", "mine_for_curvature:loss_and_params", *arguments]) == 0
    told = capsys.readouterr().err
    assert "The optimizer is in its initial state" in told
    assert "let mine_for_curvature:loss_and_params return (loss, params, data, opt_state)" in told
    assert records.load("state-fresh").config["opt_state"] == "fresh"
    assert not np.any(jax.tree.leaves(seen[-1])[0])


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [(None, "Name the optimizer with --optimizer"), ("adam(1e-3)", "to have the structure of the state of adam")],
)
def test_a_state_that_belongs_to_no_optimizer_is_refused(folder, capsys, optimizer, message):
    arguments = [] if optimizer is None else ["--optimizer", optimizer]
    assert main(["curvature", "mine_for_curvature:with_state", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "results").exists()


@pytest.mark.parametrize(("floor", "remedy"), [(0.01, "Give --tolerance 2e-02, or cast"), (0.9, "Cast parameters")])
def test_the_advice_on_a_noise_floor_can_be_followed(folder, stages, floor, remedy):
    def noisy(subject, so_far):
        return {**passed(subject, so_far), "verdict": "noisy", "noise_floor": floor}

    stages(audit=noisy, eigenpairs=_stages.eigenpairs, sharpness=_stages.sharpness)
    assert main(["curvature", "mine_for_curvature:without_data", "--out", f"advice-{floor}"]) == 1
    errors = records.load(f"advice-{floor}").results["errors"]
    assert remedy in errors["eigenpairs"]
    assert ("sharpness" in errors) == (floor > 0.25)
    assert all("float32" in error for error in errors.values())


def test_a_run_that_ends_elsewhere_when_repeated_says_so(folder, tmp_path):
    (tmp_path / "race").symlink_to(folder / "race")
    path = changed(tmp_path, "changed", with_entries(elsewhere))
    assert find_target(path, None, 0).note is None
    target = find_target(path, None, 1)
    assert "rounds differently" in target.note
    losses = target.described["test_loss"]
    assert losses["compared"] == pytest.approx(1.01 * losses["repeated"], rel=1e-4)


def test_an_interrupt_gets_through_while_a_stage_works():
    began = time.perf_counter()
    threading.Timer(0.1, _thread.interrupt_main).start()
    with pytest.raises(KeyboardInterrupt):
        waiting(lambda: time.sleep(3))
    assert time.perf_counter() - began < 2


def test_a_stage_sees_the_precision_of_its_caller():
    with jax.enable_x64(True):
        assert waiting(lambda: jnp.ones(()).dtype) == jnp.float64
    assert waiting(lambda: jnp.ones(()).dtype) == jnp.float32


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (25.2059, 0.11607, "25.21 ± 0.12"),
        (1.002988, 0.000434, "1.00299 ± 0.00043"),
        (12016.7, 130.0, "12017 ± 130"),
        (3.0, 0.0, "3"),
        (3.0, np.nan, "3"),
    ],
)
def test_a_number_is_shown_to_the_digits_that_its_error_leaves(value, error, text):
    assert with_error(value, error) == text


def test_help_describes_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["curvature", "--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in ("module:name", "--num-eigenpairs", "(default: 1e-3)".replace("1e-3", "0.001"), "--output", "Ctrl-C"):
        assert words in shown
    assert "None" not in shown
