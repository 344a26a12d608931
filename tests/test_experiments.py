"""Experiments are found, not listed; each is run small, and the way claims are judged is itself tested."""

import argparse
import io
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from scipy import stats

from experiments import __main__ as command_line
from experiments.claims import (
    Claim,
    Control,
    Expectation,
    Measurement,
    at_least,
    at_most,
    exact,
    mean_over_seeds,
    near,
    ratio_over_seeds,
    summary,
    table,
)
from experiments.experiment import Experiment, conclude, discover, execute
from experiments.orders import Written, written
from experiments.parts import journal, part
from jaxopt_study import optimizers, problems, sweeps, training
from jaxopt_study.records import Record, load, plain, save
from jaxopt_study.sweeps._execution._layout import Speed

EXPERIMENTS = discover()
# Of the smoke runs, those of a few seconds of a processor, compilation included: most take 6 or less, none over 13.
QUICK = {
    "activation_histograms", "amsgrad_counterexample", "bagging_boosting", "bias_variance", "cliff", "closed_form",
    "cross_validation", "ensemble", "gradient_noise", "learning_rate_diagnosis", "local_vs_global", "long_term",
    "noisy_quadratic", "quadratic_rates", "saddle_index", "trajectories",
}  # fmt: skip
RESUMED = {"bagging_boosting", "ensemble", "noisy_quadratic"}  # of the quick ones, those interrupted in a default run
STORED = Path(command_line.__file__).parent / "results"


