import math

import numpy
import pytest
import torch

from randommask.identities import (
    base_hidden_probability,
    count_hidden,
    hidden_bases_of_run,
    hidden_bases_of_token,
    hidden_per_masked_token,
    isolated_floor,
    loss_floor,
    masked_share,
    mean_run_length,
)
from reference import entropy, simulation
from reference import masking as twin

P = 0.025
# Page 1.3, k = 6: width -> share long row, share of 510, hidden a masked token, F1, 0.9^6 F1, F, 0.9^6 F
TABLE = {
    6: (0.14093, 0.14054, 0.23805, 1.3863, 0.7367, 1.9800, 1.0523),
    8: (0.18335, 0.18268, 0.44324, 3.1192, 1.6577, 3.6867, 1.9593),
    10: (0.22367, 0.22266, 0.56614, 4.1589, 2.2102, 4.7090, 2.5026),
    12: (0.26200, 0.26061, 0.64790, 4.8520, 2.5786, 5.3891, 2.8640),
    14: (0.29844, 0.29663, 0.70616, 5.3471, 2.8417, 5.8736, 3.1215),
}


@pytest.mark.parametrize("width", TABLE)
def test_table_of_the_page(width):
    found = (
        masked_share(width, P),
        masked_share(width, P, tokens=510),
        hidden_per_masked_token(width, P, k=6),
        isolated_floor(width, k=6),
        isolated_floor(width, k=6) * 0.9**6,
        loss_floor(width, P, k=6, unchanged_share=0),
        loss_floor(width, P, k=6),
    )
    assert found == pytest.approx(TABLE[width], abs=6e-5)


@pytest.mark.parametrize(
    ("width", "share", "hidden"),
    [(7, 0.16241, 0.35534), (9, 0.20376, 0.51155), (11, 0.24308, 0.61076), (13, 0.28045, 0.67929)],
)
def test_odd_widths_of_the_page(width, share, hidden):
    assert masked_share(width, P) == pytest.approx(share, abs=6e-6)
    assert hidden_per_masked_token(width, P, k=6) == pytest.approx(hidden, abs=6e-6)


def test_controls_of_the_page():
    for width, share, floor in (
        (6, 0.14093, 1.9800), (8, 0.14052, 3.5481), (10, 0.14027, 4.4942), (12, 0.14011, 5.1271), (14, 0.13999, 5.5803),
    ):  # fmt: skip
        assert masked_share(width, 0.15 / width) == pytest.approx(share, abs=6e-6)
        assert loss_floor(width, 0.15 / width, k=6, unchanged_share=0) == pytest.approx(floor, abs=6e-5)
    uniform = [masked_share(range(6, top + 1), P) for top in (8, 10, 12, 14)]
    assert uniform == pytest.approx([0.1623, 0.1831, 0.2035, 0.2233], abs=6e-5)
    for k, share, floor in ((3, 0.1426, 1.209), (4, 0.1418, 1.161), (5, 0.1413, 1.107), (6, 0.1409, 1.052)):
        assert masked_share(k, 0.15 / k) == pytest.approx(share, abs=6e-5)
        assert loss_floor(k, 0.15 / k, k=k) == pytest.approx(floor, abs=6e-4)


def test_masked_share_closed_forms():
    for width in (6, 9, 14):
        assert masked_share(width, P) == pytest.approx(1 - (1 - P) ** width, rel=1e-12)
        left, right = twin.OFFSETS[width]
        q, n = 1 - P, 100
        clipped = 1 - ((n - width + 1) * q**width + (q ** (left + 1) + q ** (right + 1) - 2 * q**width) / P) / n
        assert masked_share(width, P, tokens=n) == pytest.approx(clipped, rel=1e-12)


@pytest.mark.parametrize("widths", [[6], [9], [14], list(range(6, 15))])
def test_masked_share_of_a_long_row_against_simulation(widths):
    simulated = simulation.long_row(10**7, widths, P, seed=0).mean()
    assert masked_share(widths, P) == pytest.approx(simulated, abs=6e-4)


