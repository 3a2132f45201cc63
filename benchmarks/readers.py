"""Every reader of files that anybody may have written, as one function of bytes each.

In: bytes. Out: nothing, or what the reader raises. Tests and the long fuzzing run share them.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kaggle_pipeline.core.errors import PipelineError

CORPUS = Path(__file__).parents[1] / "tests" / "fuzz" / "corpus"
"""A folder a reader: small files that once were a traceback, or that reach far."""


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes
    ----------
    read : callable
        ``read(folder, content)``: write the bytes where they are looked for, and read them.
    seeds : callable
        Returns well-formed contents.
    modules : tuple of str
        Of the package, whose coverage counts.
    words : tuple of bytes
        That mean something to it.
    """

    read: Callable[[Path, bytes], object]
    seeds: Callable[[], list[bytes]]
    modules: tuple[str, ...]
    words: tuple[bytes, ...] = ()


def attempt(reader: Reader, folder: Path, content: bytes) -> str | None:
    """Read; return the sentence of a refusal, None where the content was taken.

    Raises
    ------
    AssertionError
        If a refusal is not one line of words.
    """
    try:
        reader.read(folder, content)
    except PipelineError as error:
        line = str(error)
        assert line.strip() and len(line.splitlines()) == 1, repr(line)
        return line
    return None


