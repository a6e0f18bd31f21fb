"""A run folder as a kill right behind a checkpoint would leave it: many of them, from one run."""

import shutil
from contextlib import contextmanager

import pytest

from imwa.commands import main, train


@contextmanager
def kept_as_killed(run, saves):
    """Within the block, `run` is copied to `<run>-<n>` right behind its n-th checkpoint, for each n of `saves`."""
    original, taken = train.save_checkpoint, []

    def save(*arguments, **named):
        path = original(*arguments, **named)
        taken.append(path)
        if len(taken) in saves:
            shutil.copytree(run, f"{run}-{len(taken)}")
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "save_checkpoint", save)
        yield


def resumed(run):
    """Go on from a folder; how often checkpoints are written changes nothing, and is most of a small run's cost."""
    assert main(["train", "--resume", str(run), "--checkpoint-every", "1000"]) == 0
    return run
