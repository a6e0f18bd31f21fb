"""Leaving a process group: everybody waits for the slowest; alone there is nothing to wait for."""

import subprocess
import sys

import pytest
import torch.distributed as dist

from scarce_common_utils.process_group import leave_together

CODE = """
import sys, time
from pathlib import Path
import torch.distributed as dist
from scarce_common_utils.process_group import leave_together
rank, folder = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
if rank == 0:
    time.sleep(1)
    (folder / "written").touch()
leave_together()
assert (folder / "written").exists()
dist.destroy_process_group()
"""


@pytest.mark.skipif(not dist.is_available() or sys.platform == "win32", reason="this torch was built without gloo")
def test_the_others_wait_for_the_one_that_still_writes(tmp_path):
    words = [[sys.executable, "-c", CODE, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(word, stderr=subprocess.PIPE, text=True) for word in words]
    said = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said


def test_without_a_group_nothing_is_waited_for():
    leave_together()
