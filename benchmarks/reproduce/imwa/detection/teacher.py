"""The mean teacher: an average of the student that writes boxes for unlabelled images.

    teacher <- d teacher + (1 - d) student        over the whole state, buffers too; d = 0.9996 in the source
    boxes of a weak view with score above 0.7 become the targets of the student's strong view

Source    Unbiased Teacher, arXiv 2102.09480, released configuration; in evaluation mode here, where the source runs in train
          mode with frozen norms.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

Target = dict[str, Tensor]


class MeanTeacher:
    """An average of a detector; `state_dict` and `load_state_dict` let IMWA average it over replicas.

    Args:
        student: the detector; the teacher starts as its copy.
        decay: d in [0, 1].
    """

    def __init__(self, student: nn.Module, *, decay: float) -> None:
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"The teacher's decay is {decay}. Choose a number from 0 to 1.")
        self.decay = decay
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def copy(self, student: nn.Module) -> None:
        """Become the student."""
        for held, live in self._pairs(student):
            held.copy_(live)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move towards the student; whole numbers are copied."""
        for held, live in self._pairs(student):
            if held.is_floating_point():
                held.lerp_(live, 1.0 - self.decay)
            else:
                held.copy_(live)

    @torch.no_grad()
    def targets(self, images: list[Tensor], *, threshold: float) -> list[Target]:
        """Boxes Float[n 4] and labels Int64[n] of each image whose score is above the threshold."""
        found = self.model(images)
        kept = [answer["scores"] > threshold for answer in found]
        return [
            {"boxes": answer["boxes"][keep], "labels": answer["labels"][keep]}
            for answer, keep in zip(found, kept, strict=True)
        ]

    def state_dict(self) -> dict[str, Any]:
        """The averaged model's state."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self.model.load_state_dict(state)

    def _pairs(self, student: nn.Module) -> list[tuple[Tensor, Tensor]]:
        return list(zip(self.model.state_dict().values(), student.state_dict().values(), strict=True))
