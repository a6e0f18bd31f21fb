"""Reading `teacher` (ours): pseudo-labels from an averaged model.

    q_w = softmax(teacher_weak),     teacher_weak the averaged model's logits for the weak view

The averaged model is the caller's: in evaluation mode, on the same weak views, moved by the caller. The loss on the
strong view is the live model's own. Costs one more forward of U images.

Source    Mean Teacher's idea, arXiv 1703.01780; as a reading of LayerMatch's "consistent outputs" ours.
Letters   U samples, K classes.
"""

import torch
from torch import Tensor, nn

from .reading import Reading, softmax


class Teacher(Reading):
    """Pseudo-labels from `teacher_weak` Float[U K], an averaged model's logits (reading `teacher`, ours). No state."""

    needs = frozenset({"teacher"})

    def probabilities(
        self, weak: Tensor, classifier: nn.Module, *, indices: Tensor | None = None, teacher_weak: Tensor | None = None
    ) -> Tensor:
        """Float[U K] probabilities of the averaged model, without a graph, in float32 or better."""
        assert teacher_weak is not None
        if teacher_weak.dim() != 2 or len(teacher_weak) != len(weak):
            raise ValueError(
                f"teacher_weak has shape {tuple(teacher_weak.shape)} and weak {tuple(weak.shape)}. Give the averaged "
                "model's logits, (U, K), for the same U images in the same order."
            )
        with torch.no_grad():
            return softmax(teacher_weak.detach())
