"""Rows whose photo is missing or cannot be read: a stop, or left out and counted.

In: examples, and why single photos cannot be read. Out: the examples that stay, and a finding.
"""

from collections.abc import Collection, Mapping

import pandas as pd

from kaggle_pipeline.config.names import LEAVE_OUT, NEEDED
from kaggle_pipeline.core.errors import PipelineError
from kaggle_pipeline.leakage.audit import Finding

_NAMED = 3
"""Photos that are left out and named on the console; ``leakage.json`` has more."""


def drop_unreadable(
    examples: pd.DataFrame,
    faults: Mapping[str, str],
    drop: bool,
    listed: Collection[str] = (),
) -> tuple[pd.DataFrame, list[Finding]]:
    """Return the examples whose photo can be read, and what was left out, if anything.

    Parameters
    ----------
    examples : pandas.DataFrame
        A row without an image path counts as missing where others have one.
    faults : mapping of str to str
        Image id → why its photo cannot be read; further ids are ignored.
    drop : bool
        Leave them out; else the first is an error.
    listed : collection of str
        Ids of the sample submission, whose photos have to be read.

    Raises
    ------
    PipelineError
        That names the first file and how many there are.
    """
    here = [one for one in faults if one in examples.index]
    if needed := [one for one in here if one in listed]:
        raise PipelineError(f"{faults[needed[0]]}: mend it: {NEEDED}")
    if here and not drop:
        more = f" ({len(here)} of {len(examples)} photos)" if len(here) > 1 else ""
        raise PipelineError(
            f"{faults[here[0]]}{more}: mend it, or leave such rows out by {LEAVE_OUT}"
        )
    known = examples["image_path"].notna()
    missing = list(examples.index[~known]) if known.any() and drop else []
    if not here and not missing:
        return examples, []
    gone = pd.Index([*missing, *here])
    split = examples.loc[gone, "split"]
    detail = (
        f"{len(gone)} rows left out, {int((split == 'test').sum())} of them of the test part: "
        f"{len(missing)} photos are not there, {len(here)} cannot be read: "
        f"{', '.join(map(str, gone[:_NAMED]))}{', …' if len(gone) > _NAMED else ''}"
    )
    finding = Finding("photos that cannot be read", "note", detail, list(map(str, gone[:10])))
    return examples.drop(gone), [finding]
