"""The command line from arguments to files and exit codes."""

import csv
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from jaxopt_study import optimizers, problems, records, transforms
from jaxopt_study.cli import main
from jaxopt_study.cli.expressions import UserError, read_optimizer
from jaxopt_study.cli.listings import Problems
from jaxopt_study.race import Race

TINY = ["--only", "sgd", "momentum", "--steps=6", "--seeds=2", "--widths", "4", "--batch-size=16", "--evaluations=3"]
MINE = """
import optax
from jaxopt_study import optimizers

def plain():
    return optax.sgd(0.1)

def fails():
    def update(updates, state, params=None):
        raise RuntimeError("the user's own mistake")
    return optax.GradientTransformation(lambda params: (), update)

def number():
    return 3

def needs(argument):
    return optax.sgd(argument)

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
    calls: int
    record: records.Record


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The same folder three times: interrupted in the second run, resumed to the end, and once more with own chains."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "mine_for_cli.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        whole_run, calls = Race.run, []

        def run(race, optimizer):
            calls.append(optimizer)
            if len(calls) == interrupt_at:
                raise KeyboardInterrupt
            return whole_run(race, optimizer)

        patch.setattr(Race, "run", run)

        def compare(*arguments):
            calls.clear()
            with pytest.MonkeyPatch.context() as streams:
                out, err = folder / "stdout", folder / "stderr"
                with out.open("w") as stdout, err.open("w") as stderr:
                    streams.setattr(sys, "stdout", stdout)
                    streams.setattr(sys, "stderr", stderr)
                    code = main(["compare", "--out", "out", *TINY, *arguments])
            return Ran(code, out.read_text(), err.read_text(), len(calls), records.load(folder / "out"))

        interrupt_at = 2
        interrupted = compare()
        files_then = sorted(path.name for path in (folder / "out").iterdir())
        interrupt_at = 0
        resumed = compare("--resume")
        files = {path.name: path.read_bytes() for path in (folder / "out").iterdir() if path.is_file()}
        mine = compare("--resume", "--optimizer", "mine_for_cli:plain", "--optimizer", "mine_for_cli:fails")
    return {"interrupted": interrupted, "then": files_then, "resumed": resumed, "files": files, "mine": mine}


def test_ctrl_c_keeps_what_had_finished_and_says_how_to_go_on(study):
    ran = study["interrupted"]
    assert ran.code == 130
    assert ran.record.status == "interrupted"
    assert [(e["problem"], e["optimizer"]) for e in ran.record.results["entries"]] == [("bowl", "sgd")]
    assert "1 of 4" in ran.err
    assert "--resume" in ran.err
    assert study["then"] == ["curves.csv", "parts", "record.json"]


def test_resuming_runs_only_what_is_missing(study):
    ran = study["resumed"]
    assert (ran.code, ran.calls) == (0, 3)
    assert ran.record.status == "complete"
    names = [(e["problem"], e["optimizer"]) for e in ran.record.results["entries"]]
    assert names == [("bowl", "sgd"), ("bowl", "momentum"), ("digits", "sgd"), ("digits", "momentum")]


def test_every_promised_file_is_there_and_can_be_opened(study, tmp_path):
    files = study["files"]
    expected = "loss.png accuracy.png trajectories.png trajectories-together.png race.gif curves.csv record.json"
    assert sorted(files) == sorted(expected.split())
    for name, content in files.items():
        if name.endswith((".png", ".gif")):
            (tmp_path / name).write_bytes(content)
            with Image.open(tmp_path / name) as picture:
                assert picture.size[0] >= 800
    assert len(files["race.gif"]) < 2_000_000
    with Image.open(tmp_path / "race.gif") as picture:
        assert picture.n_frames == 30


def test_the_record_says_what_was_run_where_and_with_which_chains(study):
    record = study["resumed"].record
    assert record.config["steps"] == 6
    assert record.config["data"] == "digits"
    assert record.environment["versions"]["jax"]
    assert record.data_hash == problems.datasets.digits(seed=0).sha256
    entries = {(e["problem"], e["optimizer"]): e for e in record.results["entries"]}
    assert transforms.from_json(entries["bowl", "sgd"]["spec"]) == optimizers.sgd(0.95)
    assert entries["digits", "momentum"]["diverged"] == [False, False]
    assert entries["digits", "momentum"]["run_seconds"] > 0
    assert json.loads(study["files"]["record.json"])["format"] == records.FORMAT


def test_the_table_of_curves_is_tidy_and_agrees_with_the_record(study):
    rows = list(csv.DictReader(study["files"]["curves.csv"].decode().splitlines()))
    assert list(rows[0]) == ["problem", "optimizer", "seed", "step", "metric", "value"]
    keys = [tuple(row[name] for name in ("problem", "optimizer", "seed", "step", "metric")) for row in rows]
    assert len(set(keys)) == len(keys)
    found = dict(zip(keys, (float(row["value"]) for row in rows), strict=True))
    assert found["bowl", "sgd", "0", "0", "x"] == -7.0
    assert found["bowl", "sgd", "0", "29", "y"] == pytest.approx(2.0 * (1 - 0.95 * 2) ** 29, rel=1e-4)
    entry = study["resumed"].record.results["entries"][3]
    assert entry["curves"]["step"] == [0, 2, 4, 6]
    assert found["digits", "momentum", "1", "6", "test_accuracy"] == entry["finals"]["test_accuracy"][1]
    assert found["digits", "momentum", "1", "4", "train_loss"] == entry["curves"]["train_loss"][1][2]


def test_the_printed_table_fits_eighty_columns_and_names_the_spread(study):
    out = study["resumed"].out
    assert "median over 2 seeds (lowest–highest)" in out
    assert "untuned" in out
    row = next(line for line in out.splitlines() if line.startswith("momentum"))
    accuracy = study["resumed"].record.results["entries"][3]["finals"]["test_accuracy"]
    assert f"{max(accuracy):.3f}".removeprefix("0") in row
    assert "0 of 2" in row
    assert "…" not in out
    assert "1.64e-02" in out  # what SGD reaches on the plane


def test_a_plain_optax_chain_runs_beside_the_others_and_one_that_raises_stops_nothing(study):
    ran = study["mine"]
    assert (ran.code, ran.calls) == (1, 4)
    assert ran.record.status == "failed"
    entries = {(e["problem"], e["optimizer"]): e for e in ran.record.results["entries"]}
    assert entries["digits", "plain"]["spec"] is None
    assert len(entries["digits", "plain"]["finals"]["test_accuracy"]) == 2
    assert entries["digits", "fails"]["error"] == "RuntimeError: the user's own mistake"
    assert "fails failed on digits: RuntimeError: the user's own mistake" in ran.err
    assert "plain" in ran.out


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
        (["--optimizer", "mine_for_errors:ready"], "not a function that returns one"),
        (["--optimizer", "mine_for_errors:constant"], "expected a function"),
        (["--optimizer", "mine_for_errors:plain", "--optimizer", "mine_for_errors:plain"], "given twice"),
        (["--only", "adamant"], "not among the notes' optimizers, sgd"),
        (["--data", "mnist", "--data-dir", "absent"], "--data-dir"),
        (["--data-dir", "."], "digits need neither"),
        (["--steps", "0"], "--steps must be at least 1"),
        (["--widths", "0"], "--widths"),
        (["--batch-size", "100000"], "1197 training examples"),
        (["--resume"], "--resume needs --out"),
        (["--out", "mine_for_errors.py"], "is a file"),
        (["--out", "."], "holds something already"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_1(mine, capsys, arguments, message):
    assert main(["compare", *arguments]) == 1
    shown = capsys.readouterr().err.strip()
    assert shown.startswith("Error: ")
    assert "Traceback" not in shown
    assert len(shown.splitlines()) == 1
    assert re.search(message, shown), shown
    assert not (mine / "results").exists()


@pytest.mark.slow
def test_curvature_is_measured_along_the_runs_where_it_is_asked_for(tmp_path):
    folder = tmp_path / "probed"
    arguments = ["--only", "sgd", "--steps=4", "--seeds=2", "--widths", "3", "--batch-size=16", "--probe=curvature"]
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
    assert main(["compare", "--out", str(tmp_path / "out"), "--resume"]) == 1
    assert "another configuration" in capsys.readouterr().err
    (tmp_path / "out" / "record.json").write_text("{")
    assert main(["compare", "--out", str(tmp_path / "out"), "--resume"]) == 1
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
    for words in ("module:function", "--data-dir PATH", "record.json", "--resume", "Ctrl-C", "(default: 5)"):
        assert words in shown
    assert "(default: 100 100 on digits, 100 100 100 100 on the others)" in shown
    assert "None" not in shown


def test_optimizers_lists_all_of_them_with_the_defaults_of_the_first_convention(capsys):
    assert main(["optimizers"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in optimizers.named())
    written = "learning_rate=0.001, b1=0.9, b2=0.999, eps=1e-08, eps_root=0.0, convention=paper|torch|optax|book"
    assert written in shown
    assert optimizers.adam(0.001, b1=0.9, b2=0.999, eps=1e-8, eps_root=0.0, convention="paper") == optimizers.adam()
    assert "learning_rate, decay=0.9, convention=paper|book|torch|optax" in shown  # what has no default is a bare name


def test_problems_lists_all_of_them_with_what_is_known(capsys):
    assert main(["problems"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(name in shown for name in problems.catalogue())
    assert "4 minima, 4 saddles, 1 maximum; x -6 to 6, y -6 to 6" in shown  # Himmelblau's
    assert "1 minimum; curvatures 0.1 to 2; x -10 to 10, y -5 to 5" in shown  # x²/20 + y²


def test_explain_names_step_atom_and_reason(capsys):
    assert main(["explain", "rmsprop(0.01)", "rmsprop(0.01, eps=1e-3)"]) == 0
    shown = capsys.readouterr().out
    assert "They part at step 1, in merge.fn: eps: 1e-08 in the first, 0.001 in the second" in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("adam", optimizers.adam()),
        ("sgd", optimizers.sgd(0.01)),
        ("adam(1e-3, convention='book')", optimizers.adam(1e-3, convention="book")),
        ("nesterov(0.1)", optimizers.nesterov(0.1)),
        ("chain(nesterov(0.5), negate())", transforms.chain(transforms.nesterov(0.5), transforms.negate())),
        ("sgd(-(-0.5))", None),
        ("chain(ema(0.9), negate())", transforms.chain(transforms.ema(0.9), transforms.negate())),
        ("ema(0.9, of=jnp.square)", transforms.ema(0.9, of=jnp.square)),
        ("optax.adam(1e-3)", transforms.lift(optax.adam)(1e-3)),
    ],
)  # fmt: skip
def test_an_expression_is_the_optimizer_it_reads_as(text, expected):
    if expected is None:
        with pytest.raises(UserError):
            read_optimizer(text)
    else:
        assert read_optimizer(text) == expected


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
        "optax.no_such",
    ],
)  # fmt: skip
def test_an_expression_runs_nothing_else(text):
    with pytest.raises(UserError):
        read_optimizer(text)


def test_an_interrupted_process_ends_at_once_with_130(monkeypatch, capsys):
    def interrupt(self, console):
        raise KeyboardInterrupt

    codes = []
    monkeypatch.setattr(Problems, "run", interrupt)
    monkeypatch.setattr("os._exit", codes.append)
    assert main(["problems"]) == 130  # called from a program: nothing is ended
    assert codes == []
    monkeypatch.setattr(sys, "argv", ["jaxopt-study", "problems"])
    main()
    assert codes == [130]
    assert "Interrupted" in capsys.readouterr().err


def test_the_module_can_be_run():
    command = [sys.executable, "-m", "jaxopt_study", "explain", "adam", "optax.adam(1e-3)"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stderr
    assert "The same updates" in done.stdout
