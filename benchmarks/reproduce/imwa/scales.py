"""How large the IMWA reproduction is at each scale; every M, E and T is ours (none of the paper's settings is known to us)."""

from reproduce.protocol import Experiment, Scale

CONTROLS = ("single", "single-3t", "mwa", "imwa")
DIGITS = ("digits", "--imbalance", "20", "--model", "small")
SCALES = {
    "smoke": Scale(
        (
            Experiment(
                name="digits-lt-20-smoke",
                arms=("single", "single-3t", "batch-192", "mwa", "imwa", "imwa-reset"),
                seeds=(0,),
                words={"train": DIGITS},
                steps={"train": 20},
                note="Does it run: 20 steps say nothing about accuracy.",
            ),
        )
    ),
    "quickstart": Scale(
        (
            Experiment(
                name="digits-lt-20",
                arms=CONTROLS,
                seeds=(0,),
                words={"train": DIGITS},
                steps={"train": 450},
                note=(
                    "Digits, long-tailed 20:1 (468 training images, rare classes drawn by the seed), M = 3, T = 450; settings ours. "
                    "All but the first row cost three times its steps: compare imwa with single-3t."
                ),
            ),
        )
    ),
    "cpu": Scale(
        (
            Experiment(
                name="digits-lt-20",
                arms=("single", "single-3t", "batch-192", "mwa", "imwa-e5", "imwa", "imwa-e30", "imwa-reset"),
                seeds=(0, 1, 2, 3, 4),
                words={"train": DIGITS},
                steps={"train": 450},
                note="Digits, long-tailed 20:1, M = 3, T = 450, batch 64; split and rare classes are drawn by each seed. Settings ours.",
            ),
        )
    ),
    "paper": Scale(
        (
            Experiment(
                name="cifar10-lt-100",
                arms=CONTROLS,
                seeds=(0, 1, 2),
                words={
                    "train": (
                        *("torchvision:CIFAR10", "--imbalance", "100", "--class-order", "labels"),
                        *(
                            "--model",
                            "resnet32",
                            "--batch-size",
                            "128",
                            "--weight-decay",
                            "2e-4",
                            "--schedule",
                            "steps",
                        ),
                    )
                },
                steps={"train": 19_400},
                note=(
                    "CIFAR-10-LT, imbalance 100, by the LDAM-DRW protocol (ResNet-32, 200 epochs, counts 5000 to 50; which images are "
                    "kept is drawn by our seed; full batches). M = 3 and E = 10 are ours: this reproduces no table of the IMWA paper."
                ),
            ),
        )
    ),
}
