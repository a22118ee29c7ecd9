"""A configuration under which nobody is cut off, given up, left out or refused, so that all of the work is done and counted.

For studies of work and memory, never for those of latency: what it turns off is what keeps latency in bounds.
"""

from __future__ import annotations

# For `service(each=…, other=…)`. Limiter and adaptive timeout are off; deadline, timeouts and the grace for marketing are nearly a minute.
EACH = "timeout_ms = 50000\nadaptive_timeout = false\nlimiter = false"
CONSULT = "[consult]\ndeadline_ms = 60000\nmax_deadline_ms = 60000\ngrace_ms = 50000"
