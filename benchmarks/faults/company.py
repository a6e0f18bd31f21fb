"""One command in several gloo processes, each a child; they meet at a store of this process, so that no port can be taken between."""

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]  (documented there)

from faults.bench import Bench
from faults.children import Child, Ended, Fault


class Company:
    """`processes` children that run the same words; `fault(rank)` gives what is put into one of them, if anything."""

    def __init__(
        self,
        bench: Bench,
        words: Sequence[str],
        *,
        processes: int,
        fault: Callable[[int], Fault | None] = lambda rank: None,
    ) -> None:
        self._store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.children: list[Child] = [
            bench.start(words, fault=partial(join, rank, processes, self._store.port, fault(rank)))
            for rank in range(processes)
        ]

    def wait(self, *of: int) -> list[Ended]:
        """How some of them ended, by rank; all, where none is named."""
        return [self.children[rank].wait() for rank in of or range(len(self.children))]


def join(rank: int, processes: int, port: int, then: Fault | None) -> None:
    """In the child: the environment that torchrun gives, whose agent's store is here the suite's."""
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    if sys.platform == "linux":
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if then is not None:
        then()
