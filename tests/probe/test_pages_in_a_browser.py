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
    copy, around, picture = folder / "page.html", folder / "around.html", folder / "page.png"
    script = "<script>console.log('sizes', document.documentElement.scrollWidth, innerWidth)</script>"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    # A window of Chromium is at least 500 wide, whatever it is asked for; a frame is as wide as it is told to be.
    around.write_text(
        '<!doctype html><html style="color-scheme: light dark"><link rel="icon" href="data:,"><body style="margin: 0">'
        f'<iframe src="page.html" style="border: 0; width: {width}px; height: 1100px"></iframe></body></html>'
    )
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1500,1200",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}", "--enable-logging=stderr",
        f"--screenshot={picture}", around.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    with Image.open(picture) as image:
        return said_to_the_console(done.stderr), np.asarray(image.convert("L"))


def said_to_the_console(log):
    """What pages have said, of each line about the console in Chromium's log: in quotes before its source, or not."""
    lines = re.findall(r"CONSOLE\S*(.*)", log)
    return [re.sub(r'^ "(.*)", source: .*', r"\1", line).strip() for line in lines]


def test_whatever_its_form_a_line_about_the_console_is_seen():
    log = """
[20024:20024:0201/131223.031836:INFO:CONSOLE(40)] "sizes 400 400", source: file:///tmp/page.html (40)
[4082634:4082634:1017/153703.620972:INFO:CONSOLE:146] "sizes "400" 400", source: file:///tmp/page.html (146)
[1:1:1017/153703.6:ERROR:CONSOLE] Refused to load an image
[1:1:1017/153703.6:ERROR:gpu_process.cc(1)] "nothing", source: elsewhere
"""
    assert said_to_the_console(log) == ["sizes 400 400", 'sizes "400" 400', "Refused to load an image"]


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [400, 1400])
def test_pages(pages, tmp_path, width, scheme):
    assert len(pages) == 14
    for page in pages:
        said, pixels = shown(page, tmp_path, width=width, scheme=scheme)
        ((word, wide, window),) = (line.split() for line in said)  # our own line and no other
        assert word == "sizes"
        assert int(window) == width
        assert int(wide) <= width, page.name
        corner = pixels[:8, :8].mean()
        assert corner < 60 if scheme == "dark" else corner > 240, page.name
