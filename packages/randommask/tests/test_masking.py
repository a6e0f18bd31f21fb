import math

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from randommask.identities import masked_share, window_reach
from randommask.masking import draw_centres, mask_tokens, random_mask, spread
from reference import masking as twin

VOCABULARY = range(5, 4101)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def tokens(rows=4, length=32, seed=0):
    ids = torch.randint(5, 4101, (rows, length), generator=generator(seed))
    return ids, torch.ones_like(ids, dtype=torch.bool)


def mask_of(ids, maskable, *, width=6, probability=0.1, seed=0, **options):
    return random_mask(
        ids,
        width=width,
        probability=probability,
        maskable=maskable,
        vocabulary=VOCABULARY,
        mask_id=4,
        generator=generator(seed),
        **options,
    )


@pytest.mark.parametrize("width", range(1, 15))
def test_window_rule_table(width):
    left, right = twin.OFFSETS[width]
    assert window_reach(width) == (left, right)
    centres = torch.zeros(1, 40, dtype=torch.bool)
    centres[0, 20] = True
    masked = spread(centres, width, maskable=torch.ones_like(centres))
    assert masked.nonzero()[:, 1].tolist() == list(range(20 - left, 20 + right + 1))


@pytest.mark.parametrize(
    ("k", "offsets"), [(3, [-1, 0, 1]), (4, [-1, 0, 1, 2]), (5, [-2, -1, 0, 1, 2]), (6, [-2, -1, 0, 1, 2, 3])]
)
def test_windows_are_dnaberts_mask_list(k, offsets):
    left, right = window_reach(k)
    assert list(range(-left, right + 1)) == offsets


@pytest.mark.parametrize("width", range(1, 15))
@pytest.mark.parametrize("gaps", [False, True])
def test_union_and_clipping_equal_the_twin(width, gaps):
    draws = generator(width)
    for length in (1, 2, width, 17, 40):
        centres = torch.rand(6, length, generator=draws) < 0.15
        maskable = torch.rand(6, length, generator=draws) < (0.7 if gaps else 2)
        found = spread(centres & maskable, width, maskable=maskable)
        widths = [[width] * length] * 6
        assert found.tolist() == twin.masked(centres.tolist(), maskable.tolist(), widths)


def test_windows_are_cut_at_the_ends_not_moved():
    centres = torch.zeros(2, 10, dtype=torch.bool)
    centres[0, 0] = centres[1, 9] = True
    masked = spread(centres, 14, maskable=torch.ones_like(centres))
    assert masked[0].tolist() == [True] * 8 + [False] * 2  # right reach 7
    assert masked[1].tolist() == [False] * 3 + [True] * 7  # left reach 6; row 0 gets nothing of it


def test_a_window_passes_over_what_is_not_maskable():
    centres = torch.zeros(1, 12, dtype=torch.bool)
    centres[0, 4] = True
    maskable = torch.ones_like(centres)
    maskable[0, 5:7] = False
    masked = spread(centres, 8, maskable=maskable)
    assert masked.nonzero()[:, 1].tolist() == [1, 2, 3, 4, 7, 8]


@pytest.mark.parametrize("width", [1, 2, 5, 6, 13, 14])
def test_packed_rows_keep_windows_in_their_segment(width):
    draws = generator(width)
    centres = torch.rand(5, 30, generator=draws) < 0.2
    maskable = torch.rand(5, 30, generator=draws) < 0.9
    segments = torch.tensor([0] * 7 + [1] * 11 + [2] * 12).expand(5, 30).contiguous()
    found = spread(centres & maskable, width, maskable=maskable, segments=segments)
    assert found.tolist() == twin.masked(centres.tolist(), maskable.tolist(), [[width] * 30] * 5, segments.tolist())


def test_own_widths_equal_the_twin():
    draws = generator(5)
    centres = torch.rand(6, 40, generator=draws) < 0.1
    maskable = torch.rand(6, 40, generator=draws) < 0.9
    widths = range(6, 15)
    found = spread(centres & maskable, widths, maskable=maskable, generator=generator(9))
    drawn = torch.randint(9, (6, 40), generator=generator(9)) + 6
    assert found.tolist() == twin.masked(centres.tolist(), maskable.tolist(), drawn.tolist())


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(1, 5), st.integers(1, 40), st.floats(0, 1), st.integers(0, 10**6))
def test_any_mask_equals_the_twin(width, rows, length, share, seed):
    draws = generator(seed)
    centres = torch.rand(rows, length, generator=draws) < share
    maskable = torch.rand(rows, length, generator=draws) < 0.8
    found = spread(centres & maskable, width, maskable=maskable)
    assert found.tolist() == twin.masked(centres.tolist(), maskable.tolist(), [[width] * length] * rows)


