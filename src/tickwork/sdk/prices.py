"""What a call of a model costs: by the installation's own list of prices, else by the table that genai-prices brings.

Both are on this machine; nobody is asked over the network. Money is counted in whole billionths of a US dollar, and on
the way there in decimals, never in floats. A model without a price has no cost, which is said and recorded as such:
nobody shall take it for free.

The own list is `prices.yaml` in the home, or the file that TICKWORK_PRICES names:

    models:
      my-model: {input: "0.50", output: "1.50", cache_read: "0.05"}   # US dollars per million tokens
      "local/*": {input: 0, output: 0}
"""

from __future__ import annotations

import contextlib
import decimal
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from tickwork.errors import TerminalError
from tickwork.model.problems import Location, Problem
from tickwork.model.words import shown
from tickwork.sdk.usage import Used

if TYPE_CHECKING:
    from tickwork.formats.fields import Reading
    from tickwork.formats.tree import Tree

FILE = "prices.yaml"
VARIABLE = "TICKWORK_PRICES"
NANO = Decimal(1_000_000_000)
MILLION = 1_000_000
EXACT = decimal.Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Room for any price times any number of tokens; what user code has set for its own sums does not count here."""

LOOK_AGAIN = 1.0
"""Seconds after which it is looked again whether the list was changed."""

REMEMBERED = 1_000
"""Models that are remembered: their place in the table, and that somebody was warned of them."""

FROM_RESPONSE = "response"
"""Stands where the name of a price table stands when the response said itself what it cost."""


class PricesInvalid(TerminalError):
    """The list of prices has problems. The message lists them, each with its place."""

    def __init__(self, problems: list[Problem]) -> None:
        count = len(problems)
        lines = "\n".join(str(problem) for problem in problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the prices:\n{lines}")


class Price(msgspec.Struct, frozen=True, array_like=True):
    """The price of one model, in billionths of a US dollar per million tokens."""

    input: int
    output: int
    cache_read: int | None = None
    """None: as `input`."""
    cache_write: int | None = None

    def cost(self, used: Used) -> int:
        """Billionths of a US dollar, rounded half to even."""
        read, write = used.cache_read, used.cache_write
        total = max(0, used.tokens_in - read - write) * self.input + used.tokens_out * self.output
        total += read * (self.input if self.cache_read is None else self.cache_read)
        total += write * (self.input if self.cache_write is None else self.cache_write)
        nano, rest = divmod(total, MILLION)
        return nano + (rest * 2 > MILLION or (rest * 2 == MILLION and nano % 2 == 1))

    @property
    def free(self) -> bool:
        """Whether it costs nothing, whatever was used."""
        return not (self.input or self.output or self.cache_read or self.cache_write)


class PriceList(msgspec.Struct, frozen=True, array_like=True):
    """Prices by the names of models, or patterns of them with `*`. `name` tells this list from any other one."""

    name: str
    models: dict[str, Price]

    def find(self, model: str) -> Price | None:
        """The price of a model: under its own name, else under the first pattern that fits."""
        found = self.models.get(model)
        if found is not None:
            return found
        return next((price for name, price in self.models.items() if "*" in name and fnmatchcase(model, name)), None)


class Cost(NamedTuple):
    """What a call cost, in billionths of a US dollar, and which prices say so."""

    nano_usd: int
    prices: str


class Prices:
    """The prices that hold in one process. `path`: the own list, read when it is asked for and when it has changed."""

    def __init__(self, path: Path | None = None, *, own: PriceList | None = None, required: bool = False) -> None:
        self._path, self._required = path, required
        self.own = own
        self.warned: dict[str, None] = {}
        """Models of which it was said that they have no price."""
        self._fault: PricesInvalid | None = None
        self._seen: tuple[int, ...] | None = None
        self._looked = float("-inf")
        self._table: Any = None
        self._found: dict[tuple[str, str, str], Any] = {}

    @classmethod
    def from_environment(cls, home: Path | None = None) -> Prices:
        """The file that TICKWORK_PRICES names, else `prices.yaml` in the home; without either only the table."""
        named = os.environ.get(VARIABLE)
        if named:
            return cls(Path(named).absolute(), required=True)
        return cls(home / FILE if home is not None else None)

    def fault(self, now: float) -> PricesInvalid | None:
        """What is wrong with the own list, at `now` (seconds of a monotonic clock); None: it can be used."""
        if self._path is not None and now - self._looked >= LOOK_AGAIN:
            self._looked = now
            self._look(self._path)
        return self._fault

    def _look(self, path: Path) -> None:
        try:
            found = path.stat()
        except OSError:
            # Not there, or not to be reached: a list that was asked for by name has to be.
            seen: tuple[int, ...] = ()
        else:
            seen = (found.st_ino, found.st_size, found.st_mtime_ns)
        if seen == self._seen:
            return
        self._seen, self._fault, self.own = seen, None, None
        if seen or self._required:
            try:
                self.own = read_prices(path)
            except PricesInvalid as fault:
                self._fault = fault

    def free(self, model: str | None) -> bool:
        """Whether a model costs nothing by the own list: then its cost is known, even if its tokens are not."""
        price = self.own.find(model) if self.own is not None and model is not None else None
        return price is not None and price.free

    def cost(self, model: str | None, used: Used, at: int = 0, *, provider: str = "", url: str = "") -> Cost | None:
        """What a call at `at` (us) cost; None when nobody has a price for it.

        `provider` is one of genai-prices' names; else `url`, the address of the endpoint, tells who it is, else the
        model's name does.
        """
        own = self.own.find(model) if self.own is not None and model is not None else None
        if own is not None and self.own is not None:
            return Cost(own.cost(used), self.own.name)
        if used.cost is not None:
            return Cost(_nano(used.cost), FROM_RESPONSE)
        return self._by_table(model, used, at, provider, url) if model is not None else None

    def warn(self, model: str | None, say: Callable[..., None], *, split: bool = True) -> None:
        """Says, once for each model, why its cost is not known and how it will be. `split`: in and out were told."""
        name = model or ""
        if name in self.warned or len(self.warned) >= REMEMBERED:
            return
        self.warned[name] = None
        if not name:
            say("tokens were recorded and no model was named, so their cost is not known; name it (`model=...`), or "
                "record the cost: ctx.telemetry.record(cost_usd=...)")  # fmt: skip
            return
        if not split:
            say("only the sum of the tokens of `%s` was recorded: its cost follows from tokens_in and tokens_out, or "
                "from cost_usd", shown(name))  # fmt: skip
            return
        say(
            "no price is known for the model `%s`: its cost is not recorded, and limits on cost cannot be judged. Give "
            'it one in prices.yaml in the home (or in the file that TICKWORK_PRICES names), `models: {"%s": {input: '
            '"0.50", output: "1.50"}}` in US dollars per million tokens, 0 for a local model; or record the cost '
            "yourself: ctx.telemetry.record(cost_usd=...)",
            shown(name),
            shown(name),
        )

    def _by_table(self, model: str, used: Used, at: int, provider: str, url: str) -> Cost | None:
        """By genai-prices: imported by the first call that needs it, which takes a tenth of a second."""
        from genai_prices import __version__
        from genai_prices.data_snapshot import get_snapshot

        table = get_snapshot()
        if table is not self._table or len(self._found) > REMEMBERED:
            self._table, self._found = table, {}
        key = (model, provider, url)
        if key not in self._found:
            self._found[key] = _find(table, model, provider, url)
        found = self._found[key]
        if found is None:
            return None
        seller, info = found
        moment = datetime.fromtimestamp(at / 1_000_000, UTC) if at > 0 else None
        with decimal.localcontext(EXACT):
            try:
                price = info.calc_price(_usage(used), seller, genai_request_timestamp=moment, price_context=used.terms)
            except ValueError:
                return None  # its parts are more than the whole: no cost follows from such a usage
            rates = price.model_price
            # A model may be listed without a price for what was used. Its zero is not the cost.
            if (used.tokens_in and rates.input_mtok is None) or (used.tokens_out and rates.output_mtok is None):
                return None
            name = f"genai-prices {__version__}"
            return Cost(_nano(price.total_price), f"{name} of {table.timestamp:%F}" if table.from_auto_update else name)


def _find(table: Any, model: str, provider: str, url: str) -> Any:
    """The seller and the model in the table; None when it does not have them.

    A seller that is known and has no price for the model has none: another one's price is not its price.
    """
    seller = None
    if url and not provider:
        with contextlib.suppress(LookupError):  # an address that nobody knows: a proxy, or a machine of one's own
            seller = table.find_provider(None, None, url)
    try:
        return table.find_provider_model(model, seller, provider or None, None)
    except LookupError:
        return None


def _usage(used: Used) -> Any:
    from genai_prices import Usage

    parts = {
        "cache_read_tokens": used.cache_read,
        "cache_write_tokens": used.cache_write,
        "cache_write_5m_tokens": used.cache_write_5m,
        "cache_write_1h_tokens": used.cache_write_1h,
        "input_audio_tokens": used.audio_in,
        "output_audio_tokens": used.audio_out,
        "output_reasoning_tokens": used.reasoning,
        "web_searches": used.web_searches,
    }
    said = {name: count for name, count in parts.items() if count}
    return Usage(input_tokens=used.tokens_in, output_tokens=used.tokens_out, **said)


def _nano(usd: Decimal) -> int:
    with decimal.localcontext(EXACT):
        return int((usd * NANO).to_integral_value(ROUND_HALF_EVEN))


# ---------------------------------------------------------------------------------------------------------------------
# The file


def read_prices(path: Path) -> PriceList:
    """The list in a file. Raises PricesInvalid with every problem."""
    from tickwork.formats.fields import Reading
    from tickwork.formats.tree import MAX_BYTES, Unreadable, decoded
    from tickwork.formats.yaml import read_yaml

    file = str(path)
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as error:
        hint = f"write it, or take {VARIABLE} out of the environment"
        raise PricesInvalid([Problem(Location(file), "unreadable", f"{error.strerror or error}", hint)]) from None
    reading = Reading(file)
    try:
        models = _models(read_yaml(decoded(data, file), file, reading.problems), reading)
    except Unreadable as fault:
        raise PricesInvalid([*reading.problems, fault.problem]) from None
    if reading.problems:
        raise PricesInvalid(sorted(reading.problems, key=lambda problem: problem.location))
    return PriceList(f"{path.name} {hashlib.sha256(data).hexdigest()[:12]}", models)


def _models(tree: Tree, reading: Reading) -> dict[str, Price]:
    known = {"models": None}
    top = tree.value
    if not isinstance(top, dict):
        reading.wrong_type(tree, "the list of prices", "a map")
        return {}
    for key in top:
        if key not in known:
            reading.unknown_key(key, tree.keys[key], known, "a list of prices")
    if "models" not in top:
        hint = 'write `models:` and below it `my-model: {input: "0.50", output: "1.50"}`'
        reading.say(tree.at, "missing_key", "there is no `models`", hint)
        return {}
    models = top["models"]
    if not isinstance(models.value, dict):
        reading.wrong_type(models, "models", "a map from the names of models to their prices")
        return {}
    found = {name: _price(name, models.keys[name], entry, reading) for name, entry in models.value.items()}
    return {name: price for name, price in found.items() if price is not None}


def _price(name: str, at: Location, entry: Tree, reading: Reading) -> Price | None:
    known: dict[str, Any] = dict.fromkeys(Price.__struct_fields__)
    if not isinstance(entry.value, dict):
        reading.wrong_type(entry, name, 'a map such as {input: "0.50", output: "1.50"}')
        return None
    for key, part in entry.value.items():
        if key not in known:
            reading.unknown_key(key, entry.keys[key], known, "a price")
        else:
            known[key] = _amount(key, part, reading)
    missing = [f"`{key}`" for key in ("input", "output") if key not in entry.value]
    if missing:
        hint = "say it in US dollars per million tokens, 0 if it costs nothing"
        reading.say(at, "missing_key", f"the price of `{shown(name)}` lacks {' and '.join(missing)}", hint)
    return None if known["input"] is None or known["output"] is None else Price(**known)


def _amount(key: str, tree: Tree, reading: Reading) -> int | None:
    """Billionths of a dollar; None once what is wrong with it is reported."""
    from tickwork.model.money import dollars

    try:
        return _nano(Decimal(dollars(tree.value)))
    except ValueError as fault:
        hint = 'write US dollars per million tokens, e.g. "0.50"'
        reading.say(tree.at, "wrong_price", f"`{key}` {fault}", hint)
        return None
