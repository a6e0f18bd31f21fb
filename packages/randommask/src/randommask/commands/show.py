"""`randommask show RUN RUN ...`: runs side by side."""

from typing import Any

from scarce_common_utils.run_table import ShowConfig, compare


def show(config: ShowConfig) -> dict[str, Any]:
    """Compare runs in a table: state, the options that differ, the numbers of their results."""
    return compare(config, package="randommask")
