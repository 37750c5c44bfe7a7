"""Latency of files on Android devices."""
