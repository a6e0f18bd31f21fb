"""Strong view: the weak one, then RandAugment, then Cutout; in which form and order, by name.

    "usb"               weak, 3 operations always, Cutout of up to half the side in (125, 123, 114)
    "torchssl"          the same operations and Cutout before the weak view's crop and mirroring
    "fixmatch-pytorch"  weak, 2 operations each with probability 0.5, Cutout of half the side in 127

What is drawn (`strong_draws`, on the CPU, a pure function of the generator) stands apart from its application.

Source    code of USB, TorchSSL and FixMatch-pytorch; the operations in `randaugment.py`, the squares in `cutout.py`. USB's
          and TorchSSL's call `uniform(W)` draws Cutout's centre from (1, W]; here it is [0, W), as meant.
Letters   N images, C channels, H W pixels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from . import cutout, randaugment
from .cutout import CutoutForm, cut_out, cutout_boxes
from .randaugment import AugmentDraws, AugmentForm, augment_draws, augmented
from .weak import WeakDraws, apply_weak, part_of, weak_draws


class StrongForm(NamedTuple):
    """What a strong view is made of; `weak_last` puts the crop and the mirroring behind the rest."""

    augment: AugmentForm = randaugment.USB
    cutout: CutoutForm = cutout.USB
    weak_last: bool = False


FORMS: Mapping[str, StrongForm] = {
    "usb": StrongForm(),
    "torchssl": StrongForm(weak_last=True),
    "fixmatch-pytorch": StrongForm(randaugment.FIXMATCH_PYTORCH, cutout.FIXMATCH_PYTORCH),
}


class StrongDraws(NamedTuple):
    """What `count` images get, on the CPU; `boxes` Int64[N 4] as `cutout.cutout_boxes` gives them."""

    weak: WeakDraws
    augment: AugmentDraws
    boxes: Tensor


def strong_views(
    images: Tensor,
    *,
    generator: torch.Generator,
    shift: int,
    mirror: bool,
    form: str | StrongForm = "usb",
    part: tuple[int, int] = (0, 1),
) -> Tensor:
    """UInt8[N C H W] -> UInt8[N C H W], each image with draws of its own.

    Args:
        images: UInt8[N C H W] with C 1 or 3, on any device.
        generator: of the CPU, such as `stream(seed, "strong", step)`; the same draws on every device.
        shift: as in `weak_views`, pixels.
        mirror: as in `weak_views`.
        form: a name out of `FORMS`, or a form of one's own.
        part: as in `weak_views`: which of how many equal parts of the whole batch these images are.

    Raises:
        ValueError: as `weak_views`; an unknown form, or another number of channels.
    """
    chosen = _form(form)
    if images.shape[1] not in (1, 3):
        raise ValueError(f"The images have {images.shape[1]} channels. Strong views take 1 (grey) or 3 (RGB).")
    size = (images.shape[-2], images.shape[-1])
    draws = strong_draws(
        len(images), generator=generator, size=size, shift=shift, mirror=mirror, form=chosen, part=part
    )
    return apply_strong(images, draws, form=chosen)


def strong_draws(
    count: int,
    *,
    generator: torch.Generator,
    size: tuple[int, int],
    shift: int,
    mirror: bool,
    form: str | StrongForm = "usb",
    part: tuple[int, int] = (0, 1),
) -> StrongDraws:
    """Draw for `count` images of `size` (H, W)."""
    chosen = _form(form)
    own, total = part_of(count, part)
    weak = weak_draws(total, generator=generator, shift=shift, mirror=mirror)
    augment = augment_draws(total, generator=generator, size=size, form=chosen.augment)
    uniform = torch.rand(3, total, generator=generator, dtype=torch.float64)
    return StrongDraws(
        WeakDraws(*(each[own] for each in weak)),
        AugmentDraws(*(each[:, own] for each in augment)),
        cutout_boxes(uniform[:, own], size=size, form=chosen.cutout),
    )


def apply_strong(images: Tensor, draws: StrongDraws, *, form: str | StrongForm = "usb") -> Tensor:
    """What `strong_draws` drew for the same form, done to UInt8[N C H W]."""
    chosen = _form(form)
    if not chosen.weak_last:
        images = apply_weak(images, draws.weak)
    images = cut_out(augmented(images, draws.augment), draws.boxes, form=chosen.cutout)
    return apply_weak(images, draws.weak) if chosen.weak_last else images


def _form(form: str | StrongForm) -> StrongForm:
    if isinstance(form, StrongForm):
        return form
    if form not in FORMS:
        raise ValueError(f"The form is {form!r}, which is not known here. Choose one of {', '.join(FORMS)}.")
    return FORMS[form]
