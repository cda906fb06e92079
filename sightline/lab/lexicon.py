"""The parser's dictionary: every known word or phrase, with a one-letter tag and an optional value.

`words` holds the lab's own names; this module has the other English words that decide what a sentence claims. A text
becomes a string of tags, one letter per word, over which the rules of `grammar` are regexes.
"""

import re
from dataclasses import dataclass

from sightline.lab.words import KINDS, all_names, plural

Value = str | int | None

#: Tags with values: n/N a kind in the singular/plural, c color, q number (Q both), l direction, r vertical relation,
#: b "be" and other verbs of place ("plural" where their subject must be). Tags without:
#: i "a", t "the", h other determiners, j makes a number vague, o "no", x "not", w "without", W "neither",
#: a adjective, m noun that modifies a noun, e adverb, z "visible", y "missing", M modal, v to see or to have,
#: P pronoun, T "there", p preposition, f "of", g the image itself, s "side", d "painted", k "that", & | B ' , . and u:
#: an unknown word.
_WORDS: dict[str, str] = {
    "i": "a an",
    "t": "the this these those",
    "h": "its their his her our my your another any each every whose",
    "o": "no zero 0",
    "x": "not never cannot",
    "w": "without lacks lacking",
    "W": "neither nor",
    "a": """small tiny little big large huge giant tall short long wide old new young dark light pale bright deep vivid
        pretty beautiful nice cute lovely colorful colourful wooden metal plastic glass paper cardboard striped spotted
        empty full clean dirty rusty shiny parked open closed single lone only other different similar identical more
        additional extra very quite rather fairly slightly mostly solid plain round square flat far same
        first second third last total toy real stuffed fluffy cheerful happy friendly main simple typical
        cozy busy sunny quiet peaceful""",
    "m": """kitchen street farm farmyard beach seaside garden park office study playroom nursery winter city town
        village coffee tea dinner soup dessert sports racing fishing dining rocking desk table wall alarm school
        country house home""",
    "e": """also too just only really actually clearly directly immediately even still all well again here
        probably perhaps maybe currently partly partially somewhere anywhere likely yes either""",
    "z": "visible present shown seen pictured depicted included found displayed apparent exist exists",
    "y": "missing absent nowhere",
    "b": "is are was were be being been am stands stand sits sit lies lie rests rest hangs hang",
    "M": "can could may might would will should must do does did",
    "v": """see sees saw have has had having contain contains containing include includes including show shows showing
        find feature features featuring spot notice depict depicts depicting display displays seem seems appear appears
        hold holds detect""",
    "P": "it they he she we you someone somebody nobody anyone everybody everyone",
    "p": """in on at to with by from near beside behind into onto through across around against between among toward
        towards for like as than about along inside outside off up down before after during within past besides""",
    "f": "of",
    "g": "image images picture pictures scene scenes photo photograph frame view screen drawing illustration canvas",
    "s": "side sides corner part half edge area portion section third hand quadrant region border",
    "d": "painted colored coloured",
    "k": "that which who",
    "&": "and plus",
    "|": "or",
    "B": "but however while whereas though although yet because so if when where unless",
}
#: Words of tag b with a plural subject.
_PLURAL_VERBS = "are were stand sit lie rest hang"
_PHRASES: dict[str, str] = {
    "a": "double decker|hot air|more or less|kind of|sort of",
    "e": """as well|in addition|for sure|of course|no doubt|not all|not every|without doubt|
        without a doubt|not only|not just|not merely|
        nothing but|nothing except|no one|at least one of|in fact|for example|next|with no doubt""",
    "&": "as well as|along with|together with|and also|but also|and then",
    "w": """instead of|rather than|free of|devoid of|empty of|absence of|lack of|no sign of|no signs of|no trace of|
        no evidence of|no hint of|impossible to see|impossible to find|unable to see|
        unable to find|hard to find""",
    "x": "no longer",
    "W": "and neither|and nor",
    "o": "not a single|not any",
    "p": """next to|in front of|close to|far from|other than|apart from|aside from|except for|except|nearby to""",
    "v": "looks like|look like|made up of|consists of|sign of|signs of",
    "j": "more than|fewer than|less than|up to|at least|at most|no more than|no fewer than|no less than|nearly|almost",
    "h": "some of the|some of|the other",
    "u": """car park|car wash|car seat|car door|car window|bus stop|bus station|bus lane|bus driver|bus ticket|
        hen house|chicken coop|chicken soup|chicken farm|pig pen|pig sty|pig farm|cow boy|cow bell|boat house|
        flower pot|flower bed|flower shop|flower vase|tree house|tree trunk|tree line|tree branch|book shelf|
        book case|book store|book club|cup holder|cup board|cup cake|dish washer|dish towel|dish cloth|dish soap|
        license plate|licence plate|number plate|plate rack|palm leaf|palm leaves|palm frond|palm oil|palm of|
        chair lift|lamp shade|ball game|ball pit|ball room|ball gown|umbrella stand|bucket list|bucket hat|
        clock tower|clock face|drum stick|kite surfer|kite surfing|pan cake|butterfly net|mushroom cloud|
        mushroom soup|crab apple|bike lane|bike rack|bike path|bicycle lane|bicycle rack|bicycle path|cycle lane|
        cycle path|traffic jam|computer mouse|computer screen|computer monitor|computer desk|glove compartment|
        ship wreck|watch tower|watch out|bus stop sign|seat belt|
        shed light|robot vacuum""",
}
_RELATIONS: dict[str, str] = {
    "above": "above|over|higher up than|higher than|further up than|on top of|atop|up above|higher in the image than",
    "below": "below|under|beneath|underneath|lower than|lower down than|further down than|lower in the image than",
}
_DIRECTIONS: dict[str, str] = {
    "left": "left lefthand leftmost", "right": "right righthand rightmost", "top": "top upper uppermost",
    "bottom": "bottom lower lowermost", "middle": "middle center centre central",
}  # fmt: skip
_NUMBERS: dict[int | None, str] = {
    1: "one|exactly one|just one", 2: "two|couple of|a couple of|pair of|a pair of|both of the|the pair of",
    3: "three|trio of|a trio of", 4: "four", 5: "five", 6: "six|half a dozen|half dozen", 7: "seven", 8: "eight",
    9: "nine", 10: "ten", 11: "eleven", 12: "twelve|dozen", 20: "twenty",
    None: """several|few|a few|many|some|multiple|various|numerous|plenty of|lots of|a lot of|number of|a number of|
        group of|herd of|flock of|row of|rows of|bunch of|set of|stack of|pile of|series of|collection of|variety of|
        dozens of|pairs of|cluster of|line of""",
}  # fmt: skip
#: Colors that the world lacks have the value None: the claim counts, its color is not judged.
_COLOR_WORDS: dict[str | None, str] = {
    "red": "red reddish crimson scarlet ruby maroon burgundy",
    "orange": "orange tangerine",
    "yellow": "yellow yellowish golden gold lemon",
    "green": "green greenish emerald lime olive",
    "blue": "blue bluish navy azure cobalt",
    "purple": "purple purplish violet lavender lilac indigo",
    "white": "white whitish ivory",
    "black": "black blackish jet",
    None: "grey gray brown pink beige tan silver turquoise teal cyan magenta bronze khaki multicolored multicoloured",
}
#: Names that are also verbs or other nouns: without article or number they are not treated as objects.
AMBIGUOUS = frozenset(
    f(name)
    for name in ("watch", "ship", "shed", "cycle", "seat", "pan", "book", "drum", "dish", "palm", "bull", "light")
    for f in (str, plural)
)
_SHAPE = frozenset(("shaped", "themed", "sized", "patterned", "printed"))


