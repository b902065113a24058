"""Drive a real browser without a window, through its own DevTools protocol.

python tests/browser.py figures/page.html figures/page.png   takes the README's picture
"""

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATH = next(filter(None, map(shutil.which, NAMES)), None)
MISSING = f"no Chromium: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)"
PATIENCE = 60  # seconds for what takes one, on a machine that is busy


class Browser:
    """One page of a browser: JavaScript in, values out; and all that its console complained of."""

    def __init__(self, socket):
        self.socket, self.calls, self.complaints = socket, 0, []
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.calls += 1
        self.socket.send(json.dumps({"id": self.calls, "method": method, "params": parameters}))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("id") == self.calls:
                assert "error" not in told, told
                return told["result"]
            self._hear(told.get("method"), told.get("params", {}))

    def _hear(self, method, told):
        if method == "Runtime.exceptionThrown":
            self.complaints.append(told["exceptionDetails"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.complaints.append(told["args"])
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(told["entry"])
        elif method == "Network.requestWillBeSent":
            url = told["request"]["url"]
            if not url.startswith(("file://", "data:")):
                self.complaints.append(url)

    def open(self, path, width=1440, height=900, dark=False):
        """Show a file in a window of this size, in light or in dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        still = {"name": "prefers-reduced-motion", "value": "reduce"}  # nothing to wait for
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Emulation.setEmulatedMedia", features=[scheme, still])
        # A URL that differs in its end alone would not be loaded anew.
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=path if "://" in str(path) else Path(path).as_uri())
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def until(self, condition):
        end = time.monotonic() + PATIENCE
        while not self.run(condition):
            assert time.monotonic() < end, condition
            time.sleep(0.02)

    def run(self, expression):
        """Evaluate an expression in the page, and return its value."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True,
                         awaitPromise=True)  # fmt: skip
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key, code=0, text=""):
        """Press and release a key, as "Tab", "Enter" or "ArrowRight"."""
        about = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def picture(self, path, whole=False):
        """Save what the window shows, or the whole page, as PNG."""
        done = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        Path(path).write_bytes(base64.b64decode(done["data"]))


@contextmanager
def browser(folder):
    """Start a browser that keeps its own things in a folder."""
    import websocket

    command = [PATH, "--headless=new", "--disable-gpu", "--no-first-run", "--disable-sync",
               "--disable-dev-shm-usage", "--disable-background-networking",
               "--remote-debugging-port=0", f"--user-data-dir={folder}",
               "about:blank"]  # fmt: skip
    if os.getuid() == 0:  # whom it refuses its sandbox; it shows nothing but a file of ours
        command.insert(1, "--no-sandbox")
    log = Path(folder) / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        told = Path(folder) / "DevToolsActivePort"
        end = time.monotonic() + PATIENCE
        while not (told.exists() and told.read_text().count("\n")):
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.05)
        port, place = told.read_text().split()
        connect = partial(websocket.create_connection, suppress_origin=True, timeout=PATIENCE)
        socket = connect(f"ws://127.0.0.1:{port}{place}")
        socket.send(json.dumps({"id": 0, "method": "Target.getTargets"}))
        targets = json.loads(socket.recv())["result"]["targetInfos"]
        socket.close()
        (page,) = (t["targetId"] for t in targets if t["type"] == "page")
        socket = connect(f"ws://127.0.0.1:{port}/devtools/page/{page}")
        yield Browser(socket)
        socket.close()
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place, browser(place) as found:
        found.open(Path(sys.argv[1]).resolve(), 1280, 1290)
        found.call("Emulation.setScrollbarsHidden", hidden=True)
        found.run("location.hash = 'study=embedded&task=sst2'")
        found.until("document.querySelector('.detail') !== null")
        found.run("document.getElementById('tasks').scrollIntoView(); scrollBy(0, 20)")
        found.run("document.activeElement.blur()")
        found.picture(sys.argv[2])
