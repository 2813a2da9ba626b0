#!/usr/bin/env python3
"""A small local server that speaks the Hugging Face Hub's API, as far as downloading clients use it.

It needs nothing but Python's standard library, so that the Rust tests can start it too::

    python3 tests/python/hub_server.py --root DIR [--port 0] [--gated org/name] [--token hf_good]

The first line on stdout is the address, for ``HF_ENDPOINT``. ``DIR`` holds one directory a model,
``org/name`` (revision ``main``) or ``org/name@REVISION``. What it knows of the hub:

* ``/api/models/ID[/revision/REV]``: commit, siblings, with ``blobs=true`` sizes and sha256;
* ``/api/models/ID/tree/REV``: the list of files, in pages joined by a ``Link`` header;
* ``/ID/resolve/REV/PATH``: a small file by a relative redirect, a large one by a redirect to a "CDN" on another
  host name, with ``X-Repo-Commit``, ``X-Linked-Etag``, ``X-Linked-Size``, ``ETag`` and byte ranges;
* tokens: a wrong one is 401, a gated model 401 without and 403 with a token that was not granted access,
  a missing model 401 without and 404 with a token.

A test makes it misbehave by posting rules to ``/_faults`` (see :class:`Fault`), and reads what it was asked from
``/_log``.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

# Files of at least this many bytes, and all weights, are "large" (LFS): the hub knows their sha256.
LARGE_FILE_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024


@dataclass
class Fault:
    """How the next matching requests are answered wrongly.

    ``match`` is a regular expression on "METHOD path"; the rule is used ``times`` times, after ``skip`` matches.
    """

    match: str
    times: int = 1
    skip: int = 0
    status: int = 0  # answer with this status instead
    headers: dict[str, str] = field(default_factory=dict)  # sent along with whatever is answered
    cut_after: int | None = None  # close the connection after so many bytes of the body
    reset: bool = False  # close it by a reset, as a machine that fails does
    flip_byte: int | None = None  # change this byte of the body
    ignore_range: bool = False  # send the whole file though a range was asked for
    delay: float = 0.0  # seconds to wait before the answer


@dataclass(frozen=True)
class FileEntry:
    """One file of a model: its names in git and LFS, computed from its bytes."""

    path: str
    source: Path
    size: int
    git_oid: str
    sha256: str

    @property
    def large(self) -> bool:
        """Whether the hub would keep it in LFS."""
        return self.size >= LARGE_FILE_BYTES or self.path.endswith((".safetensors", ".bin"))


class Repository:
    """The models below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._digests: dict[tuple[Path, int, int], tuple[str, str]] = {}
        self._lock = threading.Lock()

    def directory(self, model: str, revision: str) -> Path | None:
        """Returns a model's directory at a branch or commit, or None."""
        for name in (model, *self._revisions(model)):
            branch = name.partition("@")[2] or "main"
            path = self.root / name
            if path.is_dir() and revision in (branch, self.commit(self.files(path))):
                return path
        return None

    def exists(self, model: str) -> bool:
        """Whether there is such a model."""
        return ".." not in model and (self.root / model).is_dir()

    def _revisions(self, model: str) -> list[str]:
        return [str(path.relative_to(self.root)) for path in sorted(self.root.glob(f"{model}@*"))]

    def files(self, directory: Path) -> list[FileEntry]:
        """Lists a model's files, by path."""
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        return [self._entry(directory, path) for path in paths]

    def _entry(self, directory: Path, path: Path) -> FileEntry:
        stat = path.stat()
        key = (path, stat.st_size, stat.st_mtime_ns)
        with self._lock:
            if key not in self._digests:
                data = path.read_bytes()
                git = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
                self._digests[key] = (git, hashlib.sha256(data).hexdigest())
            git_oid, sha256 = self._digests[key]
        return FileEntry(path.relative_to(directory).as_posix(), path, stat.st_size, git_oid, sha256)

    @staticmethod
    def commit(files: list[FileEntry]) -> str:
        """A commit's name: changes when any file changes."""
        text = "\n".join(f"{entry.path} {entry.sha256}" for entry in files)
        return hashlib.sha1(text.encode()).hexdigest()

    def blob(self, sha256: str) -> FileEntry | None:
        """Finds a large file by its sha256."""
        for directory in sorted(self.root.glob("*/*")):
            for entry in self.files(directory):
                if entry.sha256 == sha256:
                    return entry
        return None


