"""Fetching the detector, from a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from faceidx.errors import InputError, JobError
from faceidx.images.detector_file import (
    YUNET,
    Published,
    cached_file,
    detector_for,
    fetch,
    find_detector,
)
from tests.conftest import RunCli
from tests.images.photos import write_toy_detector

_CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    """Serves one file; notes what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = _CONTENT
        self.cut_after: int | None = None
        self.knows_ranges = True
        self.status = 200
        self.asked: list[str | None] = []
        self.paths: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/detector.onnx"


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        self.server.paths.append(self.path)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        first = int(wanted[6:-1]) if wanted and self.server.knows_ranges else 0
        body = self.server.content[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        if first:
            whole = len(self.server.content)
            self.send_header("Content-Range", f"bytes {first}-{whole - 1}/{whole}")
        self.end_headers()
        self.wfile.write(body[: self.server.cut_after])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "faceidx"


def _published(url: str) -> Published:
    digest = hashlib.sha256(_CONTENT).hexdigest()
    return Published(name="toy", url=url, sha256=digest, size=len(_CONTENT))


def test_a_file_is_fetched_once_for_its_owner_only(server: Server, cache: Path) -> None:
    path, fetched = fetch(_published(server.url))
    assert (path, fetched) == (cache / "detector.onnx", True)
    assert path.read_bytes() == _CONTENT
    assert path.stat().st_mode & 0o777 == 0o600
    assert fetch(_published(server.url)) == (path, False)
    assert len(server.asked) == 1
    assert [file.name for file in cache.iterdir()] == ["detector.onnx"]


def test_what_was_cut_off_goes_on_where_it_stopped(server: Server, cache: Path) -> None:
    server.cut_after = 100_000
    with pytest.raises(JobError, match=r"run the same command again|cannot be fetched"):
        fetch(_published(server.url))
    assert not (cache / "detector.onnx").exists()
    server.cut_after = None
    path, _ = fetch(_published(server.url))
    assert path.read_bytes() == _CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_server_that_knows_no_ranges_begins_anew(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "detector.onnx.part").write_bytes(_CONTENT[:5000])
    server.knows_ranges = False
    assert fetch(_published(server.url))[0].read_bytes() == _CONTENT


def test_a_file_that_was_whole_already_is_not_asked_for_again(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "detector.onnx.part").write_bytes(_CONTENT)
    assert fetch(_published(server.url))[0].read_bytes() == _CONTENT
    assert server.asked == []


@pytest.mark.parametrize("content", [b"<html>please log in</html>" * 20_000, _CONTENT + b"x"])
def test_another_file_is_refused_with_both_hashes_and_not_kept(
    server: Server, cache: Path, content: bytes
) -> None:
    server.content = content
    published = _published(server.url)
    with pytest.raises(JobError, match=f"its SHA-256 is .*, not {published.sha256}"):
        fetch(published)
    assert list(cache.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_anew(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "detector.onnx").write_bytes(b"cut")
    assert fetch(_published(server.url))[1]
    assert (cache / "detector.onnx").read_bytes() == _CONTENT


def test_offline_is_one_line_with_the_way_out_and_says_what_is_kept(
    server: Server, cache: Path
) -> None:
    url = server.url
    server.shutdown()
    server.server_close()
    with pytest.raises(JobError, match=r"cannot be fetched: .*refused.*online\? A file .*--detec"):
        fetch(_published(url))
    (cache / "detector.onnx.part").write_bytes(_CONTENT[:5000])
    with pytest.raises(JobError, match=r"online\? The 5000 bytes that were fetched are kept\."):
        fetch(_published(url))


def test_an_answer_that_is_an_error_is_told(server: Server) -> None:
    server.status = 404
    with pytest.raises(JobError, match="the server answers 404 Not Found"):
        fetch(_published(server.url))
    with pytest.raises(InputError, match="no http or https address"):
        fetch(_published("file:///etc/passwd"))


def test_proxies_of_the_system_are_followed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
    fetch(_published("http://models.example/detector.onnx"))
    assert server.paths == ["http://models.example/detector.onnx"]


def test_the_detector_is_the_one_given_else_the_one_in_the_cache(
    tmp_path: Path, cache: Path, shared_data: Path
) -> None:
    assert detector_for("none", None) is None
    assert detector_for("auto", None) is None
    with pytest.raises(InputError, match=r"no face detector: .*faceidx models get yunet.*--detec"):
        detector_for("largest", None)
    write_toy_detector(tmp_path / "toy.onnx")
    given = detector_for("largest", tmp_path / "toy.onnx")
    assert given is not None and given.name == "toy.onnx"
    cache.mkdir(parents=True)
    weights = shared_data / "weights" / YUNET.file_name
    cached_file(YUNET).write_bytes(weights.read_bytes())
    assert find_detector(None).sha256 == YUNET.sha256
    found = detector_for("auto", None)
    assert found is not None and found.sha256 == YUNET.sha256


def test_another_detector_in_the_cache_is_refused_with_both_hashes(cache: Path) -> None:
    cache.mkdir(parents=True)
    write_toy_detector(cached_file(YUNET))
    digest = hashlib.sha256(cached_file(YUNET).read_bytes()).hexdigest()
    with pytest.raises(InputError, match=f"SHA-256 {digest}, not {YUNET.sha256}"):
        find_detector(None)


def test_the_command_fetches_from_another_place_and_says_where_the_file_is(
    server: Server, run_cli: RunCli, cache: Path, shared_data: Path
) -> None:
    server.content = (shared_data / "weights" / YUNET.file_name).read_bytes()
    result = run_cli.json("models", "get", "yunet", "--url", server.url)
    assert result == {
        "file": str(cache / YUNET.file_name),
        "fetched": True,
        "bytes": YUNET.size,
        "sha256": YUNET.sha256,
    }
    assert run_cli.json("models", "get", "yunet")["fetched"] is False
    server.content = b"other"
    Path(result["file"]).unlink()
    _, err = run_cli("models", "get", "yunet", "--url", server.url, code=1)
    assert err.count("\n") == 1