def run_main(*arguments):
    output = io.StringIO()
    status = command_line.main(arguments, console=Console(file=output, width=200))
    return status, output.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _same_width():
    """How many trials a device runs at once follows from its speed, and the last digits of results follow from that."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jaxopt_study.sweeps._execution._layout.measured_speed", lambda: Speed(1.3e-7, 3e-11))
        yield


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(EXPERIMENTS)],
)
def smoke(request, tmp_path_factory):
    """One run of each experiment, shared by the tests below."""
    out = tmp_path_factory.mktemp("out")
    return request.param, execute(request.param, EXPERIMENTS[request.param], "smoke", out=out), out / request.param


def test_smoke_run_fails_no_claim_and_every_control_fails(smoke):
    _, outcome, _ = smoke
    assert summary(outcome.claims)["FAIL"] == 0
    assert summary(outcome.claims)["PASS"] >= len(outcome.claims) / 2
    assert [claim.statement for claim in outcome.claims if claim.control_verdict != "FAIL"] == []
    assert all(claim.expected.source and claim.control.variation for claim in outcome.claims)


def test_smoke_run_keeps_record_and_small_figures(smoke):
    name, outcome, folder = smoke
    record = load(folder)
    assert record == outcome.record
    assert record.name == name
    assert record.config["preset"] == "smoke"
    assert [claim["verdict"] for claim in record.results["claims"]] == [claim.verdict for claim in outcome.claims]
    pictures = sorted(folder.glob("*.png"))
    assert pictures
    assert all(picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size < 350_000 for picture in pictures)
    again = conclude(EXPERIMENTS[name], record)
    assert again.record.results == record.results  # claims depend on nothing but the record


@pytest.mark.parametrize(
    "smoke",
    [pytest.param(name, marks=[] if name in RESUMED else pytest.mark.slow) for name in sorted(EXPERIMENTS)],
    indirect=True,
)
def test_stopped_after_its_first_part_an_experiment_goes_on_with_the_same_results(smoke, monkeypatch, tmp_path):
    name, whole, _ = smoke
    kept = []

    def stopping(write, what):
        def written(*args, **options):
            result = write(*args, **options)
            kept.append(what(*args))
            if len(kept) == 1:
                raise KeyboardInterrupt
            return result

        return written

    monkeypatch.setattr("experiments.parts.save", stopping(save, lambda part, path: part.name))
    chunk = lambda journal, lanes, arrays: (journal.folder, tuple(lanes))
    monkeypatch.setattr(sweeps.Journal, "append", stopping(sweeps.Journal.append, chunk))
    try:
        execute(name, EXPERIMENTS[name], "smoke", out=tmp_path)
    except KeyboardInterrupt:
        again = execute(name, EXPERIMENTS[name], "smoke", out=tmp_path, resume=True)
        assert kept[0] not in kept[1:]
        without_time = [{**one.record.results, "run_seconds": 0} for one in (again, whole)]
        assert json.dumps(without_time[0]) == json.dumps(without_time[1])
    else:
        assert stored_seconds(name) < 60  # so short that it need not keep parts


def stored_seconds(name):
    return load(STORED / name).results.get("run_seconds", np.inf)


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_an_experiment_that_took_a_minute_keeps_parts_or_searches(name):
    assert {"part", "journal"} & EXPERIMENTS[name].run.__globals__.keys() or stored_seconds(name) < 60


def same(found, stored):
    """Return whether claims are equal but for the last digits, in which processors differ, and fits stop."""
    if isinstance(stored, dict):
        return found.keys() == stored.keys() and all(same(found[key], stored[key]) for key in stored)
    if isinstance(stored, list):
        return len(found) == len(stored) and all(map(same, found, stored))
    if isinstance(stored, float) and isinstance(found, float):
        return found == pytest.approx(stored, rel=1e-7, nan_ok=True)
    return found == stored


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_stored_paper_record_passes_when_judged_again(name):
    record = load(STORED / name)
    assert record.config == plain({"preset": "paper", **asdict(EXPERIMENTS[name].presets["paper"])})
    claims = EXPERIMENTS[name].claims(record)
    assert same(json.loads(json.dumps([asdict(claim) for claim in claims])), record.results["claims"])
    assert summary(claims)["FAIL"] == 0
    pictures = list((STORED / name).glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size < 350_000 for picture in pictures)


def test_trajectories_are_those_of_the_notes_own_code():
    record = load(STORED / "trajectories")
    for label, path in notes_trajectories().items():
        np.testing.assert_allclose(np.array(record.results["points"][label]), path, rtol=1e-12, atol=1e-15)


def notes_trajectories():
    """Run the notes' classes as they are printed there, in NumPy."""

    def run(update):
        theta, path, state = np.array([-7.0, 2.0]), [], {"t": 0, "v": np.zeros(2), "h": np.zeros(2), "m": np.zeros(2)}
        for _ in range(30):
            path.append(theta.copy())
            state["t"] += 1
            theta = theta + update(np.array([theta[0] / 10, 2 * theta[1]]), state)
        return np.array(path)

    def momentum(g, s):
        s["v"] = 0.9 * s["v"] - 0.1 * g
        return s["v"]

    def adagrad(g, s):
        s["h"] += g * g
        return -1.5 * g / (np.sqrt(s["h"]) + 1e-7)

    def adam(g, s):
        rate = 0.3 * np.sqrt(1.0 - 0.999 ** s["t"]) / (1.0 - 0.9 ** s["t"])
        s["m"] += (1 - 0.9) * (g - s["m"])
        s["v"] += (1 - 0.999) * (g**2 - s["v"])
        return -rate * s["m"] / (np.sqrt(s["v"]) + 1e-7)

    updates = {"SGD": lambda g, s: -0.95 * g, "Momentum": momentum, "AdaGrad": adagrad, "Adam": adam}
    return {label: run(update) for label, update in updates.items()}


def test_batches_written_out_in_advance_are_those_of_the_order():
    key = jax.random.key(3)
    rows = written("reshuffle", key, 7, 2, 5)
    order = training.batch_order("reshuffle")
    np.testing.assert_array_equal(rows, [order.indices(order.init(key, 5), step, 2, 5) for step in range(7)])
    problem = problems.least_squares(np.eye(5), np.arange(5.0))
    run, same = (
        training.train(problem, optimizers.sgd(0.1), num_steps=7, batch_size=2, key=key, order=chosen).params
        for chosen in ("reshuffle", Written(written("reshuffle", jax.random.split(key, 5)[2], 7, 2, 5)))
    )
    np.testing.assert_array_equal(run, same)


