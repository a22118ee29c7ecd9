"""Responses with pages: rendered, with the headers of every page."""

from __future__ import annotations

from starlette.responses import HTMLResponse, RedirectResponse, Response

from cashier.domain.wording import PayerProblem
from cashier.pages.browser_call import BrowserCall
from cashier.pages.page_call import PageCall, PageRefused
from cashier.pages.rendering import AnyView, Rendering
from cashier.pages.security_headers import origin_of, secure
from cashier.pages.surroundings import page_view
from cashier.pages.turns import in_turns
from cashier.pages.views import ActionView, PageView, ProblemView, RedirectView
from cashier.tokens.page_session import SessionClaims

# No answer in time says nothing about the order: the page asks again by itself.
_NOT_KNOWN_YET = frozenset({PayerProblem.REQUIRED_SOURCE_UNAVAILABLE, PayerProblem.NOT_READY})


class PageResponses:
    def __init__(self, rendering: Rendering) -> None:
        self.rendering = rendering

    def render(self, page: PageView, view: AnyView, status: int = 200) -> Response:
        return self.rendered(page, view, self.rendering.main(page, view), status)

    async def render_in_turns(self, page: PageView, view: AnyView, status: int = 200) -> Response:
        """For a long page."""
        return self.rendered(page, view, await in_turns(self.rendering.pieces(page, view)), status)

    def rendered(self, page: PageView, view: AnyView, main: str, status: int) -> Response:
        """The response around `main`."""
        return secure(HTMLResponse(self.rendering.document(page, view, main), status), _form_origin(view))

    def in_language(self, call: PageCall, session: SessionClaims, address: str) -> Response:
        response = RedirectResponse(address, 303)
        call.cookies.set_session(response, call.sign_session(session))
        return response

    def refusal(self, call: BrowserCall, refused: PageRefused) -> Response:
        title, message = _told(call, refused)
        retry = refused.retry
        view = ProblemView(
            title=title,
            message=message,
            waits=refused.retry_after_s is not None,
            retry=retry,
            request_id=call.request_id if refused.status >= 500 else None,
        )
        page = page_view(call, retry or call.page, refresh_after_s=refused.retry_after_s)
        response = self.render(page, view, refused.status)
        if refused.retry_after_s is not None:
            response.headers["retry-after"] = str(refused.retry_after_s)
        return response


def _told(call: BrowserCall, refused: PageRefused) -> tuple[str, str]:
    """Title and message. The core's titles of problems are for developers."""
    labels = call.writing.labels
    if refused.problem is PayerProblem.TOKEN_EXPIRED and refused.retry is None and isinstance(call, PageCall):
        return str(labels.closed_title), str(labels.closed_how)
    if refused.problem in _NOT_KNOWN_YET and refused.retry_after_s is not None:
        return str(labels.still_title), str(labels.still_how)
    checking = refused.problem is PayerProblem.STATUS_UNAVAILABLE
    title = str(labels.outcome_unknown if checking else labels.problem_title)
    return title, call.writing.problem(refused.problem).message


def internal(call: BrowserCall) -> PageRefused:
    """A bug: whether anything happened is not known, so the payer looks at the state."""
    return PageRefused(500, PayerProblem.INTERNAL, retry=call.page)


def _form_origin(view: AnyView) -> str | None:
    """Where the form of a bank goes, on the one page that has it."""
    if isinstance(view, ActionView) and isinstance(view.step, RedirectView) and view.step.fields is not None:
        return origin_of(view.step.url)
    return None
