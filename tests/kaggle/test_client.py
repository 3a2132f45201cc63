"""Kaggle's real command line against a site on loopback: push, wait, fetch, submit, download."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from helpers_kaggle import kaggle_site

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.kaggle import client, download
from kaggle_pipeline.kaggle.client import patiently, refusal
from kaggle_pipeline.kaggle.download import safe_path, unpack

pytest.importorskip("kaggle", reason="Kaggle's command line is not installed")
ROOT = Path(__file__).resolve().parents[2]
KERNELS = sorted(path.parent.name for path in ROOT.glob("kernels/*/entry.py"))
SLUG = "siim-isic-melanoma-classification"
PUSHED = {"versionNumber": 1, "url": "https://www.kaggle.com/code/me/it", "error": ""}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Every kernel of the competition, as `build_kernels` writes it."""
    out = tmp_path_factory.mktemp("kernels")
    words = ["build-kernels", "--owner", "your-user-name", "--out", str(out)]
    heads = ["--set", "blend.models=[embedding]", "--embeddings", "your-user-name/vectors",
             "--set", "embedding.encoders=[keras:MobileNetV2]"]  # fmt: skip
    assert main([*words, *heads]) == 0
    assert main(words) == 0  # with the blend of the others
    return out


@pytest.fixture
def site(monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    with kaggle_site(monkeypatch, home) as found:
        found.states, found.sessions = {}, {}

        def save(body):  # from here on it runs, and then it is done
            found.states[body["slug"].rpartition("/")[2]] = ["RUNNING", "COMPLETE"]
            return PUSHED

        def status(body):
            left = found.states.get(body["kernelSlug"])
            if not left:
                return {"code": 404, "message": "no such kernel"}
            return {"status": left.pop(0) if len(left) > 1 else left[0]}

        def output(body):
            told = found.sessions.get(body["kernelSlug"], ["done"])
            state = told.pop(0) if len(told) > 1 else told[0]
            content = {"state": state, "because": "the 8.6 h are up"}
            found.files["/session.json"] = json.dumps(content).encode()
            files = [{"url": f"{found.url}/session.json", "fileName": "session.json"}]
            return {"files": files, "log": "done"}

        found.answers["SaveKernel"] = save
        found.answers["GetKernelSessionStatus"] = status
        found.answers["ListKernelSessionOutput"] = output
        yield found


def push(*words, out):
    return main(["push-kernels", *map(str, words), "--out", str(out), "--poll-seconds", "0.01"])


def error_line(capsys):
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


# One of each kind of machine; the others each start Kaggle's command line once more.
PUSHED_BY = {"blend": [], "image": [pytest.mark.ci], "image_gpu": [pytest.mark.ci]}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=PUSHED_BY.get(name, [pytest.mark.slow])) for name in KERNELS],
)
def test_every_kernel_is_pushed_as_its_metadata_says(name, built, site, tmp_path, capsys):
    folder = built / name
    assert push(folder, out=tmp_path / "out") == 0, capsys.readouterr().err
    (sent,) = site.bodies("SaveKernel")
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    assert sent["text"] == (folder / metadata["code_file"]).read_text()
    assert sent["slug"] == metadata["id"] and sent["newTitle"] == metadata["title"]
    assert sent.get("machineShape") == metadata.get("machine_shape")
    for flag in ("enable_gpu", "enable_tpu", "enable_internet", "is_private"):
        head, *rest = flag.split("_")
        assert sent[head + "".join(word.title() for word in rest)] == metadata[flag]
    for kind in ("competition", "dataset", "kernel"):
        assert sent.get(f"{kind}DataSources", []) == metadata[f"{kind}_sources"]
    assert "dockerImage" not in sent  # beside a TPU it silently gives the CPU image
    log = tmp_path / "out" / metadata["id"].rpartition("/")[2]
    assert next(log.glob("*.log")).read_text() == "done"


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({**PUSHED, "invalidKernelSources": ["me/melanoma-image"]}, "not valid kernel sources"),
        *[pytest.param(*more, marks=pytest.mark.ci) for more in (
            ({"error": "Maximum batch TPU session count of 1 reached."}, "Maximum batch TPU"),
            ({**PUSHED, "invalidCompetitionSources": [SLUG]}, "not valid competition sources"),
            ({"code": 403, "message": "You must verify your phone number."}, "verify your phone"),
        )],
    ],
)  # fmt: skip
def test_a_push_that_kaggle_refuses_fails_with_its_sentence(
    built, answer, sentence, site, tmp_path, capsys
):
    site.answers["SaveKernel"] = answer
    assert push(built / "blend", out=tmp_path) == 2
    assert sentence in error_line(capsys)


