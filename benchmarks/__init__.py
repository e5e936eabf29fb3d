"""Where every figure in the documentation comes from: one command each, both sides in one run."""
