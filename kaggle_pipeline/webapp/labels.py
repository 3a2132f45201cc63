"""Words and numbers as the page writes them.

In: names of classes, features and models, shares. Out: text for a person.
"""

from collections.abc import Sequence

from kaggle_pipeline.report.report import STAGE_TITLES

_CLASSES = {
    "target": "melanoma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis or Bowen’s disease",
    "ak": "actinic keratosis",
    "scc": "squamous cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
}
_FEATURES = {"age_years": "age in years"}
_MELANOMA = ("target", "mel", "melanoma")


def class_label(name: str) -> str:
    """Return what a class column is called in words."""
    return _CLASSES.get(name.lower(), name.replace("_", " "))


def feature_label(name: str) -> str:
    """Return what a feature is called in words."""
    return _FEATURES.get(name, name.replace("_", " "))


def part_label(name: str) -> str:
    """Return what a model of the blend is called in words."""
    return STAGE_TITLES.get(name, name)


def first_class(classes: Sequence[str]) -> str:
    """Return the class to begin with: melanoma, where there is one."""
    return next((name for name in classes if name.lower() in _MELANOMA), classes[0])


def percent(share: float) -> str:
    """Return a share as text, its sign kept on the number's line.

    Examples
    --------
    >>> [percent(share).replace(chr(160), " ") for share in (0.0002, 0.0312, 0.4567, 0.9996)]
    ['under 0.1 %', '3.1 %', '46 %', 'over 99.9 %']
    """
    if share < 0.001:
        text = "under 0.1"
    elif share > 0.999:
        text = "over 99.9"
    else:
        text = f"{100 * share:.1f}" if share < 0.0995 or share > 0.99 else f"{100 * share:.0f}"
    return text + "\N{NO-BREAK SPACE}%"