def _experiment(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.config.loading import load_experiment

    path = folder / "config.yaml"
    path.write_bytes(content)
    load_experiment(path)


def _setting(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.config.loading import load_experiment

    load_experiment(Path("demo"), content.decode(errors="surrogateescape").split("\0"))


def _configs() -> list[bytes]:
    from kaggle_pipeline.config.names import HOME

    return [path.read_bytes() for path in sorted((HOME / "configs").glob("*.yaml"))]


def _siim_folder(folder: Path, **files: bytes) -> Path:
    plain = {"train": _TRAIN, "test": _TEST, "sample_submission": _SAMPLE}
    for name, content in (plain | files).items():
        (folder / f"{name}.csv").write_bytes(content)
    return folder


def _competition(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.data.examples import split_rows, validate_examples
    from kaggle_pipeline.data.submission import require_sample
    from kaggle_pipeline.datasets.siim_isic_2020 import SPEC, read_raw

    first, _, rest = content.partition(b"\n")
    which = {b"#test": "test", b"#sample": "sample_submission"}.get(first, "train")
    raw = read_raw(_siim_folder(folder, **{which: content if which == "train" else rest}))
    examples = validate_examples(raw.examples, SPEC)
    if raw.sample_submission is not None:
        require_sample(raw.sample_submission, split_rows(examples, "test").index, SPEC)


def _own_table(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.config.table import TableConfig
    from kaggle_pipeline.data.examples import validate_examples
    from kaggle_pipeline.datasets.table import table_spec

    (folder / "t.csv").write_bytes(content)
    table = TableConfig(
        train="t.csv", image="photo", target="what", split="part", images=None, group="who",
        numeric=("age",), categorical=("site",), weight="weight",
    )  # fmt: skip
    spec = table_spec(table, None, folder, drop=False)
    validate_examples(spec.read_raw(folder).examples, spec)


def _submission(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.data.submission import check_submission, read_submission
    from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
    from kaggle_pipeline.stages.score_submission import score_submission

    given, sample = folder / "submission.csv", folder / "sample.csv"
    given.write_bytes(content)
    sample.write_bytes(_SAMPLE)
    with suppress(PipelineError):  # the other readers of the same file are asked too
        score_submission(given, sample, seed=0)
    check_submission(read_submission(given, SPEC), SPEC, read_submission(sample, SPEC))


def _kept(folder: Path, content: bytes) -> None:
    """Tables that a run keeps: the first line says which."""
    from kaggle_pipeline.data.examples import read_examples
    from kaggle_pipeline.data.folds import Folds
    from kaggle_pipeline.data.predictions import Predictions
    from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
    from kaggle_pipeline.records.tfrecords import read_index

    first, _, rest = content.partition(b"\n")
    prepared = folder / "prepare"
    prepared.mkdir(exist_ok=True)
    name = {b"#folds": "folds", b"#examples": "examples", b"#records": "records"}.get(first, "oof")
    path = prepared / f"{name}.csv"
    path.write_bytes(rest)
    if name == "folds":
        Folds.read(path)
    elif name == "examples":
        read_examples(path, SPEC)
    elif name == "records":
        read_index(folder)
    else:
        Predictions.read(path, ("target",))


def _shard(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
    from kaggle_pipeline.records.tfrecords import index_records, list_shards

    first, _, rest = content.partition(b"\n")
    path = folder / "train00-1.tfrec" if first == b"#record" else folder / "train00-2.tfrec"
    for stale in folder.glob("*.tfrec"):
        stale.unlink()
    if first == b"#record":  # behind sums that are right
        _write_shard(path, [rest])
    else:
        path.write_bytes(content)
    for _ in index_records(list_shards(folder), SPEC):
        pass


def _write_shard(path: Path, payloads: list[bytes]) -> None:
    from kaggle_pipeline.core.engine import import_tensorflow

    with import_tensorflow().io.TFRecordWriter(str(path)) as writer:
        for payload in payloads:
            writer.write(payload)


def _shards() -> list[bytes]:
    import tempfile

    import pandas as pd

    from kaggle_pipeline.datasets.siim_isic_2020 import SPEC
    from kaggle_pipeline.records.tfrecords import encode_record

    row = pd.Series({"group_id": "p", "sex": "male", "age_years": 50.0, "target": 1.0})
    payloads = [encode_record(identity, row, _photo("JPEG"), SPEC) for identity in ("a", "b")]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "both"
        _write_shard(path, payloads)
        return [path.read_bytes(), b"#record\n" + payloads[0]]


def _upload(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.core.photos import decode_image
    from kaggle_pipeline.webapp.upload import open_upload

    class Here:
        """Decodes in this process, where coverage is seen."""

        def decode(self, content: bytes) -> object:
            return decode_image(content, "photo", max_pixels=10**6)

    open_upload("photo", content, Here())


def _photo_file(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.core.photos import image_size_px, read_image

    path = folder / "photo"
    path.write_bytes(content)
    with suppress(PipelineError):
        image_size_px(path)
    read_image(path, smallest_side_px=32)


def _photo(kind: str, **options: object) -> bytes:
    import numpy as np
    from PIL import Image

    steps = np.add.outer(np.arange(48), np.arange(40)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(np.stack([steps, steps[::-1], 255 - steps], -1)).save(buffer, kind, **options)
    return buffer.getvalue()


def _photos() -> list[bytes]:
    kinds = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
    return [*(_photo(kind) for kind in kinds), _photo("JPEG", progressive=True)]


def _dicom(folder: Path, content: bytes) -> None:
    from kaggle_pipeline.core.photos import read_image

    path = folder / "photo.dcm"
    path.write_bytes(content)
    read_image(path)


def _dicoms() -> list[bytes]:
    import numpy as np
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.encaps import encapsulate

    found = []
    for syntax, packed in (("1.2.840.10008.1.2.1", None), ("1.2.840.10008.1.2.4.50", "JPEG")):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = "1.2.3", syntax
        one = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
        one.Rows, one.Columns, one.SamplesPerPixel = 48, 40, 3
        one.PhotometricInterpretation = "YBR_FULL_422" if packed else "RGB"
        one.PlanarConfiguration = one.PixelRepresentation = 0
        one.BitsAllocated = one.BitsStored = 8
        one.HighBit = 7
        plain = np.full((48, 40, 3), 90, np.uint8).tobytes()
        one.PixelData = encapsulate([_photo(packed)]) if packed else plain
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, one, enforce_file_format=True)
        found.append(buffer.getvalue())
    return found


_HEAD = b"image_name,patient_id,sex,age_approx,anatom_site_general_challenge"
_TRAIN = _HEAD + b",diagnosis,target\n" + b"".join(
    b"ISIC_%d,IP_%d,%s,%d,torso,nevus,%d\n" % (i, i // 2, b"male" if i % 2 else b"female", 5 * i,
                                               i % 2) for i in range(8)
)  # fmt: skip
_TEST = _HEAD + b"\nISIC_20,IP_9,male,50,torso\nISIC_21,IP_9,,,\n"
_SAMPLE = b"image_name,target\nISIC_20,0\nISIC_21,1\n"
_TABLE = b"photo,what,part,who,age,site,weight\n" + b"".join(
    b"p%d,%d,%s,w%d,%d years,%s,1.5\n" % (i, i % 2, b"test" if i > 7 else b"train", i // 2, 40 + i,
                                          b"arm" if i % 3 else b"leg") for i in range(10)
)  # fmt: skip
_KEPT = [
    b"#oof\nimage_id,target,fold,split\na,0.5,0,oof\nb,0.25,1,oof\n",
    b"#folds\nimage_id,group_id,fold\na,p,0\nb,q,1\n",
    b"#examples\nimage_id,group_id,split,image_path,target,age_years,sex,site\n"
    b"a,p,train,a.jpg,1,50,male,torso\nb,q,test,,,,,\n",
    b"#records\nimage_id,folder,shard,target\na,records,train00-1.tfrec,0\n",
]
_CELLS = (b",", b";", b"\t", b'"', b"\n", b"\r\n", b"nan", b"inf", b"-1", b"1e400", b"true", b"0x1",
          b"99999999999999999999", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\0", b"=1+1",
          b"2020-01-01", b"image_id", b"train", b"\xe2\x80\xa8")  # fmt: skip
_SIGNS = (b": ", b"- ", b"{", b"}", b"[", b"]", b"&a ", b"*a", b"<<: ", b"!!int ",
          b"!!python/name:os",
          b"2020-01-01", b"1:30", b"1e400", b"0x1f", b"? ", b"|\n", b"# ", b"'", b'"', b"\t", b"~",
          b"\xff", b"\xe2\x80\xa8", b"null", b"true", b".nan", b"image:", b"folds:", b"=", b".",
          b"9" * 30)  # fmt: skip
_SETTINGS = [
    b"image.epochs=3", b"image.augment.zoom=0.25", b"tabular.hidden=[8, 4]",
    b"folds={holdout: 0.3}",
    b"blend.models=[image,tabular]", b"image.weights=null", b"folds.k=2\0image.epochs=1",
    b"image.backbone_options={alpha: 1}", b"external=[{}]", b"embedding.encoders=[a]",
]  # fmt: skip
_TABLES = ("core.tables", "data.examples", "data.submission", "datasets.siim_isic_2020")

READERS = {
    "yaml": Reader(_experiment, _configs, ("config.loading", "config.experiment", "config.image"),
                   _SIGNS),
    "set": Reader(_setting, lambda: _SETTINGS, ("config.loading", "config.experiment"), _SIGNS),
    "competition": Reader(
        _competition, lambda: [_TRAIN, b"#test\n" + _TEST, b"#sample\n" + _SAMPLE], _TABLES, _CELLS
    ),
    "own_table": Reader(
        _own_table, lambda: [_TABLE, _TABLE.replace(b",", b";")],
        ("core.tables", "datasets.table", "datasets.table_columns", "data.examples"), _CELLS,
    ),
    "kept": Reader(
        _kept, lambda: _KEPT, ("core.tables", "data.folds", "data.predictions"), _CELLS
    ),
    "submission": Reader(
        _submission, lambda: [_SAMPLE], ("core.tables", "data.submission"), _CELLS
    ),
    "shard": Reader(_shard, _shards, ("records.tfrecords", "core.photo_kinds")),
    "upload": Reader(_upload, _photos, ("webapp.upload", "core.photos", "core.photo_kinds")),
    "photo": Reader(_photo_file, _photos, ("core.photos", "core.photo_kinds")),
    "dicom": Reader(_dicom, _dicoms, ("core.photos", "core.photo_kinds")),
}  # fmt: skip


def corpus(name: str) -> list[bytes]:
    """Return the kept files of a reader, and its well-formed ones."""
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    return [*READERS[name].seeds(), *kept]
