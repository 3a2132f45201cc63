"""A clinic's afternoon at the page: visitors who upload photos for a long while.

In: a run's folder. Out: a table, ``visits.json`` and ``visits.png`` with memory and latency over
time. Visitors speak the page's own protocol (a WebSocket and uploads over HTTP), as a browser does.
"""

import io
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kaggle_pipeline.config.names import CHECKOUT
from kaggle_pipeline.core.errors import PipelineError

_LEVEL_MINUTE = 10
"""Memory after so long is what later minutes are compared with."""
_READINGS_A_VISIT = 15
_PATIENCE_SECONDS = 120
_XSRF = "_streamlit_xsrf"
_NUMBER = re.compile(r"class=\"big\">(?:under |over )?[\d.]+\s%</p>")


@dataclass(frozen=True)
class PageLoad:
    """What is measured.

    Attributes
    ----------
    users : int
    minutes : float
    pause_seconds : float
        Between a user's readings.
    size_px : (int, int)
        Of the photos.
    """

    users: int = 8
    minutes: float = 30
    pause_seconds: float = 2
    size_px: tuple[int, int] = (4000, 3000)


@dataclass
class Seen:
    """What happened: (seconds since the beginning, value) of each kind."""

    readings: list[tuple[float, float]] = field(default_factory=list)
    memory_mib: list[tuple[float, float]] = field(default_factory=list)
    faults: list[tuple[float, str]] = field(default_factory=list)


def measure_page(
    place: Path, run_dir: Path, load: PageLoad, say: Callable[[str], None] = print
) -> None:
    """Serve a run and let users read photos, each again and again.

    Parameters
    ----------
    place : pathlib.Path
        Gets figures and picture.
    run_dir : pathlib.Path
    load : PageLoad
    say : callable
        Takes a line.

    Raises
    ------
    PipelineError
        If a reading fails, or the server does not come up.
    """
    place.mkdir(parents=True, exist_ok=True)
    photos = make_photos(load.size_px)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(CHECKOUT / "scripts" / "serve.py"), "--run-dir", str(run_dir)]
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen([*command, "--port", str(port)], stdout=log, stderr=log)
    try:
        await_health(f"http://127.0.0.1:{port}", server)
        seen = visit(f"127.0.0.1:{port}", server.pid, photos, load, say)
    finally:
        server.terminate()
        server.wait()
    keep(place, seen, load, say)
    if seen.faults:
        raise PipelineError(f"{len(seen.faults)} readings failed, the first: {seen.faults[0][1]}")


