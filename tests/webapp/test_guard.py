"""Tests of what stands before the page: names, sums, headers, health; and of whose turn it is."""

import asyncio
import json
import threading

import pytest

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.webapp.guard import HEALTH, MAX_UPLOADS_MIB, Guard, answers_to, names_of
from kaggle_pipeline.webapp.serve import serve
from kaggle_pipeline.webapp.turns import Turns

UPLOAD = "/_stcore/upload_file/session/file"


async def page(scope, receive, send):
    """An application that says yes to everybody."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"X-Frame-Options", b"ALLOWALL"), (b"etag", b"1")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"yes"})


def ask(path="/", *, host="localhost:8501", listens="127.0.0.1", further=(), held=0, kind="http",
        method="GET", **headers):  # fmt: skip
    """Return status (or what a WebSocket is sent), headers and body."""
    sent = []

    async def send(message):
        sent.append(message)

    guard = Guard(page, listens, further, lambda: held, lambda: {"readings": 3})
    pairs = {"host": host} | {key.replace("_", "-"): value for key, value in headers.items()}
    pairs = [(key.encode(), value.encode()) for key, value in pairs.items()]
    scope = {"type": kind, "path": path, "method": method, "headers": pairs}
    asyncio.run(guard(scope, None, send))
    if kind == "websocket":
        return sent[0]["type"]
    got = {key.decode().lower(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], got, sent[1]["body"].decode()


@pytest.mark.parametrize(
    ("listens", "host", "fine"),
    [
        ("127.0.0.1", "localhost:8501", True),
        ("127.0.0.1", "127.0.0.1:8501", True),
        ("127.0.0.1", "LOCALHOST.", True),
        ("127.0.0.1", "[::1]:8501", True),
        ("127.0.0.1", "evil.example:8501", False),
        ("127.0.0.1", "192.0.2.7:8501", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "proxy.clinic.example", True),
        ("0.0.0.0", "192.0.2.7:8501", True),
        ("0.0.0.0", "[2001:db8::7]", True),
        ("0.0.0.0", "evil.example", False),
        ("reader.example", "reader.example:8501", True),
        ("reader.example", "evil.example", False),
    ],
)
def test_only_its_own_names_are_answered(listens, host, fine):
    """A foreign name that leads here (DNS rebinding) is refused, its WebSocket too."""
    options = {"host": host, "listens": listens, "further": ["proxy.clinic.example"]}
    status, _, said = ask(**options)
    assert status == (200 if fine else 421) and ("--also-called" in said) is not fine
    said = ask("/_stcore/stream", kind="websocket", **options)
    assert said == ("websocket.accept" if fine else "websocket.close")


def test_a_machines_name_is_its_own_where_others_may_come(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Ward7")
    assert answers_to("ward7:80", names_of("0.0.0.0"), loopback_alone=False)
    assert not answers_to("ward7:80", names_of("127.0.0.1"), loopback_alone=True)


def test_every_answer_keeps_a_browser_strict():
    for path in ("/", "/nowhere", HEALTH):
        _, headers, _ = ask(path)
        assert (
            headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
        )
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert (
            headers["referrer-policy"] == "no-referrer" and headers["cache-control"] == "no-store"
        )
    assert ask()[1]["etag"] == "1"
    assert "cache-control" not in ask("/static/js/index.js")[1]


def test_the_health_address_answers_any_name_and_tells_no_more_than_sums():
    status, _, said = ask(HEALTH, host="10.1.2.3", held=5 * 2**20)
    assert status == 200
    assert json.loads(said) == {"status": "ok", "uploads_mib": 5, "readings": 3}


def test_uploads_are_limited_in_sum():
    most = MAX_UPLOADS_MIB * 2**20
    options = {"method": "PUT", "content_length": "1000"}
    assert ask(UPLOAD, held=most - 1000, **options)[0] == 200
    status, _, said = ask(UPLOAD, held=most - 999, **options)
    assert status == 503 and "try again" in said
    assert ask(UPLOAD, method="PUT")[0] == 411
    assert ask(UPLOAD, held=most, method="DELETE")[0] == 200


@pytest.mark.parametrize("length", [str(MAX_UPLOADS_MIB * 2**20 + 1), "9" * 5000])
def test_no_length_that_an_upload_claims_is_a_traceback(length):
    status, _, said = ask(UPLOAD, method="PUT", content_length=length)
    assert status == 413 and "choose another file" in said


def test_those_that_are_on_their_way_count():
    sizes, guard = [], None

    async def slow(scope, receive, send):
        if len(sizes) < 1:
            sizes.append("first")
            await guard({**scope}, receive, sent)

    codes = []

    async def sent(message):
        codes.append(message.get("status"))

    guard = Guard(slow, "127.0.0.1", (), lambda: 0, dict)
    size = str(MAX_UPLOADS_MIB * 2**20 // 2 + 1).encode()
    scope = {"type": "http", "path": UPLOAD, "method": "PUT",
             "headers": [(b"host", b"localhost"), (b"content-length", size)]}  # fmt: skip
    asyncio.run(guard(scope, None, sent))
    assert codes[0] == 503


def test_turns_are_few_and_nobody_waits_for_ever():
    turns, inside, go = Turns(1, waiting=1, seconds=0.05), threading.Event(), threading.Event()

    def work():
        with turns.turn("first.jpg"):
            inside.set()
            go.wait(120)

    worker = threading.Thread(target=work)
    worker.start()
    assert inside.wait(120) and turns.here == 1
    with pytest.raises(PipelineError, match=r"second\.jpg .*turn has not come.* try again"):
        turns.turn("second.jpg").__enter__()
    full = Turns(1, waiting=0, seconds=60)
    with full.turn("a.jpg"), pytest.raises(PipelineError, match=r"b\.jpg is not read: 1 photos"):
        full.turn("b.jpg").__enter__()
    go.set()
    worker.join()
    assert turns.here == full.here == 0
    with turns.turn("third.jpg"):
        pass


@pytest.mark.parametrize("name", ["lesions.clinic.org:8443", "https://lesions.clinic.org"])
def test_a_name_that_no_visitor_could_match_is_refused(name, tmp_path):
    with pytest.raises(PipelineError, match="the name alone"):
        serve(tmp_path, host="127.0.0.1", port=8501, also_called=[name])
