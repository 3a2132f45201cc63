"""Tests of the packed scripts: they run alone, are repeatable and current, too much is refused."""

import ast
import base64
import io
import json
import lzma
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from kaggle_pipeline.cli.main import main
from kaggle_pipeline.config.loading import load_experiment
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.datasets import get_spec
from kaggle_pipeline.kaggle import kernels
from kaggle_pipeline.kaggle.kernels import Build, build_kernels, fit_gpu

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs" / "siim_isic_2020.yaml"
KERNELS = sorted(path.parent for path in ROOT.glob("kernels/*/entry.py"))
KNOWN = {
    "id", "title", "code_file", "language", "kernel_type", "is_private", "enable_gpu", "enable_tpu",
    "enable_internet", "machine_shape", "dataset_sources", "competition_sources", "kernel_sources",
    "model_sources",
}  # fmt: skip
SLUG = "siim-isic-melanoma-classification"
HEADS = ["blend.models=[embedding]", "embedding.encoders=[keras:MobileNetV2]"]


def make_build(owner="me", changes=(), **wishes):
    config = load_experiment(CONFIG, changes)
    return Build(owner, config, fit_gpu(config), f"competitions/{SLUG}", **wishes)


@pytest.fixture
def root(tmp_path):
    """A small checkout with one kernel that says what it finds."""
    for name in ("kaggle_pipeline", "configs/preflight"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / "root" / name, ignore=ignore)
    place = tmp_path / "root" / "kernels" / "image"
    place.mkdir(parents=True)
    template = json.loads((ROOT / "kernels" / "image" / "kernel-metadata.json").read_text())
    (place / "kernel-metadata.json").write_text(json.dumps(template))
    (place / "entry.py").write_text(
        "from pathlib import Path\n"
        "import kaggle_pipeline\n"
        "from kaggle_pipeline.cli.main import main\n"
        "packed = Path(kaggle_pipeline.__file__).parent.parent\n"
        "print(sorted(path.name for path in packed.glob('configs/preflight/*seed_v3*')))\n"
        "print((packed / 'kernel/experiment.yaml').read_text().splitlines()[0])\n"
        "main(['--version'])\n"
    )
    return tmp_path / "root"


def run_script(path, cwd):
    command = [sys.executable, "-P", str(path)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=1200)


def script_of(folder):
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    return folder / metadata["code_file"]