def make_photos(size_px: tuple[int, int], count: int = 4) -> list[bytes]:
    """Return JPEGs of smooth noise, of some MB each."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (30, 40, 3), np.uint8))
        photo = np.asarray(coarse.resize(size_px, Image.Resampling.BICUBIC), np.int16)
        photo = photo + rng.integers(-6, 7, photo.shape, np.int16)
        buffer = io.BytesIO()
        Image.fromarray(photo.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
        found.append(buffer.getvalue())
    return found


def visit(
    address: str, server: int, photos: Sequence[bytes], load: PageLoad, say: Callable[[str], None]
) -> Seen:
    """Let all users read until the time is up; ``server`` is the process whose memory is told."""
    seen, began, over = Seen(), time.monotonic(), threading.Event()

    def user(number: int) -> None:
        mine = itertools.count(number)
        while not over.is_set():
            try:
                with Visitor(address) as visitor:
                    for _ in range(_READINGS_A_VISIT):
                        if over.wait(load.pause_seconds):
                            return
                        turn = next(mine)
                        # Padding as cameras write it: a photo of which nothing is known yet.
                        content = photos[turn % len(photos)] + bytes(1 + turn)
                        started = time.monotonic()
                        visitor.read(f"photo{turn}.jpg", content)
                        seen.readings.append((started - began, time.monotonic() - started))
            except Exception as error:  # a user who fails is counted, and comes again
                seen.faults.append((time.monotonic() - began, f"{type(error).__name__}: {error}"))
                over.wait(load.pause_seconds)

    threads = [threading.Thread(target=user, args=(number,)) for number in range(load.users)]
    for thread in threads:
        thread.start()
    told = 0.0
    while (now := time.monotonic() - began) < 60 * load.minutes:
        seen.memory_mib.append((now, resident_mib(server)))
        if now - told >= 300:
            told = now
            say(f"{now / 60:.0f} min: {len(seen.readings)} readings, {len(seen.faults)} failed, "
                f"{seen.memory_mib[-1][1]:.0f} MiB")  # fmt: skip
        time.sleep(5)
    over.set()
    for thread in threads:
        thread.join()
    return seen


def resident_mib(process: int) -> float:
    """Memory that a process holds now, in MiB; Linux tells."""
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) / 1024


class Visitor:
    """One browser tab on the page "One lesion".

    Parameters
    ----------
    address : str
        Host and port.

    Raises
    ------
    RuntimeError
        If the page answers with anything but a reading.
    """

    def __init__(self, address: str) -> None:
        from websockets.sync.client import connect

        self._home = f"http://{address}"
        with urllib.request.urlopen(f"{self._home}/_stcore/health") as answer:
            cookies = "; ".join(answer.headers.get_all("Set-Cookie") or [])
        self._token = cookies.partition(f"{_XSRF}=")[2].partition(";")[0].strip('"')
        self._socket = connect(
            f"ws://{address}/_stcore/stream", subprotocols=["streamlit"], max_size=None,
            open_timeout=_PATIENCE_SECONDS, origin=self._home, ping_interval=None,  # as browsers do
            additional_headers={"Cookie": f"{_XSRF}={self._token}"},
        )  # fmt: skip
        self._session, self._uploader, self._before = "", "", ""
        self._run({})

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def read(self, name: str, content: bytes) -> str:
        """Upload a photo in place of the one before; return the words of the page that reads it."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        message = BackMsg()
        message.file_urls_request.request_id = name
        message.file_urls_request.file_names.append(name)
        message.file_urls_request.session_id = self._session
        self._socket.send(message.SerializeToString())
        (urls,) = next(
            one.file_urls_response.file_urls for one in self._messages()
            if one.WhichOneof("type") == "file_urls_response"
        )  # fmt: skip
        self._ask("PUT", urls.upload_url, name, content)
        if self._before:
            self._ask("DELETE", self._before)
        self._before = urls.delete_url
        pieces = self._run({"name": name, "size": len(content), "urls": urls})
        require_reading(name, pieces)
        return " ".join(pieces)

    def _ask(self, method: str, path: str, name: str = "", content: bytes | None = None) -> None:
        headers = {"X-Xsrftoken": self._token, "Cookie": f"{_XSRF}={self._token}"}
        body = None
        if content is not None:
            mark = "----mark"
            headers["Content-Type"] = f"multipart/form-data; boundary={mark}"
            head = (
                f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
                "Content-Type: image/jpeg\r\n\r\n"
            )
            body = head.encode() + content + f"\r\n--{mark}--\r\n".encode()
        asked = urllib.request.Request(f"{self._home}{path}", body, headers, method=method)
        urllib.request.urlopen(asked, timeout=_PATIENCE_SECONDS).close()

    def _messages(self) -> Iterator[Any]:
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        while True:
            message = ForwardMsg()
            message.ParseFromString(self._socket.recv(timeout=_PATIENCE_SECONDS))
            yield message

    def _run(self, file: dict[str, Any]) -> list[str]:
        """Let the page's script run; return all pieces of HTML that it sent."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        message = BackMsg()
        message.rerun_script.query_string = ""
        if file:
            state = message.rerun_script.widget_states.widgets.add()
            state.id = self._uploader
            info = state.file_uploader_state_value.uploaded_file_info.add()
            info.name, info.size, info.file_id = file["name"], file["size"], file["urls"].file_id
            info.file_urls.CopyFrom(file["urls"])
        self._socket.send(message.SerializeToString())
        pieces = []
        for one in self._messages():
            kind = one.WhichOneof("type")
            if kind == "new_session":
                self._session = one.new_session.initialize.session_id
            if kind == "delta" and one.delta.HasField("new_element"):
                element = one.delta.new_element
                if element.WhichOneof("type") == "file_uploader":
                    self._uploader = element.file_uploader.id
                if element.WhichOneof("type") == "exception":
                    raise RuntimeError(str(element.exception)[:300])
                if element.WhichOneof("type") == "html":
                    pieces.append(element.html.body)
            if kind == "script_finished":
                return pieces
        raise RuntimeError("the page ended")


def require_reading(name: str, pieces: Sequence[str]) -> None:
    """Stop where none of the page's pieces of HTML is the reading of the photo of this name.

    Raises
    ------
    RuntimeError
        With what the page says instead.
    """
    for piece in pieces:
        if f">{name}</h2>" in piece and _NUMBER.search(piece):
            return
    notes = [re.sub(r"<[^>]*>", " ", one) for one in pieces if 'role="alert"' in one]
    raise RuntimeError(f"no reading of {name}: {' '.join(notes or ['nothing is said'])[:300]}")


def keep(place: Path, seen: Seen, load: PageLoad, say: Callable[[str], None]) -> None:
    """Write figures and picture; tell memory and latency of each ten minutes."""
    content = asdict(load) | asdict(seen)
    (place / "visits.json").write_text(json.dumps(content), encoding="utf-8")
    _draw(place / "visits.png", seen, load)
    heads = f"{'readings':>10}{'failed':>8}{'median s':>10}{'95 % s':>8}{'MiB':>7}{'most':>7}"
    say(f"{'minutes':>9}{heads}")
    step = max(1.0, min(5.0, load.minutes / 4))
    for begin in np.arange(0, load.minutes, step):
        within = [
            [value for at, value in kind if begin <= at / 60 < begin + step]
            for kind in (seen.readings, seen.memory_mib, seen.faults)
        ]
        seconds, memory, faults = within
        if not seconds or not memory:
            continue
        middle, slow = np.percentile(seconds, [50, 95])
        say(
            f"{begin:>4.0f}-{begin + step:<4.0f}{len(seconds):>10}{len(faults):>8}{middle:>10.2f}"
            f"{slow:>8.2f}{np.median(memory):>7.0f}{max(memory):>7.0f}"
        )
    level = [m for at, m in seen.memory_mib if _LEVEL_MINUTE <= at / 60 < _LEVEL_MINUTE + 1]
    last = [m for at, m in seen.memory_mib if at / 60 >= load.minutes - 1]
    if level and load.minutes > _LEVEL_MINUTE + 1:
        change = np.median(last) / np.median(level) - 1
        say(f"memory of the last minute, to that of minute {_LEVEL_MINUTE}: {change:+.1%}")


def _draw(path: Path, seen: Seen, load: PageLoad) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6), layout="constrained")
    above, below = figure.subplots(2, sharex=True)
    minutes = [at / 60 for at, _ in seen.memory_mib]
    above.plot(minutes, [value for _, value in seen.memory_mib], color="tab:blue")
    above.set(ylabel="resident memory (MiB)", ylim=(0, None))
    mpix = load.size_px[0] * load.size_px[1] / 1e6
    above.set_title(f"{load.users} users, JPEGs of {mpix:.0f} MP: {len(seen.readings)} readings, "
                    f"{len(seen.faults)} failed")  # fmt: skip
    ends = sorted((at / 60, seconds) for at, seconds in seen.readings)
    below.scatter(*zip(*ends, strict=True), s=3, color="0.7", label="a reading")
    edges = np.arange(0, load.minutes + 1)
    for share, colour in ((50, "tab:blue"), (95, "tab:red")):
        line = [
            np.percentile(inside, share)
            if (inside := [s for at, s in ends if a <= at < a + 1])
            else np.nan
            for a in edges
        ]
        below.plot(edges + 0.5, line, color=colour, label=f"{share} % of a minute's")
    below.set(xlabel="minutes", ylabel="upload to reading (s)", ylim=(0, None))
    below.legend()
    figure.savefig(path, dpi=100)


def await_health(home: str, server: subprocess.Popen) -> None:
    """Wait until the page at the address ``home`` answers."""
    until = time.monotonic() + 900
    while server.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(f"{home}/healthz", timeout=10).close()
            return
        except OSError:
            time.sleep(0.5)
    raise PipelineError("the page's server did not come up: see server.log")
