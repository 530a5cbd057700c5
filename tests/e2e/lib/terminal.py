# SPDX-License-Identifier: Apache-2.0
"""What a person sees: a command on a terminal."""

import fcntl
import os
import pty
import struct
import subprocess
import termios

from world import program


def on_a_terminal(columns, *words):
    """What a command of cede prints there, errors too, on a terminal of so many columns."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = subprocess.Popen([program("cede"), *map(str, words)], stdin=end, stdout=end, stderr=end,
                             env={k: v for k, v in os.environ.items() if k != "NO_COLOR"})
    os.close(end)
    said = b""
    while True:
        try:
            some = os.read(main, 65536)
        except OSError:
            break
        if not some:
            break
        said += some
    child.wait()
    os.close(main)
    return said.decode().replace("\r\n", "\n")
