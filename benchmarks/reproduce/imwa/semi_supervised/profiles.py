"""How many labelled and unlabelled images each class has: the field's profiles, and small ones of ours.

    N_k = int(N_1 g_l ** (-k / (K - 1)))      labelled       M_k = int(M_1 g_u ** (-k / (K - 1)))      unlabelled

Source    DARP (arXiv 2007.08844), ABC (NeurIPS 2021), CReST (arXiv 2102.09559); `daso` is usual since DASO (arXiv 2106.05682).
          The first two parts are disjoint, CReST's labelled images are unlabelled ones too. Which of them IMWA's authors use
          is not known to us.
Letters   N labelled, M unlabelled images, K classes, g imbalance (largest over smallest class).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from imwa.long_tail.published import labelled_share, semi_supervised_profile
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream


class Profile(NamedTuple):
    """Counts of both parts.

    Attributes:
        labelled: N_1, of the most frequent class.
        unlabelled: M_1; of `share` profiles not looked at.
        imbalance: g_l.
        unlabelled_imbalance: g_u.
        reverse: the unlabelled part is most frequent where the labelled one is rarest.
        share: CReST's protocol: this share of each class of the long-tailed set of imbalance g_l is labelled.
        classes: K that it was published for; 0 for any.
    """

    labelled: int
    unlabelled: int
    imbalance: float
    unlabelled_imbalance: float
    reverse: bool = False
    share: float | None = None
    classes: int = 10


PUBLISHED: dict[str, Profile] = {
    "darp-50": Profile(1500, 3000, 50, 50),
    "darp-100": Profile(1500, 3000, 100, 100),
    "darp-150": Profile(1500, 3000, 150, 150),
    "darp-100-1": Profile(1500, 3000, 100, 1),
    "darp-100-50": Profile(1500, 3000, 100, 50),
    "darp-100-150": Profile(1500, 3000, 100, 150),
    "darp-100-reversed": Profile(1500, 3000, 100, 100, reverse=True),
    "abc-100": Profile(1000, 4000, 100, 100),
    "daso-100": Profile(500, 4000, 100, 100),
    "daso-150": Profile(500, 4000, 150, 150),
    "crest-50-10": Profile(0, 0, 50, 50, share=0.1),
    "crest-100-10": Profile(0, 0, 100, 100, share=0.1),
    "crest-200-10": Profile(0, 0, 200, 200, share=0.1),
    "crest-50-30": Profile(0, 0, 50, 50, share=0.3),
    "crest-100-30": Profile(0, 0, 100, 100, share=0.3),
    "crest-200-30": Profile(0, 0, 200, 200, share=0.3),
    "darp-cifar100": Profile(300, 150, 20, 20, classes=100),
    "abc-cifar100": Profile(200, 300, 20, 20, classes=100),
}
OURS: dict[str, Profile] = {"digits-10": Profile(40, 90, 10, 10)}
PROFILES = {**OURS, **PUBLISHED}


class Parts(NamedTuple):
    """Positions in the training images: `labelled` Int64[N], `unlabelled` Int64[M]; `ranks`: classes, most frequent first."""

    labelled: Tensor
    unlabelled: Tensor
    ranks: list[int]


def profile_of(text: str) -> Profile:
    """A profile by its name, or from `N1/M1/g_l/g_u`, perhaps with `/reversed` behind.

    Raises:
        UserError: it is neither; the names are given.
    """
    if text in PROFILES:
        return PROFILES[text]
    words = text.split("/")
    reverse = words[-1] == "reversed"
    try:
        labelled, unlabelled, *imbalances = words[: len(words) - reverse]
        first, second = (float(word) for word in imbalances)
        found = Profile(int(labelled), int(unlabelled), first, second, reverse=reverse, classes=0)
    except ValueError as error:
        raise UserError(
            f"--profile is {text!r}. Choose one of {', '.join(PROFILES)}, or write N1/M1/g_l/g_u, such as 150/300/100/100 or "
            "150/300/100/100/reversed."
        ) from error
    if min(found.labelled / first if first >= 1 else 0, found.unlabelled / second if second >= 1 else 0) < 1:
        raise UserError(
            f"--profile is {text!r}: each imbalance must be at least 1 and at most the count before it, so that the rarest class "
            "has an image."
        )
    return found


def draw_parts(profile: Profile, labels: Tensor, *, classes: int, seed: int | None) -> Parts:
    """Which images are labelled and which unlabelled.

    Args:
        profile: counts.
        labels: Int64[N] on the CPU, of all training images.
        classes: K.
        seed: draws images and which class is rare; None takes them as published: rarest last, images in their own order (CReST: as
            in the published long-tailed subset).

    Raises:
        UserError: a class has fewer images than its counts, or K is not the profile's; the numbers are named.
    """
    if profile.classes not in (0, classes):
        raise UserError(
            f"The profile is one of {profile.classes} classes, and the data have {classes}. Choose another --profile."
        )
    ranks = list(range(classes))
    if seed is not None:
        ranks = torch.randperm(classes, generator=stream(seed, "split", "class order")).tolist()
    rank_of = torch.empty(classes + 1, dtype=torch.int64)
    rank_of[torch.tensor([*ranks, classes])] = torch.tensor([*range(classes), -1])
    ranked = rank_of[torch.where(labels < 0, classes, labels)]  # class 0 is now the most frequent one
    if profile.share is not None:
        labelled, unlabelled = labelled_share(ranked, profile.imbalance, share=profile.share, classes=classes)
    else:
        labelled, unlabelled = semi_supervised_profile(
            ranked,
            labelled=profile.labelled,
            unlabelled=profile.unlabelled,
            imbalance=profile.imbalance,
            unlabelled_imbalance=profile.unlabelled_imbalance,
            reverse=profile.reverse,
            classes=classes,
            generator=None if seed is None else stream(seed, "split", "long tail"),
        )
    return Parts(labelled, unlabelled, ranks)
