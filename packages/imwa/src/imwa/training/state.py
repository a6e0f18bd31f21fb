"""All that survives a kill: the driver's whole state, and what the loop counts beside it.

A run is one stage of the driver, or several, each with a driver of its own over the same model and optimizer.

Orders and learning rates are functions of the step and need no saving.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from imwa.diagnostics import Diagnostics
from imwa.driver import IMWA
from imwa.training.ema import MovingAverage
from imwa.training.ensemble import Ensemble
from imwa.training.stages import Stage

FORMAT = "imwa-training-2"


@dataclass
class TrainingState:
    """Parts of a run.

    Attributes:
        model: the module that trains.
        optimizer: over its parameters.
        scaler: gradient scaler, carried; disabled unless the precision is fp16.
        stages: of the run, in order, each with its driver.
        losses: Float32[2] on the device: sum of losses and number of steps since the last reading.
        replica_accuracies: in percent, of the replicas of this episode that have ended.
        done: optimizer steps done in all, over replicas.
        stage: number of the stage that is under way.
        ema: the moving average that is evaluated beside the model, if any.
        ensemble: predictions of the last episode's replicas, if wanted.
        diagnostics: of the stage with several replicas, if there is one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    stages: list[tuple[Stage, IMWA]]
    losses: Tensor
    replica_accuracies: list[float] = field(default_factory=list)
    done: int = 0
    stage: int = 0
    ema: MovingAverage | None = None
    ensemble: Ensemble | None = None
    diagnostics: Diagnostics | None = None

    @property
    def iterative(self) -> IMWA:
        """The driver of the stage that is under way."""
        return self.stages[self.stage][1]

    @property
    def before(self) -> int:
        """Optimizer steps of all stages before this one."""
        return sum(stage.cost for stage, _ in self.stages[: self.stage])

    @property
    def own_steps(self) -> int:
        """Optimizer steps of this process in all."""
        return self.own_steps_until(sum(stage.cost for stage, _ in self.stages))

    def own_steps_until(self, done: int) -> int:
        """Optimizer steps of this process, of `done` over all replicas; within an episode of several replicas a fair share."""
        found = 0
        for stage, iterative in self.stages:
            found += min(done, stage.cost) * len(iterative.own) // stage.replicas
            done = max(0, done - stage.cost)
        return found

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
            "stage": self.stage,
            "ensemble": None if self.ensemble is None else self.ensemble.total,
            "diagnostics": None if self.diagnostics is None else self.diagnostics.state_dict(),
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
        self.stage = state["stage"]
        self.iterative.load_state_dict(state["iterative"])
        if self.ensemble is not None:
            self.ensemble.total = state["ensemble"]
        if self.diagnostics is not None:
            self.diagnostics.load_state_dict(state["diagnostics"])
        self.losses.copy_(state["losses"])
        self.replica_accuracies, self.done = list(state["replica_accuracies"]), state["done"]
