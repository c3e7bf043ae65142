"""A hub on this machine: as much of the hub's interface as listing a repository and downloading from it needs."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "a" * 40


def digest(content: bytes) -> str:
    """What stands for a file's version; any digest will do."""
    return hashlib.sha1(content).hexdigest()


@contextlib.contextmanager
def hub(folder: Path, name: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Serve a folder as the repository `name`; gives the address and a list of (method, path, range) that grows."""
    seen: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.answer(body=False)

        def do_GET(self):
            self.answer(body=True)

        def answer(self, body: bool):
            path = self.path.split("?")[0]
            seen.append((self.command, path, self.headers.get("Range", "")))
            if path.startswith(f"/api/models/{name}"):
                files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
                answer: object = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
                if "/tree/" in path:
                    answer = [
                        {"type": "file", "path": file, "size": p.stat().st_size, "oid": digest(p.read_bytes())}
                        for file, p in files.items()
                    ]
                self.reply(200, json.dumps(answer).encode(), body)
                return
            file = folder / path.rpartition(f"/{name}/resolve/")[2].partition("/")[2]
            if not path.startswith(f"/{name}/resolve/") or not file.is_file():
                self.reply(404, b"{}", body)
                return
            content = file.read_bytes()
            etag = {"ETag": f'"{digest(content)}"', "X-Repo-Commit": COMMIT}
            if begin := self.headers.get("Range", ""):
                start = int(begin.removeprefix("bytes=").split("-")[0])
                etag["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self.reply(206, content[start:], body, etag)
            else:
                self.reply(200, content, body, etag)

        def reply(self, status: int, content: bytes, body: bool, headers: dict[str, str] | None = None):
            self.send_response(status)
            for key, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def silent_server() -> Iterator[tuple[str, list[bytes]]]:
    """A server that never answers; gives its address and a list that grows by what each connection has sent."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen() -> None:
            while True:
                connection, _ = server.accept()
                with connection:
                    received = b""
                    while part := connection.recv(65536):  # empty when the other side has given up
                        received += part
                if received == b"end":
                    return
                seen.append(received)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", seen
        finally:
            with socket.create_connection(server.getsockname()) as last:
                last.sendall(b"end")
            thread.join()
