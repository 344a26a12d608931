"""Docstrings of the package (Google style, Unicode mathematics) as reStructuredText."""

import inspect
import re
from collections.abc import Mapping

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Example|References):$")
_ENTRY = re.compile(r"^    (\*{0,2}\w[\w, *]*?):(?:\s+(.*))?$")
_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*(\(\))?")


def summary(docstring: str | None) -> str:
    """Return the first sentence's line of a docstring."""
    return inspect.cleandoc(docstring or "").partition("\n")[0]


def formula(docstring: str | None) -> str:
    """Return the first indented block of a docstring's body, which is its recursion; empty if it has none."""
    body = _sections(inspect.cleandoc(docstring or "").splitlines())[0][1]
    return next(("\n".join(lines) for kind, lines in _chunks(body) if kind == "formula"), "")


def inline(text: str) -> str:
    """Return a piece of prose as reStructuredText: names in backticks as references, everything else escaped."""
    pieces = []
    for i, piece in enumerate(re.split(r"`([^`]+)`", text)):
        if i % 2 == 0:
            pieces.append(re.sub(r"([\\*|])|(?<=\w)_(?=\W|$)", lambda found: "\\" + found[0], piece))
        else:
            code = " ".join(piece.split())
            pieces.append(f":py:obj:`{code}`" if _NAME.fullmatch(code) else f"``{code}``")
    for i in range(1, len(pieces), 2):  # markup ends at a space or a punctuation mark; `\ ` is an invisible one
        before, after = pieces[i - 1], pieces[i + 1]
        pieces[i] = (r"\ " if before and before[-1] not in " \n([{<-/'\"–" else "") + pieces[i]
        pieces[i] += r"\ " if after and after[0] not in " \n.,:;!?)]}>-/'\"–" else ""
    return "".join(pieces)


def rst(docstring: str | None, types: Mapping[str, str] | None = None) -> str:
    """Return a docstring as reStructuredText.

    Args:
        docstring: A docstring in Google style; an indented block of its body is a formula.
        types: What to write as the type of each attribute.

    Returns:
        Paragraphs, a field list of arguments, attributes, results and errors, and the examples.
    """
    written: list[str] = []
    for name, lines in _sections(inspect.cleandoc(docstring or "").splitlines()):
        match name:
            case "":
                written += _body(lines)
            case "Args" | "Attributes" | "Raises":
                written += _fields(name, lines, types or {})
            case "Returns" | "Yields":
                written += ["", f":{name.lower()}: " + _indented(_prose(lines), 4).lstrip(), ""]
            case _:
                written += ["", f".. rubric:: {name}", "", *_body([line[4:] for line in lines]), ""]
    return "\n".join(written)


def _sections(lines: list[str]) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in lines:
        if heading := _SECTION.match(line):
            found.append((heading[1], []))
        else:
            found[-1][1].append(line)
    return found


def _chunks(lines: list[str]) -> list[tuple[str, list[str]]]:
    """Return the parts of a text between blank lines, each with what it is: prose, formula, list or example."""
    parts: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            parts[-1].append(line)
        elif parts[-1]:
            parts.append([])
    found: list[tuple[str, list[str]]] = []
    for part in filter(None, parts):
        if part[0].startswith(">>>"):
            found.append(("example", part))
        elif part[0].startswith("    "):
            if found and found[-1][0] == "formula":  # a blank line inside a block
                found[-1][1].extend(["", *(line[4:] for line in part)])
            else:
                found.append(("formula", [line[4:] for line in part]))
        else:
            found.append(("prose", part))
    return found


def _body(lines: list[str]) -> list[str]:
    written: list[str] = []
    for kind, part in _chunks(lines):
        match kind:
            case "formula":
                written += [".. code-block:: text", "   :class: formula", "", *(f"   {line}" for line in part), ""]
            case "example":
                written += [".. code-block:: pycon", "", *(f"   {line}" for line in part), ""]
            case _:
                written += [*inline("\n".join(part)).splitlines(), ""]
    return written


def _prose(lines: list[str]) -> str:
    return inline("\n".join(line.strip() for line in lines)).strip()


def _fields(section: str, lines: list[str], types: Mapping[str, str]) -> list[str]:
    entries: list[tuple[str, list[str]]] = []
    for line in lines:
        if entry := _ENTRY.match(line):
            entries.append((entry[1], [entry[2] or ""]))
        elif entries:
            entries[-1][1].append(line)
    role = {"Args": "param", "Attributes": "ivar", "Raises": "raises"}[section]
    written = [""]
    for names, text in entries:
        label = names.replace(", ", ",").replace("*", r"\*")  # a space would separate a type from a name
        written += [f":{role} {label}: " + _indented(_prose(text), 4).lstrip()]
        if section == "Attributes" and names in types:
            kind = types[names].replace("'", '"')
            written += [f":vartype {label}: " + (inline(f"`{kind}`") if '"' not in kind else f"``{kind}``")]
    return [*written, ""]


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else "" for line in text.splitlines())
