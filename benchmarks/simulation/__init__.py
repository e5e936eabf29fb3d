"""A fleet of devices that serve streams, in simulation: an event for each round of a device, not for each frame."""
