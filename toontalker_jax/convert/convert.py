"""Official checkpoints → our network, and back. A ledger accounts for every tensor and every parameter.

`convert` takes what `torch_file.open_torch_file` returned, `export` makes what `torch_writer.write_torch_file` takes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from toontalker_jax.convert import names
from toontalker_jax.models.config import ModelConfig
from toontalker_jax.models.toontalker import ToonTalker, abstract_network

# Top-level keys of the two kinds of released file, by the domain whose network they hold (`reference.md`, files).
KINDS = {
    "in-domain": {"real": "gen"},
    "cross-domain": {"real": "gen_real", "cartoon": "gen"},
}
_STAGE = re.compile(r"enc\.convs\.(\d{1,2})\.")
_WRAPPERS = ("module.", "_orig_mod.")  # what DataParallel and torch.compile put before every name
_BLUR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64

State = Mapping[str, Any]  # {official name: array or LazyTensor}


class Converted(NamedTuple):
    """A network, and what became of everything in the file."""

    model: ToonTalker
    kind: str  # a key of KINDS
    ledger: dict[str, list[str]]  # "used", "constant", "never_read": tensors; "ignored": other top-level keys


def flat_parameters(model: ToonTalker) -> dict[str, nnx.Variable]:
    """{"/"-joined path, as in `names`: the model's own variable}."""
    return {"/".join(map(str, path)): value for path, value in nnx.to_flat_state(nnx.state(model, nnx.Param))}


def convert(tree: Any) -> Converted:
    """The network of an official checkpoint. Tensors are read one at a time, and become float32.

    Raises:
      ValueError: no official checkpoint, or tensors that are missing, unknown, of another shape, not finite, or a blur
        kernel with other values. Names them, in one line.
    """
    kind, states = _recognise(tree)
    prefixes = {}
    for domain, state in states.items():
        _refuse_expanded(state, KINDS[kind][domain])
        prefixes[domain], states[domain] = _unwrap(state)
    config = _one_config(states, KINDS[kind])
    model = nnx.merge(*abstract_network(config, tuple(states)))
    variables = flat_parameters(model)
    ledger: dict[str, list[str]] = {"used": [], "constant": [], "never_read": []}
    faults: list[str] = []
    for domain, state in states.items():
        key = KINDS[kind][domain]
        table = names.domain_table(config, domain) + (names.query_table() if domain == "real" else [])
        found = _check_names(state, table, config, variables, domain)
        faults += [f"{key}/{fault}" for fault in found]
        if not found:
            faults += [f"{key}/{fault}" for fault in _fill(state, table, config, variables)]
            used, constant = {entry.official for entry in table}, names.blur_kernels(config)
            for name in state:
                place = "used" if name in used else "constant" if name in constant else "never_read"
                ledger[place].append(f"{key}/{prefixes[domain]}{name}")
    if faults:
        more = f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise ValueError(f"not an official checkpoint of {config.image_size} px: {'; '.join(faults[:4])}{more}.")
    ledger["ignored"] = [str(key) for key in tree if key not in KINDS[kind].values()]
    return Converted(model, kind, ledger)


def export(model: ToonTalker) -> dict[str, dict[str, np.ndarray]]:
    """The network as the official files have it: {"gen": …} for one domain, {"gen": …, "gen_real": …} for both.

    The cartoon network gets a copy of the shared query transformers, which the official code loads and never reads.
    The arrays may be read-only views of the network's own memory.

    Raises:
      ValueError: a network that the official files cannot hold: with the cartoon domain alone, or with settings that
        leave no trace in a file and differ from the official ones, or with widths that do not pack.
    """
    domains = tuple(model.domains)
    if "real" not in domains:
        raise ValueError(f"the network has the domains {domains}; the official files need the real one.")
    _check_exportable(model.config)
    kind = "cross-domain" if "cartoon" in domains else "in-domain"
    variables = flat_parameters(model)
    tree = {}
    for domain, key in KINDS[kind].items():
        packed: dict[str, dict[int, np.ndarray]] = {}
        for entry in names.domain_table(model.config, domain) + names.query_table():
            array = names.LAYOUTS[entry.layout][1](np.asarray(variables[entry.path][...]))
            packed.setdefault(entry.official, {})[entry.part or 0] = array
        state = {
            name: parts[0] if len(parts) == 1 else np.concatenate([parts[i] for i in sorted(parts)])
            for name, parts in packed.items()
        }
        kernels = names.blur_kernels(model.config).items()
        tree[key] = state | {name: (gain * _BLUR).astype(np.float32) for name, gain in kernels}
    return tree


def _check_exportable(config: ModelConfig) -> None:
    official = ModelConfig()
    for name in ("heads", "backward_resolutions", "query", "sft_from", "align_corners"):
        ours, theirs = getattr(config, name), getattr(official, name)
        if ours != theirs:
            raise ValueError(f"{name} = {ours}: the official code computes with {theirs}, its files cannot say else.")
    coarse, middle, _ = config.backward_resolutions
    if {config.channels(coarse), config.channels(middle)} != {config.width}:
        raise ValueError(
            f"width = {config.width}, but the maps of {coarse} and {middle} px have {config.channels(coarse)} and"
            f" {config.channels(middle)} channels: the official attention packs queries, keys and values of one width."
        )


def _recognise(tree: Any) -> tuple[str, dict[str, State]]:
    """The kind of file, and each domain's state dict."""
    if not isinstance(tree, Mapping) or not isinstance(tree.get("gen"), Mapping):
        keys = ", ".join(sorted(map(str, tree))[:6]) if isinstance(tree, Mapping) else type(tree).__name__
        raise ValueError(f"not an official checkpoint: it has no network under 'gen' but holds {keys or 'nothing'}.")
    kind = "cross-domain" if isinstance(tree.get("gen_real"), Mapping) else "in-domain"
    return kind, {domain: tree[key] for domain, key in KINDS[kind].items()}


def _refuse_expanded(state: State, key: str) -> None:
    for name, tensor in state.items():
        if getattr(tensor, "expanded", False):
            raise ValueError(f"{key}/{name} is expanded: more numbers than the file holds of it; save it contiguous.")


def _unwrap(state: State) -> tuple[str, State]:
    """The wrappers' prefix that all its names share, and the state dict without it."""
    prefix = ""
    while wrapper := next((w for w in _WRAPPERS if state and all(str(name).startswith(w) for name in state)), ""):
        state = {str(name).removeprefix(wrapper): value for name, value in state.items()}
        prefix += wrapper
    return prefix, state


def _one_config(states: Mapping[str, State], keys: Mapping[str, str]) -> ModelConfig:
    configs = {domain: infer_config(state, keys[domain]) for domain, state in states.items()}
    if len(set(configs.values())) > 1:
        raise ValueError(f"the two networks of the file differ in size: {configs['real']} and {configs['cartoon']}.")
    return configs["real"]


def infer_config(state: State, key: str) -> ModelConfig:
    """Image size, widths and channel table, from the shapes. The number of heads leaves no trace: the official 8.

    Raises:
      ValueError: tensors that are missing or misshapen, or shapes that no official network has. `key` is for messages.
    """
    stages = _stages(state, key)
    size = 4 << stages
    slots, width = _shape(state, key, "dec.direction.weight", "[slots, width]")
    channels = {size: _shape(state, key, "enc.convs.0.0.weight", "[C, 3, 1, 1]")[0]}
    for i in range(1, stages + 1):
        channels[size >> i] = _shape(state, key, f"enc.convs.{i}.skip.1.weight", "[C, C, 1, 1]")[0]
    cap = channels[4]
    base = max((c * r for r, c in channels.items() if c < cap), default=cap * size)
    try:
        config = ModelConfig(image_size=size, width=width, motion_slots=slots, channel_base=base, channel_cap=cap)
    except ValueError as error:
        raise ValueError(f"not an official network: {key} has the sizes of none ({error}).") from None
    if any(config.channels(r) != c for r, c in channels.items()):
        raise ValueError(f"not an official network: channels by resolution are {channels}.")
    return config


def _stages(state: State, key: str) -> int:
    """The highest i of the names enc.convs.{i}."""
    numbers = [int(found[1]) for name in state if (found := _STAGE.match(str(name)))]
    if not numbers:
        first = ", ".join(list(dict.fromkeys(str(name).split(".")[0][:40] for name in state))[:4])
        begin = f"its names begin with {first} (another network's file?)" if first else "it is empty"
        raise ValueError(f"{key} is not an official network: no enc.convs.*; {begin}.")
    return max(numbers)


def _shape(state: State, key: str, name: str, form: str) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"not an official network: {key}/{name} is missing.")
    shape = tuple(getattr(state[name], "shape", ()))
    if len(shape) != form.count(",") + 1:
        raise ValueError(f"not an official network: {key}/{name} has shape {shape}, not {form}.")
    return shape


