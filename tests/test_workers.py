"""The pool of killable workers, with real processes that hang, die and eat memory.

Workers run functions of the standard library ("builtins:eval"), so that no helper module has to be importable there.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import psutil
import pytest

from pipeline import errors, workers

SOON = 30.0  # a limit that is never reached


@pytest.fixture(scope="module")
def pool() -> Iterator[workers.WorkerPool]:
    with workers.WorkerPool(1, memory_mb=1024) as made:
        yield made


def evaluate(pool: workers.WorkerPool, code: str, timeout_s: float = SOON) -> object:
    return pool.submit("builtins:eval", code, timeout_s=timeout_s).result(timeout=60)


PID = "__import__('os').getpid()"


def test_results_come_back(pool: workers.WorkerPool) -> None:
    assert pool.submit("operator:add", [1], ["雪"], timeout_s=SOON).result() == [1, "雪"]


def test_a_worker_is_another_process_and_is_used_again(pool: workers.WorkerPool) -> None:
    first = evaluate(pool, PID)
    assert first == evaluate(pool, PID)
    assert first != os.getpid()


def test_large_arguments_and_results(pool: workers.WorkerPool) -> None:
    data = os.urandom(20_000_000)
    assert pool.submit("builtins:bytes", data, timeout_s=SOON).result() == data


def test_exceptions_of_the_function_come_back(pool: workers.WorkerPool) -> None:
    future = pool.submit("builtins:int", "no number", timeout_s=SOON)
    error = future.exception()
    assert isinstance(error, ValueError)
    assert "no number" in str(error)
    assert "in a worker" in "".join(error.__notes__)


def test_our_errors_come_back_whole(pool: workers.WorkerPool) -> None:
    code = "raise __import__('pipeline.errors').errors.DocumentError('encrypted', 'what', 'remedy')"
    error = pool.submit("builtins:exec", code, timeout_s=SOON).exception()
    assert isinstance(error, errors.DocumentError)
    assert (error.kind, error.message, error.remedy) == ("encrypted", "what", "remedy")


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "raise KeyboardInterrupt(3)"])
def test_what_would_end_a_program_ends_a_call(pool: workers.WorkerPool, code: str) -> None:
    error = pool.submit("builtins:exec", code, timeout_s=SOON).exception(timeout=60)
    assert isinstance(error, errors.WorkerCrash)
    assert code.removeprefix("raise ") in error.message


TREACHEROUS = """
class Local(Exception):
    pass
class Treacherous(Exception):
    def __init__(self, one, two):
        super().__init__(one + two)
