"""A stand-in for the hub: as much of its HTTP interface as pushing and loading need."""

import base64
import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

OID = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        """Says nothing."""

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub, path = self.server, self.path.partition("?")[0]
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            hub.made.append(json.loads(body))
            self._answer({"url": f"{hub.address}/me/net"})
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif path.startswith("/api/models/me/net/preupload/"):
            names = [file["path"] for file in json.loads(body)["files"]]
            files = [
                {"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names
            ]
            self._answer({"files": files})
        elif path.startswith("/api/models/me/net/commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer({"commitUrl": f"{hub.address}/me/net/commit/{OID}", "commitOid": OID})
        else:
            self._answer({"error": path}, 404)

    def do_GET(self):
        content = self.server.files.get(self.path.removeprefix(f"/me/net/resolve/{OID}/"))
        if content is None:
            self._answer({"error": self.path}, 404)
            return
        tag = f'"{hashlib.sha256(content).hexdigest()}"'
        self._answer(content, X_Repo_Commit=OID, ETag=tag, Accept_Ranges="bytes")

    def do_HEAD(self):
        self.do_GET()


@contextmanager
def serving(token="secret"):
    """A hub with the repository me/net, where the token may write."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.token, server.files, server.made = token, {}, []
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
