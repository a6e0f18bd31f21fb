"""What each of two gloo processes does with the command line; in a module of its own, so that a spawned process can import it."""

import os

import torch
from torch import nn

OPTIONS = [
    "train",
    "digits",
    "--labels-per-class",
    "2",
    "--batch-size",
    "4",
    "--unlabelled-ratio",
    "2",
    "--steps",
    "10",
]
OPTIONS += ["--evaluate-every", "5", "--checkpoint-every", "4", "--tracker", "none"]
ARMS = {
    "layermatch": ["--threshold", "0.2"],
    "teacher": ["--avg-clustering", "teacher", "--weighting", "freematch"],
    "flexmatch": ["--method", "flexmatch", "--threshold", "0.2"],
    "pseudolabel": ["--method", "pseudolabel", "--threshold", "0.2"],
    "in micro-batches": ["--threshold", "0.2", "--accumulate", "2"],
}


def smooth_network(classes, **_):
    """Without batch statistics: what one image gives depends on no other."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, classes))


def without_batch_statistics(argv):
    """The command with `--model small` replaced by the network above."""
    from layermatch.commands import main, network

    network.small_wide_resnet = smooth_network
    return main(argv)


def worker(rank, folder, ports):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    os.chdir(folder)
    from accelerate.state import AcceleratorState

    for (name, options), port in zip(ARMS.items(), ports, strict=True):
        # A person starts a process for each command; here each makes a group of its own, at a port of its own.
        os.environ["MASTER_PORT"] = str(port)
        assert without_batch_statistics([*OPTIONS, *options, "--out", name]) == 0
        AcceleratorState._reset_state(True)
