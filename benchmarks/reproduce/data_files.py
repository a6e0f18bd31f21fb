"""The data files of the reproductions by their SHA-256; benchmarks/README.md says where each comes from."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from scarce_common_utils.errors import UserError

# Path below the folder of --data -> SHA-256. The table in benchmarks/README.md holds the same; a test compares them.
DIGESTS: dict[str, str] = {
    "genomes/human.fa.gz": "a2060a1f489ea84c4b37bf2a5d26d5672c825b62d85e78f435dfdb1c3635b151",
    "genomes/yeast.fa.gz": "346f9658f2a6946c09f44fda34c896e7e69aed0de67d5b769e785837a4e808c8",
    "gue/EMP/H3/dev.csv.gz": "b19f6cf43dfa95bf8404513453424377e3e546d512fd23ddfcbbb941b41ee444",
    "gue/EMP/H3/test.csv.gz": "f451c82328eb1d0c7ab4e2dd178c52154fcee8d2302d4dd55bfd8ae06d306049",
    "gue/mouse/0/dev.csv.gz": "bbe9c46bace3a44a9235d684caf58a672c8e482a418e6d968a05d181c68abd08",
    "gue/mouse/0/test.csv.gz": "11a241aaac8664988341c434f020f198ec966b81bec336ea9380b069d7d000b8",
    "gue/mouse/0/train.csv.gz": "922b29e35ab326046a3de9f2fe1cb8bca113c8da4ccc5335a8f621786ff309d7",
    "gue/mouse/2/dev.csv.gz": "f43adf5e2e6b1ae2dc72f1ab0634f3802a012006b87ded5b2063966e2af3e374",
    "gue/mouse/2/test.csv.gz": "f0764564a96a8a0255e0348fffaa5668d90c324dc2b6579c59a066e7ea226097",
    "gue/mouse/2/train.csv.gz": "7ad2bede70437392bc3fbce1feee0ab8e8c731a55551869ca1f0a90946d2b235",
    "gue/prom/prom_300_tata/dev.csv.gz": "1f9ce8fd48bbb4d1fa0c90e0497c961a8a47214870970f5be16c4a306a05a9e3",
    "gue/prom/prom_300_tata/test.csv.gz": "246797409018bece699149022eb0d46f406e241136c184ac0101990fe208e933",
    "gue/prom/prom_300_tata/train.csv.gz": "afa8209379908025db104dcc156c4f66738e84ebf7b9ae4aedc7facf30d4ee68",
    "gue/prom/prom_core_tata/dev.csv.gz": "935243052eb2090e6682a9fba5e3bec41a990986ea63e70b24461db004e3ea64",
    "gue/prom/prom_core_tata/test.csv.gz": "762a3d4e62143606cee1f564d8abb3e113366f296929a314098a8c21a66772b9",
    "gue/prom/prom_core_tata/train.csv.gz": "ca01d381ad548fa9ebabf0c8c6d26762dfbba679818cd049366510fd37fcf9e7",
    "gue/splice/reconstructed/dev.csv.gz": "8274ee51d4babec26386a385838018c52e93e1d20b7b449e92294732d8414598",
    "gue/splice/reconstructed/test.csv.gz": "c6f81abdb5274d836dcd0da6ba6065e28e93849ee034b4fa6e9859719b6989ae",
    "gue/tf/0/dev.csv.gz": "5a1e3c9100fc7b8898eea24d75d168308c58a8e29359e69ab6eef7a042552c94",
    "gue/tf/0/test.csv.gz": "968e39c560a80fca0305dae87c90908a1bc1782b2c36a8df779238f220995b0f",
    "gue/tf/0/train.csv.gz": "3a4fbd4650bdbf9622bad0e63c0c228aa4d75778945f5a472584b5dc55cd9366",
    "images/cifar10_test.parquet": "82d799f1bea355e14dff2bfe3e34214d5208482b57e2d35f65705ac6775c4de7",
    "images/cifar10_train.parquet": "4eff938d37d1190300761eae14158a0a213666fb0723d8603b9f97718c9eb6e0",
    "images/fashion_mnist.npz": "d86d1a8160c611eb371a7f16be9ceb2376159b2af973e2f0aac99adf0f78c6ea",
    "detection/bccd.tar": "0c3ff4278ca7a39e5dd78f712bf4ba06a1ac895f2e25a842829e7c977a67b910",
    "detection/raccoon.tar": "6bc23419060a890123c547a54ed86c5971703d1f843d9d0a0db528b4c5cf982c",
}


def missing_files(folder: Path | None, files: Iterable[str]) -> list[str]:
    """Those of the files that the folder does not hold; all of them without a folder."""
    return sorted({file for file in files if folder is None or not (folder / file).is_file()})


def differing_files(folder: Path, files: Iterable[str]) -> list[str]:
    """Those of the files whose SHA-256 is not the listed one.

    Raises:
        UserError: a file cannot be read.
        ValueError: a file is not listed.
    """
    found = []
    for file in sorted(set(files)):
        if file not in DIGESTS:
            raise ValueError(
                f"{file} has no SHA-256 in reproduce/data_files.py; add it there and in benchmarks/README.md."
            )
        try:
            with (folder / file).open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"{folder / file} cannot be read ({error}).") from error
        if digest != DIGESTS[file]:
            found.append(file)
    return found
