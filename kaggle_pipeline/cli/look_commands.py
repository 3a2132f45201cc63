"""Commands that draw, predict, show and compare; no run's training is changed."""

import argparse
from pathlib import Path

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.cli.command import Command
from kaggle_pipeline.cli.options import add_run_folder, run_folder, run_folders
from kaggle_pipeline.config.names import DEFAULT_CONFIG, DEMO_RUN, SCORED_STAGES
from kaggle_pipeline.synthetic import MADE_UP


def _make_synthetic_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="gets competition/ and truth.csv")
    parser.add_argument(
        "--dataset", choices=list(MADE_UP),
        default="siim_isic_2020", help="whose layout and classes (default: siim_isic_2020)",
    )  # fmt: skip
    parser.add_argument(
        "--images",
        type=int,
        metavar="N",
        help="about so many photos (default: 600, or by patients)",
    )
    parser.add_argument(
        "--patients",
        type=int,
        metavar="N",
        help="of siim_isic_2020, without --images (default: 200)",
    )
    parser.add_argument(
        "--mean-images", type=float, metavar="N", help="a patient, with --patients (default: 8)"
    )
    parser.add_argument("--image-size-px", type=int, default=128, help="default: 128")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")


def _make_synthetic(options: argparse.Namespace) -> None:
    from kaggle_pipeline.core.progress import Progress
    from kaggle_pipeline.synthetic import generate_like
    from kaggle_pipeline.synthetic.siim_isic_2020 import generate

    by_patient = (options.patients, options.mean_images) != (None, None)
    if by_patient and (options.dataset != "siim_isic_2020" or options.images is not None):
        options.refuse("--patients and --mean-images draw siim_isic_2020, in place of --images")
    of_patients = options.dataset == "siim_isic_2020" and options.images is None
    patients = 200 if options.patients is None else options.patients
    mean = 8.0 if options.mean_images is None else options.mean_images
    images = 600 if options.images is None else options.images
    if of_patients:
        images = round(patients * mean)
    with Progress(images, "draw", "photo") as progress:
        common = {
            "image_size_px": options.image_size_px, "seed": options.seed, "progress": progress
        }  # fmt: skip
        if of_patients:
            generate(options.out, patients=patients, mean_images=mean, **common)
        else:
            generate_like(options.dataset, options.out, images=images, **common)
    truth = options.out / "truth.csv"
    print(f"wrote {options.out / 'competition'}" + (f" and {truth}" if truth.exists() else ""))


def _port(text: str) -> int:
    """Return a port's number, or raise what argparse turns into an error."""
    number = int(text) if text.isascii() and text.isdecimal() else 0
    if not 0 < number < 2**16:
        raise argparse.ArgumentTypeError(f"{text} is no port, a number from 1 to 65535")
    return number


def _predict_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "a run with a trained image/ or embedding/")
    parser.add_argument(
        "--images", type=Path, required=True, metavar="FOLDER",
        help="folder of photos, its sub-folders too: JPEG, PNG, WebP, BMP, TIFF, AVIF, HEIC (with "
        "the extra `heic`) or DICOM (`dicom`)",
    )  # fmt: skip
    parser.add_argument(
        "--metadata", type=Path, metavar="CSV",
        help="a row a photo with the run's features and patient: then the whole blend answers",
    )  # fmt: skip
    parser.add_argument(
        "--out", type=Path, default=Path("predictions.csv"), help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over an existing --out")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu", "tpu"], default="auto")
    parser.add_argument(
        "--workers", type=int, choices=range(1, 1000), metavar="N",
        help="processes that read photos (default: as the run had it, else one a core)",
    )  # fmt: skip


def _predict(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.predict import predict_images

    predict_images(
        run_folder(options), options.images, options.out, metadata=options.metadata,
        device=options.device, workers=options.workers, overwrite=options.overwrite,
    )  # fmt: skip
    print(DISCLAIMER)


def _export_model_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "a run with a trained image/")
    parser.add_argument(
        "--format", choices=["onnx", "litert", "saved_model"], default="onnx",
        help="default: %(default)s; needs the extra `export`, but for saved_model",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="default: export/ in the run's folder")
    parser.add_argument("--overwrite", action="store_true", help="write over an existing --out")
    parser.add_argument(
        "--views", choices=["none", "flips", "dihedral"],
        help="seen of each photo (default: as predict; fewer are faster)",
    )  # fmt: skip
    parser.add_argument(
        "--quantize", choices=["none", "float16", "int8"], default="none",
        help="LiteRT's weights in fewer bits (default: %(default)s, float32)",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=Path, help="photos to compare with predict on (default: made-up lesions)"
    )


