"""Killable worker processes: each runs one function call at a time, under a time limit and a memory limit.

Knows nothing of documents. A call that hangs, dies or eats memory costs that call and one restart of its process,
nothing else. Processes are spawned, never forked: threads and pdfium do not survive a fork. Brief calls are sent ahead,
a few to each process, so that none waits for the main process between two small files; each keeps its own limits.

                submit()                  assign             reply
    caller ───────────────▶ queue ───────────────▶ worker ─────────▶ Future
                              dispatcher thread: pipes, deadlines, restarts

"""

from __future__ import annotations

import collections
import heapq
import itertools
import logging
import multiprocessing
import multiprocessing.connection
import pickle
import signal
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from pipeline import errors, worker_process

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 60.0  # a cold disk, a busy machine
MAX_FAILED_STARTS = 3  # in a row: then no worker will ever start
STARVED = 3.0  # times its limit that a call may take by the clock where it gets less than that of a processor
SENT_AHEAD = 4  # brief calls that a worker has before it, the running one counted
SMALL_BYTES = 8192  # of arguments that are sent ahead: the pipe must take them while nobody reads
_OUT_OF_MEMORY = ("SIGABRT", "SIGTRAP")  # how libraries in C++ end when they are given no memory, among other ends
POLL_S = 0.25  # how often memory is looked at where the system sets no limit


@dataclass(slots=True, kw_only=True)
class _Task:
    function: str
    payload: bytes
    timeout_s: float
    future: Future[Any]
    brief: bool = False
    started: bool = False
    rank: tuple[int, int] = (0, 0)  # in the queue: the least first


@dataclass(slots=True, kw_only=True)
class _Worker:
    """A process and what it does: starting (no tasks, not ready), idle (ready) or running (tasks).

    The first of `tasks` runs, the others lie in its pipe.
    """

    process: multiprocessing.process.BaseProcess
    pipe: Connection
    deadline: float
    last_deadline: float = 0.0  # for a call that the machine gives little time
    cpu_s: float = 0.0  # used when the call began
    tasks: collections.deque[_Task] = field(default_factory=collections.deque)
    ready: bool = False
    done: int = 0

    def begin(self) -> None:
        """The limits of the first task count from now."""
        self.deadline = time.monotonic() + self.tasks[0].timeout_s
        self.last_deadline = time.monotonic() + STARVED * self.tasks[0].timeout_s


