"""Every job is done once, whichever processes are killed meanwhile."""

import os
import random
import signal
import threading
import time
from collections import Counter

import pytest

from keras_lsc.workers import Work, WorkerFailedError, checked_jobs, start_workers

pytestmark = pytest.mark.once

# In place of the package, which takes seconds to import.
SQUARES = """
import os, signal, sys, time
def squarer(offset, folder):
    def squares(items):
        for item in items:
            if item == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            if item == "raises":
                raise KeyError("no square")
            if item == "exits":
                sys.exit(3)
            if item == "environment":
                yield os.environ["OMP_NUM_THREADS"], os.environ["OWN"], os.getpid()
                continue
            time.sleep(0.005)
            open(os.path.join(folder, str(os.getpid())), "w").close()
            yield item * item + offset
    return squares
def short(offset, folder):
    return lambda items: iter(())
"""


@pytest.fixture
def squares(tmp_path, monkeypatch):
    """Work that takes numbers and a few words, and notes the processes that did it."""
    (tmp_path / "squares_of_workers.py").write_text(SQUARES)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "processes"
    folder.mkdir()

    def work(maker="squarer", **options):
        return Work(f"squares_of_workers:{maker}", (1, str(folder)), **options)

    work.processes = lambda: [int(path.name) for path in folder.iterdir()]
    return work


def answers(work, jobs, count=2):
    found = []
    with start_workers(work, count) as workers:
        workers.run(jobs, found.append)
    return found


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_jobs_are_answered_in_turn_and_workers_are_used_again(squares):
    jobs = [list(range(k, k + 3)) for k in range(30)]
    found = answers(squares(), iter(jobs))
    for number, items in enumerate(jobs):
        values = [answer.value for answer in found if answer.job == number]
        assert values == [item * item + 1 for item in items]
    assert 1 <= len(squares.processes()) <= 2
    assert not any(is_running(process) for process in squares.processes())


def test_a_job_of_a_fresh_worker_has_a_process_of_its_own(squares):
    answers(squares(is_fresh=True), [[1, 2], [3], [4]])
    assert len(squares.processes()) == 3


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this operating system")
def test_random_kills_lose_and_double_nothing(squares):
    """Twenty kills in a few hundred items, whatever a worker does at that moment."""
    jobs = [list(range(10 * k, 10 * k + 10)) for k in range(40)]
    chance, killed, is_over = random.Random(0), set(), threading.Event()

    def kill():
        while len(killed) < 20 and not is_over.wait(chance.uniform(0.01, 0.1)):
            for process in squares.processes():
                if process not in killed:
                    killed.add(process)
                    os.kill(process, signal.SIGKILL)
                    break

    thread = threading.Thread(target=kill)
    thread.start()
    found = answers(squares(), jobs)
    is_over.set()
    thread.join()
    assert len(killed) >= 5
    assert all(answer.failure is None for answer in found)
    assert Counter(answer.value for answer in found) == Counter(k * k + 1 for k in range(400))


def test_what_dies_of_itself_is_given_up_after_three_and_errors_at_once(squares):
    jobs = [[1, "dies", 2], [3, "raises", 4], [5, "exits"], [6, 7]]
    found = answers(squares(is_fresh=True), jobs)
    values = [[a.value for a in found if a.job == k and a.failure is None] for k in range(4)]
    assert values == [[2], [10], [26], [37, 50]]
    failures = {a.job: a.failure for a in found if a.failure is not None}
    assert {k: failure.end for k, failure in failures.items()} == {
        0: "signal 9",
        1: "exit code 1",
        2: "exit code 3",
    }
    assert failures[1].words.startswith("Traceback")
    assert str(failures[1]) == "the worker ended with exit code 1: KeyError: 'no square'"
    # The first process answered an item; two more died of the next.
    assert len(squares.processes()) == 4


def test_a_worker_that_answers_too_little_has_failed(squares):
    (answer,) = answers(squares("short"), [[1]], 1)
    assert "zip()" in str(answer.failure)


def test_an_error_of_who_listens_ends_all_workers(squares):
    def interrupt(answer):
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt), start_workers(squares(), 2) as workers:
        workers.run([list(range(10**5))] * 2, interrupt)
    assert not any(is_running(process) for process in squares.processes())
    assert time.monotonic() - begin < 100


def test_workers_have_their_share_of_the_cores_unless_told_otherwise(squares, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    work = squares(environment={"OWN": "ours"})
    (answer,) = answers(work, [["environment"]], 4)
    assert answer.value[:2] == ("2", "ours")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("OWN", "theirs")
    (answer,) = answers(work, [["environment"]], 4)
    assert answer.value[:2] == ("5", "theirs")


def test_jobs_are_numbers_or_ray():
    assert checked_jobs(3) == 3
    for jobs in (0, -1, True, 1.5, "2", "Ray", None):
        with pytest.raises(ValueError, match="jobs must be a positive integer"):
            checked_jobs(jobs)
    assert issubclass(WorkerFailedError, RuntimeError)
