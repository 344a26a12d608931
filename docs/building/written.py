"""Pages that are written from the package and from stored results, before Sphinx reads them."""

import html
import inspect
import json
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import sidebyside
from building import commands, docstrings, reference, source
from experiments.experiment import Experiment, discover
from experiments.report import page
from experiments.statements import FOUND, STATEMENTS
from jaxopt_study import optimizers

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
STORED = ROOT / "experiments" / "results"
WRITTEN = DOCS / "written"

_BENCHMARKS = """
Of {all} targets, {reached} are reached and {missed} are missed.

## What is missed

{head}
{misses}

## Every stored check

<details><summary>All rows</summary>

{head}
{rows}

</details>

## Why, as far as we know
"""
_PICTURES = """# Pictures of the study

Every stored picture, from the record beside it in `experiments/results/`. The command of an experiment runs it, judges
its claims and draws its pictures; `python -m experiments judge NAME --out experiments/results` draws those of the
stored record again.
"""


def write_all() -> None:
    """Write every page whose source is elsewhere; a page that says the same as before keeps its time."""
    pages = reference.pages()
    for name, text in pages.items():
        _write(DOCS / "reference" / f"{name}.rst", text)
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    for path in notebooks:
        _copy(path, DOCS / "tutorials" / path.name)
    _remove_others(DOCS / "reference", pages, ".rst")
    _remove_others(DOCS / "tutorials", [path.stem for path in notebooks], ".ipynb")
    found = discover()
    report = page(found, STORED)
    _write(WRITTEN / "site" / "study_report.html", report)
    _write(WRITTEN / "tutorials.md", tutorials(notebooks))
    _write(WRITTEN / "cheat_sheet.md", cheat_sheet())
    _write(WRITTEN / "commands.md", commands.page())
    _write(WRITTEN / "benchmarks.md", benchmarks())
    _write(WRITTEN / "study.md", study(found, report))
    _write(DOCS / "gallery" / "study.md", study_pictures(found))


def tutorials(notebooks: Sequence[Path]) -> str:
    """Return the list of the notebooks in their order, each with its first paragraph."""
    parts = []
    for path in notebooks:
        first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
        title, _, rest = first.partition("\n")
        paragraph = rest.strip().partition("\n\n")[0]
        parts += [f"**[{title.strip('# ')}]({path.name})**\n\n{paragraph}\n"]
    return "\n".join(parts)


def cheat_sheet() -> str:
    """Return every atom with its formula, and every named optimizer as a chain of atoms."""
    parts = []
    for title, items in source.chapters("transforms").items():
        rows = [_row(item) for item in items if item.name[:1].islower()]
        parts += [f"## {title}\n", _table(rows)]
    parts += ["## Named optimizers, as chains\n", "Each at its default settings in the paper's convention.\n"]
    chains = [
        f"<tr><td>{_link('optimizers', name)}<p>{_html(docstrings.summary(constructor.__doc__))}</p></td>"
        f"<td><pre>{html.escape(_expanded(constructor))}</pre></td></tr>"
        for name, constructor in optimizers.named().items()
    ]
    return "\n".join([*parts, _table(chains)])


def _link(package: str, name: str) -> str:
    path = f"{source.PACKAGE}.{package}.{name}"
    return f'<a class="name" href="reference/{package}.html#{path}"><code>{name}</code></a>'


def _expanded(constructor: Any) -> str:
    try:
        return repr(constructor().expand())
    except (TypeError, ValueError):
        return repr(constructor(0.1).expand())


def _row(item: source.Public) -> str:
    formula = docstrings.formula(item.doc)
    arguments = html.escape(", ".join(_arguments(item.value)))
    said = (
        f'{_link("transforms", item.name)}<code class="args">({arguments})</code>'
        f"<p>{_html(docstrings.summary(item.doc))}</p>"
    )
    if not formula:  # the sentence says it
        return f"<tr><td colspan=2>{said}</td></tr>"
    return f"<tr><td>{said}</td><td><pre>{html.escape(formula)}</pre></td></tr>"


def _arguments(value: Any) -> list[str]:
    kinds = inspect.Parameter
    shown = []
    for name, parameter in inspect.signature(value).parameters.items():
        mark = {kinds.VAR_POSITIONAL: "*", kinds.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        simple = parameter.default is not kinds.empty and isinstance(parameter.default, int | float | str | None)
        shown.append(f"{mark}{name}={parameter.default!r}" if simple else f"{mark}{name}")
    return shown


def _html(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))


def _table(rows: Iterable[str]) -> str:
    return '<div class="table-wrapper"><table class="sheet docutils">\n' + "\n".join(rows) + "\n</table></div>\n"


def benchmarks() -> str:
    """Return the stored checks: how many hold, those that miss, and all of them."""
    rows = sidebyside.table().splitlines()
    missed = [row for row in rows if "**no**" in row]
    head = "| Result | What | Reached | Target | Holds | Load |\n|---|---|---|---|---|---|"
    return _BENCHMARKS.format(
        all=len(rows), reached=len(rows) - len(missed), missed=len(missed), head=head,
        rows="\n".join(rows), misses="\n".join(missed),
    )  # fmt: skip


def study(found: dict[str, Experiment[Any]], report: str) -> str:
    """Return the experiments by chapter: question, what the notes say, what was found, and the claims."""
    counts = re.search(r"<p>(\d+ experiments, \d+ claims: .*?)</p>", report)
    parts = [re.sub("<[^>]+>", "", counts[1].replace("</span> <span", "</span>, <span")) + ".\n" if counts else ""]
    chapter = None
    for name, experiment in found.items():
        if experiment.chapter != chapter:
            chapter = experiment.chapter
            parts += [f"## {chapter}\n"]
        said = "\n".join(f"- Note {number}: {words}" for number, words in STATEMENTS.get(name, ()))
        link = f'<a href="study_report.html#{name}">claims and figures</a>'
        answer = f"**Found.** {FOUND.get(name, 'No record yet.')} `{name}`: {link}.\n"
        parts += [f"### {experiment.question}\n", said, "", answer]
    return "\n".join(parts)


def study_pictures(found: dict[str, Experiment[Any]]) -> str:
    """Return every stored picture of the study, with the command that makes it."""
    parts = [_PICTURES]
    for name, experiment in found.items():
        pictures = sorted((STORED / name).glob("*.png"))
        if pictures:
            record = json.loads((STORED / name / "record.json").read_text(encoding="utf-8"))
            preset = record["config"]["preset"]
            data = " --data-dir FOLDER" if preset == "paper" and record["config"].get("data") == "mnist" else ""
            command = f"python -m experiments run {name} --preset {preset}{data} --check"
            parts += [f"## {experiment.question}\n", f"```bash\n{command}\n```\n"]
            parts += [f"![{name}: {path.stem}](../../{path.relative_to(ROOT)})\n" for path in pictures]
    return "\n".join(parts)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def _copy(path: Path, to: Path) -> None:
    if not to.exists() or to.read_bytes() != path.read_bytes():
        shutil.copyfile(path, to)


def _remove_others(folder: Path, names: Iterable[str], suffix: str) -> None:
    kept = {f"{name}{suffix}" for name in names}
    for path in folder.glob(f"*{suffix}"):
        if path.name not in kept:
            path.unlink()
