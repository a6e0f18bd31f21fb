"""All that survives a kill: everything here is saved, and nothing else moves from step to step.

The orders of the data, the views and the schedule are functions of the step and need no saving.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from layermatch.criterion import LayerMatch
from layermatch.methods import Supervised
from layermatch.training.ema import ModelAverage
from layermatch.training.guard import NonFinite
from scarce_common_utils.random_state import capture_random_state, restore_random_state

FORMAT = "layermatch-training-1"
METRICS = (
    "loss",
    "labelled_loss",
    "unlabelled_loss",
    "mask_rate",
    "pseudo_known",
    "pseudo_right",
    "used_known",
    "used_right",
)


@dataclass
class TrainingState:
    """Parts of a run.

    Attributes:
        model: the split model, perhaps wrapped.
        criterion: one of `layermatch.METHODS`, over the model's classifier.
        optimizer: fused SGD.
        average: the evaluated model average.
        scaler: gradient scaler; disabled unless the precision is fp16.
        nonfinite: the first step whose loss was not finite.
        sums: Float32[len(METRICS)] since the last reading, on the device.
        step: optimizer steps done.
    """

    model: nn.Module
    criterion: LayerMatch | Supervised
    optimizer: torch.optim.Optimizer
    average: ModelAverage
    scaler: torch.amp.GradScaler
    nonfinite: NonFinite
    sums: Tensor
    step: int = 0

    def state_dict(self, *, digest: str, version: str) -> dict[str, Any]:
        """Plain tensors and numbers, with what they belong to: the run's `digest` and the package's `version`."""
        return {
            "format": FORMAT,
            "version": version,
            "digest": digest,
            "step": self.step,
            "model": self.model.state_dict(),
            "criterion": self.criterion.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "scaler": self.scaler.state_dict(),
            "first_bad": self.nonfinite.first_bad,
            "sums": self.sums,
            "random": capture_random_state(),
        }

    def load_state_dict(self, state: dict[str, Any], *, digest: str) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: it has another format or belongs to a run with another digest; both are named.
        """
        if state.get("format") != FORMAT or state["digest"] != digest:
            raise ValueError(
                f"The checkpoint has format {state.get('format')!r} and run digest {state.get('digest')!r}; "
                f"{FORMAT!r} and {digest!r} are needed. It belongs to another run."
            )
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.nonfinite.first_bad = state["first_bad"].to(self.sums.device)
        self.sums.copy_(state["sums"])
        self.step = state["step"]
        restore_random_state(state["random"])
