"""The command line from arguments to files and exit codes."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxopt_study import figures, optimizers, problems, records, sweeps, transforms
from jaxopt_study.cli import _compare_figures, _single_runs, main
from jaxopt_study.cli._candidates import NamedCandidate
from jaxopt_study.cli._compilation_cache import keep_programs
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import read_maker, read_optimizer, specification
from jaxopt_study.cli._network import described, load_data, network_problem, network_settings
from jaxopt_study.cli._options import NetworkOptions
from jaxopt_study.cli._progress import JobBar

TINY = ["--only", "sgd", "--steps=6", "--seeds=2", "--widths", "4", "--batch-size=16", "--evaluations=3"]
TUNE = ["--budget=4", "--space", "sgd.learning_rate=log(1e-6, 1e-4)"]
OWN = [argument for name in ("plain", "rated", "fails") for argument in ("--optimizer", f"mine_for_cli:{name}")]
MINE = """
import optax
from jaxopt_study import optimizers

def plain():
    return optax.sgd(0.1)

def rated(learning_rate):
    return optax.chain(optax.scale(2.0), optax.sgd(learning_rate))

def fails():
    def update(updates, state, params=None):
        raise RuntimeError("the user's own mistake")
    return optax.GradientTransformation(lambda params: (), update)

def number():
    return 3

def needs(argument):
    return optax.sgd(argument)

def needs_more(learning_rate, argument):
    return optax.sgd(learning_rate)

def crashes():
    return 1 / 0

