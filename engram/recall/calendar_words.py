"""Words for times in the languages of `languages` that are written in Latin letters, beside the English ones of `times`.

Left out is what means something else in another of these languages, or in English: "hier" is yesterday in French and
here in German.
"""

_MONTHS = (
    "januar februar märz april mai juni juli august september oktober november dezember",
    "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "januari februari maart april mei juni juli augustus september oktober november december",
    "januari februari mars april maj juni juli augusti september oktober november december",
)
MONTH_NUMBERS = {name: number for year in _MONTHS for number, name in enumerate(year.split(), start=1)}
"""Of each month's name: which month it is, from 1."""

_WEEKDAYS = (
    "montag dienstag mittwoch donnerstag freitag samstag sonntag lundi mardi mercredi jeudi vendredi samedi dimanche "
    "lunes martes miércoles jueves viernes sábado domingo "
    "lunedì martedì mercoledì giovedì venerdì sabato domenica maandag dinsdag woensdag donderdag vrijdag zaterdag zondag "
    "måndag tisdag onsdag torsdag fredag lördag söndag"
)

TODAY = "heute aujourd'hui hoy hoje oggi vandaag idag"
YESTERDAY = "gestern ayer ontem ieri gisteren igår"
_NEAR = (
    "vorgestern übermorgen anteayer anteontem eergisteren overmorgen förrgår woche wochen monat monate monaten jahre jahren "
    "semaine semaines année années semana semanas año años anos settimana settimane mese anno anni weken maand maanden "
    "jaar vecka veckan veckor månad månaden året"
)
_NOT_TIMES = {"mai", "mars"}
"""Months that are another word elsewhere: never in Italian, a planet in English."""

TIME_WORDS = frozenset(f"{TODAY} {YESTERDAY} {_NEAR} {_WEEKDAYS}".split()) | (MONTH_NUMBERS.keys() - _NOT_TIMES)
"""A text with one of these says when something was."""

NUMBERS = {
    **dict.fromkeys(
        ["ein", "eine", "einem", "einer", "einen", "un", "une", "una", "um", "uma", "uno", "een", "en", "ett"], 1
    ),
    **dict.fromkeys(["zwei", "deux", "dos", "dois", "duas", "due", "twee", "två"], 2),
    **dict.fromkeys(["drei", "trois", "tres", "três", "tre", "drie"], 3),
}

UNITS = {
    **dict.fromkeys(["tag", "jour", "dia", "día", "giorn", "dag"], "day"),
    **dict.fromkeys(["woche", "semaine", "semana", "settiman", "week", "wek", "veck"], "week"),
    **dict.fromkeys(["monat", "mois", "mes", "mês", "maand", "månad"], "month"),
    **dict.fromkeys(["jahr", "an", "ann", "année", "año", "ano", "jaar", "år"], "year"),
}
"""What words for units begin with."""

_UNIT = rf"(?P<unit>{'|'.join(sorted(UNITS, key=len, reverse=True))})[a-zñ]{{0,3}}"
_COUNT = rf"(?P<count>\d{{1,4}}|{'|'.join(sorted(NUMBERS, key=len, reverse=True))})"

AGO = rf"\b(?:vor|il y a|hace|há|för) {_COUNT} {_UNIT}\b"
AGO_BEHIND = rf"\b{_COUNT} {_UNIT} (?:fa|geleden)\b"
LAST = rf"\b(?:letzte[nrs]?|vorige?|förra) {_UNIT}\b"
LAST_BEHIND = rf"\b{_UNIT} (?:dernier|dernière|passée?|pasad[oa]|passad[oa]|scors[oa])\b"
HINTS = "vor |fa\\b|il y a|hace |há |för |geleden|letzte|vorig|förra|derni|pass|pasad|scors"
"""One of these is in every text that the four patterns read."""

IN_MONTH = r"(?:im|seit|en|depuis|em|desde|nel|sinds|i|sedan)"
"""What stands before a month without a day or a year."""

ASKS_WHEN = (
    r"wann|wie lange|wie viele (?:tage|wochen|monate|jahre)|quand|combien de (?:temps|jours|semaines|mois)|combien d'années"
    r"|cu[aá]ndo|cu[aá]nto tiempo|cu[aá]ntos (?:d[ií]as|meses|años)|cu[aá]ntas semanas|quando|quanto tempo"
    r"|quantos (?:dias|meses|anos)|quantas semanas|quanti (?:giorni|mesi|anni)|quante settimane"
    r"|wanneer|hoe lang|hoeveel (?:dagen|weken|maanden|jaar)|när|hur länge|hur många (?:dagar|veckor|månader|år)"
)

ASKS_ASSISTANT = (
    r"(?:hast du|haben sie)\b[^.?!]{0,80}\b(?:empfohlen|vorgeschlagen|gesagt|erwähnt|genannt|geraten|gegeben|erklärt)"
    r"|(?:as-tu|tu (?:m')?as|avez-vous|vous (?:m')?avez)\b[^.?!]{0,40}\b(?:recommandé|suggéré|dit|mentionné|donné|proposé|conseillé|expliqué)"
    r"|(?:recomendaste|sugeriste|dijiste|mencionaste|propusiste|aconsejaste|explicaste)"
    r"|você (?:me )?(?:recomendou|sugeriu|disse|mencionou|propôs|explicou)"
    r"|hai (?:consigliato|suggerito|detto|menzionato|proposto|raccomandato|spiegato)"
    r"|(?:heb|had) je\b[^.?!]{0,80}\b(?:aanbevolen|aangeraden|voorgesteld|gezegd|genoemd|uitgelegd)"
    r"|(?:rekommenderade|föreslog|sade|nämnde|förklarade) du"
)
