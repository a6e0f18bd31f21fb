"""A replica's state as one flat array of floats for one collective call, and back; exact where a sum is not wanted.

Floats    tensors that are averaged lie one after the other, in float32 (float64 where any of them is), ready to be summed;
          small ones first, so that what is done to each of the large ones is few calls.
Words     what is not summed (counters, python numbers, digests of values that must be equal) is one 64-bit word each. Every
          replica has words of its own, zero in all other replicas' arrays: as four floats of 16 bits a word, their sum is
          exact, and every process then holds every replica's words.
Agreement four more words a replica, by which processes tell each other whether they belong together.
Flags     one float for each tensor: how many replicas left it as it was at the episode's start.
Cost      leaves are gone through by position, since a state's form seldom changes; a lookup by name costs more than the sum.
Letters   S floats, N tensors, K words, M replicas.
"""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

import numpy
import torch

from imwa.averaging import copy_each
from imwa.compatibility import SHOWN_AT_MOST
from imwa.optimizer_state import is_counter
from imwa.replica_sum import kind_of, refuse_unequal, widened
from imwa.snapshot import OPTIMIZER
from imwa.trees import flatten

AGREEMENT = 4  # words
LIMBS = 4  # floats a word, 16 bits each, the lowest first
GROUP = 2**18  # floats that are copied and looked over for a NaN while they are in cache
LARGE = 2**15  # floats of a tensor that is worth a call of its own
Key = tuple[str, str]  # part and name
_look = attrgetter("dtype", "shape")


class Leaf(NamedTuple):
    """Form of one leaf: `kind` is "sum" (floats), "mean" (a python float), "counter" or "fixed"."""

    kind: str
    dtype: str
    shape: tuple[int, ...]


class Places(NamedTuple):
    """Where leaves of one kind stand among all, and their keys."""

    at: list[int]
    keys: list[Key]


class Form(dict[Key, Leaf]):
    """Form of every leaf of all parts, in their order; not changed once it is asked for places."""

    @cached_property
    def sums(self) -> Places:
        """Of the leaves that are averaged as floats."""
        return self._places_of(lambda kind: kind == "sum")

    @cached_property
    def others(self) -> Places:
        """Of all others, whose words travel."""
        return self._places_of(lambda kind: kind != "sum")

    @cached_property
    def has_complex(self) -> bool:
        """Whether a leaf is complex."""
        return any(leaf.dtype.startswith("complex") for leaf in self.values())

    @cached_property
    def floats_are_tensors(self) -> bool:
        """Whether no python float is averaged or counted, whose NaN an array would not show."""
        return all(leaf.dtype != "float" for leaf in self.values() if leaf.kind in ("mean", "counter"))

    @cached_property
    def summed(self) -> dict[str, set[str]]:
        """Names of `sums` by part."""
        names: dict[str, set[str]] = {}
        for part, name in self.sums.keys:
            names.setdefault(part, set()).add(name)
        return names

    def _places_of(self, wanted: Callable[[str], bool]) -> Places:
        found = [(place, key) for place, (key, leaf) in enumerate(self.items()) if wanted(leaf.kind)]
        return Places([place for place, _ in found], [key for _, key in found])


class Forms:
    """Forms of states that mostly look as the one before: told apart by their keys and their tensors' dtypes and shapes."""

    def __init__(self) -> None:
        self._names: list[Any] = []
        self._looks: list[Any] = []
        self._form = Form()
        self._digest = 0

    def of(self, parts: Mapping[str, Mapping[str, Any]], leaves: Sequence[Any]) -> Form:
        """Form of every leaf of all parts, in their order; `leaves` are the same, one after the other."""
        names = [(part, [*values]) for part, values in parts.items()]
        try:
            looks = [*map(_look, leaves)]
        except AttributeError:  # one is a plain value
            looks = [(getattr(leaf, "dtype", None), getattr(leaf, "shape", type(leaf))) for leaf in leaves]
        if looks != self._looks or names != self._names:
            keys = [(part, name) for part, values in parts.items() for name in values]
            self._form = Form((key, _leaf_of(*key, leaf)) for key, leaf in zip(keys, leaves, strict=True))
            self._looks, self._names, self._digest = looks, names, digest_of(repr([*self._form.items()]))
        return self._form

    def digest(self, form: Form) -> int:
        """Digest of a form, order included."""
        return self._digest if form is self._form else digest_of(repr([*form.items()]))


