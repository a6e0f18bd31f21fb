"""All that survives a kill: the driver's whole state, and what the loop counts beside it.

Orders and learning rates are functions of the step and need no saving.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from imwa.driver import IMWA

FORMAT = "imwa-training-1"


@dataclass
class TrainingState:
    """Parts of a run.

    Attributes:
        model: the module that trains.
        optimizer: over its parameters.
        scaler: gradient scaler, carried; disabled unless the precision is fp16.
        iterative: the driver over them.
        losses: Float32[2] on the device: sum of losses and number of steps since the last reading.
        replica_accuracies: in percent, of the replicas of this episode that have ended.
        done: optimizer steps done in all, over replicas.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    iterative: IMWA
    losses: Tensor
    replica_accuracies: list[float] = field(default_factory=list)
    done: int = 0

    def state_dict(self, *, digest: str, version: str) -> dict[str, Any]:
        """Plain tensors and numbers, with what they belong to: the run's `digest` and the package's `version`."""
        return {
            "format": FORMAT,
            "version": version,
            "digest": digest,
            "iterative": self.iterative.state_dict(),
            "losses": self.losses,
            "replica_accuracies": list(self.replica_accuracies),
            "done": self.done,
        }

    def load_state_dict(self, state: Mapping[str, Any], *, digest: str) -> None:
        """Go on where `state` was taken.

        Raises:
            ValueError: it has another format or belongs to a run with another digest; both are named.
        """
        if state.get("format") != FORMAT or state.get("digest") != digest:
            raise ValueError(
                f"The checkpoint has format {state.get('format')!r} and run digest {state.get('digest')!r}; "
                f"{FORMAT!r} and {digest!r} are needed. It belongs to another run."
            )
        self.iterative.load_state_dict(state["iterative"])
        self.losses.copy_(state["losses"])
        self.replica_accuracies, self.done = list(state["replica_accuracies"]), state["done"]
