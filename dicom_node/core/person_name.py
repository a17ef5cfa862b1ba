"""Person names as they are compared: without case and accents, and, where asked for, by words and their sound.

PS3.4 Annex C.2.2.2.1 lets the comparison of names be insensitive to case and accents, PS3.18 Section 10.6.1.2.3 leaves
open what fuzzy matching is.
"""

import re
import unicodedata

#: Letters that sound alike share a digit; vowels and what is nearly silent have none.
_SOUNDS = {
    letter: digit for digit, letters in enumerate(("bfpvw", "cgjkqsxz", "dt", "l", "mn", "r")) for letter in letters
}

_LONGEST_CODE = 6


def plain(text: str) -> str:
    """The text without case and accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(sign for sign in decomposed if not unicodedata.combining(sign))


def name_keys(value: str) -> tuple[str, str]:
    """What the alphabetic and the ideographic group of a name are compared by (PS3.5 Section 6.2.1)."""
    groups = [plain(group).strip().rstrip("^ ") for group in value.split("=")]
    return groups[0], groups[1] if len(groups) > 1 else ""


def words_of(value: str) -> list[str]:
    """The words of all groups and components."""
    return [word for word in re.split(r"[\s^=,.\-*?]+", plain(value)) if word]


def sound_of(word: str) -> str:
    """The same for words that sound alike; empty where nothing can be said of the sound."""
    if not word.isascii() or not word.isalpha():
        return ""
    digits = [str(_SOUNDS.get(letter, "")) for letter in word.replace("ph", "f")]
    kept = [digit for number, digit in enumerate(digits) if digit and (number == 0 or digits[number - 1] != digit)]
    # Whether it begins with a vowel is heard.
    return ("a" if word[0] in "aeiouy" else "") + "".join(kept)[:_LONGEST_CODE]


def fuzzy_words(value: str) -> str:
    """All words and sounds of a name in one text, each between spaces, sounds behind a tilde."""
    words = words_of(value)
    sounds = [f"~{sound}" for word in words if (sound := sound_of(word))]
    return f" {' '.join(words + sounds)} " if words else ""
