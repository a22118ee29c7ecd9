"""A worker whose supervisor was killed must not go on holding the port."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

_PR_SET_PDEATHSIG = 1


def terminate_with_parent() -> bool:
    """From here on the kernel sends us SIGTERM when our parent dies. False where the kernel cannot (it is not Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        return False
    parent = multiprocessing.parent_process()
    if parent is not None and not parent.is_alive():  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)
    return True
