"""What X and y of scikit-learn's manner hold: pixels of images, and labels of which some are missing.

Letters   N samples, H W pixels, C channels, K classes.
"""

from typing import Any, NamedTuple

import numpy
import torch
from sklearn.utils import column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor

UNLABELLED = -1


class Labels(NamedTuple):
    """`numbers` Int64[N] in 0..K-1, -1 where unlabelled; `classes` [K], what they stand for, in their order."""

    numbers: Tensor
    classes: numpy.ndarray


def read_labels(y: Any) -> Labels:
    """Labels of any kind; -1, also written as a string, is unlabelled.

    Raises:
        ValueError: nothing is labelled, all labels are one class, or labels are no classes; y's values are named.
    """
    y = column_or_1d(y, warn=True)
    missing = numpy.array([is_missing(label) for label in y], dtype=bool) if y.dtype.kind in "OUS" else y == UNLABELLED
    known = y[~missing]
    if not len(known):
        raise ValueError(
            f"y holds no label: all {len(y)} entries are -1, which is unlabelled. Label at least one sample of each class."
        )
    try:
        check_classification_targets(known)
        classes, numbers = numpy.unique(known, return_inverse=True)
    except TypeError as error:
        kinds = sorted({type(label).__name__ for label in known})
        raise ValueError(
            f"y holds labels of several kinds ({', '.join(kinds)}), which have no order. Use one kind; -1 beside strings is "
            "taken as unlabelled."
        ) from error
    if len(classes) == 1:
        raise ValueError(
            f"y names one class, {classes.tolist()[0]!r}, and nothing to tell it from; -1 is unlabelled and no class. Give labels of "
            "two classes or more."
        )
    places = torch.full((len(y),), UNLABELLED, dtype=torch.int64)
    places[torch.from_numpy(~missing)] = torch.from_numpy(numbers.astype(numpy.int64))
    return Labels(places, classes)


def is_missing(label: Any) -> bool:
    """Whether an entry among strings or objects says that there is no label."""
    return label in ("-1", b"-1") if isinstance(label, str | bytes) else bool(label == UNLABELLED)


def is_images(X: Any) -> bool:
    """Whether X has three or four axes."""
    return len(X.shape if hasattr(X, "shape") else numpy.asarray(X).shape) in (3, 4)


def read_images(X: Any) -> Tensor:
    """UInt8[N C H W] of images [N H W] or [N H W C], uint8 or other numbers from 0 to 255, or floats from 0 to 1.

    Raises:
        ValueError: the shape or the range is another; it is named, with the mend.
    """
    pixels = numpy.asarray(X)
    shape = pixels.shape
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.shape[-1] not in (1, 3):
        raise ValueError(
            f"X has shape {shape}. Images are (n, H, W) or (n, H, W, C) with C 1 or 3, the channels last; vectors "
            "are (n, features)."
        )
    if not len(pixels):
        raise ValueError(f"Found array with 0 sample(s) (shape={shape}) while a minimum of 1 is required.")
    if pixels.dtype.kind not in "buif":
        raise ValueError(f"X holds {pixels.dtype}. Images are numbers: uint8 from 0 to 255, or floats from 0 to 1.")
    if pixels.dtype != numpy.uint8:
        low, high, whole = float(pixels.min()), float(pixels.max()), pixels.dtype.kind in "bui"
        if not (low >= 0 and high <= (255 if whole else 1)):
            raise ValueError(
                f"X holds {pixels.dtype} from {low:g} to {high:g}. Images are whole numbers from 0 to 255 or floats from 0 to "
                "1; scale them, such as X / X.max()."
            )
        pixels = (pixels if whole else numpy.rint(255.0 * pixels)).astype(numpy.uint8)
    channels_first = torch.tensor(pixels).permute(0, 3, 1, 2)
    # Into new memory: with one channel any strides count as contiguous, and by them a convolution chooses how it sums.
    return torch.empty(channels_first.shape, dtype=torch.uint8).copy_(channels_first)
