"""The mean of M safetensors files, streamed from mapped inputs into a mapped output: memory of a few blocks.

Rules     those of `replica_sum.py`, by name: floats averaged in float32 or better and cast back once, single whole numbers the
          largest, everything else equal. Names, shapes and dtypes must agree; nothing is written where they do not.
Ties      a file may leave out a tensor that shares its values with another (transformers and `save_model` do). It counts as
          tied where every file that holds it holds equal bytes under another name that all files have; then it is named and
          left out, and loading the result into the model ties it again. Else it is missing, and refused.
Format    8 bytes: length of the header, little endian; the header, JSON: name -> dtype, shape, data_offsets; the data.
          The output has the first file's header, but for tensors left out: same order, same metadata.
Source    safetensors' format; the mean is IMWA's (arXiv 2404.16331).        Letters   M files.
"""

import json
import mmap
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from imwa.block_mean import mean_in_blocks
from imwa.compatibility import SHOWN_AT_MOST
from scarce_common_utils.errors import UserError

# What each name in a header is read as. Complex numbers are pairs of floats to a mean.
DTYPES = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "C64": torch.float32},
    **{"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "BOOL": torch.bool},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8},
    **{"U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8},
}


class AveragedFiles(NamedTuple):
    """`output` holds `tensors` tensors; `tied` names those left out, each with the tensor that it is tied to."""

    output: Path
    tensors: int
    tied: dict[str, str]


class _File(NamedTuple):
    """`tensors` is the header without its metadata; `begin` is where the data begin in the mapped file."""

    path: Path
    tensors: dict[str, dict[str, Any]]
    metadata: dict[str, str] | None
    mapped: mmap.mmap
    begin: int


def average_files(paths: Sequence[str | Path], output: str | Path) -> AveragedFiles:
    """Write the mean of M safetensors files of one model.

    Args:
        paths: M >= 1 files; only read, never loaded: at any time a few blocks of 2 MiB are in memory of our own.
        output: a new file. It appears whole or not at all: written aside, synced, renamed.

    Returns:
        The output, its number of tensors, and the tied tensors that some files leave out and so does it.

    Raises:
        UserError: no file; a file is missing, torn or no safetensors file; the output exists; names, shapes or dtypes
            differ (listed, up to 12); a NaN, or values without a mean that differ (tensor and file named).
    """
    target = Path(output)
    if not paths:
        raise UserError("There are 0 files to average. Give at least 1.")
    if target.exists():
        raise UserError(f"{target} exists already, and nothing is written over it. Name a new file.")
    if not target.parent.is_dir():
        raise UserError(
            f"{target.parent} is no folder, so {target.name} cannot be written there. Make the folder first."
        )
    files = [_open(Path(path)) for path in paths]
    tied = _find_tied(files)
    _refuse_other_forms(files, tied)
    header = {name: dict(entry) for name, entry in files[0].tensors.items() if name not in tied}
    aside = target.with_name(target.name + ".part")
    try:
        _write(aside, header, files)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)
    return AveragedFiles(target, len(header), tied)


def _open(path: Path) -> _File:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np"):  # checks the header and that the tensors cover the file
            pass
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise UserError(f"{path} is no whole safetensors file ({reason}).") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}).") from error
    metadata = header.pop("__metadata__", None)
    unknown = sorted({entry["dtype"] for entry in header.values()} - DTYPES.keys())
    if unknown:
        raise UserError(f"{path} holds tensors of dtype {unknown[0]}, which have no mean here. Convert them first.")
    return _File(path, header, metadata, mapped, 8 + length)


def _find_tied(files: Sequence[_File]) -> dict[str, str]:
    """Names that only some files hold, each with the name in all files that has equal bytes in every one of those."""
    everywhere = set.intersection(*(set(file.tensors) for file in files))
    tied: dict[str, str] = {}
    for name in dict.fromkeys(name for file in files for name in file.tensors if name not in everywhere):
        holders = [file for file in files if name in file.tensors]
        for other in (other for other in files[0].tensors if other in everywhere):
            if all(_have_equal_bytes(file, name, other) for file in holders):
                tied[name] = other
                break
    return tied


