"""Latency of files on this machine, and its prediction."""
