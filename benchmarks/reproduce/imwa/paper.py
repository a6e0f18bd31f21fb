"""The field's protocols of long-tailed classification, for GPUs: CIFAR-LT, ImageNet-LT, iNaturalist 2018.

Source    CIFAR-LT: LDAM-DRW's code (ResNet-32, 200 epochs, batch 128, 0.1 with warm-up and two drops, weight decay 2e-4; steps are
          those of 200 epochs). ImageNet-LT, iNaturalist: classifier-balancing's (90 epochs, batch 512, 0.2, cosine to 0). Which sets
          and settings IMWA's authors use is not confirmed; M = 3 and E = 10 are ours. The semi-supervised profiles and detection
          on COCO are recipes of their own (`nox -s reproduce_imwa -- --recipe NAME`).
"""

from reproduce.protocol import Experiment

CONTROLS = ("single", "single-3t", "mwa", "imwa")
ARMS = ("single", "single-3t", "mwa", "mwa-shared", "imwa")
CIFAR_STEPS = {  # 200 epochs at batch 128, by classes and imbalance
    (10, 10): 32_000, (10, 50): 22_000, (10, 100): 19_400, (10, 200): 17_600,
    (100, 10): 30_600, (100, 50): 19_800, (100, 100): 17_000, (100, 200): 15_000,
}  # fmt: skip


def _cifar(classes: int, imbalance: int) -> Experiment:
    words = (
        *(f"torchvision:CIFAR{classes}", "--imbalance", str(imbalance), "--class-order", "labels"),
        *("--model", "resnet32", "--batch-size", "128", "--weight-decay", "2e-4", "--schedule", "steps"),
    )
    note = (
        f"CIFAR-{classes}-LT, imbalance {imbalance}, LDAM-DRW's protocol and counts; which images are kept is drawn by our seed, and "
        "all batches are full."
    )
    made = (
        *("{prepared}", "--model", "resnet32", "--batch-size", "4"),
        *("--weight-decay", "2e-4", "--schedule", "steps"),
    )
    trial = Experiment(
        f"cifar{classes}-lt-made-images", ARMS, (0,), {"train": made}, {"train": CIFAR_STEPS[classes, imbalance]},
        f"Made images in CIFAR-{classes}'s place, balanced, batch 4: whether the commands run, nothing else.",
        prepared=f"made-cifar{classes}",
    )  # fmt: skip
    return Experiment(
        f"cifar{classes}-lt-{imbalance}", ARMS, (0, 1, 2), {"train": words}, {"train": CIFAR_STEPS[classes, imbalance]}, note,
        trial=trial if imbalance == 100 else None,
    )  # fmt: skip


def _large(name: str, model: str, steps: int, weight_decay: str, note: str) -> Experiment:
    own = ("--learning-rate", "0.2", "--weight-decay", weight_decay)
    words = (f"{{data}}/{name}", "--model", model, "--image-size", "224", "--batch-size", "512", *own)
    made = ("{prepared}", "--model", "resnet18", "--image-size", "64", "--batch-size", "4", *own)
    trial = Experiment(
        f"{name}-made-images", ARMS, (0,), {"train": made}, {"train": steps},
        f"Made images in the place of {name}, ResNet-18, batch 4: whether the commands run, nothing else.",
        prepared="made-imagenet",
    )  # fmt: skip
    return Experiment(name, ARMS, (0, 1, 2), {"train": words}, {"train": steps}, note, trial=trial)


PAPER = (
    *(_cifar(classes, imbalance) for classes in (10, 100) for imbalance in (100, 10, 50, 200)),
    _large(
        "imagenet-lt", "resnext50_32x4d", 20_363, "5e-4",
        "ImageNet-LT, ResNeXt-50, 90 epochs at batch 512, classifier-balancing's settings; imagenet-lt/ in the folder of --data holds "
        "train/ and test/, a folder for each class, filled by the published lists.",
    ),
    _large(
        "inaturalist2018", "resnet50", 76_906, "1e-4",
        "iNaturalist 2018, ResNet-50, 90 epochs at batch 512, classifier-balancing's settings; inaturalist2018/ in the folder of --data "
        "holds train/ and test/, a folder for each class, filled by the published lists.",
    ),
)  # fmt: skip
