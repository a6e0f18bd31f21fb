"""Arms: what masks the pretraining, and the classifier that follows; from scratch with either start beside them.

A model from scratch is compared with a pretrained one of the same start: with the usual start it would lose to the structured one
alone. The regressions stand in the same table, since a positional one beats several BERTs on splice junctions.
"""

from reproduce.protocol import Arm, Number, Reference

BASELINE = "dnabert"


def _pretrained(method: str, note: str) -> Arm:
    return Arm(
        (
            ("pretrain", "--method", method),
            ("finetune", "--model", "{first}/model", "--no-regressions"),
        ),
        note=note,
    )


ARMS: dict[str, Arm] = {
    "scratch_usual": Arm((("finetune", "--start", "usual"),), cost=0.0, note="no pretraining, BERT's start"),
    "scratch": Arm(
        (("finetune", "--start", "structured", "--no-regressions"),), cost=0.0, note="no pretraining, same start"
    ),
    "scratch_base": Arm(
        (("finetune", "--start", "usual", "--size", "base"),), cost=0.0, note="no pretraining, DNABERT's size"
    ),
    "dnabert": _pretrained("dnabert", "width k throughout"),
    "randommask": _pretrained("randommask", "widths k to k + 8, our reading of the schedule"),
    "constant": _pretrained("constant", "width k + 8 throughout"),
    "constant_share": _pretrained("constant_share", "widths k to k + 8 at one masked share"),
    "uniform": _pretrained("uniform", "each window's width drawn up to the schedule's"),
    "iid": _pretrained("iid", "single tokens, 15 %"),
}

NUMBERS: tuple[Number, ...] = (
    Number("loss_width_6", "loss w=6", decimals=2),
    Number("loss_width_14", "loss w=14", decimals=2),
    Number("mcc_last", "MCC last", decimals=3),
    Number("mcc_chosen", "MCC chosen", decimals=3),
)

REFERENCES: tuple[Reference, ...] = (
    Reference("k-mer counts, w=6", "ceiling_width_6", "loss w=6"),
    Reference("floor, w=6", "floor_width_6", "loss w=6"),
    Reference("k-mer counts, w=14", "ceiling_width_14", "loss w=14"),
    Reference("floor, w=14", "floor_width_14", "loss w=14"),
    Reference("regression on letters", "mcc_positional_regression", "MCC last"),
    Reference("regression on 4-mers", "mcc_kmer_regression", "MCC last"),
)
