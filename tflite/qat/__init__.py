"""Quantization-aware training through tf_keras and TFMOT."""
