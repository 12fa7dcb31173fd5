"""Sizes and texts of reference/text_cnn.npz, which make_text_cnn_reference.py writes."""

VOCABULARY, WIDTH, MAPS, CLASSES, WINDOWS = 11, 6, 4, 3, (2, 3, 5)
TEXTS = [[5], [4, 9, 10, 3, 7, 5, 8], [3, 3], [10, 6, 4]]
