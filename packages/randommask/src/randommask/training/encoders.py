"""Models to fine-tune: a fresh BERT over k-mers, one of our pretraining, DNABERT's, or any other encoder from a local folder.

A folder with DNABERT's vocab.txt is read with our tokenizer whatever its `tokenizer_config.json` says: `do_lower_case: true` there, which
turns every k-mer into [UNK], does nothing. Any other folder needs a tokenizer and a model that transformers knows. Before use every
tokenizer has to tell ACGTACGTACGT from other letters, and is refused by name if all of it is unknown.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
)

from randommask.models.presets import SizeName, bert_config
from randommask.models.starts import StartName, start_weights
from randommask.tokenizer import KmerTokenizer
from randommask.training.chunking import Specials
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream

PROBE = "ACGTTGCAACGTACGATCGATTACAGGCAT"


def scratch_classifier(
    size: SizeName, *, k: int, start: StartName, labels: Sequence[str], dropout: float, seed: int
) -> tuple[BertForSequenceClassification, KmerTokenizer]:
    """A classifier that has seen nothing, of one of the two starts; no labels make a regression."""
    config = with_labels(bert_config(size, k=k, hidden_dropout=dropout), labels)
    model = BertForSequenceClassification(config)
    start_weights(model, start, k=k, seed=seed)
    return model, KmerTokenizer(k=k, model_max_length=config.max_position_embeddings)


def pretrained_classifier(
    folder: Path,
    *,
    labels: Sequence[str],
    dropout: float,
    seed: int,
    overlap: bool | None = None,
    trust_remote_code: bool = False,
) -> tuple[Any, Any]:
    """A classifier over a pretrained encoder, and its tokenizer; what the folder has no weights for begins from `stream(seed, "init")`.

    Args:
        folder: a local folder with config.json and a tokenizer.
        labels: names of the classes; none for a regression.
        dropout: on states and classifier, where the model's configuration has such.
        seed: of the new weights.
        overlap: k-mers with stride 1 or k, in place of what the folder says; k-mer folders alone.
        trust_remote_code: run the folder's own code.

    Raises:
        UserError: the folder is missing, holds no model, cannot be loaded, or its tokenizer knows no DNA.
    """
    if not (folder / "config.json").is_file():
        raise UserError(
            f"--model is {folder}, which holds no config.json. Give the model/ folder of a pretraining run, or a folder with an "
            "encoder and its tokenizer."
        )
    if is_kmer_folder(folder):
        return _kmer_classifier(folder, labels=labels, dropout=dropout, seed=seed, overlap=overlap)
    if overlap is not None:
        raise UserError(
            f"--overlap is for k-mers, and --model is {folder}, which holds no k-mer vocabulary. Leave it out."
        )
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        config = with_labels(AutoConfig.from_pretrained(folder, **options), labels)
        for name in ("hidden_dropout_prob", "classifier_dropout"):
            if hasattr(config, name):
                setattr(config, name, dropout)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **options,
        )
    except Exception as error:  # transformers and safetensors raise kinds of their own
        raise not_loaded(folder, error, named="--model") from error
    mismatched = {item[0] if isinstance(item, tuple | list) else item for item in info["mismatched_keys"]}
    _begin(model, {*info["missing_keys"], *mismatched}, seed=seed)
    refuse_deaf_tokenizer(folder, tokenizer)
    return model, tokenizer


def specials_of(tokenizer: Any, config: Any) -> Specials:
    """What the tokenizer puts around a piece, and how many tokens fit between.

    Raises:
        UserError: the tokenizer's ids with and without specials do not nest.
    """
    bare = tokenizer([PROBE], add_special_tokens=False)["input_ids"][0]
    whole = tokenizer([PROBE])["input_ids"][0]
    begins = [at for at in range(len(whole) - len(bare) + 1) if whole[at : at + len(bare)] == bare]
    if not begins:
        raise UserError(
            f"The tokenizer {type(tokenizer).__name__} gives other ids inside special tokens; it cannot be used here."
        )
    front, behind = tuple(whole[: begins[0]]), tuple(whole[begins[0] + len(bare) :])
    limit = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", None) or 10**9)
    pad = tokenizer.pad_token_id
    return Specials(front, behind, 0 if pad is None else pad, max(1, int(limit) - len(front) - len(behind)))


def refuse_deaf_tokenizer(folder: Path, tokenizer: Any, *, named: str = "--model") -> None:
    """Refuse a tokenizer to which all DNA is unknown, as DNABERT's is where its configuration says do_lower_case."""
    ids = tokenizer([PROBE], add_special_tokens=False)["input_ids"][0]
    if not ids or all(index == tokenizer.unk_token_id for index in ids):
        raise UserError(
            f"{named} is {folder}, whose tokenizer {type(tokenizer).__name__} gives {len(ids)} tokens for {PROBE}, all unknown. Look for "
            "do_lower_case in its tokenizer_config.json, or give a folder with a vocabulary of DNA."
        )


