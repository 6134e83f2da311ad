"""Counts the differences between two servers, by category and by the rule that explains them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from benchmarks.differences import Difference, Rule


class DifferenceTally:
    """How many responses agree, differ by rules, or differ without an explanation.

    Attributes:
        agreed: by category, the responses that are equal.
        explained: by category, the responses that differ, where rules explain all differences.
        failed: by category, the responses with an unexplained difference.
        by_rule: by the name of a rule, the differences that it explains.
        unexplained: the differences that no rule explains.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = rules
        self.agreed: Counter[str] = Counter()
        self.explained: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.by_rule: Counter[str] = Counter()
        self.unexplained: list[Difference] = []

    def rule_for(self, difference: Difference) -> Rule | None:
        """Return the first rule that explains a difference."""
        return next((rule for rule in self.rules if rule.explains(difference)), None)

    def add(self, category: str, differences: Iterable[Difference]) -> None:
        """Count one response with all its differences."""
        found = [(difference, self.rule_for(difference)) for difference in differences]
        self.by_rule.update(rule.name for _, rule in found if rule)
        unexplained = [difference for difference, rule in found if not rule]
        self.unexplained += unexplained
        self.failed[category] += bool(unexplained)
        self.explained[category] += bool(found) and not unexplained
        self.agreed[category] += not found

    def table(self) -> str:
        """Format the counts by category, and by rule."""
        lines = [
            f"{'category':<32}{'responses':>11}{'agree':>9}{'by a rule':>11}{'unexplained':>13}"
        ]
        for category in self.agreed:
            counts = [side[category] for side in (self.agreed, self.explained, self.failed)]
            agreed, explained, failed = counts
            lines.append(f"{category:<32}{sum(counts):>11}{agreed:>9}{explained:>11}{failed:>13}")
        lines += ["", f"{'differences':>11}  rule"]
        for rule in self.rules:
            if count := self.by_rule[rule.name]:
                lines.append(f"{count:>11}  {rule.name}: {rule.reason}")
        return "\n".join(lines)
