"""TFLite files on an emulated Arm processor: their outputs, and the instructions that an inference executes."""
