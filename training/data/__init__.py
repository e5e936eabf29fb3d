"""What training is made of: pictures and videos on disk, and the cache that holds them."""