def _official_shapes(table: Iterable[names.Entry], variables: Mapping[str, nnx.Variable]) -> dict[str, tuple[int, ...]]:
    """{official name: shape}, from the shapes of our parameters."""
    shapes: dict[str, tuple[int, ...]] = {}
    for entry in table:
        nothing = np.broadcast_to(np.float32(0), variables[entry.path].shape)  # a shape without memory
        shape = names.LAYOUTS[entry.layout][1](nothing).shape
        shapes[entry.official] = shape if entry.part is None else (3 * shape[0], *shape[1:])
    return shapes


def _check_names(
    state: State, table: list[names.Entry], config: ModelConfig, variables: Mapping[str, nnx.Variable], domain: str
) -> list[str]:
    """What is missing, unknown or misshapen. No tensor is read."""
    wanted = _official_shapes(table, variables) | dict.fromkeys(names.blur_kernels(config), (4, 4))
    never_read = _official_shapes(names.query_table(), variables) if domain != "real" else {}
    faults = [f"{name} is missing" for name in wanted if name not in state]
    for name, tensor in state.items():
        expected = wanted.get(name, never_read.get(name))
        shape = tuple(getattr(tensor, "shape", ()))
        if expected is None:
            faults.append(f"{name} is unknown")
        elif shape != expected:
            faults.append(f"{name} has shape {shape}, not {expected}")
    return faults


