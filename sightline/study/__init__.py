"""Studies: grids of arms and seeds that are planned, run, resumed and reported."""