def pushes(site):
    return [body["slug"].rpartition("/")[2] for body in site.bodies("SaveKernel")]


@pytest.mark.slow
def test_a_kernel_waits_for_those_that_it_reads(built, site, tmp_path, capsys):
    folders = [built / name for name in ("blend", "tabular", "image")]
    assert push(*folders, out=tmp_path) == 0, capsys.readouterr().err
    assert pushes(site) == ["melanoma-tabular", "melanoma-image", "melanoma-blend"]
    asked = [(method, body.get("kernelSlug")) for method, body in site.asked]
    blend = next(
        i for i, (_, body) in enumerate(site.asked) if body.get("slug", "").endswith("blend")
    )
    for name in ("melanoma-image", "melanoma-tabular"):
        assert ("ListKernelSessionOutput", name) in asked[:blend]
    said = capsys.readouterr().out
    assert "melanoma-image: running" in said and "melanoma-blend: complete" in said


@pytest.mark.slow
def test_a_kernel_that_stopped_in_time_goes_on_from_its_own_output(built, site, tmp_path, capsys):
    site.sessions["melanoma-image"] = ["unfinished", "done"]
    assert push(built / "image", out=tmp_path) == 0, capsys.readouterr().err
    first, second = site.bodies("SaveKernel")
    assert first.get("kernelDataSources", []) == []
    assert second["kernelDataSources"] == [first["slug"]] and second["text"] == first["text"]
    assert "the 8.6 h are up; pushed again" in capsys.readouterr().out


@pytest.mark.slow
def test_the_state_of_the_version_before_is_not_taken_for_the_new_ones(
    built, site, tmp_path, capsys
):
    """After a push Kaggle still says ``complete`` for a moment, of the version before."""
    site.states["melanoma-image"] = ["COMPLETE"]

    def save(body):
        site.states["melanoma-image"] = ["COMPLETE", "QUEUED", "RUNNING", "ERROR"]
        return PUSHED

    site.answers["SaveKernel"] = save
    assert push(built / "image", out=tmp_path) == 2
    assert "melanoma-image ended with error" in error_line(capsys)


@pytest.mark.slow
def test_a_call_that_was_broken_off_goes_on(built, site, tmp_path, capsys):
    site.states = {"melanoma-image": ["RUNNING", "RUNNING", "COMPLETE"]}
    assert push(built / "image", out=tmp_path) == 0, capsys.readouterr().err
    assert pushes(site) == [] and "running already" in capsys.readouterr().out
    site.states, site.sessions = (
        {"melanoma-image": ["COMPLETE"]},
        {"melanoma-image": ["unfinished", "done"]},
    )
    assert push(built / "image", out=tmp_path) == 0, capsys.readouterr().err
    (sent,) = site.bodies("SaveKernel")
    assert sent["kernelDataSources"] == [sent["slug"]]


@pytest.mark.slow
def test_what_kaggle_has_no_room_for_waits_for_what_runs(built, site, tmp_path, capsys):
    save = site.answers["SaveKernel"]

    def one_at_a_time(body):
        if any(len(left) > 1 for left in site.states.values()):
            return {"error": "Maximum batch TPU session count of 1 reached."}
        return save(body)

    site.answers["SaveKernel"] = one_at_a_time
    folders = [built / name for name in ("image", "tabular")]
    assert push(*folders, out=tmp_path) == 0, capsys.readouterr().err
    assert pushes(site) == ["melanoma-image", "melanoma-tabular", "melanoma-tabular"]


@pytest.mark.slow
@pytest.mark.slow
def test_restarts_come_to_an_end(built, site, tmp_path, capsys):
    site.sessions["melanoma-image"] = ["unfinished"]
    assert push(built / "image", "--restarts", "2", out=tmp_path) == 2
    assert "still not done after 2 restarts" in error_line(capsys)
    assert len(site.bodies("SaveKernel")) == 3


