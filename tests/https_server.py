"""A server on this computer, over TLS as the real ones are, that answers as a test wants."""

import socketserver
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The key is for nothing but this server; the certificate is for localhost.
CERTIFICATE = Path(__file__).with_name("localhost.pem")

Answer = Callable[[Any], None]


class Server(socketserver.ThreadingTCPServer):
    """Answers a path with the next of its answers, and with the last of them from then on."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 64

    def __init__(self, answers: dict[str, list[Answer]]):
        self.answers, self.asked = answers, []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(CERTIFICATE)
        self.stopped = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        return f"https://localhost:{self.server_address[1]}"

    def handle_error(self, request, client_address):
        """A client that hangs up, as the tests want it to, is no matter."""


class _Handler(socketserver.BaseRequestHandler):
    def handle(self):
        with self.server.context.wrap_socket(self.request, server_side=True) as connection:
            connection.settimeout(30)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            path = request.split()[1].decode()
            self.server.asked.append(path)
            answers = self.server.answers.get(path, [status(404, "Not Found")])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            answer(Connection(connection, self.server.stopped))


class Connection:
    """What an answer is given: a way to send, and to wait until the test is over."""

    def __init__(self, connection: ssl.SSLSocket, stopped: threading.Event):
        self._connection, self._stopped = connection, stopped

    def send(self, content: bytes) -> None:
        self._connection.sendall(content)

    def wait(self, seconds: float = 60.0) -> None:
        self._stopped.wait(seconds)


@contextmanager
def serving(answers: dict[str, list[Answer]], monkeypatch: Any = None):
    """A `Server` that this process, and those it starts, trust."""
    server = Server(answers)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    if monkeypatch is not None:
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
    try:
        yield server
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()


def file(content: bytes, length: int | None = None, kind: str = "application/zip") -> Answer:
    """The file; `length` is what its header says instead of the truth."""
    stated = len(content) if length is None else length
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {stated}\r\n\r\n"
    return lambda connection: connection.send(head.encode() + content)


def unsized(content: bytes) -> Answer:
    """The file, its end being that of the connection."""
    return lambda connection: connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + content)


def slowly(content: bytes, seconds: float, parts: int = 20) -> Answer:
    """The file in parts over some time."""

    def answer(connection: Connection) -> None:
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode())
        size = -(-len(content) // parts)
        for start in range(0, len(content), size):
            connection.send(content[start : start + size])
            time.sleep(seconds / parts)

    return answer


def stalled(content: bytes, length: int) -> Answer:
    """The beginning of a file of `length` bytes, then nothing."""

    def answer(connection: Connection) -> None:
        file(content, length)(connection)
        connection.wait()

    return answer


def dripping(content: bytes, pause: float) -> Answer:
    """Byte after byte, so that no single one keeps the client waiting for long."""

    def answer(connection: Connection) -> None:
        for byte in content:
            connection.send(bytes([byte]))
            time.sleep(pause)

    return answer


def status(code: int, reason: str, header: str = "") -> Answer:
    """An answer without a file."""
    head = f"HTTP/1.1 {code} {reason}\r\n{header}Content-Length: 0\r\n\r\n"
    return lambda connection: connection.send(head.encode())


def raw(content: bytes) -> Answer:
    """These bytes, whatever they are."""
    return lambda connection: connection.send(content)
