"""Signals: SIGTERM keeps what is finished as Ctrl-C does, and whoever interrupts does not wait."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from jaxopt_study import records
from jaxopt_study.cli import _folders as folders
from jaxopt_study.cli import main
from jaxopt_study.cli._errors import UserError
from jaxopt_study.cli._folders import results_folder
from jaxopt_study.cli._progress import JobBar
from jaxopt_study.cli._signals import termination
from jaxopt_study.sweeps._execution._interruptible_wait import GRACE, GaveUpError, wait_until
from jaxopt_study.training._python_loop import interrupts

TINY = ["--steps=4", "--widths", "3", "--batch-size=16", "--evaluations=2"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield tmp_path
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("ignored", [False, True])
def test_sigterm_keeps_the_finished_trials_and_exits_with_143(here, monkeypatch, capsys, ignored):
    """A process in the background of a shell's script has Ctrl-C ignored, and SIGTERM must work all the same."""
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sweep, sent = JobBar.sweep, []

    def terminating(self, *arguments):
        inner = sweep(self, *arguments)

        def progress(done, total, best):
            inner(done, total, best)
            if not sent:
                sent.append(done)
                signal.raise_signal(signal.SIGTERM)

        return progress

    monkeypatch.setattr(JobBar, "sweep", terminating)
    monkeypatch.setattr("jaxopt_study.sweeps._execution._sweep.choose_width", lambda *args, **options: 1)
    arguments = ["search", "sgd", "--trials=20", "--out", "out", *TINY]
    assert main(arguments) == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    told = capsys.readouterr().err
    assert "Interrupted." in told
    assert "--resume" in told
    assert records.load("out").status == "interrupted"
    assert list(here.glob("out/journal/chunk-*.npz"))


def test_sigterm_interrupts_a_command_that_has_nothing_to_keep(here, monkeypatch, capsys):
    monkeypatch.setattr(
        "jaxopt_study.cli._listings.list_problems", lambda options, job: signal.raise_signal(signal.SIGTERM)
    )
    assert main(["problems"]) == 143
    assert "Interrupted." in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_that_python_swallows_comes_again(here, monkeypatch, number, code):
    """Exceptions in callbacks of the garbage collector, of which JAX has one, are ignored."""

    class Swallowing:
        def __del__(self):
            signal.raise_signal(number)

    def run(options, job):
        swallowing = Swallowing()
        del swallowing
        began = time.perf_counter()
        while time.perf_counter() - began < 5:
            time.sleep(0.01)
        return 0

    monkeypatch.setattr("jaxopt_study.cli._listings.list_problems", run)
    assert main(["problems"]) == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_while_the_command_line_is_imported_is_answered(here, number, code):
    """The imports take seconds, and JAX's callback of the garbage collector is there after the first of them."""
    script = (
        "import signal, sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name == 'flax': signal.raise_signal({int(number)})\n"
        "sys.meta_path.insert(0, Finder())\n"
        "sys.argv = ['jaxopt-study', 'problems']\n"
        "from jaxopt_study.cli import main\n"
        "assert 'jax' not in sys.modules\n"
        "sys.exit(main())"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (code, "Interrupted.\n")


def test_a_programs_own_idea_of_sigterm_stays(here):
    own = lambda number, frame: None
    before = signal.signal(signal.SIGTERM, own)
    try:
        with termination() as terminated, interrupts() as pressed:
            signal.raise_signal(signal.SIGTERM)
            assert not terminated()
            assert not pressed()
        assert signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)
    with interrupts():  # a library installs nothing that the program has not asked for
        assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_held_back_and_the_second_acts_at_once(here, first, second):
    with termination() as terminated:
        with interrupts() as pressed:
            signal.raise_signal(first)
            assert pressed()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(second)
        assert terminated() == (signal.SIGTERM in {first, second})


def test_in_another_thread_no_handler_is_touched():
    def work():
        with termination() as terminated:
            found.append((terminated(), signal.getsignal(signal.SIGTERM)))

    found, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, before)]


def test_nobody_waits_for_a_compilation_after_an_interrupt():
    endless: Future = Future()
    began = time.perf_counter()
    with pytest.raises(GaveUpError):
        wait_until(endless.done, lambda: time.perf_counter() - began > 0.2)
    assert time.perf_counter() - began < 0.2 + GRACE + 0.5
    endless.set_result(3)
    wait_until(endless.done, lambda: True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "sgd", "--space", "nothing=log(1e-3, 1)", *TINY],
        ["search", "sgd", "--space", "learning_rate=log(1e-3, 1)", "--space", "width=uniform(1.0, 2.0)", *TINY],
        ["search", "optax.sgd", "--halve-from=100", *TINY],
        ["search", "sgd", "--batch-size=100000"],
        ["search", "absent:absent"],
        ["ablate", "adam(1e-3)", "--neutral", "nothing=0", *TINY],
        ["ablate", "adam(1e-3)", "--budget=2", "--space", "nothing=log(1e-3, 1)", *TINY],
        ["compare", "--only", "sgd", "--space", "sgd.nothing=log(1e-3, 1)", *TINY],
        ["compare", "--only", "nobody", *TINY],
        ["compare", "--data=mnist", "--data-dir=nowhere", *TINY],
        ["curvature", "absent:absent"],
    ],
    ids=lambda arguments: " ".join(arguments[:4]),
)
def test_a_refused_command_line_leaves_no_folder(here, capsys, monkeypatch, arguments):
    monkeypatch.setattr("jaxopt_study.cli._compare.plane_runs", lambda *args: [])
    for out in ([], ["--out", "new/deep/out"]):
        assert main([*arguments, *out]) == 2
        assert capsys.readouterr().err.startswith("Error: ")
        assert not list(here.iterdir())


