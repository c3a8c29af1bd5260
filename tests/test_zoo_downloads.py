"""Downloads: whatever a server does, nothing bad stays, and a good one is asked again.

No backend changes what is fetched, so JAX stands for all.
"""

import hashlib
import os
import signal
import time
from pathlib import Path

import https_server as server
import pytest
from prepared import forks

from keras_lsc import zoo
from keras_lsc.zoo import download, guard, locks, sources

pytestmark = pytest.mark.once

GOOD = bytes(range(256)) * 256
SHA256 = hashlib.sha256(GOOD).hexdigest()
PAGE = server.file(b"<html>Please log in</html>", kind="text/html")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setenv(download.TIMEOUT_VARIABLE, "0.5")
    monkeypatch.setattr(download, "_PAUSE", 0.01)


@pytest.fixture
def answering(monkeypatch):
    """Starts a server that gives these answers for /x.keras, one after another."""
    opened = []

    def start(*answers, **others):
        paths = {"/x.keras": list(answers), **{f"/{name}": [a] for name, a in others.items()}}
        opened.append(server.serving(paths, monkeypatch))
        return opened[-1].__enter__()

    yield start
    for context in opened:
        context.__exit__(None, None, None)


def fetch(running, cache, path="/x.keras", **options):
    return sources.fetch(f"{running.address}{path}", SHA256, cache, **options).path


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


UNAVAILABLE = {
    "short": server.file(GOOD[:1000], len(GOOD)),
    "empty": server.file(b"", len(GOOD)),
    "stalled": server.stalled(GOOD[:1000], len(GOOD)),
    "stalled before the headers": lambda connection: connection.wait(),
    "dripping": server.dripping(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 99, 0.1),
    "slow": server.slowly(GOOD[:400], 40, 400),
    "garbage": server.raw(b"\x00\xff garbage\r\n\r\n"),
    "no status": server.raw(b"HTTP/1.1 abc OK\r\n\r\n"),
    "nothing": server.raw(b""),
    "wrong length": server.raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n" + GOOD),
    "broken chunks": server.raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n"
    ),
    "not found": server.status(404, "Not Found"),
    "failing": server.status(503, "Service Unavailable"),
    "partial": server.status(206, "Partial Content"),
    "to http": server.status(302, "Found", "Location: http://localhost:1/x.keras\r\n"),
    "to a file": server.status(302, "Found", "Location: file:///etc/passwd\r\n"),
    "to itself": server.status(302, "Found", "Location: /x.keras\r\n"),
}
DAMAGED = {
    "page": PAGE,
    "truly empty": server.file(b""),
    "changed": server.file(GOOD[:-1] + b"!"),
    "cut without a length": server.unsized(GOOD[:1000]),
}


@pytest.mark.parametrize("kind", [*UNAVAILABLE, *DAMAGED])
def test_a_bad_answer_leaves_nothing_and_a_good_server_is_asked_again(kind, answering, tmp_path):
    bad = {**UNAVAILABLE, **DAMAGED}[kind]
    expected = zoo.CheckpointUnavailableError if kind in UNAVAILABLE else zoo.DamagedCheckpointError
    running = answering(bad)
    with pytest.raises(expected, match=r"x\.keras") as raised:
        fetch(running, tmp_path)
    assert "\n" not in str(raised.value)
    assert files(tmp_path) == []
    running.answers["/x.keras"] = [server.file(GOOD)]
    assert fetch(running, tmp_path).read_bytes() == GOOD
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(
    "passing",
    [
        server.status(503, "Service Unavailable"),
        server.file(GOOD[:1000], len(GOOD)),
        server.raw(b""),
        server.stalled(GOOD[:1000], len(GOOD)),
    ],
)
def test_a_passing_fault_is_passed_over(passing, answering, tmp_path):
    running = answering(passing, passing, server.file(GOOD))
    assert fetch(running, tmp_path).read_bytes() == GOOD
    assert len(running.asked) == 3


def test_a_lasting_refusal_is_not_asked_again(answering, tmp_path):
    running = answering(server.status(404, "Not Found"))
    with pytest.raises(zoo.CheckpointUnavailableError, match="404"):
        fetch(running, tmp_path)
    assert len(running.asked) == 1


def test_a_server_that_is_not_trusted_is_refused(answering, tmp_path, monkeypatch):
    running = answering(server.file(GOOD))
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(zoo.CheckpointUnavailableError, match=r"(?i)certificate"):
        fetch(running, tmp_path)


def test_a_kept_file_is_not_fetched_again_and_a_damaged_one_is(answering, tmp_path):
    running = answering(server.file(GOOD))
    path = fetch(running, tmp_path)
    assert fetch(running, tmp_path) == path
    assert len(running.asked) == 1
    for content in (b"", GOOD[:-1], b"<html>"):
        path.write_bytes(content)
        assert fetch(running, tmp_path).read_bytes() == GOOD


