"""Shell text is read as a shell reads it, and what is broken is told with its place."""

import pytest

from sim.launch.shell import read_script
from sim.scenario.errors import ScenarioError


def words(text: str) -> list[list[str]]:
    return [[word.text for word in statement.words] for statement in read_script(text, "run.sh").statements]


READ = {
    "words": ("vllm serve x -tp 8", [["vllm", "serve", "x", "-tp", "8"]]),
    "a line continued": ("vllm serve x \\\n  -tp 8", [["vllm", "serve", "x", "-tp", "8"]]),
    "a line continued inside a word": ("vllm ser\\\nve x", [["vllm", "serve", "x"]]),
    "comments": ("# first\nvllm serve x # then\n", [["vllm", "serve", "x"]]),
    "a hash inside a word": ("a b#c", [["a", "b#c"]]),
    "single quotes": ("a 'b $c \"d\"'", [["a", 'b $c "d"']]),
    "double quotes": ('a "b \\"c\\" d"', [["a", 'b "c" d']]),
    "quoted JSON": ("a '{\"b\": 1}'", [["a", '{"b": 1}']]),
    "JSON without quotes": ('a {"b":"c","d":1} e', [["a", '{"b":"c","d":1}', "e"]]),
    "JSON without quotes, with blanks": ('a {"b": [1, {"c": 2}]} d', [["a", '{"b": [1, {"c": 2}]}', "d"]]),
    "JSON after an equals sign": ('a --b={"c": "}"} d', [["a", '--b={"c": "}"}', "d"]]),
    "brackets of the shell": (
        "if [ -f x ]; then a; fi",
        [["if", "[", "-f", "x", "]"], ["then", "a"], ["fi"]],
    ),
    "several commands": ("a & b; c | d && e", [["a"], ["b"], ["c"], ["d"], ["e"]]),
    "redirections": ("a > log 2>&1 < in 2>> err &> all &", [["a"]]),
    "variables": ("M=x\nN=$M/y\nvllm serve $N ${M} \"$M\" '$M'", [["vllm", "serve", "x/y", "x", "x", "$M"]]),
    "a variable's own default": ("a ${B:-8} ${C-9}", [["a", "8", "9"]]),
    "a variable that is empty counts as not set with a colon": (
        "A=\na ${A:-8} ${A:+no} b${A-9} ${A+yes}",
        [["a", "8", "b", "yes"]],
    ),
    "sums of variables in braces, and less than nothing": (
        "N=2\na $(( ${N} * 4 )) $(( $N * 4 )) $(( N * 4 )) $(( -N + 5 )) $((${N:-3}-1))",
        [["a", "8", "8", "8", "3", "1"]],
    ),
    "an assignment before a command is its environment": ("A=1 b", [["A=1", "b"]]),
    "JSON with a variable": ('N=3\na {"b":$N}', [["a", '{"b":3}']]),
    "an escaped blank": ("a b\\ c", [["a", "b c"]]),
    "a variable of several words": (
        'A="-tp 8"\na $A "$A" --b=$A',
        [["a", "-tp", "8", "-tp 8", "--b=-tp", "8"]],
    ),
    "a variable of none": ('A=\na $A b "$A"', [["a", "b", ""]]),
    "a variable is not split where it is assigned": ('A="x y"\nB=$A\na "$B"', [["a", "x y"]]),
    "a variable that grows": ('A="-tp"\nA+=" 8"\na $A', [["a", "-tp", "8"]]),
    "an array": (
        'A=(x "y z" # note\n  w)\nA+=(v)\na "${A[@]}" ${A[*]}',
        [["a", *["x", "y z", "w", "v", "x", "y z", "w", "v"]]],
    ),
    "one of an array": ("A=(x y)\na ${A[0]}", [["a", "x"]]),
    "words only where a variable is set": ("A=1\na ${A:+yes} ${B:+no} ${B+no}", [["a", "yes"]]),
    "sums": ("N=2\na $((N * 8)) $(($N/2+1)) $((2*(3-1)))", [["a", "16", "2", "4"]]),
    "declared": ("declare -a A=(x)\nlocal B=y\na $A $B", [["a", "x", "y"]]),
}


@pytest.mark.parametrize("case", READ)
def test_a_text_is_read_as_the_shell_reads_it(case: str) -> None:
    text, expected = READ[case]
    assert words(text) == expected


BROKEN = {
    "a quote that is never closed": ("a 'b", "run.sh:1:3: the quote ' that opens here is never closed"),
    "a double quote on the second line": ('a \\\n  "b', 'run.sh:2:3: the quote " that opens here'),
    "a bracket that is never closed": ('a {"b": 1', "run.sh:1:3: the bracket { that opens here"),
    "a blank after the backslash": ("a b \\ \n  -c", "run.sh:1:5: a blank after the backslash"),
    "lines joined, the backslash left": ("a b \\ -c 1", "run.sh:1:5: a blank after the backslash"),
    "a document without end": ("cat > x <<EOF\na: 1\n", "run.sh:1:1: the document that starts here"),
    "a command inside that is never closed": ("a $(b", "run.sh:1:3: the command that opens here"),
    "an array that is never closed": ("A=(b\nc", "run.sh:1:3: the bracket ( that opens here"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_told_with_its_place(case: str) -> None:
    text, expected = BROKEN[case]
    with pytest.raises(ScenarioError) as caught:
        read_script(text, "run.sh")
    assert str(caught.value).startswith(expected)


def test_a_variable_that_nobody_set_is_named_where_it_is_used() -> None:
    [statement] = read_script("M=$N\nvllm serve $M --host $(hostname) `date`", "run.sh").statements
    assert [word.unknown for word in statement.words] == [(), (), ("N",), (), ("(hostname)",), ("`date`",)]


def test_what_a_branch_assigns_is_not_known() -> None:
    text = 'A=1\nif [[ "$X" == "y" ]]; then\n  B=2\nelse\n  B=3\nfi\nC=4\nrun $A $B $C'
    *_, run = read_script(text, "run.sh").statements
    assert [(word.text, word.unknown) for word in run.words[1:]] == [("1", ()), ("3", ("B",)), ("4", ())]


def test_files_written_in_the_text_are_kept() -> None:
    text = "D=fp8\ncat > a.yml <<EOF\ndtype: $D\nEOF\ncat << 'END' >> a.yml\nraw: $D\nEND\ntee b.yml <<EOF\nx: 1\nEOF\n"
    assert read_script(text, "run.sh").files == {"a.yml": "dtype: fp8\nraw: $D\n", "b.yml": "x: 1\n"}


def test_what_was_exported_is_the_environment_of_later_commands() -> None:
    first, second = read_script("A=1\na\nexport B=2\n# note\nb", "run.sh").statements
    assert not first.environment
    assert {name: word.text for name, word in second.environment.items()} == {"B": "2"}
    assert second.note == "# note"


def test_a_sum_of_what_nobody_knows_is_not_known() -> None:
    [statement] = read_script("run $((N * 8)) $((1 / 0)) $((x.y)) $((2 ** 9))", "run.sh").statements
    assert [len(word.unknown) for word in statement.words] == [0, 1, 1, 1, 1]
