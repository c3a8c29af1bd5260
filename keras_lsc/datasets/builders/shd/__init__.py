"""Prepares the dataset `shd` in the form of TensorFlow Datasets."""
