"""Flags, and the settings that they make."""
