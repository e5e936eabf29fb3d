"""Videos that the server fetches by URL."""
