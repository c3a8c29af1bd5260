"""The texts: exact token counts, windows and streams, and the builder of the Penn Treebank."""

import functools
import http.server
import itertools
import shutil
import threading

import numpy as np
import pytest
from harness import run_python

from keras_lsc import datasets
from keras_lsc.datasets.ptb import END_OF_SENTENCE

pytestmark = pytest.mark.once

PTB_TOKENS = {"train": 929_589, "validation": 73_760, "test": 82_430}
PTB_FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}


@pytest.fixture(scope="module")
def ptb_files(raw_folder):
    if not (raw_folder / "ptb").is_dir():
        pytest.skip(f"the Penn Treebank is not in {raw_folder}")
    return raw_folder / "ptb"


@pytest.fixture(scope="module")
def ptb(ptb_files, tmp_path_factory):
    """The options that read the Penn Treebank, prepared in a folder of this test run."""
    pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("datasets")
    options = {"data_dir": folder, "manual_dir": ptb_files, "download": False}
    datasets.stream("ptb", "test", **options)
    return {"data_dir": folder, "download": False}


@pytest.fixture(scope="module")
def shakespeare(tfds_folder):
    if datasets.prepared("tiny_shakespeare", tfds_folder) is None:
        pytest.skip(f"tiny_shakespeare is not prepared in {tfds_folder}")
    return {"data_dir": tfds_folder, "download": False}


@pytest.mark.parametrize("split", PTB_TOKENS)
def test_ptb_has_the_published_tokens(ptb, ptb_files, split):
    tokens, vocabulary = datasets.stream("ptb", split, **ptb), datasets.vocabulary("ptb", **ptb)
    assert len(tokens) == PTB_TOKENS[split]
    assert tokens.dtype == np.int32
    lines = (ptb_files / PTB_FILES[split]).read_text().splitlines()
    assert (tokens == vocabulary.index(END_OF_SENTENCE)).sum() == len(lines)
    text = " ".join(vocabulary[token] for token in tokens)
    assert text == " ".join(f"{line.strip()} {END_OF_SENTENCE}" for line in lines)


def test_the_vocabulary_of_ptb_is_that_of_the_training_split(ptb):
    vocabulary = datasets.vocabulary("ptb", **ptb)
    assert len(vocabulary) == len(set(vocabulary)) == 10_000
    counts = np.bincount(datasets.stream("ptb", "train", **ptb))
    assert len(counts) == 10_000
    assert counts.min() >= 1
    # The most frequent first; the three are those of every account of this text.
    assert (np.diff(counts) <= 0).all()
    assert vocabulary[:3] == ("the", "<unk>", END_OF_SENTENCE)


