"""How much each unlabelled sample counts: rules from class probabilities to per-sample weights, one file a rule.

`rule.py` holds what they share: the protocol, and the answer `Weighted`.
"""

from .fixed import FixedThreshold
from .flexmatch import FlexMatchWeighting
from .freematch import FreeMatchWeighting
from .pseudolabel import PseudoLabelWeighting
from .rule import Weighted, WeightingRule
from .softmatch import SoftMatchWeighting

__all__ = [
    "FixedThreshold",
    "FlexMatchWeighting",
    "FreeMatchWeighting",
    "PseudoLabelWeighting",
    "SoftMatchWeighting",
    "Weighted",
    "WeightingRule",
]
