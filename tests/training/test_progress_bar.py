"""The progress bar, and what it costs."""

import io
from contextlib import redirect_stderr, redirect_stdout

import jax
import optax
import pytest

from jaxopt_study._progress_bar import Bar
from jaxopt_study.cli._progress import JobBar
from jaxopt_study.training import train

KEY = jax.random.key(0)


class Screen(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


def test_a_short_run_shows_nothing(bowl):
    with redirect_stderr(Screen()) as err, redirect_stdout(Screen()) as out:
        train(bowl, optax.sgd(0.1), num_steps=20, key=KEY)
    assert err.getvalue() == out.getvalue() == ""


def test_a_forced_bar_names_the_problem_and_its_loss(bowl):
    with redirect_stderr(Screen()) as screen:
        train(bowl, optax.sgd(0.1), num_steps=20, key=KEY, progress=True)
    assert "bowl" in screen.getvalue()
    assert "20/20" in screen.getvalue()


def test_a_long_run_shows_a_bar_if_somebody_is_looking():
    with redirect_stderr(Screen()) as screen, Bar(None, "slow") as bar:
        bar(1, 3, 0.5)
        assert bar._bar is None
        bar._began -= 2.5  # seconds
        bar(2, 3, 0.25)
        assert bar._bar is not None
    assert "slow" in screen.getvalue()


def test_a_long_run_shows_nothing_in_a_pipe():
    with redirect_stderr(io.StringIO()) as pipe, Bar(None, "slow") as bar:
        bar._began -= 10.0
        bar(1, 3, 0.5)
        bar(2, 3, 0.5)
    assert pipe.getvalue() == ""


def test_false_hides_the_bar_of_any_run():
    with redirect_stderr(Screen()) as screen, Bar(False, "slow") as bar:
        bar._began -= 10.0
        bar(1, 3, 0.5)
    assert screen.getvalue() == ""


def test_reports_come_seldom_enough_to_cost_nothing(bowl):
    calls = []
    train(bowl, optax.sgd(1e-4), num_steps=20_000, key=KEY, progress=lambda done, total, loss: calls.append(done))
    assert calls == sorted(set(calls))
    assert calls[-1] == 20_000
    assert len(calls) < 12  # 1, 16, 256, 4096 steps, then as many as a part holds


def test_a_job_of_the_command_line_has_a_bar_at_a_terminal_and_lines_elsewhere():
    said = {}
    for stream in (Screen(), io.StringIO()):
        with redirect_stderr(stream), JobBar() as bar:
            bar.begin("sgd", 1, 3)
            bar.move("adam", 2, 3, "two products")
            bar.line("sgd: 1.0 s")
        said[stream.isatty()] = stream.getvalue()
    assert all(text in said[True] for text in ("adam", "2/3", "two products"))
    assert "1.0 s" not in said[True]
    assert said[False] == "sgd: 1.0 s\n"
