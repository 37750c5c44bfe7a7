"""The selection images and their activations at a cut of the model, within a memory budget."""