@pytest.mark.parametrize(("width", "tokens"), [(6, 510), (14, 510), (6, 20), (14, 20), (9, 33)])
def test_masked_share_with_clipping_against_simulation(width, tokens):
    simulated = simulation.rows(5_000_000 // tokens, tokens, width, P, seed=1).mean()
    assert masked_share(width, P, tokens=tokens) == pytest.approx(simulated, abs=4 * math.sqrt(0.2 * width / 5e6))


@pytest.mark.parametrize("width", [6, 8, 14])
def test_hidden_bases_and_runs_against_simulation(width):
    mask = simulation.long_row(10**7, [width], P, seed=2)
    hidden = simulation.hidden_share(mask, 6)
    assert base_hidden_probability(width, P, k=6) == pytest.approx(hidden, rel=1e-2)
    assert hidden_per_masked_token(width, P, k=6) == pytest.approx(hidden / mask.mean(), rel=1e-2)
    runs = simulation.run_lengths(mask)
    assert mean_run_length(width, P) == pytest.approx(runs.mean(), rel=1e-2)
    assert float(numpy.mean(runs == width)) == pytest.approx((1 - P) ** width, abs=3e-3)


@pytest.mark.parametrize("k", range(1, 9))
def test_hidden_bases_of_a_run_by_brute_force(k):
    for run in range(1, 20):
        mask = [False] * k + [True] * run + [False] * k
        hidden = twin.hidden_bases(mask, k)
        assert hidden_bases_of_run(run, k) == len(hidden)
        inside = twin.contained(mask, hidden, k)
        assert [hidden_bases_of_token(offset, tokens=run, k=k) for offset in range(run)] == inside
        assert sum(inside) == k * hidden_bases_of_run(run, k)


def test_hidden_bases_of_the_page():
    expected = {6: [1] * 6, 8: [1, 2, 3, 3, 3, 3, 2, 1], 10: [1, 2, 3, 4, 5, 5, 4, 3, 2, 1],
                14: [1, 2, 3, 4, 5, 6, 6, 6, 6, 5, 4, 3, 2, 1]}  # fmt: skip
    for run, values in expected.items():
        assert [hidden_bases_of_token(offset, tokens=run, k=6) for offset in range(run)] == values
    assert [hidden_bases_of_run(run, 6) for run in (5, 6, 14)] == [0, 1, 9]


def test_conditional_entropy_on_alphabet_2():
    """k = 3, runs of 1 to 5: mean 0, 0, 1, 1.5, 1.8 letters a token, as k max(0, r - k + 1) / r has it."""
    for run, letters in zip(range(1, 6), (0, 0, 1, 1.5, 1.8), strict=True):
        assert entropy.mean_letters(run, 3, 2) == pytest.approx(letters, abs=1e-12)
        assert isolated_floor(run, k=3, entropy=1.0) == pytest.approx(letters, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 6])
def test_counts_equal_brute_force_with_row_ends_and_gaps(k):
    draws = torch.Generator().manual_seed(k)
    for length in (1, 4, 11, 30):
        maskable = torch.rand(8, length, generator=draws) < 0.9
        masked = (torch.rand(8, length, generator=draws) < 0.7) & maskable
        hidden_count, expected = 0, 0.0
        for row, allowed in zip(masked.tolist(), maskable.tolist(), strict=True):
            visible = [ok and not m for m, ok in zip(row, allowed, strict=True)]
            hidden = twin.hidden_bases(row, k, visible)
            hidden_count += len(hidden)
            for base in hidden:
                covering = sum(row[t] for t in range(length) if t <= base <= t + k - 1)
                expected += covering * 0.9**covering
        found = count_hidden(masked, maskable, k=k)
        assert (int(found.maskable), int(found.masked)) == (int(maskable.sum()), int(masked.sum()))
        assert int(found.bases) == hidden_count
        assert float(found.expected) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_whole_row_masked_hides_all_its_bases():
    everything = torch.ones(1, 10, dtype=torch.bool)
    assert int(count_hidden(everything, everything, k=6).bases) == 15  # r + k - 1
    edge = everything.clone()
    edge[0, 4:] = False
    assert int(count_hidden(edge, everything, k=6).bases) == 4  # one neighbour missing: r