# --------------------------------------------------------------------------------------------------------------- claims

REGION = Expectation(1.0, 2.0, "a test")
INSIDE, OUTSIDE = exact(1.5), exact(3.0)


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        (INSIDE, "PASS"),
        (exact(1.0), "PASS"),
        (OUTSIDE, "FAIL"),
        (exact(0.5, error=0.4), "FAIL"),
        (exact(2.0, error=0.1), "NOT RESOLVED"),
        (exact(1.5, error=5.0), "NOT RESOLVED"),
        (Measurement(np.inf, np.inf, np.inf, 3, "diverged"), "FAIL"),
    ],
)
def test_verdict_asks_where_the_whole_interval_lies(measured, verdict):
    assert REGION.judge(measured) == verdict
    assert Claim("", measured, REGION, Control("outside", OUTSIDE)).verdict == verdict


@pytest.mark.parametrize(
    ("measured", "shown"),
    [
        (exact(0.75), "0.75"),
        (Measurement(2.0, 1.9, 2.1, 3, "t"), "2 [1.9, 2.1]"),
        (Measurement(0.00302, 0.0030199, 0.0030201, 3, "t"), "0.00302 [0.0030199, 0.0030201]"),
        (exact(2.0, error=1e-12), "2 ± 1.0e-12"),
    ],
)
def test_an_interval_is_never_printed_as_one_number_twice(measured, shown):
    assert str(measured) == shown


@pytest.mark.parametrize("control", [INSIDE, exact(2.0, error=0.1)])
def test_claim_does_not_pass_if_its_control_does_not_fail(control):
    claim = Claim("vacuous", INSIDE, REGION, Control("no variation", control))
    assert claim.verdict == "NOT RESOLVED"
    assert "does NOT fail" in printed(claim)


def test_failing_control_does_not_rescue_a_false_claim():
    assert Claim("false", OUTSIDE, REGION, Control("inside", INSIDE)).verdict == "FAIL"


def test_one_sided_expectations_are_one_sided():
    assert at_most(1.0, "").judge(exact(-1e9)) == "PASS"
    assert at_most(1.0, "").judge(exact(1.1)) == "FAIL"
    assert at_least(1.0, "").judge(exact(1e9)) == "PASS"
    assert at_least(1.0, "").judge(exact(0.9)) == "FAIL"
    assert near(1.0, 0.1, "").judge(exact(1.11)) == "FAIL"


def test_interval_over_seeds_is_students():
    samples = np.random.default_rng(0).normal(3.0, 2.0, size=7)
    interval = stats.ttest_1samp(samples, 0.0).confidence_interval(0.9)
    found = mean_over_seeds(samples, confidence=0.9)
    np.testing.assert_allclose([found.lower, found.upper], [interval.low, interval.high], rtol=1e-12)
    assert found.num_seeds == 7


def test_interval_over_seeds_covers_as_often_as_it_says():
    samples = np.random.default_rng(1).normal(size=(2000, 4))
    covered = [found.lower <= 0 <= found.upper for found in map(mean_over_seeds, samples)]
    assert abs(np.mean(covered) - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 2000)


def test_ratio_over_seeds_is_paired():
    difficulty = np.array([1.0, 10.0, 100.0, 1000.0])  # far larger than the difference, and shared by a pair
    found = ratio_over_seeds(2.0 * difficulty, difficulty)
    np.testing.assert_allclose([found.value, found.lower, found.upper], 2.0, rtol=1e-12)


@pytest.mark.parametrize("samples", [[1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]])
def test_interval_needs_two_finite_numbers(samples):
    with pytest.raises(ValueError, match="two or more finite numbers"):
        mean_over_seeds(samples)