def _export_model(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.export_model import export_model

    export_model(
        run_folder(options), options.out, format=options.format, views=options.views,
        quantize=options.quantize, images=options.images, overwrite=options.overwrite,
    )  # fmt: skip
    print(DISCLAIMER)


def _serve_options(parser: argparse.ArgumentParser) -> None:
    what = "a run with a trained image/ or embedding/"
    what += " (default: runs/demo, which `make demo` makes)"
    add_run_folder(parser, what, default=DEMO_RUN)
    parser.add_argument(
        "--host", default="127.0.0.1",
        help="address to listen on (default: this machine alone, 127.0.0.1); there is no login, so "
        "let nobody in whom you do not trust",
    )  # fmt: skip
    parser.add_argument(
        "--also-called", action="append", metavar="NAME", default=[],
        help="answer to this host name too, such as the one that a proxy passes on; requests to "
        "other names than the page's own are refused",
    )  # fmt: skip
    parser.add_argument("--port", type=_port, default=8501, help="default: 8501")
    parser.add_argument(
        "--show-training-photos", action="store_true",
        help="let visitors see the training photos that are nearest to theirs, of a run with a "
        "head on encoders; without it they see their labels alone",
    )  # fmt: skip


def _serve(options: argparse.Namespace) -> None:
    from kaggle_pipeline.webapp.serve import serve

    serve(
        run_folder(options), host=options.host, port=options.port, also_called=options.also_called,
        show_training_photos=options.show_training_photos,
    )  # fmt: skip


def _explore_data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="says which data set")
    parser.add_argument("--data-dir", type=Path, help="default: data/<dataset of the config>")
    parser.add_argument("--out", type=Path, help="default: pictures/<dataset>")


def _explore_data(options: argparse.Namespace) -> None:
    from kaggle_pipeline.config.loading import load_experiment
    from kaggle_pipeline.stages.explore_data import explore_data

    config = load_experiment(options.config)
    explore_data(
        config,
        options.data_dir or Path("data") / config.dataset,
        options.out or Path("pictures") / config.dataset,
    )


def _compare_runs_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "runs with scores")


def _compare_runs(options: argparse.Namespace) -> None:
    from kaggle_pipeline.report.run_differences import describe_difference
    from kaggle_pipeline.report.run_tables import compare_runs

    first, *others = runs = run_folders(options)
    print(compare_runs(runs))
    for further in others:
        print("\n" + "\n".join(describe_difference(first, further)))


def _results_table_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "runs with scores")
    parser.add_argument(
        "--update", type=Path, metavar="FILE",
        help="replace what stands there between the results_table marks (default: print the table)",
    )  # fmt: skip


def _results_table(options: argparse.Namespace) -> None:
    from kaggle_pipeline.report.run_tables import update_table

    update_table(run_folders(options), options.update)


def _list_backbones_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    parser.add_argument("--image-size-px", type=int, default=1024, help="default: 1024")


def _list_backbones(options: argparse.Namespace) -> None:
    from kaggle_pipeline.models.image.backbones.table import describe_backbones

    print(describe_backbones(options.names, options.image_size_px))


def _score_submission_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--submission", type=Path, required=True)
    parser.add_argument("--truth", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")


def _score_submission(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.score_submission import score_submission

    print(score_submission(options.submission, options.truth, options.seed))


def _verify_run_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "a run of any version, finished or not")
    parser.add_argument(
        "--accept-changes", action="store_true",
        help="take all files as they are now: you edited them on purpose",
    )  # fmt: skip
    parser.add_argument(
        "--files-only", action="store_true", help="compare hashes alone: seconds, no networks"
    )


def _verify_run(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.verify import verify_run

    verify_run(
        run_folder(options), accept_changes=options.accept_changes, files_only=options.files_only
    )


def _bundle_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "a run with a trained image/")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--licence", required=True, help="SPDX name; the photos' licence binds the weights too"
    )
    parser.add_argument("--licence-file", type=Path, help="its text, copied as LICENSE")
    parser.add_argument(
        "--kaggle", metavar="OWNER/MODEL/VARIATION", help="add what `kaggle models` needs"
    )
    parser.add_argument("--overwrite", action="store_true", help="write over an existing --out")


