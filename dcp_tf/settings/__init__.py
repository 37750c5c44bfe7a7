"""Settings, each said once: default, help, choices and range. Nothing here imports TensorFlow."""
