"""Algorithm 1 of Liu et al. 2021: auxiliary losses, then stage by stage, layer by layer, Algorithm 2."""
