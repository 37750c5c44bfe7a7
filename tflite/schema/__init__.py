"""What a TFLite file holds, read and written without running it."""
