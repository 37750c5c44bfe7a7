"""Maps `tools/`, `tflite/` and `experiments/` to packages inside of dcp_tf; all else stands in pyproject.toml."""

import shutil

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

MOVED = ("tools", "tflite", "experiments")  # beside dcp_tf in the checkout, inside of it once installed


class CleanBuild(build_py):
    """Builds from the sources alone: modules that an earlier build left in build/ would go into the wheel."""

    def run(self):
        """Empties the folder first."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    packages=[
        *find_packages(include=["dcp_tf", "dcp_tf.*"]),
        *(
            f"dcp_tf.{name}"
            for name in find_packages(include=[f"{folder}{end}" for folder in MOVED for end in ("", ".*")])
        ),
    ],
    package_dir={f"dcp_tf.{folder}": folder for folder in MOVED},
    cmdclass={"build_py": CleanBuild},
)