@pytest.mark.parametrize("length", [3, 50])
@pytest.mark.parametrize("width", range(1, 15))
def test_whole_function_equals_the_twin_on_the_same_draws(width, length):
    ids, maskable = tokens(rows=9, length=length)
    maskable[:, 0] = False
    maskable[4, length // 2 :] = False
    draws = generator(3)
    centres = draw_centres(ids.shape, 0.05, generator=draws)
    mask = twin.masked(centres.tolist(), maskable.tolist(), [[width] * length] * 9)
    count = sum(map(sum, mask))
    choice = torch.rand(count, generator=draws)
    random_ids = torch.randint(5, 4101, (int(((choice >= 0.8) & (choice < 0.9)).sum()),), generator=draws).tolist()
    expected = twin.replaced(ids.tolist(), mask, choice.tolist(), random_ids, 4)
    before = ids.clone()
    inputs, labels = mask_of(ids, maskable, width=width, probability=0.05, seed=3)
    assert (inputs.tolist(), labels.tolist()) == expected
    assert torch.equal(ids, before)


def test_dense_draws_equal_the_twin_on_the_same_draws():
    ids, maskable = tokens(rows=5, length=50)
    draws = generator(3)
    centres = torch.rand(5, 50, generator=draws) < 0.05
    mask = twin.masked(centres.tolist(), maskable.tolist(), [[8] * 50] * 5)
    where = torch.tensor(mask)
    choice = torch.rand(5, 50, generator=draws)[where]
    random_ids = torch.randint(5, 4101, (5, 50), generator=draws)[where][(choice >= 0.8) & (choice < 0.9)].tolist()
    inputs, labels = mask_of(ids, maskable, width=8, probability=0.05, seed=3, dense=True)
    assert (inputs.tolist(), labels.tolist()) == twin.replaced(ids.tolist(), mask, choice.tolist(), random_ids, 4)


def test_geometric_gaps_have_the_law_of_independent_draws():
    probability, size = 0.025, 4_000_000
    centres = torch.stack([draw_centres((size // 100,), probability, generator=generator(seed)) for seed in range(100)])
    count = int(centres.sum())
    assert abs(count - size * probability) < 4 * math.sqrt(size * probability)
    gaps = numpy.diff(numpy.flatnonzero(draw_centres((size // 10,), probability, generator=generator(7)).numpy()))
    for gap in (1, 2, 5, 20):
        expected = probability * (1 - probability) ** (gap - 1)
        share = float(numpy.mean(gaps == gap))
        assert abs(share - expected) < 4 * math.sqrt(expected / len(gaps)), gap
    # Every place is as likely as any other, the first and the last included.
    by_place = torch.stack([draw_centres((40,), 0.2, generator=generator(s)) for s in range(4000)]).double().mean(0)
    assert (by_place - 0.2).abs().max() < 4.5 * math.sqrt(0.16 / 4000)


def test_gaps_that_end_early_are_drawn_on(monkeypatch):
    drawn = []
    rand = torch.rand

    def tiny_gaps_at_first(*shape, **options):
        drawn.append(rand(*shape, **options) * (1e-9 if not drawn else 1))
        return drawn[-1]

    monkeypatch.setattr(torch, "rand", tiny_gaps_at_first)
    centres = draw_centres((20_000,), 0.1, generator=generator(1))
    assert len(drawn) > 1
    assert centres[: len(drawn[0])].all()
    assert abs(float(centres[len(drawn[0]) :].double().mean()) - 0.1) < 0.015


def test_extreme_probabilities_of_centres():
    assert draw_centres((50,), 0.0, generator=generator()).sum() == 0
    assert draw_centres((50,), 1.0, generator=generator()).all()
    assert draw_centres((50,), 1e-12, generator=generator()).sum() == 0
    assert draw_centres((0, 5), 0.5, generator=generator()).shape == (0, 5)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("width", [6, 9, 14])
def test_masked_share_of_drawn_batches(width, dense):
    ids, maskable = tokens(rows=400, length=510)
    _, labels = mask_of(ids, maskable, width=width, probability=0.025, dense=dense)
    share = float((labels != -100).double().mean())
    # rows are independent; each row's share has a deviation of about sqrt(w share / T)
    deviation = math.sqrt(width * share / 510 / 400)
    assert abs(share - masked_share(width, 0.025, tokens=510)) < 4.5 * deviation


@pytest.mark.parametrize("dense", [False, True])
def test_eighty_ten_ten_from_kmers_alone(dense):
    ids, maskable = tokens(rows=200, length=300)
    inputs, labels = mask_of(ids, maskable, width=14, probability=0.025, dense=dense)
    where = labels != -100
    count = int(where.sum())
    assert torch.equal(labels[where], ids[where])
    assert torch.equal(inputs[~where], ids[~where])
    shown = inputs[where]
    masked, same = shown == 4, shown == ids[where]
    for share, expected in ((masked, 0.8), (same, 0.1), (~masked & ~same, 0.1)):
        assert abs(float(share.double().mean()) - expected) < 4.5 * math.sqrt(expected * (1 - expected) / count)
    replaced = shown[~masked & ~same]
    assert int(replaced.min()) >= 5
    assert int(replaced.max()) < 4101
    assert int(replaced.min()) < 60
    assert int(replaced.max()) > 4040


def test_other_shares():
    ids, maskable = tokens()
    inputs, labels = mask_of(ids, maskable, mask_share=1.0, random_share=0.0)
    assert (inputs[labels != -100] == 4).all()
    inputs, labels = mask_of(ids, maskable, mask_share=0.0, random_share=0.0)
    assert torch.equal(inputs, ids)
    assert (labels != -100).any()


def test_what_is_not_maskable_is_never_a_centre_nor_a_target():
    ids, maskable = tokens(rows=50)
    maskable[:, ::3] = False
    for dense in (False, True):
        inputs, labels = mask_of(ids, maskable, probability=0.5, dense=dense)
        assert (labels[~maskable] == -100).all()
        assert torch.equal(inputs[~maskable], ids[~maskable])
    _, labels = mask_of(ids, torch.zeros_like(maskable), probability=1.0)
    assert (labels == -100).all()


def test_rows_without_a_centre_stay_empty_as_often_as_they_should():
    ids, maskable = tokens(rows=4000, length=20)
    _, labels = mask_of(ids, maskable, width=6, probability=0.025)
    empty = float((labels == -100).all(1).double().mean())
    expected = 0.975**20  # 0.60
    assert abs(empty - expected) < 4 * math.sqrt(expected * (1 - expected) / 4000)


def test_positions_are_where_labels_are_in_row_major_order():
    ids, maskable = tokens(rows=7)
    out = mask_tokens(
        ids, width=6, probability=0.1, maskable=maskable, vocabulary=VOCABULARY, mask_id=4, generator=generator()
    )
    assert out.positions.tolist() == (out.labels.view(-1) != -100).nonzero().squeeze(1).tolist()


def test_same_generator_same_mask_other_seed_other_mask():
    ids, maskable = tokens()
    first, again, other = (mask_of(ids, maskable, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.labels, other.labels)


def test_input_that_is_not_contiguous():
    ids, maskable = tokens(rows=32, length=32)
    _, labels = mask_of(ids.T, maskable.T)
    assert torch.equal(labels[labels != -100], ids.T[labels != -100])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"width": True}, "width is True"),
        ({"width": []}, r"width is \[\]"),
        ({"probability": 1.5}, "probability is 1.5"),
        ({"mask_share": 0.9, "random_share": 0.2}, "0.9 and 0.2"),
        ({"segments": torch.zeros(1, 1)}, r"segments has shape \(1, 1\)"),
    ],
)
def test_values_out_of_range_are_named(changed, message):
    ids, maskable = tokens()
    with pytest.raises(ValueError, match=message):
        mask_of(ids, maskable, **changed)


def test_shapes_and_dtypes_are_named():
    ids, maskable = tokens()
    with pytest.raises(ValueError, match=r"\(4, 31\)"):
        mask_of(ids, maskable[:, 1:])
    with pytest.raises(ValueError, match=r"torch.int32"):
        mask_of(ids.int(), maskable)
    with pytest.raises(ValueError, match=r"torch.int64"):
        mask_of(ids, ids)
