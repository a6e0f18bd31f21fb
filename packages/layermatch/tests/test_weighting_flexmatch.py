import pytest
import torch

from layermatch import FlexMatchWeighting
from reference.weighting_flexmatch import FlexMatch, mapped
from weighting_workers import batch, probabilities

MAPPINGS = ["convex", "linear", "low_limit", "concave"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize(("samples", "classes", "images"), [(1, 2, 1), (12, 4, 40), (30, 3, 7), (64, 10, 500)])
def test_flexmatch_equals_the_twin(samples, classes, images, warm_up, mapping, dtype):
    settings = {"threshold": 0.7, "warm_up": warm_up, "mapping": mapping}
    rule, twin = FlexMatchWeighting(classes, images, **settings), FlexMatch(classes, images, **settings)
    for step in range(8):
        q, _, indices = batch(step, samples, classes, dtype, images)
        thresholds = torch.tensor(twin.thresholds(), dtype=dtype)
        torch.testing.assert_close(
            rule.thresholds(dtype), thresholds, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=0
        )
        expected = twin(q.tolist(), indices.tolist())
        answer = rule(q, indices=indices)
        assert answer.weights.tolist() == expected
        assert answer.mask.tolist() == [weight == 1.0 for weight in expected]
        assert answer.extra is None
        assert rule.flexmatch_labels.tolist() == twin.labels
        assert rule.flexmatch_counts.tolist() == twin.counts()


def learnt(counts, images, **settings):
    """A rule in which counts[c] images hold the label c."""
    rule = FlexMatchWeighting(len(counts), images, **settings)
    labels = torch.tensor([c for c, count in enumerate(counts) for _ in range(count)], dtype=torch.int64)
    if len(labels):
        rule(torch.eye(len(counts))[labels], indices=torch.arange(len(labels)))
    assert rule.flexmatch_counts.tolist() == [images - sum(counts), *counts]
    return rule


def test_o7_flexmatch_starts_with_thresholds_of_0_so_that_all_count():
    for warm_up in (True, False):
        rule = FlexMatchWeighting(4, 40, warm_up=warm_up)
        assert rule.thresholds().tolist() == [0.0] * 4
        q, _, indices = batch(0)
        assert rule(q, indices=indices).weights.eq(1).all()


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("warm_up", [True, False])
def test_o7_flexmatch_thresholds_lie_below_tau_and_one_reaches_it(warm_up, mapping):
    rule = FlexMatchWeighting(4, 40, threshold=0.6, warm_up=warm_up, mapping=mapping)
    reached = []
    for step in range(15):
        q, _, indices = batch(step)
        rule(q, indices=indices)
        thresholds = rule.thresholds()
        assert (thresholds >= 0).all()
        assert (thresholds <= 0.6).all()
        unused, *held = rule.flexmatch_counts.tolist()
        reached.append(unused < max(held))
        if reached[-1] or not warm_up:
            assert thresholds.max() == torch.tensor(0.6)
        elif unused > max(held):
            assert thresholds.max() < 0.6
    assert reached[-1]
    assert not reached[0]


def test_o7_flexmatch_beta_lies_in_0_to_1_with_and_without_warm_up():
    # The mapping `linear`, (beta + 1) / 2 at tau = 1, shows beta itself.
    for warm_up, expected in ((True, [4 / 30, 0.0, 6 / 30]), (False, [4 / 6, 0.0, 1.0])):
        rule = learnt([4, 0, 6], 40, threshold=1.0, warm_up=warm_up, mapping="linear")
        torch.testing.assert_close(2.0 * rule.thresholds() - 1.0, torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_o7_permuting_classes_permutes_flexmatchs_thresholds(mapping):
    order = torch.tensor([2, 0, 3, 1])
    first, second = (FlexMatchWeighting(4, 40, threshold=0.6, mapping=mapping) for _ in range(2))
    for step in range(8):
        q, _, indices = batch(step)
        a, b = first(q, indices=indices), second(q[:, order], indices=indices)
        assert torch.equal(a.weights, b.weights)
        assert torch.equal(first.thresholds()[order], second.thresholds())
    assert first.thresholds().unique().numel() > 2


def test_o7_flexmatchs_weights_come_before_its_counts_move():
    rule = learnt([0, 8], 10, warm_up=False, threshold=0.9)
    # Class 0 has no image yet: threshold 0. Were its nine confident ones counted first, the unsure one would fail.
    q = torch.tensor([[0.99, 0.01]] * 9 + [[0.51, 0.49]])
    answer = rule(q, indices=torch.arange(10))
    assert answer.weights.tolist() == [1.0] * 10
    assert rule(q, indices=torch.arange(10)).weights.tolist() == [1.0] * 9 + [0.0]


def test_flexmatch_notes_what_reaches_the_full_threshold_and_never_forgets():
    rule = learnt([0, 8], 10, threshold=0.9)
    answer = rule(torch.tensor([[0.6, 0.4], [0.89, 0.11], [0.9, 0.1]]), indices=torch.tensor([9, 8, 7]))
    assert answer.mask.tolist() == [True] * 3
    assert rule.flexmatch_labels.tolist() == [1] * 7 + [0, -1, -1]
    rule(torch.tensor([[0.5, 0.5]]), indices=torch.tensor([7]))
    assert rule.flexmatch_labels[7] == 0


def test_an_index_twice_in_a_batch_keeps_its_last_confident_label():
    rule = FlexMatchWeighting(3, 6, threshold=0.9)
    q = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0.5, 0.3, 0.2], [0, 1.0, 0]])
    rule(q, indices=torch.tensor([4, 2, 4, 4, 2]))
    assert rule.flexmatch_labels.tolist() == [-1, -1, 1, -1, 2, -1]
    assert rule.flexmatch_counts.tolist() == [4, 0, 1, 1]
    rule(q.flip(0), indices=torch.tensor([4, 2, 4, 4, 2]).flip(0))
    assert rule.flexmatch_labels.tolist() == [-1, -1, 1, -1, 0, -1]


