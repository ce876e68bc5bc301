"""Fixtures for all tests: a private home, no network, and the real assets where they are."""

import os
import signal
import socket
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets what runs in its background ignore Ctrl-C, and children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def shared_home(tmp_path_factory):
    """Give fixtures that live longer than a test a home that is not the person's own, either."""
    before = os.environ.get("REGRAFT_HOME")
    os.environ["REGRAFT_HOME"] = str(tmp_path_factory.mktemp("shared") / "regraft")
    yield
    os.environ.pop("REGRAFT_HOME")
    if before is not None:
        os.environ["REGRAFT_HOME"] = before


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory, monkeypatch):
    """Keep imported weights and caches of a test away from those of the person who runs it."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("REGRAFT_HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    return home


@pytest.fixture(autouse=True)
def only_this_machine(monkeypatch):
    """Refuse every connection that leaves this machine: nothing in Regraft may phone home."""
    connect = socket.socket.connect

    def guarded(self, address):
        host = address[0] if isinstance(address, tuple) else None
        if host is not None and host not in {"127.0.0.1", "::1", "localhost"}:
            raise ConnectionRefusedError(f"a test tried to reach {host}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def assets():
    """Return the folder of real weights and photographs, or skip the test where it is absent."""
    folder = Path(os.environ.get("REGRAFT_ASSETS", REPOSITORY.parent / "shared" / "assets"))
    if not (folder / "weights").is_dir():
        pytest.skip("real weights and photographs are not here (set REGRAFT_ASSETS)")
    return folder