@dataclass(frozen=True)
class LexiconEntry:
    """The tag and value of a word or phrase."""

    tag: str
    value: Value = None


@dataclass(frozen=True)
class Lexed:
    """A text as tags: `tags[i]`, `values[i]` and the characters `starts[i]:ends[i]` belong to the i-th word."""

    tags: str
    values: list[Value]
    starts: list[int]
    ends: list[int]


def _items(text: str) -> list[str]:
    return [" ".join(item.split()) for item in text.split("|") if item.strip()]


def _dictionary() -> dict[str, LexiconEntry]:
    found: dict[str, LexiconEntry] = {}
    for tag, text in _WORDS.items():
        found.update({word: LexiconEntry(tag) for word in text.split()})
    found.update({word: LexiconEntry("b", "plural") for word in _PLURAL_VERBS.split()})
    for tag, text in _PHRASES.items():
        for item in _items(text):
            found[item] = LexiconEntry(tag)
            if tag == "u" and not item.endswith((" of", " a", " the")):
                found[plural(item)] = LexiconEntry(tag)
    for relation, text in _RELATIONS.items():
        found.update({item: LexiconEntry("r", relation) for item in _items(text)})
    for direction, text in _DIRECTIONS.items():
        found.update({word: LexiconEntry("l", direction) for word in text.split()})
    for number, text in _NUMBERS.items():
        found.update({item: LexiconEntry("q", number) for item in _items(text)})
    found["both"] = LexiconEntry("Q", 2)
    for color, text in _COLOR_WORDS.items():
        found.update({word: LexiconEntry("c", color) for word in text.split()})
    for kind in KINDS:
        for name in all_names(kind):
            found[name] = LexiconEntry("n", kind)
            found[plural(name)] = LexiconEntry("N", kind)
            found[name + "s"] = LexiconEntry("N", kind)  # models may write "snowmans"
    return found


