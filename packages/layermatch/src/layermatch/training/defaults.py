"""Settings that hang on others where a person says nothing, the same for every way of training a whole model."""

import torch

from .schedule import half_life_momentum

UNLABELLED_RATIO = 7
ONE_VIEW_RATIO = 1  # of pseudolabel, as in USB
VISITED = ("temporal", "teacher", "none", None)  # readings whose momentum is not one of centres per step
LARGEST_SIDE_OF_ONE_THREAD = 16


def default_unlabelled_ratio(method: str) -> int:
    """Unlabelled samples for each labelled one."""
    return ONE_VIEW_RATIO if method == "pseudolabel" else UNLABELLED_RATIO


def default_momentum(method: str, avg_clustering: str | None, *, steps: int) -> float | None:
    """Of the averaged centres; None where there is none, or the reading's own default is meant."""
    if method != "layermatch" or avg_clustering in VISITED:
        return None
    return half_life_momentum(steps)


def default_threads(model: str, side: int) -> int:
    """Torch's threads: one where the layers are too small to be shared, else torch's own choice.

    Args:
        model: its name in the commands.
        side: the longer one of the images, in pixels.
    """
    return 1 if model == "small" and side <= LARGEST_SIDE_OF_ONE_THREAD else torch.get_num_threads()
