"""The words of the lab: synonyms, plurals, numbers, names of places. Shared by the speaker and the parser."""

from pydantic import BaseModel, ConfigDict, Field

from sightline.config import Seed

#: Canonical kind -> synonyms used by the speaker.
SYNONYMS: dict[str, tuple[str, ...]] = {
    "cup": ("mug",), "pan": ("frying pan",), "kettle": ("teapot",), "car": ("automobile",), "bicycle": ("bike",),
    "hen": ("chicken",), "umbrella": ("parasol",), "boat": ("sailboat",), "bucket": ("pail",), "palm": ("palm tree",),
    "mushroom": ("toadstool",), "laptop": ("computer",), "mitten": ("glove",), "sled": ("sledge",),
    "stop sign": ("road sign",), "traffic light": ("stoplight",),
}  # fmt: skip

#: Further names that the parser knows but the speaker never uses, since the oracle also judges other models.
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


def spoken_names(kind: str) -> tuple[str, ...]:
    """The names the speaker draws from: a kind's own name twice, its synonym once."""
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


#: theme -> kinds; both from most to least frequent. The long tail makes some kinds popular.
THEMES: dict[str, tuple[str, ...]] = {
    "kitchen": ("cup", "plate", "pan", "kettle", "spoon"),
    "street": ("car", "bus", "traffic light", "bicycle", "stop sign"),
    "farm": ("cow", "barn", "tractor", "pig", "hen"),
    "beach": ("umbrella", "boat", "bucket", "crab", "palm"),
    "garden": ("flower", "tree", "bench", "butterfly", "mushroom"),
    "office": ("laptop", "lamp", "chair", "book", "clock"),
    "playroom": ("ball", "robot", "drum", "balloon", "kite"),
    "winter": ("snowman", "sled", "penguin", "igloo", "mitten"),
}
KINDS: tuple[str, ...] = tuple(kind for kinds in THEMES.values() for kind in kinds)
THEME_OF: dict[str, str] = {kind: theme for theme, kinds in THEMES.items() for kind in kinds}

#: Companions: if one of the pair is in a scene, the other tends to be too.
COMPANION: dict[str, str] = {
    a: b
    for x, y in (
        ("cup", "plate"), ("pan", "kettle"), ("car", "traffic light"), ("bus", "bicycle"), ("cow", "barn"),
        ("pig", "hen"), ("umbrella", "bucket"), ("boat", "palm"), ("flower", "butterfly"), ("tree", "bench"),
        ("laptop", "lamp"), ("chair", "book"), ("ball", "robot"), ("drum", "balloon"), ("snowman", "sled"),
        ("penguin", "igloo"),
    )
    for a, b in ((x, y), (y, x))
}  # fmt: skip

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (248, 220, 50),
    "green": (40, 160, 60),
    "blue": (40, 90, 220),
    "purple": (140, 60, 190),
    "white": (245, 245, 245),
    "black": (30, 30, 34),
}
SIZES: dict[str, tuple[int, int]] = {"small": (19, 22), "medium": (26, 31), "large": (34, 40)}  # pixels, longer side


def favorite_color(kind: str) -> str:
    """A kind's most frequent color, spread evenly over kinds so that color alone says little about the kind."""
    return tuple(COLORS)[(KINDS.index(kind) * 3) % len(COLORS)]


class WorldConfig(BaseModel):
    """Probabilities of the world. Their defaults define the committed lab; another world is another config."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: Seed = Field(default=0, description="seed of the scenes")
    theme_decay: float = Field(
        default=0.8, gt=0, le=1, description="frequency of the next theme relative to the one before: a long tail"
    )
    theme_share: float = Field(
        default=0.9, ge=0, le=1, description="probability that an object comes from the scene's theme"
    )
    rank_decay: float = Field(
        default=0.75, gt=0, le=1, description="weight of a theme's next kind relative to the one before"
    )
    companion: float = Field(
        default=0.6, ge=0, le=1, description="probability that a lone object's companion is drawn next"
    )
    favorite: float = Field(default=0.5, ge=0, le=1, description="probability that a kind has its favorite color")
    twin: float = Field(
        default=0.15, ge=0, le=1, description="probability that an object repeats one that is there already"
    )
    max_objects: int = Field(default=6, ge=1, le=6, description="largest number of objects in a scene")
    small: float = Field(
        default=0.2, ge=0, le=1, description="share of small objects; the rest is medium and large, evenly"
    )
    min_visible: float = Field(
        default=0.55, gt=0, le=1, description="least visible share of an object that counts as there"
    )
