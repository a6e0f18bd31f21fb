"""DNABERT's k-mer ids by dictionary and slices. Source: DNABERT, vocab.txt (order A, T, C, G) and seq2kmer."""

from itertools import product

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokens(k: int) -> list[str]:
    return SPECIALS + ["".join(letters) for letters in product("ATCG", repeat=k)]


def ids(sequence: str, k: int, stride: int = 1) -> list[int]:
    """Ids of the windows; a window with anything but A, C, G, T, U in either case is [UNK] = 1."""
    number = {token: index for index, token in enumerate(tokens(k))}
    plain = sequence.upper().replace("U", "T")
    return [number.get(plain[i : i + k], 1) for i in range(0, len(plain) - k + 1, stride)]
