"""Makes the parts of the documentation that are generated: reference pages, and the picture of the README."""