@pytest.mark.slow
def test_the_log_is_shown_while_the_kernel_runs(built, site, tmp_path, capsys):
    """Kaggle tells it from the beginning each time; a stream may end before the kernel does."""
    states = ["RUNNING"] * 3 + ["COMPLETE"]
    site.answers["SaveKernel"] = lambda body: (
        site.states.update({"melanoma-image": states}) or PUSHED
    )
    whole = ["epoch 1", "epoch 2 – AUC 0.8", "done"]
    site.logs["melanoma-image"] = [whole[:2], whole]
    words = ["push-kernels", built / "image", "--out", tmp_path / "out", "--poll-seconds", "1"]
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    said = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in said if line in whole] == whole
    assert said.index("done") < said.index(next(line for line in said if "complete" in line)) or (
        "your-user-name/melanoma-image: complete" in said
    )


@pytest.mark.ci
def test_a_finished_kernel_of_another_script_does_not_stand_in_the_way(
    built, site, tmp_path, capsys
):
    """Its last version's output holds no ``session.json``: it was made by other means."""
    site.states = {"melanoma-image": ["COMPLETE"]}
    ours = site.answers["ListKernelSessionOutput"]

    def output(body):
        return ours(body) if site.bodies("SaveKernel") else {"files": [], "log": "done"}

    site.answers["ListKernelSessionOutput"] = output
    assert push(built / "image", out=tmp_path) == 0, capsys.readouterr().err
    (sent,) = site.bodies("SaveKernel")
    assert sent.get("kernelDataSources", []) == []


@pytest.mark.slow
def test_a_kernel_that_leaves_no_word_of_its_state_is_not_taken_for_done(
    built, site, tmp_path, capsys
):
    site.answers["ListKernelSessionOutput"] = {"files": [], "log": "done"}
    assert push(built / "image", out=tmp_path) == 2
    assert "melanoma-image left no session.json" in error_line(capsys)


@pytest.mark.slow
def test_a_kernel_that_fails_shows_the_end_of_its_log(built, site, tmp_path, capsys):
    site.answers["GetKernelSessionStatus"] = {
        "status": "ERROR",
        "failureMessage": "Your code failed",
    }
    log = [{"stream_name": "stderr", "time": 1.0, "data": "error: attach the input\n"}]
    site.answers["ListKernelSessionOutput"] = {"files": [], "log": json.dumps(log)}
    assert push(built / "tabular", out=tmp_path) == 2
    said = capsys.readouterr()
    assert "  error: attach the input" in said.out
    assert said.err.strip().endswith("ended with error: Your code failed")


@pytest.mark.ci
def test_without_a_token_it_says_where_to_get_one(built, site, tmp_path, monkeypatch, capsys):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    assert push(built / "image", out=tmp_path) == 2
    assert "not signed in: put a token from kaggle.com" in error_line(capsys)


def test_no_script_yet_is_said_before_anything_is_pushed(built, site, tmp_path, capsys):
    folder = shutil.copytree(built / "image", tmp_path / "image")
    (folder / "image.py").unlink()
    assert push(built / "tabular", folder, out=tmp_path) == 2
    assert "build_kernels.py" in error_line(capsys) and not site.asked


# ------------------------------------------------------------------------------- submission


@pytest.fixture
def files(tmp_path):
    ids = [f"ISIC_{i:07d}" for i in range(5)]
    sample = pd.DataFrame({"image_name": ids, "target": 0})
    sample.to_csv(tmp_path / "sample_submission.csv", index=False)
    sample.assign(target=0.25).to_csv(tmp_path / "submission.csv", index=False)
    return tmp_path


def hand_in(files, *further):
    words = ["--file", files / "submission.csv", "--sample", files / "sample_submission.csv"]
    words += ["--message", "five rows", "--poll-seconds", 0.01, *further]
    return main(["submit", *map(str, words)])


@pytest.fixture
def scored(site):
    """The site takes a submission; ``scored.after`` are its states, one a look."""
    site.answers["StartSubmissionUpload"] = {"token": "blob", "createUrl": f"{site.url}/upload"}
    site.answers["CreateSubmission"] = {"message": "Successfully submitted to SIIM-ISIC", "ref": 7}
    site.after = ["PENDING", "COMPLETE"]
    older = {"ref": 6, "fileName": "submission.csv", "description": "five rows",
             "status": "COMPLETE", "publicScore": "0.5", "privateScore": "0.5"}  # fmt: skip

    def listed(body):
        if not site.bodies("CreateSubmission"):
            return {"submissions": [older]}
        state = site.after.pop(0) if len(site.after) > 1 else site.after[0]
        scores = {"publicScore": "0.9412", "privateScore": "0.9377"} if state == "COMPLETE" else {}
        ours = {name: older[name] for name in ("fileName", "description")}
        return {"submissions": [{**ours, "ref": 7, "status": state, **scores}, older]}

    site.answers["ListSubmissions"] = listed
    return site