def test_the_script_runs_where_nothing_else_is(root, tmp_path):
    (folder,) = build_kernels(root, tmp_path / "out", make_build())
    done = run_script(shutil.move(script_of(folder), tmp_path / "alone.py"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "['siim_isic_2020_seed_v3-8.json']", "name: siim_isic_2020", "0.1.0"
    ]  # fmt: skip


def test_a_script_that_was_changed_on_its_way_does_not_run(root, tmp_path):
    (folder,) = build_kernels(root, tmp_path / "out", make_build())
    path = script_of(folder)
    text = path.read_text()
    digest = text.partition('_DIGEST = "')[2][:64]
    path.write_text(text.replace(f'_DIGEST = "{digest}"', f'_DIGEST = "{digest[::-1]}"'))
    done = run_script(path, tmp_path)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr == ("error: this script was changed on its way: build and push it again\n")


def test_the_same_sources_give_the_same_bytes(root, tmp_path):
    first, second = (
        script_of(build_kernels(root, tmp_path / name, make_build())[0]).read_bytes()
        for name in ("a", "b")
    )
    assert first == second and len(first) < 600_000  # Kaggle takes a million


def without_archive(script):
    """Return a script's text around its archive, and the archive's bytes as a tar."""
    head, _, rest = script.read_text().partition("_ARCHIVE = (\n")
    lines, _, tail = rest.partition("\n)\n")
    packed = "".join(line.strip().strip('"') for line in lines.splitlines())
    return head + tail, lzma.decompress(base64.b85decode(packed))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out, owner = tmp_path_factory.mktemp("kernels"), "your-user-name"
    heads = make_build(owner, HEADS, embeddings=f"{owner}/melanoma-embeddings")
    build_kernels(ROOT, out, heads)
    build_kernels(ROOT, out, make_build(owner))  # with the blend of the others
    return out


def test_git_holds_no_built_script():
    names = {path.name for path in ROOT.glob("kernels/*/*") if path.suffix != ".pyc"}
    assert names - {"__pycache__"} == {"entry.py", "kernel-metadata.json"}


@pytest.mark.parametrize("folder", KERNELS, ids=lambda path: path.name)
def test_a_built_kernel_holds_what_a_session_needs(folder, built):
    made = built / folder.name
    with tarfile.open(fileobj=io.BytesIO(without_archive(script_of(made))[1])) as archive:
        names = set(archive.getnames())
    for file in ("stages/pipeline.py", "kaggle/session.py", "models/image/model.py", "cli/main.py"):
        assert f"kaggle_pipeline/{file}" in names
    assert not {name for name in names if name.split("/")[0] in ("benchmarks", "tests")}
    assert not {name for name in names if name.startswith("kaggle_pipeline/webapp/")}
    assert "kaggle_pipeline/synthetic/siim_isic_2020.py" not in names
    metadata = "kernel-metadata.json"
    assert (folder / metadata).read_bytes() == (made / metadata).read_bytes()


def test_a_model_of_all_rows_has_no_kernel_of_a_fold(tmp_path, capsys):
    words = ["--owner", "jane", "--out", str(tmp_path), "--set", "train_all=true"]
    words += ["--set", "image.checkpoint=last"]
    assert main(["build-kernels", *words, "--fold", "0"]) == 2
    assert "--fold: train_all" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_owner_folds_and_weights_come_from_the_command(tmp_path, capsys):
    words = ["--owner", "jane", "--weights", "jane/imagenet", "--out", str(tmp_path)]
    folds = ["--fold", "0", "--fold", "3"]
    assert main(["build-kernels", *words, *folds]) == 0, capsys.readouterr().err
    found = metadata_of(tmp_path)
    assert set(found) == {
        "image_fold0", "image_fold3", "image_gpu", "tabular", "blend", "tpu_smoke"
    }  # fmt: skip
    every_fold = [f"jane/melanoma-image-fold-{fold}" for fold in range(5)]
    assert found["blend"]["kernel_sources"] == [*every_fold, "jane/melanoma-tabular"]
    third = found["image_fold3"]
    assert third["id"] == "jane/melanoma-image-fold-3" and third["title"].endswith("fold 3")
    assert third["dataset_sources"] == ["jane/imagenet"] and not third["enable_internet"]
    assert "folds: 3." in (tmp_path / "image_fold3" / "image.py").read_text()[:300]
    said = capsys.readouterr().out.strip().splitlines()
    names = [Path(word).name for word in said[-1].split()[3:]]
    assert names == ["push_kernels.py", "image_fold0", "image_fold3", "tabular"]
    assert said[-2].endswith(
        "blend reads all folds: build (with --fold 1 --fold 2 --fold 4) and push the others first"
    )
    every = [word for fold in range(5) for word in ("--fold", str(fold))]
    assert main(["build-kernels", *words, *every]) == 0
    said = capsys.readouterr().out.strip().splitlines()
    assert said[-1].endswith("/blend") and "push the others first" not in said[-2]


def test_heads_need_attached_vectors(tmp_path, capsys):
    words = ["build-kernels", "--owner", "jane", "--out", str(tmp_path)]
    for change in ("blend.models=[image,embedding]", HEADS[1]):
        words += ["--set", change]
    assert main(words) == 2
    assert "--embeddings OWNER/SLUG" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert main([*words, "--embeddings", "jane/vectors"]) == 0
    found = metadata_of(tmp_path)
    assert set(found) == {"image", "image_gpu", "embedding", "blend", "tpu_smoke"}
    assert found["embedding"]["dataset_sources"] == ["jane/vectors"]
    assert found["image"]["dataset_sources"] == []
    sources = ["jane/melanoma-image", "jane/melanoma-embedding"]
    assert found["blend"]["kernel_sources"] == sources
    names = [Path(word).name for word in capsys.readouterr().out.split()[-3:]]
    assert names == ["embedding", "image", "blend"]


def test_vectors_for_a_blend_without_heads_are_refused(tmp_path, capsys):
    words = ["build-kernels", "--owner", "jane", "--out", str(tmp_path)]
    assert main([*words, "--embeddings", "jane/vectors"]) == 2
    assert "blends no heads on vectors" in capsys.readouterr().err


def metadata_of(out):
    found = {path.parent.name: path for path in Path(out).glob("*/kernel-metadata.json")}
    return {name: json.loads(path.read_text()) for name, path in found.items()}


def test_another_experiment_replaces_no_kernel_and_gets_only_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = ["--config", str(ROOT / "configs" / "ham10000_mobilenet.yaml"), "--owner", "me"]
    assert main(["build-kernels", *config]) == 0
    found = metadata_of(tmp_path / "build" / "kernels" / "ham10000_mobilenet")
    assert set(found) == {"image", "image_gpu", "blend", "tpu_smoke"}  # it blends no metadata
    assert found["image_gpu"]["id"] == "me/melanoma-ham10000-mobilenet-image-gpu"
    for one in found.values():
        assert one["id"].split("/")[1] == one["title"].replace(" ", "-")
    assert found["blend"]["kernel_sources"] == ["me/melanoma-ham10000-mobilenet-image"]
    assert main(["build-kernels", *config, "--set", "blend.models=[forest,logistic]",
                 "--out", str(tmp_path / "trees")]) == 0  # fmt: skip
    trees = metadata_of(tmp_path / "trees")
    assert set(trees) == {"tabular", "blend"}
    assert trees["blend"]["kernel_sources"] == ["me/melanoma-ham10000-mobilenet-tabular"]


def test_further_collections_are_attached(tmp_path, capsys):
    words = ["build-kernels", "--owner", "me", "--out", str(tmp_path), "--set"]
    assert main([*words, "external=[{dataset: isic_2019, data_dir: ../isic_2019}]"]) == 0
    for name in ("image", "tabular"):  # both make the examples
        assert metadata_of(tmp_path)[name]["dataset_sources"] == ["andrewmvd/isic-2019"]
    assert main([*words, "external=[{dataset: isic_2017, data_dir: ../isic_2017}]"]) == 2
    assert "isic_2017 is not on Kaggle" in capsys.readouterr().err


def test_one_fold_of_a_holdout_is_all_there_is(tmp_path):
    config = ["--config", str(ROOT / "configs" / "siim_isic_2020_seed.yaml"), "--fold", "0"]
    assert main(["build-kernels", *config, "--owner", "me", "--out", str(tmp_path)]) == 0
    assert metadata_of(tmp_path)["blend"]["kernel_sources"] == [
        "me/melanoma-siim-isic-2020-seed-image-fold-0",
        "me/melanoma-siim-isic-2020-seed-tabular",
    ]


def test_the_blend_reads_the_gpus_kernel_where_that_is_said(tmp_path):
    build_kernels(ROOT, tmp_path, make_build(hardware="gpu"))
    blend = json.loads((tmp_path / "blend" / "kernel-metadata.json").read_text())
    assert blend["kernel_sources"] == ["me/melanoma-image-gpu", "me/melanoma-tabular"]


def unpacked(folder):
    """Return what a script unpacks, by name."""
    with tarfile.open(fileobj=io.BytesIO(without_archive(script_of(folder))[1])) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar.getmembers()}


