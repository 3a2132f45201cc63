"""Tests of the house itself: imports point downwards, TensorFlow has few doors, scripts work."""

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kaggle_pipeline"
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))

LAYERS = {
    0: "errors deadline imagefile spec config configchecks blendconfig calibrationconfig configfile"
    " imageconfig predictions externalconfig metrics rates rundir kagglecli kaggleinput tables"
    " apart",
    1: "datasets encode examples folds fingerprints giveaways leakage balance records accelerator"
    " strategies tpuprobe tpucompiler",
    2: "image tabular context",
    3: "composite perclass manyseeds judged subgroups evaluation calibrators calibration_study"
    " calibration crossval blend ensemble stackers weighting submission convert recordfit"
    " beamconvert preflight plan tpustep steptime kernel",
    4: "webapp plots evaluation_plots calibration_plots explore explore_plots page report_scores"
    " report_calibration report_data report",
    5: "stages benchmark bench_convert bench_tabular bench_input bench_peers bench_train benchcli"
    " servebench stepbench cliexamples clioptions cli __main__",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
TENSORFLOW = {
    "image.input",
    "image.recordreader",
    "image.augment",
    "image.decode",
    "image.mixing",
    "image.explain",  # a gradient: Keras has no call for it that both engines know
    "records",
    "convert",
    "accelerator",
    "strategies",
    "tpustep",
    "bench_peers",
}
JAX = {"accelerator", "image.explain", "strategies", "tpucompiler", "tpustep"}
TORCH = {"accelerator", "image.torchweights", "stepbench", "bench_peers"}
KERAS_ABOVE = {"accelerator", "strategies", "tpustep", "steptime"}
MAX_LINES = 330
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def imports(path):
    """Full names of all that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def short(module):
    """Name below the package; its first part decides the layer."""
    return module.removeprefix("kaggle_pipeline").lstrip(".")


def own_imports(module):
    """Modules of the package that a module imports."""
    found = set()
    for name in imports(FILES[module]):
        while name.startswith("kaggle_pipeline.") and name not in FILES:
            name = name.rpartition(".")[0]
        if name.startswith("kaggle_pipeline."):
            found.add(name)
    return found


def layer_of(module):
    part = short(module).split(".")[0]
    assert part in LAYER, f"{module} has no layer: add it to DESIGN.md and to LAYERS"
    return LAYER[part]


MODULES = [module for module in FILES if short(module)]


@pytest.mark.parametrize("module", MODULES, ids=short)
def test_imports_point_downwards(module):
    upwards = {one for one in own_imports(module) if layer_of(one) > layer_of(module)}
    assert not upwards


def test_no_two_modules_import_each_other():
    seen, path = set(), []

    def visit(module):
        assert module not in path, f"circle: {[*path[path.index(module) :], module]}"
        if module in seen:
            return
        path.append(module)
        for other in own_imports(module):
            visit(other)
        path.pop()
        seen.add(module)

    for module in MODULES:
        visit(module)


@pytest.mark.parametrize("part", ["image", "tabular", "context", "blend", "folds", "crossval"])
def test_parts_that_receive_a_spec_never_import_the_data_sets(part):
    for module in MODULES:
        if short(module).split(".")[0] == part:
            assert not {one for one in own_imports(module) if ".datasets" in one}


def test_image_and_tabular_do_not_know_each_other():
    for one, other in (("image", "tabular"), ("tabular", "image")):
        for module in MODULES:
            if module.startswith(f"kaggle_pipeline.{one}"):
                known = {name.split(".")[1] for name in own_imports(module)}
                assert other not in known, module


def test_crossval_knows_no_model():
    assert not {n for n in own_imports("kaggle_pipeline.crossval") if layer_of(n) == 2}


@pytest.mark.parametrize("module", MODULES, ids=short)
def test_tensorflow_has_few_doors(module):
    roots = {name.split(".")[0] for name in imports(FILES[module])}
    if short(module) not in TENSORFLOW:
        assert "tensorflow" not in roots
    if short(module) not in JAX:
        assert "jax" not in roots
    if short(module) not in TORCH:
        assert not {"torch", "safetensors"} & roots
    if layer_of(module) != 2 and short(module) not in {
        "accelerator",
        "strategies",
        "tpustep",
        "steptime",
        "bench_tabular",
    }:
        assert "keras" not in roots


LIGHT = "config folds leakage blend submission crossval metrics predictions cli stages datasets"
LIGHT += " evaluation explore report"


def test_light_modules_load_no_deep_learning():
    code = "import sys, importlib\n"
    code += "".join(f"importlib.import_module('kaggle_pipeline.{n}')\n" for n in LIGHT.split())
    code += "print(sorted({'tensorflow', 'jax', 'keras', 'torch'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def calls(path):
    """Every call as (name of what is called, names and values of keyword arguments)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            yield ast.unparse(node.func), keywords


@pytest.mark.parametrize("path", [*FILES.values(), *SCRIPTS], ids=lambda path: path.name)
def test_nothing_runs_code_from_data(path):
    roots = {name.split(".")[0] for name in imports(path)}
    assert not FORBIDDEN & roots
    for name, keywords in calls(path):
        assert name not in {"eval", "exec", "compile", "yaml.load", "os.system"}
        assert not name.endswith("read_pickle")
        assert keywords.get("allow_pickle") is not True, name
        assert keywords.get("safe_mode") is not False, name
        assert keywords.get("shell") is not True, name


@pytest.mark.parametrize("module", MODULES, ids=short)
def test_no_bare_except_hides_a_mistake(module):
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{module} line {node.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=short)
def test_modules_are_short(module):
    assert len(FILES[module].read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("module", FILES, ids=lambda module: short(module) or "package")
def test_every_module_says_what_it_is_for(module):
    assert ast.get_docstring(ast.parse(FILES[module].read_text()))


@pytest.mark.parametrize("name", ["balance", "metrics", "errors", "folds"])
def test_examples_in_docstrings_are_right(name):
    assert doctest.testmod(importlib.import_module(f"kaggle_pipeline.{name}")).failed == 0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_has_help_that_works_from_anywhere(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python scripts/{script.name}")
    assert "not a medical device" in " ".join(done.stdout.split())
    assert "examples:" in done.stdout
