"""The tree of hypotheses of a beam search, as text and as a picture; nothing here needs TensorFlow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlkit.console import safe
from dlkit.decode.step import ENDED, KEPT, NOTHING, PRUNED, Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = {KEPT: "", ENDED: " ✓", PRUNED: " ✗"}
CUT = " ..."
MAX_STEPS = 60  # in a picture


@dataclass(eq=False)
class Node:
    """A prefix that the search has looked at, by its last token."""

    token: int
    log_probability: float  # of the whole prefix
    fate: int  # KEPT, ENDED or PRUNED
    children: list["Node"] = field(default_factory=list)  # the most probable first
    chosen: bool = False  # whether it is on the way to the hypothesis that won


def grow(record: Record, row: int, *, chosen: Sequence[int] = ()) -> list[list[Node]]:
    """The tree of one row: its nodes step by step, those of the first step with nothing before them.

    Args:
        record: of `beam_search`, as arrays.
        row: which row of the batch.
        chosen: the tokens of the hypothesis that won, with the end token; its nodes are marked.

    Example:
        >>> decoded = decoder.beam(source, max_len=20, beams=2, record=True)
        >>> levels = grow(decoded.record, 0, chosen=decoded.tokens[0, 0, : decoded.lengths[0, 0]])
    """
    levels: list[list[Node]] = []
    beams: list[Node] = []  # the prefixes that the next step goes on from
    on_the_way: Node | None = None
    for step in range(record.tokens.shape[1]):
        level = []
        columns = (values[row, step].tolist() for values in record)
        for token, parent, log_probability, fate in zip(*columns, strict=True):
            if fate == NOTHING:
                continue
            node = Node(token, log_probability, fate)
            level.append(node)
            before = beams[parent] if beams else None
            if before:
                before.children.append(node)
            if before is on_the_way and fate != PRUNED and step < len(chosen) and token == chosen[step]:
                node.chosen = True
        if not level:
            break
        levels.append(level)
        beams = [node for node in level if node.fate == KEPT]
        # Without one that is on the way there is none later either: nothing goes on from this node.
        on_the_way = next((node for node in level if node.chosen), Node(-1, 0.0, NOTHING))
    return levels


def text(levels: Sequence[Sequence[Node]], piece: Callable[[int], str], *, width: int | None = None) -> list[str]:
    r"""One line for each leaf: tokens with the log-probability so far, a column for each step.

    `✗` is what was pruned, `✓` what has ended; a leaf without either was alive when the search stopped.

    Args:
        levels: of `grow`.
        piece: the text of a token.
        width: columns of the terminal; what does not fit ends with `...`. None for whole lines.

    Example:
        >>> print(*text(levels, tokenizer.piece), sep="\n")
        he -0.7 ┬ hit    -1.7 ─ me -2.5
                └ struck -2.9 ✗
        i  -0.9 ─ was    -1.6 ✗
    """
    from rich.cells import cell_len, set_cell_size

    blocks: dict[Node, list[str]] = {}  # the lines of a node and of all that goes on from it
    for level in reversed(levels):
        labels = [safe(piece(node.token)) for node in level]
        figures = [f"{node.log_probability:.1f}" for node in level]
        label_width, figure_width = max(map(cell_len, labels)), max(map(len, figures))
        blank = " " * (label_width + 1 + figure_width)
        for node, label, figure in zip(level, labels, figures, strict=True):
            cell = f"{set_cell_size(label, label_width)} {figure:>{figure_width}}"
            if not node.children:
                blocks[node] = [cell + MARKS[node.fate]]
                continue
            lines = []
            last = len(node.children) - 1
            for place, child in enumerate(node.children):
                link = "─" if last == 0 else "┬" if place == 0 else "└" if place == last else "├"
                first, *others = blocks.pop(child)
                lines.append(f"{blank if place else cell} {link} {first}")
                lines += [f"{blank} {' ' if place == last else '│'} {other}" for other in others]
            blocks[node] = lines
    lines = [line for node in (levels[0] if levels else []) for line in blocks[node]]
    if width is None:
        return lines
    return [line if cell_len(line) <= width else set_cell_size(line, width - len(CUT)).rstrip() + CUT for line in lines]


def picture(levels: Sequence[Sequence[Node]], piece: Callable[[int], str], *, title: str) -> "Figure":
    """The same tree drawn from left to right: the way to the chosen hypothesis thick, what was pruned pale.

    Args:
        levels: of `grow`; the first 60 steps are drawn.
        piece: the text of a token.
        title: the first line.
    """
    from matplotlib.figure import Figure
    from rich.cells import cell_len

    from dlkit.probe.pictures import BLUE, ORANGE, fitting

    drawn = levels[:MAX_STEPS]
    labels = [[f"{fitting(piece(node.token), 20)}  {node.log_probability:.1f}" for node in level] for level in drawn]
    letter, line, gap, margin, head = 0.085, 0.2, 0.35, 0.2, 0.55  # inches
    widths = [letter * max(map(cell_len, level)) for level in labels]
    lefts = [margin + sum(widths[:step]) + gap * step for step in range(len(drawn))]
    tops = _lines(drawn)
    note = "Blue: the way to what was chosen. Orange: ended. Gray: pruned. The number is the log-probability so far."
    if len(drawn) < len(levels):
        note += f" The first {len(drawn)} of {len(levels)} steps."
    width = max(lefts[-1] + widths[-1] + margin, 7.5, letter * (len(fitting(title)) + 12))
    height = head + line * (max(tops.values()) + 1) + 0.45
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    axes.set_axis_off()

    def middle(node: Node) -> float:
        return height - head - line * (tops[node] + 0.5)

    for step, level in enumerate(drawn):
        for node, label in zip(level, labels[step], strict=True):
            colour = {KEPT: "black", ENDED: "black", PRUNED: "0.5"}[node.fate]
            axes.text(
                lefts[step], middle(node), label, va="center", fontsize=8, color=colour, parse_math=False,
                fontweight="bold" if node.chosen else "normal",
            )  # fmt: skip
            if step + 1 == len(drawn):
                continue
            right = lefts[step] + letter * cell_len(label)
            for child in node.children:
                edge = BLUE if child.chosen else {KEPT: "0.3", ENDED: ORANGE, PRUNED: "0.8"}[child.fate]
                axes.plot(
                    [right, lefts[step + 1] - gap * 0.8, lefts[step + 1] - 0.05],
                    [middle(node), middle(child), middle(child)],
                    color=edge, linewidth=2.2 if child.chosen else 1.0, zorder=2 if child.chosen else 1,
                )  # fmt: skip
    figure.text(margin / width, 1 - 0.12 / height, fitting(title), va="top", fontsize=12, parse_math=False)
    figure.text(margin / width, 0.1 / height, note, va="bottom", fontsize=8, color="0.3", parse_math=False)
    return figure


def _lines(levels: Sequence[Sequence[Node]]) -> dict[Node, int]:
    """The line on which each node stands in `text`, that of its first child."""
    known = {node for level in levels for node in level}
    heights: dict[Node, int] = {}
    for level in reversed(levels):
        for node in level:
            heights[node] = max(1, sum(heights[child] for child in node.children if child in known))
    lines: dict[Node, int] = {}
    below = 0
    for root in levels[0]:
        lines[root] = below
        below += heights[root]
    for level in levels[:-1]:
        for node in level:
            below = lines[node]
            for child in node.children:
                lines[child] = below
                below += heights[child]
    return lines
