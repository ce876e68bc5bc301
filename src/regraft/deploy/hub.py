"""A repository of the Hugging Face hub, or of one like it, and what its refusals mean.

The hub is that of ``HF_ENDPOINT``. The token is the one that huggingface-hub keeps (``HF_TOKEN``
or ``hf auth login``); it is never an argument and never printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.download import check_address, hub_address, network_refused
from regraft.errors import DownloadError, HubError, RegraftError, UsageError
from regraft.files import sha256_file
from regraft.system import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_NAME = re.compile(r"[\w-][\w.-]{0,95}/[\w-][\w.-]{0,95}", re.ASCII)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


@dataclass(frozen=True)
class Listed:
    """A file as a hub lists it.

    Args:
        size: Its bytes.
        sha256: Its SHA-256; "" of a small one.
        blob: What Git calls it; of a large one that is not the file itself.
    """

    size: int
    sha256: str = ""
    blob: str = ""

    def is_content_of(self, file: Path) -> bool:
        """Return whether a file that came is the one that is listed."""
        if self.sha256:
            return sha256_file(file) == self.sha256
        data = file.read_bytes()
        named = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
        return named == self.blob


class Hub:
    """A repository of models.

    Args:
        repository: Its name, ``OWNER/NAME``.

    Attributes:
        address: Its address.

    Raises:
        UsageError: This is no name of a repository.
        HubError: The hub cannot be reached (``HUB-OFFLINE``, within two seconds), or its address is
            not encrypted (``HUB-ADDRESS``).
    """

    def __init__(self, repository: str) -> None:
        if not _NAME.fullmatch(repository) or ".." in repository:
            hint = "write OWNER/NAME, such as ada/flowers"
            raise UsageError("not the name of a repository", path=repository, hint=hint)
        endpoint = hub_address()
        self.repository, self.address = repository, f"{endpoint}/{repository}"
        try:
            check_address(endpoint)
        except DownloadError as error:
            what, hint = "the hub's address is not encrypted", "HF_ENDPOINT begins with https://"
            raise HubError(what, path=endpoint, hint=hint, code="HUB-ADDRESS") from error
        if refused := network_refused(endpoint):
            hint = "try again where it can be reached; HF_ENDPOINT names another hub"
            what = "the hub cannot be reached"
            raise HubError(what, path=endpoint, why=refused, hint=hint, code="HUB-OFFLINE")

    def require_token(self) -> None:
        """Refuse to go on without a token (``HUB-TOKEN``)."""
        from huggingface_hub import get_token

        if not get_token():
            what, why = "nothing can be uploaded without a token", "none was found"
            raise HubError(what, path=self.address, why=why, hint=_LOG_IN, code="HUB-TOKEN")

    def upload(
        self,
        files: Mapping[str, Path | bytes],
        *,
        message: str,
        private: bool = False,
        replaces: Iterable[str] = (),
    ) -> str:
        """Upload files as one commit; the repository is made where it is not there.

        Args:
            files: By their name there, where they lie or what is in them.
            message: What the commit says.
            private: Whether only its owner may see the repository.
            replaces: Files that give way where they are there, and none of these takes their place.

        Returns:
            The address of the commit.

        Raises:
            HubError: It is refused; or the repository is there and public, though it was to be
                private (``HUB-PUBLIC``): nothing was uploaded.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with self._asked() as api:
            api.create_repo(self.repository, private=private or None, exist_ok=True)
            found = api.model_info(self.repository)
            if private and not found.private:
                what, hint = "the repository is public", "choose another name, or change it there"
                raise HubError(what, path=self.address, hint=hint, code="HUB-PUBLIC")
            there = {file.rfilename for file in found.siblings or ()}
            operations: list[Any] = [
                CommitOperationDelete(name) for name in sorted({*replaces} & there - files.keys())
            ]
            operations += [CommitOperationAdd(name, content) for name, content in files.items()]
            made = api.create_commit(self.repository, operations, commit_message=message)
        return str(made.commit_url)

    def look(self, revision: str | None = None) -> tuple[str, dict[str, Listed]]:
        """Return the commit of a revision, and what is known of each file in it.

        Args:
            revision: A branch, a tag or a commit; None for the newest.

        Raises:
            HubError: There is no such repository or revision (``HUB-MISSING``), or it is refused.
        """
        with self._asked() as api:
            found = api.model_info(self.repository, revision=revision, files_metadata=True)
        files = {
            file.rfilename: Listed(
                size=int(file.size or 0),
                sha256=file.lfs.sha256 if file.lfs else "",
                blob=file.blob_id or "",
            )
            for file in found.siblings or ()
        }
        return str(found.sha), files

    def download(self, files: Mapping[str, Listed], commit: str, folder: Path) -> None:
        """Download files of a commit into a folder, under their names.

        Raises:
            HubError: They did not come, or not as the hub lists them (``HUB-CHECKSUM``).
        """
        from huggingface_hub import hf_hub_download

        with self._asked():
            for name in files:
                hf_hub_download(
                    self.repository,
                    name,
                    revision=commit,
                    local_dir=folder,
                    endpoint=hub_address(),
                    library_name="regraft",
                    library_version=__version__,
                )
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # what the library notes for itself
        for name, listed in files.items():
            if not listed.is_content_of(folder / name):
                what, hint = f"{name} came otherwise than the hub lists it", "try again"
                raise HubError(what, path=self.address, hint=hint, code="HUB-CHECKSUM")

    @contextlib.contextmanager
    def _asked(self) -> Iterator[HfApi]:
        """Give what asks the hub, and turn its refusals into errors that say what to do."""
        from huggingface_hub import HfApi

        with warnings.catch_warnings(), _bars_for_people():
            warnings.simplefilter("ignore")  # its library warns of what the hub would like better
            try:
                yield HfApi(hub_address(), library_name="regraft", library_version=__version__)
            except RegraftError:
                raise
            except Exception as error:
                # Besides its own errors the library lets those of its HTTP client through, and that
                # client differs between the library's versions.
                raise self._refusal(error) from error

    def _refusal(self, error: Exception) -> HubError:
        from huggingface_hub import errors

        chain = [error]
        while cause := chain[-1].__cause__ or chain[-1].__context__:
            chain.append(cause)  # type: ignore[arg-type] # of exceptions only
        answers = (getattr(each, "response", None) for each in chain)
        status = next((answer.status_code for answer in answers if answer is not None), None)
        if isinstance(error, errors.RevisionNotFoundError):
            told = ("there is no such revision", "", "check --revision", "HUB-MISSING")
        elif isinstance(error, errors.GatedRepoError):
            told = ("the hub refuses", "it is gated", "ask for access on its page", "HUB-REFUSED")
        elif status == 403:
            why = "the token may not do this there"
            told = ("the hub refuses", why, "use a token with write access to it", "HUB-REFUSED")
        elif isinstance(error, errors.RepositoryNotFoundError) or status == 404:
            why = "there is none of this name, or it is private"
            told = ("no such repository", why, f"check the name; if it is yours, {_LOG_IN}", "")
        elif status == 401:
            told = ("the hub does not know the token", "it answered 401", _LOG_IN, "HUB-TOKEN")
        elif isinstance(error, ValueError) and "README" in str(error):
            why = str(error).partition("\n")[2]
            told = ("the hub does not take the card", why, "write it again: regraft report", "HUB")
        else:
            answer = f"it answered {status}" if status else f"no answer ({type(error).__name__})"
            told = ("the hub did not do what was asked", answer, "try again later", "HUB")
        what, why, hint, code = told
        code = code or "HUB-MISSING"
        return HubError(what, path=self.address, why=why[:300], hint=hint, code=code)


@contextlib.contextmanager
def _bars_for_people() -> Iterator[None]:
    """Let the library draw its bars only where somebody sees them."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    hidden = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hidden:
        disable_progress_bars()
    try:
        yield
    finally:
        if hidden:
            enable_progress_bars()
