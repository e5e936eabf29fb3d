"""How the model learns: a clip through the network, how wrong it is, and the state of a run."""
