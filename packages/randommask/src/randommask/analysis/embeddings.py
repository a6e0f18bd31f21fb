"""K-mer embeddings: how clearly the nearest neighbours of a k-mer are its relatives, and a picture of all of them.

    purity        share of the k-mers whose nearest neighbour by cosine (not itself) differs in exactly one base
                  chance, a neighbour drawn from the others at random: 3 k / (4^k - 1)            k = 6: 18 / 4095 = 0.44 %
    shift purity  share whose nearest neighbour is itself moved by one base, either way: u[1:] = v[:-1] or v[1:] = u[:-1]
                  chance: the mean number of such others over 4^k - 1                             k = 6: 7.995 / 4095 = 0.20 %
    distance      mean Hamming distance to the nearest neighbour, in bases
                  chance: 3 k / 4 x 4^k / (4^k - 1)                                               k = 6: 4.50

Source    RandomMask (arXiv 2310.07644) shows t-SNE pictures and says that with overlap the embeddings "become clear"; these numbers
          are ours. A picture is no evidence, the purity is. A structured start has a purity of 1 before the first step.
Letters   K = 4^k k-mers in the order of their ids, V = 5 + K vocabulary, D width of the states, C components.
"""

from typing import Any, Final, Literal, NamedTuple

import torch
from torch import Tensor

from randommask.kmers import FIRST_KMER, check_k
from scarce_common_utils.errors import UserError
from scarce_common_utils.streams import stream_seed

Picture = Literal["pca", "tsne"]
_BLOCK: Final = 1024  # k-mers compared with all others at a time


class Purity(NamedTuple):
    """What the nearest neighbours of all k-mers are: two shares between 0 and 1, and the mean distance in bases."""

    purity: float
    shift_purity: float
    distance: float


class Flat(NamedTuple):
    """All k-mers in a plane: `places` Float[K 2], and the `explained` share of the variance (PCA alone)."""

    places: Tensor
    explained: tuple[float, float] | None


def kmer_rows(words: Tensor, *, k: int) -> Tensor:
    """Float[K D]: the k-mers' rows of an embedding table Float[V D].

    Raises:
        ValueError: the table has not 5 + 4^k rows; both numbers are named.
    """
    rows = FIRST_KMER + 4 ** check_k(k)
    if words.ndim != 2 or words.shape[0] != rows:
        raise ValueError(f"The embedding table is of shape {tuple(words.shape)}, but k = {k} has {rows} rows.")
    return words[FIRST_KMER:]


def nearest_neighbours(embeddings: Tensor) -> Tensor:
    """Int64[K]: number of the row with the highest cosine, itself left out; of equals the first.

    Args:
        embeddings: Float[K D], K at least 2. A row of zeros has cosine 0 with every other.

    Raises:
        ValueError: fewer than two rows, or a number that is not finite.
    """
    if embeddings.ndim != 2 or embeddings.shape[0] < 2:
        raise ValueError(f"embeddings are of shape {tuple(embeddings.shape)}; at least two rows are compared.")
    if not bool(torch.isfinite(embeddings).all()):
        raise ValueError("The embeddings hold a value that is no finite number.")
    unit = torch.nn.functional.normalize(embeddings.detach().float(), dim=1)
    found = []
    for start in range(0, len(unit), _BLOCK):
        cosines = unit[start : start + _BLOCK] @ unit.T
        cosines.diagonal(start).fill_(-torch.inf)
        found.append(cosines.argmax(1))
    return torch.cat(found)


def neighbour_purity(embeddings: Tensor, *, k: int) -> Purity:
    """See the module.

    Args:
        embeddings: Float[K D] on any device, K = 4^k, in the order of the ids.
        k: bases a k-mer.

    Raises:
        ValueError: K is not 4^k; both are named.
    """
    if embeddings.shape[0] != 4 ** check_k(k):
        raise ValueError(f"embeddings have {embeddings.shape[0]} rows, but k = {k} has {4**k} k-mers.")
    nearest = nearest_neighbours(embeddings).cpu()
    own = torch.arange(4**k)
    distances = hamming_distances(own, nearest, k=k)
    shifted = _is_shifted(own, nearest, k=k)
    return Purity(
        float((distances == 1).double().mean()), float(shifted.double().mean()), float(distances.double().mean())
    )


