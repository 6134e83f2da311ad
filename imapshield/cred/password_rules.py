"""Which new passwords are refused: those that a guesser tries first.

The server lets one address try about ten passwords before it is banned, and all together a few a minute for each user.
So a guesser gets as far as the passwords of this list, and not to a random one of six characters.
"""

MIN_CHARACTERS = 6

_WORST_TEXT = """
    000000 111111 112233 121212 123123 1234567 12345678 123456789 1234567890 123456 123321 123qwe 123abc 1q2w3e
    1q2w3e4r 1q2w3e4r5t 1qaz2wsx 654321 666666 696969 7777777 888888 987654321 abc123 abcd1234 access admin123
    administrator asdfgh asdfghjkl azerty baseball batman changeme charlie computer default dragon flower football
    freedom google hello123 iloveyou killer letmein letmein1 login123 lovely master michael monkey mustang
    p@ssw0rd pass123 passw0rd password password1 password12 password123 password1234 princess qazwsx qwerty qwerty1
    qwerty123 qwertyuiop secret123 shadow starwars summer sunshine superman target test123 testing trustno1
    welcome welcome1 whatever winter zaq12wsx zxcvbn zxcvbnm
"""
_WORST = frozenset(_WORST_TEXT.split())


def weakness(password: bytes, user: str) -> str:
    """Return why a new password of `user` is refused, and what to choose; "" if it is not."""
    text = password.decode("utf-8", "surrogateescape")
    if len(text) < MIN_CHARACTERS:
        return f"the password has fewer than {MIN_CHARACTERS} characters; choose a longer one"
    folded = text.lower()
    if folded in (user.lower(), user.lower().partition("@")[0]):
        return "the password is the name of the user; choose another one"
    if folded in _WORST or len(set(folded)) == 1:
        return "the password is among the first that are guessed; choose another one"
    return ""
