"""Links in the documents lead somewhere: every file and every heading that they name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BESIDE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
DOCUMENTS = [*(ROOT / name for name in BESIDE), *sorted((ROOT / "docs").glob("*.md"))]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(path):
    """A document without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(path):
    """What GitHub calls a document's headings: small letters, no punctuation, "-" for a space."""
    seen = {}
    for heading in re.findall(r"^#+ +(.+?) *$", prose(path), re.MULTILINE):
        shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        seen[name] = seen.get(name, -1) + 1
        yield f"{name}-{seen[name]}" if seen[name] else name


def broken_links(path):
    for link in _LINK.findall(re.sub(r"`[^`\n]*`", "", prose(path))):
        file, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = path.parent / file if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    assert not list(broken_links(path))


def test_broken_links_would_be_found(tmp_path):
    (tmp_path / "two.md").write_text(
        "# `A` heading, once\n# A heading once\n```\n# no heading\n```"
    )
    links = "(two.md) [b](two.md#a-heading-once) [c](two.md#a-heading-once-1) [d](https://e.f/#g)"
    wrong = ["three.md", "two.md#a-heading", "#here", "two.md#no-heading"]
    page = tmp_path / "one.md"
    page.write_text(f"[a]{links} `[h](i)` " + " ".join(f"[x]({one})" for one in wrong))
    assert list(broken_links(page)) == wrong
