"""What is said to a server and what its answers mean, without any input or output: no files, threads, or channels."""