def test_a_refusal_takes_away_what_it_made_and_nothing_else(tmp_path):
    def refuse(folder, *names):
        with pytest.raises(UserError):
            refused(folder, names)

    def refused(folder, names):
        with results_folder(folder):
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text("x")
            raise UserError("no")

    refuse(tmp_path / "new" / "out", "parts/a.json", "journal/.lock")
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine").mkdir()
    refuse(tmp_path / "mine" / "out", "record.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]
    refuse(tmp_path / "mine", "record.json")
    assert not list((tmp_path / "mine").iterdir())
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    refuse(tmp_path / "mine", "record.json")
    assert (tmp_path / "mine" / "thesis.tex").exists()
    refuse(tmp_path / "kept", "journal/chunk-00000.npz")
    assert (tmp_path / "kept" / "journal" / "chunk-00000.npz").exists()


def test_a_refusal_takes_away_nothing_of_a_command_that_began_in_the_same_moment(tmp_path, monkeypatch):
    folder, make = tmp_path / "out", folders.make_folder
    other = results_folder(folder)

    def make_second(path):  # both have seen that there is no folder; the other is first to make it
        monkeypatch.setattr(folders, "make_folder", make)
        other.__enter__()
        (folder / "study.json").write_text("x")
        make(path)

    monkeypatch.setattr(folders, "make_folder", make_second)
    with pytest.raises(UserError, match="in use"), results_folder(folder):
        pytest.fail("two commands in one folder")
    assert (folder / "study.json").read_text() == "x"
    other.__exit__(None, None, None)
    with pytest.raises(UserError, match="no"), results_folder(folder):  # nobody is in it, and it is another's work
        raise UserError("no")
    assert (folder / "study.json").exists()


@pytest.mark.parametrize("out", ["\0", "x" * 300, "file", "file/below", "/proc/no/out", "~nobody-of-this-name/x"])
@pytest.mark.parametrize("command", [["search", "sgd"], ["ablate", "adam"], ["compare"], ["curvature", "os:sep"]])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_done(here, capsys, command, out):
    (here / "file").write_text("mine")
    assert main([*command, "--out", out]) == 2
    assert capsys.readouterr().err.startswith("Error: ")
    assert [entry.name for entry in here.iterdir()] == ["file"]
    assert (here / "file").read_text() == "mine"


LARGE = """
import sys
from jaxopt_study.cli import main
sys.argv[0] = "jaxopt-study"
print("begun", flush=True)
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "after", "number", "code"),
    [
        ("search", 2.0, signal.SIGTERM, 143),
        ("search", 12.0, signal.SIGINT, 130),
        ("compare", 8.0, signal.SIGINT, 130),
        ("compare", 16.0, signal.SIGTERM, 143),
    ],
)
def test_a_process_answers_within_two_seconds_whatever_it_does(tmp_path, command, after, number, code):
    large = ["--steps=200000", "--widths", "512", "512", "512", "--batch-size=1000", "--out", "out"]
    named = {"search": ["sgd", "--trials=4"], "compare": ["--only", "sgd", "--seeds=2", "--budget=2"]}[command]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "JAX_PLATFORMS": "cpu"}
    arguments = [sys.executable, "-c", LARGE, command, *named, *large]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(arguments, cwd=tmp_path, env=environment, **pipes) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"
            time.sleep(after)
            began = time.perf_counter()
            process.send_signal(number)
            process.wait(timeout=60)
            seconds = time.perf_counter() - began
        finally:
            process.kill()
        told = process.communicate()[1]
    assert process.returncode == code, told
    assert seconds < 2 + 1.5 * os.getloadavg()[0] / (os.cpu_count() or 1)  # on a machine that is shared


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
@pytest.mark.parametrize("command", [["optimizers"], ["explain", "--help"]])
def test_output_that_cannot_be_written_is_said_in_a_line(command):
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "jaxopt_study", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: The output could not be written: No space left"), ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("end", "code"), [("| head -c 10; exit ${PIPESTATUS[0]}", (0, 1)), (">&-", (0,))])
def test_readers_may_leave_without_a_traceback(end, code):
    line = f"{sys.executable} -m jaxopt_study search --help {end}"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert ended.returncode in code
    assert not ended.stderr


def test_a_result_that_does_not_fit_is_named_and_what_had_finished_is_kept(here, capsys, monkeypatch):
    command = ["ablate", "momentum(0.1)", *TINY, "--seeds=2", "--out=out"]
    replace = os.replace

    def full(draft, path):
        if Path(path).suffix == ".png":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(draft, path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        assert main(command) == 1
    assert "ablation.png could not be written: No space left" in capsys.readouterr().err
    assert list(here.rglob("chunk-*.npz"))
    assert main([*command, "--resume"]) == 0
