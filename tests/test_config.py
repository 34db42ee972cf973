"""Limits and timeouts: their defaults, and what they refuse."""

import dataclasses
import math

import pytest

from rawstream.config import Limits, Timeouts, explained

LIMITS = {
    "connections": 20_000,
    "connections_per_client": None,
    "streams": None,
    "requests": 100_000,
    "target": 8_192,
    "head": 16_384,
    "headers": 100,
    "body": 10_485_760,
    "held": 16_384,
    "high_water": 16_384,
}
TIMEOUTS = {
    "head": 10.0,
    "body": 30.0,
    "keep_alive": 75.0,
    "request": None,
    "first_item": None,
    "write_stall": 30.0,
    "clean_up": 10.0,
    "grace": 5.0,
    "linger": 2.0,
}
BOUNDED_LIMITS = [name for name, default in LIMITS.items() if default is not None]
BOUNDED_TIMEOUTS = [name for name, default in TIMEOUTS.items() if default is not None]
MAY_BE_NOTHING = ["grace", "linger"]


def test_the_default_limits() -> None:
    assert dataclasses.asdict(Limits()) == LIMITS


def test_the_default_timeouts() -> None:
    assert dataclasses.asdict(Timeouts()) == TIMEOUTS


@pytest.mark.parametrize("name", LIMITS)
def test_each_limit_can_be_set(name: str) -> None:
    assert dataclasses.asdict(Limits(**{name: 1})) == LIMITS | {name: 1}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [0, -1, 1.0, True, "16384", math.inf])
def test_a_limit_is_a_positive_whole_number(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^Limits\.{name} is a positive whole number, not {value!r}$"):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", [0.001, 1, 1_000_000])
def test_each_timeout_can_be_set(name: str, value: float) -> None:
    assert dataclasses.asdict(Timeouts(**{name: value})) == TIMEOUTS | {name: value}


@pytest.mark.parametrize("name", TIMEOUTS)
@pytest.mark.parametrize("value", [-1, -0.001, True, "10", math.nan, math.inf, -math.inf, 1_000_001, 10**400])
def test_a_timeout_is_a_number_of_seconds_that_passes(name: str, value: object) -> None:
    """Infinity, and what no clock and no socket option can hold, is refused here and not on each connection."""
    with pytest.raises(ValueError, match=rf"^Timeouts\.{name} is a number of seconds, .*, not {value!r}$"):
        Timeouts(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [name for name in TIMEOUTS if name not in MAY_BE_NOTHING])
def test_a_timeout_of_nothing_would_end_every_connection(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"^Timeouts\.{name} is a number of seconds, above 0 and at most 1000000, not 0"
    ):
        Timeouts(**{name: 0})


@pytest.mark.parametrize("name", MAY_BE_NOTHING)
@pytest.mark.parametrize("value", [0, 0.0])
def test_grace_and_linger_may_be_nothing(name: str, value: float) -> None:
    assert getattr(Timeouts(**{name: value}), name) == 0


@pytest.mark.parametrize("name", MAY_BE_NOTHING)
def test_what_may_be_nothing_says_so_when_it_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"a number of seconds, 0 or more and at most 1000000, not -1$"):
        Timeouts(**{name: -1})


@pytest.mark.parametrize("name", ["connections_per_client", "streams"])
def test_what_is_unlimited_may_be_said_to_be(name: str) -> None:
    assert Limits(**{name: None}) == Limits()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["request", "first_item"])
def test_what_may_last_for_ever_may_be_said_to(name: str) -> None:
    assert Timeouts(**{name: None}) == Timeouts()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BOUNDED_LIMITS)
def test_a_limit_that_protects_cannot_be_taken_away(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^Limits\.{name} is a positive whole number, not None$"):
        Limits(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BOUNDED_TIMEOUTS)
def test_a_timeout_that_protects_cannot_be_taken_away(name: str) -> None:
    with pytest.raises(ValueError, match=rf"^Timeouts\.{name} is a number of seconds, .*, not None$"):
        Timeouts(**{name: None})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Limits, Timeouts])
def test_settings_are_frozen_values_given_by_name(kind: type[Limits] | type[Timeouts]) -> None:
    assert kind() == kind()
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().head = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        kind(1)  # type: ignore[call-arg]


@pytest.mark.parametrize("kind", [Limits, Timeouts])
def test_every_setting_is_explained(kind: type[Limits] | type[Timeouts]) -> None:
    texts = explained(kind)
    assert [*texts] == [field.name for field in dataclasses.fields(kind)]
    for text in texts.values():
        assert text.endswith((".", ")"))
        assert "\n" not in text


def test_the_explanation_is_what_stands_below_the_setting() -> None:
    assert explained(Limits)["held"] == "Bytes received and not yet asked for, of a body or of a next request."


def test_without_its_source_nothing_is_explained() -> None:
    unreadable = dataclasses.make_dataclass("Unreadable", [("name", int)])
    assert explained(unreadable) == {}  # type: ignore[arg-type]
