"""What a step of the transformers Trainer costs here, data, masking and optimizer included: a callback for a few steps."""

import statistics
import time
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from scarce_common_utils.costs import SECONDS, Cost, peak_memory

STEPS = 6  # that are done at most; the first of them is not counted


class StepClock(TrainerCallback):
    """Notes when each step ends, and ends the training once `SECONDS` are over.

    Args:
        device: where it computes; waited for at each step's end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._ends: list[float] = []

    def cost(self) -> Cost:
        """Of a step; of one step alone its own time, with whatever is done once at the beginning."""
        taken = [stop - start for start, stop in zip(self._ends, self._ends[1:], strict=False)]
        counted = taken[1:] or taken
        return Cost(statistics.median(counted), len(counted), peak_memory(self._device))

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """The clock starts."""
        self._ends.append(time.perf_counter())

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """A step is done."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._ends.append(time.perf_counter())
        if len(self._ends) > 2 and self._ends[-1] - self._ends[0] > SECONDS:
            control.should_training_stop = True