"""


@pytest.mark.parametrize(
    ("code", "word"),
    [
        # Pickles, but cannot be made again from its arguments: with multiprocessing.Pool the caller would hang.
        ("raise treacherous.Treacherous('a', 'b')", "Treacherous('ab')"),
        # Travels, but the parent does not have its module.
        ("raise treacherous.Local('a')", "No module named 'treacherous'"),
        # Cannot be pickled at all.
        ("raise type('Inner', (Exception,), {})('a')", "Inner('a')"),
    ],
)
def test_exceptions_that_do_not_travel(pool: workers.WorkerPool, tmp_path: Path, code: str, word: str) -> None:
    (tmp_path / "treacherous.py").write_text(TREACHEROUS)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import treacherous; {code}"
    error = pool.submit("builtins:exec", code, timeout_s=SOON).exception(timeout=60)
    assert isinstance(error, errors.WorkerCrash)
    assert word in error.message
    assert evaluate(pool, "1 + 1") == 2


def test_results_that_do_not_travel(pool: workers.WorkerPool) -> None:
    assert isinstance(pool.submit("builtins:eval", "lambda: 0", timeout_s=SOON).exception(), Exception)
    assert evaluate(pool, "1 + 1") == 2


def test_arguments_that_do_not_travel(pool: workers.WorkerPool) -> None:
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        pool.submit("builtins:bool", lambda: 0, timeout_s=SOON)


@pytest.mark.parametrize("function", ["no.such.module:f", "os:no_such_function"])
def test_unknown_functions(pool: workers.WorkerPool, function: str) -> None:
    assert isinstance(pool.submit(function, timeout_s=SOON).exception(), (ImportError, AttributeError))


@pytest.mark.parametrize("call", [("time:sleep", 1000), ("builtins:eval", "[0 for _ in iter(int, 1)]")])
def test_a_hanging_call_is_killed(pool: workers.WorkerPool, call: tuple[str, object]) -> None:
    before = evaluate(pool, PID)
    began = time.monotonic()
    error = pool.submit(*call, timeout_s=0.3).exception(timeout=60)
    assert isinstance(error, errors.WorkerTimeout)
    assert time.monotonic() - began < 10
    assert not psutil.pid_exists(int(str(before)))
    assert evaluate(pool, PID) != before


def test_waiting_in_the_queue_is_not_counted(pool: workers.WorkerPool) -> None:
    futures = [pool.submit("time:sleep", 0.3, timeout_s=2.0) for _ in range(8)]
    assert [future.result() for future in futures] == [None] * 8


@pytest.mark.parametrize(
    ("call", "how"),
    [
        (("os:_exit", 7), "exit code 7"),
        (("os:abort",), "SIGABRT"),
        (("signal:raise_signal", int(signal.SIGKILL)), "SIGKILL"),
        (("builtins:eval", "__import__('ctypes').string_at(0)"), "SIGSEGV"),
    ],
)
def test_a_dying_worker_costs_one_call(pool: workers.WorkerPool, call: tuple[str, object], how: str) -> None:
    error = pool.submit(*call, timeout_s=SOON).exception(timeout=60)
    assert isinstance(error, errors.WorkerCrash)
    assert how in error.message
    assert evaluate(pool, "1 + 1") == 2


def test_an_idle_worker_that_dies_costs_no_call(pool: workers.WorkerPool) -> None:
    """Even if another part of the program (here psutil) has waited for the process, so that its exit code is lost."""
    process = psutil.Process(int(str(evaluate(pool, PID))))
    process.kill()
    process.wait(10)
    assert evaluate(pool, "1 + 1") == 2


def test_memory_limit(pool: workers.WorkerPool) -> None:
    before = evaluate(pool, PID)
    error = pool.submit("builtins:eval", "len(bytearray(2 << 30))", timeout_s=SOON).exception(timeout=60)
    assert isinstance(error, errors.WorkerMemory)
    assert "1024 MB" in error.message
    assert evaluate(pool, PID) != before


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_CORE is looked up in /proc")
def test_no_core_files(pool: workers.WorkerPool) -> None:
    assert evaluate(pool, "__import__('resource').getrlimit(4)") == (0, 0)


def test_silence(pool: workers.WorkerPool, capfd: pytest.CaptureFixture[str]) -> None:
    evaluate(pool, "__import__('os').system('echo spoken; echo complained >&2')")
    evaluate(pool, "print('said') or __import__('sys').stderr.write('moaned')")
    assert capfd.readouterr() == ("", "")


def test_interrupts_are_left_to_the_parent(pool: workers.WorkerPool) -> None:
    assert evaluate(pool, f"__import__('os').kill({PID}, {int(signal.SIGINT)}) or 'alive'") == "alive"


def test_recycling_by_number_of_calls() -> None:
    with workers.WorkerPool(1, memory_mb=1024, recycle_tasks=3) as small:
        pids = [evaluate(small, PID) for _ in range(7)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_recycling_by_memory() -> None:
    with workers.WorkerPool(1, memory_mb=1024, recycle_mb=100) as small:
        first = evaluate(small, PID)
        hold = "__import__('sys').__dict__.setdefault('held', bytearray(b'x' * (200 << 20))) and 1"
        assert evaluate(small, hold) == 1
        assert evaluate(small, PID) != first


def test_order_of_starting(pool: workers.WorkerPool, tmp_path: Path) -> None:
    file = tmp_path / "order"
    futures = [
        pool.submit("builtins:eval", f"open({str(file)!r}, 'a').write('{n},')", timeout_s=SOON) for n in range(30)
    ]
    wait(futures)
    assert file.read_text() == "".join(f"{n}," for n in range(30))


def test_workers_run_side_by_side(tmp_path: Path) -> None:
    """Three calls that each wait until all three have begun."""
    meet = (
        "(lambda o, t, d: (open(f'{d}/{o.getpid()}', 'w').close(),"
        " [t.sleep(0.01) for _ in iter(lambda: len(o.listdir(d)) < 3, False)]))"
        f"(__import__('os'), __import__('time'), {str(tmp_path)!r}) and 'met'"
    )
    with workers.WorkerPool(3, memory_mb=1024) as three:
        futures = [three.submit("builtins:eval", meet, timeout_s=SOON) for _ in range(3)]
        assert [future.result(timeout=60) for future in futures] == ["met"] * 3


def test_no_more_workers_than_calls() -> None:
    before = set(psutil.Process().children())
    with workers.WorkerPool(8, memory_mb=1024) as many:
        assert evaluate(many, "1 + 1") == 2
        mine = [
            child for child in set(psutil.Process().children()) - before if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(mine) == 1


def test_a_cancelled_call_never_runs(pool: workers.WorkerPool, tmp_path: Path) -> None:
    first = pool.submit("time:sleep", 0.3, timeout_s=SOON)
    second = pool.submit("os:mkdir", str(tmp_path / "made"), timeout_s=SOON)
    assert second.cancel()
    third = pool.submit("operator:add", 1, 1, timeout_s=SOON)
    assert (first.result(), third.result()) == (None, 2)
    assert not (tmp_path / "made").exists()


def test_many_submissions_at_once(pool: workers.WorkerPool) -> None:
    """More than a pipe could hold of wake-up messages, from several threads."""
    futures: list[Future[object]] = []

    def submit() -> None:
        futures.extend(pool.submit("operator:add", n, n, timeout_s=SOON) for n in range(1500))

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(int(str(future.result(timeout=60))) for future in futures) == 4 * 1499 * 1500


def test_from_asyncio(pool: workers.WorkerPool) -> None:
    async def ask() -> list[object]:
        calls = [asyncio.wrap_future(pool.submit("operator:add", n, 1, timeout_s=SOON)) for n in range(5)]
        return await asyncio.gather(*calls)

    assert asyncio.run(ask()) == [1, 2, 3, 4, 5]


def test_close_kills_and_cancels() -> None:
    closing = workers.WorkerPool(1, memory_mb=1024)
    pid = int(str(evaluate(closing, PID)))
    running = closing.submit("time:sleep", 1000, timeout_s=SOON)
    queued = closing.submit("time:sleep", 1000, timeout_s=SOON)
    while not running.running():
        time.sleep(0.01)
    closing.close()
    closing.close()
    assert isinstance(running.exception(timeout=10), errors.Interrupted)
    assert queued.cancelled()
    with pytest.raises(CancelledError):
        queued.result()
    assert not psutil.pid_exists(pid)
    with pytest.raises(errors.Interrupted):
        closing.submit("time:sleep", 0, timeout_s=SOON)


def test_close_without_any_call() -> None:
    workers.WorkerPool(2, memory_mb=1024).close()


# --- how the main program was started ---------------------------------------------------------------------------------

MAIN = """
import sys
from pipeline import workers
def main():
    with workers.WorkerPool(1, memory_mb=1024) as pool:
        print(pool.submit("operator:add", 20, 22, timeout_s=60).result())
