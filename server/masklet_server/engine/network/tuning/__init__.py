"""How a GPU computes: candidates are compared with the plain way, timed at the first start, and the choice is kept."""
