"""PyAV in a sandboxed process: frames of clips and pictures, already resized for the model."""
