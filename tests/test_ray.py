"""Jobs on a Ray cluster of two machines, whose processes and machines are killed: `make ray`.

The machines are processes of this computer, as `ray.cluster_utils` starts them. A test takes a
minute: every process of Ray imports a backend.
"""

import os
import random
import signal
import threading
from collections import Counter

import pytest
from test_race import network, race, same_race
from test_workers import SQUARES
from test_zoo_build import tiny

from keras_lsc.workers import Work, start_workers
from keras_lsc.zoo import build as building
from keras_lsc.zoo import registry

pytestmark = [pytest.mark.ray, pytest.mark.once(on="jax")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two machines of two cores, the one that this process is on, and another."""
    import ray
    from ray.cluster_utils import Cluster

    modules = tmp_path_factory.mktemp("modules")
    (modules / "squares_of_workers.py").write_text(SQUARES)
    (modules / "processes").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        # Its machines have the environment of this process.
        paths = [str(modules), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(paths))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        machines = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
        cluster = Cluster(initialize_head=True, head_node_args=machines)
        cluster.other = cluster.add_node(**machines)
        cluster.modules = modules
        cluster.more = lambda: cluster.add_node(**machines)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
        ray.shutdown()
        cluster.shutdown()


def squares_on(cluster, **options):
    return Work("squares_of_workers:squarer", (1, str(cluster.modules / "processes")), **options)


def processes(cluster):
    return [int(path.name) for path in (cluster.modules / "processes").iterdir()]


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def test_kills_of_workers_and_of_a_machine_lose_and_double_nothing(cluster):
    jobs = [list(range(50 * k, 50 * k + 50)) for k in range(40)]
    chance, killed, is_over = random.Random(0), set(), threading.Event()

    def kill_one_after_the_other():
        while len(killed) < 6 and not is_over.wait(chance.uniform(0.1, 2.0)):
            for process in processes(cluster):
                if process not in killed and kill(process):
                    killed.add(process)
                    break

    thread = threading.Thread(target=kill_one_after_the_other)
    thread.start()
    found = []

    def tell(answer):
        found.append(answer)
        if len(found) == 500:
            cluster.remove_node(cluster.other, allow_graceful=False)
            cluster.other = cluster.more()

    try:
        with start_workers(squares_on(cluster), "ray") as workers:
            workers.run(jobs, tell)
    finally:
        is_over.set()
        thread.join()
    assert len(killed) >= 3
    assert [answer.failure for answer in found if answer.failure is not None] == []
    assert Counter(answer.value for answer in found) == Counter(k * k + 1 for k in range(2000))
    for number, items in enumerate(jobs):
        values = [answer.value for answer in found if answer.job == number]
        assert values == [item * item + 1 for item in items]


def test_errors_are_told_at_once_and_what_dies_of_itself_after_three(cluster):
    work = squares_on(cluster, environment={"OWN": "ours"})
    jobs = [[1, "raises", 2], [3, "dies"], ["environment"]]
    found = []
    with start_workers(work, "ray") as workers:
        workers.run(jobs, found.append)
    assert sorted(a.value for a in found if a.job < 2 and a.failure is None) == [2, 10]
    failures = {a.job: a.failure for a in found if a.failure is not None}
    assert "KeyError: 'no square'" in failures[0].words
    assert failures[1].end == "WorkerCrashedError"
    (environment,) = (answer.value for answer in found if answer.job == 2)
    assert environment[:2] == ("1", "ours")


def test_an_error_of_who_listens_ends_the_tasks(cluster):
    import ray

    def interrupt(answer):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), start_workers(squares_on(cluster), "ray") as workers:
        workers.run([list(range(10**5))] * 4, interrupt)

    @ray.remote(num_cpus=2)
    def free():
        return True

    # Which a machine is only once nothing else runs there.
    assert ray.get(free.remote(), timeout=120)


def test_a_build_whose_process_is_killed_is_built_once(cluster, tmp_path):
    recipes = [tiny(), tiny(seed=1, depth=3)]
    before = {recipe.name: building.build(recipe, tmp_path / "here") for recipe in recipes}
    is_over = threading.Event()

    def kill_one():
        while not is_over.wait(0.5):
            for task in tasks_of_ray():
                if kill(task):
                    return

    thread = threading.Thread(target=kill_one)
    thread.start()
    told = []
    try:
        failures = building.build_all(
            recipes, tmp_path, "ray", lambda recipe, problem: told.append((recipe.name, problem))
        )
    finally:
        is_over.set()
        thread.join()
    assert failures == 0
    assert sorted(told) == sorted((recipe.name, None) for recipe in recipes)
    entries = registry.read_index(tmp_path / "index.json")
    assert {n: e["sha256"] for n, e in entries.items()} == {
        n: e["sha256"] for n, e in before.items()
    }
    assert all(building.is_built(recipe, tmp_path) for recipe in recipes)
    assert list((tmp_path / "building").iterdir()) == []


def tasks_of_ray():
    """The processes of Ray that do a job, which they have as their name."""
    for path in os.listdir("/proc"):
        try:
            with open(f"/proc/{path}/cmdline", "rb") as file:
                if b"ray::answers_of_task" in file.read():
                    yield int(path)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError, ValueError):
            continue


def test_a_race_comes_out_the_same(cluster):
    same_race(race(network(), jobs="ray"), race(network()))
