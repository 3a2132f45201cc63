"""House rules, one test each over all files: imports point down, heavy packages have few doors."""

import ast
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "kaggle_pipeline"
ORDER = (
    {"core"},
    {"config", "metrics"},
    {"data"},
    {"datasets", "leakage", "records", "hardware"},
    {"synthetic", "models"},
    {"evaluation", "ensembling"},
    {"report"},
    {"export"},
    {"stages"},
    {"kaggle", "preflight", "webapp"},
    {"cli"},
    {"__main__"},
)
"""A room imports from itself and from rooms of an earlier set; docs/architecture.md draws it."""
FLOOR = {room: floor for floor, rooms in enumerate(ORDER) for room in rooms}
MAX_LINES = 450
DOORS = {
    "tensorflow": {
        "core.engine",
        "core.private_api",
        "hardware.accelerator",
        "hardware.distribution",
        "models.image.fit.optimizer",  # Adam in one operation
        "models.image.inference.gradcam",  # a gradient: Keras has no call that both engines know
        "models.image.input.augment",
        "models.image.input.decode",
        "models.image.input.mixup",
        "models.image.input.pipeline",
        "models.image.input.record_reader",
        "preflight.lowering",
    },
    "jax": {
        "core.private_api",
        "hardware.accelerator",
        "hardware.compile_log",
        "hardware.distribution",
        "models.image.inference.gradcam",
        "preflight.compiler",
        "preflight.lowering",
    },
    "cleanlab": {"evaluation.label_suspects"},
    "tf2onnx": {"export.formats"},
    "onnxruntime": {"export.formats"},
    "ai_edge_litert": {"export.formats"},
    "torch": {"models.embedding.torch_encoders", "models.image.backbones.torch_weights"},
    "timm": {"models.embedding.torch_encoders"},
    "open_clip": {"models.embedding.torch_encoders"},
    "safetensors": {"models.image.backbones.torch_weights"},
    "streamlit": {"core.private_api", "webapp.app"},
}
"""The modules that may import a heavy package."""
KERAS = {"export", "hardware", "models", "preflight"}
"""The rooms that may import keras."""
FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
WITHOUT_ENGINE = "core config metrics data datasets leakage records hardware synthetic evaluation"
WITHOUT_ENGINE += " ensembling report stages cli"
"""Rooms that load without what is slow to load (``models`` but for its networks)."""
SLOW_TO_LOAD = {"tensorflow", "jax", "keras", "torch", "sklearn", "matplotlib", "scipy"}


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
BENCHMARKS = {module_name(path): path for path in sorted((ROOT / "benchmarks").glob("*.py"))}
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
TREES = {
    path: ast.parse(path.read_text()) for path in (*FILES.values(), *BENCHMARKS.values(), *SCRIPTS)
}