def test_measurement_refuses_nan():
    with pytest.raises(ValueError, match="Report a run that diverged as infinite"):
        exact(np.nan)


def printed(*claims):
    output = io.StringIO()
    Console(file=output, width=200).print(table(claims))
    return output.getvalue()


# --------------------------------------------------------------------------------------------------------- command line


@dataclass(frozen=True)
class Nothing:
    size: int = 1


def invented(measured):
    claim = Claim("the invented claim", measured, REGION, Control("outside", OUTSIDE))
    preset = {"smoke": Nothing()}
    return Experiment("Is it so?", preset, lambda config, data_dir: {}, lambda record: [claim], lambda record: {})


@pytest.mark.parametrize(
    ("measured", "verdict", "status"),
    [(INSIDE, "PASS", 0), (OUTSIDE, "FAIL", 1), (exact(2.0, error=0.1), "NOT RESOLVED", 0)],
)
def test_check_exits_with_one_only_for_a_false_claim(measured, verdict, status, monkeypatch, tmp_path):
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": invented(measured)})
    without = run_main("run", "invented", "--out", str(tmp_path))
    with_check = run_main("run", "invented", "--check", "--out", str(tmp_path))
    again = run_main("judge", "invented", "--check", "--out", str(tmp_path))
    assert (without[0], with_check[0], again[0]) == (0, status, status)
    assert f"1 {verdict}" in with_check[1]
    assert "the invented claim" in with_check[1]
    assert load(tmp_path / "invented").results["claims"][0]["verdict"] == verdict


def test_one_false_claim_among_several_experiments_is_noticed(monkeypatch, tmp_path):
    found = {"true": invented(INSIDE), "false": invented(OUTSIDE)}
    monkeypatch.setattr(command_line, "discover", lambda: found)
    assert run_main("run", "all", "--check", "--out", str(tmp_path))[0] == 1
    assert run_main("run", "true", "--check", "--out", str(tmp_path))[0] == 0


def test_all_goes_on_after_one_that_cannot_be_finished(monkeypatch, tmp_path):
    def broken(config, data_dir):
        raise FloatingPointError("it broke")

    found = {"first": replace(invented(INSIDE), run=broken), "second": invented(INSIDE)}
    monkeypatch.setattr(command_line, "discover", lambda: found)
    status, output = run_main("run", "all", "--out", str(tmp_path))
    assert status == 1
    assert "FloatingPointError: it broke" in output
    assert "not finished: first" in output
    assert load(tmp_path / "second").results["run_seconds"] >= 0


def test_an_error_of_a_claim_does_not_lose_the_run(monkeypatch, tmp_path):
    def broken(record):
        raise ValueError("no two finite numbers")

    measured = replace(invented(INSIDE), run=lambda config, data_dir: {"value": 1.5})
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": replace(measured, claims=broken)})
    with pytest.raises(ValueError, match="no two finite"):
        run_main("run", "invented", "--out", str(tmp_path))
    assert load(tmp_path / "invented").results["value"] == 1.5
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": measured})
    status, output = run_main("judge", "invented", "--out", str(tmp_path))
    assert (status, "1 PASS" in output) == (0, True)


def test_list_shows_stored_verdicts_and_run_times(monkeypatch, tmp_path):
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": replace(invented(INSIDE), chapter="Tests")})
    assert "PASS" not in run_main("list", "--out", str(tmp_path))[1]
    run_main("run", "invented", "--out", str(tmp_path))
    status, output = run_main("list", "--out", str(tmp_path))
    assert status == 0
    assert all(words in output for words in ("1 PASS", "0 s", "Tests", "Is it so?"))
    monkeypatch.setattr(command_line, "STATEMENTS", {"invented": (("001", "It is so."),)})
    monkeypatch.setattr(command_line, "FOUND", {"invented": "It is, sometimes."})
    output = run_main("list", "--out", str(tmp_path))[1]
    assert all(words in output for words in ("001: It is so.", "It is, sometimes."))


