"""The arrows of the project: which part may import which. Reads the sources, imports nothing of them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Layer -> what else of this project it may import. The longest name that fits a module is its layer.
ARROWS = {
    "toontalker_jax": (),
    "toontalker_jax.ops": (),
    "toontalker_jax.models": ("toontalker_jax.ops",),
    "toontalker_jax.cpu": ("data_pipelines.host_memory",),
    "toontalker_jax.losses": ("toontalker_jax.models.perceptual",),
    "toontalker_jax.checkpoints": ("toontalker_jax.models",),
    # Files and arrays in, files and frames out: what scripts and other people's programs call.
    "toontalker_jax.media": ("toontalker_jax.reenactment", "data_pipelines"),
    "toontalker_jax.video_reenactor": (
        "toontalker_jax.media",
        "toontalker_jax.checkpoints",
        "toontalker_jax.reenactment",
        "data_pipelines",
    ),
    "toontalker_jax.training": (
        "toontalker_jax.models",
        "toontalker_jax.losses",
        "toontalker_jax.checkpoints",
        "data_pipelines.batches",
    ),
    "toontalker_jax.reenactment": ("toontalker_jax.models", "toontalker_jax.ops"),
    "toontalker_jax.evaluation": ("toontalker_jax.models", "toontalker_jax.ops", "toontalker_jax.reenactment"),
    "toontalker_jax.convert": ("toontalker_jax.models", "toontalker_jax.checkpoints"),
    "data_pipelines": (),
    "configs": ("toontalker_jax.models.config",),  # its defaults, so that a flag can change any of them
    "scripts": ("toontalker_jax", "data_pipelines", "configs", "scripts"),
    "tests": ("toontalker_jax", "data_pipelines", "configs", "scripts", "tests"),
}
PROJECT = ("toontalker_jax", "data_pipelines", "configs", "scripts", "tests")
# Third-party packages that nothing, or not this part, may import.
FORBIDDEN_EVERYWHERE = ("tensorflow", "torch", "torchvision")
FORBIDDEN = {
    "data_pipelines": ("jax", "jaxlib", "flax", "optax", "orbax"),
    # Pictures, videos and shards are read in data_pipelines and scripts; here it is arrays in, arrays out.
    "toontalker_jax": ("av", "cv2", "grain", "tensorflow_datasets"),
}


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer_of(name: str) -> str:
    return max((layer for layer in ARROWS if inside(name, layer)), key=len)


def imported(source: str, module: str, is_package: bool) -> set[str]:
    """Absolute names of everything that `source` imports, at any depth of the code (`from a import b` is `a.b`)."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".") if is_package else module.split(".")[:-1]
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join(base + ([node.module] if node.module else []))
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    layer, top = layer_of(module), module.split(".")[0]
    found = []
    for name in sorted(imported(source, module, is_package)):
        name_top = name.split(".")[0]
        if name_top in PROJECT and layer_of(name) != layer and not any(inside(name, a) for a in ARROWS[layer]):
            found.append(f"{module} ({layer}) imports {name}: no such arrow")
        if name_top in FORBIDDEN_EVERYWHERE + FORBIDDEN.get(top, ()):
            found.append(f"{module} imports {name}: not allowed in {top}")
    return found


def project_files() -> list[Path]:
    # make_*.py wrote the fixtures with the reference's own tools; no test imports them.
    return sorted(p for top in PROJECT for p in (ROOT / top).rglob("*.py") if not p.name.startswith("make_"))


@pytest.mark.parametrize("path", project_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    is_package = parts[-1] == "__init__"
    assert violations(path.read_text(), ".".join(parts[:-1] if is_package else parts), is_package) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data_pipelines.loaders", "import jax.numpy as jnp"),
        ("data_pipelines.builders.puppets", "def f():\n    from toontalker_jax.models import config"),
        ("toontalker_jax.ops.warp", "from ..models import layers"),
        ("toontalker_jax.models.layers", "from toontalker_jax import losses"),
        ("toontalker_jax.losses", "from toontalker_jax.models import toontalker"),
        ("toontalker_jax.training.loop", "from data_pipelines import loaders"),
        ("toontalker_jax.training.loop", "import toontalker_jax.evaluation.motion_recovery"),
        ("toontalker_jax.evaluation.protocols", "from data_pipelines.puppets import render"),
        ("toontalker_jax.reenactment.transfer", "import cv2"),
        ("scripts.train", "import torch"),
        ("tests.test_any", "from tensorflow import io"),
    ],
)
def test_a_forbidden_import_is_found(module, source):
    assert len(violations(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("toontalker_jax.models.layers", "from ..ops.warp import grid_sample\nfrom . import config"),
        ("toontalker_jax.losses", "from toontalker_jax.models.perceptual import VGG19"),
        ("toontalker_jax.training.stage1", "from data_pipelines.batches import PairBatch\nfrom .state import State"),
        ("toontalker_jax.convert.convert", "from toontalker_jax import checkpoints"),
        ("data_pipelines.loaders", "import grain\nfrom data_pipelines import sampling"),
    ],
)
def test_an_allowed_import_passes(module, source):
    assert violations(source, module) == []
