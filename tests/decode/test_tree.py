"""The tree of hypotheses: drawn by hand from a record by hand, and whole for searches of all kinds."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from search_oracle import END, ScriptedModel, sequences, source_of

from dlkit.decode import tree
from dlkit.decode.decoder import Decoder
from dlkit.decode.step import ENDED, KEPT, NOTHING, PRUNED, Record
from dlkit.probe import pictures

PIECES = {2: "</s>", 3: "he", 4: "i", 5: "hit", 6: "struck", 7: "was", 8: "猫", 9: "\x1b[31m", 10: "me"}
# (token, parent, log-probability, fate) of each candidate of each step, with two beams.
STEPS = [
    [(3, 0, -0.7, KEPT), (4, 0, -0.9, KEPT), (8, 0, -3.0, PRUNED), (9, 0, -12.25, PRUNED)],
    [(7, 1, -1.6, KEPT), (5, 0, -1.7, KEPT), (6, 0, -2.9, PRUNED), (5, 1, -3.1, PRUNED)],
    [(10, 1, -2.5, KEPT), (2, 1, -2.6, ENDED), (5, 0, -2.9, KEPT), (2, 0, -4.0, PRUNED)],
    [(2, 0, -2.7, ENDED), (2, 1, -3.3, ENDED), (0, 0, 0.0, NOTHING), (0, 0, 0.0, NOTHING)],
    [(0, 0, 0.0, NOTHING)] * 4,
]
PARTS = np.moveaxis(np.array([STEPS], np.float64), -1, 0)
RECORD = Record(PARTS[0].astype(int), PARTS[1].astype(int), PARTS[2], PARTS[3].astype(int))
CHOSEN = [3, 5, 10, END]
EXPECTED = [
    "he        -0.7 ┬ hit    -1.7 ┬ me   -2.5 ─ </s> -2.7 ✓",
    "               │             └ </s> -2.6 ✓",
    "               └ struck -2.9 ✗",
    "i         -0.9 ┬ was    -1.6 ┬ hit  -2.9 ─ </s> -3.3 ✓",
    "               │             └ </s> -4.0 ✗",
    "               └ hit    -3.1 ✗",
    "猫        -3.0 ✗",
    "\\x1b[31m -12.2 ✗",
]


def test_the_tree_as_text():
    """Wide letters take two columns, and control characters are written out."""
    lines = tree.text(tree.grow(RECORD, 0, chosen=CHOSEN), PIECES.__getitem__)
    assert lines == EXPECTED


@pytest.mark.parametrize("width", [20, 40, 41, 200])
def test_lines_are_cut_to_the_terminal(width):
    from rich.cells import cell_len

    lines = tree.text(tree.grow(RECORD, 0), PIECES.__getitem__, width=width)
    for line, whole in zip(lines, EXPECTED, strict=True):
        assert cell_len(line) <= width
        if cell_len(whole) <= width:
            assert line == whole
        else:
            assert line.endswith(" ...")
            assert whole.startswith(line.removesuffix(" ..."))


def test_the_chosen_way_is_marked():
    levels = tree.grow(RECORD, 0, chosen=CHOSEN)
    assert [[node.token for node in level if node.chosen] for level in levels] == [[3], [5], [10], [END]]
    assert not any(node.chosen for level in tree.grow(RECORD, 0) for node in level)


@pytest.mark.parametrize("beams", [1, 2, 5])
def test_the_tree_of_a_search_holds_what_it_returns(beams):
    decoded = Decoder(ScriptedModel(rows=3, seed=1)).beam(
        source_of([0, 1, 2]), max_len=8, beams=beams, n_best=beams, record=True
    )
    for row in range(3):
        outputs = sequences(decoded, row)
        levels = tree.grow(decoded.record, row, chosen=outputs[0])
        assert tuple(node.token for level in levels for node in level if node.chosen) == outputs[0]
        ended = [(level, node) for level, nodes in enumerate(levels) for node in nodes if node.fate == ENDED]
        sums = decoded.log_probabilities[row, : len(outputs)]
        found = {(len(tokens), round(float(p), 4)) for tokens, p in zip(outputs, sums, strict=True)}
        assert found <= {(level + 1, round(node.log_probability, 4)) for level, node in ended}
        lines = tree.text(levels, str)
        leaves = sum(not node.children for level in levels for node in level)
        assert len(lines) == leaves
        assert sum(line.endswith("✓") for line in lines) == len(ended)
        assert "\n" not in "".join(lines)


def test_a_row_without_candidates_has_no_tree():
    empty = Record(*(values[:, 4:] for values in RECORD))
    assert tree.grow(empty, 0) == []
    assert tree.text([], str) == []


def test_a_deep_tree_needs_no_recursion():
    steps = 3000
    values = [np.full((1, steps, 1), value) for value in (3, 0, -1.0, KEPT)]
    (line,) = tree.text(tree.grow(Record(*values), 0), str, width=30)
    assert line == "3 -1.0 ─ 3 -1.0 ─ 3 -1.0 ─ ..."[:26].rstrip() + " ..."


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("title", ["Il fait froid.", "$x$ \x1b[31m" + "long" * 60])
def test_the_tree_as_a_picture(tmp_path, title):
    levels = tree.grow(RECORD, 0, chosen=CHOSEN)
    figure = tree.picture(levels, PIECES.__getitem__, title=title)
    pictures.save(figure, tmp_path / "tree.png")
    assert (tmp_path / "tree.png").stat().st_size > 1000
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(matplotlib.text.Text) if text.get_text()]
    boxes = [text.get_window_extent(canvas.get_renderer()) for text in texts]
    shown = [text.get_text() for text in texts]
    assert sum(text.startswith("</s>  ") for text in shown) == 4
    assert "struck  -2.9" in shown
    assert not any("\x1b" in text for text in shown)
    for place, box in enumerate(boxes):
        assert -1 <= box.x0 <= box.x1 <= figure.bbox.width + 1, shown[place]
        for other in boxes[place + 1 :]:
            across = min(box.x1, other.x1) - max(box.x0, other.x0)
            down = min(box.y1, other.y1) - max(box.y0, other.y0)
            assert across <= 1 or down <= 1, shown[place]
    bold = {text.get_text() for text in texts if text.get_fontweight() == "bold"}
    assert bold == {"he  -0.7", "hit  -1.7", "me  -2.5", "</s>  -2.7"}


def test_importing_it_loads_nothing_heavy():
    heavy = {"tensorflow", "keras", "matplotlib", "rich", "numpy"}
    code = f"import sys, dlkit.decode.tree; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"
