"""Which official tensor is which of our parameters, and how its layout differs (`reference.md`, names and roles).

One official state dict is one domain's network. Both directions of the conversion read this table.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from toontalker_jax.models.config import ModelConfig


class Entry(NamedTuple):
    """One of our parameters and where its values stand in the official file."""

    official: str  # name in the state dict
    path: str  # our parameter, "/"-joined
    layout: str  # a key of LAYOUTS
    part: int | None = None  # third of torch's packed [q; k; v] along axis 0


# layout → (official array to ours, ours to the official array)
LAYOUTS = {
    "same": (lambda a: a, lambda a: a),
    "linear": (lambda a: a.T, lambda a: a.T),  # [out, in] ↔ [in, out]
    "conv": (lambda a: a.transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)),  # OIHW ↔ HWIO
    "modulated": (lambda a: a[0].transpose(2, 3, 1, 0), lambda a: a.transpose(3, 2, 0, 1)[None]),
    "channels": (lambda a: a.reshape(-1), lambda a: a.reshape(1, -1, 1, 1)),  # [1, C, 1, 1] ↔ [C]
    "constant": (lambda a: a[0].transpose(1, 2, 0), lambda a: a.transpose(2, 0, 1)[None]),  # [1, C, 4, 4] ↔ [4, 4, C]
}

# Our shared query transformers; in a cross-domain file they are read from the real domain's network only.
QUERIES = {"source_query": "dec.transformerlayer_0", "driving_query": "dec.transformerlayer_1"}


def domain_table(config: ModelConfig, domain: str) -> list[Entry]:
    """Every entry of one domain's own parameters: all but the query transformers."""
    prefix = f"domains/{domain}"
    return [entry._replace(path=f"{prefix}/{entry.path}") for entry in _domain(config)]


def query_table() -> list[Entry]:
    """The entries of the two query transformers."""
    return [entry for ours, theirs in QUERIES.items() for entry in _transformer(theirs, ours)]


def blur_kernels(config: ModelConfig) -> dict[str, float]:
    """{name: gain} of the state dict's constants: each is gain · outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64."""
    names = {}
    for encoder in ("enc", "enc2"):
        for i in range(1, config.stages + 1):
            names |= {f"{encoder}.convs.{i}.conv2.0.kernel": 1.0, f"{encoder}.convs.{i}.skip.0.kernel": 1.0}
    for j in range(config.stages):
        names[f"dec.convs.{2 * j}.conv.blur.kernel"] = 4.0
        names |= {f"dec.to_rgbs.{j}.upsample.kernel": 4.0, f"dec.to_flows.{j}.upsample.kernel": 4.0}
    return names


def read(entry: Entry, official: np.ndarray) -> np.ndarray:
    """The values of our parameter from the official array."""
    if entry.part is not None:
        third = official.shape[0] // 3
        official = official[entry.part * third : (entry.part + 1) * third]
    return LAYOUTS[entry.layout][0](official)


def _domain(config: ModelConfig) -> Iterator[Entry]:
    yield from _encoder(config, "enc.convs", "appearance_encoder")
    yield from _encoder(config, "enc2.convs", "motion_encoder/pyramid")
    yield Entry(f"enc2.convs.{config.stages + 1}.weight", "motion_encoder/last/kernel", "conv")
    yield Entry("dec.direction.weight", "motion_base", "same")
    for ours, theirs in {"coarse": "", "middle": "_t", "fine": "_f"}.items():
        yield from _transformer(f"dec.transformerlayer{theirs}", f"backward_transformer/{ours}")
    yield from _plain("dec.latlayer1", "backward_transformer/lateral", "conv")
    yield from _plain("dec.mlp", "to_styles", "linear")
    yield from _generator(config)