def _fill(
    state: State, table: list[names.Entry], config: ModelConfig, variables: Mapping[str, nnx.Variable]
) -> list[str]:
    """Sets our parameters, one official tensor in memory at a time. Returns what is no finite float or a wrong blur."""
    faults = []
    entries: dict[str, list[names.Entry]] = {}
    for entry in table:
        entries.setdefault(entry.official, []).append(entry)
    for name, parts in entries.items():
        if not jax.dtypes.issubdtype(state[name].dtype, np.floating):
            faults.append(f"{name} is {state[name].dtype}, not floating")
            continue
        official = np.asarray(state[name])
        # Copies of our own, in our layout: on the CPU, JAX may take over an array's memory instead of copying it.
        arrays = [np.array(names.read(entry, official), np.float32, order="C") for entry in parts]
        del official
        if not all(np.isfinite(array).all() for array in arrays):
            faults.append(f"{name} is not finite")
        for entry in parts:
            # jnp.array would hold two further copies for a while, and the largest tensor is half of a network.
            variables[entry.path].set_value(jax.device_put(arrays.pop(0)).block_until_ready())
    for name, gain in names.blur_kernels(config).items():
        if not np.allclose(np.asarray(state[name], np.float32), gain * _BLUR, rtol=1e-3, atol=0):
            faults.append(f"{name} is not {gain:g} · outer([1, 3, 3, 1]) / 64")
    return faults
