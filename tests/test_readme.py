"""The code in the README runs as it stands, in its order, and prints what the README says."""

import re
from pathlib import Path

import numpy as np

from tests import code_blocks

README = Path(__file__).parents[1] / "README.md"


def test_the_code_runs_and_prints_what_it_shows(capsys):
    names = {}
    blocks = code_blocks.blocks(README)
    shown = [text for language, text in blocks if language == "text"]
    for number, (language, code) in enumerate(blocks):
        if language == "python":
            code_blocks.run(code, names, where=f"README.md, block {number}")
            if number == 0:
                printed = capsys.readouterr().out
                sentence, _, accuracies = shown[0].partition("\n")
                ours, _, theirs = printed.partition("\n")
                assert ours == sentence
                numbers = [np.array(text.strip(" \n[]").split(), dtype=float) for text in (theirs, accuracies)]
                assert numbers[0].shape == numbers[1].shape
                np.testing.assert_allclose(
                    numbers[0][1:], numbers[1][1:], atol=0.05
                )  # another machine rounds otherwise


def test_the_code_in_contributing_prints_what_it_shows(capsys):
    text = (README.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code, shown = re.search(r"```python\n(.*?)```\n\n    (.*?)\n", text, flags=re.DOTALL).groups()
    exec(compile(code, "CONTRIBUTING.md", "exec"), {})  # ours, too
    assert capsys.readouterr().out.strip() == shown


def test_every_file_that_contributing_names_exists():
    text = (README.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:jaxopt_study|tests|experiments)/[\w/.]+)`", text))
    assert len(named) > 12
    assert [name for name in named if "NAME" not in name and not (README.parent / name).exists()] == []


def test_its_links_and_pictures_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text(encoding="utf-8"))
    missing = [target for target in targets if "://" not in target and not (README.parent / target).exists()]
    assert not missing
    assert any(target.endswith(".png") for target in targets)


def test_every_make_target_it_names_exists():
    named = set(re.findall(r"\bmake ([a-z-]+)", README.read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", (README.parent / "Makefile").read_text(), flags=re.MULTILINE))
    assert named <= targets
    assert {"study", "test"} <= named


def test_the_rows_of_the_benchmarks_are_those_of_the_stored_results(monkeypatch):
    folder = README.parent / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    import overview

    text = (folder / "README.md").read_text(encoding="utf-8")
    assert overview.written(text) == text
    assert len(overview.ratios()) > 20
    assert overview.written(text.replace(" yes |", " **no** |")) == text  # what is stored, whatever stood there
