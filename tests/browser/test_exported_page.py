"""An exported page in a real browser: it classifies as `predict` does, and asks nobody else."""

import base64
import functools
import os
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regraft.backbones.spec import BackboneSpec, Compute, Preprocessing
from regraft.backbones.views import prepare
from regraft.classifiers.feature_classifier import FeatureClassifier
from regraft.deploy.export import write_deployed
from regraft.deploy.predictor import load
from regraft.deploy.web import RUNTIME, write_web
from regraft.files import home
from samples import saved

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
# The home of a test is its own: what the person has is asked for before.
OWN = Path(os.environ.get("REGRAFT_ORT_WEB", home() / "runtimes" / RUNTIME))
ARCHIVE = OWN if OWN.is_file() else None
WHY = f"{RUNTIME} is not here: `npm pack` gives it, REGRAFT_ORT_WEB names it"
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
    pytest.mark.skipif(ARCHIVE is None, reason=WHY),
]
WIDE, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}
DROP = """([name, text]) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], name));
  document.getElementById("drop").dispatchEvent(
    new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Return a deployed model of the channel that is strongest, and the folder of its page."""
    folder = tmp_path_factory.mktemp("page")
    random = np.random.default_rng(0)
    names = ["<b>red</b>", "green", "blue"]
    images, labels = [], []
    for number in range(30):
        noise = random.integers(0, 80, (60, 70, 3))
        noise[..., number % 3] += 150
        images.append(noise.astype(np.uint8))
        labels.append(names[number % 3])
    spec = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
    learner = FeatureClassifier(spec, compute=Compute(cache=None, engine="torch"), grid=None)
    write_deployed(learner.fit(images, labels), folder / "deploy", images)
    write_web(folder / "deploy", folder / "web", runtime=ARCHIVE)
    return load(folder / "deploy"), folder / "web"


@pytest.fixture(scope="module")
def address(model):
    """Return where a plain server shows the page."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            """Say nothing."""

    handler = functools.partial(Quiet, directory=str(model[1]))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page; it may ask its own server only, and must not fail."""
    wrong, contexts = [], []

    def opened(address, viewport=WIDE, **settings):
        contexts.append(browser.new_context(viewport=viewport, **settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = (address, f"blob:{address}", "data:", "blob:")
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url),
        )
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def give(page, name, data):
    page.evaluate(DROP, [name, base64.b64encode(data).decode()])
    card = page.locator("#results > li").first
    playwright.expect(card.locator("h2")).not_to_have_text("…", timeout=60_000)
    return card


def drawn(*shape, channel=0, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 60, (*shape, 3))
    pixels[..., channel] += 150
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
def test_a_dropped_image_shows_its_class_and_a_broken_file_the_reason(
    open_page, model, address, viewport
):
    page = open_page(address, viewport, color_scheme="dark")
    for channel in range(3):
        image = drawn(90, 120, channel=channel)
        card = give(page, "image.png", saved(image))

        expected = model[0].predict_proba([image])[0]
        assert card.locator("h2").text_content() == model[0].predict([image])[0]
        order = (-expected).argsort()
        shown = card.locator(".bars dd:not(.bar)").all_text_contents()
        assert [float(text.split()[0]) for text in shown] == pytest.approx(
            (100 * expected[order]).tolist(), abs=0.06
        )
    bad = give(page, "broken.jpg", saved(drawn(90, 120))[:100])
    assert bad.locator("h2").text_content() == "This image cannot be used"
    assert "damaged" in bad.locator(".warn").text_content()
    assert give(page, "empty.png", b"").locator(".warn").text_content() == "the file is empty"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_photographs_are_turned_upright_and_clear_pixels_painted(open_page, model, address):
    page = open_page(address)
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.array(drawn(40, 120))
    pixels[:, :60] = pixels[:, :60, ::-1]
    turned = saved(Image.fromarray(pixels), exif=exif)
    clear = saved(Image.new("RGBA", (60, 50), (0, 0, 255, 0)))

    for name, data in (("turned.png", turned), ("clear.png", clear)):
        card = give(page, name, data)

        file = model[1].parent / name
        file.write_bytes(data)
        expected = model[0].predict_proba([file]).max()
        assert card.locator("h2").text_content() == model[0].predict([file])[0]
        shown = card.locator(".bars dd:not(.bar)").first.text_content()
        assert float(shown.split()[0]) == pytest.approx(100 * expected, abs=1)


GEOMETRIES = [
    {"size": 32, "resize": 37, "mode": "crop"},
    {"size": 32, "resize": 32, "mode": "squash"},
    {"size": 32, "resize": 41, "mode": "squash_crop"},
]
RESIZE = """([pixels, width, height, preprocessing]) =>
  [...prepared({ width, height, pixels: Uint8Array.from(pixels) }, preprocessing)]"""


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_page_resizes_as_pillow_does(open_page, address, interpolation, geometry):
    page = open_page(address)
    preprocessing = Preprocessing(interpolation=interpolation, **geometry)
    for height, width in ((50, 71), (20, 90), (64, 64), (31, 40), (90, 61)):
        image = drawn(height, width, seed=width)
        given = [np.asarray(image).ravel().tolist(), width, height]

        found = page.evaluate(RESIZE, [*given, {"interpolation": interpolation, **geometry}])

        off = np.array(found) - prepare(image, preprocessing).ravel().astype(int)
        # Pillow resizes some high images first down and then across, and rounds otherwise.
        assert np.abs(off).max() <= (2 if width < height else 0)


def test_opened_as_a_file_the_page_says_how_to_open_it(browser, model):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"file://{model[1] / 'index.html'}")

    playwright.expect(page.locator("#status")).to_contain_text("python -m http.server")
    context.close()