def digest_of(value: Any) -> int:
    """A word (signed, 64 bits) that equal values share and others do not; of any tree of tensors and plain values."""
    digest = hashlib.sha256()
    for path, leaf in flatten(value).items():
        digest.update(path.encode())
        if isinstance(leaf, torch.Tensor):
            digest.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            digest.update(leaf.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{type(leaf).__name__}{leaf!r}".encode())
    return int.from_bytes(digest.digest()[:8], "little", signed=True)


class Sum(NamedTuple):
    """A buffer after its sum over processes, and what stands in it."""

    buffer: "FlatBuffer"
    flags: numpy.ndarray
    words: list[dict[Key, int]]
    agreement: list[list[int]]


class FlatBuffer:
    """One flat array over a form.

    Args:
        form: leaves; "sum" leaves become floats, all others words.
        replicas: M, places for words.
        device: of the array.
    """

    def __init__(self, form: Form, *, replicas: int, device: torch.device) -> None:
        self.form, self.replicas = form, replicas
        self.small = [key for key in form.sums.keys if _floats(form[key]) < LARGE]
        self.large = [key for key in form.sums.keys if _floats(form[key]) >= LARGE]
        self.sums = self.small + self.large
        self.others = form.others.keys
        self._index = {key: at for at, key in enumerate(self.sums)}
        sizes = [_floats(form[key]) for key in self.sums]
        wide = any(form[key].dtype in ("float64", "complex128") for key in self.sums)
        self.dtype = torch.float64 if wide else torch.float32
        self._small = sum(sizes[: len(self.small)])
        self.floats = sum(sizes)
        self.words = len(self.others)
        length = self.floats + len(self.sums) + replicas * (self.words + AGREEMENT) * LIMBS
        self.array = torch.zeros(length, dtype=self.dtype, device=device)
        parts = self.array[: self.floats].split(sizes) if sizes else ()
        self.views = {key: _viewed(part, form[key]) for key, part in zip(self.sums, parts, strict=True)}
        self.plain = all(self.dtype == torch.float32 and form[key].dtype == "float32" for key in self.sums)
        views = [*self.views.values()]
        self._tail = self.array[self.floats :].numpy() if device.type == "cpu" else None
        self._groups = [(at, views[at], self.array[begin:end]) for at, begin, end in _grouped(sizes)]

    @torch.no_grad()
    def fill_checked(self, values: list[torch.Tensor]) -> bool:
        """Put one replica's tensors, in the order of `sums`, into the floats; one wait for the device.

        Returns:
            Whether certainly none holds a NaN: a sum carries it along at half a maximum's cost, and infinities of both signs
            make one too.
        """
        sums: list[torch.Tensor] = []
        for at, views, block in self._groups:
            torch._foreach_copy_(views, values[at])  # pyright: ignore[reportPrivateImportUsage] (as in `copy_each`)
            sums.append(block.sum())
        return not sums or not bool(torch.isnan(torch.stack(sums)).any())

    @torch.no_grad()
    def divide(self, count: int, *, into: Mapping[Key, torch.Tensor]) -> None:
        """Floats over `count`: in the array, or where a tensor has a place in `into` there, large ones on the way."""
        if not into:
            self.array[: self.floats].div_(count)
            return
        self.array[: self._small].div_(count)
        copied = [key for key in self.small if key in into]
        copy_each([into[key] for key in copied], [self.views[key] for key in copied])
        for key in self.large:
            torch.div(self.views[key], count, out=into.get(key, self.views[key]))

    @torch.no_grad()
    def fill(self, values: Sequence[Mapping[Key, torch.Tensor]]) -> None:
        """Put the sum of one or several mappings of tensors into the floats; a key that one lacks counts as zero."""
        missing = [key for key in self.sums if not any(key in mapping for mapping in values)]
        for key in missing:
            self.views[key].zero_()
        done = set(missing)
        for mapping in values:
            first = [key for key in self.sums if key in mapping and key not in done]
            later = [key for key in self.sums if key in mapping and key in done]
            done.update(first)
            copy_each([self.views[key] for key in first], [mapping[key] for key in first])
            for key in later:
                self.views[key] += mapping[key].to(self.array.device)

    @torch.no_grad()
    def put_flags_and_words(
        self,
        unchanged: Mapping[Key, int],
        words: Mapping[int, Mapping[Key, int]],
        agreement: Mapping[int, Sequence[int]] | None = None,
    ) -> None:
        """Flags by tensor, and the words of this process's replicas by key; what is not given is 0."""
        table = numpy.zeros((self.replicas, self.words + AGREEMENT), dtype="<i8")
        for m, own in words.items():
            table[m, : self.words] = [own.get(key, 0) for key in self.others]
        for m, told in (agreement or {}).items():
            table[m, self.words :] = told
        tail = numpy.empty(self.array.numel() - self.floats) if self._tail is None else self._tail
        tail[: len(self.sums)] = 0
        for key, flag in unchanged.items():
            if key in self._index:
                tail[self._index[key]] = flag
        tail[len(self.sums) :] = table.view("<u2").reshape(-1)
        if self._tail is None:
            self.array[self.floats :].copy_(torch.from_numpy(tail))

    def read_flags_and_words(self) -> tuple[numpy.ndarray, list[dict[Key, int]], list[list[int]]]:
        """After the sum over processes: flags in the order of `sums`; of each replica words by key, and its agreement."""
        tail = self.array[self.floats :].cpu().numpy() if self._tail is None else self._tail
        flags = tail[: len(self.sums)].astype(numpy.int64)
        limbs = tail[len(self.sums) :].reshape(self.replicas, -1).astype("<u2")
        rows = limbs.view("<i8").tolist()
        return flags, [dict(zip(self.others, row, strict=False)) for row in rows], [row[self.words :] for row in rows]


def union_of(forms: Mapping[int, Form], label: str) -> tuple[Form, dict[Key, int]]:
    """One form over replicas whose forms differ, and in how many each leaf is; the optimizer's leaves alone may lack.

    Raises:
        ValueError: they do not belong together; listed.
    """
    union = Form()
    wrong: list[str] = []
    for m, form in forms.items():
        for key, leaf in form.items():
            if union.setdefault(key, leaf) != leaf:
                wrong.append(f"{key[1]!r} of replica {m} is {_words(leaf)} and was {_words(union[key])}")
    counts = {key: sum(key in form for form in forms.values()) for key in union}
    wrong += [
        f"{key[1]!r} ({key[0]}) is in {count} of {len(forms)} replicas"
        for key, count in counts.items()
        if count < len(forms) and key[0] != OPTIMIZER
    ]
    if wrong:
        more = f"; and {len(wrong) - SHOWN_AT_MOST} more" if len(wrong) > SHOWN_AT_MOST else ""
        raise ValueError(f"The replicas of {label} do not belong together: {'; '.join(wrong[:SHOWN_AT_MOST])}{more}.")
    return union, counts


def tensors_of(leaves: Sequence[Any], form: Form) -> dict[Key, torch.Tensor]:
    """Live tensors of the "sum" leaves, complex ones as pairs of floats; `leaves` of all parts in the form's order."""
    values = [leaves[place] for place in form.sums.at]
    if form.has_complex:
        values = [torch.view_as_real(widened(value.detach())) if value.is_complex() else value for value in values]
    return dict(zip(form.sums.keys, values, strict=True))


def words_of(leaves: Sequence[Any], form: Form) -> dict[Key, int]:
    """Words of all other leaves."""
    return {
        key: digest_of(leaves[place]) if form[key].kind == "fixed" else _to_word(leaves[place])
        for place, key in zip(*form.others, strict=True)
    }


def value_from_words(key: Key, leaf: Leaf, words: Sequence[int], *, own: Any, known: int | None = None) -> Any:
    """The joined value of a leaf that is not summed: the largest, the mean, or the one that all share.

    Args:
        key: part and name, for errors.
        leaf: its form.
        words: of all replicas that have it, in replica order.
        own: this process's value, for what only a digest is known of.
        known: the word of `own`, where it was made before.

    Raises:
        ValueError: values that must be equal differ; named.
    """
    if leaf.kind == "fixed":
        if {*words} != {digest_of(own) if known is None else known}:
            refuse_unequal(key[1], "replicas")
        return own
    if isinstance(own, torch.Tensor) and {*words} == {_to_word(own) if known is None else known}:
        return own
    values = [_from_word(word, leaf) for word in words]
    if leaf.kind == "counter":
        joined: Any = max(values)
    else:
        total = values[0]
        for value in values[1:]:
            total = total + value
        joined = values[0] if len(set(words)) == 1 else total / len(values)
    if leaf.dtype in ("int", "float"):
        return joined
    device = own.device if isinstance(own, torch.Tensor) else None
    return torch.full(leaf.shape, joined, dtype=getattr(torch, leaf.dtype), device=device)


def narrowed(value: torch.Tensor, leaf: Leaf) -> torch.Tensor:
    """A float leaf in the dtype that it came in."""
    if leaf.dtype == "float32" and value.dtype == torch.float32:
        return value
    value = torch.view_as_complex(value) if leaf.dtype.startswith("complex") else value
    return value.to(getattr(torch, leaf.dtype))


def _leaf_of(part: str, name: str, value: Any) -> Leaf:
    kind = kind_of(value, part == OPTIMIZER and is_counter(name))
    if not isinstance(value, torch.Tensor):
        return Leaf(kind, type(value).__name__, ())
    return Leaf("sum" if kind == "mean" else kind, str(value.dtype).removeprefix("torch."), tuple(value.shape))


def _floats(leaf: Leaf) -> int:
    return torch.Size(leaf.shape).numel() * (2 if leaf.dtype.startswith("complex") else 1)


def _grouped(sizes: Sequence[int]) -> list[tuple[slice, int, int]]:
    """Places of tensors that lie side by side, with where their floats begin and end; none is empty."""
    groups: list[tuple[slice, int, int]] = []
    first = begin = end = 0
    for place, size in enumerate(sizes, start=1):
        end += size
        if end - begin >= GROUP:
            groups.append((slice(first, place), begin, end))
            first, begin = place, end
    if end > begin:
        groups.append((slice(first, len(sizes)), begin, end))
    return groups


def _viewed(part: torch.Tensor, leaf: Leaf) -> torch.Tensor:
    return part.view(*leaf.shape, 2) if leaf.dtype.startswith("complex") else part.view(leaf.shape)


def _to_word(value: Any) -> int:
    number = value.item() if isinstance(value, torch.Tensor) else value
    return struct.unpack("<q", struct.pack("<d", number))[0] if isinstance(number, float) else int(number)


def _from_word(word: int, leaf: Leaf) -> int | float:
    if leaf.dtype.startswith("float") or leaf.dtype == "bfloat16":
        return struct.unpack("<d", struct.pack("<q", word))[0]
    return word


def _words(leaf: Leaf) -> str:
    return f"{leaf.dtype} of shape {leaf.shape}"
