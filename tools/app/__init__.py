"""The steps of the programs."""
