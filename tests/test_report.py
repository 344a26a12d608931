"""The page of the study: self-contained, its links lead somewhere, and it shows what is stored."""

import base64
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from experiments import __main__ as command_line
from experiments.claims import Claim, Control, Expectation, exact
from experiments.experiment import Experiment, discover, execute
from experiments.report import page
from experiments.statements import FOUND, NOTES, STATEMENTS
from jaxopt_study.records import save

STORED = Path(command_line.__file__).parent / "results"


class Page(HTMLParser):
    """Elements with their attributes, and whether tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "img", "br", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def attributes(self, tag, name):
        return [attrs[name] for found, attrs in self.elements if found == tag and name in attrs]


@dataclass(frozen=True)
class Nothing:
    size: int = 1


def claim(statement, measured):
    region = Expectation(1.0, 2.0, "a <source> & another")
    return Claim(statement, exact(measured), region, Control("outside", exact(9.0)), "a remark")


def one(statement="it is so", measured=1.5):
    return Experiment(
        "Is <this> so?", {"smoke": Nothing()}, lambda config, data_dir: {}, lambda record: [claim(statement, measured)],
        lambda record: {"picture": Figure()}, chapter="Tests",
    )  # fmt: skip


@pytest.fixture(scope="module")
def study():
    return page(discover(), STORED)


def test_the_page_of_the_study_needs_nothing_else_and_its_links_lead_somewhere(study):
    found = Page(study)
    assert not found.open
    ids = found.attributes("section", "id")
    assert len(ids) == len(set(ids)) == len(discover())
    assert {link.removeprefix("#") for link in found.attributes("a", "href")} <= set(ids)
    assert not re.search(r"""(src|href)=["']?(https?:|//)|@import|url\(""", study)
    assert str(Path.cwd()) not in study
    assert all(words in Page(study).text for words in FOUND.values())


def test_its_images_are_the_stored_figures(study):
    images = Page(study).attributes("img", "src")
    stored = sorted(path.read_bytes() for path in STORED.glob("*/*.png"))
    assert sorted(base64.b64decode(image.removeprefix("data:image/png;base64,")) for image in images) == stored
    assert len(Page(study).attributes("img", "alt")) == len(images)


def test_every_experiment_names_a_statement_and_what_it_found_and_every_note_is_examined():
    assert STATEMENTS.keys() == FOUND.keys() == discover().keys()
    assert {note for statements in STATEMENTS.values() for note, _ in statements} == NOTES.keys()


@pytest.mark.parametrize(("measured", "verdict"), [(1.5, "PASS"), (3.0, "FAIL")])
def test_a_claim_is_shown_with_measurement_expectation_and_control(tmp_path, measured, verdict):
    experiment = one("x < y & z", measured)
    execute("one", experiment, "smoke", out=tmp_path)
    found = Page(page({"one": experiment}, tmp_path))
    for words in ("Is <this> so?", "x < y & z", f"{measured:g}", "a <source> & another", "a remark", f"1 {verdict}"):
        assert words in found.text
    assert "python -m experiments run one --preset smoke --check" in found.text
    assert len(found.attributes("img", "src")) == 1


def test_an_experiment_without_a_record_is_listed_with_its_command(tmp_path):
    found = Page(page({"one": one(), "two": replace(one(), chapter="Others")}, tmp_path))
    assert found.attributes("section", "id") == ["one", "two"]
    assert "No record yet" in found.text
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "record.json").write_text("{}")
    assert "does not hold" in Page(page({"one": one()}, tmp_path)).text


def test_the_command_writes_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command_line, "discover", lambda: {"one": one()})
    target = tmp_path / "deep" / "study.html"
    assert command_line.main(["report", "--out", str(tmp_path), "--to", str(target)]) == 0
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert command_line.main(["report", "--out", str(tmp_path), "--to", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"preset": "<script>alert(1)</script>"}},
        {"config": {"preset": "smoke; rm -r ~"}},  # the page shows a command to copy
        {"config": {"preset": ["smoke"]}},
        {"config": {}},
        {"environment": {"versions": "text"}},
        {"results": {"run_seconds": 10**400}},
    ],
    ids=lambda change: str(change)[:50],
)
def test_a_forged_record_is_data_and_does_not_reach_the_page(tmp_path, monkeypatch, capsys, change):
    """The hash is right, as whoever forges a record can compute it."""
    experiment = one()
    record = execute("one", experiment, "smoke", out=tmp_path).record
    save(
        replace(record, **{part: {**getattr(record, part), **new} if new else new for part, new in change.items()}),
        tmp_path / "one",
    )
    found = page({"one": experiment}, tmp_path)
    assert "does not hold" in Page(found).text
    assert "<script>alert" not in found
    assert "rm -r" not in found
    monkeypatch.setattr(command_line, "discover", lambda: {"one": experiment})
    assert command_line.main(["list", "--out", str(tmp_path)]) == 0
    capsys.readouterr()


@pytest.mark.parametrize("error", [ZeroDivisionError, OverflowError, KeyError, AttributeError])
def test_claims_that_a_record_cannot_answer_are_told(tmp_path, monkeypatch, capsys, error):
    execute("one", one(), "smoke", out=tmp_path)

    def claims(record):
        raise error("of the record's numbers")

    experiment = replace(one(), claims=claims)
    assert "does not hold" in Page(page({"one": experiment}, tmp_path)).text
    monkeypatch.setattr(command_line, "discover", lambda: {"one": experiment})
    assert command_line.main(["judge", "one", "--out", str(tmp_path)]) == 2
    assert "Run it again" in capsys.readouterr().out.replace("\n", " ")


def test_what_is_no_figure_is_named_and_not_embedded(tmp_path):
    """A folder, a link to nowhere, a device and somebody's text must not end up in a page that is handed on."""
    experiment = one()
    execute("one", experiment, "smoke", out=tmp_path)
    folder = tmp_path / "one"
    (folder / "a.png").mkdir()
    (folder / "b.png").symlink_to(folder / "nowhere")
    (folder / "c.png").symlink_to("/dev/zero")
    (folder / "d.png").write_text("a secret")
    found = Page(page({"one": experiment}, tmp_path))
    assert len(found.attributes("img", "src")) == 1
    assert all(f"{name}.png is not a figure" in found.text for name in "abcd")
    assert "No record yet" in Page(page({"one": experiment}, tmp_path / ("long" * 100))).text
