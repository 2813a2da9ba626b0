#!/usr/bin/env python3
"""Downloads models from the Hugging Face Hub with `huggingface_hub`.

Each model becomes one directory, `OUTPUT_DIR/org--name`. It appears when all its files are there and were checked
(size, and the digest that the hub gives); until then they lie in `OUTPUT_DIR/.downloads`, in a directory for each
commit, where a later run goes on. A directory that is there already is completed, but never changed: a file in it that
differs from the hub's is an error. `HF_TOKEN`, `HF_ENDPOINT` and `HF_HOME` are honoured.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from packages import stop_without

try:
    import httpx2
    from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars
    from huggingface_hub.utils import logging as hub_logging
except ImportError as missing:
    raise stop_without(missing) from None

from model_list import check_model_id, model_directory, read_models
from progress import Progress, rate

DEFAULT_SUFFIXES = [".safetensors", ".json", ".txt", ".model", ".jinja", ".md", "LICENSE"]
DEFAULT_RECORD = "already_downloads.txt"
READ_BYTES = 1 << 20
STAGING = ".downloads"
PARTS = ".parts"  # in a staging directory: unfinished files
MAX_WORKERS = 64
EXIT_INTERRUPTED = 130
NO_MODEL = "the hub has no such model, or it is private: check the name, and HF_TOKEN if it is private"


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
    info = api.model_info(model, revision=revision, files_metadata=True)
    if info.sha is None:
        raise DownloadError("the hub names no commit for this revision")
    files = []
    for sibling in info.siblings or []:
        check_path(sibling.rfilename)
        if sibling.rfilename.endswith(tuple(suffixes)):
            sha256 = sibling.lfs.sha256 if sibling.lfs else None
            files.append(RemoteFile(sibling.rfilename, sibling.size or 0, sha256, sibling.blob_id))
    if not files:
        raise DownloadError(f"no file of it ends in any of: {' '.join(suffixes)}")
    return info.sha, files


def check_path(path: str) -> None:
    """Refuses a remote name that would leave the model's directory."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise DownloadError(f"the hub lists a file with the unsafe name {path!r}")


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