class WorkerPool:
    """A fixed number of worker processes, started when there is work for them.

    Futures end with the function's result, with what it raised, or with errors.WorkerTimeout, WorkerCrash or
    WorkerMemory. If the pool is closed first, queued ones are cancelled and running ones end with errors.Interrupted.
    """

    def __init__(self, workers: int, *, memory_mb: int, recycle_tasks: int = 500, recycle_mb: int = 700) -> None:
        """`memory_mb`: address space of a worker on Linux, resident memory elsewhere.

        A worker that has done `recycle_tasks` calls or is left with more than `recycle_mb` resident is replaced:
        parsers leak.
        """
        self._size = workers
        self._memory_mb = memory_mb
        self._recycle_tasks = recycle_tasks
        self._recycle_mb = recycle_mb
        self._context = multiprocessing.get_context("spawn")
        self._lock = threading.Lock()
        self._queue: list[tuple[tuple[int, int], _Task]] = []  # a heap
        self._numbers = itertools.count()
        self._unfinished: set[Future[Any]] = set()
        self._workers: list[_Worker] = []
        self._failed_starts = 0
        self._closed = False
        self._woken = False
        self._ended = False
        self._broken: Exception | None = None
        self._wake_in, self._wake_out = self._context.Pipe(duplex=False)
        # The dispatcher also is the thread that starts the workers: Linux ends them with *it* (PR_SET_PDEATHSIG is per
        # thread).
        self._thread = threading.Thread(target=self._dispatch, name="worker-pool", daemon=True)
        self._thread.start()

    def submit(
        self, function: str, *args: Any, timeout_s: float, priority: int = 0, brief: bool = False
    ) -> Future[Any]:
        """Queue a call of `function` ("package.module:name") in a worker; calls start in the order of submission, those
        of a higher `priority` before others.

        The time limit counts from the start of the call. Arguments and results must pickle. `brief`: it is expected to
        take milliseconds, and may wait for others like it in a worker.

        Raises:
            Interrupted: the pool is closed.
            PipelineError: no worker process can be started.
        """
        payload = pickle.dumps(args)
        brief = brief and len(payload) <= SMALL_BYTES
        task = _Task(function=function, payload=payload, timeout_s=timeout_s, future=Future(), brief=brief)
        with self._lock:
            if self._broken is not None:
                raise self._broken
            if self._closed:
                raise errors.Interrupted("the worker pool is closed")
            task.rank = (-priority, next(self._numbers))
            self._unfinished.add(task.future)
            task.future.add_done_callback(self._unfinished.discard)
            heapq.heappush(self._queue, (task.rank, task))
            self._wake()
        return task.future

    @property
    def idle(self) -> bool:
        """Whether it is open and every call has ended."""
        with self._lock:
            return not self._closed and all(future.done() for future in tuple(self._unfinished))

    def close(self) -> None:
        """Kill what still runs, cancel what is queued. May be called again."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()

    # --- in the dispatcher thread -------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """With the lock held. At most one message lies in the pipe: a full one would block the caller, lock in hand."""
        if not self._woken and not self._ended:
            self._woken = True
            self._wake_out.send_bytes(b"")

    def _dispatch(self) -> None:
        try:
            while not self._closed:
                self._assign()
                self._wait()
        except Exception as error:
            # Every Future must end, whatever happens here: a caller would wait for ever.
            logger.exception("the worker pool failed")
            self._broken = errors.PipelineError(f"the worker pool failed: {error}")
        finally:
            self._end()

    def _end(self) -> None:
        with self._lock:
            self._closed = True
        ended = self._broken or errors.Interrupted("the worker pool was closed")
        for worker in list(self._workers):
            running = worker.tasks.popleft() if worker.tasks else None
            self._kill(worker)
            if running is not None:
                running.future.set_exception(ended)
        with self._lock:
            queued = [task for _, task in sorted(self._queue, key=lambda item: item[0])]
            self._queue.clear()
        for task in queued:
            if self._broken is None and not task.started:
                task.future.cancel()
            elif task.started or task.future.set_running_or_notify_cancel():
                task.future.set_exception(ended)
        with self._lock:
            self._ended = True
            self._wake_in.close()
            self._wake_out.close()

    def _assign(self) -> None:
        """Give queued calls to idle workers, and start workers while calls are left over."""
        for worker in [worker for worker in self._workers if worker.ready and not worker.tasks]:
            if (task := self._next()) is None:
                return
            self._send(worker, task)
        self._send_ahead()
        starting = sum(1 for worker in self._workers if not worker.ready)
        with self._lock:
            wanted = min(len(self._queue) - starting, self._size - len(self._workers))
        for _ in range(wanted):
            self._start()

    def _send_ahead(self) -> None:
        """Brief calls behind brief ones, once every worker has something to do."""
        if len(self._workers) < self._size or not all(worker.tasks for worker in self._workers):
            return
        for worker in sorted(self._workers, key=lambda worker: len(worker.tasks)):
            while len(worker.tasks) < SENT_AHEAD and all(task.brief for task in worker.tasks):
                if (task := self._next(brief=True)) is None:
                    return
                if not self._send(worker, task):
                    break

    def _next(self, *, brief: bool = False) -> _Task | None:
        """The call that is next; None where there is none, or where it is not `brief` although that is asked for."""
        while True:
            with self._lock:
                if not self._queue or (brief and not self._queue[0][1].brief):
                    return None
                task = heapq.heappop(self._queue)[1]
            if task.started or task.future.set_running_or_notify_cancel():
                task.started = True
                return task

    def _send(self, worker: _Worker, task: _Task) -> bool:
        """Whether the worker is still there; else the call is queued again."""
        try:
            # An idle worker reads, so that this does not block, however large the arguments.
            worker.pipe.send((task.function, task.payload))
        except OSError:  # it died: no fault of this call
            with self._lock:
                heapq.heappush(self._queue, (task.rank, task))
            if not worker.tasks:  # idle; else the end of its pipe tells which call it was
                self._kill(worker)
            return False
        worker.tasks.append(task)
        if len(worker.tasks) == 1:
            worker.begin()
        return True

    def _start(self) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=worker_process.serve, args=(theirs, self._memory_mb), daemon=True)
        try:
            process.start()
        except OSError as error:
            ours.close()
            self._start_failed(str(error))
            return
        finally:
            theirs.close()
        self._workers.append(_Worker(process=process, pipe=ours, deadline=time.monotonic() + START_TIMEOUT_S))

    def _start_failed(self, reason: str) -> None:
        self._failed_starts += 1
        if self._failed_starts < MAX_FAILED_STARTS:
            return
        self._broken = errors.PipelineError(
            f"worker processes cannot be started: {reason}", "Look at the limits on memory and processes (`ulimit -a`)."
        )
        self._closed = True

    def _wait(self) -> None:
        """Until a worker has something to say, a deadline passes, or a call is submitted or the pool closed."""
        if self._closed:
            return
        timed = [worker.deadline for worker in self._workers if worker.tasks or not worker.ready]
        timeout = max(0.0, min(timed) - time.monotonic()) if timed else None
        if not worker_process.LINUX and timed:
            timeout = min(POLL_S, timeout or 0.0)
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in multiprocessing.connection.wait([self._wake_in, *pipes], timeout):
            if pipe is self._wake_in:
                with self._lock:
                    self._wake_in.recv_bytes()
                    self._woken = False
            else:
                self._receive(pipes[pipe])  # type: ignore[index]
        now = time.monotonic()
        for worker in list(self._workers):
            if worker.tasks or not worker.ready:
                self._check(worker, now)

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.pipe.recv_bytes()
        except (EOFError, OSError):
            self._died(worker)
            return
        if not worker.ready:
            worker.ready = True
            self._failed_starts = 0
            return
        task = worker.tasks[0]
        if message.startswith(worker_process.MORE_TIME):
            more_s = float(message[1:])
            task.timeout_s += more_s
            worker.deadline += more_s
            worker.last_deadline += STARVED * more_s
            return
        worker.tasks.popleft()
        worker.done += 1
        resident, worker.cpu_s, out_of_memory = _finish(task, message, self._memory_mb)
        if worker.tasks:
            worker.begin()
        if out_of_memory or worker.done >= self._recycle_tasks or resident > self._recycle_mb * worker_process.MEGABYTE:
            self._kill(worker)

    def _check(self, worker: _Worker, now: float) -> None:
        """Kill a worker past its deadline, or over its memory where the system does not see to that."""
        task = worker.tasks[0] if worker.tasks else None
        if now >= worker.deadline and task is not None:
            # Seconds of the clock say little on a busy machine: a call has had its time when it has *used* it.
            left_s = task.timeout_s - (worker_process.cpu_s(worker.process.pid) - worker.cpu_s)
            worker.deadline = min(now + max(0.0, left_s), worker.last_deadline)
        if now >= worker.deadline:
            if task is None:
                self._kill(worker)
                self._start_failed(f"no answer within {START_TIMEOUT_S:.0f} s")
            else:
                why = f"not done within {task.timeout_s:.0f} s"
                self._fail(worker, errors.WorkerTimeout(why, "Raise readers.timeout_s."))
        elif task is not None and self._over_memory(worker):
            self._fail(worker, _out_of_memory(self._memory_mb))

    def _fail(self, worker: _Worker, error: errors.WorkerError) -> None:
        """End a worker over the call that it runs."""
        task = worker.tasks.popleft()
        self._kill(worker)
        task.future.set_exception(error)

    def _over_memory(self, worker: _Worker) -> bool:
        """Where the system sets no limit."""
        resident = 0 if worker_process.LINUX else worker_process.resident(worker.process.pid)
        return resident > self._memory_mb * worker_process.MEGABYTE

    def _died(self, worker: _Worker) -> None:
        worker.process.join(5.0)
        how = _exit(worker.process.exitcode)
        if worker.tasks:
            remedy = "It may have wanted more than readers.memory_mb." if how in _OUT_OF_MEMORY else ""
            self._fail(worker, errors.WorkerCrash(f"the worker process died: {how}", remedy))
            return
        self._kill(worker)
        if not worker.ready:
            self._start_failed(how)

    def _kill(self, worker: _Worker) -> None:
        """End a worker; its calls go back to their places in the queue."""
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        if worker.process.exitcode is not None:  # None: something else in this program has waited for it
            worker.process.close()
        worker.pipe.close()
        with self._lock:
            for task in worker.tasks:
                heapq.heappush(self._queue, (task.rank, task))
        worker.tasks.clear()


def _finish(task: _Task, message: bytes, memory_mb: int) -> tuple[int, float, bool]:
    """Hand a reply to the Future; the worker's resident bytes, its CPU seconds, and whether it ran out of memory."""
    try:
        status, value, resident, cpu_s = pickle.loads(message)  # noqa: S301  from our own worker
    except Exception as error:
        task.future.set_exception(errors.WorkerCrash(f"its result cannot be read: {error!r}"))
        return 0, 0.0, True
    if status == "done":
        task.future.set_result(value)
    elif status == "memory":
        task.future.set_exception(_out_of_memory(memory_mb))
    else:
        task.future.set_exception(value)
    return resident, cpu_s, status == "memory"


def _out_of_memory(memory_mb: int) -> errors.WorkerMemory:
    return errors.WorkerMemory(f"needs more than {memory_mb} MB of memory", "Raise readers.memory_mb.")


def _exit(code: int | None) -> str:
    if code is None:
        return "it closed its pipe"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    # We kill only what we have stopped listening to, so that somebody else did this one.
    return f"{name}, most likely killed by the system for want of memory" if -code == signal.SIGKILL else name
