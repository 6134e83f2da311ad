"""The raw material of the corpus: words, people, and texts and fields that are built from them."""

from __future__ import annotations

import base64
import random
import time
from functools import lru_cache

VOCABULARY = (
    "the of and to in a is that for it as was with be by on not he his but at are this have from"
    " or had an they which one you were all her she there would their we him been has when who"
    " will no more if out so up said what its about than into them can only other time new some"
    " could these two may first then do any like my now over such our man me even most made after"
    " also did many off before must well back through years much where your way down should"
    " because long each just state people those too mister how little good world make very year"
    " still see own work men day get here old life both between being under three never know same"
    " last another while us might great go come since against right came take used himself few"
    " house use place during high without again home around small however found mrs part school"
    " thought went say general once upon every war does got united number hand course water until"
    " always away public something fact less though far put head think called set almost enough"
    " end took government night yet system better four nothing told eyes city going president why"
    " days present point didn't look find asked second group later next room social business knew"
    " program give half side face toward meeting invoice deadline release server mailbox"
    " attachment schedule budget review ticket draft"
)
WORDS = VOCABULARY.split()

PEOPLE = (
    ("Ada Lindqvist", "ada.lindqvist@nordwind.example"),
    ("Bertrand Okafor", "bertrand@okafor-consulting.example"),
    ("Chen Xiulan", "chen.xiulan@harbour.example"),
    ("Dora Márquez", "dora.marquez@correo.example"),
    ("Émile Fournier", "emile.fournier@courriel.example"),
    ("Jürgen Weiß", "juergen.weiss@kanzlei.example"),
    ("Kowalski, Jan", "jan@kowalski.example"),
    ("Laszlo Nagy", "laszlo.nagy@posta.example"),
    ("", "noreply@notifications.example"),
    ("Build Robot", "ci@builds.example"),
    ("O'Neill (Accounts)", "accounts@oneill.example"),
    ("Priya Raman", "priya.raman@lists.example"),
    ("Søren Ågård", "soren@aagaard.example"),
    ("山田 太郎", "yamada@yubin.example"),
    ("Owner of the list", "users-bounces@lists.example"),
    ("Zoë \"Zed\" Baker", "zoe.baker@workshop.example"),
)  # fmt: skip

FOREIGN = (
    "Grüße aus München – schöne Aussicht, größere Füße",
    "Réunion reportée à jeudi : ça ira, après-midi",
    "Отчёт за третий квартал готов",
    "会議の議事録を送ります",
    "Zażółć gęślą jaźń",
    "Überraschung: 100 € für Ölförderung",
)

SENTENCE_SEED = 1999


@lru_cache(maxsize=1)
def sentences() -> tuple[str, ...]:
    """Return 3,000 sentences, from which every text is built: new ones for each text would take a minute in all."""
    rng = random.Random(SENTENCE_SEED)
    return tuple(
        " ".join(rng.choices(WORDS, k=rng.randint(6, 18))).capitalize() for _ in range(3000)
    )


def paragraphs(rng: random.Random, planted_word: str = "") -> str:
    """Return some paragraphs in lines of about 76 columns with CRLF between them.

    A `planted_word` stands in a line of its own in the middle.
    """
    lines: list[str] = []
    for _ in range(1 + int(rng.expovariate(0.35))):
        column = 0
        line: list[str] = []
        for word in ". ".join(rng.sample(sentences(), rng.randint(2, 7))).split(" "):
            if column + len(word) > 75:
                lines.append(" ".join(line))
                column, line = 0, []
            line.append(word)
            column += len(word) + 1
        lines += [" ".join(line) + ".", ""]
    if planted_word:
        lines.insert(len(lines) // 2, f"P.S. Plant them in a {planted_word}, as always.")
    return "\r\n".join(lines)


def encoded_words(text: str, charset: str = "utf-8") -> str:
    """Return RFC 2047 encoded words, each of at most 75 characters, folded."""
    chunks = (text[start : start + 14] for start in range(0, len(text), 14))
    return "\r\n ".join(
        f"=?{charset}?B?{base64.b64encode(chunk.encode(charset)).decode()}?=" for chunk in chunks
    )


def raw_8bit(text: str, charset: str) -> str:
    """Return text as undeclared 8-bit bytes of a charset; surrogates stand for the bytes."""
    return text.encode(charset, "replace").decode("ascii", "surrogateescape")


def address(person: tuple[str, str], rng: random.Random) -> str:
    """Return an address with its display name quoted, encoded, or as raw 8-bit bytes."""
    name, mailbox = person
    if not name:
        return mailbox
    if name.isascii():
        return f"{name if name.replace(' ', '').isalpha() else _quoted(name)} <{mailbox}>"
    if rng.random() < 0.25:
        return f"{raw_8bit(_quoted(name), 'utf-8')} <{mailbox}>"
    return f"{encoded_words(name)} <{mailbox}>"


def _quoted(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def rfc_date(seconds: int, zone: str = "+0000") -> str:
    """Return a Date field in UTC that claims another zone."""
    return time.strftime("%a, %d %b %Y %H:%M:%S ", time.gmtime(seconds)) + zone
