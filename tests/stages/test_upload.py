"""A bundle leaves by Kaggle's and Hugging Face's own command lines, to stand-ins on loopback."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from http.server import ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest
from helpers_kaggle import LoopbackHandler, kaggle_site

from kaggle_pipeline.cli.main import main

pytest.importorskip("tensorflow")
WAIT = 300
"""Seconds; far more than a busy machine needs."""


@pytest.fixture
def bundle(demo_run, tmp_path):
    out = tmp_path / "bundle"
    words = ["--run-dir", str(demo_run), "--out", str(out), "--licence", "cc-by-nc-4.0"]
    assert main(["bundle", *words, "--kaggle", "me/melanoma/small"]) == 0
    return out


@pytest.mark.slow
def test_kaggles_command_line_takes_a_bundle_as_a_model(bundle, monkeypatch, tmp_path):
    if find_spec("kaggle") is None:
        pytest.skip("Kaggle's command line is not installed")
    home = tmp_path / "home"
    home.mkdir()
    with kaggle_site(monkeypatch, home) as site:
        site.answers["StartBlobUpload"] = {"token": "blob", "createUrl": f"{site.url}/upload"}
        site.answers["CreateModel"] = {"id": 1, "url": "https://www.kaggle.com/models/me/melanoma"}
        site.answers["CreateModelInstance"] = {"id": 2, "url": "https://www.kaggle.com/models/me"}
        command = [str(Path(sys.executable).with_name("kaggle")), "models"]
        for words in (["create"], ["instances", "create", "-r", "tar"]):
            done = subprocess.run(
                [*command, *words, "-p", str(bundle)], capture_output=True, text=True, timeout=WAIT
            )
            assert done.returncode == 0, done.stdout + done.stderr
    (model,) = site.bodies("CreateModel")
    assert (model["ownerSlug"], model["slug"], model["isPrivate"]) == ("me", "melanoma", True)
    assert "not a medical device" in model["description"]
    (instance,) = site.bodies("CreateModelInstance")
    body = instance["body"]
    assert (body["instanceSlug"], body["licenseName"]) == ("small", "CC BY-NC 4.0")
    assert "KERAS" in str(body["framework"]).upper()
    named = {one["name"] for one in site.bodies("StartBlobUpload")}
    assert named == {"README.md", "about.json", "written.json", "image.tar"}
    (packed,) = [one for one in site.uploads if one[257:262] == b"ustar"]
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        inside = {Path(name).name for name in tar.getnames()}
    assert {"config.yaml", "model.weights.h5", "drawn_00.png"} <= inside
    downloaded = tmp_path / "downloaded"
    for one, content in zip(site.bodies("StartBlobUpload"), site.uploads, strict=True):
        place = downloaded / one["name"]
        place.parent.mkdir(exist_ok=True)
        if place.suffix == ".tar":  # Kaggle unpacks it
            with tarfile.open(fileobj=io.BytesIO(content)) as tar:
                tar.extractall(place.with_suffix(""), filter="data")
        else:
            place.write_bytes(content)
    for folder in (downloaded, bundle):
        assert main(["verify-run", "--run-dir", str(folder)]) == 0


@pytest.fixture
def hub(tmp_path):
    """A stand-in of huggingface.co: what a commit brought, and the large files by their hash."""
    state = {"committed": {}, "large": {}, "large_names": {}}

    class Handler(LoopbackHandler):
        def _answer(self, content, code=200):
            self._send(json.dumps(content).encode(), "application/json", code)

        def do_GET(self):
            base = f"http://{self.headers['Host']}"
            if self.path.endswith("/api/whoami-v2"):
                return self._answer({"name": "me", "type": "user", "orgs": []})
            return self._answer({"id": "me/melanoma", "sha": "0" * 40, "url": base, "siblings": []})

        def do_POST(self):
            path, base = self.path.partition("?")[0], f"http://{self.headers['Host']}"
            body = self._body()
            if path.endswith("/repos/create"):
                return self._answer({"url": f"{base}/me/melanoma", "id": "me/melanoma"})
            if "/preupload/" in path:
                asked = json.loads(body)["files"]
                found = [
                    {
                        "path": one["path"], "shouldIgnore": False, "oid": None,
                        "uploadMode": "lfs" if one["path"].endswith(".h5") else "regular",
                    }
                    for one in asked
                ]  # fmt: skip
                return self._answer({"files": found})
            if path.endswith("/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{base}/put/{one['oid']}"}}}
                    for one in json.loads(body)["objects"]
                ]
                return self._answer({"transfer": "basic", "objects": objects})
            if "/commit/" in path:
                for line in body.splitlines():
                    one = json.loads(line)
                    value = one["value"]
                    if one["key"] == "file":
                        state["committed"][value["path"]] = base64.b64decode(value["content"])
                    elif one["key"] == "lfsFile":
                        state["large_names"][value["path"]] = value["oid"]
                return self._answer(
                    {
                        "commitUrl": f"{base}/me/melanoma/commit/{'1' * 40}",
                        "commitOid": "1" * 40,
                        "success": True,
                    }
                )
            return self._answer({}, 200)

        def do_PUT(self):
            state["large"][self.path.rpartition("/")[2]] = self._body()
            self._answer({})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    state["url"] = f"http://127.0.0.1:{server.server_port}"
    yield state
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_hugging_faces_command_line_takes_a_bundle(bundle, hub, tmp_path):
    beside = Path(sys.executable).with_name("hf")
    command = str(beside) if beside.exists() else shutil.which("hf")
    if command is None:
        pytest.skip("Hugging Face's command line is not installed")
    settings = {
        "HF_ENDPOINT": hub["url"], "HF_TOKEN": "hf_" + "0" * 34, "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    done = subprocess.run(
        [command, "upload", "me/melanoma", str(bundle)],
        env={**os.environ, **settings}, capture_output=True, text=True, timeout=WAIT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    files = {
        path.relative_to(bundle).as_posix(): path.read_bytes()
        for path in bundle.rglob("*") if path.is_file()
    }  # fmt: skip
    large = {name: hub["large"][oid] for name, oid in hub["large_names"].items()}
    assert hub["committed"] | large == files
    assert all(hashlib.sha256(hub["large"][oid]).hexdigest() == oid for oid in hub["large"])
    assert b"license: cc-by-nc-4.0" in hub["committed"]["README.md"]
