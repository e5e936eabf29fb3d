"""What runs inside a decoding process. Of the server it imports only the plain modules at the top of `video`."""
