"""A network of two hidden layers for vectors; ours, in no published table.

Letters   N samples, D features, K classes.
"""

from torch import Tensor, nn

WIDTH = 128  # of both hidden layers


class SmallMLP(nn.Module):
    """Vectors Float[N D] -> logits Float[N K]; the classifier is the attribute `classifier`.

    Args:
        classes: K.
        features: D.
        width: of the hidden layers.
    """

    def __init__(self, classes: int, *, features: int, width: int = WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, width), nn.LayerNorm(width), nn.ReLU(),
            nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU(),
        )  # fmt: skip
        self.classifier = nn.Linear(width, classes)

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits Float[N K] of vectors Float[N D]."""
        return self.classifier(self.layers(vectors))
