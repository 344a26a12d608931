"""Every notebook runs from top to bottom in a fresh kernel, and is committed as it runs."""

import os
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?")
TIME = re.compile(r"(?<![\w.])\d[\d.,]* (?:µs|ms|s|min|h)\b")
ROOT = Path(__file__).parents[1]
NOTEBOOKS = [
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
    *sorted((ROOT / "docs" / "gallery").glob("*.ipynb")),
]
LONG = {
    "figures",
    "01_compose_an_optimizer",
    "03_hessian_diagnostics",
    "04_fair_comparison",
    "05_reading_a_loss_curve",
    "06_your_own_training_loop",
    "07_saddles",
    "08_edge_of_stability",
    "09_language_model",
    "10_search_as_one_program",
    "11_ablate_an_optimizer",
}


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def text(notebook):
    """Return what each cell of a notebook prints and shows as text, without measured times."""
    return [
        TIME.sub(
            "",
            "".join(
                output.get("text", "") or output.get("data", {}).get("text/plain", "")
                for output in cell.outputs
                if output.output_type in {"stream", "execute_result"}
            ),
        )
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]


def words(shown):
    """Return a text with its numbers taken out, and the spaces that align them."""
    return " ".join(NUMBER.sub("#", shown).split())


def numbers(shown):
    """Return the numbers of a text, each with what another machine's rounding may change of it.

    That is 2 % (training amplifies the rounding of float32), or one unit of the last printed digit of a decimal or a
    percentage; 5 % of a count, which is exact below 20; and four times what follows ± or "noise floor", which may be
    rounding itself. What is below 1e-12 is nothing but rounding.
    """
    found = []
    for match in NUMBER.finditer(shown):
        digits, _, exponent = match[0].partition("e")
        decimals = len(digits.partition(".")[2])
        rounded = "." in digits or exponent or shown[match.end() :].startswith("%")
        unit = 10.0 ** (int(exponent or 0) - decimals) if rounded else 0.0
        value = float(match[0])
        is_error = shown[: match.start()].rstrip().endswith(("±", "noise floor"))
        share = 4.0 if is_error else 0.02 if rounded else 0.05
        found.append((value, max(share * abs(value), 1.01 * unit, 1e-12)))
    return found


def differences(committed, shown, *, varies=False):
    """Return where two texts differ by more than another machine's rounding; no entry where they agree.

    In a cell with the tag "varies" only the words have to agree: training at large rates amplifies rounding without
    bound, and which of two good trials is the better one is then another machine's choice.
    """
    if words(committed) != words(shown):
        return [(committed, shown)]
    if varies:
        return []
    pairs = zip(numbers(committed), numbers(shown), strict=True)
    return [(before, now) for (before, allowed), (now, _) in pairs if not abs(before - now) <= allowed]


@pytest.mark.parametrize(
    ("committed", "shown", "same"),
    [
        ("loss 9.16e-04 at step 12", "loss 9.25e-04 at step 12", True),
        ("loss 9.16e-04", "loss 9.60e-04", False),
        ("clipped 9% of the steps", "clipped 10% of the steps", True),
        ("clipped 9% of the steps", "clipped 11% of the steps", False),
        ("The updates first differ at step 1", "The updates first differ at step 2", False),
        ("step 1 1.00", "step 1 1.01", True),
        ("gap 7e-15", "gap 3e-14", True),
        ("2.31 ± 1e-05", "2.31 ± 4e-05", True),
        ("2.31 ± 1e-05", "2.31 ± 1e-03", False),
        ("noise floor 3.3e-07", "noise floor 5.9e-07", True),
        ("2.31 ± 1e-05", "2.41 ± 1e-05", False),
        ("213 products", "219 products", True),
        ("213 products", "240 products", False),
        ("gap 7e-15", "gap 3e-9", False),
        ("rate 0.95", "rate nan", False),
        ("True", "False", False),
        ("ema(0.9)", "ema(0.9), ema(0.9)", False),
    ],
)
def test_texts_are_compared_up_to_rounding(committed, shown, same):
    assert (differences(committed, shown) == []) is same


def test_cells_that_vary_are_compared_in_their_words():
    assert differences("best: trial 12, 0.3 nats", "best: trial 7, 0.2 nats", varies=True) == []
    assert differences("best: trial 12", "no trial", varies=True) != []


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


def test_measured_times_are_not_compared():
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("stream", text="In 1.2 s, ran in 3 min; 5 steps")])
    assert text(nbformat.v4.new_notebook(cells=[cell])) == ["In , ran in ; 5 steps"]


def test_the_index_lists_every_notebook():
    index = (Path(__file__).parents[1] / "notebooks" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\((\w+)\.ipynb\)", index)) == [
        path.stem for path in NOTEBOOKS if path.parent.name == "notebooks"
    ]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=pytest.mark.slow if path.stem in LONG else []) for path in NOTEBOOKS],
)
def test_notebook_runs_and_prints_what_is_committed(path, monkeypatch):
    # As a reader runs it: the settings of `conftest.py` have another rounding, which training amplifies.
    monkeypatch.delenv("JAX_DISABLE_MOST_OPTIMIZATIONS")
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if flag != "--xla_cpu_use_fusion_emitters=false"]
    monkeypatch.setenv("XLA_FLAGS", " ".join(flags))  # a variable of spaces alone would be read as a file's name
    notebook = nbformat.read(path, as_version=4)
    committed = text(notebook)
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": ROOT}}).execute()
    errors = [output for output in outputs(notebook) if output.output_type == "error" or output.get("name") == "stderr"]
    assert errors == []
    now = text(notebook)
    assert len(now) == len(committed)
    varies = ["varies" in cell.metadata.get("tags", []) for cell in notebook.cells if cell.cell_type == "code"]
    found = [differences(*cell, varies=each) for *cell, each in zip(committed, now, varies, strict=True)]
    assert found == [[]] * len(now)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_committed_with_its_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))  # run once, in order
    assert any("image/png" in output.get("data", {}) for output in outputs(notebook))
    assert path.stat().st_size < (600_000 if path.parent.name == "notebooks" else 1_200_000)  # a gallery is pictures
