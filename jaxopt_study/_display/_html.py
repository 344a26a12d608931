"""A card as HTML of a notebook: it follows the page's light or dark theme, and loads nothing."""

from html import escape
from typing import Any

from jaxopt_study._display._text import shortened

# Text and background are the page's. The two accents follow its colour scheme: that of the reader's system where the
# page follows it, and those of Jupyter, VS Code and Sphinx's themes by their own marks.
STYLE = (
    ".jxs{display:flex;flex-wrap:wrap;gap:.3em 2em;align-items:flex-start;font-size:13px;line-height:1.5;"
    "color:var(--jp-content-font-color1,inherit);--jxs-1:#2f86c0;--jxs-2:#d3651a}"
    "@supports (color:light-dark(red,red)){.jxs{--jxs-1:light-dark(#0072b2,#6cbcf0);"
    "--jxs-2:light-dark(#c4500a,#f5a05a)}}"
    "[data-jp-theme-light=false] .jxs,[data-theme=dark] .jxs,.vscode-dark .jxs{color-scheme:dark}"
    "[data-jp-theme-light=true] .jxs,[data-theme=light] .jxs,.vscode-light .jxs{color-scheme:light}"
    ".jxs>div>b{display:block;margin-bottom:.2em}"
    ".jxs table{border-collapse:collapse;margin:0;font-size:inherit;color:inherit}"
    ".jxs td,.jxs th{padding:.05em 1.2em .05em 0;text-align:left;vertical-align:top;border:0;background:none;"
    "color:inherit;max-width:32em;overflow-wrap:anywhere;white-space:pre-wrap}"
    ".jxs th{font-weight:600}.jxs th,.jxs.pairs td:nth-child(2n+1){opacity:.75}"
    ".jxs td{font-variant-numeric:tabular-nums}"
    ".jxs p{margin:.3em 0 0;max-width:52em}"
    ".jxs svg{max-width:100%;height:auto;overflow:visible}.jxs svg text{fill:currentColor;font:10px sans-serif}"
    ".jxs .f{stroke:currentColor;stroke-opacity:.35;fill:none}"
    ".jxs .a{stroke:var(--jxs-1)}.jxs .b{stroke:var(--jxs-2)}.jxs .af{fill:var(--jxs-1)}.jxs .bf{fill:var(--jxs-2)}"
)


def card_html(card: Any) -> str:
    """Return a card as an HTML element; every text in it is escaped."""
    rows, left = shortened(card.rows)
    head = f"<tr>{''.join(f'<th>{escape(str(cell))}</th>' for cell in card.head)}</tr>" if card.head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows)
    more = f"<p>… {left} more</p>" if left else ""
    notes = "".join(f"<p>{escape(note)}</p>" for note in card.notes)
    table = f"<table>{head}{body}</table>" if rows else ""
    picture = f"<div>{card.picture()}</div>" if card.picture is not None else ""
    kind = "table" if card.head else "pairs"
    return (
        f'<style>{STYLE}</style><div class="jxs {kind}"><div><b>{escape(card.title)}</b>{table}{more}{notes}</div>'
        f"{picture}</div>"
    )
