"""DNABERT's k-mer tokenizer as a transformers tokenizer, vectorised from letters to padded tensors.

    [CLS] k-mer ids [SEP] padding,   ids as in kmers.py: 5 specials, then 4^k k-mers

Lower case is the same base, U is T; a window with any other letter is one [UNK]. A sequence of n < k bases gives no k-mer.
`decode` gives the bases back, N where no k-mer shows one. DNABERT's own input, k-mers joined by blanks, is read as well.

Source    DNABERT (Ji et al. 2021), `tokenization_dna.py` and `vocab.txt`; case, U and ambiguity letters are our choice.
A saved folder carries this file with kmers.py and alphabet.py: `AutoTokenizer.from_pretrained(folder)` finds the class once
`randommask.KmerTokenizer` has been touched, and `trust_remote_code=True` loads it where the package is absent.
Letters   N sequences, L bases, T tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy
import torch
from transformers import AutoTokenizer, BatchEncoding, PreTrainedConfig, PreTrainedTokenizer
from transformers.utils.generic import PaddingStrategy

from .alphabet import base_codes, bases
from .kmers import (
    CLS_ID,
    FIRST_KMER,
    PAD_ID,
    SEP_ID,
    SPECIAL_TOKENS,
    UNK_ID,
    check_k,
    codes_of_ids,
    kmer_ids,
    kmer_vocabulary,
    vocabulary,
)

VOCABULARY_FILE: Final = "vocab.txt"
LONGEST: Final = 512  # positions of DNABERT, specials included


class TokenRows(NamedTuple):
    """`ids` Int64[N T], `attention` Int64[N T] (0 at padding), `counts` Int64[N], tokens of each row before padding."""

    ids: numpy.ndarray
    attention: numpy.ndarray
    counts: numpy.ndarray


class KmerTokenizer(PreTrainedTokenizer):
    """k-mer tokenizer with DNABERT's ids.

    Args:
        vocab_file: a DNABERT `vocab.txt`; checked line by line, only its size matters. Loading a folder passes it.
        k: bases a k-mer, 1 to 8. None: what `vocab_file` holds, else 6.
        overlap: stride 1 (DNABERT) or stride k.
        keep_soft_masked: whether lower case is the same base (true), or unknown, so that a k-mer that covers it is [UNK].
        unk_token: the five special tokens stand at ids 0 to 4 and cannot be renamed.
        cls_token: see `unk_token`.
        sep_token: see `unk_token`.
        pad_token: see `unk_token`.
        mask_token: see `unk_token`.
        model_max_length: tokens a model takes, specials included; cut there with `truncation=True`.
        **kwargs: what transformers stores in `tokenizer_config.json`.

    Raises:
        ValueError: k out of range, or a vocabulary file that is not DNABERT's for this k.

    Example:
        >>> KmerTokenizer(k=6)("GATTACA")["input_ids"]
        [2, 3159, 333, 3]
    """

    vocab_files_names = {"vocab_file": VOCABULARY_FILE}  # noqa: RUF012 (transformers' own form)
    # No token_type_ids unless asked for: a model takes zeros for them, and they would cost a third of the time.
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012 (transformers' own form)
    # save_pretrained copies this module into the folder. transformers 5.23 writes an entry for it that it can read back only
    # if the class's name holds the word Tokenizer.
    _auto_class = "AutoTokenizer"

    def __init__(
        self,
        vocab_file: str | None = None,
        k: int | None = None,
        overlap: bool = True,
        keep_soft_masked: bool = True,
        unk_token: str = "[UNK]",
        cls_token: str = "[CLS]",
        sep_token: str = "[SEP]",
        pad_token: str = "[PAD]",
        mask_token: str = "[MASK]",
        model_max_length: int = LONGEST,
        **kwargs: Any,
    ) -> None:
        found = None if vocab_file is None else _k_of_file(Path(vocab_file))
        if found is not None and k is not None and found != k:
            raise ValueError(f"k is {k}, but {vocab_file} is the vocabulary of k = {found}. Load it with k={found}.")
        self.k = check_k(found or (6 if k is None else k))
        self.overlap = overlap
        self.keep_soft_masked = keep_soft_masked
        self._tokens = vocabulary(self.k)
        self._ids = {token: index for index, token in enumerate(self._tokens)}
        named = tuple(str(token) for token in (pad_token, unk_token, cls_token, sep_token, mask_token))
        if named != SPECIAL_TOKENS:
            raise ValueError(f"special tokens are {named}, but DNABERT's vocabulary has {SPECIAL_TOKENS}.")
        super().__init__(
            k=self.k,
            overlap=overlap,
            keep_soft_masked=keep_soft_masked,
            unk_token=unk_token,
            cls_token=cls_token,
            sep_token=sep_token,
            pad_token=pad_token,
            mask_token=mask_token,
            model_max_length=model_max_length,
            special_tokens_pattern="cls_sep",
            **kwargs,
        )

    @property
    def vocab_size(self) -> int:
        """5 + 4^k, 4101 for 6-mers."""
        return len(self._tokens)

    @property
    def kmer_vocabulary(self) -> range:
        """Ids of the k-mers, the specials left out: `range(5, 5 + 4**k)`."""
        return kmer_vocabulary(self.k)

    def get_vocab(self) -> dict[str, int]:
        """Token to id, added tokens included."""
        return self._ids | self._added_tokens_encoder

    def token_rows(
        self,
        codes: numpy.ndarray,
        lengths: numpy.ndarray,
        *,
        limit: int | None = None,
        special: bool = True,
        least: int = 0,
        multiple: int = 1,
    ) -> TokenRows:
        """Ids of many sequences at once, padded with [PAD] at the right.

        Args:
            codes: UInt8[N L], base codes; what lies past a sequence's length does not matter.
            lengths: Int64[N], bases of each sequence.
            limit: most tokens a row, specials included; the rest is cut. None: no limit.
            special: put [CLS] in front and [SEP] behind.
            least: pad to this many tokens at least.
            multiple: pad to a multiple of this many tokens.

        Returns:
            ids Int64[N T], attention Int64[N T], counts Int64[N].
        """
        counts = numpy.maximum(lengths - self.k + 1, 0) if self.overlap else lengths // self.k
        if limit is not None:
            counts = numpy.minimum(counts, max(0, limit - 2 * special))
        most = int(counts.max(initial=0))
        width = max(most + 2 * special, least)
        width = -(-width // multiple) * multiple
        needed = 0 if not most else most + self.k - 1 if self.overlap else most * self.k
        # One piece of memory for both: from 4 MB on numpy asks for large pages, and small ones cost more than the ids.
        ids, attention = numpy.empty((2, codes.shape[0], width), dtype=numpy.int64)
        kmer_ids(codes[:, :needed], self.k, overlap=self.overlap, out=ids[:, special : special + most])
        if special:
            ids[:, 0] = CLS_ID
        even = int(counts.min(initial=most)) == most
        if even:
            ids[:, most + special :] = PAD_ID
            attention[:, : most + 2 * special] = 1
            attention[:, most + 2 * special :] = 0
        else:
            for row, behind in zip(ids, (counts + special).tolist(), strict=True):  # quicker than one mask of N x T
                row[behind:] = PAD_ID
            place = numpy.arange(width, dtype=numpy.int32)
            numpy.copyto(attention, place < (counts + 2 * special).astype(numpy.int32)[:, None])
        if special:
            if even:
                ids[:, most + 1] = SEP_ID
            else:
                ids[numpy.arange(ids.shape[0]), counts + 1] = SEP_ID
        return TokenRows(ids, attention, counts + 2 * special)

    def _encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:  # pyright: ignore[reportIncompatibleMethodOverride]  (all options pass through)
        rows = [text] if isinstance(text, str) else text
        return_tensors = options.get("return_tensors")
        plain = (
            text_pair is None
            and isinstance(rows, list | tuple)
            and len(rows) > 0
            and all(isinstance(row, str) for row in rows)
            and not any(options.get(name) for name in ("is_split_into_words", "return_overflowing_tokens", "stride"))
            and not options.get("return_offsets_mapping")
            and (options.get("padding_side") or self.padding_side) == "right"
            and self.truncation_side == "right"
            and return_tensors in (None, "pt", "np")
        )
        if plain:
            letters = "".join(rows).encode("latin-1", "replace")
            if not any(sign in letters for sign in (b" ", b"[", b"\n", b"\t")):  # k-mer text and special tokens: slowly
                encoded = self._encode_rows(rows, letters, options=options, batched=not isinstance(text, str))
                if encoded is not None:
                    return encoded
        return super()._encode_plus(text, text_pair, **options)

    def _encode_rows(
        self, rows: Sequence[str], letters: bytes, *, options: dict[str, Any], batched: bool
    ) -> BatchEncoding | None:
        """Vectorised encoding; None where transformers has to speak (rows of unequal length asked for as a tensor)."""
        lengths = numpy.fromiter(map(len, rows), dtype=numpy.int64, count=len(rows))
        special = bool(options.get("add_special_tokens", True))
        padding = options.get("padding_strategy", PaddingStrategy.DO_NOT_PAD)
        cut = getattr(options.get("truncation_strategy"), "value", "do_not_truncate") != "do_not_truncate"
        limit = options.get("max_length") if cut else None
        pads = padding != PaddingStrategy.DO_NOT_PAD
        ids, attention, counts = self.token_rows(
            _matrix(self._codes(letters), lengths),
            lengths,
            limit=limit,
            special=special,
            least=(options.get("max_length") or 0) if padding == PaddingStrategy.MAX_LENGTH else 0,
            multiple=(options.get("pad_to_multiple_of") or 1) if pads else 1,
        )
        if not cut:
            self._eventual_warn_about_too_long_sequence([0] * int(counts.max()), options.get("max_length"), True)
        tensors = options.get("return_tensors")
        if tensors is not None and not pads and int(counts.min()) < ids.shape[1]:
            return None
        columns: dict[str, Any] = {"input_ids": ids}
        if options.get("return_token_type_ids"):
            columns["token_type_ids"] = numpy.zeros_like(ids)
        if options.get("return_attention_mask") is not False:
            columns["attention_mask"] = attention
        if options.get("return_special_tokens_mask"):
            columns["special_tokens_mask"] = ((ids < FIRST_KMER) & (ids != self.unk_token_id)).astype(numpy.int64)
        if options.get("return_length"):
            columns["length"] = counts if batched else counts[:1]
        return _as_encoding(columns, counts, tensors=tensors, batched=batched, pads=pads)

    def _tokenize(self, text: str, **_: Any) -> list[str]:  # pyright: ignore[reportIncompatibleMethodOverride]  (named in transformers too)
        words = text.split()
        if len(words) > 1 or (
            words and len(words[0]) == self.k
        ):  # DNABERT's k-mer text; one k-mer reads the same both ways
            wrong = next((word for word in words if len(word) != self.k), None)
            if wrong is not None:
                raise ValueError(
                    f"The text holds blanks, so it was read as {self.k}-mers, but {wrong!r} has {len(wrong)} letters. Give one "
                    f"sequence without blanks, or {self.k}-mers joined by blanks."
                )
            return [self._tokens[int(kmer_ids(self._codes(word), self.k)[0])] for word in words]
        return [self._tokens[index] for index in kmer_ids(self._codes("".join(words)), self.k, overlap=self.overlap)]

    def _codes(self, letters: str | bytes) -> numpy.ndarray:
        return base_codes(letters, keep_soft_masked=self.keep_soft_masked)

    def _convert_token_to_id(self, token: str) -> int:
        plain = token.upper() if self.keep_soft_masked else token
        return self._ids.get(token, self._ids.get(plain.replace("U", "T"), UNK_ID))

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index < len(self._tokens):
            raise ValueError(
                f"Token id {index} is outside the vocabulary of k = {self.k}, ids 0 to {len(self._tokens) - 1}."
            )
        return self._tokens[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Bases that the tokens spell; see `decode`."""
        return self._decode(self.convert_tokens_to_ids(tokens))

    def _decode(
        self,
        token_ids: int | list[int],
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **_: Any,
    ) -> str:
        """Bases of a row of ids: [UNK] and [MASK] give N where no neighbour shows the base; a [SEP] ends a piece.

        Pieces are joined by blanks, the other specials stand between them unless skipped.
        """
        ids = numpy.atleast_1d(numpy.asarray(token_ids, dtype=numpy.int64))
        walls = numpy.flatnonzero((ids == PAD_ID) | (ids == CLS_ID) | (ids == SEP_ID))
        parts: list[str] = []
        start = 0
        for wall in [*walls.tolist(), ids.size]:
            if wall > start:
                parts.append(bases(codes_of_ids(ids[start:wall], self.k, overlap=self.overlap)))
            if wall < ids.size and not skip_special_tokens:
                parts.append(SPECIAL_TOKENS[ids[wall]])
            start = wall + 1
        return " ".join(parts)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write DNABERT's `vocab.txt` into a folder; returns its path."""
        path = Path(save_directory) / f"{filename_prefix + '-' if filename_prefix else ''}{VOCABULARY_FILE}"
        path.write_text(vocabulary_text(self.k), encoding="ascii", newline="\n")
        return (str(path),)


