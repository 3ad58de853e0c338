"""The place in a document that a benchmark writes: what stands between two markers."""

from pathlib import Path

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def refresh(text: str, table: str) -> str:
    """`text` with what stands between the two markers replaced by `table`.

    Raises:
        ValueError: the markers aren't there, once each and in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} ... {END} to write the table between")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def refresh_file(path: Path, table: str) -> None:
    path.write_text(refresh(path.read_text(), table))
