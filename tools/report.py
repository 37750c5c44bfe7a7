"""Makes the HTML page of a run, or of a comparison, from the files in its folder.

    dcp-tf report --output_dir=runs/mine

The page is self-contained: no scripts, no network access, readable on a phone.
"""

import os
import pathlib
import sys

if __package__ in (None, ""):
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dcp_tf.errors import UsageError
from dcp_tf.tools.cli.program import Program

PROGRAM = Program("report", __doc__)
PROGRAM.section("The run")
PROGRAM.path("output_dir", None, "The folder of the run; report.html goes there, or compare.html.")


def main(flags) -> None:
    """Writes the page and prints the table."""
    if not flags.output_dir:
        raise UsageError("say which run: --output_dir=FOLDER")
    from dcp_tf.files import read_json
    from dcp_tf.report import print_comparison, print_summary, write_comparison_page, write_report

    folder = pathlib.Path(flags.output_dir)
    if (folder / "compare.json").is_file() and not (folder / "summary.json").exists():
        comparison = read_json(folder / "compare.json")
        path = write_comparison_page(comparison, folder)
        print_comparison(comparison)
        print(f"written: {path}")
        return
    path = write_report(flags.output_dir)
    print_summary(read_json(path.parent / "summary.json"))
    print(f"written: {path}")


def run(argv=None) -> int:
    """The program as a function of its arguments."""
    return PROGRAM.run(main, argv)


if __name__ == "__main__":
    sys.exit(run())
