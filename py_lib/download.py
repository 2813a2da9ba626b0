#!/usr/bin/env python3
"""Downloads models from the Hugging Face Hub with `huggingface_hub`.

Each model becomes one directory, `OUTPUT_DIR/org--name`. It appears when all its files are there and were checked
(size, and the digest that the hub gives); until then they lie in `OUTPUT_DIR/.downloads`, in a directory for each
commit, where a later run goes on. A directory that is there already is completed, but never changed: a file in it that
differs from the hub's is an error. `HF_TOKEN`, `HF_ENDPOINT` and `HF_HOME` are honoured.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO
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
    from huggingface_hub.utils import build_hf_headers, disable_progress_bars, get_token
    from huggingface_hub.utils import logging as hub_logging
except ImportError as missing:
    raise stop_without(missing) from None
except ValueError as wrong:  # the package reads it when it is imported
    print(f"download: HF_ENDPOINT is not an address: {wrong}", file=sys.stderr)
    raise SystemExit(2) from None

from model_list import check_model_id, model_directory, read_models
from progress import Progress, rate
from remote_files import DownloadError, RemoteFile, check_files, list_files, missing_files

DEFAULT_SUFFIXES = [".safetensors", ".json", ".txt", ".model", ".jinja", ".md", "LICENSE"]
DEFAULT_RECORD = "already_downloads.txt"
STAGING = ".downloads"
MAX_WORKERS = 64
ATTEMPTS, RETRY_SECONDS = 5, 1.0
EXIT_INTERRUPTED = 130
NO_MODEL = "the hub has no such model, or it is private: check the name, and HF_TOKEN if it is private"


class StoppedError(Exception):
    """Ends the fetch of a file when another file of the model has failed."""


class StoppableFile:
    """A file that takes no more bytes once `stop` is set: what fetches it would otherwise go on to its end."""

    def __init__(self, file: BinaryIO, stop: Event) -> None:
        self.file, self.stop = file, stop

    def write(self, data: bytes) -> int:
        """Adds bytes."""
        if self.stop.is_set():
            raise StoppedError
        return self.file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps other processes away while it lasts: two that add to one file would each spoil the other's."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = "another process is fetching it into the same directory: wait until that is done"
            raise DownloadError(reason) from None
        yield
    finally:
        os.close(descriptor)


def fetch_file(model: str, commit: str, remote: RemoteFile, staging: Path, stop: Event) -> None:
    """Fetches a file into the staging directory; goes on with what an earlier run left of it.

    `snapshot_download` would begin every file anew in each run.
    """
    target = staging / remote.path
    if target.is_file():
        return
    part = parts_of(staging) / hashlib.sha256(remote.path.encode()).hexdigest()
    url = hf_hub_url(model, remote.path, revision=commit)
    location = get_hf_file_metadata(url, retry_on_errors=True).location
    headers = build_hf_headers() | {"Accept-Encoding": "identity"}
    asked, named = urlsplit(url), urlsplit(location)
    if named.netloc != asked.netloc or named.scheme not in (asked.scheme, "https"):
        headers.pop("authorization", None)  # the token is for the hub alone
    with part.open("ab") as file:
        if file.tell() > remote.size:
            file.truncate(0)
            file.seek(0)
        receive(location, StoppableFile(file, stop), headers, remote)
    target.parent.mkdir(parents=True, exist_ok=True)
    part.replace(target)


def receive(location: str, file: StoppableFile, headers: dict[str, str], remote: RemoteFile) -> None:
    """Adds to a part what it lacks. `http_get` goes on after most breaks, but not after a reset connection."""
    for left in reversed(range(ATTEMPTS)):
        try:
            http_get(location, file, resume_size=file.tell(), headers=headers, expected_size=remote.size)
        except httpx2.ReadError:
            if left == 0 or file.stop.wait(RETRY_SECONDS):
                raise
        except OSError as error:
            if isinstance(error, HfHubHTTPError) or error.errno is not None:
                raise
            raise DownloadError(f"{remote.path} did not come whole; run again") from None  # its words are about options
        else:
            return


def parts_of(staging: Path) -> Path:
    """Returns where the unfinished files of a staging directory are: beside it, where no remote name leads."""
    return staging.with_name(f"{staging.name}.parts")


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
    with locked(parts_of(staging)):
        try:
            had = fetch_files(model, commit, wanted, staging, max_workers)
        except BaseException:
            remove_empty(staging)
            raise
        check_files(staging, wanted)
        move(staging, target, wanted)
        for left in staging.parent.glob(f"{glob.escape(name)}@*.snapshot*"):
            shutil.rmtree(left)  # its parts, and what earlier runs left that broke off, of any commit
        remove_if_empty(staging.parent)
    return f"{target} ({rate(max(0, total - had), time.monotonic() - start)})"


def fetch_files(model: str, commit: str, wanted: list[RemoteFile], staging: Path, max_workers: int) -> int:
    """Fetches files, several at once, until all are there or one fails; returns the bytes that were there before."""
    staging.mkdir(exist_ok=True)
    stop, total = Event(), sum(file.size for file in wanted)
    with Progress(model, (staging, parts_of(staging)), total) as progress, ThreadPoolExecutor(max_workers) as pool:
        fetches = [pool.submit(fetch_file, model, commit, file, staging, stop) for file in wanted]
        try:
            for fetch in as_completed(fetches):
                fetch.result()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
    return progress.had


def move(staging: Path, target: Path, wanted: list[RemoteFile]) -> None:
    """Turns the staging directory into the model's, or moves what the model's lacks."""
    if target.exists():
        for remote in wanted:
            path = target / remote.path
            path.parent.mkdir(parents=True, exist_ok=True)
            (staging / remote.path).rename(path)
        return
    names = {remote.path for remote in wanted}
    for path in [path for path in staging.rglob("*") if path.is_file()]:
        if path.relative_to(staging).as_posix() not in names:
            path.unlink()  # an earlier run asked for other suffixes
    staging.rename(target)


def remove_empty(staging: Path) -> None:
    """Removes parts without a byte, and the directories if nothing came at all, as of a model that may not be read."""
    for part in parts_of(staging).glob("*"):
        if part.stat().st_size == 0:
            part.unlink()
    for directory in (parts_of(staging), staging, staging.parent):
        remove_if_empty(directory)


def remove_if_empty(directory: Path) -> None:
    """Removes a directory that nothing is left in."""
    if directory.is_dir() and not any(directory.iterdir()):
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
    if isinstance(error, (httpx2.ReadError, httpx2.ReadTimeout, httpx2.RemoteProtocolError)):
        return f"the connection broke ({error}): run it again later; what came is kept"
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


def printable(text: str) -> str:
    """Escapes what would act on a terminal: the hub chooses its files' names and its words."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def check_token() -> None:
    """Raises ValueError for a token that cannot be sent."""
    if not (get_token() or "").isascii():
        raise ValueError("HF_TOKEN, or the file 'token' in HF_HOME, holds no token: it is not ASCII")


def read_record(path: Path) -> set[str]:
    """Reads the names of the models that earlier runs have downloaded; raises ValueError for a file of another kind."""
    try:
        return set(path.read_text(encoding="utf-8").split()) if path.exists() else set()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a record of downloaded models") from None


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
    arguments.already_downloads_file = arguments.already_downloads_file or arguments.output_dir / DEFAULT_RECORD
    return arguments


def download_all(models: list[str], arguments: argparse.Namespace) -> int:
    """Downloads the models one after the other; returns how many could not be."""
    record = arguments.already_downloads_file
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
            append_record(record, model)
        except (DownloadError, httpx2.HTTPError, OSError, ValueError) as error:
            failed += 1
            print(f"download: {model}: {printable(explain(error, arguments.revision))}", file=sys.stderr)
        else:
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
        check_token()
        read_record(arguments.already_downloads_file)
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
