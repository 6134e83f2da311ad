"""The names that a user may type instead of the exact one: in another letter case, and without the domain.

Rules
-----
* The exact name comes first. Another one is tried only if no user has it, so that no name can lead to somebody else.
* The order is always the same, so that a name does not lead to one user today and to another tomorrow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from imapshield.cred.users import BadUserName, user_name


@dataclass(frozen=True, slots=True)
class UserNames:
    """How the name that a client gives becomes the name of a user.

    Args:
        folds_case: also try the name in lower case. The domain has no case at all (RFC 5321 section 2.4), and the
            keyboards of phones write the first letter large.
        default_domain: also try a name without ``@`` as one of this domain; "" for none.

    Raises:
        BadUserName: no user name can have this domain.
    """

    folds_case: bool = True
    default_domain: str = ""

    def __post_init__(self) -> None:
        """Check the domain."""
        if self.default_domain:
            user_name(self.default_domain.encode("utf-8", "surrogateescape"))
            if "@" in self.default_domain:
                raise BadUserName("the domain contains @")

    def candidates(self, name: bytes) -> tuple[bytes, ...]:
        """Return the names that `name` may mean: itself, and then what is tried if no user has that name."""
        if not self.default_domain and name.isascii() and name == name.lower():
            return (name,)  # nearly every login, several times
        try:
            text = name.decode("utf-8")
        except UnicodeDecodeError:
            return (name,)
        names = [text, text.lower()] if self.folds_case else [text]
        if self.default_domain and text and "@" not in text:
            names += [f"{each}@{self.default_domain}" for each in names]
        return tuple(dict.fromkeys(each.encode() for each in names))

    def resolve(self, name: bytes, checkers: Iterable[Any]) -> bytes:
        """Return the first candidate that is a user of one of the `checkers`, and the last one if none is.

        So all ways to write a name are one name for what counts logins, also if no user has it.
        """
        names = self.candidates(name)
        if len(names) == 1:
            return name
        known = [checker.has_user for checker in checkers if hasattr(checker, "has_user")]
        return next((each for each in names if any(has(each) for has in known)), names[-1])


EXACT = UserNames(folds_case=False)
"""Only the exact name."""