def _generator(config: ModelConfig) -> Iterator[Entry]:
    yield Entry("dec.input.input", "generator/constant", "constant")
    yield from _styled("dec.conv1", "generator/first")
    sft = 0
    for j in range(config.stages):
        stage = f"generator/stages/{j}"
        yield from _styled(f"dec.convs.{2 * j}", f"{stage}/up")
        yield from _styled(f"dec.convs.{2 * j + 1}", f"{stage}/same")
        yield from _modulated(f"dec.to_flows.{j}.conv", f"{stage}/to_flow/conv")
        yield Entry(f"dec.to_flows.{j}.bias", f"{stage}/to_flow/bias", "channels")
        yield Entry(f"dec.to_rgbs.{j}.conv.0.weight", f"{stage}/to_rgb/conv/conv/kernel", "conv")
        yield Entry(f"dec.to_rgbs.{j}.conv.1.bias", f"{stage}/to_rgb/conv/bias", "channels")
        yield Entry(f"dec.to_rgbs.{j}.bias", f"{stage}/to_rgb/bias", "channels")
        if config.has_sft(8 << j):
            for part in ("scale", "shift"):
                yield from _styled(f"dec.sft.{sft}.{part}1", f"{stage}/sft/{part}1")
                yield from _plain(f"dec.sft.{sft}.{part}2", f"{stage}/sft/{part}2", "conv")
            sft += 1


def _encoder(config: ModelConfig, theirs: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.0.0.weight", f"{ours}/first/conv/kernel", "conv")
    yield Entry(f"{theirs}.0.1.bias", f"{ours}/first/bias", "channels")
    for i in range(config.stages):
        block, ours_block = f"{theirs}.{i + 1}", f"{ours}/blocks/{i}"
        yield Entry(f"{block}.conv1.0.weight", f"{ours_block}/conv1/conv/kernel", "conv")
        yield Entry(f"{block}.conv1.1.bias", f"{ours_block}/conv1/bias", "channels")
        yield Entry(f"{block}.conv2.1.weight", f"{ours_block}/conv2/conv/kernel", "conv")
        yield Entry(f"{block}.conv2.2.bias", f"{ours_block}/conv2/bias", "channels")
        yield Entry(f"{block}.skip.1.weight", f"{ours_block}/skip/kernel", "conv")


def _modulated(theirs: str, ours: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.weight", f"{ours}/kernel", "modulated")
    yield Entry(f"{theirs}.modulation.weight", f"{ours}/modulation/kernel", "linear")
    yield Entry(f"{theirs}.modulation.bias", f"{ours}/modulation/bias", "same")


def _styled(theirs: str, ours: str) -> Iterator[Entry]:
    yield from _modulated(f"{theirs}.conv", f"{ours}/conv")
    yield Entry(f"{theirs}.noise.weight", f"{ours}/noise_weight", "same")
    yield Entry(f"{theirs}.activate.bias", f"{ours}/bias", "channels")


def _plain(theirs: str, ours: str, layout: str) -> Iterator[Entry]:
    yield Entry(f"{theirs}.weight", f"{ours}/kernel", layout)
    yield Entry(f"{theirs}.bias", f"{ours}/bias", "same")


def _transformer(theirs: str, ours: str) -> Iterator[Entry]:
    for their_attention, attention in {"self_attn": "self_attention", "multihead_attn": "cross_attention"}.items():
        for part, name in enumerate(("query", "key", "value")):
            packed = f"{theirs}.{their_attention}.in_proj_"
            yield Entry(f"{packed}weight", f"{ours}/{attention}/{name}/kernel", "linear", part)
            yield Entry(f"{packed}bias", f"{ours}/{attention}/{name}/bias", "same", part)
        yield from _plain(f"{theirs}.{their_attention}.out_proj", f"{ours}/{attention}/out", "linear")
    for i in (1, 2):
        yield from _plain(f"{theirs}.linear{i}", f"{ours}/feed_forward{i}", "linear")
    for i in (1, 2, 3):
        yield Entry(f"{theirs}.norm{i}.weight", f"{ours}/norm{i}/scale", "same")
        yield Entry(f"{theirs}.norm{i}.bias", f"{ours}/norm{i}/bias", "same")
