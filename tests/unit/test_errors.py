from placematd.errors import Mark, Mistake

MARK = Mark("lab.yml", 3, 7)


def test_a_warning_says_so_once_wherever_it_is_shown() -> None:
    warning = Mistake(MARK, "Node a", "key UEFI is written uefi", "v2 takes both", "warning")
    assert str(warning) == "lab.yml:3:7: warning: Node a: key UEFI is written uefi (v2 takes both)"
    assert warning.text == "lab.yml:3:7: Node a: key UEFI is written uefi (v2 takes both)"


def test_a_mistake_before_its_resource_is_known_has_no_subject_and_maybe_no_hint() -> None:
    assert str(Mistake(MARK, "", "tabs cannot indent")) == "lab.yml:3:7: tabs cannot indent"
