"""The shared protocol of this line of work, for GPUs: CIFAR-10, CIFAR-100, SVHN, STL-10, and our ImageNet-100 beside them.

Source    google-research/fixmatch, TorchSSL, USB: networks, label counts, B, mu, steps, weight decay, learning rate 0.03 with the
          cosine 7/16, threshold 0.95, model average 0.999. ImageNet-100 is ours, from TorchSSL's run on 1,000 classes.
"""

from typing import NamedTuple

from reproduce.protocol import Experiment

ARMS = ("supervised", "fixmatch", "freematch", "grad-relu", "layermatch")


class Set(NamedTuple):
    """A data set of the protocol: `words` name it on the command line; labels are a class's, the paper's counts their sum."""

    words: tuple[str, ...]
    classes: int
    labels: tuple[int, ...]
    model: str
    batch: int
    weight_decay: str
    steps: int
    image_size: int
    note: str


SETS = {
    "cifar10": Set(("torchvision:CIFAR10",), 10, (4, 25, 400), "wrn-28-2", 64, "0.0005", 2**20, 32, ""),
    "cifar100": Set(("torchvision:CIFAR100",), 100, (4, 25, 100), "wrn-28-8", 64, "0.001", 2**20, 32, ""),
    "svhn": Set(
        ("torchvision:SVHN", "--extra"), 10, (4, 25, 100), "wrn-28-2", 64, "0.0005", 2**20, 32,
        " Pool with the extra images. No mirroring, as google-research has it; USB mirrors.",
    ),
    "stl10": Set(
        ("torchvision:STL10",), 10, (4, 25, 100), "wrn-37-2", 64, "0.0005", 2**20, 96,
        " Labels drawn by our seed, as in USB, not the ten folds.",
    ),
    "imagenet100": Set(
        ("{data}/imagenet", "--classes", "{package}/data/imagenet100.txt"), 100, (100,), "resnet50", 32, "0.0003", 2_000_000, 224,
        " imagenet/ in the folder of --data holds train/ and val/. The 100 classes are those of the Contrastive Multiview Coding "
        "code: ours, LayerMatch's are not known.",
    ),
}  # fmt: skip


def experiments() -> tuple[Experiment, ...]:
    """One for each set and number of labels, each with its trial on made images."""
    return tuple(_experiment(name, entry, labels) for name, entry in SETS.items() for labels in entry.labels)


def _experiment(name: str, entry: Set, labels: int) -> Experiment:
    shared = (
        *(
            "--model",
            entry.model,
            "--learning-rate",
            "0.03",
            "--weight-decay",
            entry.weight_decay,
            "--threshold",
            "0.95",
        ),
        *("--ema-momentum", "0.999"),
    )
    full = ("--batch-size", str(entry.batch), "--unlabelled-ratio", "7", "--labels-per-class", str(labels))
    often = ("--evaluate-every", "5000", "--checkpoint-every", "5000")
    size = ("--image-size", str(entry.image_size))
    count = labels * entry.classes
    note = (
        f"{name}, {count:,} labels, {entry.model}, B {entry.batch}, mu 7, {entry.steps:,} steps; mean of the last four "
        f"evaluations.{entry.note}"
    )
    trial = Experiment(
        f"{name}-{count}-labels-made-images",
        ARMS,
        (0,),
        {
            "train": (
                "{prepared}",
                *shared,
                *size,
                "--batch-size",
                "2",
                "--unlabelled-ratio",
                "2",
                "--labels-per-class",
                "1",
            )
        },
        {"train": entry.steps},
        f"Made images in {name}'s place, B 2, mu 2, one label a class: whether the commands run, nothing else.",
        prepared=f"made-{name}",
    )
    return Experiment(
        f"{name}-{count}-labels",
        ARMS,
        (0, 1, 2),
        {"train": (*entry.words, *shared, *size, *full, *often)},
        {"train": entry.steps},
        note,
        trial=trial if labels == entry.labels[0] else None,
    )


PAPER = experiments()
