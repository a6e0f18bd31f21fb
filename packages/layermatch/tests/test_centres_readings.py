"""The readings `prototypes`, `teacher`, `temporal` and `classifier-strong`, each against its own twin."""

import copy

import pytest
import torch
from torch import nn

from combinations import batch
from layermatch import LayerMatch
from layermatch.centres import READINGS, Prototypes, TemporalAverages, build_centres
from reference.centres import PrototypesTwin, temporal


def linear(width=5, classes=4, dtype=torch.float64, seed=0):
    torch.manual_seed(seed)
    return nn.Linear(width, classes, dtype=dtype)


def draw(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRUE = torch.tensor(True)


@pytest.mark.parametrize("momentum", [0.0, 0.6, 0.9])
def test_temporal_equals_the_twin_with_images_that_come_twice(momentum):
    classifier = linear()
    reading = TemporalAverages(classifier, classes=4, images=12, momentum=momentum)
    averages, visits = [[0.0] * 4 for _ in range(12)], [0] * 12
    generator = torch.Generator().manual_seed(0)
    for step in range(15):
        weak, indices = draw(7, 5, step), torch.randint(12, (7,), generator=generator)
        found = reading.probabilities(weak, classifier, indices=indices)
        reading.observe((weak, indices), finite=TRUE)
        live = classifier(weak).softmax(-1).tolist()
        expected = temporal(averages, visits, indices=indices.tolist(), probabilities=live, m=momentum)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(
            reading.temporal_averages, torch.tensor(averages, dtype=torch.float64), rtol=1e-12, atol=1e-15
        )
        assert reading.temporal_visits.tolist() == visits
        torch.testing.assert_close(found.sum(-1), torch.ones(7).double(), rtol=1e-12, atol=0)
    assert max(visits) > 5


def test_temporal_of_an_image_twice_in_one_batch_is_the_last_one_in_both_places():
    classifier, indices = linear(), torch.tensor([3, 8, 3, 3])
    reading = TemporalAverages(classifier, classes=4, images=9, momentum=0.6)
    weak = draw(4, 5, 0)
    found = reading.probabilities(weak, classifier, indices=indices)
    reading.observe((weak, indices), finite=TRUE)
    live = classifier(weak).softmax(-1).detach()
    for place in (0, 2, 3):
        torch.testing.assert_close(found[place], live[3], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1], live[1], rtol=1e-12, atol=0)
    assert reading.temporal_visits.tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 1]
    assert torch.equal(found[0], found[2])


def test_temporal_first_visit_is_the_live_output_and_moves_in_the_call_that_uses_it():
    classifier = linear()
    criterion = LayerMatch(classifier, avg_clustering="temporal", images=20, threshold=0.0)
    call = batch(0)
    out = criterion(**call)
    assert torch.equal(out.pseudo_labels, classifier(call["weak"]).argmax(-1))
    assert criterion.centres.temporal_visits.sum() == 9
    state = {name: value.clone() for name, value in criterion.state_dict().items()}
    criterion.update()
    assert all(torch.equal(state[name], value) for name, value in criterion.state_dict().items())


def test_temporal_asks_for_images_and_refuses_what_cannot_be():
    with pytest.raises(
        ValueError, match=r"avg_clustering='temporal' needs the number of images of the unlabelled set: pass images="
    ):
        LayerMatch(linear(), avg_clustering="temporal")
    with pytest.raises(ValueError, match=r"images is 0"):
        LayerMatch(linear(), avg_clustering="temporal", images=0)
    with pytest.raises(ValueError, match=r"momentum is 1.0, and averages of outputs that start at 0 would stay"):
        LayerMatch(linear(), avg_clustering="temporal", images=5, momentum=1.0)
    criterion = LayerMatch(linear(), avg_clustering="temporal", images=5)
    with pytest.raises(ValueError, match=r"An index is \d+, and there are 5 unlabelled images"):
        criterion(**batch(0))


@pytest.mark.parametrize("momentum", [0.0, 0.9, 1.0])
def test_prototypes_equal_the_twin(momentum):
    classifier = linear()
    reading = Prototypes(classifier, classes=4, features=5, momentum=momentum)
    twin = PrototypesTwin(4, 5, momentum)
    strong = draw(7, 5, 1000)
    fallen_back = 0
    for step in range(60):
        features = draw(6, 5, step)
        labels = (torch.arange(6) + step) % (3 if step < 53 else 4)  # the last class is first seen at step 53
        logits = reading.logits(strong, classifier, cut=True)
        expected = twin.logits(strong.tolist())
        if expected is None:
            fallen_back += 1
            assert torch.equal(logits, classifier(strong))
        else:
            torch.testing.assert_close(logits, torch.tensor(expected, dtype=torch.float64), rtol=1e-11, atol=1e-12)
        reading.observe((features, labels), finite=TRUE)
        reading.update(classifier)
        twin.step(features.tolist(), labels.tolist())
        rows = torch.tensor(twin.rows, dtype=torch.float64)
        torch.testing.assert_close(reading.prototype_features, rows, rtol=1e-12, atol=1e-14)
        assert reading.prototype_seen.tolist() == twin.seen
    assert fallen_back == 54
    assert reading.prototype_steps == 60