def _bundle(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.bundle import bundle

    bundle(
        run_folder(options), options.out, licence=options.licence,
        licence_file=options.licence_file, kaggle=options.kaggle, overwrite=options.overwrite,
    )  # fmt: skip
    print(DISCLAIMER)


def _audit_labels_options(parser: argparse.ArgumentParser) -> None:
    add_run_folder(parser, "a run with out-of-fold predictions")
    parser.add_argument(
        "--stage",
        choices=SCORED_STAGES,
        help="whose predictions (default: of the stage that the submission was made of)",
    )


def _audit_labels(options: argparse.Namespace) -> None:
    from kaggle_pipeline.stages.audit_labels import audit_labels

    audit_labels(run_folder(options), stage=options.stage)


LOOK_COMMANDS = (
    Command(
        "make-synthetic",
        "Draw a made-up data set, in the layout of a real one.",
        _make_synthetic_options,
        _make_synthetic,
        """\
  python scripts/make_synthetic.py --out data/made_up --patients 200 --image-size-px 96
  python scripts/make_synthetic.py --dataset ham10000 --out data/made_up --images 400""",
    ),
    Command(
        "explore-data",
        "Draw a data set: classes, ages, sites, gaps, sample photos.",
        _explore_data_options,
        _explore_data,
        """\
  python scripts/explore_data.py --config configs/ham10000_mobilenet.yaml
  python scripts/explore_data.py --data-dir data/siim_isic_2020 --out pictures/""",
    ),
    Command(
        "predict",
        "Predict new photos by a run's image model, or with --metadata by its blend.",
        _predict_options,
        _predict,
        """\
  python scripts/predict.py --run-dir runs/siim_isic_2020 --images photos/
  python scripts/predict.py --run-dir runs/mine --images photos/ --metadata photos.csv""",
    ),
    Command(
        "export-model",
        "Write a run's image models as one ONNX, LiteRT or SavedModel file.",
        _export_model_options,
        _export_model,
        """\
  python scripts/export_model.py --run-dir runs/siim_isic_2020
  python scripts/export_model.py --run-dir runs/mine --format litert --views none --out mine.tflite
  python scripts/export_model.py --run-dir runs/mine --format saved_model --images photos/""",
    ),
    Command(
        "serve",
        "Show a page that reads lesions with a trained run.",
        _serve_options,
        _serve,
        """\
  python scripts/serve.py
  python scripts/serve.py --run-dir runs/siim_isic_2020 --port 8600""",
    ),
    Command(
        "compare-runs",
        "Print the scores of runs in one table, and what differs between them.",
        _compare_runs_options,
        _compare_runs,
        """\
  python scripts/compare_runs.py runs/ham10000_lenet runs/ham10000_lenet_by_lesion""",
    ),
    Command(
        "results-table",
        "Write what runs reached as a Markdown table.",
        _results_table_options,
        _results_table,
        """\
  python scripts/results_table.py runs/siim_isic_2020
  python scripts/results_table.py runs/ham10000 runs/isic_2017 --update docs/results.md""",
    ),
    Command(
        "verify-run",
        "Check a run or bundle: files, folds, calibration, answers, names.",
        _verify_run_options,
        _verify_run,
        """\
  python scripts/verify_run.py --run-dir runs/mine
  python scripts/verify_run.py --run-dir bundles/mine
  python scripts/verify_run.py --run-dir runs/mine --accept-changes""",
    ),
    Command(
        "bundle",
        "Gather a run in a folder for Kaggle Models or the Hugging Face hub.",
        _bundle_options,
        _bundle,
        """\
  python scripts/bundle.py --run-dir runs/mine --out bundles/mine --licence cc-by-nc-4.0
  hf upload me/mine bundles/mine""",
    ),
    Command(
        "audit-labels",
        "Show the photos whose label fits the predictions least.",
        _audit_labels_options,
        _audit_labels,
        """\
  python scripts/audit_labels.py --run-dir runs/mine
  python scripts/audit_labels.py --run-dir runs/mine --stage image""",
    ),
    Command(
        "list-backbones",
        "Print every backbone: parameters, input range, output.",
        _list_backbones_options,
        _list_backbones,
        """\
  python scripts/list_backbones.py
  python scripts/list_backbones.py resnet18 ResNet50 MobileNetV2""",
    ),
    Command(
        "score-submission",
        "Score a submission against truth that was kept apart.",
        _score_submission_options,
        _score_submission,
        """\
  python scripts/score_submission.py --submission runs/demo/submission.csv \\
      --truth data/demo/truth.csv""",
    ),
)
