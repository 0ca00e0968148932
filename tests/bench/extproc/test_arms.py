"""The tables of arms and workloads, and peers from the command line."""

from __future__ import annotations

import pytest

from bench.extproc import arms as arm_table
from bench.extproc import workloads as workload_table
from bench.extproc.arms import ARMS, Arm, Kind, chosen, everything, fill, peer, unavailable, usable
from bench.extproc.workloads import WORKLOADS
from picker import catalogue
from picker.settings import _parser

HELP = _parser().format_help()


def arm(name: str) -> Arm:
    return next(each for each in ARMS if each.name == name)


@pytest.mark.parametrize("name", [each.name for each in ARMS if each.kind is Kind.PICKER])
def test_this_picker_can_run(name: str) -> None:
    assert unavailable(arm(name), HELP) is None


def test_everything_is_every_scorer_and_filter_there_is() -> None:
    for cls in usable((*catalogue.SCORERS, *catalogue.FILTERS)):
        assert f"pluginRef: {cls.type}\n" in everything()


def test_a_flag_that_the_picker_does_not_have_is_named() -> None:
    probe = Arm("x", Kind.PICKER, "", ("--transport=h2", "--no-such-flag=1"))
    assert unavailable(probe, HELP) == "this picker has no --no-such-flag"
    # Not to be taken for a longer flag that begins, or ends, like it.
    assert unavailable(Arm("x", Kind.PICKER, "", ("--flag=1",)), "--flag-more --other--flag") == "this picker has no --flag"
    assert unavailable(Arm("x", Kind.PICKER, "", ("--flag=1",)), "  --flag true|false") is None


def test_a_configuration_that_the_picker_refuses_is_explained() -> None:
    probe = Arm("x", Kind.PICKER, "", (), "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nnonsense: 1\n")
    assert "nonsense" in (unavailable(probe, HELP) or "")


def test_arms_and_workloads_are_chosen_in_the_order_of_the_table() -> None:
    assert [a.name for a in chosen(ARMS, ["h2", "envoy"])] == ["envoy", "h2"]
    assert chosen(ARMS, None) == list(ARMS)
    assert [w.name for w in workload_table.chosen(["idle10", "small"])] == ["small", "idle10"]
    assert workload_table.chosen(None) == list(WORKLOADS)


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'h3': expected one of envoy, echo, h2"):
        chosen(ARMS, ["h3"])
    with pytest.raises(ValueError, match="'tiny': expected one of small, rate500"):
        workload_table.chosen(["tiny"])


def test_the_workloads_that_arms_name_exist() -> None:
    known = {workload.name for workload in WORKLOADS}
    assert all(set(a.only) <= known for a in ARMS)


def test_who_takes_part_in_what() -> None:
    by_name = {workload.name: workload for workload in WORKLOADS}
    assert {a.name for a in ARMS if by_name["small"].takes(a)} == {
        "envoy",
        "echo",
        "h2",
        "grpcio",
        "everything",
        "h2-1s",
        "no-metrics",
        "kept",
    }
    assert {a.name for a in ARMS if by_name["idle100"].takes(a)} == {"h2", "reference"}
    assert all(workload.takes(peer("other=cmd {grpc_port}")) for workload in WORKLOADS)


def test_a_peers_command_is_filled_in_word_by_word() -> None:
    other = peer("other = my-picker --port {grpc_port} --pods={endpoints} 'a b'")
    assert (other.name, other.kind) == ("other", Kind.PEER)
    values = {"grpc_port": "9002", "endpoints": "127.0.0.1:1,127.0.0.1:2"}
    assert fill(other.command, values) == ["my-picker", "--port", "9002", "--pods=127.0.0.1:1,127.0.0.1:2", "a b"]


@pytest.mark.parametrize(("text", "complaint"), [
    ("cmd {grpc_port}", "expected NAME=COMMAND"),
    ("a b=cmd {grpc_port}", "expected NAME=COMMAND"),
    ("x=", "expected NAME=COMMAND"),
    ("h2=cmd {grpc_port}", "an arm of that name exists"),
    ("x=cmd {port}", "unknown placeholder {port}"),
    ("x=cmd", r"must say \{grpc_port\}"),
    ("x=cmd {grpc_port} 'open", "No closing quotation"),
])  # fmt: skip
def test_a_peer_that_cannot_be_run_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        peer(text)


def test_names_are_unique() -> None:
    assert len({a.name for a in arm_table.ARMS}) == len(ARMS)
    assert len({w.name for w in WORKLOADS}) == len(WORKLOADS)
