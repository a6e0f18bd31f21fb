"""Classifier re-training (cRT): features learnt from all samples, then the classifier alone from balanced classes.

    stage 1   train the whole model on the data as they are (with IMWA: iterate and average here)
    stage 2   draw the classifier anew, freeze the rest, BatchNorm in eval mode, train with classes in equal shares

Source    Kang et al. 2019, "Decoupling Representation and Classifier", arXiv 1910.09217. Their code leaves BatchNorm in train
          mode in stage 2, so that its statistics drift; eval mode is our choice. Stage 2 is convex: run it once, from the
          average.
Order     as in their code: classes in random cycles, four samples of a class in a row, each class's samples in random passes.
          Position p of the endless order is a pure function of (seed, p).
Letters   B batch, N training samples, K classes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import cos, pi

import torch
from torch import Tensor, nn

from scarce_common_utils.streams import stream

IN_A_ROW = 4


class ClassBalancedOrder:
    """Endless order of training samples in which every class has the same share.

    Args:
        labels: Int64[N] on the CPU; -1 (no label) never comes.
        seed: of the streams "retraining classes" and "retraining samples".
        batch_size: B.
        in_a_row: samples of a class that follow each other.

    Raises:
        ValueError: there is no labelled sample, or a size is below 1; the value is named.
    """

    def __init__(self, labels: Tensor, *, seed: int, batch_size: int, in_a_row: int = IN_A_ROW) -> None:
        if batch_size < 1 or in_a_row < 1:
            raise ValueError(f"batch_size is {batch_size} and in_a_row {in_a_row}; both must be at least 1.")
        present = labels[labels >= 0].unique().tolist()
        if not present:
            raise ValueError("None of the labels is 0 or more, so there is no class to draw from.")
        self._members = {number: (labels == number).nonzero().flatten() for number in present}
        self._classes = torch.tensor(present)
        self._seed, self._batch_size, self._in_a_row = seed, batch_size, in_a_row
        self._known_cycle: tuple[int, list[int]] = (-1, [])
        self._passes: dict[int, tuple[int, Tensor]] = {}

    def __call__(self, step: int) -> Tensor:
        """Int64[B] on the CPU: the samples of a step, from 0."""
        first = step * self._batch_size
        places = [self._place(position) for position in range(first, first + self._batch_size)]
        return torch.tensor(places)

    def _place(self, position: int) -> int:
        row, within = divmod(position, self._in_a_row)
        cycle, turn = divmod(row, len(self._classes))
        number = self._cycle(cycle)[turn]
        # Each class comes once a cycle, so a cycle's number tells how many of its samples were seen.
        seen = cycle * self._in_a_row + within
        members = self._members[number]
        epoch, index = divmod(seen, len(members))
        return int(members[self._pass(number, epoch)[index]])

    def _cycle(self, cycle: int) -> list[int]:
        if self._known_cycle[0] != cycle:
            generator = stream(self._seed, "retraining classes", cycle)
            drawn = self._classes[torch.randperm(len(self._classes), generator=generator)].tolist()
            self._known_cycle = (cycle, drawn)
        return self._known_cycle[1]

    def _pass(self, number: int, epoch: int) -> Tensor:
        known = self._passes.get(number)
        if known is None or known[0] != epoch:
            generator = stream(self._seed, "retraining samples", number, epoch)
            known = (epoch, torch.randperm(len(self._members[number]), generator=generator))
            self._passes[number] = known
        return known[1]


@contextmanager
def classifier_alone(model: nn.Module, classifier: nn.Module) -> Iterator[list[nn.Parameter]]:
    """Within the block only the classifier learns: all else is frozen and in eval mode; afterwards all is as it was.

    Args:
        model: holds the classifier.
        classifier: a module inside of it; it is in train mode.

    Yields:
        The classifier's parameters, for the optimizer.

    Raises:
        ValueError: the classifier is not in the model, is the model itself, or has no parameter; its class is named.
    """
    if classifier is model or not any(module is classifier for module in model.modules()):
        raise ValueError(
            f"The classifier ({type(classifier).__name__}) is not a part of the model ({type(model).__name__})."
        )
    own = list(classifier.parameters())
    if not own:
        raise ValueError(f"The classifier ({type(classifier).__name__}) has no parameter to train.")
    modes = [(module, module.training) for module in model.modules()]
    needs = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        classifier.train().requires_grad_(True)
        yield own
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, needed in needs:
            parameter.requires_grad_(needed)


def find_classifier(model: nn.Module, classes: int) -> nn.Linear:
    """The model's last linear layer, where it gives `classes` logits.

    Raises:
        ValueError: there is no linear layer, or the last one has another number of outputs; its name and the number are given.
    """
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ValueError(f"{type(model).__name__} has no torch.nn.Linear, so no classifier to train anew.")
    name, found = linear[-1]
    if found.out_features != classes:
        raise ValueError(
            f"The last torch.nn.Linear of {type(model).__name__}, {name}, has {found.out_features} outputs, and there are "
            f"{classes} classes, so it is not the classifier."
        )
    return found


def draw_anew(classifier: nn.Module) -> None:
    """Call `reset_parameters` of the classifier and of the modules in it; torch's global generator is drawn from.

    Raises:
        ValueError: none of them has that method, as a bare parameter holder; its class is named.
    """
    found = [module for module in classifier.modules() if callable(getattr(module, "reset_parameters", None))]
    if not found:
        raise ValueError(
            f"The classifier ({type(classifier).__name__}) has no reset_parameters(), so it stays as it is."
        )
    with torch.no_grad():
        for module in found:
            getattr(module, "reset_parameters")()  # noqa: B009 - not in the type of nn.Module


def retrain_classifier(
    model: nn.Module,
    classifier: nn.Module,
    *,
    batches: Callable[[int], tuple[Tensor, Tensor]],
    steps: int,
    learning_rate: float = 0.2,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
) -> None:
    """Stage 2: draw the classifier anew and train it alone by SGD with a cosine to 0 and cross-entropy.

    Args:
        model: images -> logits Float[B K]; changed in place, in its classifier only.
        classifier: the module inside it that makes logits of features.
        batches: step from 0 -> images and labels Int64[B] on the model's device, classes balanced (`ClassBalancedOrder`).
        steps: at least 1.
        learning_rate: at the first step; 0.2 at a batch of 512 is the source's for ImageNet-LT.
        momentum: of SGD.
        weight_decay: on the classifier's parameters.

    Raises:
        ValueError: steps is below 1, or the classifier cannot be trained alone; the reason is named.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; the classifier needs at least one step.")
    draw_anew(classifier)
    with classifier_alone(model, classifier) as parameters:
        optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = learning_rate * 0.5 * (1.0 + cos(pi * step / steps))
            images, labels = batches(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
