"""Commands that run stages: raw folder → ``submission.csv``."""

import argparse

from kaggle_pipeline.cli.command import Command
from kaggle_pipeline.cli.options import (
    add_fold_option,
    add_hardware_options,
    add_run_options,
    make_run,
)

_BY_ITSELF = "changes nothing here: what is finished is kept all the same"
_ANEW = "changes nothing here: it takes seconds and is made anew each time"


def _prepare_data_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(
        parser,
        _BY_ITSELF,
        "delete prepare/ and the TFRecords first, which take long to make, and the blend and the "
        "submission",
    )
    parser.add_argument(
        "--beam", nargs="?", const="", metavar="OPTIONS",
        help="convert by Apache Beam: by its processes here, or with its own options in quotes",
    )  # fmt: skip


def _prepare_data(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.prepare import prepare_data

    prepare_data(make_run(options))


def _train_image_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    add_fold_option(parser)
    add_hardware_options(parser)


def _train_image(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.train_image import train_image

    train_image(make_run(options), only=options.fold)


def _train_tabular_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    add_fold_option(parser)


def _train_tabular(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.train_tabular import train_tabular

    train_tabular(make_run(options), only=options.fold)


def _embed_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser, _BY_ITSELF, "make the vectors of this experiment's encoders anew")
    add_hardware_options(parser)


def _embed(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.embed import embed

    embed(make_run(options))


def _train_embedding_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser)
    add_fold_option(parser)


def _train_embedding(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.train_embedding import train_embedding

    train_embedding(make_run(options), only=options.fold)


def _make_submission(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.make_submission import make_submission

    make_submission(make_run(options))


def _blend_scores(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.blend_scores import blend_scores

    blend_scores(make_run(options))


def _blend_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(parser, _ANEW, _ANEW)


def _run_pipeline_options(parser: argparse.ArgumentParser) -> None:
    add_run_options(
        parser,
        overwrite="delete the results of each stage first, TFRecords among them; vectors of "
        "encoders stay",
    )
    add_hardware_options(parser)


def _run_pipeline(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.pipeline import run_pipeline

    run_pipeline(make_run(options))


STAGE_COMMANDS = (
    Command(
        "prepare-data",
        "Audit the raw data for leaks, make folds and TFRecords.",
        _prepare_data_options,
        _prepare_data,
        """\
  python scripts/prepare_data.py --data-dir data/siim_isic_2020
  python scripts/prepare_data.py --data-dir data/siim_isic_2020 --set records.image_size_px=512
  python scripts/prepare_data.py --data-dir data/siim_isic_2020 --beam
  python scripts/prepare_data.py --data-dir /mnt/siim --run-dir /mnt/run \\
      --beam='--runner=FlinkRunner --flink_master=host:8081 --parallelism=64'""",
    ),
    Command(
        "train-image",
        "Cross-validate the image model; OOF and test predictions by id.",
        _train_image_options,
        _train_image,
        """\
  python scripts/train_image.py --tpu
  python scripts/train_image.py --fold 0 --set image.epochs=3
  python scripts/train_image.py --run-dir runs/mine --resume""",
    ),
    Command(
        "train-tabular",
        "Cross-validate the tabular models: patient metadata alone.",
        _train_tabular_options,
        _train_tabular,
        """\
  python scripts/train_tabular.py --data-dir data/siim_isic_2020 --run-dir runs/mine
  python scripts/train_tabular.py --set tabular.resampling=smote --set tabular.patience=null""",
    ),
    Command(
        "embed",
        "Turn photos into vectors by encoders that stay as they are.",
        _embed_options,
        _embed,
        """\
  python scripts/embed.py --data-dir data/siim_isic_2020 --run-dir runs/mine \\
      --set 'embedding.encoders=[keras:MobileNetV2]'
  python scripts/embed.py --run-dir runs/mine \\
      --set 'embedding.encoders=["timm:vit_small_patch14_dinov2.lvd142m", "file:others.npz"]'""",
    ),
    Command(
        "train-embedding",
        "Cross-validate the embedding model: a linear head on encoders' vectors.",
        _train_embedding_options,
        _train_embedding,
        """\
  python scripts/train_embedding.py --data-dir data/siim_isic_2020 --run-dir runs/mine \\
      --set 'embedding.encoders=[keras:MobileNetV2]' --set embedding.metadata=true
  python scripts/train_embedding.py --run-dir runs/mine \\
      --set 'embedding.encoders=["file:vectors.parquet"]'""",
    ),
    Command(
        "make-submission",
        "Blend the trained models and write submission.csv.",
        _blend_options,
        _make_submission,
        """\
  python scripts/make_submission.py --run-dir runs/mine
  python scripts/make_submission.py --run-dir runs/mine --set blend.models=[tabular]""",
    ),
    Command(
        "blend-scores",
        "Compare ways to blend finished scores; use the best.",
        _blend_options,
        _blend_scores,
        """\
  python scripts/blend_scores.py --config configs/siim_public_models.yaml
  python scripts/blend_scores.py --run-dir runs/mine --set ensemble.models=[image,forest]""",
    ),
    Command(
        "run-pipeline",
        "All stages in a row: raw folder to submission.csv.",
        _run_pipeline_options,
        _run_pipeline,
        """\
  python scripts/run_pipeline.py --config configs/demo.yaml --data-dir data/demo/competition
  python scripts/run_pipeline.py --data-dir data/siim_isic_2020 --run-dir runs/mine --resume""",
    ),
)
