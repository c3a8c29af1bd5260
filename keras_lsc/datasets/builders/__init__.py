"""Builders of TensorFlow Datasets for data that its catalogue lacks.

Importing one of the modules `<name>/<name>_dataset_builder.py` registers it: `tfds.builder` and
`tfds.data_source` know its name from then on. `keras_lsc.datasets.load` does so by itself.
"""