def imports(path):
    """Full names of all that a file imports, at its head or inside a function."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def roots(path):
    return {name.split(".")[0] for name in imports(path)}


def own_imports(module):
    """Modules of the package that a module imports."""
    found = set()
    for name in imports(FILES[module]):
        while name.startswith("kaggle_pipeline.") and name not in FILES:
            name = name.rpartition(".")[0]
        if name.startswith("kaggle_pipeline."):
            found.add(name)
    return found


def room(module):
    return module.split(".")[1]


MODULES = [module for module in FILES if module != "kaggle_pipeline"]


def test_a_room_imports_from_rooms_below_it_alone():
    unplaced = {room(module) for module in MODULES} - set(FLOOR)
    assert not unplaced, "add them to ORDER and to docs/architecture.md"
    wrong = [
        f"{module} imports {other}"
        for module in MODULES
        for other in own_imports(module)
        if room(other) != room(module) and FLOOR[room(other)] >= FLOOR[room(module)]
    ]
    assert not wrong


def test_the_packages_root_holds_no_module():
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


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


def test_who_receives_a_spec_does_not_know_the_data_sets():
    wrong = [
        module
        for module in MODULES
        if room(module) in {"data", "models", "evaluation", "ensembling"}
        and {room(other) for other in own_imports(module)} & {"datasets", "synthetic"}
    ]
    assert not wrong


def test_the_image_and_the_tabular_model_do_not_know_each_other():
    for one, other in (("image", "tabular"), ("tabular", "image")):
        for module in MODULES:
            if module.startswith(f"kaggle_pipeline.models.{one}"):
                known = own_imports(module)
                assert not {n for n in known if n.startswith(f"kaggle_pipeline.models.{other}")}


def test_the_loop_over_folds_knows_no_model():
    for module in MODULES:
        if module.count(".") == 2 and room(module) == "models":
            inner = ("kaggle_pipeline.models.image", "kaggle_pipeline.models.tabular")
            assert not {n for n in own_imports(module) if n.startswith(inner)}, module


def test_heavy_packages_have_few_doors():
    wrong = []
    for module in MODULES:
        found, short = roots(FILES[module]), module.removeprefix("kaggle_pipeline.")
        wrong += [f"{short}: {heavy}" for heavy in found & set(DOORS) if short not in DOORS[heavy]]
        if "keras" in found and room(module) not in KERAS:
            wrong.append(f"{short}: keras")
    assert not wrong


def test_every_door_is_used():
    for heavy, modules in DOORS.items():
        for short in modules:
            assert heavy in roots(FILES[f"kaggle_pipeline.{short}"]), f"{short}: {heavy}"


def test_rooms_without_networks_load_quickly():
    """A mistake is said at once: what takes seconds to load is imported where it is used."""
    names = [
        module
        for module in MODULES
        if room(module) in WITHOUT_ENGINE.split() or module.count(".") == 2
    ]
    light = [name for name in names if "keras" not in roots(FILES[name]) and room(name) not in
             {"webapp", "preflight"}]  # fmt: skip
    code = "import sys, importlib\n"
    code += "".join(f"importlib.import_module({name!r})\n" for name in light)
    code += f"print(sorted({SLOW_TO_LOAD} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_package_does_not_know_what_is_beside_it():
    wrong = [m for m in MODULES if roots(FILES[m]) & {"benchmarks", "tests", "scripts"}]
    assert not wrong


def test_nothing_runs_code_from_data():
    for path, tree in TREES.items():
        assert not FORBIDDEN & roots(path), path
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
            where = f"{path} line {node.lineno}: {name}"
            assert name not in {"eval", "exec", "compile", "yaml.load", "os.system"}, where
            assert not name.endswith("read_pickle"), where
            assert keywords.get("allow_pickle") is not True, where
            assert keywords.get("safe_mode") is not False, where
            assert keywords.get("shell") is not True, where


UNDOCUMENTED = ("tensorflow.python", "streamlit.web", "streamlit.runtime", "starlette")
"""Parts of other packages that they do not document for users, though no name says so."""


def private_parts(tree):
    """What a module takes of others that is theirs: ``x._name`` that it does not define itself."""
    own, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            # Set on itself: on another object it may be that object's.
            (own if ast.unparse(node.value) in {"self", "cls"} else used).add(node.attr)
        elif isinstance(node, ast.Attribute):
            used.add(node.attr)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("attr", "attr__")):
            to_itself = ast.unparse(node.func) == "object.__setattr__"  # of a frozen dataclass
            names = {str(a.value) for a in node.args[1:2] if isinstance(a, ast.Constant)}
            (own if to_itself else used).update(names)
        elif isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used |= {f"{node.module}.{alias.name}" for alias in node.names}
    used -= own | {"_exit"}  # os._exit is documented
    parts = {name: name.split(".") for name in used}
    return {
        name
        for name, words in parts.items()
        if any((w.startswith("_") and not w.startswith("__")) or w == "src" for w in words)
        or name.startswith(UNDOCUMENTED)
    }


def test_private_parts_of_other_packages_are_used_in_one_module():
    found = {path: private_parts(tree) for path, tree in TREES.items()}
    door = FILES["kaggle_pipeline.core.private_api"]
    assert found.pop(door)
    assert not {str(path): names for path, names in found.items() if names}


def test_private_parts_are_found_however_they_are_reached():
    for line in (
        "network._nodes", "getattr(network, '_nodes', 1)", "network._nodes = 1", "import jax._src",
        "from keras.src import ops", "from tensorflow.python.framework import kernels",
    ):  # fmt: skip
        assert private_parts(ast.parse(line)), line
    for line in ("self._own = 1; other._own", "x.__class__", "os._exit(1)", "from a import src_of"):
        assert not private_parts(ast.parse(line)), line


def test_no_bare_except_hides_a_mistake():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path} line {node.lineno}"


def test_modules_are_short_and_say_what_they_are_for():
    for path, tree in TREES.items():
        assert len(path.read_text().splitlines()) <= MAX_LINES, path
        assert ast.get_docstring(tree), path


EXAMPLES = [path for path in TREES if "    >>> " in path.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_in_docstrings_are_right(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    done = doctest.testmod(importlib.import_module(name))
    assert done.attempted and not done.failed


ROLE = re.compile(r":(?:func|class|meth|data):`~?([\w.]+)`")


def names_in(tree):
    """All that a module defines, methods among it, or imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name


def test_what_a_docstring_refers_to_is_there():
    """A role such as ``:func:`` names what is in the module, or has the whole path."""
    named = {path: set(names_in(tree)) for path, tree in TREES.items()}
    for path in TREES:
        for role in set(ROLE.findall(path.read_text())):
            module, _, name = role.rpartition(".")
            home = path
            if module.startswith("kaggle_pipeline"):
                home = ROOT / f"{module.replace('.', '/')}.py"
                home = home if home.is_file() else home.with_suffix("") / "__init__.py"
            assert name in named[home], f"{path}: {role}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_has_help_that_works_from_anywhere(script, tmp_path):
    done = subprocess.run(
        [sys.executable, str(script), "--help"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: python scripts/{script.name}")
    assert "not a medical device" in " ".join(done.stdout.split())
    assert "examples:" in done.stdout
