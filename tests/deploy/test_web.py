"""A page for the browser holds all it needs, and says how to get what runs it."""

import io
import re
import tarfile
import time

import numpy as np
import pytest

from regraft.deploy import web as page_of
from regraft.deploy.export import write_deployed
from regraft.errors import DownloadError, RegraftError
from regraft.files import sha256_file

FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """Return an archive that is laid out as the published one."""
    with tarfile.open(tmp_path / page_of.RUNTIME, "w:gz") as packed:
        for name in (*FILES, "ort.all.mjs"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            packed.addfile(entry, io.BytesIO(name.encode()))
    monkeypatch.setattr(page_of, "_SHA256", sha256_file(tmp_path / page_of.RUNTIME))
    return tmp_path / page_of.RUNTIME


@pytest.fixture(scope="module")
def deployed(images, learner_of, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web") / "deploy"
    names = ["</script>" if name == "dark" else name for name in images[1]]
    learner = learner_of("logistic", grid=None).fit(images[0], names)
    write_deployed(learner, folder, images[0], provenance={"run": "shades"})
    return folder


def test_a_page_holds_all_that_it_needs_and_no_address_of_others(deployed, archive, tmp_path):
    page_of.write_web(deployed, tmp_path / "page", runtime=archive)

    page = (tmp_path / "page" / "index.html").read_text()
    assert {file.name for file in (tmp_path / "page").iterdir()} == {
        *FILES,
        *("index.html", "network.onnx", "README.md"),
    }
    assert re.findall(r"https?://(?!localhost:8000/)", page) == []
    assert page.count("</script>") == 1  # of a class with this name the page holds an escape
    assert "\\u003c/script>" in page
    assert "token" not in page
    assert "default-src 'none'" in page
    assert "# shades" in (tmp_path / "page" / "README.md").read_text()
    with pytest.raises(RegraftError, match="there already"):
        page_of.write_web(deployed, tmp_path / "page", runtime=archive)


def test_without_the_runtime_and_a_network_both_ways_to_it_are_said_at_once(monkeypatch):
    monkeypatch.setenv("REGRAFT_OFFLINE", "1")
    begun = time.monotonic()

    with pytest.raises(DownloadError) as refused:
        page_of.find_runtime()

    assert time.monotonic() - begun < 2
    assert "npm pack onnxruntime-web@" in refused.value.hint
    assert "where the network can be reached" in refused.value.hint


def test_it_is_downloaded_once_and_verified(archive, monkeypatch, private_home, web):
    address = web.serve(f"/{page_of.RUNTIME}", archive.read_bytes())
    monkeypatch.setattr(page_of, "_ADDRESS", address)

    places = [page_of.find_runtime() for _ in range(2)]

    assert places == [private_home / "runtimes" / page_of.RUNTIME] * 2
    assert places[0].read_bytes() == archive.read_bytes()
    assert len(web.asked("GET")) == 1
    places[0].unlink()
    web.serve(f"/{page_of.RUNTIME}", b"something else")
    with pytest.raises(DownloadError) as refused:
        page_of.find_runtime()
    assert refused.value.code == "DOWNLOAD-CHECKSUM"
    assert not places[0].exists()


def test_another_archive_than_the_published_one_is_refused(archive):
    archive.write_bytes(np.random.default_rng(0).bytes(100))

    with pytest.raises(DownloadError) as refused:
        page_of.find_runtime(archive)

    assert refused.value.code == "DOWNLOAD-CHECKSUM"
    with pytest.raises(DownloadError, match="no such file"):
        page_of.find_runtime(archive.with_name("missing.tgz"))
