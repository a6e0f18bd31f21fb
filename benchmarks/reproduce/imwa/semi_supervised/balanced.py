"""ABC: a second linear head on FixMatch's features, trained on classes that a coin flip has balanced.

    labelled      L1 = mean_B  b_i (-log softmax(h_i)_y)                                   b_i ~ Bernoulli(N_min / N_y)
    unlabelled    q = softmax(h_weak), no gradient;  c = argmax q
                  L2 = sum_views mean_U  1[max q >= threshold] b_i sum_k q_k (-log softmax(h_strong)_k)
                                                                    b_i ~ Bernoulli(1 - (t / T)(1 - N_min / N_c))
    total         FixMatch's loss on its own head + L1 + L2; both heads' gradients reach the features; h predicts

Source    Lee et al. 2021, NeurIPS, and its released code (ABCfix.py): the soft target, both strong views summed, means over all
          samples. There t / T moves by epoch; here by the global step, so that replicas of one step agree.
Letters   B labelled, U unlabelled samples, D features, K classes, N labelled samples of a class, t of T steps.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from layermatch import split_classifier


class Coins(NamedTuple):
    """Uniform numbers of a step, in [0, 1): `labelled` Float[B], `unlabelled` Float[U]; heads where they lie below a rate."""

    labelled: Tensor
    unlabelled: Tensor


class TwoHeads(nn.Module):
    """A network cut before its classifier, with a second head beside it: images -> features Float[N D].

    Args:
        network: images -> logits; its last linear layer becomes `classifier`. It is changed in place.
        balanced: give it the second head, drawn from the global generator (Xavier, bias 0, as the source).

    Attributes:
        classifier: FixMatch's head.
        balanced: ABC's, or None.
    """

    def __init__(self, network: nn.Module, *, balanced: bool) -> None:
        super().__init__()
        self.split = split_classifier(network)
        classes, features = self.classifier.weight.shape
        self.balanced = nn.Linear(features, classes) if balanced else None
        if self.balanced is not None:
            nn.init.xavier_normal_(self.balanced.weight)
            nn.init.zeros_(self.balanced.bias)

    @property
    def classifier(self) -> nn.Linear:
        """FixMatch's head."""
        head = self.split.classifier
        assert isinstance(head, nn.Linear)
        return head

    @property
    def predictor(self) -> nn.Linear:
        """The head that predicts: the balanced one where there is one."""
        return self.classifier if self.balanced is None else self.balanced

    def forward(self, images: Tensor) -> Tensor:
        """Float[N C H W] -> Float[N D]."""
        return self.split(images)


def labelled_rates(counts: Sequence[int]) -> Tensor:
    """Float32[K]: N_min / N_k.

    Raises:
        ValueError: a class has no labelled sample; it is named.
    """
    if min(counts) < 1:
        raise ValueError(f"Class {list(counts).index(min(counts))} has no labelled sample, so no rate.")
    return min(counts) / torch.tensor(counts, dtype=torch.float32)


def unlabelled_rates(rates: Tensor, progress: float) -> Tensor:
    """Float32[K]: from 1 at the start to the labelled rates at the end; `progress` is t / T."""
    return 1.0 - progress * (1.0 - rates)


def balanced_loss(
    labelled: tuple[Tensor, Tensor],
    weak: Tensor,
    *,
    strong: Sequence[Tensor],
    rates: Tensor,
    progress: float,
    threshold: float,
    coins: Coins,
) -> Tensor:
    """Float[]: L1 + L2 of the second head.

    Args:
        labelled: logits Float[B K] and labels Int64[B].
        weak: logits Float[U K] of the weak views; no gradient is taken of them.
        strong: logits Float[U K] of each strong view.
        rates: Float32[K], of `labelled_rates`.
        progress: t / T in [0, 1].
        threshold: confidence from which a sample counts.
        coins: of the step, on the logits' device.
    """
    logits, labels = labelled
    heads = coins.labelled < rates[labels]
    first = (heads * nn.functional.cross_entropy(logits, labels, reduction="none")).mean()
    targets = weak.detach().softmax(dim=1)
    confidence, guess = targets.max(dim=1)
    counts = (confidence >= threshold) & (coins.unlabelled < unlabelled_rates(rates, progress)[guess])
    losses = [(counts * -(targets * view.log_softmax(dim=1)).sum(dim=1)).mean() for view in strong]
    return first + torch.stack(losses).sum()
