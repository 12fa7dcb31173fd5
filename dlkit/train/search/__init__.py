"""The search for hyperparameters: spaces, the study on the disk, its trials, what their results say. No TensorFlow."""
