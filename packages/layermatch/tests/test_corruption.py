import pytest
import torch
from torch import nn

from combinations import CLASSES, WIDTH, batch, build, moved
from layermatch import Corruption


def answers(kind, share, *, images=1000, classes=5, seed=0, steps=1):
    corrupt = Corruption(kind, share, images=images, classes=classes, seed=seed)
    labels = torch.arange(images) % classes
    found = []
    for _ in range(steps):
        found.append((corrupt(labels, torch.arange(images)) - labels) % classes)
        corrupt.update()
    return found


@pytest.mark.parametrize("kind", ["uniform", "pair", "fresh"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_the_share_is_exact_and_each_kind_moves_labels_as_it_says(kind, share):
    first, second = answers(kind, share, steps=2)
    assert (first != 0).sum() == (second != 0).sum() == round(1000 * share)
    assert set(first[first != 0].tolist()) == (set() if not share else {1} if kind == "pair" else {1, 2, 3, 4})
    if share:
        assert torch.equal(first, second) == (kind != "fresh")
        assert not torch.equal(first, answers(kind, share, seed=1)[0]) or (kind == "pair" and share == 1.0)
    assert torch.equal(first, answers(kind, share)[0])


def test_uniform_takes_every_other_class_alike():
    (found,) = answers("uniform", 1.0, images=40_000)
    counts = torch.bincount(found, minlength=5)
    assert counts[0] == 0
    assert ((counts[1:] - 10_000).abs() < 400).all()


def test_an_image_keeps_its_wrong_label_wherever_it_stands_in_a_batch():
    corrupt = Corruption("uniform", 0.5, images=50, classes=4, seed=3)
    labels = torch.zeros(50, dtype=torch.int64)
    whole = corrupt(labels, torch.arange(50))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(corrupt(labels, order), whole[order])


def test_fresh_goes_on_where_it_was_saved():
    whole = answers("fresh", 0.4, steps=4)
    first = Corruption("fresh", 0.4, images=1000, classes=5, seed=0)
    for _ in range(2):
        first.update()
    second = Corruption("fresh", 0.4, images=1000, classes=5, seed=0)
    second.load_state_dict(first.state_dict())
    labels = torch.arange(1000) % 5
    assert torch.equal((second(labels, torch.arange(1000)) - labels) % 5, whole[2])
    assert list(first.state_dict()) == ["_extra_state"]


@pytest.mark.parametrize("rule", ["fixed", "softmatch"])
def test_the_loss_sees_the_wrong_labels_and_weights_and_output_the_right_ones(rule):
    corrupt = Corruption("pair", 1.0, images=20, classes=4, seed=0)
    _, plain = moved(rule, "classifier")
    _, criterion = moved(rule, "classifier", corrupt=corrupt)
    assert criterion.needs == plain.needs | {"indices"}
    call = batch(0)
    out, expected = criterion(**call), plain(**call)
    assert torch.equal(out.pseudo_labels, expected.pseudo_labels)
    assert torch.equal(out.weights, expected.weights)
    logits = criterion.centres.logits(call["strong"], criterion.classifier, cut=True)
    losses = torch.nn.functional.cross_entropy(logits, (out.pseudo_labels + 1) % 4, reduction="none")
    assert out.unlabelled_loss.equal((out.weights * losses).mean())
    assert not out.loss.equal(expected.loss)
    with pytest.raises(ValueError, match=r"indices is missing, and corrupt needs"):
        criterion(**(call | {"indices": None}))


def test_its_steps_are_in_the_criterions_state():
    corrupt = Corruption("fresh", 0.5, images=20, classes=4, seed=0)
    _, criterion = moved("fixed", None, corrupt=corrupt)
    assert corrupt.step == 3
    fresh = Corruption("fresh", 0.5, images=20, classes=4, seed=0)
    other = build(nn.Linear(WIDTH, CLASSES, dtype=torch.float64), "fixed", None, corrupt=fresh)
    other.load_state_dict(criterion.state_dict())
    assert torch.equal(other.corrupt.offsets, corrupt.offsets)
    _, plain = moved("fixed", None)
    with pytest.raises(ValueError, match=r"corrupt\._extra_state.*corruption"):
        plain.load_state_dict(criterion.state_dict())


@pytest.mark.parametrize(
    ("kind", "share", "sizes", "message"),
    [
        ("pairs", 0.3, {}, r"'pairs'.*'uniform', 'pair', 'fresh'"),
        ("pair", 1.2, {}, r"share of corrupted pseudo-labels is 1.2"),
        ("pair", 0.3, {"classes": 1}, r"20 images and 1 classes"),
    ],
)
def test_values_out_of_range_are_refused(kind, share, sizes, message):
    with pytest.raises(ValueError, match=message):
        Corruption(kind, share, **({"images": 20, "classes": 4, "seed": 0} | sizes))
