"""Tests of listing a folder that somebody filled: photos, the rest, and what each is called."""

import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.photo_folder import list_photos
from kaggle_pipeline.core.photo_kinds import HEAD_BYTES, MAGIC, PHOTO_KINDS, kind_of

BEGINNINGS = {
    "JPEG": b"\xff\xd8\xff\xe0", "PNG": b"\x89PNG\r\n\x1a\n", "WebP": b"RIFF\1\0\0\0WEBP",
    "BMP": b"BM\1" + bytes(12), "TIFF": b"II*\0", "HEIC": b"\0\0\0\x18ftypheic", "AVIF":
    b"\0\0\0\x18ftypavif", "DICOM": bytes(128) + b"DICM",
}  # fmt: skip


def fill(folder, *names, content=b""):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_every_kind_that_is_read_is_known_by_its_beginning():
    assert set(BEGINNINGS) == set(PHOTO_KINDS)
    assert {kind: kind_of(head) for kind, head in BEGINNINGS.items()} == {
        kind: kind for kind in PHOTO_KINDS
    }
    assert all(len(magic) < HEAD_BYTES for magic in MAGIC)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"", None),
        (b"some words", None),
        (b"\0\0\0\x1cftypisom" + bytes(40), "film"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"RIFF\1\0\0\0WAVE", "film or sound"),
        (b"II*\0" + bytes(124) + b"DICM", "DICOM"),  # as slide scanners write: both at once
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer"),
    ],
)
def test_what_only_looks_like_a_photo_is_told_apart(head, kind):
    assert kind_of(head) == kind


SYSTEM = (
    "._a.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", "__MACOSX/._b.jpg", ".git/c.jpg",
    "@eaDir/d.jpg", "sub/._e.dcm",
)  # fmt: skip


def test_what_systems_leave_is_skipped_and_counted(tmp_path):
    found = list_photos(fill(tmp_path, "a.jpg", *SYSTEM))
    assert dict(found.photos) == {"a": "a.jpg"}
    assert len(found.skipped["hidden or system files"]) == len(SYSTEM)
    assert "1 photos (1 JPEG); skipped 8 hidden or system files (" in found.describe()


def test_other_files_are_counted_by_what_they_are(tmp_path):
    fill(tmp_path, "a.jpg", "notes.txt", "b.txt", "a.jpg.json", "train00-2.tfrec.md5", "LICENSE")
    fill(tmp_path, "scan", content=b"%PDF-1.7")
    fill(tmp_path, "anim.gif", content=b"GIF89a")
    found = list_photos(tmp_path)
    assert {what: len(paths) for what, paths in found.skipped.items()} == {
        ".txt": 2, ".json": 1, ".md5": 1, "files of no known kind": 1, "PDF": 1, "GIF": 1,
    }  # fmt: skip
    said = found.describe()
    assert "2 .txt (b.txt, notes.txt)" in said and "1 GIF (anim.gif)" in said and "\n" not in said


@pytest.mark.parametrize("kind", PHOTO_KINDS)
@pytest.mark.parametrize("name", ["IM000001", "1.2.840.10008.5", "photo.jpg_large"])
def test_a_name_that_promises_nothing_is_opened(tmp_path, kind, name):
    found = list_photos(fill(tmp_path, name, content=BEGINNINGS[kind]))
    assert dict(found.photos) == {name: name} and list(found.kinds.values()) == [kind]


@pytest.mark.parametrize(
    "name", ["a.JPG", "a.jfif", "a.jpe", "a.Jpeg", "a.TIF", "a.HEIC", "a.webp"]
)
def test_photos_endings_are_taken_in_any_spelling(tmp_path, name):
    assert dict(list_photos(fill(tmp_path, name)).photos) == {"a": name}


def test_equal_stems_are_told_apart_and_others_keep_theirs(tmp_path):
    fill(tmp_path, "a.jpg", "a.png", "b.jpg", "left/c.jpg", "right/c.jpg", "right/d.jpg")
    assert dict(list_photos(tmp_path).photos) == {
        "a.jpg": "a.jpg", "a.png": "a.png", "b": "b.jpg", "left/c.jpg": "left/c.jpg",
        "right/c.jpg": "right/c.jpg", "d": "right/d.jpg",
    }  # fmt: skip


def test_an_id_is_never_another_photos_path(tmp_path):
    fill(tmp_path, "a.jpg.png", "b.png")
    fill(tmp_path, "a.jpg", content=BEGINNINGS["JPEG"])
    found = dict(list_photos(tmp_path).photos)
    assert found == {"a": "a.jpg", "a.jpg.png": "a.jpg.png", "b": "b.png"}


def test_names_that_no_line_can_show_are_written_as_in_a_url(tmp_path):
    names = [b"50%.jpg", b"a\nb.jpg", b"M\xfcller.jpg", "Müller 1.jpg".encode(), b'a,"b".jpg']
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(b"")
    found = list_photos(tmp_path)
    assert set(found.photos) == {"50%25", "a%0Ab", "M%FCller", "Müller 1", 'a,"b"'}
    for identity, path in found.photos.items():
        assert os.fsdecode(unquote(identity, errors="surrogateescape") + ".jpg") == path
        identity.encode()  # a CSV takes it
    assert "\n" not in found.describe()


