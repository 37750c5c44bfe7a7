"""`python -m dcp_tf` lists the programs, as `python -m dcp_tf.tools` does."""

import sys

if __name__ == "__main__":
    from dcp_tf.tools.__main__ import main

    sys.exit(main())
