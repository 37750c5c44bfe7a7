"""Algorithm 2 and the problems that it solves: scores, losses and sub-problems over channels or kernels."""
