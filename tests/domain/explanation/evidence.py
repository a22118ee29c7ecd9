"""Evidence of the worlds of `builders`, and their explanations."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import structs

from cashier.domain.explanation.evidence import Evidence, Judgement
from cashier.domain.explanation.explain import explain
from cashier.domain.explanation.schema import Explanation, KindExplanation, MethodExplanation, SourceEvidence
from cashier.domain.pay_method import Kind
from cashier.domain.routing_rules import Routing
from cashier.settings.loader import packaged
from cashier.source_errors import Missing
from tests.domain.builders import World

ROUTING = msgspec.convert(packaged("routing.toml"), Routing)


def evidence_of(world: World, **answers: Any) -> Evidence:
    """The order is of the product that is asked for, which the worlds leave open."""
    order = structs.replace(world.order, product=world.request.product)
    found = {**structs.asdict(world.but(order=order).facts()), **answers}
    sources = tuple(
        SourceEvidence(name, "GATING", "TIMEOUT" if isinstance(answer, Missing) else "CACHED", 0.0, 1.0, 40)
        for name, answer in found.items()
    )
    return Evidence(world.request, found, world.now, sources)


def judgement_of(world: World, **changes: Any) -> Judgement:
    return structs.replace(Judgement(world.catalog, world.weights, ROUTING), **changes)


def explained(world: World, **answers: Any) -> Explanation:
    return explain(evidence_of(world, **answers), judgement_of(world))


def explained_kind(world: World, kind: Kind) -> KindExplanation:
    [found] = [each for each in explained(world).kinds if each.kind is kind]
    return found


def explained_method(world: World, method_id: str) -> MethodExplanation:
    [found] = [each for kind in explained(world).kinds for each in kind.methods if each.method_id == method_id]
    return found
