"""A configuration without time limits, limiters and refusals, so that all work is done and counted.

For studies of work and memory, not of latency: the limits it turns off are what bounds latency.
"""

from __future__ import annotations

# For `start_service(each=…, other=…)`. Deadline, timeouts and the grace for marketing are about a
# minute.
EACH = "timeout_ms = 50000\nadaptive_timeout = false\nlimiter = false"
CONSULT = "[consult]\ndeadline_ms = 60000\nmax_deadline_ms = 60000\ngrace_ms = 50000"