@pytest.mark.parametrize("answer", [server.file(GOOD), server.unsized(GOOD)])
def test_more_bytes_than_expected_or_allowed_are_not_taken(
    answer, answering, tmp_path, monkeypatch
):
    running = answering(answer)
    with pytest.raises(zoo.CheckpointUnavailableError, match=r"1,000"):
        fetch(running, tmp_path, size=1000)
    monkeypatch.setenv(guard.LIMIT_VARIABLE, "2000")
    with pytest.raises(zoo.CheckpointUnavailableError, match=r"2,000"):
        fetch(running, tmp_path)
    assert files(tmp_path) == []
    monkeypatch.delenv(guard.LIMIT_VARIABLE)
    assert fetch(running, tmp_path, size=len(GOOD)).read_bytes() == GOOD


def test_addresses_are_sent_escaped_and_kept_under_safe_names(answering, tmp_path):
    paths = {
        "/x.keras?download=true": "/x.keras?download=true",
        "/x.keras#top": "/x.keras",
        "/a file.keras": "/a%20file.keras",
        "/a%20file.keras": "/a%20file.keras",
        "/..%2f..%2fevil.keras": "/..%2f..%2fevil.keras",
        "/é.keras": "/%C3%A9.keras",
        "/": "/",
        "/.hidden": "/.hidden",
    }
    running = answering(server.file(GOOD))
    running.answers.update({sent: [server.file(GOOD)] for sent in paths.values()})
    for number, (path, sent) in enumerate(paths.items()):
        cache = tmp_path / str(number)
        kept = fetch(running, cache, path)
        assert running.asked[-1] == sent
        assert kept.parent == cache / SHA256[:16]
        assert kept.suffix == ".keras"
        assert not kept.name.startswith(".")


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost/x.keras",
        "https://",
        "https:///x.keras",
        "https://localhost:port/x.keras",
        "https://localhost:99999/x.keras",
        "https://a b/x.keras",
        "https://user:word@localhost/x.keras",
        "https://localhost/x\r\nHost: evil.keras",
        "https://[::1/x.keras",
        "https://" + "a" * 300 + "/x.keras",
        "hf://owner/repo@main/../../x.keras",
        "hf://owner/x.keras",
    ],
)
def test_what_is_no_safe_address_is_refused(address, tmp_path):
    with pytest.raises(ValueError, match=r"https://|hf://"):
        sources.fetch(address, SHA256, tmp_path)
    assert files(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named(answering, tmp_path):
    running = answering(server.file(GOOD))
    (tmp_path / "taken").write_text("")
    with pytest.raises(zoo.CheckpointUnavailableError, match="cache_dir"):
        fetch(running, tmp_path / "taken")


_FETCH = """
import os
from pathlib import Path
from keras_lsc.zoo import sources
address, digest, cache, count = arguments
children = []
for _ in range(int(count)):
    child = os.fork()
    if not child:
        sources.fetch(address, digest, Path(cache))
        os._exit(0)
    children.append(child)
assert not any([os.waitpid(child, 0)[1] for child in children])
if not children:
    sources.fetch(address, digest, Path(cache))
"""


def start(prepared, running, cache, output, copies=0):
    return prepared.start(
        *(_FETCH, f"{running.address}/x.keras", SHA256, cache, copies),
        output=output,
        **{
            download.TIMEOUT_VARIABLE: "20",
            "SSL_CERT_FILE": os.environ["SSL_CERT_FILE"],
        },
    )


def wait_for(condition):
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@forks
def test_processes_that_fetch_at_once_from_a_slow_server_all_succeed(prepared, answering, tmp_path):
    running = answering(server.slowly(GOOD, 1.0))
    process = start(prepared, running, tmp_path / "cache", tmp_path / "printed", copies=4)
    assert process.wait() == 0, process.printed
    assert [path.read_bytes() for path in files(tmp_path / "cache")] == [GOOD]
    assert len(running.asked) > 1


@forks
def test_what_a_killed_process_leaves_is_removed_and_never_read(prepared, answering, tmp_path):
    cache = tmp_path / "cache"
    running = answering(server.slowly(GOOD, 60), server.file(GOOD))
    process = start(prepared, running, cache, tmp_path / "printed")
    wait_for(lambda: any(path.stat().st_size for path in files(cache)))
    os.kill(process.process, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    (left,) = files(cache)
    assert left.name.endswith(".part")
    path = fetch(running, cache)
    assert path.read_bytes() == GOOD
    assert files(cache) == [path]


def test_what_another_process_is_writing_is_left_alone(answering, tmp_path):
    running = answering(server.file(GOOD))
    folder = tmp_path / SHA256[:16]
    folder.mkdir()
    part = folder / ".x.keras.0.part"
    with part.open("wb") as file:
        assert locks.try_lock(file.fileno())
        path = fetch(running, tmp_path)
        assert sorted(files(tmp_path)) == sorted([path, part])
    path.unlink()
    fetch(running, tmp_path)
    assert files(tmp_path) == [Path(path)]