_ENTRIES = _dictionary()
#: first word of a phrase -> its possible numbers of further words, longest first.
_LONGER: dict[str, tuple[int, ...]] = {}
for _phrase in _ENTRIES:
    _first, *_rest = _phrase.split()
    if _rest:
        _LONGER[_first] = tuple(sorted({*_LONGER.get(_first, ()), len(_rest)}, reverse=True))
_TOKEN = re.compile(
    r"[^\W\d_]+(?:['\u2019](?:t|re)\b)?|['\u2019]s\b|\d+|[.!?;:]|[,()\[\]\"\u2014\u2013]|\s-\s|\n\s*(?:\n|[-*\u2022]|\d+[.)])"
)
_UNKNOWN = LexiconEntry("u")


def _entry(word: str) -> LexiconEntry:
    """The entry of one lower-case token outside any known phrase."""
    known = _ENTRIES.get(word)
    if known is not None:
        return known
    first = word[0]
    if first.isdigit():
        return LexiconEntry("q", int(word)) if word.isascii() and len(word) < 4 else _UNKNOWN
    if first.isalpha():
        if word.endswith(("'t", "\u2019t")):
            return LexiconEntry("x")
        return LexiconEntry("b") if word.endswith(("'re", "\u2019re")) else _UNKNOWN
    if first in "'\u2019":
        return LexiconEntry("'")
    return LexiconEntry("." if first in ".!?;:\n" else ",")


def lex(text: str) -> Lexed:
    """Cut a text into words and phrases, the longest known phrase first."""
    tokens = [(match[0].lower(), match.start(), match.end()) for match in _TOKEN.finditer(text)]
    words = [token[0].strip() or "\n" for token in tokens]
    tags: list[str] = []
    values: list[Value] = []
    starts: list[int] = []
    ends: list[int] = []
    at = 0
    while at < len(words):
        entry, size = None, 1
        for more in _LONGER.get(words[at], ()):
            entry = _ENTRIES.get(" ".join(words[at : at + more + 1]))
            if entry is not None and at + more < len(words):
                size = more + 1
                break
            entry = None
        entry = entry or _entry(words[at])
        end = tokens[at + size - 1][2]
        following = words[at + size] if at + size < len(words) else ""
        tags.append(_in_compound(entry.tag, text[end : end + 1], following))
        values.append(entry.value)
        starts.append(tokens[at][1])
        ends.append(end)
        at += size
    return Lexed("".join(tags), values, starts, ends)


def _in_compound(tag: str, next_character: str, following: str) -> str:
    """Tag `red` in "red-roofed" and `flower` in "flower-shaped" as adjectives."""
    if tag == "c" and next_character == "-" and following not in _ENTRIES:
        return "a"
    return "a" if tag in "nN" and following in _SHAPE else tag
