"""Code blocks of Markdown pages: one session a page, executed in their order."""

import doctest
import re
import sys
from pathlib import Path


def blocks(path):
    """Return (language, code) of a page's blocks in `python` and `text`."""
    return re.findall(r"^```(python|text)\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def run(code, names, *, where):
    """Execute one block in a session's names; a block with prompts must print what it shows."""
    if ">>>" not in code:
        exec(compile(code, where, "exec"), names)  # the pages are ours
        return
    test = doctest.DocTestParser().get_doctest(code, names, where, where, 0)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    runner.run(test, clear_globs=False)
    names.update(test.globs)
    assert runner.summarize(verbose=False).failed == 0


def run_all(path):
    """Execute a page."""
    names = {}
    for number, (language, code) in enumerate(blocks(path)):
        if language == "python":
            run(code, names, where=f"{path.name}, block {number}")


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
