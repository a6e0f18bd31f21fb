"""Random streams with names: the same generator on every machine, whatever else was drawn before.

A stream is keyed by a seed and any number of names, for example `stream(0, "replica", 2)` or
`stream(0, "weak", step)`. The key is hashed (SHA-256 over an unambiguous text form), so neighbouring
seeds and neighbouring steps share nothing, and adding a stream moves no other.
"""

import hashlib

import torch


def stream_seed(seed: int, *names: str | int) -> int:
    """Integer in [0, 2**63) for the stream named `names` of `seed`, for libraries that want an integer.

    Args:
        seed: the run's seed, any integer.
        *names: strings and integers; `1` and `"1"` are different names.

    Raises:
        TypeError: the seed is not an integer, or a name is neither a string nor an integer; the value is named.
    """
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"A stream's seed must be an integer, not {seed!r}.")
    digest = hashlib.sha256(f"i{seed}".encode())
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise TypeError(f"A stream's names must be strings or integers, not {name!r}.")
        part = (f"i{name}" if isinstance(name, int) else f"s{name}").encode()
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest()[:8], "little") >> 1


def stream(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """Fresh `torch.Generator` at the start of the stream named `names` of `seed`.

    Args:
        seed: the run's seed, any integer.
        *names: strings and integers that name the stream.
        device: where the generator draws. Draws of a CPU generator are the same bits on every machine; those of
            a CUDA generator are the same on every CUDA device, and differ from the CPU's.

    Example:
        >>> first = torch.rand(2, generator=stream(0, "replica", 2))
        >>> bool((first == torch.rand(2, generator=stream(0, "replica", 2))).all())
        True
    """
    return torch.Generator(device=device).manual_seed(stream_seed(seed, *names))
