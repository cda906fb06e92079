"""The words of the lab: synonyms, plurals, numbers, names of places. Shared by the speaker and the parser."""

#: Canonical kind -> what people call it; the first is the kind's own name.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "cup": ("mug",), "pan": ("frying pan",), "kettle": ("teapot",), "car": ("automobile",), "bicycle": ("bike",),
    "hen": ("chicken",), "umbrella": ("parasol",), "boat": ("sailboat",), "bucket": ("pail",), "palm": ("palm tree",),
    "mushroom": ("toadstool",), "laptop": ("computer",), "mitten": ("glove",), "sled": ("sledge",),
    "stop sign": ("road sign",), "traffic light": ("stoplight",),
}  # fmt: skip

#: Further names that the parser knows but the speaker never says: an oracle must judge answers of other models too.
FURTHER_NAMES: dict[str, tuple[str, ...]] = {
    "cup": ("teacup", "tea cup", "coffee cup"), "plate": ("dish", "saucer"), "pan": ("skillet",),
    "kettle": ("tea pot", "tea kettle"), "spoon": ("teaspoon", "tablespoon"), "car": ("sedan", "vehicle", "taxi"),
    "bus": ("school bus",), "traffic light": ("traffic signal", "stop light"), "bicycle": ("cycle", "pushbike"),
    "stop sign": ("stopsign",), "cow": ("cattle", "bull"), "barn": ("farmhouse", "shed", "cowshed", "cow shed"),
    "pig": ("hog", "piglet", "piggy"), "hen": ("rooster", "cockerel"), "umbrella": ("sunshade",),
    "boat": ("ship", "sailing boat", "sail boat", "rowboat", "rowing boat", "motorboat", "yacht"),
    "palm": ("coconut tree",), "flower": ("blossom", "daisy", "tulip", "sunflower"), "tree": ("pine tree",),
    "clock": ("watch", "wristwatch"), "book": ("notebook",), "laptop": ("laptop computer", "notebook computer"),
    "robot": ("android", "droid"), "sled": ("sleigh", "toboggan"), "lamp": ("table lamp", "desk lamp"),
    "chair": ("seat", "armchair"), "bench": ("park bench",), "snowman": ("snow man",), "butterfly": ("moth",),
    "ball": ("beach ball", "football", "soccer ball"),
}  # fmt: skip

_PLURALS = {
    "bus": "buses", "bench": "benches", "butterfly": "butterflies", "mitten": "mittens", "dish": "dishes",
    "snowman": "snowmen", "snow man": "snow men", "daisy": "daisies", "piggy": "piggies", "cattle": "cattle",
}  # fmt: skip

COUNT_WORDS: dict[int, str] = {0: "no", 1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}

THEME_PHRASES: dict[str, tuple[str, ...]] = {
    "kitchen": ("kitchen",),
    "street": ("street", "city street"),
    "farm": ("farm", "farmyard"),
    "beach": ("beach", "seaside"),
    "garden": ("garden", "park"),
    "office": ("office", "study"),
    "playroom": ("playroom", "nursery"),
    "winter": ("winter landscape", "snowy field"),
}


def names_of(kind: str) -> tuple[str, ...]:
    """What the speaker calls a kind: its own name twice as often as its synonym."""
    return (kind, kind, *SYNONYMS.get(kind, ()))


def all_names(kind: str) -> tuple[str, ...]:
    """Every name of a kind that the parser knows."""
    return (kind, *SYNONYMS.get(kind, ()), *FURTHER_NAMES.get(kind, ()))


def plural(name: str) -> str:
    """Plural of a kind's name."""
    if name in _PLURALS:
        return _PLURALS[name]
    return name + ("es" if name.endswith(("s", "ch", "sh", "x")) else "s")


def article(next_word: str) -> str:
    """`a` or `an`."""
    return "an" if next_word[0] in "aeiou" else "a"
