"""The page of a run in a real browser: click, hover, keys, sizes, schemes, and no request."""

import hashlib
import shutil

import pytest

from regraft.data.dataset import Dataset
from regraft.data.synthetic import make_flowers
from regraft.experiment.config import DataConfig, MethodConfig, RunConfig
from regraft.experiment.run import fit_run
from regraft.labels.review import apply_review

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
WIDE, PHONE = {"width": 1500, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def flowers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser") / "flowers"
    make_flowers(folder, species=3, per_class=12, size=48)
    return folder


@pytest.fixture(scope="module")
def run(flowers, tmp_path_factory):
    """Return a run of a head that has hardly learned, so that there are wrong images."""
    network = {"backbone": "simple_cnn", "weights": "random", "arguments": {"size": 48}}
    method = MethodConfig(**network, strategy="frozen", epochs=1)
    return fit_run(RunConfig(DataConfig(flowers), method), out=tmp_path_factory.mktemp("run") / "r")


@pytest.fixture
def open_page(browser, run):
    """Return a function that opens the run's page; what goes wrong there fails the test."""
    wrong, contexts = [], []

    def opened(viewport=WIDE, **settings):
        contexts.append(browser.new_context(viewport=viewport, reduced_motion="reduce", **settings))
        page = contexts[-1].new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if "://" in asked.url else None)
        page.goto(f"file://{run.folder / 'report.html'}")
        wrong.remove(f"file://{run.folder / 'report.html'}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def wrong_pair(run):
    """Return the cell with the most errors, and its images, the most confident first."""
    p = run.predictions.part("test")
    wrong = sorted((i for i in range(len(p)) if not p.correct[i]), key=lambda i: -p.confidence[i])
    cells = [(int(p.truth_index[i]), int(p.predicted_index[i])) for i in wrong]
    cell = max(cells, key=cells.count)
    return cell, [p.paths[i] for i, own in zip(wrong, cells, strict=True) if own == cell]


@pytest.mark.parametrize("by_keyboard", [False, True])
def test_a_cell_of_the_confusion_matrix_leads_to_its_images_by_confidence(
    open_page, run, by_keyboard
):
    (true, predicted), paths = wrong_pair(run)
    page = open_page()
    cell = page.locator(f'.matrix a[href="#pair-{true}-{predicted}"]')

    if by_keyboard:
        cell.focus()
        page.keyboard.press("Enter")
    else:
        cell.click()

    images = page.locator(f"#pair-{true}-{predicted} .card")
    playwright.expect(images.first).to_be_in_viewport()
    titles = [one.get_attribute("title") for one in images.locator(".file").all()]
    assert titles == paths
    assert images.first.locator("img").first.evaluate("image => image.naturalWidth") == 160
    assert images.first.locator(".near li").count() == 3


def test_a_cell_of_right_images_opens_the_list_of_them(open_page, run):
    page = open_page()
    cell = page.locator(".matrix td.right a").first

    cell.click()

    images = page.locator(f"{cell.get_attribute('href')} .small")
    assert images.count() == int(cell.evaluate("cell => cell.firstChild.textContent"))
    assert images.first.is_visible()


def shown_maps(card):
    return [float(one.evaluate("m => getComputedStyle(m).opacity")) for one in card.all()]


def test_a_map_is_shown_while_its_class_is_pointed_at_or_has_the_focus(open_page, run):
    page = open_page()
    card = page.locator(".card").filter(has=page.locator(".b2")).first
    maps = card.locator(".map")

    card.locator(".file").hover()
    before = shown_maps(maps)
    card.locator(".b1").hover()
    predicted = shown_maps(maps)
    card.locator(".file").hover()
    card.locator(".b2").focus()
    true = shown_maps(maps)

    assert (before, predicted, true) == ([0, 0], [1, 0], [0, 1])
    sizes = [one.evaluate("m => [m.clientWidth, m.clientHeight]") for one in maps.all()]
    assert sizes == [card.locator("img").first.evaluate("m => [m.clientWidth, m.clientHeight]")] * 2


def test_pointing_at_a_mark_of_the_map_shows_its_image_in_every_map(open_page, run):
    page = open_page()
    scatter = page.locator(".scatter").first
    tip = scatter.locator(".tip")

    scatter.locator("use[data-i]").last.hover(force=True)

    p = run.predictions.part("test")
    path = tip.locator(".file").text_content()
    assert path in p.paths
    assert tip.text_content().strip().startswith(p.truth[p.paths.index(path)])
    picture = tip.locator(".small").evaluate("s => getComputedStyle(s).backgroundImage")
    assert picture.startswith('url("data:image/jpeg')
    assert page.locator("use.on").count() == page.locator(".scatter").count()


def test_the_map_is_walked_with_arrow_keys_and_enter_leads_to_a_wrong_image(open_page, run):
    page = open_page()
    scatter = page.locator(".scatter").last
    total, seen = len(run.predictions.part("test")), set()

    scatter.focus()
    for _ in range(total):
        page.keyboard.press("ArrowRight")
        seen.add(scatter.locator(".tip .file").text_content())
    page.keyboard.press("Escape")
    gone = not scatter.locator(".tip").is_visible()
    page.keyboard.press("ArrowLeft")
    while "predicted as" not in scatter.locator(".tip").text_content():
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")

    assert seen == set(run.predictions.part("test").paths)
    assert gone
    assert "#pair-" in page.url


def test_labels_that_are_chosen_become_a_table_that_corrects_the_images(
    open_page, run, flowers, tmp_path
):
    page, images = open_page(), Dataset.from_folder(flowers)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in images.paths}
    (_, predicted), paths = wrong_pair(run)
    choices = page.locator(".card:has(.b2) select")
    given = images.labels[images.relative_paths().index(paths[0])]
    own = page.locator(f'select[data-row^="{paths[0]},"]')

    assert page.locator("#save").is_disabled()
    own.focus()
    own.select_option(label=images.classes[predicted])
    with page.expect_download() as download:
        page.locator("#save").click()

    download.value.save_as(tmp_path / "relabel.csv")
    assert download.value.suggested_filename == "relabel.csv"
    assert page.locator("#chosen").text_content() == "1 label chosen"
    assert choices.first.locator("option").count() >= 2
    done = apply_review(images, tmp_path / "relabel.csv", tmp_path / "images.csv")
    assert done.changes == {(given, images.classes[predicted]): 1}
    assert {p: hashlib.sha256(p.read_bytes()).digest() for p in images.paths} == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
def test_the_page_fits_its_window_and_follows_the_scheme(open_page, viewport, scheme):
    page = open_page(viewport, color_scheme=scheme)

    width = page.evaluate("document.documentElement.scrollWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    card = page.locator(".card").first.bounding_box()["width"]

    assert width == viewport["width"]
    assert (int(paper.split("(")[1].split(",")[0]) < 128) == (scheme == "dark")
    assert card >= 150


def test_without_scripts_the_images_can_be_reached_and_nothing_dead_is_shown(open_page, run):
    (true, predicted), paths = wrong_pair(run)
    page = open_page(java_script_enabled=False)

    page.locator(f'.matrix a[href="#pair-{true}-{predicted}"]').click()

    assert page.locator(f"#pair-{true}-{predicted} .card").count() == len(paths)
    assert not page.locator("#save").is_visible()
    assert not page.locator("select").first.is_visible()
