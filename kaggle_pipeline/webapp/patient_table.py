"""A patient's readings as a table to keep.

In: readings and their comparison. Out: CSV.
"""

from collections.abc import Sequence

import pandas as pd

from kaggle_pipeline import DISCLAIMER
from kaggle_pipeline.webapp.service import Reading

_FORMULA = ("=", "+", "-", "@")


def patient_csv(readings: Sequence[Reading], table: pd.DataFrame, name: str) -> str:
    """Return a patient's lesions as CSV, the most suspicious first.

    Parameters
    ----------
    readings : sequence of Reading
    table : pandas.DataFrame
        Of ``service.compare``.
    name : str
        The class it is ranked by.

    Returns
    -------
    str
        The columns of the table, then every class and what each model of the blend says of
        ``name``; the last column says what it is not.
    """
    rows = table.assign(ranked_by=name)
    # A spreadsheet would run a name that begins like a formula.
    rows["file"] = [f"'{one}" if one.startswith(_FORMULA) else one for one in rows["file"]]
    chosen = [readings[position] for position in table.index]
    for one in readings[0].probability.index if readings else ():
        rows[f"probability_{one}"] = [reading.probability[one] for reading in chosen]
    for part in readings[0].parts if readings else ():
        rows[f"{part}_{name}"] = [reading.parts[part][name] for reading in chosen]
    return rows.assign(note=DISCLAIMER).to_csv(index=False)
