"""A stream of sequences as windows by number: the same whoever reads it, divided, walked as DNABERT does, refused by row."""

import pickle

import numpy
import pytest
from torch.utils.data import DataLoader

from encoder_folders import dna
from randommask import NumberedBatches
from randommask.alphabet import base_codes, bases, reverse_complement
from randommask.genome.held_out import LONG
from randommask.genome.store import Stretch
from randommask.genome.streaming import Rows, StreamError, StreamWindows, part_of_row, sample_stream
from scarce_common_utils.errors import UserError
from workers import as_text

LETTERS = [dna(20 + 13 * (row % 7), row) for row in range(60)]


def windows(letters=LETTERS, **options):
    options = {"tokens": 10, "k": 3, "side": "all", "recipe": "strided"} | options
    return StreamWindows(Rows(letters), **options)


def texts(found, count):
    return [bases(found[number]) for number in range(count)]


def test_strided_windows_are_the_rows_cut_side_by_side_pass_after_pass():
    expected = [row[start : start + 12] for row in LETTERS for start in range(0, len(row), 12) if len(row) - start >= 3]
    found = windows()
    assert texts(found, 2 * len(expected)) == expected * 2
    assert texts(found, 5) == expected[:5]  # back to the start
    unknown = windows(["ACGTACGTNACGTNNAC", "AC", "GGGG"])
    assert texts(unknown, 4) == ["ACGTACGT", "ACGT", "GGGG", "ACGTACGT"]
    assert texts(windows(["ACGTACGTNACGTNNAC"], longest_unknown=1), 2) == ["ACGTACGTNACG", "ACGTACGTNACG"]


@pytest.mark.parametrize("recipe", ["dnabert", "full", "strided"])
def test_a_window_is_a_function_of_its_number(recipe):
    options = {"recipe": recipe, "seed": 3, "reverse_complement_share": 0.5}
    expected = texts(windows(**options), 120)
    for order in ([119, 5, 5, 60, 0, 61], list(range(0, 120, 7))):
        found = windows(**options)
        assert [bases(found[number]) for number in order] == [expected[number] for number in order]
    again = pickle.loads(pickle.dumps(found))
    assert bases(again[17]) == expected[17]
    assert texts(windows(**options | {"seed": 4}), 120) != expected
    plain = texts(windows(recipe=recipe, seed=3), 120)
    turned = [bases(reverse_complement(base_codes(text))) for text in plain]
    assert all(one in pair for one, pair in zip(expected, zip(plain, turned, strict=True), strict=True))
    assert 30 < sum(one != other for one, other in zip(expected, plain, strict=True)) < 90


def test_the_walk_with_random_lengths_covers_each_row_once():
    found = windows([dna(3000, 1)], recipe="dnabert", seed=1)
    text, lengths, number = "", [], 0
    while len(text) < 2998:
        text += bases(found[number])
        lengths.append(len(found[number]))
        number += 1
    assert dna(3000, 1).startswith(text)
    full = sum(length == 12 for length in lengths) / len(lengths)
    assert 0.4 < full < 0.65
    assert min(lengths[:-1]) == 3
    assert set(lengths) == set(range(3, 13))
    # full windows of another place in each pass
    starts = {bases(windows([dna(30, 1)], recipe="full", seed=seed)[0]) for seed in range(12)}
    assert len(starts) > 3
    assert all(len(start) == 12 and start in dna(30, 1) for start in starts)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("shuffle_buffer", [0, 20])
def test_workers_and_going_on_see_the_same_batches_of_a_datasets_stream(tmp_path, workers, shuffle_buffer):
    datasets = pytest.importorskip("datasets", reason="streams of `datasets`")
    for part in range(2):
        lines = [f'{{"dna": "{row}"}}' for row in LETTERS[part::2]]
        (tmp_path / f"{part}.jsonl").write_text("\n".join(lines))
    files = [str(tmp_path / f"{part}.jsonl") for part in range(2)]
    source = datasets.load_dataset(
        "json", data_files=files, split="train", streaming=True, cache_dir=str(tmp_path / "c")
    )
    found = StreamWindows(Rows(source, "dna", shuffle_buffer=shuffle_buffer), tokens=10, k=3, seed=5)
    expected = texts(found, 240)  # more than a pass
    assert (
        expected[:30] == texts(windows([*LETTERS[0::2], *LETTERS[1::2]], side="training", seed=5, recipe="dnabert"), 30)
    ) == (shuffle_buffer == 0)
    batches = NumberedBatches(found, batch_size=4, batches=60, shuffle=False)
    loader = DataLoader(batches.dataset, batch_sampler=batches, collate_fn=as_text, num_workers=workers)
    seen = list(loader)
    assert [number for number, _ in seen] == list(range(60))
    assert [text for _, some in seen for text in some] == expected
    assert bases(StreamWindows(found.rows, tokens=10, k=3, seed=5)[200]) == expected[200]  # as after a resume


