"""From data to a bundle: examples, training, evaluation, calibration, export."""
