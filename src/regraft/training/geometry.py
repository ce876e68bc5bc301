"""One affine map of a picture, sampled bilinearly.

Places are indices of pixels, (row, column), the first pixel's centre at (0, 0). A matrix is 3 × 3
and leads from a place in the new picture to the place in the old one where its colour comes from.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import grid_sample

Pixels = NDArray[np.uint8]
Matrix = NDArray[np.float64]
Fill = Literal["nearest", "reflect", "constant"]
FILLS: tuple[Fill, ...] = get_args(Fill)


def affine(
    height: int,
    width: int,
    *,
    rotation: float = 0.0,
    shift: tuple[float, float] = (0.0, 0.0),
    shear: float = 0.0,
    zoom: tuple[float, float] = (1.0, 1.0),
) -> Matrix:
    """Return the matrix of Keras' ``ImageDataGenerator``: rotation · shift · shear · zoom.

    They turn around the centre of the picture, as in Keras today. Its early versions (up to
    keras-preprocessing 1.1) turned around a point one pixel further down and to the right.

    Args:
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.
        rotation: Degrees; a positive angle turns the picture clockwise.
        shift: Pixels down and to the right from which colours are taken.
        shear: Degrees.
        zoom: Factors on rows and columns; above 1 the picture gets smaller.

    Example:
        >>> affine(5, 5, zoom=(2.0, 2.0)) @ (2, 2, 1)  # the centre stays
        array([2., 2., 1.])
    """
    turn, slant = np.deg2rad(rotation), np.deg2rad(shear)
    rotated = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    sheared = [[1, -np.sin(slant), 0], [0, np.cos(slant), 0], [0, 0, 1]]
    zoomed = np.diag([*zoom, 1.0])
    whole = np.array(rotated) @ moved(*shift) @ np.array(sheared) @ zoomed
    return around((height - 1) / 2, (width - 1) / 2, whole)


def moved(rows: float, columns: float) -> Matrix:
    """Return the matrix that takes colours from so many pixels below and to the right."""
    return np.array([[1.0, 0.0, rows], [0.0, 1.0, columns], [0.0, 0.0, 1.0]])


def around(row: float, column: float, matrix: Matrix) -> Matrix:
    """Return the matrix with this place instead of (0, 0) as its centre."""
    whole: Matrix = moved(row, column) @ matrix @ moved(-row, -column)
    return whole


def warp(
    picture: Pixels, matrix: Matrix, *, fill: Fill = "nearest", fill_value: float = 0.0
) -> Pixels:
    """Return a picture seen through an affine map.

    Args:
        picture: (height, width, 3) in 8 bits.
        matrix: From the new picture to the old one.
        fill: What lies outside: the ``"nearest"`` pixel, the picture mirrored at its edge
            (``"reflect"``, d c b a | a b c d | d c b a), or one colour (``"constant"``).
        fill_value: That colour, in all three channels, 0 to 255.

    Example:
        >>> picture = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
        >>> warp(picture, moved(0, 1), fill="constant")[0].tolist()
        [[3, 4, 5], [0, 0, 0]]
    """
    height, width = picture.shape[:2]
    rows, columns = np.arange(height)[:, None], np.arange(width)
    row = matrix[0, 0] * rows + (matrix[0, 1] * columns + matrix[0, 2])
    column = matrix[1, 0] * rows + (matrix[1, 1] * columns + matrix[1, 2])
    grid = np.empty((1, height, width, 2), np.float32)
    # grid_sample counts in halves of the picture from its middle, edges at -1 and 1.
    np.subtract((column + 0.5) * (2 / width), 1, out=grid[0, ..., 0], casting="same_kind")
    np.subtract((row + 0.5) * (2 / height), 1, out=grid[0, ..., 1], casting="same_kind")
    source = np.require(picture, requirements=["C", "W"])  # torch warns of arrays it cannot write
    sampled = grid_sample(
        torch.from_numpy(source).permute(2, 0, 1)[None].float(),
        torch.from_numpy(grid),
        mode="bilinear",
        padding_mode="reflection" if fill == "reflect" else "border",
        align_corners=False,
    )
    rounded = sampled[0].round_().to(torch.uint8).permute(1, 2, 0).contiguous()
    result: Pixels = rounded.numpy()
    if fill == "constant":
        slack = 1e-6  # places on the edge itself are inside, whatever the arithmetic rounds
        outside = (row < -slack) | (row > height - 1 + slack)
        outside |= (column < -slack) | (column > width - 1 + slack)
        result[outside] = round(fill_value)
    return result
