"""What a worker's configuration is, and what became of each reading of it."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from cashier.settings.schema import Configuration
from cashier.telemetry.shown_settings import shown_settings
from cashier.telemetry.worker_state import MOST_RELOADS, ConfigurationState, Reload, ReloadResult

# Faults and sentences of one reading that are kept.
_MOST_SENTENCES = 20


class ConfigurationHistory:
    """The configuration in effect, the one before it, and the last readings.

    `now`: seconds since 1970.
    """

    def __init__(self, config: Configuration, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._config = config
        self._reloads: deque[Reload] = deque(maxlen=MOST_RELOADS)
        self._settings: dict[str, str] = {}
        self._previous: dict[str, str] = {}
        self._apply(config, ())

    def __repr__(self) -> str:
        return f"<ConfigurationHistory {self._config.source} {self._reloads[0].result} of {len(self._reloads)}>"

    def record_applied(self, config: Configuration, takes_a_restart: Sequence[str]) -> None:
        self._previous = self._settings
        self._apply(config, takes_a_restart)

    def record_refused(self, digest: str, faults: Sequence[str]) -> None:
        """The files have faults. `digest`: of the file as it is now."""
        self._note(ReloadResult.REFUSED, digest, faults=faults)

    def record_crashed(self, digest: str) -> None:
        """Reading or applying failed by a bug."""
        self._note(ReloadResult.CRASHED, digest)

    def state(self) -> ConfigurationState:
        return ConfigurationState(
            file=_utf8(self._config.source),
            digest=self._config.digest,
            loaded_at=self._loaded_at,
            settings=self._settings,
            previous=self._previous,
            warnings=self._config.warnings,
            reloads=tuple(self._reloads),
        )

    def _apply(self, config: Configuration, takes_a_restart: Sequence[str]) -> None:
        self._config = config
        self._settings = shown_settings(config.settings)
        self._loaded_at = self._now()
        self._note(ReloadResult.APPLIED, config.digest, takes_a_restart=takes_a_restart)

    def _note(
        self, result: ReloadResult, digest: str, faults: Sequence[str] = (), takes_a_restart: Sequence[str] = ()
    ) -> None:
        self._reloads.appendleft(
            Reload(
                at=self._now(),
                result=result,
                digest=digest,
                faults=tuple(map(_utf8, faults[:_MOST_SENTENCES])),
                takes_a_restart=tuple(takes_a_restart[:_MOST_SENTENCES]),
            )
        )


def _utf8(text: str) -> str:
    """A path may have other bytes, which nothing that is reported can hold."""
    return os.fsencode(text).decode("utf-8", "replace")