def test_prototypes_fall_back_for_50_steps_though_all_classes_are_seen():
    classifier = linear()
    reading = Prototypes(classifier, classes=4, features=5)
    strong = draw(3, 5, 0)
    for step in range(51):
        assert torch.equal(reading.logits(strong, classifier, cut=True), classifier(strong)) == (step < 50)
        reading.observe((draw(8, 5, step), torch.arange(8) % 4), finite=TRUE)
        reading.update(classifier)


def test_prototypes_of_two_micro_batches_are_those_of_one_batch():
    classifier = linear()
    whole, parts = (Prototypes(classifier, classes=4, features=5, momentum=0.5) for _ in range(2))
    for step in range(3):
        features, labels = draw(8, 5, step), torch.randint(4, (8,), generator=torch.Generator().manual_seed(step))
        whole.observe((features, labels), finite=TRUE)
        for half in (slice(0, 4), slice(4, 8)):
            parts.observe((features[half], labels[half]), finite=TRUE)
        for reading in (whole, parts):
            reading.update(classifier)
    torch.testing.assert_close(parts.prototype_features, whole.prototype_features, rtol=1e-12, atol=1e-14)


def test_prototypes_of_a_skipped_step_leave_nothing_behind():
    classifier = linear()
    first, second = (Prototypes(classifier, classes=4, features=5, momentum=0.5) for _ in range(2))
    first.observe((draw(8, 5, 0), torch.arange(8) % 4), finite=TRUE)
    first.update(classifier, step_taken=torch.tensor(False))
    first.observe((draw(8, 5, 1) * float("nan"), torch.arange(8) % 4), finite=torch.tensor(False))
    first.update(classifier)
    for reading in (first, second):
        reading.observe((draw(8, 5, 2), torch.arange(8) % 4), finite=TRUE)
        reading.update(classifier)
    assert torch.equal(first.prototype_features, second.prototype_features)
    assert first.prototype_steps == second.prototype_steps + 1  # a step with nothing to learn from is still a step


def test_prototypes_pull_features_and_leave_the_classifier_alone():
    classifier = linear()
    criterion = LayerMatch(classifier, avg_clustering="prototypes", threshold=0.0, momentum=0.5)
    for step in range(50):
        criterion(**batch(step))
        criterion.update()
    call = batch(99)
    out = criterion(**call)
    strong = call["strong"].detach().clone().requires_grad_()
    rows = criterion.centres.prototype_features
    middle = rows.mean(0)
    logits = 10.0 * nn.functional.cosine_similarity((strong - middle)[:, None], (rows - middle)[None], dim=-1)
    loss = nn.functional.cross_entropy(logits, classifier(call["weak"]).argmax(-1))
    torch.testing.assert_close(out.unlabelled_loss, loss, rtol=1e-9, atol=1e-12)
    found = torch.autograd.grad(out.unlabelled_loss, [call["strong"], classifier.weight], allow_unused=True)
    torch.testing.assert_close(found[0], torch.autograd.grad(loss, strong)[0], rtol=1e-8, atol=1e-12)
    assert found[1] is None or not found[1].any()


def test_prototypes_straight_through_give_the_classifier_the_gradient_of_their_logits():
    classifier = linear()
    criterion = LayerMatch(classifier, avg_clustering="prototypes", threshold=0.0, momentum=0.5, grad_relu=False)
    for step in range(50):
        criterion(**batch(step))
        criterion.update()
    call = batch(99)
    out = criterion(**call)
    leaf = criterion.centres.logits(call["strong"], classifier, cut=True).detach().requires_grad_()
    (delta,) = torch.autograd.grad(nn.functional.cross_entropy(leaf, out.pseudo_labels), leaf)
    (found,) = torch.autograd.grad(out.unlabelled_loss, classifier.weight)
    torch.testing.assert_close(found, delta.T @ call["strong"].detach(), rtol=1e-11, atol=1e-14)


