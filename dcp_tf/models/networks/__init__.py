"""The networks that come with dcp_tf, one family per file."""
