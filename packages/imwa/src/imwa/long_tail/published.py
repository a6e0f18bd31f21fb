"""The long-tailed subsets of CIFAR that the field shares: which images, not only how many.

Counts    n_k = int(n_max (1 / rho) ** (k / (K - 1))), class order = label order (Cao et al. 2019, arXiv 1906.07413).
Images    numpy's legacy generator seeded 0; for classes in ascending order the class's positions are shuffled in place and
          the first n_k taken. This generator is that of the published lists: no seed of ours enters.
Profiles  labelled and unlabelled part of the semi-supervised protocols: the first N_k positions of a class are labelled, the
          next M_k unlabelled (DARP, arXiv 2007.08844; ABC, NeurIPS 2021).
Shares    CReST (arXiv 2102.09559): ceil(share n_k) of each class of the long-tailed subset are labelled, the whole subset is
          unlabelled. Which of a class's images are labelled is ours: the first of the subset.
Letters   N training samples, K classes.
"""

from fractions import Fraction
from math import ceil

import numpy as np
import torch
from torch import Tensor

from scarce_common_utils.errors import UserError
from scarce_common_utils.subsets import long_tail_counts

PUBLISHED_SEED = 0


def published_long_tail(labels: Tensor, imbalance: float, *, classes: int) -> Tensor:
    """Positions of the published long-tailed subset, class by class in label order.

    Args:
        labels: Int64[N] on the CPU, of the whole training set in its own order, each in 0..K-1.
        imbalance: rho, largest over smallest class, at least 1.
        classes: K.

    Returns:
        Int64[sum n_k]; n_max is N / K.

    Raises:
        UserError: a class has fewer samples than its count; the class and both numbers are named.
        ValueError: `imbalance` is below 1, or `classes` below 2.
    """
    counts = long_tail_counts(len(labels) // classes, classes, imbalance=imbalance)
    shuffled = _shuffled_positions(labels, classes)
    for number, (positions, count) in enumerate(zip(shuffled, counts, strict=True)):
        if len(positions) < count:
            raise UserError(
                f"Class {number} has {len(positions)} images, and the published subset of imbalance {imbalance:g} takes "
                f"{count}. Give the whole training set, every class of the same size."
            )
    return torch.cat([positions[:count] for positions, count in zip(shuffled, counts, strict=True)])


def semi_supervised_profile(
    labels: Tensor,
    *,
    labelled: int,
    unlabelled: int,
    imbalance: float,
    unlabelled_imbalance: float,
    reverse: bool = False,
    classes: int,
    generator: torch.Generator | None,
) -> tuple[Tensor, Tensor]:
    """Positions of a labelled and a disjoint unlabelled long-tailed subset.

    Args:
        labels: Int64[N] on the CPU, of the whole training set.
        labelled: N_1, labelled samples of the most frequent class.
        unlabelled: M_1, unlabelled samples of the most frequent class.
        imbalance: rho of the labelled part, at least 1.
        unlabelled_imbalance: rho of the unlabelled part, at least 1.
        reverse: the unlabelled part is most frequent where the labelled one is rarest.
        classes: K.
        generator: CPU generator, such as `stream(seed, "split", "long tail")`; the images of a class are shuffled by it.
            None takes them in their own order, as DARP's and ABC's codes do.

    Returns:
        Int64[sum N_k] and Int64[sum M_k], class by class, without a common position.

    Raises:
        UserError: a class has fewer samples than both parts need; the class and the numbers are named.
    """
    first = long_tail_counts(labelled, classes, imbalance=imbalance)
    second = long_tail_counts(unlabelled, classes, imbalance=unlabelled_imbalance)
    if reverse:
        second.reverse()
    taken, rest = [], []
    for number, (n, m) in enumerate(zip(first, second, strict=True)):
        members = (labels == number).nonzero().flatten()
        if len(members) < n + m:
            raise UserError(
                f"Class {number} has {len(members)} images, and the profile takes {n} labelled and {m} unlabelled ones. "
                "Choose smaller parts."
            )
        if generator is not None:
            members = members[torch.randperm(len(members), generator=generator)]
        taken.append(members[:n])
        rest.append(members[n : n + m])
    return torch.cat(taken), torch.cat(rest)


def labelled_share(labels: Tensor, imbalance: float, *, share: float, classes: int) -> tuple[Tensor, Tensor]:
    """Positions of the labelled part of the published long-tailed subset, and of the whole subset (CReST's protocol).

    Args:
        labels: Int64[N] on the CPU, of the whole training set.
        imbalance: rho of the subset, at least 1.
        share: of each class that is labelled, above 0 and at most 1; rounded up to whole images.
        classes: K.

    Returns:
        Int64[sum ceil(share n_k)] and Int64[sum n_k], class by class; the first is a part of the second.

    Raises:
        ValueError: `share` is out of range; it is named.
        UserError: as `published_long_tail`.
    """
    if not 0.0 < share <= 1.0:
        raise ValueError(f"share is {share}. Choose a share of the images above 0 and at most 1, such as 0.1.")
    whole = published_long_tail(labels, imbalance, classes=classes)
    counts = torch.bincount(labels[whole], minlength=classes).tolist()
    exact = Fraction(str(share))  # 0.1 of 1,000 is 100 images, not 101
    parts = [members[: ceil(exact * len(members))] for members in whole.split(counts)]
    return torch.cat(parts), whole


def _shuffled_positions(labels: Tensor, classes: int) -> list[Tensor]:
    generator = np.random.RandomState(PUBLISHED_SEED)
    found = []
    for number in range(classes):
        positions = (labels == number).nonzero().flatten().numpy()
        generator.shuffle(positions)
        found.append(torch.from_numpy(positions))
    return found
