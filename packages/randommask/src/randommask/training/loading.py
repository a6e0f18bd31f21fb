"""Pretrained models to look into, from a local folder: an encoder for its states, or a masked-language model for its predictions.

k-mer folders (ours, DNABERT's) are read with our tokenizer and our BERT, others by what transformers knows; the same folders that
fine-tuning takes. Models come in float32, in evaluation mode.

Letters   N sequences, P pieces.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertModel

from randommask.models.masked_bert import MaskedBert
from randommask.tokenizer import KmerTokenizer
from randommask.training.chunking import Specials, even_pieces
from randommask.training.encoders import is_kmer_folder, not_loaded, refuse_deaf_tokenizer, specials_of
from randommask.training.quiet import quiet_transformers
from scarce_common_utils.errors import UserError

_TOGETHER = 1024  # sequences tokenised at a time


class Loaded(NamedTuple):
    """A `model`, its `tokenizer`, what the tokenizer puts around a piece, and bases that neighbouring tokens share, plus 1."""

    model: Any
    tokenizer: Any
    specials: Specials
    reach: int


def load_encoder(folder: Path, *, trust_remote_code: bool = False) -> Loaded:
    """The encoder of a folder, without a head.

    Args:
        folder: holds config.json, weights and a tokenizer; a masked-language model's or a classifier's serves as well.
        trust_remote_code: run the folder's own code.

    Raises:
        UserError: the folder is missing, holds no encoder, cannot be loaded, or its tokenizer knows no DNA.
    """
    if is_kmer_folder(folder):
        return _load(folder, KmerTokenizer, BertModel, parts=("encoder.", "embeddings."), add_pooling_layer=False)
    return _load(folder, AutoTokenizer, AutoModel, parts=("encoder.", "embeddings."), **_careful(trust_remote_code))


def load_masked(folder: Path, *, trust_remote_code: bool = False) -> Loaded:
    """The masked-language model of a folder.

    Args:
        folder: holds config.json, weights and a tokenizer.
        trust_remote_code: run the folder's own code.

    Raises:
        UserError: as `load_encoder`; the weights hold no prediction head, or the tokenizer no mask token.
    """
    parts = ("encoder.", "embeddings.", "cls.", "lm_head.")
    if is_kmer_folder(folder):
        loaded = _load(folder, KmerTokenizer, MaskedBert, parts=parts)
    else:
        loaded = _load(folder, AutoTokenizer, AutoModelForMaskedLM, parts=parts, **_careful(trust_remote_code))
    if loaded.tokenizer.mask_token_id is None:
        raise UserError(
            f"MODEL is {folder}, whose tokenizer {type(loaded.tokenizer).__name__} has no mask token. Give a masked-language model."
        )
    return loaded


def _careful(trust_remote_code: bool) -> dict[str, Any]:
    return {"trust_remote_code": trust_remote_code, "local_files_only": True}


def _load(folder: Path, tokenizers: Any, models: Any, *, parts: Sequence[str], **options: Any) -> Loaded:
    """Model and tokenizer; refused where a weight is missing whose name holds one of `parts`."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"MODEL is {folder}, which holds no config.json. Give the model/ folder of a run, or a folder with an encoder and its "
            "tokenizer."
        )
    plain = {name: value for name, value in options.items() if name != "add_pooling_layer"}
    try:
        with quiet_transformers():
            tokenizer = tokenizers.from_pretrained(folder, **plain)
            options = {"ignore_mismatched_sizes": True, **options}  # told below; its own error names none
            model, info = models.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as error:  # transformers and safetensors raise kinds of their own
        raise not_loaded(folder, error, named="MODEL") from error
    for name, stored, needed in sorted(info["mismatched_keys"]):
        raise UserError(
            f"MODEL is {folder}, whose weights are not those of its config.json: {name} has the shape {tuple(stored)}, and "
            f"{tuple(needed)} is needed ({len(info['mismatched_keys'])} such)."
        )
    # Buffers and tied weights are never stored; a pooler is not used.
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = [
        name
        for name in info["missing_keys"]
        if name not in tied and "pooler" not in name and "position_ids" not in name
    ]
    lacking = next((name for name in sorted(missing) if any(part in name for part in parts)), None)
    if lacking is not None:
        raise UserError(
            f"MODEL is {folder}, whose weights hold no {lacking}: not all that is needed was trained there. Give the folder of a whole "
            f"{'masked-language model' if 'lm_head.' in parts else 'encoder'}."
        )
    refuse_deaf_tokenizer(folder, tokenizer, named="MODEL")
    if isinstance(tokenizer, KmerTokenizer):
        tokenizer.model_max_length = model.config.max_position_embeddings
        if model.config.vocab_size != tokenizer.vocab_size:
            raise UserError(
                f"MODEL is {folder}, whose config.json has {model.config.vocab_size} tokens and whose vocab.txt has "
                f"{tokenizer.vocab_size}."
            )
    reach = tokenizer.k if getattr(tokenizer, "overlap", False) else 1
    return Loaded(model.eval(), tokenizer, specials_of(tokenizer, model.config), reach)


class Pieces(NamedTuple):
    """Bare `ids` Int32[T] of each of P pieces, and `owners` Int64[P], the sequence that each belongs to."""

    ids: list[numpy.ndarray]
    owners: numpy.ndarray


def cut_into_pieces(sequences: Sequence[str], loaded: Loaded) -> Pieces:
    """Tokens of sequences, without specials; of those longer than the model in even pieces (`chunking`)."""
    ids, owners = list[numpy.ndarray](), list[int]()
    for start in range(0, len(sequences), _TOGETHER):
        part = list(sequences[start : start + _TOGETHER])
        with quiet_transformers():  # it would warn of rows that are cut here
            rows = loaded.tokenizer(part, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for number, row in enumerate(rows, start):
            for begin, end in even_pieces(len(row), most=loaded.specials.most):
                ids.append(numpy.array(row[begin:end], dtype=numpy.int32))
                owners.append(number)
    return Pieces(ids, numpy.array(owners, dtype=numpy.int64))


def by_length(pieces: Sequence[numpy.ndarray]) -> numpy.ndarray:
    """Numbers Int64[P] of the pieces, longest first, equal ones in their own order: what does not fit the memory fails at once."""
    return numpy.argsort([-len(piece) for piece in pieces], kind="stable")


def padded(
    rows: Sequence[numpy.ndarray], specials: Specials, *, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """`input_ids` and `attention_mask` Int64[N T] of bare rows, each in its specials."""
    whole = [numpy.concatenate([specials.front, row, specials.behind]).astype(numpy.int64) for row in rows]
    ids = numpy.full((len(whole), max(map(len, whole))), specials.pad, dtype=numpy.int64)
    attention = numpy.zeros_like(ids)
    for place, row in enumerate(whole):
        ids[place, : len(row)] = row
        attention[place, : len(row)] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(attention).to(device)