def vocabulary_text(k: int) -> str:
    """Text of DNABERT's `vocab.txt`, byte for byte: the published file of k = 6 ends with a line break, the others do not."""
    return "\n".join(vocabulary(k)) + ("\n" if k == 6 else "")


def _k_of_file(path: Path) -> int:
    lines = path.read_text(encoding="utf-8").split("\n")
    tokens = lines[:-1] if lines[-1] == "" else lines
    for k in range(1, 9):
        if len(tokens) == 5 + 4**k:
            wrong = next((pair for pair in zip(tokens, vocabulary(k), strict=True) if pair[0] != pair[1]), None)
            if wrong is None:
                return k
            raise ValueError(
                f"{path}, line {tokens.index(wrong[0]) + 1}: {wrong[0]!r} stands where DNABERT's vocabulary of k = {k} has "
                f"{wrong[1]!r}, so its ids mean other k-mers. Load a folder with DNABERT's order of ids."
            )
    raise ValueError(
        f"{path} has {len(tokens)} tokens; a k-mer vocabulary has 5 + 4^k of them (9, 21, 69, 261, 1029, 4101, ...)."
    )


def _matrix(codes: numpy.ndarray, lengths: numpy.ndarray) -> numpy.ndarray:
    """UInt8[N L] of sequences whose base codes lie end to end; 0 past a sequence's end."""
    longest = int(lengths.max())
    if int(lengths.min()) == longest:
        return codes.reshape(len(lengths), longest)
    matrix = numpy.zeros((len(lengths), longest), dtype=numpy.uint8)
    start = 0
    for row, length in zip(matrix, lengths.tolist(), strict=True):
        row[:length] = codes[start : start + length]
        start += length
    return matrix


def _as_encoding(
    columns: dict[str, Any], counts: numpy.ndarray, *, tensors: str | None, batched: bool, pads: bool
) -> BatchEncoding:
    if tensors is not None:  # transformers gives a batch axis to a single sequence here
        return BatchEncoding(
            {name: torch.from_numpy(value) for name, value in columns.items()} if tensors == "pt" else columns
        )
    lists = {name: value.tolist() for name, value in columns.items()}
    if not pads:
        for name, value in lists.items():
            if name != "length":
                lists[name] = [row[:count] for row, count in zip(value, counts.tolist(), strict=True)]
    return BatchEncoding(lists if batched else {name: value[0] for name, value in lists.items()})


class _KmerConfig(PreTrainedConfig):
    """Only a key under which AutoTokenizer files the class; no model has this configuration."""

    model_type = "randommask_kmer"


AutoTokenizer.register(_KmerConfig, slow_tokenizer_class=KmerTokenizer, exist_ok=True)
