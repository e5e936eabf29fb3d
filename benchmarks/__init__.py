"""Where every figure in the documentation comes from: one command each, both sides in one run."""

import masklet_server.engine  # noqa: F401 - sets up OpenMP, which must come before torch is loaded, for both sides
