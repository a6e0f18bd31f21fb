import json
import pickle
import random
import subprocess
import sys

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizer

from randommask import KmerTokenizer
from randommask.tokenizer import vocabulary_text
from reference import kmers as twin

SEQUENCES = ["GATTACAGATTACA", "acguacgttgca", "ACGTNNACGTACGTRACGTACG", "ACG", "", "GATTAC"]


@pytest.fixture(scope="module")
def tokenizer():
    return KmerTokenizer(k=6)


def slow(tokenizer, *args, **options):
    """The same call by transformers' own path, one token at a time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KmerTokenizer, "_encode_plus", PreTrainedTokenizer._encode_plus)
        return tokenizer(*args, **options)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize("overlap", [True, False])
def test_ids_equal_the_twin(k, overlap):
    tokenizer = KmerTokenizer(k=k, overlap=overlap)
    for sequence, ids in zip(SEQUENCES, tokenizer(SEQUENCES)["input_ids"], strict=True):
        assert ids == [2, *twin.ids(sequence, k, 1 if overlap else k), 3]
        assert tokenizer(sequence)["input_ids"] == ids


@pytest.mark.parametrize("tensors", [None, "pt", "np"])
@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": "max_length", "max_length": 30},
        {"padding": True, "pad_to_multiple_of": 8},
        {"padding": True, "truncation": True, "max_length": 9},
        {"padding": "max_length", "truncation": True, "max_length": 12},
        {"padding": True, "add_special_tokens": False},
        {"padding": True, "return_attention_mask": False, "return_token_type_ids": True},
        {"padding": True, "truncation": True, "max_length": 2},
    ],
)
def test_vectorised_call_equals_transformers_own(tokenizer, options, tensors):
    ours = tokenizer(SEQUENCES, return_tensors=tensors, **options)
    theirs = slow(tokenizer, SEQUENCES, return_tensors=tensors, **options)
    assert set(ours) == set(theirs)
    for name in theirs:
        found, expected = (
            value if isinstance(value, list) else torch.as_tensor(value).tolist()
            for value in (ours[name], theirs[name])
        )
        assert found == expected, name
        assert type(ours[name]) is type(theirs[name])


def test_unpadded_lists_and_single_strings_equal_transformers_own(tokenizer):
    for options in (
        {},
        {"truncation": True, "max_length": 7},
        {"return_length": True},
        {"return_attention_mask": False},
    ):
        assert dict(tokenizer(SEQUENCES, **options)).keys() == dict(slow(tokenizer, SEQUENCES, **options)).keys()
        assert tokenizer(SEQUENCES, **options)["input_ids"] == slow(tokenizer, SEQUENCES, **options)["input_ids"]
        ours, theirs = tokenizer(SEQUENCES[0], **options), slow(tokenizer, SEQUENCES[0], **options)
        assert ours["input_ids"] == theirs["input_ids"]
    single = tokenizer("GATTACA", return_tensors="pt")
    assert single["input_ids"].tolist() == [[2, 3159, 333, 3]]
    assert tokenizer(["GATTACA"], return_tensors="pt")["input_ids"].shape == (1, 4)


@pytest.mark.parametrize("lengths", [[90] * 300, list(range(60, 120)) * 5])
def test_large_batches_equal_the_twin(tokenizer, lengths):
    draw = random.Random(len(set(lengths)))
    sequences = ["".join(draw.choices("ACGTacgt", k=length)) for length in lengths]
    sequences[7] = sequences[7][:30] + "NU" + sequences[7][32:]
    encoded = tokenizer(sequences, padding=True, return_tensors="np", pad_to_multiple_of=16)
    width = -(-(max(lengths) - 3) // 16) * 16
    for sequence, ids, attention in zip(sequences, encoded["input_ids"], encoded["attention_mask"], strict=True):
        expected = [2, *twin.ids(sequence, 6), 3]
        assert ids.tolist() == expected + [0] * (width - len(expected))
        assert attention.tolist() == [1] * len(expected) + [0] * (width - len(expected))


def test_soft_masked_letters_can_be_unknown(tmp_path):
    KmerTokenizer(k=3, keep_soft_masked=False).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    expected = [2, 1 + 0, *twin.ids("NCGTA", 3)[1:], 3]
    assert loaded("aCGTA")["input_ids"] == expected
    assert slow(loaded, "aCGTA")["input_ids"] == expected
    assert loaded.convert_tokens_to_ids(["CGT", "cGT", "CGU"]) == [*twin.ids("CGT", 3), 1, *twin.ids("CGT", 3)]
    assert KmerTokenizer(k=3)("aCGTA")["input_ids"] == [2, *twin.ids("ACGTA", 3), 3]


def test_special_token_masks(tokenizer):
    encoded = tokenizer(["GATTACAN", "ACG"], padding=True, return_special_tokens_mask=True)
    assert encoded["input_ids"] == [[2, 3159, 333, 1, 3], [2, 3, 0, 0, 0]]
    assert encoded["special_tokens_mask"] == [[1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]
    assert tokenizer.get_special_tokens_mask([5, 6]) == [1, 0, 0, 1]
    assert tokenizer.get_special_tokens_mask([2, 5, 6, 3, 0], already_has_special_tokens=True) == [1, 0, 0, 1, 1]


def test_unequal_rows_as_a_tensor_are_refused_by_transformers(tokenizer):
    with pytest.raises(ValueError, match="padding"):
        tokenizer(["GATTACA", "GATTACAGA"], return_tensors="pt")


def test_left_padding_and_left_truncation_go_the_slow_way(tokenizer):
    left = tokenizer(["GATTACA", "GATTAC"], padding=True, padding_side="left")
    assert left["input_ids"] == [[2, 3159, 333, 3], [0, 2, 3159, 3]]
    other = KmerTokenizer(k=6, truncation_side="left")
    assert other("GATTACAG", truncation=True, max_length=4)["input_ids"] == [2, *twin.ids("GATTACAG", 6)[1:], 3]


def test_kmer_text_of_dnabert_is_read(tokenizer):
    assert tokenizer("GATTAC ATTACA")["input_ids"] == [2, 3159, 333, 3]
    assert tokenizer(["GATTAC ATTACA", "GATTACA"])["input_ids"] == [[2, 3159, 333, 3]] * 2
    with pytest.raises(ValueError, match="'ATTA' has 4 letters"):
        tokenizer("GATTAC ATTA")


def test_pairs_and_pretokenised_input(tokenizer):
    assert tokenizer("GATTAC", "ATTACA")["input_ids"] == [2, 3159, 3, 333, 3]
    assert tokenizer(["GATTAC", "ATTACA"], is_split_into_words=True)["input_ids"] == [2, 3159, 333, 3]
    assert tokenizer.convert_tokens_to_ids(["gattac", "ATUACA", "[MASK]", "XX"]) == [3159, 333, 4, 1]


def test_decode_gives_the_bases_back(tokenizer):
    rows = tokenizer(SEQUENCES, padding=True)["input_ids"]
    plain = ["GATTACAGATTACA", "ACGTACGTTGCA", None, "", "", "GATTAC"]
    found = tokenizer.batch_decode(rows, skip_special_tokens=True)
    for got, expected in zip(found, plain, strict=True):
        assert expected is None or got == expected
    assert found[2] == "N" * 8 + "ACGTACGTNACGTACG"[-14:] or set(found[2]) <= set("ACGTN")
    assert tokenizer.decode(tokenizer("GATTACANGATTACA")["input_ids"], skip_special_tokens=True) == "GATTACANGATTACA"
    assert tokenizer.decode([2, 3159, 333, 3, 0]) == "[CLS] GATTACA [SEP] [PAD]"
    assert tokenizer.decode(torch.tensor([2, 3159, 4, 3]), skip_special_tokens=True) == "GATTACN"
    assert tokenizer.decode(3159) == "GATTAC"
    with pytest.raises(ValueError, match="disagree"):
        tokenizer.decode([3159, 3159])


@pytest.mark.parametrize(("k", "overlap"), [(6, True), (3, False)])
def test_saved_folder_loads_as_auto_tokenizer(tmp_path, k, overlap):
    KmerTokenizer(k=k, overlap=overlap, model_max_length=100).save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_text() == vocabulary_text(k)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is KmerTokenizer
    assert (loaded.k, loaded.overlap, loaded.model_max_length, len(loaded)) == (k, overlap, 100, 5 + 4**k)
    assert loaded(SEQUENCES)["input_ids"] == KmerTokenizer(k=k, overlap=overlap)(SEQUENCES)["input_ids"]
    loaded.save_pretrained(tmp_path / "again")
    config = json.loads((tmp_path / "again" / "tokenizer_config.json").read_text())
    assert config["auto_map"] == {"AutoTokenizer": ["tokenizer.KmerTokenizer", None]}


def test_saved_folder_loads_where_the_package_is_absent(tmp_path):
    KmerTokenizer(k=6).save_pretrained(tmp_path / "saved")
    code = (
        "import sys, importlib.abc\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name.split('.')[0] in ('randommask', 'scarce_common_utils'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "from transformers import AutoTokenizer\n"
        f"folder = {str(tmp_path / 'saved')!r}\n"
        "tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)\n"
        "assert 'randommask' not in sys.modules\n"
        "print(tokenizer(['GATTACA', 'ACG'], padding=True)['input_ids'], tokenizer.decode([2, 3159, 3]))\n"
        f"tokenizer.save_pretrained({str(tmp_path / 'again')!r})\n"
        f"AutoTokenizer.from_pretrained({str(tmp_path / 'again')!r}, trust_remote_code=True)\n"
    )
    environment = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[[2, 3159, 333, 3], [2, 3, 0, 0]] [CLS] GATTAC [SEP]")


def test_a_folder_of_dnabert_loads_whatever_its_configuration_says_of_case(tmp_path):
    (tmp_path / "vocab.txt").write_text(vocabulary_text(3))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "max_len": 512}')
    loaded = KmerTokenizer.from_pretrained(tmp_path)
    assert loaded.k == 3
    assert loaded("ACGT")["input_ids"] == [2, *twin.ids("ACGT", 3), 3]


def test_another_order_of_ids_is_refused_by_file_and_line(tmp_path):
    lines = vocabulary_text(3).split("\n")
    lines[5], lines[6] = lines[6], lines[5]
    (tmp_path / "vocab.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"vocab.txt, line 6: 'AAT' stands where"):
        KmerTokenizer(vocab_file=str(tmp_path / "vocab.txt"))
    (tmp_path / "vocab.txt").write_text("\n".join(lines[:50]))
    with pytest.raises(ValueError, match="has 50 tokens"):
        KmerTokenizer(vocab_file=str(tmp_path / "vocab.txt"))
    (tmp_path / "vocab.txt").write_text(vocabulary_text(3))
    with pytest.raises(ValueError, match=r"k is 6, but .* k = 3"):
        KmerTokenizer(vocab_file=str(tmp_path / "vocab.txt"), k=6)


def test_arguments_out_of_range():
    with pytest.raises(ValueError, match="k is 9"):
        KmerTokenizer(k=9)
    with pytest.raises(ValueError, match="special tokens are"):
        KmerTokenizer(k=3, mask_token="<mask>")


def test_it_pickles_for_loader_workers(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again("GATTACA")["input_ids"] == [2, 3159, 333, 3]


def test_a_sequence_over_the_models_length_is_warned_of_once(caplog):
    import logging

    tokenizer = KmerTokenizer(k=6, model_max_length=10)
    with caplog.at_level(logging.WARNING):
        logging.getLogger("transformers").propagate = True
        tokenizer(["ACGT" * 10])
    assert len(tokenizer(["ACGT" * 10], truncation=True)["input_ids"][0]) == 10
