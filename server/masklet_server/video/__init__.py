"""Video: from the client's bytes to frames of the size that a model takes.

- The modules here are values that all of `video` shares, and `messages`, which server and decoding process exchange.
- `sources`: what a session uses. Each source gives the frames of one video.
- `sandbox`: decoding processes seen from the server: starting, feeding, watching and ending them.
- `worker`: what runs inside a decoding process, where PyAV and Pillow read untrusted input.

Imports run one way: sources -> sandbox -> messages, and worker -> messages.
"""
