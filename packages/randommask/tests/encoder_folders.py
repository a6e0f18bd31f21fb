"""Small models saved as folders: ours over 3-mers, and one of another family whose words are letters."""

import torch
from transformers import EsmConfig, EsmForMaskedLM, EsmTokenizer

from randommask import KmerTokenizer, MaskedBert
from randommask.models.presets import bert_config
from randommask.models.starts import start_weights

K = 3


def kmer_folder(folder, *, k=K, overlap=True, start="structured", kind=MaskedBert):
    model = kind(bert_config("tiny", k=k, positions=32))
    start_weights(model, start, k=k, seed=0)
    model.save_pretrained(folder)
    KmerTokenizer(k=k, overlap=overlap, model_max_length=32).save_pretrained(folder)
    return folder


def letter_folder(folder):
    words = ["<unk>", "<pad>", "<mask>", "<cls>", *"ATCGN"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    EsmTokenizer(str(folder / "vocab.txt"), eos_token=None, pad_token="<pad>", model_max_length=20).save_pretrained(
        folder
    )
    config = EsmConfig(vocab_size=9, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                       max_position_embeddings=30, pad_token_id=1, position_embedding_type="rotary", mask_token_id=2)  # fmt: skip
    torch.manual_seed(0)
    EsmForMaskedLM(config).save_pretrained(folder)
    return folder


def dna(length, seed):
    letters = torch.randint(4, (length,), generator=torch.Generator().manual_seed(seed))
    return "".join("ACGT"[code] for code in letters.tolist())
