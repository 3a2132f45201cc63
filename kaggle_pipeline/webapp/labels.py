"""Words and numbers as the page writes them.

In: names of models, shares. Out: text for a person.
"""

from kaggle_pipeline.report.results import STAGE_TITLES


def part_label(name: str) -> str:
    """Return what a model of the blend is called in words."""
    return STAGE_TITLES.get(name, name)


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