class HubServer(ThreadingHTTPServer):
    """The server and what a test may set on it."""

    daemon_threads = True

    def __init__(
        self,
        root: Path,
        port: int = 0,
        *,
        gated: tuple[str, ...] = (),
        tokens: tuple[str, ...] = (),
        page_size: int = 3,
        bytes_per_second: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.repository = Repository(root)
        self.gated = set(gated)
        self.tokens = set(tokens)  # these have access to gated models
        self.page_size = page_size
        self.bytes_per_second = bytes_per_second  # of each connection; 0: as fast as it goes
        self.canned: dict[str, Any] = {}  # path: the JSON answer to give whatever is there
        self.faults: list[Fault] = []
        self.log: list[dict[str, Any]] = []
        self.on_request: Callable[[str], None] | None = None  # is told the path before the answer is given
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The address, for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def cdn_url(self) -> str:
        """The same server by another host name, so that clients have to keep their token to themselves."""
        return f"http://localhost:{self.server_address[1]}/cdn"

    def take_fault(self, request: str) -> Fault | None:
        """Returns the first rule for a request and uses it up once."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.match, request):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return None

    def start(self) -> HubServer:
        """Serves in a thread of its own."""
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self


class Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: HubServer
    fault: Fault | None = None

    def log_message(self, format: str, *args: Any) -> None:
        """Keeps the terminal quiet; requests are kept in the server's log."""

    def do_HEAD(self) -> None:
        """Answers like GET, without a body."""
        self.do_GET()

    def do_POST(self) -> None:
        """Sets the fault rules and empties the log."""
        self.fault = None
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if urlsplit(self.path).path != "/_faults":
            self.reply_error(404, "Not found")
            return
        with self.server.lock:
            self.server.faults = [Fault(**rule) for rule in json.loads(body)]
            self.server.log = []
        self.reply_json({})

    def do_GET(self) -> None:
        """Finds out what was asked for."""
        self.fault = None
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        if parts.path == "/_log":
            with self.server.lock:
                log = list(self.server.log)
            self.reply_json(log)
            return
        self.note_request(parts.path)
        self.fault = self.server.take_fault(f"{self.command} {parts.path}")
        if self.fault:
            time.sleep(self.fault.delay)
        if self.fault and self.fault.status:
            self.reply_error(self.fault.status, f"Injected {self.fault.status}")
            return
        self.route(unquote(parts.path))

    def note_request(self, path: str) -> None:
        """Remembers a request for the tests."""
        entry = {
            "method": self.command,
            "path": path,
            "range": self.headers.get("Range"),
            "authorization": self.headers.get("Authorization"),
            "host": self.headers.get("Host"),
        }
        with self.server.lock:
            self.server.log.append(entry)
        if self.server.on_request:
            self.server.on_request(path)

    def route(self, path: str) -> None:
        """Answers a path of the hub's API."""
        if path in self.server.canned:
            self.reply_json(self.server.canned[path])
        elif match := re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)?)/tree/([^/]+)/?", path):
            self.with_model(match[1], match[2], self.reply_tree)
        elif match := re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)?)/revision/([^/]+)", path):
            self.with_model(match[1], match[2], self.reply_info)
        elif match := re.fullmatch(r"/api/models/([^/]+(?:/[^/]+)?)", path):
            self.with_model(match[1], "main", self.reply_info)
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self.file_path = match[3]
            self.with_model(match[1], match[2], self.reply_resolve)
        elif match := re.fullmatch(r"/api/resolve-cache/models/(.+?)/([0-9a-f]{40})/(.+)", path):
            self.file_path = match[3]
            self.with_model(match[1], match[2], self.reply_small_file)
        elif match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            self.reply_cdn(match[1])
        else:
            self.reply_error(404, "Not found")

    # Access

    def token(self) -> str | None:
        """The token that came with the request."""
        header = self.headers.get("Authorization", "")
        return header.removeprefix("Bearer ") if header.startswith("Bearer ") else None

    def with_model(self, model: str, revision: str, reply: Any) -> None:
        """Checks token, model and revision, then answers."""
        token = self.token()
        if token and not token.startswith("hf_"):
            self.reply_error(401, "Invalid credentials in Authorization header")
        elif not self.server.repository.exists(model):
            if token:
                self.reply_error(404, "Repository not found", "RepoNotFound")
            else:
                self.reply_error(401, "Invalid username or password.")
        elif (directory := self.server.repository.directory(model, revision)) is None:
            self.reply_error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        else:
            reply(model, directory)

    def refuses_gated(self, model: str) -> bool:
        """Answers a request for a file of a gated model, unless the token has access."""
        if model not in self.server.gated or self.token() in self.server.tokens:
            return False
        status = 403 if self.token() else 401
        self.reply_error(status, f"Access to model {model} is restricted.", "GatedRepo")
        return True

    # Answers

    def reply_info(self, model: str, directory: Path) -> None:
        """Answers with a model's description."""
        files = self.server.repository.files(directory)
        blobs = self.query.get("blobs", ["false"])[0].lower() in ("true", "1")
        self.reply_json(
            {
                "id": model,
                "modelId": model,
                "sha": self.server.repository.commit(files),
                "private": False,
                "gated": "manual" if model in self.server.gated else False,
                "disabled": False,
                "tags": [],
                "siblings": [self.sibling(entry, blobs) for entry in files],
            }
        )

    @staticmethod
    def sibling(entry: FileEntry, blobs: bool) -> dict[str, Any]:
        """One file in a model's description."""
        if not blobs:
            return {"rfilename": entry.path}
        sibling: dict[str, Any] = {"rfilename": entry.path, "size": entry.size, "blobId": entry.git_oid}
        if entry.large:
            sibling["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": 134}
        return sibling

    def reply_tree(self, model: str, directory: Path) -> None:
        """Answers with one page of the list of files and directories."""
        files = self.server.repository.files(directory)
        folders = sorted({str(p) for f in files for p in Path(f.path).parents if str(p) != "."})
        entries: list[dict[str, Any]] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": p} for p in folders]
        entries += [self.tree_file(entry) for entry in files]
        start = int(self.query.get("cursor", ["0"])[0])
        end = start + int(self.query.get("limit", [str(self.server.page_size)])[0])
        headers = {}
        if end < len(entries):
            path = urlsplit(self.path).path
            headers["Link"] = f'<{self.server.url}{path}?recursive=True&cursor={end}>; rel="next"'
        self.reply_json(entries[start:end], headers)

    @staticmethod
    def tree_file(entry: FileEntry) -> dict[str, Any]:
        """One file in the tree's list."""
        item: dict[str, Any] = {"type": "file", "oid": entry.git_oid, "size": entry.size, "path": entry.path}
        if entry.large:
            item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": 134}
        return item

    def reply_resolve(self, model: str, directory: Path) -> None:
        """Redirects to where a file's bytes are."""
        if self.refuses_gated(model):
            return
        files = self.server.repository.files(directory)
        entry = next((f for f in files if f.path == self.file_path), None)
        if entry is None:
            self.reply_error(404, "Entry not found", "EntryNotFound")
            return
        commit = self.server.repository.commit(files)
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if entry.large:
            headers |= {
                "X-Linked-Etag": f'"{entry.sha256}"',
                "X-Linked-Size": str(entry.size),
                "Location": f"{self.server.cdn_url}/{entry.sha256}",
            }
            self.reply(302, headers)
        else:
            headers["ETag"] = f'"{entry.git_oid}"'
            headers["Location"] = f"/api/resolve-cache/models/{model}/{commit}/{quote(entry.path)}"
            self.reply(307, headers)

    def reply_small_file(self, model: str, directory: Path) -> None:
        """Sends a file that is kept in git itself."""
        if self.refuses_gated(model):
            return
        files = self.server.repository.files(directory)
        entry = next((f for f in files if f.path == self.file_path), None)
        if entry is None:
            self.reply_error(404, "Entry not found", "EntryNotFound")
            return
        commit = self.server.repository.commit(files)
        self.reply_file(entry, {"ETag": f'"{entry.git_oid}"', "X-Repo-Commit": commit})

    def reply_cdn(self, sha256: str) -> None:
        """Sends a large file; the content network wants no token."""
        entry = self.server.repository.blob(sha256)
        if entry is None:
            self.reply_error(404, "No such blob")
        elif self.headers.get("Authorization"):
            self.reply_error(400, "The token must not be sent to the content network")
        else:
            self.reply_file(entry, {"ETag": f'"{sha256}"'})

    def reply_file(self, entry: FileEntry, headers: dict[str, str]) -> None:
        """Sends a file, or the part of it that was asked for."""
        start, end, status = 0, entry.size, 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and not (self.fault and self.fault.ignore_range):
            start = int(wanted[1])
            end = min(int(wanted[2]) + 1, entry.size) if wanted[2] else entry.size
            if start >= entry.size:
                self.reply(416, headers | {"Content-Range": f"bytes */{entry.size}"})
                return
            status = 206
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{entry.size}"}
        with entry.source.open("rb") as file:
            file.seek(start)
            body = file.read(end - start)
        self.reply(status, headers | {"Accept-Ranges": "bytes"}, body)

    def reply_json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        """Sends a JSON document."""
        self.reply(200, {"Content-Type": "application/json"} | (headers or {}), json.dumps(value).encode())

    def reply_error(self, status: int, message: str, code: str = "") -> None:
        """Sends an error as the hub words it."""
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply(status, headers, json.dumps({"error": message}).encode())

    def reply(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """Sends an answer, with the faults that were asked for."""
        fault = self.fault
        self.send_response(status)
        for name, value in (headers | (fault.headers if fault else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.flip_byte is not None and fault.flip_byte < len(body):
            changed = bytearray(body)
            changed[fault.flip_byte] ^= 1
            body = bytes(changed)
        cut = fault.cut_after if fault else None
        self.send_body(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
            if fault and fault.reset:
                time.sleep(0.2)  # what was sent has to arrive first
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

    def send_body(self, body: bytes) -> None:
        """Sends a body in pieces, at the wanted speed, until the client has had enough."""
        speed = self.server.bytes_per_second
        try:
            for start in range(0, len(body), PIECE_BYTES):
                piece = body[start : start + PIECE_BYTES]
                self.wfile.write(piece)
                if speed:
                    time.sleep(len(piece) / speed)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Serve a directory of models like the Hugging Face Hub, for tests.")
    parser.add_argument("--root", type=Path, required=True, help="directory with one directory a model, org/name")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument("--gated", action="append", default=[], metavar="ID", help="a model that wants a token")
    parser.add_argument("--token", action="append", default=[], help="a token with access to the gated models")
    parser.add_argument("--page-size", type=int, default=3, help="entries in a page of the file list")
    parser.add_argument("--bytes-per-second", type=int, default=0, help="speed limit of each connection")
    return parser.parse_args()


def main() -> int:
    """Serves until it is stopped."""
    arguments = parse_arguments()
    if not arguments.root.is_dir():
        print(f"hub_server: {arguments.root}: not a directory", file=sys.stderr)
        return 2
    server = HubServer(
        arguments.root,
        arguments.port,
        gated=tuple(arguments.gated),
        tokens=tuple(arguments.token),
        page_size=arguments.page_size,
        bytes_per_second=arguments.bytes_per_second,
    )
    print(server.url, flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
