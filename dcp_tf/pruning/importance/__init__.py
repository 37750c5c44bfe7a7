"""Criteria: each ranks the channels of groups in one look at the weights or at the data, and registers itself."""