def chance(k: int) -> Purity:
    """The same three numbers for a neighbour drawn uniformly from the other k-mers, exactly.

    Example:
        >>> [round(number, 4) for number in chance(6)]
        [0.0044, 0.002, 4.5011]
    """
    kmers, others = 4 ** check_k(k), 4**k - 1
    own = torch.arange(kmers)
    # The eight k-mers that a move by one base can give; some come twice or are the k-mer itself, and count once or not.
    moved = [own % (kmers // 4) * 4 + base for base in range(4)] + [own // 4 + base * (kmers // 4) for base in range(4)]
    ordered = torch.stack([own, *moved]).sort(dim=0).values
    shifts = (ordered[1:] != ordered[:-1]).sum()  # distinct ones, the k-mer itself not counted
    return Purity(3 * k / others, float(shifts) / kmers / others, 0.75 * k * kmers / others)


def hamming_distances(first: Tensor, second: Tensor, *, k: int) -> Tensor:
    """Int64[...]: in how many of their k bases two k-mers differ, given by their numbers (id - 5), Int64[...]."""
    differing = first ^ second
    return torch.stack([(differing >> (2 * place)) & 3 != 0 for place in range(k)]).sum(0)


def _is_shifted(first: Tensor, second: Tensor, *, k: int) -> Tensor:
    """Bool[...]: do the last k - 1 bases of one begin the other?"""
    shared = 4 ** (k - 1)
    return (first % shared == second // 4) | (second % shared == first // 4)


def flatten(embeddings: Tensor, *, picture: Picture = "pca") -> Flat:
    """All k-mers in a plane, for a picture.

    Args:
        embeddings: Float[K D], K at least 3.
        picture: `pca`: the two directions of largest variance, the largest entry of each made positive, so that pictures of one
            run can be compared; `tsne`: scikit-learn's t-SNE, begun from PCA, from `stream(0, "t-SNE")`.

    Raises:
        ValueError: an unknown picture, or too few rows or columns.
        UserError: scikit-learn is not installed.
    """
    if picture not in ("pca", "tsne"):
        raise ValueError(f"picture is {picture!r}; choose pca or tsne.")
    if embeddings.ndim != 2 or embeddings.shape[0] < 3 or embeddings.shape[1] < 2:
        raise ValueError(f"embeddings are of shape {tuple(embeddings.shape)}; a plane needs 3 rows and 2 columns.")
    centred = embeddings.detach().cpu().double()
    centred = centred - centred.mean(0)
    if picture == "tsne":
        return Flat(_tsne(centred), None)
    variances, directions = torch.linalg.eigh(centred.T @ centred)  # growing
    plane = directions[:, [-1, -2]]
    plane = plane * plane.gather(0, plane.abs().argmax(0, keepdim=True)).sign()
    shares = variances[[-1, -2]] / variances.sum().clamp(min=torch.finfo(torch.float64).tiny)
    return Flat(centred @ plane, (float(shares[0]), float(shares[1])))


def telling_place(places: Tensor, *, k: int) -> int:
    """Which base of the k-mers, from 0, a picture tells apart most: the largest variance between the means of its four letters.

    Args:
        places: Float[K 2], from `flatten`.
        k: bases a k-mer.
    """
    between = []
    for place in range(k):
        means = torch.stack([places[bases_at(place, k=k) == base].mean(0) for base in range(4)])
        between.append(float((means - places.mean(0)).square().sum()))
    return between.index(max(between))


def bases_at(place: int, *, k: int) -> Tensor:
    """Int64[K]: code of base `place`, from 0, of every k-mer: 0 A, 1 T, 2 C, 3 G."""
    return torch.arange(4**k) // 4 ** (k - 1 - place) % 4


def _tsne(centred: Tensor) -> Tensor:
    try:
        from sklearn.manifold import TSNE
    except ImportError as error:
        raise UserError("t-SNE needs scikit-learn: pip install scikit-learn. Or take --picture pca.") from error
    perplexity = min(30.0, (len(centred) - 1) / 3)
    drawn: Any = TSNE(perplexity=perplexity, init="pca", random_state=stream_seed(0, "t-SNE") % 2**32)
    return torch.from_numpy(drawn.fit_transform(centred.numpy()))
