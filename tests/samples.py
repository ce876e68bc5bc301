"""Small images, archives and learners that many tests are made of, and what a call refuses."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from regraft import BackboneSpec, Compute, Dataset, NetworkClassifier, RegraftError

SMALL = BackboneSpec("simple_cnn", weights=None, arguments=(("size", 48),))
COLOURS = ("blue", "green", "red")


def refused(call, *arguments, **options):
    """Return the error with which a call refuses its arguments."""
    with pytest.raises(RegraftError) as caught:
        call(*arguments, **options)
    return caught.value


def photograph(seed=0, size=(60, 44)):
    """Return an image with coarse and fine structure, different in every corner."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def saved(image, kind="PNG", **options):
    """Return the bytes of the file of an image."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def coloured(names, *, side=32, seed=0):
    """Return noisy images, each mostly of the colour that it is named after."""
    images = np.random.default_rng(seed).integers(0, 150, (len(names), side, side, 3))
    for image, name in zip(images, names, strict=True):
        image[..., 2 - COLOURS.index(name)] += 80
    return list(images.astype(np.uint8))


def coloured_files(folder, part, count, **options):
    """Write coloured images as files; return them as a data set, the colours in turn."""
    labels = [COLOURS[i % 3] for i in range(count)]
    paths = [folder / f"{part}{i:02}.png" for i in range(count)]
    for path, image in zip(paths, coloured(labels, **options), strict=True):
        Image.fromarray(image).save(path)
    return Dataset(tuple(paths), tuple(labels), COLOURS)


def zipped(files, compression=zipfile.ZIP_DEFLATED):
    """Return a zip of contents by name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return stream.getvalue()


def tarred(files, mode="w"):
    """Return a tar of contents by name; a ready TarInfo stands for a member without content."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as file:
        for name, data in files.items():
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def computing(chosen):
    """Take the settings of the computation out of others; without any, torch on the processor."""
    own = {name: chosen.pop(name) for name in Compute.__dataclass_fields__ if name in chosen}
    return Compute(**{"device": "cpu", "engine": "torch", **own})


def learner(backbone=SMALL, **chosen):
    """Return a learner with a network, whose settings need no names of their groups."""
    return NetworkClassifier(backbone, compute=computing(chosen), **{"batch_size": 8, **chosen})


def timeless(value):
    """Return a JSON value without anything called seconds."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return [timeless(v) for v in value] if isinstance(value, list) else value
