"""Average precision of a detector by COCO's definition, from torchmetrics over faster-coco-eval.

AP        mean over thresholds 0.50, 0.55 .. 0.95 of the overlap and over classes; AP50 and AP75 at one threshold. In percent.
"""

from typing import NamedTuple

import torch
from torch import nn

from reproduce.imwa.detection.coco import Boxes
from reproduce.imwa.detection.views import resized

IMAGES_AT_ONCE = 8


class Precision(NamedTuple):
    """`ap`, `ap50`, `ap75` in percent; `by_class` AP of each class in percent, None where it has no box."""

    ap: float
    ap50: float
    ap75: float
    by_class: tuple[float | None, ...]


@torch.no_grad()
def evaluate(model: nn.Module, data: Boxes, *, side: int, longest: int) -> Precision:
    """Run the detector over a split in evaluation mode; its mode is put back.

    Args:
        model: a torchvision detector.
        data: images with boxes.
        side: shorter side that images are brought to, in pixels.
        longest: bound of the longer side.
    """
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(box_format="xyxy", class_metrics=True, backend="faster_coco_eval")
    device, mode = next(model.parameters()).device, model.training
    model.eval()
    try:
        for first in range(0, len(data), IMAGES_AT_ONCE):
            chosen = range(first, min(first + IMAGES_AT_ONCE, len(data)))
            views = [resized(data.image(index), data.boxes[index], side=side, longest=longest) for index in chosen]
            answers = model([view.image.to(device).float() / 255.0 for view in views])
            targets = [
                {"boxes": view.boxes, "labels": data.labels[index]} for index, view in zip(chosen, views, strict=True)
            ]
            metric.update([{name: value.cpu() for name, value in answer.items()} for answer in answers], targets)
    finally:
        model.train(mode)
    found = metric.compute()
    known = dict(zip(found["classes"].reshape(-1).tolist(), found["map_per_class"].reshape(-1).tolist(), strict=True))
    by_class = tuple(_percent(known.get(number)) for number in range(1, len(data.class_names) + 1))
    return Precision(*(_percent(float(found[name])) or 0.0 for name in ("map", "map_50", "map_75")), by_class=by_class)


def _percent(value: float | None) -> float | None:
    # torchmetrics writes -1 where nothing can be said.
    return None if value is None or value < 0 else 100.0 * value
