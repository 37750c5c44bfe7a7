"""One small rule per kind of layer or operation. Importing this package registers all rules."""

import importlib
import pkgutil

for _file in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_file.name}")
