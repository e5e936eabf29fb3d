"""Cameras, network streams and pipes as frames and packets for `Client.live`, read by PyAV on the client's machine."""
