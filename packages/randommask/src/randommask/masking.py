"""Span masking of k-mer tokens: draw centres, spread each to a window, replace what is masked.

    centre[b, c]  = maskable[b, c] and u1 < p
    masked[b, i]  = maskable[b, i] and some centre c of the row has  c - L <= i <= c + R,   L = (w - 1) // 2,  R = w // 2
    on masked:      80 % [MASK], 10 % a random k-mer, 10 % unchanged;   labels = ids there, -100 elsewhere

Windows are cut at the row's ends, never moved; they join (union); what is not maskable (specials, padding, [UNK]) is
passed over, neither stopping nor stretching a window. Even widths lean right.

Source    the window is Algorithm 1 of RandomMask (arXiv 2310.07644) as restated in its reviews; for every known width it
          is DNABERT's MASK_LIST too. Ours: random ids from k-mers only (DNABERT: specials too), [UNK] never a target,
          a window stays in its segment of a packed row, an own width for each centre.
Letters   N sequences, T tokens, M masked tokens, w width in tokens, p probability that a token is a centre.
Cost      centres are drawn as geometric gaps, the other two draws for masked tokens only: the same law as dense draws
          at a tenth of the numbers. On an accelerator the draws are dense, so that nothing waits for the device.
"""

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy
import torch
from torch import Tensor

IGNORED: Final = -100  # torch's cross-entropy leaves this label out


class RandomMasked(NamedTuple):
    """Masked `inputs` Int64[N T] and `labels` Int64[N T], -100 where nothing is to be predicted."""

    inputs: Tensor
    labels: Tensor


class MaskedTokens(NamedTuple):
    """`RandomMasked`, and the masked places as flat row-major positions Int64[M]."""

    inputs: Tensor
    labels: Tensor
    positions: Tensor


def random_mask(
    input_ids: Tensor,
    *,
    width: int | Sequence[int],
    probability: float,
    maskable: Tensor,
    vocabulary: range,
    mask_id: int,
    generator: torch.Generator,
    segments: Tensor | None = None,
    mask_share: float = 0.8,
    random_share: float = 0.1,
    dense: bool | None = None,
) -> RandomMasked:
    """Mask spans of tokens, by the rule of this module's first lines.

    Args:
        input_ids: Int64[N T], not modified.
        width: tokens a window, at least 1; or several, of which each centre draws one uniformly.
        probability: chance of each maskable token to be a centre, 0 to 1.
        maskable: Bool[N T], false at specials, padding and [UNK].
        vocabulary: ids that a random replacement is drawn from, `range(5, 4101)` for 6-mers.
        mask_id: id of [MASK].
        generator: source of all draws, on the device of `input_ids`.
        segments: Int64[N T] for packed rows: a window stays where the number is that of its centre. None: one a row.
        mask_share: share of the masked tokens that show [MASK].
        random_share: share that shows a random id of `vocabulary`; the rest stays as it is.
        dense: draw for every token (needs no host read; the default on accelerators) or by gaps (default on the CPU). Same
            law, other draws.

    Returns:
        `inputs, labels`, both Int64[N T].

    Raises:
        ValueError: a value out of range, or shapes or dtypes that do not fit; the value is named.
    """
    width = _checked_width(width)
    _check(input_ids, maskable, segments=segments, probability=probability, shares=(mask_share, random_share))
    if dense is None:
        dense = input_ids.device.type != "cpu"
    if not dense:
        return RandomMasked(
            *mask_tokens(
                input_ids,
                width=width,
                probability=probability,
                maskable=maskable,
                vocabulary=vocabulary,
                mask_id=mask_id,
                generator=generator,
                segments=segments,
                mask_share=mask_share,
                random_share=random_share,
            )[:2]
        )
    shape, device = input_ids.shape, input_ids.device
    centres = torch.rand(shape, generator=generator, device=device) < probability
    masked = spread(centres & maskable, width, maskable=maskable, segments=segments, generator=generator)
    choice = torch.rand(shape, generator=generator, device=device)
    random_ids = torch.randint(vocabulary.start, vocabulary.stop, shape, generator=generator, device=device)
    shown = torch.where(choice < mask_share + random_share, random_ids, input_ids).masked_fill_(
        choice < mask_share, mask_id
    )
    # masked_fill, not torch.where with a bare number, which would be copied to the device and waited for
    return RandomMasked(torch.where(masked, shown, input_ids), input_ids.masked_fill(~masked, IGNORED))