def test_a_gpu_gets_smaller_images_unless_a_size_was_asked_for(built, tmp_path):
    def size(folder):
        return yaml.safe_load(unpacked(folder)["kernel/experiment.yaml"])["image"]["image_size_px"]

    assert (size(built / "image"), size(built / "image_gpu")) == (1024, 512)
    words = ["--owner", "me", "--out", str(tmp_path), "--set", "image.image_size_px=768"]
    assert main(["build-kernels", *words]) == 0
    assert size(tmp_path / "image_gpu") == 768
    small = load_experiment(ROOT / "configs" / "demo.yaml")
    assert fit_gpu(small) is small


def test_nothing_but_the_package_is_packed(built):
    names = {
        name for name in unpacked(built / "tabular") if not name.startswith("kaggle_pipeline/")
    }
    kernel_files = {name for name in names if not name.startswith("configs/preflight/")}
    assert kernel_files == {"kernel/experiment.yaml", "kernel/settings.json"}


def test_what_packed_modules_import_is_packed(built):
    """As the session and its stages are imported; the command line alone needs the page."""
    packed = unpacked(built / "image")
    modules = {
        name.removesuffix(".py").removesuffix("/__init__").replace("/", "."): content
        for name, content in packed.items() if name.endswith(".py")
    }  # fmt: skip
    waiting, seen = ["kaggle_pipeline.kaggle.session"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        assert name in modules, f"{name} is imported and not packed"
        for one in ast.parse(modules[name]).body:
            if isinstance(one, ast.ImportFrom) and one.module.startswith("kaggle_pipeline"):
                inner = [f"{one.module}.{alias.name}" for alias in one.names]
                waiting += [one.module, *(path for path in inner if path in modules)]
    assert "kaggle_pipeline.stages.train_folds" in seen


@pytest.mark.parametrize(
    ("wishes", "error"),
    [
        ({"owner": "jane doe"}, "--owner 'jane doe' is not a name"),
        ({"weights": "imagenet"}, "--weights 'imagenet' is not a name"),
        ({"folds": (5,)}, "--fold 5: this experiment has no such fold"),
    ],
)
def test_wishes_that_cannot_be_met_are_one_line(wishes, error):
    with pytest.raises(PipelineError, match=error):
        make_build(**wishes)


@pytest.mark.parametrize("weights", [None, "me/weights"])
def test_weights_of_the_hub_are_to_be_downloaded_first(weights):
    config = load_experiment(CONFIG, ["image.weights=timm:net.in1k"])
    with pytest.raises(PipelineError, match=r"fetches nothing .*so not timm:net\.in1k"):
        Build("me", config, fit_gpu(config), f"competitions/{SLUG}", weights=weights)


def test_data_that_is_not_on_kaggle_is_said(tmp_path, capsys):
    words = ["--config", str(ROOT / "configs" / "isic_2017.yaml"), "--out", str(tmp_path)]
    assert main(["build-kernels", "--owner", "me", *words]) == 2
    assert "the data of isic_2017 is not on Kaggle" in capsys.readouterr().err
    assert get_spec("ham10000").kaggle == "datasets/kmader/skin-cancer-mnist-ham10000"


def test_what_is_missing_or_too_large_is_one_line(root, tmp_path, monkeypatch):
    monkeypatch.setattr(kernels, "MAX_BYTES", 1000)
    out = tmp_path / "out"
    with pytest.raises(PipelineError, match=r"image\.py would have \d+ bytes; Kaggle takes 1000"):
        build_kernels(root, out, make_build())
    assert not out.exists()
    path = root / "kernels" / "image" / "kernel-metadata.json"
    path.write_text('{"title": "tried out"}')
    with pytest.raises(PipelineError, match=r"kernel-metadata\.json lacks 'id'"):
        build_kernels(root, out, make_build())
    path.unlink()
    with pytest.raises(PipelineError, match=r"kernel-metadata\.json is missing"):
        build_kernels(root, out, make_build())


@pytest.mark.parametrize("folder", KERNELS, ids=lambda path: path.name)
def test_every_kernels_metadata_is_what_kaggle_knows(folder):
    metadata = json.loads((folder / "kernel-metadata.json").read_text())
    assert set(metadata) <= KNOWN  # unknown keys are silently ignored there
    assert set(metadata) >= KNOWN - {"machine_shape"}
    assert len(metadata["title"]) >= 5
    assert metadata["id"].split("/")[1] == metadata["title"].replace(" ", "-")
    assert not (metadata["enable_gpu"] and metadata["enable_tpu"])
    shapes = {(True, False): "NvidiaTeslaT4", (False, True): "TpuV5E8", (False, False): None}
    hardware = metadata["enable_gpu"], metadata["enable_tpu"]
    assert metadata.get("machine_shape") == shapes[hardware]


@pytest.mark.ci
def test_the_smoke_kernel_says_that_here_is_no_tpu(tmp_path, built):
    path = shutil.copy(built / "tpu_smoke" / "tpu_smoke.py", tmp_path)
    done = run_script(path, tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no TPU found (")
