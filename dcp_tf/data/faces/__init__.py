"""Data sets of faces: identities to train on, pairs to verify."""
