"""A real Chromium without a window, driven through its DevTools pipe, which needs no driver and no package.

Protocol: https://chromedevtools.github.io/devtools-protocol; messages are JSON that end in a zero byte, the
browser reads them from its file descriptor 3 and answers on 4.
"""

import base64
import copy
import itertools
import json
import os
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--no-sandbox",  # which root may not have
    "--no-first-run",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-audio-output",  # sound is computed, but no device is looked for
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
)


def chromium_path() -> str:
    """The browser's program; skips the test, naming it, where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium (none of " + ", ".join(NAMES) + " is on the PATH)")
    return found


class Page:
    """One page in a browser of its own that is offline, or reaches servers of this machine only. A context manager.

    `problems`: errors in the console and exceptions; `requests`: every address that was asked for.
    """

    def __init__(
        self, folder: Path, width: int = 1280, height: int = 900, dark: bool = False, is_online: bool = False
    ) -> None:
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.loaded = False
        self._numbers = itertools.count(1)
        self._unread = bytearray()
        browser_in, self._to = os.pipe()
        self._from, browser_out = os.pipe()
        # The shell puts the two ends where the browser expects them.
        command = ["sh", "-c", f'exec "$@" 3</dev/fd/{browser_in} 4>/dev/fd/{browser_out}', "sh"]
        command += [chromium_path(), *OPTIONS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        self._process = subprocess.Popen(
            command,
            pass_fds=(browser_in, browser_out),
            env={**os.environ, "HOME": str(folder)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(browser_in)
        os.close(browser_out)
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        if not is_online:
            speeds = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            self.call("Network.emulateNetworkConditions", offline=True, **speeds)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # By its own way out where it still answers: killed, it leaves processes that go on writing.
        try:
            self._call("Browser.close")
            self._process.wait(10)
        except (AssertionError, OSError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, place: Path | str) -> None:
        """Loads a file from disk, or an address, and waits until it is there."""
        self.loaded = False
        self.call("Page.navigate", url=place if isinstance(place, str) else place.as_uri())
        deadline = time.monotonic() + 30
        while not self.loaded:
            self._read(deadline)

    def another(self) -> "Page":
        """A second tab of the same browser; it ends with the first, and notes its problems there."""
        tab = copy.copy(self)
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        tab._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            tab.call(f"{domain}.enable")
        return tab

    def run(self, script: str):
        """The value of an expression in the page; a promise is waited for. Raises where it throws."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str, seconds: float = 60):
        """The value of an expression once it is true."""
        deadline = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.05)
        return value

    def click(self, selector: str) -> None:
        """A real click into the middle of the first element that matches."""
        x, y = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'});"
            " const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
        )
        self.mouse("mouseMoved", x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", clickCount=1)

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def drop(self, *files: Path) -> None:
        """Drops files from outside onto the middle of the page."""
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)

    def picture(self, path: Path, whole: bool = False) -> None:
        """Saves a PNG of what is seen, or of the whole page."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters) -> dict:
        """One command of the protocol to the page."""
        return self._call(method, self._session, **parameters)

    def _call(self, method: str, session: str | None = None, **parameters) -> dict:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 30
        while True:
            answer = self._read(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _read(self, deadline: float) -> dict:
        """The next message; events are noted on the way."""
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0, deadline - time.monotonic()))
            assert ready, "Chromium did not answer in time"
            part = os.read(self._from, 1 << 20)
            assert part, f"Chromium ended with {self._process.wait()}"
            self._unread += part  # in place: tabs share it
        end = self._unread.index(b"\0")
        message = json.loads(self._unread[:end])
        del self._unread[: end + 1]
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, what: dict) -> None:
        if event == "Page.loadEventFired":
            self.loaded = True
        elif event == "Runtime.exceptionThrown":
            self.problems.append(json.dumps(what["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
            self.problems.append(json.dumps(what["args"]))
        elif event == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
            self.problems.append(json.dumps(what["entry"]))
        elif event == "Network.requestWillBeSent":
            self.requests.append(what["request"]["url"])
