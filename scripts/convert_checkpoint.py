"""Converts an official checkpoint (in-domain or cross-domain; torch.save's or .safetensors) without PyTorch.

    python scripts/convert_checkpoint.py --input=cross-domain.pth --output=converted

The kind of file, the image size and the widths are recognised. The output folder is a checkpoint that reenact.py and
evaluate.py take, with a conversion.json: the source, what became of each of its tensors, the versions.
"""

import hashlib
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from scripts.endings import in_one_line
from toontalker_jax.checkpoints import check_free, describe, save_model
from toontalker_jax.convert.convert import convert
from toontalker_jax.convert.safetensors_file import is_safetensors, open_safetensors_file
from toontalker_jax.convert.torch_file import open_torch_file

_INPUT = flags.DEFINE_string("input", None, "The official file: .pth, .pt or .safetensors.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Checkpoint folder to write; must not exist.", required=True)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mute_writers() -> None:
    """Keeps the threads of Orbax and TensorStore from printing pages of a failed write: `save_model` raises it too."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    for name in ("excepthook", "unraisablehook"):
        hook = getattr(sys, name)

        def main_thread_only(*error: Any, hook: Callable[..., None] = hook) -> None:
            if threading.current_thread() is threading.main_thread():
                hook(*error)

        setattr(sys, name, main_thread_only)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.FATAL)  # Orbax tells of its every step, and pages of an error that it raises as well
    mute_writers()
    source = Path(_INPUT.value).expanduser()
    # ImportError: of a bucket without the extra gcs.
    with in_one_line(ValueError, OSError, ImportError, ctrl_c="no checkpoint was written."):
        output = check_free(_OUTPUT.value)
        opened = open_safetensors_file(source) if is_safetensors(source) else open_torch_file(source)
        try:
            model, kind, ledger = convert(opened)
        except ValueError as error:
            where = "" if str(source) in str(error) else f"{source}: "
            raise ValueError(f"{where}{error}") from None
        notes = {
            "source": {"name": source.name, "bytes": source.stat().st_size, "sha256": sha256(source)},
            "kind": kind,
            "ledger": ledger,
            "model": describe(model.config, tuple(model.domains)),
        }
        save_model(output, model, notes={"conversion.json": notes})
    counts = ", ".join(f"{len(tensors)} {place.replace('_', ' ')}" for place, tensors in ledger.items())
    print(f"{output}: {kind}, {model.config.image_size} px; {counts}")


if __name__ == "__main__":
    app.run(main)
