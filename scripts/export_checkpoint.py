"""Writes a network as an official checkpoint file, which PyTorch's `torch.load(..., weights_only=True)` reads.

    python scripts/export_checkpoint.py --checkpoint=runs/stage2 --output=cross-domain.pth

Both domains give `gen` (cartoon) and `gen_real`, a real-domain network gives `gen`. A network whose settings the files
cannot hold is refused; the official code itself builds the default widths only.
"""

from pathlib import Path

from absl import app, flags, logging

from scripts.endings import in_one_line
from toontalker_jax.checkpoints import check_free, load_model
from toontalker_jax.convert.convert import export
from toontalker_jax.convert.torch_writer import write_torch_file

_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Checkpoint folder, or the workdir of a training.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write; must not exist.", required=True)


def main(_: list[str]) -> None:
    logging.set_verbosity(logging.ERROR)  # Orbax tells of its every step
    # ImportError: of a bucket without the extra gcs.
    with in_one_line(ValueError, OSError, ImportError, ctrl_c="no file was written."):
        output = Path(check_free(_OUTPUT.value))
        if not output.parent.is_dir():
            raise FileNotFoundError(f"{output.parent}: no such folder: make it, or choose another path.")
        tree = export(load_model(_CHECKPOINT.value))
        write_torch_file(output, tree)
    size = output.stat().st_size
    print(f"{output}: {', '.join(f'{key} ({len(state)} tensors)' for key, state in tree.items())}, {size} bytes")


if __name__ == "__main__":
    app.run(main)
