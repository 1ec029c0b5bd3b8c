"""Pages whose letters are not what people see, and everything strange that is sound."""

from __future__ import annotations

import base64
import random
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.readers import decode, garbled

ROOT = Path(__file__).parents[2]
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")

# Article 1 and parts of articles 2 and 3 of the Universal Declaration of Human Rights.
LANGUAGES = {
    "English": (
        "All human beings are born free and equal in dignity and rights. They are endowed with reason and "
        "conscience and should act towards one another in a spirit of brotherhood."
    ),
    "Welsh": (
        "Genir pawb yn rhydd ac yn gydradd â'i gilydd mewn urddas a hawliau. Fe'u cynysgaeddir â rheswm a "
        "chydwybod, a dylai pawb ymddwyn y naill at y llall mewn ysbryd cymodlon."
    ),
    "Polish": (
        "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni "
        "rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa."
    ),
    "Czech": (
        "Všichni lidé rodí se svobodní a sobě rovní co do důstojnosti a práv. Jsou nadáni rozumem a svědomím "
        "a mají spolu jednat v duchu bratrství. Strč prst skrz krk."
    ),
    "Vietnamese": (
        "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền. Mọi con người đều được "
        "tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong tình bằng hữu."
    ),
    "German": (
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen "
        "begabt und sollen einander im Geist der Brüderlichkeit begegnen. Angstschweiß, "
        "Rechtsschutzversicherung."
    ),
    "Finnish": (
        "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan. Heille on annettu "
        "järki ja omatunto, ja heidän on toimittava toisiaan kohtaan veljeyden hengessä."
    ),
    "Hungarian": (
        "Minden emberi lény szabadon születik és egyenlő méltósága és joga van. Az emberek, ésszel és "
        "lelkiismerettel bírván, egymással szemben testvéri szellemben kell hogy viseltessenek."
    ),
    "Turkish": (
        "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler ve "
        "birbirlerine karşı kardeşlik zihniyeti ile hareket etmelidirler."
    ),
    "Icelandic": (
        "Hver maður er borinn frjáls og jafn öðrum að virðingu og réttindum. Menn eru gæddir vitsmunum og "
        "samvizku, og ber þeim að breyta bróðurlega hverjum við annan."
    ),
    "Xhosa": (
        "Bonke abantu bazalwa bekhululekile belingana ngesidima nangokweemfanelo. Bonke abantu banesiphiwo "
        "sesazela nesizathu sokwenza isenzo ongathanda ukuba senziwe kumzalwane wakho."
    ),
    "Chinese": "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。",
    "Japanese": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "Korean": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "Arabic": "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق. وقد وهبوا عقلاً وضميرًا.",
    "Hindi": "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।",
    "Thai": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Russian": "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_languages(language: str) -> None:
    text = LANGUAGES[language]
    assert garbled.fault(text * 4) == ""
    assert garbled.unusual_share(garbled._WORD.findall(text)) < garbled.NATURAL
    assert garbled.fault(text.upper() * 4) == ""


CHANCE = random.Random(5)


def drawn(letters: str, length: int, count: int = 200, gap: str = " ") -> str:
    return gap.join("".join(CHANCE.choices(letters, k=length)) for _ in range(count))


SOUND = {
    "hexadecimal digits": drawn("0123456789abcdef", 32),
    "base64": base64.b64encode(CHANCE.randbytes(3000)).decode(),
    "base64 in lines": "\n".join(base64.b64encode(CHANCE.randbytes(57)).decode() for _ in range(60)),
    "numbers": "\n".join("\t".join(f"{CHANCE.random() * 1000:.2f}" for _ in range(8)) for _ in range(50)),
    "genes": drawn("ACGT", 60, 40, "\n"),
    "proteins": drawn("ACDEFGHIKLMNPQRSTVWY", 10, 300),
    "shares": drawn(string.ascii_uppercase, 4, 300),
    "molecules": "C8H10N4O2 CH3CH2OH NaHCO3 K2Cr2O7 (CH3)2CHOH Fe2(SO4)3 " * 40,
    "formulas": "∑ᵢ xᵢ² ≤ ∫₀¹ f(t) dt ∀ε>0 ∃δ: |x−y|<δ ⇒ ‖f(x)−f(y)‖<ε λ→∞ ∂u/∂t = κ∇²u " * 20,
    "macros": "#define PNG_IHDR png_set_gAMA mvwprintw wclrtoeol strncpy memcmp sprintf fgets gzprintf int char " * 20,
    "a font's characters": "".join(map(chr, range(0x21, 0x17F))),
    "nothing": "",
}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_strange_and_sound(name: str) -> None:
    assert garbled.fault(SOUND[name]) == ""


@pytest.mark.parametrize("folder", ["pipeline", "tests", "docs", "sample_docs", "configs"])
def test_code_and_documents_of_this_repository(folder: str) -> None:
    for path in sorted((ROOT / folder).rglob("*.*")):
        if path.suffix in (".py", ".md", ".txt", ".csv", ".toml", ".html", ".rst"):
            text = decode.text_of(path.read_bytes())
            for start in range(0, len(text), 3000):
                assert garbled.fault(text[start : start + 3000]) == "", f"{path}, from {start} on"


def test_unreadable_characters() -> None:
    assert garbled.fault("\ue000\ue001\ue002" + "a" * 20) == "13% of its characters are unreadable"
    assert garbled.fault("\ufffd" + "a" * 20) == ""


def test_glyph_numbers() -> None:
    assert garbled.fault("(cid:12)(cid:7)(cid:104) 3 (cid:9)") == "numbers of glyphs in place of letters"
    assert garbled.fault("pdfminer writes (cid:12) for a glyph without a character. " + ENGLISH[:500]) == ""


@pytest.mark.parametrize("shift", [-29, -31, 1, 3])
def test_shifted_letters(shift: int) -> None:
    """-29: the glyph numbers of most TrueType fonts, "7KH" for "The"."""
    moved = "".join(chr(ord(one) + shift) if "!" < one < "\x7f" else one for one in ENGLISH[:4000])
    assert garbled.fault(moved) in ("its letters are shifted", "its letters make no words", "")
    if shift == -29:
        assert garbled.fault(moved) == "its letters are shifted"


def test_permuted_letters_are_mostly_seen() -> None:
    """Of random permutations; that some pass is the price of no false alarm: see garbled.PAIRS."""
    seen = 0
    for seed in range(60):
        letters = list(string.ascii_lowercase)
        random.Random(seed).shuffle(letters)
        permuted = ENGLISH[:4000].lower().translate(str.maketrans(string.ascii_lowercase, "".join(letters)))
        seen += garbled.fault(permuted) == "its letters make no words"
    assert seen > 36


@given(text=st.text(max_size=300))
@settings(max_examples=200, deadline=None)
def test_short_texts_are_judged_by_their_characters_alone(text: str) -> None:
    fault = garbled.fault(text)
    assert fault == "" or "characters are unreadable" in fault or "(cid:" in text


def test_scripts_that_change_within_words() -> None:
    chance = random.Random(3)
    letters = [chr(code) for code in range(0x370, 0xEFF) if chr(code).isalpha()]
    assert garbled.fault("".join(chance.choices(letters, k=200))) == "its scripts change within words"
    many = " ".join(LANGUAGES.values())
    assert garbled.fault(many[-1000:] * 4) == ""
    assert garbled.fault("ἄνθρωπος φύσει πολιτικὸν ζῷον ὦ ἄνδρες Ἀθηναῖοι " * 20) == ""


STEMS = ("прив", "снег", "лед", "ветр", "стан", "амп", "руд", "лес", "мор", "нос")
ENDINGS = ("ами", "ого", "ение", "ская", "ность")


def test_cyrillic_in_a_wrong_code_page() -> None:
    text = " ".join(stem + ending for stem in STEMS for ending in ENDINGS)
    assert garbled.fault(text) == ""
    assert garbled.fault(text.encode("cp1251").decode("latin-1")) == "letters of a wrong code page"