def mask_tokens(
    input_ids: Tensor,
    *,
    width: int | Sequence[int],
    probability: float,
    maskable: Tensor,
    vocabulary: range,
    mask_id: int,
    generator: torch.Generator,
    segments: Tensor | None = None,
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> MaskedTokens:
    """`random_mask` on the CPU by gaps, which also hands out the masked positions. Arguments are not checked."""
    allowed = maskable.numpy()
    places = centre_places(allowed.size, probability, generator=generator)
    places = places[allowed.reshape(-1)[places]]
    if isinstance(width, int) and segments is None:
        masked = _painted(places, width, shape=allowed.shape) & allowed
    else:
        centres = torch.from_numpy(_flags(places, allowed.size)).view(maskable.shape)
        masked = spread(centres, width, maskable=maskable, segments=segments, generator=generator).numpy()
    positions = masked.reshape(-1).nonzero()[0]  # numpy from here: its small steps are quicker, this one three times
    choice = torch.rand(positions.size, generator=generator).numpy()
    inputs = input_ids.numpy().reshape(-1)
    targets = inputs[positions]
    # A fifth at most shows no [MASK]: random ids are drawn for those of them alone that need one.
    others = (choice >= mask_share).nonzero()[0]
    is_random = choice[others] < mask_share + random_share
    shown = targets[others]
    count = int(numpy.count_nonzero(is_random))
    shown[is_random] = torch.randint(vocabulary.start, vocabulary.stop, (count,), generator=generator).numpy()
    inputs = inputs.copy()
    inputs[positions] = mask_id
    inputs[positions[others]] = shown
    labels = numpy.empty_like(inputs)
    labels.fill(IGNORED)
    labels[positions] = targets
    shape = input_ids.shape
    return MaskedTokens(
        torch.from_numpy(inputs).view(shape), torch.from_numpy(labels).view(shape), torch.from_numpy(positions)
    )


def draw_centres(shape: tuple[int, ...], probability: float, *, generator: torch.Generator) -> Tensor:
    """Bool of `shape` on the CPU, true with `probability` independently at each place; see `centre_places`."""
    size = math.prod(shape)
    return torch.from_numpy(_flags(centre_places(size, probability, generator=generator), size)).view(shape)


def centre_places(size: int, probability: float, *, generator: torch.Generator) -> numpy.ndarray:
    """Places Int64[C] below `size`, ascending, each there with `probability`, drawn as the gaps between them.

    The gap to the next place is 1 + floor(log(1 - u) / log(1 - p)); a fixed number of gaps is drawn, and more only if they end
    early.
    """
    if probability <= 0 or not size:
        return numpy.empty(0, dtype=numpy.int64)
    if probability >= 1:
        return numpy.arange(size, dtype=numpy.int64)
    mean = size * probability
    draws = int(mean + 10 * math.sqrt(mean) + 10)
    scale, last, found = 1 / math.log1p(-probability), -1, list[numpy.ndarray]()
    while last < size - 1:
        gaps = torch.rand(draws, generator=generator, dtype=torch.float64).numpy()
        numpy.subtract(1, gaps, out=gaps)  # exact, and log is quicker than log1p
        numpy.log(gaps, out=gaps)
        numpy.multiply(gaps, scale, out=gaps)
        numpy.minimum(gaps, size, out=gaps)  # a huge gap must not overflow
        places = gaps.astype(numpy.int64)
        places += 1
        places[0] += last
        numpy.cumsum(places, out=places)
        last = int(places[-1])
        found.append(places if last < size else places[: places.searchsorted(size)])
    return found[0] if len(found) == 1 else numpy.concatenate(found)


def _flags(places: numpy.ndarray, size: int) -> numpy.ndarray:
    flags = numpy.zeros(size, dtype=numpy.bool_)
    flags[places] = True
    return flags


def _painted(places: numpy.ndarray, width: int, *, shape: tuple[int, ...]) -> numpy.ndarray:
    """Union of the windows around the flat places of centres, not yet confined to what is maskable: Bool of `shape`."""
    rows, length = shape
    # One flat row: the gap between rows is as long as a window reaches, so that no window touches the next row.
    stride = length + width - 1
    begins = places // max(length, 1)
    begins *= width - 1
    begins += places
    begins += width // 2
    window = grown(_flags(begins, rows * stride + width - 1), width)
    return window.reshape(rows, stride)[:, :length]


def grown(flags: Any, width: int) -> Any:
    """Bool[L - w + 1] of Bool[L], numpy or torch: does a flag lie among the w places from here on? By doubling."""
    window, reach = flags, 1
    while 2 * reach <= width:
        window = window[:-reach] | window[reach:]
        reach *= 2
    rest = width - reach
    return window[:-rest] | window[rest:] if rest else window


def spread(
    centres: Tensor,
    width: int | Sequence[int],
    *,
    maskable: Tensor,
    segments: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Union of the windows around the centres, on maskable places: Bool[N T] -> Bool[N T].

    Args:
        centres: Bool[N T].
        width: tokens a window; if several, each centre draws its own from `generator`.
        maskable: Bool[N T].
        segments: Int64[N T] or None; see `random_mask`.
        generator: needed for several widths only.
    """
    if isinstance(width, int):
        return _windows(centres, width, segments=segments) & maskable
    drawn = torch.randint(len(width), centres.shape, generator=generator, device=centres.device)
    masked = torch.zeros_like(centres)
    for index, one in enumerate(width):
        masked |= _windows(centres & (drawn == index), one, segments=segments)
    return masked.logical_and_(maskable)


def _windows(centres: Tensor, width: int, *, segments: Tensor | None) -> Tensor:
    left, right = (width - 1) // 2, width // 2
    rows, length = centres.shape
    padded = centres.new_zeros((rows, length + left + right))
    padded[:, right : right + length] = centres
    if segments is not None:
        return _windows_in_segments(padded, centres, segments, left=left, right=right)
    # One flat row: the padding between rows is as long as a window reaches.
    return grown(padded.view(-1), width).as_strided((rows, length), (padded.shape[1], 1))


def _windows_in_segments(padded: Tensor, centres: Tensor, segments: Tensor, *, left: int, right: int) -> Tensor:
    length = centres.shape[1]
    numbers = segments.new_full(padded.shape, torch.iinfo(segments.dtype).min)
    numbers[:, right : right + length] = segments
    masked = torch.zeros_like(centres)
    for start in range(left + right + 1):
        masked |= padded[:, start : start + length] & (numbers[:, start : start + length] == segments)
    return masked


def _checked_width(width: int | Sequence[int]) -> int | Sequence[int]:
    widths = [width] if isinstance(width, int) else list(width)
    if not widths or any(not isinstance(one, int) or isinstance(one, bool) or one < 1 for one in widths):
        raise ValueError(
            f"width is {width!r}, but a window has at least 1 token. Give an integer, or several to draw from."
        )
    return width if isinstance(width, int) else widths


def _check(
    input_ids: Tensor, maskable: Tensor, *, segments: Tensor | None, probability: float, shares: tuple[float, float]
) -> None:
    if input_ids.ndim != 2 or input_ids.dtype != torch.int64:
        raise ValueError(f"input_ids must be Int64[N T], not {input_ids.dtype} of shape {tuple(input_ids.shape)}.")
    if maskable.shape != input_ids.shape or maskable.dtype != torch.bool:
        raise ValueError(
            f"maskable must be Bool of input_ids' shape {tuple(input_ids.shape)}, not {maskable.dtype} of shape "
            f"{tuple(maskable.shape)}."
        )
    if segments is not None and segments.shape != input_ids.shape:
        raise ValueError(
            f"segments has shape {tuple(segments.shape)}, input_ids has {tuple(input_ids.shape)}; they must agree."
        )
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is {probability!r}, but it must be between 0 and 1.")
    if min(shares) < 0 or sum(shares) > 1 + 1e-9:
        raise ValueError(
            f"mask_share and random_share are {shares[0]} and {shares[1]}; neither below 0, together at most 1."
        )