@pytest.mark.ci
def test_a_submissions_score_is_waited_for(scored, files, capsys):
    assert hand_in(files) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "public score 0.9412, private score 0.9377" in said and "0.5" not in said
    assert scored.methods().count("ListSubmissions") == 3  # before, pending, scored


@pytest.mark.ci
def test_a_submission_that_cannot_be_scored_fails(scored, files, capsys):
    scored.after = ["ERROR"]
    assert hand_in(files) == 2
    assert "could not score it (error)" in error_line(capsys)


@pytest.mark.ci
def test_a_submission_that_kaggle_took_is_no_failure_where_its_score_cannot_be_asked_for(
    scored, files, capsys
):
    listed = scored.answers["ListSubmissions"]
    scored.answers["ListSubmissions"] = lambda body: (
        {"code": 403, "message": "Forbidden"} if scored.bodies("CreateSubmission") else listed(body)
    )
    assert hand_in(files) == 0
    said = capsys.readouterr()
    assert "Successfully submitted" in said.out and not said.err
    assert "the score cannot be asked for: kaggle competitions submissions:" in said.out
    assert f"score: kaggle competitions submissions {SLUG}" in said.out


@pytest.mark.ci
def test_a_message_of_several_lines_is_known_again(scored, files, capsys):
    scored.after = ["COMPLETE"]
    listed = scored.answers["ListSubmissions"]

    def in_lines(body):
        rows = listed(body)["submissions"]
        return {"submissions": [{**row, "description": "five\n rows"} for row in rows]}

    scored.answers["ListSubmissions"] = in_lines
    assert hand_in(files, "--wait-minutes", "0.05", "--message", "five\n rows") == 0
    assert "public score 0.9412" in capsys.readouterr().out


@pytest.mark.ci
def test_waiting_for_a_score_comes_to_an_end(scored, files, capsys):
    scored.after = ["PENDING"]
    assert hand_in(files, "--wait-minutes", "0.001") == 0
    assert f"score: kaggle competitions submissions {SLUG}" in capsys.readouterr().out


def test_a_checked_submission_is_handed_in(site, files, capsys):
    site.answers["StartSubmissionUpload"] = {"token": "blob", "createUrl": f"{site.url}/upload"}
    site.answers["CreateSubmission"] = {"message": "Successfully submitted to SIIM-ISIC", "ref": 1}
    assert hand_in(files, "--wait-minutes", "0") == 0, capsys.readouterr().err
    assert "Successfully submitted" in capsys.readouterr().out and (
        "ListSubmissions" not in site.methods()
    )
    assert site.uploads == [(files / "submission.csv").read_bytes()]
    (sent,) = site.bodies("CreateSubmission")
    assert (sent["competitionName"], sent["submissionDescription"]) == (SLUG, "five rows")
    assert sent["blobFileTokens"] == "blob"


def test_a_submission_that_does_not_fit_never_leaves(site, files, capsys):
    table = pd.read_csv(files / "submission.csv").iloc[:-1]
    table.to_csv(files / "submission.csv", index=False)
    assert hand_in(files) == 2
    assert "has no row for ISIC_0000004" in error_line(capsys) and not site.asked


def test_a_submission_that_is_no_table_is_one_line(site, files, capsys):
    (files / "submission.csv").write_bytes(b"\x80\x81")
    assert hand_in(files) == 2
    assert "submission.csv cannot be read as CSV" in error_line(capsys)


@pytest.mark.ci
def test_a_submission_that_kaggle_refuses_fails(site, files, capsys):
    site.answers["StartSubmissionUpload"] = {"token": "blob", "createUrl": f"{site.url}/upload"}
    refused = "Your team has used its daily Submission allowance (5) today"
    site.answers["CreateSubmission"] = {"code": 400, "message": refused}
    assert hand_in(files) == 2
    assert refused in error_line(capsys)


# --------------------------------------------------------------------------------- download


