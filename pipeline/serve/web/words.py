"""Every word that the page says, in English and Chinese, side by side. `{name}` is filled in (View.say).

Knows words alone. "…_one": the same of exactly one, where English has a singular.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pipeline.serve.web import words_answers

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
NAMES: Mapping[Language, str] = {"en": "English", "zh": "中文"}

WORDS: dict[str, tuple[str, str]] = {
    **words_answers.ANSWERS,
    # -- everywhere
    "skip": ("Skip to the content", "跳到正文"),
    "views": ("Views", "视图"),
    "search": ("Search", "搜索"),
    "ask": ("Ask", "提问"),
    "trial": ("Retrieval test", "检索测试"),
    "map": ("Map", "地图"),
    "collection": ("Collection", "文档库"),
    "collections": ("Collections", "文档库"),
    "language": ("Language", "语言"),
    "sign_out": ("Sign out", "退出"),
    "passages": ("{n} passages", "{n} 个段落"),
    "passages_one": ("1 passage", "1 个段落"),
    "documents": ("{n} documents", "{n} 个文档"),
    "documents_one": ("1 document", "1 个文档"),
    # -- the form
    "search_label": ("Search the documents", "搜索文档"),
    "ask_label": ("Ask the documents a question", "向文档提问"),
    "trial_label": ("Test how a question is searched for", "测试一个问题的检索过程"),
    "test": ("Test", "测试"),
    "stop": ("Stop", "停止"),
    "options": ("Filters and settings", "筛选与设置"),
    "only": ("Only:", "仅限："),
    "clear": ("Clear the filters", "清除筛选"),
    "mode": ("Search by", "检索方式"),
    "mode_default": ("as the server is set", "服务器默认"),
    "mode_hybrid": ("words and meaning", "词语和语义"),
    "mode_vector": ("meaning", "语义"),
    "mode_text": ("words", "词语"),
    "top_k": ("Passages", "段落数"),
    "top_k_example": ("5", "5"),
    "path": ("Folder or file", "文件夹或文件"),
    "path_example": ("handbook/ or *.pdf", "handbook/ 或 *.pdf"),
    "type": ("Type", "类型"),
    "type_example": ("pdf, docx", "pdf, docx"),
    "modified": ("Changed since", "修改时间不早于"),
    "modified_example": ("2026-01-31 or 7d", "2026-01-31 或 7d"),
    "page": ("Page", "页码"),
    "page_example": ("3 or 3-7", "3 或 3-7"),
    "heading": ("Heading", "标题"),
    "heading_example": ("a part of it", "标题中的文字"),
    "bad_q": ("This question is too long: 4,000 characters at most.", "问题过长：最多 4,000 个字符。"),
    "bad_mode": ("Search by words and meaning, by meaning, or by words.", "可选：词语和语义、语义、词语。"),
    "bad_top_k": ("A number from 1 to 100.", "请填写 1 到 100 之间的数字。"),
    "bad_path": (
        "A folder such as handbook/, a file, or a pattern such as *.pdf.",
        "请填写文件夹（如 handbook/）、文件或模式（如 *.pdf）。",
    ),
    "bad_type": (
        "An ending such as pdf, or a media type such as text/html.",
        "请填写扩展名（如 pdf）或媒体类型（如 text/html）。",
    ),
    "bad_modified": (
        "A day, month or year such as 2026-01-31, or so long ago: 7d, 24h.",
        "请填写日期（如 2026-01-31、2026-01、2026），或时长（如 7d、24h）。",
    ),
    "bad_page": ("A page such as 3, some such as 3-7, or <=3.", "请填写页码，如 3、3-7 或 <=3。"),
    "bad_heading": ("A part of a heading.", "请填写标题中的文字。"),
    "mend_fields": ("Nothing was searched for: look at the fields marked above.", "未进行检索：请检查上方标出的字段。"),
    # -- results
    "found": ("{n} passages in {time}", "{n} 个段落，用时 {time}"),
    "found_one": ("1 passage in {time}", "1 个段落，用时 {time}"),
    "cosine_hint": ("How near its meaning is to the question, 0 to 1", "与问题的语义接近程度，0 到 1"),
    "found_none": ("No passage matches.", "没有匹配的段落。"),
    "found_none_filtered": ("No passage matches within these filters.", "在这些筛选条件下没有匹配的段落。"),
    "score": ("Score", "得分"),
    "score_hint": ("As other programs are told: it falls with the rank", "提供给其他程序的得分：随名次递减"),
    "rank": ("(rank {n})", "（第 {n} 名）"),
    "cosine": ("Cosine", "余弦"),
    "bm25": ("BM25", "BM25"),
    "fused": ("Fused", "融合"),
    "reranker": ("Reranker", "重排"),
    "page_n": ("p. {n}", "第 {n} 页"),
    "also_in": ("Also in", "也见于"),
    "and_more": ("and {n} more", "等 {n} 个"),
    "start_search": (
        "Type some words or a question: it is searched for by its words and its meaning, on this server alone.",
        "输入词语或问题。系统会按词语和语义检索，全部在本服务器上完成。",
    ),
    "folders": ("Search in one folder", "在某个文件夹中搜索"),
    "keys_hint": ("Keys:", "快捷键："),
    "key_box": ("the box", "输入框"),
    "key_cards": ("next and previous passage", "下一个、上一个段落"),
    "key_open": ("open", "打开"),
    "key_leave": ("leave", "离开"),
    # -- footer
    "published": ("indexed {when}", "索引于 {when}"),
    "generation": ("generation {n}", "第 {n} 代"),
    "last_run_good": ("last run succeeded", "最近一次运行成功"),
    "last_run_warn": ("last run finished, some files could not be read", "最近一次运行已完成，有文件无法读取"),
    "last_run_incomplete": ("last run ended at its time limit; the next goes on", "最近一次运行到时停止，下次继续"),
    "last_run_bad": ("last run failed: the index is of before", "最近一次运行失败，索引仍是之前的"),
    "report": ("Report", "运行报告"),
    "stale": ("newer documents are read but not yet published", "已读取更新的文档，但尚未发布"),
    "rolled_back": ("rolled back to generation {n}", "已回退到第 {n} 代"),
    "nothing_published": ("Nothing is indexed here yet.", "这里还没有索引。"),
    "build_first": ("Build the index, where this server runs:", "请在服务器所在的机器上建立索引："),
    "then_reload": (
        "This page finds it by itself as soon as it is published.",
        "索引发布后，本页会自动使用它。",
    ),
    "empty_index": (
        "The index is there, but holds no passage: no document of the folder had text that could be read.",
        "索引已经建立，但没有任何段落：文件夹中没有可读取文字的文档。",
    ),
    "see_status": ("What was read, and what was not:", "查看读取了什么、未能读取什么："),
    # -- errors
    "error": ("That did not work", "出错了"),
    "not_found": ("There is nothing at this address.", "此地址没有内容。"),
    "no_passage": (
        "There is no such collection or passage here, or its document has changed since.",
        "没有这个文档库或段落，或者其文档已更改。",
    ),
    "defect": ("A defect of the server. Its log says more.", "服务器内部错误，详见其日志。"),
    "unreadable": (
        "The collection cannot be read. The server's log says more; this command looks for the fault:",
        "无法读取该文档库。详见服务器日志；可用此命令检查：",
    ),
    "model_down": (
        "The model server does not answer. Start it, and try again:",
        "模型服务器没有响应。请启动它后重试：",
    ),
    "model_missing": ("The model server does not have the model:", "模型服务器上没有这个模型："),
    "model_mismatch": (
        "The model is not the one that the index was built with. This command says what to do:",
        "当前模型与建立索引时的模型不同。用此命令查看如何处理：",
    ),
    "model_late": (
        "The model did not answer in time. It may be loading, or busy with a run: try again.",
        "模型未能及时回应。它可能正在加载，或正忙于一次运行：请重试。",
    ),
    "model_refused": ("The model server refused the request.", "模型服务器拒绝了请求。"),
    "wrong_request": ("This cannot be answered as it is asked.", "无法按此请求作答。"),
    "busy": ("The server is busy: try again.", "服务器繁忙，请稍后再试。"),
    "too_many": ("Too many requests with this key: wait a moment.", "此密钥的请求过多，请稍候。"),
    "too_large": ("The request is too large.", "请求过大。"),
    "foreign": (
        "This came from another site's page, and was not carried out. Open the page itself:",
        "该请求来自其他网站的页面，未予执行。请直接打开本页：",
    ),
    "back": ("Back to the search", "返回搜索"),
    "said": ("The server says", "服务器的说明"),
    # -- sources
    "source": ("Source", "来源"),
    "source_gone": ("This passage is not in the index any more", "索引中已没有这个段落"),
    "source_gone_why": (
        "Its document was changed or removed, and the index was published anew. A search finds what it holds now.",
        "其文档已被修改或删除，索引已重新发布。请重新搜索以查看现有内容。",
    ),
    "source_inside": ("inside", "位于"),
    "source_results": ("Results", "返回结果"),
    "source_path": ("on this machine:", "本机路径："),
    "source_copy": ("Copy path", "复制路径"),
    "source_copied": ("Copied", "已复制"),
    "source_download": ("Download the PDF", "下载 PDF"),
    "source_text": ("Text as it was read", "读取到的文本"),
    "source_no_text": (
        "The document's text cannot be read from the index: the passage alone is shown.",
        "无法从索引中读取文档全文，仅显示该段落。",
    ),
    "source_changed": (
        "The file has changed since it was indexed. What is shown is its text of then; the next run reads it anew.",
        "文件在索引之后已更改。此处显示的是当时的文本，下次运行会重新读取。",
    ),
    "source_lost": (
        "The file is gone since it was indexed. What is shown is from the index; the next run takes it out.",
        "文件在索引之后已不存在。此处显示的是索引中的内容，下次运行会将其移除。",
    ),
    "source_away": (
        "The folder of the documents is not there (a disk that is not mounted?). What is shown is from the index.",
        "文档所在的文件夹不存在（磁盘未挂载？）。此处显示的是索引中的内容。",
    ),
    "source_unreadable": (
        "The file cannot be opened now. What is shown is from the index.",
        "现在无法打开该文件。此处显示的是索引中的内容。",
    ),
    "source_page_n": ("Page {page}", "第 {page} 页"),
    "source_pages": ("Pages", "页面"),
    "source_of": ("{page} of {pages}", "{page} / {pages}"),
    "source_before": ("Previous page", "上一页"),
    "source_after": ("Next page", "下一页"),
    "source_picture": ("Picture of page {page}", "第 {page} 页的图像"),
    "source_marked": ("The passage is highlighted.", "该段落已高亮显示。"),
    "source_partly": (
        "What could be found of the passage is highlighted; the text shows all of it.",
        "已高亮显示该段落中能找到的部分，完整内容见文本。",
    ),
    "source_not_found": (
        "The passage could not be found in the text of this page, so nothing is highlighted.",
        "在本页文本中未找到该段落，因此没有高亮。",
    ),
    "source_scan": (
        "The page is a picture without text (a scan), so nothing is highlighted.",
        "本页是没有文字层的图像（扫描件），因此没有高亮。",
    ),
    "source_not_here": ("The passage is not on this page.", "该段落不在本页。"),
    "source_also": ("See page {page}", "见第 {page} 页"),
    "source_drawing": ("Where it could be found, the passage is highlighted.", "能找到的段落内容已高亮显示。"),
    "source_picture_changed": (
        "No picture: the file has changed since it was indexed.",
        "没有图像：文件在索引之后已更改。",
    ),
    "source_picture_no_page": ("No picture: the file has no such page.", "没有图像：文件中没有这一页。"),
    "source_picture_busy": ("No picture: many are being drawn. Try again.", "没有图像：正在绘制的图像过多，请重试。"),
    "source_picture_fault": ("No picture: this page could not be drawn.", "没有图像：无法绘制本页。"),
    "source_earlier": ("Earlier text", "前面的内容"),
    "source_later": ("Later text", "后面的内容"),
    "source_back": ("Back to the passage", "返回该段落"),
    # -- signing in
    "sign_in": ("Sign in", "登录"),
    "key": ("API key", "API 密钥"),
    "key_hint": (
        "This server asks for a key. Whoever runs it makes one with:",
        "此服务器需要密钥。管理员可用此命令生成：",
    ),
    "key_kept": (
        "It is kept as a session in this browser until you sign out or the server restarts.",
        "登录状态保存在此浏览器中，直到退出或服务器重启。",
    ),
    "key_wrong": ("This key is not one of the server's.", "服务器不认识此密钥。"),
    # -- the map
    "map_none": (
        "There is no map of this collection yet. It is drawn by a command:",
        "此文档库还没有地图，可用此命令绘制：",
    ),
    "map_needs": (
        "The command needs an extra of this program; it says how to install it.",
        "该命令需要一个附加组件，会提示如何安装。",
    ),
    "map_old": (
        "This map is of an older publication of {when}. The newest is drawn by:",
        "此地图对应 {when} 发布的旧版本。绘制最新版本：",
    ),
    "map_damaged": ("The map that is kept is damaged. It is made again by:", "已保存的地图损坏，可重新绘制："),
    "map_all": ("{n} passages, in {groups} groups", "{n} 个段落，共 {groups} 组"),
    "map_told": ("{points} of {n} passages, in {groups} groups", "{n} 个段落中的 {points} 个，共 {groups} 组"),
    "map_sample": (
        "A sample: passages that are not in it are found by the search all the same.",
        "这是抽样结果：未绘制的段落仍可搜索到。",
    ),
    "map_script": (
        "The picture needs JavaScript; the groups below do not.",
        "图形需要 JavaScript；下面的分组列表不需要。",
    ),
    "map_alternative": (
        "Map of {n} passages in {groups} groups, which are listed below; what says similar things lies together.",
        "{n} 个段落的地图，共 {groups} 组：内容相近的段落彼此靠近。下方列出了相同的分组。",
    ),
    "map_keys": (
        "Point at a passage to read it, click to open it. Drag to move, scroll to come nearer; or arrows, +, −, 0.",
        "指向圆点可阅读段落，点击打开出处。拖动平移，滚轮缩放；也可用方向键、+、−、0。",
    ),
    "map_legend": ("Show only", "只显示"),
    "map_colour": ("Colour by", "着色依据"),
    "map_by_group": ("Group", "分组"),
    "map_by_folder": ("Folder", "文件夹"),
    "map_search": ("A name, or a question", "名称或问题"),
    "map_search_names": ("A name or path", "名称或路径"),
    "map_ask": ("Show hits", "显示命中"),
    "map_in": ("Zoom in", "放大"),
    "map_out": ("Zoom out", "缩小"),
    "map_whole": ("Show the whole map", "显示全部"),
    "map_groups": ("Groups", "分组"),
    "map_no_name": ("Without a name", "未命名"),
    "map_other": ("Other folders", "其他文件夹"),
    "map_page": ("p. {n}", "第 {n} 页"),
    "map_shown": ("{n} passages shown", "显示 {n} 个段落"),
    "map_found": ("{n} match by name", "{n} 个名称匹配"),
    "map_top": ("{n} hits on the map", "地图上有 {n} 个命中"),
    "map_asking": ("Searching…", "搜索中…"),
    "map_outside": ("not on this map", "不在此地图上"),
    "map_open": ("Open the source", "打开出处"),
    "map_gone": ("This passage is not in the index any more.", "该段落已不在索引中。"),
    "map_failed": ("That did not work.", "出错了。"),
}

_FIELD = re.compile(r"\{(\w+)\}")


def of(language: Language) -> Mapping[str, str]:
    """All words of one language, by their keys."""
    at = LANGUAGES.index(language)
    return {key: pair[at] for key, pair in WORDS.items()}


def fields(text: str) -> set[str]:
    """The names that are to be filled in."""
    return set(_FIELD.findall(text))


def preferred(accept_language: str) -> Language:
    """The language of ours that an Accept-Language header (RFC 9110, 12.5.4) likes best; English where it names none.

    A weight that is no number is taken for 0.
    """
    liked: dict[str, float] = {}
    for item in accept_language.lower().split(",")[:20]:
        tag, _, parameter = item.partition(";")
        weight = parameter.strip().removeprefix("q=") if parameter else "1"
        primary = tag.strip().partition("-")[0]
        liked[primary] = max(liked.get(primary, 0.0), _number(weight))
    return max(LANGUAGES, key=lambda language: liked.get(language, 0.0))


def _number(text: str) -> float:
    return float(text) if re.fullmatch(r"[01](?:\.\d{0,3})?", text) else 0.0
