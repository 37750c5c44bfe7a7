"""Files for microcontrollers: run by TFLite Micro's own interpreter, and written as C arrays."""