NAME = st.text(
    st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=12
)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "x/", "x/y/"]), NAME, st.sampled_from(["", ".jpg", ".PNG", ".jpg"])
        ),
        max_size=8,
    )
)
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_file_is_lost_and_every_id_leads_back(tmp_path_factory, parts):
    folder, written = tmp_path_factory.mktemp("any"), set()
    for below, stem, ending in parts:
        name = below + stem + ending
        if stem in (".", "..") or len(os.fsencode(name)) > 200 or (folder / name).is_dir():
            continue
        try:
            fill(folder, name, content=b"\xff\xd8\xff")
        except (NotADirectoryError, FileExistsError):
            continue
        written.add(name)
    found = list_photos(folder)
    skipped = [path for paths in found.skipped.values() for path in paths]
    assert sorted([*found.photos.values(), *skipped]) == sorted(written)
    assert set(found.skipped) <= {"hidden or system files"}
    for identity, path in found.photos.items():
        assert len(identity.splitlines()) == 1 and found.find(identity) == path


def test_links_are_followed_once_and_broken_ones_said(tmp_path):
    inside = fill(tmp_path / "in", "a.jpg")
    (inside / "loop").symlink_to(inside)
    (inside / "b.jpg").symlink_to(inside / "a.jpg")
    (inside / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(inside / "d.jpg")  # reading it would wait for ever
    found = list_photos(inside)
    assert dict(found.photos) == {"a": "a.jpg", "b": "b.jpg"}
    assert dict(found.skipped) == {"broken links": ["c.jpg"], "devices": ["d.jpg"]}


def test_folders_below_count_unless_told_otherwise(tmp_path):
    fill(tmp_path, "a.jpg", "sub/b.jpg")
    assert dict(list_photos(tmp_path, subfolders=False).photos) == {"a": "a.jpg"}


def test_a_folder_without_photos_says_what_it_holds(tmp_path):
    with pytest.raises(PipelineError, match=r"--images .* holds no photo .*and no other file"):
        list_photos(tmp_path).require_photos("--images")
    fill(tmp_path, "a.docx", content=b"PK\3\4")
    with pytest.raises(PipelineError, match=r"skipped 1 ZIP \(a\.docx\)"):
        list_photos(tmp_path).require_photos("--images")
    with pytest.raises(PipelineError, match="is no folder"):
        list_photos(tmp_path / "a.docx")


@pytest.mark.parametrize(
    ("wanted", "path"),
    [
        ("a", "a.jpg"),
        ("a.jpg", "a.jpg"),
        ("A.JPG", "a.jpg"),
        ("a.png", "a.jpg"),
        ("images/train/a.jpg", "a.jpg"),
        ("images\\train\\a.jpg", "a.jpg"),
        ("./sub/b.jpg", "sub/b.jpg"),
        ("b", "sub/b.jpg"),
        ("other/b.jpg", None),
        ("Mu\u0308ller", "M\u00fcller.jpg"),
        ("IMG 001", "IMG 001.jpg"),
        ("both", "both.jpg"),
        ("both.dcm", "both.dcm"),
        ("c", None),
        ("", None),
    ],
)
def test_a_table_may_write_names_in_many_ways(tmp_path, wanted, path):
    fill(tmp_path, "a.jpg", "sub/b.jpg", "M\u00fcller.jpg", "IMG 001.jpg", "both.dcm", "both.jpg")
    assert list_photos(tmp_path).find(wanted) == path


def test_a_name_that_could_be_two_photos_is_no_guess(tmp_path):
    found = list_photos(fill(tmp_path, "left/c.jpg", "right/c.jpg"))
    assert found.find("left/c") == "left/c.jpg"
    with pytest.raises(PipelineError, match=r"left/c\.jpg or right/c\.jpg: write the whole path"):
        found.find("c")


def test_an_open_folder_costs_one_look_at_each_name(tmp_path, monkeypatch):
    """Names that end as photos do are not opened: a mounted folder of 40,000 would take minutes."""
    fill(tmp_path, *(f"{i}.jpg" for i in range(20)))
    monkeypatch.setattr(Path, "open", lambda *_, **__: pytest.fail("a file was opened"))
    assert len(list_photos(tmp_path).photos) == 20


def test_a_link_that_leads_nowhere_is_skipped_and_counted(tmp_path):
    fill(tmp_path, "a.jpg")
    for name, goal in {"b": "b", "c.jpg": "c.jpg", "d": "e", "e": "d/x", "f.png": "gone"}.items():
        (tmp_path / name).symlink_to(goal)
    found = list_photos(tmp_path)
    assert found.photos == {"a": "a.jpg"}
    assert found.skipped == {"broken links": ["b", "c.jpg", "d", "e", "f.png"]}
