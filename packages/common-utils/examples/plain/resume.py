"""A loop that can be killed at any moment: run it, stop it with Ctrl+C, run it again, and it goes on to the same bits."""

from pathlib import Path

import torch

from scarce_common_utils.checkpoints import load_checkpoint, newest_checkpoint, save_checkpoint
from scarce_common_utils.progress import Progress
from scarce_common_utils.streams import stream


def main(folder: Path = Path("runs/resume-example"), steps: int = 200) -> float:
    weights, step = torch.zeros(8, dtype=torch.float64), 0
    newest = newest_checkpoint(folder, report=print)
    if newest is not None:
        state = load_checkpoint(newest)
        weights, step = state["weights"], state["step"]
    with Progress(steps, "steps", label="example", start=step) as bar:
        while step < steps:
            # The draw belongs to the step, so nothing about the generator needs saving.
            weights += torch.randn(8, generator=stream(0, "noise", step), dtype=torch.float64)
            step += 1
            bar.advance()
            if step % 20 == 0:
                save_checkpoint(folder, step=step, state={"step": step, "weights": weights})
    return float(weights.sum())


if __name__ == "__main__":
    print(main())
