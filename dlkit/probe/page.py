"""A page of HTML that needs no network and no script, for light and dark, wide and narrow windows."""

import base64
import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dlkit.console import safe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlkit.probe.views import View

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #ffffff; --soft: #5f5f5f; --line: #e3e3e3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --paper: #16181b; --soft: #a3a3a3; --line: #35383d; }
}
body { margin: 0 auto; max-width: 1360px; padding: 16px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.3rem; overflow-wrap: anywhere; } h2 { font-size: 1rem; margin: 0 0 4px; font-weight: 600; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 20px; }
svg { width: 100%; height: auto; display: block; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--line); } .limit { stroke: var(--soft); stroke-dasharray: 2 4; }
.black { --series: var(--ink); }
ul { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 20px; }
li svg { width: 34px; display: inline-block; vertical-align: middle; } li { overflow-wrap: anywhere; }
.notes { display: block; color: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin-top: 20px; }
th, td { padding: 3px 12px 3px 0; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
th.number, td.number { text-align: right; font-variant-numeric: tabular-nums; }
.picture { background: #ffffff; border: 1px solid var(--line); width: fit-content; max-width: 100%; }
.picture img { display: block; height: auto; }
.one { margin: 0; background: #ffffff; } .one img { display: block; width: 100%; height: auto; max-width: 560px; }
"""
DOTS_PER_INCH = 96  # of a browser


def text(words: object) -> str:
    """A text as it can stand in a page: nothing invisible, and no tags."""
    return html.escape(safe(words))


def shell(body: str, *, title: str) -> str:
    """The page around a body of HTML."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><style>{STYLE}</style></head>\n<body><h1>{text(title)}</h1>\n'
        f"{body}\n</body></html>\n"
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> str:
    """A table that is scrolled where the window is too narrow for it; nothing when it has no rows.

    Args:
        columns: the titles.
        rows: the cells; None leaves one empty.
        right: titles of the columns of numbers.
    """
    if not rows:
        return ""
    kinds = [' class="number"' if column in right else "" for column in columns]
    head = "".join(f"<th{kind}>{text(name)}</th>" for name, kind in zip(columns, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{'' if cell is None else text(cell)}</td>" for cell, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def of_view(view: "View", *, title: str) -> str:
    """The page of a view: its notes, its picture and its table.

    Panels stand side by side as far as the window has room. A picture that is no set of panels gets no smaller than its
    letters can be read: in a narrow window it is scrolled.
    """
    from dlkit.errors import UsageError
    from dlkit.probe.panels import Sheet

    notes = "".join(f"<li>{text(line)}</li>" for line in view.notes)
    try:
        drawn = view.draw()
    except UsageError as failure:  # a view without a picture is still a table
        picture = f'<p class="notes">{text(failure.message)}</p>'
    else:
        if isinstance(drawn, Sheet):
            parts = "".join(
                f'<figure class="one">{_image(part, panel.title)}</figure>'
                for part, panel in zip(drawn.each(), drawn.panels, strict=True)
            )
            picture = f'<div class="panels">{parts}</div>'
        else:
            picture = f'<div class="scroll picture">{_image(drawn, title, least=1000)}</div>'
    body = f'<ul class="notes">{notes}</ul>\n{picture}\n{table(view.columns, view.rows, right=view.right)}'
    return shell(body, title=title)


def _image(figure: "Figure", about: str, *, least: int | None = None) -> str:
    """A figure inside the page; `least` dots wide unless it is smaller, and at most as wide as there is room."""
    from dlkit.probe import pictures

    wide, tall = (round(DOTS_PER_INCH * side) for side in figure.get_size_inches())
    data = base64.b64encode(pictures.png(figure)).decode()
    style = "" if least is None else f' style="min-width: {min(wide, least)}px; max-width: 100%"'
    return f'<img src="data:image/png;base64,{data}" width="{wide}" height="{tall}"{style} alt="{text(about)}">'
