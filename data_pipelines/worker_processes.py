"""What processes that decode are told at their start."""

import multiprocessing
import os
import signal
import threading
import time

import cv2

from data_pipelines.host_memory import keep_freed_memory


def start_worker(index: int, count: int) -> None:
    """In a worker, before it gets its work: it lives as long as the process that started it."""
    del index, count
    # Notice that the machine is wanted back may go to every process: until the run has stopped, it needs batches.
    run = multiprocessing.parent_process().pid
    signal.signal(signal.SIGTERM, lambda number, _: os.getppid() == run or os._exit(128 + number))
    threading.Thread(target=_end_with, args=(run,), daemon=True).start()
    settle_process()


def _end_with(run: int) -> None:
    """Ends this worker when `run` is no longer its parent: killed, it could not end its workers."""
    while os.getppid() == run:
        time.sleep(1)
    os._exit(1)


def settle_process() -> None:
    """Settings of the whole process that decoding needs to be fast; they change no result."""
    cv2.setNumThreads(1)  # Grain decodes batches in parallel; OpenCV's own threads would only take the cores.
    keep_freed_memory()
