"""Rows of layermatch: what the criterion costs over what it is made of, and what importing costs.

Shapes: U unlabelled and B labelled samples, D features, K classes.
"""

import torch
from torch import Tensor, nn

from layermatch import METHODS, LayerMatch
from speed.rows import Row, import_row, in_turns

SAMPLES, WIDTH, CLASSES = 512, 128, 100
BATCH, RATIO = 16, 7


def criterion_row() -> Row:
    """LayerMatch's forward, backward and update on features (512, 128), 100 classes, against two plain cross-entropies."""
    generator = torch.Generator().manual_seed(0)

    def features() -> Tensor:
        return torch.randn(SAMPLES, WIDTH, generator=generator).requires_grad_()

    classifier = nn.Linear(WIDTH, CLASSES)
    labelled, weak, strong = features(), features(), features()
    labels = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    criterion = LayerMatch(classifier, threshold=0.0)

    def clear() -> None:
        for tensor in (labelled, strong, *classifier.parameters()):
            tensor.grad = None

    def ours() -> None:
        clear()
        criterion(labelled=(labelled, labels), weak=weak, strong=strong).loss.backward()
        criterion.update()

    def peer() -> None:
        clear()
        first = nn.functional.cross_entropy(classifier(labelled), labels)
        second = nn.functional.cross_entropy(classifier(strong), labels)
        (first + second).backward()

    times = in_turns(ours, peer, turns=15, calls=20)
    return Row(
        f"LayerMatch criterion, forward, backward, update, ({SAMPLES}, {WIDTH}), {CLASSES} classes",
        1e3 * times.ours,
        1e3 * times.peer,
        "two plain cross-entropies",
        "ms",
        times.ours / times.peer,
        1.4,
    )


def step_row() -> Row:
    """A whole step with LayerMatch against the same step with FixMatch: MLP 64-128-64, B 16, mu 7."""
    images = torch.randn(BATCH * (1 + 2 * RATIO), 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(BATCH) % 10
    sizes = [BATCH, BATCH * RATIO, BATCH * RATIO]

    def step_of(method: str):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU())
        classifier = nn.Linear(64, 10)
        criterion = METHODS[method](classifier, threshold=0.5)
        parameters = [*body.parameters(), *classifier.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, nesterov=True)

        def step() -> None:
            labelled, weak, strong = body(images).split(sizes)
            out = criterion(labelled=(labelled, labels), weak=weak, strong=strong)
            optimizer.zero_grad()
            out.loss.backward()
            optimizer.step()
            criterion.update()

        return step

    times = in_turns(step_of("layermatch"), step_of("fixmatch"), turns=25, calls=40)
    return Row(
        "whole step with LayerMatch, MLP 64-128-64, B 16, mu 7",
        1e3 * times.ours,
        1e3 * times.peer,
        "the same step with FixMatch",
        "ms",
        times.ours / times.peer,
        1.03,
    )


def layermatch_import_row() -> Row:
    """CPU seconds that importing the criterion adds to `import torch`; `import layermatch` itself loads nothing."""
    return import_row("layermatch.criterion")


ROWS = (criterion_row, step_row, layermatch_import_row)
