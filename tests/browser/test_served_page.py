"""The page of a server in a real browser: drop, paste, choose; reasons, widths, keys, schemes."""

import base64
import shutil

import pytest
from PIL import Image

from samples import saved
from serving import Held, brightness, serving

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
WIDE, PHONE = {"width": 1300, "height": 900}, {"width": 390, "height": 844}
LIGHT = saved(Image.new("RGB", (40, 30), (230, 230, 230)))
TOKEN = "a-token-of-some-length"
DROP = """([kind, name, text]) => {
  const data = new DataTransfer();
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const [place, key] = kind === "paste" ? [document.body, "clipboardData"]
    : [document.getElementById("drop"), "dataTransfer"];
  const Kind = kind === "paste" ? ClipboardEvent : DragEvent;
  place.dispatchEvent(new Kind(kind, { [key]: data, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def server():
    with serving() as client:
        yield str(client.base_url)


@pytest.fixture
def open_page(browser):
    """Return a function that opens a page; it may ask its own server only, and must not fail."""
    wrong, contexts = [], []

    def opened(address, viewport=WIDE, **settings):
        contexts.append(browser.new_context(viewport=viewport, **settings))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        own = (address, f"blob:{address}", "data:")
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(own) else wrong.append(asked.url),
        )
        page.on(
            "console",
            lambda said: wrong.append(said.text) if "Content Security" in said.text else None,
        )
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def give(page, kind, name, data):
    page.evaluate(DROP, [kind, name, base64.b64encode(data).decode()])
    return page.locator("#results > li").first


def shown(card):
    playwright.expect(card.locator("h2")).not_to_have_text("…")
    return card.locator("h2").text_content()


@pytest.mark.parametrize("viewport", [WIDE, PHONE])
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_an_image_shows_its_class_and_a_broken_file_the_reason(open_page, server, viewport, kind):
    page = open_page(server, viewport)

    good = give(page, kind, "light.png", LIGHT)
    assert shown(good) == "light"
    assert good.locator(".bars dt").all_text_contents() == ["light", "dark"]
    assert good.locator(".bars dd:not(.bar)").all_text_contents() == ["90.2 %", "9.8 %"]
    widths = [bar.bounding_box()["width"] for bar in good.locator(".bar i").all()]
    whole = good.locator(".bar").first.bounding_box()["width"]
    assert widths == pytest.approx([0.902 * whole, 0.098 * whole], abs=2)
    assert good.locator(".shown img").evaluate("image => image.naturalWidth") == 40
    bad = give(page, kind, "broken.png", LIGHT[:60])
    assert shown(bad) == "This image cannot be used"
    assert "cut off" in bad.locator(".warn").text_content()
    assert "IMG-TRUNCATED" in bad.text_content()
    assert "broken.png, this image cannot be used" in page.locator("[aria-live]").text_content()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_files_are_chosen_by_keyboard_and_many_at_a_time(open_page, server):
    page = open_page(server)
    page.on("filechooser", lambda _: None)  # from now on: what is typed may come before it
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"

    with page.expect_file_chooser() as chosen:
        page.keyboard.press("Enter")
    chosen.value.set_files(
        [{"name": f"{n}.png", "mimeType": "image/png", "buffer": LIGHT} for n in range(6)]
    )

    playwright.expect(page.locator(".bars")).to_have_count(6)
    assert sorted(page.locator(".file").all_text_contents()) == [f"{n}.png" for n in range(6)]
    photo = page.locator("#photo")
    assert (photo.get_attribute("capture"), photo.get_attribute("accept")) == (
        "environment",
        "image/*",
    )


def test_unknown_is_said_plainly_and_the_nearest_images_are_shown(open_page):
    image = "data:image/png;base64," + base64.b64encode(LIGHT).decode()
    near = [{"label": "<b>dark</b>", "distance": 0.21, "image": image}]
    more = {"unknown": True, "labels": ["dark", "light"], "nearest": near}

    with serving(lambda images: [row | more for row in brightness(images)]) as client:
        page = open_page(str(client.base_url), color_scheme="dark")
        card = give(page, "drop", "a.png", LIGHT)

        assert shown(card) == "Unknown"
        assert "like nothing" in card.locator(".warn").text_content()
        assert "One of: dark, light" in card.text_content()
        assert card.locator(".near li").text_content() == "<b>dark</b>, 0.21"  # never as HTML
        assert card.locator(".near img").evaluate("image => image.naturalWidth") == 40
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(20, 23, 26)"


def test_what_speaks_for_the_class_is_shown_on_demand(open_page):
    image = "data:image/png;base64," + base64.b64encode(LIGHT).decode()
    with serving(maps=lambda _image, _label: (image, image)) as client:
        page = open_page(str(client.base_url), PHONE)
        card = give(page, "drop", "a.png", LIGHT)

        card.get_by_role("button", name="What speaks for light?").press("Enter")

        playwright.expect(card.locator("figure img")).to_have_count(2)
        widths = [one.evaluate("i => i.naturalWidth") for one in card.locator("figure img").all()]
        assert widths == [40, 40]
        assert "Dark where nothing speaks for light" in card.text_content()


def test_a_server_with_a_token_asks_for_it_once(open_page):
    with serving(token=TOKEN) as client:
        page = open_page(str(client.base_url))
        card = give(page, "drop", "a.png", LIGHT)
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")

        assert shown(card) == "light"
        assert not page.locator("#login").is_visible()
        assert TOKEN not in page.url


def test_a_server_that_does_not_answer_is_said(open_page):
    model = Held()
    with serving(model) as client:
        page = open_page(str(client.base_url))
        model.broken = True
        card = give(page, "drop", "a.png", LIGHT)

        assert shown(card) == "No answer"
        assert "the model cannot answer" in card.locator(".warn").text_content()
    gone = give(page, "drop", "b.png", LIGHT)
    assert shown(gone) == "No answer"
    assert "the server does not answer" in gone.locator(".warn").text_content()