@pytest.fixture
def competition_files(site):
    """Three files on the site, listed on two pages; one travels as a zip."""
    content = {
        "train.csv": b"image_name,target\na,0\n" * 30,
        "tfrecords/train00-2.tfrec": bytes(range(256)) * 9,
        "jpeg/train/a.jpg": b"never asked for",
    }

    def listing(body):
        names = list(content)[:2] if not body.get("pageToken") else list(content)[2:]
        rows = [{"name": name, "totalBytes": len(content[name])} for name in names]
        return {"files": rows, "nextPageToken": "" if body.get("pageToken") else "two"}

    def fetch(body):
        name = body["fileName"]
        if name.endswith(".csv"):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
                packed.writestr(name, content[name])
            site.files[f"/store/{name}.zip"] = buffer.getvalue()
            return f"/store/{name}.zip"
        site.files.setdefault(f"/store/{name}", content[name])
        return f"/store/{name}"

    site.answers["ListDataFiles"] = listing
    site.answers["DownloadDataFile"] = fetch
    site.content = content
    return site


def test_tables_and_records_are_fetched_once(competition_files, tmp_path, capsys):
    out = tmp_path / "data"
    assert main(["download-data", "--data-dir", str(out)]) == 0, capsys.readouterr().err
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    wanted = ("train.csv", "tfrecords/train00-2.tfrec")
    assert found == {name: competition_files.content[name] for name in wanted}
    assert main(["download-data", "--data-dir", str(out)]) == 0
    assert competition_files.methods().count("DownloadDataFile") == 2
    assert "2 files, 2 of them here already" in capsys.readouterr().out


@pytest.mark.ci
def test_a_file_that_arrives_short_is_said_and_not_kept(competition_files, tmp_path, capsys):
    whole = competition_files.content["tfrecords/train00-2.tfrec"]
    competition_files.files["/store/tfrecords/train00-2.tfrec"] = whole[:-1]
    out = tmp_path / "data"
    assert main(["download-data", "--data-dir", str(out)]) == 2
    assert "train00-2.tfrec arrived with 2303 bytes of 2304: try again" in error_line(capsys)
    assert not list(out.rglob("*.tfrec"))


@pytest.mark.ci
def test_a_download_that_was_broken_off_goes_on(competition_files, tmp_path, monkeypatch, capsys):
    site, name = competition_files, "tfrecords/train00-2.tfrec"
    site.content[name] = bytes(range(256)) * 8192  # it is stored a MiB at a time
    site.breaks[f"/store/{name}"] = 1_500_000
    out = tmp_path / "data"
    with monkeypatch.context() as patch:
        patch.setattr(download, "_HOURS", 8.0)
        assert main(["download-data", "--data-dir", str(out)]) == 2
    assert "no answer in 8 s" in error_line(capsys)
    assert main(["download-data", "--data-dir", str(out)]) == 0, capsys.readouterr().err
    assert (out / name).read_bytes() == site.content[name]
    assert site.ranges == [f"bytes={1 << 20}-"] and not (out / ".download").exists()


@pytest.mark.ci
def test_a_file_is_found_whatever_way_it_came(site, tmp_path, monkeypatch, capsys):
    """A table as a zip of the plain name; records as a zip that holds their folder."""
    content = {"train.csv": b"image_name,target\na,0\n" * 30, "tfrecords/a.tfrec": b"r" * 999}
    rows = [{"name": name, "totalBytes": len(data)} for name, data in content.items()]
    site.answers["ListDataFiles"] = {"files": rows}
    packed = {
        name: archive(tmp_path / "one.zip", [(name, data)]).read_bytes()
        for name, data in content.items()
    }
    site.files |= {"/store/train.csv": packed["train.csv"]}
    site.files |= {"/store/tfrecords/a.tfrec.zip": packed["tfrecords/a.tfrec"]}
    site.answers["DownloadDataFile"] = lambda body: next(
        place for place in site.files if body["fileName"] in place
    )
    out = tmp_path / "data"
    assert main(["download-data", "--data-dir", str(out)]) == 0, capsys.readouterr().err
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == content
    (out / "train.csv").unlink()
    site.files["/store/train.csv"] = packed["train.csv"][:40] + bytes(9) + packed["train.csv"][49:]
    assert main(["download-data", "--data-dir", str(out)]) == 2
    assert "train.csv arrived as a damaged zip: try again" in error_line(capsys)
    assert not (out / "train.csv").exists()


@pytest.mark.ci
def test_a_disk_that_is_too_small_is_said_first(competition_files, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: type("U", (), {"free": 10}))
    assert main(["download-data", "--data-dir", str(tmp_path / "data")]) == 2
    assert "GiB are needed, 0.0 are free" in error_line(capsys)
    assert competition_files.methods() == ["ListDataFiles", "ListDataFiles"]


