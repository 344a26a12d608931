"""The progress bar, and what it costs."""

import io
from contextlib import redirect_stderr, redirect_stdout
from types import SimpleNamespace

import jax
import nbformat
import optax
import pytest
from nbclient import NotebookClient

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


def test_a_short_run_shows_nothing(bowl, monkeypatch):
    monkeypatch.setattr("jaxopt_study._progress_bar.time", SimpleNamespace(perf_counter=lambda: 0.0))
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


NOTEBOOK = [
    """
import time

import jax
import optax
from jaxopt_study import problems, training
from jaxopt_study._progress_bar import Bar

with Bar(None, "<sweep>") as sweep:
    sweep(1, 3, 0.5)  # a short run so far
    sweep._began -= 10.0
    for done in (2, 3):
        sweep(done, 3, 0.25)
        with Bar(True, "loader") as loader:
            time.sleep(0.15)
            loader.move(7, None, "batches")
print("ended")
""",
    """
bowl = problems.planar.bowl()
training.train(bowl, optax.sgd(0.1), num_steps=20, key=jax.random.key(0), progress=True).losses[-1]
""",
    """
with Bar(False, "hidden") as hidden:
    hidden(1, 1, 0.5)
""",
]


class Watcher(NotebookClient):
    """A client that keeps what each cell showed, also what was replaced later."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] in {"display_data", "update_display_data"}:
            self.seen.setdefault(cell_index, []).append(msg["content"]["data"]["text/html"])
        return super().process_message(msg, cell, cell_index)


def test_a_long_run_shows_its_bar_in_a_notebook_and_leaves_nothing():
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in NOTEBOOK])
    client = Watcher(notebook, timeout=300, kernel_name="python3")
    client.seen = {}
    client.execute()
    sweep, train = client.seen[0], client.seen[1]
    assert "&lt;sweep&gt;" in sweep[0]
    assert 'value="2" max="3"' in sweep[0]
    assert any("loader <progress></progress> 7/?" in html and "&lt;sweep&gt;" in html for html in sweep)  # two lines
    assert any("3/3" in html and "best" not in html for html in sweep)
    assert "20/20" in train[-2]
    assert "bowl" in train[-2]
    assert 2 not in client.seen
    left = [[(output.output_type, output.get("name")) for output in cell.outputs] for cell in notebook.cells]
    assert left == [
        [("display_data", None), ("stream", "stdout")],
        [("display_data", None), ("execute_result", None)],
        [],
    ]
    assert [notebook.cells[number].outputs[0].data["text/html"] for number in (0, 1)] == ["", ""]


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
