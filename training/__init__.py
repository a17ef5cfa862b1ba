"""From shapes and backgrounds to a bundle: data, training, evaluation, export."""
