"""The table of backbones that ``list_backbones`` prints."""

from collections.abc import Sequence


def describe_backbones(names: Sequence[str], image_size_px: int) -> str:
    """Return parameters, input range and output shape of backbones as a table.

    Parameters
    ----------
    names : sequence of str
        Empty for all.
    image_size_px : int
        Side of the image that the output shape is of.
    """
    from kaggle_pipeline.hardware.accelerator import choose_accelerator

    choose_accelerator("cpu")  # a table needs no more
    from kaggle_pipeline.models.image.backbones.registry import backbone_table

    return backbone_table(names or None, image_size_px).to_string()
