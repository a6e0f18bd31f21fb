"""From labels to the indices of a few-label or long-tailed subset.

Long tail (Cui et al. 2019; the counts of the LDAM-DRW code): n_k = int(n_max · (1/ρ)^(k/(K-1))), k = 0..K-1, truncated
towards zero. K classes, N labels, ρ the imbalance, largest over smallest class.
"""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from scarce_common_utils.errors import UserError


def few_labels(
    labels: Tensor,
    per_class: int,
    *,
    generator: torch.Generator,
    class_names: Sequence[str],
    place: str = "the training images",
) -> Tensor:
    """Indices of `per_class` labelled samples of each class, drawn without replacement.

    Args:
        labels: Int64[N] on the CPU; -1 marks a sample without a label, which is never drawn.
        per_class: labels of each class, at least 1.
        generator: CPU generator, such as `stream(seed, "split")`.
        class_names: K names.
        place: where the samples are, for the error.

    Returns:
        Int64[K · per_class], sorted by class, then as drawn.

    Raises:
        UserError: a class has fewer samples than that; the class, both numbers and the place are named.
    """
    if per_class < 1:
        raise UserError(f"labels_per_class is {per_class}; it must be at least 1.")
    chosen = []
    for number, name in enumerate(class_names):
        members = (labels == number).nonzero().flatten()
        if len(members) < per_class:
            raise UserError(
                f"labels_per_class is {per_class}, but class {name!r} has {len(members)} images in {place}. "
                f"Choose {len(members)} or fewer, or add images."
                if len(members)
                else f"Class {name!r} has no labelled image in {place}. Add images, or leave the class out."
            )
        chosen.append(members[torch.randperm(len(members), generator=generator)[:per_class]])
    return torch.cat(chosen)


def long_tail_counts(largest: int, classes: int, *, imbalance: float) -> list[int]:
    """Class sizes n_k of a long tail (module docstring), largest first.

    Args:
        largest: size of the largest class, at least 1.
        classes: K, at least 2.
        imbalance: ρ, at least 1; 1 gives equal sizes.

    Raises:
        ValueError: a value is out of range; it is named.
    """
    if largest < 1 or classes < 2:
        raise ValueError(f"A long tail needs a largest class of at least 1 and 2 classes, not {largest} and {classes}.")
    if not imbalance >= 1:
        raise ValueError(f"imbalance is {imbalance}; it is the largest over the smallest class, so at least 1.")
    counts = [int(largest * (1 / imbalance) ** (k / (classes - 1))) for k in range(classes)]
    # The last class is n_max / ρ exactly; in floating point its power can fall just below a whole number.
    counts[-1] = int(Fraction(largest) / Fraction(imbalance))
    return counts


def long_tail(
    labels: Tensor,
    imbalance: float,
    *,
    generator: torch.Generator,
    class_names: Sequence[str],
    order: Sequence[int] | None = None,
) -> Tensor:
    """Indices of a long-tailed subset of labelled samples.

    The counts are those of `long_tail_counts` for the size of the smallest class of the data, so that every class can
    give its share whatever its rank.

    Args:
        labels: Int64[N] on the CPU; -1 (no label) is never drawn.
        imbalance: ρ, at least 1.
        generator: CPU generator, such as `stream(seed, "split")`.
        class_names: K names.
        order: classes from the most to the least frequent; None is the order of the labels (LDAM-DRW's).

    Returns:
        Int64[sum n_k], class by class in `order`.

    Raises:
        UserError: a class would be left without a sample; the class and the mend are named.
        ValueError: `imbalance` is below 1, or `order` is no permutation of the classes.
    """
    classes = len(class_names)
    ranks = list(range(classes)) if order is None else list(order)
    if sorted(ranks) != list(range(classes)):
        raise ValueError(f"order is {ranks}, which is no permutation of the {classes} classes.")
    members = [(labels == number).nonzero().flatten() for number in range(classes)]
    largest = min(len(indices) for indices in members)
    if largest == 0:
        empty = class_names[[len(indices) for indices in members].index(0)]
        raise UserError(f"Class {empty!r} has no labelled image. Add images, or leave the class out.")
    counts = long_tail_counts(largest, classes, imbalance=imbalance)
    if counts[-1] < 1:
        raise UserError(
            f"imbalance is {imbalance:g}, but the smallest class has {largest} images, so the rarest class would have none. "
            f"Choose {largest} or less."
        )
    chosen = [members[number] for number in ranks]
    return torch.cat(
        [
            indices[torch.randperm(len(indices), generator=generator)[:count]]
            for indices, count in zip(chosen, counts, strict=True)
        ]
    )
