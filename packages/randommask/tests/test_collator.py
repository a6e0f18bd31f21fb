import hashlib
import pickle

import pytest
import torch

from randommask import KmerTokenizer, MaskSchedule, RandomMaskCollator, base_codes, masked_share, random_mask
from randommask.numbering import NumberedExample
from scarce_common_utils.streams import stream

SEQUENCES = ["ACGTTGCAAC" * 5, "GATTACAGATTACA", "ACGTNACGTACGTACGTGATTACA", "ACG"]


@pytest.fixture(scope="module")
def tokenizer():
    return KmerTokenizer(k=6)


def numbered(number, examples=SEQUENCES):
    return [NumberedExample(number, example) for example in examples]


def test_every_form_of_example_gives_the_same_batch(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=6, probability=0.1)
    forms = (
        SEQUENCES,
        [{"sequence": sequence} for sequence in SEQUENCES],
        [base_codes(sequence) for sequence in SEQUENCES],
        [torch.from_numpy(base_codes(sequence).copy()) for sequence in SEQUENCES],
        [{"input_ids": ids} for ids in tokenizer(SEQUENCES)["input_ids"]],
        [{"input_ids": ids, "label": 3} for ids in tokenizer(SEQUENCES)["input_ids"]],
    )
    first = collator(forms[0])
    for form in forms[1:]:
        batch = collator(form)
        for name, value in first.items():
            assert torch.equal(batch[name], value), name


def test_a_batch_is_random_mask_of_its_padded_ids(tokenizer):
    schedule = MaskSchedule(total_steps=100)
    collator = RandomMaskCollator(tokenizer, schedule=schedule, seed=5, accumulation=2, processes=3)
    padded = tokenizer(SEQUENCES, padding=True, return_tensors="pt")
    for number in (0, 6 * 7, 6 * 7 - 1, 6 * 63, 6 * 63 - 1):
        batch = collator(numbered(number))
        width = schedule.width(number // 6)
        inputs, labels = random_mask(
            padded["input_ids"],
            width=width,
            probability=0.025,
            maskable=padded["input_ids"] >= 5,
            vocabulary=range(5, 4101),
            mask_id=4,
            generator=stream(5, "mask", number),
        )
        assert torch.equal(batch["input_ids"], inputs)
        assert torch.equal(batch["labels"], labels)
        assert torch.equal(batch["attention_mask"], padded["attention_mask"])
        assert batch["masked_positions"].tolist() == (labels.view(-1) != -100).nonzero().squeeze(1).tolist()
        assert int(batch["mask_width"]) == width


def test_specials_padding_and_unknown_are_never_masked(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=14, probability=1.0)
    padded = tokenizer(SEQUENCES, padding=True, return_tensors="pt")["input_ids"]
    batch = collator(SEQUENCES)
    assert ((batch["labels"] != -100) == (padded >= 5)).all()
    assert torch.equal(batch["input_ids"][padded < 5], padded[padded < 5])


@pytest.mark.parametrize("rows", [["ACG"], ["N" * 20], ["ACG", "N" * 20, "A"], ["GATTACAGATTACA"]])
@pytest.mark.parametrize("width", [6, 14])
def test_a_batch_of_one_of_too_few_bases_or_of_n_alone(tokenizer, rows, width):
    batch = RandomMaskCollator(tokenizer, schedule=width, probability=1.0)(rows)
    targets = [max(0, len(row) - 5) * ("N" not in row) for row in rows]  # every k-mer is a centre
    assert (batch["labels"] != -100).sum(1).tolist() == targets
    assert len(batch["masked_positions"]) == sum(targets)
    assert batch["attention_mask"].sum(1).tolist() == [max(0, len(row) - 5) + 2 for row in rows]
    if not sum(targets):
        assert torch.equal(batch["input_ids"], tokenizer(rows, padding=True, return_tensors="pt")["input_ids"])


def test_a_special_tokens_mask_of_the_users_own_is_respected(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=1, probability=1.0)
    batch = collator([{"input_ids": [2, 5, 6, 7, 3], "special_tokens_mask": [1, 0, 1, 0, 1]}])
    assert batch["labels"].tolist() == [[-100, 5, -100, 7, -100]]


def test_without_a_number_a_schedule_raises_and_names_the_wrapper(tokenizer):
    with pytest.raises(ValueError, match="NumberedBatches"):
        RandomMaskCollator(tokenizer, schedule=MaskSchedule())(SEQUENCES)


def test_a_fixed_width_draws_from_the_digest_of_the_padded_ids(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=14, probability=0.1, seed=3)
    ids = tokenizer(SEQUENCES, padding=True, return_tensors="pt")["input_ids"]
    digest = hashlib.sha256(ids.int().numpy().tobytes()).hexdigest()
    _, labels = random_mask(
        ids, width=14, probability=0.1, maskable=ids >= 5, vocabulary=range(5, 4101), mask_id=4,
        generator=stream(3, "mask", digest),
    )  # fmt: skip
    assert torch.equal(collator(SEQUENCES)["labels"], labels)
    assert torch.equal(collator(SEQUENCES)["labels"], labels)  # the same at every evaluation
    ten = [
        collator([sequence])["labels"][0, 1:30]
        for sequence in ("ACGTTGCAACGATTACAGATCC" * 2, "TCGTTGCAACGATTACAGATCC" * 2)
    ]
    assert not torch.equal(ten[0] != -100, ten[1] != -100)  # another batch, another mask


def test_a_fixed_width_batch_with_a_number_draws_from_the_number(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=14, probability=0.1)
    first, again, other = collator(numbered(4)), collator(numbered(4)), collator(numbered(5))
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["labels"], other["labels"])


