"""What comes from the network before it is a call of the service: connections, and the bytes of messages."""
