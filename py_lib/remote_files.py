"""A model's files as the hub lists them, and whether the bytes that came are those; nothing that it says is trusted."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoSibling

READ_BYTES = 1 << 20
# zipllm's limits for a file's path in a model, in bytes; that of a part is common file systems'.
MAX_PATH_BYTES, MAX_PART_BYTES = 1024, 255
_COMMIT = re.compile(r"[0-9a-f]{40}", re.IGNORECASE)


class RemoteFile(NamedTuple):
    """A file as the hub describes it: `size` in bytes, `sha256` of what is in LFS, else git's name of the blob."""

    path: str
    size: int
    sha256: str | None
    git_oid: str | None


class DownloadError(Exception):
    """A model that could not be downloaded; the text says why and what to do."""


def list_files(api: HfApi, model: str, revision: str, suffixes: list[str]) -> tuple[str, list[RemoteFile]]:
    """Returns the revision's commit and its files that end in one of the suffixes."""
    try:
        info = api.model_info(model, revision=revision, files_metadata=True)
        commit, listed = check_commit(info.sha), [remote_file(sibling) for sibling in info.siblings or []]
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # as the package meets what it does not expect
        raise DownloadError(f"the hub's answer is not understood: {error!r}") from None
    files = [file for file in listed if file.path.endswith(tuple(suffixes))]
    if not files:
        raise DownloadError(f"no file of it ends in any of: {' '.join(suffixes)}")
    return commit, files


def check_commit(name: str | None) -> str:
    """Returns a commit's name, which becomes part of a path; raises DownloadError for anything else."""
    if not isinstance(name, str) or not _COMMIT.fullmatch(name):
        raise DownloadError("the hub's answer is not understood: the commit's name is malformed")
    return name


def remote_file(sibling: RepoSibling) -> RemoteFile:
    """Reads a file's line of a listing."""
    path = check_path(sibling.rfilename)
    if type(sibling.size) is not int or sibling.size < 0:
        raise DownloadError(f"the hub's answer is not understood: the size of {path} is missing")
    return RemoteFile(path, sibling.size, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id)


def check_path(path: str) -> str:
    """Refuses a remote name that could leave the model's directory, or that zipllm would refuse."""
    parts = path.split("/")
    if (
        any(part in ("", ".", "..") or len(part.encode()) > MAX_PART_BYTES for part in parts)
        or len(path.encode()) > MAX_PATH_BYTES
        or "\0" in path
    ):
        raise DownloadError(f"the hub lists a file with the unsafe name {path!r}")
    return path


def digest(path: Path, remote: RemoteFile) -> str:
    """Computes the digest of a file that the hub gives for it, in hexadecimal."""
    if remote.sha256:
        state = hashlib.sha256()
    else:
        state = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)  # as git does
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            state.update(piece)
    return state.hexdigest()


def fault(path: Path, remote: RemoteFile) -> str:
    """Says how a file differs from what the hub said; empty if it does not."""
    if not path.is_file():
        return f"{remote.path} is missing after the download"
    size = path.stat().st_size
    if size != remote.size:
        return f"{remote.path} has {size} bytes instead of {remote.size}"
    expected = remote.sha256 or remote.git_oid
    if expected and digest(path, remote) != expected:
        return f"{remote.path} does not have the {'sha256' if remote.sha256 else 'digest'} that the hub gives for it"
    return ""


def check_files(directory: Path, files: list[RemoteFile]) -> None:
    """Compares what was downloaded with what the hub said; a file that differs is removed."""
    for remote in files:
        if reason := fault(directory / remote.path, remote):
            (directory / remote.path).unlink(missing_ok=True)
            raise DownloadError(f"{reason}; run again")


def missing_files(directory: Path, files: list[RemoteFile], revision: str) -> list[RemoteFile]:
    """Returns the files that a model's directory lacks; raises DownloadError for one that differs from the hub's."""
    wanted = []
    for remote in files:
        path = directory / remote.path
        if not path.exists():
            wanted.append(remote)
        elif reason := fault(path, remote):
            raise DownloadError(
                f"{directory} is of another revision than {revision!r}, or was changed: {reason}; move it away to "
                "fetch the model anew"
            )
    return wanted
