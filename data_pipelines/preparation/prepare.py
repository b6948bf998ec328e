"""Runs a plan: writes its shards by several processes, goes on where an interrupted run was, and merges them."""

import concurrent.futures
import contextlib
import fcntl
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
from absl import logging
from tqdm import tqdm

from data_pipelines import detectors
from data_pipelines.preparation import beam_pipeline
from data_pipelines.preparation.merge import INFO, REPORT, VERSION, merge, read_json
from data_pipelines.preparation.plan import Plan, Shard
from data_pipelines.preparation.shards import shard_files, write_shard
from data_pipelines.prepared_clips import UNFINISHED, PreparedClips, read_tables


def target_folder(output: str | os.PathLike, plan: Plan) -> Path:
    """Where the data set of a plan comes to lie."""
    return Path(output) / plan.name / VERSION


def prepare(
    plan: Plan,
    source: str | os.PathLike,
    output: str | os.PathLike,
    workers: int = 1,
    job: tuple[int, int] = (0, 1),
    beam_options: Sequence[str] | None = None,
) -> dict[str, Any] | None:
    """Writes the data set of a plan, or one job's share of its shards.

    Args:
      plan: what to write.
      source: the input folder.
      output: the data set comes to lie in output/<name>/<version>; until then its shards are in output/unfinished.
      workers: processes; any number writes the same bytes.
      job: (i, n): write every n-th shard from the i-th on, and do not merge, unless n is 1. The jobs share `output`, or
        their folders `unfinished` are copied together.
      beam_options: in place of `workers`, an Apache Beam pipeline with these flags writes the shards.

    Returns:
      The report of `merge`, also if the data set was there already; None after one of several jobs.

    Raises:
      ValueError: numbers out of range; folders within each other; a worker died; an item has changed or is gone.
      FileExistsError: `output` holds another data set, or an unfinished one of another input or other options.
      BlockingIOError: another run is at the same work.
      OSError: it cannot be written.
    """
    if workers < 1:
        raise ValueError(f"workers is {workers}: use at least 1")
    if not 0 <= job[0] < job[1]:
        raise ValueError(f"shard is {job[0]}/{job[1]}: of n jobs, count from 0 to n - 1")
    if plan.options.by_face:
        detectors.open_detector(plan.options.detector)  # Here, rather than in a worker.
    work, target = Path(output) / UNFINISHED, target_folder(output, plan)
    if Path(output).resolve().is_relative_to(Path(source).resolve()):
        raise ValueError(f"{output} lies in the input {source}, which it would change: choose another output")
    if is_complete(plan, output):
        return read_json(target / REPORT)
    own = plan.shards[job[0] :: job[1]]
    with _alone(Path(output), job):
        _claim(plan, work)
        write = functools.partial(write_shard, options=plan.options, source=Path(source), folder=work)
        todo = [shard for shard in own if not shard_files(work, shard)[1].exists()]
        total, left = (sum(len(shard.items) for shard in some) for some in (own, todo))
        if beam_options is not None:
            beam_pipeline.write_shards(todo, write, beam_options)
            todo = []
        with tqdm(total=total, initial=total - left, unit="item", desc=plan.name) as bar:
            for shard in _run(todo, write, work, workers):
                bar.update(len(shard.items))
        return merge(plan, work, target) if job[1] == 1 else None


def is_complete(plan: Plan, output: str | os.PathLike) -> bool:
    """Whether the data set of the plan is there, whole.

    Raises:
      FileExistsError: something else is there.
      FileNotFoundError, ValueError: it is there, but shards are missing or cut off.
    """
    output, target = Path(output), target_folder(output, plan)
    if (target / INFO).exists():
        if read_json(target / "metadata.json").get("fingerprint") != plan.fingerprint:
            raise FileExistsError(f"{target} was made of another input or with other options: choose another output")
        shutil.rmtree(target / UNFINISHED, ignore_errors=True)  # This, too: see below.
        for split in read_tables(target):
            PreparedClips(target, split)  # Raises if a shard is missing or cut off.
        shutil.rmtree(output / UNFINISHED, ignore_errors=True)  # Left if the very end was interrupted.
        return True
    if output.is_file():
        raise FileExistsError(f"{output} is a file: name a folder")
    names = {entry.name for entry in output.iterdir()} if output.is_dir() else set()
    if others := sorted(name for name in names - {UNFINISHED, plan.name, "lost+found"} if name[0] != "."):
        raise FileExistsError(f"{output} holds other files, as {others[0]}: choose another output or an empty folder")
    return False


@contextlib.contextmanager
def _alone(output: Path, job: tuple[int, int]) -> Iterator[None]:
    """Keeps out who would do the same: one run a job, and beside a run that merges none. Ends with the process.

    Raises BlockingIOError if there is one.
    """
    index, count = job
    output.mkdir(parents=True, exist_ok=True)
    with open(output / ".lock", "ab") as lock:  # A job holds the byte of its number, a run that merges all of them.
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 0 if count == 1 else 1, index)
        except (BlockingIOError, PermissionError):
            raise BlockingIOError(f"{output}: another run is at work there: wait until it has ended") from None
        except OSError:
            logging.warning("%s: this file system has no locks: start no second run on it", output)
        yield


def _claim(plan: Plan, work: Path) -> None:
    """Marks the folder of unfinished shards as this plan's. Raises FileExistsError if it is another's."""
    mark = work / "plan.json"
    if not mark.exists():
        work.mkdir(parents=True, exist_ok=True)
        # Not the process's number: jobs on other machines, or in containers, may have the same.
        unfinished = work / f"plan.{uuid.uuid4().hex}.partial"
        unfinished.write_text(json.dumps({"fingerprint": plan.fingerprint}))
        if mark.exists():  # by now, of another job
            unfinished.unlink()
        else:
            os.replace(unfinished, mark)
    if read_json(mark).get("fingerprint") != plan.fingerprint:
        raise FileExistsError(
            f"{work} is of an interrupted run with another input or other options: repeat those, or delete it"
        )


def _run(todo: list[Shard], write: Callable[[Shard], None], work: Path, workers: int) -> Iterator[Shard]:
    """Writes the shards, in this process or several, and yields each as it is done."""
    if workers == 1:
        for shard in todo:
            write(shard)
            yield shard
        return
    # Spawned, not forked: the caller may hold threads (jax, TFDS), and a forked copy of a held lock never opens.
    pool = concurrent.futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker)
    try:
        futures = {pool.submit(write, shard): shard for shard in todo}
        for future in concurrent.futures.as_completed(futures):
            future.result()
            yield futures[future]
    except concurrent.futures.process.BrokenProcessPool:
        at_work = {path.name.split(".")[0] for path in work.glob("*.partial")}
        items = [s.items for s in todo if shard_files(work, s)[0].stem in at_work]
        ends = "; ".join(f"{group[0].name} … {group[-1].name}" for group in items)
        raise ValueError(
            "a worker died, for want of memory (start again with fewer --workers; what is done stays) or of one of the "
            f"items at work (if it happens again, remove it): {ends}"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    cv2.setNumThreads(1)  # The cores are for the processes.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot end its workers, which would wait for work for ever."""
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)
