"""A loopback server with as much of the Hugging Face Hub's protocol as downloads need."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@dataclass
class HubServer:
    """Serves `root/{owner}/{name}` as repositories; `requests` lists the requests that were received."""

    root: Path
    endpoint: str = ""
    tokens: dict[str, str] = field(default_factory=dict)  # of private repositories
    requests: list[str] = field(default_factory=list)

    def commit(self, repo: str) -> str:
        """An id of 40 hexadecimal digits that changes with the repository's files."""
        digest = hashlib.sha1()
        for file in sorted((self.root / repo).iterdir()):
            digest.update(file.name.encode() + b"\0" + hashlib.sha1(file.read_bytes()).digest())
        return digest.hexdigest()


@contextmanager
def serve_hub(root: Path) -> Iterator[HubServer]:
    """Serve the repositories below `root` until the context ends; set HF_ENDPOINT to the server's `endpoint`."""
    hub = HubServer(root)
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/]+)", path):
            repo, revision, name = match.groups()
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(?:revision|tree)/([^/]+)(?:/.*)?)?", path):
            repo, revision, name = match[1], match[2] or "main", None
        else:
            return self.fail("EntryNotFound")
        self.hub.requests.append(f"{self.command} {path}")
        token = self.hub.tokens.get(repo)
        authorized = token is None or self.headers["Authorization"] == f"Bearer {token}"
        if not (self.hub.root / repo).is_dir() or not authorized:
            return self.fail("RepoNotFound", HTTPStatus.UNAUTHORIZED)
        if revision not in ("main", self.hub.commit(repo)):
            return self.fail("RevisionNotFound")
        if name is None:
            return self.send_listing(repo, as_tree="/tree/" in path)
        file = self.hub.root / repo / name
        if not file.is_file():
            return self.fail("EntryNotFound")
        content = file.read_bytes()
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.reply(HTTPStatus.OK, content, {"ETag": etag, "X-Repo-Commit": self.hub.commit(repo)})

    def send_listing(self, repo: str, *, as_tree: bool) -> None:
        files = sorted((self.hub.root / repo).iterdir())
        tree = [{"type": "file", "path": f.name, "size": f.stat().st_size, "oid": "0" * 40} for f in files]
        siblings = [{"rfilename": f.name} for f in files]
        info = {"id": repo, "modelId": repo, "sha": self.hub.commit(repo), "siblings": siblings, "tags": []}
        self.reply(HTTPStatus.OK, json.dumps(tree if as_tree else info).encode())

    def fail(self, code: str, status: HTTPStatus = HTTPStatus.NOT_FOUND) -> None:
        self.reply(status, b"", {"X-Error-Code": code})

    def reply(self, status: HTTPStatus, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass
