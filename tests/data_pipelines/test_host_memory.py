"""Freed memory that is kept is not cleared again by the system: counted in page faults."""

import platform
import subprocess
import sys

import pytest

MEASURE = """
import concurrent.futures, resource, sys
import numpy as np
from data_pipelines.host_memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones({mib} * 2**17)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

{setting}
with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first, second = (pool.submit(faults).result() for _ in range(2))
print(second / first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("setting", "mib", "kept"),
    [
        ("", 48, False),
        ("keep_freed_memory()", 48, True),
        ("keep_freed_memory()", 256, False),
        ("keep_freed_memory(whole=True)", 256, True),
        ("keep_freed_memory(whole=True); keep_freed_memory()", 256, True),  # a loader after a network
    ],
)
def test_freed_memory_is_kept(setting, mib, kept):
    program = MEASURE.format(setting=setting, mib=mib)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (float(done.stdout) < 0.1) is kept
