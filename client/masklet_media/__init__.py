"""Turns pictures and video files into frames, the same way for the server's decoding process and for the client.

It imports PyAV and Pillow, and nothing of `masklet` or `masklet_server`: a decoding process loads it, and has nothing
else to give away. `confinement` is what such processes give up before they read any input.
"""
