"""What an answer says about itself (answer.py, answer_grounding.py, asking.py), in the reader's language.

There the notes are English sentences; here is each of them in Chinese, found by its pattern. A test holds that none is
missing. One that is not known is shown as it is.
"""

from __future__ import annotations

import re

from pipeline.serve.web.words import Language

_CHINESE = (
    (r"The nearest passages are listed as sources\.", "最接近的段落列在来源中。"),
    (r"Nothing in the index resembles the question\.", "索引中没有与问题相近的内容。"),
    (
        r"No answering model: these are the passages that fit best, word for word\.",
        "没有可用的回答模型：以下是最相关段落的原文。",
    ),
    (r"The model stopped in the middle of its answer\.", "模型在回答中途停止了。"),
    (
        r"The answer was cut at its limit of tokens \(generate\.max_tokens\)\.",
        "回答达到词元上限（generate.max_tokens）而被截断。",
    ),
    (
        r"The model's window of (\S+) tokens was full: it may not have seen every passage\.",
        r"模型的窗口（\1 个词元）已满：它可能没有看到全部段落。",
    ),
    (
        r"The model saw (\S+) tokens of at least (\S+) that it was sent: .*",
        r"发送了至少 \2 个词元，模型只看到 \1 个：提示被截断。请增大 OLLAMA_CONTEXT_LENGTH 或减小 ask.context_tokens。",
    ),
    (r"(\S+) citation\(s\) of passages that do not exist were removed\.", r"已删除 \1 处指向不存在段落的引用。"),
    (
        r"(\S+) link\(s\) or other markup in the answer were made plain text\.",
        r"回答中的 \1 处链接或标记已改为纯文本。",
    ),
    (r"The model wrote nothing\.", "模型没有写任何内容。"),
    (r"The answer cites no passage: check it against the sources\.", "回答没有引用任何段落：请对照来源核实。"),
    (
        r'Not supported by (\S+), which it cites: "(.*)"; passage (\S+) fits better\.',
        r"所引的 \1 不支持这句话：“\2”；段落 \3 更相符。",
    ),
    (r'Not supported by (\S+), which it cites: "(.*)"\.', r"所引的 \1 不支持这句话：“\2”。"),
    (
        r"(\S+) more sentences are not supported by the passages that they cite\.",
        r"另有 \1 个句子未得到所引段落的支持。",
    ),
    (r"(\S+) of (\S+) sentences cite no passage\.", r"\2 个句子中有 \1 个没有引用段落。"),
    (r"The answer is not in the language of the question\.", "回答与问题使用的语言不同。"),
    (
        r"(\[\S+\]) (.*) has changed since it was indexed: `pipeline run` brings the index up to date\.",
        r"\1 \2 在索引之后已更改：运行 `pipeline run` 可更新索引。",
    ),
    (
        r"(\[\S+\]) (.*) is gone: `pipeline run` brings the index up to date\.",
        r"\1 \2 已不存在：运行 `pipeline run` 可更新索引。",
    ),
)
_REASONS = {  # of a judgement (calibration.py), the longer before what they begin with
    "nothing was found": "没有找到任何段落",
    "nearness and words, ": "语义与词语，",
    "words alone, as the model does not know the language, ": "仅按词语（模型不懂该语言），",
    "words alone, ": "仅按词语，",
    "calibrated on this collection": "按此文档库校准",
    "built-in calibration": "内置校准",
    "cosine ": "余弦 ",
    " or half of the words; ": " 或一半词语；",
    "set by ask.min_score": "由 ask.min_score 设定",
    "not calibrated": "未校准",
}
_PATTERNS = tuple((re.compile(pattern, re.DOTALL), said) for pattern, said in _CHINESE)


def of(note: str, language: Language) -> str:
    """A note in this language; as it is where it is not known."""
    if language == "en":
        return note
    for pattern, said in _PATTERNS:
        if (found := pattern.fullmatch(note)) is not None:
            return found.expand(said)
    return note


def reason(by: str, language: Language) -> str:
    """What decided a judgement, in this language."""
    for said, chinese in _REASONS.items() if language == "zh" else ():
        by = by.replace(said, chinese)
    return by
