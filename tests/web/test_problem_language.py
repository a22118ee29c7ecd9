"""Problems that a payer meets are in the payer's language; code, status and detail stay."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec.structs import replace

from cashier.consultation.answer import Blockage, OrderUnknown, RequiredSourceUnavailable
from cashier.domain.offer_diff import Change, ChangeType
from cashier.domain.order import Blocked
from cashier.domain.payment_request import PaymentChoice
from cashier.domain.wording import PayerProblem
from cashier.payments.errors import CheckUnavailable, ConsultChanged, InFlight, OrderBusy, RiskRejected
from cashier.tokens.jws import TokenRefused
from cashier.web.application import app
from cashier.web.problem import STATUS_AND_TITLE, ProblemCode
from tests.domain.builders import CATALOG
from tests.web.asgi_client import CapturedResponse, call
from tests.web.fake_payments import ID, LIVE, FakePayments
from tests.web.fake_service import BODY, FakeService, consultation
from tests.web.test_payment_endpoints import OPERATIONS, send, submit

SHOWN = [(code, locale) for code in PayerProblem for locale in CATALOG.texts]


def test_every_problem_of_status_402_409_and_503_has_texts() -> None:
    statuses = {code: status for code, (status, _) in STATUS_AND_TITLE.items()}
    shown = {ProblemCode(code.value) for code in PayerProblem}
    assert {code for code, status in statuses.items() if status in (402, 409, 503)} <= shown


def test_english_titles_are_those_of_developers() -> None:
    english = CATALOG.texts["en"].problems
    assert {code.value: text.title for code, text in english.items()} == {
        code.value: STATUS_AND_TITLE[ProblemCode(code.value)][1] for code in PayerProblem
    }


@pytest.mark.parametrize(("code", "locale"), SHOWN)
def test_every_problem_has_a_title_and_a_message_in_every_locale(code: PayerProblem, locale: str) -> None:
    text = CATALOG.texts[locale].problems[code]
    assert text.title
    assert text.message


async def refused(error: Exception, body: dict[str, Any] | None = None, **headers: str) -> CapturedResponse:
    return await submit(app(FakeService(FakePayments(error))), body, **headers)


@pytest.mark.parametrize(
    ("body", "headers", "language", "title"),
    [
        ({}, {}, "en", "Payment rejected"),
        ({"locale": "zh-CN"}, {}, "zh-CN", "支付未通过"),
        ({"locale": "zh_cn"}, {}, "zh-CN", "支付未通过"),
        ({"locale": "zh-CN"}, {"accept-language": "en"}, "zh-CN", "支付未通过"),
        ({}, {"accept-language": "zh-SG,zh;q=0.9,en;q=0.8"}, "zh-CN", "支付未通过"),
        ({}, {"accept-language": "fr, zh;q=0.5"}, "zh-CN", "支付未通过"),
        ({}, {"accept-language": "fr;q=nonsense, *"}, "en", "Payment rejected"),
        ({"locale": "fr"}, {}, "en", "Payment rejected"),
    ],
)
async def test_the_locale_of_the_request_decides_then_accept_language_then_the_default(
    body: dict[str, Any], headers: dict[str, str], language: str, title: str
) -> None:
    response = await refused(RiskRejected("BLACKLISTED"), body, **headers)
    assert response.problem() == (402, "RISK_REJECTED")
    assert (response.headers["content-language"], response.json["title"]) == (language, title)
    assert response.json["message"] == CATALOG.texts[language].problems[PayerProblem.RISK_REJECTED].message
    assert response.json["detail"].startswith("The payment was rejected."), "for developers"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OrderBusy(ID), "该订单有一笔支付尚未完成，请先完成或取消"),
        (InFlight(), "支付处理中，请稍候"),
        (CheckUnavailable(("risk",)), "暂时无法完成支付，未扣款，请重试"),
        (TokenRefused("TOKEN_EXPIRED"), "页面已过期，请刷新后重试"),
        (OrderUnknown("o_1001"), "订单不存在，请返回商家重新下单"),
    ],
)
async def test_a_payer_reads_what_happened_to_the_payment(error: Exception, message: str) -> None:
    assert (await refused(error, {"locale": "zh-CN"})).json["message"] == message


async def test_a_problem_of_developers_stays_as_it_is() -> None:
    response = await refused(TokenRefused("TOKEN_TAMPERED"), {"locale": "zh-CN"})
    assert response.json["title"] == "Invalid token signature"
    assert "message" not in response.json
    assert "content-language" not in response.headers


class PaymentsInChinese(FakePayments):
    """The payment tokens of these payments name the locale."""

    def choice_of(self, payment_id: str, payment_token: str) -> PaymentChoice:
        return replace(super().choice_of(payment_id, payment_token), locale="zh-CN")


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "submit"])
async def test_the_other_operations_take_the_locale_of_the_payment(name: str) -> None:
    payments = PaymentsInChinese(OrderBusy(ID))
    payments.publish(OrderBusy(ID))
    headers = OPERATIONS[name]["headers"] | {"accept-language": "en"}
    response = await send(app(FakeService(payments)), OPERATIONS[name], headers=headers)
    assert response.problem() == (409, "ORDER_BUSY")
    assert response.json["title"] == "订单支付中"


async def test_an_error_in_a_payment_stream_is_in_the_payers_language() -> None:
    payments = PaymentsInChinese()
    payments.publish(LIVE, OrderBusy(ID))
    response = await send(app(FakeService(payments)), OPERATIONS["follow"])
    assert "订单支付中" in response.body.decode()


async def test_a_refused_consultation_is_in_the_payers_language() -> None:
    service = FakeService()
    service.raises = RequiredSourceUnavailable((), ("order",))
    response = await call(app(service), json.dumps(json.loads(BODY) | {"locale": "zh-CN"}).encode())
    assert response.problem() == (503, "REQUIRED_SOURCE_UNAVAILABLE")
    assert response.headers["content-language"] == "zh-CN"
    assert response.json["message"] == "支付方式加载失败，请稍后再试"


async def test_a_change_says_what_changed() -> None:
    change = Change(what=ChangeType.ORDER_STATE, before="PENDING", after="ORDER_PAID", message="订单已支付")
    gone = replace(
        consultation(), payable=False, blocked=Blockage(Blocked.ORDER_PAID, "订单已支付，请勿重复支付"), methods=()
    )
    response = await refused(ConsultChanged((change,), gone), {"locale": "zh-CN"})
    assert response.json["changes"][0]["message"] == "订单已支付"
    assert response.json["message"] == "订单已支付，请勿重复支付"
