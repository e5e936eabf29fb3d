"""What runs inside a decoding process. Imports nothing of the server but the messages and formats."""
