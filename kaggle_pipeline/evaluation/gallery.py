"""Photos that show what a model finds, what it takes for it, and what it misses.

In: out-of-fold predictions and the photos. Out: ``gallery.json`` and thumbnails beside it, without
a patient's id. Photos of one patient (or lesion) stand there once a row.
"""

from pathlib import Path

import pandas as pd
from PIL import Image

from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.core.files import atomic_path, write_json
from kaggle_pipeline.core.photos import read_image
from kaggle_pipeline.data.predictions import Predictions
from kaggle_pipeline.data.spec import DatasetSpec

FILE = "gallery.json"
SHOWN = 5
"""Photos a row."""
THUMBNAIL_PX = 256
"""Twice what a page shows, for screens with fine pixels."""
_KINDS = ("found", "false_alarm", "missed")


def write_gallery(
    folder: Path, examples: pd.DataFrame, oof: Predictions, spec: DatasetSpec, data_dir: Path
) -> Path:
    """Write thumbnails of the photos that say most about a stage, and what is written about them.

    Of the data set's main class: the highest scores among its photos (found), the highest among
    the others (false alarms), and its photos with the lowest scores (missed).

    Parameters
    ----------
    folder : pathlib.Path
        Of the stage; gets ``gallery.json`` and ``gallery/``.
    examples : pandas.DataFrame
    oof : Predictions
        Out of fold.
    spec : DatasetSpec
    data_dir : pathlib.Path
        Where ``image_path`` begins. A photo that is not there, or cannot be read, is passed over
        for the next one and counted: a picture for the report must not end a run.
    """
    name = spec.main_class
    scores = oof.probabilities[name]
    rows = examples.loc[scores.index, ["group_id", "image_path", *spec.classes]]
    rows = rows.assign(score=scores, place=scores.rank(ascending=False, method="min").astype(int))
    shown, passed_over = [], 0
    for kind in _KINDS:
        count = 0
        for row in _candidates(rows, kind, name).itertuples():
            if count == SHOWN:
                break
            file = f"gallery/{kind}{count + 1}.jpg"
            if not _write_thumbnail(data_dir, row.image_path, folder / file):
                passed_over += 1
                continue
            count += 1
            of = [one for one in spec.classes if rows.at[row.Index, one] == 1]
            shown.append({"kind": kind, "image_id": row.Index, "file": file, "classes": of,
                          "score": float(row.score), "place": int(row.place)})  # fmt: skip
    content = {"class": name, "n": len(rows), "photos": shown, "passed_over": passed_over}
    write_json(folder / FILE, content)
    return folder / FILE


def _candidates(rows: pd.DataFrame, kind: str, name: str) -> pd.DataFrame:
    """Rows of a kind, the most telling first, one a group; no row is both found and missed."""
    positive = rows[rows[name] == 1].sort_values(["score"], ascending=False, kind="stable")
    if kind == "false_alarm":
        chosen = rows[rows[name] == 0].sort_values(["score"], ascending=False, kind="stable")
    elif kind == "found":
        chosen = positive.iloc[: -(-len(positive) // 2)]
    else:
        chosen = positive.iloc[-(-len(positive) // 2) :][::-1]
    chosen = chosen[chosen["image_path"].notna()]
    # Beyond a few photos that cannot be read there is no folder of photos here.
    return chosen.drop_duplicates("group_id").head(4 * SHOWN)


def _write_thumbnail(data_dir: Path, image_path: str, path: Path) -> bool:
    """Write the middle square of a photo, small; return whether it could be read."""
    try:
        photo = read_image(Path(data_dir) / image_path, smallest_side_px=THUMBNAIL_PX)
    except (PipelineError, OSError):
        return False
    side = min(photo.size)
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    square = photo.crop((left, top, left + side, top + side))
    square.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    with atomic_path(path) as temporary:
        square.convert("RGB").save(temporary, "JPEG", quality=82)
    return True
