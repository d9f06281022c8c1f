"""Which stemmer a word gets: by the script it is written in, and in Latin letters by the language of its text.

Nobody says what language a text is in, and nothing about it is stored. A text is taken for the language of which it
has most of the commonest words, if those are more than it has of English. What is also an English word does not count,
so that an English text is hardly ever taken for another.
"""

from collections.abc import Collection, Mapping

ENGLISH = "english"

SMALL_WORDS: Mapping[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "german": "der das den dem des ein eine einen einem einer und oder aber nicht ist sind bin hat habe haben hatte wir "
        "ihr ich sie er es mir mich dir dich uns mein meine meinen meiner dein deine sein seine wie wo wann warum welche "
        "welcher welches wer wem wen mit von vom zu zum zur im auf aus bei nach vor seit auch noch schon sehr dass wenn "
        "weil wird wurde werden kann für über durch gegen ohne heute gestern",
        "french": "le la les des du une et ou mais ne pas est sont suis sommes êtes ont avons avez nous vous ils elles je tu "
        "il elle mon ma mes ton ta tes ses notre nos votre vos leur leurs que qui quoi quand où comment pourquoi quel "
        "quelle quels quelles avec dans pour par sur sous chez très aussi cette ces ce cet être avoir était été fait au aux j'ai c'est n'est s'est d'un d'une qu'il qu'elle n'ai m'a t'a n'a",
        "spanish": "el los las una unos unas del al y pero es son soy está están estoy ha han hemos nosotros ustedes ellos "
        "ellas yo tú mi mis tu sus su que qué quién cuándo dónde cómo cuál cuáles por para con sin sobre en muy también "
        "este esta estos estas ese esa eso ser tener tengo tiene fue era hay lo le les se nos",
        "portuguese": "os um uma uns umas da das dos ao aos e mas não é são sou está estou foi era tem tenho têm nós vocês "
        "eles elas eu tu meu minha meus minhas seu sua seus suas nosso que quem quando onde como qual quais por para com "
        "sem sobre em na nos nas muito também este esta isso isto ser ter pelo pela lhe se você",
        "italian": "il lo gli la le uno una del della dei delle degli al alla ai alle nel nella e ma non è sono sei siamo ha "
        "hanno abbiamo ho noi voi loro io tu mio mia miei mie tuo tua suo sua nostro che chi cosa quando dove come quale "
        "quali perché per con senza su sul sulla molto anche questo questa questi queste essere avere era di da",
        "dutch": "het een en of maar niet zijn bent ben heb heeft hebben had wij jullie zij ik jij je hij mijn jouw zijn haar "
        "onze ons wat wie wanneer waar hoe waarom welke met van voor naar uit bij ook nog al zeer dat dit deze die om te "
        "wordt werd worden kan over door zonder op aan er geen vandaag gisteren",
        "swedish": "det den ett och eller inte är var har hade vi ni jag du han hon min mitt mina din ditt dina sin sitt vår "
        "vårt som vem vad när hur varför vilken vilket vilka med av för från till på om vid också mycket att detta dessa "
        "kan blir blev ska skulle utan efter idag igår",
    }.items()
}
"""The commonest words of each language, as they are written."""

_ALSO_ENGLISH = (
    "a am an at bin do den die door had has hat he her him in is it men me no of on or over past pour she sin so son su "
    "van var vet war was we wet will al el la le las dit en er es et i im lo om op tu un use ex tax net ben dem mine ai ho "
    "sei come are"
)
_ENGLISH_TOO = frozenset(_ALSO_ENGLISH.split())

_MARKS: dict[str, tuple[str, ...]] = {}
for _language, _words in SMALL_WORDS.items():
    for _word in _words - _ENGLISH_TOO:
        _MARKS[_word] = (*_MARKS.get(_word, ()), _language)

_MARK_WORDS = frozenset(_MARKS)

_OFTEN_ENGLISH = (
    "the and of to with is are was were be been it its this that you she they my your his her their our does did have has "
    "what when where who how which from not but would could should about there i a in for"
)
_ENGLISH_MARKS = frozenset(_OFTEN_ENGLISH.split())

_CYRILLIC_SMALL_WORDS = (
    "и в во не что он на я с со как а то все она так его но да ты к у же вы за бы по ее мне "  # noqa: RUF001
    "было вот от меня о из ему когда где кто какой какая какие мой моя мои это был была были мы они их для"  # noqa: RUF001
)
CYRILLIC_SMALL_WORDS = frozenset(_CYRILLIC_SMALL_WORDS.split())
"""Russian words that say nothing about what a message is about."""

# First and last code point of a script, and its stemmer. Languages that share a script share the stemmer: what matters
# is that a message and a query are treated alike.
_SCRIPTS = (
    (0x0370, 0x03FF, "greek"),
    (0x1F00, 0x1FFF, "greek"),
    (0x0400, 0x052F, "russian"),
    (0x0530, 0x058F, "armenian"),
    (0x0600, 0x06FF, "arabic"),
    (0x0900, 0x097F, "hindi"),
    (0x0B80, 0x0BFF, "tamil"),
)

LATIN_END = 0x0250
"""Code points below are Latin letters, digits and signs."""


def language_of(found: Collection[str], marks_min: int) -> str:
    """Return the language that a text with these words is taken for, among those in Latin letters.

    English, unless at least `marks_min` of the words are common ones of another language.
    """
    marks = _MARK_WORDS.intersection(found)
    if len(marks) < marks_min:
        return ENGLISH
    counts = dict.fromkeys(SMALL_WORDS, 0)
    for mark in marks:
        for language in _MARKS[mark]:
            counts[language] += 1
    # The first of the best in the order above, so that the same text is always taken for the same language.
    language = max(counts, key=counts.__getitem__)
    least = max(marks_min, len(_ENGLISH_MARKS.intersection(found)) + 1)
    return language if counts[language] >= least else ENGLISH


def stemmer_of(word: str, language: str) -> str:
    """Return the name of the stemmer for a word in a text that is taken for `language`."""
    point = ord(word[0])
    if point < LATIN_END:
        return language
    for first, last, stemmer in _SCRIPTS:
        if first <= point <= last:
            return stemmer
    return language
