"""What each of two gloo processes does with the command line; in a module of its own, so that another process can import it."""

import os
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

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


@contextmanager
def said(name):
    """What is printed goes into two files of the folder `said`."""
    with (
        Path("said", f"{name}.out").open("w") as out,
        Path("said", f"{name}.err").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        yield


def launched(words, folder, environment):
    """`python -m layermatch.commands WORDS` in the folder, with the environment. It prints into `printed.txt`; no figures."""
    os.environ.clear()
    os.environ |= environment
    torch.set_num_threads(1)
    os.chdir(folder)
    from layermatch.commands import main, outcome

    outcome.draw_figures, outcome.draw_views = lambda folder, lines, **_: [], lambda path, rows, **_: path
    with Path("printed.txt").open("w") as out, redirect_stdout(out):
        code = main(words)
    sys.exit(code)


def worker(rank, folder, environments):
    """Each arm, then the first one resumed, and a batch that cannot be shared; what each process said lies in `said`."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    os.chdir(folder)
    from accelerate.state import AcceleratorState

    from layermatch.commands import outcome

    outcome.draw_figures, outcome.draw_views = lambda folder, lines, **_: [], lambda path, rows, **_: path
    Path("said").mkdir(exist_ok=True)
    jobs = {name: [*OPTIONS, *options, "--out", name] for name, options in ARMS.items()}
    jobs |= {
        "resumed": ["train", "--resume", "layermatch"],
        "uneven": [*OPTIONS, "--accumulate", "4", "--out", "uneven"],
    }
    for (name, words), environment in zip(jobs.items(), environments, strict=True):
        # A person starts processes for each command; here these make a group for each, which meets at a place of its own.
        os.environ |= environment
        with said(f"{name}-{rank}"):
            code = without_batch_statistics(words)
        AcceleratorState._reset_state(True)
        assert code == (2 if name == "uneven" else 0), Path("said", f"{name}-{rank}.err").read_text()
