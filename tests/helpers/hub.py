"""A stand-in for the API of the Hugging Face hub, with repositories in memory: create, commit (without LFS and Xet), information, download."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote

import pytest

TOKEN = "hf_good"


@dataclass
class Repository:
    """A repository: its commits, oldest first, each a revision with all files."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], deleted: Sequence[str] = ()) -> str:
        """Add or replace files, and delete others; return the revision."""
        revision = hashlib.sha1(f"{len(self.commits)}{sorted(files)}".encode()).hexdigest()
        self.commits[revision] = {name: data for name, data in {**self.files, **files}.items() if name not in deleted}
        return revision

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the newest revision."""
        return next(reversed(self.commits.values()), {})

    def find(self, revision: str) -> str:
        """Return the commit of a branch, tag or commit; "" if there is none."""
        if revision == "main":
            return next(reversed(self.commits), "")
        return self.tags.get(revision, revision if revision in self.commits else "")


class Hub:
    """The server's state: repositories by name, those of data sets with `datasets/` before it.

    `break_after` are the bytes after which each of the next downloads breaks off.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.break_after: list[int] = []
        self.downloaded: list[str] = []
        self.url = ""


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *arguments: Any) -> None:
        pass

    @property
    def allowed(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def find(self, name: str) -> Repository | None:
        """Return a repository that the client may see; otherwise answer as the hub does."""
        repository = self.hub.repositories.get(name)
        if repository and (self.allowed or not repository.private):
            return repository
        self.answer(404 if self.allowed else 401, {"error": "Repository not found"}, X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        return None

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self.answer(200, {})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self.describe(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/api/(datasets/[^/]+/[^/]+)/tree/(.+)", path):
            self.list_files(match[1], unquote(match[2]))
        elif match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.download(match[1], unquote(match[2]), match[3])
        else:
            self.answer(404, {"error": path})

    def describe(self, name: str, revision: str) -> None:
        if repository := self.find(name):
            commit = repository.find(revision)
            if not commit and repository.commits:
                self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
                return
            files = [{"rfilename": each, "size": len(data)} for each, data in repository.commits.get(commit, {}).items()]
            self.answer(200, {"id": name, "sha": commit, "private": repository.private, "siblings": [{"rfilename": ".gitattributes"}, *files]})

    def list_files(self, name: str, revision: str) -> None:
        if repository := self.find(name):
            commit = repository.find(revision)
            if not commit:
                self.answer(404, {"error": "Invalid rev id"}, X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
                return
            self.answer(200, [{"type": "file", "path": each, "size": len(data), "oid": "e" * 40} for each, data in repository.commits[commit].items()])

    def download(self, name: str, revision: str, file: str) -> None:
        if repository := self.find(name):
            commit = repository.find(revision)
            data = repository.commits.get(commit, {}).get(file)
            if data is None:
                self.answer(404, {}, X_Error_Code="EntryNotFound")
                return
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit, "Content-Length": str(len(data) - start)}
            self.send_response(206 if start else 200)
            for key, value in headers.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.hub.downloaded.append(file)
                stop = start + self.hub.break_after.pop(0) if self.hub.break_after else len(data)
                self.wfile.write(data[start:stop])
                self.close_connection = True

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.allowed:
            self.answer(401, {"error": "Invalid username or password."})
        elif self.path == "/api/repos/create":
            self.create(json.loads(body))
        elif self.path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", self.path):
            files = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self.answer(200, {"files": files})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path):
            lines = [json.loads(line) for line in body.splitlines()]
            files = {line["value"]["path"]: base64.b64decode(line["value"]["content"]) for line in lines if line["key"] == "file"}
            commit = self.hub.repositories[match[1]].commit(files, [line["value"]["path"] for line in lines if line["key"] == "deletedFile"])
            self.answer(200, {"commitUrl": f"{self.hub.url}/{match[1]}/commit/{commit}", "commitOid": commit, "success": True})
        else:
            self.answer(404, {"error": self.path})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted['organization']}/{wanted['name']}" if wanted.get("organization") else f"me/{wanted['name']}"
        if not name.startswith("me/"):
            self.answer(403, {"error": "You don't have the rights to create a model under the namespace"})
            return
        status = 409 if name in self.hub.repositories else 200
        private = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.hub.repositories.setdefault(name, Repository(private))
        self.answer(status, {"url": f"{self.hub.url}/{name}"})


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Run a stand-in in a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def use_hub(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path, token: str = TOKEN) -> None:
    """Let the hub's client of this process, and of its children, use a stand-in, a token, and a cache in `home`."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_TOKEN", token)
