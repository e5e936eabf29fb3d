"""Many servers behind one address: gateways that pass streams on, and workers that Ray or an operator places."""
