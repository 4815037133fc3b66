"""The prices of a product in another currency: a row of Postgres, and rates of another service."""

from decimal import ROUND_HALF_UP, Decimal

from django.conf import settings
from django.http import Http404

from api import Fault, Kept, Problem, Upstream, together
from products.queries import PRICES
from products.schemas import BASE, Prices, QuoteOut, Rates

RATES = Kept(
    Upstream("rates", settings.RATES_URL, timeout=settings.RATES_TIMEOUT / 1000),
    Rates,
    fresh=60,  # seconds: the rates are those of a day
    stale=24 * 3600,
)
# Digits after the point of the currencies that do not have two (ISO 4217).
WHOLE = ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV")
FRANCS = ("XAF", "XOF", "XPF")
THOUSANDTHS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
DIGITS = dict.fromkeys(WHOLE + FRANCS, 0) | dict.fromkeys(THOUSANDTHS, 3)


async def quote(product_id: int, currency: str) -> QuoteOut:
    """Return a product's prices, rounded half up to the smallest unit of the currency.

    The row and the rates are fetched at the same time. Raises Http404, Problem 422, UpstreamUnavailable or
    psycopg.OperationalError.
    """
    row, (rates, age, is_stale) = await together(PRICES(id=product_id), RATES.get())
    if row is None:
        raise Http404
    known = {BASE: Decimal(1)} | rates.rates
    if currency not in known:
        fault = Fault(parameter="currency", code="unknown_currency", detail="has no rate")
        supported = [{"currency": sorted(known)}]
        raise Problem(
            422, "currency: has no rate", code="unknown_currency", errors=[fault], supported=supported
        )
    prices, rate = Prices.model_validate_json(row), known[currency]
    unit = Decimal(1).scaleb(-DIGITS.get(currency, 2))
    return QuoteOut(
        id=product_id,
        currency=currency,
        low_price=(prices.low_price * rate).quantize(unit, ROUND_HALF_UP),
        high_price=(prices.high_price * rate).quantize(unit, ROUND_HALF_UP),
        rate=rate,
        as_of=rates.date,
        rates_age_seconds=int(age),
        stale=is_stale,
    )
