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
    first, second = (pool.submit(faults).result() if {pooled} else faults() for _ in range(2))
print(second / first)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("setting", "pooled", "mib", "kept"),
    [
        ("", True, 48, False),
        ("keep_freed_memory()", True, 48, True),
        ("keep_freed_memory()", False, 256, False),
        ("keep_freed_memory('main thread')", False, 256, True),
        ("keep_freed_memory('main thread')", True, 256, False),
        ("keep_freed_memory('all threads')", True, 256, True),
        ("keep_freed_memory('all threads'); keep_freed_memory()", True, 256, True),  # a loader after a network
    ],
)
def test_freed_memory_is_kept(setting, pooled, mib, kept):
    program = MEASURE.format(setting=setting, pooled=pooled, mib=mib)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (float(done.stdout) < 0.1) is kept
