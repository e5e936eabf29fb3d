"""Stand-ins for devices."""
