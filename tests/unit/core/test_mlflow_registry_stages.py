"""The rules of stages, without a registry: which tags and aliases a transition leaves behind."""

import pytest

from src.core.errors import InvalidInputError, ModelNotFoundError
from src.core.registry.stages import (
    AliasChange,
    Change,
    TagChange,
    apply,
    check_stage,
    departure,
    enrolment,
    enrolment_tags,
    transition,
)
from src.core.registry.versions import RegisteredModel, RegisteredVersion

NOW = 1_000.0


def model(stages: dict[str, str], *, first: str | None = None, **aliases: str) -> RegisteredModel:
    """A model whose versions were moved to their stages in the order given; `first` has the priority."""
    versions = []
    for index, (number, stage) in enumerate(stages.items()):
        tags = {"stage": stage, "stage_changed_at": str(index)} if stage else {}
        tags |= {"inference_priority": "1"} if number == first else {}
        versions.append(RegisteredVersion("m", number, "s://x/y", tags))
    return RegisteredModel.of("m", "m", versions, aliases)


def stages(of: RegisteredModel) -> dict[str, str]:
    return {version.version: version.tagged_stage for version in reversed(of.versions)}


P, S, A, N = "production", "staging", "archived", "none"


@pytest.mark.parametrize(
    ("before", "moved", "stage", "archive", "tagged", "aliases"),
    [
        pytest.param(model({"1": N}), "1", P, False, {"1": P}, {P: "1"}, id="the first one serves"),
        pytest.param(model({"1": N}), "1", S, False, {"1": S}, {S: "1"}, id="the first one in staging"),
        pytest.param(
            model({"1": P, "2": N}, production="1"), "2", P, False, {"1": P, "2": P}, {P: "2"},
            id="entering production takes the alias and leaves the others there",
        ),
        pytest.param(
            model({"1": P, "2": P, "3": N}, production="2"), "3", P, True, {"1": A, "2": A, "3": P}, {P: "3"},
            id="archive_existing_versions archives the others",
        ),
        pytest.param(
            model({"1": P, "2": S, "3": S}, production="1", staging="2"), "3", S, True, {"1": P, "2": A, "3": S},
            {P: "1", S: "3"}, id="archive_existing_versions keeps to the stage",
        ),
        pytest.param(
            model({"1": P, "2": S, "3": S}, production="1", staging="3"), "3", P, False, {"1": P, "2": S, "3": P},
            {P: "3", S: "2"}, id="leaving staging passes its alias on",
        ),
        pytest.param(
            model({"2": P, "1": P, "3": P}, production="3"), "3", A, False, {"1": P, "2": P, "3": A}, {P: "1"},
            id="leaving passes the alias to the one moved there last",
        ),
        pytest.param(
            model({"2": P, "1": P, "3": P}, first="2", production="3"), "3", A, False, {"1": P, "2": P, "3": A},
            {P: "2"}, id="leaving passes the alias to the one with priority",
        ),
        pytest.param(
            model({"1": P, "2": A}, production="1"), "1", N, False, {"1": N, "2": A}, {}, id="the last one leaves none"
        ),
        pytest.param(
            model({"1": P, "2": P}, production="2"), "2", S, False, {"1": P, "2": S}, {P: "1", S: "2"},
            id="back to staging",
        ),
        pytest.param(
            model({"1": P, "2": P}, production="2"), "1", A, False, {"1": A, "2": P}, {P: "2"},
            id="leaving without the alias moves no alias",
        ),
        pytest.param(
            model({"1": P, "2": N}, production="1"), "2", A, False, {"1": P, "2": A}, {P: "1"},
            id="archiving only sets the tag",
        ),
        pytest.param(
            model({"1": P, "2": N}, production="1"), "2", A, True, {"1": P, "2": A}, {P: "1"},
            id="archiving archives nobody else",
        ),
        pytest.param(
            model({"1": P}, production="1"), "1", P, True, {"1": P}, {P: "1"}, id="entering again changes nothing"
        ),
        pytest.param(
            model({"1": P, "2": P}, production="1"), "2", P, False, {"1": P, "2": P}, {P: "2"},
            id="entering again takes the alias back",
        ),
        pytest.param(
            model({"1": A, "2": N}, production="1"), "2", P, True, {"1": A, "2": P}, {P: "2"},
            id="one that serves by alias alone is archived too",
        ),
        pytest.param(
            model({"1": "", "2": "", "3": P}, production="3"), "3", A, False, {"1": N, "2": N, "3": A}, {},
            id="versions without a tag inherit nothing",
        ),
        pytest.param(
            model({"1": P, "2": P}, production="1", champion="2"), "1", A, False, {"1": A, "2": P},
            {P: "2", "champion": "2"}, id="foreign aliases stay",
        ),
    ],
)  # fmt: skip
def test_a_transition(
    before: RegisteredModel, moved: str, stage: str, archive: bool, tagged: dict[str, str], aliases: dict[str, str]
) -> None:
    after = apply(before, transition(before, moved, stage, now=NOW, archive_others=archive))

    assert stages(after) == tagged
    assert after.aliases == aliases


