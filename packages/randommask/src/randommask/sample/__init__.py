"""Real data that ship with the package; origin and licence stand in README.md beside this file."""

from importlib.resources import files
from pathlib import Path

GENOME = "human_chr22.fa.gz"
SPLICE_JUNCTIONS = "splice_junctions.csv.gz"


def sample_path(name: str) -> Path:
    """Path of a sample file, `GENOME` or `SPLICE_JUNCTIONS`."""
    return Path(str(files(__name__) / name))
