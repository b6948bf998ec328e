"""What is read out of a compiled program's text, on small texts and on programs compiled for eight devices."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from toontalker_jax.training import footprint
from toontalker_jax.training.chips import CHIPS
from toontalker_jax.training.footprint import Collective, Memory, collective_bytes, collectives
from toontalker_jax.training.sharding import make_mesh


def program(*body, before=""):
    """The text of a program for four devices with these instructions."""
    lines = "\n".join(f"  {line}" for line in body)
    return f"HloModule m, num_partitions=4\n\n{before}\nENTRY %main (x: f32[8]) -> f32[8] {{\n{lines}\n}}\n"


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1},{2,3}}", 2),
        ("[1,4]<=[4]", 4),
        ("[2,2]<=[2,2]T(1,0)", 2),
        ("mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}", 2),
        ("mesh['a'=2,'b'=2] {'a','b'}", 4),
        ("mesh['a'=4] {'a':(1)2}", 2),
        ("{}", 4),
    ],
)
def test_how_many_devices_take_part(groups, size):
    line = f"%r = f32[8]{{0}} all-reduce(%x), channel_id=1, replica_groups={groups}, to_apply=%add"
    assert collectives(program(line)) == [Collective("all-reduce", 32, size, 1)]


@pytest.mark.parametrize(
    ("line", "operation", "size"),
    [
        ("%r = (f32[8]{0:T(128)}, /*index=1*/bf16[2,3]{1,0}, pred[]) all-reduce(%x, %y)", "all-reduce", 32 + 12 + 1),
        ("ROOT %r = f32[8]{0} all-gather(%x), dimensions={0}", "all-gather", 32),
        ("%r = (f32[2]{0}, f32[8]{0}) all-gather-start(%x), dimensions={0}", "all-gather", 32),
        ("%r = ((f32[2], s8[1]), (f32[8], s8[4])) all-gather-start(%x, %y)", "all-gather", 36),
        ("%r = f32[8]{0} all-reduce-start(%x)", "all-reduce", 32),
        ("%r = f32[2]{0} reduce-scatter(%x), dimensions={0}, to_apply=%add", "reduce-scatter", 32),
        ("%r = f32[4,2]{1,0} all-to-all(%x), dimensions={0}", "all-to-all", 32),
        ("%r = f32[8] collective-permute(%x), source_target_pairs={{0,1},{1,0}}", "collective-permute", 32),
        ("%r = (f32[8], f32[8], u32[], u32[]) collective-permute-start(%x)", "collective-permute", 32),
    ],
)
def test_what_an_instruction_counts(line, operation, size):
    done = "%d = f32[8] all-gather-done(%r)\n  %o = f32[8] fusion(%all-reduce.1), kind=kLoop"
    assert collective_bytes(program(line + ", replica_groups=[1,4]<=[4]", done)) == {operation: size}


REDUCTION = "%r = f32[8] all-reduce(%x), replica_groups=[1,4]<=[4]"
CALLED = f"%body (p: f32[8]) -> f32[8] {{\n  {REDUCTION}\n}}\n"


@pytest.mark.parametrize(
    ("line", "condition", "times"),
    [
        ('%w = f32[8] while(%x), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}', "", 5),
        ("%w = f32[8] while(%x), condition=%c, body=%body", "%k = s32[]{:T(128)} constant(3)", 3),
        ("%w = f32[8] while(%x), condition=%c, body=%body", "%k = f32[] constant(3)", 1),
        ("%w = f32[8] conditional(%p, %x, %x), branch_computations={%other, %body}", "", 1),
        ("%a = f32[8] call(%x), to_apply=%body\n  %b = f32[8] call(%x), to_apply=%body", "", 2),
        ("%a = f32[8] async-start(%x), calls=%body\n  %b = f32[8] async-done(%a), calls=%body", "", 1),
        ("%a = f32[8] add(%x, %x)", "", 0),
    ],
)
def test_what_is_called_counts_as_often_as_it_runs(line, condition, times):
    compare = f"%c (p: f32[8]) -> pred[] {{\n  {condition}\n  ROOT %l = pred[] compare(%i, %k), direction=LT\n}}\n"
    assert collective_bytes(program(line, before=CALLED + compare)) == ({"all-reduce": 32 * times} if times else {})


def test_a_reduction_fused_with_slicing_is_a_reduce_scatter():
    fused = CALLED.replace("%body", "%all-reduce-scatter.1")
    text = program("%f = f32[2] fusion(%x), kind=kCustom, calls=%all-reduce-scatter.1", before=fused)
    assert collectives(text) == [Collective("reduce-scatter", 32, 4, 1)]


def test_a_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("module @jit_step {}")


def test_rings():
    assert Collective("all-reduce", 800, 4, 1).sent == 2 * 600  # each share travels round once to add up, once to tell
    assert Collective("all-gather", 800, 4, 3).sent == 3 * 600
    assert Collective("collective-permute", 800, 4, 1).sent == 800
    assert Collective("all-reduce", 800, 1, 1).sent == 0


def test_a_compiled_program_on_eight_devices():
    mesh = make_mesh(4)

    def exchange(x):  # [4, 8] on each device
        def turn(total, _):
            return jax.lax.psum(total, "fsdp") / 4, None

        rows = jax.lax.scan(turn, x, length=3)[0]
        gathered = jax.lax.all_gather(x, ("data", "fsdp"), axis=0, tiled=True)
        scattered = jax.lax.psum_scatter(x.astype(jnp.int32), "fsdp", scatter_dimension=0, tiled=True)
        swapped = jax.lax.all_to_all(x.astype(jnp.float16), "fsdp", split_axis=0, concat_axis=0, tiled=True)
        passed = jax.lax.ppermute(x[:1], "data", [(0, 1), (1, 0)])
        return rows.sum() + gathered.sum() + scattered.sum() + swapped.astype(jnp.float32).sum() + passed.sum()

    spec = PartitionSpec(("data", "fsdp"))
    function = jax.shard_map(exchange, mesh=mesh, in_specs=spec, out_specs=PartitionSpec(), check_vma=False)
    compiled = jax.jit(function).lower(jax.ShapeDtypeStruct((32, 8), np.float32)).compile()
    found = collectives(compiled.as_text())
    assert {(c.operation, c.group, c.times) for c in found} == {
        ("all-reduce", 4, 3),
        ("all-gather", 8, 1),
        ("reduce-scatter", 4, 1),
        ("all-to-all", 4, 1),
        ("collective-permute", 2, 1),
    }
    one = 4 * 8 * 4  # bytes of a device's part
    sizes = {"all-reduce": 3 * one, "all-gather": 8 * one, "reduce-scatter": one, "collective-permute": one // 4}
    assert collective_bytes(compiled.as_text()) == sizes | {"all-to-all": one // 2}


def test_memory_counts_what_is_donated_once():
    argument = jax.ShapeDtypeStruct((1024,), np.float32)
    kept, donated = (
        footprint.memory(jax.jit(lambda x: x * 2, donate_argnums=numbers).lower(argument).compile())
        for numbers in ((), (0,))
    )
    assert (kept.arguments, kept.outputs) == (donated.arguments, donated.outputs + 4096) == (4096, 4096)
    assert Memory(1, 2, 3, 4).total == 10


def test_the_least_traffic_reads_and_writes_temporaries():
    stats = SimpleNamespace(argument_size_in_bytes=100, output_size_in_bytes=20, temp_size_in_bytes=3)
    assert footprint.least_traffic(SimpleNamespace(memory_analysis=lambda: stats)) == 126


def test_times_are_each_at_the_published_rate():
    times = footprint.times(197e12, 819e9 / 2, 200e9 / 4, CHIPS["v5e"])
    assert times == (1.0, 0.5, 0.25)
    assert times.roofline == 1.0
