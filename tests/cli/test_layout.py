"""Terminal layout: nothing is cut, and no line is wider than the terminal."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.text import Text

from cashier.cli.layout import Column, command, definitions, paragraph, table

COLUMNS = (
    Column("", right=True),
    Column("name", least=8),
    Column("pays", right=True),
    Column("parts", detail=True, label="parts: "),
    Column("why", least=10, detail=True),
)
WIDE = "银行卡快捷支付（1014）"
ROW = ("1", "a bank card of some bank", "108.72 CNY", "−10.00 −6.40", "it was used last time")
words = st.lists(st.text("ab银é", min_size=1, max_size=9), min_size=1, max_size=20)


def lines(*rows: tuple[str, ...], width: int) -> list[str]:
    cells = [tuple(map(Text, row)) for row in rows]
    return [line.plain for line in table(COLUMNS, cells, width)]


def test_a_table_that_fits_has_one_line_per_row() -> None:
    assert lines(ROW, width=100) == [
        "    name                            pays  parts         why",
        " 1  a bank card of some bank  108.72 CNY  −10.00 −6.40  it was used last time",
    ]


def test_the_last_detail_wraps_before_it_moves_below_the_row() -> None:
    assert lines(ROW, width=70)[1:] == [
        " 1  a bank card of some bank  108.72 CNY  −10.00 −6.40  it was used",
        "                                                        last time",
    ]
    assert lines(ROW, width=60)[1:] == [
        " 1  a bank card of some bank  108.72 CNY  −10.00 −6.40",
        "    it was used last time",
    ]


def test_all_details_move_below_before_the_name_wraps() -> None:
    assert lines(ROW, width=45)[1:] == [
        " 1  a bank card of some bank  108.72 CNY",
        "    parts: −10.00 −6.40  it was used last",
        "    time",
    ]
    assert lines(ROW, width=30)[1:] == [
        " 1  a bank card of  108.72 CNY",
        "    some bank",
        "    parts: −10.00 −6.40  it",
        "    was used last time",
    ]


def test_wide_characters_count_two_cells() -> None:
    assert lines(("1", WIDE, "1.00", "", ""), ("2", "x", "20.00", "", ""), width=60)[1:] == [
        f" 1  {WIDE}   1.00",
        f" 2  x{' ' * (cell_len(WIDE) - 1)}  20.00",
    ]


def test_a_heading_may_have_two_lines() -> None:
    columns = (Column("name"), Column("ends by,\norder first", right=True))
    assert [line.plain for line in table(columns, [(Text("quota"), Text("220 ms"))], 40)] == [
        " name      ends by,",
        "        order first",
        " quota       220 ms",
    ]


def test_an_empty_row_is_an_empty_line() -> None:
    assert lines(ROW, (), ROW, width=100)[2] == ""


@example(text=["aaaa银银a银银", "aaaa"], width=10, indent=3, hanging=3)
@given(text=words, width=st.integers(10, 60), indent=st.integers(0, 4), hanging=st.integers(0, 4))
def test_a_paragraph_keeps_its_words_and_its_width(text: list[str], width: int, indent: int, hanging: int) -> None:
    wrapped = [line.plain for line in paragraph(Text(" ".join(text)), width, indent, hanging)]
    assert max(map(cell_len, wrapped)) <= width
    assert "".join(wrapped).replace(" ", "") == "".join(text)
    assert all(line == line.rstrip() for line in wrapped)


@given(words=st.lists(st.text("ab-", min_size=1, max_size=9), min_size=1, max_size=9), width=st.integers(20, 60))
def test_a_command_keeps_its_words_and_its_width(words: list[str], width: int) -> None:
    wrapped = [line.plain for line in command(words, width)]
    assert max(map(cell_len, wrapped)) <= width
    assert "\n".join(wrapped).replace(" \\\n", "").split() == words


def test_a_word_that_is_too_long_stays_whole() -> None:
    assert [line.plain for line in command(["cashier payment", "--token " + "t" * 90], 80)] == [
        "  cashier payment \\",
        "      --token " + "t" * 90,
    ]


def test_definitions_go_below_their_terms_where_the_terminal_is_narrow() -> None:
    pairs = [("a_long_name", "what it is, in a sentence"), ("name", "another")]
    assert [line.plain for line in definitions(pairs, 40)] == [
        "a_long_name  what it is, in a sentence",
        "name         another",
    ]
    assert [line.plain for line in definitions(pairs, 30)] == [
        "a_long_name",
        "  what it is, in a sentence",
        "name",
        "  another",
    ]
