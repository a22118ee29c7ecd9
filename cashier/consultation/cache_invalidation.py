"""Forget cached answers that acceptance found to be wrong, here and in the other workers."""

from __future__ import annotations

from collections.abc import Mapping

from cashier.consultation.source_pipeline import SourcePipeline
from cashier.consultation.source_table import SourceSpec, known_inputs
from cashier.domain.learned_facts import FactGroups
from cashier.domain.order import ConsultRequest
from cashier.fanout.ask import Known
from cashier.fanout.key_index import key_text
from cashier.fanout.l2.interface import SecondLevel


class CacheInvalidation:
    """`l2`: None without other workers. `forgotten` counts the dropped answers by source."""

    def __init__(self, pipelines: Mapping[str, SourcePipeline], l2: SecondLevel | None) -> None:
        self._pipelines = pipelines
        self._l2 = l2
        self.forgotten: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"<CacheInvalidation {self.forgotten}>"

    def forget(self, groups: FactGroups, request: ConsultRequest) -> None:
        """Drop the answers with facts of these groups, for the payer, merchant and market.

        Returns at once; the message to the other workers follows. Calls in progress fill no cache.
        """
        known = known_inputs(request)
        for name, pipeline in self._pipelines.items():
            if groups.isdisjoint(pipeline.spec.changes_with) or not pipeline.cache.settings.on:
                continue
            covered = _covered(pipeline.spec, known)
            if covered is None:
                continue
            key, prefix = covered
            self.forgotten[name] = self.forgotten.get(name, 0) + pipeline.cache.drop(key=key, prefix=prefix)
            if self._l2 is not None:
                self._l2.drop(name, key=key, prefix=prefix)


def _covered(spec: SourceSpec, known: Known) -> tuple[str | None, str | None] | None:
    """The key or prefix of what is dropped. None: nothing is known for this request.

    All answers about the same payer or merchant, whatever the amount. Of a market, the one answer,
    or if its country is not known, those of all countries.
    """
    if spec.subject is not None:
        subject = known.get(spec.subject)
        return None if subject is None else (None, f"{key_text(subject)}/")
    parts = [known.get(name) for name in spec.needs]
    if None not in parts:
        return key_text(spec.key(known)), None
    return None, "".join(f"{key_text(part)}/" for part in parts[: parts.index(None)])
