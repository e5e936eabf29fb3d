"""What a decoding process may no longer do, from before it reads any input until its end.

The server's decoding processes, the studio's, and those that read cameras confine themselves by this one package.
"""

from masklet_media.confinement.layers import CAPABILITIES, LANDLOCK, LAYERS, NAMESPACES, SECCOMP, describe
from masklet_media.confinement.outside import Outside
from masklet_media.confinement.rights import confine
from masklet_media.confinement.starting import environment, python

__all__ = [
    "CAPABILITIES",
    "LANDLOCK",
    "LAYERS",
    "NAMESPACES",
    "SECCOMP",
    "Outside",
    "confine",
    "describe",
    "environment",
    "python",
]