def _have_equal_bytes(file: _File, name: str, other: str) -> bool:
    if _form(file, name) != _form(file, other):
        return False
    return torch.equal(_bytes_of(file, name), _bytes_of(file, other))


def _refuse_other_forms(files: Sequence[_File], tied: dict[str, str]) -> None:
    """Raise where names, shapes or dtypes differ, tied names apart."""
    first = files[0]
    found: list[str] = []
    for file in files[1:]:
        mine, theirs = first.tensors.keys() - tied, file.tensors.keys() - tied
        found += [
            f"{name!r} is in {first.path} and not in {file.path}" for name in first.tensors if name in mine - theirs
        ]
        found += [
            f"{name!r} is in {file.path} and not in {first.path}" for name in file.tensors if name in theirs - mine
        ]
        found += [
            f"{name!r} is {_words(first, name)} in {first.path} and {_words(file, name)} in {file.path}"
            for name in first.tensors
            if name in mine & theirs and _form(first, name) != _form(file, name)
        ]
    if found:
        more = f"; and {len(found) - SHOWN_AT_MOST} more" if len(found) > SHOWN_AT_MOST else ""
        raise UserError(
            f"These {len(files)} files do not belong together: {'; '.join(found[:SHOWN_AT_MOST])}{more}. "
            "Average replicas of one model, with the same layers, sizes and dtypes."
        )


def _write(path: Path, header: dict[str, dict[str, Any]], files: Sequence[_File]) -> None:
    """Lay the file out, map it, and fill it tensor by tensor."""
    place = 0
    for entry in header.values():
        begin, end = entry["data_offsets"]
        entry["data_offsets"] = [place, place + end - begin]
        place += end - begin
    metadata = {} if files[0].metadata is None else {"__metadata__": files[0].metadata}
    text = json.dumps({**metadata, **header}, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    with path.open("w+b") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        out.truncate(8 + len(text) + place)
        out.flush()
        mapped = mmap.mmap(out.fileno(), 0)
        result = _File(path, header, None, mapped, 8 + len(text))
        for name in header:
            _average(name, files, result)
        mapped.flush()
        os.fsync(out.fileno())


def _average(name: str, files: Sequence[_File], result: _File) -> None:
    """Mean of one tensor into its place in the output."""
    values, out = [_values_of(file, name) for file in files], _values_of(result, name)
    if not out.numel():
        return
    if out.is_floating_point():
        try:
            mean_in_blocks(name, values, labels=[str(file.path) for file in files], out=out)
        except ValueError as error:
            raise UserError(f"{error} Nothing was written.") from error
    elif out.numel() == 1 and out.dtype != torch.bool:
        out.copy_(max(values, key=lambda value: value.item()))
    else:
        other = [file for file, value in zip(files, values, strict=True) if not torch.equal(value, values[0])]
        if other:
            raise UserError(
                f"{name!r} differs between {files[0].path} and {other[0].path}, and it has no mean: only floats are "
                "averaged, and of whole numbers only single counters have a rule (the largest). Nothing was written."
            )
        out.copy_(values[0])


def _values_of(file: _File, name: str) -> torch.Tensor:
    """One flat tensor over the mapped bytes of a name."""
    return _mapped(file, name, DTYPES[file.tensors[name]["dtype"]])


def _bytes_of(file: _File, name: str) -> torch.Tensor:
    return _mapped(file, name, torch.uint8)


def _mapped(file: _File, name: str, dtype: torch.dtype) -> torch.Tensor:
    begin, end = file.tensors[name]["data_offsets"]
    count = (end - begin) // dtype.itemsize
    if not count:
        return torch.empty(0, dtype=dtype)
    with warnings.catch_warnings():  # torch warns of every map that may only be read; nothing here writes to an input
        warnings.filterwarnings("ignore", message="The given buffer is not writable", category=UserWarning)
        return torch.frombuffer(file.mapped, dtype=dtype, count=count, offset=file.begin + begin)


def _form(file: _File, name: str) -> tuple[str, list[int]]:
    entry = file.tensors[name]
    return entry["dtype"], entry["shape"]


def _words(file: _File, name: str) -> str:
    entry = file.tensors[name]
    return f"{entry['dtype']} of shape {tuple(entry['shape'])}"
