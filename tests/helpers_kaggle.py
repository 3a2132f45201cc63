"""A stand-in for kaggle.com on loopback, which Kaggle's own command line can be pointed at."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

OWN = ("KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE", "https_proxy", "HTTPS_PROXY", "http_proxy")


class Site:
    """What the site knows and what it was asked.

    Attributes
    ----------
    asked : list of (str, dict)
        Method and body of every request, in order.
    answers : dict
        Method -> body of the answer, a path to be led to, or a function from the request to them.
    files : dict of str to bytes
        What can be fetched by path.
    uploads : list of bytes
    logs : dict
        Slug of a running kernel -> lines of its log, a list for each time that it is asked for.
    breaks : dict of str to int
        Path -> bytes after which a file's first transfer stands still, until the site is closed.
    ranges : list of str
        Ranges of files that were asked for.
    """

    def __init__(self):
        self.asked, self.answers, self.files, self.uploads = [], {}, {}, []
        self.logs, self.breaks, self.ranges = {}, {}, []
        self.closed = threading.Event()
        self.url = ""

    def methods(self):
        return [method for method, _ in self.asked]

    def bodies(self, method):
        return [body for name, body in self.asked if name == method]


class LoopbackHandler(BaseHTTPRequestHandler):
    """Reads bodies of known length or in chunks, answers, and writes no log."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, content, kind, code=200):
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class _Handler(LoopbackHandler):
    def do_POST(self):
        method = urlparse(self.path).path.rpartition("/")[2]
        body = json.loads(self._body() or b"{}")
        site = self.server.site
        site.asked.append((method, body))
        answer = site.answers.get(method, {})
        answer = answer(body) if callable(answer) else answer
        if isinstance(answer, str):  # to where the file is stored
            self.send_response(302)
            self.send_header("Location", site.url + answer)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            code = answer.get("code", 200) if isinstance(answer, dict) else 200
            self._send(json.dumps(answer).encode(), "application/json", code)

    def do_GET(self):
        path, site = urlparse(self.path).path, self.server.site
        if "/kernels/logs/stream/" in path:
            return self._stream(path.rpartition("/")[2])
        found = site.files.get(path)
        if found is None:
            return self._send(b"no such file", "text/plain", 404)
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked:
            site.ranges.append(asked)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(found) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hash(found)}"')
        self.end_headers()
        stop = site.breaks.pop(path, None)
        self.wfile.write(found[start:stop])
        if stop is not None:
            self.wfile.flush()
            site.closed.wait()
            self.close_connection = True

    def _stream(self, slug):
        """A running kernel's log as Kaggle's own site sends it."""
        told = self.server.site.logs.get(slug)
        if not told:
            return self._send(b"no such kernel", "text/plain", 404)
        lines = told.pop(0) if len(told) > 1 else told[0]
        events = [json.dumps({"stream_name": "stdout", "data": f"{line}\n"}) for line in lines]
        content = "".join(f"data: {event}\n\n" for event in [*events, "END_OF_LOG"])
        self._send(content.encode(), "text/event-stream")

    def do_PUT(self):
        self.server.site.uploads.append(self._body())
        self._send(b"{}", "application/json")


@contextmanager
def kaggle_site(monkeypatch, home):
    """Yield a :class:`Site`; the command line started meanwhile talks to it and to nobody else."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.site = site = Site()
    site.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    for name in OWN:
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",  # http://localhost, which the proxy answers for
        "HTTP_PROXY": site.url,
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "KAGGLE_USERNAME": "me",
        "KAGGLE_KEY": "0" * 32,
        "HOME": str(home),
        "KAGGLE_CONFIG_DIR": str(home),
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield site
    finally:
        site.closed.set()
        server.shutdown()
        server.server_close()
        thread.join()