@pytest.mark.ci
def test_rules_that_were_not_accepted_are_kaggles_sentence(site, tmp_path, capsys):
    sentence = "You must accept this competition's rules before you'll be able to download files."
    site.answers["ListDataFiles"] = {"code": 403, "message": sentence}
    assert main(["download-data", "--data-dir", str(tmp_path)]) == 2
    assert "You must accept this competition's rules" in error_line(capsys)


def test_a_data_set_that_is_no_competition_says_where_it_is(tmp_path, capsys):
    config = ROOT / "configs" / "isic_2017.yaml"
    assert main(["download-data", "--config", str(config), "--data-dir", str(tmp_path)]) == 2
    assert "isic_2017 is no competition on Kaggle" in error_line(capsys)


@pytest.mark.ci
def test_everything_comes_as_one_archive_and_is_compared(competition_files, tmp_path, capsys):
    site, out = competition_files, tmp_path / "data"
    packed = archive(tmp_path / "all.zip", site.content.items())
    site.files[f"/store/{SLUG}.zip"] = packed.read_bytes()
    site.answers["DownloadDataFiles"] = f"/store/{SLUG}.zip"
    assert main(["download-data", "--part", "all", "--data-dir", str(out)]) == 0
    found = {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert found == site.content
    shutil.rmtree(out)
    site.content["jpeg/train/a.jpg"] += b"more than came"
    assert main(["download-data", "--part", "all", "--data-dir", str(out)]) == 2
    assert "lacks jpeg/train/a.jpg, or has another size" in error_line(capsys)


@pytest.mark.parametrize("name", ["../up.csv", "/etc/passwd", "a/../../b", "C:\\x", "..\\up", ""])
def test_no_name_leads_out_of_the_folder(name, tmp_path):
    with pytest.raises(PipelineError, match="refused"):
        safe_path(tmp_path, name)


def archive(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members:
            packed.writestr(name, content)
    return path


def test_an_archive_that_escapes_leaves_nothing(tmp_path):
    path = archive(tmp_path / "a.zip", [("good.csv", "x"), ("../evil.csv", "x")])
    with pytest.raises(PipelineError, match=r"'\.\./evil\.csv' would be written outside"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "evil.csv").exists()


def test_a_link_in_an_archive_is_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with pytest.raises(PipelineError, match="link is a link: refused"):
        unpack(archive(tmp_path / "a.zip", [(link, "/etc/passwd")]), tmp_path / "out")


def test_unpacking_goes_on_and_damage_is_one_line(tmp_path):
    two = "".join(f"{i * i}," for i in range(500))
    path = archive(tmp_path / "a.zip", [("one.csv", "1" * 100), ("b/two.csv", two)])
    out = tmp_path / "out"
    out.mkdir()
    (out / "one.csv").write_text("1" * 100)
    before = (out / "one.csv").stat().st_mtime_ns
    unpack(path, out)
    assert (out / "one.csv").stat().st_mtime_ns == before
    assert (out / "b" / "two.csv").read_text() == two
    content = bytearray(path.read_bytes())
    middle = content.index(b"b/two.csv") + 200
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)
    (out / "b" / "two.csv").unlink()
    with pytest.raises(PipelineError, match=r"a\.zip is damaged .*delete it and try again"):
        unpack(path, out)
    assert not list(out.glob("b/*"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Kernel push error: no such thing\n", "Kernel push error: no such thing"),
        ("Warning: Looks like you're using an outdated API\n403 - Forbidden\n", "403 - Forbidden"),
        ("", "it said nothing"),
        ("401\nAuthentication required to do that\n", "not signed in: put a token"),
    ],
)
def test_the_telling_line_is_found(text, sentence):
    assert refusal(text).startswith(sentence)


def test_a_refusal_is_asked_again_and_then_told(monkeypatch):
    slept, asked = [], []
    monkeypatch.setattr(client.time, "sleep", slept.append)

    def ask():
        asked.append(1)
        if len(asked) < 3:
            raise PipelineError("not now")
        return "fine"

    assert patiently(ask, (1.0, 2.0, 4.0)) == "fine" and slept == [1.0, 2.0]
    asked.clear()
    with pytest.raises(PipelineError, match="not now"):
        patiently(ask, [5.0])
    asked.clear()
    with pytest.raises(PipelineError, match="not now"):
        patiently(ask, ())
    assert len(asked) == 1
