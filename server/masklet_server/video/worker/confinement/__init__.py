"""What a decoding process may no longer do, from before it reads any input until its end."""

from masklet_server.video.worker.confinement.rights import CAPABILITIES, LANDLOCK, LAYERS, NAMESPACES, SECCOMP, confine

__all__ = ["CAPABILITIES", "LANDLOCK", "LAYERS", "NAMESPACES", "SECCOMP", "confine"]
