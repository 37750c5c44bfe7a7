"""dcp_tf: discrimination-aware pruning of Keras models, down to a measured TFLite file."""

import pathlib

__version__ = "0.1.0"

# In a checkout `tools/` and `tflite/` lie beside this package; installation moves them into it (see setup.py).
_CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
if (_CHECKOUT / "WORKSPACE.md").is_file():
    __path__.append(str(_CHECKOUT))
