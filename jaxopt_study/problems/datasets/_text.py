"""Text as sequences of bytes or characters, from files or from Python's own manual."""

import os
import platform
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Int

from jaxopt_study import files
from jaxopt_study._checks import check_choice, check_integer, check_text
from jaxopt_study.problems.datasets._dataset import Dataset, DatasetError, Examples
from jaxopt_study.problems.datasets._splits import Split, divide

TextTokens = Literal["characters", "bytes"]


def text(
    path: str | Path | None = None,
    *,
    tokens: TextTokens = "characters",
    context: int = 64,
    pattern: str = "**/*",
    num_train: int | None = None,
    num_validation: int | None = None,
    num_test: int | None = None,
    split: Split = "stratified",
    seed: int = 0,
) -> Dataset:
    """Load text for the prediction of the next character or byte.

    The text is cut into windows of `context` tokens; the targets of a window are its tokens shifted by one, so that
    every token of the text but the first is predicted once. Without a path it is the language reference of the Python
    that runs, from `pydoc_data.topics`: English prose with examples of code, each paragraph once, 377 thousand
    characters in Python 3.11. No files or network are needed.

    Args:
        path: A file, or a folder whose files are joined in the order of their names, by an empty line.
        tokens: "characters", numbered in the order of their code points, or "bytes", 256 of them. Characters need files
            in UTF-8.
        context: Length of the windows.
        pattern: Which files of a folder, such as "**/*.txt". Names that begin with a dot are left out.
        num_train: Number of training windows; None takes all remaining ones.
        num_validation: Number of validation windows; None for a tenth, 0 for none.
        num_test: Number of test windows; None for a tenth, 0 for none.
        split: "stratified" draws the windows of each part at random; "first" cuts the text into training, validation
            and test parts, so that the parts do not alternate and may differ in topic.
        seed: Seed of the random split.

    Returns:
        The data set: tokens of shape (windows, context). `details["vocabulary"]` is the text of all characters in the
        order of their numbers. Memory: 8 bytes a token.

    Raises:
        TypeError: If a size is not an integer.
        DatasetError: If a path leads to no file, a file is not UTF-8, or there are too few windows.

    Example:
        >>> dataset = text(context=32)
        >>> print((dataset.train["x"][:, 1:] == dataset.train["y"][:, :-1]).all())  # the next token
        True
        >>> x = dataset.train["x"][0]
        >>> len("".join(dataset.details["vocabulary"][token] for token in x))
        32
    """
    check_choice("text", "tokens", tokens, ("characters", "bytes"))
    check_integer("text", "context", context, 1)
    check_text("text", "pattern", pattern)
    content, source = (
        (_manual(), f"pydoc_data.topics of Python {platform.python_version()}")
        if path is None
        else (_read(files.as_path(path), pattern))
    )
    details = {"tokens": tokens, "context": context, "split": split, "seed": seed}
    if tokens == "bytes":
        numbers, vocabulary_size = np.frombuffer(content, np.uint8), 256
    else:
        try:
            characters = np.frombuffer(content.decode("utf-8").encode("utf-32-le"), np.uint32)
        except UnicodeDecodeError as error:
            raise DatasetError(
                f'{source} is not UTF-8: {error}. Read it with tokens="bytes", or choose other files with pattern.'
            ) from None
        known, numbers = np.unique(characters, return_inverse=True)
        details["vocabulary"] = "".join(map(chr, known))
        vocabulary_size = len(known)
    windows = max(0, len(numbers) - 1) // context
    if windows < 3:
        raise DatasetError(
            f"{source} has {len(numbers)} {tokens}, {windows} windows of context={context}; a data set needs at least "
            "3. Give a longer text, or a smaller context."
        )
    sizes = {
        "train": num_train,
        "validation": max(1, windows // 10) if num_validation is None else num_validation,
        "test": max(1, windows // 10) if num_test is None else num_test,
    }
    rows = divide(np.zeros(windows, np.int32), sizes, split=split, seed=seed, name="text")
    parts = {part: _windows(numbers, which, context) for part, which in rows.items()}
    return Dataset(
        name="text",
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        vocabulary_size=vocabulary_size,
        source=source,
        details=details,
    )


def _windows(numbers: Int[np.ndarray, " tokens"], rows: Int[np.ndarray, " windows"], context: int) -> Examples:
    places = rows[:, None] * context + np.arange(context)
    return {"x": numbers[places].astype(np.int32), "y": numbers[places + 1].astype(np.int32)}


# Topics repeat each other's paragraphs; a copy in the training part would give away its double in the test part.
def _manual() -> bytes:
    import pydoc_data.topics  # half a megabyte of text

    topics = pydoc_data.topics.topics.values()
    return "\n\n".join(dict.fromkeys(part.strip("\n") for topic in topics for part in topic.split("\n\n"))).encode()


def _read(path: Path, pattern: str) -> tuple[bytes, str]:
    try:
        if path.is_file():
            return path.read_bytes(), path.name
        if not path.is_dir():
            raise DatasetError(f"{path} is neither a file nor a folder. Give the path of a text.")
        found = sorted(one for one in path.glob(pattern) if one.is_file() and not _hidden(one.relative_to(path)))
        if not found:
            raise DatasetError(f"{path} has no files that match {pattern!r}. Give another folder or pattern.")
        return b"\n\n".join(one.read_bytes() for one in found), f"{path.name}, {len(found)} files"
    except (OSError, NotImplementedError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read as text with pattern={pattern!r}: {error}.") from None


def _hidden(path: os.PathLike) -> bool:
    return any(part.startswith(".") for part in Path(path).parts)