def test_the_alias_switches_after_the_tag_of_who_enters_and_before_that_of_who_leaves() -> None:
    serving = model({"1": P, "2": N}, production="1")

    enters = transition(serving, "2", P, now=NOW)
    leaves = transition(serving, "1", A, now=NOW)

    assert enters.index(TagChange("2", "stage", P)) < enters.index(AliasChange(P, "2"))
    assert leaves.index(AliasChange(P, None)) < leaves.index(TagChange("1", "stage", A))


def test_the_order_of_moves_is_kept_when_the_clock_is_set_back() -> None:
    before = model({"1": P, "2": P, "3": N}, production="2")
    before = apply(before, [TagChange("2", "stage_changed_at", str(NOW * 2))])

    after = apply(before, transition(before, "3", P, now=NOW))
    last = apply(after, transition(after, "1", P, now=NOW))
    left = apply(last, transition(last, "1", A, now=NOW))

    assert left.aliases[P] == "3"


def test_a_time_that_is_none_counts_as_unknown() -> None:
    odd = [TagChange("1", "stage_changed_at", "inf"), TagChange("2", "stage_changed_at", "yesterday")]
    before = apply(model({"1": P, "2": P, "3": P}, production="3"), odd)

    after = apply(before, transition(before, "3", A, now=NOW))

    assert after.aliases[P] == "2"
    assert after.version("3").stage_changed_at == NOW  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("stage", "first", "aliases", "holders"),
    [
        (P, True, {P: "2"}, []),
        (P, False, {P: "2"}, ["1"]),
        (N, True, {P: "1"}, []),
        (S, False, {P: "1", S: "2"}, ["1"]),
    ],
)
def test_a_new_version_takes_its_alias_and_the_priority(
    stage: str, first: bool, aliases: dict[str, str], holders: list[str]
) -> None:
    before = model({"1": P, "2": N}, first="1", production="1")

    tags = enrolment_tags(before, stage, now=NOW, first=first)
    after = apply(before, enrolment(before, "2", stage, first=first))

    assert tags == {"stage": stage, "stage_changed_at": "1000.000000"} | ({"inference_priority": "1"} if first else {})
    assert after.aliases == aliases
    assert [version.version for version in after.versions if version.has_priority] == holders


def test_a_deleted_version_passes_every_alias_on() -> None:
    before = model({"1": P, "2": P}, production="2", staging="2")

    after = apply(before, departure(before, "2"))

    assert after.aliases == {P: "1"}


@pytest.mark.parametrize(
    "change", [TagChange("1", "stage", A), TagChange("1", "new", "x"), AliasChange(P, "2"), AliasChange(S, "1")]
)
def test_a_change_can_be_taken_back(change: Change) -> None:
    before = model({"1": P, "2": N}, production="1")

    assert apply(apply(before, [change]), [change.inverse(before)]) == before


def test_alias_and_tag_that_disagree() -> None:
    version = model({"1": A}, production="1").versions[0]

    assert version.stage == P
    assert version.tagged_stage == A
    assert "tagged archived, but the alias 'production'" in str(version.disagreement)


@pytest.mark.parametrize("before", [model({"1": P}, production="1"), model({"1": ""}, production="1"), model({"1": P})])
def test_alias_and_tag_that_agree_or_leave_each_other_alone(before: RegisteredModel) -> None:
    assert before.versions[0].disagreement is None


def test_a_version_that_does_not_exist() -> None:
    with pytest.raises(ModelNotFoundError, match=r"^Model 'm@9' not found in MLflow"):
        transition(model({"1": N}), "9", P, now=NOW)


def test_stages_are_folded_and_checked() -> None:
    assert check_stage(" Production ") == P
    with pytest.raises(InvalidInputError, match="production, staging, archived, none"):
        check_stage("prod")
