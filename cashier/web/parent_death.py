"""Ends a worker whose supervisor was killed, so that it does not hold the port."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal

_PR_SET_PDEATHSIG = 1


def terminate_with_parent() -> bool:
    """Have the kernel send this process SIGTERM when its parent dies. False except on Linux."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is None or prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        return False
    parent = multiprocessing.parent_process()
    # The parent may have died before the prctl call.
    if parent is not None and not parent.is_alive():
        os.kill(os.getpid(), signal.SIGTERM)
    return True
