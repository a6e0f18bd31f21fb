"""Arms of layermatch's reproductions: what differs between them, and what is reported."""

from reproduce.protocol import Arm, Number

ARMS = {
    "supervised": Arm(
        commands=(("train", "--method", "supervised"),),
        note="the labelled images alone; a fifteenth of the images a step",
        without=("--unlabelled-ratio", "--threshold"),
    ),
    "fixmatch": Arm(commands=(("train", "--method", "fixmatch"),)),
    "grad-relu": Arm(
        commands=(("train", "--method", "layermatch", "--avg-clustering", "none"),),
        note="LayerMatch without its centres",
    ),
    "avg-clustering": Arm(
        commands=(("train", "--method", "layermatch", "--no-grad-relu"),), note="LayerMatch without the cut"
    ),
    "layermatch": Arm(commands=(("train", "--method", "layermatch"),), note="our reading of both parts"),
}

NUMBERS = (
    Number("accuracy", "accuracy", "%"),
    Number("mask_rate", "used", "share", 2),
    Number("pseudo_label_accuracy", "used right", "%"),
    Number("pseudo_label_accuracy_all", "all right", "%"),
)

BASELINE = "fixmatch"