def test_what_is_held_out_is_never_trained_on():
    sides = {side: [part_of_row(base_codes(row), side, seed=0) for row in LETTERS] for side in ("training", "held out")}
    for row, training, held_out in zip(LETTERS, *sides.values(), strict=True):
        assert training + held_out == [Stretch(0, len(row))]
    count = sum(map(bool, sides["held out"]))
    assert 1 <= count <= 15
    assert sides["held out"] != [part_of_row(base_codes(row), "held out", seed=1) for row in LETTERS]
    long = numpy.zeros(LONG + 10, dtype=numpy.uint8)
    cut = len(long) - len(long) // 10
    assert part_of_row(long, "training", seed=0) == [Stretch(0, cut)]
    assert part_of_row(long, "held out", seed=0) == [Stretch(cut, len(long))]
    trained = set(texts(windows(side="training"), 400))
    assert not trained & set(texts(windows(side="held out"), 40))


def test_the_first_rows_are_a_genome():
    genome, parts = sample_stream(Rows(LETTERS), None, full=12, windows=3, seed=0)
    held = [row for row in LETTERS if part_of_row(base_codes(row), "held out", seed=0)]
    assert sum(stretch.stop - stretch.start for stretch in parts.held_out) == min(36, sum(map(len, held)))
    assert bases(genome.codes[parts.held_out[0].start :])[:12] == held[0][:12]
    assert bases(genome.codes[: parts.held_out[0].start]) == "".join(row for row in LETTERS if row not in held)
    other, parts = sample_stream(Rows(LETTERS), Rows(["ACGT" * 9, "GG"], name="dev"), full=12, windows=3, seed=0)
    assert bases(other.codes[parts.held_out[0].start :]) == "ACGT" * 9
    assert sum(stop - start for start, stop in parts.training) == sum(map(len, LETTERS))
    with pytest.raises(UserError, match=r"the stream has no held out row\. Give more rows, or a split"):
        sample_stream(Rows(["ACGTACGT"]), None, full=12, windows=3, seed=0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (Rows([{"dna": "ACGT"}], name="x"), r"x has no column|x, row 1: the column 'sequence' holds"),
        (Rows(["ACGTACGT", None], name="x"), r"x, row 2: the column 'sequence' holds 'None', no letters"),
        (Rows(["ACGTACGT", "ACLT"], name="x"), r"x, row 2: 'L' is no letter of DNA .* in 'ACLT'"),
        (Rows(["AC", "NNNNN"], name="x"), r"x holds no all row with 3 known bases side by side"),
        (Rows(7, name="x"), r"x cannot be read behind row 0 \('int' object is not iterable\)"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_row_that_cannot_be_used_is_named(rows, message):
    with pytest.raises(StreamError, match=message):
        texts(StreamWindows(rows, tokens=10, k=3, side="all", recipe="strided"), 5)


def test_a_loader_worker_hands_on_the_sentence_alone():
    found = StreamWindows(Rows(["ACGTACGT", "ACLT"], name="x"), tokens=10, k=3, side="all", recipe="strided")
    batches = NumberedBatches(found, batch_size=2, batches=4, shuffle=False)
    with pytest.raises(UserError) as caught:
        list(DataLoader(batches.dataset, batch_sampler=batches, collate_fn=as_text, num_workers=1))
    assert str(caught.value).startswith("x, row 2: 'L' is no letter of DNA")


def test_what_cannot_be():
    for words, message in (
        ({"recipe": "zigzag"}, "recipe is 'zigzag'; choose one of dnabert"),
        ({"tokens": 0}, "tokens is 0"),
        ({"reverse_complement_share": 2.0}, "reverse_complement_share is 2.0"),
    ):
        with pytest.raises(ValueError, match=message):
            windows(**words)
    with pytest.raises(IndexError, match="window -1"):
        windows()[-1]
