"""The UEA archive: its file format, and two of its problems."""

import numpy as np
import pytest

from keras_lsc import datasets
from keras_lsc.datasets.examples import padded

pytestmark = pytest.mark.once

# What float() takes, and is no finite number written in digits.
STRANGE = ("1e999", "-1e999", "nan", "inf", "-Infinity", "1_0", "٣", "0x10", "", "1 2")
HEADER = """\
#a comment
@problemName Small
@timeStamps false
@dimensions 2
@equalLength false
@classLabel true left right
@data
"""


@pytest.fixture(scope="module")
def archive(raw_folder):
    if not (raw_folder / "uea").is_dir():
        pytest.skip(f"the UEA archive is not in {raw_folder}")
    return raw_folder / "uea"


def written(tmp_path, text, name="small.ts"):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text(text)
    return tmp_path / name


@pytest.mark.parametrize(
    ("problem", "counts", "lengths", "dimensions"),
    [
        (
            "JapaneseVowels",
            {"TRAIN": [30] * 9, "TEST": [31, 35, 88, 44, 29, 24, 40, 50, 29]},
            (7, 29),
            12,
        ),
        ("BasicMotions", {"TRAIN": [10] * 4, "TEST": [10] * 4}, (100, 100), 6),
    ],
)
def test_files_hold_the_published_series(archive, problem, counts, lengths, dimensions):
    files = [
        datasets.read_ts(archive / problem / f"{problem}_{part}.ts") for part in ("TRAIN", "TEST")
    ]
    for file, expected in zip(files, counts.values(), strict=True):
        assert file.name == problem
        assert np.bincount(file.labels).tolist() == expected
        assert {series.shape[1] for series in file.series} == {dimensions}
    found = [len(series) for file in files for series in file.series]
    assert (min(found), max(found)) == lengths


def test_values_are_those_of_the_file(archive):
    file = datasets.read_ts(archive / "BasicMotions" / "BasicMotions_TRAIN.ts")
    assert file.classes == ("Standing", "Running", "Walking", "Badminton")
    np.testing.assert_array_equal(
        file.series[0][:5, 0], [0.079106, 0.079106, -0.903497, 1.116125, 1.6382]
    )


def test_splits_are_disjoint_stratified_and_complete(archive):
    options = {"problem": "JapaneseVowels", "data_dir": archive}
    everything, labels, _ = datasets.load(
        "uea", "train", masks=True, validation_share=0.0, **options
    )
    train, train_labels = datasets.load("uea", "train", **options)
    validation, validation_labels = datasets.load("uea", "validation", **options)
    assert np.bincount(train_labels).tolist() == [24] * 9
    assert np.bincount(validation_labels).tolist() == [6] * 9
    parts = {one.tobytes() for one in np.concatenate([train, validation])}
    assert parts == {one.tobytes() for one in everything}
    assert len(parts) == len(everything) == len(labels) == 270
    test, _ = datasets.load("uea", "test", **options)
    assert len(test) == 370
    assert parts.isdisjoint({one.tobytes() for one in test})


def test_series_are_padded_to_the_longest_of_both_files(archive):
    x, _, mask = datasets.load(
        "uea", "train", problem="JapaneseVowels", data_dir=archive, masks=True
    )
    assert x.shape == (216, 29, 12)
    file = datasets.read_ts(archive / "JapaneseVowels" / "JapaneseVowels_TRAIN.ts")
    np.testing.assert_allclose(x[0][mask[0]], file.series[0], rtol=1e-6)
    assert mask.sum(axis=1).max() == 26
    assert not x[~mask].any()


def test_the_format_in_small(tmp_path):
    text = HEADER + "1,2,3:4,5,6:left\n\n1.5,?:-2e-1,0:right\n"
    file = datasets.read_ts(written(tmp_path, text))
    assert (file.name, file.classes, file.labels.tolist()) == ("Small", ("left", "right"), [0, 1])
    np.testing.assert_array_equal(file.series[0], [[1, 4], [2, 5], [3, 6]])
    np.testing.assert_array_equal(file.series[1], [[1.5, -0.2], [np.nan, 0]])


