"""Workers that Ray Serve places: each has a whole server in its process."""
