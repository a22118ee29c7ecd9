"""Problems in the payer's language: the title, and a message for the payer.

`code` and `detail` stay as they are, for programs and developers.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import structs

from cashier.domain.catalog import Catalog
from cashier.domain.locale_match import accepted_languages
from cashier.domain.wording import PayerProblem
from cashier.web.ports import ConsultService
from cashier.web.problem import Headers, Problem

_SHOWN = {code.value: code for code in PayerProblem}


def localized(
    problem: Problem, service: ConsultService | None, wanted: str | None, headers: Mapping[bytes, bytes]
) -> tuple[Problem, Headers]:
    """The problem for its payer, and its Content-Language.

    `wanted`: the locale of the request; None takes Accept-Language. Unchanged if no payer meets
    such a problem, or if the texts have none for it.
    """
    shown = _SHOWN.get(problem.code)
    if shown is None or service is None:
        return problem, ()
    catalog = service.catalog
    locale = catalog.locale(wanted) if wanted is not None else _accepted(catalog, headers.get(b"accept-language"))
    text = catalog.texts[locale].problems.get(shown)
    if text is None:
        return problem, ()
    # An order that cannot be paid at all says why.
    blocked = None if problem.consultation is None else problem.consultation.blocked
    message = text.message if blocked is None else blocked.message
    return structs.replace(problem, title=text.title, message=message), ((b"content-language", locale.encode("ascii")),)


def _accepted(catalog: Catalog, header: bytes | None) -> str:
    if header is None:
        return catalog.default_locale
    return catalog.first_known(accepted_languages(header.decode("latin-1")))
