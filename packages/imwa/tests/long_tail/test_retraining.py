"""Classifier re-training: the balanced order, what is frozen, and what comes out of it."""

import pytest
import torch
from torch import nn

from imwa.long_tail.retraining import (
    ClassBalancedOrder,
    classifier_alone,
    draw_anew,
    find_classifier,
    retrain_classifier,
)
from imwa.models.resnet_cifar import small_resnet

LABELS = torch.tensor([0] * 40 + [1] * 9 + [2] * 2 + [-1] * 5)


def test_every_class_has_the_same_share_and_every_sample_comes_once_a_pass():
    order = ClassBalancedOrder(LABELS, seed=3, batch_size=12)
    places = torch.cat([order(step) for step in range(10)])  # ten cycles of three classes, four in a row
    assert torch.bincount(LABELS[places]).tolist() == [40, 40, 40]
    assert sorted(places[LABELS[places] == 0].tolist()) == list(range(40))
    assert torch.bincount(places, minlength=51)[40:51].tolist()[-2:] == [20, 20]
    runs = LABELS[places].view(-1, 4)
    assert torch.equal(runs, runs[:, :1].expand(-1, 4))


def test_the_order_is_a_function_of_seed_and_step_alone():
    whole = torch.cat([ClassBalancedOrder(LABELS, seed=3, batch_size=7)(step) for step in range(12)])
    order = ClassBalancedOrder(LABELS, seed=3, batch_size=7)
    backwards = [order(step) for step in reversed(range(12))][::-1]
    assert torch.equal(torch.cat(backwards), whole)
    assert torch.equal(torch.cat([ClassBalancedOrder(LABELS, seed=3, batch_size=84)(0)]), whole)
    assert not torch.equal(ClassBalancedOrder(LABELS, seed=4, batch_size=84)(0), whole)


def test_an_order_without_a_labelled_sample_is_refused():
    with pytest.raises(ValueError, match="no class to draw from"):
        ClassBalancedOrder(torch.tensor([-1, -1]), seed=0, batch_size=2)
    with pytest.raises(ValueError, match="batch_size is 0"):
        ClassBalancedOrder(LABELS, seed=0, batch_size=0)


def test_only_the_classifier_learns_and_batch_norm_stays():
    torch.manual_seed(0)
    model = small_resnet(3)
    model.conv.weight.requires_grad_(False)  # a person's own frozen layer stays frozen afterwards
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = torch.randn(12, 1, 8, 8), torch.arange(3).repeat(4)
    retrain_classifier(model, model.classifier, batches=lambda step: (images, labels), steps=20)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) is not name.startswith("classifier"), name
    assert all(module.training for module in model.modules())
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["conv.weight"]


def test_the_classifier_starts_anew_and_the_rest_gets_no_gradient():
    images, labels = torch.randn(12, 1, 8, 8), torch.arange(3).repeat(4)
    torch.manual_seed(0)
    model, ends = small_resnet(3), []
    for start in (0.0, 100.0):  # whatever the classifier was, the same draw and the same data give the same end
        with torch.no_grad():
            model.classifier.weight.fill_(start)
        torch.manual_seed(1)
        retrain_classifier(model, model.classifier, batches=lambda step: (images, labels), steps=3)
        ends.append(model.classifier.weight.detach().clone())
    assert torch.equal(*ends)
    assert model.blocks[0].conv1.weight.grad is None
    assert model.classifier.weight.grad is not None


def test_balanced_classes_raise_the_rare_classes_accuracy():
    # Two overlapping clouds, 200 to 5: a classifier of all samples leans to the large one, a re-trained one does not.
    generator = torch.Generator().manual_seed(0)
    features = torch.cat([torch.randn(200, 2, generator=generator) - 0.7, torch.randn(5, 2, generator=generator) + 0.7])
    labels = torch.tensor([0] * 200 + [1] * 5)
    test = torch.randn(500, 2, generator=generator) + 0.7
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(200):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features), labels).backward()
        optimizer.step()
    before = float((model(test).argmax(1) == 1).float().mean())
    order = ClassBalancedOrder(labels, seed=0, batch_size=32)
    retrain_classifier(model, model[1], batches=lambda step: (features[order(step)], labels[order(step)]), steps=200)
    after = float((model(test).argmax(1) == 1).float().mean())
    assert before < 0.6
    assert after > before + 0.2


def test_a_classifier_elsewhere_or_without_a_way_to_start_anew_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    with (
        pytest.raises(ValueError, match=r"\(Linear\) is not a part of the model"),
        classifier_alone(model, nn.Linear(2, 2)),
    ):
        pass
    with pytest.raises(ValueError, match=r"\(ReLU\) has no parameter"), classifier_alone(model, model[1]):
        pass
    with pytest.raises(ValueError, match=r"has no reset_parameters"):
        draw_anew(nn.ReLU())
    with pytest.raises(ValueError, match="steps is 0"):
        retrain_classifier(model, model[0], batches=lambda step: (torch.zeros(1, 2), torch.zeros(1)), steps=0)


def test_all_is_as_it_was_after_an_error_within():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).train()

    def fail() -> None:
        with classifier_alone(model, model[2]) as parameters:
            assert [id(p) for p in parameters] == [id(p) for p in model[2].parameters()]
            assert not model[1].training
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert model[1].training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_classifier_is_the_last_linear_layer_with_an_output_a_class():
    model = small_resnet(3)
    assert find_classifier(model, 3) is model.classifier
    two = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    assert find_classifier(two, 3) is two[1]
    with pytest.raises(
        ValueError, match=r"last torch.nn.Linear of CifarResNet, classifier, has 3 outputs, and there are 4"
    ):
        find_classifier(model, 4)
    with pytest.raises(ValueError, match=r"ReLU has no torch.nn.Linear"):
        find_classifier(nn.ReLU(), 2)
    with pytest.raises(ValueError, match=r"CifarResNet, classifier|CifarResNet has no torch.nn.Linear"):
        find_classifier(small_resnet(3, cosine=True), 3)  # LDAM's cosines are no linear layer
