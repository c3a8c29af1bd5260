"""Builder of the Spiking Heidelberg Digits, one example per recording, as spike times and units."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from keras_lsc.datasets.builders.files import DamagedFileError, check_digest, original_files

_FILES = {"train": "shd_train.h5", "test": "shd_test.h5"}
_COLUMNS = ("spikes/times", "spikes/units", "labels", "extra/speaker")


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builder of the Spiking Heidelberg Digits, one example per recording.

    The MD5 sums are those that the authors publish for the uncompressed files; they hold for
    files given by hand as well as for downloaded ones.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    URL = "https://zenkelab.org/datasets"
    MD5: ClassVar = {
        "shd_train.h5": "8e9877c85f29a28dd353ea6a54402667",
        "shd_test.h5": "207ad1295a0ab611e22d1734989c254e",
    }
    MANUAL_FILES = tuple(_FILES.values())
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put shd_train.h5 and shd_test.h5, uncompressed, there."

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "times": tfds.features.Tensor(shape=(None,), dtype=np.float32),
                    "units": tfds.features.Tensor(shape=(None,), dtype=np.int32),
                    "label": tfds.features.ClassLabel(num_classes=20),
                    "speaker": tfds.features.Scalar(np.int32),
                }
            ),
            homepage="https://zenkelab.org/resources/spiking-heidelberg-datasets-shd/",
            license="CC BY 4.0",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        urls = {name: f"{self.URL}/{name}.gz" for name in _FILES.values()}
        paths = original_files(dl_manager, urls)
        for name, path in paths.items():
            check_digest(path, self.MD5[name], "md5")
        return {split: self._generate_examples(paths[name]) for split, name in _FILES.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(_recordings(path))


def _recordings(path: Path) -> Iterator[dict[str, Any]]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            columns = {name: file[name] for name in _COLUMNS}
            lengths = {
                one.shape if isinstance(one, h5py.Dataset) else None for one in columns.values()
            }
            if len(lengths) != 1 or len(next(iter(lengths)) or ()) != 1:
                raise DamagedFileError(f"{path}: {', '.join(_COLUMNS)} do not have one row each")
            labels, speakers = columns["labels"][:], columns["extra/speaker"][:]
            for row, (label, speaker) in enumerate(zip(labels, speakers, strict=True)):
                yield {
                    "times": np.asarray(columns["spikes/times"][row], np.float32),
                    "units": np.asarray(columns["spikes/units"][row], np.int32),
                    "label": int(label),
                    "speaker": int(speaker),
                }
    # What h5py raises for damaged files, besides OSError.
    except (KeyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
        raise DamagedFileError(f"{path} cannot be read: {error}") from error
