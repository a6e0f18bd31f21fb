"""All that survives a kill: everything here is saved, and nothing else moves from step to step.

The orders of the data, the views and the schedule are functions of the step and need no saving.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from layermatch.classifier import SplitModel
from layermatch.criterion import LayerMatch
from layermatch.methods import Supervised
from layermatch.training.ema import ModelAverage
from layermatch.training.guard import KeptBuffers, NonFinite
from layermatch.training.processes import Processes
from layermatch.training.separate import SeparateForwards
from scarce_common_utils.fitting import refuse_unfitting
from scarce_common_utils.random_state import capture_random_state, restore_random_state

FORMAT = "layermatch-training-2"
# What a step measures: means over its images, and counts; `steps` is 1 for a step that was taken.
MEANS = ("steps", "loss", "labelled_loss", "unlabelled_loss", "mask_rate")
METRICS = (*MEANS, "pseudo_known", "pseudo_right", "used_known", "used_right")


@dataclass
class TrainingState:
    """Parts of a run.

    Attributes:
        model: the split model.
        criterion: one of `layermatch.METHODS`, over the model's classifier.
        optimizer: fused SGD.
        average: the evaluated model average.
        scaler: gradient scaler; disabled unless the precision is fp16.
        nonfinite: the first step whose loss was not finite, and how many were left out.
        sums: Float32[M+K] since the last reading, on the device: METRICS, then pseudo-labels used of each class.
        step: optimizer steps done.
        separate: the model as it is called where labelled and unlabelled images have a forward each.
        wrapped: what is called where several processes train it.
        processes: who trains along; each has random generators of its own.
    """

    model: nn.Module
    criterion: LayerMatch | Supervised
    optimizer: torch.optim.Optimizer
    average: ModelAverage
    scaler: torch.amp.GradScaler
    nonfinite: NonFinite
    sums: Tensor
    step: int = 0
    separate: SeparateForwards | None = None
    wrapped: nn.Module | None = None
    processes: Processes = field(default_factory=Processes)
    kept: KeptBuffers = field(init=False)
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.kept, self.parameters = KeptBuffers(self.model), trained_parameters(self.model)

    @property
    def network(self) -> nn.Module:
        """What a step calls."""
        return self.wrapped or self.separate or self.model

    @property
    def teacher(self) -> SplitModel:
        """The averaged model, in eval mode."""
        average = self.average.average
        assert isinstance(average, SplitModel)
        return average

    def state_dict(self, *, digest: str, version: str) -> dict[str, Any]:
        """Plain tensors and numbers, with what they belong to: the run's `digest` and the package's `version`.

        Where several processes train, each of them must call it.
        """
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
            "left_out": self.nonfinite.left_out,
            "sums": self.processes.total(self.sums),
            "random": self.processes.gathered(capture_random_state()),
        }

    def load_state_dict(self, state: dict[str, Any], *, digest: str) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: it has another format or belongs to a run with another digest, both are named; or it holds another model,
                whose differences are listed.
        """
        if state.get("format") != FORMAT or state["digest"] != digest:
            raise ValueError(
                f"The checkpoint has format {state.get('format')!r} and run digest {state.get('digest')!r}; "
                f"{FORMAT!r} and {digest!r} are needed. It belongs to another run."
            )
        refuse_unfitting(self.model.state_dict(), state["model"], whose="its model")
        self.model.load_state_dict(state["model"])
        self.criterion.load_state_dict(state["criterion"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.load_state_dict(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.nonfinite.first_bad = state["first_bad"].to(self.sums.device)
        self.nonfinite.left_out = state["left_out"].to(self.sums.device)
        self.sums.copy_(state["sums"] if self.processes.main else torch.zeros_like(self.sums))
        self.step = state["step"]
        if self.processes.rank < len(state["random"]):  # a process that was not there before keeps its fresh draws
            restore_random_state(state["random"][self.processes.rank])


def trained_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
