"""The programs of dcp_tf: each reads flags, calls the library, prints a table and writes what a run leaves behind."""