def test_resume_runs_only_what_is_not_finished(monkeypatch, tmp_path):
    runs = []

    def run(config, data_dir):
        runs.append(config.size)
        if len(runs) == 2:
            raise KeyboardInterrupt
        return {}

    found = {name: replace(invented(INSIDE), run=run) for name in ("first", "second")}
    monkeypatch.setattr(command_line, "discover", lambda: found)
    status, output = run_main("run", "all", "--out", str(tmp_path))
    assert (status, "--resume" in output) == (130, True)
    status, output = run_main("run", "all", "--resume", "--check", "--out", str(tmp_path))
    assert (status, len(runs)) == (0, 3)
    assert output.count("1 PASS") == 2
    other = {name: replace(one, presets={"smoke": Nothing(size=2)}) for name, one in found.items()}
    monkeypatch.setattr(command_line, "discover", lambda: other)
    run_main("run", "all", "--resume", "--out", str(tmp_path))
    assert runs[3:] == [2, 2]  # records of another configuration are not those of this one


def test_an_interrupted_run_goes_on_with_the_same_result(monkeypatch, tmp_path):
    computed, stop = [], ["c"]

    def compute(name):
        computed.append(name)
        if name in stop:
            raise KeyboardInterrupt(15)
        return {name: np.array([0.1, np.nan, np.float32(0.1)]), "rest": (1, None)}

    def run(config, data_dir):
        return {name: part(name, lambda name=name: compute(name)) for name in ("a", "b", "c")}

    def results(out):
        kept = dict(load(out / "invented").results)
        assert kept.pop("run_seconds") >= 0
        return repr(kept)

    one = replace(invented(INSIDE), run=run)
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": one})
    here, whole = tmp_path / "here", tmp_path / "whole"
    assert run_main("run", "invented", "--out", str(here))[0] == 128 + 15
    (kept,) = (here / "invented").glob(".parts-*")
    assert sorted(path.name for path in kept.iterdir()) == ["a.json", "b.json"]
    (kept / "b.json").write_text("{", encoding="utf-8")  # as a crash may leave it
    stop.clear()
    status, output = run_main("run", "invented", "--resume", "--out", str(here))
    assert (status, computed) == (0, ["a", "b", "c", "b", "c"])
    assert "c: 0 s" in output
    assert sorted(path.name for path in (here / "invented").iterdir()) == ["record.json"]  # nothing else stays
    run_main("run", "invented", "--out", str(whole))
    assert results(here) == results(whole)


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        (KeyboardInterrupt(), 130),
        (KeyboardInterrupt(15), 143),
        (KeyboardInterrupt("interrupted after 3 of 9 trials"), 130),  # as a search ends
    ],
)
def test_the_status_says_which_signal_stopped_a_run(monkeypatch, tmp_path, stop, status):
    def run(config, data_dir):
        raise stop

    monkeypatch.setattr(command_line, "discover", lambda: {"invented": replace(invented(INSIDE), run=run)})
    assert run_main("run", "invented", "--out", str(tmp_path))[0] == status


@pytest.mark.parametrize("second", [lambda: part("a", list), lambda: journal("a")])
def test_two_parts_of_one_name_are_refused(tmp_path, second):
    run = lambda config, data_dir: {"first": part("a", list), "second": second()}
    with pytest.raises(ValueError, match="'a' is used twice"):
        execute("one", replace(invented(INSIDE), run=run), "smoke", out=tmp_path)


@pytest.mark.parametrize("change", ["no --resume", "other configuration", "other code"])
def test_parts_of_another_run_are_not_used(monkeypatch, tmp_path, change):
    computed = []

    def run(config, data_dir):
        value = part("value", lambda: computed.append(config.size))
        if len(computed) == 1:
            raise KeyboardInterrupt
        return {"value": value}

    one = replace(invented(INSIDE), run=run)
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": one})
    run_main("run", "invented", "--out", str(tmp_path))
    if change == "other configuration":
        monkeypatch.setattr(command_line, "discover", lambda: {"invented": replace(one, presets={"smoke": Nothing(2)})})
    if change == "other code":
        monkeypatch.setattr("experiments.parts._code", lambda: "other")
    run_main("run", "invented", *([] if change == "no --resume" else ["--resume"]), "--out", str(tmp_path))
    assert len(computed) == 2


