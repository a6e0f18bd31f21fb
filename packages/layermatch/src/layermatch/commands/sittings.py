"""How long a run took over all its sittings, in `sittings.json`: seconds, one number for each time that it was started.

The file is apart from the checkpoints, which hold the same bits however often a run was stopped. What a sitting did after
its last checkpoint is computed again by the next one, and is counted there alone.
"""

import time

from scarce_common_utils.errors import UserError
from scarce_common_utils.run_folder import RunFolder

NAME = "sittings.json"


class Sittings:
    """Seconds of the earlier sittings, and the clock of this one.

    Args:
        run: the run; nothing is written here.
        began: `time.monotonic()` when this sitting began.
    """

    def __init__(self, run: RunFolder, *, began: float) -> None:
        self._run, self._began = run, began
        self._earlier: list[float] = []
        if (run.path / NAME).is_file():
            found = run.read_json(NAME)
            if not isinstance(found, list) or not all(isinstance(seconds, int | float) for seconds in found):
                raise UserError(
                    f"{run.path / NAME} holds no list of seconds. Remove it; only the time of earlier sittings is lost."
                )
            self._earlier = [float(seconds) for seconds in found]

    def write(self) -> float:
        """Write the seconds up to now, and return the sum over all sittings."""
        sittings = [*self._earlier, round(time.monotonic() - self._began, 3)]
        self._run.write_json(NAME, sittings)
        return sum(sittings)
