"""Prepares the dataset `ptb` in the form of TensorFlow Datasets."""
