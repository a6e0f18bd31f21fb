"""Averaged clustering centres (Avg-Clustering): where pseudo-labels and the strong views' logits come from.

One file a reading; `reading.py` holds what they share. The abstract of LayerMatch, arXiv 2406.14207, speaks of stable
clustering centres from consistent outputs. What is averaged, where it is used and how fast it moves is not known to us:
all of these readings, and their momentums, are ours.

    name                 state                          what it changes                              momentum
    None                 none                           nothing: both views use the classifier       none
    "classifier"         averaged weight and bias       logits of both views use the averages        0.999 a step
    "classifier-strong"  averaged weight and bias       logits of the strong view use the averages   0.999 a step
    "prototypes"         averaged features of classes   strong logits are similarities to them       0.999 a step
    "teacher"            none of its own                pseudo-labels come from an averaged model    of that model
    "temporal"           averaged outputs of images     pseudo-labels come from them                 0.6 a visit
"""

from .build import READINGS, build_centres
from .classifier import ClassifierCentres, StrongViewCentres
from .prototypes import Prototypes
from .reading import Reading
from .teacher import Teacher
from .temporal import TemporalAverages

__all__ = [
    "READINGS",
    "ClassifierCentres",
    "Prototypes",
    "Reading",
    "StrongViewCentres",
    "Teacher",
    "TemporalAverages",
    "build_centres",
]
