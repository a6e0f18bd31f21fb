"""Arms: what masks the pretraining, and the classifier that follows; from scratch with either start beside them.

A model from scratch is compared with a pretrained one of the same start: with the usual start it would lose to the structured one
alone. The regressions stand in the same table, since a positional one beats several BERTs on splice junctions. One pretraining
serves all tasks that follow it with the same words.
"""

from reproduce.protocol import Arm, Number, Reference
from reproduce.randommask import gue_task, inside, look, question, sized

BASELINE = "dnabert"
SHARED = ("pretrain",)
OWN = {"look": look.main, "inside": inside.main, "pretrain-sized": sized.main, "gue-task": gue_task.main}
closing = question.closing


def _pretrained(method: str, note: str, *words: str) -> Arm:
    """Pretraining, a look at its log, one into its model, and a task: with our settings, or of GUE by its published recipe.

    An experiment says which run.
    """
    return Arm(
        (
            ("pretrain", "--method", method),
            ("look", "--run", "{first}"),
            ("inside", "--run", "{first}"),
            ("finetune", "--model", "{first}/model", "--no-regressions", *words),
            ("gue-task", "--model", "{first}/model"),
        ),
        note=note,
    )


def _scratch(start: str, note: str, *words: str) -> Arm:
    return Arm((("finetune", "--start", start, *words),), cost=0.0, note=note)


ARMS: dict[str, Arm] = {
    "scratch_usual": _scratch("usual", "no pretraining, BERT's start"),
    "scratch": _scratch("structured", "no pretraining, same start", "--no-regressions"),
    "scratch_apart": _scratch("structured", "no pretraining, k-mers side by side", "--no-regressions", "--no-overlap"),
    "scratch_base": Arm(
        (("gue-task", "--start", "usual", "--size", "base", "--regressions"),),
        cost=0.0,
        note="no pretraining, DNABERT's size",
    ),
    "dnabert": _pretrained("dnabert", "width k throughout"),
    "dnabert_apart": _pretrained("dnabert", "width k throughout, fine-tuned on k-mers side by side", "--no-overlap"),
    "randommask": _pretrained("randommask", "widths k to k + 8, our reading of the schedule"),
    "constant": _pretrained("constant", "width k + 8 throughout"),
    "constant_share": _pretrained("constant_share", "widths k to k + 8 at one masked share"),
    "uniform": _pretrained("uniform", "each window's width drawn up to the schedule's"),
    "iid": _pretrained("iid", "single tokens, 15 %"),
    "start_usual": Arm((("pretrain-sized", "--start", "usual"),), note="BERT's start, width k"),
    "start_structured": Arm((("pretrain-sized", "--start", "structured"),), note="the structured start, width k"),
}

NUMBERS: tuple[Number, ...] = (
    Number("loss_width_6", "loss w=6", decimals=2),
    Number("loss_width_14", "loss w=14", decimals=2),
    Number("masked_share_training", "masked", "%", 2),
    Number("masked_share_closed", "closed form", "%", 2),
    Number("hidden_bases_training", "hidden a token", decimals=3),
    Number("purity", "purity", "%", 1),
    Number("shift", "shift", "%", 1),
    Number("entropy", "entropy", decimals=3),
    Number("top1", "top-1", decimals=3),
    Number("specials", "specials", decimals=3),
    Number("near", "nearby", decimals=3),
    Number("mcc_last", "MCC last", decimals=3),
    Number("mcc_chosen", "MCC chosen", decimals=3),
    Number("score_last", "score last", decimals=3),
    Number("score", "score chosen", decimals=3),
    Number("score_deduplicated", "deduplicated", decimals=3),
)

REFERENCES: tuple[Reference, ...] = (
    Reference("k-mer counts, w=6", "ceiling_width_6", "loss w=6"),
    Reference("floor, w=6", "floor_width_6", "loss w=6"),
    Reference("k-mer counts, w=14", "ceiling_width_14", "loss w=14"),
    Reference("floor, w=14", "floor_width_14", "loss w=14"),
    Reference("before training, structured start", "purity_start", "purity"),
    Reference("a random neighbour", "purity_level", "purity"),
    Reference("a random neighbour moved by one", "shift_level", "shift"),
    Reference("before training", "entropy_start", "entropy"),
    Reference("before training, top-1", "top1_start", "top-1"),
    Reference("uniform attention, top-1", "top1_level", "top-1"),
    Reference("uniform attention, specials", "specials_level", "specials"),
    Reference("uniform attention, nearby", "near_level", "nearby"),
    Reference("regression on letters", "mcc_positional_regression", "MCC last"),
    Reference("regression on 4-mers", "mcc_kmer_regression", "MCC last"),
    Reference("regression on 4-mers", "score_kmer_regression", "score chosen"),
)
