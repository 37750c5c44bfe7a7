"""Installs dcp_tf, with `tools/`, `tflite/` and `experiments/` as packages inside it."""

import pathlib
import re
import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "dcp_tf" / "__init__.py").read_text()).group(1)
MOVED = ("tools", "tflite", "experiments")  # beside dcp_tf in the checkout, inside of it once installed


class CleanBuild(build_py):
    """Builds from the sources alone: modules that an earlier build left in build/ would go into the wheel."""

    def run(self):
        """Empties the folder first."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    name="dcp_tf",
    version=VERSION,
    description="Discrimination-aware pruning of Keras models, down to a quantized, measured TFLite file",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=[
        *find_packages(include=["dcp_tf", "dcp_tf.*"]),
        *(
            f"dcp_tf.{name}"
            for name in find_packages(include=[f"{folder}{end}" for folder in MOVED for end in ("", ".*")])
        ),
    ],
    package_dir={f"dcp_tf.{folder}": folder for folder in MOVED},
    package_data={"dcp_tf": ["py.typed"], "dcp_tf.report": ["*.html", "*.css"]},
    cmdclass={"build_py": CleanBuild},
    install_requires=[
        "absl-py>=1.4",
        "ai-edge-litert>=2.0",
        "flatbuffers>=23.5",
        "h5py>=3.10",
        "jinja2>=3.1",
        "importlib_resources>=6.0",  # tensorflow-datasets imports it to download, without requiring it
        "keras>=3.12",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=10.0",
        "rich>=13.0",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "tensorflow>=2.21",
        "tensorflow-datasets>=4.9",
        "tensorflow-model-optimization>=0.8",
        "tf_keras>=2.21",
        "threadpoolctl>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "edge": ["ai-edge-quantizer>=0.4"],
        "hub": ["keras-hub>=0.21"],
        "test": ["hypothesis>=6.100", "pytest>=8.0", "pytest-xdist>=3.5", "ruff>=0.6"],
    },
    entry_points={"console_scripts": ["dcp-quickstart=dcp_tf.tools.quickstart:run"]},
)