@pytest.mark.parametrize(("width", "floor"), [(6, 2.008), (14, 5.891)])
def test_floor_with_row_ends_of_the_page(width, floor):
    masked = torch.from_numpy(simulation.rows(4000, 510, width, P, seed=4))
    counted = count_hidden(masked, torch.ones_like(masked), k=6, unchanged_share=0)
    assert float(counted.expected / counted.masked) * math.log(4) == pytest.approx(floor, abs=0.02)


@pytest.mark.parametrize(("width", "floor", "probed"), [(6, 2.200, 1.20), (14, 6.021, 3.20)])
def test_floor_of_short_rows_of_the_page(width, floor, probed):
    masked = torch.from_numpy(simulation.rows(20_000, 65, width, P, seed=5))
    everything = torch.ones_like(masked)
    all_masked = count_hidden(masked, everything, k=6, unchanged_share=0)
    assert float(all_masked.expected / all_masked.masked) * math.log(4) == pytest.approx(floor, abs=0.03)
    # Under 80/10/10 a base at the row's end is in fewer than six tokens, so it stays hidden more often than 0.9^6:
    # the count is a little above the probe's 0.9^6 F.
    counted = count_hidden(masked, everything, k=6)
    exact = float(counted.expected / counted.masked) * math.log(4)
    assert probed < exact < probed + 0.08


def test_non_overlapping_tokens_hide_all_their_bases():
    masked = torch.tensor([[True, False, True]])
    counted = count_hidden(masked, torch.ones_like(masked), k=6, overlap=False)
    assert int(counted.bases) == 12
    assert float(counted.expected) == pytest.approx(12 * 0.9)


@pytest.mark.parametrize("width", [1, 3, 6, 14])
def test_closed_forms_of_tokens_side_by_side_against_a_simulated_row(width):
    k, tokens = 6, 10**6
    masked = simulation.long_row(tokens, [width], P, seed=width)
    bases = numpy.repeat(masked, k)  # each token shows its own bases and no others
    assert base_hidden_probability(width, P, k=k, overlap=False) == pytest.approx(bases.mean(), abs=6e-3)
    assert hidden_per_masked_token(width, P, k=k, overlap=False) == bases.sum() / masked.sum() == k
    runs = simulation.run_lengths(masked)
    assert sum(hidden_bases_of_run(int(run), k, overlap=False) for run in runs) == bases.sum()
    for unchanged in (0.0, 0.1):
        counted = count_hidden(
            torch.from_numpy(masked[None]), torch.ones(1, tokens, dtype=torch.bool), k=k, overlap=False, unchanged_share=unchanged
        )  # fmt: skip
        assert int(counted.bases) == bases.sum()
        floor = float(counted.expected / counted.masked) * math.log(4)
        assert loss_floor(width, P, k=k, overlap=False, unchanged_share=unchanged) == pytest.approx(floor)
    assert isolated_floor(width, k=k, overlap=False) == pytest.approx(k * math.log(4))


def test_the_floor_of_tokens_side_by_side_bounds_what_knows_the_corruption():
    # Which of the three ways a target shows is drawn apart from its bases, so this is the least that can be paid where [MASK]
    # is told from the rest, and a shown k-mer is the target's own with even chance or one at random.
    kinds = 4**6
    least = 0.8 * math.log(kinds) + 0.1 * -math.log(0.5 + 0.5 / kinds) + 0.1 * -math.log(0.5 / kinds)
    floor = loss_floor(1, 0.15, k=6, overlap=False)
    assert floor == pytest.approx(0.9 * math.log(kinds))
    assert floor < least < floor + 0.2


def test_time_weighted_share_of_the_working_schedule():
    weights = (0.0625, 0.1458333, 0.2083333, 0.2083333, 0.375)
    mean = sum(w * masked_share(m, P) for w, m in zip(weights, (6, 8, 10, 12, 14), strict=True))
    assert mean == pytest.approx(0.249, abs=5e-4)


def test_narrow_widths_have_no_closed_form_here():
    with pytest.raises(ValueError, match="width is 4"):
        base_hidden_probability(4, P, k=6)
