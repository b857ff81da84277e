"""A job that has nothing to do. Where it says when it was sent, it notes when it came."""

import os
import sys
import time

from celery import Celery
from celery.signals import worker_ready

app = Celery("bench", broker=f"redis://127.0.0.1:{os.environ['BENCH_REDIS_PORT']}/0")
app.conf.update(
    task_default_queue="default",
    task_ignore_result=True,
    # As in wasmhost: what a worker had begun when it died runs again. (By default Celery answers before it begins.)
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)

notes = None


@app.task(name="job")
def job(sent_us=None):
    if sent_us is not None:
        note(sent_us)


def note(sent_us):
    came_us = time.time_ns() // 1000
    global notes
    if notes is None or notes[0] != os.getpid():
        path = os.path.join(os.environ["BENCH_NOTES"], str(os.getpid()))
        notes = (os.getpid(), open(path, "a", buffering=1))
    notes[1].write(f"{sent_us} {came_us}\n")


@worker_ready.connect
def ready(**_):
    # Celery takes `sys.stdout` for its log.
    print("ready", file=sys.__stdout__, flush=True)
