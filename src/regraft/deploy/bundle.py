"""A model to hand on: one ZIP file with the model, an example of its use and what is known of it.

model.onnx     the whole model: an image of any size in, probabilities out
labels.json    the names of the classes, in the order of the probabilities
predict.py     how to use it, without Regraft
README.md      classes, accuracy, licence of the weights, how to run it
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

from regraft.deploy.export import whole_onnx
from regraft.deploy.predictor import DeployRecord, load
from regraft.files import write_bytes
from regraft.report.model_card import bullets, model_facts

MODEL, LABELS, EXAMPLE, README = "model.onnx", "labels.json", "predict.py", "README.md"
_BORN = (1980, 1, 1, 0, 0, 0)  # of every file in it: the same model gives the same bytes
_EXAMPLE = '''"""Say what is in images: python predict.py IMAGES (onnxruntime, numpy, Pillow)."""
import json, sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

here = Path(__file__).resolve().parent
labels = json.loads((here / "labels.json").read_text(encoding="utf-8"))
session = onnxruntime.InferenceSession(here / "model.onnx")
for name in sys.argv[1:]:
    image = ImageOps.exif_transpose(Image.open(name))  # upright
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, {background})
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    (probabilities,) = session.run(["probabilities"], {{"image": np.asarray(image.convert("RGB"))}})
    best = probabilities.argmax()
    print(name, labels[best], f"{{probabilities[best]:.4f}}", sep="\\t")
'''
_README = """# {title}

An image classifier. `model.onnx` takes an image of any size (`image`: height × width × 3, RGB, 8
bits) and gives the probability of each class (`probabilities`); it resizes and normalises itself.

    pip install onnxruntime numpy pillow
    python predict.py IMAGES

{facts}
"""


def write_bundle(deployed: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write a deployed model, an example that needs onnxruntime only, and what is known of it.

    Args:
        deployed: The folder that :func:`~regraft.deploy.export.write_deployed` wrote.
        file: The ZIP file to write.

    Raises:
        ModelError: There is no deployed model, or it is damaged.
    """
    record, content = load(deployed).record, io.BytesIO()
    texts = {
        LABELS: json.dumps(record.classes, ensure_ascii=False, indent=0) + "\n",
        EXAMPLE: _EXAMPLE.format(background=(*record.decoding.background, 255)),
        README: readme(record),
    }
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(_entry(name), text.encode("utf-8", "backslashreplace"))
        archive.writestr(_entry(MODEL), whole_onnx(deployed))
    write_bytes(Path(file), content.getvalue())


def readme(record: DeployRecord) -> str:
    """Return what people should know of a deployed model, as Markdown."""
    title = record.provenance.get("run") or "A model"
    return _README.format(title=title, facts=bullets(known_facts(record)))


def known_facts(record: DeployRecord) -> dict[str, str]:
    """Return what is known of a deployed model, by what it is called."""
    given = record.provenance
    facts = model_facts(
        classes=record.classes,
        backbone=given.get("backbone") or {},
        accuracy=given.get("accuracy"),
        made=(str(given.get("created", "")), str(given.get("regraft", ""))),
    )
    facts["compared with the model it was made from"] = str(record.agreement)
    if "int8" in given:
        facts["in whole numbers of 8 bits"] = str(given["int8"]["text"])
    return facts


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _BORN)
    entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    return entry
