"""How large layermatch's reproductions are. All settings are ours unless a note says otherwise."""

from reproduce.protocol import Scale

DIGITS = ("digits", "--labels-per-class", "4")
ALL = ("supervised", "fixmatch", "grad-relu", "avg-clustering", "layermatch")
THREE = ("supervised", "fixmatch", "layermatch")

SCALES = {
    "smoke": Scale(
        experiment="digits-smoke",
        arms=ALL,
        seeds=(0,),
        words={"train": (*DIGITS, "--batch-size", "4", "--unlabelled-ratio", "3", "--threshold", "0")},
        steps={"train": 20},
        note="It says that the code runs, nothing else.",
    ),
    "quickstart": Scale(
        experiment="digits-40-labels",
        arms=THREE,
        seeds=(0,),
        words={"train": DIGITS},
        steps={"train": 600},
        note="scikit-learn's digits, 40 labels, 600 steps of the small WideResNet; mean of the last four evaluations.",
    ),
    "cpu": Scale(
        experiment="digits-40-labels",
        arms=ALL,
        seeds=tuple(range(5)),
        words={"train": DIGITS},
        steps={"train": 600},
        note="scikit-learn's digits, 40 labels, 600 steps of the small WideResNet; settings are ours, none tuned per arm.",
    ),
    "paper": Scale(
        experiment="cifar10-40-labels",
        arms=THREE,
        seeds=(0, 1, 2),
        words={
            "train": (
                "torchvision:CIFAR10",
                *("--labels-per-class", "4", "--model", "wrn-28-2", "--batch-size", "64", "--unlabelled-ratio", "7"),
                *("--learning-rate", "0.03", "--weight-decay", "0.0005", "--threshold", "0.95"),
                *("--ema-momentum", "0.999", "--evaluate-every", "5000", "--checkpoint-every", "5000"),
            )
        },
        steps={"train": 1_048_576},
        note=(
            "The protocol that FixMatch, TorchSSL and USB share (WRN-28-2, B 64, mu 7, 2^20 steps). LayerMatch's own settings are "
            "not known to us; ours are the momentum of the centres, the reported mean of the last four evaluations and the "
            "normalisation by CIFAR-10's own mean and deviation. Fetches CIFAR-10 into ./data."
        ),
    ),
}
