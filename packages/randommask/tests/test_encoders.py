import json

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertTokenizer, EsmConfig, EsmForMaskedLM, EsmTokenizer

from randommask import KmerTokenizer, vocabulary
from randommask.training.encoders import pretrained_classifier
from randommask.training.finetuning import Encoded
from scarce_common_utils.errors import UserError

SEQUENCES = ["GATTACAGATTACA", "ACGTTGCAACGT"]


def load(folder, **options):
    return pretrained_classifier(folder, **({"labels": ["a", "b", "c"], "dropout": 0.1, "seed": 0} | options))


@pytest.fixture
def dnabert(tmp_path):
    """A folder as DNABERT publishes them: weights under bert., extra configuration, do_lower_case true."""
    config = BertConfig(vocab_size=69, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(stored | {"num_rnn_layer": 1, "rnn": "lstm", "split": 10}))
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary(3)))
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "max_len": 512}')
    return tmp_path


def test_a_dnabert_folder_with_do_lower_case_is_read_right(dnabert):
    model, tokenizer = load(dnabert)
    assert isinstance(tokenizer, KmerTokenizer)
    assert tokenizer(SEQUENCES)["input_ids"] == KmerTokenizer(k=3)(SEQUENCES)["input_ids"]
    assert (model.num_labels, model.config.id2label[2]) == (3, "c")
    rows = Encoded(SEQUENCES, torch.tensor([0, 1]), tokenizer, config=model.config)
    assert rows.pieces[0][0].tolist() == KmerTokenizer(k=3)(SEQUENCES[0])["input_ids"]
    again, _ = load(dnabert)
    assert torch.equal(model.classifier.weight, again.classifier.weight)
    assert not torch.equal(model.classifier.weight, load(dnabert, seed=1)[0].classifier.weight)
    side_by_side, other = load(dnabert, overlap=False)
    assert other("ACGTTG")["input_ids"] == [2, *KmerTokenizer(k=3)(["ACG", "TTG"], add_special_tokens=False)["input_ids"][0],
                                            KmerTokenizer(k=3)("TTG")["input_ids"][1], 3]  # fmt: skip
    assert side_by_side.num_labels == 3


def test_a_tokenizer_to_which_all_dna_is_unknown_is_refused_by_name(tmp_path):
    config = BertConfig(vocab_size=69, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForMaskedLM(config).save_pretrained(tmp_path)
    words = [*vocabulary(3)[:5], *(f"w{number}" for number in range(64))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(vocab=str(tmp_path / "vocab.txt"), do_lower_case=True).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"whose tokenizer \w+ gives 1 tokens for ACGTTG.*all unknown. Look for do_lower_case"
    ):
        load(tmp_path)


def test_an_encoder_of_another_family(tmp_path):
    """Like a Nucleotide Transformer: an ESM whose words are 6-mers and single letters."""
    kmers = vocabulary(6)[5:55]
    words = ["<unk>", "<pad>", "<mask>", "<cls>", *kmers, *"ATCGN"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = EsmTokenizer(str(tmp_path / "vocab.txt"), eos_token=None, pad_token="<pad>", model_max_length=20)
    tokenizer.save_pretrained(tmp_path)
    config = EsmConfig(vocab_size=len(words), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
                       max_position_embeddings=30, pad_token_id=1, position_embedding_type="rotary", mask_token_id=2)  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(tmp_path)
    model, loaded = load(tmp_path)
    rows = Encoded(["ACGTTGCA" * 8, "ACG"], torch.tensor([0, 1]), loaded, config=model.config)
    assert rows.cut == 1
    assert all(len(piece) <= 20 for row in rows.pieces for piece in row)
    head = {name: value for name, value in model.named_parameters() if name.startswith("classifier")}
    again, _ = load(tmp_path)
    assert all(torch.equal(value, dict(again.named_parameters())[name]) for name, value in head.items())
    with pytest.raises(UserError, match=r"--overlap is for k-mers"):
        load(tmp_path, overlap=False)


def test_folders_that_hold_no_encoder(tmp_path, dnabert):
    with pytest.raises(UserError, match=r"which holds no config.json"):
        load(tmp_path / "nothing")
    (dnabert / "vocab.txt").write_text("\n".join(vocabulary(4)))
    with pytest.raises(UserError, match=r"whose config.json has 69 tokens and whose vocab.txt has 261"):
        load(dnabert)
    lines = vocabulary(3)
    lines[5], lines[6] = lines[6], lines[5]
    (dnabert / "vocab.txt").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"vocab.txt, line 6: 'AAT' stands where"):
        load(dnabert)
    (dnabert / "model.safetensors").unlink()
    (dnabert / "vocab.txt").write_text("\n".join(vocabulary(3)))
    with pytest.raises(UserError, match=r"which cannot be loaded"):
        load(dnabert)