def fetch_file(model: str, commit: str, remote: RemoteFile, staging: Path) -> None:
    """Fetches a file into the staging directory; goes on with what an earlier run left of it.

    `snapshot_download` would begin every file anew in each run.
    """
    target = staging / remote.path
    if target.is_file():
        return
    part = staging / PARTS / hashlib.sha256(remote.path.encode()).hexdigest()
    for path in (target, part):
        path.parent.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(model, remote.path, revision=commit)
    location = get_hf_file_metadata(url, retry_on_errors=True).location
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    if urlsplit(location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # the token is for the hub alone
    with part.open("ab") as file:
        if file.tell() > remote.size:
            file.truncate(0)
            file.seek(0)
        http_get(location, file, resume_size=file.tell(), headers=headers, expected_size=remote.size)
    part.replace(target)


def download_model(model: str, output_dir: Path, suffixes: list[str], revision: str, max_workers: int) -> str:
    """Downloads a model; returns where it is and how fast it came. Raises what `explain` understands."""
    commit, files = list_files(HfApi(), model, revision, suffixes)
    target = model_directory(output_dir, model)
    wanted = missing_files(target, files, revision)
    if not wanted:
        return f"{target} (complete)"
    name = model.replace("/", "--")
    staging = output_dir / STAGING / f"{name}@{commit}.snapshot"
    total, start = sum(file.size for file in wanted), time.monotonic()
    with Progress(model, staging, total) as progress, ThreadPoolExecutor(max_workers) as pool:
        fetches = [pool.submit(fetch_file, model, commit, file, staging) for file in wanted]
        try:
            for fetch in as_completed(fetches):
                fetch.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    check_files(staging, wanted)
    move(staging, target, wanted)
    for left in staging.parent.glob(f"{glob.escape(name)}@*.snapshot"):
        shutil.rmtree(left)  # of commits that the revision had when earlier runs broke off
    remove_if_empty(staging.parent)
    return f"{target} ({rate(max(0, total - progress.had), time.monotonic() - start)})"


def move(staging: Path, target: Path, wanted: list[RemoteFile]) -> None:
    """Turns the staging directory into the model's, or moves what the model's lacks."""
    if target.exists():
        for remote in wanted:
            path = target / remote.path
            path.parent.mkdir(parents=True, exist_ok=True)
            (staging / remote.path).rename(path)
        return
    shutil.rmtree(staging / PARTS)
    names = {remote.path for remote in wanted}
    for path in [path for path in staging.rglob("*") if path.is_file()]:
        if path.relative_to(staging).as_posix() not in names:
            path.unlink()  # an earlier run asked for other suffixes
    staging.rename(target)


def remove_if_empty(directory: Path) -> None:
    """Removes a directory that nothing is left in."""
    if not any(directory.iterdir()):
        directory.rmdir()


def explain(error: Exception, revision: str) -> str:
    """Says what kept a model from being downloaded, and what to do."""
    if isinstance(error, (DownloadError, LocalEntryNotFoundError)) and error.__cause__ is None:
        return str(error)
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return explain(error.__cause__, revision)
    if isinstance(error, GatedRepoError):
        return "access to it is restricted: accept its terms on the hub, then set HF_TOKEN to a token of that account"
    if isinstance(error, RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    if isinstance(error, RepositoryNotFoundError):
        return NO_MODEL
    if isinstance(error, HfHubHTTPError):
        return explain_status(error)
    if isinstance(error, httpx2.TransportError):
        return f"{constants.ENDPOINT} cannot be reached ({error}): check the network and HF_ENDPOINT"
    return f"{error}"


def explain_status(error: HfHubHTTPError) -> str:
    """Says what an HTTP status of the hub means."""
    status = error.response.status_code
    if status == 401 and "Invalid credentials" not in error.response.headers.get("X-Error-Message", ""):
        return NO_MODEL  # the hub does not tell strangers whether a name is taken
    if status in (401, 403):
        return "the hub refuses the token: check HF_TOKEN"
    if status == 429:
        return "the hub answers that there were too many requests: try again later, or set HF_TOKEN"
    if status >= 500:
        return f"the hub has a fault of its own (HTTP {status}): try again later"
    return f"the hub answers with HTTP {status}: {error.server_message or error}"


def read_record(path: Path) -> set[str]:
    """Reads the names of the models that earlier runs have downloaded."""
    return set(path.read_text(encoding="utf-8").split()) if path.exists() else set()


def append_record(path: Path, model: str) -> None:
    """Notes that a model is downloaded, once."""
    if model not in read_record(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{model}\n")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Download models from the Hugging Face Hub.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", metavar="ORG/NAME", help="one model")
    source.add_argument("--models_txts", type=Path, nargs="+", metavar="FILE", help="lists of models, one a line")
    parser.add_argument("--output_dir", type=Path, required=True, help="directory for the models")
    parser.add_argument("--max_workers", type=int, default=8, help="files fetched at once (default: 8)")
    parser.add_argument(
        "--check_already_downloaded",
        action="store_true",
        help="skip, without asking the hub, models that the record names and that are still there",
    )
    parser.add_argument(
        "--already_downloads_file",
        type=Path,
        help=f"record of the downloaded models (default: OUTPUT_DIR/{DEFAULT_RECORD})",
    )
    parser.add_argument(
        "--suffix",
        nargs="+",
        default=DEFAULT_SUFFIXES,
        help=f"endings of the files to fetch, '' for all (default: {' '.join(DEFAULT_SUFFIXES)})",
    )
    parser.add_argument("--revision", default="main", help="branch, tag or commit (default: main)")
    arguments = parser.parse_args()
    if not 1 <= arguments.max_workers <= MAX_WORKERS:
        parser.error(f"--max_workers has to be at least 1 and at most {MAX_WORKERS}")
    return arguments


def download_all(models: list[str], arguments: argparse.Namespace) -> int:
    """Downloads the models one after the other; returns how many could not be."""
    record = arguments.already_downloads_file or arguments.output_dir / DEFAULT_RECORD
    done = read_record(record) if arguments.check_already_downloaded else set()
    failed = 0
    for model in models:
        if model in done and model_directory(arguments.output_dir, model).is_dir():
            print(f"{model}: already downloaded")
            continue
        try:
            outcome = download_model(
                model, arguments.output_dir, arguments.suffix, arguments.revision, arguments.max_workers
            )
        except (DownloadError, httpx2.HTTPError, OSError, ValueError) as error:
            failed += 1
            print(f"download: {model}: {explain(error, arguments.revision)}", file=sys.stderr)
        else:
            append_record(record, model)
            print(f"{model}: {outcome}", flush=True)
    return failed


def stop_at_once(number: int, frame: object) -> None:
    """Ends the program at Ctrl-C; threads that fetch files would go on to their ends if it were an exception."""
    os.write(2, b"\ndownload: interrupted; what was fetched is kept, run it again to go on\n")
    os._exit(EXIT_INTERRUPTED)


def main() -> int:
    """Runs the program; returns its exit code: 1 if a model could not be downloaded, 2 for a wrong command."""
    arguments = parse_arguments()
    signal.signal(signal.SIGINT, stop_at_once)
    hub_logging.set_verbosity_error()
    disable_progress_bars()  # Progress shows all files of a model in one line
    try:
        models = [check_model_id(arguments.model)] if arguments.model else read_models(arguments.models_txts)
        if not models:
            raise ValueError("no model is listed")
        arguments.output_dir.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        print(f"download: {error}", file=sys.stderr)
        return 2
    failed = download_all(models, arguments)
    if failed:
        print(f"download: {failed} of {len(models)} model(s) failed", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
