"""Video files that the server fetches itself, from addresses and folders that its operator allows.

The bytes are fetched here with the standard library, and then treated as an upload: FFmpeg never opens a network
protocol. The URL that a client gives, and every redirection, is checked:

- Scheme, host and folder must be on the operator's lists (`rules`).
- The host's name is resolved once, and the connection goes to the address that was checked. So a name cannot mean one
  machine to the check and another one to the connection (`addresses`, `http_connection`).
- Addresses that are not public are refused: private, loopback and link-local ones (such as the clouds' metadata
  services), and those that contain such an address. They are allowed if the operator's list names the host itself, and
  not a pattern.
- A file is checked after it was opened, by what the kernel says of the descriptor: links cannot lead out of a folder
  (`local_file`).

RTSP is left out: only FFmpeg speaks it here, and its sessions name further addresses.
"""
