"""The gateway: takes calls at one address, and passes their bytes on to workers."""
