"""Accuracy of a model by class, and of classes by how often they were seen in training.

Groups    many > 100 training images, medium 20 to 100, few < 20 (classifier-balancing code, arXiv 1910.09217); thirds by
          rank, head / middle / tail, for sets of few classes, where those groups say little (ours).
          A group's accuracy is the mean of its classes' accuracies; an empty group has none.
Letters   N images, C channels, H W pixels, K classes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

IMAGES_AT_ONCE = {"cpu": 128}  # what a core's cache holds of a small net; an accelerator takes more
IMAGES_AT_ONCE_ELSEWHERE = 1024
MANY_ABOVE, FEW_BELOW = 100, 20
MOST_CLASSES_IN_THIRDS = 20


class Evaluation(NamedTuple):
    """`accuracy` in percent over all images; `by_class` K percentages, None for a class without test images."""

    accuracy: float
    by_class: tuple[float | None, ...]


class Images(Protocol):
    """UInt8[N C H W]: a tensor, or what reads parts of images from disk (`reading.py`)."""

    @property
    def device(self) -> torch.device:
        """Where the parts lie."""
        ...

    def split(self, size: int, /) -> Iterable[Tensor]:
        """All images in order, `size` at a time."""
        ...


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Images,
    *,
    labels: Tensor,
    classes: int,
    prepare: Callable[[Tensor], Tensor],
    autocast: AbstractContextManager[Any],
) -> Evaluation:
    """Run the model in eval mode; modes are put back.

    Args:
        model: images -> logits.
        images: UInt8[N C H W], in memory or on disk.
        labels: Int64[N] in 0..K-1, on the model's device.
        classes: K.
        prepare: uint8 images -> what the model takes.
        autocast: context of the forward pass.
    """
    with _in_eval_mode(model), autocast:
        predicted = torch.cat([model(prepare(part)).argmax(1) for part in images.split(_at_once(labels.device))])
    right = torch.bincount(labels[predicted == labels], minlength=classes).tolist()
    all_of = torch.bincount(labels, minlength=classes).tolist()
    by_class = tuple(100.0 * hits / count if count else None for hits, count in zip(right, all_of, strict=True))
    return Evaluation(100.0 * sum(right) / len(labels), by_class)


@torch.no_grad()
def logits_of(
    model: nn.Module, images: Images, *, prepare: Callable[[Tensor], Tensor], autocast: AbstractContextManager[Any]
) -> Tensor:
    """Float[N K] of the model in eval mode, on its device; arguments as of `evaluate`."""
    with _in_eval_mode(model), autocast:
        return torch.cat([model(prepare(part)) for part in images.split(_at_once(images.device))])


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _at_once(device: torch.device) -> int:
    return IMAGES_AT_ONCE.get(device.type, IMAGES_AT_ONCE_ELSEWHERE)


def groups_by_count(counts: Sequence[int]) -> dict[str, list[int]]:
    """Class numbers of many, medium and few, by their training counts."""
    return {
        "many": [k for k, count in enumerate(counts) if count > MANY_ABOVE],
        "medium": [k for k, count in enumerate(counts) if FEW_BELOW <= count <= MANY_ABOVE],
        "few": [k for k, count in enumerate(counts) if count < FEW_BELOW],
    }


def thirds_by_rank(counts: Sequence[int]) -> dict[str, list[int]]:
    """Class numbers of head, middle and tail by rank of training count: K//3 each, the middle takes the rest.

    Empty for less than 3 or more than 20 classes, and where all counts are equal.
    """
    if not 3 <= len(counts) <= MOST_CLASSES_IN_THIRDS or len(set(counts)) == 1:
        return {}
    ranked = sorted(range(len(counts)), key=lambda k: (-counts[k], k))
    third = len(counts) // 3
    return {"head": ranked[:third], "middle": ranked[third:-third], "tail": ranked[-third:]}


def group_accuracies(by_class: Sequence[float | None], groups: Mapping[str, Sequence[int]]) -> dict[str, float | None]:
    """Mean class accuracy of each group, None where it has no class with test images."""
    found: dict[str, float | None] = {}
    for name, members in groups.items():
        values = [value for value in (by_class[k] for k in members) if value is not None]
        found[name] = sum(values) / len(values) if values else None
    return found
