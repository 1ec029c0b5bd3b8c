"""Encodings: each that people still have files in, in short and in long texts, in each format that is text."""

from __future__ import annotations

import email.message
import email.policy
import unicodedata

import pytest

from tests.readers.helpers import read, texts

JAPANESE = (
    "氷が薄いので、湖を渡ってはいけません。観測所の記録は一晩で十時間分失われました。ヒューズの定格は四アンペアです。"
    "ひらがなとカタカナと漢字が混ざった文章を、正しく読めなければなりません。"
)
CHINESE = (
    "冰层很薄,请不要穿过湖面。观测站在一夜之间丢失了十个小时的记录。保险丝的额定值是四安。必须正确读取简体中文的文章。"
)
TRADITIONAL = (
    "冰層很薄,請不要穿過湖面。觀測站在一夜之間丟失了十個小時的記錄。保險絲的額定值是四安。必須正確讀取繁體中文的文章。"
)
KOREAN = "얼음이 얇으니 호수를 건너지 마십시오. 관측소는 하룻밤에 열 시간의 기록을 잃었습니다. 퓨즈는 사 암페어입니다."
RUSSIAN = "Лёд тонкий, не переходите озеро. За ночь потеряно десять часов записей. Предохранитель на четыре ампера."
GERMAN = (
    "Das Eis ist dünn, überqueren Sie den See nicht. Für die größte Höhe genügt ein Müßiggänger mit Äxten und Öfen."
)
FRENCH = "L’été dernier, la glace était très mince : n’y allez pas, même à pied. Le cœur du problème — 5 € — était là."

# A long text is several kilobytes; a short one is a note of one or two sentences.
TEXTS = {
    "utf-8": JAPANESE,
    "utf-8-sig": CHINESE,
    "utf-16": JAPANESE,
    "utf-16-le": GERMAN,
    "utf-16-be": GERMAN,
    "utf-32": KOREAN,
    "gb18030": CHINESE,
    "gbk": CHINESE,
    "big5": TRADITIONAL,
    "shift_jis": JAPANESE,
    "euc-jp": JAPANESE,
    "euc-kr": KOREAN,
    "iso-2022-jp": JAPANESE,
    "koi8-r": RUSSIAN,
    "cp1251": RUSSIAN,
    "cp1252": FRENCH,
    "latin-1": GERMAN,
}
MARKED = ("utf-8-sig", "utf-16", "utf-32")
LONG = 20


@pytest.mark.parametrize("times", [1, LONG], ids=["short", "long"])
@pytest.mark.parametrize("encoding", TEXTS)
def test_plain_text(encoding: str, times: int) -> None:
    text = "\n".join([TEXTS[encoding]] * times)
    made = read(text.encode(encoding), "a.txt")
    assert made.text == unicodedata.normalize("NFC", text)


@pytest.mark.parametrize("encoding", TEXTS)
def test_markdown(encoding: str) -> None:
    text = f"# {TEXTS[encoding][:12]}\n\n{TEXTS[encoding]}\n"
    made = read(text.encode(encoding), "a.md")
    assert made.title == TEXTS[encoding][:12].strip()
    assert made.text == text


@pytest.mark.parametrize("encoding", TEXTS)
def test_csv(encoding: str) -> None:
    cells = TEXTS[encoding].replace(",", "")
    rows = f"name,text\r\none,{cells}\r\ntwo,{cells}\r\n"
    made = read(rows.encode(encoding), "a.csv")
    assert made.text.split("\n") == ["name\ttext", f"one\t{cells}", f"two\t{cells}"]


@pytest.mark.parametrize("encoding", TEXTS)
def test_subtitles(encoding: str) -> None:
    lines = TEXTS[encoding].replace(".", ".\n").strip().split("\n")
    cues = "".join(f"{n}\r\n00:00:{n:02},000 --> 00:00:{n:02},900\r\n{line}\r\n\r\n" for n, line in enumerate(lines, 1))
    made = read(cues.encode(encoding), "a.srt")
    assert made.text.split("\n") == [line.strip() for line in lines]


DECLARED = [encoding for encoding in TEXTS if not encoding.startswith(("utf-16", "utf-32"))]
HEADS = {
    "charset": '<meta charset="{}">',
    "http-equiv": '<META HTTP-EQUIV="Content-Type" CONTENT="text/html; charset={}">',
    "xml": '<?xml version="1.0" encoding="{}"?>',
}