def test_list_names_every_module_with_an_experiment():
    status, output = run_main("list")
    folder = Path(command_line.__file__).parent
    modules = [path.stem for path in folder.rglob("*.py") if "\nEXPERIMENT = " in path.read_text(encoding="utf-8")]
    assert status == 0
    assert len(modules) >= 3
    assert all(name in output for name in modules)


def test_missing_data_are_named_and_exit_with_two(tmp_path):
    status, output = run_main(
        "run", "mnist_optimizers", "--preset", "paper", "--data-dir", str(tmp_path), "--out", str(tmp_path)
    )
    assert status == 2
    assert "train-images-idx3-ubyte" in output


def test_missing_record_is_named_and_exits_with_two(tmp_path):
    status, output = run_main("judge", "trajectories", "--out", str(tmp_path))
    assert status == 2
    assert "does not exist" in output


def test_unknown_experiment_is_answered_with_those_there_are(capsys):
    with pytest.raises(SystemExit) as stop:
        command_line.main(["run", "trajectory"])
    assert stop.value.code == 2
    assert "trajectories" in capsys.readouterr().err


def test_figures_are_written_under_their_names(tmp_path):
    experiment = replace(invented(INSIDE), figures=lambda record: {"picture": Figure()})
    assert [path.name for path in execute("one", experiment, "smoke", out=tmp_path).files] == [
        "record.json",
        "picture.png",
    ]


@pytest.mark.parametrize("out", ["file", "file/below", "x" * 300, "/proc/no/out", "\0"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_run(monkeypatch, tmp_path, out):
    def run(config, data_dir):
        raise AssertionError("it ran")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "taken" / "invented" / "record.json").mkdir(parents=True)
    monkeypatch.setattr(command_line, "discover", lambda: {"invented": replace(invented(INSIDE), run=run)})
    for place in (out, "taken"):
        status, output = run_main("run", "invented", "--out", place)
        assert status == 2, output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "", "/tmp/x"])
def test_the_name_of_an_experiment_does_not_lead_out_of_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="must be one name"):
        execute(name, invented(INSIDE), "smoke", out=tmp_path)


def test_home_is_understood(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    execute("one", invented(INSIDE), "smoke", out=Path("~/out"))
    assert (tmp_path / "out" / "one" / "record.json").exists()


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_a_record_of_something_else_is_refused_in_one_line(name, tmp_path):
    save(Record("experiment", name, config={}, results={}), tmp_path / name)
    status, output = run_main("judge", name, "--out", str(tmp_path))
    assert status == 2
    assert "does not hold what this experiment writes" in output


@pytest.mark.parametrize("output", ["folder", "file/below", "x" * 300, "", "/proc/no/x.json"])
def test_a_benchmark_measures_nothing_that_it_could_not_write(tmp_path, monkeypatch, output):
    monkeypatch.syspath_prepend(Path(command_line.__file__).parents[1] / "benchmarks")
    from sidebyside import output_file

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(argparse.ArgumentTypeError):
        output_file(output)
    assert output_file("new/deep/result.json") == Path("new/deep/result.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_every_benchmark_checks_its_output():
    folder = Path(command_line.__file__).parents[1] / "benchmarks"
    taking = [path.read_text() for path in folder.glob("*.py") if '"--output"' in path.read_text()]
    checked = [text for text in taking if '"--output", type=output_file' in text]
    assert len(checked) == len([text for text in taking if "add_argument" in text]) >= 4


def test_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="needs one of the presets"):
        execute("one", invented(INSIDE), "large")
