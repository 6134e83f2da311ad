"""The Lua script that adds what a server has taken of rates, and returns how much all servers have taken. Pure.

It does the same as `RateTable.add_taken`, for all keys of a report at once. The names of keys are hashes, and a key
expires when what was taken is used up. Its value is the time at which it was written, and how many seconds later that
is. When the clock is set back, nothing is used up meanwhile, or each key would have taken all that it may.
"""

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import isfinite
from typing import Any

from imapshield.guard.guard_report import RateTaken
from imapshield.guard.rates import MAX_BURSTS

SCRIPT = f"""
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local taken = {{}}
for i, key in ipairs(KEYS) do
  local amount, each, burst = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local written, before = string.match(redis.call('GET', key) or '', '^(%S+) (%S+)$')
  local passed = math.max(now - (tonumber(written) or now), 0)
  local left = math.max((tonumber(before) or 0) - passed, 0)
  local used = math.min(left + amount * each, burst * each * {MAX_BURSTS})
  if used > 0.001 then
    redis.call('SET', key, string.format('%.6f %.6f', now, used), 'PX', math.ceil(used * 1000))
  else
    redis.call('DEL', key)
    used = 0
  end
  taken[i] = string.format('%.6f', used / each)
end
return taken
"""


def key_names(rates: Iterable[RateTaken], prefix: str, key: bytes) -> list[str]:
    """Return the names of the keys in Redis: keyed hashes, so that nobody learns addresses from them."""
    names = []
    for rate in rates:
        hashed = blake2b(rate.key, key=key, person=rate.kind.encode(), digest_size=16)
        names.append(f"{prefix}:rate:{hashed.hexdigest()}")
    return names


def script_arguments(
    rates: Iterable[RateTaken], values: Iterable[tuple[float, float]]
) -> list[str]:
    """Return the arguments of the script.

    Args:
        rates: what was taken.
        values: for each of them, the rate: how much may be taken per second, and at once.
    """
    arguments = []
    for rate, (per_second, burst) in zip(rates, values, strict=True):
        arguments += [repr(rate.amount), repr(1 / per_second), repr(burst)]
    return arguments


def taken_by_all(answer: Any, rates: Sequence[RateTaken]) -> list[float]:
    """Return how much all servers have taken of `rates`, from the answer of the script.

    Raises:
        ValueError: the answer is malformed.
    """
    if not isinstance(answer, list) or len(answer) != len(rates):
        raise ValueError("the script for rates has answered something else")
    taken = [float(each) for each in answer if isinstance(each, (bytes, str))]
    if len(taken) != len(rates) or not all(isfinite(each) and each >= 0 for each in taken):
        raise ValueError("the script for rates has answered something else")
    return taken