@pytest.mark.parametrize("way", HEADS)
@pytest.mark.parametrize("encoding", DECLARED)
def test_html_that_says_its_encoding(encoding: str, way: str) -> None:
    head = HEADS[way].format(encoding.removesuffix("-sig"))
    page = f"{head}<html><head><title>x</title></head><body><p>{TEXTS[encoding]}</p></body></html>"
    if way != "xml":
        page = page.replace(head, "").replace("<title>", f"{head}<title>")
    assert texts(read(page.encode(encoding), "a.html")) == [TEXTS[encoding]]


@pytest.mark.parametrize("encoding", TEXTS)
def test_html_that_says_nothing(encoding: str) -> None:
    page = f"<html><head><title>x</title></head><body><p>{TEXTS[encoding] * 3}</p></body></html>"
    assert texts(read(page.encode(encoding), "a.html")) == [TEXTS[encoding] * 3]


@pytest.mark.parametrize(
    ("says", "has"),
    [
        ("iso-8859-1", "utf-8"),  # the usual one: a template's line, and an editor that knew better
        ("windows-1252", "utf-8"),
        ("utf-8", "cp1251"),
        ("utf-8", "shift_jis"),
        ("gb2312", "gb18030"),
        ("no-such-encoding", "utf-8"),
        ("no-such-encoding", "euc-kr"),
        ("utf-16", "utf-8"),  # HTML's rule: a page in which one can read that is no UTF-16
        ("rot13", "utf-8"),
    ],
)
def test_html_that_says_a_wrong_encoding(says: str, has: str) -> None:
    text = TEXTS[has] * 3
    page = f'<html><head><meta charset="{says}"><title>x</title></head><body><p>{text}</p></body></html>'
    assert texts(read(page.encode(has), "a.html")) == [text]


@pytest.mark.parametrize("wide", ["utf-16", "utf-16-le", "utf-16-be"])
def test_html_in_utf_16_that_says_utf_8(wide: str) -> None:
    page = f'<html><head><meta charset="utf-8"></head><body><p>{GERMAN}</p></body></html>'
    assert texts(read(page.encode(wide), "a.html")) == [GERMAN]


MAILED = [encoding for encoding in DECLARED if encoding not in MARKED]


@pytest.mark.parametrize("kind", ["plain", "html"])
@pytest.mark.parametrize("encoding", MAILED)
def test_mail_that_says_its_encoding(encoding: str, kind: str) -> None:
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message["Subject"] = TEXTS[encoding][:12]
    body = TEXTS[encoding] if kind == "plain" else f"<html><body><p>{TEXTS[encoding]}</p></body></html>"
    message.set_content(body, subtype=kind, charset=encoding, cte="base64")
    made = read(message.as_bytes(), "a.eml")
    assert made.title == TEXTS[encoding][:12].strip()
    assert TEXTS[encoding] in made.text


@pytest.mark.parametrize("encoding", MAILED)
def test_mail_that_says_nothing(encoding: str) -> None:
    head = b"Subject: x\r\nFrom: a@b.c\r\nContent-Type: text/plain\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    made = read(head + (TEXTS[encoding] * 3).encode(encoding), "a.eml")
    assert TEXTS[encoding] * 3 in made.text


@pytest.mark.parametrize(
    "name", ["a.txt", "a.md", "a.html", "a.csv", "a.srt", "a.json", "a.xml", "a.py", "a.tex", "a.rst"]
)
def test_nfc(name: str) -> None:
    """What macOS's file names and some keyboards write: a letter and its accent apart, Hangul in letters."""
    apart = unicodedata.normalize("NFD", "Äußerst über 한국어 が ぱ")
    bodies = {
        "a.html": f"<p>{apart}</p>",
        "a.csv": f"a,b\n{apart},x\n",
        "a.srt": f"1\n00:00:01,000 --> 00:00:02,000\n{apart}\n",
        "a.json": f'["{apart}"]',
    }
    made = read(bodies.get(name, f"{apart}\n").encode(), name)
    assert "Äußerst über 한국어 が ぱ" in made.text


def test_emoji_in_pairs_of_surrogates() -> None:
    """CESU-8, as Java and Oracle write it: all else is UTF-8."""
    text = "The ice is thin 🧊 and the lake is deep 🌊."
    pairs = text.encode("utf-16-le", "surrogatepass")
    data = "".join(chr(int.from_bytes(pairs[n : n + 2], "little")) for n in range(0, len(pairs), 2))
    assert read(data.encode("utf-8", "surrogatepass"), "a.txt").text == text
