"""How much each unlabelled sample counts: rules from class probabilities to per-sample weights, one file a rule.

`rule.py` holds what they share: the protocol, and the answer `Weighted`.
"""

from .fixed import FixedThreshold
from .pseudolabel import PseudoLabelWeighting
from .rule import Weighted, WeightingRule

__all__ = ["FixedThreshold", "PseudoLabelWeighting", "Weighted", "WeightingRule"]