def test_windows_follow_one_another(ptb):
    tokens = datasets.stream("ptb", "validation", **ptb)
    x, y = datasets.load("ptb", "validation", steps=20, **ptb)
    assert x.shape == y.shape == ((73_760 - 1) // 20, 20)
    np.testing.assert_array_equal(x.ravel(), tokens[: x.size])
    np.testing.assert_array_equal(y.ravel(), tokens[1 : x.size + 1])


def test_contiguous_batches_of_ptb_hold_the_text(ptb):
    batches = datasets.batches("ptb", "test", batch_size=10, steps=35, **ptb)
    x = np.concatenate([x for x, _ in batches], axis=1)
    y = np.concatenate([y for _, y in batches], axis=1)
    tokens = datasets.stream("ptb", "test", **ptb)
    lane = (82_430 - 1) // 10
    assert x.shape == (10, lane // 35 * 35)
    for row in range(10):
        np.testing.assert_array_equal(x[row], tokens[row * lane :][: x.shape[1]])
        np.testing.assert_array_equal(y[row], tokens[row * lane + 1 :][: x.shape[1]])


@pytest.mark.parametrize(
    ("split", "count", "begins"),
    [
        ("train", 1_003_854, "First Citizen:\nBefore we proceed any further"),
        ("validation", 55_770, "?\n\nGREMIO:\nGood morrow, neighbour Baptista"),
        ("test", 55_770, "rance ta'en\nAs shall with either part's agreement"),
    ],
)
def test_tiny_shakespeare_is_the_published_text(shakespeare, split, count, begins):
    tokens = datasets.stream("tiny_shakespeare", split, **shakespeare)
    vocabulary = datasets.vocabulary("tiny_shakespeare", **shakespeare)
    assert len(tokens) == count
    assert len(vocabulary) == 65
    assert "".join(vocabulary[token] for token in tokens[: len(begins)]) == begins


def test_splits_of_texts_do_not_overlap(ptb, shakespeare):
    for name, options in (("ptb", ptb), ("tiny_shakespeare", shakespeare)):
        # Passages too long to be repeated by accident.
        passages = [
            {tuple(one.tolist()) for one in datasets.load(name, split, steps=60, **options)[0]}
            for split in ("train", "validation", "test")
        ]
        vocabulary = datasets.vocabulary(name, **options)
        for one, other in itertools.combinations(passages, 2):
            for passage in one & other:
                # Numbers in the newspaper's daily tables, all of them written N, are.
                assert [vocabulary[token] for token in passage].count("N") >= 10
        assert sum(map(len, passages)) - len(set.union(*passages)) <= 5


@pytest.mark.parametrize("name", ["ptb", "tiny_shakespeare"])
def test_what_a_text_cannot_do(name):
    with pytest.raises(ValueError, match="masks=True has no meaning"):
        datasets.batches(name, masks=True)
    with pytest.raises(ValueError, match="shuffle=True has no meaning"):
        datasets.batches(name, shuffle=True)
    with pytest.raises(TypeError, match="takes no limit"):
        datasets.batches(name, limit=3)
    with pytest.raises(ValueError, match="steps must be a positive integer, got 0"):
        datasets.load(name, steps=0)


def test_only_texts_have_streams():
    for function in (datasets.stream, datasets.vocabulary):
        with pytest.raises(ValueError, match="smnist is no text; texts are: ptb, tiny_shakespeare"):
            function("smnist")


def test_preparing_ptb_needs_no_tensorflow(ptb_files, tmp_path):
    program = (
        "import sys\n"
        "from keras_lsc import datasets\n"
        "tokens = datasets.stream('ptb', 'validation', data_dir=sys.argv[1],\n"
        "                         manual_dir=sys.argv[2], download=False)\n"
        "print(len(tokens), 'tensorflow' in sys.modules)\n"
    )
    printed = run_python(program, tmp_path, ptb_files, backend="jax")
    assert printed.split()[-2:] == ["73760", "False"]


def test_a_damaged_file_is_refused_and_leaves_nothing(ptb_files, tmp_path):
    manual, prepared = tmp_path / "manual", tmp_path / "prepared"
    shutil.copytree(ptb_files, manual)
    half = (ptb_files / "ptb.train.txt").read_bytes()[:2_000_000]
    (manual / "ptb.train.txt").write_bytes(half)
    options = {"data_dir": prepared, "manual_dir": manual, "download": False}
    with pytest.raises(datasets.DatasetUnavailableError, match=r"ptb\.train\.txt is not the publ"):
        datasets.stream("ptb", "test", **options)
    assert datasets.prepared("ptb", prepared) is None
    with pytest.raises(datasets.DatasetUnavailableError, match="is not prepared in"):
        datasets.stream("ptb", "test", data_dir=prepared, download=False)
    shutil.copy(ptb_files / "ptb.train.txt", manual)
    assert len(datasets.stream("ptb", "test", **options)) == PTB_TOKENS["test"]


class _Server(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        """Keeps the output of the tests clean."""


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A folder, and the address of a server on this computer that hands out its files."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(_Server, directory=str(folder))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_half_downloaded_file_is_refused_and_fetched_again(
    ptb_files, served, tmp_path, monkeypatch
):
    from keras_lsc.datasets.builders.ptb.ptb_dataset_builder import Builder

    folder, address = served
    checksums = {
        url.replace(Builder.URL, address): known for url, known in Builder.url_infos.items()
    }
    monkeypatch.setattr(Builder, "URL", address)
    monkeypatch.setattr(Builder, "url_infos", checksums)
    shutil.copytree(ptb_files, folder, dirs_exist_ok=True)
    (folder / "ptb.test.txt").write_bytes((ptb_files / "ptb.test.txt").read_bytes()[:100_000])
    prepared = tmp_path / "prepared"
    with pytest.raises(datasets.DatasetUnavailableError, match="fetching it failed"):
        datasets.stream("ptb", "test", data_dir=prepared)
    assert datasets.prepared("ptb", prepared) is None
    shutil.copy(ptb_files / "ptb.test.txt", folder)
    assert len(datasets.stream("ptb", "test", data_dir=prepared)) == PTB_TOKENS["test"]