if __name__ == "__main__":
    sys.exit(main())
"""


@pytest.mark.parametrize("way", ["module", "package", "script", "command"])
def test_ways_to_start(way: str, tmp_path: Path) -> None:
    """`python -m`, a script, and a console script (a file without an ending): spawn imports each of them again."""
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(MAIN)
    (tmp_path / "script.py").write_text(MAIN)
    (tmp_path / "program").write_text(f"#!{sys.executable}\n{MAIN}")
    arguments = {
        "module": ["-m", "package.__main__"],
        "package": ["-m", "package"],
        "script": ["script.py"],
        "command": ["program"],
    }
    done = run(arguments[way], tmp_path)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


def test_without_a_main_guard_it_fails_and_does_not_multiply(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(MAIN.replace('if __name__ == "__main__":', "if True:"))
    done = run(["script.py"], tmp_path)
    assert done.returncode != 0
    assert "cannot be started" in done.stderr


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(workers.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


ORPHANING = textwrap.dedent(
    """
    import sys
    from pipeline import workers
    if __name__ == "__main__":
        pool = workers.WorkerPool(2, memory_mb=1024)
        pids = [pool.submit("os:getpid", timeout_s=60).result() for _ in range(2)]
        busy = pool.submit("builtins:eval", "[0 for _ in iter(int, 1)]", timeout_s=600)
        idle_too = pool.submit("os:getpid", timeout_s=600).result()
        while not busy.running():
            pass
        print(sys.argv[0], flush=True)
        sys.stdin.read()
    """
)


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    """Both the idle one and the one that spins in a parser."""
    script = tmp_path / "orphaning.py"
    script.write_text(ORPHANING)
    environment = {**os.environ, "PYTHONPATH": str(Path(workers.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, str(script)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline()
        children = psutil.Process(parent.pid).children(recursive=True)
        assert sum("spawn_main" in " ".join(child.cmdline()) for child in children) == 2
        parent.kill()
        parent.wait(10)
        _, alive = psutil.wait_procs(children, timeout=10)
        assert alive == []


def test_a_program_that_ends_without_closing_ends(tmp_path: Path) -> None:
    script = MAIN.replace(
        "    with workers.WorkerPool(1, memory_mb=1024) as pool:\n    ",
        "    pool = workers.WorkerPool(1, memory_mb=1024)\n",
    )
    (tmp_path / "script.py").write_text(script)
    done = run(["script.py"], tmp_path)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr


def test_a_call_that_got_no_processor_is_given_more_time(pool: workers.WorkerPool) -> None:
    assert pool.submit("time:sleep", 0.5, timeout_s=0.2).exception(timeout=60) is None


# --- order and calls that are sent ahead ------------------------------------------------------------------------------


def append(file: Path, word: object) -> str:
    return f"open({str(file)!r}, 'a').write('{word},')"


def test_a_higher_priority_goes_first(pool: workers.WorkerPool, tmp_path: Path) -> None:
    file = tmp_path / "order"
    busy = pool.submit("time:sleep", 0.3, timeout_s=SOON)
    while not busy.running():
        time.sleep(0.01)
    futures = [
        pool.submit("builtins:eval", append(file, word), timeout_s=SOON, priority=priority)
        for word, priority in (("a", 0), ("b", 5), ("c", 0), ("d", 9), ("e", 5))
    ]
    wait([busy, *futures])
    assert file.read_text() == "d,b,e,a,c,"


def test_brief_calls_answer_in_order_each_to_its_own(pool: workers.WorkerPool, tmp_path: Path) -> None:
    file = tmp_path / "order"
    futures = [
        pool.submit("builtins:eval", f"{append(file, n)} and {n}", timeout_s=SOON, brief=True) for n in range(1, 200)
    ]
    assert [future.result(timeout=60) for future in futures] == list(range(1, 200))
    assert file.read_text() == "".join(f"{n}," for n in range(1, 200))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (("os:_exit", 7), errors.WorkerCrash),
        (("time:sleep", 1000), errors.WorkerTimeout),
        (("builtins:eval", "len(bytearray(2 << 30))"), errors.WorkerMemory),
        (("builtins:int", "no number"), ValueError),
    ],
)
def test_what_was_sent_ahead_survives_the_call_before_it(
    pool: workers.WorkerPool, call: tuple[str, object], error: type[Exception]
) -> None:
    before = [pool.submit("operator:add", n, 0, timeout_s=SOON, brief=True) for n in range(3)]
    failing = pool.submit(*call, timeout_s=0.3 if error is errors.WorkerTimeout else SOON, brief=True)
    after = [pool.submit("operator:add", n, 100, timeout_s=SOON, brief=True) for n in range(8)]
    assert isinstance(failing.exception(timeout=60), error)
    assert [future.result(timeout=60) for future in (*before, *after)] == [0, 1, 2, *range(100, 108)]


def test_nothing_waits_behind_a_long_call(tmp_path: Path) -> None:
    """A brief call is sent ahead only where all before it are brief: else another worker may be free sooner."""
    with workers.WorkerPool(2, memory_mb=1024) as two:
        wait([two.submit("time:sleep", 0.2, timeout_s=SOON) for _ in range(2)])
        long = two.submit("time:sleep", 2.0, timeout_s=SOON)
        brief = [two.submit("operator:add", n, 1, timeout_s=SOON, brief=True) for n in range(50)]
        assert [future.result(timeout=60) for future in brief] == list(range(1, 51))
        assert not long.done()


def test_large_arguments_are_not_sent_ahead(pool: workers.WorkerPool) -> None:
    """They would fill the pipe of a worker that does not read, and with it the pool would stand still."""
    data = os.urandom(3_000_000)
    futures = [pool.submit("builtins:len", data, timeout_s=SOON, brief=True) for _ in range(6)]
    assert [future.result(timeout=60) for future in futures] == [len(data)] * 6


def test_each_call_that_was_sent_ahead_has_its_own_time(pool: workers.WorkerPool) -> None:
    futures = [pool.submit("time:sleep", 0.3, timeout_s=2.0, brief=True) for _ in range(8)]
    assert [future.result(timeout=60) for future in futures] == [None] * 8


def test_close_cancels_what_was_sent_ahead() -> None:
    closing = workers.WorkerPool(1, memory_mb=1024)
    assert evaluate(closing, "1 + 1") == 2
    running = closing.submit("time:sleep", 1000, timeout_s=SOON, brief=True)
    ahead = [closing.submit("time:sleep", 1000, timeout_s=SOON, brief=True) for _ in range(8)]
    while not ahead[0].running():
        time.sleep(0.01)
    closing.close()
    assert isinstance(running.exception(timeout=10), errors.Interrupted)
    assert all(future.cancelled() or isinstance(future.exception(timeout=10), errors.Interrupted) for future in ahead)


def test_a_call_may_ask_for_more_time(pool: workers.WorkerPool) -> None:
    """It has found pages to recognise; the limit of the next call is its own again."""
    code = "(__import__('pipeline.worker_process').worker_process.more_time(30), __import__('time').sleep(1))"
    assert evaluate(pool, code, timeout_s=0.2) == (None, None)
    with pytest.raises(errors.WorkerTimeout):
        evaluate(pool, "[0 for _ in iter(int, 1)]", timeout_s=0.2)