def test_files_without_labels(tmp_path):
    text = "@problemName Unknown\n@classLabel false\n@data\n1,2:3,4\n"
    file = datasets.read_ts(written(tmp_path, text))
    assert file.labels is None
    np.testing.assert_array_equal(file.series[0], [[1, 3], [2, 4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,2:3,4:left\n", "line 1: data before the line @data"),
        (HEADER, "no examples; is the file complete"),
        (HEADER + "1,2:3,4:middle\n", "line 8: ends in 'middle', which is none of the classes"),
        (HEADER + "1,2:3,4:left\n1,2:3", "line 9: ends in '3'"),
        (HEADER + "1,2:left\n", "line 8: 1 dimensions, and the header says 2"),
        (HEADER + "1,2:3:left\n", "line 8: the dimensions differ in length"),
        (HEADER + "1,x:3,4:left\n", "line 8: 'x' is no finite number"),
        (HEADER.replace("false", "true", 1), "line 7: files with time stamps are not read"),
        (
            HEADER.replace("@equal", "@seriesLength 3\n@equal") + "1,2:3,4:left\n",
            "line 9: 2 time steps, and the header says 3",
        ),
        *(
            (HEADER + f"1,{strange}:3,4:left\n", "line 8: .* is no finite number")
            for strange in STRANGE
        ),
        *((HEADER + f"1,2:3,4:left\n{line}\n", "line 9: ") for line in ("left", "1:left", ":::")),
        ("@problemName Small\n@classLabel false\n", "no line @data; is the file complete"),
        ("@classLabel true\n@data\n1\n", "line 1: @classLabel true names no classes"),
        ("@classLabel true a a\n@data\n1:a\n", "line 1: @classLabel true names a class twice"),
        ("@classLabel perhaps\n@data\n1\n", "line 1: @classlabel must be true or false"),
        ("@targetlabel true\n@data\n1:2.5\n", "line 1: files with numbers to be predicted"),
        ("@data\n1,2\n1,2:3,4\n", "line 3: 2 dimensions, and the examples before have 1"),
        ("@equalLength true\n@data\n1,2\n1\n", "line 4: 1 time steps where the first has 2"),
        ("@data 1,2\n", "line 1: @data stands alone"),
        ("@\n", "line 1: an @ without a key"),
        ("@dimensions 1\n@dimensions 2\n", "line 2: @dimensions is '2', and was '1' before"),
        *(
            (f"@{key} {value}\n@data\n1\n", f"line 1: @{key.lower()} must be a positive integer")
            for key in ("dimensions", "seriesLength")
            for value in ("0", "-1", "2.5", "x", "1_0", "٣", "9" * 5000, "")
        ),
    ],
)
def test_damaged_files_name_the_line(tmp_path, text, message):
    with pytest.raises(datasets.TimeSeriesFormatError, match=message):
        datasets.read_ts(written(tmp_path, text))


def test_a_damaged_file_of_the_archive_is_reported(tmp_path):
    written(tmp_path, HEADER + "1,2:3,4:left\n", "Small/Small_TRAIN.ts")
    written(tmp_path, HEADER + "1,2:3", "Small/Small_TEST.ts")
    with pytest.raises(datasets.DatasetUnavailableError, match=r"Small cannot be read.*line 8"):
        datasets.load("uea", problem="Small", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"@data\n1,2\n\xff\xfe\n", "line 3: no text in UTF-8"),
        (HEADER.encode("utf-16"), "line 1: no text in UTF-8"),
        (b"@data\n1,2\n1,\0\n", "line 3: has a NUL byte"),
        (b"", "no line @data"),
    ],
)
def test_bytes_that_are_no_text_name_the_line(tmp_path, content, message):
    (tmp_path / "small.ts").write_bytes(content)
    with pytest.raises(datasets.TimeSeriesFormatError, match=message):
        datasets.read_ts(tmp_path / "small.ts")


@pytest.mark.parametrize("path", [None, 3, b"small.ts", "a\0b"])
def test_what_is_no_path(path):
    with pytest.raises(ValueError, match="path must be the path of a"):
        datasets.read_ts(path)


@pytest.mark.parametrize(
    "test", [HEADER.replace("left right", "right left"), HEADER.replace("sions 2", "sions 1")]
)
def test_files_of_two_problems_are_refused(tmp_path, test):
    values = "1,2:left" if "sions 1" in test else "1,2:3,4:left"
    written(tmp_path, HEADER + "1,2:3,4:left\n", "Small/Small_TRAIN.ts")
    written(tmp_path, f"{test}{values}\n", "Small/Small_TEST.ts")
    with pytest.raises(datasets.DatasetUnavailableError, match="do not belong together"):
        datasets.load("uea", problem="Small", data_dir=tmp_path, validation_share=0.0)


def test_values_that_float32_cannot_hold_are_refused(tmp_path):
    for part in ("TRAIN", "TEST"):
        written(tmp_path, HEADER + "1,1e300:3,4:left\n", f"Small/Small_{part}.ts")
    with pytest.raises(ValueError, match=r"up to 1e\+300, too large for float32"):
        datasets.load("uea", "test", problem="Small", data_dir=tmp_path)


def test_padding_beyond_the_memory_is_refused():
    with pytest.raises(MemoryError, match=r"shape \(4, 10000000000000, 1\).*this computer has"):
        padded([np.ones((1, 1))] * 4, steps=10**13)


def test_missing_values_are_not_passed_on(tmp_path):
    for part in ("TRAIN", "TEST"):
        written(tmp_path, HEADER + "1,?:3,4:left\n", f"Small/Small_{part}.ts")
    with pytest.raises(ValueError, match="values are missing in Small"):
        datasets.load("uea", "test", problem="Small", data_dir=tmp_path)


def test_problems_are_named(tmp_path):
    for part in ("TRAIN", "TEST"):
        written(tmp_path, HEADER + "1,2:3,4:left\n", f"Small/Small_{part}.ts")
    with pytest.raises(ValueError, match=r"name one.*there are: Small\."):
        datasets.load("uea", data_dir=tmp_path)
    with pytest.raises(datasets.DatasetUnavailableError, match=r"'Smal' is not.*There are: Small"):
        datasets.load("uea", problem="Smal", data_dir=tmp_path)
    with pytest.raises(ValueError, match=r"validation_share must be .* at least 0 and below 1"):
        datasets.load("uea", problem="Small", data_dir=tmp_path, validation_share=1.0)
    with pytest.raises(ValueError, match="leaves train without examples"):
        datasets.load("uea", problem="Small", data_dir=tmp_path)
