"""What a program on the CPU allocates is kept for its next call: counted in page faults."""

import os
import platform
import subprocess
import sys

import pytest

MEASURE = """
import resource, statistics
import jax, jax.numpy as jnp
from toontalker_jax.cpu import settle_for_cpu

{setting}
program = jax.jit(lambda a, b: a @ a.T @ b)  # 256 MiB of temporaries
a, b = jnp.ones((8192, 4)), jnp.ones((8192, 4))
faults = []
for _ in range(60):  # the heap grows by a few calls' temporaries first, where small pieces lie in between
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(a, b).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(statistics.median(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("setting", "kept"), [("", False), ("settle_for_cpu()", True), ("settle_for_cpu(training=True)", True)]
)
def test_temporaries_are_kept(setting, kept):
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    program = MEASURE.format(setting=setting)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert (float(done.stdout) < 1000) is kept
