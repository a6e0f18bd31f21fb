import math
from types import SimpleNamespace

import pytest
import torch

from randommask import KmerTokenizer, MaskedBert, MaskSchedule, RandomMaskCollator
from randommask.alphabet import base_codes
from randommask.genome.fasta import FastaRecord
from randommask.genome.store import Genome
from randommask.models.presets import bert_config
from randommask.training.evaluation import EVALUATION_SEED, log_frequencies, masked_losses
from randommask.training.pretraining import expected_by_phase
from reference import kmers as twin_kmers
from reference import masking as twin


def random_sequence(length, seed=0):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())


class Uniform(torch.nn.Module):
    """A model that knows nothing: every k-mer alike, specials excluded."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, input_ids, labels, masked_positions, num_items_in_batch, **_):
        loss = masked_positions.numel() * math.log(4**6) / num_items_in_batch
        return SimpleNamespace(loss=torch.tensor(loss))


def test_loss_floor_and_ceiling_between_brute_force():
    tokenizer = KmerTokenizer(k=6)
    windows = [base_codes(random_sequence(69, seed)) for seed in range(40)]
    genome = Genome.of([FastaRecord("r", base_codes(random_sequence(5000, 99)))])
    frequencies = log_frequencies(genome, [genome.record(0)], k=6)
    (found,) = masked_losses(Uniform(), windows, tokenizer, widths=[14], frequencies=frequencies, batch_size=16)
    masked = expected = ceiling = 0.0
    for start in range(0, 40, 16):
        batch = RandomMaskCollator(tokenizer, schedule=14, seed=EVALUATION_SEED)(windows[start : start + 16])
        for row in batch["labels"][:, 1:-1].tolist():
            mask = [label != -100 for label in row]
            masked += sum(mask)
            for base in twin.hidden_bases(mask, 6):
                covering = sum(mask[t] for t in range(len(mask)) if t <= base <= t + 5)
                expected += covering * 0.9**covering * math.log(4)
            ceiling -= sum(float(frequencies[label]) for label in row if label != -100)
    assert found.width == 14
    assert found.masked == masked
    assert found.loss == pytest.approx(6 * math.log(4), rel=1e-6)
    assert found.floor == pytest.approx(expected / masked, rel=1e-5)
    assert found.ceiling == pytest.approx(ceiling / masked, rel=1e-9)
    assert found.floor < found.ceiling
    assert found.masked_share == pytest.approx(masked / (40 * 64))


def test_frequencies_are_counts_plus_one():
    sequence = random_sequence(50) + "N" + random_sequence(30, 1)
    genome = Genome.of([FastaRecord("r", base_codes(sequence))])
    found = log_frequencies(genome, [genome.record(0)], k=2)
    counts = [1 + twin_kmers.ids(sequence, 2).count(number) for number in range(5, 21)]
    expected = [math.log(count / sum(counts)) for count in counts]
    assert found[5:].tolist() == pytest.approx(expected, rel=1e-12)
    assert torch.isinf(found[:5]).all()


def test_every_arm_meets_the_same_masks():
    tokenizer = KmerTokenizer(k=3)
    windows = [base_codes(random_sequence(40, seed)) for seed in range(8)]
    model = MaskedBert(bert_config("tiny", k=3, positions=64))
    first, again = (masked_losses(model, windows, tokenizer, widths=[3, 11]) for _ in range(2))
    assert first == again
    assert [row.width for row in first] == [3, 11]
    assert first[0].ceiling is None


def test_nothing_masked_is_named():
    tokenizer = KmerTokenizer(k=6)
    with pytest.raises(ValueError, match="No token was masked at width 6: the 1 windows"):
        masked_losses(Uniform(), [base_codes("ACGTNN")], tokenizer, widths=[6])


@pytest.mark.parametrize("uniform", [False, True])
def test_expected_shares_of_each_phase(uniform):
    tokenizer = KmerTokenizer(k=6)
    schedule = MaskSchedule(total_steps=100, uniform=uniform)
    windows = [base_codes(random_sequence(105, seed)) for seed in range(300)]
    found = expected_by_phase(windows, RandomMaskCollator(tokenizer, schedule=schedule, accumulation=2))
    assert [(phase.width, phase.step) for phase in found] == [tuple(phase) for phase in schedule.phases()]
    for phase in found:
        assert phase.counted_share == pytest.approx(phase.closed_share, abs=0.012)
    assert [phase.floor for phase in found] == sorted(phase.floor for phase in found)
    (fixed,) = expected_by_phase(windows, RandomMaskCollator(tokenizer, schedule=6))
    assert (fixed.width, fixed.step) == (6, 0)
