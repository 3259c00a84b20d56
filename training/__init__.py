"""The recipe of the two bundled models: data, networks, training, evaluation."""
