import json
import re
from pathlib import Path

import numpy as np
import pytest

from magnetar.errors import GameError
from magnetar.games.builders.files import load, load_policy
from magnetar.games.builders.registry import biased_rps, random_game


def test_load_reads_every_form(tmp_path: Path) -> None:
    game = random_game(4, seed=0)
    np.save(tmp_path / "plain.npy", game.P)
    np.save(tmp_path / "UPPER.NPY", game.P)
    (tmp_path / "UPPER.NPY.npy").rename(tmp_path / "UPPER.NPY")
    rows = [",".join(repr(float(x)) for x in row) for row in game.P]
    (tmp_path / "plain.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "named.csv").write_text("\ufeffa, b, c, d\n" + "\n".join(rows) + "\n\n", encoding="utf-8")
    both = [",a,b,c,d", *(f"{name},{row}" for name, row in zip("abcd", rows, strict=True))]
    (tmp_path / "named_both.csv").write_text("\r\n".join(both))
    # As pandas writes a table without names of its own.
    (tmp_path / "numbered.csv").write_text("\n".join([",0,1,2,3", *(f"{i},{row}" for i, row in enumerate(rows))]))
    (tmp_path / "plain.json").write_text(json.dumps(game.P.tolist()))
    (tmp_path / "named.json").write_text(json.dumps({"P": game.P.tolist(), "actions": list("abcd"), "name": "mine"}))
    for file in sorted(tmp_path.iterdir()):
        loaded = load(file)
        np.testing.assert_array_equal(loaded.P, game.P)
        assert loaded.actions == (tuple("abcd") if file.stem.startswith("named") else tuple("0123"))
        assert loaded.name == ("mine" if file.name == "named.json" else file.stem)


def test_float32_and_rounded_matrices_are_games(tmp_path: Path) -> None:
    np.save(tmp_path / "single.npy", random_game(5).P.astype(np.float32))
    np.testing.assert_allclose(load(tmp_path / "single.npy").P, random_game(5).P, atol=1e-7)


def saved(array: np.ndarray, path: Path) -> bytes:
    np.save(path, array)
    return path.read_bytes()


HALF = b"0.5,0.5\n0.5,0.5\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.npy", None, "no such file"),
        ("game.txt", b"0.5", "suffix '.txt', expected one of .npy, .csv, .json, .jsonl, .jsonl.gz"),
        ("game.npz", b"0.5", "suffix '.npz', expected one of"),
        ("game", b"0.5", "suffix '', expected one of"),
        ("game.npy", b"not numpy", "cannot be read as .npy"),
        ("empty.npy", b"", "the file is empty, expected a matrix of win probabilities in .npy form"),
        ("empty.csv", b"", "the file is empty"),
        ("empty.json", b"", "the file is empty"),
        ("blank.csv", b"\n \n", "the file has no row"),
        ("game.json", b"{", "cannot be read as .json"),
        ("deep.json", b"[" * 100_000, "cannot be read as .json"),
        ("keys.json", b'{"matrix": [[0.5]]}', "an object with ['matrix'], expected P"),
        ("extra.json", b'{"P": [[0.5]], "note": 1}', "an object with ['P', 'note'], expected P"),
        ("names.json", b'{"P": [[0.5]], "actions": "a"}', "actions is 'a', expected a list of names"),
        ("text.json", b'"rps"', "is not an array of numbers"),
        ("cell.json", b'[[0.5, "x"], [0.5, 0.5]]', "row 1, column 2 is 'x', expected a number"),
        ("quoted.json", b'[[0.5, 0.5], ["0.5", 0.5]]', "row 2, column 1 is '0.5', expected a number"),
        ("true.json", b"[[0.5, true], [false, 0.5]]", "row 1, column 2 is True, expected a number"),
        ("null.json", b"[[0.5, 0.5], [null, 0.5]]", "row 2, column 1 is None, expected a number"),
        ("huge.json", b"[[0.5, 1" + b"0" * 400 + b"], [0, 0.5]]", "expected a number in [0, 1]"),
        ("ragged.json", b"[[0.5, 0.5], [0.5]]", "row 2 has 1 numbers, expected 2 as in row 1"),
        ("flat.json", b"[0.5, 0.5]", "row 1 is 0.5, expected a list of numbers"),
        ("nan.json", b"[[0.5, NaN], [0.5, 0.5]]", "P[0,1] = nan, expected a finite number"),
        ("empty_list.json", b"[]", "P has shape (0,), expected a square matrix"),
        ("game.csv", b"a,b\n0.5,x\n0.5,0.5", "row 2, column 2 is 'x', expected a number"),
        ("first.csv", b"0.5,x\n0.5,0.5", "row 1, column 2 is 'x', expected a number"),
        ("gap.csv", b"0.5,\n0.5,0.5", "row 1, column 2 is '', expected a number"),
        ("ragged.csv", b"0.5,0.5\n\n0.5", "row 3 has 1 cells, expected 2 as in row 1"),
        ("header.csv", b"a,b,c\n0.5,0.5\n0.5,0.5", "row 2 has 2 cells, expected 3 as in row 1"),
        (
            "semicolon.csv",
            b"0.5;0.5\n0.5;0.5",
            "row 2, column 1 is '0.5;0.5', expected a number; separate cells by commas, not ';'",
        ),
        ("space.csv", b"0.5 0.5\n0.5 0.5", "expected a number; separate cells by commas, not ' '"),
        ("trailing.csv", b"0.5,0.5,\n0.5,0.5,", "row 1, column 3 is '', expected a number"),
        ("named_ragged.csv", b",a,b\na,0.5,1\nb,0", "row 3 has 1 cells, expected 2 as in row 1"),
        ("twice.csv", b"a,a\n0.5,1\n0,0.5", "two actions are named 'a', expected a name of its own for each"),
        ("twice.json", b'{"P": [[0.5, 1], [0, 0.5]], "actions": ["b", "b"]}', "two actions are named 'b'"),
        ("number.json", b'{"P": [[0.5]], "name": 3}', "name is 3, expected text"),
        ("named_semicolon.csv", b"a,b\n0.5;0.5\n", "separate cells by commas, not ';'"),
        ("rows.csv", b",a,b\na,0.5,0.5\nc,0.5,0.5", "row 3 is named 'c', expected 'b' as in the header"),
        ("quote.csv", b'0.5,"0.5\n0.5,0.5', "cannot be read as .csv"),
        ("only_header.csv", b"a,b\n", "P has shape (0,), expected a square matrix"),
        ("sum.csv", b"0.5,0.9\n0.4,0.5", "sum.csv: P[0,1] + P[1,0] = 1.3"),
        ("outside.csv", b"0.5,1.2\n-0.1,0.5", "P[0,1] = 1.2, expected a win probability in [0, 1]"),
        ("nan.csv", b"0.5,nan\n0.5,0.5", "P[0,1] = nan, expected a finite number"),
        ("wide.csv", b"0.5,0.5,0.5\n0.5,0.5,0.5", "P has shape (2, 3), expected a square matrix"),
        ("binary.csv", b"\xff\xfe\x00", "cannot be read as .csv"),
    ],
)
def test_files_that_hold_no_game(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(GameError, match=re.escape(message)) as caught:
        load(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [3, 40, 100, -1])
def test_truncated_arrays_are_refused(tmp_path: Path, kept: int) -> None:
    whole = saved(random_game(5).P, tmp_path / "whole.npy")
    (tmp_path / "part.npy").write_bytes(whole[:kept])
    with pytest.raises(GameError, match=r"part\.npy: cannot be read as \.npy"):
        load(tmp_path / "part.npy")


def test_arrays_that_hold_no_numbers_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "text.npy", np.array([["0.5"]]))
    with pytest.raises(GameError, match="an array of type <U3, expected numbers"):
        load(tmp_path / "text.npy")
    np.save(tmp_path / "complex.npy", np.array([[0.5 + 1j]]))
    with pytest.raises(GameError, match="an array of type complex128, expected numbers"):
        load(tmp_path / "complex.npy")
    np.savez(tmp_path / "many.npz", P=biased_rps().P)
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(GameError, match="an archive of arrays"):
        load(tmp_path / "many.npy")
    np.save(tmp_path / "cube.npy", np.full((2, 2, 2), 0.5))
    with pytest.raises(GameError, match=re.escape("P has shape (2, 2, 2), expected a square matrix")):
        load(tmp_path / "cube.npy")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.save(tmp_path / "pickle.npy", np.array([[0.5, None], [None, 0.5]], dtype=object), allow_pickle=True)
    with pytest.raises(GameError, match=r"cannot be read as \.npy"):
        load(tmp_path / "pickle.npy")


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    np.save(tmp_path / "tournament.npy", biased_rps().P)
    with pytest.raises(GameError, match=re.escape(f"did you mean {tmp_path / 'tournament.npy'}?")):
        load(tmp_path / "tornament.npy")
    with pytest.raises(GameError, match=re.escape(f"no folder {tmp_path / 'nowhere'}")):
        load(tmp_path / "nowhere" / "game.npy")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(GameError, match=r"folder\.csv: cannot be read as \.csv"):
        load(tmp_path / "folder.csv")


def test_load_policy_reads_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("0.2,0.3,0.5\n")
    (tmp_path / "b.json").write_text("[0.2, 0.3, 0.5]")
    (tmp_path / "c.csv").write_text("1\n")
    np.save(tmp_path / "f.npy", np.array([0.2, 0.3, 0.5]))
    for name in ("a.csv", "b.json", "f.npy"):
        np.testing.assert_array_equal(load_policy(tmp_path / name), [0.2, 0.3, 0.5])
    np.testing.assert_array_equal(load_policy(tmp_path / "c.csv"), [1.0])
    (tmp_path / "d.csv").write_text("0.2,0.8\n0.5,0.5\n")
    (tmp_path / "e.json").write_text('{"a": 1}')
    for name in ("d.csv", "e.json"):
        with pytest.raises(GameError, match="expected one row of probabilities"):
            load_policy(tmp_path / name)
    with pytest.raises(GameError, match=re.escape("suffix '.jsonl', expected one of .npy, .csv, .json")):
        load_policy(tmp_path / "pairs.jsonl")
