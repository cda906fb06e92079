"""English singulars exactly as in CHAIR: the rules of `pattern.en.singularize`, with their errors; and WordNet lemmas.

CHAIR's metrics depend on the errors ("bus" becomes "bu", so that CHAIR knows buses but no bus), so they are kept; a
lemmatizer gives other metrics. The rules are applied in this order: words that stay, irregular endings, then the first
regular ending. `words` tokenizes text and `coco_objects` uses both.
"""

import functools
import re
from collections.abc import Container


def _split_words(text: str) -> list[str]:
    return text.split()


#: Plural in form, or without a plural: they stay, and so does, by an error of the original, every ending of one of them
#: ("ears" ends "shears").
_STAY = _split_words(
    """
    advice bison bream bread breeches britches butter carp chassis cheese christmas clippers cod contretemps
    corps debris diabetes djinn eland electricity elk equipment flounder fruit furniture gallows garbage georgia
    graffiti gravel happiness headquarters herpes high-jinks homework information innings jackanapes ketchup
    knowledge love luggage mackerel mathematics mayonnaise measles meat mews mumps mustard news pincers pliers
    proceedings progress rabies research rice salmon sand scissors series shears software species swine swiss
    trout tuna understanding water whiting wildebeest
    """
)
_TAILS = frozenset(word[start:] for word in _STAY for start in range(len(word)))

#: Plurals in -ies that the original intends to convert but leaves unchanged ("doggies", "collies").
_LEFT = tuple(
    f"{word}s"
    for word in _split_words(
        """
    alergie auntie beanie birdie bogie bombie collie cookie cutie doggie eyrie freebie goonie groupie hankie
    hippie hoagie hottie indie junkie laddie laramie lingerie meanie newbie nightie oldie pixie quickie reverie
    rookie softie sortie stoolie sweetie techie toughie valkyrie veggie weenie yuppie zombie
    """
    )
)
_IRREGULAR = dict(
    pair.split(":")
    for pair in _split_words(
        """
    atlantes:atlas atlases:atlas axes:axe beeves:beef brethren:brother children:child corpora:corpus
    corpuses:corpus ephemerides:ephemeris feet:foot ganglia:ganglion geese:goose genera:genus genii:genie
    helves:helve kine:cow leaves:leaf loaves:loaf men:man mongooses:mongoose monies:money moves:move
    mythoi:mythos numena:numen occipita:occiput octopodes:octopus opera:opus opuses:opus our:my oxen:ox
    penes:penis penises:penis people:person sexes:sex soliloquies:soliloquy teeth:tooth testes:testis
    trilbys:trilby turves:turf zoa:zoon
    """
    )
)
_PREPOSITIONS = frozenset(
    _split_words(
        """
    about above across after among around at athwart before behind below beneath beside besides between betwixt
    beyond but by during except for from in into near of off on onto out over since till to under until unto
    upon with
    """
    )
)

#: Endings, the number of letters removed and the letters added; the first that fits is applied.
_ENDINGS = tuple(
    (re.compile(f"(?:{ending})$"), cut, added)
    for ending, cut, added in (
        (".itis|series|news", 0, ""),
        (".ae|.eaux|shoes|movies|.ombies", 1, ""),
        ("quizzes", 3, ""),
        ("matrices", 4, "ix"),
        ("(?:ap|vert|ind)ices", 4, "ex"),
        ("[cioprtv|]i", 1, "us"),
        ("(?:cris|ax|test)es", 2, "is"),
        ("(?:alias|status|bus|o|x|ch|ss|sh)es", 2, ""),
        ("[lm|]ice", 3, "ouse"),
        ("(?:[^aeiouy]|qu)ies", 3, "y"),
        ("(?:[^d]ea|l|(?<!e)r)ves", 3, "f"),
        ("(?:er|[aeo]|[hst]i)ves", 1, ""),
        ("[^f]ves", 3, "fe"),
        ("(?:analy|ba|diagno|parenthe|progno|synop|the|.op|.y)ses", 3, "sis"),
        ("(?:h|d|r|o|n|b|cl|p)oses", 1, ""),
        (".oses", 3, "sis"),
        ("[it]a", 1, "um"),
        ("s", 1, ""),
    )
)


@functools.lru_cache(maxsize=65_536)
def singular(word: str) -> str:
    """The singular of a lower-case word; a word that fits no rule is unchanged."""
    head, dash, rest = word.partition("-")
    if dash and rest.partition("-")[0] in _PREPOSITIONS:
        return f"{singular(head)}-{rest}"
    if word.endswith("'"):
        return f"{singular(word[:-1])}'s"
    if word in _TAILS or word.endswith(_LEFT):
        return word
    for plural, one in _IRREGULAR.items():
        if word.endswith(plural):
            return word.removesuffix(plural) + one
    for ending, cut, added in _ENDINGS:
        if ending.search(word):
            return word[: len(word) - cut] + added
    return word


#: WordNet's endings of nouns, in its order.
_ENDINGS_LEMMAS = (
    ("s", ""),
    ("ses", "s"),
    ("ves", "f"),
    ("xes", "x"),
    ("zes", "z"),
    ("ches", "ch"),
    ("shes", "sh"),
    ("men", "man"),
    ("ies", "y"),
)
#: WordNet's irregular plurals of words that images show; "vases" to "vas" is WordNet's.
_IRREGULAR_LEMMAS = {
    "buffaloes": "buffalo",
    "calves": "calf",
    "children": "child",
    "doggies": "doggy",
    "feet": "foot",
    "geese": "goose",
    "grandchildren": "grandchild",
    "halves": "half",
    "hooves": "hoof",
    "knives": "knife",
    "leaves": "leaf",
    "lives": "life",
    "loaves": "loaf",
    "mice": "mouse",
    "oxen": "ox",
    "pocketknives": "pocketknife",
    "potatoes": "potato",
    "scarves": "scarf",
    "shelves": "shelf",
    "taxies": "taxi",
    "teeth": "tooth",
    "tomatoes": "tomato",
    "vases": "vas",
    "wives": "wife",
    "wolves": "wolf",
    "women": "woman",
    # Plurals in the official lists whose WordNet singular is not in the lists.
    "chopsticks": "chopstick",
    "earrings": "earring",
    "slippers": "slipper",
    "sports": "sport",
    "sunglasses": "sunglass",
    # A separate word for WordNet, though an ending would fit.
    "men": "men",
}
#: Words of the official lists that WordNet does not know, so that their plurals keep their form.
_UNKNOWN = frozenset(
    {
        *("TV", "air-conditioning", "baconic", "bedsheet", "biker", "cann", "cathole", "closestool", "cooktop"),
        *("coworker", "doghole", "e-book", "earing", "ebook", "electrombile", "firetruck", "hairdryer", "hot"),
        *("iphone", "kiwifruit", "lenovo", "longboard", "macbook", "netbook", "paraglider", "pissoir", "rpoe"),
        *("sanitizer", "scoon", "seegull", "showerpuff", "smartphone", "solider", "stovetop", "streetlamp"),
        *("teddybear", "televison", "waterfont"),
    }
)


def lemma(word: str, known: Container[str]) -> str:
    """The shortest base form of a noun among `known` words, or the word itself if none is known. Case is kept."""
    if word in _IRREGULAR_LEMMAS:
        return _IRREGULAR_LEMMAS[word]
    forms = {word[: -len(ending)] + base for ending, base in _ENDINGS_LEMMAS if word.endswith(ending)} - _UNKNOWN
    return min((form for form in (word, *sorted(forms)) if form in known), key=len, default=word)
