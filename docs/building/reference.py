"""Pages of the reference: one for each public package, written from its docstrings."""

import enum
import functools
import inspect
import re
from collections.abc import Sequence
from typing import Any

from building import docstrings, source
from building.source import Public


def pages() -> dict[str, str]:
    """Return the pages of the reference by their names, `index` among them."""
    found = {"jaxopt_study": _root()}
    for package in source.PACKAGES:
        found[package.replace(".", "_")] = _krylov() if package == "linalg" else _package(package)
    return found | {"index": _index()}


_INDEX = """
Every public name, from its docstring; the tests execute the examples. The packages stand in the order in which data
passes through them:

.. code-block:: text
   :class: formula

   problem → gradient → chain of atoms → update → trajectory → record → figure

.. list-table::
   :widths: 25 75

{rows}

.. toctree::
   :hidden:

{tree}
"""
_KRYLOV = "The kernel below :doc:`curvature` and :doc:`dynamics`, for writers of solvers; import from its modules."


def _index() -> str:
    listed = [("jaxopt_study", "examine", source.module("").__doc__)]
    listed += [(package.replace(".", "_"), package, source.module(package).__doc__) for package in source.PACKAGES]
    rows = [
        f"   * - :doc:`{label} <{page}>`\n     - {docstrings.inline(docstrings.summary(doc))}"
        for page, label, doc in listed
    ]
    tree = [f"   {label} <{page}>" for page, label, _ in listed]
    return _title("Reference") + _INDEX.format(rows="\n".join(rows), tree="\n".join(tree))


def _root() -> str:
    items = source.public("")
    parts = [_title("examine"), f".. py:module:: {source.PACKAGE}", "", *_entries(items)]
    return "\n".join(parts)


def _package(package: str) -> str:
    owner = source.module(package)
    parts = [_title(package), f".. py:module:: {owner.__name__}", "", docstrings.rst(owner.__doc__)]
    inner = [name for name in owner.__all__ if inspect.ismodule(getattr(owner, name))]
    if inner and package == "problems":
        parts += ["Packages inside: " + ", ".join(f":doc:`{name} <problems_{name}>`" for name in inner) + ".", ""]
    for name in inner if package != "problems" else ():
        parts += [f"``{name}``: " + docstrings.inline(docstrings.summary(getattr(owner, name).__doc__)), ""]
    groups = {title: _ordered(items) for title, items in source.chapters(package).items()}
    parts += [line for title, items in groups.items() for line in _table(title, items)]
    for title, items in groups.items():
        parts += [*([_title(title, "-")] if title else []), *_entries(items)]
    return "\n".join(parts)


def _krylov() -> str:
    owner = source.module("linalg")
    modules = [getattr(owner, name) for name in owner.__all__]
    parts = [_title("linalg"), f".. py:module:: {owner.__name__}", "", docstrings.rst(owner.__doc__)]
    parts += [_KRYLOV, ""]
    for module in modules:
        name = module.__name__.rpartition(".")[2]
        parts += [_title(name, "-"), f".. py:module:: {module.__name__}", "", docstrings.rst(module.__doc__)]
        parts += _entries(source.public_of_module(module))
    return "\n".join(parts)


def _ordered(items: Sequence[Public]) -> list[Public]:
    """Return functions, each followed by the class of its result, then the other classes and aliases."""
    classes = {item.name: item for item in items if not inspect.isfunction(item.value)}
    order: list[Public] = []
    for item in items:
        if inspect.isfunction(item.value):
            order.append(item)
            result = source.signature(item.value).rpartition(" -> ")[2]
            order += [classes.pop(name) for name in re.findall(r"\w+", result) if name in classes]
    return [*order, *classes.values()]


def _table(title: str, items: Sequence[Public]) -> list[str]:
    listed = [item for item in items if inspect.isfunction(item.value)] or list(items)
    head = [f"**{docstrings.inline(title)}**", ""] if title else []
    rows = []
    for item in listed:
        rows += [f"   * - :py:obj:`{item.name} <{item.path}>`"]
        rows += [f"     - {docstrings.inline(docstrings.summary(item.doc)) or '|nbsp|'}".replace("|nbsp|", "\\ ")]
    return [*head, ".. list-table::", "   :widths: 30 70", "   :class: summary", "", *rows, ""]


def _entries(items: Sequence[Public]) -> list[str]:
    return [line for item in items for line in (*_entry(item), "")]


def _entry(item: Public) -> list[str]:
    if inspect.isclass(item.value):
        body = _class(item.value)
        head = [f".. py:class:: {item.name}{_call(item.value)}"]
    elif inspect.isfunction(item.value):
        body = docstrings.rst(item.doc)
        head = [f".. py:function:: {item.name}{source.signature(item.value)}"]
    else:
        body, head = "", [f".. py:data:: {item.name}", f"   :value: {_short(item.value)}"]
    return [*head, f"   :module: {item.package}", "", *_indented(body)]


def _call(value: type) -> str:
    """Return the arguments of a class that is not described by its attributes."""
    if "\nAttributes:" in (inspect.getdoc(value) or "") or issubclass(value, enum.Enum | BaseException):
        return ""
    listed = source.fields(value)
    return f"({', '.join(f'{name}: {kind}' for name, kind in listed.items())})" if listed else ""


def _class(value: type) -> str:
    parts = [docstrings.rst(inspect.getdoc(value), source.fields(value)), ""]
    if issubclass(value, enum.Enum):
        for member in value:
            parts += [f".. py:attribute:: {member.name}", f"   :value: {member.value!r}", "   :no-contents-entry:", ""]
    for name, member in source.members(value):
        if isinstance(member, property | functools.cached_property):
            inner: Any = member.fget if isinstance(member, property) else member.func
            kind = source.signature(inner).rpartition(" -> ")[2]
            head = [f".. py:property:: {name}", *([f"   :type: {kind}"] if kind and "(" not in kind else [])]
        else:
            head = [f".. py:method:: {name}{source.signature(member, method=True)}"]
        parts += [*head, "   :no-contents-entry:", "", *_indented(docstrings.rst(inspect.getdoc(member))), ""]
    return "\n".join(parts)


def _short(value: Any) -> str:
    text = repr(value).replace("typing.", "").replace("collections.abc.", "")
    return text if len(text) <= 100 else f"{type(value).__name__}(…)"


def _indented(text: str) -> list[str]:
    return [f"   {line}" if line else "" for line in text.splitlines()]


def _title(text: str, line: str = "=") -> str:
    text = docstrings.inline(text)
    return f"{text}\n{line * max(len(text), 4)}\n"
