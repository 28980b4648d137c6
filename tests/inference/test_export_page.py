"""The page of docs/demo in a real browser, which is driven through a pipe by Chrome's DevTools protocol."""

import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import time

import numpy as np
import pytest
from PIL import Image

import fer_jax
from docs.demo.build import build

SECONDS = 60
FOUND = "document.querySelector('.face')?.dataset.probabilities"


class Browser:
    """A tab of a headless Chromium."""

    def __init__(self, program, *flags):
        reads, self.writes = os.pipe()
        self.reads, writes = os.pipe()
        flags = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", *flags)
        shell = f'exec "$@" 3<&{reads} 4>&{writes}'
        command = ["bash", "-c", shell, "bash", program, *flags, "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(reads, writes), stderr=subprocess.DEVNULL)
        os.close(reads)
        os.close(writes)
        self.count, self.session, self.received = 0, {}, b""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = {"sessionId": self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]}

    def __call__(self, method, **params):
        """Calls a method of the protocol."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params} | self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.received:
                self.received += os.read(self.reads, 1 << 20) or pytest.fail("the browser ended")
            text, _, self.received = self.received.partition(b"\0")
            answer = json.loads(text)
            if answer.get("id") == self.count:
                return answer["result"]

    def value(self, expression):
        return self("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def wait(self, expression):
        """Returns the value of an expression of the page once it is true."""
        end = time.monotonic() + SECONDS
        while not (value := self.value(expression)):
            assert time.monotonic() < end, self.value("document.body.innerText")
            time.sleep(0.1)
        return value

    def choose(self, path):
        """Gives the page a photo."""
        root = self("DOM.getDocument")["root"]["nodeId"]
        node = self("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def close(self):
        self.process.terminate()
        self.process.wait()
        os.close(self.reads)
        os.close(self.writes)


@contextlib.contextmanager
def served(folder):
    """The address of the files of a folder."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
def test_a_browser_predicts_what_python_does(real_data, tmp_path):
    """The photo is chosen as a user would; then the camera, of which Chromium makes one of a file, shows it too."""
    for package in ("jax2onnx", "onnxruntime"):
        pytest.importorskip(package)
    chromium = shutil.which("chromium") or shutil.which("google-chrome") or pytest.skip("needs Chromium")
    shutil.which("npm") or pytest.skip("needs npm")
    photo, yunet = real_data / "astronaut.png", real_data / "yunet" / "face_detection_yunet_2023mar.onnx"
    site, film = tmp_path / "site", tmp_path / "film.mjpeg"
    build(None, site, str(yunet))
    Image.open(photo).convert("RGB").save(film, "JPEG", quality=95)
    fake = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")
    with served(site) as address:
        browser = Browser(chromium, *fake, f"--use-file-for-fake-video-capture={film}")
        try:
            browser("Page.navigate", url=address)
            browser.wait("!document.getElementById('camera').disabled")
            browser.choose(photo)
            seen = [browser.wait(FOUND)]
            browser.value("document.querySelector('.face').remove(), document.getElementById('camera').click()")
            seen.append(browser.wait(FOUND))
        finally:
            browser.close()
    (row,) = fer_jax.load().predict(photo, yunet=yunet)
    for probabilities in seen:
        np.testing.assert_allclose(json.loads(probabilities), row.probabilities, atol=0.02)
