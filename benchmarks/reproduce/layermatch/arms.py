"""Arms of layermatch's reproductions: what differs between them, and what is reported.

Everything that is not the supervised baseline or FixMatch is named after what it adds: `grad-relu` is LayerMatch without centres,
`layermatch` is both parts in the default reading of the centres, `layermatch-<reading>` both parts in another one.
"""

from reproduce.layermatch import linear_probe
from reproduce.protocol import Arm, Number

_OF_PSEUDO_LABELS = ("--unlabelled-ratio", "--threshold", "--unlabelled-weight", "--corrupt")


def _train(*words: str, note: str = "", without: tuple[str, ...] = ()) -> Arm:
    return Arm(commands=(("train", *words),), note=note, without=without)


def _layermatch(avg_clustering: str, *words: str, note: str) -> Arm:
    return _train("--method", "layermatch", "--avg-clustering", avg_clustering, *words, note=note)


ARMS = {
    "supervised": _train(
        "--method", "supervised", note="the labelled images alone, as many steps", without=_OF_PSEUDO_LABELS
    ),
    "fixmatch": _train("--method", "fixmatch"),
    "freematch": _train("--method", "freematch", note="thresholds of its own", without=("--threshold",)),
    "grad-relu": _layermatch("none", note="LayerMatch without its centres"),
    "avg-clustering": _layermatch("classifier", "--grad-relu", "off", note="LayerMatch without the cut"),
    "layermatch": _train("--method", "layermatch", note="our reading of both parts, as the command has it"),
    "layermatch-prototypes": _layermatch("prototypes", note="another reading of the centres, ours too"),
    "layermatch-teacher": _layermatch("teacher", note="another reading of the centres, ours too"),
    "layermatch-temporal": _layermatch("temporal", note="another reading of the centres, ours too"),
    "agreement": _layermatch("none", "--grad-relu", "agreement", note="R2, a reading of ours: cut where it disagrees"),
    "reverse": _layermatch("none", "--grad-relu", "reverse", note="control: the features are cut off instead"),
}

# Momentums of the choice on validation images: half-lives of 0.2 %, 1 % (the command's default), 5 % of 1,000 steps; of `temporal`
# per visit of an image. The teacher is the evaluated average itself.
for _steps, _momentum in ((2, "0.70711"), (10, "0.93303"), (50, "0.98623")):
    ARMS[f"classifier-half-life-{_steps}"] = _layermatch(
        "classifier", "--momentum", _momentum, note=f"half-life {_steps} steps"
    )
    ARMS[f"prototypes-half-life-{_steps}"] = _layermatch(
        "prototypes", "--momentum", _momentum, note=f"half-life {_steps} steps"
    )
for _momentum in ("0.3", "0.6", "0.9"):
    ARMS[f"temporal-momentum-{_momentum}"] = _layermatch("temporal", "--momentum", _momentum, note="per visit")

# The mechanism test also reads a frozen network's features with all true labels.
PROBED = ("fixmatch", "grad-relu", "agreement", "reverse")
for _name in PROBED:
    _arm = ARMS[_name]
    ARMS[f"{_name}-probed"] = _arm._replace(commands=(*_arm.commands, ("linear-probe", "--run", "{first}")))

OWN = {"linear-probe": linear_probe.main}

NUMBERS = (
    Number("accuracy", "accuracy", "%"),
    Number("probe_accuracy", "probe", "%"),
    Number("mask_rate", "used", "share", 2),
    Number("pseudo_label_accuracy", "used right", "%"),
    Number("pseudo_label_accuracy_all", "all right", "%"),
    Number("classifier_norm", "row norm", "", 2),
)

BASELINE = "fixmatch"