def test_a_fixed_width_is_the_schedule_switched_off(tokenizer):
    """Invariant 1: a schedule of one width equals the integer, bit for bit."""
    flat = MaskSchedule(widths=(6,), milestones=(0,), total_steps=10)
    for number in (0, 9):
        one, other = (RandomMaskCollator(tokenizer, schedule=schedule)(numbered(number)) for schedule in (flat, 6))
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_default_probability(tokenizer):
    assert RandomMaskCollator(tokenizer, schedule=6).probability == 0.025
    for k in (3, 4, 5):
        assert RandomMaskCollator(KmerTokenizer(k=k), schedule=k).probability == 0.15 / k


def test_constant_share(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=MaskSchedule(total_steps=10), share=0.15)
    sequences = ["".join("ACGT"[i] for i in torch.randint(4, (505,)).tolist()) for _ in range(64)]
    for number in (0, 9):
        batch = collator(numbered(number, sequences))
        width = int(batch["mask_width"])
        share = float((batch["labels"] != -100).sum() / (64 * 500))
        assert share == pytest.approx(masked_share(width, 0.15 / width, tokens=500), abs=0.03)


def test_uniform_widths(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=MaskSchedule(total_steps=10, uniform=True))
    sequences = ["".join("ACGT"[i] for i in torch.randint(4, (505,)).tolist()) for _ in range(64)]
    batch = collator(numbered(9, sequences))
    share = float((batch["labels"] != -100).sum() / (64 * 500))
    assert share == pytest.approx(masked_share(range(6, 15), 0.025, tokens=500), abs=0.03)


def test_at_width_keeps_all_else(tokenizer):
    training = RandomMaskCollator(tokenizer, schedule=MaskSchedule(), seed=4, probability=0.05)
    fixed = training.at_width(14)
    assert (fixed.schedule, fixed.seed, fixed.probability) == (14, 4, 0.05)
    assert isinstance(training.schedule, MaskSchedule)


def test_pad_to_multiple(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=6, pad_to_multiple_of=16)
    for examples in (SEQUENCES, [base_codes(sequence) for sequence in SEQUENCES]):
        batch = collator(examples)
        assert batch["input_ids"].shape[1] % 16 == 0
        assert (batch["input_ids"][batch["attention_mask"] == 0] == 0).all()


def test_a_row_over_the_models_length_is_named():
    collator = RandomMaskCollator(KmerTokenizer(k=6, model_max_length=20), schedule=6)
    for examples in (SEQUENCES, [base_codes(SEQUENCES[0])]):
        with pytest.raises(
            ValueError, match="47 tokens, specials included, but the tokenizer's model_max_length is 20"
        ):
            collator(examples)


def test_it_pickles_and_keeps_no_counter(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=MaskSchedule(total_steps=10))
    before = pickle.dumps(vars(collator))
    first = collator(numbered(3))
    assert pickle.dumps(vars(collator)) == before
    assert torch.equal(pickle.loads(pickle.dumps(collator))(numbered(3))["labels"], first["labels"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"schedule": 0}, "schedule is 0"),
        ({"schedule": "wide"}, "schedule is 'wide'"),
        ({"schedule": 6, "probability": 2.0}, "probability is 2.0"),
        ({"schedule": 6, "share": -0.1}, "share is -0.1"),
        ({"schedule": 6, "share": 0.1, "probability": 0.1}, "Give one of the two"),
        ({"schedule": 6, "accumulation": 0}, "accumulation is 0"),
        ({"schedule": 6, "processes": 0}, "processes is 0"),
        ({"schedule": 6, "mask_share": 0.95}, "mask_share 0.95"),
    ],
)
def test_arguments_out_of_range_are_named(tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        RandomMaskCollator(tokenizer, **arguments)


def test_batches_mixed_up_or_empty_are_refused(tokenizer):
    collator = RandomMaskCollator(tokenizer, schedule=6)
    with pytest.raises(ValueError, match="no example"):
        collator([])
    with pytest.raises(ValueError, match=r"batches \['1', '2'\]"):
        collator([NumberedExample(1, "GATTACA"), NumberedExample(2, "GATTACA")])
