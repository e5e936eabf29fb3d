"""The server's side of decoding processes: to start, feed, and end them."""
