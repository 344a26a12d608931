"""`jaxopt-study search` and `ablate` from arguments to files and exit codes, and what the sweeping commands share."""

import csv
import io
import itertools
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy import stats

from jaxopt_study import figures, optimizers, problems, records, sweeps, transforms
from jaxopt_study.cli import _ablate_report, _network, main
from jaxopt_study.cli._ablate_report import linear_within
from jaxopt_study.cli._axes import accuracy_floor
from jaxopt_study.cli._candidates import named_candidates
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._expressions import read_maker
from jaxopt_study.cli._progress import JobBar
from jaxopt_study.cli._spaces import ANY_RANGE, at_end, default_space, read_space
from jaxopt_study.optimizers import explain_difference
from jaxopt_study.sweeps import Space
from jaxopt_study.sweeps._compare._ablation_variants import variants_of

TINY = ["--steps=4", "--widths", "3", "--batch-size=16", "--evaluations=2"]
SEARCH = ["search", "sgd", "--space", "learning_rate=log(1e-3, 1e30)", "--trials=8", "--seeds=2", "--out", "searched"]
MINE = """
import optax

def mine(learning_rate=0.5, momentum=0.9):
    return optax.sgd(learning_rate, momentum)

def must(learning_rate):
    return optax.sgd(learning_rate)

def stubborn(learning_rate=0.1):
    return optax.sgd(float(learning_rate))

def bare():
    return optax.sgd(0.1)

def wrong(learning_rate=0.1):
    return learning_rate

def raises(learning_rate=0.1):
    raise RuntimeError("the user's own mistake")
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A folder to work in, with the user's module."""
    folder = tmp_path_factory.mktemp("sweeps")
    (folder / "mine_for_sweeps.py").write_text(MINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield folder


def run(*arguments):
    """Run the command line; return its code and what it says."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as streams:
        streams.setattr(sys, "stdout", out)
        streams.setattr(sys, "stderr", err)
        code = main([*arguments])
    return code, out.getvalue(), err.getvalue()


def rows_of(path):
    return list(csv.DictReader(Path(path).read_text().splitlines()))


@pytest.fixture(scope="module")
def searched(here):
    """A search that is interrupted by Ctrl-C after its first runs, and resumed by the same command."""
    bar = JobBar.sweep

    def pressing(*arguments):
        report = bar(*arguments)

        def progress(done, total, best):
            report(done, total, best)
            if done >= 10:
                signal.raise_signal(signal.SIGINT)

        return progress

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.MonkeyPatch.context() as narrow:
        narrow.setattr(
            "jaxopt_study.sweeps._execution._sweep.choose_width", lambda *_, **__: 1
        )  # many calls, to be interrupted between
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(JobBar, "sweep", pressing)
                interrupted = (*run(*SEARCH, *TINY), records.load("searched"))
        finally:
            signal.signal(signal.SIGINT, before)
        refused = run(*SEARCH, *TINY)
        chunks = {path.name: path.read_bytes() for path in Path("searched/journal").glob("chunk-*")}
        resumed = (*run(*SEARCH, *TINY, "--resume"), records.load("searched"))
        problem = problems.networks.mlp_classifier(problems.datasets.digits(), widths=(3,))
        whole = sweeps.search(
            optimizers.sgd, {"learning_rate": sweeps.log_uniform(1e-3, 1e30)}, problem, num_trials=8, num_seeds=2,
            num_steps=4, key=jax.random.key(0), metric="validation_accuracy", batch_size=16, evaluate_every=2,
            progress=False,
        )  # fmt: skip
    return {"interrupted": interrupted, "refused": refused, "chunks": chunks, "resumed": resumed, "whole": whole}


def test_an_interrupted_search_keeps_its_trials_and_says_how_to_go_on(searched):
    code, out, err, record = searched["interrupted"]
    assert (code, record.status) == (130, "interrupted")
    done = record.results["num_finished"]
    assert 0 < done < 8
    assert f"{done} of 8 trials have finished and are kept in searched" in err
    assert "--resume" in err
    assert out == ""


def test_a_folder_with_results_is_not_written_into_unasked(searched):
    code, _, err = searched["refused"]
    assert code == 2
    assert "is not empty. Name another folder with --out, or add --resume." in err


def test_the_resumed_search_equals_one_that_nobody_interrupted(searched, here):
    code, _, _, record = searched["resumed"]
    assert (code, record.status) == (0, "complete")
    assert searched["chunks"]
    assert all((here / "searched/journal" / name).read_bytes() == data for name, data in searched["chunks"].items())
    found = searched["whole"]
    best = record.results["best"]
    assert (best["trial"], best["config"]) == (found.best.trial, dict(found.best.config))
    assert best["scores"] == found.best.scores.tolist()
    rows = rows_of(here / "searched/trials.csv")
    losses = np.array([row["validation_loss"] for row in rows if row["diverged"] == "False"], np.float32)
    np.testing.assert_array_equal(losses, found.curves["validation_loss"][..., -1][~found.diverged])
    assert record.results["num_diverged"] == found.diverged.any(axis=1).sum() > 0


def test_a_search_prints_the_best_its_interval_and_what_cannot_be_told_from_it(searched):
    out, record = " ".join(searched["resumed"][1].split()), searched["resumed"][3]
    best = record.results["best"]
    assert "Best of 8 trials: learning_rate " in out
    low, high = (f"{end:.3f}".removeprefix("0") for end in best["interval"])
    assert f"validation accuracy {best['score']:.3f} ({low}–{high})".replace(" 0.", " .") in out
    others = len(record.results["may_be_best"]) - 1
    told = "1 other is" if others == 1 else f"{others} others are"
    assert f"{told} statistically indistinguishable from it" in out
    assert f"{record.results['num_diverged']} of 8 trials diverged" in out
    assert max(map(len, searched["resumed"][1].splitlines()[:-1])) <= 80


def test_a_search_writes_every_promised_file(searched, here):
    pictures = ["best-of-k.png", "hyperparameters.png", "top-loss.png", "top-accuracy.png"]
    promised = [*pictures, "trials.csv", "curves.csv", "record.json", "journal"]
    assert sorted(path.name for path in (here / "searched").iterdir()) == sorted(promised)  # one name: no parallel.png
    listed = searched["resumed"][1].split(" In searched: ")[1]
    assert all(name in listed for name in promised if name != "journal")
    for path in (here / "searched").glob("*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) >= 300
    curves = rows_of(here / "searched/curves.csv")
    assert len(curves) == 8 * 2 * 3
    assert {row["step"] for row in curves} == {"0", "2", "4"}


def test_the_record_of_a_search_says_what_was_searched_where(searched, here):
    record = searched["resumed"][3]
    assert record.kind == "search"
    searched_in = record.config["space"]["learning_rate"]
    assert (searched_in["kind"], searched_in["low"], searched_in["high"]) == ("log_uniform", 1e-3, 1e30)
    assert record.data_hash == problems.datasets.digits(seed=0).sha256
    assert record.environment["versions"]["jax"]
    assert str(here) not in (here / "searched/record.json").read_text()


def test_going_on_with_another_space_is_refused_and_says_what_differs(searched):
    other = [*SEARCH[:3], "learning_rate=log(1e-3, 1.0)", *SEARCH[4:]]
    code, _, err = run(*other, *TINY, "--resume")
    assert code == 2
    assert "config['space']['learning_rate']['high']: stored 1e+30, requested 1.0" in err


@pytest.mark.slow
def test_a_search_of_network_and_training_by_a_users_function(here):
    arguments = ["search", "mine_for_sweeps:mine", "--trials=3", "--metric=loss", "--out", "wide", *TINY]
    spaces = ["momentum=uniform(0.1, 0.9)", "initialiser=log(0.1, 1.0)", "weight_decay=log(1e-8, 1e-4)"]
    code, out, err = run(*arguments, *itertools.chain(*(("--space", space) for space in spaces)))
    assert code == 0, err
    rows = rows_of(here / "wide/trials.csv")
    assert len({row["initialiser"] for row in rows}) == 3
    starts = [row for row in rows_of(here / "wide/curves.csv") if row["step"] == "0"]
    assert len({row["validation_loss"] for row in starts}) == 3  # the initial scale arrives at the network
    assert (here / "wide/parallel.png").exists()
    assert "one seed: its error is unknown" in " ".join(out.split())


def test_when_every_trial_diverges_the_search_says_so_and_is_code_1(here):
    arguments = ["search", "sgd", "--space", "learning_rate=log(1e29, 1e30)", "--trials=2", "--out", "lost", *TINY]
    code, out, _ = run(*arguments)
    assert code == 1
    assert "All 2 trials diverged" in out
    assert records.load("lost").results["best"] is None
    assert not list((here / "lost").glob("*.png"))
    assert [row["diverged"] for row in rows_of(here / "lost/trials.csv")] == ["True", "True"]


@pytest.mark.slow
def test_a_search_can_be_halved(here):
    code, out, _ = run(
        "search", "sgd", "--trials=9", "--out", "halved", "--halve-from=2", "--steps=18", "--widths", "3",
        "--batch-size=16", "--evaluations=9",
    )  # fmt: skip
    assert code == 0
    assert sorted(int(row["num_steps"]) for row in rows_of(here / "halved/trials.csv")) == [2] * 6 + [6] * 2 + [18]
    assert "8 were stopped early by halving" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["search", "adamant"], "neither an optimizer or atom"),
        (["search", "sgd", "--trials=0"], "--trials must be at least 1"),
        (["search", "sgd", "--space", "learning_rate"], "has no name. Write NAME=KIND"),
        (["search", "sgd", "--space", "learning_rate=between(1, 2)"], "is not a range; expected log(low, high)"),
        (["search", "sgd", "--space", "learning_rate=log(2, 1)"], "expected finite low < high"),
        (["search", "sgd", "--space", "learning_rate=log(open('x'), 1)"], "neither a number nor a word"),
        (["search", "sgd", "--space", "a=log(1, 2)", "--space", "a=log(1, 2)"], "names 'a' twice"),
        (["search", "sgd", "--space", "decay=uniform(0, 1)"], "'sgd' needs learning_rate"),
        (["search", "sgd(0.1)", "--space", "decay=uniform(0, 1)"], "Unknown hyperparameter 'decay'"),
        (["search", "chain(sgd(0.1), sgd(0.1))"], "does not have exactly one learning_rate"),
        (["search", "mine_for_sweeps:bare"], "does not have exactly one learning_rate"),
        (["search", "mine_for_sweeps:stubborn"], "branches on learning_rate in Python"),
        (["search", "mine_for_sweeps:raises"], "fails with RuntimeError: the user's own mistake"),
        (["search", "sgd", "--space", "learning_rate=log(1, 2)", "--space", "batch_size=choices(8, 16)",
          "--sampler=grid", "--trials=3"], "grid"),
        (["search", "sgd", "--out", "mine_for_sweeps.py"], "is a file"),
        (["search", "sgd", "--out", "mine_for_sweeps.py/below"], "cannot be written"),
        (["search", "sgd", "--resume"], "--resume needs --out"),
        (["search", "sgd", "--batch-size=100000"], "at most 1197, the number of training examples"),
        (["search", "sgd", "--evaluations=0"], "--evaluations must be at least 1"),
        (["ablate", "adamant"], "neither an optimizer or atom"),
        (["ablate", "mine_for_sweeps:bare"], "bare Optax transformation"),
        (["ablate", "sgd(0.1)"], "'sgd(0.1)' is scale_by_learning_rate(0.1), from which nothing can be removed"),
        (["ablate", "sgd(0.1)", "--neutral", "eps"], "expected NAME=NUMBER"),
        (["ablate", "adam", "--neutral", "b3=0"], "matches no hyperparameters"),
        (["ablate", "chain(momentum(0.1), sgd(0.1))", "--budget=2"], "has 2. Name the hyperparameter to tune"),
        (["ablate", "adam", "--budget=-1"], "--budget must be at least 0"),
        (["ablate", "adam", "--out", "mine_for_sweeps.py/below"], "cannot be written"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_without_a_traceback_and_code_2(here, arguments, message):
    written = [] if "--out" in arguments or "--resume" in arguments else ["--out", "never"]
    command, *rest = arguments
    code, _, err = run(command, *TINY, *rest, *written)
    assert code == 2
    assert err.startswith("Error: ")
    assert "Traceback" not in err
    assert message in " ".join(err.split()), err
    assert not list(Path("never").glob("*.json"))
    for path in Path("never").rglob("*"):
        if path.is_file():
            path.unlink()


@pytest.fixture(scope="module")
def ablated(here):
    out = run("ablate", "momentum(0.5)", "--seeds=6", "--out", "ablated", *TINY)
    return *out, records.load("ablated")


def test_an_ablation_tells_what_each_change_costs(ablated, here):
    code, out, err, record = ablated
    assert code == 0, err
    names = [row["variant"] for row in record.results["variants"]]
    assert names[0] == "full"
    assert any(name.startswith("without heavy_ball") for name in names)
    table = {row["variant"]: row for row in rows_of(here / "ablated/contributions.csv")}
    assert list(table) == names
    scores = rows_of(here / "ablated/scores.csv")
    by_variant = {name: [float(row["score"]) for row in scores if row["variant"] == name] for name in names}
    for name in names[1:]:
        differences = np.array(by_variant[name]) - by_variant["full"]
        # Two variants, six seeds: ranks cannot reach 97.5% each, so the intervals are Student's.
        estimate, low, high = (float(table[name][column]) for column in ("loss", "loss_low", "loss_high"))
        assert estimate == pytest.approx(np.mean(differences), rel=1e-5, abs=1e-7)
        if np.ptp(differences):
            ends = stats.t.interval(0.975, 5, loc=np.mean(differences), scale=stats.sem(differences))
            np.testing.assert_allclose((low, high), ends, rtol=1e-5)
    rebuilt = [transforms.from_json(row["spec"]) for row in record.results["variants"]]
    assert explain_difference(rebuilt[0], optimizers.momentum(0.5)).step is None
    assert "without heavy_ball(0.9)" in out
    assert max(map(len, out.splitlines()[:-1])) <= 80


def test_an_ablation_writes_its_figure(ablated, here):
    promised = ["ablation.png", "contributions.csv", "journal", "record.json", "scores.csv"]
    assert sorted(path.name for path in (here / "ablated").iterdir()) == promised
    with Image.open(here / "ablated/ablation.png") as picture:
        assert min(picture.size) >= 300
    assert ablated[3].config["optimizer"] == "momentum(0.5)"


def test_an_ablation_goes_on_where_it_was_without_running_anything_again(ablated, here, monkeypatch):
    chunks = {path: path.read_bytes() for path in (here / "ablated/journal").rglob("chunk-*")}
    calls = []
    monkeypatch.setattr(JobBar, "sweep", lambda *_: lambda *progress: calls.append(progress))
    code, *_ = run("ablate", "momentum(0.5)", "--seeds=6", "--out", "ablated", "--resume", *TINY)
    assert code == 0
    assert all(done == total == 18 for done, total, _ in calls)  # nothing but what there was
    assert {path: path.read_bytes() for path in (here / "ablated/journal").rglob("chunk-*")} == chunks
    before, after = (row["loss"] for row in (ablated[3].results["variants"][1], records.load("ablated").results["variants"][1]))  # noqa: E501  # fmt: skip
    assert before == after


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["rate=log(1e-4,1)"], {"rate": sweeps.log_uniform(1e-4, 1)}),
        (["b1 = uniform(0.5, 0.99)"], {"b1": sweeps.uniform(0.5, 0.99)}),
        (["width=int(10, 100, log=True)"], {"width": sweeps.integers(10, 100, log=True)}),
        (["merge.chain[1].ema.decay=uniform(0, 1)"], {"merge.chain[1].ema.decay": sweeps.uniform(0, 1)}),
        (
            ["order=choices(reshuffle, 'with_replacement', None)"],
            {"order": sweeps.choices("reshuffle", "with_replacement", None)},
        ),
        (
            ["m=choices(a, b)", "x=uniform(0, 1) if m=a"],
            {"m": sweeps.choices("a", "b"), "x": sweeps.conditional(sweeps.uniform(0, 1), on="m", equals="a")},
        ),
        (
            ["n=int(1, 3)", "x=log(1, 2) if n == 2"],
            {"n": sweeps.integers(1, 3), "x": sweeps.conditional(sweeps.log_uniform(1, 2), on="n", equals=2)},
        ),
    ],
)
def test_a_space_is_the_one_it_reads_as(texts, expected):
    assert read_space(texts).describe() == Space(expected).describe()


def test_where_to_look_beyond_an_end_is_a_range_that_can_be_given():
    said = at_end("rate", sweeps.log_uniform(1e-4, 1e-2), "low", owner="adam.")
    text = re.search(r'--space "adam\.(.+)"', said)[1]
    assert read_space([text])["rate"] == sweeps.log_uniform(1e-5, 1e-2)
    assert "try" not in at_end("b1", sweeps.uniform(0.0, 1.0), "high")


def test_the_notes_optimizers_compete_at_the_notes_settings_over_equal_ranges():
    found = named_candidates((), ())
    assert list(found) == list(optimizers.network_optimizers())
    declared = {"rmsprop": (1e-5, 1.0), "adam": (1e-5, 1.0), "adadelta": (1e-2, 1e3)}
    for name, tx in optimizers.network_optimizers().items():
        candidate = found[name].network
        ours = found[name].with_settings(candidate.defaults)
        assert ours == tx if name != "adadelta" else explain_difference(ours, tx).step is None  # it has a factor more
        assert found[name].plane == optimizers.plane_optimizers()[name]
        low, high = declared.get(name, (1e-4, 10.0))
        assert candidate.space == Space({"learning_rate": sweeps.log_uniform(low, high)})
        assert low < candidate.defaults["learning_rate"] < high


def test_a_range_is_what_the_constructor_declares_however_the_optimizer_is_written():
    for maker in (read_maker("adam"), read_maker("adam(0.1)"), optimizers.adam(1e-3, convention="torch")):
        assert default_space(maker) == Space({"learning_rate": sweeps.log_uniform(1e-5, 1.0)})
    for maker in (read_maker("optax.adam"), read_maker("chain(ema(0.9), sgd(0.1))"), optimizers.lion):
        assert default_space(maker) == Space({"learning_rate": sweeps.log_uniform(*ANY_RANGE)})


def test_a_users_optimizer_is_tuned_if_it_has_a_learning_rate(here):
    found = named_candidates(
        ["sgd"], [f"mine_for_sweeps:{name}" for name in ("mine", "must", "bare")],
        ["mine.momentum=uniform(0, 0.99)", "sgd.learning_rate=log(1, 2)"],
    )  # fmt: skip
    assert list(found) == ["sgd", "mine", "must", "bare"]
    assert found["sgd"].network.space == Space({"learning_rate": sweeps.log_uniform(1, 2)})
    assert found["mine"].network.names == ("momentum",)
    assert found["mine"].network.defaults == {"momentum": 0.9}
    assert found["must"].network.space == Space({"learning_rate": sweeps.log_uniform(*ANY_RANGE)})
    assert (found["must"].network.defaults, found["must"].plane) == (None, None)
    assert found["bare"].network.space is None
    assert found["mine"].plane is not None


def test_what_can_be_searched_is_a_function_or_what_prints_its_paths():
    assert read_maker("adam") is optimizers.adam
    assert read_maker("adam(1e-3)").hyperparams["b1"] == 0.9
    wrapped = read_maker("optax.adam")
    assert wrapped(0.5).hyperparams["learning_rate"] == 0.5
    with pytest.raises(UserError, match="Functions there"):
        read_maker("optax:absent")


def lines_of(monkeypatch, calls, *stages):
    """Return what a bar says of (time, done, total, best) where there is no terminal."""
    console, now = Console(file=io.StringIO(), width=200), [0.0]
    monkeypatch.setattr("jaxopt_study.cli._progress.Console", lambda **_: console)
    monkeypatch.setattr("jaxopt_study.cli._progress.time.perf_counter", lambda: now[0])
    with JobBar() as bar:
        progress = bar.sweep("digits", "loss", *stages)
        for at, *call in calls:
            now[0] = at
            progress(*call)
    return console.file.getvalue().splitlines()


def test_progress_names_the_stage_the_best_and_the_time_left(monkeypatch):
    calls = [
        (10, 2, 10, 0.5),
        (20, 4, 10, 0.4),
        (45, 8, 10, 0.3),
        (50, 10, 10, 0.2),
        (60, 2, 20, 0.1),
        (61, 20, 20, 0.05),
    ]
    assert lines_of(monkeypatch, calls, ("tuning", 10), ("reporting", 20)) == [
        "digits, tuning: 8 of 10 runs, best loss 0.3, 0:12 left",  # six runs took 35 s
        "digits, tuning: 10 of 10 runs, best loss 0.2",
        "digits, reporting: 20 of 20 runs, best loss 0.05",
    ]


@pytest.mark.parametrize(
    ("calls", "stages", "names"),
    [
        ([(1, 20, 20, 0.1)], [("tuning", 10), ("reporting", 20)], ["reporting"]),  # all tuned before
        ([(1, 5, 5, 0.1), (2, 5, 5, 0.1)], [("tuning", 5), ("reporting", 5)], ["tuning", "reporting"]),
        ([(1, 9, 9, 0.1), (2, 3, 3, 0.1)], [("searching", 9)], ["searching", "searching"]),  # rungs of a halving
    ],
)
def test_progress_knows_stages_by_their_size(monkeypatch, calls, stages, names):
    said = lines_of(monkeypatch, calls, *stages)
    assert [line.split(", ")[1].split(":")[0] for line in said] == names


def test_commands_use_every_core_unless_told_otherwise(monkeypatch):
    asked, values = [], {"jax_num_cpu_devices": 3}
    monkeypatch.setattr(sweeps, "use_cpu_cores", lambda: asked.append(True))
    monkeypatch.setattr(_network, "jax", SimpleNamespace(config=SimpleNamespace(values=values)))
    _network.use_all_cores()
    assert not asked
    values["jax_num_cpu_devices"] = -1  # nothing said
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    _network.use_all_cores()
    assert not asked
    monkeypatch.delenv("XLA_FLAGS")
    _network.use_all_cores()
    assert asked


@pytest.mark.parametrize(
    ("losses", "within"),
    [
        ([(0.5, 0.4, 0.6), (0.0, -0.1, 0.1)], None),  # all of a size
        ([(50.0, 49.9, 50.1), (0.0, -0.1, 0.1)], 0.1),
        ([(np.inf, 3.0, np.inf), (0.0, -0.1, 0.1)], 0.1),
        ([(3.0, -np.inf, np.inf), (1.0, 1.0, 1.0)], None),  # no interval has a width
    ],
)
def test_small_contributions_are_seen_beside_large_ones(losses, within):
    assert linear_within(losses) == (None if within is None else pytest.approx(within))
    figure = figures.ablation(["a", "b"], losses, xlabel="loss", linear_within=within)
    assert figure.axes[0].get_xscale() == ("linear" if within is None else "symlog")
    left, right = figure.axes[0].get_xlim()
    ends = [end for row in losses for end in row if np.isfinite(end)]
    assert left < min(ends) <= max(ends) < right


def test_the_axis_of_accuracies_leaves_room_below_the_worst():
    curves = [np.array([[0.1, 0.98]]), np.array([[0.1, 0.96], [0.1, np.nan]])]
    assert accuracy_floor(curves) == pytest.approx(0.9)
    assert accuracy_floor([np.array([[np.nan]])]) == 0.0
    assert accuracy_floor([np.array([[0.5, 1.0]])]) < 1.0  # the axis ends there


@pytest.mark.slow
def test_on_several_devices_everything_works_from_the_shell(tmp_path):
    def shell(*arguments):
        command = [sys.executable, "-m", "jaxopt_study", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    environment = {"PATH": "/usr/bin:/bin", "JAX_NUM_CPU_DEVICES": "3", "JAX_PLATFORMS": "cpu"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1])
    shell("search", "sgd", "--trials=7", "--out", "searched", *TINY)
    layout = json.loads((tmp_path / "searched/record.json").read_text())["results"]["layout"]
    assert layout["axes"] == {"trials": 3}
    shell("ablate", "momentum(0.1)", "--seeds=2", "--out", "ablated", *TINY)
    shell("compare", "--only", "sgd", "--budget=2", "--seeds=2", "--probe=curvature", "--out", "compared", *TINY)
    quick = ["--num-probes=2", "--num-steps=4", "--num-eigenpairs=2", "--trace-probes=2"]
    assert "sgd, tuned, start 1" in shell("curvature", "compared", "--start=1", "--out", "diagnosed", *quick)
    assert "updates agree" in shell("explain", "adam", "optax.adam(1e-3)")


def test_help_describes_every_option(capsys):
    for command, words in {
        "search": (
            "NAME=log(low, high)",
            "--trials INT",
            "--halve-from",
            "journal/",
            "(default: 100)",
            "module:function",
        ),
        "ablate": ("--neutral", "contributions.csv", "(default: 10)", "--budget"),
    }.items():
        with pytest.raises(SystemExit) as caught:
            main([command, "--help"])
        assert caught.value.code == 0
        shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
        for word in words:
            assert word in shown, word
        assert "None" not in shown


def test_a_chain_of_which_only_the_learning_rate_is_left_is_called_what_it_is():
    named = {
        variant.name: _ablate_report._named(variant)
        for chain in (optimizers.adam(1e-3), optimizers.momentum(0.1))
        for variant in variants_of(chain)
    }
    plain = {name for name, shown in named.items() if shown != name}
    assert plain == {"without merge", "without heavy_ball(0.9)"}
    assert named["without merge"] == "without merge (plain SGD)"
