"""What stands written in a figure."""

from matplotlib.axes import Axes


def written(axes: Axes) -> list[str]:
    """All words that stand in the axes beside its ticks."""
    return [text.get_text() for text in axes.texts]
