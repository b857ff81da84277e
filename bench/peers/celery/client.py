"""Gives Celery jobs, and prints what became of them as JSON: the same as bench/native/src/bin/jobs.rs for wasmhost,
whose modes and figures these are. A client is a thread, in one of up to four processes, which calls `apply_async`."""

import json
import multiprocessing
import os
import queue
import sys
import threading
import time

import redis

OUTSTANDING_MAX = 1000
LOOK_EVERY = 0.01
PROCESSES_MAX = 4
START_MAX = 30

mode, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
rate = float(sys.argv[4]) if mode == "pace" else None


def main():
    context = multiprocessing.get_context("fork")
    processes = min(clients, PROCESSES_MAX)
    outstanding = context.Value("q", 0, lock=False)
    ready, found = context.Barrier(processes + 1), context.Queue()
    children = []
    for index in range(processes):
        share = clients // processes + (index < clients % processes)
        arguments = (index, processes, share, outstanding, ready, found)
        children.append(context.Process(target=run, args=arguments, daemon=True))
        children[-1].start()
    broker = redis.Redis(port=int(os.environ["BENCH_REDIS_PORT"]))

    def look():
        with broker.pipeline() as pipeline:
            waiting, unacked = pipeline.llen("default").hlen("unacked").execute()
        outstanding.value = waiting + unacked
        return outstanding.value

    ready.wait(timeout=START_MAX)
    start = time.monotonic()
    looks, took, left = [], [], processes
    while left:
        if mode == "until-done":
            looks.append(look())
        try:
            took += found.get(timeout=LOOK_EVERY)
            left -= 1
        except queue.Empty:
            if any(child.exitcode for child in children):
                sys.exit("a client has failed")
    enqueue_seconds = time.monotonic() - start
    done = None
    if mode == "until-done":
        # A job that a worker takes is for a moment in neither place.
        quiet = 0
        while quiet < 3:
            quiet = quiet + 1 if look() == 0 else 0
            time.sleep(LOOK_EVERY)
        done = time.monotonic() - start - 2 * LOOK_EVERY
    took.sort()

    def at(of_100):
        return took[min(len(took) * of_100 // 100, len(took) - 1)] * 1000 if took else 0

    print(
        json.dumps(
            {
                "jobs": len(took),
                "enqueue_seconds": enqueue_seconds,
                "seconds": done,
                "outstanding": sum(looks) / len(looks) if looks else None,
                "p50_ms": at(50),
                "p99_ms": at(99),
            }
        )
    )


def run(index, processes, threads, outstanding, ready, found):
    # After the fork: connections aren't shared.
    from jobs import app, job

    took = []

    def enqueue(*args):
        sent = time.monotonic()
        job.apply_async(args=args)
        took.append(time.monotonic() - sent)

    def flow(until):
        while time.monotonic() < until:
            if mode == "until-done" and outstanding.value >= OUTSTANDING_MAX:
                time.sleep(0.001)
                continue
            enqueue()

    count = int(rate * seconds) if rate else 0
    taking = threading.Lock()
    numbers = iter(range(index, count, processes))

    def pace(start, start_us):
        while True:
            with taking:
                number = next(numbers, None)
            if number is None:
                return
            wait = start + number / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            enqueue(int(start_us + number / rate * 1e6))

    with app.connection_for_write() as connection:
        connection.ensure_connection()
    ready.wait()
    start, start_us = time.monotonic(), time.time_ns() // 1000
    work = (lambda: pace(start, start_us)) if mode == "pace" else (lambda: flow(start + seconds))
    all_threads = [threading.Thread(target=work) for _ in range(threads)]
    for thread in all_threads:
        thread.start()
    for thread in all_threads:
        thread.join()
    found.put(took)


main()
