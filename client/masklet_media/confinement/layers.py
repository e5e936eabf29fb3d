"""The layers of a decoding process's confinement that a kernel or a container may not permit."""

from __future__ import annotations

NAMESPACES, LANDLOCK, CAPABILITIES, SECCOMP = "namespaces", "landlock", "capabilities", "seccomp"

LAYERS = {
    NAMESPACES: "user, network and IPC namespaces of its own",
    LANDLOCK: "no file can be opened, made, renamed or deleted",
    CAPABILITIES: "no capabilities",
    SECCOMP: "only the system calls that decoding needs",
}
"""What each layer does. The limits on memory, files and processor time work everywhere."""

_FIXES = {
    NAMESPACES: "allow unprivileged user namespaces (in a container: a seccomp profile that permits unshare)",
    LANDLOCK: "use Linux 5.13 or newer with landlock among its security modules",
    CAPABILITIES: "allow the system call capset",
    SECCOMP: "use a kernel with CONFIG_SECCOMP_FILTER, on x86-64 or aarch64",
}


def describe(name: str) -> str:
    """What a missing layer would do, and how to get it."""
    return f"{name} ({LAYERS[name]}); to have it, {_FIXES[name]}"
