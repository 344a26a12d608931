"""A card as text of a terminal."""

import textwrap
from collections.abc import Sequence
from typing import Any

WIDTH = 100  # characters of a line
MOST_ROWS = 24  # of a table; with title, head and notes a screenful
MOST_NOTES = 8  # lines
NARROW = 24  # a first or last column is cropped to this before any other
APART = "  "


def card_text(card: Any) -> str:
    """Return a card as text of at most 100 columns and 40 lines."""
    title = textwrap.wrap(card.title, WIDTH, break_long_words=True) or [""]
    lines = title[:3]
    rows, left = shortened(card.rows)
    table = [[str(cell) for cell in row] for row in ([card.head, *rows] if card.head else rows)]
    lines += [f"{APART}{line}" for line in _aligned(table, WIDTH - len(APART))]
    if left:
        lines.append(f"{APART}… {left} more")
    notes = [line for note in card.notes for line in textwrap.wrap(note, WIDTH - 2, subsequent_indent=APART)]
    lines += [f"{APART}{line}" for line in notes[:MOST_NOTES]]
    if len(notes) > MOST_NOTES:
        lines.append(f"{APART}…")
    return "\n".join(lines)


def shortened(rows: Sequence[Any]) -> tuple[Sequence[Any], int]:
    """Return the rows that are shown, and the number of those left out."""
    return (rows, 0) if len(rows) <= MOST_ROWS else (rows[: MOST_ROWS - 1], len(rows) - MOST_ROWS + 1)


def _aligned(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    if not rows:
        return []
    columns = max(map(len, rows))
    widths = [max(len(row[i]) if i < len(row) else 0 for row in rows) for i in range(columns)]
    while sum(widths) + len(APART) * (columns - 1) > width:
        outer = [i for i in (0, columns - 1) if widths[i] > NARROW]  # names and remarks: numbers stay whole
        widths[max(outer or range(columns), key=lambda i: widths[i])] -= 1
    return [
        APART.join(_cropped(cell, size).ljust(size) for cell, size in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


def _cropped(cell: str, width: int) -> str:
    cell = cell.replace("\n", " ")
    return cell if len(cell) <= width else f"{cell[: width - 1]}…"
