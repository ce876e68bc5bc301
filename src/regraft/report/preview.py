"""One sheet of pictures beside their augmented views, to look at before anything is learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from regraft.errors import UsageError, printable

Pixels = NDArray[np.uint8]
Augment = Callable[[Pixels, np.random.Generator], Pixels]

_PAPER, _INK, _MUTED = (255, 255, 255), (34, 34, 34), (110, 110, 110)
_LEAST_CELL = 96  # pixels; smaller pictures are enlarged, so that their titles have room


def preview_sheet(
    pictures: Sequence[tuple[str, Pixels]],
    augment: Augment,
    *,
    views: int = 7,
    seed: int = 0,
    title: str = "",
    subtitle: str = "",
) -> Image.Image:
    """Draw a sheet: a row for each picture, first as it is, then augmented.

    Args:
        pictures: A name and the pixels (size, size, 3) of each picture, all of one size.
        augment: From a picture and a random generator to a view of the same size.
        views: How many views of each picture, 1 or more.
        seed: Another seed, other views.
        title: A line above the sheet.
        subtitle: A smaller line below it.

    Raises:
        UsageError: There is no picture or no view to show.

    Example:
        >>> grey = np.full((128, 128, 3), 128, np.uint8)
        >>> sheet = preview_sheet([("grey", grey)], lambda picture, random: picture, views=2)
        >>> sheet.width > 3 * 128
        True
    """
    if not pictures or views < 1:
        raise UsageError("a sheet shows at least one view of one picture")
    rows = [
        (name, [picture, *_views(picture, augment, views, (seed, row))])
        for row, (name, picture) in enumerate(pictures)
    ]
    return _drawn(rows, title, subtitle)


def _views(picture: Pixels, augment: Augment, views: int, place: tuple[int, int]) -> list[Pixels]:
    return [augment(picture, np.random.default_rng([*place, view])) for view in range(views)]


def _drawn(rows: Sequence[tuple[str, Sequence[Pixels]]], title: str, subtitle: str) -> Image.Image:
    cell = max(_LEAST_CELL, rows[0][1][0].shape[1])
    columns = len(rows[0][1])
    margin, gap, step = cell // 8, max(cell // 32, 4), max(cell // 16, 4)
    text, small = _font(max(cell // 12, 12), "-Bold"), _font(max(cell // 17, 10))
    line = round(text.size * 1.6)
    head = margin + line * (bool(title) + bool(subtitle)) + step * bool(title or subtitle)
    # Between the pictures as they are and their views is one more gap.
    left = [margin + column * (cell + gap) + (step if column else 0) for column in range(columns)]
    width = left[-1] + cell + margin
    top = [head + line + row * (cell + line + step) for row in range(len(rows))]
    sheet = Image.new("RGB", (width, top[-1] + cell + line + margin), _PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((margin, margin), _fitted(title, text, width - 2 * margin), _INK, text)
    if subtitle:
        place = (margin, margin + line * bool(title))
        draw.text(place, _fitted(subtitle, small, width - 2 * margin), _MUTED, small)
    for column, across in enumerate(left):
        name = f"view {column}" if column else "as it is"
        draw.text((across, head), name, _MUTED, small)
    for (name, shown), down in zip(rows, top, strict=True):
        for picture, across in zip(shown, left, strict=True):
            image = Image.fromarray(picture)
            enlarged = image.resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(enlarged if image.width < cell else image, (across, down))
        caption = _fitted(name, small, width - 2 * margin)
        draw.text((margin, down + cell + gap // 2), caption, _INK, small)
    return sheet


def _fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Return a text shortened in its middle until it is no wider than so many pixels."""
    whole = shown = printable(text)
    keep = len(whole)
    while font.getlength(shown) > width and keep > 2:
        keep -= 1
        shown = whole[: keep - keep // 2] + "…" + whole[-(keep // 2) :]
    return shown


def _font(size: int, weight: str = "") -> ImageFont.FreeTypeFont:
    """Return the font of the figures, which has more scripts than Pillow's own."""
    import matplotlib as mpl

    file = Path(mpl.get_data_path(), "fonts", "ttf", f"DejaVuSans{weight}.ttf")
    return ImageFont.truetype(str(file), size)
