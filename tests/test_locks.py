"""What `make demo` and `make test` install is locked, with hashes, and fits what setup.cfg asks."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")


def locked(name, python):
    """Versions by package that a lock gives a Python on Linux."""
    machine = {"python_version": python, "python_full_version": f"{python}.0"}
    machine |= {"sys_platform": "linux", "platform_machine": "x86_64"}
    found = {}
    for line in (ROOT / "locks" / f"{name}.txt").read_text().splitlines():
        if re.match(r"[a-z]", line):
            one = Requirement(line.rstrip(" \\"))
            if one.marker is None or one.marker.evaluate(machine):
                assert one.name not in found, f"{one.name} twice"
                found[one.name] = next(iter(one.specifier)).version
    return found


def wanted(*extras):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    text = setup["options"]["install_requires"]
    text += "".join(f"\n{setup['options.extras_require'][extra]}" for extra in extras)
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("name", "extras"), [("demo", ["cpu"]), ("dev", ["cpu", "dev"])])
def test_the_lock_holds_what_setup_cfg_asks_for(name, extras, python):
    """Where this fails, `make lock` renews it."""
    versions = locked(name, python)
    assert "setuptools" in versions  # the package itself is installed with it
    for one in wanted(*extras):
        if one.marker is None or one.marker.evaluate({"sys_platform": "linux", "extra": ""}):
            version = versions[one.name.lower().replace("_", "-")]
            assert one.specifier.contains(version), f"{one} but {version}"


def test_the_demo_runs_with_what_the_tests_run_with():
    for python in PYTHONS:
        assert locked("demo", python).items() <= locked("dev", python).items()


def test_every_locked_package_has_a_hash():
    for name in ("demo", "dev"):
        text = (ROOT / "locks" / f"{name}.txt").read_text()
        packages = re.split(r"\n(?=[a-z])", text.strip())
        assert len(packages) > 50 and all("--hash=sha256:" in one for one in packages)