def test_prototypes_work_with_a_head_that_is_not_linear_once_the_sizes_are_given():
    head = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 4)).double()
    with pytest.raises(
        ValueError, match=r"needs the number of classes, which a Sequential does not tell: pass classes="
    ):
        LayerMatch(head, avg_clustering="prototypes")
    criterion = LayerMatch(head, avg_clustering="prototypes", classes=4, features=5)
    assert criterion(**batch(0)).loss.isfinite()


def test_a_teachers_logits_decide_labels_and_confidence_and_the_loss_is_the_students():
    classifier = linear()
    call = batch(0)
    out = LayerMatch(classifier, avg_clustering="teacher", threshold=0.5)(**call)
    q = call["teacher_weak"].softmax(-1)
    losses = nn.functional.cross_entropy(classifier(call["strong"]), q.argmax(-1), reduction="none")
    assert torch.equal(out.pseudo_labels, q.argmax(-1))
    assert torch.equal(out.mask, q.amax(-1) >= 0.5)
    assert out.unlabelled_loss.equal((out.mask * losses).mean())
    assert 0 < out.mask.sum() < 9
    teacher = call["teacher_weak"].clone().requires_grad_()
    out = LayerMatch(classifier, avg_clustering="teacher", threshold=0.5)(**(call | {"teacher_weak": teacher}))
    assert torch.autograd.grad(out.loss, teacher, allow_unused=True) == (None,)


def test_a_teacher_of_other_images_and_a_momentum_for_it_are_refused():
    criterion = LayerMatch(linear(), avg_clustering="teacher")
    call = batch(0)
    with pytest.raises(ValueError, match=r"teacher_weak has shape \(8, 4\) and weak \(9, 5\)"):
        criterion(**(call | {"teacher_weak": call["teacher_weak"][:8]}))
    with pytest.raises(ValueError, match=r"momentum is 0.9, and avg_clustering='teacher' averages nothing itself"):
        LayerMatch(linear(), avg_clustering="teacher", momentum=0.9)


def test_centres_in_the_strong_logits_alone():
    classifier = linear()
    criterion = LayerMatch(classifier, avg_clustering="classifier-strong", threshold=0.5, momentum=0.8)
    both = LayerMatch(classifier, avg_clustering="classifier", threshold=0.5, momentum=0.8)
    with torch.no_grad():
        classifier.weight.add_(draw(4, 5, 3))
    for one in (criterion, both):
        one.update()
    call = batch(0)
    out, other = criterion(**call), both(**call)
    assert torch.equal(out.pseudo_labels, classifier(call["weak"]).argmax(-1))
    assert not torch.equal(out.mask, other.mask) or not torch.equal(out.pseudo_labels, other.pseudo_labels)
    strong = criterion.centres.logits(call["strong"], classifier, cut=True)
    assert torch.equal(strong, both.centres.logits(call["strong"], classifier, cut=True))
    assert not torch.equal(strong, classifier(call["strong"]))
    assert list(criterion.state_dict()) == ["centres.strong.classifier_weight", "centres.strong.classifier_bias"]


def test_each_reading_has_its_own_default_momentum():
    defaults = {name: reading.default_momentum for name, reading in READINGS.items()}
    assert defaults == {
        "classifier": 0.999,
        "classifier-strong": 0.999,
        "prototypes": 0.999,
        "teacher": None,
        "temporal": 0.6,
    }
    for name, default in defaults.items():
        if default is not None:
            reading = build_centres(name, linear(), images=5)
            assert reading.momentum == default
            assert build_centres(name, linear(), images=5, momentum=0.25).momentum == 0.25


def test_a_linear_with_a_forward_of_its_own_has_no_rows_to_average():
    class Cosine(nn.Linear):
        def forward(self, input):
            return nn.functional.linear(input, nn.functional.normalize(self.weight))

    with pytest.raises(ValueError, match=r"the classifier is a Cosine with a forward of its own"):
        LayerMatch(Cosine(5, 4))
    LayerMatch(Cosine(5, 4), avg_clustering="temporal", images=5)


@pytest.mark.parametrize("name", ["prototypes", "temporal", "classifier-strong"])
def test_state_keeps_its_bits_when_told_to_be_half_and_is_copied(name):
    criterion = LayerMatch(linear(dtype=torch.float32), avg_clustering=name, images=20, threshold=0.0)
    criterion(**batch(0, dtype=torch.float32))
    criterion.update()
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    duplicate = copy.deepcopy(criterion)
    criterion.half()
    assert all(torch.equal(before[name], value) for name, value in criterion.state_dict().items())
    duplicate(**batch(1, dtype=torch.float32))
    duplicate.update()
    assert all(torch.equal(before[name], value) for name, value in criterion.state_dict().items())
