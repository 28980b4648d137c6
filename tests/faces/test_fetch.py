"""Fetching the face detector: from a local server that answers in the ways that servers do."""

import dataclasses
import hashlib
import http.server
import threading

import pytest

from fer_jax.errors import UserError
from fer_jax.faces import fetch

BYTES = b"a network" * 100
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:8f23\nsize 900\n"
ANSWERS = {
    "/whole": BYTES,
    "/pointer": POINTER,
    "/cut": BYTES[:500],
    "/changed": BYTES[:-1] + b"!",
    "/large": BYTES * 9,
}


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/whole")
            self.end_headers()
            return
        self.send_response(200 if self.path in ANSWERS else 404)
        self.end_headers()
        self.wfile.write(ANSWERS.get(self.path, b"<!doctype html>not here"))

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def remote(server, tmp_path, monkeypatch):
    """A function from paths on the server to a file that is there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = fetch.RemoteFile("net.onnx", len(BYTES), hashlib.sha256(BYTES).hexdigest(), (), "a network")
    return lambda *paths: dataclasses.replace(file, addresses=tuple(server + path for path in paths))


def test_a_file_is_fetched_once_and_checked(remote):
    path = fetch.fetch(remote("/moved"))
    assert path.read_bytes() == BYTES
    assert fetch.fetch(remote("/absent")) == path  # from the cache
    path.write_bytes(BYTES[:-1])
    assert fetch.cached(remote()) is None
    assert fetch.fetch(remote("/absent", "/whole")).read_bytes() == BYTES


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("/pointer", "Git LFS pointer"),
        ("/cut", "500 bytes, not 900"),
        ("/changed", "another SHA-256"),
        ("/large", "more than 900"),
        ("/absent", "404"),
    ],
)
def test_another_answer_is_named_and_nothing_is_kept(remote, answer, problem, tmp_path):
    with pytest.raises(UserError, match=problem):
        fetch.fetch(remote(answer))
    assert not list(tmp_path.rglob("*.onnx*"))


def test_without_a_server_the_address_is_named(remote):
    nobody = dataclasses.replace(remote(), addresses=("http://127.0.0.1:1/net.onnx",))
    with pytest.raises(UserError, match=r"127\.0\.0\.1:1/net\.onnx.*copy it to .*net\.onnx"):
        fetch.fetch(nobody)


def test_the_detector_at_hand_is_the_one_that_would_be_fetched(real_data):
    data = (real_data / "yunet" / fetch.YUNET.name).read_bytes()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (fetch.YUNET.size, fetch.YUNET.sha256)
