"""Nouns to their base form as NLTK's WordNet lemmatizer gives it, for the few hundred words that a benchmark knows.

WordNet itself is not shipped: its endings are tried and a result counts where the benchmark knows it. So a word that
the benchmark does not know keeps its form, which no figure sees. `singular` is another rule, CHAIR's.
"""

from collections.abc import Container

#: WordNet's endings of nouns, in its order.
_ENDINGS = (
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
#: What WordNet lists as irregular, of words that pictures show; that "vases" is "vas" is its own opinion.
_IRREGULAR = {
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
    # Plurals that the official lists name, and that WordNet takes to a singular which the lists do not name.
    "chopsticks": "chopstick",
    "earrings": "earring",
    "slippers": "slipper",
    "sports": "sport",
    "sunglasses": "sunglass",
    # A word of its own for WordNet, though an ending would fit.
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
    """The shortest base form of a noun among `known` words; the word itself where none is. Case is kept as it is."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    forms = {word[: -len(ending)] + base for ending, base in _ENDINGS if word.endswith(ending)} - _UNKNOWN
    return min((form for form in (word, *sorted(forms)) if form in known), key=len, default=word)
