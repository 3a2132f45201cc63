"""The demo, made as small as a test session can bear: arguments for the command line."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DEMO = ("--config", str(ROOT / "configs" / "demo.yaml"))
SMALL = (
    "folds.k=2", "records.image_size_px=32", "image.image_size_px=32",
    "image.backbone_options={filters: 4}", "image.epochs=2", "image.tta=flips", "tabular.epochs=3",
)  # fmt: skip


def demo_words(data_dir, run_dir, *changes):
    """Return the options that name the demo's experiment, data and run folder."""
    sets = [word for change in (*SMALL, *changes) for word in ("--set", change)]
    return [*DEMO, *sets, "--data-dir", str(data_dir), "--run-dir", str(run_dir)]
