"""Pages of `inspect --html` in a real browser: nothing to complain of, nothing wider than the window, light and dark.

By hand, where there is a Chromium: `pytest -m slow`.
"""

import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from dlkit.cli import main

BROWSER = shutil.which("chromium")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")]

SCHEMES = {"dark": 0, "light": 1}  # as Chromium counts them


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages of several kinds: a chart, a table with a chart, images, and words along axes and beside points."""
    folder = tmp_path_factory.mktemp("pages")
    run = str(folder / "runs" / "x")
    assert main(["train", "lenet", "--epochs", "1", "--runs-dir", str(folder / "runs"), "--name", "x", "-q"]) == 0
    for what in ("activations", "gradients", "jacobian", "filters", "features", "saliency", "shift"):
        assert main(["inspect", run, what, "--html", str(folder / f"{what}.html"), "-q"]) == 0
    small = ["model.width=16", "model.heads=2", "model.layers=1"]
    fresh = {
        ("lenet", "gradcam"): [], ("lenet", "receptive"): [], ("gpt", "attention"): [*small, "data.block=16"],
        ("gpt", "positions"): [*small, "data.block=16"],
        ("transformer", "embeddings"): [*small, "data.train=64", "data.validation=4", "data.test=4"],
        ("lstm", "jacobian"): ["data.length=10", "data.train=8", "data.test=4", "model.width=8"],
    }  # fmt: skip
    for (model, what), sets in fresh.items():
        options = [word for text in sets for word in ("--set", text)]
        assert main(["inspect", model, what, *options, "--html", str(folder / f"{model}_{what}.html"), "-q"]) == 0
    assert main(["plot", run, "--html", str(folder / "plot.html"), "-q"]) == 0
    return sorted(folder.glob("*.html"))


def shown(page, folder, *, width, scheme):
    """What a browser says of a page, and the page's picture."""
    copy, picture = folder / "page.html", folder / "page.png"
    script = "<script>console.log('sizes', document.documentElement.scrollWidth, innerWidth)</script>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},1200",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", "--enable-logging=stderr",
        f"--screenshot={picture}", copy.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    with Image.open(picture) as image:
        return re.findall(r"CONSOLE.*?\] \"(.*?)\"", done.stderr), np.asarray(image.convert("L"))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [400, 1400])
def test_pages(pages, tmp_path, width, scheme):
    assert len(pages) == 14
    for page in pages:
        said, pixels = shown(page, tmp_path, width=width, scheme=scheme)
        ((word, wide, window),) = (line.split() for line in said)  # our own line and no other
        assert word == "sizes"
        assert int(wide) <= int(window), page.name
        corner = pixels[:8, :8].mean()
        assert corner < 60 if scheme == "dark" else corner > 240, page.name
