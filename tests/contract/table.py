"""The contract as data: each case, and what it shows in each service.

``everywhere`` holds for all. Where they differ, the columns say how; the one named ``sessiondb`` is the promise, whatever
its store.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from google.genai import types

from tests.contract import handles, logs, sessions, state
from tests.contract.places import KINDS, Kind, Place

Case = Callable[[Place], Awaitable[object]]


@dataclass(frozen=True)
class Row:
    """A case, and what is expected of it in each service."""

    case: Case
    expected: Mapping[Kind, object]

    @property
    def name(self) -> str:
        return self.case.__name__


def everywhere(case: Case, expected: object) -> Row:
    return Row(case, dict.fromkeys(KINDS, expected))


def differs(case: Case, *, memory: object, sqlite: object, sessiondb: object) -> Row:
    return Row(case, {"memory": memory, "sqlite": sqlite, "sessiondb": sessiondb, "postgres": sessiondb})


ALL_NONE = dict.fromkeys(("app:version", "never", "own", "user:theme"), None)
MODEL = types.ModalityTokenCount(token_count=3)
MODEL_JSON = {"modality": None, "tokenCount": 3}
MOMENT_TEXT = "2026-01-02T03:04:05Z"

SESSIONS = [
    everywhere(sessions.create_a_session_that_exists, "AlreadyExistsError"),
    everywhere(sessions.create_a_session_that_exists_under_a_padded_id, "AlreadyExistsError"),
    everywhere(sessions.a_refused_create_changes_no_user_state, {"theme": "dark"}),
    everywhere(sessions.a_padded_id_is_stripped, ("sess_abc", True)),
    everywhere(sessions.a_padded_id_deletes, None),
    everywhere(sessions.a_blank_id_is_replaced, (4, [True] * 4)),
    everywhere(sessions.ids_keep_their_case, ({"name": "lower"}, {"name": "upper"})),
    everywhere(sessions.one_id_serves_each_user_and_app, ["one", "two", "three"]),
    everywhere(
        sessions.create_returns_merged_state, {"app:flag": True, "app:version": 1, "own": 2, "user:theme": "dark"}
    ),
    everywhere(sessions.a_created_session_equals_the_one_read, (True, False)),
    everywhere(sessions.a_session_appended_to_equals_the_one_read, True),
    everywhere(sessions.a_returned_session_is_the_callers_own, ({"own": {"deep": [2]}}, 1)),
    everywhere(sessions.a_missing_session_is_none, [None] * 4),
    everywhere(sessions.deleting_a_missing_session, "ok"),
    everywhere(sessions.deleting_takes_the_session_alone, ({"app:version": 1, "user:theme": "dark"}, [], 1)),
    everywhere(sessions.user_state_has_no_prefixes, {"theme": "dark", "count": 2}),
    everywhere(sessions.user_state_of_a_stranger, ({}, {})),
    everywhere(sessions.list_order, [("u3", "d"), ("u0", "c"), ("u1", "b"), ("u1", "z"), ("u2", "a")]),
    everywhere(sessions.list_content, ({"app:version": 3, "own": 2, "user:theme": "dark"}, [], 1_000.0)),
    everywhere(sessions.list_filters, (["nobody's", "somebody's"], ["nobody's"])),
    everywhere(sessions.list_nothing, ([], [])),
    everywhere(sessions.last_update_time_is_exact, (True, True, True)),
    everywhere(sessions.last_update_time_may_go_back, (1_000.0, 1_000.0, 1_000.0)),
    everywhere(sessions.calls_go_by_keyword, (True, 1, {})),
]

LOGS = [
    everywhere(logs.append_returns_the_event_itself, (True, True)),
    everywhere(logs.append_to_a_missing_session, ("SessionNotFoundError", "ok")),
    differs(
        logs.a_refused_append_leaves_the_session_alone,
        memory=({"own": 1}, [], ["own", "temp:trace"]),
        sqlite=({"own": 1, "temp:trace": 1}, [], ["own"]),
        sessiondb=({"own": 1}, [], ["own", "temp:trace"]),
    ),
    everywhere(logs.a_partial_event_is_returned_as_it_is, (True, [], False)),
    differs(
        logs.the_same_event_again,
        memory=(["ok", "ok"], 1, 1),
        sqlite=(["ok", "IntegrityError"], 1, 1),
        sessiondb=(["ok", "ok"], 1, 1),
    ),
    # The log holds no temp keys: the in-memory service takes a copy that still has some for another event.
    differs(
        logs.an_equal_copy_again,
        memory=(["ok", "ok"], 2),
        sqlite=(["ok", "IntegrityError"], 1),
        sessiondb=(["ok", "ok"], 1),
    ),
    differs(
        logs.an_equal_copy_through_a_fresh_handle,
        memory=("ok", 1, 1),
        sqlite=("IntegrityError", 1, 1),
        sessiondb=("ok", 1, 1),
    ),
    differs(
        logs.an_equal_copy_through_a_stale_handle,
        memory=("ok", 1),
        sqlite=("StaleSessionError", 1),
        sessiondb=("ok", 1),
    ),
    differs(logs.an_equal_copy_after_reopening, memory=("ok", 1), sqlite=("IntegrityError", 1), sessiondb=("ok", 1)),
    differs(logs.the_event_as_it_was_read_again, memory=("ok", 1), sqlite=("IntegrityError", 1), sessiondb=("ok", 1)),
    differs(
        logs.one_event_a_thousand_times,
        memory=(["ok"], 1),
        sqlite=(["IntegrityError", "ok"], 1),
        sessiondb=(["ok"], 1),
    ),
    differs(
        logs.an_equal_event_whose_keys_come_in_another_order,
        memory=(["ok", "ok"], 1),
        sqlite=(["ok", "IntegrityError"], 1),
        sessiondb=(["ok", "ok"], 1),
    ),
    differs(
        logs.an_equal_event_whose_set_comes_in_another_order,
        memory=(["ok", "ok"], 1),
        sqlite=(["ok", "IntegrityError"], 1),
        sessiondb=(["ok", "ok"], 1),
    ),
    # Python's equality: 1, 1.0 and True are one value.
    everywhere(logs.an_event_that_differs_in_a_type_only, ["1"]),
    everywhere(logs.an_old_event_again_changes_no_state, ({"own": "new"}, {"own": "new"})),
    differs(
        logs.another_event_with_a_used_id,
        memory=(["ok", "ok"], ["used", "used"], {"own": 2}),
        sqlite=(["ok", "IntegrityError"], ["used"], {"own": 1}),
        sessiondb=(["ok", "ok"], ["used", "used"], {"own": 2}),
    ),
    everywhere(logs.one_event_id_in_two_sessions, (["ok", "ok"], 1, 1)),
    everywhere(logs.equal_timestamps_keep_append_order, "dacb"),
    differs(
        logs.backward_timestamps,
        memory=(["ok"] * 3, [3_000.0, 1_000.0, 2_000.0], [3_000.0, 1_000.0, 2_000.0]),
        sqlite=(["ok"] * 3, [3_000.0, 1_000.0, 2_000.0], [1_000.0, 2_000.0, 3_000.0]),
        sessiondb=(["ok"] * 3, [3_000.0, 1_000.0, 2_000.0], [3_000.0, 1_000.0, 2_000.0]),
    ),
    everywhere(logs.the_most_recent_events, [[], [3.0], [2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]),
    everywhere(logs.no_recent_events_still_have_their_state, ({"own": 2}, [], 1_000.0)),
    everywhere(logs.events_after_a_moment_include_it, [[1.0, 2.0, 3.0], [2.0, 3.0], [3.0], []]),
    differs(logs.the_epoch_is_a_moment, memory=[0.0, 1.0], sqlite=[-1.0, 0.0, 1.0], sessiondb=[0.0, 1.0]),
    differs(logs.events_after_a_moment_when_time_went_back, memory=[6.0], sqlite=[5.0, 6.0], sessiondb=[5.0, 6.0]),
    differs(logs.both_filters, memory=[2.0], sqlite=[2.0, 5.0], sessiondb=[2.0]),
    everywhere(logs.a_filtered_read_spoils_no_later_one, ([[3.0], [3.0], []], [1.0, 2.0, 3.0], [2.0, 3.0])),
]

STATE = [
    everywhere(
        state.keys_go_to_their_scope,
        [
            {"app:version": 2, "own": 1, "user:theme": "dark"},
            {"app:version": 2, "user:theme": "dark"},
            {"app:version": 2},
            {},
        ],
    ),
    everywhere(state.only_the_first_prefix_counts, (True, ["app:", "app:temp:x", "app:user:x"])),
    differs(
        state.none_in_a_delta,
        memory=({"kept": 1, **ALL_NONE}, True, {"theme": None}),
        sqlite=({"kept": 1, **ALL_NONE}, True, {"theme": None}),
        sessiondb=({"kept": 1}, True, {}),
    ),
    everywhere(
        state.none_at_creation,
        (
            {"app:version": None, "kept": 1, "own": None, "user:theme": None},
            True,
            {"app:version": None, "user:theme": None},
        ),
    ),
    everywhere(state.none_inside_a_value, {"own": {"x": None, "y": [None]}, "more": {"x": None}}),
    everywhere(state.a_deleted_key_can_be_set_again, ({"own": 2}, {"own": 2})),
    everywhere(state.temp_keys_of_an_event, ({"temp:trace": "xyz", "own": 1}, {"own": 1}, {"own": 1}, {"own": 1})),
    everywhere(state.temp_keys_at_creation, ({"own": 1}, {"own": 1})),
    everywhere(state.temp_keys_outlive_the_next_append, {"temp:trace": "xyz", "own": 1}),
]

# What a value is read back as, and what the live Session holds after the append.
VALUES = [
    differs(
        state.a_datetime,
        memory=(state.MOMENT, state.MOMENT),
        sqlite=(MOMENT_TEXT, state.MOMENT),
        sessiondb=(MOMENT_TEXT, MOMENT_TEXT),
    ),
    differs(state.a_model, memory=(MODEL, MODEL), sqlite=(MODEL_JSON, MODEL), sessiondb=(MODEL_JSON, MODEL_JSON)),
    differs(state.a_set, memory=({3}, {3}), sqlite=([3], {3}), sessiondb=([3], [3])),
    differs(state.a_tuple, memory=((1, (2,)), (1, (2,))), sqlite=([1, [2]], (1, (2,))), sessiondb=([1, [2]], [1, [2]])),
    differs(
        state.integer_keys,
        memory=({1: "one"}, {1: "one"}),
        sqlite=({"1": "one"}, {1: "one"}),
        sessiondb=({"1": "one"}, {"1": "one"}),
    ),
    differs(state.a_callable, memory=(len, len), sqlite=(repr(len), len), sessiondb=(repr(len), repr(len))),
    differs(
        state.bytes_of_utf8,
        memory=("grün".encode(), "grün".encode()),
        sqlite=("grün", "grün".encode()),
        sessiondb=("grün", "grün"),
    ),
    differs(
        state.bytes_of_anything,
        memory=(b"\xff\xfe", b"\xff\xfe"),
        sqlite="UnicodeDecodeError",
        sessiondb=("__4=", "__4="),
    ),
    differs(state.not_a_number, memory="a NaN", sqlite="OperationalError", sessiondb=({"x": None}, {"x": None})),
    differs(
        state.infinity,
        memory=([math.inf, -math.inf], [math.inf, -math.inf]),
        sqlite="OperationalError",
        sessiondb=([None, None], [None, None]),
    ),
    # Null stands for it in the log, and there null deletes.
    differs(
        state.a_bare_infinity,
        memory=(math.inf, math.inf),
        sqlite="OperationalError",
        sessiondb=("deleted", "deleted"),
    ),
    everywhere(state.a_large_integer, (2**70, 2**70)),
    differs(state.a_negative_zero, memory="(-0.0, -0.0)", sqlite="(0.0, -0.0)", sessiondb="(-0.0, -0.0)"),
    everywhere(state.a_precise_float, (0.1 + 0.2, 0.1 + 0.2)),
    differs(state.a_cycle, memory="a cycle", sqlite="ValueError", sessiondb=(["..."], ["..."])),
    differs(
        state.a_lone_surrogate,
        memory=("\ud800", "\ud800"),
        sqlite="PydanticSerializationError",
        sessiondb=("\ufffd", "\ufffd"),
    ),
    differs(
        state.a_lone_surrogate_inside,
        memory=({"\ud83d": ["caf\udce9.txt"]}, {"\ud83d": ["caf\udce9.txt"]}),
        sqlite="UnicodeEncodeError",
        sessiondb=({"\ufffd": ["caf\ufffd.txt"]}, {"\ufffd": ["caf\ufffd.txt"]}),
    ),
    # Read once, by whoever comes first.
    differs(state.a_generator, memory="cannot be read", sqlite=[[0, 1], []], sessiondb=[[0, 1], [0, 1]]),
    differs(
        state.an_iterator_inside,
        memory=[["1", "2"], ["1", "2"]],
        sqlite=[["1", "2"], []],
        sessiondb=[["1", "2"], ["1", "2"]],
    ),
    everywhere(state.a_value_refused_leaves_the_service_working, ("ok", {"own": "fine"})),
]

HANDLES = [
    differs(
        handles.an_overtaken_handle,
        memory=(["ok", "ok"], 1, {"own": 1, "temp:trace": 1}),
        sqlite=(["ok", "StaleSessionError"], 0, {"temp:trace": 1}),
        sessiondb=(["ok", "StaleSessionError"], 0, {}),
    ),
    differs(
        handles.an_overtaken_handle_when_clocks_stand_still,
        memory=["ok", "ok"],
        sqlite=["ok", "ok"],
        sessiondb=["ok", "StaleSessionError"],
    ),
    differs(
        handles.an_overtaken_handle_when_clocks_go_back,
        memory=["ok", "ok"],
        sqlite=["ok", "ok"],
        sessiondb=["ok", "StaleSessionError"],
    ),
    everywhere(handles.an_overtaken_handle_read_again, ("ok", 2)),
    everywhere(handles.a_handle_after_its_own_backward_appends, ["ok", "ok", "ok"]),
    everywhere(handles.a_handle_over_a_restart, ("ok", True)),
    differs(
        handles.a_handle_of_a_session_deleted_and_created_anew,
        memory=("ok", {"own": "old"}),
        sqlite=("StaleSessionError", {}),
        sessiondb=("StaleSessionError", {}),
    ),
    everywhere(handles.a_handle_out_of_json, ("ok", 2)),
    everywhere(handles.a_handle_out_of_json_before_the_first_event, "ok"),
    differs(
        handles.an_overtaken_handle_out_of_json,
        memory="ok",
        sqlite="StaleSessionError",
        sessiondb="StaleSessionError",
    ),
    differs(
        handles.a_handle_made_by_hand_for_a_new_session,
        memory=("ok", "ok"),
        sqlite=("StaleSessionError", "StaleSessionError"),
        sessiondb=("ok", "ok"),
    ),
    differs(
        handles.a_handle_made_by_hand_for_a_session_with_events,
        memory="ok",
        sqlite="StaleSessionError",
        sessiondb="StaleSessionError",
    ),
    everywhere(handles.concurrent_appends_on_one_session, ({"ok"}, 4, True)),
]

TABLE = [*SESSIONS, *LOGS, *STATE, *VALUES, *HANDLES]
