"""Every weighting rule with every reading of Avg-Clustering: criteria whose state has moved, and batches for them."""

import functools

import torch
from torch import nn

from layermatch import (
    FixedThreshold,
    FlexMatchWeighting,
    FreeMatchWeighting,
    LayerMatch,
    PseudoLabelWeighting,
    SoftMatchWeighting,
)

CLASSES, WIDTH, LABELLED, UNLABELLED, IMAGES = 4, 5, 6, 9, 20

RULES = {
    "fixed": lambda: FixedThreshold(0.4),
    "flexmatch": lambda: FlexMatchWeighting(CLASSES, IMAGES, threshold=0.6),
    "freematch": lambda: FreeMatchWeighting(CLASSES, momentum=0.8, fairness_weight=0.3),
    "softmatch": lambda: SoftMatchWeighting(CLASSES, momentum=0.8),
    "pseudolabel": lambda: PseudoLabelWeighting(4.0, threshold=0.4),
}
READINGS = [None, "classifier", "classifier-strong", "prototypes", "prototypes, not ready", "teacher", "temporal"]


def name_of(reading):
    return None if reading is None else reading.split(",")[0]


def build(classifier, rule, reading, **options):
    """A criterion; `pseudolabel` looks at one view."""
    sizes = {"images": IMAGES, "one_view": rule == "pseudolabel"}
    return LayerMatch(classifier, weighting=RULES[rule](), avg_clustering=name_of(reading), **(sizes | options))


def batch(seed, *, dtype=torch.float64, width=WIDTH, leaf=True):
    """Arguments of a call, whatever is needed; features are leaves that want a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, columns):
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64).to(dtype)

    features, weak, strong, teacher = (
        draw(LABELLED, width),
        draw(UNLABELLED, width),
        draw(UNLABELLED, width),
        draw(UNLABELLED, CLASSES),
    )
    labels = torch.arange(LABELLED) % CLASSES
    indices = torch.randperm(IMAGES, generator=generator)[:UNLABELLED]
    call = {
        "labelled": (features.requires_grad_(leaf), labels),
        "weak": weak.requires_grad_(leaf),
        "strong": strong.requires_grad_(leaf),
        "indices": indices,
        "teacher_weak": 2.0 * teacher,
    }
    return call


def walked(rule, reading, *, dtype, steps, **options):
    """Classifier and criterion after some steps, each of which changed the classifier."""
    generator = torch.Generator().manual_seed(0)
    classifier = nn.Linear(WIDTH, CLASSES, dtype=dtype)
    with torch.no_grad():
        for parameter in classifier.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    criterion = build(classifier, rule, reading, **options)
    for step in range(steps):
        criterion(**batch(100 + step, dtype=dtype, leaf=False))
        with torch.no_grad():
            for parameter in classifier.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64), alpha=0.3)
        criterion.update()
    if reading == "prototypes":
        criterion.centres.prototype_steps.fill_(50)
    return classifier, criterion


@functools.cache
def three_steps(rule, reading, dtype):
    """Their states, which hang on no mode of Grad-ReLU."""
    return [state_of(module) for module in walked(rule, reading, dtype=dtype, steps=3)]


def moved(rule, reading, *, dtype=torch.float64, **options):
    """Classifier and criterion after three steps: for what Grad-ReLU alone distinguishes, walked once and loaded."""
    if options.keys() - {"grad_relu"}:
        return walked(rule, reading, dtype=dtype, steps=3, **options)
    classifier = nn.Linear(WIDTH, CLASSES, dtype=dtype)
    criterion = build(classifier, rule, reading, **options)
    for module, state in zip((classifier, criterion), three_steps(rule, reading, dtype), strict=True):
        module.load_state_dict({name: value.clone() for name, value in state.items()})
    return classifier, criterion


def view_of(rule, call):
    """The features that the unlabelled loss is taken on."""
    return call["weak"] if rule == "pseudolabel" else call["strong"]


def state_of(criterion):
    return {name: value.clone() for name, value in criterion.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