def not_loaded(folder: Path, error: Exception, *, named: str) -> UserError:
    """What a person is told of a folder that cannot be loaded; code that it brings along is not run unless asked for."""
    text = str(error)
    if "trust_remote_code" in text:
        return UserError(
            f"{named} is {folder}, which needs code that it brings along, and that is not run. If you have read it and trust it, give "
            "--trust-remote-code."
        )
    return UserError(f"{named} is {folder}, which cannot be loaded: {(text.splitlines() or [type(error).__name__])[0]}")


def with_labels(config: Any, labels: Sequence[str]) -> Any:
    """The configuration of a classifier with these classes; of a regression without any."""
    config.num_labels = len(labels) or 1
    config.id2label = dict(enumerate(labels)) or {0: "value"}
    config.label2id = {label: number for number, label in config.id2label.items()}
    config.problem_type = "single_label_classification" if labels else "regression"
    return config


def is_kmer_folder(folder: Path) -> bool:
    """Whether the folder holds a BERT with a k-mer vocabulary: five specials, then k-mers of one length."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if not isinstance(config, dict) or config.get("model_type") != "bert":
            return False
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").split()
    except (OSError, ValueError, RecursionError):
        return False
    return len(lines) > 5 and len({len(line) for line in lines[5:]}) == 1 and set("".join(lines[5:])) <= set("ACGT")


def _kmer_classifier(
    folder: Path, *, labels: Sequence[str], dropout: float, seed: int, overlap: bool | None
) -> tuple[BertForSequenceClassification, KmerTokenizer]:
    try:
        tokenizer = KmerTokenizer.from_pretrained(folder)
        config = BertConfig.from_pretrained(folder)
        config.hidden_dropout_prob = dropout
        config.classifier_dropout = dropout
        loaded: Any = BertForSequenceClassification.from_pretrained(
            folder, config=with_labels(config, labels), dtype=torch.float32, output_loading_info=True
        )
        model, info = loaded
    except Exception as error:  # as above
        raise not_loaded(folder, error, named="--model") from error
    if config.vocab_size != tokenizer.vocab_size:
        raise UserError(
            f"--model is {folder}, whose config.json has {config.vocab_size} tokens and whose vocab.txt has {tokenizer.vocab_size}."
        )
    if any(name.startswith("bert.encoder.") for name in info["missing_keys"]):
        raise UserError(
            f"--model is {folder}, whose weights hold no encoder of this shape. Give the folder of a whole BERT."
        )
    assert model.bert.pooler is not None
    generator = stream(seed, "init")
    with torch.no_grad():
        for layer in (model.bert.pooler.dense, model.classifier):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * config.initializer_range)
            layer.bias.zero_()
    tokenizer.model_max_length = config.max_position_embeddings
    if overlap is not None:
        tokenizer.overlap = overlap
        tokenizer.init_kwargs["overlap"] = overlap
    return model, tokenizer


def _begin(model: Any, names: set[str], *, seed: int) -> None:
    """Weights that the folder lacks: normal for matrices, 0 for the rest, from the seed alone."""
    generator = stream(seed, "init")
    std = getattr(model.config, "initializer_range", None) or 0.02
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                if parameter.ndim > 1:
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
                else:
                    parameter.fill_(1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
