"""Every notebook runs from top to bottom in a fresh kernel, and is committed as it runs."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text(notebook):
    """Return what a notebook prints and shows as text, cell by cell, without the addresses of objects."""
    return [
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in outputs(notebook)
        if output.output_type in {"stream", "execute_result"}
    ]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs_and_prints_what_is_committed(path):
    notebook = nbformat.read(path, as_version=4)
    committed = text(notebook)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": path.parents[1]}}
    ).execute()
    errors = [output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"]
    assert errors == []
    assert len(text(notebook)) == len(committed)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))  # run once, in order
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert path.stat().st_size < 600_000
