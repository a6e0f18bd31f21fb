"""One step of Unbiased Teacher: labelled images in both views, then, after the burn-in, the teacher's boxes.

    L = L_sup(weak and strong labelled: four losses of weight 1) + w L_unsup(RPN classes, head classes), w = 4
    box regression on the teacher's boxes has weight 0; steps before `burn_in` have L_sup alone; at `burn_in` the teacher becomes
    the student, in every later step it moves first.

Source    arXiv 2102.09480, released configuration.
Letters   B labelled and as many unlabelled images a step.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from reproduce.imwa.detection.coco import Boxes
from reproduce.imwa.detection.teacher import MeanTeacher, Target
from reproduce.imwa.detection.views import strong_view, weak_view

CLASS_LOSSES = ("loss_objectness", "loss_classifier")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Numbers of a run; those of the source, but for the sizes.

    Attributes:
        batch_size: B.
        sides: lengths that the shorter side of a view is drawn from, in pixels.
        longest: bound of the longer side.
        burn_in: steps before the teacher writes boxes.
        threshold: score above which its boxes count.
        unsupervised_weight: w.
        learning_rate: after the warm-up.
        warm_up: steps over which the learning rate rises from a thousandth.
        unlabelled: whether unlabelled images are used at all.
    """

    batch_size: int
    sides: tuple[int, ...]
    longest: int
    burn_in: int
    threshold: float
    unsupervised_weight: float
    learning_rate: float
    warm_up: int
    unlabelled: bool


def step_loss(
    student: nn.Module,
    teacher: MeanTeacher,
    *,
    data: Boxes,
    labelled: Sequence[int],
    unlabelled: Sequence[int],
    step: int,
    generator: torch.Generator,
    settings: Settings,
) -> Tensor:
    """Float[] with graph: the loss of a step; the teacher is moved first.

    Args:
        student: the detector, in train mode.
        teacher: moved in place from `burn_in` on.
        data: images with boxes.
        labelled: indices of the images whose boxes are used.
        unlabelled: indices of the others.
        step: global step, from 0.
        generator: of the CPU; it draws images and views.
        settings: numbers of the run.
    """
    if step == settings.burn_in:
        teacher.copy(student)
    elif step > settings.burn_in:
        teacher.update(student)
    device = next(student.parameters()).device
    weak, strong, targets = _views(data, _drawn(labelled, generator, settings), generator, settings, device=device)
    loss = torch.stack(list(student(weak + strong, targets + targets).values())).sum()
    if settings.unlabelled and step >= settings.burn_in:
        weak, strong, _ = _views(data, _drawn(unlabelled, generator, settings), generator, settings, device=device)
        losses = student(strong, teacher.targets(weak, threshold=settings.threshold))
        loss = loss + settings.unsupervised_weight * torch.stack([losses[name] for name in CLASS_LOSSES]).sum()
    return loss


def rate(step: int, settings: Settings) -> float:
    """Learning rate of a global step: linear warm-up, then constant."""
    share = min(1.0, step / settings.warm_up) if settings.warm_up else 1.0
    return settings.learning_rate * (0.001 + 0.999 * share)


def _drawn(indices: Sequence[int], generator: torch.Generator, settings: Settings) -> list[int]:
    places = torch.randint(len(indices), (settings.batch_size,), generator=generator)
    return [indices[place] for place in places.tolist()]


def _views(
    data: Boxes, chosen: Sequence[int], generator: torch.Generator, settings: Settings, *, device: torch.device
) -> tuple[list[Tensor], list[Tensor], list[Target]]:
    weak, strong, targets = [], [], []
    for index in chosen:
        view = weak_view(
            data.image(index), data.boxes[index], generator=generator, sides=settings.sides, longest=settings.longest
        )
        weak.append(view.image.to(device).float() / 255.0)
        strong.append(strong_view(view.image, generator=generator).to(device).float() / 255.0)
        targets.append({"boxes": view.boxes.to(device), "labels": data.labels[index].to(device)})
    return weak, strong, targets