def test_flexmatchs_counts_stay_those_of_its_labels_through_heavy_repetition():
    rule = FlexMatchWeighting(5, 9, threshold=0.3)
    for step in range(30):
        generator = torch.Generator().manual_seed(step)
        rule(probabilities(100, 5, seed=step), indices=torch.randint(9, (100,), generator=generator))
        found = [int((rule.flexmatch_labels == c).sum()) for c in range(-1, 5)]
        assert rule.flexmatch_counts.tolist() == found


def test_a_class_that_holds_all_images_stands_at_tau_and_the_others_at_0():
    assert learnt([5, 0], 5).thresholds().tolist() == [torch.tensor(0.95).item(), 0.0]


def test_the_mappings_take_the_published_values():
    expected = {"convex": [0, 0.143, 0.333, 0.6, 1], "linear": [0.5, 0.625, 0.75, 0.875, 1]}
    for name, values in expected.items():
        found = [mapped(name, beta) for beta in (0, 0.25, 0.5, 0.75, 1)]
        assert found == pytest.approx(values, abs=5e-4)


@pytest.mark.parametrize("wrong", [40, -1, 10**12])
def test_an_index_out_of_range_is_refused_on_the_cpu(wrong):
    rule, (q, _, indices) = FlexMatchWeighting(4, 40), batch(0)
    indices[3] = wrong
    with pytest.raises(ValueError, match=rf"An index is {wrong}, and the rule was built for 40 .*from 0 to 39"):
        rule(q, indices=indices)
    assert rule.flexmatch_labels.eq(-1).all()


def test_missing_or_misshapen_indices_are_refused_by_name():
    rule, (q, _, indices) = FlexMatchWeighting(4, 40), batch(0)
    with pytest.raises(ValueError, match=r"FlexMatchWeighting .* without indices.*indices="):
        rule(q)
    with pytest.raises(ValueError, match=r"indices have shape \(11,\).*must be \(12,\)"):
        rule(q, indices=indices[:11])
    with pytest.raises(ValueError, match=r"dtype torch.int32.*torch.int64"):
        rule(q, indices=indices.int())


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((4, 0), {}, "images is 0"),
        ((4, 2.5), {}, r"images is 2\.5"),
        ((4, 10), {"mapping": "cubic"}, "mapping is 'cubic'.*'convex', 'linear', 'low_limit', 'concave'"),
    ],
)
def test_flexmatch_refuses_settings_that_cannot_be(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        FlexMatchWeighting(*arguments, **options)
