"""Words and singulars against what the tokenizer of NLTK 3.9.1 and pattern's singularize were seen to give."""

import pytest

from sightline.evals.benches.singular import singular
from sightline.evals.benches.words import find_words, split_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        # Every sentence's period is a word, not only the text's last.
        ("a dog. the cat.\n\nan owl.", "a dog . the cat . an owl ."),
        ('he said "a dog." then left', 'he said " a dog . " then left'),
        ("(a dog.) a cat", "( a dog . ) a cat"),
        ("**a dog.** a cat", "* * a dog . * * a cat"),
        ("a dog.</s>", "a dog. < /s >"),  # glued: no period of its own, so no dog
        ("a dog.the cat", "a dog.the cat"),
        ("a cat... a dog", "a cat ... a dog"),
        ("cats,dogs, 1,000 at 3:15: yes", "cats , dogs , 1,000 at 3:15 : yes"),
        ("dog/cat wine-glass a--b c\u2014d 2010\u20132012", "dog/cat wine-glass a -- b c\u2014d 2010\u20132012"),
        ("the dog's dogs' 'dog' it's can't we'll", "the dog 's dogs ' 'dog ' it 's ca n't we 'll"),
        ("'a dog' 'I see' ('a cat')", "' a dog ' ' I see ' ( ' a cat ' )"),  # cut before one letter alone
        ("cannot gonna wanna gimme 'tis 'twas", "can not gon na wan na gim me 't is 't was"),
        ("a dog's', 50% of $5 & #1!", "a dog 's ' , 50 % of $ 5 & # 1 !"),
        ("", ""),
    ],
)
def test_words(text: str, words: str) -> None:
    assert split_words(text) == words.split()


def test_spans_are_where_the_words_stand() -> None:
    text = "A dog's bowl, the \u201cdog\u201d; dogs."
    found = find_words(text)
    assert [text[start:end] for start, end in (word.span for word in found)] == [word.text for word in found]
    assert [word.span for word in found if word.text == "dog"] == [(2, 5), (19, 22)]


@pytest.mark.parametrize(
    "pairs",
    [
        "dogs:dog benches:bench buses:bus glasses:glass sandwiches:sandwich toothbrushes:toothbrush",
        "vases:vase horses:horse",
        "knives:knife calves:calf wolves:wolf stoves:stove gloves:glove microwaves:microwave curves:curf olives:olife",
        "ladies:lady puppies:puppy movies:movie cookies:cookies collies:collies doggies:doggies",
        "people:person children:child women:woman firemen:fireman geese:goose oxen:ox mice:mouse feet:foot teeth:tooth",
        "scissors:scissors luggage:luggage ears:ears s:s news:news broccoli:broccoli taxis:taxi skis:ski",
        # The faults that decide CHAIR's figures: a singular that ends in s loses it, and more.
        "bus:bu glass:glas tennis:tenni ties:ty canoes:cano shoes:shoe pasta:pastum police:polouse hour:hmy 's:'",
        "analyses:analysis bases:basis roses:rose hypotheses:hypothesis cacti:cactus octopi:octopus dice:dice",
        "mothers-in-law:mother-in-law dogs':dog's tv:tv suvs:suv",
    ],
)
def test_singular(pairs: str) -> None:
    for pair in pairs.split():
        plural, expected = pair.split(":")
        assert singular(plural) == expected, plural