ready = optax.sgd(0.1)
constant = 3
"""


@dataclass
class Ran:
    code: int
    out: str
    err: str
    record: records.Record
    trained: int
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The same command twice: interrupted by Ctrl-C while the network is tuned, and resumed to the end."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "mine_for_cli.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        trained, bar = [], JobBar.sweep

        def run(problem, optimizer, whole_run=_single_runs.train, **options):
            trained.append(optimizer)
            return whole_run(problem, optimizer, **options)

        def pressing(*arguments):
            report = bar(*arguments)

            def progress(done, total, best):
                report(done, total, best)
                if done:
                    signal.raise_signal(signal.SIGINT)

            return progress

        patch.setattr(_single_runs, "train", run)

        def compare(*arguments):
            trained.clear()
            with pytest.MonkeyPatch.context() as streams:
                out, err = folder / "stdout", folder / "stderr"
                with out.open("w") as stdout, err.open("w") as stderr:
                    streams.setattr(sys, "stdout", stdout)
                    streams.setattr(sys, "stderr", stderr)
                    code = main(["compare", "--out", "out", *TINY, *TUNE, *OWN, *arguments])
            files = {str(p.relative_to("out")): p.read_bytes() for p in Path("out").rglob("*") if p.is_file()}
            return Ran(code, out.read_text(), err.read_text(), records.load(folder / "out"), len(trained), files)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.MonkeyPatch.context() as keyboard:
                keyboard.setattr(JobBar, "sweep", pressing)
                interrupted = compare()
        finally:
            signal.signal(signal.SIGINT, before)
        resumed = compare("--resume")
    return {"interrupted": interrupted, "resumed": resumed}


def by_name(ran):
    return {(e["problem"], e["optimizer"], e.get("settings")): e for e in ran.record.results["entries"]}


def test_ctrl_c_keeps_what_had_finished_and_says_how_to_go_on(study):
    ran = study["interrupted"]
    assert ran.code == 130
    assert ran.record.status == "interrupted"
    assert [key for key, entry in by_name(ran).items() if "error" not in entry] == [
        ("bowl", "sgd", "default"), ("bowl", "plain", "default")
    ]  # fmt: skip
    assert ran.record.results["comparison"] is None
    assert "--resume" in ran.err
    assert "journal/digits/tune/chunk-00000.npz" in ran.files
    assert not [name for name in ran.files if name.endswith(".png")]


def test_resuming_runs_only_what_is_missing(study):
    before, after = study["interrupted"], study["resumed"]
    assert (before.trained, after.trained) == (3, 2)  # again what failed, and what does not say what it is
    kept = [name for name in before.files if "/chunk-" in name or name == "parts/bowl-sgd.json"]
    assert len(kept) == 2
    assert all(before.files[name] == after.files[name] for name in kept)
    lanes = [
        np.load(io.BytesIO(content))["lanes"]
        for name, content in after.files.items()
        if re.fullmatch(r"journal/digits/tune/chunk-\d+.npz", name)
    ]
    assert sorted(np.concatenate(lanes)) == list(range(8))  # four trials each of two optimizers, one start


def test_every_promised_file_is_there_and_can_be_opened(study, tmp_path):
    files = {name: content for name, content in study["resumed"].files.items() if "/" not in name}
    expected = (
        "comparison.png differences.png budget.png loss.png accuracy.png trajectories.png trajectories-together.png "
        "race.gif curves.csv scores.csv trials.csv record.json"
    )
    assert sorted(files) == sorted(expected.split())
    listed = study["resumed"].out.split(" In out: ")[1]
    assert all(name in listed for name in files)
    for name, content in files.items():
        if name.endswith((".png", ".gif")):
            (tmp_path / name).write_bytes(content)
            with Image.open(tmp_path / name) as picture:
                assert picture.size[0] >= 800
    assert len(files["race.gif"]) < 2_000_000
    with Image.open(tmp_path / "race.gif") as picture:
        assert picture.n_frames == 30


def test_the_record_says_what_was_run_where_and_with_which_chains(study):
    record, entries = study["resumed"].record, by_name(study["resumed"])
    assert record.config["steps"] == 6
    assert record.config["budget"] == 4
    assert record.config["data"] == "digits"
    assert record.environment["versions"]["jax"]
    assert record.data_hash == problems.datasets.digits(seed=0).sha256
    assert transforms.from_json(entries["bowl", "sgd", "default"]["spec"]) == optimizers.sgd(0.95)
    assert transforms.from_json(entries["digits", "sgd", "default"]["spec"]) == optimizers.sgd(0.01)
    tuned = entries["digits", "sgd", "tuned"]
    assert transforms.from_json(tuned["spec"]) == optimizers.sgd(tuned["config"]["learning_rate"])
    assert tuned["diverged"] == [False, False]
    assert json.loads(study["resumed"].files["record.json"])["format"] == records.FORMAT


def test_the_record_ranks_the_medians_of_the_reported_seeds(study):
    said, entries = study["resumed"].record.results["comparison"], by_name(study["resumed"])
    assert (said["metric"], said["selected_by"], said["budget"]) == ("test_accuracy", "validation_loss", 4)
    for settings in ("default", "tuned"):
        medians = {name: triple[0] for name, triple in said[settings]["medians"].items()}
        for name, median in medians.items():
            entry = entries.get(("digits", name, settings)) or entries["digits", name, "default"]
            assert median == np.median(entry["finals"]["test_accuracy"])
        ranked = [medians[name] for name in said[settings]["ranking"]]
        assert ranked == sorted(ranked, reverse=True)
    assert set(said["default"]["medians"]) == {"sgd", "plain"}  # the third says no learning rate by itself
    assert set(said["tuned"]["medians"]) == {"sgd", "plain", "rated"}
    assert said["chosen"]["rated"] == entries["digits", "rated", "tuned"]["config"]


def test_what_is_chosen_is_the_trial_with_the_best_validation_loss(study):
    rows = list(csv.DictReader(study["resumed"].files["trials.csv"].decode().splitlines()))
    for name in ("sgd", "rated"):
        trials = [row for row in rows if row["optimizer"] == name]
        assert len(trials) == 4
        best = min(trials, key=lambda row: float(row["validation_loss"]))
        chosen = study["resumed"].record.results["comparison"]["chosen"][name]["learning_rate"]
        assert float(best["learning_rate"]) == chosen
    assert not any("test" in column for column in rows[0])


def test_the_tables_are_tidy_and_agree_with_the_record(study):
    rows = list(csv.DictReader(study["resumed"].files["curves.csv"].decode().splitlines()))
    assert list(rows[0]) == ["problem", "optimizer", "settings", "seed", "step", "metric", "value"]
    keys = [tuple(row[name] for name in list(rows[0])[:-1]) for row in rows]
    assert len(set(keys)) == len(keys)
    found = dict(zip(keys, (float(row["value"]) for row in rows), strict=True))
    assert found["bowl", "sgd", "default", "0", "0", "x"] == -7.0
    assert found["bowl", "sgd", "default", "0", "29", "y"] == pytest.approx(2.0 * (1 - 0.95 * 2) ** 29, rel=1e-4)
    entry = by_name(study["resumed"])["digits", "rated", "tuned"]
    assert entry["curves"]["step"] == [0, 2, 4, 6]
    accuracy = entry["finals"]["test_accuracy"]
    assert found["digits", "rated", "tuned", "1", "6", "test_accuracy"] == accuracy[1]
    assert found["digits", "rated", "tuned", "1", "4", "train_loss"] == entry["curves"]["train_loss"][1][2]
    scores = list(csv.DictReader(study["resumed"].files["scores.csv"].decode().splitlines()))
    mine = [row for row in scores if (row["optimizer"], row["settings"]) == ("rated", "tuned")]
    assert [float(row["score"]) for row in mine] == pytest.approx(accuracy, rel=1e-6)


def test_the_printed_table_fits_eighty_columns_and_shows_both_rankings_and_who_wins(study):
    out = study["resumed"].out
    assert max(map(len, out.splitlines()[:-1])) <= 80
    assert "…" not in out.rsplit(" In out: ")[0]
    flat = " ".join(out.split())
    said = study["resumed"].record.results["comparison"]
    assert "median test accuracy of 2 seeds, 95% interval" in flat
    for settings, title in (("default", "Settings of Saito (2016)"), ("tuned", "Tuned, 4 trials each")):
        assert title in flat
        assert f"{said[settings]['verdict']}." in flat
    row = next(line for line in out.splitlines() if line.startswith("rated"))
    assert "—" in row
    assert f"{said['tuned']['medians']['rated'][0]:.3f}".removeprefix("0") in row
    assert "1.64e-02" in out  # what SGD reaches on the plane
    assert "interval of the median. Rank: 1 + the number of optimizers shown to be better. —: not run." in flat


def test_who_has_no_settings_for_the_contour_problem_is_named_wherever_it_is_missing(study, tmp_path, monkeypatch):
    results = study["resumed"].record.results
    assert results["not_on_plane"] == ["rated"]
    assert "Not run on x²/20 + y², because it has no default settings: rated." in study["resumed"].out
    titles, rates = {}, []

    def trajectories(problem, paths, *, title, together=False, **options):
        titles[together] = title
        rates.append(options.get("rates"))
        return figures.new_figure(1, 1)

    def animation(problem, paths, *, title):
        titles["animation"] = title
        return b""

    monkeypatch.setattr(figures, "trajectories", trajectories)
    monkeypatch.setattr(figures, "race_animation", animation)
    paths = {"curves": {"path": [[[-7.0, 2.0], [0.0, 0.0]]]}, "problem": "bowl"}
    entries = [
        {**paths, "optimizer": "sgd", "spec": optimizers.sgd(0.95).to_json()},
        {**paths, "optimizer": "own", "spec": None, "config": {"learning_rate": 0.02}},
    ]
    draw = partial(_compare_figures.draw, plane=problems.planar.bowl(), folder=tmp_path, title="", settings={})
    draw(entries, None, absent=["rated", "other"])
    assert rates[0] == {"sgd": 0.95, "own": 0.02}
    assert "after each name its learning rate\nwithout rated, other (no default settings)" in titles[False]
    assert titles[True].endswith("without rated, other (no default settings)")
    assert titles["animation"] == "x²/20 + y², without rated, other"
    draw([*entries, {**paths, "optimizer": "unknown", "spec": None}], None)
    assert titles[False].endswith("after a name its learning rate")
    assert "without" not in titles[False] + titles[True] + titles["animation"]


def test_a_tuned_value_at_an_end_of_its_range_is_flagged_with_a_wider_range(study):
    flat = " ".join(study["resumed"].out.split())
    flags = study["resumed"].record.results["comparison"]["boundaries"]
    assert flags["sgd"] == {"learning_rate": "high"}  # all of its range is far below the best
    assert "▲ sgd: learning_rate lies at the upper end of its range, 1e-6–1e-4" in flat
    assert 'try --space "sgd.learning_rate=log(1e-6, .001)"' in flat
    row = next(line for line in study["resumed"].out.splitlines() if line.startswith("sgd"))
    assert row.rstrip().endswith("▲")


def test_an_optimizer_that_raises_stops_nothing(study):
    ran = study["resumed"]
    assert (ran.code, ran.record.status) == (1, "failed")
    assert by_name(ran)["digits", "plain", "default"]["spec"] is None
    failures = [entry for entry in ran.record.results["entries"] if "error" in entry]
    assert [(entry["problem"], entry["optimizer"]) for entry in failures] == [("bowl", "fails"), ("digits", "fails")]
    raised = "train cannot take a step: the update of fails raises RuntimeError: the user's own mistake."
    assert all(raised in entry["error"] for entry in failures)
    assert raised in ran.err


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine_for_errors.py").write_text(MINE)
    (tmp_path / "broken_for_errors.py").write_text("import not_installed_anywhere")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "nothing"], "module:function"),
        (["--optimizer", "nothing_here:build"], "no module 'nothing_here'"),
        (["--optimizer", "broken_for_errors:build"], "needs 'not_installed_anywhere'"),
        (["--optimizer", "mine_for_errors:absent"], "Functions there: .*plain"),
        (["--optimizer", "mine_for_errors:number"], "returned 3 of type int; expected an Optax transformation"),
        (["--optimizer", "mine_for_errors:needs"], "without arguments fails with TypeError"),
        (["--optimizer", "mine_for_errors:crashes"], "ZeroDivisionError"),
        (["--optimizer", "mine_for_errors:needs_more"], "with learning_rate=0.01 fails with TypeError"),
        (["--optimizer", "mine_for_errors:ready"], "not a function that returns one"),
        (["--optimizer", "mine_for_errors:constant"], "expected a function"),
        (["--optimizer", "mine_for_errors:plain", "--optimizer", "mine_for_errors:plain"], "given twice"),
        (["--only", "adamant"], "--only adamant: unknown; expected names among sgd"),
        (["--data", "mnist", "--data-dir", "absent"], "--data-dir"),
        (["--data-dir", "."], "digits need neither"),
        (["--data", "text", "--download"], "a text needs none"),
        (["--data", "text", "--data-dir", "absent"], "neither a file nor a folder"),
        (["--data", "text", "--widths", "8", "16"], "one equal width for each block"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--widths", "0"], "--widths"),
        (["--batch-size", "100000"], "at most 1197, the number of training examples"),
        (["--resume"], "--resume needs --out"),
        (["--out", "mine_for_errors.py"], "is a file"),
        (["--out", "."], "is not empty"),
        (["--out", "mine_for_errors.py/below"], "cannot be written"),
        (["--budget", "-1"], "--budget must be at least 0"),
        (["--tune-seeds", "0"], "--tune-seeds must be at least 1"),
        (["--space", "learning_rate=log(1, 2)"], "expected OPTIMIZER.NAME"),
        (["--space", "adam.learning_rate=log(1)"], "missing .*argument"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(mine, capsys, arguments, message):
    assert main(["compare", *arguments]) == 2
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("Error: ")
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 1
    assert re.search(message, shown), shown
    assert not (mine / "results").exists()


def test_on_text_a_transformer_is_trained_with_the_widths_as_its_blocks(tmp_path):
    (tmp_path / "mine.txt").write_text("It is a truth universally acknowledged. " * 90)
    options = NetworkOptions(data="text", data_dir=tmp_path, widths=(8, 8, 8))
    settings, dataset = network_settings(options), load_data(options)
    assert (settings["steps"], settings["batch_size"]) == (500, 32)
    problem = network_problem(settings, dataset, label_smoothing=0.1)
    assert (problem.name, problem.metadata["dataset"]) == ("text", "text")
    for words in ("GPT(", "depth=3", "width=8"):
        assert words in problem.metadata["model"]
    assert "depth=2, width=12" in network_problem(settings, dataset, width=12, depth=2).metadata["model"]
    assert described(settings) == "text, GPT 8-8-8"


@pytest.mark.slow
def test_a_search_on_text_runs_to_its_files(mine):
    tiny = ["--data=text", "--steps=4", "--widths", "8", "--batch-size=8", "--evaluations=2", "--trials=2"]
    assert main(["search", "adam(1e-3)", *tiny, "--space", "normalisation=choices(layer, rms)", "--out", "out"]) == 0
    assert (mine / "out" / "hyperparameters.png").exists()


@pytest.mark.slow
def test_curvature_is_measured_along_the_runs_where_it_is_asked_for(tmp_path):
    folder = tmp_path / "probed"
    arguments = ["--only", "sgd", "--steps=4", "--seeds=2", "--widths", "3", "--batch-size=16", "--probe=curvature",
                 "--budget=0"]  # fmt: skip
    assert main(["compare", *arguments, "--out", str(folder)]) == 0
    with Image.open(folder / "curvature.png") as picture:
        assert min(picture.size) > 500
    (entry,) = [entry for entry in records.load(folder).results["entries"] if entry["problem"] == "digits"]
    measured = entry["curvature"]
    assert measured["step"] == [0, 1, 2, 3, 4]
    assert measured["limit"] == pytest.approx(2.0)
    # Gradient descent divides by nothing: its gain sharpness is the learning rate times the largest eigenvalue.
    sharpest = np.array(measured["eigenvalues"])[..., 0]
    np.testing.assert_allclose(measured["gain_sharpness"], 0.01 * sharpest, rtol=2e-2)
    with (folder / "curves.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == "gain_sharpness"]
    assert [float(row["value"]) for row in rows] == np.ravel(measured["gain_sharpness"]).tolist()


def test_a_folder_of_another_configuration_is_not_continued(tmp_path, capsys):
    records.save(records.Record("compare", "digits", config={"steps": 5}, results={}), tmp_path / "out")
    assert main(["compare", "--out", str(tmp_path / "out"), "--resume"]) == 2
    assert "another configuration" in capsys.readouterr().err
    (tmp_path / "out" / "record.json").write_text("{")
    assert main(["compare", "--out", str(tmp_path / "out"), "--resume"]) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [[], ["compare", "--steps", "many"], ["compare", "--nonsense"], ["explain", "adam"]]
)
def test_arguments_that_cannot_be_understood_are_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_help_describes_every_option(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["compare", "--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for words in (
        "module:function",
        "--data-dir PATH",
        "record.json",
        "--resume",
        "Ctrl-C",
        "(default: 10)",
        "--budget 0",
    ):
        assert words in shown
    assert "(default: 100 100 on digits, 64 64 on text, 100 100 100 100 on the others)" in shown
    assert "None" not in shown


def test_help_of_all_is_short_and_says_where_there_is_more(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "COMMAND --help" in shown
    assert "Search the hyperparameters of an optimizer" in shown
    assert "record.json" not in shown  # that is in the help of each


def test_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"jaxopt-study {version('jaxopt_study')}"


def test_optimizers_lists_all_of_them_with_the_defaults_of_the_first_convention(capsys):
    assert main(["optimizers"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in optimizers.named())
    written = "learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, "
    assert written in shown
    assert optimizers.adam(0.001, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, convention="paper") == optimizers.adam()
    assert "learning_rate, decay=0.9, dampening=None, " in shown  # what has no default is a bare name
    assert "dtype=None, convention=paper|saito2016|torch|optax" in shown


def test_problems_lists_all_of_them_with_what_is_known(capsys):
    assert main(["problems"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in problems.catalogue())
    assert "4 minima, 4 saddles, 1 maximum; x -6 to 6, y -6 to 6" in shown  # Himmelblau's
    assert "1 minimum; curvatures 0.1 to 2; x -10 to 10, y -5 to 5" in shown  # x²/20 + y²


def test_explain_names_step_atom_and_reason(capsys):
    assert main(["explain", "rmsprop(0.01)", "rmsprop(0.01, eps=1e-3)"]) == 0
    shown = capsys.readouterr().out
    assert "The updates first differ at step 1, in merge.fn: eps is 1e-08 in the first, 0.001 in the second" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("adam", optimizers.adam()),
        ("sgd", optimizers.sgd(0.01)),
        ("adam(1e-3, convention='saito2016')", optimizers.adam(1e-3, convention="saito2016")),
        ("nesterov(0.1)", optimizers.nesterov(0.1)),
        ("chain(nesterov(0.5), negate())", transforms.chain(transforms.nesterov(0.5), transforms.negate())),
        ("sgd(-(-0.5))", None),
        ("chain(ema(0.9), negate())", transforms.chain(transforms.ema(0.9), transforms.negate())),
        ("ema(0.9, of=jnp.square)", transforms.ema(0.9, of=jnp.square)),
        ("optax.adam(1e-3)", transforms.from_optax(optax.adam)(1e-3)),
    ],
)  # fmt: skip
def test_an_expression_is_the_optimizer_it_reads_as(text, expected):
    if expected is None:
        with pytest.raises(UserError):
            read_optimizer(text)
    else:
        assert read_optimizer(text) == expected


def test_a_bare_transformation_has_no_specification():
    assert specification(optax.sgd(0.1)) == {"expression": None, "spec": None}
    assert specification(transforms.chain(optax.sgd(0.1)))["spec"] is None


def test_an_optimizer_that_draws_noise_has_a_path_on_the_contour_problem():
    noisy = transforms.chain(transforms.add_gradient_noise(0.1, 0.55, jax.random.key(0)), optimizers.sgd(0.1))
    candidates = {
        name: NamedCandidate(name, optimizer, sweeps.Candidate(optimizer))
        for name, optimizer in (("noisy", noisy), ("plain", optimizers.sgd(0.1)))
    }
    found = [run.results() for run in _single_runs.plane_runs(problems.planar.bowl(), candidates)]
    noisy_path, path = (np.asarray(results["curves"]["path"]) for results in found)
    assert noisy_path.shape == path.shape == (1, 30, 2)
    assert np.isfinite(noisy_path).all()
    assert np.all(noisy_path[0, 1:] != path[0, 1:])


@pytest.mark.parametrize("name", list(optimizers.named()))
def test_what_explain_prints_can_be_given_to_it(name):
    built = read_optimizer(name)
    assert read_optimizer(repr(built)) == built
    assert read_optimizer(repr(built.expand())).expand() == built.expand()


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "open('x')", "adam(open('x'))", "adam.__class__", "optax._src",
        "().__class__", "ema(0.9, of=os.system)", "ema(0.9, of=jnp.__loader__)",
        "adam(*[1e-3])", "adam(**{})", "adam(lambda: 1)", "adam(x for x in y)", "adamant(1)", "adam(",
        "3", "divide_by_root()",
        "sgd(-1)", "adam(convention='none')", "optax.GradientTransformation(1, 2)", "optax.global_norm",
        "optax.no_such", "optax.tree_map_params(jnp.iterable, 1, 2, transform_non_params=jnp.savez)",
        "optax.inject_hyperparams(optax.adam)(1e-3)", "optax.stateless(jnp.square)", "ema(0.9, of=jnp.savez)",
        "elementwise(jnp.frompyfunc)", "elementwise(jax.pure_callback)", "elementwise(jax.debug.print)",
        "optax._src.alias.adam(1e-3)", "adam(10**400)", "adam(" + "9" * 5000 + ")", "adam(" + "-" * 5000 + "1)",
        "adam" + ".a" * 5000, "(" * 500 + ")" * 500, "adam(\0)", "optax.sgdr_schedule(jnp.square)",
        "optax.masked(sgd(0.1), mask=jnp.load)",
    ],
)  # fmt: skip
def test_an_expression_runs_nothing_else(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read in (read_optimizer, read_maker):
        with pytest.raises(UserError):
            read(text)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_process_ends_at_once_with_130(monkeypatch, capsys):
    def interrupt(options, job):
        raise KeyboardInterrupt

    codes = []
    monkeypatch.setattr("jaxopt_study.cli._listings.list_problems", interrupt)
    monkeypatch.setattr("os._exit", codes.append)
    assert main(["problems"]) == 130  # called from a program: nothing is ended
    assert codes == []
    monkeypatch.setattr(sys, "argv", ["jaxopt-study", "problems"])
    main()
    assert codes == [130]
    assert "Interrupted" in capsys.readouterr().err


def test_the_module_can_be_run_and_keeps_its_programs(tmp_path):
    """Also those that compile in no time, here, since a fast machine has no others."""
    quick = "from jaxopt_study.cli import _compilation_cache; _compilation_cache.SECONDS = 0.0"
    run = "import runpy; runpy.run_module('jaxopt_study', run_name='__main__')"
    command = [sys.executable, "-c", f"{quick}; {run}", "explain", "adam", "optax.adam(1e-3)"]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    del environment["JAX_COMPILATION_CACHE_DIR"]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert "The updates agree" in done.stdout
    assert list((tmp_path / "jaxopt_study" / "programs").glob(f"jax-{jax.__version__}-*/*-cache"))


@pytest.fixture
def cache_settings(monkeypatch):
    """Give back JAX's settings, from a process in which the user set none."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_a_folder_for_programs_that_the_user_has_set_stays(cache_settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_command_runs_where_no_cache_can_be_made(cache_settings, tmp_path, monkeypatch):
    (tmp_path / "cache").touch()  # a file where a folder belongs
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    keep_programs()
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_of_kept_programs_those_used_longest_ago_go_first(cache_settings, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("jaxopt_study.cli._compilation_cache.BYTES", 250)
    folder = tmp_path / "jaxopt_study" / "programs" / "jax-0.9.0-0123abcd"
    folder.mkdir(parents=True)
    for age, name in enumerate(["new", "middle", "old"]):
        (folder / name).write_bytes(bytes(100))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    keep_programs()
    assert {path.name for path in folder.iterdir()} == {"new", "middle"}
    assert Path(jax.config.values["jax_compilation_cache_dir"]).parent == folder.parent
