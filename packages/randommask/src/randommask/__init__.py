"""RandomMask: BERT pretraining on DNA k-mers with a mask that widens as training goes on."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from randommask.alphabet import base_codes as base_codes
    from randommask.collator import RandomMaskCollator as RandomMaskCollator
    from randommask.identities import Hidden as Hidden
    from randommask.identities import count_hidden as count_hidden
    from randommask.identities import loss_floor as loss_floor
    from randommask.identities import masked_share as masked_share
    from randommask.kmers import kmer_ids as kmer_ids
    from randommask.kmers import kmer_vocabulary as kmer_vocabulary
    from randommask.kmers import vocabulary as vocabulary
    from randommask.masking import RandomMasked as RandomMasked
    from randommask.masking import random_mask as random_mask
    from randommask.methods import METHODS as METHODS
    from randommask.methods import Masking as Masking
    from randommask.models.masked_bert import MaskedBert as MaskedBert
    from randommask.numbering import NumberedBatches as NumberedBatches
    from randommask.schedule import MaskSchedule as MaskSchedule
    from randommask.schedule import Phase as Phase
    from randommask.tokenizer import KmerTokenizer as KmerTokenizer
    from randommask.training.trainer import RandomMaskTrainer as RandomMaskTrainer

_HOME = {
    "Hidden": "identities",
    "KmerTokenizer": "tokenizer",
    "METHODS": "methods",
    "MaskSchedule": "schedule",
    "MaskedBert": "models.masked_bert",
    "Masking": "methods",
    "NumberedBatches": "numbering",
    "Phase": "schedule",
    "RandomMaskCollator": "collator",
    "RandomMaskTrainer": "training.trainer",
    "RandomMasked": "masking",
    "base_codes": "alphabet",
    "count_hidden": "identities",
    "kmer_ids": "kmers",
    "kmer_vocabulary": "kmers",
    "loss_floor": "identities",
    "masked_share": "identities",
    "random_mask": "masking",
    "vocabulary": "kmers",
}
__all__ = [  # noqa: RUF022 (in the order of _HOME)
    "__version__",
    "Hidden",
    "KmerTokenizer",
    "METHODS",
    "MaskSchedule",
    "MaskedBert",
    "Masking",
    "NumberedBatches",
    "Phase",
    "RandomMaskCollator",
    "RandomMaskTrainer",
    "RandomMasked",
    "base_codes",
    "count_hidden",
    "kmer_ids",
    "kmer_vocabulary",
    "loss_floor",
    "masked_share",
    "random_mask",
    "vocabulary",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
