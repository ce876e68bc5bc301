"""A model as a page that classifies in the browser: a folder for any web server, and no other.

index.html      the page of `regraft serve`, with `in_browser.js` in place of the server
network.onnx    from views, as they enter the network, to the probability of each class
ort…            onnxruntime-web, which runs it: one thread, in WebAssembly
README.md       what is known of the model, and how to open the page
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import tarfile
from pathlib import Path

from regraft.deploy.bundle import known_facts
from regraft.deploy.predictor import NETWORK, DeployRecord, load
from regraft.download import Checksums, download, network_refused
from regraft.errors import DownloadError
from regraft.files import atomic_folder, home, make_folder, sha256_file, write_bytes, write_text
from regraft.report.model_card import bullets
from regraft.settings import to_json

VERSION = "1.30.0"  # of onnxruntime-web
RUNTIME = f"onnxruntime-web-{VERSION}.tgz"
_ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{RUNTIME}"
_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
_HERE = Path(__file__).parent
_SERVER = re.compile(r"// An exported page has its own lines.*?// To here\.\n", re.DOTALL)
_LOGIN = re.compile(r'<form id="login".*?</form>\n', re.DOTALL)
_README = f"""# {{title}}

A page that says what is in images. Nothing is sent anywhere: the model runs in the browser.

Put this folder on any web server. To try it here:

    python -m http.server --bind 127.0.0.1

and open http://localhost:8000/. Opened as a file it does not work: browsers load no models then.

{{facts}}

The files whose names begin with `ort` are onnxruntime-web {VERSION}, © Microsoft Corporation, under
the MIT License: https://github.com/microsoft/onnxruntime.
"""


def write_web(
    deployed: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    runtime: str | os.PathLike[str] | None = None,
) -> None:
    """Write a deployed model as a page that classifies in the browser.

    Args:
        deployed: The folder that :func:`~regraft.deploy.export.write_deployed` wrote.
        folder: The folder to write.
        runtime: What ``npm pack`` gives for onnxruntime-web at the version of ``VERSION``; None:
            that in Regraft's home, where it is put when it is downloaded.

    Raises:
        ModelError: There is no deployed model, or it is damaged.
        DownloadError: The runtime is not to be had, or is not the one that was published.
        RegraftError: The folder is there already (``FILE-EXISTS``).
    """
    record, archive = load(deployed).record, find_runtime(runtime)
    shown = bullets(known_facts(record))
    title = str(record.provenance.get("run") or "A model")
    with atomic_folder(folder) as part, tarfile.open(archive) as packed:
        for name in _FILES:
            member = packed.extractfile(f"package/dist/{name}")
            assert member is not None  # the archive is the one that was published
            write_bytes(part / name, member.read())
        write_bytes(part / NETWORK, (Path(deployed) / NETWORK).read_bytes())
        write_text(part / "index.html", _page(record))
        write_text(part / "README.md", _README.format(title=title, facts=shown))


def find_runtime(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the archive of onnxruntime-web, verified; it is downloaded where it is missing.

    Args:
        given: A file that was downloaded otherwise.

    Raises:
        DownloadError: ``DOWNLOAD``: it is not here and cannot be downloaded.
            ``DOWNLOAD-CHECKSUM``: it is not the one that was published.
    """
    place = home() / "runtimes" / RUNTIME if given is None else Path(given)
    if given is None and not place.is_file():
        if refused := network_refused(_ADDRESS):
            what, hint = "onnxruntime-web, which runs models in browsers, is not here", _hint()
            raise DownloadError(what, path=place, why=refused, hint=hint)
        make_folder(place.parent)
        download(_ADDRESS, place, checksums=Checksums(sha256=_SHA256))
        return place
    if not place.is_file():
        raise DownloadError("there is no such file", path=place, hint=_hint())
    if problem := Checksums(sha256=_SHA256).problem(0, sha256_file(place)):
        what = f"this is not onnxruntime-web {VERSION} as it was published"
        raise DownloadError(what, path=place, why=problem, hint=_hint(), code="DOWNLOAD-CHECKSUM")
    return place


def _hint() -> str:
    return (
        f"get it with `npm pack onnxruntime-web@{VERSION}` and name it with --runtime {RUNTIME}, "
        "or export once where the network can be reached"
    )


def _page(record: DeployRecord) -> str:
    model = {
        "labels": record.classes,
        "preprocessing": to_json(record.preprocessing),
        "background": ",".join(map(str, record.decoding.background)),
    }
    facts = json.dumps(model).replace("<", "\\u003c")  # a name must not end the script
    script = (_HERE / "in_browser.js").read_text(encoding="utf-8").replace("__MODEL__", facts)
    page = (_HERE / "page.html").read_text(encoding="utf-8")
    page = _LOGIN.sub("", _SERVER.sub(lambda _: script, page))
    return page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{_policy(page)}', 1)


def _policy(page: str) -> str:
    """Return what the page may do: run its own script and files beside it, and nothing else."""
    allowed = {"default-src": "'none'", "img-src": "data: blob:", "connect-src": "'self'"}
    for kind, more in (("script", " 'self' 'wasm-unsafe-eval'"), ("style", "")):
        found = re.search(rf"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = hashlib.sha256((found[1] if found else "").encode()).digest()
        allowed[f"{kind}-src"] = f"'sha256-{base64.b64encode(digest).decode()}'{more}"
    allowed |= {"base-uri": "'none'", "form-action": "'none'"}
    content = "; ".join(f"{name} {value}" for name, value in allowed.items())
    return f'<meta http-equiv="Content-Security-Policy" content="{content}">'
